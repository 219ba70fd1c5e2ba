"""The stack file's `pulumi-vllm:server` block as frozen data.

Every key has its description below it. `change` says what a change of the key does to a running stack. The reference
of the stack file and its JSON Schema are generated from both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

import pydantic
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationInfo, WithJsonSchema

from pulumi_vllm.plan import catalogue as catalogues
from pulumi_vllm.plan import config_errors, defaults, own_models, product_flags, quantities, schedule, storage
from pulumi_vllm.plan.address_ranges import client_range
from pulumi_vllm.plan.catalogue_lookup import CatalogueLookup
from pulumi_vllm.plan.errors import ConfigError
from pulumi_vllm.plan.lint import RULES
from pulumi_vllm.plan.suggestions import suggestion

if TYPE_CHECKING:
    import pathlib

READINESS_KEY: Final = "readiness"
"""Name of the API key of the readiness check at the gateway. It is reserved."""

LARGEST_VOLUME_GB: Final = 64_000
"""The largest volume that any provider of Spheron documents (2026-05)."""

MOST_RUNNING_REQUESTS: Final = 2048
"""The most requests that vLLM may serve at the same time, and the most of one key."""

PRIORITIES: Final = {"high": -1, "normal": 0, "low": 1}
"""A key's priority → vLLM's, of which the lower one comes first."""

HIGHEST_CEILING_USD: Final = 1000
"""The highest `max_usd_per_hour`. A higher ceiling would not protect against anything."""

_SEQUENCES = {"batch": 512, "throughput": 256, "latency": 32, "long": 8}

_RESTART = "restarts vLLM"
_RELOAD = "reloads the gateway"
_PRIORITY = "reloads the gateway; the first key with a priority restarts vLLM too"
_FIREWALL = "reloads the firewall"
_REPLACE = "replaces the machine"
_NEXT_MACHINE = "applies when the next machine is rented"
_NOTHING = "nothing on the host"
_WEIGHTS = "downloads the weights and restarts vLLM"
_RECONCILE = "applies to `pulumi-vllm reconcile` after the next `pulumi up`"

_KEY_NAME = r"^[a-z0-9][a-z0-9-]{0,30}$"  # HAProxy's stick table keeps 32 characters

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST_NAME = re.compile(rf"({_LABEL}\.)+(?=[a-z]){_LABEL}")
_ORIGIN = re.compile(
    r"(https?|[a-z][a-z0-9-]{0,40}-extension)://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?"
)
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._:-]{0,95}){0,3}")


def _host_name(value: object) -> str:
    text = str(value)
    if len(text) > 253 or not _HOST_NAME.fullmatch(text):  # noqa: PLR2004 - the limit of DNS
        msg = f"{text[:80]!r} is not a DNS name; write one in lower case such as llm.example.com"
        raise ValueError(msg)
    return text


def _flag_name(name: str) -> str:
    if name.startswith("-"):
        msg = f"is written with dashes; write {name.lstrip('-')}"
    elif (reason := product_flags.refusal(name)) is not None:
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


def _model_name(value: object) -> str:
    text = str(value)
    if not _MODEL_NAME.fullmatch(text):
        msg = f"{text[:80]!r} is not a model name; write up to four parts of letters, digits and ._:-, with / between"
        raise ValueError(msg)
    return text


def _origin(value: object) -> str:
    text = str(value)
    if len(text) > 300 or not _ORIGIN.fullmatch(text):  # noqa: PLR2004 - longer than any name and port
        msg = f"{text[:80]!r} is not an origin; write scheme and host in lower case, such as https://chat.example.com"
        raise ValueError(msg)
    return text


def _cron_text(text: str) -> str:
    schedule.parse(text)
    return text


Tokens = Annotated[int, BeforeValidator(quantities.tokens), WithJsonSchema(quantities.TOKENS_SCHEMA)]
Gigabytes = Annotated[
    int,
    BeforeValidator(quantities.gigabytes),
    Field(le=LARGEST_VOLUME_GB),
    WithJsonSchema(quantities.GIGABYTES_SCHEMA),
]
# The cloud ends no machine within its first 20 minutes.
Period = Annotated[
    int,
    BeforeValidator(quantities.seconds_between("30m", "366d")),
    WithJsonSchema(quantities.SECONDS_SCHEMA),
]
CronText = Annotated[str, AfterValidator(_cron_text)]
Cidr = Annotated[str, BeforeValidator(client_range)]
HostName = Annotated[str, BeforeValidator(_host_name)]
KeyName = Annotated[str, Field(pattern=_KEY_NAME)]
Origin = Annotated[str, BeforeValidator(_origin)]
ModelName = Annotated[str, BeforeValidator(_model_name)]
Effort = Annotated[str, Field(pattern="^(none|minimal|low|medium|high|xhigh|max)$")]
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


def _key(change: str, unit: str = "", **constraints: Any) -> Any:
    """A key of the block: what a change of it does, the unit of its value, and pydantic's constraints."""
    extra: dict[str, Any] = {"change": change, "unit": unit} if unit else {"change": change}
    return Field(json_schema_extra=extra, **constraints)


