"""Blocks of stack files that are planned."""

import pathlib

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
STACKS = {
    path.name.removesuffix(".yaml").removeprefix("Pulumi."): path
    for path in ROOT.glob("stacks/Pulumi.*.yaml")
}


def block_of(stack):
    return yaml.safe_load(STACKS[stack].read_text())["config"]["pulumi-vllm:server"]


def machine(gpu="H200", count=2, **more):
    return {
        "model": "mistral-small-4",
        "context": "32Ki",
        "machine": {"gpu": gpu, "count": count, "max_usd_per_hour": 20},
        "storage": "300GB",
        "access": {"allow": ["9.9.9.0/24"]},
        **more,
    }
