"""Guest images of the local cloud, built once and cached by the hash of what goes into them.

API::

    ensure(name, progress=lambda line: None) -> Path
        name: "base" | "engine-real" | "engine-fake" | "gpu-h200-2x" (h200|h100, 1|2|4|8)
        Returns the folder that is mounted as an overlay lower layer. Blocks while another process builds it.
    cached(name) -> Path | None
        The same folder when nothing has to be built.
    ImageError: a sentence with the last lines of the failed step.

`fake_engine/` either is the package (copied to site-packages as `vllm`) or holds `vllm/` and whatever
else belongs beside it in site-packages; it may use the standard library only.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class ImageError(Exception):
    """An image could not be built."""


def ensure(name: str, progress: Callable[[str], None]) -> Path:
    """Build the image unless it is cached; return its root folder."""
    raise NotImplementedError(name, progress)


def cached(name: str) -> Path | None:
    """Return the image's root folder if it needs no build."""
    raise NotImplementedError(name)
