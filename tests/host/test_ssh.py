"""Logging in, running commands and writing files. A pinned host key is enforced, and secrets are on no command line."""

from __future__ import annotations

import asyncio
import os
import stat

import asyncssh
import pytest
from pulumi_vllm.host import ssh
from pulumi_vllm.host.probe_request import ProbeRequest
from pulumi_vllm.host.ssh import (
    Address,
    AuthRefused,
    HostError,
    HostKeyChanged,
    PutFile,
    Unreachable,
    connect,
)

ME = f"{os.getuid()}:{os.getgid()}"


async def test_the_first_host_key_is_trusted_and_can_be_pinned(sshd, pem, host_key):
    host = await connect(sshd.address, pem, None)
    assert host.host_key == host_key
    again = await connect(sshd.address, pem, host.host_key)
    for one in (host, again):
        await one.close()
        assert one.closed


async def test_another_host_key_is_an_error_and_nothing_is_sent(sshd, pem, other_host_key):
    with pytest.raises(HostKeyChanged, match="another host key than the pinned one"):
        await connect(sshd.address, pem, other_host_key)
    assert sshd.logins == 0


async def test_a_host_key_of_another_kind_is_a_changed_key(sshd, pem):
    rsa = asyncssh.generate_private_key("ecdsa-sha2-nistp256").export_public_key().decode()
    with pytest.raises(HostKeyChanged):
        await connect(sshd.address, pem, rsa)


async def test_a_refused_client_key_has_its_own_error(sshd, other_pem):
    with pytest.raises(AuthRefused, match=r"root@127.0.0.1 port \d+: does not accept our key$"):
        await connect(sshd.address, other_pem, None)


async def test_a_closed_port_is_unreachable(sshd, pem):
    await sshd.stop()
    with pytest.raises(Unreachable, match="can't be reached"):
        await connect(sshd.address, pem, None)


async def test_an_unknown_host_name_is_reported(pem):
    """`.invalid` is reserved and never resolves (RFC 6761)."""
    with pytest.raises(Unreachable, match=r"can't be reached: .*(Name|name resolution|hostname)"):
        await connect(Address("machine.invalid"), pem, None)


async def test_a_silent_server_is_unreachable(pem):
    """As on a paused machine: the kernel accepts the connection, but sshd sends nothing."""
    server = await asyncio.start_server(lambda _, writer: writers.append(writer), "127.0.0.1", 0)
    writers: list[asyncio.StreamWriter] = []
    with pytest.raises(Unreachable, match="no answer within"):
        await connect(Address("127.0.0.1", server.sockets[0].getsockname()[1]), pem, None, timeout_s=0.2)
    for writer in writers:
        writer.close()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("key", ["no key", "-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n"])
async def test_an_invalid_private_key_is_not_in_the_message(sshd, key):
    with pytest.raises(HostError, match="private key can't be read") as caught:
        await connect(sshd.address, key, None)
    assert "hunter2" not in str(caught.value)


async def test_an_invalid_pinned_key_is_reported(sshd, pem):
    with pytest.raises(HostError, match="pinned host key can't be read"):
        await connect(sshd.address, pem, "nonsense")


async def test_run_returns_output_and_exit_code(host):
    done = await host.run("cat; echo oops >&2; exit 3", stdin=b"from stdin \xff", check=False)
    assert (done.stdout, done.stderr, done.code) == ("from stdin \ufffd", "oops\n", 3)
    assert "stdin" not in repr(done)


@pytest.mark.parametrize(
    "start_file",
    [
        "echo Welcome",
        "printf 'no newline at its end'",
        "echo '/etc/bash.bashrc: line 7: PS1: unbound variable' >&2",
        "echo '{\"probe\": 2}'; echo 'sudo: unable to resolve host vm' >&2",
        "set -x",
    ],
)
async def test_output_of_a_start_file_is_not_the_scripts(sshd, host, tmp_path, start_file):
    sshd.start_file = start_file
    done = await host.run("cat; echo oops >&2; exit 3", stdin=b"ours", check=False)
    assert (done.stdout, done.stderr, done.code) == ("ours", "oops\n", 3)
    path = str(tmp_path / "file")
    assert await host.put([PutFile(path, b"x", "0644", ME)]) == (path,)
    assert (await host.probe(ProbeRequest()))["probe"] == 1
    with pytest.raises(HostError, match=r"failed with code 3: oops$"):
        await host.run("echo oops >&2; exit 3")


@pytest.mark.parametrize(
    ("shown", "skew_s"), [(99.0, -1.0), (100.0, 0.0), (102.0, 0.0), (105.5, 3.5), (None, 0.0)]
)
def test_a_slow_answer_is_no_difference_of_the_clocks(shown, skew_s):
    assert ssh._skew_s(shown, before=100.0, after=102.0) == skew_s


