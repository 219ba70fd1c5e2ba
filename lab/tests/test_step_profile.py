"""The reader of the kit's profiles, on a trace of which every number is known, and on what it has read before."""

import gzip
import json
import sys
from pathlib import Path

import gpu_kit
import pytest

ROOT = Path(__file__).parents[2]
CAPTURED = sorted(ROOT.glob("lab/captured/*/*.decode-step.json"))
MAIN, ASIDE = 7, 20
GEMM = "void cutlass::device_kernel<vllm::cutlass_3x_gemm_sm90_fp8<>>"
LARGE, REDUCE = (
    "nvjet_sm90_tst_256x128",
    "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)",
)


PROFILE = gpu_kit.load("step_profile")


def mark(at, prompts, decoding, stream=MAIN, category="gpu_user_annotation"):
    """As `annotate_profile` names a step: requests (tokens)."""
    name = f"execute_context_{-(-prompts // 512)}({prompts})_generation_{decoding}({decoding})"
    return {"ph": "X", "cat": category, "name": name, "ts": at, "dur": 1, "tid": stream}


def ran(at, took, name, stream=MAIN, category="kernel"):
    return {"ph": "X", "cat": category, "name": name, "ts": at, "dur": took, "tid": stream}


EVENTS = [
    # What no step is: the host's own mark, another mark, work from before the first step, the mark of a second stream.
    mark(100, 512, 0, category="user_annotation"),
    {"ph": "X", "cat": "gpu_user_annotation", "name": "gather", "ts": 200, "dur": 1, "tid": MAIN},
    ran(300, 100, GEMM),
    mark(990, 512, 0, ASIDE),
    # 1,000 to 2,000 µs: a small step, its copy on the other stream runs on into the next one.
    mark(1000, 512, 0),
    ran(1000, 400, GEMM),
    ran(1900, 300, "Memcpy HtoD (Pinned -> Device)", ASIDE, "gpu_memcpy"),
    # 2,000 to 12,000: a full one. Busy 2,000 to 2,200 of that copy, 2,500 to 8,500 (two streams), 9,000 to 10,000.
    mark(2000, 8192, 0),
    ran(2500, 4000, GEMM),
    ran(4500, 4000, REDUCE, ASIDE),
    *(ran(9000 + 100 * number, 100, LARGE) for number in range(10)),
    # 12,000 to 20,000: nearly full, with two streams. Busy 5,000.
    mark(12_000, 7374, 2),
    mark(12_001, 7374, 2, ASIDE),
    ran(12_000, 1000, REDUCE),
    ran(14_000, 4000, GEMM),
    # 20,000 to 23,000: prompts again, less than nine tenths of the largest.
    mark(20_000, 7372, 2),
    ran(20_000, 3000, GEMM),
    # 23,000 to 24,000 and 24,000 to 26,000: decoding alone.
    mark(23_000, 0, 4),
    ran(23_100, 200, GEMM),
    mark(24_000, 0, 3),
    ran(24_000, 600, GEMM),
    ran(24_300, 500, REDUCE, ASIDE),
    # 26,000 to 27,000: nothing is asked for.
    mark(26_000, 0, 0),
    ran(26_000, 900, GEMM),
    # The last: nobody says when the next one would have begun.
    mark(27_000, 8192, 0),
    ran(27_000, 9000, GEMM),
]


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "rank0.pt.trace.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"traceEvents": EVENTS[::-1]}).encode()))
    return path


ROWS = [[512, 0, 1.0, 0.5], [8192, 0, 10.0, 7.2], [7374, 2, 8.0, 5.0], [7372, 2, 3.0, 3.0]]


def test_the_steps_with_the_most_prompt_tokens(trace):
    assert PROFILE.read(trace, prompts=True) == {
        "prompt_tokens": 7783,
        "streams": 2,
        "steps": 2,
        "step_ms": 9.0,
        "busy_ms": 6.1,
        "kernels": [
            {"name": GEMM, "calls": 1.0, "most": 1, "us": 4000.0},
            {"name": REDUCE, "calls": 1.0, "most": 1, "us": 2500.0},
            {"name": LARGE, "calls": 5.0, "most": 10, "us": 500.0},
        ],
        "prompt_steps": ROWS,
    }


def test_the_steps_that_only_decode(trace):
    assert PROFILE.read(trace) == {
        "prompt_tokens": 0,
        "streams": 3,
        "steps": 2,
        "step_ms": 1.5,
        "busy_ms": 0.5,
        "kernels": [
            {"name": GEMM, "calls": 1.0, "most": 1, "us": 400.0},
            {"name": REDUCE, "calls": 0.5, "most": 1, "us": 250.0},
        ],
        "prompt_steps": ROWS,
    }


def test_of_streams_with_as_many_marks_the_first_leads():
    events = [mark(at, 0, 1, MAIN) for at in (0, 1000, 3000)] + [
        mark(at, 0, 1, 3) for at in (500, 1600, 3100)
    ]
    assert [step.us for step in PROFILE.steps_of(events)] == [1000, 2000]
    assert [step.us for step in PROFILE.steps_of([*events, mark(5000, 0, 1, 3)])] == [1100, 1500, 1900]


