"""Pulumi's states, as `sweep` reads them: exports, folders of backends, and backends through the Pulumi CLI."""

import gzip
import json

import pytest
from pulumi_vllm.cli.pulumi_states import StateError, read_states


def resources(stack, *ids):
    urn = f"urn:pulumi:{stack}::models::vllm:spheron:Instance::machine"
    found = [{"type": "vllm:spheron:Instance", "id": one, "urn": urn} for one in ids]
    return {"resources": [*found, {"type": "x", "urn": f"urn:pulumi:{stack}::models::x::y"}]}


def write_stack(backend, stack, latest, name=""):
    file = backend / ".pulumi" / "stacks" / "models" / f"{stack}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"checkpoint": {"stack": f"organization/models/{stack}", "latest": latest}})
    file.with_name(name or file.name).write_bytes(gzip.compress(text.encode()) if name else text.encode())


@pytest.fixture
def backend(tmp_path):
    folder = tmp_path / "backend"
    write_stack(folder, "prod", resources("prod", "b", "c"))
    write_stack(folder, "empty", None)
    write_stack(folder, "small", resources("small", "d"), "small.json.gz")
    return folder


def test_every_kind_of_place_is_read(tmp_path, backend):
    export = tmp_path / "state.json"
    export.write_text(json.dumps({"deployment": resources("dev", "a")}))
    states = read_states([str(export), str(backend)])
    assert states.ids == {"a": "models/dev", "b": "models/prod", "c": "models/prod", "d": "models/small"}
    assert states.stacks == {("dev", "models"), ("prod", "models"), ("empty", "models"), ("small", "models")}
    assert read_states([f"file://{backend}"]).ids.keys() == {"b", "c", "d"}


def test_the_default_is_the_backend_of_the_environment(backend, monkeypatch):
    monkeypatch.setenv("PULUMI_BACKEND_URL", f"file://{backend}")
    assert read_states([]).ids.keys() == {"b", "c", "d"}


@pytest.mark.parametrize("url", ["", "s3://states"])
def test_other_backends_are_read_with_the_cli(tmp_path, monkeypatch, url):
    """A substitute for the CLI: the real one with such a backend needs an account."""
    cli = tmp_path / "pulumi"
    listed = json.dumps([{"name": "organization/models/prod"}, {"name": "organization/models/empty"}])
    export = json.dumps({"deployment": resources("prod", "a")})
    cli.write_text(
        f"""#!/bin/sh
[ "$PULUMI_BACKEND_URL" = "{url}" ] || exit 9
case "$*" in
  *"stack ls --all --json"*) echo '{listed}' ;;
  *"stack export --stack organization/models/prod"*) echo '{export}' ;;
  *"stack export --stack organization/models/empty"*) echo '{{"deployment": {{}}}}' ;;
  *) exit 8 ;;
esac
"""
    )
    cli.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("PULUMI_BACKEND_URL", "")
    states = read_states([url] if url else [])
    assert states.ids == {"a": "models/prod"}
    assert states.stacks == {("prod", "models"), ("empty", "models")}


def test_a_backend_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StateError, match=r"^s3://states: pulumi is not on PATH; install the Pulumi CLI"):
        read_states(["s3://states"])
    cli = tmp_path / "pulumi"
    cli.write_text("#!/bin/sh\necho no such bucket >&2\nexit 1\n")
    cli.chmod(0o755)
    with pytest.raises(StateError, match=r"`pulumi stack ls` failed: no such bucket"):
        read_states(["s3://states"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "not found"),
        ("{", "cannot be read as a state"),
        ("{}", "not a state"),
        ("", "is empty, as after a full disk; if state.json.bak beside it is not, copy it to state.json"),
    ],
)
def test_a_path_without_a_state_is_an_error(tmp_path, text, message):
    file = tmp_path / "state.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(StateError, match=message):
        read_states([str(file)])
