"""Rules about where the weights come from and in which format they are loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pulumi_vllm.plan.lint.findings import error
from pulumi_vllm.plan.suggestions import suggestion

if TYPE_CHECKING:
    from pulumi_vllm.plan.launch import Launch
    from pulumi_vllm.plan.lint.findings import Problems


def unknown_repository(launch: Launch) -> Problems:
    """A repository that does not exist."""
    name = str(launch.arguments.flags.get("model", ""))
    known = [precision.repository for precision in launch.model.precisions.values()]
    if name and not name.startswith(("/", ".")) and name not in known:
        yield error(
            f"--model {name} is not a repository of {launch.model.name}; {suggestion(name, known)}",
            "the public records of the weights",
        )


def load_format(launch: Launch) -> Problems:
    """Mistral's weights in the Hugging Face format, which do not load."""
    # `auto` uses the consolidated files if they exist; these formats never do.
    wrong = [
        f"--{name} {launch.arguments.flags[name]}"
        for name in ("load-format", "config-format")
        if launch.arguments.flags.get(name) in ("hf", "pt", "npcache")
    ]
    if "mistralai/" in launch.precision.repository and wrong:
        yield error(
            f"{' '.join(wrong)}: vLLM loads only the consolidated (Mistral) files; set it to mistral",
            "vLLM issue 46497: No model architectures are specified",
        )
