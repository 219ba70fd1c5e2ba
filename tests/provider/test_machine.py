"""A machine that somebody else made: whether it can be used, what identifies it, and how it is given back."""

import os
import subprocess

import pytest
from pulumi_vllm.host.errors import AuthRefused, HostError, HostKeyChanged, Unreachable
from pulumi_vllm.host.facts import Facts
from pulumi_vllm.host.ssh import Result
from pulumi_vllm.plan.own_machine import Store
from pulumi_vllm.provider.lifecycle import own_host
from pulumi_vllm.provider.lifecycle.give_back import give_back
from pulumi_vllm.provider.lifecycle.own_host import Seen, look, owner_text, problems
from pulumi_vllm.provider.plugin.errors import Partial, UserError
from pulumi_vllm.provider.plugin.protocol import UNKNOWN
from pulumi_vllm.provider.plugin.resource import Kind
from pulumi_vllm.provider.resources import machine
from pulumi_vllm.provider.resources.machine import Machine

OWNER = "p/s/machine"
BARE = {
    "os": "debian 12", "os_name": "Debian GNU/Linux 12", "apt": "yes", "python": "3.11", "systemd": "yes",
    "processor": "x86_64",
    "haproxy": "inactive|disabled|HAProxy Load Balancer", "path_type": "ext2/ext3",
}  # fmt: skip
GATEWAY = "HAProxy gateway for vLLM (TLS)"
PATH, DEVICE = Store(path="/data/llm"), Store(device="/dev/vdb")
DISK = BARE | {"device": "block", "device_content": "-blank-"}
INPUTS = {
    "address": "192.0.2.7", "port": 22, "user": "root", "privateKey": "never used", "storePath": "/data/llm",
    "drainTimeoutS": 5, "observed": "yes", "unreachable": "error", "mounted": True, "differences": {},
}  # fmt: skip


def found(store=PATH, **values):
    return problems(Seen((DISK if store.device else BARE) | values), OWNER, store)


@pytest.mark.parametrize("store", [PATH, DEVICE])
def test_a_bare_machine_can_be_used(store):
    assert found(store) == ()
    # So can one that this server has used before.
    ours = {"owner": OWNER, "foreign": "/etc/pulumi-vllm", "models": "mounted", "user": "/var/lib/vllm"}
    gateway = {"haproxy": f"active|enabled|{GATEWAY}", "listening": "01BB 1F40 20D5"}
    assert found(store, **ours, **gateway, device_content="ext4", device_mounts="/models") == ()
    assert found(store, ufw="open", firewalld="open public") == ()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"apt": "", "os_name": "Fedora Linux 41"},
            "it runs Fedora Linux 41 without apt; use Debian 12",
        ),
        (
            {"apt": "", "systemd": "", "os_name": "Alpine Linux v3.22"},
            "Alpine Linux v3.22 without apt and systemd; use",
        ),
        ({"systemd": ""}, "without systemd"),
        ({"python": ""}, "run `apt-get install python3` on it"),
        (
            {"python": "3.9", "os_name": "Debian GNU/Linux 11"},
            "it runs Debian GNU/Linux 11 with Python 3.9, and 3.10 is",
        ),
        ({"processor": "aarch64"}, "its processor is aarch64, for which no engine is locked"),
        ({"owner": "p/other/machine"}, "it serves for p/other/machine; destroy that server"),
        (
            {"owner": "p/other/machine", "models": "mounted"},
            "it serves for p/other/machine; destroy that server",
        ),
        (
            {"foreign": "/etc/pulumi-vllm", "models": "mounted", "haproxy": f"active|enabled|{GATEWAY}"},
            "it was rented by another stack and serves for it",
        ),
        ({"foreign": "/opt/vllm"}, "/opt/vllm exists on it and would be overwritten"),
        ({"user": "/home/vllm"}, "its user vllm has the home /home/vllm"),
        ({"haproxy": "active|enabled|HAProxy Load Balancer"}, "it has an HAProxy of its own"),
        ({"haproxy": "inactive|enabled|HAProxy Load Balancer"}, "it has an HAProxy of its own"),
        ({"listening": "0016 01BB"}, "something listens on port 443, which the gateway needs"),
        ({"listening": "1F40"}, "something listens on port 8000, which vLLM needs"),
        ({"ufw": "closed"}, "run `ufw allow 443/tcp`"),
        ({"firewalld": "closed dmz"}, "run `firewall-cmd --zone=dmz --add-port=443/tcp && firewall-cmd"),
        ({"forwarded": "tcp dport 443 dnat to 172.17.0.2:80"}, "its firewall forwards port 443"),
        ({"models": "foreign"}, "/models is in use there"),
        ({"models": "mounted"}, "/models is in use there"),
        ({"path": "regular file"}, "server.storage.path: /data/llm is a regular file on the host"),
        ({"path_type": "tmpfs"}, "server.storage.path: /data/llm is in memory (tmpfs)"),
    ],
)
def test_what_would_be_broken_is_refused(values, sentence):
    (problem,) = found(**values)
    assert sentence in problem


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"device": ""}, "server.storage.device: /dev/vdb is no block device of the host"),
        ({"device_mounts": "/srv"}, "is mounted on /srv; write {path: /srv/llm} instead"),
        ({"device_parts": "vdb1"}, "has partitions or belongs to a volume group (vdb1)"),
        ({"device_content": "crypto_LUKS"}, "holds crypto_LUKS, and is neither blank nor ext4 or xfs"),
        ({"device_content": ""}, "holds content of an unknown kind"),
    ],
)
def test_a_device_with_other_content_is_refused(values, sentence):
    (problem,) = found(DEVICE, **values)
    assert sentence in problem


