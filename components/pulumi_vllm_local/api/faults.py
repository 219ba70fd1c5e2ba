"""Faults that a test orders: what goes wrong, for which requests, how often."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, fields
from typing import Any

TRANSPORT = ("latency", "status", "status_after", "drop_before", "drop_after", "malformed", "html")
MARKET = ("stock", "gone", "price")
KINDS = TRANSPORT + MARKET


@dataclass(slots=True)
class Fault:
    """One fault. `method` and `path` are patterns; `times` None is until cleared.

    latency: wait `seconds` (real) first. status: answer `status` (503) with `body` and `retry_after`, do nothing.
    status_after: do it, then answer `status`. drop_before: close the connection, do nothing. drop_after: do it,
    then close without an answer. malformed: do it, answer half of the JSON. html: answer a web page with `status`
    (200), do nothing. stock: a create of an offer like `offer` is refused for want of stock. gone: the offer is
    withdrawn in that moment. price: it is billed `price`.
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
        """From the JSON of the control endpoint."""
        unknown = sorted(set(data) - {item.name for item in fields(cls)})
        if unknown or data.get("kind") not in KINDS:
            what = f"unknown {', '.join(unknown)}" if unknown else f"kind must be one of {', '.join(KINDS)}"
            raise ValueError(f"fault: {what}")
        for name in ("method", "path", "offer"):
            re.compile(str(data.get(name, "")))
        return cls(**data)

    @property
    def answer(self) -> int:
        """The HTTP status to answer with."""
        return self.status or (200 if self.kind == "html" else 503)


@dataclass(slots=True)
class Faults:
    """The faults that are due."""

    due: list[Fault] = field(default_factory=list)

    def add(self, fault: Fault) -> None:
        """One more, after those that are there."""
        self.due.append(fault)

    def transport(self, method: str, path: str) -> Fault | None:
        """The next fault of this request."""
        for fault in self.due:
            if (
                fault.kind in TRANSPORT
                and re.fullmatch(fault.method, method)
                and re.fullmatch(fault.path, path)
            ):
                return self._use(fault)
        return None

    def market(self, kind: str, offer_id: str) -> Fault | None:
        """The next fault of this kind for an offer."""
        for fault in self.due:
            if fault.kind == kind and re.search(fault.offer, offer_id):
                return self._use(fault)
        return None

    def _use(self, fault: Fault) -> Fault:
        if fault.times is not None:
            fault.times -= 1
            if fault.times <= 0:
                self.due.remove(fault)
        return fault

    def shown(self) -> list[dict[str, Any]]:
        """As JSON."""
        return [asdict(fault) for fault in self.due]
