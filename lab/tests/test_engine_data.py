"""The data of an engine is that of its wheel: arguments, values and bounds, verdicts on flags, importable packages."""

import json
import pathlib
import subprocess
import sys

import pytest
from pulumi_vllm.plan import catalogue, vllm_parser
from pulumi_vllm.plan.engine_arguments import EngineArguments
from pulumi_vllm.plan.launch import Launch
from pulumi_vllm.plan.lint import lint
from pulumi_vllm_local.tiny_model import model_files

ROOT = pathlib.Path(__file__).parents[2]
PROGRAMS = ROOT / "lab/engine"
ENGINES = ROOT / "components/pulumi_vllm/plan/data/engines"
sys.path.insert(0, str(PROGRAMS))
import argument_schema  # noqa: E402
import flag_sets  # noqa: E402
import wheel  # noqa: E402

LAUNCH = (
    "--model /models/tiny --host 127.0.0.1 --shutdown-timeout 30 --config-format mistral --tokenizer-mode mistral "
    "--load-format mistral --tool-call-parser mistral --reasoning-parser mistral --dtype bfloat16 --max-model-len 2048 "
    "--max-num-seqs 8 --enforce-eager"
)
OURS = {"product-flag", "loads-from-elsewhere", "unknown-repository", "secret-in-flag"}
"""Rules about the product, not about vLLM: they may refuse what vLLM accepts."""


def errors(words, version):
    """The rules with which the linter refuses the tiny model's launch with these words."""
    known = catalogue.load()
    model, engine = known.models["mistral-small-4-tiny"], known.engines[version]
    arguments = EngineArguments.of(
        {**vllm_parser.parse(LAUNCH.split(), version), **vllm_parser.parse(words, version)}
    )
    precision = next(iter(model.precisions.values()))
    launch = Launch(arguments, {}, model, precision, engine, arguments.ranks or 1)
    return {one.rule for one in lint(launch, {}) if one.severity == "error"}


@pytest.fixture(scope="module")
def python(version):
    """The Python of one environment for all tests of a version: the first import of vLLM there compiles it."""
    with wheel.installed(version) as one:
        yield one


@pytest.fixture(scope="module", params=vllm_parser.versions())
def version(request):
    return request.param


@pytest.mark.all
def test_the_linter_judges_flags_as_the_engine_does(version, python, tmp_path):
    sets = [*flag_sets.written(), *flag_sets.generated(vllm_parser.accepted(version))]
    assert len(sets) > 200
    (tmp_path / "tiny").mkdir()
    model_files.write(tmp_path / "tiny")
    (tmp_path / "sets.json").write_text(json.dumps(sets))
    asked = (str(tmp_path / "tiny"), str(tmp_path / "sets.json"))
    answers = json.loads(wheel.ask(python, "ask_start.py", *asked))
    wrong = []
    for words, refusal in zip(sets, answers, strict=True):
        rules, names = errors(words, version), {word[2:] for word in words if word.startswith("--")}
        if refusal and not rules and not names & flag_sets.ONLY_HERE.keys():
            wrong.append(f"not found: {' '.join(words)}: {refusal}")
        if not refusal and rules - OURS and not names & flag_sets.ONLY_THE_LINTER.keys():
            wrong.append(f"found in vain: {' '.join(words)}: {rules}")
    assert wrong == []


@pytest.mark.all
def test_the_schema_is_that_of_the_wheels_parser(version, python):
    found = json.loads(wheel.ask(python, "ask_arguments.py"))
    assert argument_schema.text(version, found) == (ENGINES / version / "arguments.json").read_text()


@pytest.mark.all
@pytest.mark.parametrize("version", sorted(catalogue.load().engines))
def test_the_locked_packages_can_be_imported(version):
    command = [sys.executable, PROGRAMS / "import_check.py", version]
    checked = subprocess.run(command, check=False, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
