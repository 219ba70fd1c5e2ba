"""Drift of the running service. Each kind names what was observed, what was declared, and what `up` does."""

from __future__ import annotations

import hashlib
import re

import pytest
from pulumi_vllm.host import access_drift
from pulumi_vllm.host.facts import Facts
from pulumi_vllm.host.process_drift import serving_digest
from pulumi_vllm.host.service_drift import canary_restarts, differences, not_observed
from pulumi_vllm.plan import engine_locks
from pulumi_vllm.render import layout

ENGINE_FILE, GATEWAY_FILE = layout.unit_file(layout.ENGINE_UNIT), layout.unit_file(layout.GATEWAY_UNIT)
DROP_IN = f"{GATEWAY_FILE}.d/mine.conf"
TABLE = 'table inet pulumi_vllm {\n\tchain input {\n\t\tiif "lo" accept\n\t\tcounter drop\n\t}\n}'


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


ENGINE_STARTED_WITH = {ENGINE_FILE: sha("unit"), layout.ENGINE_ENVIRONMENT: sha("env")}
DIGEST = serving_digest(ENGINE_STARTED_WITH)


def file(text):
    return {"text": text, "mode": "0644", "owner": "root:root", "sha256": sha(text)}


def unit(**more):
    base = {
        "LoadState": "loaded",
        "ActiveState": "active",
        "UnitFileState": "enabled",
        "NeedDaemonReload": "no",
        "MainPID": "0",
    }
    return base | more


def running(name, files, user="", capabilities=(), **more):
    control_group = f"/system.slice/{name}"
    return unit(
        MainPID="77",
        User=user,
        NoNewPrivileges="yes",
        CapabilityBoundingSet=" ".join(capabilities),
        SystemCallArchitectures="native",
        ProtectSystem="strict",
        LimitNOFILE="65536",
        LimitMEMLOCK="infinity",
        LimitCORE="0",
        ControlGroup=control_group,
        MemoryMax="infinity",
        TasksMax="4915",
        CPUQuotaPerSecUSec="infinity",
        process={
            "user": user or "root",
            "no_new_privileges": True,
            "seccomp": True,
            "capabilities": list(capabilities),
            "own_mounts": True,
            "root": "/",
            "limits": {"NOFILE": "65536", "MEMLOCK": "unlimited", "CORE": "0"},
            "highest_limits": {"NOFILE": "524288", "MEMLOCK": "unlimited", "CORE": "unlimited"},
            "cgroup": control_group,
            "cgroup_limits": {"memory.max": "max", "pids.max": "4915", "cpu.max": "max"},
        },
        record={"invocation": "a", "time": 1000.0, "files": files},
        **more,
    )


LOCK = "numpy==2.3.5 \\\n    --hash=sha256:00\nPyYAML==6.0.3 \\\n    --hash=sha256:00\nvllm==0.26.0\n"
PACKAGES = [["numpy", "2.3.5"], ["pyyaml", "6.0.3"], ["vllm", "0.26.0"]]
MISSING = "vllm is missing (locked 0.26.0)"
OTHER_PACKAGES = "packages of vLLM are not those of the lock: "
H200 = ["NVIDIA H200", "143771", "GPU-1", "570.1"]
EVIDENCE = {"vllm": "0.26.0", "driver": "570.1", "gpus": ["NVIDIA H200", "NVIDIA H200"], "kernel": "6.8"}
INSTALLED = "`pulumi up` downloads and installs it again from its lock, and restarts vLLM"
OTHER_LOCK = "`pulumi up` installs it from the lock on disk and restarts vLLM"
CHECKED = "`pulumi up` checks the host, drains the gateway and restarts vLLM"


ACCESS = {"sudoers file /etc/sudoers": "root ALL=(ALL) ALL", "sshd option passwordauthentication": "no"}


