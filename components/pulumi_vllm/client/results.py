"""Benches that were saved, and what a new one is compared with."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from pulumi_vllm.client.errors import ClientError
from pulumi_vllm.plan import catalogue
from pulumi_vllm.plan.engine_arguments import others

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

FIGURES = ("output_throughput", "median_ttft_ms", "median_tpot_ms")
"""What is compared, as the new figure over the old one."""


def save(folder: Path, result: Mapping[str, Any], svg: str) -> Path:
    """Write the result and its plot; gives the result's path. Both are written whole or not at all."""
    place = folder / _file_name(result["name"]) / re.sub(r"[-:]", "", result["date"])
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        for suffix, text in ((".svg", svg), (".json", json.dumps(result, indent=1) + "\n")):
            made = place.with_suffix(f"{suffix}.new")
            made.write_text(text)
            made.replace(place.with_suffix(suffix))
    except OSError as error:
        raise ClientError(f"{place.parent}: can't be written ({error.strerror}); give --out FOLDER") from None
    return place.with_suffix(".json")


def last(folder: Path, result: Mapping[str, Any]) -> dict[str, Any] | None:
    """The newest saved bench of the same name, model and lengths."""
    same = ("name", "model", "input_tokens", "output_tokens")
    for path in sorted((folder / _file_name(result["name"])).glob("*.json"), reverse=True):
        try:
            old: dict[str, Any] = json.loads(path.read_text())
            if all(old[key] == result[key] for key in same) and any(
                "error" not in row for row in old["rows"]
            ):
                return old
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a file of somebody else's: there is nothing to compare with in it
    return None


def measured(result: Mapping[str, Any]) -> tuple[catalogue.Measured | None, str]:
    """Evidence for this stack's machine and engine, and its name: of exactly these flags, else of the likest."""
    plan = result["plan"]
    count, _, gpu = str(plan.get("machine", "")).partition("x ")
    flags = tuple(plan.get("flags") or ())
    if not count.isdecimal() or not flags:
        return None, ""
    model, precision, engine = (str(plan.get(key)) for key in ("model", "precision", "engine"))
    found = catalogue.load().measurement((model, precision, engine, gpu, int(count)), flags)
    if found is None or not found.load:
        return None, ""
    unlike = "" if found.flags == flags else f" with {others(found.flags, flags)}"
    return found, f"measured, {found.date}{unlike}"


def alike(rows: Sequence[Mapping[str, Any]], old: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The old levels whose prompts and answers were as long as these."""
    lengths = {_level(row)[1:] for row in rows}
    return [row for row in old if _level(row)[1:] in lengths]


def compare(
    rows: Sequence[Mapping[str, Any]], old: Sequence[Mapping[str, Any]]
) -> dict[int, dict[str, float]]:
    """By concurrency: each figure over the old one, where both runs have that level at these lengths."""
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


def _file_name(name: str) -> str:
    """A stack's name, or an address, as a folder."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".") or "unnamed"
