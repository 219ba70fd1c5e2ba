"""Guest images of the local cloud, built once and cached by the hash of what goes into them."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from pulumi_vllm_local import apt_sources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

HERE = Path(__file__).parent
RECIPES = HERE / "images"
ENGINES = HERE.parent / "plan" / "data" / "engines"
CPU_ENGINE = "0.32.0-cpu"
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "udev", "libpam-systemd", "cloud-init", "openssh-server", "sudo"),
    *(
        "python3",
        "python3-venv",
        "curl",
        "ca-certificates",
        "jq",
        "libnuma1",
        "e2fsprogs",
        "util-linux",
        "iproute2",
    ),
    *("iputils-ping", "procps", "kmod", "less", "netbase", "haproxy", "nftables"),
)
# Where resolved is still part of the systemd package there is no package of that name.
RESOLVED_INSIDE = ("bullseye", "focal", "jammy")
_NVSWITCH_FROM = 8  # GPUs of a machine that an NVSwitch joins, which takes a fabric manager
GPU_NAME = re.compile(r"gpu-(?P<gpu>h100|h200)-(?P<count>[1248])x")


class ImageError(Exception):
    """An image could not be built."""


def folder() -> Path:
    """Return the cache folder of images."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "pulumi-vllm" / "images"


def cached(name: str) -> Path | None:
    """Return the image's root folder if it needs no build."""
    root = folder() / f"{name}-{key(name)}" / "root"
    return root if root.is_dir() else None


def ensure(name: str, progress: Callable[[str], None] = lambda _: None) -> Path:
    """Build the image unless it is cached; return its root folder, an overlay's lower layer.

    `name` is base, engine-real, engine-fake, or gpu-h200-2x and its like (h100, h200; 1, 2, 4, 8). It blocks while
    another process builds the same image.
    """
    found = cached(name)
    if found:
        return found
    base = None if name == "base" or name.startswith("gpu-") else ensure("base", progress)
    with _only_builder(name, progress):
        found = cached(name)
        if found:
            return found
        for stale in folder().glob(f".build-{name}-*"):
            shutil.rmtree(stale)
        began = time.monotonic()
        progress(f"image {name}: building")
        building = Path(tempfile.mkdtemp(prefix=f".build-{name}-", dir=folder()))
        try:
            building.chmod(0o755)
            _build(name, base, building, progress)
            target = folder() / f"{name}-{key(name)}"
            building.rename(target)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        progress(f"image {name}: built in {time.monotonic() - began:.0f} s")
        return target / "root"


def key(name: str) -> str:
    """Hash everything the image is made from."""
    digest = hashlib.sha256()
    for part in _inputs(name):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:12]


def guest_python() -> str:
    """Return the Python minor version of the host's release, which is the guests' too."""
    minors = {"bookworm": "3.11", "trixie": "3.13", "jammy": "3.10", "noble": "3.12", "plucky": "3.13"}
    found = minors.get(_suite().codename)
    if found is None:
        base = cached("base")
        names = sorted(path.name for path in base.glob("usr/bin/python3.*[0-9]")) if base else []
        found = names[0].removeprefix("python") if names else "3.11"
    return found


def lock() -> Path:
    """Return the CPU engine's lock for the guests' Python."""
    path = ENGINES / CPU_ENGINE / f"requirements-{guest_python()}.txt"
    if not path.is_file():
        raise ImageError(
            f"image engine-real: there is no lock of the CPU engine for Python {guest_python()}; "
            "use the fake engine, or a host with Debian 12, Debian 13 or Ubuntu 24.04",
        )
    return path


def stamp() -> str:
    """Return the stamp of the fake engine: it passes for every lock there is."""
    locks = sorted(ENGINES.glob("*/requirements-*.txt"))
    return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}\n" for path in locks)


def packages() -> str:
    """Return the packages of the base root, as mmdebstrap wants them."""
    resolved = () if _suite().codename in RESOLVED_INSIDE else ("systemd-resolved",)
    return ",".join((*PACKAGES, *resolved))


def _suite() -> apt_sources.Suite:
    try:
        return apt_sources.suite(Path("/etc/os-release").read_text(encoding="utf-8"))
    except apt_sources.SuiteError as error:
        raise ImageError(str(error)) from error


