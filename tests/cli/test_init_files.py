"""`pulumi-vllm init` and what it finds: files in other forms, in other places, that can't be read."""

import pytest
from pulumi_vllm.cli import main, user_project


def test_the_stack_ends_as_the_projects_own_file_does(tmp_path, init):
    (tmp_path / "Pulumi.yml").write_text("name: a\nruntime: python\n")
    assert init(".")[0] == 0
    assert {"Pulumi.yml", "Pulumi.local.yml"} == {file.name for file in tmp_path.glob("Pulumi.*")}
    assert main(["plan", "local"]) == 0


@pytest.mark.parametrize("config", ["config:", "config: {}", "config:\n  a: b", "{encryptionsalt: x}", "{}"])
def test_a_stack_file_that_cannot_take_the_block_stays_as_it_is(tmp_path, init, config):
    (tmp_path / "Pulumi.local.yaml").write_text(config + "\n")
    code, report = init(".")
    assert (tmp_path / "Pulumi.local.yaml").read_text() == config + "\n"
    assert code == 2
    assert report["left"][0].startswith("Pulumi.local.yaml: has no pulumi-vllm:server under config; add:")


def test_a_stack_file_of_comments_alone_gets_the_block(tmp_path, init):
    (tmp_path / "Pulumi.local.yaml").write_text("# ours")
    assert init(".")[0] == 0
    assert (tmp_path / "Pulumi.local.yaml").read_text().startswith("# ours\nconfig:\n")
    assert main(["plan", "local"]) == 0


@pytest.mark.parametrize("folder", ["", "stacks/"])
def test_a_stack_that_has_the_server_is_the_one_to_go_on_with(tmp_path, init, capsys, folder):
    (tmp_path / "stacks").mkdir()
    where = f"stackConfigDir: {folder}\n" if folder else ""
    (tmp_path / "Pulumi.yaml").write_text(f"name: a\nruntime: python\n{where}")
    shipped = user_project.stacks()["spheron-h200-1x-fp8"].read_text()
    (tmp_path / f"{folder}Pulumi.prod.yaml").write_text(shipped)
    (tmp_path / f"{folder}Pulumi.aws.yaml").write_text("config:\n  aws:region: eu-west-1\n")
    code, report = init(".")
    assert code == 0
    assert f"{folder}Pulumi.prod.yaml" in report["kept"]
    assert not list(tmp_path.glob("**/Pulumi.local.yaml"))
    assert "local" not in (tmp_path / "requirements.txt").read_text()
    assert (tmp_path / f"{folder}Pulumi.prod.yaml").read_text() == shipped
    assert main(["init", "."]) == 0
    shown = capsys.readouterr().out
    assert "pulumi-vllm plan prod " in shown
    assert "pulumi stack init prod " in shown
    assert init(".", "--stack", "local")[0] == 2, "the requirement has no extra for local"
    assert (tmp_path / f"{folder}Pulumi.local.yaml").is_file()


def test_line_ends_stay_what_they_were(tmp_path, init):
    theirs = {
        "Pulumi.yaml": "name: a\nruntime: python\noptions:\n  parallel: 4\n# ours",
        "Pulumi.local.yaml": "encryptionsalt: x\n",
        "requirements.txt": "a\nb",
        ".gitignore": "*.pyc\n",
    }
    for name, text in theirs.items():
        (tmp_path / name).write_bytes(text.replace("\n", "\r\n").encode())
    code, report = init(".")
    assert code == 0
    assert set(report["added"]) == theirs.keys()
    for name, text in theirs.items():
        lines = (tmp_path / name).read_bytes().split(b"\r\n")
        assert not any(b"\n" in line for line in lines), name
        assert {line.encode() for line in text.splitlines()} <= set(lines), name
    assert main(["plan", "local"]) == 0


