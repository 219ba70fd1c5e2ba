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
VLLM_IS_REPAIRED = """
import server_repairs, PIL.Image
from pathlib import Path
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.parser.engine import streaming_parser_engine
from vllm.parser.mistral import MistralParser
from vllm.tokenizers.mistral import MistralTokenizer
from vllm.v1.engine.input_processor import InputProcessor

tokenizer = MistralTokenizer.from_pretrained(next(Path("WEIGHTS").glob("**/tekken.json")).parent)

def texts():
    ids = range(len(tokenizer))
    return [tokenizer.convert_ids_to_tokens([one], skip) for one in ids for skip in (False, True)]

before = texts()
server_repairs.apply()
assert streaming_parser_engine._build_drop_info.__module__ == "server_repairs"
assert InputProcessor.process_inputs.__wrapped__.__module__ == InputProcessor.__module__
assert PIL.Image.MAX_IMAGE_PIXELS is None
assert before == texts() == texts()

def adjusted(**more):
    chat = {"model": "any", "messages": [{"role": "user", "content": "Hello"}], **more}
    return MistralParser(tokenizer).adjust_request(ChatCompletionRequest.model_validate(chat))

tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
banned = {tokenizer.get_vocab()[name]: -100.0 for name in ("[TOOL_CALLS]", "[ARGS]")}
for plain in ({}, {"reasoning_effort": "high"}, {"response_format": {"type": "text"}}):
    request = adjusted(**plain)
    assert request.structured_outputs is None and request.to_sampling_params(9, {}).logit_bias == banned, plain
json_object = {"response_format": {"type": "json_object"}}
for other in ({"tools": [tool]}, {"tools": [tool], "tool_choice": "none"}, json_object):
    request = adjusted(**other)
    assert request.structured_outputs.grammar and not request.logit_bias, other
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
    weights = stack.on_host("systemctl show -P ExecStart vllm").partition("--model ")[2].partition(" ")[0]
    script = shlex.quote(VLLM_IS_REPAIRED.replace("WEIGHTS", weights))
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
