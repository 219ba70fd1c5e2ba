"""One control group per guest, because guests in a shared group can kill each other's services."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


class Group:
    """The control groups of a guest, in the hybrid layout (v1 and /unified) or in pure v2."""

    def __init__(self, parent: str, name: str, root: Path = ROOT) -> None:
        self._paths = tuple(base / parent / name for base in hierarchies(root))
        self._v2 = self._paths[0]

    @property
    def paths(self) -> tuple[Path, ...]:
        """Return the groups that the first process of the guest has to enter."""
        return self._paths

    def make(self) -> None:
        """Create the groups."""
        for path in self._paths:
            path.mkdir(parents=True, exist_ok=True)

    def populated(self) -> bool:
        """Return whether any process is left, zombies included."""
        with contextlib.suppress(OSError):
            return "populated 1" in (self._v2 / "cgroup.events").read_text(encoding="ascii")
        return False

    def kill(self, wait: float = 10.0) -> bool:
        """Kill all processes; return whether they are gone."""
        with contextlib.suppress(OSError):
            (self._v2 / "cgroup.kill").write_text("1", encoding="ascii")
        return self.wait_empty(wait)

    def wait_empty(self, wait: float) -> bool:
        """Wait until no process is left; return False after `wait` seconds."""
        end = time.monotonic() + wait
        while self.populated():
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def freeze(self, frozen: bool) -> None:
        """Freeze or thaw all processes."""
        with contextlib.suppress(OSError):
            (self._v2 / "cgroup.freeze").write_text("1" if frozen else "0", encoding="ascii")

    def frozen(self) -> bool:
        """Return whether the processes are frozen."""
        with contextlib.suppress(OSError):
            return (self._v2 / "cgroup.freeze").read_text(encoding="ascii").strip() == "1"
        return False

    def leader(self) -> int | None:
        """Return the process id of the guest's init."""
        for inner in ("payload/init.scope", "init.scope", "payload"):
            with contextlib.suppress(OSError, IndexError):
                pids = (self._v2 / inner / "cgroup.procs").read_text(encoding="ascii").split()
                return int(pids[0])
        return None

    def remove(self) -> None:
        """Remove the groups, the deepest first; a group in use stays."""
        for path in self._paths:
            _remove(path)


def hierarchies(root: Path = ROOT) -> tuple[Path, ...]:
    """Return the mounted hierarchies that systemd uses, v2 first."""
    if (root / "cgroup.controllers").exists():
        return (root,)
    return tuple(path for path in (root / "unified", root / "systemd") if path.is_dir())


def remove_parent(parent: str, root: Path = ROOT) -> None:
    """Remove the parent group of all guests, with the empty groups in it."""
    for base in hierarchies(root):
        _remove(base / parent)


def group_names(parent: str, root: Path = ROOT) -> tuple[str, ...]:
    """Return the names of the guests that have a group."""
    found: set[str] = set()
    for base in hierarchies(root):
        with contextlib.suppress(FileNotFoundError):
            found |= {path.name for path in (base / parent).iterdir() if path.is_dir()}
    return tuple(sorted(found))


def _remove(path: Path) -> None:
    if not path.is_dir():
        return
    for inner in sorted((found for found in path.rglob("*") if found.is_dir()), reverse=True):
        with contextlib.suppress(OSError):
            inner.rmdir()
    with contextlib.suppress(OSError):
        path.rmdir()
