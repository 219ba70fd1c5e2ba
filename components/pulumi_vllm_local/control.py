"""Start, query and stop the process of the local cloud."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from pulumi_vllm_local.settings import (
    ENGINES,
    Files,
    LocalCloudError,
    Settings,
    exclusive_command,
    is_held,
    read_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# The process of the local cloud; its one argument is the state folder.
PROGRAM = (sys.executable, "-m", "pulumi_vllm_local.daemon")
_START_S = 60.0
_END_S = 15.0
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Running:
    """A running local cloud, with what a stack needs to use it."""

    url: str
    api_key: str
    hub_url: str
    pid: int
    engine: str
    factor: float

    def environment(self) -> dict[str, str]:
        """Return the environment variables of a stack."""
        return {
            "SPHERON_URL": self.url,
            "SPHERON_API_KEY": self.api_key,
            "PULUMI_VLLM_LOCAL_HUB": self.hub_url,
        }

    def plain(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return asdict(self)


def up(
    state_dir: Path,
    engine_locks: Path,
    *,
    engine: str = "fake",
    port: int = 0,
    factor: float = 60.0,
    release: str = "",
    progress: Callable[[str], None] = lambda _: None,
) -> Running:
    """Start a local cloud for this folder, unless it already runs with these settings.

    Args:
        state_dir: folder of the cloud's state.
        engine_locks: folder of the engines' lock files, see `images/engine_locks.py`.
        engine: engine of machines without GPUs: real, fake, or none (each machine installs its own).
        port: port of the API on loopback; 0 keeps the previous one, or takes a free one.
        factor: virtual seconds per real second.
        release: codename of the machines' release; by default that of this computer.
        progress: receives progress messages.

    Raises:
        LocalCloudError: it cannot run here, or it has machines and runs with other settings.
    """
    if engine not in ENGINES:
        raise LocalCloudError(f"local up: engine {engine} is unknown; use {', '.join(ENGINES)}")
    state_dir = state_dir.resolve()
    with exclusive_command(state_dir):
        old = Settings.read(state_dir)
        found = running(state_dir)
        wanted = _wanted_settings(
            state_dir, engine_locks, engine=engine, port=port, factor=factor, release=release
        )
        if found is not None and old == wanted:
            progress(f"local cloud: already serving on {found.url}")
            return found
        if found is not None and old is not None:
            _refuse_in_use(found, old, wanted)
            progress("local cloud: restarting with the new settings")
            _end(state_dir)
        prepare(engine, engine_locks, release, progress)
        wanted.write(state_dir)
        return _start(state_dir, progress)


def _wanted_settings(
    state_dir: Path, engine_locks: Path, *, engine: str, port: int, factor: float, release: str
) -> Settings:
    """Return the settings of a cloud that is to be started; ports and key stay those of the folder."""
    old = Settings.read(state_dir) or Settings.fresh(engine, factor, port)
    return replace(
        old,
        engine=engine,
        factor=factor,
        port=port or old.port,
        engine_locks=str(engine_locks.resolve()),
        release=release,
    )


def prepare(engine: str, engine_locks: Path, release: str, progress: Callable[[str], None]) -> None:
    """Check the requirements of this computer and build the images.

    Raises:
        LocalCloudError: something is missing; the message has the command that installs it.
    """
    # `pulumi-vllm --help` loads this module too, and only `local up` builds images.
    from pulumi_vllm_local.images.image_cache import ImageCache, ImageError
    from pulumi_vllm_local.machines import host_checks

    if missing := host_checks.preflight():
        raise LocalCloudError(
            "local up: this computer does not meet the requirements yet:\n  " + "\n  ".join(missing)
        )
    # Machines with GPUs always get the fake engine.
    own = () if engine == "none" else (f"engine-{engine}",)
    images = ImageCache(engine_locks, release)
    for name in dict.fromkeys(("base", *own, "engine-fake")):
        try:
            images.ensure(name, progress)
        except ImageError as error:
            raise LocalCloudError(str(error)) from error


def _refuse_in_use(found: Running, old: Settings, wanted: Settings) -> None:
    alive = [
        item["name"] for item in request_control(found, "state")["deployments"] if item["machine"] != "gone"
    ]
    if not alive:
        return
    changed = [
        f"{name} {getattr(old, name) or 'default'} -> {getattr(wanted, name) or 'default'}"
        for name in ("engine", "factor", "port", "release")
        if getattr(old, name) != getattr(wanted, name)
    ]
    if not changed:  # other lock files: machines that exist keep the engine they have
        return
    raise LocalCloudError(
        f"local up: it runs with other settings ({', '.join(changed)}) and has machines ({', '.join(alive)}); "
        "destroy their stacks first, or remove the machines with `pulumi-vllm local down`"
    )


def _start(state_dir: Path, progress: Callable[[str], None]) -> Running:
    files = Files(state_dir)
    files.process.unlink(missing_ok=True)
    with files.log.open("ab") as log:
        log_from = log.tell()
        process = subprocess.Popen(
            [*PROGRAM, str(state_dir)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        code = process.poll()
        if code is not None:
            text = files.log.read_bytes()[log_from:].decode(errors="replace").strip()
            last = text.splitlines()[-1] if text else f"exit code {code}"
            raise LocalCloudError(
                f"local up: its process failed at the start: {last}; see the log: {files.log}"
            )
        found = running(state_dir)
        if found is not None:
            progress(f"local cloud: serving on {found.url}, engine {found.engine}")
            # The process outlives this one. Setting the code avoids a warning that it was not waited for.
            process.returncode = 0
            return found
        time.sleep(_POLL_S)
    raise LocalCloudError(f"local up: it did not answer within {_START_S:.0f} s; see the log: {files.log}")


def running(state_dir: Path) -> Running | None:
    """Return the local cloud of a folder, or None if none runs and answers."""
    files, settings = Files(state_dir), Settings.read(state_dir)
    if settings is None or not is_held(files.lock):
        return None
    process = read_json(files.process)
    if process is None:
        return None
    found = Running(
        url=process["url"],
        api_key=settings.api_key,
        hub_url=process["hub_url"],
        pid=process["pid"],
        engine=settings.engine,
        factor=settings.factor,
    )
    try:
        return found if request_control(found, "health")["pid"] == found.pid else None
    except LocalCloudError:
        return None


def request_control(
    found: Running, what: str, method: str = "GET", body: dict[str, Any] | None = None
) -> Any:
    """Send a request to the controls of the simulator."""
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(  # noqa: S310 (our own loopback address)
        f"{found.url}/_sim/{what}", data=data, method=method, headers={"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 (as above)
            return json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            text = json.loads(error.read() or b"{}")
        raise LocalCloudError(f"local cloud: {text.get('message') or text.get('error')}") from error
    except (OSError, ValueError) as error:
        raise LocalCloudError(
            f"local cloud at {found.url}: no answer ({error}); run `pulumi-vllm local status`"
        ) from error


def status(state_dir: Path) -> dict[str, Any]:
    """Return whether it runs, what a stack needs, and all machines and volumes."""
    found = running(state_dir.resolve())
    if found is None:
        return {"running": False, "state_dir": str(state_dir.resolve())}
    state = request_control(found, "state")
    return {"running": True, "state_dir": str(state_dir.resolve()), **found.plain(), "state": state}


def down(state_dir: Path, *, purge: bool = False, progress: Callable[[str], None] = lambda _: None) -> None:
    """Stop the process, remove all machines and unmount everything; volumes stay unless purged."""
    # `pulumi-vllm --help` loads this module too, and only `local down` removes machines.
    from pulumi_vllm_local import shutdown

    state_dir = state_dir.resolve()
    if not state_dir.is_dir():
        progress(f"local cloud: there is none in {state_dir}")
        return
    with exclusive_command(state_dir):
        _end(state_dir)
        shutdown.close(state_dir, purge=purge, progress=progress)


def _end(state_dir: Path) -> None:
    """Stop the process with SIGTERM, then with SIGKILL."""
    files = Files(state_dir)
    process = read_json(files.process)
    for number, patience_s in ((signal.SIGTERM, _END_S), (signal.SIGKILL, _END_S)):
        if process is None or not is_held(files.lock):
            break
        # The lock is held, so the process that wrote this id still runs.
        os.kill(process["pid"], number)
        until = time.monotonic() + patience_s
        while is_held(files.lock) and time.monotonic() < until:
            time.sleep(_POLL_S)
    if is_held(files.lock):
        raise LocalCloudError(f"local cloud: its process does not stop; see the log: {files.log}")
    files.process.unlink(missing_ok=True)
