"""Bring files of a hub to the disk in parallel ranges, each byte hashed from memory on its way."""

from __future__ import annotations

import http.client
import json
import mmap
import os
import random
import ssl
import threading
from typing import TYPE_CHECKING

from common import Stop, printable, say
from hub import REFUSED, Again, Hub
from parts import File, Parts, disk

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PIECE, LONGEST_PAUSE_S = (
    1 << 17,
    30.0,
)  # a piece fits the processor's cache: written and hashed while it is hot
IN_FLIGHT = 64 << 20  # per file: what a kill may cost, since unfinished chunks start again
SPARE = 8  # chunks that may wait in memory for their turn in the hash; more are read back from the disk
TRIES = 3  # whole downloads of a file whose hash is wrong


class Transfer:
    """The files that still have to be made good, and the threads that do it."""

    def __init__(
        self, hub: Hub, root: Path, *, chunk: int, attempts: int, backoff_s: float, owner: tuple[int, int]
    ) -> None:
        self.hub, self.parts, self.attempts, self.backoff_s = (
            hub,
            Parts(root, chunk, owner),
            attempts,
            backoff_s,
        )
        self.changed, self.limit = threading.Condition(), max(1, IN_FLIGHT // chunk)
        self.open: list[File] = []
        self.spare: list[memoryview] = []
        self.failure: Stop | None = None
        self.here = self.received = 0

    def begin(self, file: File) -> None:
        """Take a file up where it is."""
        self.here += self.parts.begin(file)
        self.open.append(file)

    def run(self, parallel: int, report: Callable[[], None]) -> None:
        """Make every open file good, or raise the first failure."""
        largest = min(self.parts.chunk, max((file.size for file in self.open), default=0))
        private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # takes memory only where it is written to
        fresh = (mmap.mmap(-1, max(largest, PIECE), flags=private) for _ in range(parallel + SPARE))
        self.spare = [memoryview(memory) for memory in fresh]
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
        try:
            while task := self.take():
                file, index, buffer = task
                if index is None:
                    self.hash(file, buffer)
                else:
                    self.fetch(file, index, buffer)
        except Stop as stop:
            self.fail(stop)
        except OSError as fault:
            self.fail(disk(fault, self.parts.root))
        except Exception as fault:  # noqa: BLE001 - a thread that dies silently would leave the others waiting
            self.fail(Stop(f"{type(fault).__name__}: {printable(str(fault))}; this is a bug of this program"))

    def fail(self, stop: Stop) -> None:
        """Remember the first failure and wake everybody."""
        with self.changed:
            self.failure = self.failure or stop
            self.changed.notify_all()

    def take(self) -> tuple[File, int | None, memoryview] | None:
        """A file to hash further, or a chunk to fetch, and memory for it; None at the end."""
        with self.changed:
            while self.open and not self.failure:
                for file in self.open if self.spare else ():
                    if not file.hashing and (
                        file.hashed in file.done or file.hashed == self.parts.count(file)
                    ):
                        file.hashing = True
                        return file, None, self.spare.pop()
                for file in self.open if self.spare else ():
                    if file.pending and file.flying < self.limit:
                        file.flying += 1
                        return file, file.pending.popleft(), self.spare.pop()
                self.changed.wait()
        return None

    def fetch(self, file: File, index: int, buffer: memoryview) -> None:
        """Bring one chunk to the disk and then into the journal, in as many tries as make progress."""
        start = at = index * self.parts.chunk
        end, faults, mine = at + self.parts.length(file, index), 0, False
        while at < end:
            before, why, wait = at, "connection closed early", 0.0
            try:
                response, file.url = self.answer(file, at, end)
                while at < end and (
                    count := response.readinto(buffer[at - start : min(at - start + PIECE, end - start)])
                ):
                    self.parts.write(file, buffer[at - start : at - start + count], at)
                    at += count
                    mine = self.arrived(file, index, count, buffer[: at - start], mine=mine)
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
        self.parts.keep(file, index)
        with self.changed:
            file.flying -= 1
            if mine:
                file.hashed, file.hashing = index + 1, False
            if mine or len(self.spare) < SPARE // 2:
                self.spare.append(buffer)
            else:
                file.held[index] = buffer
            file.done.add(index)  # last: who hashes looks here without the lock, and then for the memory
            self.changed.notify_all()

    def arrived(self, file: File, index: int, count: int, chunk: memoryview, *, mine: bool) -> bool:
        """Count a piece and hash it, once all chunks before this one are in the hash; whether that is so."""
        with self.changed:
            self.received += count
            self.here += count
            turn = not mine and file.hashed == index and not file.hashing
            file.hashing = file.hashing or turn
        if self.failure:
            raise self.failure
        if mine or turn:
            file.hasher.update(chunk if turn else chunk[-count:])
        return mine or turn

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

    def hash(self, file: File, scratch: memoryview) -> None:
        """Hash the chunks after the last hashed one, from memory or from the disk; after the last, end the file."""
        while file.hashed in file.done and not self.failure:
            at = file.hashed * self.parts.chunk
            end = at + self.parts.length(file, file.hashed)
            held = file.held.pop(file.hashed, None)
            if held is not None:
                file.hasher.update(held[: end - at])
                at = end
            while at < end and (count := os.preadv(file.handle, [scratch[: min(PIECE, end - at)]], at)):
                file.hasher.update(scratch[:count])
                at += count
            with self.changed:
                file.hashed += 1
                if held is not None:
                    self.spare.append(held)
        if file.hashed == self.parts.count(file) and not self.failure:
            self.finish(file)
        with self.changed:
            file.hashing = False
            self.spare.append(scratch)
            self.changed.notify_all()

    def finish(self, file: File) -> None:
        """Keep a right file; throw a wrong one away and fetch it, alone, again."""
        found = file.hasher.hexdigest()
        right = found == file.digest
        self.parts.end(file, right=right)
        if right:
            when = (self.parts.root / file.path).stat().st_ctime_ns
            with self.changed, (self.parts.folder / "right").open("a") as log:
                log.write(json.dumps([file.path, file.digest, when]) + "\n")
                self.open.remove(file)
            return
        file.wrong += 1
        say(f"{file.path}: {file.kind} is {found}, not {file.digest}; fetching this file again")
        if file.wrong >= TRIES:
            raise Stop(
                f"{file.path}: {file.kind} wrong {TRIES} times; check disk, memory and the hub", REFUSED
            )
        with self.changed:
            self.here += self.parts.begin(file) - file.size
