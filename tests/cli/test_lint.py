"""`pulumi-vllm lint`: it finds the errors of the tutorial's command; vLLM's recipe and our stacks have none."""

import json
import pathlib

import pytest
from pulumi_vllm.cli import main
from pulumi_vllm.plan.lint import RULES

ROOT = pathlib.Path(__file__).parents[2]
RECIPE = (
    "vllm serve mistralai/Mistral-Small-4-119B-2603 --max-model-len 262144 --tensor-parallel-size 2 "
    "--tool-call-parser mistral --enable-auto-tool-choice --reasoning-parser mistral "
    "--max-num-batched-tokens 16384 --max-num-seqs 128 --gpu-memory-utilization 0.8"
)
TUTORIAL = (
    "HF_HUB_ENABLE_HF_TRANSFER=1 python -m vllm.entrypoints.openai.api_server --model mistralai/Mistral-Small-4 "
    "--dtype fp8 --kv-cache-dtype fp8 --tensor-parallel-size 2 --max-model-len 32768 --enable-chunked-prefill "
    "--gpu-memory-utilization 0.95 --max-num-seqs 256 --api-key secret"
)


def found(capsys, *words):
    code = main(["lint", "--json", *words])
    return code, {(one["severity"], one["rule"]) for one in json.loads(capsys.readouterr().out)["findings"]}


def test_every_known_failure_of_the_tutorial_is_reported(capsys):
    code, rules = found(capsys, "--", *TUTORIAL.split())
    errors = {"unknown-repository", "dtype", "kv-cache-dtype", "api-key"}
    assert code == 1
    assert {rule for severity, rule in rules if severity == "error"} == errors
    assert {
        ("warning", "moe-backend"),
        ("warning", "shutdown-timeout"),
        ("warning", "environment-variables"),
    } <= rules


@pytest.mark.parametrize("engine", ["0.26.0", "0.33.0"])
def test_vllms_own_recipe_has_no_errors(capsys, engine):
    code, rules = found(capsys, "--engine", engine, "--gpu", "H200", "--", *RECIPE.split())
    assert code == 0
    assert ("warning", "moe-backend") in rules


@pytest.mark.parametrize("stack", sorted(path.stem for path in (ROOT / "stacks").glob("Pulumi.*.yaml")))
def test_our_stacks_have_no_errors(capsys, stack):
    code, rules = found(capsys, str(ROOT / "stacks" / f"{stack}.yaml"))
    assert (code, [one for one in rules if one[0] == "error"]) == (0, [])


@pytest.mark.parametrize(
    "form",
    [
        "--moe-backend=trition",
        "--moe_backend trition",
        "--moe-backend trition",
        "-tp two",
        "--enforce-eager=1",
    ],
)
def test_a_bad_value_is_found_however_it_is_written(capsys, form):
    assert ("error", "invalid-value") in found(capsys, "--", "--max-model-len", "32k", *form.split())[1]


@pytest.mark.parametrize(
    "form",
    ["-tp 2", "--no-enable-log-requests", "--compilation-config.mode 0", '--limit-mm-per-prompt={"image":4}'],
)
def test_a_good_form_passes(capsys, form):
    rules = found(capsys, "--", "--max-model-len", "32k", *form.split())[1]
    assert not {("error", "invalid-value"), ("error", "unknown-flag")} & rules


def test_a_driver_too_old_is_an_error(capsys):
    assert ("error", "driver-too-old") in found(
        capsys, "--driver", "550.54.15", "--", "--max-model-len", "32k"
    )[1]


def test_what_fits_is_left_to_plan_and_said_so(capsys, tmp_path):
    stack = (
        (ROOT / "stacks" / "Pulumi.spheron-h200-1x-fp8.yaml").read_text().replace("gpu: H200", "gpu: H100")
    )
    (tmp_path / "Pulumi.a.yaml").write_text(stack)
    name = str(tmp_path / "Pulumi.a.yaml")
    assert main(["lint", name]) == 0
    assert f"`pulumi-vllm plan {name}` says whether it fits" in capsys.readouterr().out
    assert main(["plan", name]) == 1


def test_no_stack_and_no_flags_is_a_usage_error():
    assert main(["lint"]) == 64


