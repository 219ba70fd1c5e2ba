"""All faults of the local cloud and its hub, in the order of docs/reference/faults.md."""

import re

import crashes
import destroys
import reclaims
from destroys import api
from harness import wait_for
from rig import PRICES, Rig, Row, Running

CREATE = {"method": "POST", "path": "/api/deployments"}
DISK = {"method": "POST", "path": "/api/volumes"}
ATTACH = {"method": "POST", "path": "/api/volumes/.*/attach"}
READ = {"method": "GET"}
ON_DEMAND, SPOT = PRICES
# A spot machine if possible, otherwise one on demand.
EITHER = {"billing": "spot", "fallback": "on-demand"}
AGAIN = "run the same command again, which adopts the instance"


def hub(**values: object):
    """Return a function that orders a fault of the model hub."""
    return lambda rig: rig.cloud.hub(**values)


def provider(**values: object):
    """Return a function that changes the profile of the provider."""
    return lambda rig: rig.profile(**values)


def offer(pattern: str, **values: object):
    """Return a function that changes offers."""
    return lambda rig: rig.change_offer(pattern, **values)


def interrupt_when(status: str):
    """Return a function that sends Ctrl-C some seconds after the machine has a status."""

    def during(rig: Rig, running: Running) -> None:
        wait_for(lambda: [m for m in rig.machines() if m["status"] == status], 120, status)
        running.until(rf"is {status} \(|waiting for SSH")
        running.interrupt()

    return during


def move_machine(rig: Rig) -> None:
    """Restart the machine with another address."""
    (machine,) = rig.machines()
    rig.cloud.api(f"/_sim/move/{machine['id']}", "POST")


def corrupt_weights(rig: Rig) -> None:
    rig.cloud.hub(corrupt="consolidated.safetensors")


def raise_ceiling(rig: Rig) -> None:
    """Raise the price ceiling, as a user does who accepts the new price."""
    block = rig.project.block
    rig.project.write(block | {"machine": block["machine"] | {"max_usd_per_hour": 1}})