async def test_a_script_that_did_not_begin_is_no_success(sshd, host):
    sshd.start_file = "echo closed for today; exit 0"
    with pytest.raises(HostError, match=r"ended before `echo ours` began; .*: closed for today"):
        await host.run("echo ours", check=False)


async def test_a_refusal_of_sudo_is_reported_behind_a_greeting(sshd, host):
    sshd.start_file = "echo Welcome >&2; echo 'sudo: a password is required' >&2; exit 1"
    with pytest.raises(HostError, match=r"can't become root with `sudo -n`: sudo: a password is required$"):
        await host.run("echo ours")


async def test_a_failing_line_ends_the_script_and_stderr_is_reported(host):
    with pytest.raises(
        HostError, match=r"`# doing it` failed with code 1|`doing it` failed with code 1: it is broken"
    ) as caught:
        await host.run("# doing it\necho it is broken >&2\nfalse\necho never")
    assert caught.value.code == 1


async def test_secrets_in_stderr_are_masked(host):
    with pytest.raises(HostError) as caught:
        await host.run("echo 'token=abcdef123456 Authorization: Bearer qwertz99' >&2; false")
    assert "abcdef" not in str(caught.value)
    assert "qwertz" not in str(caught.value)


async def test_a_script_has_a_time_limit(host):
    with pytest.raises(HostError, match="`sleep 5` took longer than 0 s"):
        await host.run("sleep 5", timeout_s=0.2)
    assert (await host.run("echo on")).stdout == "on\n"


async def test_other_users_than_root_use_sudo_without_a_password(sshd, pem):
    sshd.allowed.add("ubuntu")
    sshd.answer = b"0\n"
    host = await connect(Address("127.0.0.1", sshd.port, "ubuntu"), pem, None)
    await host.run("id -u")
    (command,) = sshd.commands
    assert command.startswith("sudo -n -- bash --norc -euc 'printf ")
    assert command.endswith("; id -u'")
    await host.close()


async def test_the_next_call_reconnects_after_a_lost_connection(sshd, host):
    sleeping = asyncio.create_task(host.run("sleep 20"))
    await sshd.asked.wait()
    sshd.connections[-1].abort()
    with pytest.raises(Unreachable, match="the connection was lost during `sleep 20`"):
        await sleeping
    assert (await host.run("echo back")).stdout == "back\n"
    assert sshd.logins == 2


async def test_a_reinstalled_host_is_refused_on_reconnect(sshd, host, reinstalled):
    await sshd.stop()
    sshd.key = reinstalled
    await sshd.start()
    for _ in range(100):
        if host.closed:
            break
        await asyncio.sleep(0.01)
    with pytest.raises(HostKeyChanged):
        await host.run("echo never")


async def test_put_writes_only_differing_files_in_one_round_trip(sshd, host, tmp_path):
    secret = b"hunter2-hunter2"
    same = tmp_path / "same"
    same.write_bytes(b"same\n")
    same.chmod(0o644)
    files = [
        PutFile(str(same), b"same\n", "0644", ME),
        PutFile(str(tmp_path / "deep" / "er" / "new"), secret, "0600", ME),
        PutFile(str(tmp_path / "big"), os.urandom(300_000), "0644", ME),
    ]
    sshd.commands.clear()
    assert await host.put(files) == (files[1].path, files[2].path)
    assert len(sshd.commands) == 1
    assert "hunter2" not in sshd.commands[0]
    assert "hunter2" not in repr(files[1])
    new = tmp_path / "deep" / "er" / "new"
    assert new.read_bytes() == secret
    assert stat.S_IMODE(new.stat().st_mode) == 0o600
    assert await host.put(files) == ()
    assert [path.name for path in new.parent.iterdir()] == ["new"]


async def test_put_repairs_modes_and_replaces_links(host, tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"x")
    target.chmod(0o666)
    link.symlink_to(target)
    wanted = [PutFile(str(target), b"x", "0640", ME), PutFile(str(link), b"y", "0644", ME)]
    assert await host.put(wanted) == (str(target), str(link))
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert not link.is_symlink()
    assert target.read_bytes() == b"x"


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (("relative", "0644", ME), "not an absolute path"),
        (("/proc/nowhere/x", "0644", ME), "/proc/nowhere"),
        (("{tmp}/x", "0644", "nobody-like-that"), "no such user or group"),
        (("{tmp}", "0644", ME), "[Dd]irectory"),
    ],
)
async def test_put_changes_nothing_when_one_file_fails(host, tmp_path, bad, words):
    first = PutFile(str(tmp_path / "sub" / "first"), b"1", "0644", ME)
    path, mode, owner = bad
    second = PutFile(path.format(tmp=tmp_path), b"2", mode, owner)
    with pytest.raises(HostError, match=words):
        await host.put([second, first] if path == "{tmp}" else [first, second])
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


async def test_put_without_files_runs_no_command(sshd, host):
    assert await host.put([]) == ()
    assert not sshd.commands
