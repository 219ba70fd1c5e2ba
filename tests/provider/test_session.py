"""The client of the rental API in a plugin process: the source of its key and URL, and what to do about a wrong one."""

import pytest
from pulumi_vllm.provider.plugin.session import Session
from pulumi_vllm.spheron.errors import CloudError, UnauthorizedError

REFUSED = "sai_pk_replaced_at_the_cloud"
COMMAND = "`pulumi up --refresh=false`"
CLOSED = "http://127.0.0.1:9"


async def refusal(session: Session, kind: type[CloudError] = CloudError) -> str:
    """Return what a call to the rental API ends with."""
    with pytest.raises(kind) as caught:
        await session.ask(session.cloud().volumes.list)
    if session._cloud is not None:
        session._cloud.close()
    return str(caught.value)


@pytest.mark.parametrize("source", ["state", "environment"])
async def test_the_remedy_for_a_refused_key_depends_on_its_source(cloud, monkeypatch, source):
    session = Session("")
    monkeypatch.setenv("SPHERON_URL", cloud.url)
    if source == "state":
        monkeypatch.setenv("SPHERON_API_KEY", "sai_pk_of_another_account")
        session.config["spheronApiKey"] = REFUSED
    else:
        monkeypatch.setenv("SPHERON_API_KEY", REFUSED)
    message = await refusal(session, UnauthorizedError)
    assert (COMMAND in message) is (source == "state")
    assert ("check SPHERON_API_KEY" in message) is (source == "environment")
    assert REFUSED not in message


@pytest.mark.parametrize("wrong", [CLOSED, "app.spheron.ai", "http://app.spheron.ai"])
@pytest.mark.parametrize("source", ["state", "environment"])
async def test_the_remedy_for_a_url_that_does_not_work_depends_on_its_source(monkeypatch, source, wrong):
    session = Session("")
    monkeypatch.setenv("SPHERON_API_KEY", REFUSED)
    monkeypatch.setenv("SPHERON_URL", wrong)
    if source == "state":
        monkeypatch.setenv("SPHERON_URL", "https://another.example")
        session.config["spheronUrl"] = wrong
    message = await refusal(session)
    assert (COMMAND in message) is (source == "state")
    assert ("spheronUrl" in message) is (source == "state")
    assert ("check SPHERON_URL" in message) is (source == "environment")


async def test_another_cloud_at_the_url_of_the_state_refuses_the_key(cloud, monkeypatch):
    """The port of a local cloud is taken by another one: the key is right, the URL is not."""
    session = Session("")
    session.config = {"spheronUrl": cloud.url}
    monkeypatch.setenv("SPHERON_API_KEY", REFUSED)
    message = await refusal(session, UnauthorizedError)
    assert "check SPHERON_API_KEY, or check the URL, which is the provider's own (spheronUrl)" in message
    assert COMMAND in message