def healthy():
    texts = {
        ENGINE_FILE: "unit",
        layout.ENGINE_ENVIRONMENT: "env",
        GATEWAY_FILE: "gw",
        layout.HAPROXY_CONFIG: "cfg",
        layout.engine_lock("3.12"): LOCK,
        layout.engine_lock("3.13"): "other lock",
    }
    return {
        "probe": 1,
        "folders": dict(layout.FOLDERS),
        "files": {path: file(text) for path, text in texts.items()},
        "units": {
            layout.ENGINE_UNIT: running(layout.ENGINE_UNIT, ENGINE_STARTED_WITH, "vllm"),
            layout.GATEWAY_UNIT: running(
                layout.GATEWAY_UNIT,
                {GATEWAY_FILE: sha("gw"), layout.HAPROXY_CONFIG: sha("cfg")},
                capabilities=("cap_kill", "cap_net_bind_service"),
            ),
            layout.FIREWALL_UNIT: unit(),
            layout.MOUNT_UNIT: unit(),
            layout.CANARY_TIMER: unit(),
            layout.INSTALL_UNIT: unit(UnitFileState="static"),
        },
        "gateway": {
            "servers": [{"name": "local", "status": "UP", "seconds": "5", "address": "127.0.0.1:8000"}],
            "started": 1001.0,
            "certificate": {"memory": "AB" * 20, "file": "AB" * 20},
            "maps": {layout.KEYS_MAP: {"added": [], "missing": []}},
        },
        "canaries": {layout.CANARY_RESULT: {"age_s": 59.0, "engine": "answers", "gateway": "answers"}},
        "firewall": {"listed": True, "apart": True, "rules": TABLE, "declared": TABLE, "forwarding": []},
        "listening": [["0.0.0.0", 443], ["127.0.0.1", 8000], ["0.0.0.0", 9000]],
        "disk_free": {"/": 2**30},
        "engine": "0.26.0",
        "packages": PACKAGES,
        "stamp": [sha(LOCK)],
        "readiness": {"passed": True},
        "gpus": [H200, H200],
        "kernel": "6.9",
        "access": ACCESS,
        "skew_s": 60.0,
        "synchronised": True,
    }


def found(change=lambda _: None):
    raw = healthy()
    change(raw)
    return differences(Facts.parse(raw), digest=DIGEST, evidence=EVIDENCE, access=ACCESS)


def test_a_healthy_host_has_no_difference():
    assert found() == ()


def engine(raw):
    return raw["units"][layout.ENGINE_UNIT]


def gateway(raw):
    return raw["units"][layout.GATEWAY_UNIT]


def other_environment(raw):
    engine(raw)["record"]["files"] = ENGINE_STARTED_WITH | {layout.ENGINE_ENVIRONMENT: sha("other")}


def hung(raw):
    raw["gateway"]["servers"][0].update(status="DOWN", seconds="90")


def extra_rule(raw):
    raw["firewall"]["rules"] = TABLE.replace("\t\tcounter", "\t\ttcp dport 9000 accept\n\t\tcounter")


OUTSIDE = (
    "lets the process make every system call, declared SystemCallFilter; has the capabilities cap_chown, declared "
    "none; sees the mounts of the host, declared ProtectSystem=strict; has the root directory /srv, declared /; runs "
    "in the control group /, declared /system.slice/vllm.service"
)
MORE_CAPABILITIES = "has the capabilities cap_sys_admin, declared cap_kill cap_net_bind_service"
LESS_MEMORY = "memory.max 4096, declared MemoryMax=infinity; cpu.max 5, declared CPUQuotaPerSecUSec=infinity"
OTHER_CERTIFICATE = f"is {'CD' * 20}, and {layout.GATEWAY_CERTIFICATE} holds {'AB' * 20} (SHA-1 fingerprints)"
ENGINE_RESTARTS = "`pulumi up` drains the gateway and restarts vLLM"
OTHER_FILES = "vllm.service process was started with other files than declared"
READ_AGAIN = "has read its files again without its unit, so they are not known"
GATEWAY_RELOADS = "`pulumi up` reloads the gateway"
ACCESS_LEFT = (
    "`pulumi up` leaves it; restore it on the host, or accept it with another text in server.access.accepted"
)
CLOCK_LEFT = (
    "and may differ by 60 s; `pulumi up` sets no clock under a running engine; run `timedatectl set-ntp true` on the "
    "host, or correct this computer's clock"
)
LEFT_ALONE = (
    "`pulumi up` leaves rules that are not its own; remove them on the host, as in `docker ps` or `nft`, "
    "or accept them with another text in server.access.accepted"
)