def test_the_rules_are_listed_by_the_ids_that_ignore_accepts(capsys):
    assert main(["lint", "--rules"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(RULES)
    assert all(line.endswith(".") and len(line) > 30 for line in lines)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--gpu H100 -- --max-model-len 262144", "49.71 GiB per GPU are missing"),
        ("--gpu H100 -- --max-num-seqs 4", "no --max-model-len: 64.85 GiB per GPU are missing"),
        ("--gpu H100 -- --max-num-seqs 4 --max-model-len auto", "--max-model-len auto: 47"),
        (
            "--engine 0.26.0 --gpu H200 -- --max-model-len 32k --gpu-memory-utilization 0.5",
            "use a higher --gpu-memory-utilization, fewer --max-num-batched-tokens or more GPUs",
        ),
        (
            (
                "--engine 0.26.0 --gpu H200 --precision nvfp4 -- --max-model-len 32k --max-num-seqs 256 "
                "--max-num-batched-tokens 24k"
            ),
            "no --gpu-memory-utilization (vLLM's own 0.92): CUDA graphs, fragmentation and images need",
        ),
        (
            "--engine 0.26.0 --gpu H200 -- --max-model-len 32k --max-num-seqs 256 --max-num-batched-tokens 128k",
            "GiB are left; use a smaller --max-num-batched-tokens, or --language-model-only",
        ),
        (
            (
                "--engine 0.26.0 --gpu H200 -- --max-model-len 32k --gpu-memory-utilization 0.98 "
                "--max-num-batched-tokens 2048"
            ),
            "GiB are left; use 0.96 or less, or --language-model-only",
        ),
        (
            "--engine 0.26.0 --gpu H200 -- --max-model-len 32k --skip-mm-profiling --mm-encoder-tp-mode data",
            "--skip-mm-profiling, --mm-encoder-tp-mode: the plan's memory figures do not include this",
        ),
        (
            "--engine 0.26.0 --gpu H200 -- --max-model-len 32k --limit-mm-per-prompt []",
            "is not an object of whole numbers",
        ),
        (
            '--engine 0.26.0 --gpu H200 -- --max-model-len 32k --limit-mm-per-prompt {"image":"few"}',
            "is not an object of whole numbers",
        ),
        (
            '--engine 0.26.0 --gpu H200 -- --max-model-len 32k --limit-mm-per-prompt {"image":{"count":-1}}',
            "write for example",
        ),
        (
            "--engine 0.26.0 --gpu H200 -- --max-model-len 32k --max-num-batched-tokens 32k",
            "and activation 31.6 for 10 images in one step, and the KV cache holds 0 tokens; use fewer",
        ),
        (
            "--engine 0.26.0 --gpu H200 -- --max-model-len 32k --gpu-memory-utilization 0.99 --language-model-only",
            "use 0.98 or less",
        ),
        (
            "--engine 0.26.0 --gpu H200 -- --max-model-len 32k --gpu-memory-utilization 0.95",
            "images need 7.33 GiB above the limit, and 6.99 GiB are left; use 0.94 or less, or a smaller --max-num",
        ),
        ("--engine 0.26.0 --gpu H200 -- --max-model-len 32k --max-num-seqs 2000", "use 607 or fewer"),
        (
            "-- --max-model-len 32k --load-format hf --config-format hf",
            "--load-format hf --config-format hf:",
        ),
    ],
)
def test_what_the_machine_and_the_engine_add(capsys, words, message):
    main(["lint", *words.split()])
    assert message in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ("--max-num-batched-tokens 1G", "fewer --max-num-batched-tokens"),
        ("--gpu-memory-utilization 0.1", "a higher --gpu-memory-utilization"),
        ("--tensor-parallel-size 1 --max-num-seqs 8", "GPUs (computed"),
    ],
)
def test_a_context_that_does_not_fit_names_what_would_make_room(capsys, given, remedy):
    gpu = "H100" if "seqs" in given else "H200"
    words = ["--gpu", gpu, "--", "--host", "127.0.0.1", "--max-model-len", "32768", *given.split()]
    assert main(["lint", *words]) == 1
    (line,) = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("error (context-length)")
    ]
    assert remedy in line
