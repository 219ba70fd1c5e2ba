"""The catalogue's entries for a validated stack file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pulumi_vllm.plan import engine_rates
from pulumi_vllm.plan.engine_arguments import PARALLEL_SIZES
from pulumi_vllm.plan.memory_settings import default_batch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pulumi_vllm.plan.catalogue import Catalogue, Engine, Gpu, Model, Precision
    from pulumi_vllm.plan.config import Deployment


@dataclass(frozen=True, slots=True)
class Selection:
    """The model, precision, engine and GPU of one deployment, and the number of engines that share its machine."""

    model: Model
    precision: Precision
    engine: Engine
    gpu: Gpu
    engines: int = 1

    def gpus_of_each(self, count: int) -> int:
        """GPUs of one engine on a machine with `count` GPUs."""
        return count // self.engines

    def sequences_of_each(self, sequences: int) -> int:
        """Requests that one engine serves at the same time, of those of all engines."""
        return -(-sequences // self.engines)

    @property
    def expert_flags(self) -> Mapping[str, Any]:
        """What the engine sets for a mixture of experts in this precision.

        It was learned on Hopper, with one scale per tensor. Weights with a scale per block have kernels of their own.
        """
        fits = self.model.is_moe and not self.precision.block_scales and self.gpu.compute_capability == "9.0"
        return self.engine.expert_flags.get(self.precision.name, {}) if fits else {}

    @property
    def vision_flags(self) -> Mapping[str, Any]:
        """What the engine sets where a model accepts images in this precision: a batch no larger than vLLM's own."""
        flags = self.engine.vision_flags.get(self.precision.name, {})
        own = default_batch(self.engine, self.gpu) if self.engine.memory else 0
        return flags if flags.get("max-num-batched-tokens", 0) <= own else {}


def select(deployment: Deployment, catalogue: Catalogue) -> Selection:
    """Look up the names in a stack file; `Deployment.parse` has checked them."""
    model = deployment.own_model or catalogue.models[deployment.model]
    precision = model.precisions[deployment.precision or next(iter(model.precisions))]
    weights = deployment.weights
    if weights.repository is not None and weights.revision is not None:
        # The files of a fine-tune have digests of their own, which the model hub names.
        precision = replace(precision, repository=weights.repository, revision=weights.revision, digests={})
    gpu = deployment.own_gpus.get(deployment.machine.gpu) or catalogue.gpus[deployment.machine.gpu]
    version = deployment.engine.version
    engine = catalogue.default_engine(gpu) if version is None else catalogue.engines[version]
    return Selection(model, precision, engine, gpu, _engines(deployment, catalogue, model, precision, engine))


def _engines(
    deployment: Deployment, catalogue: Catalogue, model: Model, precision: Precision, engine: Engine
) -> int:
    """The stack file's number of engines, or the one that the measured rates speak for.

    A stack file that says itself how vLLM is divided over GPUs gets one engine.
    """
    machine = deployment.machine
    if machine.engines is not None:
        return machine.engines
    if set(PARALLEL_SIZES) & set(deployment.engine.flags):
        return 1
    served = (model.name, precision.name, engine.version, machine.gpu, machine.count)
    return engine_rates.fastest(engine_rates.measured_rates(catalogue.measured, served, deployment.sequences))
