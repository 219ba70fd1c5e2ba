"""Repairs two faults of vLLM's API server, which runs in the middleware's process.

* It prepares its output parser several times for every answer, on its event loop. Versions with `vllm.parser.engine`
  compile one expression for each special token then, of which Mistral's tokenizer has 1,000. That takes 44 ms each time
  (0.32.0 on a CPU, tried), in which the server answers nobody. vLLM's issue 58145 describes it.
* An image above Pillow's own limit of 179 million pixels ends in status 500, before vLLM has compared its size with
  VLLM_MAX_IMAGE_PIXELS (0.32.0, tried).
"""

from __future__ import annotations

import contextlib
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_PARSER, _BUILD = "vllm.parser.engine.streaming_parser_engine", "_build_drop_info"
_MOST_KEPT = 64  # vLLM keeps its configurations and its tokenizer, so a server has one or two


def apply() -> None:
    """Repair what this version of vLLM has. The fake engine has neither."""
    for repair in (keep_parser, leave_pixels_to_vllm):
        with contextlib.suppress(ImportError, AttributeError):
            repair()


def keep_parser() -> None:
    """Let vLLM prepare its parser once. Raises ImportError or AttributeError if this vLLM has no such function."""
    module = importlib.import_module(_PARSER)
    setattr(module, _BUILD, kept(getattr(module, _BUILD)))


def leave_pixels_to_vllm() -> None:
    """Let vLLM's limit of an image's pixels decide. Raises ImportError or AttributeError if this vLLM has none."""
    if importlib.import_module("vllm.envs").VLLM_MAX_IMAGE_PIXELS > 0:
        importlib.import_module("PIL.Image").MAX_IMAGE_PIXELS = None  # type: ignore[attr-defined]


def kept(build: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """The function, which returns the same object for the same two objects."""
    known: dict[tuple[int, int], tuple[Any, Any, Any]] = {}

    def once(config: Any, tokenizer: Any) -> Any:
        key = id(config), id(tokenizer)
        if key not in known:
            if len(known) >= _MOST_KEPT:
                known.clear()
            # The objects are kept too: another object could get the id of one that is gone.
            known[key] = config, tokenizer, build(config, tokenizer)
        return known[key][2]

    return once