def test_a_list_that_is_no_utf8_keeps_its_bytes(tmp_path, init):
    (tmp_path / ".gitignore").write_bytes("für\n".encode("latin-1"))
    assert init(".")[0] == 0
    assert (tmp_path / ".gitignore").read_bytes().startswith("für\n.venv/\n".encode("latin-1"))


@pytest.mark.parametrize("main_", ["infra", "infra/", "./infra"])
def test_a_program_in_a_folder_is_looked_at(tmp_path, init, main_):
    (tmp_path / "Pulumi.yaml").write_text(f"name: a\nruntime: python\nmain: {main_}\n")
    (tmp_path / "infra").mkdir()
    code, report = init(".")
    assert code == 2
    assert report["left"][0].startswith(
        f"{main_.rstrip('/')}/__main__.py: declares no server, so it does not read Pulumi.local.yaml; write there:"
    )
    (tmp_path / "infra/__main__.py").write_text('from pulumi_vllm import Server\nServer.from_config("a")\n')
    assert init(".")[0] == 0


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("requirements.txt", "pulumi_vllm=={}"),
        ("pyproject.toml", 'dependencies = ["pulumi-vllm=={}"]'),
        ("pyproject.toml", '  "pulumi-vllm=={}",'),
    ],
)
def test_a_second_stack_says_what_its_requirement_lacks(tmp_path, init, name, line):
    (tmp_path / name).write_text(line.format("1.0") + "\n")
    assert init(".", "--stack", "spheron-h200-1x-fp8")[0] == 0
    code, report = init(".", "--stack", "local")
    assert code == 2
    assert report["left"][0].startswith(f"{name}: names pulumi-vllm without the extra")
    (tmp_path / name).write_text(line.replace("vllm", "vllm[other,local]").format("1.0") + "\n")
    assert init(".", "--stack", "local")[0] == 0


def test_an_extra_in_a_table_of_poetry_is_recognized(tmp_path, init):
    (tmp_path / "pyproject.toml").write_text('pulumi-vllm = {version = "1", extras = ["local"]}\n')
    assert init(".")[0] == 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("Pulumi.yaml", "name: a # für\n".encode("latin-1"), "Pulumi.yaml: is not UTF-8"),
        ("Pulumi.yaml", b"name: a\nstackConfigDir: 3\n", "stackConfigDir is 3; write the name of a folder"),
        ("Pulumi.local.yaml", b"config: [\n", "Pulumi.local.yaml:2: is not YAML"),
        ("Pulumi.local.yaml", b"- a\n", "Pulumi.local.yaml: is not a block of keys"),
        ("Pulumi.local.yaml", b"a: \xfc\n", "Pulumi.local.yaml: is not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_reported_before_anything_is_written(
    tmp_path, init, name, content, message
):
    (tmp_path / name).write_bytes(content)
    code, printed = init(".")
    assert code == 1
    assert message in printed
    assert [file.name for file in tmp_path.rglob("*")] == [name]


OF_ITS_OWN = {
    "python": ("__main__.py", 'from pulumi_vllm import Server\nServer("llm", {"server": {}})\n'),
    "nodejs": ("index.ts", 'super("vllm:index:Server", name, args, opts, true);\n'),
    "go": ("cmd/main.go", 'ctx.RegisterRemoteComponentResource("vllm:index:Server", name, args, &it)\n'),
    "yaml": ("Pulumi.yaml", "name: a\nruntime: yaml\nresources:\n  llm: {type: vllm:index:Server}\n"),
}
READS = {
    "python": ("more/server.py", "def make(): return Server.from_config()\n"),
    "nodejs": ("config.js", "new pulumi.Config('pulumi-vllm').requireObject('server')\n"),
    "go": ("server.go", 'config.New(ctx, "pulumi-vllm")\n'),
    "yaml": ("Main.yaml", "server: ${pulumi-vllm:server}\n"),
}


