"""The schema of a GPU file, `gpus/NAME.yaml`: every key, with a sentence for every error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import pydantic
from pydantic import AfterValidator, ConfigDict, Field

from pulumi_vllm.plan import config_errors
from pulumi_vllm.plan.card_names import card_name

_MIB: Final = 1024
_DRIVER_GIB: Final = 1.1
"""The most that the driver keeps of a catalogued GPU's memory for itself is 1.08 GiB (GH200)."""
LEAST_CAPABILITY: Final = 7.5
"""vLLM's documentation from 0.21.0 on: "compute capability 7.5 or higher"."""


def _as_offered(name: str) -> str:
    if card_name(name) != name:
        msg = f"{name[:80]!r} is not how offers are compared; write {card_name(name)}"
        raise ValueError(msg)
    return name


_Name = Annotated[str, Field(pattern=r"^[A-Z0-9][A-Za-z0-9 ]{0,40}$"), AfterValidator(_as_offered)]


class UsdPerHour(pydantic.BaseModel):
    """Prices of one GPU, USD per hour."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    on_demand: Annotated[float | None, Field(gt=0, alias="on-demand")] = None
    spot: Annotated[float | None, Field(gt=0)] = None


class GpuFile(pydantic.BaseModel):
    """A GPU that a stack file can name, in one form. NVIDIA's only."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: _Name
    """What `machine.gpu` says, spelled as `plan/card_names.py` spells the names of offers, for example `RTX 3090`."""
    form: Literal["SXM", "PCIe", "NVL"]
    """A module on a board, or a card."""
    named: Annotated[list[Annotated[str, Field(min_length=2)]], Field(min_length=1)]
    """Words of the name that nvidia-smi prints, for example `[RTX 3090]`; preflight looks for them."""
    memory_mib: Annotated[int, Field(ge=4 * _MIB, le=1024 * _MIB)]
    """Memory as nvidia-smi prints it."""
    visible_gib: Annotated[float | None, Field(gt=0)] = None
    """Memory that PyTorch sees; unset takes 1.1 GiB less than `memory_mib`, which is unverified."""
    source: Annotated[str, Field(min_length=1)]
    """Where the figures come from. A plan shows it."""
    compute_capability: Annotated[str, Field(pattern=r"^\d{1,2}\.\d$")]
    """NVIDIA's compute capability, for example `"8.6"`, in quotes."""
    bandwidth_gb_s: Annotated[int | None, Field(ge=1)] = None
    """Bandwidth of the memory."""
    nvlink_gb_s: Annotated[int | None, Field(ge=1)] = None
    """NVLink of one GPU in both directions; unset means none."""
    nvlink_pairs: bool = False
    """Whether NVLink connects two cards only."""
    nvswitch_from: Annotated[int | None, Field(ge=2, le=8)] = None
    """From so many GPUs on, the machine needs NVIDIA's fabric manager."""
    processor: Literal["x86_64", "aarch64"] = "x86_64"
    """Processor of the machine."""
    usd_per_hour: UsdPerHour = UsdPerHour.model_construct()
    """Prices where no offers are asked for, USD per GPU and hour."""

    @pydantic.field_validator("compute_capability")
    @classmethod
    def _run_by_vllm(cls, capability: str) -> str:
        if float(capability) < LEAST_CAPABILITY:
            msg = f"vLLM's packages run on {LEAST_CAPABILITY} or higher, not on {capability}; choose another GPU"
            raise ValueError(msg)
        return capability

    @pydantic.field_validator("visible_gib")
    @classmethod
    def _below_the_whole(cls, gib: float | None, info: pydantic.ValidationInfo) -> float | None:
        whole = info.data.get("memory_mib", 0) / _MIB
        if gib is not None and whole and not 0.9 * whole < gib < whole:
            msg = f"{gib:g} is not a little below the {whole:.2f} GiB of memory_mib; write what PyTorch reports in GiB"
            raise ValueError(msg)
        return gib


def problems(data: object, where: str) -> tuple[str, ...]:
    """Every error of a GPU file's content, as "FILE: key: what; remedy"."""
    if not isinstance(data, Mapping):
        return (f"{where}: is not a block of keys; `pulumi-vllm schema --gpu` prints them",)
    try:
        GpuFile.model_validate(data)
    except pydantic.ValidationError as error:
        return tuple(f"{where}: {message}" for message in config_errors.messages(error, GpuFile, ""))
    return ()


def fields(data: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a file without errors, as the catalogue's entry has it."""
    found = {key: value for key, value in data.items() if key not in {"name", "source"}}
    seen = "" if "visible_gib" in found else "; what a program sees of the memory is unverified"
    return {
        "visible_gib": round(found["memory_mib"] / _MIB - _DRIVER_GIB, 2),
        **found,
        "memory_from": f"reported: {data['source']}{seen}",
    }