def test_another_system_is_only_warned_of():
    (warning,) = own_host.warnings(Seen(BARE | {"os": "linuxmint 22", "os_name": "Linux Mint 22"}))
    assert "runs Linux Mint 22, on which nothing was tried; better use Debian 12" in warning
    assert not list(own_host.warnings(Seen(BARE | {"os": "debian 13"})))


@pytest.mark.parametrize("python", ["3.10", "3.13"])
def test_every_python_from_that_of_ubuntu_22_04_on_can_be_used(python):
    assert found(python=python) == ()


def test_the_owner_is_one_line_without_quotes():
    assert owner_text("p'", 's"\n', "m") == 'p/s\\"\\n/m'


class Host:
    """A host that runs the look here, and only notes everything else."""

    def __init__(self):
        self.ran, self.failing, self.host_key, self.looked = [], "", "ssh-ed25519 HOST", None

    async def run(self, script, **_):
        self.ran.append(script)
        if self.failing and self.failing in script:
            raise HostError("root@192.0.2.7: it failed")
        if "say os" in script:
            shown = self.looked or BARE
            return Result("".join(f"{name}={value}\n" for name, value in shown.items()), "", 0)
        return Result("1\n", "", 0)

    async def put(self, files):
        self.ran += [file.path for file in files]


class Pool:
    """The connections of a session: to one host, or the reason why there is none."""

    def __init__(self, host):
        self.host, self.asked = host, []

    async def get(self, address, _key, host_key):
        self.asked.append((str(address), host_key))
        if isinstance(self.host, Exception):
            raise self.host
        return self.host

    async def facts(self, _host, **_):
        return Facts.parse({"probe": 1, "gpus": [["NVIDIA H100", "81559", "GPU-1", "580.1"]]})

    def mark_changed(self, _host):
        return


@pytest.fixture
def pool(call, monkeypatch):
    made = Pool(Host())
    monkeypatch.setattr(call[0].session, "hosts", lambda: made)
    return made


class Here:
    """This computer, with other programs before its own."""

    def __init__(self, programs=""):
        self.environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}:/usr/sbin:/sbin"}

    async def run(self, script, **_):
        done = subprocess.run(  # noqa: ASYNC221 (it takes less than a second)
            ["bash", "-euc", script], text=True, capture_output=True, check=True, env=self.environment
        )
        return Result(done.stdout, done.stderr, 0)


async def test_the_look_runs_on_a_real_system(tmp_path):
    (tmp_path / "file").touch()
    seen = await look(Here(), Store(path=str(tmp_path / "file")))
    assert seen["apt"] == "yes"
    assert seen["os"].split()[0] in {"debian", "ubuntu"}
    assert seen["path"] == "regular empty file"
    assert (await look(Here(), Store(device="/dev/null")))["device"] == ""
    seen = await look(Here(), Store(path=str(tmp_path / "new" / "folder")))
    assert seen["path"] == ""
    assert seen["path_type"]


