"""Faults that tests order: what fails, for which requests, and how often."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, fields
from typing import Any

TRANSPORT = ("latency", "status", "status_after", "drop_before", "drop_after", "malformed", "html")
MARKET = ("stock", "gone", "price")
KINDS = TRANSPORT + MARKET


@dataclass(slots=True)
class Fault:
    """One fault. `method` and `path` are patterns; with `times` None it lasts until it is cleared.

    Before the request is handled:
        latency: wait `seconds` (real) first.
        status: answer `status` (503) with `body` and `retry_after`.
        drop_before: close the connection.
        html: answer a web page with `status` (200).
    After the request was handled:
        status_after: answer `status`.
        drop_after: close the connection without an answer.
        malformed: answer half of the JSON.
    When an offer that matches `offer` is created:
        stock: it is out of stock.
        gone: it was withdrawn.
        price: it is billed `price`.
    """

    kind: str
    method: str = ".*"
    path: str = "/api/.*"
    times: int | None = 1
    status: int | None = None
    body: Any = None
    retry_after: int | None = None
    seconds: float = 0.0
    offer: str = ".*"
    price: float | None = None

    @classmethod
    def parse(cls, data: dict[str, Any]) -> Fault:
        """Parse the JSON of the control endpoint."""
        unknown = sorted(set(data) - {item.name for item in fields(cls)})
        if unknown or data.get("kind") not in KINDS:
            what = f"unknown {', '.join(unknown)}" if unknown else f"kind must be one of {', '.join(KINDS)}"
            raise ValueError(f"fault: {what}")
        for name in ("method", "path", "offer"):
            re.compile(str(data.get(name, "")))
        return cls(**data)

    @property
    def answer(self) -> int:
        """The HTTP status of the response."""
        return self.status or (200 if self.kind == "html" else 503)


@dataclass(slots=True)
class Faults:
    """The pending faults, oldest first."""

    due: list[Fault] = field(default_factory=list)

    def add(self, fault: Fault) -> None:
        """Add a fault after the others."""
        self.due.append(fault)

    def transport(self, method: str, path: str) -> Fault | None:
        """Take the next fault for a request."""
        for fault in self.due:
            if (
                fault.kind in TRANSPORT
                and re.fullmatch(fault.method, method)
                and re.fullmatch(fault.path, path)
            ):
                return self._take(fault)
        return None

    def market(self, kind: str, offer_id: str) -> Fault | None:
        """Take the next fault of a kind for an offer."""
        for fault in self.due:
            if fault.kind == kind and re.search(fault.offer, offer_id):
                return self._take(fault)
        return None

    def _take(self, fault: Fault) -> Fault:
        if fault.times is not None:
            fault.times -= 1
            if fault.times <= 0:
                self.due.remove(fault)
        return fault

    def listing(self) -> list[dict[str, Any]]:
        """Return the faults for JSON."""
        return [asdict(fault) for fault in self.due]
