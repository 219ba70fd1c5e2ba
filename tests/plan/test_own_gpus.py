"""GPU files beside the stack files: found by name or path, planned like those of the catalogue, wrong ones refused."""

import json
import re
from pathlib import Path

import pytest
import yaml
from pulumi_vllm.cli.schema import gpu_schema_text
from pulumi_vllm.plan import ConfigError, Deployment, explain, gpu_schema, plan

CARD = {
    "name": "RTX 3090",
    "form": "PCIe",
    "named": ["RTX 3090"],
    "memory_mib": 24576,
    "source": "nvidia-smi of our machines",
    "compute_capability": "8.6",
    "bandwidth_gb_s": 936,
    "usd_per_hour": {"on-demand": 0.4},
}


@pytest.fixture
def put(tmp_path):
    (tmp_path / "gpus").mkdir()

    def put(**changes):
        content = {key: value for key, value in (CARD | changes).items() if value is not None}
        (tmp_path / "gpus" / "RTX 3090.yaml").write_text(yaml.safe_dump(content))
        return tmp_path

    return put


def block(gpu, count=2):
    machine = {"gpu": gpu, "count": count, "max_usd_per_hour": 9}
    return {"model": "llama-3.1-8b", "context": "8Ki", "storage": "100GB", "machine": machine}


@pytest.mark.parametrize("written", ["RTX 3090", "./gpus/RTX 3090.yaml", ["RTX 3090"]])
def test_a_stack_is_planned_for_a_gpu_of_a_file(put, written):
    decided = plan(Deployment.parse(block(written), folders=(put(),)))
    summary = explain.summary(decided)
    assert summary["machine"] == "2x RTX 3090"
    assert decided.usd_per_hour == 0.8
    assert decided.memory.visible_gib == 22.9
    (visible,) = [line for line in summary["budget"] if line.startswith("visible")]
    assert (
        "(reported: nvidia-smi of our machines; what a program sees of the memory is unverified)" in visible
    )
    assert any("never on RTX 3090" in one.message for one in decided.findings)
    assert (
        "RTX 3090 (PCIe, compute capability 8.6) has 936 GB/s of memory bandwidth and no NVLink"
        in " ".join(summary["because"])
    )


def test_a_list_may_mix_both(put):
    found = Deployment.parse(block(["RTX 4090", "./gpus/RTX 3090.yaml"]), folders=(put(),))
    assert found.machine.gpus == ("RTX 4090", "RTX 3090")
    decided = plan(found)
    assert [one.selection.gpu.memory_mib for one in (decided, *decided.others)] == [24564, 24576]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "rtx3090"}, "name: "),
        ({"name": "RTX3090"}, "name: 'RTX3090' is not how offers are compared; write RTX 3090"),
        ({"name": "H100"}, "name: 'H100' is a GPU of the catalogue; choose another name"),
        ({"name": "RTX 3080"}, "name: 'RTX 3080' is not the file's name; write RTX 3090, or rename the file"),
        ({"memory_mib": 24}, "memory_mib: "),
        ({"visible_gib": 30}, "visible_gib: 30 is not a little below the 24.00 GiB of memory_mib"),
        ({"form": "card"}, "form: "),
        (
            {"compute_capability": "8"},
            "compute_capability: '8' is not allowed; write a number with one decimal in quotes, such as '8.6'",
        ),
        (
            {"compute_capability": "7.0"},
            "compute_capability: vLLM's packages run on 7.5 or higher, not on 7.0",
        ),
        ({"compute_capability": 8.6}, 'compute_capability: 8.6 is not text; write text, in quotes: "8.6"'),
        ({"source": None}, "source: missing; add it"),
        ({"source": ""}, "source: is empty; write some text"),
        ({"named": ["R"]}, "named.0: 'R' is too short; write at least 2 characters"),
        ({"visible_gib": -1}, "visible_gib: -1 is out of range; write more than 0"),
        ({"speed": 3}, "speed: unknown key; "),
        ({"usd_per_hour": {"on_demand": 1}}, "usd_per_hour.on_demand: unknown key; did you mean on-demand?"),
    ],
)
def test_a_wrong_file_is_refused_with_its_path(put, changes, message):
    folder = put(**changes)
    with pytest.raises(ConfigError) as refusal:
        Deployment.parse(block("RTX 3090"), folders=(folder,))
    path = folder / "gpus" / "RTX 3090.yaml"
    assert any(error.startswith(f"{path}: {message}") for error in refusal.value.errors), refusal.value.errors


def test_a_file_does_not_replace_a_gpu_of_the_catalogue(put):
    folder = put()
    path = (folder / "gpus" / "RTX 3090.yaml").rename(folder / "gpus" / "L4.yaml")
    with pytest.raises(ConfigError, match=f"^{re.escape(str(path))}: L4 is in the catalogue too; rename"):
        Deployment.parse(block(["L4", "RTX 4090"]), folders=(folder,))


def test_what_is_no_gpu_file_is_refused(put):
    folder = put()
    (folder / "gpus" / "T4.yaml").write_text("- no\n")
    (folder / "gpus" / "T5.yaml").write_text("a: [\n")
    for name, message in (("T4", "is not a block of keys"), ("T5", "is not YAML")):
        with pytest.raises(ConfigError, match=message):
            Deployment.parse(block(name), folders=(folder,))
    with (folder / "gpus" / "RTX 3090.yaml").open("a") as file:
        file.write("memory_mib: 1\n")
    with pytest.raises(
        ConfigError, match=r"RTX 3090.yaml:\d+: memory_mib: is in line \d+ already; remove one"
    ):
        Deployment.parse(block("RTX 3090"), folders=(folder,))
    with pytest.raises(ConfigError) as refusal:
        Deployment.parse(block("./gpus/x.yaml") | {"context": "zero"}, folders=(folder,))
    assert "server.machine.gpu: there is no file ./gpus/x.yaml" in refusal.value.errors[0]
    assert "server.context" in refusal.value.errors[1], "the errors of the block are said as well"


def test_the_schema_of_such_files_has_every_key():
    schema = json.loads(gpu_schema_text())
    assert schema["properties"].keys() == CARD.keys() | {
        "visible_gib", "nvlink_gb_s", "nvlink_pairs", "nvswitch_from", "processor",
    }  # fmt: skip
    assert all(one.get("description") for one in schema["properties"].values())


def test_the_example_of_the_guide_is_valid():
    guide = (Path(__file__).parents[2] / "docs/how-to/other-models.md").read_text()
    (example,) = re.findall(r"```yml\n(name: .*?)```", guide, re.DOTALL)
    assert gpu_schema.problems(yaml.safe_load(example), "gpus/RTX 3090.yaml") == ()
