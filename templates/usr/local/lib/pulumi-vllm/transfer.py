"""Bring files of a hub to the disk in parallel ranges, journalled chunk by chunk, hashed on the way."""

from __future__ import annotations

import errno
import hashlib
import http.client
import itertools
import json
import os
import random
import re
import ssl
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from common import Stop, printable, say, sync_folder, write
from hub import REFUSED, Again, Hub

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PIECE, LONGEST_PAUSE_S = 1 << 20, 30.0
IN_FLIGHT = 64 << 20  # per file: what a kill may cost, since unfinished chunks start again
FULL = 4  # exit code: the disk is full
TRIES = 3  # whole downloads of a file whose hash is wrong


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


class Transfer:
    """The files that still have to be made good, and the threads that do it."""

    def __init__(
        self, hub: Hub, root: Path, *, chunk: int, attempts: int, backoff_s: float, owner: tuple[int, int]
    ) -> None:
        self.hub, self.root, self.parts, self.chunk = hub, root, root / ".parts", chunk
        self.attempts, self.backoff_s, self.owner = attempts, backoff_s, owner
        self.changed, self.limit = threading.Condition(), max(1, IN_FLIGHT // chunk)
        self.open: list[File] = []
        self.failure: Stop | None = None
        self.here = self.received = 0

    def length(self, file: File, index: int) -> int:
        """Bytes of one chunk; the last is short."""
        return min(self.chunk, file.size - index * self.chunk)

    def count(self, file: File) -> int:
        """How many chunks a file has; an empty one has none."""
        return -(-file.size // self.chunk)

    def part(self, file: File, ending: str) -> Path:
        """Where an unfinished file, or its journal, lies."""
        return self.parts / f"{hashlib.sha256(file.path.encode()).hexdigest()[:24]}.{ending}"

    def begin(self, file: File) -> None:
        """Open a file: to be read again where it lies with the right size, else to be downloaded further."""
        place, file.final = self.root / file.path, False
        file.start_hash()
        if not file.wrong and in_place(place, file.size):
            file.handle, file.final = os.open(place, os.O_RDONLY), True
            file.done = set(range(self.count(file)))
        else:
            self.resume(file)
        self.here += sum(self.length(file, index) for index in file.done)

    def resume(self, file: File) -> None:
        """Take over the chunks the journal names; it names a chunk only after the disk has it."""
        part, journal = self.part(file, "part"), self.part(file, "journal")
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

    def run(self, parallel: int, report: Callable[[], None]) -> None:
        """Make every open file good, or raise the first failure."""
        workers = [threading.Thread(target=self.work, daemon=True) for _ in range(parallel)]
        for worker in workers:
            worker.start()
        with self.changed:
            while self.open and not self.failure:
                self.changed.wait(0.5)
                report()
        for worker in workers:
            worker.join(timeout=2)
        if self.failure:
            raise self.failure

    def work(self) -> None:
        """One thread: hash what is contiguous, fetch what is missing, until the end or a failure."""
        buffer = memoryview(bytearray(PIECE))
        try:
            while task := self.take():
                file, index = task
                if index is None:
                    self.hash(file, buffer)
                else:
                    self.fetch(file, index, buffer)
        except Stop as stop:
            self.fail(stop)
        except OSError as fault:
            self.fail(disk(fault, self.root))
        except Exception as fault:  # noqa: BLE001 - a thread that dies silently would leave the others waiting
            self.fail(Stop(f"{type(fault).__name__}: {printable(str(fault))}; this is a bug of this program"))

    def fail(self, stop: Stop) -> None:
        """Remember the first failure and wake everybody."""
        with self.changed:
            self.failure = self.failure or stop
            self.changed.notify_all()

    def take(self) -> tuple[File, int | None] | None:
        """A file to hash further, or a chunk to fetch; None at the end."""
        with self.changed:
            while self.open and not self.failure:
                for file in self.open:
                    if not file.hashing and (file.hashed in file.done or file.hashed == self.count(file)):
                        file.hashing = True
                        return file, None
                for file in self.open:
                    if file.pending and file.flying < self.limit:
                        file.flying += 1
                        return file, file.pending.popleft()
                self.changed.wait()
        return None

    def fetch(self, file: File, index: int, buffer: memoryview) -> None:
        """Bring one chunk to the disk and then into the journal, in as many tries as make progress."""
        at, faults = index * self.chunk, 0
        end = at + self.length(file, index)
        while at < end:
            before, why, wait = at, "connection closed early", 0.0
            try:
                response, file.url = self.answer(file, at, end)
                while at < end and (count := response.readinto(buffer[: end - at])):
                    self.store(file, buffer[:count], at)
                    at += count
                if not response.isclosed():  # a longer range than we asked for, or a cut one
                    self.hub.drop(file.url)
            except ssl.SSLCertVerificationError as fault:
                why = fault.verify_message
                raise Stop(f"{self.hub.endpoint}: {why}; check the clock and the endpoint") from None
            except Again as again:
                why, wait = str(again), again.wait_s
            except (OSError, http.client.HTTPException) as fault:
                why = printable(str(fault)) or type(fault).__name__
            if at < end:
                self.hub.drop(file.url or self.hub.address(file.path))
                file.url, faults = "", 1 if at > before else faults + 1
                self.pause(f"{file.path}: {why}", faults, wait)
        os.fdatasync(file.handle)
        os.write(file.journal, b"%d\n" % index)
        os.fdatasync(file.journal)
        with self.changed:
            file.flying -= 1
            file.done.add(index)
            self.changed.notify_all()

    def answer(self, file: File, at: int, end: int) -> tuple[http.client.HTTPResponse, str]:
        """Ask for a range, where the hub last redirected to; refuse an answer that doesn't begin there."""
        response, url = self.hub.get(file.url or self.hub.address(file.path), (at, end))
        length = response.getheader("Content-Length")
        span = response.getheader("Content-Range") or f"bytes 0-/{length}"
        if not (span.startswith(f"bytes {at}-") and span.endswith(f"/{file.size}")):
            asked = f"asked for bytes {at}-{end - 1} of {file.size}, got {printable(span)}"
            raise Stop(
                f"{file.path}: {asked}; the hub or a proxy breaks ranges, check weights.endpoint", REFUSED
            )
        return response, url

    def store(self, file: File, data: memoryview, at: int) -> None:
        """Write all of it and count it."""
        count = len(data)
        while data:
            try:
                written = os.pwrite(file.handle, data, at)
            except OSError as fault:
                raise disk(fault, self.root) from None
            data, at = data[written:], at + written
        with self.changed:
            self.received += count
            self.here += count
        if self.failure:
            raise self.failure

    def pause(self, why: str, faults: int, wait: float) -> None:
        """Wait before another try: longer each time, jittered, at least what the hub asked for."""
        if faults >= self.attempts:
            raise Stop(f"{why} ({faults} tries in a row without a byte); run it again when the hub answers")
        grown = min(LONGEST_PAUSE_S, self.backoff_s * 2 ** (faults - 1))
        wait += random.uniform(0.5, 1) * grown  # noqa: S311
        say(f"{why}; again in {wait:.1f} s")
        with self.changed:
            self.changed.wait_for(lambda: self.failure, timeout=wait)
        if self.failure:
            raise self.failure

    def hash(self, file: File, buffer: memoryview) -> None:
        """Hash the chunks after the last hashed one, from the page cache; after the last, finish the file."""
        while file.hashed in file.done and not self.failure:
            at = file.hashed * self.chunk
            end = at + self.length(file, file.hashed)
            while at < end and (count := os.preadv(file.handle, [buffer[: end - at]], at)):
                file.hasher.update(buffer[:count])
                at += count
            file.hashed += 1
        if file.hashed == self.count(file) and not self.failure:
            self.finish(file)
        with self.changed:
            file.hashing = False
            self.changed.notify_all()

    def finish(self, file: File) -> None:
        """Put a right file in its place; throw a wrong one away and fetch it, alone, again."""
        os.close(file.handle)
        if file.journal >= 0:
            os.close(file.journal)
        file.journal, place, right = -1, self.root / file.path, file.hasher.hexdigest() == file.digest
        if right and not file.final:
            place.parent.mkdir(parents=True, exist_ok=True)
            os.chown(self.part(file, "part"), *self.owner)
            self.part(file, "part").replace(place)
            sync_folder(place.parent)
        if right:
            with self.changed, (self.parts / "right").open("a") as log:
                log.write(json.dumps([file.path, file.digest, place.stat().st_ctime_ns]) + "\n")
                self.open.remove(file)
        for old in (self.part(file, "journal"), self.part(file, "part")):
            old.unlink(missing_ok=True)
        if right:
            return
        file.wrong += 1
        found = file.hasher.hexdigest()
        say(f"{file.path}: {file.kind} is {found}, not {file.digest}; fetching this file again")
        place.unlink(missing_ok=True)
        if file.wrong >= TRIES:
            raise Stop(
                f"{file.path}: {file.kind} wrong {TRIES} times; check disk, memory and the hub", REFUSED
            )
        with self.changed:
            self.here -= file.size
            self.begin(file)
