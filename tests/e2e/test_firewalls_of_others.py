"""A machine that somebody else made, with the real ufw, firewalld and Docker of Debian on it."""

import asyncio
import contextlib
import socket

import pytest
import somebody
from harness import REGIONS, REPOSITORY, Project, answers, other_releases, wait_for
from pulumi_vllm.host.ssh import Result
from pulumi_vllm.plan.own_machine import Store
from pulumi_vllm.provider.lifecycle.own_host import look
from somebody import BOOT, LEFT, own_stack

pytestmark = pytest.mark.all

# The rules of everybody but us, and whether anything of ours is there.
RULES = "nft -s list ruleset | awk '/^table inet pulumi_vllm /{ours=1} !ours; /^}/{ours=0}'"
LISTEN = "systemd-run -q --unit=listen python3 -m http.server"
UNITS = "systemctl list-unit-files --state=enabled,disabled"
STATE = f"{RULES}; {LEFT}; id vllm 2>&1 || true; dpkg -l | sha256sum; {UNITS} | sha256sum"
# What an owner may write, and whether port 443 is open for this computer then.
UFW_RULES = {
    "allow 443/tcp": True, "allow https": True, "allow 80,443,8000:9000/tcp": True, "allow 400:500/tcp": True,
    "limit 443/tcp": True, "allow 'WWW Full'": True, "allow in on host0 to any port 443": True,
    "allow proto tcp from {here} to any port 443 comment 'ours, in'": True, "default allow incoming": True,
    "deny 443/tcp": False, "allow out 443/tcp": False, "allow in on lo": False, "route allow 443/tcp": False,
    "allow 443/udp": False, "allow from any port 443": False, "allow 4430/tcp": False, "allow 'WWW Cache'": False,
    "default allow incoming && ufw deny 443": False,
}  # fmt: skip
FIREWALLD_RULES = {
    "--add-port=443/tcp": True, "--add-port=400-500/tcp": True, "--add-service=https": True,
    "--add-rich-rule='rule family=ipv4 source address={here} port port=443 protocol=tcp accept'": True,
    "--add-rich-rule='rule family=ipv4 source address={here} accept'": True,
    "--zone=trusted --add-interface=host0": True,
    "--zone=internal --add-interface=host0 && firewall-cmd -q --zone=internal --add-port=443/tcp": True,
    "--zone=internal --add-interface=host0 && firewall-cmd -q --add-port=443/tcp": False,
    "--add-rich-rule='rule family=ipv4 source address={here} port port=22 protocol=tcp accept'": False,
    "--add-port=443/udp": False, "--add-service=http": False,
}  # fmt: skip


class Owner:
    """Runs the look as the owner of the machine does."""

    def __init__(self, machine):
        self.machine = machine

    async def run(self, script):
        return Result(self.machine.run(script), "", 0)


@pytest.fixture(params=["", *other_releases(usable=True)])
def machine(clouds, tmp_path, request):
    name = request.node.originalname.replace("_", "-")[:30]
    made = somebody.make(clouds("fake", request.param), tmp_path / "owner", REGIONS["share"], name)
    yield made
    made.end()


@pytest.fixture
def project(machine, tmp_path):
    made = Project(
        tmp_path / "p", machine.cloud, own_stack(), "own", main=REPOSITORY / "examples" / "bare-metal"
    )
    made.write(own_stack(), **{"pulumi-vllm:host": machine.host()})
    return made


def seen(machine, name: str) -> str:
    return asyncio.run(look(Owner(machine), Store(path="/data/llm")))[name].partition(" ")[0]


