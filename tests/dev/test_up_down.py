"""./dev up and ./dev down, with a program that rents nothing and a placeholder for the local cloud."""

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.ci

PROGRAM = """\
import os
import pulumi

pulumi.export("endpoint", "https://10.0.0.2/v1")
pulumi.export("model", "tiny")
pulumi.export("ca_certificate", "PEM")
pulumi.export("evidence", {"endpoint": os.environ.get("TRIED", "answered to 10.0.0.1")})
pulumi.export("api_key", pulumi.Output.secret("hunter2"))
pulumi.export("cloud", os.environ.get("SPHERON_URL"))
"""
STACK = "# words\nconfig:\n  pulumi-vllm:a: 1\n"
CLOUD = """\
#!/bin/sh
echo "$*" >>"$(dirname "$0")/../../.pulumi-vllm/calls"
[ "$1" != drift ] || { echo "$PULUMI_OPTION_CONFIG_FILE"; pulumi stack --show-name --stack "$2"; exit 2; }
[ "$2" != up ] || printf 'a line for people\nexport SPHERON_URL=http://127.0.0.1:9\nexport SPHERON_API_KEY=k\n'
"""


@pytest.fixture(scope="module")
def clone(make_clone: Callable[..., Any]) -> Iterator[Any]:
    made = make_clone(PROGRAM, {"local": STACK, "spheron-b200-8x-fp8": STACK}, CLOUD)
    yield made
    assert made.git("status", "--porcelain") == ""


def calls(clone: Any) -> list[str]:
    record = clone.root / ".pulumi-vllm" / "calls"
    lines: list[str] = record.read_text().splitlines() if record.exists() else []
    record.unlink(missing_ok=True)
    return lines


def test_up_starts_the_cloud_and_prints_no_key(clone: Any) -> None:
    done = clone.run("up", "--engine", "fake")
    assert done.returncode == 0, done.stderr
    assert calls(clone)[0] == "local up --engine fake"
    assert "hunter2" not in done.stdout + done.stderr
    assert "tiny answers at https://10.0.0.2/v1" in done.stdout
    assert (clone.root / ".pulumi-vllm" / "local-ca.pem").read_text() == "PEM"
    assert clone.dev("pulumi", "stack", "output", "cloud").strip() == "http://127.0.0.1:9"
    fetch = done.stdout.split("$(")[1].split(")")[0]
    key = subprocess.run(("bash", "-c", fetch), capture_output=True, text=True, check=True).stdout
    assert key == "hunter2\n"


def test_up_claims_no_answer_that_it_has_not_got(clone: Any) -> None:
    done = clone.run("up", "--engine", "fake", TRIED="not tried: the host sees this computer as 10.0.0.1")
    assert done.returncode == 0, done.stderr
    assert "answers at" not in done.stdout
    assert (
        "tiny is served at https://10.0.0.2/v1; whether it answers from here was not tried: the host"
        in done.stdout
    )


def test_a_preview_finds_the_running_cloud(clone: Any) -> None:
    calls(clone)
    clone.dev("pulumi", "preview", "--stack", "local")
    assert calls(clone) == ["local up --engine fake"]


def test_drift_has_the_environment_of_the_stack(clone: Any) -> None:
    """A placeholder stands for `pulumi-vllm drift` itself, which tests/e2e/test_drift_in_previews.py runs."""
    copy = clone.root / ".pulumi-vllm" / "stacks" / "Pulumi.local.yaml"
    calls(clone)
    for words in ((), ("local", "--json")):
        done = clone.run("drift", *words)
        assert done.returncode == 2, done.stderr
        assert done.stdout.split() == [str(copy), "local"]
        assert calls(clone) == ["local up --engine fake", " ".join(("drift", "local", *words[1:]))]
    refused = clone.run("drift", "--diff")
    assert refused.returncode == 1
    assert "drift: --diff: unknown option" in refused.stderr


def test_a_cloud_in_the_environment_is_used(clone: Any) -> None:
    clone.dev("up", SPHERON_URL="http://127.0.0.1:7", SPHERON_API_KEY="k")
    assert calls(clone) == []
    assert clone.dev("pulumi", "stack", "output", "cloud").strip() == "http://127.0.0.1:7"


def test_the_cloud_stays_up_for_another_stack(clone: Any) -> None:
    clone.dev("up", "spheron-b200-8x-fp8", "--local", ENGINE="fake")
    clone.dev("up", ENGINE="fake")
    calls(clone)
    first = clone.run("down", "--purge")
    assert first.returncode == 0, first.stderr
    assert "volumes are kept, because the local cloud stays up for: spheron-b200-8x-fp8" in first.stderr
    assert "    to end it: ./dev down spheron-b200-8x-fp8 --purge\n" in first.stderr
    kept = clone.run("down")
    assert "    to end it: ./dev down spheron-b200-8x-fp8\n" in kept.stderr
    assert not any("down" in call for call in calls(clone))
    last = clone.run("down", "spheron-b200-8x-fp8", "--purge")
    told, destroyed, _ = last.stderr.partition("==> pulumi destroy")
    assert "a volume that destroy keeps is deleted with the local cloud after it" in told, (
        "before destroy says it"
    )
    assert destroyed
    assert calls(clone)[-1] == "local down --purge"