ROWS = (
    # -- the rental API, reading ----------------------------------------------------------------------
    Row(
        "latency: each of three answers 3 s late",
        api("latency", seconds=3, times=3, **READ),
        start="standing",
    ),
    Row("429 with Retry-After on a read", api("status", status=429, retry_after=2, **READ), start="standing"),
    Row("500 on four reads", api("status", status=500, times=4, **READ), start="standing"),
    Row("malformed JSON on a read", api("malformed", **READ), start="standing"),
    Row("an HTML page with status 200 on a read", api("html", **READ), start="standing", ci=True),
    Row("connection dropped on a read", api("drop_after", **READ), start="standing"),
    Row(
        "403 on a read",
        api("status", status=403, times=1, path="/api/deployments/.*", **READ),
        ("the cloud answered 403", "the key lacks the right"),
        start="standing",
        left=1,
    ),
    # -- the model hub --------------------------------------------------------------------------------
    Row("hub: connections cut", hub(cut=1_000_000, cuts=3), start="weights"),
    Row("hub: slow", hub(rate=1_000_000), start="weights"),
    Row("hub: 429 with Retry-After", hub(status=429, times=2, retry_after=1), start="weights"),
    Row("hub: 503 on three requests", hub(status=503, times=3), start="weights"),
    Row(
        "hub: a corrupt byte",
        corrupt_weights,
        ("vllm-weights.service failed", "consolidated.safetensors"),
        start="weights",
        left=1,
    ),
    Row("hub: 401", hub(auth="hf_right"), ("not found at", "or it is private"), start="weights", left=1),
    Row("hub: 403", hub(gated=1), ("access is restricted", "accept the terms at"), start="weights", left=1),
    Row(
        "hub: 404",
        hub(status=404, on="api"),
        ("the hub answered 404", "check the name and weights.endpoint"),
        start="weights",
        left=1,
    ),
    # -- a running machine ----------------------------------------------------------------------------
    Row("another address after a reboot", move_machine, start="standing"),
    Row("reclaimed while it serves", reclaims.reclaim_running, start="standing", another=True),
    Row(
        "powered off by its provider while it serves",
        reclaims.power_off,
        ("the cloud reports stopped", "`pulumi up --replace", "it exists and is billed"),
        start="standing",
        again=lambda rig: ("--replace", rig.urn("vllm:spheron:Instance")),
        left=1,
        another=True,
    ),
    # -- renting --------------------------------------------------------------------------------------
    Row("429 with Retry-After on the create", api("status", status=429, retry_after=2, **CREATE)),
    Row("429 without Retry-After on the create", api("status", status=429, **CREATE)),
    Row(
        "429 on every create",
        api("status", status=429, times=None, **CREATE),
        ("the cloud answered 429", "too many calls, wait and run it again"),
    ),
    Row("500 on the create, before the act", api("status", status=500, **CREATE), ("answered 500", AGAIN)),
    Row("500 on the create, after the act", api("status_after", status=500, **CREATE), ci=True),
    Row(
        "connection dropped on the create, before the act", api("drop_before", **CREATE), ("was lost", AGAIN)
    ),
    Row("connection dropped on the create, after the act", api("drop_after", **CREATE)),
    Row("the create answered after 90 s (virtual)", provider(post_latency_s=90)),
    Row("malformed JSON on the create", api("malformed", **CREATE)),
    Row("an HTML page with status 200 on the create", api("html", **CREATE), ("a web page titled", AGAIN)),
    Row("connection dropped on the attach, after the act", api("drop_after", **ATTACH)),
    Row(
        "500 on the attach, before the act",
        api("status", status=500, **ATTACH),
        ("attaching the volume fault-", "answered 500", "try again in some minutes"),
        left=1,
    ),
    Row(
        "another address after the reboot of an attach",
        lambda rig: rig.cloud.api("/_sim/profile/spheron-es", "POST", {"address_stays": False}),
        ("restarted with another address", "`pulumi up --refresh` continues there"),
        start="blank",
        machine={"region": "US Central 1"},
        left=1,
    ),
    Row(
        "500 on the SSH key's registration, after the act",
        api("status_after", status=500, method="POST", path="/api/ssh-keys"),
        start="blank",
    ),
    Row("connection dropped on the disk's create, after the act", api("drop_after", **DISK), start="blank"),
    Row(
        "connection dropped on the disk's create, before the act",
        api("drop_before", **DISK),
        ("the connection was lost", "is listed so far; run the same command again"),
        start="blank",
    ),
    Row(
        "the team's credit used up",
        lambda rig: rig.cloud.api("/_sim/options", "POST", {"balance": 1.0}),
        ("the team has $1.00, and this machine needs $3.00; add credit",),
    ),
    # -- the market -----------------------------------------------------------------------------------
    Row(
        "offer gone between list and create, the stack allows another",
        api("gone", offer=SPOT),
        machine=EITHER,
    ),
    Row(
        "offer gone between list and create, no other",
        api("gone", offer=ON_DEMAND),
        ("no instance is available", "not found for provider", "take another offer or region, or try later"),
    ),
    Row("capacity gone, the stack allows the next offer", api("stock", offer=SPOT), machine=EITHER),
    Row(
        "capacity gone, no other offer",
        api("stock", offer=ON_DEMAND),
        ("no instance is available", "Not Enough Stock", "take another offer or region, or try later"),
    ),
    Row("price changed before the create, below the ceiling", offer(ON_DEMAND, price=0.02)),
    Row(
        "price changed before the create, above the ceiling",
        offer(ON_DEMAND, price=0.5),
        ("no offer within $0.05/h", "raise max_usd_per_hour"),
    ),
    Row(
        "billed more than was listed, above the ceiling",
        api("price", offer=ON_DEMAND, price=0.5),
        ("the cloud bills $0.5/h for it, above the ceiling of $0.05/h", "it exists and is billed"),
        repair=raise_ceiling,
        left=1,
    ),
    # -- a machine that does not start ----------------------------------------------------------------
    Row(
        "stuck in deploying, beyond its time",
        provider(running_after_s=1e9),
        ("still deploying after", "run `pulumi up` again to keep waiting", "it exists and is billed"),
        short_timeout=True,
        left=1,
    ),
    Row(
        "never SSH-able, beyond its time",
        provider(ssh_answers=False),
        ("gave up after", "run `pulumi up` again to keep waiting", "it exists and is billed"),
        short_timeout=True,
        left=1,
    ),
    Row(
        "stuck in deploying, given up with Ctrl-C",
        provider(running_after_s=1e9),
        ("cancelled while waiting", "it exists and is billed"),
        during=interrupt_when("deploying"),
        left=1,
    ),
    Row(
        "never SSH-able, given up with Ctrl-C",
        provider(ssh_answers=False),
        ("cancelled while waiting", "it exists and is billed"),
        during=interrupt_when("running"),
        left=1,
    ),
    *reclaims.ROWS,
    *crashes.ROWS,
    *destroys.ROWS,
)


def key(row: Row) -> str:
    """Return a short name for command lines and test ids."""
    return re.sub(r"[^a-z0-9]+", "-", row.name.lower()).strip("-")