async def test_it_is_taken_and_observed(call, pool):
    resource_id, outputs = await Machine().create(call[0], INPUTS)
    assert resource_id.startswith("own-")
    assert outputs["pinnedHostKey"] == "ssh-ed25519 HOST"
    assert (outputs["gpus"], outputs["driver"], outputs["source"]) == (["NVIDIA H100"], "580.1", "/data/llm")
    assert not any("mkfs" in script for script in pool.host.ran)


async def test_a_machine_that_boots_is_waited_for(call, pool, monkeypatch):
    monkeypatch.setattr(machine, "_PAUSES_S", (0.01,))
    booted, answers = pool.host, iter([Unreachable("it boots"), AuthRefused("no key yet")])

    class Booting(Pool):
        async def get(self, *words):
            self.host = next(answers, booted)
            return await super().get(*words)

    pool = Booting(booted)
    monkeypatch.setattr(call[0].session, "hosts", lambda: pool)
    call[0].timeout_s = 5
    await Machine().create(call[0], INPUTS)
    assert "cloud-init status --wait" in booted.ran[0]
    call[0].timeout_s = 0.05
    pool = Pool(Unreachable("root@192.0.2.7: can't be reached"))
    with pytest.raises(UserError, match=r"can't be reached; gave up after .* s; check address, port, user"):
        await Machine().create(call[0], INPUTS)
    pool = Pool(HostKeyChanged("root@192.0.2.7: shows another host key"))
    with pytest.raises(HostKeyChanged):
        await Machine().create(call[0], INPUTS)


async def test_a_blank_device_is_formatted_and_another_one_is_not(call, pool):
    device = {name: value for name, value in INPUTS.items() if name != "storePath"} | {
        "storeDevice": "/dev/vdb"
    }
    for content in ("-blank-", "ext4"):
        pool.host.looked, pool.host.ran = DISK | {"device_content": content}, []
        await Machine().create(call[0], device)
        formatted = [script for script in pool.host.ran if script.startswith("mkfs.ext4")]
        assert bool(formatted) == (content == "-blank-")
        assert all("/dev/vdb" in script for script in formatted)


async def test_an_unfit_machine_is_refused_with_every_reason_and_not_touched(call, pool):
    pool.host.looked = BARE | {"python": "", "listening": "01BB"}
    for work in (Machine().preview(call[0], INPUTS), Machine().create(call[0], INPUTS)):
        with pytest.raises(
            UserError, match=r"nothing on it was changed:\n  \* it has no /usr/bin/python3.*\n  \* something"
        ):
            await work
    assert not any(
        word in script for script in pool.host.ran for word in ("mkfs", "install -d", "systemctl start")
    )


async def test_a_failed_start_stays_in_the_state(call, pool):
    pool.host.failing = "systemctl enable -q models.mount"
    with pytest.raises(Partial) as failure:
        await Machine().create(call[0], INPUTS)
    assert failure.value.resource_id.startswith("own-")
    assert failure.value.outputs["pinnedHostKey"] == "ssh-ed25519 HOST"


async def test_a_preview_looks_only_where_the_address_is_known(call, pool):
    assert await Machine().preview(call[0], INPUTS | {"address": UNKNOWN}) == {}
    assert pool.asked == []
    assert await Machine().preview(call[0], INPUTS | {"hostKey": "ssh-ed25519 K"}) == {
        "pinnedHostKey": "ssh-ed25519 K"
    }
    assert pool.asked == [("root@192.0.2.7", "ssh-ed25519 K")]
    pool.host = Unreachable("root@192.0.2.7: can't be reached")
    with pytest.raises(
        UserError, match=r"^machine: .* can't be reached; check address, port, user and private key"
    ):
        await Machine().preview(call[0], INPUTS)


async def test_another_machine_is_looked_at_before_the_present_one_is_given_up(call, pool):
    await Machine().before_replacement(call[0], INPUTS | {"address": UNKNOWN})
    assert pool.asked == []
    pool.host.looked = BARE | {"listening": "01BB"}
    with pytest.raises(UserError, match="something listens on port 443"):
        await Machine().before_replacement(call[0], INPUTS)
    pool.host = Unreachable("root@192.0.2.7: it boots")
    await Machine().before_replacement(call[0], INPUTS)


