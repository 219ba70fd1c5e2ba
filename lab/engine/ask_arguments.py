"""Runs inside an engine's environment: writes what its parser and its configuration accept, as JSON.

usage: ask_arguments.py ANSWER

A type is found by trying values, because the name of the parser's function does not tell which values it accepts.
The parser checks neither bounds nor the names in vLLM's registries, nor the keys of JSON: those come from the classes
of the configuration and from the registries themselves.
"""

import dataclasses
import enum
import importlib
import json
import sys
import typing

import vllm.config as configuration
import vllm.platforms
from vllm.platforms.cpu import CpuPlatform

vllm.platforms._current_platform = CpuPlatform()  # noqa: SLF001 - a wheel for CUDA finds no device on this machine


def _first(*modules):  # noqa: ANN002, ANN202
    for module in modules:
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError:
            pass
    raise ModuleNotFoundError(modules)


cli_args = _first(*(f"vllm.entrypoints.{name}.cli_args" for name in ("common", "launchers", "openai")))
from vllm.engine.arg_utils import AsyncEngineArgs, get_type_hints  # noqa: E402
from vllm.model_executor.layers.quantization import (  # noqa: E402
    DEPRECATED_QUANTIZATION_METHODS,
    QUANTIZATION_METHODS,
)
from vllm.model_executor.model_loader import LoadFormats  # noqa: E402
from vllm.reasoning import ReasoningParserManager  # noqa: E402
from vllm.tool_parsers import ToolParserManager  # noqa: E402
from vllm.utils.argparse_utils import FlexibleArgumentParser as Parser  # noqa: E402
from vllm.v1.attention.backends.registry import AttentionBackendEnum  # noqa: E402

parser = cli_args.make_arg_parser(Parser())

# The classes whose fields the engine's arguments fill. `speculative-config` has bounds of its own for the same names.
SECTIONS = [
    getattr(configuration, name)
    for name in (
        "CacheConfig", "ParallelConfig", "SchedulerConfig", "ModelConfig", "LoadConfig", "LoRAConfig", "MultiModalConfig",
        "ObservabilityConfig", "OffloadConfig", "VllmConfig",
    )
]  # fmt: skip
SECTIONS += [
    getattr(importlib.import_module("vllm.config.offload"), f"{name}OffloadConfig")
    for name in ("UVA", "Prefetch")
]


def _literal(module, name):  # noqa: ANN001, ANN202
    return list(typing.get_args(getattr(importlib.import_module(f"vllm.config.{module}"), name)))


HINTS = {
    field.name: get_type_hints(field.type)
    for field in dataclasses.fields(AsyncEngineArgs)
    if not isinstance(field.type, str)
}

REGISTRIES = {
    "tool-call-parser": ToolParserManager.list_registered(),
    "reasoning-parser": ReasoningParserManager.list_registered(),
    "attention-backend": ["AUTO", *AttentionBackendEnum.__members__],
    "mm-encoder-attn-backend": list(AttentionBackendEnum.__members__),
    "quantization": list(QUANTIZATION_METHODS),
    "load-format": list(typing.get_args(LoadFormats)),
    "distributed-executor-backend": _literal("parallel", "DistributedExecutorBackend"),
    "data-parallel-backend": _literal("parallel", "DataParallelBackend"),
    "kv-cache-dtype": _literal("cache", "CacheDType"),
    "tokenizer-mode": _literal("model", "TokenizerMode"),
    "model-impl": _literal("model", "ModelImpl"),
    "config-format": [
        "auto",
        *importlib.import_module("vllm.transformers_utils.config")._CONFIG_FORMAT_TO_CONFIG_PARSER,  # noqa: SLF001
    ],
    "optimization-level": [
        str(one.value) for one in importlib.import_module("vllm.config.vllm").OptimizationLevel
    ],
    "mamba-backend": [
        one.lower() for one in importlib.import_module("vllm.config.mamba").MambaBackendEnum.__members__
    ],
}


def takes(action, text):  # noqa: ANN001, ANN201
    """Whether the parser accepts a value."""
    try:
        (action.type or str)(text)
    except Exception:  # noqa: BLE001 - whatever it raises, it refuses
        return False
    return True


def kind(action):  # noqa: ANN001, ANN201
    """The narrowest of our types that the parser's own accepts."""
    for label, texts in (
        ("text", ("x",)), ("json", ("{}",)), ("json", ("[]",)), ("tokens or auto", ("32k", "auto")), ("tokens", ("32k",)),
        ("number", ("0.5",)), ("integer", ("7",)),
    ):  # fmt: skip
        if all(takes(action, text) for text in texts):
            return label
    return "text"


def bounds(field):  # noqa: ANN001, ANN201
    """Smallest and largest value of a field of the configuration."""
    found = {}
    for mark in getattr(field, "metadata", ()):
        for name, key in (("ge", "least"), ("gt", "above"), ("le", "most"), ("lt", "below")):
            if getattr(mark, name, None) is not None:
                found[key] = getattr(mark, name)
    return found


