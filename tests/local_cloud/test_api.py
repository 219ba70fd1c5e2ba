"""Deployments in the simulated API: order of checks, readiness, minimum run time, termination."""

from __future__ import annotations

import pytest
import requests


def test_all_routes_but_two_need_the_key(api):
    assert api.get("/api/balance", key=None).status_code == 401
    assert api.get("/api/balance", key="sai_pk_wrong").json()["code"] == "UNAUTHORIZED"
    assert api.get("/api/providers", key=None).json() == [
        "data-crunch",
        "massed-compute",
        "spheron-es",
        "voltage-park",
    ]
    assert api.get("/api/gpu-offers", key=None).status_code == 200
    assert api.get("/api/balance", headers={"User-Agent": "Python-urllib/3.11"}).status_code == 403
    assert api.get("/api/nothing").status_code == 404


def test_offers_are_grouped_and_the_filter_selects_whole_groups(api):
    page = api.get("/api/gpu-offers?limit=100&instanceType=SPOT").json()
    kinds = {offer["instanceType"] for group in page["data"] for offer in group["offers"]}
    assert kinds == {"SPOT", "DEDICATED"}
    h200 = next(group for group in page["data"] if group["gpuType"] == "H200_SXM5")
    two = [item for item in h200["offers"] if item["gpuCount"] == 2 and item["provider"] == "spheron-es"]
    assert {item["instanceType"]: item["price"] for item in two} == {"DEDICATED": 7.92, "SPOT": 3.9}
    assert "region" not in two[0]
    assert two[0]["clusters"] == ["US Central 1"]
    assert api.get("/api/gpu-offers?limit=2&page=2").json()["totalPages"] == 3
    assert [g["gpuType"] for g in api.get("/api/gpu-offers?search=h100").json()["data"]] == ["H100_SXM5"]


@pytest.mark.parametrize(
    ("changes", "status", "text"),
    [
        ({"teamId": None}, 400, "Team ID is required for authenticated deployments"),
        ({"teamId": "other"}, 403, "not a member"),
        ({"gpuCount": None}, 500, "Path 'gpuCount' is required"),
        ({"offerId": "nope"}, 400, "not found"),
        ({"gpuType": "H200"}, 400, "omit it or send CPU"),
        ({"region": "Iceland 1"}, 400, "Input payload validation failed"),
        ({"operatingSystem": "ubuntu-22.04"}, 400, "Input payload validation failed"),
        ({"instanceType": "SPOT"}, 400, "Input payload validation failed"),
        ({"ssh_public_key": None}, 400, "sshKeyId or ssh_public_key"),
        ({"name": "n" * 51}, 400, "Input payload validation failed"),
        ({"volumeIds": ["66f0"]}, 500, "Volume 66f0 not found"),
    ],
)
def test_create_checks_in_the_order_of_the_live_service(api, changes, status, text):
    answer = api.post("/api/deployments", json=api.body(**changes))
    assert answer.status_code == status
    assert text in answer.text
    assert api.get("/api/deployments").json() == []


def test_a_name_is_unavailable_while_an_active_machine_has_it(api):
    api.create()
    again = api.post("/api/deployments", json=api.body())
    assert again.status_code == 400
    assert "This name is not available" in again.json()["message"]


def test_create_is_refused_without_credit(api):
    api.sim("options", balance=2.5)
    answer = api.post("/api/deployments", json=api.body())
    assert answer.status_code == 400
    assert "insufficient balance" in answer.text.lower()


def test_out_of_stock_is_reported_only_by_create(api):
    api.sim("fault", kind="stock", offer="cpu")
    assert "Not Enough Stock of CPU" in api.post("/api/deployments", json=api.body()).text
    assert api.post("/api/deployments", json=api.body()).status_code == 201


def test_running_needs_the_start_time_and_an_answering_sshd(cloud_at):
    with cloud_at() as api:
        api.machines.deaf = True
        made = api.create()
        assert made["status"] == "deploying"
        api.sim("advance", seconds=3600)
        api.until(lambda: ("start", made["id"]) in api.machines.log)
        assert api.status(made["id"]) == "deploying"
        api.machines.deaf = False
        api.until(lambda: api.status(made["id"]) == "running")
        shown = api.get(f"/api/deployments/{made['id']}").json()
        assert shown["sshCommand"] == f"ssh root@{shown['ipAddress']}"
    with cloud_at(factor=1.0) as api:
        api.sim("profile/data-crunch", post_latency_s=0)
        made = api.create()
        api.until(lambda: ("start", made["id"]) in api.machines.log)
        assert api.status(made["id"]) == "deploying"  # 240 s have not passed


def test_the_login_fields_depend_on_the_provider(api):
    shown = {}
    for provider, gpu in (
        ("spheron-es", "CPU"),
        ("massed-compute", "L40S_PCIE"),
        ("voltage-park", "L40S_PCIE"),
    ):
        made = api.running(api.offer(provider, gpu), name=provider)
        shown[provider] = api.get(f"/api/deployments/{made}").json()
    assert shown["spheron-es"]["ipAddress"]
    assert shown["spheron-es"]["sshPort"] is None
    assert shown["spheron-es"]["user"] is None
    assert shown["spheron-es"]["sshCommand"] is None
    assert "sshCommand" not in shown["massed-compute"]
    assert shown["voltage-park"]["user"] == "ubuntu"


