"""Runs `vllm bench serve` at several concurrency levels in one process, so that vLLM is imported once.

usage: load.py MODEL_FOLDER SERVED_NAME PORT|URL OUT.json [REPETITION]      then one level per line on standard input:
CONCURRENCY PROMPTS INPUT_TOKENS OUTPUT_TOKENS TOP_P [NAME=VALUE] [chat]      (TOP_P 0: not sent; a header of every
request; chat: /v1/chat/completions instead of /v1/completions)
REPETITION: the number of the first repetition of each level. A second client at the same time needs another one, because
the prefix cache would answer equal prompts. The key of a gateway is in OPENAI_API_KEY.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from vllm.benchmarks.serve import add_cli_args, main_async
from vllm.utils.argparse_utils import FlexibleArgumentParser

KEEP = (
    "duration", "completed", "failed", "request_throughput", "output_throughput", "total_token_throughput",
    "mean_ttft_ms", "median_ttft_ms", "p99_ttft_ms", "mean_tpot_ms", "median_tpot_ms", "p99_tpot_ms",
    "median_itl_ms", "p99_itl_ms",
)  # fmt: skip


def arguments(  # noqa: PLR0917 (the words of the command line, the level, and its repetition)
    folder: str, name: str, port: str, level: list[str], result: str, repetition: int = 0
) -> argparse.Namespace:
    """Parse the flags of `vllm bench serve`, as a shell would pass them."""
    concurrency, prompts, n_in, n_out, top_p, *more = level
    header = [word for word in more if "=" in word]
    route = ["openai-chat", "/v1/chat/completions"] if "chat" in more else ["openai", "/v1/completions"]
    sampling = [] if top_p == "0" else ["--top-p", top_p, "--temperature", "0.7"]
    # Every level and every repetition of a level has its own seed. The prefix cache would answer equal prompts.
    seed = str((int(f"{concurrency}{n_in}{n_out}{len(sampling)}{len(more)}") + 7_919 * repetition) % 2**32)
    where = ["--host", "127.0.0.1", "--port", port] if port.isdigit() else ["--base-url", port, "--insecure"]
    parser = FlexibleArgumentParser()
    add_cli_args(parser)
    return parser.parse_args([
        "--backend", route[0], "--endpoint", route[1], *where,
        "--model", name, "--tokenizer", folder, "--tokenizer-mode", "mistral", "--dataset-name", "random",
        "--random-input-len", n_in, "--random-output-len", n_out, "--ignore-eos", "--num-prompts", prompts,
        "--max-concurrency", concurrency, "--seed", seed, "--ready-check-timeout-sec", "0",
        "--disable-tqdm", "--percentile-metrics", "ttft,tpot,itl", "--metric-percentiles", "99",
        "--save-result", "--result-filename", result, *sampling, *(["--header", *header] if header else []),
    ])  # fmt: skip


def main() -> None:
    """Answer each line with one line of JSON on standard output and collect them in OUT."""
    folder, name, port, out = sys.argv[1:5]
    first = int(sys.argv[5]) if sys.argv[5:] else 0
    rows: list[dict[str, Any]] = []
    repetitions: Counter[str] = Counter()
    print("READY", flush=True)
    for line in sys.stdin:
        level = line.split()
        row: dict[str, Any] = {"concurrency": int(level[0]), "prompts": int(level[1])}
        row |= {"input_tokens": int(level[2]), "output_tokens": int(level[3])}
        row |= {} if level[4] == "0" else {"top_p": float(level[4])}
        headers = [word for word in level[5:] if "=" in word]
        row |= {"header": headers[0]} if headers else {}
        row |= {"route": "chat"} if "chat" in level[5:] else {}
        began = time.time()
        with tempfile.TemporaryDirectory() as folder_of_result:
            result = Path(folder_of_result) / "result.json"
            try:
                asyncio.run(
                    main_async(arguments(folder, name, port, level, str(result), first + repetitions[line]))
                )
                data = json.loads(result.read_text())
                row |= {key: round(data[key], 3) for key in KEEP if isinstance(data.get(key), int | float)}
            except Exception as error:  # noqa: BLE001  # one level that fails must not lose the others
                row["error"] = f"{type(error).__name__}: {error}"[:400]
        repetitions[line] += 1
        row["wall_s"] = round(time.time() - began, 1)
        rows.append(row)
        Path(out).write_text(json.dumps(rows))
        print("ROW " + json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
