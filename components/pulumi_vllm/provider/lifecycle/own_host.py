"""A host that somebody else made: whether it can be used without breaking what is there already.

The first look writes nothing. `problems` is pure.
"""

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pulumi_vllm.plan.own_machine import Store
from pulumi_vllm.provider.lifecycle import own_firewalls
from pulumi_vllm.render import layout

if TYPE_CHECKING:
    from pulumi_vllm.host.ssh import Host

OWNER_FILE: Final = f"{layout.STATE}/owner"
"""Names the server that uses the host, so that no other one takes it over."""

_KNOWN: Final = ("debian 12", "debian 13", "ubuntu 22.04", "ubuntu 24.04")
_USE: Final = "use Debian 12 or 13, Ubuntu 22.04 or 24.04"
_PORTS: Final = {
    layout.GATEWAY_PORT: "the gateway",
    layout.ENGINE_PORT: "vLLM",
    layout.METRICS_PORT: "the gateway's metrics",
}
_OUR_GATEWAY: Final = "HAProxy gateway for vLLM"
_UNITS: Final = (*layout.UNITS, layout.ENGINE_TEMPLATE)
_PROCESSOR: Final = "x86_64"
"""What the locks of the engines are made for."""
_NO_CONTENT: Final = "-blank-"
_NOT_KEPT: Final = ("tmpfs", "ramfs")


@dataclass(frozen=True, slots=True)
class Seen:
    """What the first look at a host found, by name. A value that was not found is empty."""

    values: dict[str, str]

    def __getitem__(self, name: str) -> str:
        return self.values.get(name, "")

    @property
    def blank_device(self) -> bool:
        """Whether the device that is to keep weights and caches has no content at all."""
        return self["device_content"] == _NO_CONTENT


async def look(host: "Host", store: Store) -> Seen:
    """Look at a host. Nothing is written, and no program is needed that a bare Debian does not have."""
    script = _LOOK.format(path=shlex.quote(store.path or ""), device=shlex.quote(store.device or ""))
    result = await host.run(script + own_firewalls.LOOK)
    lines = (line.partition("=") for line in result.stdout.splitlines())
    return Seen({name: value.strip() for name, _, value in lines})


def warnings(seen: Seen) -> Iterator[str]:
    """What may work, and was never tried."""
    if seen["apt"] and seen["os"] not in _KNOWN:
        yield f"the host runs {seen['os_name'] or 'an unknown system'}, on which nothing was tried; better {_USE}"


def problems(seen: Seen, owner: str, store: Store) -> tuple[str, ...]:
    """Every reason why the host can't be used as it is, each with its remedy."""
    return (
        *_system(seen),
        *_others(seen, owner),
        *_gateway(seen),
        *own_firewalls.problems(seen.values),
        *_store(seen, owner, store),
    )


def _system(seen: Seen) -> Iterator[str]:
    name = seen["os_name"] or "an unknown system"
    missing = [program for program in ("apt", "systemd") if not seen[program]]
    if missing:
        yield f"it runs {name} without {' and '.join(missing)}; {_USE}"
    elif not seen["python"]:
        yield "it has no /usr/bin/python3; run `apt-get install python3` on it"
    elif _numbers(seen["python"]) < _numbers(layout.OLDEST_PYTHON):
        oldest = f"{layout.OLDEST_PYTHON} is the oldest that works"
        yield f"it runs {name} with Python {seen['python']}, and {oldest}; {_USE}"
    if seen["processor"] != _PROCESSOR:
        yield f"its processor is {seen['processor']}, for which no engine is locked; use a machine with {_PROCESSOR}"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _others(seen: Seen, owner: str) -> Iterator[str]:
    """What another server, or another person, has on the host under our names."""
    if seen["owner"] and seen["owner"] != owner:
        yield (
            f"it serves for {seen['owner']}; destroy that server, or remove {OWNER_FILE} on the host if it exists no "
            "more"
        )
    elif _serves_rented(seen):
        yield "it was rented by another stack and serves for it; name another machine, or destroy that stack"
    elif not seen["owner"] and seen["foreign"]:
        yield f"{seen['foreign']} exists on it and would be overwritten; move it away"
    if seen["user"] and seen["user"] != layout.ENGINE_HOME:
        yield f"its user vllm has the home {seen['user']}, so it is not ours; remove or rename that user"


def _serves_rented(seen: Seen) -> bool:
    """Whether our gateway is on it, which writes `OWNER_FILE` only on a machine that nobody of ours rented."""
    return not seen["owner"] and _haproxy(seen)[2].startswith(_OUR_GATEWAY)


def _haproxy(seen: Seen) -> tuple[str, str, str]:
    """State of HAProxy's unit, whether it is enabled, and its description; "" for what the host did not say."""
    state, enabled, description = (*seen["haproxy"].split("|"), "", "", "")[:3]
    return state, enabled, description