def test_the_local_cloud_gets_an_allow_list_that_down_removes(clone: Any) -> None:
    copy = clone.root / ".pulumi-vllm" / "stacks" / "Pulumi.spheron-b200-8x-fp8.yaml"
    done = clone.run("up", "spheron-b200-8x-fp8", "--local", ENGINE="fake")
    assert done.returncode == 0, done.stderr
    sentence = "access.allow of spheron-b200-8x-fp8: 0.0.0.0/0, for the local cloud only"
    assert sentence in done.stderr
    assert "0.0.0.0/0" in copy.read_text()
    assert sentence not in clone.run("up", "spheron-b200-8x-fp8", "--local", ENGINE="fake").stderr
    clone.dev("down", "spheron-b200-8x-fp8", "--purge")
    assert "allow" not in copy.read_text()


def test_an_allow_list_of_the_user_is_kept(clone: Any) -> None:
    copy = clone.root / ".pulumi-vllm" / "stacks" / "Pulumi.spheron-b200-8x-fp8.yaml"
    at = ("--stack", "spheron-b200-8x-fp8", "--path", "pulumi-vllm:server.access.allow[0]")
    clone.dev("pulumi", "config", "set", *at, "9.9.9.9/32")
    assert "access.allow" not in clone.run("up", "spheron-b200-8x-fp8", "--local", ENGINE="fake").stderr
    clone.dev("down", "spheron-b200-8x-fp8", "--purge")
    assert "9.9.9.9/32" in copy.read_text()


def test_a_renamed_stack_keeps_its_cloud_and_its_allow_list(clone: Any) -> None:
    clone.dev("up", "local", ENGINE="fake")
    copies = clone.root / ".pulumi-vllm" / "stacks"
    assert "0.0.0.0/0" in (copies / "Pulumi.local.yaml").read_text()
    clone.dev("pulumi", "stack", "rename", "renamed")
    calls(clone)
    clone.dev("pulumi", "preview")
    assert calls(clone) == ["local up --engine fake"]
    assert clone.dev("pulumi", "stack", "--show-name").strip() == "renamed"
    assert "0.0.0.0/0" in (copies / "Pulumi.renamed.yaml").read_text()
    clone.dev("sweep")
    assert calls(clone) == ["local up --engine fake", "sweep"]
    clone.dev("down", "renamed", "--purge")
    assert calls(clone)[-1] == "local down --purge"
    assert "0.0.0.0/0" not in (copies / "Pulumi.renamed.yaml").read_text()
    clone.dev("pulumi", "stack", "rename", "--stack", "renamed", "local")


def test_a_sweep_of_an_account_leaves_the_local_cloud_alone(clone: Any) -> None:
    clone.dev("up", "local", ENGINE="fake")
    calls(clone)
    clone.dev("sweep", SPHERON_API_KEY="sai_pk_of_an_account")
    assert calls(clone) == ["sweep"]
    clone.dev("down", "local", "--purge")


def test_down_of_an_unknown_stack_has_nothing_to_destroy(clone: Any) -> None:
    clone.dev("pulumi", "stack", "rm", "--yes", "local")
    done = clone.run("down")
    assert done.returncode == 0, done.stderr
    assert "nothing to destroy" in done.stderr


def test_a_failing_cloud_ends_the_run(clone: Any) -> None:
    placeholder = clone.root / ".venv" / "bin" / "pulumi-vllm"
    before = placeholder.read_text()
    placeholder.write_text("#!/bin/sh\necho no root >&2\nexit 4\n")
    done = clone.run("up")
    placeholder.write_text(before)
    assert done.returncode == 4
    assert "no root" in done.stderr
    assert "pulumi up" not in done.stderr


def test_a_refused_engine_leaves_the_one_that_runs(clone: Any) -> None:
    clone.dev("up", "--engine", "real")
    placeholder = clone.root / ".venv" / "bin" / "pulumi-vllm"
    before = placeholder.read_text()
    placeholder.write_text(
        before.replace("#!/bin/sh", '#!/bin/sh\n[ "$*" != "local up --engine fake" ] || exit 1')
    )
    refused = clone.run("up", "--engine", "fake")
    calls(clone)
    done = clone.run("down", "--purge")
    placeholder.write_text(before)
    assert refused.returncode == 1
    assert "./dev down local ends what runs with engine real" in refused.stderr
    assert done.returncode == 0, done.stderr
    assert calls(clone) == ["local up --engine real", "local down --purge"]
