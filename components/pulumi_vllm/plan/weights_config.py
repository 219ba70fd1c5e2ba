"""The block `weights` of the stack file."""

from __future__ import annotations

import re
from typing import Annotated

import pydantic
from pydantic import ValidationInfo

from pulumi_vllm.plan import defaults
from pulumi_vllm.plan.config_fields import WEIGHTS, Block, key

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


class Weights(Block):
    """Where the weights come from."""

    repository: Annotated[str | None, key(WEIGHTS)] = None
    """Repository of a fine-tune of the model, for example `example/support-llm`. It must have the model's dimensions
    and precision; figures are the model's. Set it with `revision`, and `hfToken` if it is private."""
    revision: Annotated[str | None, key(WEIGHTS, validate_default=True)] = None
    """Commit of that repository, 40 hex digits."""
    endpoint: Annotated[
        str, key("applies to the next download of weights", pattern=r"^https?://[^\s/]+(/[^\s]*)?$")
    ] = defaults.MODEL_HUB
    """Address of the model hub."""

    @pydantic.field_validator("repository")
    @classmethod
    def _a_repository(cls, name: str | None) -> str | None:
        if name is not None and not _REPOSITORY.fullmatch(name):
            msg = f"{name[:80]!r} is not a repository; write owner/name, as the model hub does"
            raise ValueError(msg)
        return name

    @pydantic.field_validator("revision")
    @classmethod
    def _a_commit(cls, revision: str | None, info: ValidationInfo) -> str | None:
        if revision is not None and not re.fullmatch("[0-9a-f]{40}", revision):
            msg = f"{revision[:80]!r} is no commit; write its 40 hex digits"
            raise ValueError(msg)
        # A wrong repository is absent from the data, an unset one is None.
        if "repository" in info.data and (revision is None) != (info.data["repository"] is None):
            msg = "has no effect without server.weights.repository; set both, or neither"
            raise ValueError(
                msg if revision is not None else "missing; pin the commit of server.weights.repository"
            )
        return revision
