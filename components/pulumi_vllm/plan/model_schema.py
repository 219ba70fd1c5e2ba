"""The schema of a model file, `models/NAME.yaml`: every key, with a sentence for every error.

The shipped files under data/models/ follow it too; a test checks them, so that the catalogue loads without pydantic.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import pydantic
from pydantic import AfterValidator, ConfigDict, Field

from pulumi_vllm.plan import config_errors, product_flags, vllm_parser
from pulumi_vllm.plan.suggestions import suggestion
from pulumi_vllm.plan.tensor_groups import GROUPS

NAME_PATTERN: Final = r"[a-z0-9][a-z0-9.-]{0,62}"
"""A model's name: lower case, as file names and served names are."""

_PARSERS: Final = ("tool-call-parser", "reasoning-parser")


def _commit(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{40}", text):
        msg = (
            f"{text[:80]!r} is no commit; write its 40 hex digits, as the model hub shows them under History"
        )
        raise ValueError(msg)
    return text


def _repository(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", text):
        msg = f"{text[:80]!r} is not a repository; write owner/name, as the model hub does"
        raise ValueError(msg)
    return text


Commit = Annotated[str, AfterValidator(_commit), Field(json_schema_extra={"pattern": "^[0-9a-f]{40}$"})]
Repository = Annotated[str, AfterValidator(_repository)]
_Count = Annotated[int, Field(ge=0)]
_Size = Annotated[int, Field(ge=1)]


class _Block(pydantic.BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class Window(_Block):
    """Layers that keep the last tokens only."""

    tokens: _Size
    """Tokens that such a layer keeps."""
    layers: _Size
    """Layers with this window."""


class Linear(_Block):
    """Layers of linear attention (a gated delta net): a state per request in place of a KV cache."""

    layers: _Size
    key_heads: _Size
    value_heads: _Size
    key_dim: _Size
    value_dim: _Size
    convolution: _Size
    """Tokens of the convolution before it."""
    state_bytes: Literal[2, 4] = 2
    """Bytes of one number of the state."""


class Grouped(_Block):
    """Grouped-query attention; multi-head attention has as many KV heads as heads."""

    kind: Literal["gqa"]
    kv_heads: _Size
    head_dim: _Size
    rope_dim: _Size | None = None
    """Part of a head that is rotated; unset means all of it."""
    doubled_queries: bool = False
    """Whether the query projection is twice as wide, because the attention is gated."""
    window: Window | None = None
    linear: Linear | None = None


class Latent(_Block):
    """Multi-head latent attention (MLA)."""

    kind: Literal["mla"]
    q_lora_rank: _Count
    """0 if queries have no latent."""
    kv_lora_rank: _Size
    qk_nope_head_dim: _Size
    qk_rope_head_dim: _Size
    v_head_dim: _Size


class Dense(_Block):
    """A block without experts."""

    kind: Literal["dense"]
    intermediate: _Size


class Experts(_Block):
    """A mixture of experts."""

    kind: Literal["moe"]
    experts: _Size
    active: _Size
    """Experts per token."""
    shared: _Count = 0
    """Experts that every token uses."""
    intermediate: _Size
    shared_intermediate: _Size | None = None
    """Width of all shared experts together, if it is not theirs times `intermediate`."""
    dense_layers: _Count = 0
    """Layers without experts."""
    dense_intermediate: _Size | None = None


class Pixtral(_Block):
    """Pixtral's vision tower, for which there is a formula of what a step of images takes."""

    kind: Literal["pixtral"]
    parameters: _Size
    hidden: _Size
    intermediate: _Size
    patches: _Size
    tokens: _Size


class OtherTower(_Block):
    """Another vision tower: its weights are counted, what a step of images takes is not."""

    kind: Literal["other"]
    parameters: _Size


class Dimensions(_Block):
    """Sizes of the network, as the published config.json or params.json says."""

    layers: _Size
    hidden: _Size
    heads: _Size
    vocabulary: _Size
    tied_embeddings: bool
    rope_positions: _Size
    """Positions of the table of rotations: what the configuration advertises."""
    attention: Annotated[Grouped | Latent, Field(discriminator="kind")]
    mlp: Annotated[Dense | Experts, Field(discriminator="kind")]
    vision: Annotated[Pixtral | OtherTower, Field(discriminator="kind")] | None = None


class Precision(_Block):
    """One published form of the weights."""

    repository: Repository
    revision: Commit
    bytes: _Size
    """Size of the files to download."""
    linear_bytes: Annotated[float, Field(gt=0, le=4, strict=False)]
    """Bytes per parameter of attention."""
    expert_bytes: Annotated[float, Field(gt=0, le=4, strict=False)]
    """Bytes per parameter of experts, or of the dense block."""
    block_scales: bool = False
    """Whether quantised weights have one scale per block, not per tensor."""
    tensors: Mapping[str, _Size] = {}
    """Exact bytes by group, from the headers of the files."""
    include: Annotated[list[str], Field(min_length=1)] = ["*"]
    exclude: list[str] = []
    digests: Mapping[str, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]] = {}
    """Sha256 by path, where they are known."""

    @pydantic.field_validator("tensors")
    @classmethod
    def _known_groups(cls, tensors: Mapping[str, int]) -> Mapping[str, int]:
        for name in tensors:
            if name not in GROUPS:
                msg = f"{name!r} is no group of tensors; {suggestion(name, GROUPS)}"
                raise ValueError(msg)
        return tensors


class Requests(_Block):
    """How a client's request is read for a model whose tokenizer refuses it otherwise."""

    developer_role: str | None = None
    reasoning_efforts: Mapping[str, str] = {}
    thinking_effort: str | None = None


class Golden(_Block):
    """A prompt with the checksum of its answer's token ids."""

    prompt: str
    max_tokens: _Size
    reasoning_effort: str
    sha256_12: Annotated[str, Field(pattern="^[0-9a-f]{12}$")]


class ModelFile(_Block):
    """A model that a stack file can name."""

    name: Annotated[str, Field(pattern=f"^{NAME_PATTERN}$")]
    """The served name, and what `server.model` says."""
    architecture: str | None = None
    """Class of vLLM's registry."""
    source: str = ""
    """Where the figures come from."""
    license: str
    maximum_context: _Size
    """Longest request that the vendor supports, in tokens."""
    thinks: Literal["always", "on request", "never"] = "never"
    """When the model reasons before it answers."""
    dimensions: Dimensions
    precisions: Annotated[Mapping[str, Precision], Field(min_length=1)]
    """Name → published form; the first is the default."""
    flags: Mapping[str, bool | int | float | str] = {}
    """Flags of vLLM that this model needs."""
    requests: Requests | None = None
    golden: list[Golden] = []
    tasks: list[str] = ["generate"]
    """Tasks of vLLM that the model can do."""
    unknown: list[str] = []
    """What could not be known, a sentence each. A plan shows them."""

    @pydantic.field_validator("flags")
    @classmethod
    def _known_flags(cls, flags: Mapping[str, Any]) -> Mapping[str, Any]:
        problems = [f".{name}: {why}" for name, value in flags.items() if (why := _flag_problem(name, value))]
        if problems:
            raise ValueError("\n".join(problems))
        return flags


def _flag_problem(name: str, value: object) -> str | None:
    """What is wrong with a flag, by the parsers of all vLLM versions of the catalogue."""
    if (reason := product_flags.refusal(name)) is not None:
        return f"cannot be set here; {reason}"
    known = {
        key: one for version in vllm_parser.versions() for key, one in vllm_parser.accepted(version).items()
    }
    if name not in known:
        return f"is not a flag of vLLM; {suggestion(name, known)}"
    if name in _PARSERS:
        values = sorted({one for version in vllm_parser.versions() for one in _values(version, name)})
        if value not in values:
            return f"vLLM has no parser {str(value)[:80]!r}; {suggestion(str(value), values)}"
    return None


def _values(version: str, name: str) -> tuple[str, ...]:
    return tuple(vllm_parser.accepted(version).get(name, {}).get("values", ()))


def problems(data: object, where: str) -> tuple[str, ...]:
    """Every error of a model file's content, as "FILE: key: what; remedy"."""
    if not isinstance(data, Mapping):
        return (f"{where}: is not a block of keys; `pulumi-vllm model add` writes such a file",)
    try:
        ModelFile.model_validate(data)
    except pydantic.ValidationError as error:
        return tuple(
            f"{where}: {line}"
            for message in config_errors.messages(error, ModelFile, "")
            for line in _lines(message)
        )
    return ()


def _lines(message: str) -> list[str]:
    """One line for each error of a value that has several."""
    path, _, rest = message.partition(": ")
    return [f"{path}{line}" if line.startswith(".") else f"{path}: {line}" for line in rest.split("\n")]
