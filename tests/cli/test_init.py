"""`pulumi-vllm init`: in an empty folder, in a person's project, and again."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from pulumi_vllm.cli import main, pulumi_yaml, user_project

OURS = {"name": "vllm", "path": "./provider"}


def tree(folder):
    return {
        str(file.relative_to(folder)): (file.read_text(), file.stat().st_mode & 0o777)
        for file in sorted(folder.rglob("*")) if file.is_file()
    }  # fmt: skip


def test_an_empty_folder_becomes_a_project(tmp_path, init):
    code, report = init("shop")
    assert code == 0
    assert report["left"] == report["kept"] == []
    written = tree(tmp_path / "shop")
    assert set(report["wrote"]) == written.keys()
    document = yaml.safe_load(written["Pulumi.yaml"][0])
    assert document["name"] == "shop"
    assert document["options"] == {"refresh": "always"}
    assert document["plugins"]["providers"] == [OURS]
    assert written["provider/pulumi-resource-vllm"][1] == 0o755
    assert main(["plan", "shop/Pulumi.local.yaml"]) == 0
    compile(written["__main__.py"][0], "__main__.py", "exec")


def test_the_next_steps_name_the_backend_and_the_passphrase(tmp_path, capsys):
    assert main(["init", str(tmp_path / "shop")]) == 0
    steps = capsys.readouterr().out.partition("Next:")[2]
    login, stack = (
        steps.index("pulumi login --local"),
        steps.index("pulumi stack init local   # asks for a passphrase"),
    )
    assert login < stack < steps.index("pulumi up")


OWN = """config:
  pulumi-vllm:server: {model: mistral-small-4, machine: {cloud: CLOUD, gpu: H100, count: 2}}
"""


@pytest.mark.parametrize(
    ("cloud", "host", "wanted"),
    [
        ("none", "", {"pulumi config set --path pulumi-vllm:host.address", "hostPrivateKey < key-file"}),
        ("none", "  pulumi-vllm:host: {address: 203.0.113.7}\n", set()),
        ("spheron", "", {"export SPHERON_API_KEY"}),
    ],
)
def test_the_next_steps_are_those_of_the_stacks_machine(tmp_path, capsys, cloud, host, wanted):
    (tmp_path / "Pulumi.mine.yaml").write_text(OWN.replace("CLOUD", cloud) + host)
    assert main(["init", str(tmp_path)]) == 0
    steps = capsys.readouterr().out.partition("Next:")[2]
    known = (
        "pulumi config set --path pulumi-vllm:host.address",
        "hostPrivateKey < key-file",
        "export SPHERON_API_KEY",
    )
    assert {one for one in known if one in steps} == wanted


def test_a_second_time_changes_nothing(tmp_path, init):
    init(".")
    before = tree(tmp_path)
    code, report = init(".")
    assert code == 0
    assert tree(tmp_path) == before
    assert set(report["kept"]) == before.keys()
    assert report["wrote"] == report["added"] == []


@pytest.mark.parametrize("stack", sorted(user_project.stacks()))
def test_every_stack_can_be_begun_with(tmp_path, init, stack):
    assert init(".", "--stack", stack)[0] == 0
    assert main(["plan", stack]) == 0
    first, second, third, *_ = (tmp_path / f"Pulumi.{stack}.yaml").read_text().splitlines()
    assert first == "# yaml-language-server: $schema=pulumi-vllm.schema.json"
    assert stack in second
    assert third == "config:"
    assert json.loads((tmp_path / "pulumi-vllm.schema.json").read_text())["title"]


def test_the_engines_own_stack_file_gets_the_block(tmp_path, init):
    (tmp_path / "Pulumi.local.yaml").write_text("encryptionsalt: v1:abc\n")
    code, report = init(".")
    assert code == 0
    assert report["added"] == ["Pulumi.local.yaml"]
    document = yaml.safe_load((tmp_path / "Pulumi.local.yaml").read_text())
    assert document["encryptionsalt"] == "v1:abc"
    assert document["config"]["pulumi-vllm:server"]["precision"] == "bf16"


PERSONS = """\
# what we run
name: shop        # our shop
runtime:
  name: python
  options:
    virtualenv: venv
options:
  # we like it so
  parallel: 4
plugins:
  providers:
  - name: other
    path: ../other
config:
  a: b
