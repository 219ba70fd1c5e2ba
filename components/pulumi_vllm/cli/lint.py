"""`pulumi-vllm lint`: what is known to fail or mislead in a vLLM command line; exit 1 if something fails."""

import argparse
import dataclasses
import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pulumi_vllm.cli.terminal import TROUBLE, USAGE, say

if TYPE_CHECKING:
    from pulumi_vllm.plan.flags import Finding


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `lint`."""
    text = "what fails or misleads in vLLM's arguments; exit 1 if something fails"
    lint = commands.add_parser("lint", help=text, description=f"{text.capitalize()}.")
    lint.add_argument("--engine", metavar="V", help="vLLM version (default: the one that the plan takes)")
    lint.add_argument("--model", default="mistral-small-4", help="name in the catalogue (for FLAGS)")
    lint.add_argument("--precision", help="as in the catalogue (for FLAGS)")
    lint.add_argument("--gpu", help="as in the catalogue: checks what fits as well (for FLAGS)")
    lint.add_argument("--driver", metavar="V", help="the host's driver (for FLAGS)")
    lint.add_argument(
        "--rules", action="store_true", help="the names that engine.ignore takes, and what they find"
    )
    lint.add_argument("--json", action="store_true")
    lint.add_argument("words", nargs="*", metavar="STACK | -- FLAGS", help="a stack, or a vLLM command line")
    lint.set_defaults(run=_lint)


def _lint(parsed: argparse.Namespace) -> int:
    if parsed.rules:
        return _rules()
    words: list[str] = [word for word in parsed.words if word != "--"]
    if not words:
        say("lint: name a stack, or write vLLM's flags after --")
        return USAGE
    stack = len(words) == 1 and not words[0].startswith("-")
    findings = _stack(words[0], parsed.engine) if stack else _flags(words, parsed)
    if findings is None:
        return USAGE
    if parsed.json:
        print(json.dumps([dataclasses.asdict(one) for one in findings], indent=2))
    else:
        for one in findings:
            ignored = "" if one.ignored is None else f" [ignored: {one.ignored}]"
            print(f"{one.severity} ({one.rule}): {one.sentence} ({one.evidence}){ignored}")
        if not findings:
            print("nothing found")
    return TROUBLE if any(one.severity == "error" and one.ignored is None for one in findings) else 0


def _rules() -> int:
    from pulumi_vllm.plan import flags

    for name, rule in flags.RULES.items():
        print(f"{name:18} {rule.__doc__}")
    return 0


def _stack(name: str, engine: str | None) -> "tuple[Finding, ...]":
    from pulumi_vllm.cli import stack_file
    from pulumi_vllm.plan import planner as decide
    from pulumi_vllm.plan.config import Deployment

    block = stack_file.block_of(stack_file.find(name))
    if engine is not None:
        stack_file.put(block, f"engine.version={engine}")
    return decide.findings(Deployment.parse(block))


def _flags(words: Sequence[str], parsed: argparse.Namespace) -> "tuple[Finding, ...] | None":
    from pulumi_vllm.plan import catalogue, flags, flags_schema, memory
    from pulumi_vllm.plan.engine_arguments import load_of, ranks
    from pulumi_vllm.plan.suggestions import suggestion

    known = catalogue.load()
    engine = known.newest_engine(
        known.gpus[parsed.gpu] if parsed.gpu in known.gpus else next(iter(known.gpus.values()))
    )
    version, model = parsed.engine or engine.version, known.models.get(parsed.model)
    for given, there in (
        (parsed.model, known.models),
        (version, flags_schema.versions()),
        (parsed.precision, model.precisions if model else ()),
        (parsed.gpu, known.gpus),
    ):
        if given is not None and given not in there:
            say(f"lint: {given!r} is not known; {suggestion(given, there)}")
            return None
    if parsed.driver is not None and not re.fullmatch(r"\d+(\.\d+)*", parsed.driver):
        say(f"lint: --driver {parsed.driver}: is not a version; write for example 580.65.06")
        return None
    assert model is not None  # noqa: S101 - it is in the catalogue
    engine = known.engines.get(version) or dataclasses.replace(engine, version=version)
    environment, rest = _command(words)
    given = flags_schema.read(rest, version)
    named = [one for one in model.precisions.values() if one.repository == given.get("model")]
    precision = (
        model.precisions[parsed.precision] if parsed.precision else [*named, *model.precisions.values()][0]
    )
    # Without a length vLLM takes the one that the configuration advertises.
    longest = model.maximum_context if "max-model-len" in given else model.dimensions.rope_positions
    load = load_of(given, engine, longest) if engine.memory else None
    budget = None
    if load and parsed.gpu and parsed.gpu != "CPU":
        budget = memory.budget(model.dimensions, precision, engine, known.gpus[parsed.gpu], load)
    gpus = ranks(given) or 1  # the machine is not named: it has as many as the command asks for
    launch = flags.Launch(given, environment, model, precision, engine, gpus, budget, parsed.driver)
    return flags.lint(launch, {})


def _command(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The environment written before a program, and what comes after the program."""
    rest, environment = list(words), dict[str, str]()
    while rest and (found := re.fullmatch(r"([A-Z][A-Z0-9_]*)=(.*)", rest[0], re.DOTALL)):
        environment[found[1]] = found[2]
        del rest[0]
    for program in (["vllm", "serve"], ["python", "-m", "vllm.entrypoints.openai.api_server"]):
        if [word.rsplit("/", 1)[-1].replace("python3", "python") for word in rest[: len(program)]] == program:
            del rest[: len(program)]
    return environment, rest
