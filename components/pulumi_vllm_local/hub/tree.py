"""The files of a model repository as the hub lists them: blob ids, LFS digests, and a commit id."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

LFS_FROM_BYTES = 1_000_000
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class TreeFile:
    """A file with its path in the repository, its size in bytes and its digests."""

    path: str
    size: int
    sha256: str
    git_sha1: str
    lfs: bool

    @property
    def etag(self) -> str:
        """The ETag of the hub: the SHA-256 for LFS files, the git blob id for others."""
        return self.sha256 if self.lfs else self.git_sha1

    @property
    def pointer(self) -> bytes:
        """The LFS pointer that git stores in place of the file."""
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n"
        return text.encode()

    @property
    def oid(self) -> str:
        """The git blob id of what git stores, which is the pointer for LFS files."""
        return blob_id(self.pointer) if self.lfs else self.git_sha1

    def listing(self) -> dict[str, Any]:
        """Return the file as an item of the hub's tree listing."""
        item: dict[str, Any] = {"type": "file", "path": self.path, "size": self.size, "oid": self.oid}
        if self.lfs:
            item["lfs"] = {"oid": self.sha256, "size": self.size, "pointerSize": len(self.pointer)}
        return item


def blob_id(data: bytes) -> str:
    """Return the id that git gives to these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def read_file(path: Path, name: str) -> TreeFile:
    """Compute the digests of a file in pieces, so that a large file does not fill the memory."""
    size = path.stat().st_size
    sha256 = hashlib.sha256()
    sha1 = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            sha256.update(piece)
            sha1.update(piece)
    lfs = size >= LFS_FROM_BYTES or name.endswith(".safetensors")
    return TreeFile(name, size, sha256.hexdigest(), sha1.hexdigest(), lfs)


def read_tree(folder: Path) -> tuple[TreeFile, ...]:
    """Return all files below a folder, sorted by path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple(read_file(path, path.relative_to(folder).as_posix()) for path in paths)


def commit_of(files: tuple[TreeFile, ...]) -> str:
    """Return a commit id that changes with every byte of every file."""
    text = "".join(f"{file.path}\0{file.oid}\n" for file in files)
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
