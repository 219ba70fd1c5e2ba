"""A list of GPUs, with the real Pulumi engine: the one that is rented decides what runs on the host, and stays."""

import json

import pytest
import yaml
from harness import REPOSITORY, client


@pytest.mark.all
def test_the_second_gpu_of_the_list_is_taken_and_stays(projects, tmp_path):
    shipped = yaml.safe_load((REPOSITORY / "stacks" / "Pulumi.spheron-h100-1x-nvfp4.yaml").read_text())
    block = shipped["config"]["pulumi-vllm:server"]
    block["access"] = {**block["access"], "allow": ["0.0.0.0/0", "::/0"]}
    machine = {**block["machine"], "max_usd_per_hour": 4.5}
    project = projects("fake", stack="listed")
    project.write({**block, "machine": {**machine, "gpu": ["H200", "H100"]}})
    project.cloud.api("/_sim/offer", "POST", {"offer": "gpu-h200", "gone": True})
    try:
        shown = project.pulumi("preview")
        assert (
            "no machine with H200 is on offer within the ceiling; it is H100" in shown.stdout + shown.stderr
        )
        project.up()
    finally:
        project.cloud.api("/_sim/offer", "POST", {"offer": "gpu-h200", "gone": False})
    outputs, rented = project.outputs(), project.machine_id()
    assert outputs["plan"]["machine"] == "1x H100"
    planned = json.loads(project.on_host("cat /etc/pulumi-vllm/preflight.json"))["gpus"]
    assert (planned["name"], planned["memory_mib"]) == ("H100", 81559)
    assert client(outputs, tmp_path).models.list().data[0].id == "mistral-small-4"
    # H200 is on offer again, and then the list has another order: the machine stays.
    project.pulumi("preview", "--expect-no-changes")
    project.write({**block, "machine": {**machine, "gpu": ["H100", "H200"]}})
    project.up()
    assert project.machine_id() == rented
    project.write({**block, "machine": {**machine, "gpu": "H200"}})
    assert "replace" in project.pulumi("preview").stdout
