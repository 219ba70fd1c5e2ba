"""The Pulumi engine never rewrites or deletes a tracked stack file."""

import shlex
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.ci

PROGRAM = """\
import pulumi

config = pulumi.Config()
pulumi.export("context", config.require_object("server")["context"])
pulumi.export("token", config.get_secret("token"))
"""
# The engine would write 9, sort the comment away and add an encryption salt.
STACK = """\
# A comment, and a price with two decimals.
config:
  pulumi-vllm:server:
    context: 32Ki   # tokens
    max_usd_per_hour: 9.00
"""


@pytest.fixture(scope="module")
def clone(make_clone: Callable[..., Any]) -> Iterator[Any]:
    made = make_clone(PROGRAM, {"demo": STACK}, '#!/bin/sh\necho "$* $PULUMI_BACKEND_URL"\n')
    yield made
    assert made.git("status", "--porcelain") == ""


def test_a_stacks_whole_life_leaves_git_clean(clone: Any) -> None:
    clone.dev("pulumi", "stack", "init", "demo")
    clone.dev("pulumi", "config", "set", "--path", "server.context", "64Ki")
    clone.dev("pulumi", "config", "set", "--secret", "token", stdin="hunter2")
    clone.dev("pulumi", "up", "--yes")
    assert clone.dev("pulumi", "stack", "output", "context").strip() == "64Ki"
    assert clone.git("status", "--porcelain") == ""

    stack = clone.root / "stacks" / "Pulumi.demo.yaml"
    # Changes of the tracked file reach the copy, and the user's values stay.
    stack.write_text(STACK.replace("32Ki", "16Ki") + "  pulumi-vllm:extra: new\n")
    clone.commit()
    assert clone.dev("pulumi", "config", "get", "extra").strip() == "new"
    assert clone.dev("pulumi", "config", "get", "--path", "server.context").strip() == "64Ki"
    assert clone.dev("pulumi", "config", "get", "token").strip() == "hunter2"
    assert clone.git("status", "--porcelain") == ""

    clone.dev("pulumi", "destroy", "--yes")
    clone.dev("pulumi", "stack", "rm", "--yes", "demo")
    assert clone.git("status", "--porcelain") == ""
    assert stack.exists()
    # A new stack of the same name keeps the settings and the passphrase.
    clone.dev("pulumi", "stack", "init", "demo")
    clone.dev("pulumi", "preview", "--stack", "demo")
    assert clone.dev("pulumi", "config", "get", "token").strip() == "hunter2"


def test_after_config_rm_the_files_value_counts(clone: Any) -> None:
    at, stack = ("--stack", "rm", "--path"), clone.root / "stacks" / "Pulumi.rm.yaml"
    stack.write_text(STACK)
    clone.dev("pulumi", "stack", "init", "rm")
    clone.dev("pulumi", "config", "set", *at, "server.context", "1024")
    clone.dev("pulumi", "config", "set", "--stack", "rm", "--secret", "token", stdin="hunter2")
    stack.write_text(STACK.replace("32Ki", "2Ki"))
    told = clone.run("pulumi", "config", "get", *at, "server.context")
    assert told.stdout.strip() == "1024"
    remedy = told.stderr.split("`")[1]
    assert remedy == "./dev pulumi config rm --stack rm --path 'pulumi-vllm:server.context'"
    for removed in (shlex.split(remedy)[1:], ("pulumi", "config", "rm", *at, "server.max_usd_per_hour")):
        done = clone.run(*removed)
        assert done.returncode == 0, done.stderr
        assert f"{removed[-1].split(':')[-1]}: the file's value counts" in done.stderr
        assert clone.dev("pulumi", "config", "get", *at, "server.context").strip() == "2Ki"
        assert clone.dev("pulumi", "config", "get", *at, "server.max_usd_per_hour").strip() == "9"
    clone.dev("pulumi", "config", "rm", "--stack", "rm", "server")
    clone.dev("pulumi", "preview", "--stack", "rm")
    assert clone.dev("pulumi", "config", "get", "--stack", "rm", "token").strip() == "hunter2"
    clone.dev("pulumi", "stack", "rm", "--yes", "rm")
    stack.unlink()


def test_the_passphrase_is_created_once_and_is_private(clone: Any) -> None:
    clone.dev("pulumi", "stack", "ls")
    passphrase = clone.root / ".pulumi-vllm" / "passphrase"
    before = passphrase.read_text()
    clone.dev("pulumi", "stack", "ls")
    assert passphrase.read_text() == before
    assert len(before) > 32
    assert passphrase.stat().st_mode & 0o777 == 0o600


def test_a_sweep_uses_the_state_of_this_checkout(clone: Any) -> None:
    assert clone.dev("sweep", "--json") == f"sweep --json file://{clone.root}/.pulumi-vllm/state\n"
