"""`pulumi-vllm lint`: what is known to fail or mislead in vLLM's arguments. It exits with 1 if something fails."""

import argparse
import dataclasses
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pulumi_vllm.cli.terminal import TROUBLE, UsageError, print_json

if TYPE_CHECKING:
    from pulumi_vllm.plan.lint import Finding


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `lint`."""
    text = "check the vLLM arguments of a stack or of a command line; exit 1 if a rule finds an error"
    lint = commands.add_parser("lint", help=text, description=f"{text[0].upper()}{text[1:]}.")
    lint.add_argument("--engine", metavar="V", help="vLLM version (default: the one that the plan chooses)")
    lint.add_argument("--model", default="mistral-small-4", help="catalogue name of the model (for FLAGS)")
    lint.add_argument("--precision", help="precision as in the catalogue (for FLAGS)")
    lint.add_argument(
        "--gpu", help="GPU of the catalogue or of gpus/NAME.yaml: check as well what fits (for FLAGS)"
    )
    lint.add_argument("--driver", metavar="V", help="version of the host's driver (for FLAGS)")
    lint.add_argument(
        "--rules",
        action="store_true",
        help="list the rules, with the ids that engine.ignore accepts",
    )
    lint.add_argument("--json", action="store_true", help="print the findings as JSON")
    lint.add_argument(
        "words",
        nargs="*",
        metavar="STACK | -- FLAGS",
        help="a stack, or the flags of a vLLM command line after --",
    )
    lint.set_defaults(run=_lint)


def _lint(parsed: argparse.Namespace) -> int:
    if parsed.rules:
        return _rules()
    words: list[str] = [word for word in parsed.words if word != "--"]
    if not words:
        raise UsageError("no stack and no flags; name a stack, or write vLLM's flags after --")
    stack = len(words) == 1 and not words[0].startswith("-")
    findings = _stack(words[0], parsed.engine) if stack else _flags(words, parsed)
    if parsed.json:
        print_json({"findings": [dataclasses.asdict(one) for one in findings]})
    else:
        for one in findings:
            ignored = "" if one.ignored is None else f" [ignored: {one.ignored}]"
            print(f"{one.severity} ({one.rule}): {one.message} ({one.evidence}){ignored}")
        if not findings:
            fits = f"; `pulumi-vllm plan {words[0]}` says whether it fits" if stack else ""
            print(f"nothing found in vLLM's arguments{fits}")
    return TROUBLE if any(one.severity == "error" and one.ignored is None for one in findings) else 0


def _rules() -> int:
    # `pulumi-vllm --help` loads this module too; the rules take 0.05 s to import.
    from pulumi_vllm.plan.lint import RULES

    for name, rule in RULES.items():
        print(f"{name:{max(map(len, RULES))}} {rule.__doc__}")
    return 0


def _stack(name: str, engine: str | None) -> "tuple[Finding, ...]":
    # `pulumi-vllm --help` loads this module too; pydantic takes 0.2 s to import.
    from pulumi_vllm.cli import stack_check, stack_file
    from pulumi_vllm.plan import planner

    path = stack_file.find(name)
    block = stack_file.block_of(path)
    if engine is not None:
        stack_file.put(block, f"engine.version={engine}")
    return stack_check.checked(path, block, planner.findings)


def _flags(words: Sequence[str], parsed: argparse.Namespace) -> "tuple[Finding, ...]":
    """Check a command line that a person wrote."""
    # `pulumi-vllm --help` loads this module too; the rules take 0.05 s to import.
    from pulumi_vllm.plan import catalogue, memory, own_gpus, vllm_parser
    from pulumi_vllm.plan.card_names import card_suggestion
    from pulumi_vllm.plan.engine_arguments import EngineArguments
    from pulumi_vllm.plan.launch import Launch
    from pulumi_vllm.plan.lint import lint
    from pulumi_vllm.plan.memory_settings import MemorySettings
    from pulumi_vllm.plan.suggestions import suggestion

    known, gpu_name = own_gpus.catalogue_with("--gpu", parsed.gpu, catalogue.load())
    cards = {name: gpu for name, gpu in known.gpus.items() if gpu.runs == "cuda"}
    engine = known.default_engine(cards.get(gpu_name or "", next(iter(cards.values()))))
    version, model = parsed.engine or engine.version, known.models.get(parsed.model)
    for given, names in (
        (parsed.model, known.models),
        (version, vllm_parser.versions()),
        (parsed.precision, model.precisions if model else ()),
        (gpu_name, known.gpus),
    ):
        if given is not None and given not in names:
            remedy = card_suggestion if names is known.gpus else suggestion
            raise UsageError(f"{given!r} is unknown; {remedy(given, names)}")
    if parsed.driver is not None and not re.fullmatch(r"\d+(\.\d+)*", parsed.driver):
        raise UsageError(f"--driver {parsed.driver}: is not a version; write for example 580.65.06")
    assert model is not None  # noqa: S101 - it is in the catalogue
    engine = known.engines.get(version) or dataclasses.replace(engine, version=version)
    environment, rest = _command(words)
    arguments = EngineArguments.of(vllm_parser.parse(rest, version))
    by_repository = {one.repository: one for one in model.precisions.values()}
    precision = by_repository.get(str(arguments.flags.get("model")), next(iter(by_repository.values())))
    if parsed.precision:
        precision = model.precisions[parsed.precision]
    budget = None
    gpu = known.gpus.get(gpu_name or "")
    if engine.memory and gpu and gpu.name != catalogue.CPU:
        # Without a length, vLLM uses the one that the configuration advertises.
        longest = (
            model.maximum_context if "max-model-len" in arguments.flags else model.dimensions.rope_positions
        )
        settings = MemorySettings.of(arguments, engine, gpu, longest)
        budget = memory.budget(model.dimensions, precision, engine, gpu, settings)
    count = arguments.ranks or 1  # no machine is named, so assume as many GPUs as the command line asks for
    launch = Launch(arguments, environment, model, precision, engine, count, budget, parsed.driver, gpu)
    return lint(launch, {})


def _command(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The environment before the program's name, and the words after it."""
    rest, environment = list(words), dict[str, str]()
    while rest and (found := re.fullmatch(r"([A-Z][A-Z0-9_]*)=(.*)", rest[0], re.DOTALL)):
        environment[found[1]] = found[2]
        del rest[0]
    for program in (["vllm", "serve"], ["python", "-m", "vllm.entrypoints.openai.api_server"]):
        if [word.rsplit("/", 1)[-1].replace("python3", "python") for word in rest[: len(program)]] == program:
            del rest[: len(program)]
    return environment, rest
