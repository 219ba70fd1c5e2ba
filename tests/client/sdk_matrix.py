"""What clients ask, with their own libraries, feature by feature. docs/reference/clients.md shows the results."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anthropic
import httpx2 as httpx
import openai
import pytest
from adapted import MODEL, QUESTION
from pulumi_vllm.client import checks

sys.path.insert(0, str(Path(__file__).parent / "programs"))
from questions import CITY

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Sequence
    from typing import Protocol

    class Served(Protocol):
        """A served endpoint and the file of its CA."""

        url: str
        ca: Path

        def tls(self) -> ssl.SSLContext:
            """What Python's libraries verify it with."""


PAGE = Path(__file__).parents[2] / "docs/reference/clients.md"
PROGRAMS = Path(__file__).parent / "programs"
CHUNKED = "Transfer-Encoding: chunked"
IMAGE = checks._blue_square()


class OpenAI:
    """OpenAI's library for Python."""

    name = f"openai (Python) {openai.__version__}"

    def __init__(self, there: Served, key: str) -> None:
        http = httpx.Client(verify=there.tls())
        self.ai = openai.OpenAI(base_url=there.url, api_key=key, max_retries=0, http_client=http)
        developer = [{"role": "developer", "content": "Be short."}, *QUESTION]
        elsewhere = {"type": "image_url", "image_url": {"url": "http://127.0.0.1/x.png"}}
        self.features: dict[str, Callable[[], str]] = {
            "chat": self.said,
            "streaming, with usage": self.stream,
            "a message of role developer": lambda: self.said(messages=developer),
            "reasoning, effort medium": lambda: self.reasoning("medium"),
            "no reasoning, effort low": lambda: str(self.reasoning("low") == "None"),
            "tool call": self.tool,
            "empty list of tools": lambda: self.said(tools=[]),
            "structured output": self.structured,
            "image inside the request": lambda: self.said(
                messages=_asking({"type": "image_url", "image_url": {"url": IMAGE}})
            ),
            "max_completion_tokens": lambda: self.said(max_completion_tokens=3),
            "models, and one model": lambda: (
                self.ai.models.retrieve([one.id for one in self.ai.models.list()][-1]).id
            ),
            "Responses API": lambda: self.ai.responses.create(model=MODEL, input="Hello").output_text,
            "Responses API, streaming": self.response_stream,
            "stored responses": lambda: self.refused(self.continued),
            "image at an address": lambda: self.refused(lambda: self.chat(messages=_asking(elsewhere))),
            "10,000 choices": lambda: self.refused(lambda: self.chat(n=10_000)),
            "a wrong key": lambda: self.refused(self.ai.with_options(api_key="sk-no").models.list),
        }

    def close(self) -> None:
        self.ai.close()

    def chat(self, **more: Any) -> Any:
        return self.ai.chat.completions.create(**({"model": MODEL, "messages": QUESTION} | more))

    def said(self, **more: Any) -> str:
        return str(self.chat(**more).choices[0].message.content)

    def stream(self) -> str:
        chunks = list(self.chat(stream=True, stream_options={"include_usage": True}))
        assert chunks[-1].usage.completion_tokens > 1
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)

    def reasoning(self, effort: str) -> str:
        return str(self.chat(reasoning_effort=effort).choices[0].message.model_extra["reasoning"])

    def tool(self) -> str:
        function = {"name": "get_weather", "parameters": CITY}
        answer = self.chat(tools=[{"type": "function", "function": function}])
        return str(answer.choices[0].message.tool_calls[0].function.name)

    def structured(self) -> str:
        wanted = {"type": "json_schema", "json_schema": {"name": "w", "schema": CITY, "strict": True}}
        return str(json.loads(self.said(response_format=wanted)).keys())

    def response_stream(self) -> str:
        events = self.ai.responses.create(model=MODEL, input="Hello", stream=True)
        return "".join(event.delta for event in events if event.type == "response.output_text.delta")

    def continued(self) -> Any:
        return self.ai.responses.create(model=MODEL, input="Hello", previous_response_id="resp_1")

    def refused(self, call: Callable[[], Any]) -> str:
        with pytest.raises((openai.BadRequestError, openai.AuthenticationError)) as raised:
            call()
        return str(raised.value.body["message"])