@pytest.mark.parametrize(
    ("change", "sentence", "commands"),
    [
        (
            lambda raw: engine(raw).update(UnitFileState="disabled"),
            "vllm.service at boot is disabled, declared enabled; `pulumi up` enables it",
            ["systemctl enable -q vllm.service"],
        ),
        (
            lambda raw: gateway(raw).update(UnitFileState="masked-runtime"),
            "haproxy.service at boot is masked-runtime, declared enabled; `pulumi up` enables it",
            [
                "systemctl unmask haproxy.service; systemctl unmask --runtime haproxy.service",
                "systemctl enable -q haproxy.service",
            ],
        ),
        (
            lambda raw: engine(raw).update(NeedDaemonReload="yes"),
            "vllm.service in systemd is older than its files; `pulumi up` lets systemd read them again",
            ["systemctl daemon-reload"],
        ),
        (
            other_environment,
            OTHER_FILES + f": /etc/pulumi-vllm/vllm.env; {ENGINE_RESTARTS}",
            [],
        ),
        (
            lambda raw: engine(raw).pop("record"),
            f"vllm.service process was started with files that are not known; {ENGINE_RESTARTS}",
            [],
        ),
        (
            lambda raw: engine(raw)["process"].update(user="root"),
            f"vllm.service user is root, declared vllm; {ENGINE_RESTARTS}",
            [],
        ),
        (
            lambda raw: engine(raw)["process"].update(no_new_privileges=False),
            "vllm.service sandbox lets the process gain privileges, declared NoNewPrivileges=yes; "
            + ENGINE_RESTARTS,
            [],
        ),
        (
            lambda raw: engine(raw)["process"].update(
                seccomp=False, capabilities=["cap_chown"], own_mounts=False, root="/srv", cgroup="/"
            ),
            f"vllm.service sandbox {OUTSIDE}; {ENGINE_RESTARTS}",
            [],
        ),
        (
            lambda raw: engine(raw)["process"]["cgroup_limits"].update(
                {"memory.max": "4096", "cpu.max": "5"}
            ),
            f"vllm.service limits are {LESS_MEMORY}; {ENGINE_RESTARTS}",
            [],
        ),
        (
            lambda raw: raw["files"].update({layout.HAPROXY_CONFIG: file("other")}),
            f"haproxy.service process runs with another {layout.HAPROXY_CONFIG} than on disk; {GATEWAY_RELOADS}",
            ["systemctl reload haproxy.service"],
        ),
        (
            lambda raw: gateway(raw)["record"]["files"].update({DROP_IN: sha("[Service]")}),
            f"haproxy.service process runs with another {DROP_IN} than on disk; `pulumi up` restarts the gateway",
            ["systemctl restart haproxy.service"],
        ),
        (
            lambda raw: raw["gateway"]["certificate"].update(memory="CD" * 20),
            f"certificate in the gateway's memory {OTHER_CERTIFICATE}; {GATEWAY_RELOADS}",
            ["systemctl reload haproxy.service"],
        ),
        (
            lambda raw: raw["gateway"]["maps"].update(
                {layout.KEYS_MAP: {"added": ["mallory"], "missing": ["alice", "bob"]}}
            ),
            f"{layout.KEYS_MAP} has other entries in the gateway's memory than on disk: + mallory; - alice; - bob; "
            + GATEWAY_RELOADS,
            ["systemctl reload haproxy.service"],
        ),
        (
            lambda raw: raw["gateway"]["servers"][0].update(address="10.0.0.9:80"),
            f"server in the gateway's memory is 10.0.0.9:80, declared 127.0.0.1:8000; {GATEWAY_RELOADS}",
            ["systemctl reload haproxy.service"],
        ),
        (
            lambda raw: gateway(raw)["process"].update(capabilities=["cap_kill", "cap_sys_admin"]),
            f"haproxy.service sandbox {MORE_CAPABILITIES}; `pulumi up` restarts it",
            ["systemctl restart haproxy.service"],
        ),
        (
            lambda raw: gateway(raw)["process"]["limits"].update(NOFILE="1024"),
            "haproxy.service limits are open files 1024, declared 65536; `pulumi up` restarts it",
            ["systemctl restart haproxy.service"],
        ),
        (
            lambda raw: raw["gateway"].update(started=1100.0),
            f"haproxy.service process {READ_AGAIN}; {GATEWAY_RELOADS}",
            ["systemctl reload haproxy.service"],
        ),
        (
            lambda raw: raw["gateway"]["servers"][0].update(status="DRAIN"),
            "gateway answers 503 to every request: its server is DRAIN, declared UP; `pulumi up` opens it",
            ["/usr/local/lib/pulumi-vllm/drain --undo"],
        ),
        (
            lambda raw: raw.update(gateway=None),
            "gateway does not answer on its admin socket, so its state is not known; `pulumi up` restarts it",
            ["systemctl restart haproxy.service"],
        ),
        (
            hung,
            "vLLM listens, but has not answered the gateway's checks for 90 s; `pulumi up` restarts it",
            [],
        ),
        (
            lambda raw: raw["canaries"][layout.CANARY_RESULT].update(age_s=301.0),
            "canary has not asked vLLM for a token for 301 s, declared every 30 s; `pulumi up` starts it again",
            ["systemctl restart vllm-canary.timer; systemctl start vllm-canary.service"],
        ),
        (
            lambda raw: raw.update(canaries={}),
            "canary has not asked vLLM for a token ever, declared every 30 s; `pulumi up` starts it again",
            ["systemctl restart vllm-canary.timer; systemctl start vllm-canary.service"],
        ),
        (
            lambda raw: raw["canaries"][layout.CANARY_RESULT].update(
                engine="refuses", observed="status 404 (no such model)"
            ),
            "vLLM refuses to answer one token: status 404 (no such model); `pulumi up` restarts it",
            [],
        ),
        (
            lambda raw: raw["canaries"][layout.CANARY_RESULT].update(gateway="status 401 (no)"),
            "gateway passes no answer of vLLM on: status 401 (no); `pulumi up` restarts it",
            ["systemctl restart haproxy.service"],
        ),
        (
            lambda raw: raw["firewall"].update(rules=""),
            "firewall has none of its rules, so anybody reaches port 443, port 9000; `pulumi up` loads them",
            [],
        ),
        (
            extra_rule,
            "firewall has other rules than declared: + tcp dport 9000 accept; `pulumi up` loads the declared ones",
            [],
        ),
    ],
)
def test_a_difference_is_a_sentence_and_its_repair(change, sentence, commands):
    (one,) = found(change)
    assert one.sentence == sentence
    assert list(one.commands) == commands
    assert one.loads_firewall == (one.subject == "firewall")
    assert one.restarts_engine == (not commands and not one.loads_firewall)
    assert one.repairable


