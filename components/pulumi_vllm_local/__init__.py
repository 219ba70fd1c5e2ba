"""The local cloud: a rental API, machines that are containers on this computer, and a model hub."""

from pulumi_vllm_local.control import Running, down, status, up
from pulumi_vllm_local.settings import LocalCloudError

__all__ = ["LocalCloudError", "Running", "down", "status", "up"]
