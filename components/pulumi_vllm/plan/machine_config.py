"""The block `machine` of the stack file."""

from __future__ import annotations

from typing import Annotated, Any, Final

import pydantic
from pydantic import BeforeValidator, ValidationInfo, WithJsonSchema

from pulumi_vllm.plan import catalogue as catalogues
from pulumi_vllm.plan import engine_count, own_machine
from pulumi_vllm.plan.config_fields import (
    NEXT_MACHINE,
    NOTHING,
    RECONCILE,
    REPLACE,
    RESTART,
    Block,
    key,
    lookup,
    refuse_for_own_machine,
)
from pulumi_vllm.plan.yaml_text import in_yaml

HIGHEST_CEILING_USD: Final = 1000
"""The highest `max_usd_per_hour`. A higher ceiling would not protect against anything."""

_GPU_SCHEMA = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}],
}


def _one_or_several(value: object) -> object:
    if value is None or (isinstance(value, list | tuple) and not value):
        msg = f"is {'empty' if value is None else 'an empty list'}; write a GPU, or several in order of preference"
        raise ValueError(msg)
    if not isinstance(value, str | list | tuple):
        shown = "this" if isinstance(value, dict) else in_yaml(value)
        msg = f"{shown} is neither a GPU nor a list of GPUs; write for example H200, or [H200, H100]"
        raise ValueError(msg)  # noqa: TRY004 - pydantic reports no TypeError
    return (value,) if isinstance(value, str) else value


class Spot(Block):
    """When `pulumi-vllm reconcile` rents on demand in place of spot, and when it goes back."""

    losses: Annotated[int | None, key(RECONCILE, "machines", ge=1, le=100)] = None
    """After so many spot machines lost within `within_hours`, the next one is rented on demand. Unset: never."""
    within_hours: Annotated[float, key(RECONCILE, "hours", gt=0, le=720)] = 6
    """Time in which losses are counted."""
    back_after_hours: Annotated[float, key(RECONCILE, "hours", gt=0, le=720, validate_default=True)] = 24
    """After this time on demand, the server moves back to a spot machine, if one is on offer. Clients get 503
    meanwhile. Not shorter than `within_hours`."""

    @pydantic.field_validator("back_after_hours")
    @classmethod
    def _not_before_losses_are_old(cls, hours: float, info: ValidationInfo) -> float:
        within = info.data.get("within_hours")
        if within is not None and hours < within:
            msg = f"{hours:g} is shorter than within_hours, {within:g}; write {within:g} or more"
            raise ValueError(msg)
        return hours


