"""A user's project folder: the files that it needs, those that exist, and what is left to the user."""

import json
import os
import re
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from pulumi_vllm import __version__
from pulumi_vllm.cli import cloud_account, pulumi_yaml, user_program
from pulumi_vllm.cli.schema import EDITOR_LINE, SCHEMA_FILE
from pulumi_vllm.component import project_file
from pulumi_vllm.plan import host_block, own_machine
from pulumi_vllm.plan.address_ranges import SET_COMMAND
from pulumi_vllm.plan.suggestions import suggestion

_PACKAGE: Final = Path(__file__).resolve().parents[1]
_STARTER: Final = Path(__file__).with_name("starter")
DEFAULT_STACK: Final = "local"
_LAUNCHER: Final = "provider/pulumi-resource-vllm"
_IGNORED: Final = (".venv/", "__pycache__/", ".pulumi-vllm/")
# In requirements.txt or pyproject.toml, with the rest of the line.
_NAMED: Final = re.compile(r"""(?:^|["'])[ \t]*pulumi[-_.]vllm(?![\w-])(.*)""", re.IGNORECASE | re.MULTILINE)
_PROJECT_NAME: Final = r"[A-Za-z0-9_.-]{1,100}"  # sdk/go/common/tokens/project.go in Pulumi's repository


def stacks() -> dict[str, Path]:
    """Return the stack files of this package, from the wheel or from a checkout."""
    for folder in (_PACKAGE / "stacks", _PACKAGE.parents[1] / "stacks"):
        if folder.is_dir():
            return {file.stem.removeprefix("Pulumi."): file for file in folder.glob("Pulumi.*.yaml")}
    raise pulumi_yaml.ProjectFileError(f"{_PACKAGE}: no stacks folder; install pulumi-vllm again")


def find_errors(folder: Path, name: str, stack: str, *, named: bool = False) -> list[str]:
    """Return every error that prevents `init`, before a file is written. `named`: the name is the user's."""
    found = []
    there = next(one for one in (folder, *folder.absolute().parents) if os.path.lexists(one))
    if not there.is_dir():
        found.append(f"{there}: is not a folder; name another one, or move it away")
    if not re.fullmatch(_PROJECT_NAME, name):
        found.append(f"--name {name}: is not allowed; use letters, digits, - _ . only, at most 100 of them")
    if stack not in (known := stacks()) and stack != served_stack(folder):
        found.append(f"--stack {stack}: no such stack; {suggestion(stack, known)}")
    if (folder / "Pulumi.json").exists():
        found.append(
            f"{folder / 'Pulumi.json'}: only Pulumi.yaml can be extended; write it as YAML, then run this again"
        )
    document, file = {}, project_file.find(folder) or folder / "Pulumi.yaml"
    try:
        if file.exists():
            document = pulumi_yaml.parse(pulumi_yaml.read(file), str(file))
            if named and document.get("name") != name:
                found.append(f"--name {name}: {file} has the name {document.get('name')}; leave out --name")
        if (path := pulumi_yaml.stack_file(document, file, stack)).exists():
            pulumi_yaml.parse(pulumi_yaml.read(path), str(path), empty=True)
        if there == folder:
            found += _in_the_way(folder, (file, path, path.with_name(SCHEMA_FILE)))
    except pulumi_yaml.ProjectFileError as error:
        found.append(str(error))
    return found


def _in_the_way(folder: Path, files: tuple[Path, ...]) -> list[str]:
    """Return an error for each path that `init` reads or writes and that is neither a file nor absent."""
    names = (_LAUNCHER, "__main__.py", "requirements.txt", "pyproject.toml", ".gitignore")
    wanted = dict.fromkeys((*files, *(folder / name for name in names)), "file")
    wanted = {file.parent: "folder" for file in wanted if file.parent != folder} | wanted
    return [
        f"{path}: is not a {kind}; move it away, then run this again"
        for path, kind in wanted.items()
        if os.path.lexists(path) and not (path.is_file() if kind == "file" else path.is_dir())
    ]


def served_stack(folder: Path) -> str | None:
    """Return the first stack of the project whose file has the block of a server already."""
    try:
        there = project_file.find(folder) or folder / "Pulumi.yaml"
        document = pulumi_yaml.parse(pulumi_yaml.read(there), str(there)) if there.is_file() else {}
        stack_files = pulumi_yaml.stack_file(document, there, "*")
    except pulumi_yaml.ProjectFileError:  # find_errors reports it
        return None
    for path in sorted(stack_files.parent.glob(stack_files.name)):
        with suppress(pulumi_yaml.ProjectFileError):
            if _has_block(pulumi_yaml.read(path), str(path)):
                return path.stem.removeprefix("Pulumi.")
    return None


