"""Runs on the host (python3 >= 3.10): writes the files given as JSON on stdin, only those that differ."""

# Plain os calls start faster than pathlib, and a probe is part of every preview.
# ruff: noqa: PTH101, PTH103, PTH105, PTH108, PTH117, PTH118, PTH120, PTH123

import base64
import contextlib
import grp
import json
import os
import pwd
import stat
import sys

# Path, the text written beside it (None: only mode and owner differ), mode, user and group.
Work = tuple[str, str | None, int, tuple[int, int]]


def main() -> int:
    """Write all new texts beside their targets first, then rename: a full disk changes nothing."""
    ready: list[Work] = []
    try:
        for item in json.load(sys.stdin):
            found = plan(item)
            if found is not None:
                ready.append(found)
        for work in ready:
            apply(work)
    except (OSError, KeyError, ValueError) as error:
        for _, beside, _, _ in ready:
            with contextlib.suppress(OSError):
                os.unlink(beside or "")
        sys.stderr.write(f"{error}\n")
        return 1
    for folder in sorted({os.path.dirname(path) for path, *_ in ready}):
        sync(folder)
    json.dump([path for path, *_ in ready], sys.stdout)
    return 0


def apply(work: "Work") -> None:
    """Rename what was written beside; give the rest its mode and owner."""
    path, beside, mode, owner = work
    if beside is not None:
        os.replace(beside, path)
        return
    os.chown(path, *owner)
    os.chmod(path, mode)


def plan(item: dict[str, str]) -> "Work | None":
    """What one file needs: nothing, another mode or owner, or its text written beside it."""
    path, data = item["path"], base64.b64decode(item["data"])
    mode, owner = int(item["mode"], 8), ids(item["owner"])
    if not os.path.isabs(path):
        message = f"{path}: not an absolute path"
        raise ValueError(message)
    with contextlib.suppress(FileNotFoundError):
        found = os.lstat(path)
        if stat.S_ISREG(found.st_mode) and found.st_size == len(data) and read(path) == data:
            if (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (mode, *owner):
                return None
            return path, None, mode, owner
    folder, name = os.path.split(path)
    os.makedirs(folder, mode=0o755, exist_ok=True)
    beside = os.path.join(folder, f".{name}.new-{os.getpid()}")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchown(file.fileno(), *owner)
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        os.unlink(beside)
        raise
    return path, beside, mode, owner


def ids(owner: str) -> "tuple[int, int]":
    """Numbers of user:group; a name nobody has is a sentence."""
    user, _, group = owner.partition(":")
    try:
        found = int(user) if user.isdigit() else pwd.getpwnam(user).pw_uid
        return found, int(group) if group.isdigit() else grp.getgrnam(group or user).gr_gid
    except KeyError:
        message = f"{owner}: no such user or group on the machine; run the bootstrap first"
        raise ValueError(message) from None


def read(path: str) -> bytes:
    """The whole file."""
    with open(path, "rb") as file:
        return file.read()


def sync(folder: str) -> None:
    """Make the renames last."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


if __name__ == "__main__":
    sys.exit(main())
