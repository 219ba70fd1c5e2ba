"""Convert the cloudInit object of the API into user data as the providers do: one script, with runcmd before files."""

from __future__ import annotations

import base64
import shlex
from typing import Any


def user_data(cloud_init: dict[str, Any]) -> dict[str, Any]:
    """Return the user data: /root/startup.sh with `set -e`, first the runcmd lines, then writeFiles, as observed live.

    A runcmd that needs one of the files therefore fails, and the files are never written.
    """
    lines = ["#!/bin/bash", "set -e"]
    packages = [str(name) for name in cloud_init.get("packages") or []]
    if packages:
        names = " ".join(shlex.quote(name) for name in packages)
        lines += ["export DEBIAN_FRONTEND=noninteractive", f"apt-get update && apt-get install -y {names}"]
    lines += [str(line) for line in cloud_init.get("runcmd") or []]
    for file in cloud_init.get("writeFiles") or []:
        lines += _write(file)
    script = base64.b64encode(("\n".join(lines) + "\n").encode()).decode()
    stub = f"echo {script} | base64 -d > /root/startup.sh && chmod 700 /root/startup.sh && /root/startup.sh"
    return {"runcmd": [["bash", "-c", stub]]}


def _write(file: dict[str, Any]) -> list[str]:
    path = shlex.quote(str(file["path"]))
    content = str(file.get("content", ""))
    encoding = str(file.get("encoding") or "")
    coded = content if encoding else base64.b64encode(content.encode()).decode()
    unpack = {"b64": "", "": "", "gz+b64": " | gunzip", "gzip": " | gunzip"}.get(encoding, "")
    return [
        f'install -d "$(dirname {path})"',
        f"echo {shlex.quote(coded)} | base64 -d{unpack} > {path}",
        f"chown {shlex.quote(str(file.get('owner') or 'root:root'))} {path}",
        f"chmod {shlex.quote(str(file.get('permissions') or '0644'))} {path}",
    ]
