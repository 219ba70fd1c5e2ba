"""Instances against the local cloud: what the provider does when offers or instances change."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from pulumi_vllm.plan.names import is_same, mark_of
from pulumi_vllm.plan.offer_choice import NoOfferError
from pulumi_vllm.provider.lifecycle.instance_liveness import check_instance_alive
from pulumi_vllm.provider.plugin.errors import Partial, UserError
from pulumi_vllm.provider.plugin.protocol import UNKNOWN
from pulumi_vllm.provider.plugin.resource import Kind
from pulumi_vllm.provider.resources.instance import Instance
from pulumi_vllm.provider.resources.volume import Volume

ON_DEMAND, SPOT = "Finland 3::cpu::2vcpu-8gb$", "Finland 3::cpu::2vcpu-8gb::spot$"


def inputs(cloud, doubles, **more):
    key = cloud.post(
        "/api/ssh-keys", json={"name": "k", "publicKey": doubles.PUBLIC_KEY, "teamId": cloud.store.team_id}
    )
    return {
        "gpu": "CPU",
        "count": 0,
        "billing": "on-demand",
        "region": "Finland 3",
        "maxUsdPerHour": 0.05,
        "sshKeyId": key.json()["id"],
        "sshPublicKey": doubles.PUBLIC_KEY,
        "sshPrivateKey": "never used: no host answers here",
    } | more


async def create(call, new):
    return await Instance().create(call, new)


async def create_ready(cloud, call, new):
    """Rent an instance. No host answers in these tests, so its creation ends with an instance that runs."""
    with pytest.raises(Partial) as kept:
        await create(call[0], new)
    cloud.until(lambda: cloud.status(kept.value.resource_id) == "running")
    return kept.value.resource_id, kept.value.outputs


def listed(cloud):
    return [(item["id"], item["instanceType"]) for item in cloud.get("/api/deployments").json()]


async def test_an_instance_billed_above_the_ceiling_stays_in_state(cloud, doubles, call):
    cloud.sim("fault", kind="price", offer=ON_DEMAND, price=0.5)
    with pytest.raises(
        Partial, match=r"bills \$0.5/h for it, above the ceiling of \$0.05/h; .* it exists and is"
    ) as failure:
        await create(call[0], inputs(cloud, doubles))
    assert [failure.value.resource_id] == [machine for machine, _ in listed(cloud)]
    assert failure.value.outputs["usdPerHour"] == 0.5


async def test_an_instance_that_deploys_too_long_stays_in_state(cloud, doubles, call):
    cloud.sim("profile/data-crunch", running_after_s=1e9)
    with pytest.raises(
        Partial, match=r"still deploying after \d s; run `pulumi up` again to keep waiting"
    ) as failure:
        await create(call[0], inputs(cloud, doubles))
    assert [failure.value.resource_id] == [machine for machine, _ in listed(cloud)]


async def test_an_instance_that_is_listed_only_sometimes_is_waited_for(cloud, doubles, call, monkeypatch):
    cloud.sim("profile/data-crunch", running_after_s=1e9)
    api, looks = call[0].session.cloud(), []
    look = api.instances.get

    def flicker(machine_id):
        looks.append(machine_id)
        return None if len(looks) % 2 else look(machine_id)

    monkeypatch.setattr(api.instances, "get", flicker)
    call[0].timeout_s = 1.5
    with pytest.raises(
        Partial, match=r"still not in the cloud's list after \d s; .* it exists and is billed"
    ):
        await asyncio.wait_for(create(call[0], inputs(cloud, doubles)), 20)
    assert len(looks) < 10


@pytest.mark.parametrize("status", ["terminated-provider", "stopped"])
async def test_an_instance_that_is_lost_while_it_deploys_ends_the_wait(cloud, doubles, call, status):
    cloud.sim("profile/data-crunch", running_after_s=1e9)

    async def taken():
        renting = asyncio.create_task(Instance().create(call[0], inputs(cloud, doubles)))
        await asyncio.to_thread(cloud.until, lambda: listed(cloud))
        await asyncio.to_thread(cloud.sim, f"reclaim/{listed(cloud)[0][0]}?as={status}")
        await renting

    call[0].timeout_s = 20.0
    message = {
        "terminated-provider": r"machine: \S+ \([0-9a-f]{24}\) was reclaimed by the provider; `pulumi up --refresh`",
        "stopped": "the cloud reports stopped; `pulumi up --replace '.*` rents another",
    }[status]
    with pytest.raises(Partial, match=message):
        await taken()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            "ended",
            r"\({id}\) was terminated outside Pulumi \(.* ran out of credit\); `pulumi up --refresh`",
        ),
        ("forgotten", r"it: the cloud no longer lists the instance {id}; `pulumi up --refresh` rents"),
    ],
)
async def test_the_error_says_how_the_instance_ended(cloud, call, how, message):
    machine = cloud.running()
    cloud.sim("advance", seconds=3600)
    if how == "ended":
        cloud.delete(f"/api/deployments/{machine}")
    else:
        del cloud.store.deployments[machine]
    call[0].urn = "urn:pulumi:s::p::vllm:host:Files::it"
    with pytest.raises(UserError, match=message.format(id=machine)):
        await check_instance_alive(call[0], {"instanceId": machine})


@pytest.mark.parametrize("fault", ["stock", "gone"])
async def test_an_offer_without_stock_is_replaced_by_the_fallback_billing(cloud, doubles, call, fault):
    cloud.sim("profile/data-crunch", running_after_s=1e9)
    cloud.sim("fault", kind=fault, offer=SPOT)
    with pytest.raises(Partial, match="still deploying") as kept:
        await create(call[0], inputs(cloud, doubles, billing="spot", fallback="on-demand"))
    assert kept.value.outputs["billedAs"] == "on-demand"
    assert [kind for _, kind in listed(cloud)] == ["DEDICATED"]
    assert [line for line in call[1] if "trying the next offer" in line]


@pytest.mark.parametrize("fault", ["stock", "gone"])
async def test_without_a_fallback_no_stock_is_an_error(cloud, doubles, call, fault):
    cloud.sim("fault", kind=fault, offer=ON_DEMAND)
    with pytest.raises(
        UserError, match=r"no instance is available: .*; take another offer or region, or try later$"
    ):
        await create(call[0], inputs(cloud, doubles))
    assert listed(cloud) == []


@pytest.mark.parametrize("fault", ["status_after", "drop_after", "malformed"])
async def test_a_lost_answer_rents_no_second_instance(cloud, doubles, call, fault):
    cloud.sim("profile/data-crunch", running_after_s=1e9)
    cloud.sim("fault", kind=fault, method="POST", path="/api/deployments")
    new = inputs(cloud, doubles)
    ids = []
    for _ in range(2):
        with pytest.raises(Partial, match="still deploying") as failure:
            await create(call[0], new)
        ids.append(failure.value.resource_id)
    assert ids == [machine for machine, _ in listed(cloud)] * 2


async def test_a_volume_is_placed_where_the_fallback_is_on_offer(cloud, call):
    cloud.sim("offer", offer="cpu.*::spot$", gone=True)
    new = {"sizeGb": 1, "gpu": "CPU", "count": 0, "billing": "spot", "fallback": "on-demand"}
    _, outputs = await Volume().create(call[0], new)
    assert outputs["placement"] in {"US Central 1", "Finland 3"}


PARK = {"gpu": "L40S", "count": 1, "region": "us-east-virginia-1"}
NFS = (
    "nobody has published how voltage-park mounts its NFS volumes in us-east-virginia-1; take another region"
)


async def test_where_volumes_are_nfs_nothing_is_created_or_rented(cloud, doubles, call):
    """Previews fail there as well, with a new volume and with an existing one."""
    with pytest.raises(NoOfferError, match=NFS):
        await Volume().create(call[0], {"sizeGb": 1, **PARK})
    assert cloud.get("/api/volumes").json()["volumes"] == []
    new = inputs(cloud, doubles, maxUsdPerHour=2, **PARK)
    for provider in (UNKNOWN, "voltage-park"):
        with pytest.raises(NoOfferError, match=NFS):
            await Instance().preview(call[0], {**new, "provider": provider})
    with pytest.raises(NoOfferError, match=NFS):
        await create(call[0], {**new, "provider": "voltage-park"})
    assert listed(cloud) == []
    assert (await Instance().preview(call[0], new))["mountKind"] == "nfs"  # an instance without a volume


async def test_a_volume_on_nfs_is_not_adopted(cloud, call):
    new = {"sizeGb": 1, **PARK}
    name = (await Volume().preview(call[0], new))["volumeName"]
    made = call[0].session.cloud().volumes.create(name, 1, "voltage-park", PARK["region"])
    for verb in (Volume().preview, Volume().create):
        with pytest.raises(UserError, match=f"the volume {made.name}: {NFS}, and delete the volume or"):
            await verb(call[0], new)


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        (
            "Instance::machine",
            "`pulumi up --replace 'urn:pulumi:s::p::vllm:index:Server\\$vllm:spheron:Instance::",
        ),
        ("VolumeAttachment::it", "it is billed, and `pulumi refresh` shows how to replace it"),
    ],
)
async def test_a_stopped_instance_that_does_not_answer_ends_the_wait(cloud, call, kind, remedy):
    machine = cloud.running()
    call[0].urn = f"urn:pulumi:s::p::vllm:index:Server$vllm:spheron:{kind}"
    await check_instance_alive(call[0], {"instanceId": machine})
    cloud.sim(f"reclaim/{machine}?as=stopped")
    cloud.until(lambda: cloud.status(machine) == "stopped")
    with pytest.raises(UserError, match=f"is stopped; {remedy}"):
        await check_instance_alive(call[0], {"instanceId": machine})


async def test_an_instance_of_the_stack_that_the_state_does_not_contain_is_named(cloud, doubles, call):
    """The state was lost, and the key with it: the name that contains the key is not found again."""
    new = inputs(cloud, doubles)
    rented, _ = await create_ready(cloud, call, new)
    another_key = {**new, "sshPublicKey": "ssh-ed25519 AAAAanother"}
    await Instance().preview(call[0], another_key)
    (warning,) = [line for line in call[1] if "the state does not contain it" in line]
    assert f"({rented}, $0.01/h) of this stack is running and billed" in warning
    assert "docs/how-to/keep-the-state.md" in warning

    call[1].clear()
    await Instance().check(call[0], dict(another_key), new)  # a replacement: the state contains the old one
    await Instance().preview(call[0], another_key)
    assert not [line for line in call[1] if "the state does not contain it" in line]


async def test_an_instance_of_another_stack_is_not_named(cloud, doubles, call):
    new = inputs(cloud, doubles)
    await create_ready(cloud, call, new)
    call[0].urn = call[0].urn.replace(":s::", ":other::")
    await Instance().preview(call[0], new)
    assert not [line for line in call[1] if "the state does not contain it" in line]


async def test_the_error_for_a_held_volume_of_the_own_stack_names_the_lost_state(cloud, doubles, call):
    volume = {"sizeGb": 1, "gpu": "CPU", "count": 0, "region": "Finland 3"}
    _, made = await Volume().create(call[0], volume)
    rented, _ = await create_ready(cloud, call, inputs(cloud, doubles))
    call[0].session.cloud().volumes.attach(made["handle"], rented)
    with pytest.raises(UserError, match=r"is running; a volume has one writer, and .*`pulumi stack import`"):
        await Volume().preview(call[0], volume)


async def test_an_instance_is_not_replaced_while_no_other_is_offered(cloud, doubles, call):
    wanted = inputs(cloud, doubles)
    await Instance().before_replacement(call[0], wanted)
    for more, reason in (
        ({"maxUsdPerHour": 0.001}, "no offer within"),
        ({"gpu": "H200", "count": 3}, "no offer with that many GPUs"),
        ({"region": UNKNOWN, "provider": UNKNOWN, "gpu": "B1000"}, "no offer with this GPU"),
    ):
        with pytest.raises(
            UserError, match=f"no other can be had, so it stays: .*{reason}.*pulumi destroy --target"
        ):
            await Instance().before_replacement(call[0], wanted | more)


async def test_a_preview_says_what_a_replacement_means(cloud, doubles, call):
    context, log = call
    wanted = inputs(cloud, doubles)
    await Instance().preview(context, wanted)
    assert "never two are billed" not in str(log)
    context.session.in_state.add(context.urn)
    await Instance().preview(context, wanted)
    assert "never two are billed" in str(log)


HOUR = 3600


def name_of(cloud, machine):
    return cloud.get(f"/api/deployments/{machine}").json()["name"]


@pytest.fixture
def host(monkeypatch):
    """A host that answers: what ran on it."""
    ran = []

    class Host:
        async def run(self, command, **_):
            ran.append(command)

    async def connect(*_):
        return Host()

    monkeypatch.setattr("pulumi_vllm.provider.lifecycle.period.connect_host", connect)
    return ran


async def test_the_name_tells_owner_and_end_from_the_first_moment_and_again_after_each_up(
    cloud, doubles, call, host
):
    began = datetime(2026, 11, 30, 7, 0, tzinfo=UTC)
    new = inputs(cloud, doubles, owner="ana", expiresS=8 * HOUR, lastUp=began.isoformat())
    machine, outputs = await create_ready(cloud, call, new)
    name = name_of(cloud, machine)
    assert mark_of(name) == ("ana", began + timedelta(hours=8))

    old = {**new, **outputs, "hostKey": "ssh-ed25519 AAAA", "status": "running"}
    later = new | {"lastUp": (began + timedelta(hours=5)).isoformat(), "owner": "ben"}
    outputs = await Instance().update(call[0], machine, old, later)
    assert outputs["instanceName"] == name_of(cloud, machine)
    assert is_same(name, name_of(cloud, machine))
    assert mark_of(name_of(cloud, machine)) == ("ben", began + timedelta(hours=13))
    assert len(host) == 1
    assert "> /var/lib/pulumi-vllm/last-up" in host[0]

    # A second create, as after an update that was interrupted, adopts it under whatever mark.
    api = call[0].session.cloud()
    assert api.instances.find(Instance()._name(call[0], new)).id == machine

    # Without either, the name is the plain one, and the host is left alone.
    plain = inputs_without_marks(new)
    outputs = await Instance().update(call[0], machine, {**old, **later, **outputs}, plain)
    assert mark_of(outputs["instanceName"]) == (None, None)
    assert len(host) == 1


def inputs_without_marks(new):
    return {name: value for name, value in new.items() if name not in {"owner", "expiresS", "lastUp"}}


async def test_a_preview_shows_no_difference_for_the_time_of_the_up(cloud, doubles, call):
    old = inputs(cloud, doubles, expiresS=8 * HOUR, lastUp="2026-11-30T07:00:00+00:00")
    new = {name: value for name, value in old.items() if name != "lastUp"}
    assert await Instance().check(call[0], new, old) == []
    assert Instance().compare(old, new | {"billing": "on-demand"}) == {}
    removed = inputs_without_marks(old) | {"lastUp": "2026-11-30T09:00:00+00:00"}
    await Instance().check(call[0], removed, old)
    assert "lastUp" not in removed


async def test_a_host_that_does_not_learn_of_the_new_period_is_an_error(cloud, doubles, call):
    new = inputs(cloud, doubles, expiresS=8 * HOUR, lastUp="2026-11-30T07:00:00+00:00")
    machine, outputs = await create_ready(cloud, call, new)
    key = doubles.PUBLIC_KEY
    old = {**new, **outputs, "hostKey": key, "status": "running", "address": "127.0.0.1", "port": 1}
    with pytest.raises(Partial, match="but the host does not know it and may power off before"):
        await Instance().update(call[0], machine, old, new | {"lastUp": "2026-11-30T08:00:00+00:00"})


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"expiresS": HOUR, "lastUp": "2026-01-01T00:00:00+00:00"}, "as its period ended at 2026-01-01 01:00 UTC"),
        ({"idleStopS": 2 * HOUR}, "as it does when nobody uses it (server.idle_stop)"),
    ],
)  # fmt: skip
async def test_a_machine_that_has_powered_off_is_replaced_by_the_next_up(cloud, doubles, call, more, why):
    new = inputs(cloud, doubles, **more)
    machine, outputs = await create_ready(cloud, call, new)
    cloud.sim(f"reclaim/{machine}?as=stopped")
    cloud.until(lambda: cloud.status(machine) == "stopped")
    reading = await Instance().read(call[0], machine, {**new, **outputs}, new)
    assert reading.unhealthy is None
    assert why in reading.inputs["power"]
    assert why in call[1][-1]
    assert Instance().compare(reading.inputs, new) == {"power": Kind.REPLACE}
    cloud.sim("options", minimum_runtime_min=0)
    assert cloud.delete(f"/api/deployments/{machine}").status_code == 200
    assert await Instance().read(call[0], machine, {**new, **outputs}, new) is None
    assert "was terminated outside Pulumi (by `pulumi-vllm sweep`" in call[1][-1]


async def test_a_stopped_machine_without_a_time_is_reported_and_stays(cloud, doubles, call):
    without = inputs(cloud, doubles)
    machine, outputs = await create_ready(cloud, call, without)
    cloud.sim(f"reclaim/{machine}?as=stopped")
    cloud.until(lambda: cloud.status(machine) == "stopped")
    plain = await Instance().read(call[0], machine, {**without, **outputs}, without)
    assert "is stopped; it is billed" in plain.unhealthy


async def test_an_instance_that_never_runs_is_ended_where_that_is_wanted(cloud, doubles, call):
    cloud.sim("profile/data-crunch", running_after_s=1e9)
    cloud.sim("options", minimum_runtime_min=0)
    new = inputs(cloud, doubles, endIfNeverReady=True)
    with pytest.raises(
        UserError, match=r"still deploying .*; the machine was ended, because it never became"
    ) as failure:
        await create(call[0], new)
    assert not isinstance(failure.value, Partial)
    for words in ("billed", "to keep waiting"):
        assert words not in str(failure.value)
    ((machine, _),) = listed(cloud)
    assert cloud.status(machine) == "terminated"


async def test_an_instance_that_was_adopted_is_not_ended(cloud, doubles, call):
    """It may have served before its state was lost."""
    cloud.sim("options", minimum_runtime_min=0)
    new = inputs(cloud, doubles)
    machine, _ = await create_ready(cloud, call, new)
    with pytest.raises(Partial):
        await create(call[0], new | {"endIfNeverReady": True})
    assert cloud.status(machine) == "running"


async def test_an_instance_that_cannot_be_ended_stays_in_state(cloud, doubles, call):
    cloud.sim("profile/data-crunch", running_after_s=1e9)
    cloud.sim("fault", kind="status", status=403, body={"error": "Forbidden"}, method="DELETE", times=None)
    cloud.sim("options", minimum_runtime_min=0)
    with pytest.raises(Partial, match="the machine should have been ended: ") as failure:
        await create(call[0], inputs(cloud, doubles, endIfNeverReady=True))
    assert [failure.value.resource_id] == [machine for machine, _ in listed(cloud)]


LISTED = {"gpu": "H200", "otherGpus": ["H100"], "count": 1, "maxUsdPerHour": 4.5}


async def test_the_second_gpu_is_rented_where_the_first_is_not_on_offer(cloud, doubles, call):
    cloud.sim("profile/data-crunch", running_after_s=1e9)
    new = inputs(cloud, doubles, **LISTED)
    assert (await Instance().preview(call[0], new))["gpuTaken"] == "H200"
    cloud.sim("offer", offer="gpu-h200", gone=True)
    assert (await Instance().preview(call[0], new))["gpuTaken"] == "H100"
    assert "no machine with H200 is on offer within the ceiling; it is H100" in str(call[1])
    with pytest.raises(Partial, match="still deploying") as kept:
        await create(call[0], new)
    assert kept.value.outputs["gpuTaken"] == "H100"
    (rented,) = cloud.get("/api/deployments").json()
    assert rented["gpuType"] == "H100_SXM5"


async def test_the_second_gpu_is_tried_when_the_first_has_no_stock(cloud, doubles, call):
    cloud.sim("profile/data-crunch", running_after_s=1e9)
    cloud.sim("fault", kind="stock", offer="gpu-h200")
    with pytest.raises(Partial, match="still deploying") as kept:
        await create(call[0], inputs(cloud, doubles, **LISTED))
    assert kept.value.outputs["gpuTaken"] == "H100"


@pytest.mark.parametrize(
    ("taken", "new", "replaced"),
    [
        ("H100", {"gpu": "H200", "otherGpus": ["H100"]}, False),
        ("H100", {"gpu": "H100", "otherGpus": ["H200"]}, False),
        ("H100", {"gpu": "H100"}, False),
        ("H100", {"gpu": "H200"}, True),
        ("H200", {"gpu": "B200", "otherGpus": ["H100"]}, True),
        (None, {"gpu": "B200", "otherGpus": ["H200"]}, False),  # a state from before there were lists
    ],
)
def test_a_machine_stays_while_its_gpu_is_one_of_the_list(taken, new, replaced):
    state = {"gpu": "H200", "otherGpus": ["H100"], "count": 1, "gpuTaken": taken}
    found = Instance().compare(state, {"count": 1} | new)
    assert found == ({"gpu": Kind.REPLACE} if replaced else {})


async def test_a_volume_is_placed_where_a_gpu_of_the_list_is_on_offer(cloud, call):
    cloud.sim("offer", offer="gpu-h200", gone=True)
    new = {
        "sizeGb": 1,
        "gpu": "H200",
        "otherGpus": ["H100"],
        "count": 1,
        "billing": "on-demand",
        "maxUsdPerHour": 3,
    }
    with pytest.raises(NoOfferError, match="1x H200, on-demand: no offer with this GPU"):
        await Volume().create(call[0], new | {"otherGpus": None})
    _, outputs = await Volume().create(call[0], new)
    assert outputs["placement"] == "US Central 1", "the cheapest H100"
