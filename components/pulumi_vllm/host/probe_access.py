"""Part of the probe: who can log in to the host and become root there. Comments and commands are masked."""

# os starts faster than pathlib, and every preview runs a probe.
# ruff: noqa: PTH118, PTH208

import base64
import binascii
import grp
import hashlib
import os
import pwd
import re

from pulumi_vllm.host.mask import mask
from pulumi_vllm.host.probe_reading import text

SUDOERS, SUDOERS_DIRECTORY = "/etc/sudoers", "/etc/sudoers.d"
SSHD, SSHD_DIRECTORY = "/etc/ssh/sshd_config", "/etc/ssh/sshd_config.d"
# The options of sshd that decide who gets in, and with what.
SSHD_OPTIONS = (
    *("port", "listenaddress", "permitrootlogin", "pubkeyauthentication", "passwordauthentication"),
    *(
        "kbdinteractiveauthentication",
        "permitemptypasswords",
        "hostbasedauthentication",
        "gssapiauthentication",
    ),
    *("authorizedkeysfile", "authorizedkeyscommand", "authorizedprincipalsfile", "trustedusercakeys"),
    *("allowusers", "allowgroups", "denyusers", "denygroups", "permituserenvironment", "forcecommand"),
)
ADMINISTRATORS = ("sudo", "admin", "wheel", "docker", "lxd")
LONGEST_TEXT = 200


def access(login: str, sshd: str) -> dict[str, str]:
    """Return what decides about access, by subject. `sshd` is the output of `sshd -T`, `login` the managed user."""
    options = sshd_options(sshd)
    files = options.get("authorizedkeysfile", ".ssh/authorized_keys")
    return {
        **{f"sudoers file {path}": rules(text(path)) for path in sudoers_files()},
        **{f"sshd option {name}": value for name, value in options.items()},
        **{f"sshd block {number}": block for number, block in enumerate(match_blocks(), 1)},
        **accounts(),
        **{key: value for user in sorted({login, "root"}) for key, value in keys(user, files).items()},
    }


def sudoers_files() -> list[str]:
    """Return the files that sudo reads: in its directory, it leaves out names with a dot or a tilde at the end."""
    try:
        names = [
            name for name in sorted(os.listdir(SUDOERS_DIRECTORY)) if "." not in name and name[-1] != "~"
        ]
    except OSError:
        names = []
    return [SUDOERS, *(os.path.join(SUDOERS_DIRECTORY, name) for name in names)]


def rules(sudoers: str) -> str:
    """Return the rules of a sudoers file in one line."""
    return shortened([line for line in lines_of(sudoers) if line.startswith("#include") or line[0] != "#"])


def sshd_options(shown: str) -> dict[str, str]:
    """Return the effective options by name. An option may appear several times."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+) (.*)$", shown, re.MULTILINE):
        if name in SSHD_OPTIONS:
            found.setdefault(name, []).append(value)
    return {name: ", ".join(sorted(values)) for name, values in found.items()}


def match_blocks() -> list[str]:
    """Return the blocks of sshd's configuration for some users or addresses, which `sshd -T` leaves out."""
    try:
        names = sorted(name for name in os.listdir(SSHD_DIRECTORY) if name.endswith(".conf"))
    except OSError:
        names = []
    blocks: list[list[str]] = []
    for path in (SSHD, *(os.path.join(SSHD_DIRECTORY, name) for name in names)):
        inside = False
        for line in lines_of(text(path)):
            if line[0] == "#":
                continue
            if line.lower().startswith("match"):
                blocks.append([])
                inside = True
            if inside:
                blocks[-1].append(line)
    return [shortened(block) for block in blocks]


def accounts() -> dict[str, str]:
    """Return the accounts that can log in, and the members of groups whose members can become root."""
    users = [user for user in pwd.getpwall() if user.pw_uid == 0 or may_log_in(user.pw_shell)]
    found = {f"account {user.pw_name}": f"uid {user.pw_uid}, shell {user.pw_shell}" for user in users}
    for group in grp.getgrall():
        if group.gr_name in ADMINISTRATORS and group.gr_mem:
            found[f"group {group.gr_name}"] = ", ".join(sorted(group.gr_mem))
    return found


def may_log_in(shell: str) -> bool:
    """Whether an account with this shell gets further than its login."""
    return not shell.endswith(("/nologin", "/false", "/sync"))


def keys(user: str, files: str) -> dict[str, str]:
    """Return the SSH keys that a user logs in with, by fingerprint: options, kind and comment."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return {}
    found = {}
    for pattern in files.split():
        path = pattern.replace("%h", entry.pw_dir).replace("%u", user).replace("%%", "%")
        for line in lines_of(text(os.path.join(entry.pw_dir, path))):
            match = re.match(r'((?:[^\s"]|"(?:\\.|[^"])*")+ +)?((?:ssh|ecdsa|sk)-\S+) +(\S+)(.*)$', line)
            if line[0] != "#" and match:
                options = re.sub(r'"((?:\\.|[^"])*)"', option_digest, match[1] or "")
                found[f"SSH key {fingerprint(match[3])} of {user}"] = shortened(
                    [f"{options}{match[2]}{match[4]}"]
                )
    return found


def option_digest(value: "re.Match[str]") -> str:
    """Stand for the value of a key's option, which may be a whole command with its secrets."""
    return f"(sha256 {hashlib.sha256(value[1].encode()).hexdigest()[:12]})"


def fingerprint(blob: str) -> str:
    """Return the fingerprint of a public key, as ssh-keygen prints it."""
    try:
        found = hashlib.sha256(base64.b64decode(blob)).digest()
    except binascii.Error:
        return "that can't be read"
    return f"SHA256:{base64.b64encode(found).decode().rstrip('=')}"


def lines_of(content: str) -> list[str]:
    """Return the lines that are not blank, without blanks around them."""
    return [line.strip() for line in content.splitlines() if line.strip()]


def shortened(lines: list[str]) -> str:
    """Return lines as one, masked. A digest stands for what is too long to be shown."""
    whole = "; ".join(lines)
    shown = mask(whole)
    if len(shown) <= LONGEST_TEXT:
        return shown
    return f"{shown[:LONGEST_TEXT]} … (sha256 {hashlib.sha256(whole.encode()).hexdigest()[:12]})"