def test_terminate_respects_the_minimum_run_time_and_fails_twice(cloud_at):
    with cloud_at(factor=60.0) as api:
        api.sim("profile/data-crunch", post_latency_s=0, running_after_s=0)
        machine = api.running()
        refused = api.delete(f"/api/deployments/{machine}")
        assert refused.status_code == 400
        body = refused.json()
        assert (body["canTerminate"], body["timeRemaining"], body["minimumRuntime"]) == (False, 20, 20)
        assert api.get(f"/api/deployments/{machine}/can-terminate").json()["timeRemaining"] == 20
        api.sim("advance", seconds=19 * 60)
        assert api.delete(f"/api/deployments/{machine}").json()["timeRemaining"] == 1
        api.sim("advance", seconds=61)
        assert api.get(f"/api/deployments/{machine}/can-terminate").json()["canTerminate"] is True
        assert api.delete(f"/api/deployments/{machine}").json()["deployment"]["status"] == "terminated"
        second = api.delete(f"/api/deployments/{machine}")
        assert second.status_code == 400
        assert second.json()["currentStatus"] == "terminated"
        api.until(lambda: ("destroy", machine) in api.machines.log)
        assert api.status(machine) == "terminated"
        assert [item["id"] for item in api.get("/api/deployments?status=inactive").json()] == [machine]
        assert api.get("/api/deployments?status=active").json() == []


def test_only_the_name_can_be_changed(api):
    made = api.create()
    path = f"/api/deployments/{made['id']}"
    assert api.call("PATCH", path, json={"name": "two"}).json()["name"] == "two"
    assert api.call("PATCH", path, json={"region": "x"}).status_code == 400


def test_a_used_up_balance_terminates_everything(cloud_at):
    with cloud_at(factor=60.0) as api:
        api.sim("profile/spheron-es", post_latency_s=0)
        made = api.create(api.offer("spheron-es", "H200_SXM5", count=2))
        api.sim("advance", seconds=3600)
        assert api.get(f"/api/deployments/{made['id']}").json()["totalCost"] == pytest.approx(7.92, abs=0.1)
        api.sim("options", balance=1)
        api.sim("advance", seconds=3600)
        assert api.status(made["id"]) == "terminated"
        api.until(lambda: ("destroy", made["id"]) in api.machines.log)


def test_reclaim_gives_the_notice_of_the_provider(api):
    machine = api.running(api.offer("spheron-es", "H100_SXM5", "SPOT", 1))
    api.sim("reclaim/one")
    api.until(lambda: api.status(machine) == "terminated-provider")
    assert ("stop", machine, 60) in api.machines.log
    other = api.running(api.offer("data-crunch"), name="two")
    api.sim(f"reclaim/{other}")
    api.until(lambda: api.status(other) == "terminated-provider")
    assert ("kill", other) in api.machines.log
    gone = api.delete(f"/api/deployments/{other}")
    assert gone.json()["currentStatus"] == "terminated-provider"


def test_a_reclaimed_machine_can_stay_stopped_until_its_delete(api):
    machine = api.running(api.offer("spheron-es"))
    requests.post(f"{api.url}/_sim/reclaim/{machine}?as=stopped", timeout=10).raise_for_status()
    api.until(lambda: api.status(machine) == "stopped")
    assert ("destroy", machine) not in api.machines.log
    api.sim("advance", seconds=1200)
    assert api.delete(f"/api/deployments/{machine}").status_code == 200
    api.until(lambda: ("destroy", machine) in api.machines.log)


def test_a_machine_that_cannot_be_created_fails(api):
    api.machines.fail = {"create"}
    made = api.create()
    api.until(lambda: api.status(made["id"]) == "failed")
    state = requests.get(f"{api.url}/_sim/state", timeout=10).json()
    assert "fails because the test asked" in state["deployments"][0]["why"]
    assert api.delete(f"/api/deployments/{made['id']}").status_code == 200


def test_spot_reclaims_are_off_by_default(cloud_at):
    with cloud_at() as api:
        offer = api.offer("data-crunch", "H100_SXM5", "SPOT", 1)
        machine = api.running(offer)
        assert api.store.deployments[machine].dies_at is None
        api.sim("options", spot_hazard_per_hour=10_000.0)
        other = api.create(offer, name="two")["id"]
        api.until(lambda: api.status(other) == "terminated-provider")


def test_gpu_machines_always_get_the_fake_engine(api):
    made = api.create(api.offer("spheron-es", "H200_SXM5", count=2))
    api.until(lambda: made["id"] in api.machines.machines)
    spec = api.machines.machines[made["id"]].spec
    assert (spec.gpu, spec.gpu_count, spec.layers, spec.user) == ("h200", 2, ("engine-fake",), "ubuntu")


def test_cloud_init_is_dropped_or_rewritten(api):
    sent = {"runcmd": ["touch /a"], "writeFiles": [{"path": "/b", "content": "x"}]}
    dropped = api.create(api.offer("spheron-es"), name="dropped", cloudInit=sent)
    honoured = api.create(api.offer("data-crunch"), name="honoured", cloudInit=sent)
    as_text = api.create(api.offer("data-crunch"), name="text", cloudInit="#!/bin/bash")
    api.until(lambda: len(api.machines.machines) == 3)
    specs = {key: machine.spec.user_data for key, machine in api.machines.machines.items()}
    assert specs[dropped["id"]] is None
    assert specs[as_text["id"]] is None
    assert "startup.sh" in specs[honoured["id"]]["runcmd"][0][2]