async def test_one_place_is_needed(call):
    both = INPUTS | {"storeDevice": "/dev/vdb"}
    neither = {name: value for name, value in INPUTS.items() if name != "storePath"}
    for wrong in (both, neither):
        (failure,) = await Machine().check(call[0], dict(wrong), None)
        assert failure.reason == "set this or storeDevice, and not both"
    assert await Machine().check(call[0], dict(INPUTS), None) == []


@pytest.mark.parametrize(
    ("before", "after", "kinds"),
    [
        ({"triggers": ["i-1"]}, {"triggers": ["i-2"]}, {"triggers": Kind.REPLACE}),
        ({"hostKey": "K1"}, {"hostKey": "K2"}, {"hostKey": Kind.REPLACE}),
        ({}, {"hostKey": "K1"}, {"hostKey": Kind.ADD}),
        ({"hostKey": "K1"}, {}, {}),
        ({}, {"address": "192.0.2.8"}, {"address": Kind.REPLACE}),
        ({}, {"storePath": "/other"}, {"storePath": Kind.REPLACE}),
        ({}, {"user": "ubuntu"}, {"user": Kind.UPDATE}),
        ({}, {"privateKey": "another"}, {"privateKey": Kind.UPDATE}),
        ({}, {"drainTimeoutS": 60}, {}),
    ],
)
def test_what_another_value_does(before, after, kinds):
    assert Machine().compare(INPUTS | before, INPUTS | after) == kinds


async def test_the_pinned_key_counts_until_the_program_gives_one(call, pool):
    state = {"pinnedHostKey": "ssh-ed25519 HOST"}
    reading = await Machine().read(call[0], "own-1", INPUTS | state, INPUTS)
    assert pool.asked[-1] == ("root@192.0.2.7", "ssh-ed25519 HOST")
    assert reading.outputs["driver"] == "580.1"
    assert reading.inputs["mounted"] is False
    await Machine().change(call[0], "own-1", INPUTS | state, INPUTS | {"hostKey": "ssh-ed25519 K"})
    assert ("root@192.0.2.7", "ssh-ed25519 K") in pool.asked


async def test_blind_is_not_clean_and_another_host_key_is_an_error(call, pool):
    pool.host = Unreachable("root@192.0.2.7: can't be reached")
    reading = await Machine().read(call[0], "own-1", INPUTS, INPUTS)
    assert reading.inputs["observed"].startswith("no: ")
    assert Machine().compare(reading.inputs, INPUTS) == {"observed": Kind.UPDATE}
    pool.host = HostKeyChanged("root@192.0.2.7: shows another host key")
    reading = await Machine().read(call[0], "own-1", INPUTS, INPUTS | {"unreachable": "warn"})
    with pytest.raises(UserError, match="shows another host key"):
        await Machine().preview_update(call[0], reading.inputs, INPUTS | {"unreachable": "warn"})


async def test_it_is_given_back_and_runs_on(call, pool):
    await Machine().delete(call[0], "own-1", INPUTS)
    (script,) = pool.host.ran
    assert "poweroff" not in script
    assert "/data" not in script
    assert any("the machine runs on" in line for line in call[1])


async def test_one_that_does_not_answer_is_not_forgotten(call, pool):
    pool.host = Unreachable("root@192.0.2.7: can't be reached")
    with pytest.raises(UserError, match="vLLM may still run on the machine"):
        await Machine().delete(call[0], "own-1", INPUTS)
    await Machine().delete(call[0], "own-1", INPUTS | {"unreachable": "warn"})
    # Another machine takes its place, as after somebody has ended this one.
    await Machine().check(call[0], dict(INPUTS), dict(INPUTS))
    await Machine().delete(call[0], "own-1", INPUTS)
    assert sum("vLLM was not removed" in line for line in call[1]) == 1  # warnings are shown once


async def test_a_store_that_is_in_use_stops_the_give_back():
    host = Host()
    host.failing = "still mounted"
    with pytest.raises(HostError):
        await give_back(host, 5)