class Project:
    """What `init` does to one folder. Files that are there are kept; Pulumi.yaml and lists get lines added."""

    def __init__(self, folder: Path, name: str, stack: str | None) -> None:
        self.folder, self.name = folder, name
        self.wrote: list[str] = []
        self.added: list[str] = []
        self.kept: list[str] = []
        self.left: list[str] = []
        self.notes: list[str] = []
        there = project_file.find(folder)
        self._file = there.name if there else "Pulumi.yaml"
        self._document = pulumi_yaml.parse(pulumi_yaml.read(there), str(there)) if there else {}
        self._program = user_program.look(folder, self._document, self._venv)
        # A program that describes its server itself would rent what it names, whatever the stack file says.
        self.stack = stack or (None if self._program.declares and not self._program.reads else DEFAULT_STACK)

    def report(self) -> dict[str, list[str]]:
        """Return the result for --json."""
        return {
            "wrote": self.wrote,
            "added": self.added,
            "kept": self.kept,
            "left": self.left,
            "notes": self.notes,
        }

    def write(self) -> None:
        """Write or extend the files. A second run changes nothing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        own_path = bool(self._document) and project_file.names_plugin(self._document)
        self._project_yaml()
        if not own_path or (self.folder / _LAUNCHER).exists() or self._is_our_path():
            self._launcher()
        if self.stack:
            self._stack_file(self.stack)
            self._schema()
        self._declaration()
        self._requirements()  # of the plugin, whatever language the program is in
        self._lines(".gitignore", _IGNORED)

    def next_steps(self) -> list[str]:
        """Return the commands to run next."""
        venv, stack = self._venv, self.stack
        config = self._config() if stack else {}
        is_own = own_machine.is_declared_in(config.get("pulumi-vllm:server"))
        steps = [] if self.folder == Path() else [f"cd {self.folder}"]
        if not (self.folder / venv / "bin" / "pulumi-resource-vllm").exists():
            steps.append(self._install_line(self._requirement))
        if not stack:
            return [*steps, "pulumi preview"]
        steps.append(f"{venv}/bin/pulumi-vllm plan {stack}   # does it fit, and what does it cost")
        if stack == "local":
            steps.append(
                f'eval "$({venv}/bin/pulumi-vllm local up)"   # the local cloud; needs root on Linux'
            )
        elif not is_own:
            steps.append(f"export {cloud_account.KEY}=…")
        steps.append("pulumi login --local   # state on this machine; or log in to the backend that you use")
        steps.append(
            f"pulumi stack init {stack}   # asks for a passphrase, which every later command needs; keep it"
        )
        if stack != "local":
            steps.append(f"{SET_COMMAND}   # who may reach the server")
        if is_own and not config.get(host_block.IN_STACK_FILE):
            steps += (f"{host_block.SET_ADDRESS}   # your machine", host_block.SET_KEY)
        return [*steps, "pulumi up"]

    # -- the files ----------------------------------------------------------------------------------
    def _project_yaml(self) -> None:
        if not self._document:
            self._new(self._file, pulumi_yaml.new(self.name))
            self._document = pulumi_yaml.parse(pulumi_yaml.read(self.folder / self._file), self._file)
            return
        text = pulumi_yaml.read(self.folder / self._file)
        changed, left = pulumi_yaml.with_lines(text, self._document)
        self.left += left
        self._change(self._file, text, changed)

    def _launcher(self) -> None:
        text = (
            (_STARTER / "pulumi-resource-vllm")
            .read_text()
            .replace("$project/.venv", f"$project/{self._venv}")
        )
        if Path(self._venv).is_absolute():
            text = text.replace(f"$project/{self._venv}", self._venv)
        # Without an extra: the next stack's would make it another text.
        install = self._install_line(requirement("pulumi-vllm"))
        text = text.replace("INSTALL", install.replace('"', '\\"'))
        path = self.folder / _LAUNCHER
        if not self._new(_LAUNCHER, text) and pulumi_yaml.read(path) != text:
            self.left.append(
                f"{_LAUNCHER}: is not what this version writes; move it away and run this again, or keep it"
            )
            return
        path.chmod(0o755)

    def _stack_file(self, stack: str) -> None:
        path = self.folder / self._stack_name
        if path.is_file() and _has_block(pulumi_yaml.read(path), str(path)):
            self.kept.append(self._stack_name)
            return
        block = re.sub(r"\A(#.*\n)*", "", stacks()[stack].read_text())
        head = (
            f"# From pulumi-vllm {__version__}. `pulumi-vllm plan {stack}` shows what it decides, and why.\n"
        )
        if self._new(self._stack_name, EDITOR_LINE + head + block):
            return
        text = pulumi_yaml.read(path)
        if (changed := pulumi_yaml.with_block(text, block)) is not None:
            # The engine has made it: `pulumi stack init` came before this.
            self.kept.remove(self._stack_name)
            self._change(self._stack_name, text, changed)
            return
        self.left.append(f"{self._stack_name}: has no pulumi-vllm:server under config; add:\n{block}")

    def _schema(self) -> None:
        """Write the JSON Schema beside the stack file, which names it in its first line."""
        text = stacks()["local"].with_name(SCHEMA_FILE).read_text()
        name = str(Path(self._stack_name).with_name(SCHEMA_FILE))
        if not self._new(name, text) and pulumi_yaml.read(self.folder / name) != text:
            self.left.append(f"{name}: is from another version; run: pulumi-vllm schema > {name}")

    def _declaration(self) -> None:
        program = self._program
        if not program.exists and not program.declares:
            self._new(program.where, (_STARTER / "__main__.py").read_text())
            return
        if program.runtime == user_program.PYTHON:
            self.kept.append(program.where)
        if not self.stack:
            self.notes.append(
                f"{self._stack_name}: was not written, because {program.where} declares a server and does not read it; "
                f"--stack {DEFAULT_STACK} writes it, and says what the program must read"
            )
        elif left := program.left(self._stack_name):
            self.left.append(left)

    def _requirements(self) -> None:
        wanted = self._requirement
        if self._pyproject.exists():
            there = _NAMED.search(pulumi_yaml.read(self._pyproject))
            if not there:
                self.left.append(f"pyproject.toml: add to its dependencies: {wanted}")
            self._extra("pyproject.toml", there)
            return
        path = self.folder / "requirements.txt"
        there = _NAMED.search(pulumi_yaml.read(path)) if path.exists() else None
        if there:
            self.kept.append("requirements.txt")
            self._extra("requirements.txt", there)
        else:
            self._lines("requirements.txt", (wanted,))
        if "file://" in wanted and wanted in pulumi_yaml.read(path):
            self.notes.append(
                "requirements.txt: names a path of this machine; put a wheel where every machine finds it, "
                "and write its address there"
            )

    def _extra(self, name: str, there: re.Match[str] | None) -> None:
        """Report a missing extra: the stack local needs one that other stacks do not."""
        if there and self.stack == "local" and not re.search(r"\[[^\]]*\blocal\b", there[1]):
            self.left.append(
                f"{name}: names pulumi-vllm without the extra that the stack local needs; "
                f"write: {self._requirement}"
            )

    # -- how a file is written ------------------------------------------------------------------------
    @property
    def _venv(self) -> str:
        options = self._runtime_block.get("options")
        named = options.get("virtualenv") if isinstance(options, dict) else None
        return str(named or ".venv").rstrip("/")

    @property
    def _pyproject(self) -> Path:
        return self.folder / "pyproject.toml"

    @property
    def _requirement(self) -> str:
        return requirement("pulumi-vllm[local]" if self.stack == "local" else "pulumi-vllm")

    def _install_line(self, wanted: str) -> str:
        what = f"'{wanted}'" if self._pyproject.exists() else "-r requirements.txt"
        return f"python3 -m venv {self._venv} && {self._venv}/bin/pip install {what}"

    @property
    def _runtime_block(self) -> dict[str, Any]:
        runtime = self._document.get("runtime") or {}
        return runtime if isinstance(runtime, dict) else {"name": runtime}

    @property
    def _stack_name(self) -> str:
        return str(pulumi_yaml.stack_file(self._document, Path(self._file), self.stack or DEFAULT_STACK))

    def _config(self) -> dict[str, Any]:
        """Return the configuration of the stack file."""
        path = self.folder / self._stack_name
        config = pulumi_yaml.parse(pulumi_yaml.read(path), str(path), empty=True).get("config")
        return config if isinstance(config, dict) else {}

    def _is_our_path(self) -> bool:
        return "./provider" in json.dumps([self._document.get("plugins"), self._document.get("packages")])

    def _new(self, name: str, text: str) -> bool:
        """Write a file unless it exists, and return whether it was written."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            self.kept.append(name)
            return False
        self.wrote.append(name)
        return True

    def _lines(self, name: str, lines: tuple[str, ...]) -> None:
        path = self.folder / name
        if not path.exists():
            self._new(name, "\n".join(lines) + "\n")
            return
        text = pulumi_yaml.read(path)
        end = pulumi_yaml.ending(text)
        missing = [line for line in lines if line not in {there.strip() for there in text.splitlines()}]
        begun = text if not text or text.endswith("\n") else text + end
        self._change(name, text, begun + "".join(f"{line}{end}" for line in missing) if missing else text)

    def _change(self, name: str, text: str, changed: str) -> None:
        if changed == text:
            self.kept.append(name)
            return
        pulumi_yaml.write(self.folder / name, changed)
        self.added.append(name)


def requirement(name: str) -> str:
    """Return the line of requirements.txt for this version, from where it was installed."""
    try:
        origin = json.loads(metadata.distribution("pulumi-vllm").read_text("direct_url.json") or "{}")
    except metadata.PackageNotFoundError:  # the environment of ./dev: no index has what a checkout holds
        origin = {"url": _PACKAGE.parents[1].as_uri()}
    url, vcs = origin.get("url"), origin.get("vcs_info")
    if not url:
        return f"{name}=={__version__}"
    return f"{name} @ {vcs['vcs']}+{url}@{vcs['commit_id']}" if vcs else f"{name} @ {url}"


def _has_block(text: str, where: str) -> bool:
    config = pulumi_yaml.parse(text, where, empty=True).get("config")
    return isinstance(config, dict) and "pulumi-vllm:server" in config
