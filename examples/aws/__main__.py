"""One served model on an EC2 instance. Its weights are on an EBS volume, which outlives the instance."""

from pathlib import Path

import pulumi
import pulumi_aws as aws
from pulumi_vllm import Server

config = pulumi.Config()
allow = config.require_object("allow")  # address ranges of the clients
operator = config.require("operator")  # address range of whoever runs `pulumi up`
key_file = Path(config.require("privateKeyFile")).expanduser()
zone = config.require("zone")

# EC2 names devices in the order in which they appear, so the volume is found by its own id.
MOUNT = """#!/bin/bash
set -eu
disk=/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{id}
for second in $(seq 300); do [ ! -e $disk ] || break; sleep 1; done
code=0; blkid -p $disk || code=$?
[ $code != 2 ] || mkfs.ext4 -q $disk
mkdir -p /data
echo "$disk /data ext4 defaults,nofail 0 2" >> /etc/fstab
mount /data
"""

key = aws.ec2.KeyPair("llm", public_key=key_file.with_suffix(".pub").read_text().strip())
group = aws.ec2.SecurityGroup(
    "llm",
    ingress=[
        {"protocol": "tcp", "from_port": 443, "to_port": 443, "cidr_blocks": allow},
        {"protocol": "tcp", "from_port": 22, "to_port": 22, "cidr_blocks": [operator]},
    ],
    egress=[{"protocol": "-1", "from_port": 0, "to_port": 0, "cidr_blocks": ["0.0.0.0/0"]}],
)
disk = aws.ebs.Volume(
    "llm", availability_zone=zone, size=300, type="gp3", opts=pulumi.ResourceOptions(protect=True)
)
machine = aws.ec2.Instance(
    "llm",
    ami=config.require("ami"),
    instance_type="p5.48xlarge",  # 8x H100 SXM
    availability_zone=zone,
    key_name=key.key_name,
    vpc_security_group_ids=[group.id],
    root_block_device={"volume_size": 200, "volume_type": "gp3"},
    user_data=disk.id.apply(lambda name: MOUNT.format(id=name.replace("-", ""))),
    # A volume has one writer, so the old instance gives it back first.
    opts=pulumi.ResourceOptions(delete_before_replace=True),
)
attachment = aws.ec2.VolumeAttachment(
    "llm",
    instance_id=machine.id,
    volume_id=disk.id,
    device_name="/dev/sdf",
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
            "storage": {"path": "/data/llm"},
            "access": {"allow": allow, "keys": ["team-a"]},
        },
        "host": {
            "address": machine.public_ip,
            "user": "ubuntu",
            "private_key": key_file.read_text(),
            "triggers": [machine.id],
        },
    },
    pulumi.ResourceOptions(depends_on=[attachment]),
)
server.export_outputs()
