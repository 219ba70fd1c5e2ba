"""One start of vLLM, as the linter examines it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pulumi_vllm.plan.catalogue import Engine, Model, Precision
    from pulumi_vllm.plan.engine_arguments import EngineArguments
    from pulumi_vllm.plan.memory import Budget


@dataclass(frozen=True, slots=True)
class Launch:
    """Arguments and environment of vLLM, what it serves, and the machine as far as it is known."""

    arguments: EngineArguments
    environment: Mapping[str, str]
    model: Model
    precision: Precision
    engine: Engine
    gpu_count: int
    budget: Budget | None = None
    driver: str | None = None

    @property
    def on_gpu(self) -> bool:
        """Whether the engine runs on GPUs."""
        return self.engine.runs_on == "cuda"
