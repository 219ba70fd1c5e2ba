"""API keys that a program gives: which are accepted, which are refused, and when."""

import asyncio

import pulumi
import pytest
from mocked_programs import Monitor, block, declare
from pulumi.runtime.rpc import UNKNOWN
from pulumi_vllm.component.mocks import OUTPUTS, Mocks


def test_a_key_that_the_block_does_not_name_is_refused():
    with pytest.raises(pulumi.RunError, match=r"keys.tema-a: no such name .*; did you mean team-a\?"):
        declare(keys={"tema-a": "sk-given"})


@pytest.mark.parametrize("given", ["keys", "secret_keys"])
def test_a_missing_name_gets_a_random_key(given):
    _, outputs = declare(**{given: {"team-a": "sk-given"}})
    assert outputs["api_keys"] == {"team-a": "sk-given", "team-b": "sk-random"}


@pytest.mark.parametrize("given", ["keys", "secret_keys"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "is empty"),
        ("a b", "contains a space"),
        ("sk-a\n", "a line end"),
        ("schlüssel", "outside ASCII"),
        (17, "is not text"),
    ],
)
def test_a_key_that_no_client_can_send_is_refused(given, value, message):
    with pytest.raises(pulumi.RunError, match=rf"keys\.team-a: .*{message}") as caught:
        declare(**{given: {"team-a": value}})
    assert not value or str(value) not in str(caught.value)


@pytest.mark.parametrize("given", [{"team-a": None}, {"team-a": None, "team-b": "sk-given"}, {}, None])
def test_a_name_with_none_gets_a_random_key(given):
    _, outputs = declare(keys=given)
    assert outputs["api_keys"] == {"team-a": "sk-random", "team-b": (given or {}).get("team-b", "sk-random")}


def test_a_map_that_is_known_later_may_contain_none():
    _, outputs = declare(secret_keys={"team-a": None, "team-b": "sk-given"})
    assert outputs["api_keys"] == {"team-a": "sk-random", "team-b": "sk-given"}


@pytest.mark.parametrize("given", ["keys", "secret_keys"])
@pytest.mark.parametrize("value", [["team-a"], "team-a", 3])
def test_a_value_that_is_not_a_map_is_refused(given, value):
    with pytest.raises(pulumi.RunError, match="keys: is not a map of names and values"):
        declare(**{given: value})


def preview(keys):
    """Preview a server, without random keys being known."""
    from pulumi_vllm import Server

    asyncio.set_event_loop(asyncio.new_event_loop())
    pulumi.runtime.set_mocks((monitor := Monitor(Mocks())).mocks, preview=True, stack="unit", monitor=monitor)

    @pulumi.runtime.test
    def program():
        return Server("llm", {"server": block(), "keys": keys()}).api_keys

    program()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (lambda: {"team-a": pulumi.Output.secret("a b")}, r"keys\.team-a: contains a space"),
        (lambda: {"team-a": pulumi.Output.secret(None)}, r"keys\.team-a: has no value"),
        (lambda: pulumi.Output.secret({"team-a": "a b"}), r"keys\.team-a: contains a space"),
        (lambda: {"team-a": pulumi.Output.secret(""), "team-b": unknown()}, r"keys\.team-a: is empty"),
    ],
)
def test_a_preview_refuses_a_wrong_key_while_others_are_unknown(monkeypatch, keys, message):
    monkeypatch.setitem(OUTPUTS["vllm:index:ApiKey"], "key", UNKNOWN)
    with pytest.raises(pulumi.RunError, match=message):
        preview(keys)


def test_a_preview_accepts_keys_that_are_not_known_yet(monkeypatch):
    monkeypatch.setitem(OUTPUTS["vllm:index:ApiKey"], "key", UNKNOWN)
    preview(lambda: {"team-a": pulumi.Output.secret("sk-given"), "team-b": unknown()})
    preview(unknown)


def unknown() -> pulumi.Output:
    """Return an output that a preview does not know."""
    known = asyncio.Future()
    known.set_result(False)
    value = asyncio.Future()
    value.set_result(None)
    return pulumi.Output(set(), value, known)
