"""A machine that somebody else made: rented by hand at the local cloud, with no file of ours on it."""

import contextlib
import dataclasses
import subprocess
from pathlib import Path

from harness import LocalCloud, wait_for
from pulumi_vllm.plan.offer_choice import OfferRequest, matching
from pulumi_vllm.spheron.client import Spheron
from pulumi_vllm.spheron.models import InstanceRequest

_BASE = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes")


@dataclasses.dataclass
class Machine:
    """Where it is, and how its owner logs in."""

    cloud: LocalCloud
    id: str
    address: str
    user: str
    key_file: Path

    def run(self, script: str, *, check: bool = True) -> str:
        """Run a script as root, as its owner would."""
        done = subprocess.run(
            [
                "ssh",
                "-q",
                "-i",
                str(self.key_file),
                *_BASE,
                f"{self.user}@{self.address}",
                "sudo -n bash -eu",
            ],
            input=script,
            text=True,
            capture_output=True,
            check=False,
            timeout=120,
        )
        if check and done.returncode:
            raise AssertionError(
                f"on {self.address}: {done.returncode}\n{script}\n{done.stdout}{done.stderr}"
            )
        return done.stdout

    def host(self, **more: object) -> dict[str, object]:
        """What a stack file says under `pulumi-vllm:host`."""
        return {"address": self.address, "user": self.user, "private_key_file": str(self.key_file)} | more

    def end(self) -> None:
        """End it, as its owner."""
        self.cloud.pass_minutes(30)
        self.cloud.api(f"/api/deployments/{self.id}", "DELETE")


def make(cloud: LocalCloud, folder: Path, region: str, name: str) -> Machine:
    """Rent a machine without cloud-init of ours, and wait until its owner can log in."""
    folder.mkdir(parents=True, exist_ok=True)
    key_file = folder / "owner"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key_file)], check=True)
    with contextlib.closing(client(cloud)) as api:
        public = " ".join(key_file.with_suffix(".pub").read_text().split()[:2])
        key = api.ssh_keys.create(f"{name}-key", public)
        request = OfferRequest(("CPU",), 0, ("on-demand",), region, with_volume=False)
        offer = next(iter(matching(api.offers.list(), request)))
        rented = api.instances.create(
            InstanceRequest(name, offer, region, offer.operating_systems[0], key.id)
        )

        def reached() -> Machine | None:
            found = api.instances.get(rented.id)
            if found is None or found.status != "running" or not found.address:
                return None
            users = filter(None, (found.user, "ubuntu", "root"))
            machines = (Machine(cloud, rented.id, found.address, user, key_file) for user in users)
            return next((one for one in machines if one.run("echo in", check=False).strip() == "in"), None)

        return wait_for(reached, 180, f"login at {name}")


def attach_disk(machine: Machine, region: str, name: str) -> None:
    """Attach a blank disk."""
    with contextlib.closing(client(machine.cloud)) as api:
        provider = api.instances.get(machine.id).provider
        volume = api.volumes.create(name, 1, provider, region)
        api.volumes.attach(volume.handle, machine.id)
    wait_for(lambda: machine.run("lsblk -no NAME /dev/vdb", check=False), 60, "disk")


def client(cloud: LocalCloud) -> Spheron:
    """Return a client of the local cloud's API."""
    return Spheron(cloud.environment["SPHERON_API_KEY"], url=cloud.environment["SPHERON_URL"])
