"""Runs inside an engine's environment: starts its parser and the checks of its configuration on sets of flags.

usage: ask_start.py ANSWER FOLDER SETS

FOLDER holds the tiny model. SETS is a JSON list of lists of words, added to a launch of that model; a word replaces the
same flag of the launch. The answer is a list: "" where vLLM goes on to load the weights, else why it ends. Each set
runs in a fork of its own, after the modules are loaded.
"""

import importlib
import json
import os
import sys
import tempfile

import regex

os.environ |= {"VLLM_MLA_DISABLE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "TORCHDYNAMO_DISABLE": "1"}
import vllm.model_executor.models.registry as models
import vllm.platforms
from vllm.platforms.cpu import CpuPlatform

vllm.platforms._current_platform = CpuPlatform()  # noqa: SLF001 - a wheel for CUDA finds no device on this machine
models._run_in_subprocess = lambda call: call()  # noqa: SLF001 - another process would not have this platform


def _first(name, *modules):  # noqa: ANN001, ANN002, ANN202
    for module in modules:
        try:
            return getattr(importlib.import_module(f"vllm.entrypoints.{module}"), name)
        except (AttributeError, ModuleNotFoundError):
            pass
    raise ModuleNotFoundError(name)


from vllm.engine.arg_utils import AsyncEngineArgs  # noqa: E402
from vllm.usage.usage_lib import UsageContext  # noqa: E402
from vllm.utils.argparse_utils import FlexibleArgumentParser  # noqa: E402

PARSERS = ("common.cli_args", "launchers.cli_args", "openai.cli_args")
check_arguments = _first("validate_parsed_serve_args", *PARSERS)
check_server = _first("validate_api_server_args", "launchers.launcher", "openai.api_server")
parser = _first("make_arg_parser", *PARSERS)(FlexibleArgumentParser())
LAUNCH = {
    "--model": sys.argv[2],
    "--config-format": "mistral",
    "--tokenizer-mode": "mistral",
    "--load-format": "mistral",
    "--tool-call-parser": "mistral",
    "--reasoning-parser": "mistral",
    "--dtype": "bfloat16",
    "--max-model-len": "2048",
    "--max-num-seqs": "8",
}


def start(words):  # noqa: ANN001, ANN201
    """Parse and check as `vllm serve` does, up to the whole configuration of the engine."""
    usual = [word for pair in LAUNCH.items() if pair[0] not in words for word in pair]
    arguments = parser.parse_args([*usual, "--enforce-eager", *words])
    check_arguments(arguments)
    check_server(arguments)
    AsyncEngineArgs.from_cli_args(arguments).create_engine_config(
        usage_context=UsageContext.OPENAI_API_SERVER
    )


def reason(words):  # noqa: ANN001, ANN201
    """Why vLLM ends with these words, or nothing."""
    with tempfile.TemporaryFile("w+") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            start(words)
        except SystemExit:
            sys.stderr.flush()
            log.seek(0)
            return (log.read().strip().splitlines() or ["exit"])[-1][:300]
        except BaseException as error:  # noqa: BLE001 - whatever it raises, vLLM ends
            return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
    return ""


def begin(words):  # noqa: ANN001, ANN201
    """Start a fork that answers for these words. Returns its process and where it writes."""
    reader, writer = os.pipe()
    if not (child := os.fork()):
        os.write(writer, reason(words).encode())
        os._exit(0)
    os.close(writer)
    return child, os.fdopen(reader)


# Mistral's parser compiles a pattern for each of 1,000 special tokens, twice as many as `regex` keeps. That was nine
# tenths of each start.
regex._main._MAXCACHE = 100_000  # noqa: SLF001 - it has no other switch
start([])  # loads what every set needs
text = sys.argv[3]
sets = json.load(open(text)) if os.path.exists(text) else json.loads(text)  # noqa: PTH110, PTH123, SIM115
answers = []
cores = len(os.sched_getaffinity(0))
for first in range(0, len(sets), cores):
    for child, pipe in [begin(one) for one in sets[first : first + cores]]:
        with pipe:
            answers.append(pipe.read())
        os.waitpid(child, 0)
with open(sys.argv[1], "w") as answer:  # noqa: PTH123
    json.dump(answers, answer)