"""


def test_a_persons_project_gets_lines_and_keeps_its_own(tmp_path, init):
    (tmp_path / "Pulumi.yaml").write_text(PERSONS)
    (tmp_path / "__main__.py").write_text("import pulumi\n")
    (tmp_path / "requirements.txt").write_text("pulumi-aws==7.0.0")
    (tmp_path / ".gitignore").write_text("*.pyc\n.venv/\n")
    code, report = init(".")
    text = (tmp_path / "Pulumi.yaml").read_text()
    kept = [line for line in text.splitlines() if line in PERSONS.splitlines()]
    assert kept == PERSONS.splitlines(), "every line of theirs, in their order"
    document = yaml.safe_load(text)
    assert document["options"] == {"refresh": "always", "parallel": 4}
    assert document["plugins"]["providers"] == [OURS, {"name": "other", "path": "../other"}]
    assert document["config"] == {"a": "b"}
    assert (tmp_path / "requirements.txt").read_text().splitlines()[0] == "pulumi-aws==7.0.0"
    assert "pulumi-vllm" in (tmp_path / "requirements.txt").read_text().splitlines()[1]
    assert (tmp_path / ".gitignore").read_text() == "*.pyc\n.venv/\n__pycache__/\n.pulumi-vllm/\n"
    assert "/venv" in (tmp_path / "provider/pulumi-resource-vllm").read_text()
    assert (tmp_path / "__main__.py").read_text() == "import pulumi\n"
    assert code == 2
    (left,) = report["left"]
    assert left.startswith(
        "__main__.py: declares no server, so it does not read Pulumi.local.yaml; write there:"
    )


def test_the_stack_goes_where_the_project_keeps_its_stacks(tmp_path, init):
    (tmp_path / "Pulumi.yaml").write_text("name: a\nruntime: python\nstackConfigDir: stacks\n")
    assert init(".")[0] == 0
    assert (tmp_path / "stacks/Pulumi.local.yaml").exists()
    assert (tmp_path / "stacks/pulumi-vllm.schema.json").exists()
    assert not (tmp_path / "Pulumi.local.yaml").exists()
    assert main(["plan", "local"]) == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "name: a\nruntime: nodejs\noptions: {parallel: 1}\n",
            ["`options` cannot be extended without changing other lines"],
        ),
        (
            "name: a\nruntime: nodejs\nplugins: {}\n",
            ["`plugins.providers` cannot be extended without changing other lines"],
        ),
        ("name: a\nruntime: nodejs\noptions:\n", ["`options` cannot be extended"]),
        ("name: a\nruntime: nodejs\nplugins:\n  providers: 3\n", ["`plugins.providers` cannot be extended"]),
        ("name: a\nruntime: nodejs\noptions:\n  refresh: never\n", ["options.refresh is never"]),
        ("{name: a, runtime: nodejs}\n", ["`plugins.providers`", "`options`"]),
    ],
)
def test_a_line_that_cannot_be_added_is_reported(tmp_path, init, text, words):
    (tmp_path / "Pulumi.yaml").write_text(text)
    code, report = init(".")
    assert code == 2
    words = [
        *words,
        "the program (nodejs): declares no server, so it does not read Pulumi.local.yaml; declare",
    ]
    assert all(word in sentence for word, sentence in zip(words, report["left"], strict=True))
    assert yaml.safe_load(text).items() <= yaml.safe_load((tmp_path / "Pulumi.yaml").read_text()).items()
    assert not (tmp_path / "__main__.py").exists(), "its program is not Python"
    assert "pulumi-vllm" in (tmp_path / "requirements.txt").read_text(), "its plugin is"


@pytest.mark.parametrize(
    "form", ["packages:\n  vllm: ./elsewhere\n", "plugins:\n  providers: [{name: vllm, path: ./elsewhere}]\n"]
)
def test_a_plugin_that_is_named_already_is_left_alone(tmp_path, init, form):
    (tmp_path / "Pulumi.yaml").write_text(f"name: a\nruntime: python\noptions:\n  refresh: always\n{form}")
    assert init(".")[0] == 0
    assert not (tmp_path / "provider").exists()


def test_all_errors_are_reported_at_once_and_nothing_is_written(tmp_path, init):
    (tmp_path / "Pulumi.yaml").write_text("name: [")
    code, printed = init(".", "--stack", "spheron-h20-1x-fp8", "--name", "a b")
    assert code == 1
    assert "--name a b: is not allowed" in printed
    assert "did you mean spheron-h200-1x-fp8?" in printed
    assert "is not YAML" in printed
    assert tree(tmp_path).keys() == {"Pulumi.yaml"}


def test_a_launcher_of_ones_own_is_kept_and_reported(tmp_path, init):
    (tmp_path / "provider").mkdir()
    (tmp_path / "provider/pulumi-resource-vllm").write_text("#!/bin/sh\nexec mine\n")
    code, report = init(".")
    assert code == 2
    assert "is not what this version writes" in report["left"][0]
    assert (tmp_path / "provider/pulumi-resource-vllm").read_text() == "#!/bin/sh\nexec mine\n"


def test_a_project_with_pyproject_gets_no_second_list(tmp_path, init):
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "shop"\n')
    code, report = init(".")
    assert code == 2
    assert report["left"][0].startswith("pyproject.toml: add to its dependencies: pulumi-vllm[local]")
    assert not (tmp_path / "requirements.txt").exists()
    assert "pip install 'pulumi-vllm" in (tmp_path / "provider/pulumi-resource-vllm").read_text()


def test_a_folder_that_cannot_be_written_is_reported(tmp_path, init):
    (tmp_path / "provider").write_text("a file of theirs")
    code, printed = init(".")
    assert code == 1
    assert "provider" in printed
    assert "run this again" in printed


@pytest.mark.parametrize("where", [".venv", "path", "nowhere"])
def test_the_launcher_finds_the_environment(tmp_path, init, monkeypatch, where):
    init(".")
    bin_folder = tmp_path / (".venv/bin" if where == ".venv" else "elsewhere")
    bin_folder.mkdir(parents=True)
    if where != "nowhere":
        program = bin_folder / "pulumi-resource-vllm"
        program.write_text('#!/bin/sh\necho "got $*"\n')
        program.chmod(0o755)
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    done = subprocess.run(
        [tmp_path / "provider/pulumi-resource-vllm", "127.0.0.1:1"],
        env={"PATH": f"{bin_folder}:{tmp_path / 'provider'}:/usr/bin:/bin"} | {"HOME": os.environ["HOME"]},
        text=True, capture_output=True, check=False, timeout=20, cwd="/",
    )  # fmt: skip
    if where == "nowhere":
        assert done.returncode == 1
        assert "run there: python3 -m venv .venv && .venv/bin/pip install" in done.stderr
    else:
        assert done.stdout == "got 127.0.0.1:1\n"


@pytest.mark.parametrize(
    ("origin", "line"),
    [
        (None, "pulumi-vllm=={}"),
        ({"url": "file:///src", "dir_info": {}}, "pulumi-vllm @ file:///src"),
        ({"url": "https://example.org/a.whl", "archive_info": {}}, "pulumi-vllm @ https://example.org/a.whl"),
        (
            {"url": "https://example.org/a.git", "vcs_info": {"vcs": "git", "commit_id": "0" * 40}},
            f"pulumi-vllm @ git+https://example.org/a.git@{'0' * 40}",
        ),
    ],
)
def test_requirements_name_where_this_version_came_from(monkeypatch, origin, line):
    class Installed:
        def read_text(self, name):
            assert name == "direct_url.json"
            return json.dumps(origin) if origin else None

    monkeypatch.setattr(user_project.metadata, "distribution", lambda _: Installed())
    assert user_project.requirement("pulumi-vllm") == line.format(user_project.__version__)


def test_the_requirement_of_a_checkout_is_its_folder(monkeypatch):
    def distribution(name):
        raise user_project.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(user_project.metadata, "distribution", distribution)
    origin = user_project.requirement("pulumi-vllm").removeprefix("pulumi-vllm @ ")
    assert (Path(origin.removeprefix("file://")) / "pyproject.toml").exists()


def test_lines_are_added_to_what_is_there_only_where_the_rest_stays_the_same():
    text = "name: a\noptions:\n    parallel: 1\n\n# the end"
    changed, left = pulumi_yaml.with_lines(text, pulumi_yaml.parse(text, "x"))
    assert left == []
    assert yaml.safe_load(changed)["options"] == {"refresh": "always", "parallel": 1}
    assert "# the end" in changed
