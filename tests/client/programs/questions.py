"""What the programs of this folder ask. Their environment holds LLM_URL, LLM_KEY, LLM_MODEL and LLM_IMAGE."""

import os

QUESTION = [{"role": "user", "content": "Say something about the weather."}]
DEVELOPER = [{"role": "developer", "content": "Be short."}, *QUESTION]
# A tiny model that may write a text of any length never ends it.
NAME = {"type": "string", "enum": ["Oslo", "Rome"]}
CITY = {"type": "object", "properties": {"city": NAME}, "required": ["city"], "additionalProperties": False}


def asking(address):
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": address}}]
    return [{"role": "user", "content": parts}]


IMAGE, ELSEWHERE = asking(os.environ.get("LLM_IMAGE", "")), asking("http://127.0.0.1/x.png")
