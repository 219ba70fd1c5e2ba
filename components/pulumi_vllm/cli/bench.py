"""`pulumi-vllm bench`: measure throughput and latency of a running stack, save the result, and compare it."""

import argparse
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulumi_vllm import __version__
from pulumi_vllm.cli import endpoint_options
from pulumi_vllm.cli.terminal import TROUBLE, print_json, say
from pulumi_vllm.client.errors import UsageError, printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from pulumi_vllm.client.endpoint import Endpoint
    from pulumi_vllm.client.load_generator import Level, Load
    from pulumi_vllm.client.served_model import ServedModel

_INTERRUPTED = 130  # as shells report SIGINT: 128 + 2
_COLUMNS = (
    ("streams", 8), ("requests", 9), ("output tok/s", 13), ("TTFT ms: median", 16), ("p99", 8),
    ("TPOT ms: median", 16), ("p99", 8), ("$/M out", 9),
)  # fmt: skip


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `bench`."""
    text = "measure throughput and latency of a running stack at several levels of concurrency"
    bench = commands.add_parser(
        "bench",
        help=text,
        description=f"{text.capitalize()}. Requests go through the gateway. Prompts are random, and all lengths are "
        "fixed. The command prints a table, saves the result, and compares it with the last run and with the "
        "evidence for the same flags.",
    )
    endpoint_options.add_arguments(bench)
    bench.add_argument(
        "--levels",
        type=_levels,
        default=(1, 32, 128, 256),
        metavar="N,N",
        help="concurrency levels (default: 1,32,128,256)",
    )
    bench.add_argument(
        "--input", type=_count, default=512, metavar="N", help="tokens per prompt (default: 512)"
    )
    bench.add_argument(
        "--output", type=_count, default=256, metavar="N", help="tokens per answer (default: 256)"
    )
    bench.add_argument(
        "--out",
        type=Path,
        default=Path(".pulumi-vllm/bench"),
        metavar="FOLDER",
        help="folder of saved results (default: .pulumi-vllm/bench)",
    )
    bench.set_defaults(run=_bench)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: is not a whole number above 0")
    return int(text)


def _levels(text: str) -> tuple[int, ...]:
    return tuple(sorted({_count(part.strip()) for part in text.split(",")}))


def _bench(parsed: argparse.Namespace) -> int:
    # `pulumi-vllm --help` loads this module too; asyncio takes 0.05 s to import.
    import asyncio

    result: dict[str, Any] = {"rows": []}
    interrupted = False
    try:
        endpoint = endpoint_options.find_endpoint(parsed)
        asyncio.run(_measure(parsed, endpoint, result))
    except KeyboardInterrupt:  # keep what was measured so far
        interrupted = True
        if not result["rows"]:
            raise
    _save_and_show(parsed, result)
    stopped = [row for row in result["rows"] if "error" in row]
    for row in stopped:
        done = f"{row['completed']} of {row['prompts']} requests"
        say(f"{_streams(row['concurrency'])}: stopped after {done}: {row['error']}")
    return _INTERRUPTED if interrupted else TROUBLE if stopped else 0


def _save_and_show(parsed: argparse.Namespace, result: dict[str, Any]) -> None:
    # `pulumi-vllm --help` loads this module too; the catalogue takes 0.04 s to import.
    from pulumi_vllm.client import bench_results

    rows, references = result["rows"], dict[str, Any]()
    before, (evidence, title) = (
        bench_results.last_run(parsed.out, result),
        bench_results.matching_evidence(result),
    )
    if before:
        references[f"last run, {before['date'][:16]}"] = before["rows"]
    if evidence:
        references[title] = bench_results.with_same_lengths(rows, evidence.load)
    result["compared"] = {name: bench_results.compare(rows, old) for name, old in references.items()}
    result["conditions_of_measured"] = evidence.conditions if evidence else None
    saved = bench_results.save(parsed.out, result)
    if parsed.json:
        print_json(result)
    else:
        _show(result)
        if before and before["plan"].get("flags") != result["plan"]["flags"]:
            print("  (the engine of the last run had other flags)")
    say(f"saved: {saved}")


async def _measure(parsed: argparse.Namespace, endpoint: "Endpoint", result: dict[str, Any]) -> None:
    """Run the warm-up and the levels, and fill the result."""
    # `pulumi-vllm --help` loads this module too; aiohttp takes 0.2 s to import.
    from pulumi_vllm.client import load_generator, served_model

    model = await served_model.find_model(endpoint, parsed.model)
    seed = secrets.randbits(32)
    load = load_generator.Load(parsed.levels, parsed.input, parsed.output, model.vocabulary, seed)
    _check_limits(endpoint, model, load)
    lengths = f"{load.input_tokens} tokens in, {load.output_tokens} out"
    say(f"{printable(model.name)} at {endpoint.url}: {load.all_requests:,} requests of {lengths}")
    result |= {
        "name": endpoint.name,
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "endpoint": endpoint.url,
        "model": model.name,
        "plan": {
            key: endpoint.plan.get(key)
            for key in ("machine", "model", "precision", "engine", "engines", "flags")
            if key != "engines" or key in endpoint.plan
        },
        "usd_per_hour": endpoint.usd_per_hour,
        "input_tokens": load.input_tokens,
        "output_tokens": load.output_tokens,
        "seed": seed,
        "client": f"pulumi-vllm {__version__}",
    }
    warm_up = load_generator.Level(load.warm_up_streams, load.warm_up_streams, _progress_printer("warm-up"))
    bodies = load.bodies(model.name, warm_up.requests, 0, load_generator.WARM_UP_TOKENS)
    await load_generator.run(endpoint, bodies, warm_up)
    if warm_up.error is not None:
        raise warm_up.error
    for streams in load.levels:
        level = load_generator.Level(streams, load.requests(streams), _progress_printer(_streams(streams)))
        say(f"{_streams(streams)}, {level.requests} requests")
        bodies = load.bodies(model.name, level.requests, streams, load.output_tokens)
        await load_generator.run(endpoint, bodies, level)
        result["rows"].append(load_generator.row(level, load))
        if level.error is not None:
            break


def _check_limits(endpoint: "Endpoint", model: "ServedModel", load: "Load") -> None:
    """Refuse a load that cannot work, and warn of a limit that it may reach, before the first request."""
    tokens = load.input_tokens + load.output_tokens
    if model.context is not None and tokens > model.context:
        raise UsageError(
            f"--input {load.input_tokens} and --output {load.output_tokens}: {tokens} tokens are more than the "
            f"context of {model.context}; use smaller values, or raise server.context"
        )
    gateway = endpoint.plan.get("gateway") or {}
    streams_per_key = gateway.get("streams_per_key")
    if streams_per_key is not None and max(load.levels) > streams_per_key:
        raise UsageError(
            f"--levels {max(load.levels)}: the gateway allows {streams_per_key:.0f} concurrent requests per key; "
            "raise server.gateway.streams_per_key in the stack file"
        )
    per_minute = gateway.get("requests_per_minute")
    if per_minute is not None and load.all_requests > per_minute:
        say(
            f"the gateway allows {per_minute:.0f} requests per key in a minute, and the bench makes "
            f"{load.all_requests:,}; if that stops it, raise server.gateway.requests_per_minute"
        )


def _streams(number: int) -> str:
    return "1 stream" if number == 1 else f"{number} streams"


def _progress_printer(title: str) -> "Callable[[Level], None]":
    def report(level: "Level") -> None:
        say(f"{title}: {len(level.samples)} of {level.requests} requests, {level.rate:,.0f} output tok/s")

    return report


def _title(result: dict[str, Any]) -> str:
    plan = result["plan"]
    engine = f"vLLM {plan['engine']}" if plan["engine"] else result["name"]
    several = f"{plan['engines']} engines" if plan.get("engines", 1) > 1 else None
    subject = ", ".join(filter(None, (result["model"], plan["precision"], plan["machine"], several, engine)))
    return (
        f"{subject}: {result['input_tokens']} tokens in, {result['output_tokens']} out, {result['date'][:10]}"
    )


def _show(result: dict[str, Any]) -> None:
    print(_title(result))
    print("".join(title.rjust(width) for title, width in _COLUMNS))
    for row in result["rows"]:
        if "error" in row:
            print(f"{row['concurrency']:8}{row['prompts']:9}  stopped, see below")
            continue
        usd = result["usd_per_hour"]
        million = f"{usd / 3600 / row['output_throughput'] * 1e6:.2f}" if usd else "-"
        print(
            f"{row['concurrency']:8}{row['prompts']:9}{row['output_throughput']:13,.1f}"
            f"{row['median_ttft_ms']:16,.0f}{row['p99_ttft_ms']:8,.0f}"
            f"{row['median_tpot_ms']:16,.1f}{row['p99_tpot_ms']:8,.1f}{million:>9}"
        )
    if result["usd_per_hour"]:
        lengths = f"{result['input_tokens']} tokens in, {result['output_tokens']} out"
        print(
            f"$/M out: USD per million output tokens ({lengths}) of a machine of ${result['usd_per_hour']:.2f}/h, the "
            "volume included, that always has so many streams; at 30% of the time it is 3.3 times as much"
        )
    for name, levels in result["compared"].items():
        print(f"against {name}" + ("" if levels else ": no level in common"))
        for streams, ratio in levels.items():
            print(
                f"{streams:8}  output tok/s x{ratio.get('output_throughput', 0):.2f}"
                + "".join(
                    f", median {word} x{ratio[key]:.2f}"
                    for word, key in (("TTFT", "median_ttft_ms"), ("TPOT", "median_tpot_ms"))
                    if key in ratio
                )
            )
    if result["conditions_of_measured"]:
        print(f"  (measured with: {result['conditions_of_measured']})")
