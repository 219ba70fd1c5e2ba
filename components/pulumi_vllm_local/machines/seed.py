"""The files of a guest before its first boot: cloud-init seed, network, and proxy and package settings."""

from __future__ import annotations

import configparser
import io
import json
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
COPIED = (
    *("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"),
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_DEFAULT_TIMEOUT", "PIP_NO_INDEX"),
    *(
        "UV_INDEX_URL",
        "UV_DEFAULT_INDEX",
        "UV_INDEX",
        "UV_EXTRA_INDEX_URL",
        "UV_INSECURE_HOST",
        "UV_HTTP_TIMEOUT",
    ),
)
APT_SETTINGS = re.compile(r"^(Acquire::(https?::|Check-Valid-Until|Check-Date|Retries).*)$", re.MULTILINE)


def user_data(user: str, public_key: str, extra: Mapping[str, Any] | None) -> dict[str, Any]:
    """Merge the user's cloud-config into ours: lists are joined, and the user's scalars win."""
    login: dict[str, Any] = {"name": user, "ssh_authorized_keys": [public_key]}
    if user != "root":
        login |= {
            "groups": "sudo",
            "shell": "/bin/bash",
            "sudo": "ALL=(ALL) NOPASSWD:ALL",
            "lock_passwd": True,
        }
    merged: dict[str, Any] = {"manage_etc_hosts": True, "preserve_hostname": False, "users": [login]}
    if user == "root":
        merged["disable_root"] = False
    for key, value in (extra or {}).items():
        if isinstance(value, list) and isinstance(merged.get(key), list):
            merged[key] = [*merged[key], *(item for item in value if item != "default")]
        else:
            merged[key] = value
    return merged


def network(address: str, address6: str, gateway: str, nameservers: tuple[str, ...]) -> dict[str, str]:
    """Return the files of the network. IPv6 has no default route, because nothing would answer.

    systemd-networkd reads the first one in every release. cloud-init writes such a file in some releases only.
    """
    return {
        "/etc/cloud/cloud.cfg.d/99-network.cfg": "network: { config: disabled }\n",
        "/etc/systemd/network/10-host0.network": (
            f"[Match]\nName=host0\n\n[Network]\nAddress={address}/24\nAddress={address6}/64\nGateway={gateway}\n"
            f"DNS={' '.join(nameservers)}\nDHCP=no\nIPv6AcceptRA=no\n"
        ),
    }


def nameservers(resolv_conf: str) -> tuple[str, ...]:
    """Return the resolvers that a guest can reach, which excludes those on loopback."""
    found = re.findall(r"^nameserver\s+(\S+)", resolv_conf, re.MULTILINE)
    return tuple(server for server in found if not server.startswith("127.") and server != "::1")


def host_nameservers() -> tuple[str, ...]:
    """Return the resolvers for the guests; those behind a local stub resolver if there is one."""
    for path in (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf")):
        if path.exists():
            found = nameservers(path.read_text(encoding="utf-8", errors="replace"))
            if found:
                return found
    return ("1.1.1.1",)


def environment(host: Mapping[str, str], gateway: str) -> dict[str, str]:
    """Return environment variables for the CA bundle, the proxy and the package index of this computer."""
    found = {name: host[name] for name in COPIED if host.get(name)}
    if any(name.lower().endswith("_proxy") for name in found):
        subnet = gateway.rsplit(".", 1)[0] + ".0/24"
        ours = f"localhost,127.0.0.1,::1,{gateway},{subnet}"
        others = host.get("no_proxy") or host.get("NO_PROXY") or ""
        found["no_proxy"] = found["NO_PROXY"] = f"{ours},{others}".rstrip(",")
    for name in ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        found[name] = BUNDLE
    return found


def write_files(root: Path, files: Mapping[str, str]) -> None:
    """Write files below a folder."""
    for name, text in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def host_files(host: Mapping[str, str], gateway: str) -> dict[str, str]:
    """Return the files with the proxy, apt, pip and uv settings of this computer."""
    variables = environment(host, gateway)
    plain = "".join(f'{name}="{value}"\n' for name, value in sorted(variables.items()))
    quoted = " ".join(f'"{name}={value}"'.replace("%", "%%") for name, value in sorted(variables.items()))
    files = {
        "/etc/environment": plain,
        "/etc/systemd/system.conf.d/50-host.conf": f"[Manager]\nDefaultEnvironment={quoted}\n",
    }
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False).stdout
    settings = [line for line in APT_SETTINGS.findall(dump) if not line[0].endswith('"";')]
    if settings:
        files["/etc/apt/apt.conf.d/90-host"] = "".join(f"{line[0]}\n" for line in settings)
    home = Path(host.get("HOME") or Path.home())
    config = Path(host.get("XDG_CONFIG_HOME") or home / ".config")
    pip = pip_configuration(
        [
            Path("/etc/pip.conf"),
            home / ".pip" / "pip.conf",
            config / "pip" / "pip.conf",
            Path(host.get("PIP_CONFIG_FILE", os.devnull)),
        ]
    )
    if pip:
        files["/etc/pip.conf"] = pip
    for path in (
        Path(host.get("UV_CONFIG_FILE", os.devnull)),
        config / "uv" / "uv.toml",
        Path("/etc/uv/uv.toml"),
    ):
        if path.is_file():
            files["/etc/uv/uv.toml"] = path.read_text(encoding="utf-8")
            break
    return files


def pip_configuration(paths: list[Path]) -> str:
    """Merge the index settings of pip configuration files; later files win, and settings with paths are left out."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.read([path for path in paths if path.is_file()], encoding="utf-8")
    merged = configparser.ConfigParser(interpolation=None)
    wanted = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "no-index")
    for section in parser.sections():
        settings = {key.replace("_", "-"): value for key, value in parser[section].items()}
        chosen = {key: value for key, value in settings.items() if key in wanted}
        if chosen:
            merged[section] = chosen
    text = io.StringIO()
    merged.write(text)
    return text.getvalue()


def nocloud(machine_id: str, hostname: str, data: Mapping[str, Any]) -> dict[str, str]:
    """Return the two files of the NoCloud seed."""
    folder = "/var/lib/cloud/seed/nocloud"
    return {
        f"{folder}/meta-data": json.dumps({"instance-id": machine_id, "local-hostname": hostname}),
        f"{folder}/user-data": "#cloud-config\n" + json.dumps(data, indent=1),
    }
