"""The probe program, run on this machine, and its functions on made-up files."""

from __future__ import annotations

import ast
import collections
import getpass
import hashlib
import json
import os
import subprocess
import sys
import time
import types
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from pulumi_vllm.host.facts import Facts
from pulumi_vllm.host.mask import mask
from pulumi_vllm.host.probe_request import ProbeRequest, probe_source
from pulumi_vllm.plan import Deployment, plan
from pulumi_vllm.render import Mount, layout, package_files, render

ROOT = Path(__file__).resolve().parents[2]

# One module, as on a host.
program = types.ModuleType("probe")
exec(probe_source(), program.__dict__)


def run(request):
    command = [sys.executable, "-I", "-", request.to_json()]
    done = subprocess.run(
        command, input=probe_source(), capture_output=True, text=True, check=True, timeout=20
    )
    return Facts.parse(done.stdout)


def test_no_two_parts_of_the_program_define_the_same_name():
    """A host gets one text, in which the last definition counts."""
    names = collections.Counter()
    for path in [
        ROOT / "components/pulumi_vllm/host/mask.py",
        *ROOT.glob("components/pulumi_vllm/host/probe_*.py"),
    ]:
        if path.name == "probe_request.py":  # it stays here
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names[node.name] += 1
            elif isinstance(node, ast.Assign):
                names.update(
                    one.id for target in node.targets for one in ast.walk(target) if isinstance(one, ast.Name)
                )
    assert [name for name, times in names.items() if times > 1] == []
    assert len(names) > 30


def test_this_machine_can_be_probed(tmp_path):
    ours = tmp_path / "ours"
    ours.write_text("text\n")
    ours.chmod(0o640)
    (tmp_path / "link").symlink_to("/dev/null")
    (tmp_path / "bytes").write_bytes(b"\xff\n")
    (tmp_path / "env").write_text("HF_TOKEN=planted\nA=1\n")
    found = run(ProbeRequest(paths=(str(tmp_path / "gone"),), directories=(str(tmp_path),)))
    assert found.files[str(ours)].text == "text\n"
    assert found.files[str(ours)].mode == "0640"
    assert found.files[str(tmp_path / "gone")] is None
    assert found.files[str(tmp_path / "link")].text == "(link to /dev/null)\n"
    assert found.files[str(tmp_path / "bytes")].text == "\ufffd\n"
    assert found.files[str(tmp_path / "env")].text == "HF_TOKEN=***\nA=1\n"
    assert "/" in found.mounts
    assert found.disk_free["/"] > 0
    assert found.python.startswith("3.")


@pytest.fixture
def texts(monkeypatch):
    """Files that replace those of this machine."""
    table: dict[str, str] = {}
    monkeypatch.setattr(program, "text", lambda path: table.get(path, ""))
    return table


def test_units_are_reported_with_their_processes(texts, monkeypatch):
    monkeypatch.setattr(program, "process", lambda pid: {"pid": pid})
    texts["/proc/77/cmdline"] = "/opt/vllm/bin/python\0-m\0vllm\0"
    texts["/proc/77/environ"] = "MODEL=/models/x\0A=1\0"
    record = {"invocation": "abc", "time": 5.0, "files": {"/etc/a": "0" * 64}}
    texts["/starts/vllm.service.json"] = json.dumps(record)
    shown = (
        "Id=vllm.service\nActiveState=active\nMainPID=77\nInvocationID=abc\n"
        "ExecStart={ path=/opt/vllm/bin/python ; "
        "argv[]=/opt/vllm/bin/python -m ${MODEL} $A ; ignore_errors=no ; pid=77 }\n"
        "\nId=models.mount\nActiveState=inactive\nMainPID=0\n"
    )
    found = program.units(shown, "/starts")
    assert found["vllm.service"]["argv"] == ["/opt/vllm/bin/python", "-m", "vllm"]
    assert found["vllm.service"]["declared"] == "/opt/vllm/bin/python -m /models/x 1"
    assert found["vllm.service"]["process"] == {"pid": "77"}
    assert found["vllm.service"]["record"] == record
    assert found["models.mount"]["ActiveState"] == "inactive"
    assert program.units("", "/starts") == {}


