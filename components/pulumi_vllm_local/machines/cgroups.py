"""One control group per guest: guests that share one can kill each other's services."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


class Group:
    """A guest's control groups, in the hybrid layout (v1 and /unified) or in pure v2."""

    def __init__(self, parent: str, name: str, root: Path = ROOT) -> None:
        self._paths = tuple(base / parent / name for base in hierarchies(root))
        self._v2 = self._paths[0]

    @property
    def paths(self) -> tuple[Path, ...]:
        """Return the groups a guest's first process has to enter."""
        return self._paths

    def make(self) -> None:
        """Make them."""
        for path in self._paths:
            path.mkdir(parents=True, exist_ok=True)

    def populated(self) -> bool:
        """Tell whether any process is left, zombies included."""
        with contextlib.suppress(OSError):
            return "populated 1" in (self._v2 / "cgroup.events").read_text(encoding="ascii")
        return False

    def kill(self, wait: float = 10.0) -> bool:
        """Kill every process at once; tell whether all are gone."""
        with contextlib.suppress(OSError):
            (self._v2 / "cgroup.kill").write_text("1", encoding="ascii")
        return self.wait_empty(wait)

    def wait_empty(self, wait: float) -> bool:
        """Wait until no process is left."""
        end = time.monotonic() + wait
        while self.populated():
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def freeze(self, frozen: bool) -> None:
        """Stop or continue every process."""
        with contextlib.suppress(OSError):
            (self._v2 / "cgroup.freeze").write_text("1" if frozen else "0", encoding="ascii")

    def frozen(self) -> bool:
        """Tell whether the processes are stopped."""
        with contextlib.suppress(OSError):
            return (self._v2 / "cgroup.freeze").read_text(encoding="ascii").strip() == "1"
        return False

    def leader(self) -> int | None:
        """Return the guest's process 1."""
        for inner in ("payload/init.scope", "init.scope", "payload"):
            with contextlib.suppress(OSError, IndexError):
                pids = (self._v2 / inner / "cgroup.procs").read_text(encoding="ascii").split()
                return int(pids[0])
        return None

    def remove(self) -> None:
        """Remove the groups, deepest first; one that is in use stays."""
        for path in self._paths:
            _remove(path)


def hierarchies(root: Path = ROOT) -> tuple[Path, ...]:
    """Return the mounted hierarchies systemd looks at, the v2 one first."""
    if (root / "cgroup.controllers").exists():
        return (root,)
    return tuple(path for path in (root / "unified", root / "systemd") if path.is_dir())


def remove_parent(parent: str, root: Path = ROOT) -> None:
    """Remove the group all guests were under, with whatever empty groups are left in it."""
    for base in hierarchies(root):
        _remove(base / parent)


def left(parent: str, root: Path = ROOT) -> tuple[str, ...]:
    """Return the guests' names that have a group."""
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