def _inputs(name: str) -> Iterator[bytes]:
    yield (RECIPES / "run-isolated.sh").read_bytes()
    if name == "base":
        yield f"{_suite().codename} {packages()} {apt_sources.sources(_suite().codename)}".encode()
        yield from _files(RECIPES / "base")
    elif name == "engine-real":
        yield key("base").encode()
        yield from _files(RECIPES / "engine-real")
        yield lock().read_bytes()
    elif name == "engine-fake":
        yield key("base").encode()
        yield from _files(RECIPES / "engine-fake")
        yield from _files(HERE / "fake_engine")
        yield stamp().encode()
    elif match := GPU_NAME.fullmatch(name):
        yield name.encode()
        yield from _files(RECIPES / "gpu")
        yield from _files(RECIPES / "captured" / f"{match['gpu']}-x2")
    else:
        raise ImageError(
            f"image {name}: unknown; there are base, engine-real, engine-fake and gpu-h200-2x and its like"
        )


def _files(top: Path) -> Iterator[bytes]:
    for path in sorted(top.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield f"{path.relative_to(top)} {path.stat().st_mode & 0o111}".encode()
            yield path.read_bytes()


def _build(name: str, base: Path | None, building: Path, progress: Callable[[str], None]) -> None:
    if match := GPU_NAME.fullmatch(name):
        _gpu_layer(building / "root", match["gpu"], int(match["count"]))
        return
    script = RECIPES / name / "build.sh"
    inputs = building / "inputs"
    if name == "base":
        inputs.write_text(apt_sources.sources(_suite().codename), encoding="utf-8")
        sources = building / "inputs.sources"
        inputs.rename(sources)
        _run(
            name, [str(script), str(building / "root"), _suite().codename, packages(), str(sources)], progress
        )
        (building / "root").chmod(0o755)
        sources.unlink()
    elif name == "engine-real":
        _run(name, [str(script), str(base), str(building), str(lock()), _uv()], progress)
    else:
        inputs.write_text(stamp(), encoding="utf-8")
        _run(name, [str(script), str(base), str(building), str(HERE / "fake_engine"), str(inputs)], progress)
        inputs.unlink()


def _gpu_layer(root: Path, gpu: str, count: int) -> None:
    data = root / "usr" / "share" / "lc-gpu"
    shutil.copytree(RECIPES / "captured" / f"{gpu}-x2", data)
    (data / "count").write_text(f"{count}\n", encoding="utf-8")
    (root / "usr" / "bin").mkdir()
    shutil.copyfile(RECIPES / "gpu" / "nvidia-smi", root / "usr" / "bin" / "nvidia-smi")
    (root / "usr" / "bin" / "nvidia-smi").chmod(0o755)
    if count == _NVSWITCH_FROM:
        unit = Path("systemd") / "system" / "nvidia-fabricmanager.service"
        wanted = root / "etc" / unit.parent / "multi-user.target.wants" / unit.name
        for folder in ((root / "usr" / "lib" / unit).parent, wanted.parent):
            folder.mkdir(parents=True)
        shutil.copyfile(RECIPES / "gpu" / unit.name, root / "usr" / "lib" / unit)
        wanted.symlink_to(Path("/usr/lib") / unit)


def _run(
    name: str,
    command: list[str],
    progress: Callable[[str], None],
    more: Mapping[str, str] | None = None,
) -> None:
    """Run one build script and pass its lines on; the script's own namespace takes its mounts along when it dies."""
    last: deque[str] = deque(maxlen=15)
    began = time.monotonic()
    with subprocess.Popen(
        ["bash", str(RECIPES / "run-isolated.sh"), *command],
        env={**os.environ, **(more or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            for line in process.stdout or ():
                last.append(line.rstrip())
                progress(f"image {name}: {time.monotonic() - began:4.0f} s  {line.rstrip()}")
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        tail = "\n  ".join(last)
        raise ImageError(
            f"image {name}: the build ended with exit code {process.returncode}; its last words:\n  {tail}"
        )


def _uv() -> str:
    """Find the real uv program: a version manager's script in its place would not run inside the guest's root."""
    beside = str(Path(sys.executable).parent / "uv")
    home = Path.home()
    for found in (beside, shutil.which("uv"), str(home / ".local/bin/uv"), str(home / ".cargo/bin/uv")):
        if found and _is_program(Path(found)):
            return found
    for python in (sys.executable, "python3"):
        asked = [python, "-c", "import uv; print(uv.find_uv_bin())"]
        done = subprocess.run(asked, capture_output=True, check=False, text=True)
        if done.returncode == 0 and _is_program(Path(done.stdout.strip())):
            return done.stdout.strip()
    raise ImageError("image engine-real: uv is missing; install it (python3 -m pip install uv)")


def _is_program(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as handle:
        return handle.read(4) == b"\x7fELF"


@contextlib.contextmanager
def _only_builder(name: str, progress: Callable[[str], None]) -> Iterator[None]:
    folder().mkdir(parents=True, exist_ok=True)
    with (folder() / f".{name}.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"image {name}: another process is building it; waiting")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
