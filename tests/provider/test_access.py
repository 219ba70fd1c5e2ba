"""The address from which a host is managed, compared with the ranges that its firewall admits."""

import pytest
from pulumi_vllm.host.errors import HostKeyChanged
from pulumi_vllm.provider.lifecycle.access import Access, way_back
from pulumi_vllm.provider.lifecycle.host_connection import observe
from pulumi_vllm.provider.plugin.errors import UserError
from pulumi_vllm.provider.plugin.protocol import UNKNOWN
from pulumi_vllm.provider.resources.files import Files
from pulumi_vllm.render import layout
from scripted_host import CONNECTION, Call, Host

RULES = {
    "files": {layout.FIREWALL_RULES: "table inet pulumi_vllm {}\n"},
    "attributes": {layout.FIREWALL_RULES: "0644 root:root"},
    "actions": {layout.FIREWALL_RULES: f"reload {layout.FIREWALL_UNIT}"},
}
LOCKED_OUT = [
    (["9.9.9.0/24"], None, "10.0.0.5", "allow[1]' 10.0.0.5/32"),
    (["9.9.9.0/24", "8.8.8.8/32"], None, "9.9.10.1", "allow[2]' 9.9.10.1/32"),
    (["0.0.0.0/0"], ["9.9.9.0/24"], "10.0.0.5", "ssh_allow[1]' 10.0.0.5/32"),
    (["0.0.0.0/0"], None, "2620:fe::1", "allow[1]' 2620:fe::1/128"),
    (["::/0"], None, "10.0.0.5", "allow[1]' 10.0.0.5/32"),
]
ADMITTED = [
    (["9.9.9.0/24"], None, "9.9.9.7"),
    (["9.9.9.0/24"], ["10.0.0.0/8"], "10.0.0.5"),
    (["2620:fe::/48"], None, "2620:fe::1%eth0"),
    (["9.9.9.0/24"], [], "10.0.0.5"),  # nobody may reach SSH, explicitly
    (["9.9.9.0/24"], None, "127.0.0.1"),  # through a tunnel that ends on the host
    (["9.9.9.0/24"], None, ""),  # the SSH server does not say; the trial proves it
]


def declared(allow, ssh_allow):
    return {"access": {"allow": allow} | ({} if ssh_allow is None else {"sshAllow": ssh_allow})}


@pytest.mark.parametrize(("allow", "ssh_allow", "client", "command"), LOCKED_OUT)
def test_a_lock_out_names_both_values_and_the_command(allow, ssh_allow, client, command):
    reason = Access.from_values(declared(allow, ssh_allow)).locks_out(client)
    key = "allow" if ssh_allow is None else "ssh_allow"
    assert reason == (
        f"server.access.{key} admits {', '.join(ssh_allow or allow)} to SSH, but the host sees this "
        f"computer as {client}; admit it with: pulumi config set --path 'pulumi-vllm:server.access.{command}"
    )


@pytest.mark.parametrize(("allow", "ssh_allow", "client"), ADMITTED)
def test_an_admitted_address_is_no_lock_out(allow, ssh_allow, client):
    assert Access.from_values(declared(allow, ssh_allow)).locks_out(client) is None


@pytest.mark.parametrize("access", [None, {}, {"allow": []}, {"allow": UNKNOWN}, {"allow": [UNKNOWN]}])
def test_without_known_ranges_nothing_is_compared(access):
    assert Access.from_values({"access": access}) is None


async def test_files_refuse_a_lock_out_before_anything_is_written():
    host = Host()
    host.client = "10.0.0.5"
    with pytest.raises(
        UserError, match=r"^server-resource: these firewall rules would lock this computer out"
    ):
        await Files().create(Call(host), {**CONNECTION, **RULES, **declared(["9.9.9.0/24"], None)})
    assert host.written == []


async def test_a_preview_warns_of_rules_that_up_refuses():
    call, old = Call(Host()), {**CONNECTION, **RULES, **declared(["10.0.0.0/8"], None)}
    call.host.client = "10.0.0.5"
    await Files().preview_update(call, old, old)
    assert call.lines == []
    await Files().preview_update(call, old, old | declared(["9.9.9.0/24"], None))
    (line,) = call.lines
    assert line.startswith(
        "server-resource: `pulumi up` refuses these firewall rules: server.access.allow admits"
    )
    call.host, call.lines = None, []
    await Files().preview_update(call, old, old | declared(["9.9.9.0/24"], None))
    assert call.lines == []


@pytest.mark.parametrize("in_use", [True, False])
async def test_rules_in_use_are_loaded_by_a_trial_and_never_reloaded(in_use):
    host = Host(**{"is-active": "yes\nold rules\n" if in_use else "no\n"})
    host.client = "9.9.9.7"
    closed = declared(["9.9.9.0/24"], [])  # without a proof, which needs a second connection
    await Files().create(Call(host), {**CONNECTION, **RULES, **closed})
    ran = [script for script in host.ran if script.startswith(layout.FIREWALL)]
    assert ran == ([f"{layout.FIREWALL} try 60", f"{layout.FIREWALL} keep"] if in_use else [])
    assert not any("reload" in script for script in host.ran)


NARROW = declared(["9.9.9.0/24"], None)
HINT = (
    "; its firewall admits SSH from 9.9.9.0/24 only (server.access.allow): if this computer has another address now, "
    "docs/how-to/regain-access.md says how to get back in without another machine"
)


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        (NARROW, HINT),
        (declared(["0.0.0.0/0"], ["9.9.9.0/24"]), HINT.replace("access.allow", "access.ssh_allow")),
        (
            declared(["9.9.9.0/24"], []),
            "server.access.ssh_allow is empty, so its firewall admits nobody to SSH",
        ),
    ],
)
def test_a_host_that_does_not_answer_has_a_way_back(values, hint):
    assert hint in way_back(values)


@pytest.mark.parametrize("values", [{}, declared(["0.0.0.0/0"], None), declared(["9.9.9.0/24"], ["::/0"])])
def test_a_firewall_that_admits_everybody_is_not_the_reason(values):
    assert way_back(values) == ""


async def test_a_preview_of_a_host_that_does_not_answer_names_the_way_back():
    call = Call(None)
    await observe(call, {**CONNECTION, **NARROW})
    assert call.lines == [
        f"server-resource: root@192.0.2.7: can't be reached{HINT}; showing the state of the last refresh"
    ]
    call.failure, call.lines = HostKeyChanged("root@192.0.2.7: shows another host key"), []
    await observe(call, {**CONNECTION, **NARROW})
    assert "regain-access" not in call.lines[0]
