"""Logging in as a user who can become root."""

from __future__ import annotations

import pytest
from pulumi_vllm.host.errors import AuthRefused, HostError, HostKeyChanged, Unreachable
from pulumi_vllm.host.login import log_in


async def test_the_host_key_is_known_after_a_login(sshd, pem, host_key):
    sshd.answer = b"0\n"
    host = await log_in("127.0.0.1", sshd.port, ["root"], pem)
    assert host.host_key == host_key
    await host.close()


async def test_the_user_who_can_become_root_is_used(sshd, pem):
    sshd.answer = b"0\n"
    host = await log_in("127.0.0.1", sshd.port, ["ubuntu", "root"], pem)
    assert host.address.user == "root"
    await host.close()


async def test_a_login_that_is_not_root_is_refused(sshd, pem):
    sshd.hint = b'Please login as the user "ubuntu" rather than the user "root".\n'
    with pytest.raises(AuthRefused, match="not as root: Please login as the user"):
        await log_in("127.0.0.1", sshd.port, ["root"], pem)


async def test_a_greeting_of_the_login_shell_is_no_refusal(sshd, pem):
    sshd.answer, sshd.start_file = b"0\n", "echo Welcome; echo PS1: unbound variable >&2"
    host = await log_in("127.0.0.1", sshd.port, ["root"], pem)
    assert host.address.user == "root"
    await host.close()


async def test_a_start_file_that_ends_the_shell_is_named(sshd, pem):
    sshd.answer, sshd.start_file = b"0\n", "echo 0; exit 0"
    with pytest.raises(HostError, match=r"ended before `id -u` began; look for `exit` .* ~/\.bashrc: 0"):
        await log_in("127.0.0.1", sshd.port, ["root"], pem)


@pytest.mark.parametrize(
    ("user", "printed", "missing"),
    [
        ("root", "ash: bash: not found", "the host has no bash;"),
        ("admin", "bash: line 1: sudo: command not found", "the host has no sudo or bash;"),
        ("admin", "ash: sudo: not found", "the host has no sudo or bash;"),
        ("admin", "sudo: bash: command not found", "the host has no bash;"),
    ],
)
async def test_a_host_without_bash_or_sudo_is_named(sshd, pem, user, printed, missing):
    sshd.answer = b""
    sshd.allowed = {user}
    sshd.start_file = f"echo '{printed}' >&2; exit {1 if printed.startswith('sudo: ') else 127}"
    with pytest.raises(HostError, match=f"{missing} install it, or use Debian or Ubuntu: {printed}"):
        await log_in("127.0.0.1", sshd.port, [user], pem)


async def test_a_refused_key_is_reported_for_the_first_user(sshd, pem):
    sshd.refuse = 10
    with pytest.raises(AuthRefused, match=r"ubuntu@127\.0\.0\.1 .* does not accept our key"):
        await log_in("127.0.0.1", sshd.port, ["ubuntu", "root"], pem)


async def test_a_closed_port_is_tried_for_one_user_only(sshd, pem):
    await sshd.stop()
    with pytest.raises(Unreachable, match=r"ubuntu@127\.0\.0\.1 .* can't be reached"):
        await log_in("127.0.0.1", sshd.port, ["ubuntu", "root"], pem)


async def test_a_changed_host_key_is_an_error_for_every_user(sshd, pem, other_host_key):
    with pytest.raises(HostKeyChanged, match="ubuntu@"):
        await log_in("127.0.0.1", sshd.port, ["ubuntu", "root"], pem, other_host_key)
