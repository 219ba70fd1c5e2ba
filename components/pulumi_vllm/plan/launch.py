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
    capability: str | None = None
    """The GPU's compute capability; None where no GPU is named, and the rules assume Hopper."""

    @property
    def on_hopper(self) -> bool:
        """Whether what was learned on H100 and H200 applies."""
        return self.on_gpu and self.capability in {None, "9.0"}

    @property
    def on_blackwell(self) -> bool:
        """Whether the GPU is a B200, a B300, or a card of the same family."""
        return self.capability is not None and self.capability.partition(".")[0] in {"10", "12"}

    @property
    def on_gpu(self) -> bool:
        """Whether the engine runs on GPUs."""
        return self.engine.runs_on == "cuda"
