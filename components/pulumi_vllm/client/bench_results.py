"""Saved bench results, and the earlier figures that a new result is compared with."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from pulumi_vllm.client.errors import ClientError
from pulumi_vllm.plan import catalogue
from pulumi_vllm.plan.engine_arguments import EngineArguments
from pulumi_vllm.plan.engine_setup import CACHE_BYTES
from pulumi_vllm.plan.evidence import best_match, difference, recorded_flags

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

FIGURES = ("output_throughput", "median_ttft_ms", "median_tpot_ms")
"""The figures that are compared, as the ratio of the new one to the old one."""


def save(folder: Path, result: Mapping[str, Any]) -> Path:
    """Write the result, whole or not at all, and return its path."""
    path = folder / _folder_name(result["name"]) / (re.sub(r"[-:]", "", result["date"]) + ".json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".json.new")
        unfinished.write_text(json.dumps(result, indent=1) + "\n")
        unfinished.replace(path)
    except OSError as error:
        raise ClientError(f"{path.parent}: cannot be written ({error.strerror}); give --out FOLDER") from None
    return path


def last_run(folder: Path, result: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the newest saved result of the same name, model and lengths."""
    same = ("name", "model", "input_tokens", "output_tokens")
    for path in sorted((folder / _folder_name(result["name"])).glob("*.json"), reverse=True):
        try:
            old: dict[str, Any] = json.loads(path.read_text())
            if all(old[key] == result[key] for key in same) and any(
                "error" not in row for row in old["rows"]
            ):
                return old
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a file that this command did not write
    return None


def matching_evidence(result: Mapping[str, Any]) -> tuple[catalogue.Measured | None, str]:
    """Return evidence for this stack's machine and engine, and a title: of the same flags, else of the most similar."""
    plan = result["plan"]
    count, _, gpu = str(plan.get("machine", "")).partition("x ")
    flags = recorded_flags(plan.get("flags") or ())
    # `plan` adds the cache that the measured run found by itself.
    flags.pop(CACHE_BYTES, None)
    if not count.isdecimal() or not flags:
        return None, ""
    model, precision, engine = (str(plan.get(key)) for key in ("model", "precision", "engine"))
    arguments = EngineArguments.of(flags)
    machine, engines = (model, precision, engine, gpu, int(count)), int(plan.get("engines") or 1)
    match = best_match(catalogue.load().measured, machine, arguments, engines)
    if match is None or not match.run.load:
        return None, ""
    unlike = "" if match.exact else f" with {difference(match.run, arguments)}"
    return match.run, f"measured, {match.run.date}{unlike}"


def with_same_lengths(
    rows: Sequence[Mapping[str, Any]], old: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Return the old levels whose prompts and answers had the same lengths."""
    lengths = {_level(row)[1:] for row in rows}
    return [row for row in old if _level(row)[1:] in lengths]


def compare(
    rows: Sequence[Mapping[str, Any]], old: Sequence[Mapping[str, Any]]
) -> dict[int, dict[str, float]]:
    """Return the ratios of new to old figures by concurrency, for the levels that both runs have."""
    by_level = {_level(row): row for row in old if "error" not in row}
    out: dict[int, dict[str, float]] = {}
    for row in rows:
        before = by_level.get(_level(row))
        if before is not None and "error" not in row:
            ratios = {
                name: round(row[name] / before[name], 3)
                for name in FIGURES
                if before.get(name) and row.get(name)
            }
            out[row["concurrency"]] = ratios
    return out


def _level(row: Mapping[str, Any]) -> tuple[int, int, int]:
    return row["concurrency"], row["input_tokens"], row["output_tokens"]


def _folder_name(name: str) -> str:
    """Return a stack's name, or an address, as the name of a folder."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".") or "unnamed"