def test_the_mode_and_the_owner_of_a_folder_are_repaired():
    one, two = found(
        lambda raw: raw["folders"].update(
            {layout.PROGRAMS: "0777 root:root", layout.SECRETS: "0700 vllm:vllm"}
        )
    )
    assert one.sentence == (
        "folder /etc/pulumi-vllm/secrets is 0700 vllm:vllm, declared 0700 root:root; `pulumi up` repairs this"
    )
    assert two.commands == (
        "chown root:root /usr/local/lib/pulumi-vllm",
        "chmod 0755 /usr/local/lib/pulumi-vllm",
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda raw: raw["firewall"].update(forwarding=["tcp dport 80 dnat to 172.17.0.2:80"]),
            f"forwarded ports pass by our rules: tcp dport 80 dnat to 172.17.0.2:80; {LEFT_ALONE}",
        ),
        (
            lambda raw: raw["firewall"].update(declared=""),
            "firewall can't be compared with its rules; run `nft -c -f /etc/pulumi-vllm/nftables.nft` on the host",
        ),
        (
            lambda raw: raw.update(skew_s=-400.4),
            f"clock is 400 s behind that of this computer, {CLOCK_LEFT}",
        ),
        (
            lambda raw: raw.update(skew_s=61.0, synchronised=False),
            f"clock is 61 s ahead of that of this computer, and nothing synchronises it, {CLOCK_LEFT}",
        ),
        (
            lambda raw: raw.update(access=ACCESS | {"account mallory": "uid 0, shell /bin/sh"}),
            f"account mallory is new since the last `pulumi up`: uid 0, shell /bin/sh; {ACCESS_LEFT}",
        ),
        (
            lambda raw: raw.update(access=ACCESS | {"sshd option passwordauthentication": "yes"}),
            f"sshd option passwordauthentication is yes, and was no at the last `pulumi up`; {ACCESS_LEFT}",
        ),
        (
            lambda raw: raw.update(access={"sudoers file /etc/sudoers": "root ALL=(ALL) ALL"}),
            "options of sshd can't be read, because `sshd -T` fails; run `sshd -T` on the host and correct it",
        ),
        (
            lambda raw: raw.update(access={"sshd option passwordauthentication": "no"}),
            "sudoers file /etc/sudoers is gone since the last `pulumi up`, and was: root ALL=(ALL) ALL; "
            + ACCESS_LEFT,
        ),
        (
            lambda raw: raw["disk_free"].update({"/models": 2**20}),
            "free space on /models is 1 MiB, and 64 MiB are needed; `pulumi up` deletes nothing; make room on the host",
        ),
    ],
)
def test_what_is_not_ours_is_refused(change, sentence):
    (one,) = found(change)
    assert one.sentence == sentence
    assert not one.repairable