def test_a_process_is_reported_with_its_sandbox_and_limits():
    """A child of this test, in a mount namespace of its own where that is possible, with another limit of files."""
    apart = ["unshare", "--mount"] if os.geteuid() == 0 else []
    command = ["prlimit", "--nofile=100:200", "--core=0", *apart, "sleep", "60"]
    with subprocess.Popen(command) as child:
        try:
            end = time.monotonic() + 10
            while Path(f"/proc/{child.pid}/comm").read_text() != "sleep\n" and time.monotonic() < end:
                time.sleep(0.01)
            found = program.process(str(child.pid))
        finally:
            child.kill()
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    assert found["user"] == getpass.getuser()
    assert found["seccomp"] == (status["Seccomp"] != "0")
    assert found["own_mounts"] == bool(apart)
    assert found["root"] == "/"
    assert (found["limits"]["NOFILE"], found["limits"]["CORE"]) == ("200", "0")
    bits = int(status["CapBnd"], 16)
    assert len(found["capabilities"]) == bits.bit_count()
    assert ("cap_kill" in found["capabilities"]) == bool(bits & 1 << 5)
    assert program.process("0") is None


def test_a_capability_that_is_not_known_is_a_number():
    assert program.capabilities(1 | 1 << 40 | 1 << 41) == ["cap_chown", "cap_checkpoint_restore", "cap_41"]


def test_limits_of_a_control_group_are_those_of_controllers_that_are_on(texts):
    texts["/group/memory.max"] = "max\n"
    texts["/group/cpu.max"] = "200000 100000\n"
    assert program.cgroup_limits("/group") == {"memory.max": "max", "cpu.max": "200000"}


def test_a_record_of_another_start_does_not_count(texts):
    texts["/starts/vllm.service.json"] = json.dumps({"invocation": "abc", "time": 5.0, "files": {}})
    shown = "Id=vllm.service\nActiveState=active\nMainPID=77\nInvocationID=def\n"
    assert "record" not in program.units(shown, "/starts")["vllm.service"]


def test_our_table_is_told_apart_from_foreign_rules():
    ours = "table inet pulumi_vllm {\n\tchain input {\n\t\tcounter drop\n\t}\n}"
    foreign = 'table ip nat {\n\tchain DOCKER {\n\t\tiifname != "docker0" tcp dport 80 dnat to 172.17.0.2:80\n\t}\n}\n'
    foreign += "table inet firewalld {\n\tchain filter_INPUT {\n\t\tct status dnat accept\n\t}\n}\n"
    table = "inet pulumi_vllm"
    found = program.firewall(f"{foreign}{ours}\n# listed\n", f"in a network of its own\n{ours}\n", table)
    assert found["rules"] == found["declared"] == ours
    assert found["forwarding"] == ['iifname != "docker0" tcp dport 80 dnat to 172.17.0.2:80']
    assert program.firewall(f"{foreign}# listed\n", "", table)["rules"] == ""


@pytest.fixture
def nft(tmp_path):
    """A substitute that lists what it was given, as nft does in a network of its own, or fails."""
    program_file = tmp_path / "nft"

    def make(rules, code=0):
        program_file.write_text(f"#!/bin/sh\n[ $1 = -f ] || printf '{rules}'\nexit {code}\n")
        program_file.chmod(0o755)
        return str(program_file)

    return make


@pytest.mark.parametrize(
    ("rules", "code", "expected"),
    [
        ("table inet t {\n}\n", 0, {"listed": True, "rules": "table inet t {\n}"}),
        ("", 0, {"listed": True, "rules": ""}),
        ("", 1, {"listed": False, "rules": ""}),
    ],
    ids=["rules", "flushed", "fails"],
)
def test_no_rule_and_no_list_are_told_apart(nft, rules, code, expected):
    listed = program.output(program.start("sh", "-c", program.loaded(nft(rules, code))))
    assert program.firewall(listed, "", "inet t").items() >= expected.items()


@pytest.mark.parametrize(
    ("prefix", "code", "apart", "declared"),
    [
        ((), 0, True, "table inet t {}"),
        ((), 1, True, ""),
        (("false",), 0, False, ""),
        (("no-such-unshare",), 0, False, ""),
    ],
    ids=["compared", "the-file-is-wrong", "not-permitted", "no-program"],
)
def test_a_host_without_networks_of_their_own_says_so(nft, prefix, code, apart, declared):
    script = program.apart(nft("table inet t {}", code), "/rules", "inet t")
    found = program.firewall("", program.output(program.start(*prefix, "sh", "-c", script)), "inet t")
    assert (found["apart"], found["declared"]) == (apart, declared)


