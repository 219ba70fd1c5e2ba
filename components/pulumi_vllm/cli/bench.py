"""`pulumi-vllm bench`: throughput and latency of a running stack over concurrency, saved, drawn, compared."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulumi_vllm.cli import target
from pulumi_vllm.cli.say import TROUBLE, USAGE, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from pulumi_vllm.client.checks import Served
    from pulumi_vllm.client.endpoint import Endpoint
    from pulumi_vllm.client.load import Level, Load

_INTERRUPTED = 130  # as a shell has it: 128 and SIGINT
_COLUMNS = (
    ("streams", 8), ("requests", 9), ("output tok/s", 13), ("TTFT ms: median", 16), ("p99", 8),
    ("TPOT ms: median", 16), ("p99", 8), ("$ per million", 14),
)  # fmt: skip


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `bench`."""
    text = "measure a running stack through its gateway, over concurrency"
    bench = commands.add_parser(
        "bench",
        help=text,
        description=f"{text.capitalize()}: random prompts of a fixed length, answers of a fixed length; a table, "
        "a saved result, a plot, and a comparison with the last run and with what was measured for these flags.",
    )
    target.add_arguments(bench)
    bench.add_argument(
        "--levels",
        type=_levels,
        default=(1, 32, 128, 256),
        metavar="N,N",
        help="requests at once (default: 1,32,128,256)",
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
        help="where results are kept, and looked for (default: .pulumi-vllm/bench)",
    )
    bench.set_defaults(run=_bench)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: is not a number above 0")
    return int(text)


def _levels(text: str) -> tuple[int, ...]:
    return tuple(sorted({_count(part.strip()) for part in text.split(",")}))


def _bench(parsed: argparse.Namespace) -> int:
    import asyncio

    from pulumi_vllm.client.errors import UsageError

    result: dict[str, Any] = {"rows": []}
    interrupted = False
    try:
        endpoint = target.find(parsed)
        asyncio.run(_measure(parsed, endpoint, result))
    except UsageError as error:
        say(f"bench: {error}")
        return USAGE
    except KeyboardInterrupt:  # what was measured until then is kept
        interrupted = True
        if not result["rows"]:
            raise
    _keep(parsed, result)
    stopped = [row for row in result["rows"] if "error" in row]
    for row in stopped:
        done = f"{row['completed']} of {row['prompts']} requests"
        say(f"{_streams(row['concurrency'])}: stopped after {done}: {row['error']}")
    return _INTERRUPTED if interrupted else TROUBLE if stopped else 0


def _keep(parsed: argparse.Namespace, result: dict[str, Any]) -> None:
    """Compare, save, draw, tell."""
    from pulumi_vllm.client import chart, results

    rows, others = result["rows"], dict[str, Any]()
    before, (evidence, name) = results.last(parsed.out, result), results.measured(result)
    if before:
        others[f"last run, {before['date'][:16]}"] = before["rows"]
    if evidence:
        others[name] = results.alike(rows, evidence.load)
    result["compared"] = {name: results.compare(rows, old) for name, old in others.items()}
    result["conditions_of_measured"] = evidence.conditions if evidence else None
    saved = results.save(parsed.out, result, chart.draw(_title(result), rows, others))
    if parsed.json:
        print(json.dumps(result, indent=2))
    else:
        _show(result)
        if before and before["plan"].get("flags") != result["plan"]["flags"]:
            print("  (the last run's engine had other flags)")
    say(f"saved: {saved} and {saved.with_suffix('.svg').name}")


async def _measure(parsed: argparse.Namespace, endpoint: "Endpoint", result: dict[str, Any]) -> None:
    """Fill the result, level by level."""
    import secrets
    from datetime import UTC, datetime

    from pulumi_vllm import __version__
    from pulumi_vllm.client import load, served
    from pulumi_vllm.client.errors import printable

    found = await served.look(endpoint, parsed.model)
    seed = secrets.randbits(32)
    asked = load.Load(parsed.levels, parsed.input, parsed.output, found.vocabulary, seed)
    _possible(endpoint, found, asked)
    lengths = f"{asked.input_tokens} tokens in, {asked.output_tokens} out"
    say(f"{printable(found.name)} at {endpoint.url}: {asked.all_requests:,} requests of {lengths}")
    result |= {
        "name": endpoint.name,
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "endpoint": endpoint.url,
        "model": found.name,
        "plan": {key: endpoint.plan.get(key) for key in ("machine", "model", "precision", "engine", "flags")},
        "usd_per_hour": endpoint.usd_per_hour,
        "input_tokens": asked.input_tokens,
        "output_tokens": asked.output_tokens,
        "seed": seed,
        "client": f"pulumi-vllm {__version__}",
    }
    warm = load.Level(asked.warm_up_streams, asked.warm_up_streams, _told("warm-up"))
    bodies = asked.bodies(found.name, warm.requests, 0, load.WARM_UP_TOKENS)
    await load.run(endpoint, bodies, warm)
    if warm.error is not None:
        raise warm.error
    for streams in asked.levels:
        level = load.Level(streams, asked.requests(streams), _told(_streams(streams)))
        say(f"{_streams(streams)}, {level.requests} requests")
        bodies = asked.bodies(found.name, level.requests, streams, asked.output_tokens)
        await load.run(endpoint, bodies, level)
        result["rows"].append(load.row(level, asked))
        if level.error is not None:
            break


def _possible(endpoint: "Endpoint", served: "Served", asked: "Load") -> None:
    """What can't work is said before the first request, and what may not."""
    from pulumi_vllm.client.errors import UsageError

    whole = asked.input_tokens + asked.output_tokens
    if served.context is not None and whole > served.context:
        raise UsageError(
            f"--input {asked.input_tokens} and --output {asked.output_tokens}: {whole} tokens are more than the "
            f"context of {served.context}; ask for less, or raise server.context"
        )
    gateway = endpoint.plan.get("gateway") or {}
    at_once = gateway.get("streams_per_key")
    if at_once is not None and max(asked.levels) > at_once:
        raise UsageError(
            f"--levels {max(asked.levels)}: the gateway lets {at_once:.0f} requests of a key run at once; "
            "raise server.gateway.streams_per_key in the stack file"
        )
    a_minute = gateway.get("requests_per_minute")
    if a_minute is not None and asked.all_requests > a_minute:
        say(
            f"the gateway lets {a_minute:.0f} requests of a key through in a minute, and the bench makes "
            f"{asked.all_requests:,}; if it is stopped by that, raise server.gateway.requests_per_minute"
        )


def _streams(number: int) -> str:
    return "1 stream" if number == 1 else f"{number} streams"


def _told(title: str) -> "Callable[[Level], None]":
    def tell(level: "Level") -> None:
        say(f"{title}: {len(level.samples)} of {level.requests} requests, {level.rate:,.0f} output tok/s")

    return tell


def _title(result: dict[str, Any]) -> str:
    plan = result["plan"]
    engine = f"vLLM {plan['engine']}" if plan["engine"] else result["name"]
    what = ", ".join(filter(None, (result["model"], plan["precision"], plan["machine"], engine)))
    return f"{what}: {result['input_tokens']} tokens in, {result['output_tokens']} out, {result['date'][:10]}"


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
            f"{row['median_tpot_ms']:16,.1f}{row['p99_tpot_ms']:8,.1f}{million:>14}"
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
