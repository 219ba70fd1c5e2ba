"""The record of `reconcile`: one JSON line for each run that did something."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pulumi_vllm.plan.spending import Rental


class RecordError(Exception):
    """The record cannot be read."""


def known_rentals(path: Path) -> dict[str, Rental]:
    """Return the rentals of all records, by id, as they were recorded last.

    Raises:
        RecordError: a line is not a record.
    """
    known: dict[str, Rental] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        try:
            known |= {one["id"]: Rental(**one) for one in json.loads(line)["rentals"]}
        except (ValueError, TypeError, KeyError):
            raise RecordError(f"{path}:{number}: is not a record of reconcile; remove the line") from None
    return known


def append(path: Path, record: Mapping[str, Any], rentals: tuple[Rental, ...]) -> None:
    """Add one record."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**record, "rentals": [asdict(one) for one in rentals]}) + "\n")
