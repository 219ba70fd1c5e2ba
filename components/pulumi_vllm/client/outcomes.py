"""How a check of a served model ends, other than well."""

from __future__ import annotations

from typing import Literal

from pulumi_vllm.client.errors import printable

Outcome = Literal["pass", "fail", "not for this engine"]


class Failed(Exception):  # noqa: N818 - an outcome of a check
    """The answer is wrong."""


class NotSupported(Exception):  # noqa: N818 - an outcome of a check
    """The model, or the engine as it was started, does not support this."""


def excerpt(text: str) -> str:
    """Return the beginning of a model's text, quoted, on one line."""
    line = printable(text)
    return repr(line if len(line) <= 60 else line[:57] + "...")  # noqa: PLR2004 - one line of a table
