"""One served model on a Compute Engine instance. Its weights are on a persistent disk, which outlives the instance."""

from pathlib import Path

import pulumi
import pulumi_gcp as gcp
from pulumi_vllm import Server

config = pulumi.Config()
allow = config.require_object("allow")  # address ranges of the clients
operator = config.require("operator")  # address range of whoever runs `pulumi up`
key_file = Path(config.require("privateKeyFile")).expanduser()
zone = config.require("zone")

network = gcp.compute.Network("llm")
for name, port, ranges in (("gateway", 443, allow), ("ssh", 22, [operator])):
    gcp.compute.Firewall(
        name,
        network=network.id,
        allows=[{"protocol": "tcp", "ports": [str(port)]}],
        source_ranges=ranges,
    )
disk = gcp.compute.Disk(
    "llm", zone=zone, size=300, type="hyperdisk-balanced", opts=pulumi.ResourceOptions(protect=True)
)
public_key = key_file.with_suffix(".pub").read_text().strip()
machine = gcp.compute.Instance(
    "llm",
    zone=zone,
    machine_type="a3-highgpu-8g",  # 8x H100 SXM
    boot_disk={"initialize_params": {"image": config.require("image"), "size": 200}},
    # The name of the device on the host does not depend on the order of the disks.
    attached_disks=[{"source": disk.id, "device_name": "llm"}],
    network_interfaces=[{"network": network.id, "access_configs": [{}]}],
    scheduling={"on_host_maintenance": "TERMINATE"},
    metadata={"ssh-keys": f"llm:{public_key}"},
    # A disk has one writer, so the old instance gives it back first.
    opts=pulumi.ResourceOptions(delete_before_replace=True),
)
server = Server(
    "llm",
    {
        "server": {
            "model": "mistral-small-4",
            "precision": "fp8",
            "context": "256Ki",
            "machine": {
                "cloud": "none",
                "gpu": "H100",
                "count": 8,
                "usd_per_hour": config.require_float("usdPerHour"),
            },
            "storage": {"device": "/dev/disk/by-id/google-llm"},
            "access": {"allow": allow, "keys": ["team-a"]},
        },
        "host": {
            "address": machine.network_interfaces[0].access_configs[0].nat_ip,
            "user": "llm",
            "private_key": key_file.read_text(),
            "triggers": [machine.instance_id],
        },
    },
)
server.export_outputs()
