"""On the GPU machine: one start of the engine serves several variants in turn.

`measure.py ... --set middleware=controls.Requests --env CONTROLS=1 --levels '!graphs=decode-only,64:512:100:64,!graphs=all,64:512:100:64'`
A level that starts with `!` holds words NAME=VALUE, separated by `;`. They stay in force until they are set again:
graphs = a name of GRAPHS    which captured CUDA graphs a step may use
long = TOKENS                --long-prefill-token-threshold
gc = 700/10/10               Python's thresholds, in both processes
grammar, texts, parser = on | off   the repairs of server_repairs.py
interval = N                 --stream-interval

`--env CONTROLS_CAPTURE=NAME` captures the graphs of that name only. unpack_with_torch.sh installs `register` as a plugin
of vLLM, which loads it in its processes.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

FILE = Path("/tmp/controls.json")
FEW = (8, 16, 32, 64, 128, 192, 256, 320, 384, 448, 512)
THIN = (1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 288, 320, 384, 448, 512)
GRAPHS: dict[str, tuple[tuple[int, ...] | None, tuple[int, ...] | None]] = {
    "all": (None, None),
    "decode-only": ((), None),
    "few-piecewise": (FEW, None),
    "thin": (THIN, THIN),
}
"""Sizes of the piecewise and of the full graphs; None is all of them."""


def set_to(words: str) -> dict[str, str]:
    """Add the words of a level to the file, and wait until both processes have read it."""
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    known |= dict(word.split("=", 1) for word in words.split(";"))
    new = FILE.with_suffix(".new")
    new.write_text(json.dumps(known))
    new.replace(FILE)
    time.sleep(1.5)
    return known


def _watch(apply: Callable[[dict[str, str]], None]) -> None:
    def run() -> None:
        last = ""
        while True:
            with contextlib.suppress(OSError):
                if (text := FILE.read_text()) != last:
                    last = text
                    apply(json.loads(text))
                    print(f"controls: {os.getpid()} {text}", flush=True)
            time.sleep(0.3)

    threading.Thread(target=run, daemon=True).start()


def _collect(chosen: dict[str, str]) -> None:
    if "gc" in chosen:
        gc.set_threshold(*(int(one) for one in chosen["gc"].split("/")))


# --- the engine's process ---------------------------------------------------------------------------------------------


def _chosen(captured: dict[Any, list[Any]], name: str) -> dict[Any, list[Any]]:
    """The graphs of a name, by mode."""
    sizes = dict(zip(("PIECEWISE", "FULL"), GRAPHS[name], strict=True))
    return {
        mode: [one for one in graphs if (only := sizes[mode.name]) is None or one.num_tokens in only]
        for mode, graphs in captured.items()
    }


def _candidates(captured: dict[Any, list[Any]]) -> dict[tuple[int, int], list[Any]]:
    """For each number of tokens the smallest full and the smallest piecewise graph, as vLLM lists them."""
    found: dict[tuple[int, int], list[Any]] = {}
    for mode in sorted(captured, key=lambda mode: str(mode.name)):  # FULL before PIECEWISE
        first = 0
        for graph in sorted(captured[mode], key=lambda one: int(one.num_tokens)):
            for tokens in range(first, graph.num_tokens + 1):
                found.setdefault((tokens, 0), []).append(graph)
            first = graph.num_tokens + 1
    return found


def _engine(vllm_config: Any) -> None:
    graphs = importlib.import_module("vllm.v1.worker.gpu.cudagraph_utils")
    manager, managers = graphs.CudaGraphManager, []
    initialise = manager._init_candidates  # noqa: SLF001 (vLLM has no other place)

    def initialised(self: Any) -> None:
        initialise(self)
        self._capture_descs = _chosen(self._capture_descs, os.environ.get("CONTROLS_CAPTURE", "all"))
        self._candidates = _candidates(self._capture_descs)
        managers.append(self)

    manager._init_candidates = initialised  # noqa: SLF001

    def apply(chosen: dict[str, str]) -> None:
        _collect(chosen)
        vllm_config.scheduler_config.long_prefill_token_threshold = int(chosen.get("long", 0))
        for one in managers:
            graphs_of_now = _chosen(one._capture_descs, chosen.get("graphs", "all"))  # noqa: SLF001
            one._candidates = _candidates(graphs_of_now)  # noqa: SLF001

    _watch(apply)


def register() -> None:
    """Called by vLLM in each of its processes. The engine's process is forked later."""
    if not os.environ.get("CONTROLS"):
        return
    core = importlib.import_module("vllm.v1.engine.core").EngineCoreProc
    run = core.run_engine_core

    def run_engine_core(*words: Any, **named: Any) -> Any:
        _engine(named["vllm_config"])
        return run(*words, **named)

    core.run_engine_core = staticmethod(run_engine_core)


# --- the API server's process -----------------------------------------------------------------------------------------

REPAIRED = {
    "grammar": ("vllm.parser.mistral", "MistralParser", "adjust_request"),
    "texts": ("vllm.tokenizers.mistral", "MistralTokenizer", "convert_ids_to_tokens"),
    "parser": ("vllm.parser.engine.streaming_parser_engine", "", "_build_drop_info"),
}
"""As server_repairs.py names them."""


class Requests:
    """The product's middleware. Its repairs can be switched off and on."""

    def __init__(self, app: Any) -> None:
        owners = {}
        for name, (module, owner, function) in REPAIRED.items():
            found = importlib.import_module(module)
            owners[name] = getattr(found, owner) if owner else found, function
        plain = {name: getattr(*one) for name, one in owners.items()}
        self.adapted = importlib.import_module("client_requests").ClientRequests(app)
        repaired = {name: getattr(*one) for name, one in owners.items()}
        assert all(plain[name] is not repaired[name] for name in plain)
        output = importlib.import_module("vllm.v1.engine.output_processor").OutputProcessor
        add, interval = output.add_request, [1]

        def add_request(self: Any, *words: Any, **named: Any) -> Any:
            self.stream_interval = interval[0]
            return add(self, *words, **named)

        output.add_request = add_request

        def apply(chosen: dict[str, str]) -> None:
            _collect(chosen)
            interval[0] = int(chosen.get("interval", 1))
            for name, (owner, function) in owners.items():
                setattr(owner, function, (plain if chosen.get(name) == "off" else repaired)[name])

        _watch(apply)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """As the product's."""
        await self.adapted(scope, receive, send)
