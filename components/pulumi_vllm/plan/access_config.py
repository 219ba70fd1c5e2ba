"""The block `access` of the stack file."""

from __future__ import annotations

from typing import Annotated, Any, Final

import pydantic
from pydantic import BeforeValidator, Field, ValidationInfo

from pulumi_vllm.plan.address_ranges import client_range
from pulumi_vllm.plan.config_fields import (
    FIREWALL,
    MOST_RUNNING_REQUESTS,
    NOTHING,
    PRIORITY,
    RELOAD,
    Block,
    HostName,
    key,
    refuse_for_own_machine,
)

READINESS_KEY: Final = "readiness"
"""Name of the API key of the readiness check at the gateway. It is reserved."""

PRIORITIES: Final = {"high": -1, "normal": 0, "low": 1}
"""A key's priority → vLLM's, of which the lower one comes first."""

_KEY_NAME = r"^[a-z0-9][a-z0-9-]{0,30}$"  # HAProxy's stick table keeps 32 characters

Cidr = Annotated[str, BeforeValidator(client_range)]
KeyName = Annotated[str, Field(pattern=_KEY_NAME)]


class ApiKey(Block):
    """One API key. A bare name in the stack file is a key without limits of its own."""

    name: Annotated[KeyName, key("makes a new key, and reloads the gateway")]
    """Name of the key."""
    priority: Annotated[str, key(PRIORITY, pattern=f"^({'|'.join(PRIORITIES)})$")] = "normal"
    """`high`, `normal` or `low`. While requests wait, those of a higher priority come first. Keys with `low` share
    three quarters of the places in the engine, unless they set `concurrent`. With a priority, vLLM 0.33.0 reads long
    prompts in pieces of 256 tokens while others ask."""
    requests_per_minute: Annotated[int | None, key(RELOAD, "requests per 60 s", ge=1, le=1_000_000)] = None
    """In place of `gateway.requests_per_minute`."""
    concurrent: Annotated[int | None, key(RELOAD, "requests", ge=1, le=MOST_RUNNING_REQUESTS)] = None
    """Requests that run or wait at once, in place of `gateway.streams_per_key`. While requests wait, keys with no more
    than `concurrency` divided by the number of keys come first."""
    tokens_per_minute: Annotated[int | None, key(RELOAD, "tokens per 60 s", ge=1, le=1_000_000_000)] = None
    """Tokens of prompts and answers together; unset means without limit. A request is admitted while some are left,
    and what it takes beyond them is waited for."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value

    @pydantic.model_serializer(mode="wrap")
    def _as_written(self, handler: pydantic.SerializerFunctionWrapHandler) -> object:
        fields = type(self).model_fields
        chosen = {key: value for key, value in handler(self).items() if value != fields[key].default}
        return chosen if chosen.keys() > {"name"} else self.name


class _NameOrBlock:
    """In the schema, a key is a bare name or a block."""

    @staticmethod
    def __get_pydantic_json_schema__(core: Any, handler: pydantic.GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"type": "string", "pattern": _KEY_NAME}, handler(core)]}


class Access(Block):
    """Who may reach the machine."""

    allow: Annotated[tuple[Cidr, ...], key(FIREWALL, min_length=1)] = ()
    """Address ranges that may reach the gateway (port 443). `plan` answers without, `preview` and `up` need them."""
    ssh_allow: Annotated[tuple[Cidr, ...] | None, key(FIREWALL)] = None
    """Address ranges that may reach SSH; unset means the same as `allow`. An empty list closes SSH for everybody, also
    for the next `preview` and `up`. Ranges that don't admit the computer that runs `up` are refused."""
    hostname: Annotated[HostName | None, key("issues a new certificate and reloads the gateway")] = None
    """DNS name that clients use. It must point to the machine. Unset means that clients use the machine's address."""
    keys: Annotated[tuple[Annotated[ApiKey, _NameOrBlock()], ...], key(RELOAD, min_length=1)] = (
        ApiKey.model_construct(name="default"),
    )
    """The API keys: names, or blocks with limits. The values are secrets and are stored elsewhere."""
    accepted: Annotated[str | None, key(NOTHING)] = None
    """A text such as a date and a reason. With another one, the next `up` accepts accounts, SSH keys, sudo rules,
    options of sshd and forwarded ports as the host has them. Otherwise, a change of them on the host is a difference,
    which `up` leaves."""

    @property
    def ssh(self) -> tuple[str, ...]:
        """The address ranges that may reach SSH."""
        return self.allow if self.ssh_allow is None else self.ssh_allow

    @property
    def key_names(self) -> tuple[str, ...]:
        """The names of the API keys."""
        return tuple(key.name for key in self.keys)

    @pydantic.field_validator("ssh_allow")
    @classmethod
    def _of_a_rented_machine(
        cls, ranges: tuple[str, ...] | None, info: ValidationInfo
    ) -> tuple[str, ...] | None:
        refuse_for_own_machine(ranges, info)
        return ranges

    @pydantic.field_validator("keys")
    @classmethod
    def _distinct_names(cls, keys: tuple[ApiKey, ...]) -> tuple[ApiKey, ...]:
        names = [key.name for key in keys]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            msg = f"{', '.join(map(repr, repeated))} appears twice; give each key its own name"
            raise ValueError(msg)
        if READINESS_KEY in names:
            msg = f"'{READINESS_KEY}' is the key of the readiness check; choose another name"
            raise ValueError(msg)
        return keys
