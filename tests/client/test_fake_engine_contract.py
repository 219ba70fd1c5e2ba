"""Answers of the real engine that `smoke` and `bench` rely on, and that the fake engine imitates."""

import requests
from pulumi_vllm.client import checks
from pulumi_vllm_local.fake_engine import script

QUESTION = "Say something about the weather."


def ask(engine, key, path="/chat/completions", **body):
    headers = {"Authorization": f"Bearer {key}"}
    asked = {"model": "mistral-small-4-tiny"} | body
    return requests.post(engine.url + path, json=asked, headers=headers, timeout=20)


def chat(engine, key, content=QUESTION, **more):
    return ask(engine, key, messages=[{"role": "user", "content": content}], **more)


def test_a_schema_is_followed(engine, key):
    """The grammar overrides the model's text. The token ids are those of single bytes in the vocabulary."""
    days = {"type": "array", "items": {"type": "integer", "minimum": 2}, "minItems": 2}
    properties = {"city": {"enum": ["Rome"]}, "days": days, "dry": {"type": "boolean"}, "by": {"const": "me"}}
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    wanted = {"type": "json_schema", "json_schema": {"name": "w", "schema": schema}}
    choice = chat(engine, key, response_format=wanted, return_token_ids=True).json()["choices"][0]
    assert choice["message"]["content"] == '{"city":"Rome","days":[2,2],"dry":true,"by":"me"}'
    assert choice["finish_reason"] == "stop"
    assert choice["token_ids"][0] == 1000 + ord("{") == script.CALL_ARGUMENTS[0][0]
    empty = chat(engine, key, response_format={"type": "json_object"}).json()["choices"][0]
    assert empty["message"]["content"] == "{}"
    assert chat(engine, key, response_format={"type": "json_schema"}).status_code == 400


def test_images_and_token_ids_are_counted(engine, key):
    """An image of 56 pixels is two rows of two patches and an end each: six, as the real engine counts."""
    image = {"type": "image_url", "image_url": {"url": checks._blue_square()}}
    with_image, without = (
        chat(engine, key, content).json()["usage"]["prompt_tokens"]
        for content in ([{"type": "text", "text": QUESTION}, image], QUESTION)
    )
    assert with_image - without == 6
    answer = ask(engine, key, "/completions", prompt=[1500] * 77, max_tokens=1).json()
    assert answer["usage"]["prompt_tokens"] == 77
    assert ask(engine, key, "/completions", prompt=[1500] * 2048, max_tokens=1).status_code == 400
