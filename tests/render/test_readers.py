"""The rendered files, read by the programs that will read them, and by tables of what old versions know."""

import configparser
import os
import re
import shutil
import stat
import subprocess
import sys

import pytest

import stacks

# directive → first systemd that knows it (man pages of each release); the oldest host has 249
OLDEST_SYSTEMD = 249
SINCE = {
    "Unit": {
        **dict.fromkeys(["Description", "Wants", "Requires", "After", "Before", "Conflicts"], 0),
        "AssertPathExists": 218,
        "RequiresMountsFor": 201, "DefaultDependencies": 0, "StartLimitIntervalSec": 230, "StartLimitBurst": 229,
    },
    "Service": {
        **dict.fromkeys(["Type", "User", "Group", "EnvironmentFile", "WorkingDirectory", "ExecStart", "UMask"], 0),
        **dict.fromkeys(["ExecStartPre", "ExecStartPost", "ExecReload", "ExecStop", "Restart"], 0),
        **dict.fromkeys(["RestartSec", "KillMode", "KillSignal", "RemainAfterExit"], 0),
        **dict.fromkeys(["LimitNOFILE", "LimitMEMLOCK", "LimitCORE"], 0),
        "TimeoutStartSec": 188, "TimeoutStopSec": 188, "SuccessExitStatus": 189, "NoNewPrivileges": 187,
        "PrivateTmp": 0, "ProtectSystem": 214, "ProtectHome": 214, "RuntimeDirectory": 211,
        "RuntimeDirectoryMode": 211, "RuntimeDirectoryPreserve": 235, "StateDirectory": 235,
        "RestartPreventExitStatus": 189,
        "RestrictSUIDSGID": 242, "LockPersonality": 235, "CapabilityBoundingSet": 0, "AmbientCapabilities": 229,
        "ReadWritePaths": 231, "PrivateDevices": 209, "ProtectProc": 247, "ProtectClock": 245, "RemoveIPC": 232,
        "ProtectKernelTunables": 232, "ProtectKernelModules": 232, "ProtectKernelLogs": 244,
        "ProtectControlGroups": 232, "ProtectHostname": 242, "RestrictAddressFamilies": 211,
        "RestrictNamespaces": 233, "RestrictRealtime": 231, "MemoryDenyWriteExecute": 231,
        "SystemCallFilter": 187, "SystemCallArchitectures": 209, "SystemCallErrorNumber": 209,
    },
    "Mount": {"What": 0, "Where": 0, "Type": 0, "Options": 0, "TimeoutSec": 0},
    "Install": {"WantedBy": 0},
}  # fmt: skip
SERVICE_TYPES = {"exec": 240, "oneshot": 0, "notify": 0}

# keyword → first HAProxy that knows it (its configuration manual); the oldest host has 2.4
OLDEST_HAPROXY = (2, 4)
HAPROXY_SINCE = {
    "http_auth_bearer": (2, 5), "http-request wait-for-body": (2, 4), "http-error status": (2, 2),
    "default-errorfiles": (2, 2), "http-after-response": (2, 2), "http-check send": (2, 2), ".if ": (2, 4),
    "defined(": (2, 4), "uuid()": (2, 1), "use-service prometheus-exporter": (2, 0), "http-request return": (2, 2),
    "regsub(": (1, 6), "sha2(": (2, 1), "hard-stop-after": (1, 8), "map_str_int(": (1, 5), "ltime(": (1, 5),
    "json(utf8s)": (1, 6), "alpn ": (1, 5), "proto h1": (1, 9), "ssl-min-ver": (1, 8), "stick-table ": (1, 4),
    "quic": (2, 6), "bytes_in": (3, 0), "req.hdrs ": (1, 9),
    "expose-fd listeners": (1, 8), ",length ": (1, 7), "option http-no-delay": (1, 5), "option abortonclose": (1, 3),
}  # fmt: skip


def need(program):
    path = shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin") or shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed here")
    return path


def run(*words):
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def units(stack):
    return [file for file in stacks.rendered(stack) if file.path.startswith("/etc/systemd/system/")]


def test_unit_directives_are_old_enough(stack):
    for file in units(stack):
        parsed = configparser.ConfigParser(strict=False, interpolation=None, delimiters=["="])
        parsed.optionxform = str
        parsed.read_string(file.text.replace("\\\n", ""))
        for section in parsed.sections():
            for directive, value in parsed[section].items():
                assert SINCE[section][directive] <= OLDEST_SYSTEMD, (file.path, directive)
                if directive == "Type" and section == "Service":
                    assert SERVICE_TYPES[value] <= OLDEST_SYSTEMD


def test_haproxy_keywords_are_old_enough(stack):
    (text,) = [file.text for file in stacks.rendered(stack) if file.path.endswith("/haproxy.cfg")]
    for keyword, first in HAPROXY_SINCE.items():
        assert keyword not in text or first <= OLDEST_HAPROXY, keyword


def test_shell_parses(host):
    run(need("bash"), "-n", str(host / "usr/local/lib/pulumi-vllm/bootstrap"))


def test_programs_parse(stack):
    for file in stacks.rendered(stack):
        if file.text.startswith("#!/usr/bin/python3") or file.path.endswith(".py"):
            compile(file.text, file.path, "exec")