FORWARDED = ("tcp dport 80 dnat to 172.17.0.2:80", "tcp dport 81 dnat to 172.17.0.3:81")


@pytest.mark.parametrize(
    ("accepted", "explicitly", "left"),
    [
        (FORWARDED, True, ()),
        (FORWARDED[:1], True, FORWARDED[1:]),
        ((), True, FORWARDED),
        (FORWARDED, False, FORWARDED),
    ],
    ids=["all", "one", "none", "without-a-text-in-the-stack-file"],
)
def test_forwarded_ports_that_the_stack_file_accepted_are_no_difference(accepted, explicitly, left):
    def host(rules):
        raw = healthy()
        raw["firewall"].update(forwarding=list(rules))
        return Facts.parse(raw)

    access = access_drift.accepted(host(accepted), forwarding=explicitly)
    for rules in (FORWARDED, FORWARDED[1:]):  # one that is gone opens nothing
        shown = [
            one.observed for one in differences(host(rules), digest=DIGEST, evidence=EVIDENCE, access=access)
        ]
        wanted = "; ".join(rule for rule in rules if rule in left)
        assert shown == ([f"pass by our rules: {wanted}"] if wanted else [])


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw["gateway"]["servers"][0].update(status="DOWN", seconds="59"),
        lambda raw: (hung(raw), raw.update(listening=[])),  # it still loads the model
        lambda raw: raw["gateway"]["servers"][0].update(status="UP 1/3"),
        # It has ended since systemd was asked.
        lambda raw: engine(raw).update(process=None),
        # The kernel rounds down to pages, and shows a share of the CPU in another unit.
        lambda raw: (
            engine(raw).update(MemoryMax="5000", CPUQuotaPerSecUSec="2s"),
            engine(raw)["process"]["cgroup_limits"].update({"memory.max": "4096", "cpu.max": "200000"}),
        ),
        # In a container, systemd can't give more than it has.
        lambda raw: engine(raw)["process"].update(
            limits={"NOFILE": "20000", "MEMLOCK": "8388608"},
            highest_limits={"NOFILE": "20000", "MEMLOCK": "8388608"},
        ),
        # A host with control groups of version 1 only.
        lambda raw: engine(raw)["process"].update(cgroup=""),
        # A host without these controllers.
        lambda raw: engine(raw)["process"].update(cgroup_limits={}),
        lambda raw: raw["canaries"][layout.CANARY_RESULT].update(engine="busy", gateway="not asked"),
        lambda raw: raw["canaries"][layout.CANARY_RESULT].update(gateway="status 429 (limit)"),
        # Service reports a timer that is stopped.
        lambda raw: (
            raw["units"][layout.CANARY_TIMER].update(ActiveState="inactive"),
            raw.update(canaries={}),
        ),
        lambda raw: engine(raw).update(ActiveState="activating", record=None),
        lambda raw: raw["units"].pop(layout.FIREWALL_UNIT),
        # The stamp of an image for tests names every lock.
        lambda raw: raw.update(stamp=[sha(LOCK), sha("other lock")], packages=[]),
        # Files restores it, and the process is as declared.
        lambda raw: raw["files"].update({ENGINE_FILE: file("edited")}),
    ],
)
def test_what_is_no_difference(change):
    assert found(change) == ()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"stamp": []},
            f"installed vLLM was installed from another lock than the one on disk; {OTHER_LOCK}",
        ),
        (
            {"readiness": {"passed": False, "why": "golden tokens differ"}},
            "readiness check failed: golden tokens differ; `pulumi up` restarts vLLM and runs it again",
        ),
        (
            {"engine": "0.25.1"},
            f"installed vLLM is 0.25.1, and was 0.26.0 at the last `pulumi up`; {INSTALLED}",
        ),
        (
            {"packages": [["PyYAML", "6.0.3"], ["numpy", "2.3.4"], ["pip", "24.0"]]},
            f"{OTHER_PACKAGES}numpy is 2.3.4 (locked 2.3.5); pip is 24.0 (not locked); {MISSING}; {INSTALLED}",
        ),
        (
            {"edited": ["/opt/vllm/a.py", "/opt/vllm/b.py"]},
            f"source files of vLLM were written to after its installation: /opt/vllm/a.py, /opt/vllm/b.py; {INSTALLED}",
        ),
        (
            {"packages": [*PACKAGES, ["numpy", "2.3.4"]]},
            f"{OTHER_PACKAGES}numpy is 2.3.4 (locked 2.3.5); {INSTALLED}",
        ),
        (
            {"packages": [*PACKAGES, *([f"p{number}", "1"] for number in range(7))]},
            f"{OTHER_PACKAGES}{'; '.join(f'p{number} is 1 (not locked)' for number in range(5))}; and 2 more; "
            + INSTALLED,
        ),
        (
            {"gpus": [[*H200[:3], "580.2"]] * 2},
            f"NVIDIA driver is 580.2, and was 570.1 at the last `pulumi up`; {CHECKED}",
        ),
        (
            {"gpus": [H200]},
            f"list of GPUs is 1x NVIDIA H200, and was 2x NVIDIA H200 at the last `pulumi up`; {CHECKED}",
        ),
    ],
)
def test_engine_driver_and_gpus_are_those_of_the_last_up(change, sentence):
    (one,) = found(lambda raw: raw.update(change))
    assert one.sentence == sentence
    assert one.restarts_engine


