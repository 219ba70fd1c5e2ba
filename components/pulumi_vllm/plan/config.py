"""The stack file's `pulumi-vllm:server` block as frozen data. Every mistake is reported, with its path."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping  # noqa: TC003 - pydantic reads the annotations
from typing import Annotated, Any

import pydantic
from pydantic import BeforeValidator, ConfigDict, Field

from pulumi_vllm.plan import defaults
from pulumi_vllm.plan import quantities as units
from pulumi_vllm.plan import validation_messages as mistakes
from pulumi_vllm.plan.errors import ConfigError

MARK = "readiness"
"""The key name that our own readiness check uses at the gateway; nobody else may."""

LARGEST_GB = 64_000
"""The largest volume that any provider of the first cloud documents (2026-05)."""

MOST_AT_ONCE = 2048
"""Requests that the gateway passes on at the same time, of all keys together; more wait there 5 s, then get 503."""

_NAME = r"^[a-z0-9][a-z0-9-]{0,30}$"  # the gateway's stick table keeps 32 characters

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"({_LABEL}\.)+(?=[a-z]){_LABEL}")


def _cidr(value: object) -> str:
    try:
        return str(ipaddress.ip_network(str(value), strict=True))
    except ValueError as error:
        msg = f"{error}; write an address range such as 203.0.113.0/24"
        raise ValueError(msg) from error


def _host(value: object) -> str:
    text = str(value)
    if len(text) > 253 or not _HOST.fullmatch(text):  # noqa: PLR2004 - the limit of DNS
        msg = f"{text[:80]!r} is no DNS name; write one in lower case such as llm.example.com"
        raise ValueError(msg)
    return text


Tokens = Annotated[int, BeforeValidator(units.tokens)]
Gigabytes = Annotated[int, BeforeValidator(units.gigabytes), Field(le=LARGEST_GB)]
Cidr = Annotated[str, BeforeValidator(_cidr)]
HostName = Annotated[str, BeforeValidator(_host)]
KeyName = Annotated[str, Field(pattern=_NAME)]
Flag = bool | int | float | str


class _Block(pydantic.BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Machine(_Block):
    """The machine to rent."""

    cloud: Annotated[str, Field(pattern="^spheron$")] = "spheron"
    """Who rents it out. `local` stacks use the same client with another address."""
    gpu: str
    """GPU family as in the catalogue, for example H200; CPU for the local cloud."""
    count: Annotated[int, Field(ge=0, le=8)]
    """GPUs in the machine; 0 with gpu CPU."""
    billing: Annotated[str, Field(pattern="^(on-demand|spot)$")] = "on-demand"
    """`on-demand`, or `spot`: cheaper, can be taken away at any moment."""
    fallback: Annotated[str, Field(pattern="^on-demand$")] | None = None
    """With spot: `on-demand` rents that instead when no spot machine is offered."""
    max_usd_per_hour: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]
    """Price ceiling for the whole machine; nothing dearer is ever rented. Above 1000 it is none."""
    region: str | None = None
    """Region as the cloud names it; unset takes any region of the chosen offer."""


class Access(_Block):
    """Who may reach the machine."""

    allow: Annotated[tuple[Cidr, ...], Field(min_length=1)]
    """Address ranges that may reach the gateway (port 443)."""
    ssh_allow: tuple[Cidr, ...] | None = None
    """Address ranges that may reach SSH; unset means the same as `allow`."""
    hostname: HostName | None = None
    """DNS name that clients use; unset means the machine's address. The name has to point there."""
    keys: Annotated[tuple[KeyName, ...], Field(min_length=1)] = ("default",)
    """Names of the API keys; the values are secrets and live elsewhere."""

    @property
    def ssh(self) -> tuple[str, ...]:
        """The ranges that may reach SSH."""
        return self.allow if self.ssh_allow is None else self.ssh_allow

    @pydantic.field_validator("keys")
    @classmethod
    def _names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            msg = f"{', '.join(map(repr, twice))} appears twice; each key needs its own name"
            raise ValueError(msg)
        if MARK in names:
            msg = f"'{MARK}' is the name of our own readiness check; choose another"
            raise ValueError(msg)
        return names


