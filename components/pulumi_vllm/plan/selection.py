"""The catalogue's entries for a validated stack file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pulumi_vllm.plan.catalogue import Catalogue, Engine, Gpu, Model, Precision
    from pulumi_vllm.plan.config import Deployment


@dataclass(frozen=True, slots=True)
class Selection:
    """The model, precision, engine and GPU of one deployment."""

    model: Model
    precision: Precision
    engine: Engine
    gpu: Gpu

    @property
    def expert_flags(self) -> Mapping[str, Any]:
        """What the engine sets for a mixture of experts in this precision."""
        return self.engine.expert_flags.get(self.precision.name, {}) if self.model.is_moe else {}

    @property
    def vision_flags(self) -> Mapping[str, Any]:
        """What the engine sets where a model accepts images in this precision."""
        return self.engine.vision_flags.get(self.precision.name, {})


def select(deployment: Deployment, catalogue: Catalogue) -> Selection:
    """Look up the names in a stack file; `Deployment.parse` has checked them."""
    model = catalogue.models[deployment.model]
    precision = deployment.precision or next(iter(model.precisions))
    gpu, version = catalogue.gpus[deployment.machine.gpu], deployment.engine.version
    engine = catalogue.default_engine(gpu) if version is None else catalogue.engines[version]
    return Selection(model, model.precisions[precision], engine, gpu)
