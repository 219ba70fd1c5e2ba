"""VLLM's arguments that belong to the product: where and how the engine listens, what it loads, and its secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_GATEWAY = "the engine listens on loopback behind the gateway, which has TLS, keys and routes"
_ONE_MACHINE = "a stack is one machine, and its engine listens on one port"
_CODE = "it runs code that no pinned package holds"
_WEIGHTS = (
    "the weights are pinned, downloaded and verified before the start; set server.model and server.precision"
)

STACK_KEYS: Final = {
    "model": "set server.model and server.precision",
    "served-model-name": "set server.model, and further names in server.aliases",
    "middleware": "this package reads clients' requests with its own",
    "allowed-media-domains": "set server.gateway.media_domains",
    "reasoning-effort-map": "set server.requests.reasoning_efforts",
    "max-model-len": "set server.context",
    "max-num-seqs": "set server.concurrency or server.profile",
    "host": "the engine stays behind the gateway",
    "port": "the engine stays behind the gateway",
}
"""Arguments that the plan writes from other keys of the stack file → which."""

SECRETS: Final = {
    "api-key": "a flag is visible in the list of processes; name keys under server.access.keys",
    "hf-token": "a flag is visible in the list of processes; set the secret hfToken",
}
"""Arguments whose value is a secret → what to do instead."""

LISTENING: Final = {
    **dict.fromkeys(
        (
            "uds", "headless", "grpc", "grpc-port", "root-path", "tokens-only", "ssl-keyfile",
            "ssl-certfile", "ssl-ca-certs", "ssl-cert-reqs", "ssl-ciphers", "enable-ssl-refresh", "allow-credentials",
            "allowed-headers", "allowed-methods", "allowed-origins",
        ),
        _GATEWAY,
    ),
    **dict.fromkeys(
        (
            "nnodes", "node-rank", "master-addr", "master-port", "data-parallel-address", "data-parallel-backend",
            "data-parallel-external-lb", "data-parallel-hybrid-lb", "data-parallel-multi-port-external-lb",
            "data-parallel-rank", "data-parallel-rpc-port", "data-parallel-size-local", "data-parallel-start-rank",
            "data-parallel-supervisor-port", "dp-supervisor-probe-failure-threshold", "dp-supervisor-probe-interval-s",
            "dp-supervisor-probe-timeout-s",
        ),
        _ONE_MACHINE,
    ),
    "api-server-count": "the unit starts one API server, whatever it says; set server.machine.engines for several",
    **dict.fromkeys(
        ("h11-max-header-count", "h11-max-incomplete-event-size"), "the gateway limits headers and adds its own"
    ),
    "device-ids": "server.machine.count and server.machine.engines say which GPUs an engine has",
    "config": "it is a file of further flags, which nothing checks; write them under server.engine.flags",
    "log-config-file": "it decides where the log goes; the journal of the unit keeps it",
    "logging-config": "it decides where the log goes; the journal of the unit keeps it",
}  # fmt: skip
"""Arguments that decide where and how the engine listens → why they cannot be set."""

OF_THE_MODEL: Final = dict.fromkeys(
    ("runner", "convert", "mm-encoder-only"),
    "the gateway has the routes of the model's tasks; set server.model",
)
"""Arguments that a model file may have, and a stack may not → why."""

LOADING: Final = {
    **dict.fromkeys(
        (
            "tokenizer", "tokenizer-revision", "revision", "code-revision", "hf-config-path", "download-dir",
            "ignore-patterns", "model-loader-extra-config",
        ),
        _WEIGHTS,
    ),
    **dict.fromkeys(
        (
            "io-processor-plugin", "logits-processors", "model-class-overrides", "reasoning-parser-plugin",
            "scheduler-cls", "tool-parser-plugin", "worker-cls", "worker-extension-cls",
        ),
        f"{_CODE}; leave it out",
    ),
    "allowed-local-media-path": "clients could read files of the host; leave it out",
    "tool-server": "the engine would call tools on other servers; leave it out",
    "weight-transfer-config": "clients could replace the weights; leave it out",
}  # fmt: skip
"""Arguments that decide what the engine loads or fetches → why they are reported."""

WEIGHT_FORMATS: Final = ("auto", "mistral", "safetensors", "hf", "pt", "npcache")
"""Values of `load-format` that load the pinned files of the volume. `dummy` serves random weights."""


def refusal(name: str) -> str | None:
    """Why neither a stack nor a model file may set an argument, and what to do instead; None if they may."""
    return _reason(name, {**STACK_KEYS, **SECRETS, **LISTENING})


def refusal_of_stack(name: str) -> str | None:
    """Why a stack file may not set an argument, and what to do instead; None if it may."""
    return refusal(name) or _reason(name, OF_THE_MODEL)


def _reason(name: str, reasons: Mapping[str, str]) -> str | None:
    return reasons.get(name.partition(".")[0].removeprefix("no-"))
