"""`pulumi-vllm upgrade`: what another vLLM version would change for a stack. It writes nothing and needs no network."""

import argparse

from pulumi_vllm.cli.terminal import TROUBLE, UsageError, print_json, say


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `upgrade`."""
    text = "show what another vLLM version changes for a stack; exit 1 if the stack would be refused with it"
    parser = commands.add_parser(
        "upgrade", help=text, description=f"{text.capitalize()}. Nothing is written."
    )
    parser.add_argument(
        "stack",
        metavar="STACK",
        help="a name in the folder stacks/, or a file such as stacks/Pulumi.local.yaml",
    )
    parser.add_argument(
        "--to", metavar="VERSION", help="vLLM version of the catalogue; without it they are named"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=_upgrade)


def _upgrade(parsed: argparse.Namespace) -> int:
    # `pulumi-vllm --help` loads this module too; pydantic takes 0.2 s to import.
    from pulumi_vllm.cli import stack_check, stack_file
    from pulumi_vllm.plan import catalogue, plan
    from pulumi_vllm.plan.engine_comparison import Upgrade
    from pulumi_vllm.plan.errors import PlanError

    path = stack_file.find(parsed.stack)
    block = stack_file.block_of(path)
    before = stack_check.checked(path, block, plan)
    engines = [
        one.version for one in catalogue.load().engines.values() if one.runs_on == before.engine.runs_on
    ]
    if parsed.to not in engines:
        wrong = "--to: missing" if parsed.to is None else f"--to {parsed.to}: the catalogue has no such vLLM"
        raise UsageError(f"{wrong}; for this machine, write {' or '.join(engines)}")
    stack_file.put(block, f"engine.version={parsed.to}")
    try:
        after = stack_check.checked(path, block, plan)
    except PlanError as error:
        if parsed.json:
            print_json({"from": before.engine.version, "to": parsed.to, "refused": list(error.errors)})
        else:
            for message in error.errors:
                say(f"refused with vLLM {parsed.to}: {message}")
        return TROUBLE
    # A stack may name several GPUs, and each may have another version so far.
    found, *others = map(Upgrade, (before, *before.others), (after, *after.others))
    if parsed.json:
        print_json(found.summary() | {"others": [one.summary() for one in others]})
        return 0
    for one in (found, *others):
        if others:
            print(f"{one.machine}:")
        for line in one.sentences():
            print(line)
    if any(one.changes_version for one in (found, *others)):
        print(
            f"For vLLM {parsed.to}, set engine.version to {parsed.to} in {path}, then run `pulumi preview`."
        )
    return 0
