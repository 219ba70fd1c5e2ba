"""The real client libraries through the real gateway, and the snippets of docs/how-to/clients.md."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import sdk_matrix
from adapted import KEY, MODEL

pytestmark = pytest.mark.usefixtures("key")
GUIDE = Path(__file__).parents[2] / "docs/how-to/clients.md"


def as_written(found):
    """Compare columns with the reference page, or write them into it."""
    written = sdk_matrix.read_page()
    if os.environ.get("UPDATE_CLIENTS"):
        kinds = {name.rpartition(" ")[0] or name for name in found}  # another version is another name
        kept = {
            name: cells for name, cells in written.items() if (name.rpartition(" ")[0] or name) not in kinds
        }
        sdk_matrix.PAGE.write_text(sdk_matrix.page(found | kept))
    assert {name: written.get(name) for name in found} == found or os.environ.get("UPDATE_CLIENTS")


@pytest.mark.ci
def test_every_client_gets_what_the_reference_says(engine, gateway):
    as_written(sdk_matrix.columns(sdk_matrix.PYTHON_AND_CURL, gateway(engine), KEY))
    assert sdk_matrix.PAGE.read_text() == sdk_matrix.page(sdk_matrix.read_page())


@pytest.mark.all
def test_openais_library_for_javascript_gets_what_the_reference_says(engine, gateway, tmp_path):
    if shutil.which("npm") is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            "no npm; `apt-get install npm` installs it"
        )
    there = gateway(engine)
    as_written(sdk_matrix.columns([sdk_matrix.node(tmp_path)], there, KEY))
    (code,) = snippets("js")
    (tmp_path / "snippet.mjs").write_text(code)
    runs(there, tmp_path, ["node", "snippet.mjs"])


def snippets(language):
    """The code of the guide in this language that is marked as tested."""
    return re.findall(rf"<!-- tested -->\n```{language}\n(.*?)```", GUIDE.read_text(), re.DOTALL)


@pytest.mark.ci
@pytest.mark.parametrize(
    ("language", "command"), [("python", [sys.executable, "-c"]), ("sh", ["bash", "-euc"])]
)
def test_the_snippets_of_the_guide_run(engine, gateway, tmp_path, language, command):
    there, tried = gateway(engine), snippets(language)
    assert tried
    for code in tried:
        runs(there, tmp_path, [*command, code])


def runs(there, folder, command):
    """Run a snippet as the guide says, with its variables alone."""
    variables = {
        "PATH": os.environ["PATH"], "SSL_CERT_FILE": str(there.ca), "NODE_EXTRA_CA_CERTS": str(there.ca),
        "LLM_URL": there.url, "LLM_KEY": KEY, "LLM_MODEL": MODEL, "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }  # fmt: skip
    done = subprocess.run(command, env=variables, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "fox" in done.stdout