def test_a_trace_without_such_a_step_says_so(tmp_path):
    path = tmp_path / "empty.json.gz"
    for events in ([], [mark(0, 512, 0), ran(0, 10, GEMM)], [mark(0, 0, 1)]):
        path.write_bytes(gzip.compress(json.dumps({"traceEvents": events}).encode()))
        assert set(PROFILE.read(path)) == set(PROFILE.read(path, prompts=True)) == {"error"}


def test_a_kernel_belongs_to_a_layer_where_it_runs_often_in_one_step():
    names = {"all-reduce": REDUCE, "latent vectors up and down": LARGE, "projections, shared expert": GEMM}
    names |= {PROFILE.REST: "Memcpy DtoH (Device -> Pinned)", "attention": "flash::FlashAttnFwdSm90"}
    rows = [{"name": name, "calls": 5.0, "most": 10, "us": 1000.0} for name in names.values()]
    rows += [{"name": GEMM, "calls": 7.0, "most": 7, "us": 500.0}]
    rows += [{"name": "void vllm::cross_device_reduce_2stage<>", "calls": 72.0, "us": 2000.0}]
    found = PROFILE.parts({"kernels": rows, "step_ms": 10.0, "busy_ms": 7.5})
    assert found == dict.fromkeys(names, (1.0, 5.0)) | {
        "all-reduce": (3.0, 77.0),
        PROFILE.REST: (1.5, 12.0),
        "between kernels": (2.5, 0),
        "a step": (10.0, 0),
    }


@pytest.fixture
def printed(monkeypatch, capsys):
    def lines(path):
        monkeypatch.setattr(sys, "argv", ["step_profile.py", str(path)])
        PROFILE.main()
        return capsys.readouterr().out.splitlines()

    return lines


def test_the_table_of_a_step_and_the_rows_of_its_prompts(trace, printed):
    steps = trace.with_name("run.steps.json")
    steps.write_text(json.dumps([PROFILE.read(trace, prompts=True), {"error": "none"}]))
    assert printed(steps) == [
        "7783 prompt tokens, 2 streams, 2 steps",
        "    6.50 ms     2  head, sampling, copies",
        "    0.50 ms     5  latent vectors up and down",
        "    2.90 ms     0  between kernels",
        "    9.00 ms     0  a step",
        "    1.00 ms, busy   0.50: 512 prompt tokens, 0 streams",
        "   10.00 ms, busy   7.20: 8192 prompt tokens, 0 streams",
        "    8.00 ms, busy   5.00: 7374 prompt tokens, 2 streams",
        "    3.00 ms, busy   3.00: 7372 prompt tokens, 2 streams",
        "none",
    ]


def test_what_was_captured_before_reads_as_the_document_says(printed):
    assert [path.name for path in CAPTURED] == [
        "1x-fp8-256ki-one-kernel.decode-step.json",
        "1x-fp8-256ki-profiled.decode-step.json",
    ]
    (one,), (grouped, many) = (
        [PROFILE.parts(step) for step in json.loads(path.read_text())] for path in CAPTURED
    )
    document = (ROOT / "lab/notes/performance.md").read_text().replace("**", "")
    for name in grouped.keys() - {"between kernels", "a step"}:
        cells = [f"{ms:.2f} ({calls:.0f})" for ms, calls in (grouped[name], one[name], many[name])]
        assert f"| {name} | {' | '.join(cells)} |\n" in document
    assert printed(CAPTURED[1])[-1] == "   33.11 ms     0  a step"


def test_prompts_are_posted_while_the_profiler_runs(trace, monkeypatch):
    kept, asked = trace.read_bytes(), []

    def post(port, path, body):
        asked.append((path, body))
        if path == "/stop_profile":
            for rank in (0, 1):
                trace.with_name(f"rank{rank}.new.json.gz").write_bytes(kept)
        return 200, ""

    monkeypatch.setattr(PROFILE.drain, "post", post)
    found = PROFILE.take_prompts(1, "model", "5:3", trace.parent)
    assert found == dict.fromkeys(
        ("rank0.new.json.gz", "rank1.new.json.gz"), PROFILE.read(trace, prompts=True)
    )
    assert [path for path, _ in asked] == ["/start_profile", *["/v1/completions"] * 3, "/stop_profile"]
    bodies = [body for path, body in asked if path == "/v1/completions"]
    assert all(len(body["prompt"]) == 5 and body["max_tokens"] == 1 for body in bodies)
    assert len({tuple(body["prompt"]) for body in bodies}) == 3
    monkeypatch.setattr(PROFILE.drain, "post", lambda port, path, body: (400, f"not {path}"))
    refused = PROFILE.take_prompts(1, "model", "5:3", trace.parent)
    assert refused == {"none": {"error": "not /start_profile"}}
