"""Drift of who can log in to the host, become root there and pass by its firewall, against the last `up`. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pulumi_vllm.host.drift import Difference

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pulumi_vllm.host.facts import Facts

_BY: Final = "with another text in server.access.accepted"
_REMEDY: Final = f"`pulumi up` leaves it; restore it on the host, or accept it {_BY}"
_FORWARDING: Final = "forwarded ports"


def accepted(facts: Facts, *, forwarding: bool) -> dict[str, str]:
    """Return what decides about access now, by subject; forwarded ports only if they are accepted too."""
    rules = "\n".join(facts.firewall.forwarding)
    return {**facts.access, **({_FORWARDING: rules} if rules and forwarding else {})}


def access(facts: Facts, before: Mapping[str, str]) -> Iterator[Difference]:
    """Compare accounts, SSH keys, sudo rules and sshd's options with those of the last `up`."""
    if not before:
        return
    unread = _sshd(before) and not _sshd(facts.access)
    if unread:
        observed = "can't be read, because `sshd -T` fails"
        yield Difference("options of sshd", observed, "run `sshd -T` on the host and correct it")
    for subject in sorted({*before, *facts.access} - (_sshd(before) if unread else set()) - {_FORWARDING}):
        was, now = before.get(subject), facts.access.get(subject)
        if was == now:
            continue
        if was is None:
            observed = f"is new since the last `pulumi up`: {now}"
        elif now is None:
            observed = f"is gone since the last `pulumi up`, and was: {was}"
        else:
            observed = f"is {now}, and was {was} at the last `pulumi up`"
        yield Difference(subject, observed, _REMEDY)


def _sshd(access: Mapping[str, str]) -> set[str]:
    return {subject for subject in access if subject.startswith("sshd option ")}


def forwarding(facts: Facts, before: Mapping[str, str]) -> Iterator[Difference]:
    """Foreign rules that forward ports and were not accepted. One that is gone opens nothing: no difference."""
    accepted_rules = before.get(_FORWARDING, "").splitlines()
    rules = [rule for rule in facts.firewall.forwarding if rule not in accepted_rules]
    if rules:
        yield Difference(
            _FORWARDING,
            f"pass by our rules: {'; '.join(rules)}",
            "`pulumi up` leaves rules that are not its own; remove them on the host, as in `docker ps` or `nft`, or "
            f"accept them {_BY}",
        )
