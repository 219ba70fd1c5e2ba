"""The engines on the host, beside each other, and the link that leads to the one that vLLM runs from."""

from __future__ import annotations

import shutil
from pathlib import Path

VENV = "/opt/vllm"


def next_link(link: Path) -> Path:
    """The link to the engine of the next start, while that is another one."""
    return Path(f"{link}.next")


def aside(link: Path) -> Path:
    """Where an engine goes that was installed in place of the link, as an image may have it."""
    return link.with_name(f"{link.name}-before")


def point(link: Path, target: Path) -> None:
    """Let a link lead to a directory beside it, in one step."""
    temporary = link.with_name(link.name + ".new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target.name)
    temporary.replace(link)


def switch(link: Path) -> bool:
    """Let the link lead to what was installed last. Returns whether it leads to another engine now.

    The previous engine stays, to go back to.
    """
    following = next_link(link)
    if not following.is_symlink():
        return False
    if link.exists() and not link.is_symlink():
        place = aside(link)
        shutil.rmtree(place, ignore_errors=True)
        # Copied where it can't be renamed: a directory in the lower layer of an overlay.
        shutil.move(link, place)
    following.replace(link)
    return True


def prune(link: Path, *keep: Path) -> list[Path]:
    """Remove every engine but those, the current one and that of the next start. Returns what was removed."""
    kept = {*keep, link.resolve(), next_link(link).resolve()}
    old = [path for path in sorted(link.parent.glob(f"{link.name}-*")) if path.is_dir() and path not in kept]
    for path in old:
        shutil.rmtree(path, ignore_errors=True)
    return old