def test_mount_points_may_have_blanks_and_the_last_mount_counts(texts):
    texts["/proc/self/mountinfo"] = (
        "1 0 8:1 / / rw - ext4 /dev/vda rw\n"
        "2 1 0:5 / /a\\040b rw,noatime shared:1 - tmpfs none rw\n"
        "3 1 0:6 / /models rw - ext4 /dev/vdb rw\n"
        "4 1 0:7 / /models ro - virtiofs tag rw\n"
        "5 1 0:8 / /errors rw - ext4 /dev/vdc ro,errors=remount-ro\n"
        "broken\n"
    )
    found = program.mounts()
    assert found["/a b"] == {"source": "none", "type": "tmpfs", "writable": True}
    assert found["/models"]["type"] == "virtiofs"
    assert not found["/models"]["writable"]
    assert not found["/errors"]["writable"]


@pytest.mark.skipif(sys.byteorder != "little", reason="the table is a little-endian machine's")
def test_listening_sockets_are_reported(texts):
    texts["/proc/net/tcp"] = (
        "  sl  local_address rem_address   st\n"
        "   0: 0100007F:1F40 00000000:0000 0A x\n"
        "   1: 00000000:01BB 00000000:0000 0A x\n"
        "   2: 0100007F:1F41 0100007F:1F40 01 x\n"
    )
    texts["/proc/net/tcp6"] = "head\n 0: 00000000000000000000000001000000:0016 0:0 0A x\n"
    assert program.listening() == [("0.0.0.0", 443), ("127.0.0.1", 8000), ("::1", 22)]


def test_missing_weights_are_reported_as_damaged(tmp_path):
    place = tmp_path / "o" / "n" / ("f" * 40)
    place.mkdir(parents=True)
    (place / "good").write_bytes(b"12345")
    listed = {name: {"size": 5, "sha256": "0"} for name in ("good", "gone")}
    manifest = {"repository": "o/n", "revision": "f" * 40, "files": listed}
    (place / ".manifest.json").write_text(json.dumps(manifest))
    broken = tmp_path / "o" / "n" / "e"
    broken.mkdir()
    (broken / ".manifest.json").write_text("{")
    found = program.manifests({"weights": [str(tmp_path / "none")], "weights_root": str(tmp_path)})
    assert list(found) == [str(place)]
    facts = Facts.parse({"probe": 1, "manifests": found})
    assert facts.manifests[str(place)].damaged == ("gone",)
    assert facts.manifests[str(place)].revision == "f" * 40


def test_distributions_are_listed_from_their_directories(tmp_path):
    for name in ("torch-2.11.0.dist-info", "typing_extensions-4.16.0.dist-info", "torch", "x.dist-info.txt"):
        (tmp_path / name).mkdir()
    found = [("torch", "2.11.0"), ("typing_extensions", "4.16.0")]
    assert program.packages(f"{tmp_path}*") == found
    assert program.packages(f"{tmp_path}/none*") == []


def test_source_files_that_were_edited_after_the_installation_are_found(tmp_path):
    inner = tmp_path / "vllm" / "inner"
    inner.mkdir(parents=True)
    for name in ("old.py", "new.py", "new.txt"):
        (inner / name).touch()
    (tmp_path / "torch.py").touch()
    stamp = tmp_path / "stamp"
    assert program.edited(str(tmp_path), str(stamp)) == []
    stamp.touch()
    for path in (stamp, *inner.iterdir()):
        os.utime(path, (1000, 1000))
    assert program.edited(str(tmp_path), str(stamp)) == []
    os.utime(inner / "new.py", (1001, 1001))
    os.utime(inner / "new.txt")
    assert program.edited(str(tmp_path), str(stamp)) == [str(inner / "new.py")]


def test_drop_ins_are_found_in_every_directory(tmp_path, monkeypatch):
    bases = (tmp_path / "system", tmp_path / "system.control")
    for base in bases:
        (base / "vllm.service.d").mkdir(parents=True)
        (base / "vllm.service.d" / "more.conf").write_text("[Service]\n")
        (base / "vllm.service").write_text("whole")
        (base / "other.service.d").mkdir()
        (base / "other.service.d" / "x.conf").write_text("not ours")
    monkeypatch.setattr(program, "DROP_IN_DIRECTORIES", tuple(map(str, bases)))
    found = program.drop_ins(list(layout.UNITS))
    assert set(found) == {
        f"{bases[0]}/vllm.service.d/more.conf",
        f"{bases[1]}/vllm.service",
        f"{bases[1]}/vllm.service.d/more.conf",
    }


