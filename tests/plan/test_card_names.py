"""The catalogue's name of a GPU, from the names of offers, and the figures of the GPUs."""

import pytest
from pulumi_vllm.plan import catalogue
from pulumi_vllm.plan.card_names import card_name

KNOWN = catalogue.load()
GPUS = {name: gpu for name, gpu in KNOWN.gpus.items() if name != catalogue.CPU}


@pytest.mark.parametrize("name", KNOWN.gpus)
def test_the_catalogue_uses_these_names(name):
    assert card_name(name) == name


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("H200_SXM5", "H200"),
        ("h200-sxm5", "H200"),
        ("H100_PCIE", "H100 PCIe"),
        ("H100 NVL", "H100 NVL"),
        ("H100_SXM5", "H100"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("A100_80G_PCIE", "A100 80GB PCIe"),
        ("A100_80G_SXM4", "A100 80GB"),
        ("NVIDIA A100-PCIE-40GB", "A100 40GB PCIe"),
        ("A100", "A100"),
        ("L40S_PCIE", "L40S"),
        ("B200_SXM6", "B200"),
        ("B300_SXM6", "B300"),
        ("GB200_NVL72", "GB200"),
        ("GH200_PCIE", "GH200"),
        ("NVIDIA GH200 480GB", "GH200"),
        ("RTX4090_PCIE", "RTX 4090"),
        ("rtx-4090", "RTX 4090"),
        ("RTX4090D_PCIE", "RTX 4090 D"),
        ("NVIDIA GeForce RTX 5090", "RTX 5090"),
        ("RTXPRO6000-PCIE", "RTX PRO 6000"),
        ("RTX6000ADA_PCIE", "RTX 6000 ADA"),
        ("CPU_GENOA", "CPU"),
        ("", ""),
    ],
)
def test_every_spelling_has_one_name(written, name):
    assert card_name(written) == name


def test_what_a_name_does_not_tell_is_taken_from_the_offer():
    assert card_name("A100", 80, "SXM4") == "A100 80GB"
    assert card_name("A100_PCIE", 40) == "A100 40GB PCIe"
    assert card_name("H100", 80, "PCIe") == "H100 PCIe"
    assert card_name("H200_SXM5", 141, "SXM5") == "H200"


@pytest.mark.parametrize("gpu", GPUS.values(), ids=GPUS)
def test_the_figures_of_a_gpu_agree_with_each_other(gpu):
    reserved_gib = gpu.memory_mib / 1024 - gpu.visible_gib
    assert 0.4 < reserved_gib < 1.7
    assert gpu.measured == (gpu.name in {"H200", "H100"})
    assert gpu.measured or gpu.memory_from.startswith("reported: ")
    major, minor = (int(part) for part in gpu.compute_capability.split("."))
    assert (major, minor) >= (8, 0)
    assert gpu.form in {"SXM", "PCIe", "NVL"}
    assert gpu.form == "SXM" or gpu.nvswitch_from is None
    assert gpu.name.endswith(gpu.form) == (len(gpu.named) > 1)


def test_runs_count_for_the_form_that_they_were_measured_on():
    assert {run.gpu for run in KNOWN.measured} <= {name for name, gpu in GPUS.items() if gpu.measured}
