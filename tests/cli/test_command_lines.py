"""Command lines that no command accepts: each gets one sentence with its place and a remedy, and nothing is made."""

import argparse
import json
import os
import re
import subprocess
import sys
from importlib import import_module

import pytest
from pulumi_vllm import cli

SENTENCE = re.compile(r"pulumi-vllm( [a-z]+)*: error: .+[;,] .+")


def parsers(parser, words=()):
    """Each command and subcommand with its parser."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, one in action.choices.items():
                yield (*words, name), one
                yield from parsers(one, (*words, name))


def commands():
    parser = cli._Parser(prog="pulumi-vllm")
    made = parser.add_subparsers()
    for module in cli._COMMANDS.values():
        import_module(module).add_parser(made)
    return dict(parsers(parser))


COMMANDS = commands()


def lines():
    """Every command with an unknown option, without an argument it needs, and with an empty value at each place."""
    for words, parser in COMMANDS.items():
        places = [one for one in parser._actions if not one.option_strings and one.nargs is None]
        given = ["x" for _ in places]
        is_leaf = not any(isinstance(one, argparse._SubParsersAction) for one in parser._actions)
        if is_leaf:
            options = [one for one in parser._actions if one.option_strings and one.required]
            yield (
                *words,
                *given,
                *(word for one in options for word in (one.option_strings[0], "1")),
                "--nothing",
            )
            yield (*words, *given, "")
            yield (*words, *("" for _ in places or [0]))
        if places or not is_leaf:
            yield words
        for one in parser._actions:
            if one.option_strings and one.nargs is None:
                yield (*words, *given, one.option_strings[-1])
                yield (*words, *given, one.option_strings[-1], "")
                yield (*words, *given, f"{one.option_strings[-1]}=")


# What comes after NAME is a command of the machine, and may be anything.
CASES = [words for words in dict.fromkeys(lines()) if words[:3] != ("local", "console", "x")]


@pytest.mark.parametrize("words", CASES, ids=" ".join)
def test_a_command_line_that_no_command_accepts(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 64
    shown = capsys.readouterr()
    assert shown.out == ""
    usage, *_ = errors = [line for line in shown.err.splitlines() if not line.startswith(" ")]
    assert usage.startswith("usage: pulumi-vllm ")
    assert len(errors) == 2
    assert SENTENCE.fullmatch(errors[1])
    assert not list(tmp_path.iterdir())


def test_the_cases_are_many():
    assert len(COMMANDS) > 20
    assert len(CASES) > 150


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("cost", "cost: error: STACK: missing; see `pulumi-vllm cost --help`"),
        ("local console", "local console: error: NAME: missing; see `pulumi-vllm local console --help`"),
        ("local move", "local move: error: NAME: missing; see `pulumi-vllm local move --help`"),
        ("local up --engine x", "local up: error: --engine: 'x' is unknown, known are "),
        ("local up --factor nan", "local up: error: --factor: nan is not a number above 0; see "),
        ("local up --factor 0", "local up: error: --factor: 0 is not a number above 0; see "),
        ("local up --port 65536", "local up: error: --port: 65536 is not a port, 0 to 65535; see "),
        ("local logs --lines -5", "local logs: error: -n/--lines: -5 is not a whole number above 0; see "),
        ("model add x --context x", "model add: error: --context: 'x' is not tokens, for example "),
        ("model add x y", "model add: error: y: unknown here; see `pulumi-vllm model add --help`"),
        ("recommend --count 1.5", "recommend: error: --count: '1.5' is not a whole number; see "),
        ("reconcile x --every x", "reconcile: error: --every: 'x' is not a number; see "),
        ("sweep x", "sweep: error: NAME and --volumes have an effect with --delete only; add it"),
        ("no-such", "pulumi-vllm: error: COMMAND: 'no-such' is unknown, known are "),
    ],
)
def test_where_is_said_first(words, sentence, capsys):
    assert cli.main(words.split()) == 64
    assert sentence in capsys.readouterr().err


@pytest.fixture
def backend(tmp_path, monkeypatch):
    """A file backend of the real Pulumi CLI, and an empty folder to be in."""
    for folder in ("state", "home", "here"):
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("PULUMI_BACKEND_URL", f"file://{tmp_path}/state")
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "test")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


OF_STACKS = (
    "bench --stack nope", "smoke --stack nope", "cost nope", "drift nope", "lint nope", "plan nope", "reconcile nope",
    "reconcile nope --dry-run", "upgrade nope --to 0.33.0",
    "recommend --model mistral-small-4 --context 8Ki --concurrency 1 --offline --write nope",
)  # fmt: skip


@pytest.mark.parametrize("words", OF_STACKS)
def test_a_stack_that_nobody_knows(words, backend, capsys):
    """Outside of a project, and in one."""
    for name, remedy in (
        ("", "project's folder"),
        ("Pulumi.yaml", r"`pulumi stack ls`|give a stack of the project"),
    ):
        if name:
            (backend / name).write_text("name: p\nruntime: python\n")
        assert cli.main(words.split()) == (3 if words.startswith("drift") else 1)
        shown = capsys.readouterr()
        last = (shown.out + shown.err).splitlines()[-1]
        assert re.search(rf".+; .*({remedy})", last), last
        assert shown.out.count("\n") == words.startswith("drift")
        assert [one.name for one in backend.iterdir()] == ([name] if name else [])


def test_a_computer_that_is_logged_in_nowhere(backend, capsys, monkeypatch):
    monkeypatch.delenv("PULUMI_BACKEND_URL")
    monkeypatch.delenv("PULUMI_ACCESS_TOKEN", raising=False)
    (backend / "Pulumi.yaml").write_text("name: p\nruntime: python\n")
    assert cli.main(["cost", "prod"]) == 1
    assert "logged in to no backend; run `pulumi login`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "path"),
    [
        (("plan", "x" * 300), "x" * 300),
        (("local", "status"), "file/below/cloud.json"),
        (("local", "up"), "file/below"),
    ],
)
def test_a_path_that_cannot_be_used_is_named(tmp_path, capsys, monkeypatch, words, path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PULUMI_VLLM_LOCAL_DIR", str(tmp_path / "file/below"))
    (tmp_path / "file").touch()
    assert cli.main([*words, "--json"]) == 1
    shown = capsys.readouterr()
    assert re.search(rf"{path}: .+; correct the path", shown.err)
    assert json.loads(shown.out)["refused"] == [shown.err.strip().removeprefix("pulumi-vllm: ")]


def test_the_command_itself_says_the_same(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pulumi_vllm.cli", "local", "console"],
        capture_output=True, text=True, check=False, cwd=tmp_path, env=os.environ, timeout=60,
    )  # fmt: skip
    assert done.returncode == 64
    assert done.stderr.endswith(
        "pulumi-vllm local console: error: NAME: missing; see `pulumi-vllm local console --help`\n"
    )
