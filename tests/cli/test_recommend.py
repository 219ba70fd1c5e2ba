"""`recommend` and `plan` as people type them."""

import json
import pathlib
import re
import shutil

import pytest
import yaml
from pulumi_vllm import cli
from pulumi_vllm.plan import catalogue

STACKS = pathlib.Path(__file__).parents[2] / "stacks"
SHIPPED = STACKS / "Pulumi.spheron-h200-2x-fp8.yaml"


@pytest.fixture(autouse=True)
def without_account(monkeypatch):
    monkeypatch.delenv("SPHERON_API_KEY", raising=False)


WORDS = ["recommend", "--model", "mistral-small-4", "--offline"]


def asked(capsys, *words):
    code = cli.main([*WORDS, "--json", *words])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(("context", "concurrency"), [("32Ki", 256), ("131072", 32), ("256Ki", 2)])
def test_recommendations_can_be_planned_and_are_sorted_by_price(capsys, context, concurrency):
    code, found = asked(capsys, "--context", context, "--concurrency", str(concurrency), "--spot")
    prices = [row["usd_per_serving_hour"] for row in found["fitting"]]
    assert code == 0
    assert prices == sorted(prices)
    assert {row["billing"] for row in found["fitting"]} == {"on-demand", "spot"}
    for row in found["fitting"]:
        wanted = [
            f"machine.gpu={row['gpu']}",
            f"machine.count={row['count']}",
            f"precision={row['precision']}",
        ]
        wanted += [f"context={context}", f"concurrency={concurrency}", "machine.max_usd_per_hour=99"]
        engine = catalogue.load().gpus[row["gpu"]].engine  # recommend takes the default, this stack names one
        wanted += [f"engine.version={engine}"]
        sets = [word for one in wanted for word in ("--set", one)]
        assert cli.main(["plan", str(SHIPPED), "--json", *sets]) == 0
        planned = json.loads(capsys.readouterr().out)
        assert planned["kv_cache_tokens"] == row["kv_cache_tokens"]
        assert planned["fits"] is True


def test_a_refused_machine_has_its_reason(capsys):
    _, found = asked(capsys, "--context", "256Ki", "--concurrency", "4", "--max-usd-per-hour", "3.5")
    why = {(row["machine"], row["precision"]): row["why"] for row in found["refused"]}
    assert "does not fit 1x H100" in why["1x H100", "fp8"]
    assert why["1x H200", "fp8"] == "$3.96/h is above $3.50/h; on spot it costs $1.95/h, add --spot"
    assert all(row["usd_per_hour"] <= 3.5 for row in found["fitting"])


def test_full_length_leaves_out_machines_where_requests_wait(capsys):
    code, found = asked(capsys, "--context", "128Ki", "--concurrency", "20", "--full-length")
    assert code == 0
    assert min(row["full_requests"] for row in found["fitting"]) >= 20
    assert any("requests of 131,072 tokens fit at once, not 20" in row["why"] for row in found["refused"])


def test_the_price_of_tokens_is_for_the_requested_streams(capsys):
    row, prices = ("H200", 1, "nvfp4"), {}
    for streams in (1, 20, 32):
        _, found = asked(capsys, "--context", "32Ki", "--concurrency", str(streams))
        (one,) = [one for one in found["fitting"] if (one["gpu"], one["count"], one["precision"]) == row]
        prices[streams] = one["usd_per_million_output_tokens"], one["rate_from_streams"]
    assert (prices[1][1], prices[20][1], prices[32][1]) == ([1], [1, 32], [32])
    # Rates are interpolated linearly, so the inverses of the prices are as well.
    line = 1 / prices[1][0] + 19 / 31 * (1 / prices[32][0] - 1 / prices[1][0])
    assert 1 / prices[20][0] == pytest.approx(line)
    assert cli.main([*WORDS, "--context", "32Ki", "--concurrency", "20"]) == 0
    shown = capsys.readouterr().out
    assert re.search(rf"^1x H200 +nvfp4 .* {prices[20][0]:.2f} .* +1 to 32 ", shown, re.MULTILINE)
    assert "the rate is interpolated" in shown


MIX = ["--input", "20000", "--output", "400"]


def rows_of(found):
    return {(one["gpu"], one["count"], one["engines"], one["precision"]): one for one in found["fitting"]}


