"""The tables of README.md and lab/notes/fits.md are those that the plan gives; the stacks' headers say what is true."""

import json
import re

import fits
import pytest
import yaml
from pulumi_vllm.plan import Deployment, catalogue, plan
from pulumi_vllm.plan import pricing as price

STACKS = sorted((fits.ROOT / "stacks").glob("Pulumi.*.yaml"))


@pytest.mark.parametrize(("name", "title", "table"), fits.TABLES, ids=lambda value: str(value)[:20])
def test_the_table_is_current(name, title, table):
    assert table() in (fits.ROOT / name).read_text(), "python lab/fits/fits.py --write"


def test_a_stack_at_fewer_streams_than_were_measured_has_the_rate_of_its_own():
    text = (fits.ROOT / "stacks/Pulumi.spheron-h200-1x-fp8.yaml").read_text()
    assert "8,448 at 512 |" in fits._row(fits.planned(text))
    few = fits._row(fits.planned(text.replace("concurrency: 512", "concurrency: 128")))
    assert "3,284 at 128 (other flags) |" in few
    between = fits._row(fits.planned(text.replace("concurrency: 512", "concurrency: 100")))
    assert "at 100 (other flags) (interpolated) |" in between


def test_every_stack_says_who_it_is_for():
    for path in STACKS:
        assert "\n# For " in f"\n{path.read_text()}", path.name


@pytest.mark.parametrize(
    "path", [path for path in STACKS if "local" not in path.name], ids=lambda path: path.name
)
def test_a_stacks_header_says_its_price_and_what_was_measured(path):
    header = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("# "))
    block = yaml.safe_load(path.read_text())["config"]["pulumi-vllm:server"]
    machine, known = block["machine"], catalogue.load()
    usd = price.list_price(known.gpus[machine["gpu"]], machine["count"], "on-demand")
    assert f"${usd:.2f}/h on demand" in header
    decided = fits.planned(path.read_text())
    runs = [
        run
        for run in known.measured
        if (run.precision, run.gpu, run.count) == (block["precision"], machine["gpu"], machine["count"])
        and (run.engine, run.engines) == (decided.engine.version, decided.engines)
    ]
    assert not runs or f"vLLM {decided.engine.version} and exactly these flags" in header
    assert not runs or decided.measured == "yes"
    tokens, rates = re.findall(r"([\d,]+) KV tokens", header), re.findall(r"([\d,]+) tok/s at (\d+)", header)
    assert {int(one.replace(",", "")) for one in tokens} <= {run.kv_tokens for run in runs}
    measured = {(int(streams), round(rate)) for run in runs for streams, rate in run.tokens_per_s.items()}
    assert {(int(streams), int(rate.replace(",", ""))) for rate, streams in rates} <= measured
    assert bool(tokens) == bool(runs), "the header must give the measured figures"
    assert ("Never started" in header) == (not runs)


REQUEST_VARIABLES = (
    "PULUMI_VLLM_REQUESTS", "PYTHONPATH", "VLLM_MAX_IMAGE_PIXELS", "VLLM_MAX_N_SEQUENCES",
    "VLLM_MEDIA_URL_ALLOW_REDIRECTS",
)  # fmt: skip
"""Environment variables that decide which requests are answered, not how an answer is computed."""
KERNEL_CACHE = "HUMMING_CACHE_DIR"
"""Where compiled kernels are kept, set since 2026-12-01. What was started before kept them in HOME."""


def test_what_is_called_measured_was_started_with_this_environment():
    """`plan` compares command lines; whoever changes an engine's environment has to start the stacks again."""
    compared = 0
    for path in STACKS:
        block = yaml.safe_load(path.read_text())["config"]["pulumi-vllm:server"]
        context = fits.planned(path.read_text()).deployment.context
        name = f"{path.name[7:-5]}-{context >> 10}ki*.json"
        for evidence in fits.ROOT.glob(f"lab/evidence/*/{name}"):
            version = evidence.parent.name
            if version not in catalogue.load().engines:
                continue  # of an environment that is not used any more
            engine = {**block.get("engine", {}), "version": version}
            decided = plan(Deployment.parse({**block, "engine": engine}))
            started, planned = (
                {
                    key: value
                    for key, value in environment.items()
                    if key not in {*REQUEST_VARIABLES, KERNEL_CACHE}
                }
                for environment in (json.loads(evidence.read_text())["environment"], decided.environment)
            )
            assert started == planned, evidence
            compared += 1
    assert compared >= 5