class _Block(pydantic.BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Spot(_Block):
    """When `pulumi-vllm reconcile` rents on demand in place of spot, and when it goes back."""

    losses: Annotated[int | None, _key(_RECONCILE, "machines", ge=1, le=100)] = None
    """After so many spot machines lost within `within_hours`, the next one is rented on demand. Unset: never."""
    within_hours: Annotated[float, _key(_RECONCILE, "hours", gt=0, le=720)] = 6
    """Time in which losses are counted."""
    back_after_hours: Annotated[float, _key(_RECONCILE, "hours", gt=0, le=720, validate_default=True)] = 24
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


class Machine(_Block):
    """The machine to rent."""

    cloud: Annotated[str, _key(_REPLACE, pattern="^spheron$")] = "spheron"
    """Cloud that rents out the machine. The stack `local` uses the same client with another address."""
    gpu: Annotated[str, _key(_REPLACE)]
    """GPU family as in the catalogue, for example `H200`; `CPU` for the local cloud."""
    count: Annotated[int, _key(_REPLACE, "GPUs", ge=0, le=8)]
    """GPUs in the machine; 0 with `gpu: CPU`."""
    billing: Annotated[str, _key(_REPLACE, pattern="^(on-demand|spot)$")] = "on-demand"
    """`on-demand`, or `spot`, which is cheaper and can be taken back at any moment."""
    fallback: Annotated[str | None, _key(_NEXT_MACHINE, pattern="^on-demand$")] = None
    """With `billing: spot`: `on-demand` rents an on-demand machine when no spot machine is offered."""
    max_usd_per_hour: Annotated[
        float, _key(_NEXT_MACHINE, "USD per hour", gt=0, le=HIGHEST_CEILING_USD, allow_inf_nan=False)
    ]
    """Price ceiling of the whole machine. A machine above it is never rented."""
    max_usd_per_day: Annotated[float | None, _key(_RECONCILE, "USD per day", gt=0, allow_inf_nan=False)] = (
        None
    )
    """Budget of machine and volume for a day of UTC. `pulumi-vllm reconcile` ends the machine before it is used up."""
    max_usd_per_month: Annotated[
        float | None, _key(_RECONCILE, "USD per month", gt=0, allow_inf_nan=False)
    ] = None
    """The same for a calendar month of UTC."""
    spot: Annotated[Spot, _key(_RECONCILE)] = Spot.model_construct()
    """When `pulumi-vllm reconcile` rents on demand in place of spot, and when it goes back. Needs `fallback`."""
    replace: Annotated[str, _key(_NOTHING, pattern="^(delete-first|overlap)$")] = "delete-first"
    """How a change of GPU, count or billing goes. `delete-first` ends the machine, and the next one takes its volume.
    With `overlap` the next one gets a volume of its own, downloads the weights, and answers before the old machine and
    its volume are deleted. Both are billed meanwhile."""
    region: Annotated[str | None, _key("applies when the volume is created; the machine stays with it")] = (
        None
    )
    """Region as the cloud names it; unset takes any region of the chosen offer."""
    keep_failed: Annotated[bool, _key(_NEXT_MACHINE)] = False
    """Whether a new machine is kept that never became ready: no SSH within an hour, or no ready vLLM. Otherwise
    `up` ends it, after its minimum run time, and says why. A machine on which vLLM was ready is never ended."""

    @pydantic.field_validator("gpu")
    @classmethod
    def _known_gpu(cls, name: str, info: ValidationInfo) -> str:
        return _lookup(info).find_gpu(name)

    @pydantic.field_validator("count")
    @classmethod
    def _count_of_gpu(cls, count: int, info: ValidationInfo) -> int:
        gpu = info.data.get("gpu")
        if gpu is not None and (gpu == catalogues.CPU) != (count == 0):
            msg = f"{count} with gpu {gpu}; it must be 0 with CPU, and above 0 with a GPU"
            raise ValueError(msg)
        return count

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


class ApiKey(_Block):
    """One API key. A bare name in the stack file is a key without limits of its own."""

    name: Annotated[KeyName, _key("makes a new key, and reloads the gateway")]
    """Name of the key."""
    priority: Annotated[str, _key(_PRIORITY, pattern=f"^({'|'.join(PRIORITIES)})$")] = "normal"
    """`high`, `normal` or `low`. While requests wait, those of a higher priority come first. Keys with `low` share
    three quarters of the places in the engine, unless they set `concurrent`."""
    requests_per_minute: Annotated[int | None, _key(_RELOAD, "requests per 60 s", ge=1, le=1_000_000)] = None
    """In place of `gateway.requests_per_minute`."""
    concurrent: Annotated[int | None, _key(_RELOAD, "requests", ge=1, le=MOST_RUNNING_REQUESTS)] = None
    """Requests that run or wait at once, in place of `gateway.streams_per_key`."""
    tokens_per_minute: Annotated[int | None, _key(_RELOAD, "tokens per 60 s", ge=1, le=1_000_000_000)] = None
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


class Access(_Block):
    """Who may reach the machine."""

    allow: Annotated[tuple[Cidr, ...], _key(_FIREWALL, min_length=1)] = ()
    """Address ranges that may reach the gateway (port 443). `plan` answers without, `preview` and `up` need them."""
    ssh_allow: Annotated[tuple[Cidr, ...] | None, _key(_FIREWALL)] = None
    """Address ranges that may reach SSH; unset means the same as `allow`. An empty list closes SSH for everybody, also
    for the next `preview` and `up`. Ranges that don't admit the computer that runs `up` are refused."""
    hostname: Annotated[HostName | None, _key("issues a new certificate and reloads the gateway")] = None
    """DNS name that clients use. It must point to the machine. Unset means that clients use the machine's address."""
    keys: Annotated[tuple[Annotated[ApiKey, _NameOrBlock()], ...], _key(_RELOAD, min_length=1)] = (
        ApiKey.model_construct(name="default"),
    )
    """The API keys: names, or blocks with limits. The values are secrets and are stored elsewhere."""
    accepted: Annotated[str | None, _key(_NOTHING)] = None
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


class Weights(_Block):
    """Where the weights come from."""

    repository: Annotated[str | None, _key(_WEIGHTS)] = None
    """Repository of a fine-tune of the model, for example `example/support-llm`. It must have the model's dimensions
    and precision; figures are the model's. Set it with `revision`, and `hfToken` if it is private."""
    revision: Annotated[str | None, _key(_WEIGHTS, validate_default=True)] = None
    """Commit of that repository, 40 hex digits."""
    endpoint: Annotated[
        str, _key("applies to the next download of weights", pattern=r"^https?://[^\s/]+(/[^\s]*)?$")
    ] = defaults.MODEL_HUB
    """Address of the model hub."""

    @pydantic.field_validator("repository")
    @classmethod
    def _a_repository(cls, name: str | None) -> str | None:
        if name is not None and not _REPOSITORY.fullmatch(name):
            msg = f"{name[:80]!r} is not a repository; write owner/name, as the model hub does"
            raise ValueError(msg)
        return name

    @pydantic.field_validator("revision")
    @classmethod
    def _a_commit(cls, revision: str | None, info: ValidationInfo) -> str | None:
        if revision is not None and not re.fullmatch("[0-9a-f]{40}", revision):
            msg = f"{revision[:80]!r} is no commit; write its 40 hex digits"
            raise ValueError(msg)
        # A wrong repository is absent from the data, an unset one is None.
        if "repository" in info.data and (revision is None) != (info.data["repository"] is None):
            msg = "has no effect without server.weights.repository; set both, or neither"
            raise ValueError(
                msg if revision is not None else "missing; pin the commit of server.weights.repository"
            )
        return revision


class Gateway(_Block):
    """Limits at the gateway."""

    requests_per_minute: Annotated[int, _key(_RELOAD, "requests per 60 s", ge=1, le=1_000_000)] = 6_000
    """Requests that one key may make in 60 s; further ones get 429. The default is more than twice what the
    fastest measured machine answers: 2x H200 in FP8 with 512 streams generates 10,953 tokens/s, which is 2,567 answers
    of 256 tokens a minute."""
    max_body_mib: Annotated[int, _key(_RELOAD, "MiB", ge=1, le=512)] = 16
    """Largest request body. Images are sent inside it as base64."""
    streams_per_key: Annotated[int, _key(_RELOAD, "requests", ge=1, le=MOST_RUNNING_REQUESTS)] = 512
    """Requests of one key that run or wait at once; further ones get 429."""
    queue_timeout_s: Annotated[int, _key(_RELOAD, "seconds", ge=1, le=3600)] = 30
    """The gateway passes on as many requests at once as vLLM serves (`concurrency`). Further ones wait so long, then
    get 503. At the slowest measured level, 512 streams in NVFP4 on one H200, an answer of 256 tokens takes 18 s."""
    request_timeout_s: Annotated[int, _key(_RELOAD, "seconds", ge=1, le=600)] = 10
    """Time in which a client must send a request's header and the first 32 KiB of its body."""
    idle_timeout_s: Annotated[int, _key(_RELOAD, "seconds", ge=1, le=3600)] = 60
    """How long a client may be silent in the TLS handshake, or may read nothing of the answer."""
    answer_timeout_s: Annotated[int, _key(_RELOAD, "seconds", ge=1, le=3600)] = 600
    """Longest silence of the engine before the first token or between two tokens; then the client gets 504. It also
    ends a request whose client stops inside a body of more than 32 KiB. A reload of the gateway cuts requests that
    still run 61 minutes later."""
    cors_origins: Annotated[tuple[Origin, ...], _key(_RELOAD)] = ()
    """Origins of web pages that may call the API from a browser, for example `https://chat.example.com`."""
    media_domains: Annotated[tuple[HostName, ...], _key(_RESTART)] = ()
    """Host names from which vLLM may fetch an image that a request names by its address. Without any it fetches
    nothing, and clients send images inside the request. Redirects are never followed, and a name that leads to this
    host or to an address that is not public is refused by the firewall."""


class Requests(_Block):
    """What one request may ask for, and how it is adapted to the model."""

    reasoning_efforts: Annotated[Mapping[Effort, Effort] | None, _key(_RESTART)] = None
    """A client's reasoning effort → the model's. Unset takes the catalogue's; `{}` passes every effort on unchanged."""
    choices: Annotated[int, _key(_RESTART, "answers", ge=1, le=16_384)] = 32
    """Answers that one request may ask for: prompts times `n`. vLLM's own limit is 16,384, and 2,000 let another client
    wait for 42 s. The number is part of the key of vLLM's compile cache, so the first start after a change is a cold
    one."""
    media: Annotated[int, _key(_RESTART, "files", ge=0, le=999)] = 64
    """Images and other files in one request."""
    image_megapixels: Annotated[int, _key(_RESTART, "million pixels", ge=1, le=178)] = 64
    """Size of one image once it is unpacked, 3 bytes a pixel. A few kilobytes can hold an image of 178 million pixels,
    which is vLLM's own limit."""
    tools: Annotated[int, _key(_RESTART, "tools", ge=0, le=10_000)] = 256
    """Tools in one request."""
    schema_kib: Annotated[int, _key(_RESTART, "KiB", ge=1, le=16_384)] = 128
    """Size of the schema, grammar, pattern or list of choices that an answer must follow. 1.6 MB took vLLM 23 s, in
    which it answered nobody; 128 KiB take about one."""
    characters_per_token: Annotated[int, _key(_RESTART, "characters", ge=1, le=1_000)] = 16
    """Longest text of a request, as a multiple of `context`, and never less than 65,536 characters. vLLM splits a text
    into tokens before it refuses one that is too long: 14 MB kept others waiting for 5 s."""


class EngineOptions(_Block):
    """How vLLM is started, beyond what the plan decides."""

    version: Annotated[str | None, _key("installs the version and restarts vLLM")] = None
    """Catalogue version of vLLM; unset takes the default of the catalogue (0.33.0 on H200, 0.26.0 on H100)."""
    flags: Annotated[Mapping[FlagName, Flag], _key(_RESTART)] = {}
    """Further vLLM arguments, without the dashes. A mapping becomes JSON, a list becomes words. The linter checks them
    as it checks the plan's own."""
    ignore: Annotated[Mapping[RuleId, str], _key(_NOTHING)] = {}
    """Lint rule → the reason why its finding does not apply here."""

    @pydantic.field_validator("version")
    @classmethod
    def _known_version(cls, version: str | None, info: ValidationInfo) -> str | None:
        return version if version is None else _lookup(info).find_engine(version)


class Schedule(_Block):
    """When the machine is meant to run. `plan` computes its price; docs/how-to/schedule.md says how to do it."""

    up: Annotated[CronText | None, _key(_NOTHING)] = None
    """Cron expression in UTC (minute, hour, day, month, weekday) for `pulumi up`, for example `0 7 * * 1-5`."""
    down: Annotated[CronText | None, _key(_NOTHING)] = None
    """The same for the end of the machine, for example `0 20 * * 1-5`. The volume is kept."""

    @pydantic.model_validator(mode="after")
    def _both(self) -> Schedule:
        if (self.up is None) != (self.down is None):
            msg = f"has {'up' if self.up else 'down'} only; add {'down' if self.up else 'up'}"
            raise ValueError(msg)
        if self.up and self.down and schedule.parse(self.up) == schedule.parse(self.down):
            msg = "up and down fire at the same times; write other ones"
            raise ValueError(msg)
        return self

    @property
    def hours_per_month(self) -> float | None:
        """Hours between up and down, as a mean over the months of a year; None without a schedule."""
        if self.up is None or self.down is None:
            return None
        return schedule.hours_per_month(schedule.parse(self.up), schedule.parse(self.down))


class Deployment(_Block):
    """One served model on one machine, as the stack file describes it."""

    model: Annotated[str, _key(_WEIGHTS)]
    """Name of a model of the catalogue or of `models/NAME.yaml` beside the stack file, or the path of such a file, for
    example `./models/x.yaml`. Clients write the model's name as `model`, or its name at the hub, or an alias."""
    aliases: Annotated[tuple[ModelName, ...], _key(_RESTART)] = ()
    """Further names that clients may write as `model`, for example `gpt-4o`."""
    precision: Annotated[str | None, _key(_WEIGHTS)] = None
    """Precision of the weights, as in the catalogue; unset takes the model's first."""
    context: Annotated[Tokens, _key(_RESTART, "tokens, for example `32768` or `32Ki`")]
    """Longest request in tokens, prompt and answer together (vLLM's `max-model-len`)."""
    concurrency: Annotated[int | None, _key(_RESTART, "requests", ge=1, le=MOST_RUNNING_REQUESTS)] = None
    """Requests served at the same time (vLLM's `max-num-seqs`). Set this or `profile`."""
    profile: Annotated[str | None, _key(_RESTART, pattern="^(batch|throughput|latency|long)$")] = None
    """`batch` (512 requests at once), `throughput` (256), `latency` (32) or `long` (8); unset means `throughput`."""
    machine: Annotated[Machine, _key(_REPLACE)]
    """The machine to rent."""
    storage_gb: Annotated[
        Gigabytes,
        _key("grows the volume; a volume cannot shrink", "GB, for example `300GB` or `1TB`", alias="storage"),
    ]
    """Size of the volume that keeps weights and caches."""
    volume: Annotated[str | None, _key("applies when the volume is created", min_length=1)] = None
    """Name of a volume at the cloud to use in place of a new one, such as one that was kept under an earlier name of
    the stack. `preview` names such volumes."""
    access: Annotated[Access, _key(_FIREWALL)] = Access.model_construct()
    """Who may reach the machine."""
    weights: Annotated[Weights, _key("applies to the next download of weights")] = Weights.model_construct()
    """Where the weights come from."""
    gateway: Annotated[Gateway, _key(_RELOAD)] = Gateway.model_construct()
    """Limits at the gateway."""
    requests: Annotated[Requests, _key(_RESTART)] = Requests.model_construct()
    """What one request may ask for, and how it is adapted to the model."""
    engine: Annotated[EngineOptions, _key(_RESTART)] = EngineOptions.model_construct()
    """How vLLM is started, beyond what the plan decides."""
    drain_timeout_s: Annotated[
        int, _key("applies to the next stop of the engine", "seconds", ge=0, le=3600)
    ] = defaults.DRAIN_TIMEOUT_S
    """How long running requests may take to finish before the engine is stopped."""
    ready_timeout_s: Annotated[int, _key(_RESTART, "seconds", ge=60, le=86_400)] = defaults.READY_TIMEOUT_S
    """How long vLLM may take from its start until it answers. `up` gives up earlier when vLLM makes no progress."""
    notify_command: Annotated[tuple[str, ...], _key("applies to the next notification")] = ()
    """A program on the host and its arguments, for example `[/usr/local/bin/page, --urgent]`. It runs when vLLM or the
    gateway has failed for good, with a JSON message on its standard input. Put no secret into the arguments."""
    owner: Annotated[str | None, _key("renames the machine at the cloud", pattern="^[a-z][a-z0-9]{0,7}$")] = (
        None
    )
    """Who is responsible: up to 8 letters and digits. The machine's name at the cloud holds it, so that
    `pulumi-vllm sweep` shows it without the state."""
    expires: Annotated[
        Period | None, _key("renames the machine at the cloud", "a time, for example `8h` or `2d`")
    ] = None
    """How long the machine runs after the start of the last `pulumi up`, which begins the period again. The host warns,
    drains and powers off. The name at the cloud holds the end, for `pulumi-vllm sweep --expired`."""
    idle_stop: Annotated[Period | None, _key("applies within a minute", "a time, for example `2h`")] = None
    """How long the machine runs without a request. Those of the canary don't count, running ones do. The host warns
    before, drains and powers off."""
    schedule: Annotated[Schedule, _key(_NOTHING)] = Schedule.model_construct()
    """When the machine is meant to run."""
    unreachable: Annotated[str, _key(_NOTHING, pattern=f"^({'|'.join(defaults.UNREACHABLE_CHOICES)})$")] = (
        defaults.UNREACHABLE
    )
    """What a preview shows for a host that it can't observe. `error`: a change, so that `preview --expect-no-changes`
    fails. `warn`: a warning only, for a preview that runs where the firewall admits no SSH."""

    @pydantic.field_validator("volume")
    @classmethod
    def _one_volume(cls, name: str | None, info: ValidationInfo) -> str | None:
        machine = info.data.get("machine")
        if name is not None and machine is not None and machine.replace == "overlap":
            msg = "names one volume, and machine.replace: overlap needs a second one; leave one of them out"
            raise ValueError(msg)
        return name

    @pydantic.field_validator("notify_command")
    @classmethod
    def _absolute_program(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        if words and not words[0].startswith("/"):
            msg = f"begins with {words[0]!r}; begin with the full path of the program, which starts with /"
            raise ValueError(msg)
        return words

    _own_model: catalogues.Model | None = pydantic.PrivateAttr(default=None)

    @property
    def own_model(self) -> catalogues.Model | None:
        """The model of a file that `model` names; None if it is one of the catalogue."""
        return self._own_model

    @classmethod
    def parse(
        cls,
        block: Mapping[str, Any],
        catalogue: catalogues.Catalogue | None = None,
        folders: tuple[pathlib.Path, ...] = (),
    ) -> Deployment:
        """Validate the block against the types above and the catalogue, and the model file that it names.

        Args:
            block: the block of a stack file.
            catalogue: a catalogue other than that of the data files.
            folders: where the user's model files are; none are the working directory and its folder stacks/.

        Raises:
            ConfigError: with every error in the block, and in the model file.
        """
        lookup = CatalogueLookup(catalogues.load() if catalogue is None else catalogue)
        messages: tuple[str, ...] = ()
        name = block.get("model") if isinstance(block, Mapping) else None
        try:
            lookup.own = own_models.find(name, folders or own_models.PLACES, lookup.catalogue)
        except ConfigError as error:
            messages, lookup.own_is_wrong = error.errors, True
        try:
            found = cls.model_validate(block, context=lookup)
        except pydantic.ValidationError as error:
            messages += config_errors.messages(error, cls, "server")
        else:
            if not messages:
                found._own_model = lookup.own  # noqa: SLF001 - of this class
                return found
        # A volume that is too small is an error of its own in an otherwise valid block: see plan().
        raise ConfigError((*messages, *storage.too_small(lookup)))

    @property
    def sequences(self) -> int:
        """Requests served at the same time, from `concurrency` or `profile`."""
        return _SEQUENCES[self.profile or "throughput"] if self.concurrency is None else self.concurrency

    @pydantic.field_validator("model")
    @classmethod
    def _known_model(cls, name: str, info: ValidationInfo) -> str:
        return _lookup(info).find_model(name)

    @pydantic.field_validator("precision")
    @classmethod
    def _published_precision(cls, name: str | None, info: ValidationInfo) -> str | None:
        return name if name is None else _lookup(info).find_precision(name)

    @pydantic.field_validator("context")
    @classmethod
    def _supported_context(cls, context: int, info: ValidationInfo) -> int:
        model = _lookup(info).model
        if model is not None and context > model.maximum_context:
            limit = model.maximum_context
            msg = f"{context:,} tokens are beyond {model.name}'s {limit:,}; use {limit}"
            raise ValueError(msg)
        return context

    @pydantic.field_validator("profile")
    @classmethod
    def _profile_or_concurrency(cls, profile: str | None, info: ValidationInfo) -> str | None:
        # A wrong concurrency is absent from the data, an unset one is None.
        if profile is not None and ("concurrency" not in info.data or info.data["concurrency"] is not None):
            msg = "sets the same as server.concurrency; keep one of them"
            raise ValueError(msg)
        return profile

    @pydantic.field_validator("storage_gb")
    @classmethod
    def _noted_storage(cls, gigabytes: int, info: ValidationInfo) -> int:
        _lookup(info).storage_gb = gigabytes
        return gigabytes


def _lookup(info: ValidationInfo) -> CatalogueLookup:
    if not isinstance(info.context, CatalogueLookup):
        msg = "a block is validated against the catalogue; call Deployment.parse"
        raise TypeError(msg)
    return info.context
