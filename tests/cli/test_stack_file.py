"""What the commands say about a stack file that cannot be read as one."""

import json
import pathlib

import pytest
import yaml
from pulumi_vllm import cli
from pulumi_vllm.plan import ConfigError, yaml_text

SHIPPED = pathlib.Path(__file__).parents[2] / "stacks/Pulumi.spheron-h200-2x-fp8.yaml"


def refused(capsys, path, *command):
    assert cli.main([*command, str(path)]) == 1
    return capsys.readouterr().err


def test_every_key_that_is_written_twice_is_an_error_with_its_line(tmp_path, capsys):
    path = tmp_path / "Pulumi.mine.yaml"
    text = SHIPPED.read_text()
    lines = text.splitlines()
    context = next(number for number, line in enumerate(lines, 1) if line.startswith("    context:"))
    count = next(number for number, line in enumerate(lines, 1) if line.startswith("      count:"))
    lines.insert(count, "      count: 8")
    path.write_text("\n".join([*lines, "    context: 1Ki", "  other:key: 1", ""]))
    expected = [
        f"{path}:{count + 1}: config.pulumi-vllm:server.machine.count: is in line {count} already; remove one",
        f"{path}:{len(lines) + 1}: config.pulumi-vllm:server.context: is in line {context} already; remove one",
    ]
    for command in (["plan"], ["lint"], ["upgrade", "--to", "0.33.0"]):
        errors = refused(capsys, path, *command).splitlines()
        assert [error.partition("pulumi-vllm: ")[2].partition(" of the")[0] for error in errors] == expected
    path.write_text(text)
    assert cli.main(["plan", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fits"] is True


@pytest.mark.parametrize("text", ["a: {b: 1}\nc: {b: 1}", "a: 1\n'1': 2\n1: 3", "- {a: 1}\n- {a: 1}", ""])
def test_the_same_key_in_two_blocks_is_no_error(text):
    assert yaml_text.load(text, "f") == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: &b {a: 1, a: 2}\nx: *b", "f:1: base.a: is in line 1 already"),
        ("l: [{a: 1,\na: 2}]", "f:2: l.0.a: is in line 1 already"),
        ("a: ]", "f:1: is not YAML: "),
        ("a: \x01", "f: is not UTF-8, or contains a control character"),
    ],
)
def test_what_is_wrong_has_its_place(text, message):
    with pytest.raises(ConfigError) as refusal:
        yaml_text.load(text, "f")
    (error,) = refusal.value.errors
    assert error.startswith(message)


def test_merged_blocks_may_have_the_same_keys():
    text = "base: &b {a: 1}\nx: {<<: *b, a: 2}\ny: {<<: *b, a: 3}"
    assert yaml_text.load(text, "f") == yaml.safe_load(text)


def test_bytes_that_are_no_text_are_refused(tmp_path, capsys):
    path = tmp_path / "Pulumi.mine.yaml"
    path.write_bytes(b"config: \xff")
    assert "is not UTF-8 text; write it as UTF-8" in refused(capsys, path, "plan")


@pytest.mark.parametrize(
    ("written", "kind"),
    [("hello", "text"), ("[a]", "a list"), ("5", "5"), ("true", "true"), ('\'{"model": "x"}\'', "text")],
)
def test_a_value_in_place_of_the_block_is_said_to_be_one(tmp_path, capsys, written, kind):
    path = tmp_path / "Pulumi.mine.yaml"
    path.write_text(f"config:\n  pulumi-vllm:server: {written}\n")
    (line,) = refused(capsys, path, "plan").splitlines()
    assert line.endswith(
        f"{path}: config.pulumi-vllm:server: is {kind}, not a block of keys; "
        "docs/reference/stack-file.md lists them"
    )


def test_a_file_without_the_block_says_so(tmp_path, capsys):
    path = tmp_path / "Pulumi.mine.yaml"
    for text in ("", "config:\n", "config:\n  pulumi-vllm:server:\n", "config:\n  other:key: 1\n", "- 1\n"):
        path.write_text(text)
        assert "no `config: pulumi-vllm:server:` in it" in refused(capsys, path, "plan")


OWN = """\
config:
  pulumi-vllm:server:
    model: mistral-small-4
    context: CONTEXT
    machine: {cloud: none, gpu: H100, count: 2, usd_per_hour: 6}
    storage: {path: /data/llm}
  pulumi-vllm:host: HOST
"""


