"""Rules about arguments that belong to the product, that hold secrets, or that trust others with the engine."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pulumi_vllm.plan import product_flags, vllm_parser
from pulumi_vllm.plan.lint.findings import error, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pulumi_vllm.plan.launch import Launch
    from pulumi_vllm.plan.lint.findings import Problems

_SECRET = re.compile(
    r"(?i)\b(?:hf_[a-z0-9]{20,}|sk-[a-z0-9_-]{20,}|gh[pousr]_[a-z0-9]{20,}|AKIA[A-Z0-9]{16})\b"
    r"|\"[a-z_-]*(?:token|secret|password|passwd|api_?key|access_?key)\"\s*:\s*\"(?P<value>[^\"]+)\""
)
"""A token of a known form, or a value that JSON names as a secret."""

_TRUST = {
    "trust-remote-code": "runs Python code of the model's repository as the engine's user",
    "trust-request-chat-template": "lets every client send a template, which the engine runs",
    "trust-request-mm-kwargs": "lets every client set options of the image processor",
    "enable-mm-embeds": "lets every client send tensors, and wrong ones end the engine",
    "enable-prompt-embeds": "lets every client send tensors, and wrong ones end the engine",
}
"""Switches that trust the repository or the clients → what they do."""


def product_flag(launch: Launch) -> Problems:
    """An argument that decides where and how the engine listens, which is the product's."""
    for name, reason in _given(launch, product_flags.LISTENING):
        yield error(
            f"--{name} belongs to the product: {reason}", "design of the host: one engine behind one gateway"
        )


def loads_from_elsewhere(launch: Launch) -> Problems:
    """An argument that makes the engine load something else than the pinned weights and packages."""
    for name, reason in _given(launch, product_flags.LOADING):
        yield error(
            f"--{name}: {reason}", "the manifest of the weights and the lock of the engine hold no such thing"
        )
    written = launch.arguments.flags.get("load-format")
    known = vllm_parser.accepted(launch.engine.version).get("load-format", {}).get("values", ())
    if written in known and written not in product_flags.WEIGHT_FORMATS:
        what = "serves random weights" if written == "dummy" else "does not load the files of the volume"
        yield error(
            f"--load-format {written} {what}; leave it out",
            "the loaders of vLLM 0.26.0 and 0.33.0 (source)",
        )


def secret_in_flag(launch: Launch) -> Problems:
    """A secret in an argument, which everybody on the host can read."""
    for name, value in launch.arguments.flags.items():
        if name != "api-key" and (name in product_flags.SECRETS or _SECRET.search(str(value))):
            remedy = product_flags.SECRETS.get(name, "leave it out, and replace the secret")
            yield error(f"--{name} holds a secret; {remedy}", "the list of processes shows every argument")


def trusted_input(launch: Launch) -> Problems:
    """A switch that trusts the model's repository or the clients with the engine."""
    for name, what in _TRUST.items():
        if launch.arguments.flags.get(name):
            yield warning(
                f"--{name} {what}; leave it out unless the model needs it", "vLLM's own documentation"
            )


def without_secrets(launch: Launch, message: str) -> str:
    """A message in which no secret of the arguments is left."""
    for name, value in launch.arguments.flags.items():
        if isinstance(value, bool):
            continue
        text = str(value)
        secrets = [text] if name in product_flags.SECRETS else [
            found["value"] or found[0] for found in _SECRET.finditer(text)
        ]  # fmt: skip
        for secret in filter(None, secrets):
            message = message.replace(secret, "***")
    return message


def _given(launch: Launch, table: dict[str, str]) -> Iterator[tuple[str, str]]:
    for name in launch.arguments.flags:
        reason = table.get(name.partition(".")[0])
        if reason is not None:
            yield name, reason
