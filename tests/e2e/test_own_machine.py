"""A machine that somebody else made: served, looked at, changed, adopted and given back, with what was on it."""

import re
import shutil

import pytest
import somebody
from harness import REGIONS, REPOSITORY, Project, answers, other_releases, wait_for
from somebody import BOOT, LEFT, own_stack

BEFORE = """
nft add table inet others
nft add chain inet others input '{ type filter hook input priority 10; policy accept; }'
nft add rule inet others input tcp dport 9999 drop
systemd-run -q --unit=others python3 -m http.server 9090
mkdir -p /data && echo mine > /data/mine
"""
UNITS = "systemctl list-unit-files --no-legend 'vllm*' models.mount haproxy.service | awk '{print $1, $2}'"


@pytest.fixture(
    params=["", *(pytest.param(one, marks=pytest.mark.all) for one in other_releases(usable=True))]
)
def machine(clouds, tmp_path, request):
    """Return a machine with the release of this computer, and with others that can be used."""
    made = somebody.make(clouds("fake", request.param), tmp_path / "owner", REGIONS["share"], "somebody")
    yield made
    made.end()


def test_the_life_of_a_server_on_it(machine, tmp_path):
    machine.run(BEFORE)
    project = Project(
        tmp_path / "p", machine.cloud, own_stack(), "own", main=REPOSITORY / "examples" / "bare-metal"
    )
    # No cloud rents this machine, so no key of one is needed.
    del project.environment["SPHERON_API_KEY"]
    project.write(own_stack(), **{"pulumi-vllm:host": machine.host()})
    # An HAProxy of its own is recognised in the preview already, and left alone.
    machine.run("systemctl enable -q --now haproxy")
    refused = project.pulumi("preview", check=False)
    assert refused.returncode
    assert "it has an HAProxy of its own" in refused.stdout
    assert machine.run("systemctl is-active haproxy").strip() == "active"
    machine.run("systemctl disable -q --now haproxy")
    # Neither the state nor what the engine prints holds the private key.
    secret = machine.key_file.read_text().splitlines()[2]
    assert secret not in project.pulumi("preview").stdout
    up = project.up()
    assert secret not in up
    assert secret not in project.pulumi("stack", "export").stdout
    assert answers(project, tmp_path)
    assert project.outputs()["usd_per_hour"] == 0.5
    assert set(project.changes()) == {"same"}
    # What was there goes on.
    assert "tcp dport 9999 drop" in machine.run("nft list ruleset")
    assert "Directory listing" in machine.run("curl -s localhost:9090")
    assert machine.run("findmnt -no FSROOT /models").strip().endswith("/data/llm")
    assert " ssh" not in machine.run("nft list table inet pulumi_vllm")

    # Drift is shown, and goes with the next change.
    machine.run("systemctl stop haproxy; umount -l /models")
    project.write(own_stack(concurrency=4), **{"pulumi-vllm:host": machine.host()})
    shown = project.pulumi("preview", "--diff").stdout
    assert "/models is not mounted on the host" in shown
    assert "haproxy.service is inactive" in shown
    project.up()
    assert answers(project, tmp_path)
    assert "--max-num-seqs 4" in machine.run("cat /etc/systemd/system/vllm.service")

    # A server of another stack takes nothing over; the same one finds everything again after it has lost its state.
    shutil.rmtree(project.folder / "state")
    (project.folder / "state").mkdir()
    project.pulumi("stack", "init", project.stack)
    machine.run("sed -i s/pulumi-vllm/others/ /var/lib/pulumi-vllm/owner")
    refused = project.pulumi("preview", check=False)
    assert "it serves for others/own/llm-machine" in refused.stdout
    machine.run("sed -i s/others/pulumi-vllm/ /var/lib/pulumi-vllm/owner")
    process = machine.run("systemctl show -P MainPID vllm")
    project.up()
    assert answers(project, tmp_path)
    assert machine.run("systemctl show -P MainPID vllm") == process

    destroyed = project.destroy()
    assert "the machine runs on" in destroyed
    assert machine.run(LEFT).split() == []
    assert machine.run("nft list tables").strip() == "table inet others"
    assert machine.run("cat /data/mine").strip() == "mine"
    assert ".safetensors" in machine.run("find /data/llm/weights -name '*.safetensors'")
    states = dict(line.split() for line in machine.run(UNITS).splitlines())
    assert set(states) <= {"haproxy.service"}
    assert machine.run("systemctl is-active haproxy || true").strip() == "inactive"