class Weights(_Block):
    """Where the weights come from."""

    endpoint: Annotated[str, Field(pattern=r"^https?://[^\s/]+(/[^\s]*)?$")] = defaults.MODEL_HUB
    """Address of the model hub."""


class Gateway(_Block):
    """Limits at the gateway."""

    requests_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] = 6_000
    """Requests that one key may make in 60 s; more answer 429. The default is three times what the fastest measured
    machine answers: 2x H200, FP8, 256 streams, 8,358 output tok/s at 256 tokens each are 1,959 a minute."""
    max_body_mib: Annotated[int, Field(ge=1, le=512)] = 16
    """Largest request body; images arrive inside it as base64."""
    streams_per_key: Annotated[int, Field(ge=1, le=MOST_AT_ONCE)] = 512
    """Requests that one key may have running at once; more answer 429."""
    request_timeout_s: Annotated[int, Field(ge=1, le=600)] = 10
    """How long a client may take to send a request's header, and the first 32 KiB of its body."""
    idle_timeout_s: Annotated[int, Field(ge=1, le=3600)] = 60
    """How long a client may be silent in the TLS handshake, or take nothing of what it is sent."""
    answer_timeout_s: Annotated[int, Field(ge=1, le=3600)] = 600
    """Longest silence of the engine, before the first token or between two; then 504. A reload cuts after 61 min.
    A client that stops inside a body of more than 32 KiB is sent away after it, too."""


class Engine(_Block):
    """How vLLM is started, beyond what the plan decides."""

    version: str | None = None
    """Catalogue version; unset takes the newest that was started on such a machine."""
    flags: Mapping[str, Flag] = {}
    """Further vLLM flags without the dashes; they pass the same lint as ours."""
    ignore: Mapping[str, str] = {}
    """Lint rule → the reason why it does not apply here."""


class Deployment(_Block):
    """One served model on one machine: what a stack file says."""

    model: str
    """Catalogue name of the model."""
    precision: str | None = None
    """Precision of the weights, as in the catalogue; unset takes the model's first."""
    context: Tokens
    """Longest request in tokens, prompt and answer together."""
    concurrency: Annotated[int, Field(ge=1, le=MOST_AT_ONCE)] | None = None
    """Requests served at the same time (vLLM's max-num-seqs); or name a `profile`."""
    profile: Annotated[str, Field(pattern="^(throughput|latency|long)$")] | None = None
    """`throughput` (256 at once), `latency` (32) or `long` (8)."""
    machine: Machine
    """The machine to rent."""
    storage_gb: Annotated[Gigabytes, Field(alias="storage")]
    """Size of the volume that keeps weights and caches."""
    access: Access
    """Who may reach the machine."""
    weights: Weights = Weights()
    """Where the weights come from."""
    gateway: Gateway = Gateway()
    """Limits at the gateway."""
    engine: Engine = Engine()
    """How vLLM is started, beyond what the plan decides."""
    drain_timeout_s: Annotated[int, Field(ge=0, le=3600)] = defaults.DRAIN_TIMEOUT_S
    """How long running requests may finish before the engine is stopped."""

    @classmethod
    def parse(cls, mapping: Mapping[str, Any]) -> Deployment:
        """Read the block, or raise ConfigError with every mistake in it."""
        try:
            return cls.model_validate(mapping)
        except pydantic.ValidationError as error:
            found = mistakes.sentences(error, cls, "server")
            raise ConfigError((*found, *mistakes.named(mapping))) from None

    @property
    def sequences(self) -> int:
        """Requests served at the same time, from `concurrency` or `profile`."""
        if self.concurrency is not None:
            return self.concurrency
        return {"throughput": 256, "latency": 32, "long": 8}[self.profile or "throughput"]
