"""The command line `pulumi-vllm local`: environment lines and JSON on stdout, messages on stderr.

Exit codes: 0 success, 1 failure, 3 `status` found no running cloud.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pulumi_vllm_local import control, settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pulumi_vllm_local.control import Running
    from pulumi_vllm_local.machines.containers import Machines

NOT_RUNNING = 3
_LAST_PORT = 65535


_ENGINE = (
    "real: vLLM on the CPU; fake: an imitation that computes nothing; none: each machine installs vLLM (5 GB)"
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser], engine_locks: Path) -> None:
    """Add `local` and its subcommands; each sets `run`, a function of the parsed arguments to an exit code.

    `engine_locks` is the folder of lock files that engine images are built from (see `images/engine_locks.py`).
    """
    local = subparsers.add_parser(
        "local",
        help="run the local cloud, which needs neither an account nor a GPU",
        description="Run the local cloud, which imitates the rental API with containers on this computer. Its state "
        "is in $PULUMI_VLLM_LOCAL_DIR, by default .pulumi-vllm/local.",
    )
    verbs = local.add_subparsers(dest="verb", required=True, metavar="COMMAND")

    def verb(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        parser = verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        parser.set_defaults(run=lambda parsed: _report_errors(run, parsed))
        return parser

    up = verb(
        "up",
        _up,
        'start the local cloud and print the environment of a stack: eval "$(pulumi-vllm local up)"',
    )
    up.add_argument("--engine", choices=("real", "fake", "none"), default="fake", help=_ENGINE)
    up.add_argument(
        "--port",
        type=_port,
        default=0,
        metavar="N",
        help="port of the API on loopback (default: a free one at first, then the same)",
    )
    up.add_argument(
        "--factor",
        type=_factor,
        default=60.0,
        metavar="N",
        help="virtual seconds per real second (default: 60); 1 is real time",
    )
    up.add_argument(
        "--release",
        default="",
        metavar="CODENAME",
        help="release of the machines, such as trixie (default: that of this computer)",
    )
    up.add_argument("--json", action="store_true", help="print JSON in place of the environment")
    up.set_defaults(engine_locks=engine_locks)
    status = verb(
        "status", _status, "show the machines and volumes of the local cloud; exit 3 if it does not run"
    )
    status.add_argument("--json", action="store_true", help="print JSON")
    logs = verb("logs", _logs, "show the log of the cloud, or the console of a machine")
    logs.add_argument("name", nargs="?", metavar="NAME", help="name or id of a machine")
    logs.add_argument(
        "-n",
        "--lines",
        type=_lines_wanted,
        default=100,
        metavar="N",
        help="number of lines, from the end (default: 100)",
    )
    console = verb("console", _console, "open a root shell on a machine, as a cloud's console does")
    console.add_argument("name", metavar="NAME", help="name or id of a machine")
    command = console.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="COMMAND", help="run this in place of a shell"
    )
    command.required = False  # the message about a missing NAME would name it too
    for name, text in (
        ("reclaim", "terminate a machine as a provider reclaims a spot machine"),
        ("pause", "freeze a machine, so that it answers nothing"),
        ("unpause", "resume a frozen machine"),
        ("move", "restart a machine with another address"),
    ):
        control = verb(name, _control, text)
        control.add_argument("name", metavar="NAME", help="name or id of a machine")
        control.add_argument("--json", action="store_true", help="print JSON")
    down = verb("down", _down, "stop the local cloud and remove its machines; volumes stay")
    down.add_argument("--purge", action="store_true", help="also remove volumes and records")


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > _LAST_PORT:
        raise argparse.ArgumentTypeError(f"{text} is not a port, 0 to {_LAST_PORT}")
    return int(text)


def _factor(text: str) -> float:
    try:
        if 0 < (found := float(text)) < math.inf:
            return found
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text} is not a number above 0")


def _lines_wanted(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return int(text)


def _message(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _report_errors(run: Callable[[argparse.Namespace], int], parsed: argparse.Namespace) -> int:
    """Run a subcommand; print an error of the local cloud without a traceback."""
    try:
        return run(parsed)
    except settings.LocalCloudError as error:
        _message(str(error))
        return 1


def _cloud() -> Running:
    found = control.running(settings.default_state_dir())
    if found is None:
        raise settings.LocalCloudError("local cloud: not running; start it with `pulumi-vllm local up`")
    return found


def _show(found: Running, as_json: bool) -> None:
    if as_json:
        _print(json.dumps(found.plain()))
        return
    for name, value in found.environment().items():
        _print(f"export {name}={value}")


def _up(parsed: argparse.Namespace) -> int:
    chosen = {name: getattr(parsed, name) for name in ("engine", "port", "factor", "release")}
    running = control.up(settings.default_state_dir(), parsed.engine_locks, **chosen, progress=_message)
    _show(running, parsed.json)
    return 0


def _status(parsed: argparse.Namespace) -> int:
    found = control.status(settings.default_state_dir())
    if parsed.json:
        _print(json.dumps(found))
    elif found["running"]:
        for line in _lines(found):
            _print(line)
    else:
        _message(f"local cloud: not running ({found['state_dir']})")
    return 0 if found["running"] else NOT_RUNNING


def _lines(found: dict[str, Any]) -> list[str]:
    state = found["state"]
    lines = [
        f"API {found['url']}, hub {found['hub_url']}, engine {found['engine']}, pid {found['pid']}",
        f"clock {state['now']} (factor {state['factor']:g}), balance {state['balance']:.2f} USD",
    ]
    for item in state["deployments"]:
        if item["machine"] != "gone":
            reason = f", {item['why']}" if item["why"] else ""
            where = f"{item['providerId']} {item['region']}"
            address = item["address"] or "no address yet"
            lines.append(
                f"machine {item['name']} ({item['id']}): {item['status']}, {address}, {where}{reason}"
            )
    for item in state["volumes"]:
        size, where = item["sizeInGb"], f"{item['providerId']} {item['region']}"
        lines.append(f"volume {item['name']} ({item['volumeId']}): {item['status']}, {size} GB, {where}")
    return lines


def _logs(parsed: argparse.Namespace) -> int:
    state_dir = settings.default_state_dir()
    path = settings.Files(state_dir).log
    if parsed.name:
        path = _machines().console_log(_machine_id(parsed))
    if not path.exists():
        raise settings.LocalCloudError(
            f"local logs: {path} does not exist; start the cloud with `pulumi-vllm local up`"
        )
    text = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in text[-parsed.lines :]:
        _print(line)
    return 0


def _console(parsed: argparse.Namespace) -> int:
    from pulumi_vllm_local.machines.machine import MachineError  # with the containers, see `_machines`

    try:
        words = parsed.words[1:] if parsed.words[:1] == ["--"] else parsed.words
        command = _machines().console(_machine_id(parsed), words)
    except MachineError as error:
        raise settings.LocalCloudError(f"local console: {error}") from None
    os.execvp(command[0], command)  # noqa: S606 - the user's own command


def _machines() -> Machines:
    # Only some commands need the containers, and `pulumi-vllm --help` loads this module too.
    from pulumi_vllm_local.machines.containers import Machines

    return Machines(settings.default_state_dir())


def _machine_id(parsed: argparse.Namespace) -> str:
    """Return the id of the newest machine with this name or id."""
    records = settings.read_json(settings.Files(settings.default_state_dir()).records) or {"deployments": []}
    ids = [item["id"] for item in records["deployments"] if parsed.name in (item["id"], item["name"])]
    if not ids:
        raise _no_machine(parsed)
    return str(ids[-1])


def _no_machine(parsed: argparse.Namespace) -> settings.LocalCloudError:
    return settings.LocalCloudError(
        f"local {parsed.verb}: no machine {parsed.name}; see `pulumi-vllm local status`"
    )


def _control(parsed: argparse.Namespace) -> int:
    cloud = _cloud()
    there = [
        one for one in control.request_control(cloud, "state")["deployments"] if one["machine"] != "gone"
    ]
    if not any(parsed.name in (one["id"], one["name"]) for one in there):
        raise _no_machine(parsed)
    answer = control.request_control(cloud, f"{parsed.verb}/{quote(parsed.name, safe='')}", "POST", {})
    if parsed.json:
        _print(json.dumps(answer))
    else:
        _message(f"{parsed.verb}: machine {answer['name']} ({answer['id']})")
    return 0


def _down(parsed: argparse.Namespace) -> int:
    control.down(settings.default_state_dir(), purge=parsed.purge, progress=_message)
    return 0