def test_what_overrides_one_instance_or_several_units_is_found(tmp_path, monkeypatch):
    bases = (tmp_path / "etc", tmp_path / "run")
    for base in bases:
        for folder in ("vllm@1.service.d", "vllm@.service.d", "vllm-.service.d", "vllm@9.service.d"):
            (base / folder).mkdir(parents=True)
            (base / folder / "more.conf").write_text("[Service]\n")
        (base / "vllm@.service").write_text("ours")
        (base / "vllm@1.service").write_text("another one's")
        (base / "vllm@0.service").symlink_to("/dev/null")  # masked
    monkeypatch.setattr(program, "DROP_IN_DIRECTORIES", tuple(map(str, bases)))
    found = program.drop_ins(["vllm@0.service", "vllm@1.service", "vllm-install.service"])
    assert set(found) == {
        f"{base}/{name}"
        for base in bases
        for name in (
            "vllm@1.service.d/more.conf", "vllm@.service.d/more.conf", "vllm-.service.d/more.conf", "vllm@1.service"
        )
    }  # fmt: skip


def test_engines_that_run_or_start_at_boot_are_found(tmp_path, monkeypatch):
    names = {
        "cgroup/system.slice/vllm.service": "vllm.service",
        "cgroup/system.slice/system-vllm.slice/vllm@2.service": "vllm@2.service",
        "units/multi-user.target.wants/vllm@1.service": "vllm@1.service",
        "cgroup/system.slice/vllm-weights.service": None,
        "cgroup/system.slice/system-vllm\\x2dnotify.slice/vllm-notify@vllm@1.service": None,
        "units/multi-user.target.wants/vllm-firewall.service": None,
    }
    for name in names:
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setattr(program, "CGROUPS", str(tmp_path / "cgroup"))
    found = program.engine_units([layout.ENGINE_UNIT, layout.EVERY_INSTANCE], str(tmp_path / "units"))
    assert found == sorted(filter(None, names.values()))


def test_the_template_of_instances_is_read_too(tmp_path):
    (tmp_path / "vllm@.service").write_text("ours")
    request = {
        "paths": [],
        "units_directory": str(tmp_path),
        "units": ["vllm@0.service"],
        "directories": [],
        "known": [],
    }
    found = program.files(request)
    assert found[f"{tmp_path}/vllm@.service"]["text"] == "ours"
    assert found[f"{tmp_path}/vllm@0.service"] is None


def test_a_program_that_is_missing_or_fails_has_no_output():
    assert program.output(program.start("no-such-program-here")) == ""
    assert program.output(program.start("false")) == ""
    assert program.output(program.start("echo", "yes")) == "yes\n"


def test_the_boot_identity_is_stable():
    assert program.boot_identity() == program.boot_identity()
    assert Path("/proc/1/stat").exists() == (not program.boot_identity().endswith("-0"))


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGyXj7P2ucbQbpZ3RzLZyHg9OIGZ0nYmlnmgUDrS0rDw"


def fingerprint(tmp_path):
    """The fingerprint of KEY, from ssh-keygen."""
    public = tmp_path / "key.pub"
    public.write_text(f"{KEY} x\n")
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", str(public)], capture_output=True, text=True, check=True
    )
    return shown.stdout.split()[1]


@pytest.fixture
def account(tmp_path, monkeypatch):
    """A user whose home is a folder of the test."""
    entry = SimpleNamespace(pw_name="ubuntu", pw_uid=1000, pw_shell="/bin/bash", pw_dir=str(tmp_path))
    daemon = SimpleNamespace(pw_name="vllm", pw_uid=999, pw_shell="/usr/sbin/nologin", pw_dir="/var/lib/vllm")
    group = SimpleNamespace(gr_name="sudo", gr_mem=["ubuntu", "mallory"])
    passwd = SimpleNamespace(getpwall=lambda: [entry, daemon], getpwnam={"ubuntu": entry}.__getitem__)
    monkeypatch.setattr(program, "pwd", passwd)
    monkeypatch.setattr(program, "grp", SimpleNamespace(getgrall=lambda: [group]))
    monkeypatch.setattr(program, "SUDOERS_DIRECTORY", str(tmp_path / "sudoers.d"))
    monkeypatch.setattr(program, "SSHD_DIRECTORY", str(tmp_path / "sshd"))


