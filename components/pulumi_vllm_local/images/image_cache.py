"""Root file systems of the machines, built once and cached under the hash of everything that goes into them."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
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

from pulumi_vllm_local import fake_engine
from pulumi_vllm_local.images import apt_sources
from pulumi_vllm_local.images.engine_locks import EngineLocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RECIPES = Path(__file__).parent
FAKE_ENGINE = Path(fake_engine.__file__).parent
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "udev", "libpam-systemd", "cloud-init", "openssh-server", "sudo"),
    *("python3", "python3-venv", "curl", "ca-certificates", "jq", "libnuma1", "e2fsprogs", "util-linux"),
    *("iproute2", "iputils-ping", "procps", "kmod", "less", "netbase", "haproxy", "nftables"),
)
# In these releases resolved is part of the systemd package, and there is no package systemd-resolved.
RESOLVED_IN_SYSTEMD = ("bullseye", "focal", "jammy")
_NVSWITCH_FROM = 8  # GPUs: such machines join them by NVSwitches, which need the fabric manager
GPU_NAME = re.compile(r"gpu-(?P<gpu>h100|h200)-(?P<count>[1248])x")


class ImageError(Exception):
    """An image could not be built."""


def folder() -> Path:
    """Return the cache folder of images."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "pulumi-vllm" / "images"


class ImageCache:
    """The images of this user.

    The names are base, engine-real, engine-fake, and gpu-GPU-COUNTx with h100 or h200 and 1, 2, 4 or 8.
    """

    def __init__(self, engine_locks: Path | None = None, release: str = "") -> None:
        """`engine_locks` is the folder of lock files (see `engine_locks.py`); the engine images need it.

        `release` is the codename of a release of this computer's distribution; without it, images have its own.
        """
        self._engine_locks = engine_locks
        self._release = release

    def cached(self, name: str) -> Path | None:
        """Return the root folder of an image, or None if it has to be built."""
        root = folder() / f"{name}-{self.key(name)}" / "root"
        return root if root.is_dir() else None

    def ensure(self, name: str, progress: Callable[[str], None] = lambda _: None) -> Path:
        """Build an image unless it is cached; return its root folder, a lower layer for an overlay.

        It blocks while another process builds the same image.
        """
        found = self.cached(name)
        if found:
            return found
        base = None if name == "base" or name.startswith("gpu-") else self.ensure("base", progress)
        with _only_builder(name, progress):
            found = self.cached(name)
            if found:
                return found
            for stale in folder().glob(f".build-{name}-*"):
                shutil.rmtree(stale)
            began = time.monotonic()
            progress(f"image {name}: building")
            building = Path(tempfile.mkdtemp(prefix=f".build-{name}-", dir=folder()))
            try:
                building.chmod(0o755)
                self._build(name, base, building, progress)
                target = folder() / f"{name}-{self.key(name)}"
                building.rename(target)
            finally:
                shutil.rmtree(building, ignore_errors=True)
            progress(f"image {name}: built in {time.monotonic() - began:.0f} s")
            return target / "root"

    def key(self, name: str) -> str:
        """Return a hash of everything the image is made from."""
        digest = hashlib.sha256()
        for part in self._inputs(name):
            digest.update(len(part).to_bytes(8, "big") + part)
        return digest.hexdigest()[:12]

    def packages(self) -> str:
        """Return the packages of the base image in mmdebstrap's notation."""
        resolved = () if self._suite().codename in RESOLVED_IN_SYSTEMD else ("systemd-resolved",)
        return ",".join((*PACKAGES, *resolved))

    def _suite(self) -> apt_sources.Suite:
        try:
            return apt_sources.of_machines(_this_suite(), self._release)
        except apt_sources.SuiteError as error:
            raise ImageError(str(error)) from error

    def _sources(self) -> str:
        return apt_sources.sources(_this_suite().codename, self._suite().codename)

    def _python(self) -> str:
        """Return the Python minor version of the machines."""
        suite = self._suite()
        known = apt_sources.RELEASES[suite.distribution].get(suite.codename)
        if known is not None:
            return known
        base = self.cached("base")
        names = sorted(path.name for path in base.glob("usr/bin/python3.*[0-9]")) if base else []
        return names[0].removeprefix("python") if names else "3.11"

    def _locks(self, name: str) -> EngineLocks:
        if self._engine_locks is None or not self._engine_locks.is_dir():
            raise ImageError(
                f"image {name}: there is no folder of engine locks at {self._engine_locks}; pass `engine_locks`"
            )
        return EngineLocks(self._engine_locks)

    def _cpu_lock(self, name: str) -> Path:
        python = self._python()
        lock = self._locks(name).cpu(python)
        if lock is None:
            raise ImageError(
                f"image {name}: {self._engine_locks} has no lock of the CPU engine for Python {python}; "
                "use the fake engine, or machines with Debian 12, Debian 13 or Ubuntu 24.04",
            )
        return lock

    def _inputs(self, name: str) -> Iterator[bytes]:
        yield (RECIPES / "run-isolated.sh").read_bytes()
        if name == "base":
            yield f"{self._suite().codename} {self.packages()} {self._sources()}".encode()
            yield from _files(RECIPES / "base")
        elif name == "engine-real":
            yield self.key("base").encode()
            yield from _files(RECIPES / "engine-real")
            yield self._cpu_lock(name).read_bytes()
        elif name == "engine-fake":
            yield self.key("base").encode()
            yield from _files(RECIPES / "engine-fake")
            yield from _files(FAKE_ENGINE)
            yield self._locks(name).digests().encode()
        elif match := GPU_NAME.fullmatch(name):
            yield name.encode()
            yield from _files(RECIPES / "gpu")
            yield from _files(RECIPES / "captured" / f"{match['gpu']}-x2")
        else:
            raise ImageError(
                f"image {name}: unknown; use base, engine-real, engine-fake, or a name like gpu-h200-2x"
            )

    def _build(self, name: str, base: Path | None, building: Path, progress: Callable[[str], None]) -> None:
        if match := GPU_NAME.fullmatch(name):
            _gpu_layer(building / "root", match["gpu"], int(match["count"]))
            return
        script = RECIPES / name / "build.sh"
        if name == "base":
            sources = building / "inputs.sources"
            sources.write_text(self._sources(), encoding="utf-8")
            _run(
                name,
                [str(script), str(building / "root"), self._suite().codename, self.packages(), str(sources)],
                progress,
            )
            (building / "root").chmod(0o755)
            sources.unlink()
        elif name == "engine-real":
            _run(name, [str(script), str(base), str(building), str(self._cpu_lock(name)), _uv()], progress)
        else:
            # The host's installer compares this stamp with its lock, so the fake engine passes for every version.
            stamp = building / "inputs"
            stamp.write_text(self._locks(name).digests(), encoding="utf-8")
            _run(name, [str(script), str(base), str(building), str(FAKE_ENGINE), str(stamp)], progress)
            stamp.unlink()