@pytest.mark.parametrize("runtime", OF_ITS_OWN)
def test_a_program_that_describes_its_server_itself_gets_no_stack_file(tmp_path, init, capsys, runtime):
    """It would not read the file, and `pulumi up` of the stack `local` would rent what the program names."""
    (tmp_path / "Pulumi.yaml").write_text(f"name: a\nruntime: {runtime}\n")
    name, text = OF_ITS_OWN[runtime]
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    code, report = init(".")
    assert code == 0
    (note,) = (one for one in report["notes"] if "was not written" in one)
    assert note.startswith("Pulumi.local.yaml: was not written, because ")
    assert "declares a server and does not read it" in note
    assert not {"Pulumi.local.yaml", "pulumi-vllm.schema.json"} & {one.name for one in tmp_path.iterdir()}
    assert "[local]" not in (tmp_path / "requirements.txt").read_text()
    assert main(["init", "."]) == 0
    steps = capsys.readouterr().out.partition("Next:")[2]
    assert "local" not in steps
    assert "pulumi preview" in steps
    # Asked for, it is written, with what the program lacks.
    code, report = init(".", "--stack", "spheron-h200-1x-fp8")
    assert code == 2
    assert report["wrote"] == ["Pulumi.spheron-h200-1x-fp8.yaml", "pulumi-vllm.schema.json"]
    (left,) = report["left"]
    assert "declares a server, but does not read Pulumi.spheron-h200-1x-fp8.yaml; " in left
    assert init(".")[0] == 2, "still"
    name, text = READS[runtime]
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    assert init(".")[0] == 0


def test_what_others_wrote_is_not_the_program(tmp_path, init):
    for folder in ("node_modules/x", "env/lib", ".hidden", "provider"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.py").write_text("from pulumi_vllm import Server\n")
    (tmp_path / "Pulumi.yaml").write_text("name: a\nruntime: {name: python, options: {virtualenv: env}}\n")
    assert init(".")[0] == 0
    assert (tmp_path / "Pulumi.local.yaml").is_file()
    assert (tmp_path / "__main__.py").is_file()


def test_a_name_for_a_project_that_has_one_is_refused(tmp_path, init):
    (tmp_path / "Pulumi.yaml").write_text("name: shop\nruntime: python\n")
    code, printed = init(".", "--name", "store")
    assert code == 1
    assert "--name store: Pulumi.yaml has the name shop; leave out --name" in printed
    assert [one.name for one in tmp_path.iterdir()] == ["Pulumi.yaml"]
    assert init(".", "--name", "shop")[0] == 0


NAMES = (
    "Pulumi.yaml", "Pulumi.local.yaml", "pulumi-vllm.schema.json", "__main__.py", "requirements.txt", "pyproject.toml",
    ".gitignore", "provider/pulumi-resource-vllm",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["a folder", "a link to nothing"])
def test_what_is_in_the_way_of_a_file_is_reported_before_anything_is_written(tmp_path, init, name, kind):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.mkdir() if kind == "a folder" else path.symlink_to("nothing")
    before = sorted(tmp_path.rglob("*"))
    code, printed = init(".")
    assert code == 1
    assert printed.startswith(f"pulumi-vllm: {name}: ")
    assert printed.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("file", "file: is not a folder; name another one, or move it away"),
        ("file/below", "file: is not a folder; name another one, or move it away"),
        ("link", "link: is not a folder; name another one, or move it away"),
        ("x" * 300, f"{'x' * 300}/Pulumi.yaml: File name too long; name another folder"),
        (
            "/proc/a",
            "/proc/a: No such file or directory; name another folder, or move it away and run this again",
        ),
    ],
)
def test_a_folder_that_cannot_be_one_is_reported(tmp_path, init, folder, message):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nothing")
    code, printed = init(folder)
    assert code == 1
    assert message in printed
    assert printed.count("\n") == 1
    assert {one.name for one in tmp_path.iterdir()} == {"file", "link"}