def _gateway(seen: Seen) -> Iterator[str]:
    state, enabled, description = _haproxy(seen)
    ours = description.startswith(_OUR_GATEWAY)
    if not ours and (state in {"active", "activating", "reloading"} or enabled.startswith("enabled")):
        yield (
            f"it has an HAProxy of its own ({layout.GATEWAY_UNIT} is {state}, {enabled}), which the gateway would "
            f"replace; move it to another machine, or run `systemctl disable --now {layout.GATEWAY_UNIT}`"
        )
    if not ours:
        taken = {int(port, 16) for port in seen["listening"].split()}
        for port, purpose in _PORTS.items():
            if port in taken:
                yield f"something listens on port {port}, which {purpose} needs; `ss -ltnp` names it, so stop it"


def _store(seen: Seen, owner: str, store: Store) -> Iterator[str]:
    others = seen["owner"] not in {"", owner} or _serves_rented(seen)  # said already; what is in it is theirs
    if not others and (seen["models"] == "foreign" or (seen["models"] == "mounted" and not seen["owner"])):
        yield f"{layout.MODELS} is in use there, where the model store is mounted; move what is in it"
    if store.path and seen["path"] not in {"", "directory"}:
        yield f"server.storage.path: {store.path} is a {seen['path']} on the host; name a directory"
    if store.path and seen["path_type"] in _NOT_KEPT:
        yield f"server.storage.path: {store.path} is in memory ({seen['path_type']}); name a directory on a disk"
    if store.device:
        yield from _device(seen, store.device)


def _device(seen: Seen, device: str) -> Iterator[str]:
    where, content = f"server.storage.device: {device}", seen["device_content"]
    if seen["device"] != "block":
        yield f"{where} is no block device of the host; `lsblk` lists them"
        return
    elsewhere = [one for one in seen["device_mounts"].split() if one != layout.MODELS]
    if elsewhere:
        yield f"{where} is mounted on {elsewhere[0]}; write {{path: {elsewhere[0]}/llm}} instead, or unmount it"
    elif seen["device_parts"]:
        yield f"{where} has partitions or belongs to a volume group ({seen['device_parts']}); name one of them"
    elif content != _NO_CONTENT and content not in {"ext4", "xfs"}:
        kind = content or "content of an unknown kind"
        yield f"{where} holds {kind}, and is neither blank nor ext4 or xfs; nothing was formatted. `wipefs` clears it"


def owner_text(project: str, stack: str, name: str) -> str:
    """The content of `OWNER_FILE`: one line that names a server."""
    return json.dumps(f"{project}/{stack}/{name}")[1:-1].replace("'", "")


_LOOK = rf"""
export LC_ALL=C
say() {{{{ printf '%s=%s\n' "$1" "$2"; }}}}
has() {{{{ command -v "$1" >/dev/null 2>&1; }}}}
say os "$(. /etc/os-release; echo "$ID ${{{{VERSION_ID:-}}}}")"
say os_name "$(. /etc/os-release; echo "$PRETTY_NAME")"
say apt "$(has apt-get && echo yes || true)"
say python "$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true)"
say processor "$(uname -m)"
say systemd "$(test -d /run/systemd/system && echo yes || true)"
say owner "$(cat {OWNER_FILE} 2>/dev/null || true)"
say user "$(getent passwd vllm | cut -d: -f6 || true)"
for path in {layout.CONFIG} {layout.PROGRAMS} {" ".join(map(layout.unit_file, _UNITS))}; do
  [ -L "$path" ] || ! [ -e "$path" ] || say foreign "$path"
done
[ -e {layout.ENGINE_STAMP} ] || [ -z "$(ls -A {layout.VENV} 2>/dev/null)" ] || say foreign {layout.VENV}
say haproxy "$(systemctl show -P ActiveState {layout.GATEWAY_UNIT})|$(systemctl show -P UnitFileState \
  {layout.GATEWAY_UNIT})|$(systemctl show -P Description {layout.GATEWAY_UNIT})"
say listening "$(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null \
  | awk '$4 == "0A" {{{{ sub(/.*:/, "", $2); print $2 }}}}' | sort -u | tr '\n' ' ')"
if mountpoint -q {layout.MODELS}; then
  say models mounted
elif [ -n "$(ls -A {layout.MODELS} 2>/dev/null)" ]; then
  say models foreign
fi
path={{path}} device={{device}}
if [ -n "$path" ] && [ -e "$path" ]; then
  say path "$(stat -L -c %F "$path")"
fi
if [ -n "$path" ]; then
  at=$path
  while ! [ -e "$at" ]; do at=$(dirname "$at"); done
  say path_type "$(stat -f -c %T "$at")"
fi
if [ -n "$device" ] && [ -b "$device" ]; then
  say device block
  say device_mounts "$(lsblk -nro MOUNTPOINT "$device" | tr '\n' ' ')"
  say device_parts "$(lsblk -nro NAME "$device" | tail -n +2 | tr '\n' ' ')"
  code=0
  blkid -p "$device" >/dev/null 2>&1 || code=$?
  if [ "$code" = 2 ]; then
    say device_content {_NO_CONTENT}
  else
    say device_content "$(blkid -p -s TYPE -o value "$device" || true)"
  fi
fi
"""
