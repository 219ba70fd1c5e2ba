"""The real client libraries through the real gateway, and the snippets of docs/how-to/clients.md."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import sdk_matrix
from adapted import KEY, MODEL

pytestmark = [pytest.mark.ci, pytest.mark.usefixtures("key")]
GUIDE = Path(__file__).parents[2] / "docs/how-to/clients.md"


def test_every_client_gets_what_the_reference_says(engine, gateway):
    found = sdk_matrix.page(gateway(engine), KEY)
    if os.environ.get("UPDATE_CLIENTS"):
        sdk_matrix.PAGE.write_text(found)
    assert sdk_matrix.PAGE.read_text() == found


def snippets(language):
    """The code of the guide in this language that is marked as tested."""
    return re.findall(rf"<!-- tested -->\n```{language}\n(.*?)```", GUIDE.read_text(), re.DOTALL)


@pytest.mark.parametrize(
    ("language", "command"), [("python", [sys.executable, "-c"]), ("sh", ["bash", "-euc"])]
)
def test_the_snippets_of_the_guide_run(engine, gateway, tmp_path, language, command):
    there, tried = gateway(engine), snippets(language)
    assert tried
    variables = {
        "PATH": os.environ["PATH"], "SSL_CERT_FILE": str(there.ca), "LLM_URL": there.url, "LLM_KEY": KEY,
        "LLM_MODEL": MODEL,
    }  # fmt: skip
    for code in tried:
        done = subprocess.run(
            [*command, code], env=variables, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "fox" in done.stdout
