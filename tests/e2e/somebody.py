"""A machine that somebody else made: rented by hand at the local cloud, with no file of ours on it."""

import contextlib
import dataclasses
import subprocess
import tempfile
import zlib
from pathlib import Path

from harness import LocalCloud, block, wait_for
from pulumi_vllm.plan.offer_choice import OfferRequest, matching
from pulumi_vllm.spheron.client import Spheron
from pulumi_vllm.spheron.models import InstanceRequest
from pulumi_vllm_local.images import apt_sources, image_cache

# What differs after a boot, and what we left on a machine.
BOOT = "cat /proc/sys/kernel/random/boot_id; cut -d ' ' -f 22 /proc/1/stat"
LEFT = (
    "ls -d /etc/pulumi-vllm /usr/local/lib/pulumi-vllm /{var/lib,run}/pulumi-vllm /models 2>/dev/null || true"
)
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
            self._ssh("bash -eu"), input=script, text=True, capture_output=True, check=False, timeout=120
        )
        if check and done.returncode:
            raise AssertionError(
                f"on {self.address}: {done.returncode}\n{script}\n{done.stdout}{done.stderr}"
            )
        return done.stdout

    def install(self, *packages: str) -> None:
        """Install packages of its release with what they need. It has no network, so this computer fetches them."""
        status = self.run("cat /var/lib/dpkg/status")
        names = zlib.crc32(f"{status}{packages}".encode())
        folder = image_cache.folder().parent / "packages" / f"{names:08x}"
        this = apt_sources.suite(Path("/etc/os-release").read_text()).codename
        fetch(packages, status, apt_sources.sources(this, self.cloud.release), folder)
        with tempfile.TemporaryFile() as archive:
            subprocess.run(
                ["tar", "-cC", str(folder), *(one.name for one in folder.glob("*.deb"))],
                stdout=archive,
                check=True,
            )
            archive.seek(0)
            unpack = self._ssh("sh -c 'mkdir -p /tmp/packages && tar -xC /tmp/packages'")
            subprocess.run(unpack, stdin=archive, check=True, timeout=120)
        self.run(
            "DEBIAN_FRONTEND=noninteractive dpkg -i /tmp/packages/*.deb >/tmp/log 2>&1 || { cat /tmp/log; false; }; "
            "rm -r /tmp/packages"
        )

    def _ssh(self, command: str) -> list[str]:
        login = f"{self.user}@{self.address}"
        return ["ssh", "-q", "-i", str(self.key_file), *_BASE, login, f"sudo -n {command}"]

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


def fetch(packages: tuple[str, ...], status: str, sources: str, folder: Path) -> None:
    """Fetch packages and what they need beside the packages of a status file of dpkg. A filled folder is kept."""
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        file, archives, lists, parts = (
            Path(made) / name for name in ("status", "archives", "lists", "parts")
        )
        file.write_text(status)
        for downloads in (archives, lists):
            (downloads / "partial").mkdir(parents=True)
        parts.mkdir()
        (parts / "its.sources").write_text(sources)
        options = {
            "Dir::Etc::sourcelist": "/dev/null",
            "Dir::Etc::sourceparts": parts,
            "Dir::State::lists": lists,
            "Dir::State::status": file,
            "Dir::Cache::archives": archives,
            "Debug::NoLocking": 1,
            "APT::Sandbox::User": "root",
        }
        settings = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        apt = ["apt-get", *settings, "-qq", "-y"]
        subprocess.run([*apt, "update"], check=True, timeout=300, stdin=subprocess.DEVNULL)
        install = [*apt, "install", "--download-only", "--no-install-recommends", *packages]
        subprocess.run(install, check=True, timeout=300, stdin=subprocess.DEVNULL)
        (archives / "partial").rmdir()
        archives.rename(folder)


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


def own_stack(**more: object) -> dict:
    """The stack of the tests on a machine of somebody else."""
    mine = {"cloud": "none", "gpu": "CPU", "count": 0, "usd_per_hour": 0.5}
    return block(storage={"path": "/data/llm"}, **more) | {"machine": mine}