@pytest.mark.parametrize("version", ["0.26.0", "0.32.0-cpu", "0.33.0"])
def test_packages_are_compared_with_a_lock_that_the_host_does_not_send(version):
    """The host leaves out the text of a file of our package."""
    locks = engine_locks.of(version)
    texts = {layout.engine_lock(minor): text for minor, text in locks.items()}

    def change(raw, *more):
        raw["files"] |= {path: {**file(text), "text": ""} for path, text in texts.items()}
        raw["stamp"] = [sha(locks["3.12"])]
        raw["packages"] = [*re.findall("^(\\S+)==(\\S+)", locks["3.12"], re.MULTILINE), *more]

    assert found(change) == ()
    (one,) = found(lambda raw: change(raw, ["pip", "24.0"]))
    assert one.observed == "are not those of the lock: pip is 24.0 (not locked)"


def test_a_drop_in_that_is_on_disk_and_in_the_process_is_a_difference():
    def change(raw):
        gateway(raw)["record"]["files"][DROP_IN] = sha("[Service]")
        raw["drop_ins"] = {DROP_IN: file("[Service]")}

    (one,) = found(change)
    assert one.observed == f"was started with {DROP_IN}, which nobody declared"


def test_a_state_of_an_earlier_version_knows_nothing_about_access():
    facts = Facts.parse(healthy())
    assert differences(facts, digest=DIGEST, evidence=EVIDENCE, access={}) == ()


