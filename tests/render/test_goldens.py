"""tests/rendered/<stack>/ is the deployment: a change there is read in review like code.

`UPDATE_GOLDENS=1 pytest tests/render` writes it anew.
"""

import json
import os

from pulumi_vllm.render import cloud_init, jinja

import stacks

GOLDENS = stacks.ROOT / "tests/rendered"


def texts(stack):
    """Every templated file, the list of all files, the plan, and the user data."""
    files = stacks.rendered(stack)
    same = {*jinja.plain(), *(file.path for file in files if "/requirements-" in file.path)}
    listed = "".join(
        f"{file.mode} {file.owner} {file.path}: {file.on_change}\n" for file in files if file.path not in same
    )
    found = {file.path.lstrip("/"): file.text for file in files if file.path not in same}
    found["files.txt"] = listed
    found["plan.json"] = json.dumps(stacks.planned(stack).summary(), indent=1) + "\n"
    found["cloud-init.json"] = json.dumps(cloud_init(stacks.planned(stack)), indent=1) + "\n"
    return found


def test_rendered_as_reviewed(stack):
    wanted, folder = texts(stack), GOLDENS / stack
    if os.environ.get("UPDATE_GOLDENS"):
        for path in [path for path in folder.rglob("*") if path.is_file()]:
            path.unlink()
        for name, text in wanted.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
    found = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert sorted(found) == sorted(wanted)
    for name, text in wanted.items():
        assert found[name] == text, f"{stack}/{name} changed; if that is meant, run with UPDATE_GOLDENS=1"
