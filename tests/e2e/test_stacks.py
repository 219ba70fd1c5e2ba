"""All shipped stacks on the local cloud: previewed, priced and, in tier all, brought up."""

import json
import re
import socket
import threading
from contextlib import contextmanager

import pytest
from harness import REPOSITORY, client, shipped

STACKS = sorted(path.name[len("Pulumi.") : -len(".yaml")] for path in REPOSITORY.glob("stacks/Pulumi.*.yaml"))
ON_GPUS = [stack for stack in STACKS if stack != "local"]


@contextmanager
def external_connections(environment: dict[str, str]):
    """Send all external connections to a port that counts them; the cloud and its hub are on loopback."""
    came: list[bytes] = []
    gateway = socket.create_server(("127.0.0.1", 0))

    def listen():
        while True:
            try:
                caller, _ = gateway.accept()
            except OSError:
                return
            with caller:
                came.append(caller.recv(200))

    threading.Thread(target=listen, daemon=True).start()
    proxy = f"http://127.0.0.1:{gateway.getsockname()[1]}"
    names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
    before = {name: environment.get(name) for name in (*names, "no_proxy", "NO_PROXY")}
    environment |= dict.fromkeys(names, proxy) | dict.fromkeys(
        ("no_proxy", "NO_PROXY"), "127.0.0.1,localhost"
    )
    try:
        yield came
    finally:
        gateway.shutdown(socket.SHUT_RDWR)
        gateway.close()
        for name, value in before.items():
            environment.pop(name)
            if value is not None:
                environment[name] = value


@contextmanager
def offered(cloud, part: str, usd: float):
    """Change the price of the offers whose id contains a part, until the block ends."""
    before = cloud.api("/_sim/offer", "POST", {"offer": part})
    cloud.api("/_sim/offer", "POST", {"offer": part, "price": usd})
    try:
        yield
    finally:
        for one in sorted(before, key=lambda one: len(one["offerId"])):  # an id may be the start of another
            cloud.api("/_sim/offer", "POST", {"offer": one["offerId"], "price": one["price"]})


def previewed(project, stack: str, block: dict) -> str:
    """Preview another stack of the same project."""
    project.pulumi("stack", "init", stack)
    project.stack = stack
    project.write(block)
    return project.pulumi("preview", "--diff", check=False).stdout


def test_every_stack_is_previewed_and_priced(projects):
    project = projects("fake")
    first = project.stack
    project.cloud.api("/_sim/log", "DELETE")
    with external_connections(project.environment) as came:
        for stack in STACKS:
            block = shipped(stack)
            shown = previewed(project, stack, block)
            assert "error:" not in shown, shown
            assert "+ 13 to create" in shown or "+ 14 to create" in shown, shown
            assert "usd_per_hour_source" in shown
            price = float(re.findall(r"^    usd_per_hour +: ([\d.]+)", shown, re.MULTILINE)[-1])
            assert 0 < price <= block["machine"]["max_usd_per_hour"]
    assert came == [], "a preview asks the cloud's API and nobody else"
    asked = project.cloud.api("/_sim/log")
    assert {row["method"] for row in asked} <= {"GET", "HEAD"}
    project.stack = first


def test_what_does_not_fit_is_refused_and_cheaper_machines_are_reported(projects):
    project = projects("fake")
    first = project.stack
    block = shipped("spheron-h100-1x-nvfp4")
    shown = previewed(project, "small", block | {"precision": "fp8", "storage": "300GB"})
    assert "GiB per GPU are missing, the weights alone take 112.9 of 71.3 GiB" in shown
    assert "use precision nvfp4 here or 1x H200 ($3.96/h)" in shown
    assert "Traceback" not in shown

    with offered(project.cloud, "gpu-h200-sxm5::2gpu", 1.5):
        shown = previewed(project, "dear", shipped("spheron-h200-1x-fp8"))
        assert "2x H200 has the same capacity for $1.50/h" in shown
        assert re.search(r"usd_per_hour +: 3\.96$", shown, re.MULTILINE)
        assert "as the cloud offers it" in shown
    project.stack = first


@pytest.mark.all
@pytest.mark.parametrize("stack", ON_GPUS)
def test_every_stack_comes_up(projects, tmp_path, stack):
    """Bring up a stack with the fake engine and an nvidia-smi that prints captured data."""
    project = projects("fake", stack=stack)
    block = shipped(stack)
    project.write(block)
    project.up()
    outputs, machine = project.outputs(), block["machine"]
    assert outputs["evidence"]["readiness"]["passed"] is True
    assert machine["max_usd_per_hour"] >= outputs["plan"]["usd_per_hour"] > 0
    cards = project.on_host("nvidia-smi --query-gpu=name,memory.total --format=csv,noheader").splitlines()
    assert len(cards) == machine["count"]
    assert all(machine["gpu"] in card for card in cards)
    words = project.on_host("tr '\\0' ' ' </proc/$(systemctl show -p MainPID --value vllm)/cmdline")
    (context,) = [line for line in outputs["flags"].splitlines() if line.startswith("--max-model-len ")]
    assert context in words
    ai = client(outputs, tmp_path)
    answer = ai.chat.completions.create(
        model=outputs["model"], messages=[{"role": "user", "content": "Hello"}], max_tokens=20
    )
    assert answer.choices[0].message.content
    assert set(project.changes()) == {"same"}, json.dumps(project.changes())