class Anthropic:
    """Anthropic's library for Python."""

    name = f"anthropic (Python) {anthropic.__version__}"

    def __init__(self, there: Served, key: str) -> None:
        self.ai = anthropic.Anthropic(
            base_url=there.url.removesuffix("/v1"), api_key=key, max_retries=0,
            http_client=anthropic.DefaultHttpxClient(verify=there.tls()),
        )  # fmt: skip
        data = {"type": "base64", "media_type": "image/png", "data": IMAGE.partition(",")[2]}
        inside, elsewhere = (
            {"type": "image", "source": one} for one in (data, {"type": "url", "url": "http://127.0.0.1/"})
        )
        budget = {"type": "enabled", "budget_tokens": 1024}
        wrong = self.ai.with_options(api_key="sk-no").messages
        self.features: dict[str, Callable[[], str]] = {
            "chat": lambda: self.block("text", system="Be short.").text,
            "streaming, with usage": self.stream,
            "reasoning, effort medium": lambda: self.block("thinking", thinking=budget).thinking,
            "no reasoning, effort low": lambda: (
                self.block("text", output_config={"effort": "low"}, index=0).text
            ),
            "tool call": lambda: (
                self.block("tool_use", tools=[{"name": "get_weather", "input_schema": CITY}]).name
            ),
            "empty list of tools": lambda: self.block("text", tools=[]).text,
            "image inside the request": lambda: self.block("text", messages=_asking(inside)).text,
            "models, and one model": lambda: self.ai.get(f"/v1/models/{MODEL}", cast_to=object)["id"],
            "count of tokens": lambda: str(
                self.ai.messages.count_tokens(model=MODEL, messages=QUESTION).input_tokens
            ),
            "image at an address": lambda: self.refused(
                lambda: self.block("text", messages=_asking(elsewhere))
            ),
            "a wrong key": lambda: self.refused(
                lambda: wrong.create(model=MODEL, max_tokens=1, messages=QUESTION)
            ),
        }

    def close(self) -> None:
        self.ai.close()

    def block(self, kind: str, index: int | None = None, **more: Any) -> Any:
        answer = self.ai.messages.create(
            **({"model": MODEL, "max_tokens": 1800, "messages": QUESTION} | more)
        )
        found = [block for block in answer.content if block.type == kind]
        assert index is None or answer.content[index].type == kind
        return found[0]

    def stream(self) -> str:
        with self.ai.messages.stream(model=MODEL, max_tokens=60, messages=QUESTION) as events:
            text = "".join(events.text_stream)
            assert events.get_final_message().usage.output_tokens > 1
        return text

    def refused(self, call: Callable[[], Any]) -> str:
        with pytest.raises((anthropic.BadRequestError, anthropic.AuthenticationError)) as raised:
            call()
        return str(raised.value.body["error"]["message"])


class Curl:
    """The program curl, as a person uses it."""

    name = "curl"

    def __init__(self, there: Served, key: str) -> None:
        self.there, self.key = there, key
        stored = {"model": MODEL, "input": "x", "previous_response_id": "resp_1"}
        developer = [{"role": "developer", "content": "Be short."}, *QUESTION]
        self.features: dict[str, Callable[[], str]] = {
            "chat": lambda: self.message()["content"],
            "streaming, with usage": self.stream,
            "a message of role developer": lambda: self.message(messages=developer)["content"],
            "no reasoning, effort low": lambda: str(
                self.message(reasoning_effort="low")["reasoning"] is None
            ),
            "empty list of tools": lambda: self.message(tools=[])["content"],
            "models, and one model": lambda: self.ask(f"/models/{MODEL}")["id"],
            "count of tokens": lambda: str(
                self.ask("/../tokenize", {"model": MODEL, "prompt": "a"})["count"]
            ),
            "stored responses": lambda: self.ask("/responses", stored)["error"]["message"],
            "10,000 choices": lambda: self.chat(n=10_000)["error"]["message"],
            "a chunked body": lambda: self.ask("/chat/completions", {}, CHUNKED)["error"]["message"],
        }

    def close(self) -> None:
        pass

    def curl(self, path: str, body: dict[str, Any] | None = None, *headers: str) -> str:
        command = ["curl", "--silent", "--show-error", "--cacert", str(self.there.ca), "--config", "-"]
        if body is not None:
            command += ["--data-binary", json.dumps(body), "--header", "Content-Type: application/json"]
        for header in headers:
            command += ["--header", header]
        key = (
            f'header = "Authorization: Bearer {self.key}"\n'  # not on the command line, which others can read
        )
        command.append(self.there.url + path)
        return subprocess.run(command, input=key, capture_output=True, text=True, check=True).stdout

    def ask(self, path: str, body: dict[str, Any] | None = None, *headers: str) -> Any:
        return json.loads(self.curl(path, body, *headers))

    def chat(self, **more: Any) -> Any:
        return self.ask("/chat/completions", {"model": MODEL, "messages": QUESTION} | more)

    def message(self, **more: Any) -> Any:
        return self.chat(**more)["choices"][0]["message"]

    def stream(self) -> str:
        options = {"stream": True, "stream_options": {"include_usage": True}}
        text = self.curl("/chat/completions", {"model": MODEL, "messages": QUESTION} | options)
        assert re.search(r'"completion_tokens": ?\d', text)
        return text.rstrip().splitlines()[-1]