@pytest.mark.parametrize(
    ("stack", "row", "words"),
    [
        ("spheron-h200-1x-fp8", ("H200", 1, 1, "fp8"), ["--context", "256Ki", "--concurrency", "512"]),
        ("spheron-h200-2x-fp8-batch", ("H200", 2, 2, "fp8"), ["--context", "256Ki", "--concurrency", "1024"]),
        ("spheron-h200-2x-fp8", ("H200", 2, 1, "fp8"), ["--context", "32Ki", "--concurrency", "512"]),
    ],
)
@pytest.mark.parametrize("mix", [[], MIX, [*MIX, "--requests-per-second", "3"]])
def test_a_mix_costs_what_plan_says(capsys, stack, row, words, mix):
    _, found = asked(capsys, *words, *mix)
    one = rows_of(found)[row]
    assert cli.main(["plan", stack, "--json", *mix]) == 0
    planned = json.loads(capsys.readouterr().out)["token_price"]
    assert one["token_price"] == planned
    busy = planned["usd_per_million_output_tokens"]
    assert one["usd_per_million_output_tokens"] == pytest.approx(busy["100%"], abs=1e-4)
    assert cli.main([*WORDS, *words, *mix]) == 0
    shown = capsys.readouterr().out
    exact = one["usd_per_million_output_tokens"]
    usd = " +".join(f"{exact / part:,.2f}" for part in (1, 0.6, 0.3, 0.1))
    head = f"^{row[1]}x {row[0]} +{row[3]} +on-demand "
    assert re.search(f"{head}.* {usd} +{planned['input_share']:.0%} ", shown, re.MULTILINE), shown
    assert f"{planned['input_tokens']:,} tokens in and {planned['output_tokens']:,} out" in shown


def test_requests_per_second_sort_by_what_all_machines_cost(capsys):
    words = ["--context", "32Ki", "--concurrency", "512", "--spot", "--requests-per-second", "40"]
    _, found = asked(capsys, *words)
    known = [one for one in found["fitting"] if one["token_price"]]
    assert found["fitting"][: len(known)] == known, "machines without a measured rate are last"
    together = [one["usd_per_serving_hour"] * one["token_price"]["machines"] for one in known]
    assert together == sorted(together)
    assert max(one["token_price"]["machines"] for one in known) > 1
    assert cli.main([*WORDS, *words]) == 0
    shown = capsys.readouterr().out
    assert (
        "40 requests/s with 512 tokens in and 256 out: what it takes (computed from measured rates)" in shown
    )
    unknown = r"^  unknown for 4x H100 fp8 spot, .*: no rate of vLLM 0.26.0 was measured"
    assert re.search(unknown, shown, re.MULTILINE)


@pytest.mark.parametrize(("rate", "compared"), [("1", True), ("1000", False)])
def test_several_machines_are_not_compared_with_single_servers(capsys, rate, compared):
    assert cli.main([*WORDS, "--context", "32Ki", "--concurrency", "64", "--requests-per-second", rate]) == 0
    shown = capsys.readouterr().out
    assert ("compared with" in shown, "a server for each of four models" in shown) == (compared, compared)


def test_a_nearly_full_machine_is_marked(capsys):
    words = [
        "--context",
        "16Ki",
        "--concurrency",
        "32",
        "--gpu",
        "H200",
        "--count",
        "1",
        "--precision",
        "fp8",
    ]
    for rate, marked in (("1.9", True), ("1.5", False)):
        load = ["--input", "8000", "--output", "300", "--requests-per-second", rate]
        assert cli.main([*WORDS, *words, *load]) == 0
        assert ("requests that come unevenly have to wait" in capsys.readouterr().out) == marked


def test_a_mix_without_a_measured_rate_of_prompts_has_no_price(capsys):
    words = ["--context", "32Ki", "--concurrency", "8", *MIX]
    _, found = asked(capsys, *words)
    one = rows_of(found)["H100", 4, 1, "fp8"]
    assert (one["token_price"], one["usd_per_million_output_tokens"]) == (None, None)
    assert one["token_price_unknown"].startswith("no rate of vLLM 0.26.0 was measured")


