"""LangChain's ChatOpenAI: prints its version, and what it gets for each feature."""

import importlib.metadata
import json
import os
import sys

import openai
from langchain_openai import ChatOpenAI
from questions import CITY, DEVELOPER, ELSEWHERE, IMAGE, QUESTION


def model(**more):
    own = {
        "base_url": os.environ["LLM_URL"],
        "api_key": os.environ["LLM_KEY"],
        "model": os.environ["LLM_MODEL"],
    }
    return ChatOpenAI(**(own | {"max_retries": 0} | more))


def stream():
    chunks = list(model(stream_usage=True).stream(QUESTION))
    assert sum(chunk.usage_metadata["output_tokens"] for chunk in chunks if chunk.usage_metadata) > 1
    return "".join(chunk.content for chunk in chunks)


def tool():
    function = {
        "type": "function",
        "function": {"name": "get_weather", "description": "x", "parameters": CITY},
    }
    return model().bind_tools([function]).invoke(QUESTION).tool_calls[0]["name"]


def structured():
    schema = {"title": "w", "description": "x"} | CITY
    return str(model().with_structured_output(schema, method="json_schema").invoke(QUESTION).keys())


def refused(question=QUESTION, **more):
    try:
        model(**more).invoke(question)
    except (openai.BadRequestError, openai.AuthenticationError) as error:
        return error.body["message"]
    raise AssertionError(more)


def text(answer):
    """Of the Responses API, LangChain gives a list of parts."""
    return answer.text if isinstance(answer.text, str) else answer.text()


FEATURES = {
    "chat": lambda: model().invoke(QUESTION).content,
    "streaming, with usage": stream,
    "a message of role developer": lambda: model().invoke(DEVELOPER).content,
    "no reasoning, effort low": lambda: model(reasoning_effort="low").invoke(QUESTION).content,
    "tool call": tool,
    "empty list of tools": lambda: model().invoke(QUESTION, tools=[]).content,
    "structured output": structured,
    "image inside the request": lambda: model().invoke(IMAGE).content,
    "max_completion_tokens": lambda: model(max_completion_tokens=3).invoke(QUESTION).content,
    "Responses API": lambda: text(model(use_responses_api=True).invoke(QUESTION)),
    "stored responses": lambda: refused(
        use_responses_api=True, model_kwargs={"previous_response_id": "resp_1"}
    ),
    "image at an address": lambda: refused(ELSEWHERE),
    "10,000 choices": lambda: refused(n=10_000),
    "a wrong key": lambda: refused(api_key="sk-no"),
}

if __name__ == "__main__":
    found = {name: ask() for name, ask in FEATURES.items()}
    json.dump({"version": importlib.metadata.version("langchain-openai"), "found": found}, sys.stdout)
