"""`python -m vllm.entrypoints.openai.api_server` of the fake engine: start, listen, drain, leave."""

# The package is copied into guests under another name, so it cannot name itself.
# ruff: noqa: TID252

from __future__ import annotations

import os
import signal
import sys
import time

from ... import __version__
from ...arguments import parse
from ...model import LoadError, check
from ...server import Engine, serve

_LOOK_S = 0.1


def _say(text: str) -> None:
    sys.stderr.write(f"INFO {time.strftime('%m-%d %H:%M:%S')} [api_server.py] {text}\n")
    sys.stderr.flush()


def main(argv: list[str]) -> int:
    """Run until SIGTERM or SIGINT; then finish what runs for --shutdown-timeout seconds."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # while it starts, as vLLM 0.26.0 does
    args = parse(argv)
    _say(f"vLLM API server version {__version__} (fake engine: no model is computed)")
    time.sleep(float(os.environ.get("VLLM_FAKE_START_S", "2")))
    try:
        check(args.model)
    except LoadError as error:
        sys.stderr.write(f"ERROR [core.py] {error}\nRuntimeError: Engine core initialization failed.\n")
        return 1
    keys = [*args.api_key, *filter(None, [os.environ.get("VLLM_API_KEY")])]
    engine = Engine(
        names=tuple(args.served_model_name or [args.model]),
        root=args.model,
        context=args.max_model_len if args.max_model_len > 0 else 8192,
        keys=tuple(keys),
        images=not args.language_model_only and (args.limit_mm_per_prompt or {}).get("image") != 0,
        tools=bool(args.enable_auto_tool_choice),
        token_s=float(os.environ.get("VLLM_FAKE_TOKEN_MS", "25")) / 1000,
        version=__version__,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(engine, "draining", True))
    server = serve(engine, args.host or "0.0.0.0", args.port)  # noqa: S104 (vLLM's default)
    _say(f"Starting vLLM server on http://{args.host or '0.0.0.0'}:{args.port}")  # noqa: S104
    _say("Application startup complete.")
    # Not a wait on a lock: a signal that comes between two steps of its code, as on a busy machine, does not end it.
    while not engine.draining:
        time.sleep(_LOOK_S)
    timeout = float(args.shutdown_timeout or 0)
    _say(f"Shutting down; in-flight requests have {timeout:.0f} s")
    engine.drain(timeout)
    server.shutdown()
    _say("Application shutdown complete.")
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    # Not sys.exit: a thread that logs a health check while the interpreter ends makes Python abort instead.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
