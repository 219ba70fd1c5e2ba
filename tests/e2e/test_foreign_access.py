"""Rules and accounts that others made on a host, and firewalls that keep this computer out."""

import re


def check_firewall_is_not_compared(project) -> None:
    """A host that permits no network of their own to the rules, as in some containers: not observed, and no failure."""
    project.on_host("mv /usr/bin/unshare /root/unshare; ln -s /bin/false /usr/bin/unshare")
    drift = project.cli("drift", project.stack)
    assert drift.returncode == 3, drift.stdout + drift.stderr
    assert "not observed: server-service: the firewall was not compared with its rules" in drift.stdout
    project.up()
    project.write(project.block | {"unreachable": "warn"})
    project.up()
    assert set(project.changes()) == {"same"}
    project.on_host("mv /root/unshare /usr/bin/unshare")


def accept_forwarding(project) -> None:
    """A deliberate rule blocks no change: `up` does the rest, says so once, and the stack file accepts the rule."""
    rule = "tcp dport 8080 redirect to :443"
    project.on_host(
        "nft add table ip mine; nft add chain ip mine pre '{ type nat hook prerouting priority -100; }'; "
        f"nft add rule ip mine pre {rule}",
    )
    changed = project.block | {"engine": {"flags": {"max-num-batched-tokens": 1024}}}
    project.write(changed)
    refused = project.pulumi("up", "--yes", "--skip-preview", check=False)
    assert refused.returncode
    assert f"forwarded ports pass by our rules: {rule}; `pulumi up` leaves rules" in refused.stdout
    started = project.on_host(
        "systemctl show -P MainPID vllm; tr '\\0' ' ' </proc/$(systemctl show -P MainPID vllm)/cmdline",
    )
    assert "--max-num-batched-tokens 1024" in started
    project.pulumi("up", "--yes", "--skip-preview", check=False)
    assert project.on_host("systemctl show -P MainPID vllm") in started, "vLLM was restarted for nothing"

    access = {"access": project.block["access"] | {"accepted": "8080 is ours"}}
    project.write(changed | access)
    project.up()
    assert set(project.changes()) == {"same"}
    project.on_host("nft add rule ip mine pre tcp dport 8081 redirect to :443")
    assert "by our rules: tcp dport 8081 redirect to :443" in project.pulumi("preview").stdout
    project.on_host("nft delete table ip mine")
    assert set(project.changes()) == {"same"}
    # Another text of `accepted` accepts what differs, so it is taken back before the next step changes anything.
    project.write(project.block)
    project.up()


def accept_access(project) -> None:
    """`up` leaves a foreign sudo rule and says so, until the stack file accepts it."""
    project.on_host("echo 'mallory ALL=(ALL) ALL' > /etc/sudoers.d/mallory")
    sentence = "sudoers file /etc/sudoers.d/mallory is new since the last `pulumi up`: mallory ALL=(ALL) ALL"
    refused = project.pulumi("up", "--yes", "--skip-preview", check=False)
    assert refused.returncode
    assert sentence in refused.stdout
    project.write(project.block | {"access": project.block["access"] | {"accepted": "mallory is one of us"}})
    project.up()
    assert set(project.changes()) == {"same"}
    # What was accepted may not disappear without notice either.
    project.on_host("rm /etc/sudoers.d/mallory")
    assert f"{sentence.partition(' is')[0]} is gone since" in project.pulumi("preview", check=False).stdout
    project.write(project.block)
    project.up()
    assert set(project.changes()) == {"same"}


def check_lock_out_is_refused(project) -> None:
    """Rules that would lock this computer out are refused, and the message names the command that helps."""
    project.write(project.block | {"access": {"allow": ["9.9.9.0/24"]}})
    refused = project.pulumi("up", "--yes", "--skip-preview", check=False)
    assert refused.returncode
    assert "server-files: these firewall rules would lock this computer out" in refused.stdout
    assert "server.access.allow admits 9.9.9.0/24 to SSH" in refused.stdout
    (command,) = set(re.findall(r"pulumi (config set --path '(.*)' (\S+/32))", refused.stdout))
    project.pulumi("config", "set", "--path", *command[1:])
    project.up()
    assert command[2].removesuffix("/32") in project.on_host("nft list table inet pulumi_vllm")
    assert set(project.changes()) == {"same"}


def check_closed_port_is_found(project) -> None:
    """A port that only others find closed, as with a firewall of the cloud: the readiness check on the host passes."""
    assert project.outputs()["evidence"]["endpoint"].startswith("answered to ")
    project.on_host(
        """
        nft add table inet cloud
        nft 'add chain inet cloud input { type filter hook input priority -10; }'
        nft add rule inet cloud input iif != lo tcp dport 443 drop""",
    )
    shown = project.pulumi("preview", "--diff", "--expect-no-changes", check=False)
    assert shown.returncode
    assert re.search(r'answers *: "no: no answer within 8 s" => "yes"', shown.stdout), shown.stdout
    failed = project.pulumi("up", "--yes", "--skip-preview", check=False)
    assert failed.returncode
    assert re.search(
        r"https://\S+/v1 does not answer this computer .* no answer within 8 s; the read", failed.stdout
    )
    project.on_host("nft delete table inet cloud")
    assert set(project.changes()) == {"same"}


def check_the_console_is_a_way_back(project) -> None:
    """This computer gets another address, as the host sees it. See docs/how-to/regain-access.md."""
    client = project.outputs()["evidence"]["endpoint"].split()[-1]
    project.write(project.block | {"access": {"allow": [f"{client}/32"]}})
    project.up()
    rules = "/etc/pulumi-vllm/nftables.nft"
    project.on_host(f"sed -i s/{client}/9.9.9.9/ {rules}; systemctl reload vllm-firewall")
    hint = f"its firewall admits SSH from {client}/32 only (server.access.allow): if this computer has another address"
    shown = project.pulumi("preview", "--expect-no-changes", check=False)
    assert shown.returncode
    assert hint in shown.stdout
    failed = project.pulumi("up", "--yes", "--skip-preview", check=False)
    assert failed.returncode
    assert hint in failed.stdout
    table = ("delete", "table", "inet", "pulumi_vllm")
    project.cloud.command("console", project.machine_id(), "--", "/usr/sbin/nft", *table)
    project.up()
    assert client in project.on_host(f"cat {rules}; nft list table inet pulumi_vllm")
    project.write(project.block)
    project.up()
    assert set(project.changes()) == {"same"}


def test_what_others_open_or_close_is_found_and_accepted(projects):
    project = projects("fake")
    project.up()
    # A step may begin with the stack file of the one before: its own `up` brings what it declares.
    for check in (
        check_firewall_is_not_compared,
        accept_forwarding,
        accept_access,
        check_lock_out_is_refused,
        check_closed_port_is_found,
        check_the_console_is_a_way_back,
    ):
        check(project)
