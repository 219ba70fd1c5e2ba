"""Unfinished downloads on the disk. A journal per file lists the finished chunks and survives a power failure."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import re
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from durable_files import replace_file, sync_directory
from reporting import Failure

if TYPE_CHECKING:
    from pathlib import Path

DISK_FULL = 4  # exit code
PARTS = ".parts"
"""Directory of the unfinished files, inside the directory of the weights."""
MODE = 0o644
VERIFIED = "verified"
"""File in PARTS that lists the files whose hash was right."""


@dataclass
class File:
    """One file of the revision and its progress. Chunks are numbered; the first `hashed` ones are in the hash."""

    path: str
    size: int
    kind: str  # "sha256" or "git_sha1"
    digest: str
    url: str = ""
    handle: int = -1
    journal: int = -1
    final: bool = False  # the handle is the finished file, opened to be verified
    mismatches: int = 0  # whole downloads whose hash was wrong
    in_flight: int = 0  # chunks being fetched
    hashed: int = 0
    hashing: bool = False
    done: set[int] = field(default_factory=set)
    held: dict[int, memoryview] = field(default_factory=dict)  # chunks in memory, not hashed yet
    pending: deque[int] = field(default_factory=deque)
    hasher: Any = None

    def start_hash(self) -> None:
        """Start the hash that the hub lists: sha256, or git's blob id for a small file."""
        self.hashed, self.hasher = 0, hashlib.sha256()
        if self.kind == "git_sha1":
            self.hasher = hashlib.sha1(b"blob %d\0" % self.size)  # noqa: S324 - git names files by it


def disk_failure(error: OSError, path: Path) -> Failure:
    """The failure for an error of the file system."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Failure(f"{path}: the disk is full; grow the volume (storage) and run it again", DISK_FULL)
    return Failure(f"{path}: {error.strerror or error}; check the volume's mount and its health")


def is_complete(path: Path, size: int) -> bool:
    """Whether the path is a file of that size. A link is never one of ours."""
    return path.is_file() and not path.is_symlink() and path.stat().st_size == size


class PartialFiles:
    """The unfinished files of one weights directory."""

    def __init__(self, root: Path, chunk: int, owner: tuple[int, int]) -> None:
        self.root, self.directory, self.chunk, self.owner = root, root / PARTS, chunk, owner

    def length(self, file: File, index: int) -> int:
        """Bytes of one chunk. The last chunk is shorter."""
        return min(self.chunk, file.size - index * self.chunk)

    def count(self, file: File) -> int:
        """Number of chunks of a file. An empty file has none."""
        return -(-file.size // self.chunk)

    def path(self, file: File, ending: str) -> Path:
        """Path of an unfinished file, or of its journal."""
        return self.directory / f"{hashlib.sha256(file.path.encode()).hexdigest()[:24]}.{ending}"

    def begin(self, file: File) -> int:
        """Open a file to verify it, or to resume it if its size is wrong. Returns the bytes that it has."""
        path, file.final = self.root / file.path, False
        file.start_hash()
        if not file.mismatches and is_complete(path, file.size):
            file.handle, file.final = os.open(path, os.O_RDONLY), True
            file.done = set(range(self.count(file)))
        else:
            self.resume(file)
        return sum(self.length(file, index) for index in file.done)

    def resume(self, file: File) -> None:
        """Adopt the chunks that the journal lists. It lists a chunk only after the chunk is on the disk."""
        part, journal = self.path(file, "part"), self.path(file, "journal")
        all_chunks = set(range(self.count(file)))
        header = json.dumps([file.path, file.size, file.digest, self.chunk])
        lines = journal.read_text(errors="replace").splitlines(keepends=True) if journal.exists() else []
        file.done = set()
        file.handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, MODE)
        if lines[:1] == [header + "\n"] and os.fstat(file.handle).st_size == file.size:
            listed = itertools.takewhile(re.compile(r"\d{1,9}\n").fullmatch, lines[1:])
            file.done = {int(line) for line in listed} & all_chunks
        else:
            os.ftruncate(file.handle, 0)
            os.ftruncate(file.handle, file.size)
            os.fsync(file.handle)
        replace_file(journal, "".join(f"{line}\n" for line in (header, *sorted(file.done))))
        file.journal = os.open(journal, os.O_WRONLY | os.O_APPEND)
        file.pending = deque(sorted(all_chunks - file.done))

    def write(self, file: File, data: memoryview, at: int) -> None:
        """Write all of the data. Raises Failure if the file system refuses."""
        while data:
            try:
                written = os.pwrite(file.handle, data, at)
            except OSError as error:
                raise disk_failure(error, self.root) from None
            data, at = data[written:], at + written

    def record_chunk(self, file: File, index: int) -> None:
        """Sync a complete chunk to the disk, and then list it in the journal."""
        os.fdatasync(file.handle)
        os.write(file.journal, b"%d\n" % index)
        os.fdatasync(file.journal)

    def close(self, file: File, *, verified: bool) -> None:
        """Give a verified file its mode, its owner and its final path, or delete it."""
        if verified:
            self.restore_access(file.handle)
        os.close(file.handle)
        if file.journal >= 0:
            os.close(file.journal)
        file.journal, path, part = -1, self.root / file.path, self.path(file, "part")
        if verified and not file.final:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.replace(path)
            sync_directory(path.parent)
        if not verified:
            path.unlink(missing_ok=True)
        for leftover in (self.path(file, "journal"), part):
            leftover.unlink(missing_ok=True)

    def restore_access(self, handle: int) -> None:
        """Set the mode and the owner of a file that has others. An owner of -1 is left unchanged."""
        found = os.fstat(handle)
        if found.st_mode & 0o7777 != MODE:
            os.fchmod(handle, MODE)
        if self.owner not in ((-1, -1), (found.st_uid, found.st_gid)):
            os.fchown(handle, *self.owner)
