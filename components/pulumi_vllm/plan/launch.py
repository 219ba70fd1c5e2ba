"""One start of vLLM, as the linter examines it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pulumi_vllm.plan.catalogue import Engine, Gpu, Model, Precision
    from pulumi_vllm.plan.engine_arguments import EngineArguments
    from pulumi_vllm.plan.memory import Budget

_HOPPER = (9, 0)


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
    gpu: Gpu | None = None
    """None where no GPU is named. The rules assume Hopper then."""
    engines: int = 1
    """Engines that are started so on the machine, each with `gpu_count` GPUs."""

    @property
    def of_each_engine(self) -> str:
        """The end of a remedy that changes what `server.concurrency` is shared into."""
        return f" for each of {self.engines} engines" if self.engines > 1 else ""

    @property
    def capability(self) -> tuple[int, int]:
        """The GPU's compute capability, for comparisons."""
        if self.gpu is None or self.gpu.compute_capability is None:
            return _HOPPER
        major, minor = self.gpu.compute_capability.split(".")
        return int(major), int(minor)

    @property
    def gpu_words(self) -> str:
        """The GPU and its compute capability, for a message."""
        named = "a GPU" if self.gpu is None else self.gpu.name
        return f"{named} (compute capability {'.'.join(map(str, self.capability))})"

    @property
    def on_hopper(self) -> bool:
        """Whether what was learned on H100 and H200 applies."""
        return self.on_gpu and self.capability == _HOPPER

    @property
    def on_gpu(self) -> bool:
        """Whether the engine runs on GPUs."""
        return self.engine.runs_on == "cuda"
