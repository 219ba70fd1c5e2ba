"""A machine is let go against the simulated API: what the cloud may say meanwhile, and what state keeps."""

import asyncio

import pytest
from pulumi_vllm.provider.lifecycle import terminate as departure
from pulumi_vllm.provider.plugin.resource import UserError
from pulumi_vllm.provider.resources import volume
from pulumi_vllm.provider.resources.instance import Instance
from pulumi_vllm.provider.resources.volume import Volume
from pulumi_vllm.spheron.errors import CloudError

LOOK, END = ({"method": method, "path": "/api/deployments/[^/]+"} for method in ("GET", "DELETE"))
DETACH = {"method": "POST", "path": "/api/volumes/.*/detach"}
DROP_DISK = {"method": "DELETE", "path": "/api/volumes/.*"}
NO_HOST = {"instanceName": "machine"}  # a machine that SSH never reached has nothing to drain


@pytest.fixture
def machine(cloud):
    """A machine that may be let go."""
    made = cloud.running()
    cloud.sim("advance", seconds=3600)
    return made


def asked(cloud, method, end=""):
    log = cloud.get("/_sim/log").json()
    return len([row for row in log if row["method"] == method and row["path"].endswith(end)])


def disk_at(call, cloud, machine):
    """A disk of the stack, attached."""
    api = call.session.cloud()
    made = api.volumes.create("s-models-0123456789", 1, "data-crunch", "Finland 3")
    api.volumes.attach(made.handle, machine)
    return {"volumeName": made.name, "keep": False}


async def test_a_cloud_that_says_yes_and_refuses_is_asked_again_with_pauses(cloud, call):
    young = cloud.running()
    cloud.sim("options", minimum_runtime_min=1e6)
    cloud.sim("fault", kind="status", status=200, body={}, times=None, path=".*/can-terminate")
    leaving = asyncio.create_task(departure.leave(call[0], young, NO_HOST))
    await asyncio.sleep(2)
    assert 1 <= asked(cloud, "DELETE") <= 3
    call[0].session.cancelled.set()
    with pytest.raises(UserError, match="is still running, billed and in state; run `pulumi destroy` again"):
        await leaving
    assert cloud.status(young) == "running"


async def test_a_word_nobody_knows_after_the_delete_is_waited_out(cloud, call, machine, monkeypatch):
    api = call[0].session.cloud()
    end = api.instances.terminate

    def ended(machine_id):
        end(machine_id)
        shown = {"id": machine_id, "name": "machine", "status": "terminating"}
        cloud.sim("fault", kind="status", status=200, body=shown, **LOOK)

    monkeypatch.setattr(api.instances, "terminate", ended)
    await departure.leave(call[0], machine, NO_HOST)
    assert cloud.status(machine) == "terminated"


async def test_a_machine_that_failed_goes_with_its_delete_though_its_record_stays(cloud, call, machine):
    cloud.store.deployments[machine].status = "failed"
    cloud.sim("fault", kind="status", status=200, body={}, **END)
    await asyncio.wait_for(departure.leave(call[0], machine, NO_HOST), 20)
    assert asked(cloud, "DELETE") == 1


async def test_ctrl_c_after_the_delete_says_what_may_still_bill(cloud, call, machine):
    cloud.sim("fault", kind="status", status=200, body={}, **END)
    call[0].session.cancelled.set()
    with pytest.raises(UserError, match=rf"told to end .* \({machine}\), which may still bill; run `pulumi"):
        await departure.leave(call[0], machine, NO_HOST)


@pytest.mark.parametrize("fault", ["status", "drop_before"])
async def test_a_disk_that_is_not_released_does_not_keep_a_machine_that_is_gone(cloud, call, machine, fault):
    disk = disk_at(call[0], cloud, machine)
    cloud.sim("fault", kind=fault, times=None, **DETACH)
    await Instance().delete(call[0], machine, NO_HOST)
    assert cloud.status(machine) == "terminated"
    assert [line for line in call[1] if line.startswith("the machine is gone; its disk is released when")]
    cloud.delete("/_sim/fault")
    await Volume().delete(call[0], "id", disk)
    assert cloud.get("/api/volumes").json()["volumes"] == []


async def test_a_machine_the_cloud_forgot_leaves_no_disk_behind(cloud, call, machine):
    disk_at(call[0], cloud, machine)
    del cloud.store.deployments[machine]
    await departure.leave(call[0], machine, NO_HOST)
    assert asked(cloud, "POST", "/detach") == 1


async def test_a_disk_that_is_held_a_moment_longer_is_waited_for(cloud, call, machine, monkeypatch):
    monkeypatch.setattr(volume, "pause_s", lambda _attempt: 0.01)
    disk = disk_at(call[0], cloud, machine)
    held = {"error": "Bad Request", "message": "Volume must be detached before it can be deleted"}
    cloud.sim("fault", kind="status", status=400, body=held, times=2, **DROP_DISK)
    await departure.leave(call[0], machine, NO_HOST)
    await Volume().delete(call[0], "id", disk)
    assert cloud.get("/api/volumes").json()["volumes"] == []


@pytest.mark.parametrize(
    ("status", "sort", "said"),
    [
        (400, UserError, "held; detach the disk in the cloud's console, or run `pulumi destroy` again"),
        (403, CloudError, "the key lacks the right"),
    ],
)
async def test_a_disk_that_can_t_go_is_a_sentence(cloud, call, machine, monkeypatch, *, status, sort, said):
    monkeypatch.setattr(volume, "pause_s", lambda _attempt: 0.01)
    disk = disk_at(call[0], cloud, machine)
    cloud.sim("fault", kind="status", status=status, body={"error": "held"}, times=None, **DROP_DISK)
    with pytest.raises(sort, match=said):
        await Volume().delete(call[0], "id", disk)
