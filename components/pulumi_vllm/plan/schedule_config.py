"""The block `schedule` of the stack file."""

from __future__ import annotations

from typing import Annotated

import pydantic
from pydantic import AfterValidator

from pulumi_vllm.plan import schedule
from pulumi_vllm.plan.config_fields import NOTHING, Block, key


def _cron_text(text: str) -> str:
    schedule.parse(text)
    return text


CronText = Annotated[str, AfterValidator(_cron_text)]


class Schedule(Block):
    """When the machine is meant to run. `plan` computes its price; docs/how-to/schedule.md says how to do it."""

    up: Annotated[CronText | None, key(NOTHING)] = None
    """Cron expression in UTC (minute, hour, day, month, weekday) for `pulumi up`, for example `0 7 * * 1-5`."""
    down: Annotated[CronText | None, key(NOTHING)] = None
    """The same for the end of the machine, for example `0 20 * * 1-5`. The volume is kept."""

    @pydantic.model_validator(mode="after")
    def _both(self) -> Schedule:
        if (self.up is None) != (self.down is None):
            msg = f"has {'up' if self.up else 'down'} only; add {'down' if self.up else 'up'}"
            raise ValueError(msg)
        if self.up and self.down and schedule.parse(self.up) == schedule.parse(self.down):
            msg = "up and down fire at the same times; write other ones"
            raise ValueError(msg)
        return self

    @property
    def hours_per_month(self) -> float | None:
        """Hours between up and down, as a mean over the months of a year; None without a schedule."""
        if self.up is None or self.down is None:
            return None
        return schedule.hours_per_month(schedule.parse(self.up), schedule.parse(self.down))
