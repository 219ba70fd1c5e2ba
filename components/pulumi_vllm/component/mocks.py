"""Mocks for unit tests of a program that uses this package: outputs as a cloud returns them, without an engine.

pulumi.runtime.set_mocks(pulumi_vllm.component.mocks.Mocks())
"""

from typing import Any, Final

import pulumi

OUTPUTS: Final[dict[str, dict[str, Any]]] = {
    "vllm:spheron:SshKey": {
        "keyId": "key-1",
        "keyName": "unit-llm-ssh-0123456789",
        "publicKey": "ssh-ed25519 AAAA",
        "privateKeyPem": "-----BEGIN OPENSSH PRIVATE KEY-----",
    },
    "vllm:spheron:Volume": {
        "handle": "computefilesystem-1",
        "volumeName": "unit-llm-volume-0123456789",
        "provider": "spheron-es",
        "placement": "EU North 1",
        "mountTag": "unit-llm-volume",
        "usdPerHour": 0.04,
    },
    "vllm:spheron:Instance": {
        "instanceName": "unit-llm-machine-0123456789",
        "gpuTaken": "H200",
        "status": "running",
        "address": "192.0.2.7",  # RFC 5737: for documentation
        "user": "ubuntu",
        "port": 22,
        "hostKey": "ssh-ed25519 HOST",
        "usdPerHour": 7.92,
        "billedAs": "on-demand",
        "offerId": "offer-1",
        "placement": "EU North 1",
        "host": "spheron-es",
        "mountKind": "virtiofs",
        "createdAt": "2026-01-01T00:00:00Z",
    },
    "vllm:host:Machine": {
        "pinnedHostKey": "ssh-ed25519 HOST",
        "gpus": ["NVIDIA H100 80GB HBM3"],
        "driver": "580.95.05",
        "operatingSystem": "Ubuntu 24.04 LTS",
        "source": "/data/llm",
        "unitSha256": "0" * 64,
        "fileSystemGb": 500.0,
        "reachable": True,
    },
    "vllm:spheron:VolumeAttachment": {
        "source": "unit-llm-volume",
        "restarted": False,
        "unitSha256": "0" * 64,
        "fileSystemGb": 295.0,
        "reachable": True,
    },
    "vllm:index:Authority": {
        "certificate": "-----BEGIN CERTIFICATE-----",
        "privateKey": "-----BEGIN PRIVATE KEY-----",
        "expires": "2036-01-01T00:00:00Z",
    },
    "vllm:index:Certificate": {"pem": "-----BEGIN CERTIFICATE-----", "expires": "2027-01-01T00:00:00Z"},
    "vllm:index:CustomCertificate": {
        "pem": "-----BEGIN CERTIFICATE-----",
        "chain": "-----BEGIN CERTIFICATE-----",
        "expires": "2027-01-01T00:00:00Z",
    },
    "vllm:index:ApiKey": {"key": "sk-random"},
    "vllm:host:Files": {
        "paths": ["/etc/systemd/system/vllm.service"],
        "servingDigest": "d" * 64,
        "reachable": True,
    },
    "vllm:host:Weights": {
        "files": 9,
        "bytes": 120_000_000_000,
        "downloadedBytes": 120_000_000_000,
        "downloads": 1,
        "seconds": 600,
        "manifestSha256": "e" * 64,
        "reachable": True,
    },
    "vllm:host:Service": {
        "evidence": {"readiness": {"passed": True}},
        "hostAccess": {"sshd option passwordauthentication": "no"},
        "reachable": True,
    },
}
"""Outputs by type of resource. A test may change them."""


class Mocks(pulumi.runtime.Mocks):
    """Creates every resource at once, with its inputs and the outputs above. `made` has the inputs by name."""

    def __init__(self) -> None:
        self.made: dict[str, dict[str, Any]] = {}

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        """Return a resource's id and outputs."""
        self.made[args.name] = {"type": args.typ, **args.inputs}
        return f"{args.name}-id", {**args.inputs, **OUTPUTS.get(args.typ, {})}

    def call(self, args: pulumi.runtime.MockCallArgs) -> tuple[dict[str, Any], None]:
        """Return nothing for functions of other packages. Override it for a program that calls one."""
        del args
        return {}, None
