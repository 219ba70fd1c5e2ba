import os
import shutil
import sys
import zlib
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from harness import REGIONS, REPOSITORY, LocalCloud, Project, block, close_clients


def pytest_collection_modifyitems(items):
    """Mark all tests here as ci, because they need root, containers and the Pulumi engine."""
    for item in items:
        if Path(__file__).parent in item.path.parents and not item.get_closest_marker("all"):
            item.add_marker(pytest.mark.ci)


@pytest.fixture(scope="session")
def clouds():
    """Return a local cloud per engine and release, started on first use; all are removed at the end.

    `E2E_RELEASE=trixie` runs a test on machines of another release.
    """
    if os.geteuid() != 0:
        pytest.fail("the end-to-end tests start machines; run them as root")
    started: dict[str, LocalCloud] = {}
    # The path is short because sockets are below it. It is inside the checkout because /tmp may be small.
    root = REPOSITORY / ".pulumi-vllm" / f"e2e-{os.getpid()}"

    def start(engine: str, release: str = "") -> LocalCloud:
        release = release or os.environ.get("E2E_RELEASE", "")
        name = f"{engine}-{release}" if release else engine
        if name not in started:
            cloud = LocalCloud(root / name, engine, release)
            started[name] = cloud
            cloud.up()
        return started[name]

    yield start
    try:
        for cloud in started.values():
            cloud.down()
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def projects(clouds, tmp_path, request):
    """Return a function that creates projects; their stacks are destroyed at the end."""
    made: list[Project] = []

    def make(engine: str = "fake", stack: str | None = None, **more) -> Project:
        cloud = clouds(engine)
        # A volume outlives its stack, so each test uses its own stack name.
        stack = stack or f"t{zlib.crc32(request.node.name.encode()):08x}-{len(made)}"
        region = more.pop("region", REGIONS["share"])
        machine = {"region": region} | more.pop("machine", {})
        project = Project(tmp_path / f"p{len(made)}", cloud, block(machine=machine, **more), stack)
        made.append(project)
        return project

    yield make
    close_clients()
    for project in made:
        project.pulumi("cancel", "--yes", check=False)
        project.cloud.pass_minutes(30)
        project.destroy(check=False)


@pytest.fixture
def place():
    # In a git-ignored folder of the checkout, because overlays need a real file system and /tmp may be small.
    folder = REPOSITORY / ".pulumi-vllm" / f"consumer-{os.getpid()}"
    folder.mkdir(parents=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
