"""The team that an API key acts for: its id and its credit."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from pulumi_vllm.spheron import json_fields as fields
from pulumi_vllm.spheron.errors import CloudError

if TYPE_CHECKING:
    from pulumi_vllm.spheron.transport import Transport

_NO_TEAM = "the key belongs to no team; create one in the dashboard"


class Account:
    """`/api/balance`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._team_id: str | None = None
        self._lock = threading.Lock()

    def team_id(self) -> str:
        """Return the team that is billed: the key's current team, else its first."""
        with self._lock:
            if self._team_id is None:
                action = "asking for the team"
                self._team_id = fields.text(self._team(action), "teamId", "id")
                if self._team_id is None:
                    raise CloudError(f"{action}: {_NO_TEAM}")
            return self._team_id

    def balance_usd(self) -> float | None:
        """Return the team's credit; None where the API does not publish it."""
        return fields.number(self._team("asking for the balance"), "balance")

    def _team(self, action: str) -> fields.Record:
        answer = self._transport.get("/api/balance", action=action)
        teams = fields.unwrap_list(answer, "teams", action=action)
        if self._team_id is not None:
            teams = [team for team in teams if fields.text(team, "teamId", "id") == self._team_id] or teams
        current = [team for team in teams if team.get("isCurrentTeam") is True]
        if not teams:
            raise CloudError(f"{action}: {_NO_TEAM}")
        return (current or teams)[0]