def limits(dest):  # noqa: ANN001, ANN201
    """The bounds of the first section that has some for an argument."""
    if dest == "sse_keep_alive_interval":  # checked by validate_parsed_serve_args
        return {"least": 0}
    found = (bounds(section.__pydantic_fields__.get(dest)) for section in SECTIONS)
    return next(filter(None, found), {})


def allowed(hint):  # noqa: ANN001, ANN201
    """The values of a key of JSON, if the configuration has a list of them."""
    hints = get_type_hints(hint) if not isinstance(hint, str) else set()
    words = [
        str(word)
        for one in hints
        if typing.get_origin(one) is typing.Literal
        for word in typing.get_args(one)
    ]
    others = {one for one in hints if typing.get_origin(one) is not typing.Literal} - {type(None)}
    enums = [one for one in others if isinstance(one, type) and issubclass(one, enum.Enum)]
    for one in enums:
        words += [
            word for member in one for word in (member.name, str(member.value)) if not set(word) & set(".(")
        ]
    return {"values": sorted(set(words))} if words and not others - set(enums) else {}


def fields(wanted):  # noqa: ANN001, ANN201
    """The fields of a class of the configuration, which refuses others, and what each accepts."""
    models, found = getattr(wanted, "__pydantic_fields__", {}), {}
    for one in sorted(dataclasses.fields(wanted), key=lambda one: one.name):
        if not one.init:
            continue
        hints = get_type_hints(one.type) if not isinstance(one.type, str) else set()
        inner = next((hint for hint in hints if dataclasses.is_dataclass(hint)), None)
        nested = (
            {"keys": fields(inner)} if inner is not None and hasattr(inner, "__pydantic_fields__") else {}
        )
        found[one.name] = bounds(models.get(one.name)) | allowed(one.type) | nested
    return found


def json_keys(dest):  # noqa: ANN001, ANN201
    """Keys of a JSON argument, if the configuration refuses others, and what each accepts."""
    wanted = next((one for one in HINTS.get(dest, set()) if dataclasses.is_dataclass(one)), None)
    if dest == "speculative_config":  # a dictionary for the parser
        nested = {
            "target_model_config",
            "target_parallel_config",
            "draft_model_config",
            "draft_parallel_config",
        }
        return {
            key: {} if key in nested else one for key, one in fields(configuration.SpeculativeConfig).items()
        }
    return fields(wanted) if wanted is not None else {}


def argument(action, longs):  # noqa: ANN001, ANN201
    """One argument: its name, and what it accepts."""
    # 0.33.0 pairs --enable-x with --disable-x, and accepts --no-enable-x as well.
    negative = getattr(action, "negative_option_strings", ())
    no = [one for one in longs if one in negative or (one.startswith("--no-") and "--" + one[5:] in longs)]
    name, *also = dict.fromkeys(one[2:].replace("_", "-") for one in longs if one not in no)
    one = {}
    if action.nargs == 0 or no:
        one["switch"] = "both" if no else "on"
        opposite = next((word[2:] for word in no if not word.startswith("--no-")), None)
        one |= {"opposite": opposite} if opposite else {}
    else:
        one["type"] = kind(action)
        one |= limits(action.dest) if one["type"] in {"integer", "number", "tokens", "tokens or auto"} else {}
        keys, hints = json_keys(action.dest), HINTS.get(action.dest, set())
        if keys or (str not in hints and any(dict in (one, typing.get_origin(one)) for one in hints)):
            one |= {"object": True, "keys": keys} if keys else {"object": True}
    if action.choices is not None:
        one["choices"] = [str(value) for value in action.choices]
    if name in REGISTRIES and action.choices is None:
        one["values"] = sorted(REGISTRIES[name])
    if name == "quantization":
        one["retired"] = sorted(DEPRECATED_QUANTIZATION_METHODS)
    if action.nargs in {"*", "+", "?"} or (isinstance(action.nargs, int) and action.nargs > 1):
        one["words"] = str(action.nargs)
    if action.required:
        one["required"] = True
    one |= {"short": shorts} if (shorts := [one for one in action.option_strings if one not in longs]) else {}
    one |= {"also": also} if also else {}
    text = (action.help or "").strip().lower()
    marked = getattr(action, "deprecated", False) or set(longs) & set(getattr(Parser, "_deprecated", ()))
    if marked or text.startswith(("deprecated", "[deprecated", "(deprecated")):
        one["deprecated"] = True
    return name, one


found = dict(
    argument(action, longs)
    for action in parser._actions  # noqa: SLF001 - argparse has no public list
    if (longs := [one for one in action.option_strings if one.startswith("--")]) and "--help" not in longs
)
with open(sys.argv[1], "w") as answer:  # noqa: PTH123
    json.dump({"abbreviations": parser.allow_abbrev, "arguments": found}, answer)