def _this_suite() -> apt_sources.Suite:
    try:
        return apt_sources.suite(Path("/etc/os-release").read_text(encoding="utf-8"))
    except apt_sources.SuiteError as error:
        raise ImageError(str(error)) from error


def _files(top: Path) -> Iterator[bytes]:
    for path in sorted(top.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield f"{path.relative_to(top)} {path.stat().st_mode & 0o111}".encode()
            yield path.read_bytes()


def unpack_captured(gpu: str, folder: Path) -> None:
    """Copy the captured output of nvidia-smi for a GPU. The large files are compressed in the package."""
    shutil.copytree(RECIPES / "captured" / f"{gpu}-x2", folder)
    for compressed in sorted(folder.glob("*.gz")):
        compressed.with_suffix("").write_bytes(gzip.decompress(compressed.read_bytes()))
        compressed.unlink()


def _gpu_layer(root: Path, gpu: str, count: int) -> None:
    data = root / "usr" / "share" / "lc-gpu"
    unpack_captured(gpu, data)
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


def _run(name: str, command: list[str], progress: Callable[[str], None]) -> None:
    """Run one build script and report its lines; its mounts end with it, because it has its own namespace."""
    last: deque[str] = deque(maxlen=15)
    began = time.monotonic()
    with subprocess.Popen(
        ["bash", str(RECIPES / "run-isolated.sh"), *command],
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
            f"image {name}: the build failed with exit code {process.returncode}; its last lines:\n  {tail}"
        )


def _uv() -> str:
    """Find the uv binary; a version manager's wrapper script would not run inside the image."""
    beside = str(Path(sys.executable).parent / "uv")
    home = Path.home()
    for candidate in (beside, shutil.which("uv"), str(home / ".local/bin/uv"), str(home / ".cargo/bin/uv")):
        if candidate and _is_elf(Path(candidate)):
            return candidate
    for python in (sys.executable, "python3"):
        command = [python, "-c", "import uv; print(uv.find_uv_bin())"]
        done = subprocess.run(command, capture_output=True, check=False, text=True)
        if done.returncode == 0 and _is_elf(Path(done.stdout.strip())):
            return done.stdout.strip()
    raise ImageError("image engine-real: uv is missing; install it (python3 -m pip install uv)")


def _is_elf(path: Path) -> bool:
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
