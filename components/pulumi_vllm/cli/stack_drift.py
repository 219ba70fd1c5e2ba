"""`pulumi-vllm drift`: whether a deployed server is still as its program declares it, for CI and for people."""

import argparse
import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from pulumi_vllm.client.pulumi_cli import PulumiCliError, run_pulumi, with_remedy

SCHEMA = 1
"""Version of the JSON object. It grows when a key changes its meaning or disappears."""
CLEAN, DRIFT, NOT_OBSERVED = 0, 2, 3
_OURS = "vllm:"
# A preview takes seconds. A cloud that limits the rate of calls makes it wait for minutes.
_TIMEOUT_S = 900


@dataclass(frozen=True, slots=True)
class Difference:
    """One property that is not as declared. Secrets are shown by the engine as [secret]."""

    resource: str
    type: str
    operation: str
    """What `pulumi up` would do to the resource, as in update, create, replace."""
    property: str
    """Path of the property; "" for a resource that is missing or no longer declared."""
    observed: Any
    declared: Any


@dataclass(frozen=True, slots=True)
class Unknown:
    """A resource that was not observed, and why."""

    resource: str
    reason: str


@dataclass(frozen=True, slots=True)
class Result:
    """What a preview found."""

    stack: str
    differences: tuple[Difference, ...]
    messages: tuple[str, ...]
    """The provider's sentences: what was observed and declared, and what `pulumi up` does."""
    not_observed: tuple[Unknown, ...]

    @property
    def code(self) -> int:
        """Exit code. What was not observed may hide any drift, so it comes first."""
        if self.not_observed:
            return NOT_OBSERVED
        return DRIFT if self.differences else CLEAN

    def to_json(self) -> str:
        """Format the result as one JSON object."""
        status = {CLEAN: "clean", DRIFT: "drift", NOT_OBSERVED: "not observed"}[self.code]
        return json.dumps({"schema": SCHEMA, "status": status, **asdict(self)}, indent=2)


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `drift`."""
    text = "compare a deployed server with what its program declares, and change nothing"
    drift = commands.add_parser(
        "drift",
        help=f"{text}; exit 0 clean, 2 drift, 3 not observed",
        description=f"{text[0].upper()}{text[1:]}. It runs `pulumi preview` with a refresh in this folder, and reports "
        "the resources of this package only. A change of the program that is not deployed yet counts as drift. Exit "
        "with 0 if everything is as declared, with 2 if something differs, and with 3 if something could not be "
        "observed, even where `unreachable: warn` makes a preview pass.",
    )
    drift.add_argument("stack", metavar="STACK", help="a stack of the project in this folder")
    drift.add_argument("--json", action="store_true", help="print one JSON object")
    drift.set_defaults(run=_run)


def _run(parsed: argparse.Namespace) -> int:
    result = _observe(parsed.stack)
    if parsed.json:
        print(result.to_json())
    else:
        _print(result)
    return result.code


def _observe(stack: str) -> Result:
    words = ("preview", "--json", "--refresh", "--stack", stack)
    try:
        done = run_pulumi(*words, timeout_s=_TIMEOUT_S)
    except PulumiCliError as error:
        return _unknown(stack, str(error))
    return _failed(stack, done.stdout, done.stderr) if done.returncode else found(stack, _parse(done.stdout))


def _unknown(stack: str, reason: str, messages: tuple[str, ...] = ()) -> Result:
    return Result(stack, (), messages, (Unknown("", reason),))


def found(stack: str, preview: dict[str, Any]) -> Result:
    """Read the output of `pulumi preview --json`."""
    differences: list[Difference] = []
    unknown: list[Unknown] = []
    for step in preview.get("steps", ()):
        old, new = step.get("oldState") or {}, step.get("newState") or {}
        state = new or old
        if not str(state.get("type", "")).startswith(_OURS) or step["op"] in {"read", "refresh"}:
            continue
        name = str(step["urn"]).rpartition("::")[2]
        observed = str((old.get("inputs") or {}).get("observed", "yes"))
        if observed != "yes":
            unknown.append(Unknown(name, observed.partition(": ")[2] or observed))
        elif step["op"] != "same":
            differences += _differences(name, step["op"], old, new, step.get("detailedDiff") or {})
    return Result(stack, tuple(differences), tuple(_warnings(preview)), tuple(unknown))


def _differences(
    name: str, operation: str, old: dict[str, Any], new: dict[str, Any], detailed: dict[str, Any]
) -> list[Difference]:
    kind = str((new or old)["type"])
    before, after = old.get("inputs") or {}, new.get("inputs") or {}
    # The engine lists a replacement three times: as create-replacement, replace and delete-replaced.
    if operation in {"create-replacement", "delete-replaced"}:
        return []
    if not detailed:
        return [
            Difference(
                name, kind, operation, "", *(("missing", "present") if new else ("present", "missing"))
            )
        ]
    return [
        Difference(name, kind, operation, path, _value(before, path), _value(after, path))
        for path in sorted(detailed)
    ]


def _value(inputs: dict[str, Any], path: str) -> Any:
    """Return the value at a path such as `units["vllm.service"]`, or None."""
    name, _, key = path.partition("[")
    value = inputs.get(name)
    if not key or not isinstance(value, dict):
        return value
    return value.get(json.loads(key.removesuffix("]")))


def _warnings(preview: dict[str, Any]) -> list[str]:
    messages = [
        str(one["message"])
        for one in preview.get("diagnostics", ())
        if one.get("severity") == "warning" and _OURS in str(one.get("urn"))
    ]
    plain = (re.sub(r"<\{%.*?%\}>|\x1b\[[0-9;]*m", "", message).strip() for message in messages)
    return list(dict.fromkeys(message.removeprefix("warning: ") for message in plain))


def _failed(stack: str, printed: str, errors: str) -> Result:
    """Report a preview that failed: nothing is known then."""
    try:
        preview = _parse(printed)
    except ValueError:
        preview = {}
    reasons = [
        str(one["message"]).strip()
        for one in preview.get("diagnostics", ())
        if one.get("severity") == "error"
    ]
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    reason = "; ".join(dict.fromkeys(reasons)) or next(
        (line for line in lines if line.startswith("error:")), lines[-1] if lines else "no message"
    )
    reason = re.sub(r"<\{%.*?%\}>", "", reason).removeprefix("error:").strip()
    return _unknown(stack, f"the preview failed: {with_remedy(reason)}", tuple(_warnings(preview)))


def _parse(printed: str) -> dict[str, Any]:
    """Return the JSON object in the output, after other lines of the engine.

    Raises:
        ValueError: there is none.
    """
    parsed = json.loads(printed[printed.index("{") :])
    return parsed if isinstance(parsed, dict) else {}


def _is_told(difference: Difference, messages: tuple[str, ...]) -> bool:
    """Whether a sentence of the provider is about it, which also knows what `pulumi up` leaves or refuses."""
    subject = re.fullmatch(r"differences\[(\".*\")\]", difference.property)
    if subject is None:
        return False
    begin = f"{difference.resource}: {json.loads(subject[1])} "
    return any(message.startswith(begin) for message in messages)


def _print(result: Result) -> None:
    for message in result.messages:
        print(message)
    for one in result.differences:
        if _is_told(one, result.messages):
            continue
        print(f"{one.resource}: {one.property or one.observed}: `pulumi up` would {one.operation} it")
    for unknown in result.not_observed:
        print(f"not observed: {f'{unknown.resource}: ' if unknown.resource else ''}{unknown.reason}")
    if result.code == CLEAN:
        print(f"{result.stack}: everything is as declared")
