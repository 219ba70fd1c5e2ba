"""Defaults of the stack file that the provider needs as well. This module imports nothing, so it loads at once."""

from __future__ import annotations

from typing import Final

DRAIN_TIMEOUT_S: Final = 60
"""How long running requests may take to finish before the engine is stopped."""

READY_TIMEOUT_S: Final = 3600
"""How long vLLM may take from its start until it answers: 121 GB from a disk of 40 MB/s take 50 minutes."""

MODEL_HUB: Final = "https://huggingface.co"
"""Address of the model hub."""

UNREACHABLE_CHOICES: Final = ("error", "warn")
"""What a preview may do about a host that it can't observe."""

UNREACHABLE: Final = "error"
"""What a preview does about a host that it can't observe: an unknown state is never shown as unchanged."""
