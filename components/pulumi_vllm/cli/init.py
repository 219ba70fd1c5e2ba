"""`pulumi-vllm init`: write the provider's folder, the lines of Pulumi.yaml, a stack file and a program."""

import argparse
import errno
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pulumi_vllm.cli.terminal import TROUBLE, print_json, say

if TYPE_CHECKING:
    from pulumi_vllm.cli.user_project import Project

LEFT_TO_DO = 2
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC}


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `init`."""
    text = "create a Pulumi project that serves a model, or add the model server to a project"
    parser = commands.add_parser(
        "init",
        help=text,
        description=f"{text[0].upper()}{text[1:]}. The command writes the provider's folder, the lines of "
        "Pulumi.yaml, a stack file and a program. It only adds lines to files that exist. If it cannot add a line, it "
        "prints the line for you to add, and exits with 2.",
    )
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path(), help="the project's folder (default: this one)"
    )
    parser.add_argument(
        "--stack",
        help="stack file to start from: local (the default, which needs no account and no GPU), or another stack "
        "of this package, for example spheron-h200-1x-fp8. A stack file in the folder that has the server is the "
        "default before local",
    )
    parser.add_argument("--name", help="name of a new project (default: the folder's name)")
    parser.add_argument("--json", action="store_true", help="print what the command did as JSON")
    parser.set_defaults(run=_init)


def _init(parsed: argparse.Namespace) -> int:
    # `pulumi-vllm --help` loads this module too; the YAML libraries take 0.08 s to import.
    from pulumi_vllm.cli.user_project import DEFAULT_STACK, Project, find_errors, served_stack

    folder: Path = parsed.folder
    name = parsed.name or re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.resolve().name).strip("-") or "models"
    try:
        stack = parsed.stack or served_stack(folder)
        if errors := find_errors(folder, name, stack or DEFAULT_STACK, named=parsed.name is not None):
            for message in errors:
                say(message)
            return TROUBLE
        project = Project(folder, name, stack)
        project.write()
    except OSError as error:
        remedy = (
            "make it writable" if error.errno in _NOT_WRITABLE else "name another folder, or move it away"
        )
        say(f"{error.filename}: {error.strerror}; {remedy} and run this again, which continues from there")
        return TROUBLE
    if parsed.json:
        print_json(project.report())
    else:
        _show(project)
    return LEFT_TO_DO if project.left else 0


def _show(project: "Project") -> None:
    for verb, names in (("wrote", project.wrote), ("added to", project.added), ("kept", project.kept)):
        for name in names:
            print(f"{verb:9} {name}")
    if project.left:
        print("\nLeft to you:")
        for sentence in project.left:
            first, *rest = sentence.splitlines()
            print(f"  {first}", *(f"    {line}" for line in rest), sep="\n")
    for note in project.notes:
        print(f"\n{note}")
    print("\nNext:")
    for line in project.next_steps():
        print(f"  {line}")
