"""Files on their way to the disk: which chunks of each are there, in a journal that a power cut leaves true."""

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

from common import Stop, sync_folder, write

if TYPE_CHECKING:
    from pathlib import Path

FULL = 4  # exit code: the disk is full


@dataclass
class File:
    """One file of the revision and how far it is; chunks are numbers, `hashed` of them are in the hash."""

    path: str
    size: int
    kind: str  # "sha256" or "git_sha1"
    digest: str
    url: str = ""
    handle: int = -1
    journal: int = -1
    final: bool = False  # the handle is the finished file, opened to be read again
    wrong: int = 0
    flying: int = 0
    hashed: int = 0
    hashing: bool = False
    done: set[int] = field(default_factory=set)
    held: dict[int, memoryview] = field(default_factory=dict)  # chunks in memory that wait for the hash
    pending: deque[int] = field(default_factory=deque)
    hasher: Any = None

    def start_hash(self) -> None:
        """Begin the hash the hub lists for it: sha256, or git's blob id for a small file."""
        self.hashed, self.hasher = 0, hashlib.sha256()
        if self.kind == "git_sha1":
            self.hasher = hashlib.sha1(b"blob %d\0" % self.size)  # noqa: S324 - what git names files by


def disk(fault: OSError, where: Path) -> Stop:
    """Say what the disk refused."""
    if fault.errno in (errno.ENOSPC, errno.EDQUOT):
        return Stop(f"{where}: the disk is full; grow the volume (storage) and run it again", FULL)
    return Stop(f"{where}: {fault.strerror or fault}; check the volume's mount and its health")


def in_place(place: Path, size: int) -> bool:
    """Say whether a finished file of that size lies there; a link is not ours."""
    return place.is_file() and not place.is_symlink() and place.stat().st_size == size


class Parts:
    """The unfinished files under one folder."""

    def __init__(self, root: Path, chunk: int, owner: tuple[int, int]) -> None:
        self.root, self.folder, self.chunk, self.owner = root, root / ".parts", chunk, owner

    def length(self, file: File, index: int) -> int:
        """Bytes of one chunk; the last is short."""
        return min(self.chunk, file.size - index * self.chunk)

    def count(self, file: File) -> int:
        """How many chunks a file has; an empty one has none."""
        return -(-file.size // self.chunk)

    def path(self, file: File, ending: str) -> Path:
        """Where an unfinished file, or its journal, lies."""
        return self.folder / f"{hashlib.sha256(file.path.encode()).hexdigest()[:24]}.{ending}"

    def begin(self, file: File) -> int:
        """Open a file: to be read again where it lies with the right size, else to go on; gives the bytes there."""
        place, file.final = self.root / file.path, False
        file.start_hash()
        if not file.wrong and in_place(place, file.size):
            file.handle, file.final = os.open(place, os.O_RDONLY), True
            file.done = set(range(self.count(file)))
        else:
            self.resume(file)
        return sum(self.length(file, index) for index in file.done)

    def resume(self, file: File) -> None:
        """Take over the chunks the journal names; it names a chunk only after the disk has it."""
        part, journal = self.path(file, "part"), self.path(file, "journal")
        every = set(range(self.count(file)))
        header = json.dumps([file.path, file.size, file.digest, self.chunk])
        lines = journal.read_text(errors="replace").splitlines(keepends=True) if journal.exists() else []
        file.done = set()
        file.handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        if lines[:1] == [header + "\n"] and os.fstat(file.handle).st_size == file.size:
            sure = itertools.takewhile(re.compile(r"\d{1,9}\n").fullmatch, lines[1:])
            file.done = {int(line) for line in sure} & every
        else:
            os.ftruncate(file.handle, 0)
            os.ftruncate(file.handle, file.size)
            os.fsync(file.handle)
        write(journal, "".join(f"{line}\n" for line in (header, *sorted(file.done))))
        file.journal = os.open(journal, os.O_WRONLY | os.O_APPEND)
        file.pending = deque(sorted(every - file.done))

    def write(self, file: File, data: memoryview, at: int) -> None:
        """All of it, or why the disk takes no more."""
        while data:
            try:
                written = os.pwrite(file.handle, data, at)
            except OSError as fault:
                raise disk(fault, self.root) from None
            data, at = data[written:], at + written

    def keep(self, file: File, index: int) -> None:
        """A whole chunk: to the disk first, and then into the journal."""
        os.fdatasync(file.handle)
        os.write(file.journal, b"%d\n" % index)
        os.fdatasync(file.journal)

    def end(self, file: File, *, right: bool) -> None:
        """Put a right file in its place, or throw a wrong one away."""
        os.close(file.handle)
        if file.journal >= 0:
            os.close(file.journal)
        file.journal, place, part = -1, self.root / file.path, self.path(file, "part")
        if right and not file.final:
            place.parent.mkdir(parents=True, exist_ok=True)
            os.chown(part, *self.owner)
            part.replace(place)
            sync_folder(place.parent)
        if not right:
            place.unlink(missing_ok=True)
        for old in (self.path(file, "journal"), part):
            old.unlink(missing_ok=True)
