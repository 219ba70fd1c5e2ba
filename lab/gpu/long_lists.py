#!/usr/bin/env python3
"""On the GPU machine: requests at and above what the engine's tables take, and whether the engine lives after each.

usage: long_lists.py [PORT [MODEL]]     (after the levels of measure.py: --then /tmp/kit/long_lists.py)
"""

from __future__ import annotations

import json
import sys
import time

import drain

PORT = int(sys.argv[1]) if sys.argv[1:] else 8000
MODEL = sys.argv[2] if sys.argv[2:] else "mistral-small-4"
FIRST = 5_000
"""Above the control tokens of the tokenizer."""


def tokens(count: int) -> list[int]:
    """So many different tokens."""
    return list(range(FIRST, FIRST + count))


REQUESTS = [
    (f"{count} {name}", body)
    for name, most, build in (
        ("logit_bias", 1024, lambda count: {"logit_bias": {str(one): 1 for one in tokens(count)}}),
        ("allowed_token_ids", 1024, lambda count: {"allowed_token_ids": tokens(count)}),
        ("bad_words", 128, lambda count: {"bad_words": [f"word{one}" for one in range(count)]}),
        ("stop_token_ids", 127, lambda count: {"stop_token_ids": tokens(count), "min_tokens": 4}),
    )
    for count, body in ((most, build(most)), (most + 1, build(most + 1)))
]
"""The server counts its own end of text among the stop tokens, so that 127 of a request are 128."""


def main() -> None:
    """One line for each request; ends at the first one that the engine did not outlive."""
    for name, body in REQUESTS:
        request = {"model": MODEL, "prompt": "Once", "max_tokens": 8, **body}
        status, text = drain.post(PORT, "/v1/completions", request, 30)
        time.sleep(1)
        alive = drain.health(PORT)
        print(
            json.dumps({"request": name, "status": status, "answer": text[:200], "health": alive}), flush=True
        )
        if alive != 200:
            return


if __name__ == "__main__":
    main()