NOON = 1796040000.0  # 2026-11-30T12:00:00Z


@pytest.mark.parametrize(
    ("times", "sentence"),
    [
        ((), None),
        (("2026-11-29T11:59:59Z",), None),
        (("2026-11-29T12:00:01Z",), "once in the last 24 hours, last at 2026-11-29T12:00:01Z: stood still. "),
        (
            ("2026-11-20T08:00:00Z", "2026-11-30T08:00:00Z", "2026-11-30T09:00:00Z"),
            "2 times in the last 24 hours, last at 2026-11-30T09:00:00Z: stood still. ",
        ),
        (("no time",), "once in the last 24 hours, last at no time: stood still. "),
    ],
)
def test_a_warning_of_the_canarys_restarts_ends_after_a_day(times, sentence):
    raw = healthy()
    raw["time"] = NOON
    raw["canaries"][layout.CANARY_RESULT]["memory"] = {
        "restarts": [{"time": time, "reason": "stood still"} for time in times]
    }
    facts = Facts.parse(raw)
    found = canary_restarts(facts)
    if sentence is None:
        assert found is None
    else:
        assert found.startswith(f"the canary ended vLLM {sentence}/var/lib/pulumi-vllm/canary.json")
    assert differences(facts, digest=DIGEST, evidence=EVIDENCE, access=ACCESS) == ()


@pytest.mark.parametrize(
    ("firewall", "reason"),
    [
        ({}, None),
        (
            {"apart": False, "declared": ""},
            "the firewall was not compared with its rules, because the host permits no",
        ),
        ({"listed": False, "rules": ""}, "the rules of the firewall can't be listed"),
        (
            {"listed": False, "rules": "", "apart": False, "declared": ""},
            "the rules of the firewall can't be listed",
        ),
    ],
    ids=["compared", "no-network-of-its-own", "not-listed", "neither"],
)
def test_a_firewall_that_was_not_compared_is_not_observed(firewall, reason):
    raw = healthy()
    raw["firewall"].update(firewall)
    facts = Facts.parse(raw)
    assert (not_observed(facts) or "").startswith(reason or "")
    assert (not_observed(facts) is None) == (reason is None)
    assert differences(facts, digest=DIGEST, evidence=EVIDENCE, access=ACCESS) == ()
    raw["units"].pop(layout.FIREWALL_UNIT)  # a firewall that does not run is a difference of the units
    assert not_observed(Facts.parse(raw)) is None


def test_lost_rules_are_found_without_a_comparison():
    (one,) = found(lambda raw: raw["firewall"].update(apart=False, declared="", rules=""))
    assert one.observed.startswith("has none of its rules")
    assert one.loads_firewall