class Program:
    """A client in a process of its own, which prints what it got for each feature."""

    def __init__(self, title: str, command: Sequence[str | Path], there: Served, key: str) -> None:
        variables = {
            "PATH": os.environ["PATH"], "LLM_URL": there.url, "LLM_KEY": key, "LLM_MODEL": MODEL, "LLM_IMAGE": IMAGE,
            "SSL_CERT_FILE": str(there.ca), "NODE_EXTRA_CA_CERTS": str(there.ca),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else LiteLLM asks the internet for prices
        }  # fmt: skip
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        answer = json.loads(done.stdout)
        self.name = f"{title} {answer['version']}"
        self.features = {name: lambda found=found: str(found) for name, found in answer["found"].items()}

    def close(self) -> None:
        pass


def python_program(package: str, file: str) -> Callable[[Served, str], Program]:
    """A program of the folder `programs` that uses this package."""
    return lambda there, key: Program(f"{package} (Python)", [sys.executable, PROGRAMS / file], there, key)


def _asking(part: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, part]}]


PYTHON_AND_CURL = (
    OpenAI, Anthropic, python_program("litellm", "litellm_client.py"),
    python_program("langchain-openai", "langchain_client.py"), python_program("aiohttp", "aiohttp_client.py"), Curl,
)  # fmt: skip


def node(folder: Path) -> Callable[[Served, str], Program]:
    """OpenAI's library for JavaScript, which is installed into an empty folder from its lock."""
    for name in ("package.json", "package-lock.json", "client.mjs"):
        shutil.copy(PROGRAMS / "node" / name, folder)
    subprocess.run(["npm", "ci", "--silent", "--ignore-scripts"], cwd=folder, check=True)
    return lambda there, key: Program("openai (JavaScript)", ["node", folder / "client.mjs"], there, key)


REFUSED = ("stored responses", "image at an address", "10,000 choices", "a wrong key", "a chunked body")
"""Features that end in an error, which must be a clear one."""


def columns(
    kinds: Iterable[Callable[[Served, str], Any]], there: Served, key: str
) -> dict[str, dict[str, str]]:
    """The cells of each client, once every feature has had the result that it must have."""
    found = {}
    for kind in kinds:
        client = kind(there, key)
        with contextlib.closing(client):
            found[client.name] = {feature: _cell(client, feature) for feature in client.features}
    return found


def _cell(client: Any, feature: str) -> str:
    found = client.features[feature]()
    assert found not in ("", "None", "False"), (client.name, feature)
    return f"refused: {found}" if feature in REFUSED else "yes"


def read_page() -> dict[str, dict[str, str]]:
    """The cells of the reference page. An empty one is left out."""
    (names, _, *rows), (_, _, *refused) = [
        [[cell.strip() for cell in line[1:-1].split("|")] for line in part.splitlines()]
        for part in PAGE.read_text().split("\n\n")
        if part.startswith("|")
    ]
    messages, found = dict(refused), {name: {} for name in names[1:]}
    for feature, *cells in rows:
        for name, cell in zip(found, cells, strict=True):
            if cell:
                found[name][feature] = f"{cell}: {messages[feature]}" if cell == "refused" else cell
    return found


def page(found: dict[str, dict[str, str]]) -> str:
    """The reference page of these cells."""
    found = {name: found[name] for name in sorted(found)}
    longest_first = sorted(found.values(), key=len, reverse=True)
    features = list(dict.fromkeys(feature for cells in longest_first for feature in cells))
    features.sort(key=lambda feature: feature in REFUSED)
    heads, rows, messages = ["feature", *found], [], []
    for feature in features:
        cells = {name: found[name].get(feature, "") for name in heads[1:]}
        if feature in REFUSED:
            (message,) = {
                cell.partition(": ")[2] for cell in cells.values() if cell
            }  # the same for every client
            messages.append([feature, message])
        rows.append([feature, *(cell.partition(": ")[0] for cell in cells.values())])
    refused = _table([["refused", "answer"], *messages])
    return f"{_HEAD}\n{_table([heads, *rows])}\n{refused}{_FOOT}"


def _table(rows: list[list[str]]) -> str:
    ruled = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "".join("| " + " | ".join(row) + " |\n" for row in ruled)


_HEAD = """\
# Clients

What clients get from a served Mistral Small 4. Tests ask it with each client's own library through the real gateway: of
the fake engine always, and of vLLM 0.32.0 on the CPU in tier `all`. `pulumi-vllm smoke` asks a running stack.
How to set up each client: [how-to/clients.md](../how-to/clients.md).
An empty cell: the library has no such call, or the test does not try it.
"""
_FOOT = """
This page is generated: `UPDATE_CLIENTS=1 .venv/bin/python -m pytest -m "ci or all" tests/client/test_client_matrix.py`.
"""