def test_who_can_log_in_is_reported_without_secrets(account, texts, tmp_path):
    (tmp_path / "sudoers.d").mkdir()
    for name in ("90-cloud", "old.bak", "x~"):
        (tmp_path / "sudoers.d" / name).touch()
    texts["/etc/sudoers"] = "# comment\nroot ALL=(ALL) ALL\n#includedir /etc/sudoers.d\n"
    texts[f"{tmp_path}/sudoers.d/90-cloud"] = "ubuntu ALL=(ALL) NOPASSWD:ALL\n"
    texts["/etc/ssh/sshd_config"] = "Port 22\nMatch User git\n  # x\n  PasswordAuthentication yes\n"
    texts[f"{tmp_path}/.ssh/authorized_keys"] = (
        f'# mine\n\n{KEY} me@here\ncommand="run --with planted-4711",no-pty {KEY.replace("yXj7P", "yXj8P")} two\n'
    )
    shown = (
        "port 22\nciphers aes\nallowusers a\nallowusers b\nauthorizedkeysfile .ssh/authorized_keys %h/none\n"
    )
    found = program.access("ubuntu", shown)
    other = next(name for name in found if name.startswith("SSH key") and fingerprint(tmp_path) not in name)
    assert found == {
        "sudoers file /etc/sudoers": "root ALL=(ALL) ALL; #includedir /etc/sudoers.d",
        f"sudoers file {tmp_path}/sudoers.d/90-cloud": "ubuntu ALL=(ALL) NOPASSWD:ALL",
        "sshd option port": "22",
        "sshd option allowusers": "a, b",
        "sshd option authorizedkeysfile": ".ssh/authorized_keys %h/none",
        "sshd block 1": "Match User git; PasswordAuthentication yes",
        "account ubuntu": "uid 1000, shell /bin/bash",
        "group sudo": "mallory, ubuntu",
        f"SSH key {fingerprint(tmp_path)} of ubuntu": "ssh-ed25519 me@here",
        other: found[other],
    }
    hidden = hashlib.sha256(b"run --with planted-4711").hexdigest()[:12]
    assert found[other] == f"command=(sha256 {hidden}),no-pty ssh-ed25519 two"


def test_a_long_text_ends_with_its_digest():
    shown = program.shortened(["x" * 300])
    assert shown.startswith("x" * 200 + " … (sha256 ")
    assert shown != program.shortened(["x" * 299 + "y"])


def test_a_host_without_sudo_and_sshd_has_accounts_only(account, texts):
    assert program.access("ubuntu", "") == {
        "sudoers file /etc/sudoers": "",
        "account ubuntu": "uid 1000, shell /bin/bash",
        "group sudo": "mallory, ubuntu",
    }


def test_a_container_has_the_clock_of_its_host(monkeypatch):
    monkeypatch.setattr(program.os.path, "exists", lambda path: path == "/run/systemd/container")
    assert program.synchronised() is None
    monkeypatch.setattr(program.os.path, "exists", lambda path: False)
    assert program.synchronised() in (True, False, None)


def test_one_probe_reports_everything_that_is_ours():
    """A resource that had to ask for more would cost each preview another probe."""
    block = yaml.safe_load((ROOT / "stacks/Pulumi.local.yaml").read_text())["config"]["pulumi-vllm:server"]
    decided = plan(Deployment.parse({**block, "access": {"allow": ["9.9.9.0/24"]}}))
    paths = tuple(one.path for one in render(decided, mount=Mount("block", "LABEL=pv-0123456789")))
    asked = ProbeRequest().including(paths, layout.UNITS, decided.weights_directory)
    assert asked == ProbeRequest()


def test_a_file_of_the_package_is_reported_by_its_digest_alone(tmp_path):
    ours, *_ = package_files.programs().values()
    for name, content in {"ours": ours, "changed": f"{ours}# TOKEN=planted\n"}.items():
        (tmp_path / name).write_text(content)
    found = run(ProbeRequest(directories=(str(tmp_path),))).files
    digest = hashlib.sha256(ours.encode()).hexdigest()
    assert program.file(str(tmp_path / "ours"), {digest})["text"] == ""
    assert found[str(tmp_path / "ours")].text == ours
    assert found[str(tmp_path / "ours")].sha256 == digest
    assert found[str(tmp_path / "changed")].text == mask(f"{ours}# TOKEN=planted\n")