@pytest.mark.all
@pytest.mark.parametrize("release", other_releases(usable=False))
def test_a_release_that_is_too_old_is_refused(clouds, tmp_path, release):
    machine = somebody.make(clouds("fake", release), tmp_path / "owner", REGIONS["share"], "old")
    project = Project(
        tmp_path / "p", machine.cloud, own_stack(), "own", main=REPOSITORY / "examples" / "bare-metal"
    )
    project.write(own_stack(), **{"pulumi-vllm:host": machine.host()})
    on_it = f"{LEFT}; id vllm 2>&1 || true; dpkg -l | sha256sum; find /etc | sha256sum"
    before = machine.run(on_it)
    for words in (("preview",), ("up", "--yes", "--skip-preview")):
        refused = project.pulumi(*words, check=False)
        assert refused.returncode
        assert re.search(
            r"with Python 3\.\d, and 3\.10 is the oldest that works; use Debian 12", refused.stdout
        )
    assert machine.run(on_it) == before
    machine.end()


@pytest.mark.all
def test_a_device_a_reboot_another_host_key_and_the_end(clouds, tmp_path):
    cloud = clouds("fake")
    machine = somebody.make(cloud, tmp_path / "owner", REGIONS["block"], "somebodys-disk")
    somebody.attach_disk(machine, REGIONS["block"], "somebodys-volume")
    assert machine.user == "root"
    stack = own_stack() | {"storage": {"device": "/dev/vdb"}}
    host = machine.host(triggers=["first"])
    project = Project(tmp_path / "p", cloud, stack, "disk", main=REPOSITORY / "examples" / "bare-metal")
    project.write(stack, **{"pulumi-vllm:host": host})
    assert "formatting /dev/vdb (blank) as ext4" in project.up()
    assert machine.run("findmnt -no SOURCE /models").strip() == "/dev/vdb"
    before = machine.run(BOOT)
    machine.run("systemd-run -q --on-active=0.1 systemctl reboot")
    wait_for(lambda: machine.run(BOOT, check=False) not in {"", before}, 120, "boot")
    wait_for(lambda: answers(project, tmp_path), 180, "answered chat")
    assert set(project.changes()) == {"same"}

    # The program says that it is another machine: it is given back, and taken again with what is on its disk.
    project.write(stack, **{"pulumi-vllm:host": host | {"triggers": ["second"]}})
    up = project.up()
    assert "formatting" not in up
    assert answers(project, tmp_path)

    # Another host key is an error, whatever the stack file says.
    machine.run("rm /etc/ssh/ssh_host_*; ssh-keygen -A; systemctl restart ssh")
    project.write(stack | {"unreachable": "warn"}, **{"pulumi-vllm:host": host | {"triggers": ["second"]}})
    shown = project.pulumi("preview", check=False)
    assert shown.returncode
    assert "shows another host key than the pinned one" in shown.stdout
    project.write(stack, **{"pulumi-vllm:host": host | {"triggers": ["third"]}})
    project.up()
    assert answers(project, tmp_path)

    # Somebody ends it. Blind is not clean, and nothing is forgotten.
    machine.end()
    wait_for(lambda: machine.run("true; echo in", check=False).strip() != "in", 60, "end")
    assert project.pulumi("preview", "--expect-no-changes", check=False).returncode
    assert "vLLM may still run on the machine" in project.pulumi("destroy", "--yes", check=False).stdout
