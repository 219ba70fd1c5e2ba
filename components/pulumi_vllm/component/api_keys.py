"""A server's API keys: given by the program, or random and kept in state. Only digests of them leave the program."""

import hashlib
import inspect
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import pulumi

from pulumi_vllm.component import generated as resources
from pulumi_vllm.plan.access_config import READINESS_KEY
from pulumi_vllm.plan.suggestions import suggestion
from pulumi_vllm.render.gateway_keys import keys_map

_KEY = re.compile(r"[!-~]+")  # visible ASCII: the part of RFC 9110's field-vchar that clients agree on


def errors(given: Any, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return an error for each unknown name and each value that no client can send. It never contains a value.

    Values that are not known yet are skipped.
    """
    if given is None or is_pending(given):
        return ()
    if not isinstance(given, Mapping):
        return ("keys: is not a map of names and values; write {'NAME': VALUE}, or leave it out",)
    unknown = (
        f"keys.{name}: no such name in server.access.keys; {suggestion(name, names)}"
        for name in given
        if name not in names
    )
    wrong = ((name, _problem(value)) for name, value in given.items())
    return (*unknown, *(f"keys.{name}: {problem}" for name, problem in wrong if problem))


def _problem(value: Any) -> str | None:
    if value == "":
        return "is empty; leave it out, and it gets a random key"
    if isinstance(value, str) and not _KEY.fullmatch(value):
        return "contains a space, a line end or a character outside ASCII, which a header cannot carry"
    if not (value is None or isinstance(value, str) or is_pending(value)):
        return "is not text; set it as a string"
    return None


def is_pending(value: Any) -> bool:
    """Whether a value becomes known later."""
    return isinstance(value, pulumi.Output) or inspect.isawaitable(value)


def declare(
    server_name: str, names: tuple[str, ...], given: Any, opts: pulumi.ResourceOptions
) -> pulumi.Output[dict[str, str]]:
    """Return every named key: the given value, or a random one that survives a replacement of the machine."""
    # The names in a map that is not known yet are unknown too: each name gets a random key, which may stay unused.
    known = given if isinstance(given, Mapping) else {}
    random_keys = {
        key: resources.ApiKey(f"{server_name}-key-{key}", prefix="sk-", opts=opts).key
        for key in names
        if known.get(key) is None
    }
    # Each value is checked by itself, before it is joined with values that a preview does not know, such as a random
    # key. Otherwise an error would show only after the machine is rented.
    checked: Any
    if known:
        checked = {
            key: pulumi.Output.from_input(value).apply(partial(_checked_value, names, key))
            for key, value in known.items()
            if value is not None
        }
    else:
        checked = pulumi.Output.from_input(given).apply(partial(_checked_map, names))
    both = pulumi.Output.all(given=checked, random=random_keys)
    return pulumi.Output.secret(both.apply(partial(_given_or_random, names)))


def gateway_map(keys: pulumi.Output[dict[str, str]], readiness: pulumi.Output[str]) -> pulumi.Output[str]:
    """Return the gateway's map of the users' keys and the readiness check's key."""
    return pulumi.Output.all(keys=keys, readiness=readiness).apply(
        lambda known: keys_map(_digests({**known["keys"], READINESS_KEY: known["readiness"]}))
    )


def _digests(keys: Mapping[str, str]) -> dict[str, str]:
    return {name: hashlib.sha256(value.encode()).hexdigest() for name, value in keys.items()}


def _checked_map(names: tuple[str, ...], values: Any) -> Any:
    if found := errors(values, names):
        raise pulumi.RunError("\n".join(found))
    return values or {}


def _checked_value(names: tuple[str, ...], key: str, value: Any) -> Any:
    if value is None:
        raise pulumi.RunError(f"keys.{key}: has no value; set one, or leave it out, and it gets a random key")
    return _checked_map(names, {key: value})[key]


def _given_or_random(names: tuple[str, ...], keys: Mapping[str, Any]) -> dict[str, str]:
    given, random_keys = keys["given"], keys["random"]
    return {key: given[key] if given.get(key) is not None else random_keys[key] for key in names}