def test_wrong_mixes_are_reported_with_the_errors_of_other_options(capsys):
    wrong = ["--input", "0", "--output", "-1", "--requests-per-second", "nan", "--count", "3"]
    assert cli.main([*WORDS, "--context", "32Ki", "--concurrency", "4", *wrong]) == 64
    errors = capsys.readouterr().err
    for option in ("--input: 0", "--output: -1", "--requests-per-second: nan", "--count: 3"):
        assert errors.count(f"recommend: error: {option} is ") == 1, errors
    assert cli.main([*WORDS, "--context", "16Ki", "--concurrency", "4", *MIX]) == 64
    assert "--input 20000 and --output 400: together above 16,384 tokens" in capsys.readouterr().err


def test_no_machine_ends_with_exit_code_2(capsys):
    code, found = asked(capsys, "--context", "256Ki", "--concurrency", "4", "--max-usd-per-hour", "0.5")
    assert (code, found["fitting"]) == (2, [])


@pytest.mark.parametrize(
    ("option", "most", "wrong"),
    [
        ("--interruptions-per-day", "144", ("1e5", "-1", "nan", "inf")),
        ("--cold-start-minutes", "1440", ("1e9", "0", "-1", "nan")),
    ],
)
def test_expectations_of_spot_machines_have_bounds(capsys, option, most, wrong):
    words = [*WORDS, "--context", "32Ki", "--concurrency", "4", "--spot"]
    for value in wrong:
        assert cli.main([*words, option, value]) == 64
        errors = capsys.readouterr().err
        assert errors.startswith("usage: pulumi-vllm recommend ")
        assert errors.count(f"recommend: error: {option}: {float(value):g} is out of range; write ") == 1
    worst = ["--interruptions-per-day", "144", "--cold-start-minutes", "1440"]
    assert cli.main([*words, option, most]) == cli.main([*words, *worst]) == 0


def test_every_error_in_the_options_is_reported(capsys):
    words = ["--context", "many", "--concurrency", "4", "--max-usd-per-hour", "-1"]
    assert cli.main(["recommend", "--model", "mistral-small-4", "--offline", *words]) == 64
    errors = capsys.readouterr().err
    assert "--context:" in errors
    assert "--max-usd-per-hour: -1 is out of range" in errors


def test_an_unknown_model_is_one_error(capsys):
    assert cli.main(["recommend", "--model", "mistal-small-4", "--context", "1Ki", "--concurrency", "1"]) == 1
    assert "--model:" in capsys.readouterr().err


def test_unknown_names_are_reported_with_the_errors_of_other_options(capsys):
    words = ["--context", "many", "--concurrency", "0", "--gpu", "H900", "--count", "3", "--offline"]
    assert cli.main(["recommend", "--model", "mistal-small-4", *words]) == 64
    errors = capsys.readouterr().err
    for option in ("model", "context", "concurrency", "gpu", "count"):
        assert errors.count(f"error: --{option}: ") == 1, errors


