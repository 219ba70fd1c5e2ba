"""Defaults of the stack file that the provider needs as well. This module imports nothing, so it loads at once."""

from __future__ import annotations

from typing import Final

DRAIN_TIMEOUT_S: Final = 60
"""How long running requests may take to finish before the engine is stopped."""

MODEL_HUB: Final = "https://huggingface.co"
"""Address of the model hub."""
