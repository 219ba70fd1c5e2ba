"""Every client against vLLM itself on a machine of the local cloud. tests/client asks the fake engine the same."""

import dataclasses
import shlex
import shutil
import ssl
import sys
from pathlib import Path

import pytest
import requests

sys.path.insert(0, str(Path(__file__).parents[1] / "client"))
import sdk_matrix
from adapted import ADAPTED, LIMITED

pytestmark = pytest.mark.all
PARSER_IS_PREPARED_ONCE = """
import server_repairs, PIL.Image
from vllm.parser.engine import streaming_parser_engine
server_repairs.keep_parser()
server_repairs.leave_pixels_to_vllm()
assert streaming_parser_engine._build_drop_info.__module__ == "server_repairs"
assert PIL.Image.MAX_IMAGE_PIXELS is None
"""


@dataclasses.dataclass
class Served:
    """The stack's endpoint, as the clients of the matrix need it."""

    url: str
    ca: Path

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca))


def is_repaired(stack):
    """Ask the installed vLLM whether it has what the middleware repairs."""
    process = stack.on_host("systemctl show -P MainPID vllm").strip()
    python = stack.on_host("systemctl show -P ExecStart vllm").partition("path=")[2].partition(" ")[0]
    environment = stack.on_host(f"tr '\\0' '\\n' < /proc/{process}/environ")
    (modules,) = [line for line in environment.splitlines() if line.startswith("PYTHONPATH=")]
    script = shlex.quote(PARSER_IS_PREPARED_ONCE)
    done = stack.on_host(f"{modules} {python} -c {script} 2>&1 && echo repaired")
    assert done.rstrip().endswith("repaired"), done


def test_every_client_gets_from_vllm_what_the_reference_says(projects, tmp_path):
    stack = projects("real")
    stack.up()
    is_repaired(stack)
    outputs = stack.outputs()
    there = Served(outputs["endpoint"], tmp_path / "ca.pem")
    there.ca.write_text(outputs["ca_certificate"])
    kinds = [*sdk_matrix.PYTHON_AND_CURL]
    if shutil.which("npm"):
        (tmp_path / "node").mkdir()
        kinds.append(sdk_matrix.node(tmp_path / "node"))
    found = sdk_matrix.columns(kinds, there, outputs["api_key"])
    written = sdk_matrix.read_page()
    assert found == {name: written.get(name) for name in found}

    headers = {"Authorization": f"Bearer {outputs['api_key']}"}
    for case in (*ADAPTED, *LIMITED):
        answer = requests.post(
            there.url + case.path, json=case.body, headers=headers, verify=str(there.ca), timeout=120
        )
        assert (answer.status_code, case.name) == (case.status, case.name), answer.text
        assert case.says in answer.text
