"""Download files from a hub in parallel ranges. Each byte is hashed while it is still in memory."""

from __future__ import annotations

import http.client
import json
import mmap
import os
import random
import ssl
import threading
from typing import TYPE_CHECKING

from hub import REFUSED, Hub, TryAgain
from partial_files import VERIFIED, File, PartialFiles, disk_failure
from reporting import Failure, log, printable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PIECE = 1 << 17  # fits the processor's cache, so that it is hashed right after it was written
LONGEST_PAUSE_S = 30.0
IN_FLIGHT = 64 << 20  # bytes per file that a kill may cost, since unfinished chunks start again
SPARE = 8  # chunks that may wait in memory to be hashed; further ones are read back from the disk
DOWNLOADS = 3  # attempts at a whole file whose hash is wrong


class Transfer:
    """Downloads and verifies files with several threads."""

    def __init__(
        self, hub: Hub, root: Path, *, chunk: int, attempts: int, backoff_s: float, owner: tuple[int, int]
    ) -> None:
        self.hub, self.partial = hub, PartialFiles(root, chunk, owner)
        self.attempts, self.backoff_s = attempts, backoff_s
        self.changed, self.limit = threading.Condition(), max(1, IN_FLIGHT // chunk)
        self.open: list[File] = []
        self.buffers: list[memoryview] = []
        self.failure: Failure | None = None
        self.present = self.received = 0

    def begin(self, file: File) -> None:
        """Add a file, with the chunks that are already on the disk."""
        self.present += self.partial.begin(file)
        self.open.append(file)

    def run(self, parallel: int, report: Callable[[], None]) -> None:
        """Complete every open file, or raise the first failure."""
        largest = min(self.partial.chunk, max((file.size for file in self.open), default=0))
        private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # uses memory only where it is written
        fresh = (mmap.mmap(-1, max(largest, PIECE), flags=private) for _ in range(parallel + SPARE))
        self.buffers = [memoryview(memory) for memory in fresh]
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
        """Thread: hash contiguous chunks and fetch missing ones, until all files are complete or one failed."""
        try:
            while task := self.next_task():
                file, index, buffer = task
                if index is None:
                    self.hash(file, buffer)
                else:
                    self.fetch(file, index, buffer)
        except Failure as failure:
            self.fail(failure)
        except OSError as error:
            self.fail(disk_failure(error, self.partial.root))
        except Exception as error:  # noqa: BLE001 - the other threads would wait for a thread that died silently
            self.fail(
                Failure(f"{type(error).__name__}: {printable(str(error))}; this is a bug in pulumi-vllm")
            )

    def fail(self, failure: Failure) -> None:
        """Keep the first failure and wake the other threads."""
        with self.changed:
            self.failure = self.failure or failure
            self.changed.notify_all()

    def next_task(self) -> tuple[File, int | None, memoryview] | None:
        """A file to hash further, or a chunk to fetch, with a buffer for it. None at the end."""
        with self.changed:
            while self.open and not self.failure:
                for file in self.open if self.buffers else ():
                    if not file.hashing and (
                        file.hashed in file.done or file.hashed == self.partial.count(file)
                    ):
                        file.hashing = True
                        return file, None, self.buffers.pop()
                for file in self.open if self.buffers else ():
                    if file.pending and file.in_flight < self.limit:
                        file.in_flight += 1
                        return file, file.pending.popleft(), self.buffers.pop()
                self.changed.wait()
        return None

    def fetch(self, file: File, index: int, buffer: memoryview) -> None:
        """Download one chunk and list it in the journal. Retries as long as tries make progress."""
        start = at = index * self.partial.chunk
        end, failures, hashing = at + self.partial.length(file, index), 0, False
        while at < end:
            before, reason, wait, remedy = (
                at,
                "connection closed early",
                0.0,
                "run it again when the hub answers",
            )
            try:
                response, file.url = self.request_range(file, at, end)
                while at < end and (
                    count := response.readinto(buffer[at - start : min(at - start + PIECE, end - start)])
                ):
                    self.partial.write(file, buffer[at - start : at - start + count], at)
                    at += count
                    hashing = self.count_and_hash(file, index, count, buffer[: at - start], hashing=hashing)
                if not response.isclosed():  # the range was longer than requested, or cut
                    self.hub.drop_connection(file.url)
            except ssl.SSLCertVerificationError as error:
                reason = error.verify_message
                raise Failure(f"{self.hub.endpoint}: {reason}; check the clock and the endpoint") from None
            except TryAgain as again:
                reason, wait = str(again), again.wait_s
                remedy = again.remedy if again.wait_s else remedy
            except (OSError, http.client.HTTPException) as error:
                reason = printable(str(error)) or type(error).__name__
            if at < end:
                self.hub.drop_connection(file.url or self.hub.file_url(file.path))
                file.url, failures = "", 1 if at > before else failures + 1
                self.pause(f"{file.path}: {reason}", failures, wait, remedy)
        self.partial.record_chunk(file, index)
        with self.changed:
            file.in_flight -= 1
            if hashing:
                file.hashed, file.hashing = index + 1, False
            if hashing or len(self.buffers) < SPARE // 2:
                self.buffers.append(buffer)
            else:
                file.held[index] = buffer
            file.done.add(index)  # last: hash() reads this without the lock, and then looks for the buffer
            self.changed.notify_all()

    def count_and_hash(self, file: File, index: int, count: int, chunk: memoryview, *, hashing: bool) -> bool:
        """Count a received piece, and hash it once all earlier chunks are hashed. Returns whether it is hashed."""
        with self.changed:
            self.received += count
            self.present += count
            starts = not hashing and file.hashed == index and not file.hashing
            file.hashing = file.hashing or starts
        if self.failure:
            raise self.failure
        if hashing or starts:
            file.hasher.update(chunk if starts else chunk[-count:])
        return hashing or starts

    def request_range(self, file: File, at: int, end: int) -> tuple[http.client.HTTPResponse, str]:
        """Request a range from the URL of the last redirect. Refuses an answer that is not this range."""
        response, url = self.hub.get(file.url or self.hub.file_url(file.path), (at, end))
        length = response.getheader("Content-Length")
        span = response.getheader("Content-Range") or f"bytes 0-/{length}"
        if not (span.startswith(f"bytes {at}-") and span.endswith(f"/{file.size}")):
            answered = f"requested bytes {at}-{end - 1} of {file.size}, got {printable(span)}"
            remedy = "the hub or a proxy does not support ranges; check weights.endpoint"
            raise Failure(f"{file.path}: {answered}: {remedy}", REFUSED)
        return response, url

    def pause(self, reason: str, failures: int, wait: float, remedy: str) -> None:
        """Wait before another try: longer each time, with jitter, and at least as long as the hub asked for."""
        if failures >= self.attempts:
            message = f"{reason} ({failures} tries in a row without a byte)"
            raise Failure(f"{message}; {remedy}")
        backoff = min(LONGEST_PAUSE_S, self.backoff_s * 2 ** (failures - 1))
        wait += random.uniform(0.5, 1) * backoff  # noqa: S311
        log(f"{reason}; retrying in {wait:.1f} s")
        with self.changed:
            self.changed.wait_for(lambda: self.failure, timeout=wait)
        if self.failure:
            raise self.failure

    def hash(self, file: File, scratch: memoryview) -> None:
        """Hash the chunks after the last hashed one, from memory or disk. After the last chunk, finish the file."""
        while file.hashed in file.done and not self.failure:
            at = file.hashed * self.partial.chunk
            end = at + self.partial.length(file, file.hashed)
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
                    self.buffers.append(held)
        if file.hashed == self.partial.count(file) and not self.failure:
            self.finish(file)
        with self.changed:
            file.hashing = False
            self.buffers.append(scratch)
            self.changed.notify_all()

    def finish(self, file: File) -> None:
        """Keep a file whose hash is right. Delete any other and download that file again."""
        found = file.hasher.hexdigest()
        verified = found == file.digest
        self.partial.close(file, verified=verified)
        if verified:
            changed_ns = (self.partial.root / file.path).stat().st_ctime_ns
            with self.changed, (self.partial.directory / VERIFIED).open("a") as out:
                out.write(json.dumps([file.path, file.digest, changed_ns]) + "\n")
                self.open.remove(file)
            return
        file.mismatches += 1
        log(f"{file.path}: {file.kind} is {found}, not {file.digest}; downloading this file again")
        if file.mismatches >= DOWNLOADS:
            message = f"{file.path}: {file.kind} wrong {DOWNLOADS} times"
            raise Failure(f"{message}; check disk, memory and the hub", REFUSED)
        with self.changed:
            self.present += self.partial.begin(file) - file.size