@pytest.fixture
def own_gpu(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "gpus" / "RTX 3090.yaml"
    path.parent.mkdir()
    content = {
        "name": "RTX 3090",
        "form": "PCIe",
        "named": ["RTX 3090"],
        "memory_mib": 24576,
        "source": "nvidia-smi of our machines",
        "compute_capability": "8.6",
        "bandwidth_gb_s": 936,
        "usd_per_hour": {"on-demand": 0.4},
    }
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize("named", ["RTX 3090", "gpus/RTX 3090.yaml"])
def test_a_gpu_of_a_file_is_recommended_and_linted(own_gpu, capsys, named):
    wanted = ["recommend", "--model", "llama-3.1-8b", "--context", "8Ki", "--concurrency", "4", "--offline"]
    assert cli.main([*wanted, "--gpu", named, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["fitting"]
    assert {(row["gpu"], row["usd_per_hour"]) for row in found} >= {("RTX 3090", 0.4), ("RTX 3090", 0.8)}
    flags = ["--host", "127.0.0.1", "--max-model-len", "131072", "--max-num-seqs", "8"]
    assert cli.main(["lint", "--model", "llama-3.1-8b", "--gpu", named, "--", *flags]) == 1
    assert "error (context-length)" in capsys.readouterr().out


def test_the_path_of_a_gpu_file_is_written_as_it_was_given(own_gpu, tmp_path, capsys):
    path = tmp_path / "Pulumi.mine.yaml"
    shutil.copy(SHIPPED, path)
    own_gpu.rename(tmp_path / "card.yaml")
    wanted = ["recommend", "--model", "llama-3.1-8b", "--context", "8Ki", "--concurrency", "4", "--offline"]
    options = ["--gpu", "./card.yaml", "--precision", "bf16", "--lower-context", "--write", str(path)]
    assert cli.main([*wanted, *options]) == 0, capsys.readouterr().err
    assert yaml.safe_load(path.read_text())["config"]["pulumi-vllm:server"]["machine"]["gpu"] == "./card.yaml"
    assert cli.main(["plan", str(path)]) == 0


@pytest.mark.parametrize("command", ["recommend", "lint"])
def test_a_wrong_gpu_file_is_refused(own_gpu, capsys, command):
    own_gpu.write_text(own_gpu.read_text().replace("24576", "24"))
    rest = {"recommend": ["--context", "8Ki", "--concurrency", "4", "--offline"], "lint": ["--", "--host=x"]}
    for named, message in (
        ("RTX 3090", f"{own_gpu.relative_to(own_gpu.parents[1])}: memory_mib: "),
        ("gpus/none.yaml", "--gpu: there is no file gpus/none.yaml in "),
    ):
        assert cli.main([command, "--model", "llama-3.1-8b", "--gpu", named, *rest[command]]) == 1
        assert message in capsys.readouterr().err


def test_a_gpu_that_is_not_on_offer_has_a_reason(own_gpu, capsys):
    content = yaml.safe_load(own_gpu.read_text())
    del content["usd_per_hour"]
    own_gpu.write_text(yaml.safe_dump(content))
    words = ["--context", "8Ki", "--concurrency", "4", "--gpu", "RTX 3090"]
    code, found = asked(capsys, *words)
    assert (code, [row["why"].partition(";")[0] for row in found["refused"]]) == (2, ["has no list price"])


def test_writing_changes_values_and_keeps_comments(tmp_path, capsys):
    path = tmp_path / "Pulumi.mine.yaml"
    shutil.copy(SHIPPED, path)
    words = [
        "--context",
        "64Ki",
        "--concurrency",
        "32",
        "--precision",
        "nvfp4",
        "--offline",
        "--write",
        str(path),
    ]
    assert cli.main(["recommend", "--model", "mistral-small-4", *words]) == 0
    server = yaml.safe_load(path.read_text())["config"]["pulumi-vllm:server"]
    assert (server["machine"]["gpu"], server["machine"]["count"], server["precision"]) == ("H100", 1, "nvfp4")
    assert (server["context"], server["concurrency"]) == (65536, 32)
    before = [line.partition("#")[2] for line in SHIPPED.read_text().splitlines()]
    assert [line.partition("#")[2] for line in path.read_text().splitlines()] == before
    first = path.read_text()
    assert cli.main(["recommend", "--model", "mistral-small-4", *words]) == 0
    assert path.read_text() == first
    assert "needs no change" in capsys.readouterr().err


def test_writing_keeps_precision_and_context_of_the_stack(tmp_path, capsys):
    path = tmp_path / "Pulumi.mine.yaml"
    shutil.copy(SHIPPED, path)
    words = [
        "recommend",
        "--model",
        "mistral-small-4",
        "--offline",
        "--concurrency",
        "32",
        "--write",
        str(path),
    ]
    assert cli.main([*words, "--context", "16Ki"]) == 1
    assert "--context 16384 is below the stack's 32768; add --lower-context" in capsys.readouterr().err
    assert path.read_text() == SHIPPED.read_text()
    assert cli.main([*words, "--context", "32Ki", "--gpu", "H100", "--count", "1"]) == 1
    assert (
        "server.precision: no machine can serve this in fp8; add --precision nvfp4" in capsys.readouterr().err
    )
    assert cli.main([*words, "--context", "16Ki", "--lower-context"]) == 0
    errors = capsys.readouterr().err
    assert "context: 32Ki -> 16384" in errors
    assert "machine.count: 2 -> 1" in errors
    server = yaml.safe_load(path.read_text())["config"]["pulumi-vllm:server"]
    assert (server["machine"]["gpu"], server["machine"]["count"], server["precision"]) == ("H200", 1, "fp8")


def test_each_row_says_what_to_know(capsys):
    _, found = asked(capsys, "--context", "32Ki", "--concurrency", "256", "--gpu", "H100", "--count", "1")
    (row,) = found["fitting"]
    assert row["tokens_per_request"] == row["kv_cache_tokens"] // 256
    assert any(
        "overcommitted: 256 requests fit at once if each has at most 1,094 of 32,768" in one
        for one in row["findings"]
    )
    assert any("nvfp4-on-hopper" in one for one in row["findings"])
    cli.main([*WORDS, "--context", "32Ki", "--concurrency", "256", "--gpu", "H100", "--count", "1"])
    out = capsys.readouterr().out
    assert "4-bit quality unverified; overcommitted" in out
    assert "overcommitted: the requested requests fit at once if none is longer than `each`" in out
    assert "note: 1x H100 nvfp4: overcommitted" not in out  # the table has it
    assert "H200 fp8" not in out


def test_what_is_too_expensive_may_fit_on_spot(capsys):
    _, found = asked(capsys, "--context", "256Ki", "--concurrency", "4", "--max-usd-per-hour", "3")
    why = {(row["machine"], row["precision"]): row["why"] for row in found["refused"]}
    assert why["1x H200", "fp8"] == "$3.96/h is above $3.00/h; on spot it costs $1.95/h, add --spot"


def test_the_separate_servers_are_checked_and_spot_is_then_and_now(capsys):
    _, found = asked(capsys, "--context", "256Ki", "--concurrency", "4")
    assert all("each 1x H100 holds mistral-small-4 in nvfp4" in one["holds"] for one in found["separate"])
    assert "1.4 requests of 262,144 tokens at once" in found["separate"][0]["holds"]
    text = found["spot_then_and_now"]
    assert "$2.38/h, $1,738 per month (a published tutorial, 2026-04)" in text
    assert "$3.90/h, $2,847 per month" in text
    _, found = asked(capsys, "--context", "256Ki", "--concurrency", "4", "--precision", "fp8")
    assert "each 1x H100 does not hold mistral-small-4" in found["separate"][0]["holds"]


def test_the_tutorials_servers_are_planned_as_they_would_really_run(capsys):
    _, found = asked(capsys, "--context", "32Ki", "--concurrency", "32")
    servers = {one["model"]: one for one in found["separate_servers"]}
    assert [one["as_in_tutorial"] for one in servers.values()] == [False, False, True, True]
    llama = servers["llama-3.3-70b"]
    assert (llama["machine"], llama["precision"]) == ("1x H200", "fp8")
    assert all(one["full_requests"] >= 1 and one["usd_per_hour"] for one in servers.values())
    _, found = asked(capsys, "--context", "128Ki", "--concurrency", "32")
    assert {one["model"]: one["context"] for one in found["separate_servers"]}["qwen2.5-vl-32b"] == 32768


def test_the_tutorials_servers_are_a_table_with_a_sum(capsys):
    words = ["--model", "mistral-small-4", "--context", "32Ki", "--concurrency", "32", "--offline"]
    cli.main(["recommend", *words])
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines() if line.startswith("  ")]
    names = ("llama-3.3-70b", "deepseek-r1-distill-llama-70b", "qwen2.5-vl-32b", "qwen2.5-coder-32b")
    prices = [float(row[4]) for row in rows if row[0] in names]
    (total,) = (row for row in rows if row[0] == "together")
    assert len(prices) == 4
    assert total[1] == f"${sum(prices):.2f}/h,"
    assert total[-2] == "saves"


def test_the_price_list_has_no_regions_and_says_so(capsys):
    _, found = asked(capsys, "--context", "32Ki", "--concurrency", "4", "--region", "EU")
    assert "for any region, not today's offers" in found["prices"]


def test_a_slower_form_of_a_card_is_another_gpu(tmp_path, capsys):
    def offer(gpu_type, price, **more):
        one = {"provider": "spheron-es", "offerId": f"{gpu_type}-{price}", "price": price, "gpuCount": 1}
        one |= {"region": "EU", "os_options": ["Ubuntu 24.04"], "instanceType": "DEDICATED"}
        return {"gpuType": gpu_type, "offers": [one | more]}

    kept = tmp_path / "offers.json"
    groups = [offer("H100_PCIE", 1.69), offer("H100_NVL", 1.79), offer("H100_SXM5", 2.54)]
    kept.write_text(json.dumps({"data": [*groups, offer("H100", 1.5, interconnectType="PCIe")]}))
    words = [
        "--model",
        "mistral-small-4",
        "--context",
        "32Ki",
        "--concurrency",
        "32",
        "--offers",
        str(kept),
        "--json",
    ]
    assert cli.main(["recommend", *words]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {(row["gpu"], row["precision"]): row for row in found["fitting"]}
    assert {gpu: row["usd_per_hour"] for (gpu, _), row in rows.items()} == {
        "H100": 2.54,
        "H100 PCIe": 1.5,
        "H100 NVL": 1.79,
    }
    rated = {gpu for (gpu, _), row in rows.items() if row["usd_per_million_output_tokens"] is not None}
    assert rated == {"H100"}  # the form that was measured


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        (["plan"], "plan"),
        (["plan", "local", "--nothing"], "plan"),
        (["plan", "a", "b", "c"], "plan"),
        (["recommend", "--contxt", "1"], "recommend"),
        (["recommend", "--model", "m", "--context", "x", "--concurrency", "1"], "recommend"),
        (["lint"], "lint"),
        (["lint", "--model", "nothing", "--", "--seed", "1"], "lint"),
        (["sweep", "--nothing"], "sweep"),
        (["smoke", "--url", "https://x/v1", "--stack", "a"], "smoke"),
        (["bench", "--ca", "x"], "bench"),
        (["init", "--nothing"], "init"),
    ],
)
def test_a_wrong_command_line_has_its_own_usage_and_json(capsys, words, usage):
    at = words.index("--") if "--" in words else len(words)
    assert cli.main([*words[:at], "--json", *words[at:]]) == 64
    shown = capsys.readouterr()
    assert shown.err.startswith(f"usage: pulumi-vllm {usage} ")
    assert f"pulumi-vllm {usage}: error: " in shown.err
    found = json.loads(shown.out)
    assert found["schema_version"] == 1
    assert found["refused"]


@pytest.mark.parametrize(
    "words",
    [
        ["plan", "nowhere"],
        ["lint", "nowhere"],
        ["recommend", "--model", "m", "--context", "1", "--concurrency", "1"],
    ],
)
def test_a_refusal_is_an_object(capsys, words):
    assert cli.main([*words, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["schema_version"] == 1
    assert found["refused"]


def test_a_price_above_the_ceiling_is_a_warning(capsys):
    words = ["plan", "spheron-h200-1x-fp8", "--set", "machine.max_usd_per_hour=3", "--json"]
    assert cli.main(words) == 0
    (found,) = [
        one for one in json.loads(capsys.readouterr().out)["findings"] if one["rule"] == "price-above-ceiling"
    ]
    assert found["severity"] == "warning"
    assert found["message"].endswith(
        "raise it, or set server.machine.billing: spot ($1.95/h in the price list)"
    )


def test_offers_come_from_a_saved_answer_or_end_in_an_error(tmp_path, capsys):
    kept = tmp_path / "offers.json"
    words = [
        "recommend",
        "--model",
        "mistral-small-4",
        "--context",
        "1Ki",
        "--concurrency",
        "1",
        "--offers",
        str(kept),
    ]
    assert cli.main(words) == 1
    kept.write_text("{")
    assert cli.main(words) == 1
    kept.write_text('{"data": []}')
    assert cli.main(words) == 2
    errors = capsys.readouterr().err
    assert "offers.json: No such file" in errors
    assert "is not JSON" in errors


def test_a_plan_draws_its_memory_and_names_a_cheaper_machine(capsys):
    assert cli.main(["plan", "spheron-h200-2x-fp8", "--set", "concurrency=4"]) == 0
    out = capsys.readouterr().out
    bar = out.splitlines()[1]
    assert len(bar) == 62
    assert [letter for letter in "WaK." if letter not in bar] == []
    assert "cheaper:\n  server.machine: 1x H200 has the same capacity for $3.96/h" in out
    assert "  --max-num-seqs 4\n" in out


def test_colours_are_for_terminals(capsys, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert cli.main(["plan", "spheron-h200-2x-fp8"]) == 0
    plain = capsys.readouterr().out
    assert "\x1b" not in plain
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert cli.main(["plan", "spheron-h200-2x-fp8"]) == 0
    coloured = capsys.readouterr().out
    assert "\x1b[34mWWW" in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured) == plain
    monkeypatch.setenv("NO_COLOR", "1")
    assert cli.main(["plan", "spheron-h200-2x-fp8"]) == 0
    assert capsys.readouterr().out == plain


def test_two_stacks_are_compared(capsys):
    assert cli.main(["plan", "spheron-h200-1x-fp8", "spheron-h100-1x-nvfp4"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^\* usd_per_hour +3\.96 +2\.54$", out, re.MULTILINE)
    assert re.search(r"^  billing +on-demand +on-demand$", out, re.MULTILINE)
    assert "only spheron-h200-1x-fp8: --moe-backend triton\n" in out
    assert cli.main(["plan", "--json", "spheron-h200-1x-fp8", "spheron-h100-1x-nvfp4"]) == 0
    first, second = json.loads(capsys.readouterr().out)["stacks"]
    assert (first["stack"], second["precision"]) == ("spheron-h200-1x-fp8", "nvfp4")


def test_of_two_stacks_the_one_that_does_not_fit_has_its_reason(capsys):
    words = ["plan", "spheron-h200-2x-fp8", "spheron-h200-1x-fp8", "--set", "machine.gpu=H100"]
    assert cli.main(words) == 1
    assert (
        "spheron-h200-1x-fp8 is refused: server.context: mistral-small-4 in fp8 does not"
        in capsys.readouterr().out
    )
    assert cli.main(["plan", "local", "local", "local"]) == 64


@pytest.mark.parametrize(
    ("change", "fits", "message"),
    [
        ("machine.gpu=H100", False, "47.64 GiB per GPU are missing"),
        ("engine.flags={dtype: fp8}", True, "--dtype fp8"),
        ("context=many", None, "server.context: 'many' is not tokens"),
    ],
)
def test_a_refusal_is_json_too(capsys, change, fits, message):
    assert cli.main(["plan", "spheron-h200-1x-fp8", "--json", "--set", change]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["fits"] is fits
    assert message in found["refused"][0]


@pytest.mark.parametrize(
    "given", ["machine.count", "=1", "model.name=x", "machine.count=[", "machine.count=0.5"]
)
def test_an_invalid_set_is_an_error(capsys, given):
    assert cli.main(["plan", str(SHIPPED), "--set", given]) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("pulumi-vllm: ")
    assert "Traceback" not in errors


def written_to(tmp_path, capsys, change, *words):
    """What `recommend --write` says about a copy of a stack file."""
    path = tmp_path / "Pulumi.mine.yaml"
    path.write_text(change(SHIPPED.read_text()))
    options = [
        "--context",
        "32Ki",
        "--concurrency",
        "256",
        "--precision",
        "fp8",
        *words,
        "--write",
        str(path),
    ]
    assert cli.main([*WORDS, *options]) == 0
    said = capsys.readouterr().err
    assert cli.main([*WORDS, *options]) == 0
    assert "needs no change" in capsys.readouterr().err
    return said


def test_a_written_stack_with_another_engine_than_its_row_says_so(capsys, tmp_path):
    """On H100 the rates are those of vLLM 0.26.0, and the stack keeps 0.33.0, which was never started there."""
    h100 = ("--gpu", "H100", "--count", "2")
    said = written_to(tmp_path, capsys, lambda text: text, *h100)
    assert "engine.version stays 0.33.0, and the figures above are those of vLLM 0.26.0" in said
    assert "engine.version" not in written_to(tmp_path, capsys, lambda text: text, "--gpu", "H200")
    unnamed = "\n    engine: {version: 0.33.0}"
    assert "engine.version" not in written_to(tmp_path, capsys, lambda text: text.replace(unnamed, ""), *h100)


def test_a_written_stack_that_cannot_answer_all_requests_says_so(capsys, tmp_path):
    h200 = ("--gpu", "H200", "--count", "2")
    said = written_to(tmp_path, capsys, lambda text: text, *h200, "--requests-per-second", "100")
    assert "100 requests/s need 3 such machines, and the stack has one" in said
    assert "such machines" not in written_to(
        tmp_path, capsys, lambda text: text, *h200, "--requests-per-second", "10"
    )