def connects(machine, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((machine.address, port), timeout=1):
        return True
    return False


def here(machine) -> str:
    return machine.run("ip -o route get 192.0.2.1").split(" via ")[1].split()[0]


def check_rules(machine, name: str, rules: dict[str, bool], command: str, reset: str) -> None:
    """Compare what the look says about a rule with whether the port can be reached."""
    machine.run(f"{LISTEN} 443")
    wait_for(lambda: machine.run("ss -ltnH sport = :443"), 10, "listener")
    wrong = {}
    for rule, reachable in rules.items():
        machine.run(f"{command} {rule.format(here=here(machine))} >&2")
        found = (seen(machine, name) == "open", connects(machine, 443))
        if found != (reachable, reachable):
            wrong[rule] = found
        machine.run(f"{reset} >&2")
    machine.run("systemctl stop listen")
    assert not wrong


def check_refused(machine, project, remedy: str) -> None:
    """A preview says the remedy, and changes nothing on the host."""
    before = machine.run(STATE)
    refused = project.pulumi("preview", check=False)
    assert refused.returncode
    assert remedy in " ".join(refused.stdout.split())
    assert machine.run(STATE) == before


def serve(machine, project, folder) -> str:
    """Serve, and return the rules that others have on the host."""
    before = machine.run(RULES)
    project.up()
    assert answers(project, folder)
    assert machine.run(RULES) == before
    assert set(project.changes()) == {"same"}
    return before


def test_ufw(machine, project, tmp_path):
    machine.install("ufw")
    reset = "{ ufw --force reset; ufw default deny incoming; ufw allow 22/tcp; ufw --force enable; }"
    machine.run(f"{reset} >&2")
    check_rules(machine, "ufw", UFW_RULES, "ufw", reset)
    machine.run(f"{LISTEN} 9090")
    check_refused(machine, project, "run `ufw allow 443/tcp`")
    machine.run("ufw allow 443/tcp >&2")
    rules = serve(machine, project, tmp_path)
    # The port that ufw closes stays closed, and ufw and ours go on together.
    assert not connects(machine, 9090)
    machine.run("ufw reload >&2; systemctl restart ufw")
    assert machine.run(RULES) == rules
    assert answers(project, tmp_path)
    project.destroy()
    assert machine.run(RULES) == rules
    assert "Status: active" in machine.run("ufw status")
    assert not connects(machine, 9090)


OF_OWNER = """#!/usr/sbin/nft -f
flush ruleset
table inet owners {
    chain input { type filter hook input priority 10; policy accept; tcp dport 9090 drop; }
}
"""
# What is loaded when the gateway has stopped.
WHEN_STOPPED = """
mkdir /etc/systemd/system/haproxy.service.d
printf '[Service]\nExecStopPost=+/bin/sh -c "nft list tables > /var/lib/when-stopped"\n' \
  > /etc/systemd/system/haproxy.service.d/test.conf
systemctl daemon-reload
systemctl stop haproxy && systemctl start haproxy && rm /var/lib/when-stopped
systemd-run -q --on-active=0.1 systemctl reboot
"""


def test_nftables(machine, project, tmp_path):
    machine.run(f"cat > /etc/nftables.conf <<'END'\n{OF_OWNER}END\nsystemctl enable -q --now nftables")
    machine.run(f"{LISTEN} 9090")
    rules = serve(machine, project, tmp_path)
    assert not connects(machine, 9090)
    # The service flushes all rules, and ours are there again, and go on until the gateway has stopped.
    for verb in ("restart", "reload"):
        machine.run(f"systemctl {verb} nftables")
        assert machine.run(RULES) == rules
        assert "table inet pulumi_vllm" in machine.run("nft list tables")
        assert answers(project, tmp_path)
    assert set(project.changes()) == {"same"}
    before = machine.run(BOOT)
    machine.run(WHEN_STOPPED)
    wait_for(lambda: machine.run(BOOT, check=False) not in {"", before}, 120, "boot")
    assert "table inet pulumi_vllm" in machine.run("cat /var/lib/when-stopped")
    wait_for(lambda: answers(project, tmp_path), 180, "answered chat")
    assert "table inet pulumi_vllm" in machine.run("nft list tables")
    project.destroy()
    assert machine.run(RULES) == rules
    assert machine.run("nft list tables").split() == ["table", "inet", "owners"]


def test_firewalld(machine, project, tmp_path):
    machine.run("dpkg -r cloud-init >&2")  # firewalld of Debian 13 conflicts with it
    machine.install("firewalld")
    machine.run("systemctl is-active -q firewalld")
    check_rules(machine, "firewalld", FIREWALLD_RULES, "firewall-cmd -q", "firewall-cmd -q --reload")
    machine.run(f"{LISTEN} 9090")
    check_refused(machine, project, "does not admit port 443 in zone public; run `firewall-cmd --zone=public")
    forwarded = "firewall-cmd -q --add-forward-port=port=443:proto=tcp:toport=9090"
    machine.run(f"{forwarded}; firewall-cmd -q --add-port=443/tcp")
    check_refused(machine, project, "its firewall forwards port 443, which the gateway needs")
    machine.run("firewall-cmd -q --reload")
    # The remedy is one for the zone of the machine's interface.
    machine.run("firewall-cmd -q --zone=internal --add-interface=host0")
    command = "firewall-cmd --zone=internal --add-port=443/tcp"
    remedy = f"{command} && {command} --permanent"
    check_refused(machine, project, remedy)
    machine.run(f"{{ {remedy}; firewall-cmd --permanent --zone=internal --add-interface=host0; }} >&2")
    rules = serve(machine, project, tmp_path)
    assert not connects(machine, 9090)
    for again in ("firewall-cmd -q --reload", "systemctl restart firewalld"):
        machine.run(again)
        assert sorted(machine.run(RULES).splitlines()) == sorted(rules.splitlines())
        assert answers(project, tmp_path)
    project.destroy()
    assert sorted(machine.run(RULES).splitlines()) == sorted(rules.splitlines())
    assert machine.run("firewall-cmd --state").strip() == "running"
    assert not connects(machine, 9090)


# What dockerd runs and adds for `docker run -p PORT:80`. The containers themselves do not start on a machine of the
# local cloud, because runc may not load its filter of devices there, so a namespace with a server takes their place.
CONTAINER = """
ip netns add web
ip link add web0 type veth peer name eth0 netns web
ip link set web0 master docker0 up
ip -n web addr add 172.17.0.2/16 dev eth0
ip -n web link set eth0 up
ip -n web route add default via 172.17.0.1
systemd-run -q --unit=web -p NetworkNamespacePath=/run/netns/web python3 -m http.server 80
"""
FORWARD = """
iptables -t nat -A DOCKER -p tcp --dport {port} -j DNAT --to-destination 172.17.0.2:80 ! -i docker0
iptables -A DOCKER ! -i docker0 -o docker0 -p tcp -d 172.17.0.2 --dport 80 -j ACCEPT
"""
PROXY = """
systemd-run -q --unit=proxy-{port} sh -c 'exec docker-proxy -proto tcp -host-ip 0.0.0.0 -host-port {port} \
  -container-ip 172.17.0.2 -container-port 80 3>/dev/null'
"""


# Releases divide Docker into packages in different ways.
@pytest.mark.parametrize("machine", [""], indirect=True)
def test_docker(machine, project, tmp_path):
    machine.install("docker.io")
    machine.run("systemctl is-active -q docker")
    assert "Server Version" in machine.run("docker info 2>&1")
    machine.run(CONTAINER + FORWARD.format(port=443))
    wait_for(lambda: connects(machine, 443), 20, "container")
    check_refused(machine, project, "its firewall forwards port 443, which the gateway needs")
    machine.run("iptables -t nat -D DOCKER 2")
    machine.run(PROXY.format(port=443))
    wait_for(lambda: connects(machine, 443), 20, "container")
    check_refused(machine, project, "something listens on port 443, which the gateway needs")
    machine.run("systemctl stop proxy-443")
    machine.run(FORWARD.format(port=8080) + PROXY.format(port=8080))
    wait_for(lambda: connects(machine, 8080), 20, "container")
    rules = serve(machine, project, tmp_path)
    assert "dport 8080" in rules
    assert connects(machine, 8080)
    # A container of another day reaches the network through Docker's rules, and dockerd starts with ours in place.
    machine.run("docker network create other >&2")
    machine.run("systemctl restart docker")
    assert connects(machine, 8080)
    assert answers(project, tmp_path)
    rules = machine.run(RULES)
    project.destroy()
    assert machine.run(RULES) == rules
    assert connects(machine, 8080)
    assert machine.run("systemctl is-active docker").strip() == "active"