@pytest.mark.ci
def test_shellcheck(host):
    run(need("shellcheck"), str(host / "usr/local/lib/pulumi-vllm/bootstrap"))


@pytest.mark.ci
def test_systemd_reads_the_units(stack, host):
    """Only systemd knows its own grammar; the binaries it asks for are stubs."""
    analyze = need("systemd-analyze")
    for program in (
        "opt/vllm/bin/python",
        "usr/sbin/haproxy",
        "usr/sbin/nft",
        "usr/bin/install",
        "bin/sh",
        "bin/kill",
        "bin/rm",
        "usr/bin/touch",
    ):
        (host / program).parent.mkdir(parents=True, exist_ok=True)
        (host / program).write_text("")
        (host / program).chmod(0o755)
    (host / "usr/local/lib/pulumi-vllm/install").touch(mode=0o755)
    shutil.copytree("/usr/lib/systemd/system", host / "usr/lib/systemd/system", symlinks=True)
    (host / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nvllm:x:900:900::/var/lib/vllm:/bin/false\n")
    (host / "etc/group").write_text("root:x:0:\nvllm:x:900:\n")
    names = [file.path.rpartition("/")[2] for file in units(stack)]
    said = run(analyze, "verify", f"--root={host}", "--man=no", "--recursive-errors=no", *names)
    ours = [line for line in said.splitlines() if any(name in line for name in names)]
    assert ours == []


def test_exposure_as_reviewed(stack, host):
    """What `systemd-analyze security` makes of each unit (0 best, 10 worst); another systemd counts otherwise."""
    analyze, golden = need("systemd-analyze"), stacks.ROOT / f"tests/rendered/{stack}/{stacks.EXPOSURE}"
    version = run(analyze, "--version").split()[1]
    lines = [f"systemd {version}: exposure of each unit, 0 best, 10 worst"]
    for unit in sorted(path for path in (host / "etc/systemd/system").glob("*.service")):
        said = run(analyze, "security", "--offline=yes", "--no-pager", str(unit))
        lines.append(re.search(r"Overall exposure level for (\S+: [\d.]+)", said)[1])
    if os.environ.get("UPDATE_GOLDENS"):
        golden.write_text("\n".join(lines) + "\n")
    reviewed = golden.read_text().splitlines()
    if reviewed[0] != lines[0]:
        pytest.skip(f"the scores were made by another version: {reviewed[0]}")
    assert reviewed == lines, f"{stack}: exposure changed; if that is meant, run with UPDATE_GOLDENS=1"


@pytest.mark.ci
def test_haproxy_reads_its_configuration(host, tmp_path_factory):
    haproxy, door = need("haproxy"), tmp_path_factory.mktemp("door")
    text = (host / "etc/pulumi-vllm/door/haproxy.cfg").read_text()
    certificate = [
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "1",
    ]
    run(need("openssl"), "req", *certificate, "-subj", "/CN=x", "-keyout", f"{door}/k", "-out", f"{door}/c")
    (door / "tls.pem").write_text((door / "c").read_text() + (door / "k").read_text())
    (door / "keys.map").write_text("0" * 64 + " team-a\n")
    (door / "limits.map").write_text((host / "etc/pulumi-vllm/door/limits.map").read_text())
    text = text.replace("/etc/pulumi-vllm/door", str(door)).replace("/run/pulumi-vllm-door", str(door))
    (door / "haproxy.cfg").write_text(re.sub(r"    (user|group) haproxy\n", "", text))
    for words in (["env"], ["env", "DOOR_IPV6=1"]):
        said = run(*words, haproxy, "-c", "-f", str(door / "haproxy.cfg"))
        assert "WARNING" not in said.upper(), said


@pytest.mark.ci
def test_nft_reads_the_firewall(host):
    nft = need("nft")
    run(need("unshare"), "-rn", nft, "-c", "-f", str(host / "etc/pulumi-vllm/nftables.nft"))


@pytest.mark.ci
def test_the_wheel_renders_in_an_empty_place(tmp_path):
    """Only a built wheel shows that the templates and the data files travel."""
    wheels = tmp_path / "wheels"
    words = ["-m", "build", "--wheel", "--no-isolation", "--outdir", str(wheels), str(stacks.ROOT)]
    run(sys.executable, *words)
    (wheel,) = wheels.glob("*.whl")
    site = tmp_path / "site"
    shutil.unpack_archive(wheel, site, "zip")
    program = tmp_path / "render.py"
    program.write_text(
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "import yaml, pulumi_vllm.plan as p, pulumi_vllm.render as r\n"
        f"block = yaml.safe_load(open({str(stacks.ROOT / 'stacks/Pulumi.local.yaml')!r}))\n"
        "files = r.render(p.plan(p.Deployment.parse(block['config']['pulumi-vllm:server'])))\n"
        f"assert p.__file__.startswith({str(site)!r})\n"
        "print(len(files))\n"
    )
    assert int(run(sys.executable, str(program))) == len(stacks.rendered("local")) - 1


def test_modes_are_as_listed(stack, host):
    for file in stacks.rendered(stack):
        place = host / file.path.lstrip("/")
        assert stat.S_IMODE(place.stat().st_mode) == int(file.mode, 8)
