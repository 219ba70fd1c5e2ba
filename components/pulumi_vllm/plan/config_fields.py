"""What the blocks of the stack file share: their base class, what a change of a key does, and types of values."""

from __future__ import annotations

import re
from types import NoneType
from typing import Annotated, Any, Final, get_args

import pydantic
from pydantic import BeforeValidator, ConfigDict, Field, ValidationInfo
from pydantic_core import PydanticKnownError

from pulumi_vllm.plan import own_machine
from pulumi_vllm.plan.catalogue_lookup import CatalogueLookup

MOST_RUNNING_REQUESTS: Final = 2048
"""The most requests that vLLM may serve at the same time, and the most of one key."""

RESTART = "restarts vLLM"
RELOAD = "reloads the gateway"
PRIORITY = "reloads the gateway; the first key with a priority restarts vLLM too"
FIREWALL = "reloads the firewall"
REPLACE = "replaces the machine"
NEXT_MACHINE = "applies when the next machine is rented"
NOTHING = "nothing on the host"
WEIGHTS = "downloads the weights and restarts vLLM"
RECONCILE = "applies to `pulumi-vllm reconcile` after the next `pulumi up`"

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST_NAME = re.compile(rf"({_LABEL}\.)+(?=[a-z]){_LABEL}")


def key(change: str, unit: str = "", **constraints: Any) -> Any:
    """A key of the block: what a change of it does, the unit of its value, and pydantic's constraints."""
    extra: dict[str, Any] = {"change": change, "unit": unit} if unit else {"change": change}
    return Field(json_schema_extra=extra, **constraints)


class Block(pydantic.BaseModel):
    """A block of the stack file. Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _true_is_not_one(cls, value: object, info: ValidationInfo) -> object:
        """Refuse true and false as numbers. Pydantic reads them as 1 and 0."""
        if isinstance(value, bool):
            field = cls.model_fields[str(info.field_name)]
            kinds = set(get_args(field.annotation) or (field.annotation,)) - {NoneType}
            reads_it_itself = any(isinstance(one, BeforeValidator) for one in field.metadata)
            if kinds in ({int}, {float}) and not reads_it_itself:
                raise PydanticKnownError("int_type" if kinds == {int} else "float_type")
        return value


def lookup(info: ValidationInfo) -> CatalogueLookup:
    """The context of a validation."""
    if not isinstance(info.context, CatalogueLookup):
        msg = "a block is validated against the catalogue; call Deployment.parse"
        raise TypeError(msg)
    return info.context


def refuse_for_own_machine(value: object, info: ValidationInfo) -> None:
    """Refuse a key that was written beside `machine.cloud: none`, and has no meaning there."""
    if value is not None and lookup(info).own_machine:
        raise ValueError(own_machine.refusal(str(info.field_name)))


def _host_name(value: object) -> str:
    text = str(value)
    if len(text) > 253 or not _HOST_NAME.fullmatch(text):  # noqa: PLR2004 - the limit of DNS
        msg = f"{text[:80]!r} is not a DNS name; write one in lower case such as llm.example.com"
        raise ValueError(msg)
    return text


HostName = Annotated[str, BeforeValidator(_host_name)]
