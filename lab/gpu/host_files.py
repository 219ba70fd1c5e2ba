"""Here: the host of a stack as files, for a GPU machine that has neither network nor volume nor weights.

usage: host_files.py FOLDER stacks/Pulumi.NAME.yaml [gpu=H100 precision=nvfp4 ...]   (keys as for launch.py)

FOLDER/root holds every file that is rendered, with keys and a certificate made for this one run. FOLDER/key holds the
first key, and FOLDER/keys.json all of them by name. What has to differ is
in `DIFFERENCES` and `SUBSTITUTES`, nowhere else. FOLDER/packages.tar.xz holds systemd, HAProxy and what they need.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

import launch
from pulumi_vllm.plan import plan
from pulumi_vllm.plan.access_config import READINESS_KEY
from pulumi_vllm.plan.config import Deployment
from pulumi_vllm.render import render

PACKAGES = (
    "systemd", "libsystemd-shared", "libsystemd0", "libcryptsetup12", "libdevmapper1.02.1", "libjson-c5",
    "libargon2-1", "libfdisk1", "libkmod2", "libp11-kit0", "libffi8", "libseccomp2", "libip4tc2", "libgcrypt20",
    "libgpg-error0", "liblz4-1", "libapparmor1", "libaudit1", "libcap-ng0", "libacl1", "libblkid1", "libmount1",
    "haproxy", "liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1", "libpcre2-8-0", "libssl3", "libcrypt1",
)  # fmt: skip
"""Of this machine's own release. What the GPU machine has already is left as it is (host.sh)."""

DIFFERENCES = {
    # No weights: every tensor has its real shape and random values, and nothing is hashed before a start.
    "/etc/systemd/system/vllm.service": {
        "--load-format mistral": "--load-format random",
        "ExecStartPre=+/usr/local/lib/pulumi-vllm/weights\n": "",
        "EnvironmentFile=/etc/pulumi-vllm/vllm.env\n": "EnvironmentFile=/etc/pulumi-vllm/vllm.env\n"
        "EnvironmentFile=/etc/pulumi-vllm/gpu-machine.env\n",
    },
    "/etc/systemd/system/vllm@.service": {
        "--load-format mistral": "--load-format random",
        "ExecStartPre=+/usr/bin/flock /run/pulumi-vllm-start.lock /usr/local/lib/pulumi-vllm/weights\n": "",
        "EnvironmentFile=/etc/pulumi-vllm/vllm-%i.env\n": "EnvironmentFile=/etc/pulumi-vllm/vllm-%i.env\n"
        "EnvironmentFile=/etc/pulumi-vllm/gpu-machine.env\n",
    },
}
PREFLIGHT = {"min_disk_bytes": 2**30, "mount": False, "endpoint": None, "engine_bytes": 0}
"""Weights and engine need no disk, /models is a folder, and no hub can be asked for the time."""

SUBSTITUTES = {
    "models.mount": "[Mount]\nWhat=/opt/models\nWhere=/models\nType=none\nOptions=bind\n",
    "vllm-install.service": "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n",
    "vllm-weights.service": "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n",
}
"""The engine is already in /opt/site, there are no weights, and /models is a folder."""


def certificate() -> tuple[str, str]:
    """A CA, and a leaf for loopback with its key, both PEM."""
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        for words in (
            ["req", "-x509", *new, "-days", "2", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem"],
            ["req", "-new", *new, "-subj", "/CN=gateway", "-keyout", "leaf.key", "-out", "leaf.csr"],
            ["x509", "-req", "-in", "leaf.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2", "-set_serial",
             "2", "-extfile", "names", "-out", "leaf.pem"],
        ):  # fmt: skip
            subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=place)
        return (place / "ca.pem").read_text(), (place / "leaf.pem").read_text() + (
            place / "leaf.key"
        ).read_text()


def changed(path: str, text: str) -> str:
    """Replace what must differ on this machine. A text that is no longer in the file is an error."""
    for before, after in DIFFERENCES.get(path, {}).items():
        if before not in text:
            raise SystemExit(f"{path}: no longer contains {before!r}; update DIFFERENCES")
        text = text.replace(before, after)
    if path.endswith("/preflight.json"):
        text = json.dumps(json.loads(text) | PREFLIGHT)
    if path.endswith("/readiness.json"):
        text = json.dumps(json.loads(text) | {"answers": []})  # random weights know no answer
    return text


def write(folder: Path, server: dict[str, object]) -> None:
    """All files below `folder`, and the key beside them."""
    ca, leaf = certificate()
    deployment = Deployment.parse(server)
    keys = {name: secrets.token_urlsafe(24) for name in deployment.access.key_names}
    readiness = secrets.token_urlsafe(24)
    names = {READINESS_KEY: readiness, **keys}
    values = {
        "tls_pem": leaf,
        "keys_map": "".join(f"{hashlib.sha256(key.encode()).hexdigest()} {name}\n" for name, key in names.items()),
        "readiness_token": readiness,
        "hf_token": "",
        "notify_url": "",
        "ca_certificate": ca,
    }  # fmt: skip
    for file in render(plan(deployment)):
        text = re.sub(
            r"@@(?:secret|value):([a-z0-9_]+)@@",
            lambda found: values[found[1]],
            changed(file.path, file.text),
        )
        path = folder / "root" / file.path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(int(file.mode, 8))
    for name, text in SUBSTITUTES.items():
        (folder / "root/etc/systemd/system" / name).write_text(text)
    (folder / "key").write_text(next(iter(keys.values())))
    (folder / "keys.json").write_text(json.dumps(keys))


def packages(target: Path) -> None:
    """Download and unpack the packages, and pack them as one."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["apt-get", "download", "-q", *PACKAGES], check=True, cwd=folder, stdout=subprocess.DEVNULL
        )
        for package in Path(folder).glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, f"{folder}/tree"], check=True)
        subprocess.run(["tar", "cJf", target, "-C", f"{folder}/tree", "--exclude=./usr/share/doc",
                        "--exclude=./usr/share/man", "--exclude=./usr/share/locale", "."], check=True)  # fmt: skip


def main() -> None:
    """Write one host."""
    folder, path, *changes = sys.argv[1:]
    place = Path(folder)
    write(place, launch.block(Path(path), changes))
    packages(place / "packages.tar.xz")


if __name__ == "__main__":
    main()
