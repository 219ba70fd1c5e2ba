"""The client of the rental API in a plugin process: the source of its key, and what to do about a refused one."""

import pytest
from pulumi_vllm.provider.plugin.session import Session
from pulumi_vllm.spheron.errors import UnauthorizedError

REFUSED = "sai_pk_replaced_at_the_cloud"


@pytest.mark.parametrize("source", ["state", "environment"])
async def test_the_remedy_for_a_refused_key_depends_on_its_source(cloud, monkeypatch, source):
    session = Session("")
    session.config = {"spheronUrl": cloud.url}
    if source == "state":
        monkeypatch.setenv("SPHERON_API_KEY", "sai_pk_of_another_account")
        session.config["spheronApiKey"] = REFUSED
    else:
        monkeypatch.setenv("SPHERON_API_KEY", REFUSED)
    with pytest.raises(UnauthorizedError) as refusal:
        await session.ask(session.cloud().volumes.list)
    session.cloud().close()
    message = str(refusal.value)
    assert ("`pulumi up --refresh=false`" in message) is (source == "state")
    assert ("check SPHERON_API_KEY" in message) is (source == "environment")
    assert REFUSED not in message
