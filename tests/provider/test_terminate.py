"""Termination of an instance against the local cloud: unusual answers, and what stays in state."""

import asyncio

import pytest
from pulumi_vllm.provider.lifecycle.terminate import terminate
from pulumi_vllm.provider.plugin.errors import UserError
from pulumi_vllm.provider.resources import volume
from pulumi_vllm.provider.resources.instance import Instance
from pulumi_vllm.provider.resources.volume import Volume
from pulumi_vllm.spheron.errors import CloudError

LOOK, END = ({"method": method, "path": "/api/deployments/[^/]+"} for method in ("GET", "DELETE"))
DETACH = {"method": "POST", "path": "/api/volumes/.*/detach"}
DELETE_VOLUME = {"method": "DELETE", "path": "/api/volumes/.*"}
NO_HOST = {"instanceName": "machine"}  # an instance that was never reached over SSH has nothing to drain


@pytest.fixture
def machine(cloud):
    """An instance whose minimum run time is over."""
    made = cloud.running()
    cloud.sim("advance", seconds=3600)
    return made


def count_requests(cloud, method, end=""):
    log = cloud.get("/_sim/log").json()
    return len([row for row in log if row["method"] == method and row["path"].endswith(end)])


def attached_volume(call, cloud, machine):
    """Attach a volume of the stack, and return its state."""
    api = call.session.cloud()
    made = api.volumes.create("s-models-0123456789", 1, "data-crunch", "Finland 3")
    api.volumes.attach(made.handle, machine)
    return {"volumeName": made.name, "keep": False}


async def test_a_delete_that_is_refused_as_too_early_is_repeated_with_pauses(cloud, call):
    young = cloud.running()
    cloud.sim("options", minimum_runtime_min=1e6)
    cloud.sim("fault", kind="status", status=200, body={}, times=None, path=".*/can-terminate")
    terminating = asyncio.create_task(terminate(call[0], young, NO_HOST))
    await asyncio.sleep(2)
    assert 1 <= count_requests(cloud, "DELETE") <= 3
    call[0].session.cancelled.set()
    with pytest.raises(UserError, match="is still running, billed and in state; run `pulumi destroy` again"):
        await terminating
    assert cloud.status(young) == "running"


async def test_an_unknown_status_after_the_delete_is_waited_for(cloud, call, machine, monkeypatch):
    api = call[0].session.cloud()
    end = api.instances.terminate

    def ended(machine_id):
        end(machine_id)
        shown = {"id": machine_id, "name": "machine", "status": "terminating"}
        cloud.sim("fault", kind="status", status=200, body=shown, **LOOK)

    monkeypatch.setattr(api.instances, "terminate", ended)
    await terminate(call[0], machine, NO_HOST)
    assert cloud.status(machine) == "terminated"


async def test_a_failed_instance_counts_as_gone_after_its_delete(cloud, call, machine):
    cloud.store.deployments[machine].status = "failed"
    cloud.sim("fault", kind="status", status=200, body={}, **END)
    await asyncio.wait_for(terminate(call[0], machine, NO_HOST), 20)
    assert count_requests(cloud, "DELETE") == 1


async def test_ctrl_c_after_the_delete_reports_what_may_still_bill(cloud, call, machine):
    cloud.sim("fault", kind="status", status=200, body={}, **END)
    call[0].session.cancelled.set()
    with pytest.raises(
        UserError, match=rf"was asked to terminate .* \({machine}\), which may still bill; run `pulumi"
    ):
        await terminate(call[0], machine, NO_HOST)


@pytest.mark.parametrize("fault", ["status", "drop_before"])
async def test_a_volume_that_stays_attached_does_not_keep_the_instance_in_state(cloud, call, machine, fault):
    state = attached_volume(call[0], cloud, machine)
    cloud.sim("fault", kind=fault, times=None, **DETACH)
    await Instance().delete(call[0], machine, NO_HOST)
    assert cloud.status(machine) == "terminated"
    assert [line for line in call[1] if line.startswith("the instance is gone; its volume is detached when")]
    cloud.delete("/_sim/fault")
    await Volume().delete(call[0], "id", state)
    assert cloud.get("/api/volumes").json()["volumes"] == []


async def test_the_volume_of_an_instance_that_is_not_listed_is_detached(cloud, call, machine):
    attached_volume(call[0], cloud, machine)
    del cloud.store.deployments[machine]
    await terminate(call[0], machine, NO_HOST)
    assert count_requests(cloud, "POST", "/detach") == 1


async def test_deleting_a_volume_waits_until_it_is_released(cloud, call, machine, monkeypatch):
    monkeypatch.setattr(volume, "_PAUSES_S", (0.01,))
    state = attached_volume(call[0], cloud, machine)
    held = {"error": "Bad Request", "message": "Volume must be detached before it can be deleted"}
    cloud.sim("fault", kind="status", status=400, body=held, times=2, **DELETE_VOLUME)
    await terminate(call[0], machine, NO_HOST)
    await Volume().delete(call[0], "id", state)
    assert cloud.get("/api/volumes").json()["volumes"] == []


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (400, UserError, "held; detach the volume in the cloud's console, or run `pulumi destroy` again"),
        (403, CloudError, "the key lacks the right"),
    ],
)
async def test_a_volume_that_cannot_be_deleted_is_an_error(
    cloud, call, machine, monkeypatch, *, status, error, message
):
    monkeypatch.setattr(volume, "_PAUSES_S", (0.01,))
    monkeypatch.setattr(volume, "_RELEASED_WITHIN_S", 0.1)
    state = attached_volume(call[0], cloud, machine)
    cloud.sim("fault", kind="status", status=status, body={"error": "held"}, times=None, **DELETE_VOLUME)
    with pytest.raises(error, match=message):
        await Volume().delete(call[0], "id", state)
