"""Repairs faults of vLLM's API server, which runs in the middleware's process.

* It prepares its output parser several times for every answer, on its event loop. Versions with `vllm.parser.engine`
  compile one expression for each special token then, of which Mistral's tokenizer has 1,000. That takes 44 ms each time
  (0.32.0 on a CPU, tried), in which the server answers nobody. vLLM's issue 58145 describes it.
* An image above Pillow's own limit of 179 million pixels ends in status 500, before vLLM has compared its size with
  VLLM_MAX_IMAGE_PIXELS (0.32.0, tried).
* It gives every chat of Mistral's tokenizer a grammar, so that no control token gets into a text. The engine then fills
  a mask of the whole vocabulary for each stream and step. A chat that asks for no tool and no format may not call one,
  and needs no grammar for that. One H200 with 512 chats: 5,970 tokens per second with the grammar, 6,594 without.
  With speculative decoding it keeps the grammar, because vLLM refuses a bias then.
* It looks up the text of the same token again and again. With the last repair too, 7,584 (lab/notes/performance.md).
* Its engine ends, with all answers, at a request whose lists are longer than the model runner V2 reserves for them
  (`vllm/v1/worker/gpu/sample` of 0.26.0 and 0.33.0, read). The server counts only `bad_words` before, since 0.32.0.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PARSER, _BUILD = "vllm.parser.engine.streaming_parser_engine", "_build_drop_info"
_MOST_KEPT = 64  # vLLM keeps its configurations and its tokenizer, so a server has one or two
_BAN = -100.0  # the lowest bias that vLLM and OpenAI accept
_SHOWN = ("[TOOL_CALLS]", "[ARGS]")
"""Control tokens that vLLM leaves in a text. It drops the others (0.32.0, tried); those of reasoning end up there."""

_DRAFTS = ("--speculative-", "--spec-")
"""How vLLM's flags of speculative decoding begin."""
_MOST_TOKENS, _MOST_STOPS, _MOST_WORDS = 1024, 128, 128
"""Tokens of a list, tokens that end an answer, and `bad_words`: MAX_NUM_… and MAX_BAD_WORDS_… of the model runner."""


def apply() -> None:
    """Repair what this version of vLLM has. The fake engine has none of it."""
    texts = (leave_text_free, keep_texts_of_tokens)
    for repair in (keep_parser, leave_pixels_to_vllm, *texts, refuse_long_lists):
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


def leave_text_free() -> None:
    """Let chats for plain text go without a grammar. Raises ImportError or AttributeError if this vLLM has none."""
    if any(word.startswith(_DRAFTS) for word in sys.argv):
        return
    parser = importlib.import_module("vllm.parser.mistral").MistralParser
    parser.adjust_request = for_formats_only(parser.adjust_request)


def for_formats_only(adjust: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """The parser's method that adds a grammar. A chat for plain text gets none, and may not call a tool."""

    @functools.wraps(adjust)
    def adjusted(parser: Any, request: Any) -> Any:
        if not (_is_plain_chat(request) and _gives_a_grammar(parser)):
            return adjust(parser, request)
        banned = {str(parser.vocab[name]): _BAN for name in _SHOWN}
        # vLLM reads "09" as 9 too, and the last one counts.
        others = {key: bias for key, bias in (request.logit_bias or {}).items() if key not in banned}
        request.logit_bias = {**others, **banned}
        return request

    return adjusted


def _is_plain_chat(request: Any) -> bool:
    """Whether it is a chat, not a request to /v1/responses, that asks for no tool and no format."""
    asked = getattr(request, "response_format", None)
    return (
        hasattr(request, "messages")
        and hasattr(request, "_grammar_from_parser")  # from 0.33.0 on, /v1/responses has it too
        and not request.tools
        and request.structured_outputs is None
        and (asked is None or asked.type == "text")
    )


def _gives_a_grammar(parser: Any) -> bool:
    """Whether vLLM gives chats of this tokenizer a grammar. For one of another format it sets other fields."""
    known = getattr(parser.model_tokenizer, "supports_grammar", False)
    return bool(known) and all(name in parser.vocab for name in _SHOWN)


def keep_texts_of_tokens() -> None:
    """Let vLLM look up a token's text once. Raises ImportError or AttributeError if this vLLM has no such function."""
    tokenizer = importlib.import_module("vllm.tokenizers.mistral").MistralTokenizer
    tokenizer.convert_ids_to_tokens = looked_up_once(tokenizer.convert_ids_to_tokens)


def looked_up_once(convert: Callable[..., list[str]]) -> Callable[..., list[str]]:
    """The tokenizer's method, which keeps its answers for single tokens.

    The vocabulary limits what is kept: 48 MiB for 131,072 tokens (0.32.0, 192 bytes each of twice 4,096, measured).
    """
    known: dict[tuple[Any, int, bool], tuple[str, ...]] = {}

    @functools.wraps(convert)
    def converted(tokenizer: Any, ids: Any, skip_special_tokens: bool = False) -> list[str]:
        if len(ids) != 1:
            return convert(tokenizer, ids, skip_special_tokens)
        key = tokenizer, ids[0], skip_special_tokens  # not its id, which another one could get
        if key not in known:
            known[key] = tuple(convert(tokenizer, ids, skip_special_tokens))
        return list(known[key])

    return converted


def refuse_long_lists() -> None:
    """Refuse what would end the engine. Raises ImportError or AttributeError if this vLLM has no such function."""
    processor = importlib.import_module("vllm.v1.engine.input_processor").InputProcessor
    refusal = importlib.import_module("vllm.exceptions").VLLMValidationError
    processor.process_inputs = within_limits(processor.process_inputs, refusal)


def within_limits(process: Callable[..., Any], refusal: Callable[..., Exception]) -> Callable[..., Any]:
    """The method that prepares a request for the engine. Raises `refusal` if the engine would end at it."""

    @functools.wraps(process)
    def processed(*words: Any, **named: Any) -> Any:
        request = process(*words, **named)
        for number, what, field, most in _lengths(request.sampling_params):
            if number > most:
                says = f"{number:,} {what} in {field} are more than the {most:,} that the engine takes"
                raise refusal(f"{says}; those that the server adds are counted too", parameter=field)
        return request

    return processed


def _lengths(sampling: Any) -> Iterator[tuple[int, str, str, int]]:
    """Of each list: its length, what it holds, its name in a request, and the most that the model runner takes."""
    if sampling is None:  # a request of a model that computes vectors
        return
    yield len(sampling.logit_bias or ()), "tokens", "logit_bias", _MOST_TOKENS
    yield len(sampling.allowed_token_ids or ()), "tokens", "allowed_token_ids", _MOST_TOKENS
    if sampling.min_tokens > 0:
        yield len(sampling.all_stop_token_ids), "tokens", "stop_token_ids", _MOST_STOPS
    words = sampling.bad_words_token_ids or ()
    yield len(words), "words", "bad_words", _MOST_WORDS
    yield sum(map(len, words)), "tokens", "bad_words", _MOST_TOKENS


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
