"""Every stack of the checkout, planned and rendered once."""

import functools
import pathlib

import yaml
from pulumi_vllm.plan import Deployment, plan
from pulumi_vllm.render import Mount, render

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXPOSURE = "exposure.txt"  # scores of systemd-analyze; test_readers writes and checks them
NAMES = sorted(path.name[len("Pulumi.") : -len(".yaml")] for path in ROOT.glob("stacks/Pulumi.*.yaml"))


def block(name):
    text = (ROOT / f"stacks/Pulumi.{name}.yaml").read_text()
    server = yaml.safe_load(text)["config"]["pulumi-vllm:server"]
    # The shipped files leave it out, because only the user knows it.
    return {**server, "access": {"allow": ["9.9.9.0/24"], **server["access"]}}


@functools.cache
def planned(name):
    return plan(Deployment.parse(block(name)))


@functools.cache
def rendered(name):
    return render(planned(name), mount=mount(name))


def mount(name):
    """How the volume of a stack is mounted: a block disk on the local cloud, virtiofs on Spheron."""
    return Mount("block", "LABEL=pv-0123456789") if name == "local" else Mount("virtiofs", "stackvolume")


def laid_out(files, folder):
    """Write the files below a directory, as they are below the host's root."""
    for file in files:
        place = folder / file.path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(file.text)
        place.chmod(int(file.mode, 8))
    return folder
