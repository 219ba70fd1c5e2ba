"""LiteLLM as a library: prints its version, and what it gets for each feature."""

import importlib.metadata
import json
import os
import sys

import litellm
from questions import CITY, DEVELOPER, ELSEWHERE, IMAGE, QUESTION

litellm.suppress_debug_info = True
ROUTE = {"model": "openai/" + os.environ["LLM_MODEL"], "api_base": os.environ["LLM_URL"]}
ANTHROPIC = {
    "model": "anthropic/" + os.environ["LLM_MODEL"],
    "api_base": os.environ["LLM_URL"].removesuffix("/v1"),
}
EFFORTS = {"allowed_openai_params": ["reasoning_effort"]}  # LiteLLM sends it to models it knows, else not


def chat(**more):
    wanted = {"messages": QUESTION, "api_key": os.environ["LLM_KEY"], "num_retries": 0} | ROUTE | more
    return litellm.completion(**wanted)


def said(**more):
    return chat(**more).choices[0].message.content


def stream():
    chunks = list(chat(stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].usage.completion_tokens > 1
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def tool():
    function = {"name": "get_weather", "parameters": CITY}
    return (
        chat(tools=[{"type": "function", "function": function}])
        .choices[0]
        .message.tool_calls[0]
        .function.name
    )


def structured():
    schema = {"type": "json_schema", "json_schema": {"name": "w", "schema": CITY, "strict": True}}
    return str(json.loads(said(response_format=schema)).keys())


def refused(**more):
    try:
        chat(**more)
    except (litellm.BadRequestError, litellm.AuthenticationError) as error:
        return str(error).partition(" - ")[2]  # after the names of LiteLLM's classes
    raise AssertionError(more)


FEATURES = {
    "chat": said,
    "streaming, with usage": stream,
    "a message of role developer": lambda: said(messages=DEVELOPER),
    "reasoning, effort medium": lambda: (
        chat(reasoning_effort="medium", **EFFORTS).choices[0].message.reasoning_content
    ),
    "no reasoning, effort low": lambda: said(reasoning_effort="low", **EFFORTS),
    "tool call": tool,
    "empty list of tools": lambda: said(tools=[]),
    "structured output": structured,
    "image inside the request": lambda: said(messages=IMAGE),
    "max_completion_tokens": lambda: said(max_completion_tokens=3),
    "Messages API": lambda: said(max_tokens=60, **ANTHROPIC),
    "image at an address": lambda: refused(messages=ELSEWHERE),
    "10,000 choices": lambda: refused(n=10_000),
    "a wrong key": lambda: refused(api_key="sk-no"),
}

if __name__ == "__main__":
    found = {name: ask() for name, ask in FEATURES.items()}
    json.dump({"version": importlib.metadata.version("litellm"), "found": found}, sys.stdout)