class Machine(Block):
    """The machine to rent, or one that somebody else made."""

    cloud: Annotated[str, key(REPLACE, pattern=f"^(spheron|{own_machine.CLOUD})$", validate_default=True)] = (
        "spheron"
    )
    """Cloud that rents out the machine. The stack `local` uses the same client with another address. `none` is a
    machine that somebody else made: the program names it as `host`, and this package never ends it."""
    gpus: Annotated[
        tuple[str, ...],
        BeforeValidator(_one_or_several),
        WithJsonSchema(_GPU_SCHEMA),
        key(REPLACE, alias="gpu"),
    ]
    """GPU as in the catalogue, for example `H200`, or `H100 PCIe` for that form; or that of `gpus/NAME.yaml` beside the
    stack file, by name or path. `CPU` is for the local cloud. A list is in order of preference: the first one on offer
    within the ceiling is rented, and a machine with any of them stays."""
    count: Annotated[int, key(REPLACE, "GPUs", ge=0, le=8)]
    """GPUs in the machine; 0 with `gpu: CPU`."""
    engines: Annotated[int | None, key(RESTART, "engines", ge=1, le=engine_count.MOST_ENGINES)] = None
    """vLLM engines that share the machine, with as many GPUs each; `concurrency` is divided among them. A conversation
    stays on one. Unset: one engine over all GPUs, or several where they were measured to be a tenth faster."""
    billing: Annotated[str, key(REPLACE, pattern="^(on-demand|spot)$")] = "on-demand"
    """`on-demand`, or `spot`, which is cheaper and can be taken back at any moment."""
    fallback: Annotated[str | None, key(NEXT_MACHINE, pattern="^on-demand$")] = None
    """With `billing: spot`: `on-demand` rents an on-demand machine when no spot machine is offered."""
    max_usd_per_hour: Annotated[
        float | None,
        key(
            NEXT_MACHINE,
            "USD per hour",
            gt=0,
            le=HIGHEST_CEILING_USD,
            allow_inf_nan=False,
            validate_default=True,
        ),
    ] = None
    """Price ceiling of the whole machine. A machine above it is never rented. Required, unless `cloud` is `none`."""
    usd_per_hour: Annotated[
        float | None, key(NOTHING, "USD per hour", ge=0, allow_inf_nan=False, validate_default=True)
    ] = None
    """With `cloud: none`: what an hour of the machine costs you, 0 if nothing."""
    max_usd_per_day: Annotated[float | None, key(RECONCILE, "USD per day", gt=0, allow_inf_nan=False)] = None
    """Budget of machine and volume for a day of UTC. `pulumi-vllm reconcile` ends the machine before it is used up."""
    max_usd_per_month: Annotated[float | None, key(RECONCILE, "USD per month", gt=0, allow_inf_nan=False)] = (
        None
    )
    """The same for a calendar month of UTC."""
    spot: Annotated[Spot, key(RECONCILE)] = Spot.model_construct()
    """When `pulumi-vllm reconcile` rents on demand in place of spot, and when it goes back. Needs `fallback`."""
    replace: Annotated[str, key(NOTHING, pattern="^(delete-first|overlap)$")] = "delete-first"
    """How a change of GPU, count or billing goes. `delete-first` ends the machine, and the next one takes its volume.
    With `overlap` the next one gets a volume of its own, downloads the weights, and answers before the old machine and
    its volume are deleted. Both are billed meanwhile."""
    region: Annotated[str | None, key("applies when the volume is created; the machine stays with it")] = None
    """Region as the cloud names it; unset takes any region of the chosen offer."""
    keep_failed: Annotated[bool, key(NEXT_MACHINE)] = False
    """Whether a new machine is kept that never became ready: no SSH within an hour, or no ready vLLM. Otherwise
    `up` ends it, after its minimum run time, and says why. A machine on which vLLM was ready is never ended."""

    @property
    def is_own(self) -> bool:
        """Whether somebody else made the machine."""
        return self.cloud == own_machine.CLOUD

    @property
    def ceiling(self) -> float:
        """The price above which the machine is not rented. What a machine of one's own costs is paid anyway."""
        return (self.usd_per_hour if self.is_own else self.max_usd_per_hour) or 0.0

    @pydantic.field_validator("cloud")
    @classmethod
    def _noted_cloud(cls, cloud: str, info: ValidationInfo) -> str:
        lookup(info).own_machine = cloud == own_machine.CLOUD
        return cloud

    @pydantic.field_validator(
        "billing",
        "fallback",
        "max_usd_per_hour",
        "max_usd_per_day",
        "max_usd_per_month",
        "spot",
        "replace",
        "region",
        "keep_failed",
    )
    @classmethod
    def _of_a_rented_machine(cls, value: Any, info: ValidationInfo) -> Any:
        refuse_for_own_machine(value, info)
        return value

    @pydantic.field_validator("max_usd_per_hour")
    @classmethod
    def _ceiling_of_a_rented_machine(cls, usd: float | None, info: ValidationInfo) -> float | None:
        if usd is None and info.data.get("cloud", own_machine.CLOUD) != own_machine.CLOUD:
            msg = "missing; add it"
            raise ValueError(msg)
        return usd

    @pydantic.field_validator("replace")
    @classmethod
    def _one_gpu_with_overlap(cls, replace: str, info: ValidationInfo) -> str:
        if replace == "overlap" and len(info.data.get("gpus", ())) > 1:
            msg = "overlap needs one GPU, because each machine has a volume of its own; write one in machine.gpu"
            raise ValueError(msg)
        return replace

    @pydantic.field_validator("usd_per_hour")
    @classmethod
    def _price_of_an_own_machine(cls, usd: float | None, info: ValidationInfo) -> float | None:
        cloud = info.data.get("cloud")
        if usd is None and cloud == own_machine.CLOUD:
            msg = "missing; write what an hour of the machine costs you, 0 if nothing"
            raise ValueError(msg)
        if usd is not None and cloud not in {None, own_machine.CLOUD}:
            msg = (
                f"is the price of a machine with cloud: none, and {cloud} has prices; write max_usd_per_hour"
            )
            raise ValueError(msg)
        return usd

    @property
    def gpu(self) -> str:
        """The GPU that is planned for; the first one of several."""
        return self.gpus[0]

    @property
    def named(self) -> str:
        """Number and kind of its GPUs, or CPU."""
        return f"{self.count}x {self.gpu}" if self.count else self.gpu

    @pydantic.field_validator("gpus")
    @classmethod
    def _known_gpus(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        for name in reversed(names):  # the default engine is that of the first
            lookup(info).find_gpu(name)
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            msg = f"{', '.join(repeated)} appears twice; write each GPU once"
            raise ValueError(msg)
        if len(names) > 1 and catalogues.CPU in names:
            msg = f"{catalogues.CPU} is one of several; write it alone, or leave it out"
            raise ValueError(msg)
        if len(names) > 1 and info.data.get("cloud") == own_machine.CLOUD:
            msg = "names several, and the machine exists (machine.cloud: none); write the GPU that it has"
            raise ValueError(msg)
        return names

    @pydantic.field_validator("count")
    @classmethod
    def _count_of_gpu(cls, count: int, info: ValidationInfo) -> int:
        gpu = (info.data.get("gpus") or (None,))[0]
        if gpu is not None and (gpu == catalogues.CPU) != (count == 0):
            msg = f"{count} with gpu {gpu}; it must be 0 with CPU, and above 0 with a GPU"
            raise ValueError(msg)
        return count

    @pydantic.field_validator("engines")
    @classmethod
    def _divides_the_gpus(cls, engines: int | None, info: ValidationInfo) -> int | None:
        count = info.data.get("count")
        if engines is not None and count and count % engines:
            allowed = " or ".join(map(str, engine_count.divisors(count)))
            gpus = "1 GPU" if count == 1 else f"{count} GPUs evenly"
            msg = f"{engines} engines can't share {gpus}; write {allowed}"
            raise ValueError(msg)
        requests = lookup(info).concurrency
        if engines is not None and requests is not None and requests < engines:
            msg = (
                f"concurrency is {requests}, so that some of {engines} engines would get no request; "
                f"write concurrency: {engines} or more, or fewer engines"
            )
            raise ValueError(msg)
        return engines

    @pydantic.field_validator("fallback")
    @classmethod
    def _fallback_of_spot(cls, fallback: str | None, info: ValidationInfo) -> str | None:
        if fallback is not None and info.data.get("billing") != "spot":
            msg = "has no effect without billing: spot; leave it out"
            raise ValueError(msg)
        return fallback

    @pydantic.field_validator("spot")
    @classmethod
    def _spot_with_fallback(cls, spot: Spot, info: ValidationInfo) -> Spot:
        if spot.losses is not None and "fallback" in info.data and info.data["fallback"] is None:
            msg = "has no effect without billing: spot and fallback: on-demand; add both, or leave it out"
            raise ValueError(msg)
        return spot
