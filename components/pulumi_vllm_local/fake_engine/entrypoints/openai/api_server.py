"""Entry point of the fake engine: `python -m vllm.entrypoints.openai.api_server`."""

# The package is installed under the name vllm, so its imports have to be relative.
# ruff: noqa: TID252

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from ... import __version__
from ...arguments import parse, template_error
from ...core import Core
from ...model import LoadError, check
from ...server import Engine, serve

if TYPE_CHECKING:
    import argparse

_POLL_S = 0.1
_DEAD_S = 1.0
"""Seconds from a dead core to the end of the server; vLLM takes about five."""


def _log(text: str) -> None:
    sys.stderr.write(f"INFO {time.strftime('%m-%d %H:%M:%S')} [api_server.py] {text}\n")
    sys.stderr.flush()


def _imported(name: str) -> Any:
    """Return the class of an ASGI middleware."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def main(argv: list[str]) -> int:
    """Serve until SIGTERM or SIGINT; then drain for --shutdown-timeout seconds."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # during the start, like vLLM 0.26.0
    args = parse(argv)
    _log(f"vLLM API server version {__version__} (fake engine: no model is computed)")
    if refused := template_error(args.chat_template):
        sys.stderr.write(f"{refused}\n")
        return 1
    core = Core()
    try:
        return _serve(args, core)
    finally:
        core.end()


def _serve(args: argparse.Namespace, core: Core) -> int:
    ready_at = time.monotonic() + float(os.environ.get("VLLM_FAKE_START_S", "2"))
    while time.monotonic() < ready_at and not core.dead():
        time.sleep(min(_POLL_S, max(0.0, ready_at - time.monotonic())))
    reason = "EngineDeadError: the core process ended during its start" if core.dead() else None
    try:
        check(args.model)
    except LoadError as error:
        reason = f"ValueError: {error}"
    if reason:
        sys.stderr.write(f"(EngineCore pid={core.pid}) {reason}\n")
        sys.stderr.write("RuntimeError: Engine core initialization failed. See root cause above.\n")
        return 1
    keys = [*args.api_key, *filter(None, [os.environ.get("VLLM_API_KEY")])]
    # vLLM passes it on to the platform that computes. Of this one it sets the speed, so that a stack file can.
    speed = args.additional_config or {}
    engine = Engine(
        names=tuple(args.served_model_name or [args.model]),
        root=args.model,
        context=args.max_model_len if args.max_model_len > 0 else 8192,
        core=core,
        keys=tuple(keys),
        images=not args.language_model_only and (args.limit_mm_per_prompt or {}).get("image") != 0,
        tools=bool(args.enable_auto_tool_choice),
        token_s=float(speed.get("token_ms") or os.environ.get("VLLM_FAKE_TOKEN_MS", "25")) / 1000,
        prompt_tokens_per_s=float(speed.get("prompt_tokens_per_s") or 0),
        prompt_chunk=int(speed.get("prompt_chunk") or args.max_num_batched_tokens or 2048),
        places=args.max_num_seqs or 256,
        priorities=args.scheduling_policy == "priority",
        version=__version__,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(engine, "draining", True))
    load = [_imported(name) for name in args.middleware]
    server = serve(engine, args.host or "0.0.0.0", args.port, load)  # noqa: S104 (vLLM's default)
    _log(f"Starting vLLM server on http://{args.host or '0.0.0.0'}:{args.port}")  # noqa: S104
    _log("Application startup complete.")
    # A wait on a lock could miss a signal that arrives between two of its steps, which happened on busy machines.
    while not engine.draining and not core.dead():
        time.sleep(_POLL_S)
    if not engine.draining:
        # The API server of 0.26.0 and 0.32.0 ends with code 0, and so does this one.
        _log("ERROR [core_client.py] Engine core proc EngineCore died unexpectedly, shutting down client.")
        engine.dead = engine.aborted = True
        time.sleep(_DEAD_S)
        return 0
    timeout = float(args.shutdown_timeout or 0)
    _log(f"Shutting down; in-flight requests have {timeout:.0f} s")
    engine.drain(timeout)
    server.shutdown()
    _log("Application shutdown complete.")
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    # With sys.exit, Python aborts if a thread logs a health check while the interpreter shuts down.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
