"""Program for the host (python3 >= 3.10, root): write the files given as JSON on stdin that differ.

It prints the paths of the files that it changed as a JSON list.
"""

# os starts faster than pathlib.
# ruff: noqa: PTH101, PTH103, PTH105, PTH108, PTH117, PTH118, PTH120, PTH123

import base64
import contextlib
import grp
import json
import os
import pwd
import stat
import sys

# Path, temporary file with the new text (None where only mode or owner differ), mode, user and group.
Change = tuple[str, str | None, int, tuple[int, int]]


def main() -> int:
    """Write all new texts to temporary files first, then rename them: a full disk changes nothing."""
    changes: list[Change] = []
    try:
        for item in json.load(sys.stdin):
            change = plan(item)
            if change is not None:
                changes.append(change)
        for change in changes:
            apply(change)
    except (OSError, KeyError, ValueError) as error:
        for _, temporary, _, _ in changes:
            with contextlib.suppress(OSError):
                os.unlink(temporary or "")
        sys.stderr.write(f"{error}\n")
        return 1
    for folder in sorted({os.path.dirname(path) for path, *_ in changes}):
        sync(folder)
    json.dump([path for path, *_ in changes], sys.stdout)
    return 0


def apply(change: "Change") -> None:
    """Move the temporary file to its path. Without one, only set mode and owner."""
    path, temporary, mode, owner = change
    if temporary is not None:
        os.replace(temporary, path)
        return
    os.chown(path, *owner)
    os.chmod(path, mode)


def plan(item: dict[str, str]) -> "Change | None":
    """Return what one file needs: nothing, another mode or owner, or a new text in a temporary file."""
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
    temporary = os.path.join(folder, f".{name}.new-{os.getpid()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchown(file.fileno(), *owner)
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        os.unlink(temporary)
        raise
    return path, temporary, mode, owner


def ids(owner: str) -> "tuple[int, int]":
    """Return the numbers of user:group."""
    user, _, group = owner.partition(":")
    try:
        found = int(user) if user.isdigit() else pwd.getpwnam(user).pw_uid
        return found, int(group) if group.isdigit() else grp.getgrnam(group or user).gr_gid
    except KeyError:
        message = f"{owner}: no such user or group on the host; run the bootstrap first"
        raise ValueError(message) from None


def read(path: str) -> bytes:
    """Return the content of a file."""
    with open(path, "rb") as file:
        return file.read()


def sync(folder: str) -> None:
    """Write the renames in a directory to the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


if __name__ == "__main__":
    sys.exit(main())
