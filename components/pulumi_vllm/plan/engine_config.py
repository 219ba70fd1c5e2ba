"""The block `engine` of the stack file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated

import pydantic
from pydantic import AfterValidator, BeforeValidator, ValidationInfo, WithJsonSchema

from pulumi_vllm.plan import product_flags
from pulumi_vllm.plan.config_fields import NOTHING, RESTART, Block, key, lookup
from pulumi_vllm.plan.lint import RULES
from pulumi_vllm.plan.suggestions import suggestion


def _flag_name(name: str) -> str:
    if name.startswith("-"):
        msg = f"is written with dashes; write {name.lstrip('-')}"
    elif (reason := product_flags.refusal_of_stack(name)) is not None:
        msg = f"cannot be set here; {reason}"
    elif "_" in name:
        msg = f"is not a flag of vLLM; did you mean {name.replace('_', '-')}?"
    else:
        return name
    raise ValueError(msg)


def _flag_value(value: object) -> object:
    """A mapping as JSON, and a list as the words of an argument that takes several."""
    if isinstance(value, Mapping):
        try:
            return json.dumps(value)
        except TypeError:
            msg = "is a mapping with values that JSON does not have; quote them"
            raise ValueError(msg) from None
    if isinstance(value, list | tuple) and value:
        if all(isinstance(one, int | float | str) and not isinstance(one, bool) for one in value):
            return " ".join(map(str, value))
        msg = "is a list of more than words and numbers; write it as JSON in quotes"
        raise ValueError(msg)
    if value is None or isinstance(value, list | tuple):
        msg = "is empty; write a value, true, or false"
        raise ValueError(msg)
    return value


def _rule_id(name: str) -> str:
    if name not in RULES:
        msg = f"{name!r} is not a lint rule; {suggestion(name, RULES)}"
        raise ValueError(msg)
    return name


FlagName = Annotated[str, AfterValidator(_flag_name)]
RuleId = Annotated[str, AfterValidator(_rule_id)]
_WORD = {"type": ["integer", "number", "string"]}
Flag = Annotated[
    bool | int | float | str,
    BeforeValidator(_flag_value),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": ["boolean", "integer", "number", "string", "object"]},
                {"type": "array", "items": _WORD, "minItems": 1},
            ]
        }
    ),
]


class EngineOptions(Block):
    """How vLLM is started, beyond what the plan decides."""

    version: Annotated[str | None, key("installs the version and restarts vLLM")] = None
    """Catalogue version of vLLM; unset takes the default of the catalogue (0.33.0 on H200, 0.26.0 on H100)."""
    flags: Annotated[Mapping[FlagName, Flag], key(RESTART)] = {}
    """Further vLLM arguments, without the dashes. A mapping becomes JSON, a list becomes words. The linter checks them
    as it checks the plan's own."""
    ignore: Annotated[Mapping[RuleId, str], key(NOTHING)] = {}
    """Lint rule → the reason why its finding does not apply here."""

    @pydantic.field_validator("version")
    @classmethod
    def _known_version(cls, version: str | None, info: ValidationInfo) -> str | None:
        return version if version is None else lookup(info).find_engine(version)