@pytest.mark.parametrize(
    ("host", "errors"),
    [
        ("{address: 203.0.113.7, user: ubuntu, port: 2222, private_key_file: ~/.ssh/none}", []),
        ("{address: {secure: v1:abc}, host_key: ssh-ed25519 AAAA}", []),
        ("", []),
        ("hello", [": is not a block of keys"]),
        ("{adress: a}", [".adress: unknown key; did you mean address?", ".address: missing; add it"]),
        (
            "{address: https://a/, user: a b;c, port: '22', private_key: PEM}",
            [
                ".private_key: is in clear",
                ".address: 'https://a/'",
                ".user: 'a b;c'",
                ".port: '22' is not a port",
            ],
        ),
    ],
)
def test_plan_checks_the_machine_that_the_stack_file_names(tmp_path, capsys, host, errors):
    path = tmp_path / "Pulumi.mine.yaml"
    for context, of_server in (("32Ki", []), ("many", ["server.context: 'many' is not tokens"])):
        path.write_text(OWN.replace("CONTEXT", context).replace("HOST", host))
        expected = of_server + [f"pulumi-vllm:host{error}" for error in errors]
        assert cli.main(["plan", str(path), "--json"]) == (1 if expected else 0)
        found = json.loads(capsys.readouterr().out).get("refused", [])
        assert len(found) == len(expected), found
        assert all(one.startswith(wanted) for one, wanted in zip(found, expected, strict=True)), found


def test_a_machine_of_ones_own_beside_a_rented_one_has_no_effect(tmp_path, capsys):
    path = tmp_path / "Pulumi.mine.yaml"
    path.write_text(SHIPPED.read_text() + "  pulumi-vllm:host: {address: 203.0.113.7}\n")
    for words in (("plan",), ("lint",), ("upgrade", "--to", "0.33.0")):
        assert "pulumi-vllm:host: has no effect, because server.machine.cloud rents" in refused(
            capsys, path, *words
        )


@pytest.mark.parametrize("words", [("plan",), ("lint",), ("upgrade", "--to", "0.33.0")])
def test_every_command_that_reads_a_stack_checks_all_of_it(tmp_path, capsys, words):
    path = tmp_path / "Pulumi.mine.yaml"
    path.write_text(OWN.replace("CONTEXT", "many").replace("HOST", "{address: https://a/}"))
    said = refused(capsys, path, *words)
    assert "server.context: 'many' is not tokens" in said
    assert "pulumi-vllm:host.address: 'https://a/' is not an address" in said


@pytest.mark.parametrize(
    ("stack_file", "here"),
    [
        ("Pulumi.mine.yaml", "."),
        ("settings/Pulumi.mine.yaml", "settings"),
        ("Pulumi.mine.yml", "deep/below"),
        ("a/b/Pulumi.mine.yml", "."),
    ],
)
def test_a_stack_is_found_by_name_where_pulumi_finds_it(tmp_path, monkeypatch, capsys, stack_file, here):
    path = tmp_path / stack_file
    folder = "" if path.parent == tmp_path else path.parent.relative_to(tmp_path)
    (tmp_path / f"Pulumi{path.suffix}").write_text(f"name: a\nruntime: python\nstackConfigDir: {folder}\n")
    for needed in (tmp_path / here, path.parent):
        needed.mkdir(parents=True, exist_ok=True)
    path.write_text(SHIPPED.read_text())
    monkeypatch.chdir(tmp_path / here)
    assert cli.main(["plan", "mine"]) == 0
    assert cli.main(["plan", "yours"]) == 1
    assert capsys.readouterr().err.endswith(
        f"Pulumi.yours{path.suffix} is missing; give a stack of the project, or the path of a stack file\n"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file, and no Pulumi.yaml here or above; run this in the project's folder"),
        ("name: a\nstackConfigDir: 3\n", "Pulumi.yaml: stackConfigDir is 3; write the name of a folder"),
        ("name: a\nname: b\n", "Pulumi.yaml:2: name: is in line 1 already"),
    ],
)
def test_a_stack_that_cannot_be_looked_up(tmp_path, monkeypatch, capsys, text, message):
    if text is not None:
        (tmp_path / "Pulumi.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, "mine", "plan")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("machine={gpu: H200, gpu: H100}", "gpu: is in line 1 already; remove one of the two"),
        ("context=[", "is not YAML: "),
    ],
)
def test_a_set_value_is_read_like_the_file(capsys, value, message):
    assert message in refused(capsys, SHIPPED, "plan", "--set", value)
