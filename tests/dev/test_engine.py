"""The Pulumi engine is taken from PATH, else from the official archive after its checksum, else it is built."""

import hashlib
import http.server
import io
import os
import platform
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

pytestmark = pytest.mark.ci

CHECKOUT = Path(__file__).parents[2]
VERSION = "3.259.0"
ARCHIVE = f"pulumi-v{VERSION}-linux-{'arm64' if platform.machine() == 'aarch64' else 'x64'}.tar.gz"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name is the base class's)
        pass


class World:
    """A checkout whose build writes a placeholder, an empty cache, and a site with an archive."""

    def __init__(self, root: Path, port: int) -> None:
        self.checkout, self.cache, self.site = (root / name for name in ("checkout", "cache", "site"))
        self.checkout.mkdir()
        for name in ("dev", "dev.d", "requirements", "Pulumi.yaml"):
            source = CHECKOUT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, self.checkout / name)
        self.build(
            "mkdir -p $1/bin; printf '#!/bin/sh\\necho built\\n' >$1/bin/pulumi; chmod +x $1/bin/pulumi"
        )
        self.port = port

    def build(self, script: str) -> None:
        (self.checkout / "dev.d" / "pulumi" / "build").write_text(f"#!/bin/sh\n{script}\n")

    def publish(self, version: str = f"v{VERSION}") -> Path:
        body = f"#!/bin/sh\necho {version}\n".encode()
        with tarfile.open(self.site / ARCHIVE, "w:gz") as archive:
            entry = tarfile.TarInfo("pulumi/pulumi")
            entry.mode, entry.size = 0o755, len(body)
            archive.addfile(entry, io.BytesIO(body))
        sums = self.site / f"pulumi-{VERSION}-checksums.txt"
        sums.write_text(f"{hashlib.sha256((self.site / ARCHIVE).read_bytes()).hexdigest()}  {ARCHIVE}\n")
        return sums

    def version(self, **env: str) -> subprocess.CompletedProcess[str]:
        path = [
            folder
            for folder in os.environ["PATH"].split(":")
            if not Path(folder, "pulumi-language-python").exists()
        ]
        kept = {
            key: value for key, value in os.environ.items() if key != "CI" and not key.startswith("PULUMI_")
        }
        mine = {
            "PATH": ":".join(path),
            "XDG_CACHE_HOME": str(self.cache),
            "PULUMI_VLLM_ENGINE_SITE": f"http://127.0.0.1:{self.port}",
        }
        return subprocess.run(
            (self.checkout / "dev", "pulumi", "version"),
            env=kept | mine | env,
            capture_output=True,
            text=True,
            check=False,
        )

    def half_made(self) -> list[Path]:
        return list(self.cache.rglob("*.making"))


@pytest.fixture
def world(tmp_path: Path, borrowed_environment: Callable[[Path], None]) -> Iterator[World]:
    (tmp_path / "site").mkdir()
    serve = partial(Quiet, directory=str(tmp_path / "site"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        made = World(tmp_path, server.server_port)
        borrowed_environment(made.checkout)
        yield made
        server.shutdown()
        thread.join()


def test_the_official_archive_is_used_when_its_checksum_matches(world: World) -> None:
    sums = world.publish()
    first = world.version()
    assert first.stdout == f"v{VERSION}\n", first.stderr
    assert "official download" in first.stderr
    sums.unlink()
    second = world.version()
    assert second.stdout == f"v{VERSION}\n"
    assert second.stderr == ""
    assert world.half_made() == []


def test_an_archive_with_another_checksum_is_not_used(world: World) -> None:
    sums = world.publish()
    sums.write_text(f"{'0' * 64}  {ARCHIVE}\n")
    done = world.version()
    assert done.stdout == "built\n", done.stderr
    assert world.half_made() == []


def test_an_archive_of_another_version_is_not_used(world: World) -> None:
    world.publish("v3.1.0")
    assert world.version().stdout == "built\n"


def test_ci_downloads_nothing(world: World) -> None:
    world.publish()
    done = world.version(CI="true")
    assert done.stdout == "built\n"
    assert "download" not in done.stderr


def test_a_failed_build_shows_its_last_lines_and_leaves_nothing(world: World) -> None:
    world.build("echo the module proxy refused; exit 3")
    done = world.version(CI="true")
    assert done.returncode != 0
    assert "the module proxy refused" in done.stderr
    assert "the whole log:" in done.stderr
    assert not list(world.cache.rglob("pulumi"))


def test_a_new_enough_engine_on_path_is_used(world: World, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for name in ("pulumi", "pulumi-language-python"):
        (theirs / name).write_text("#!/bin/sh\necho v3.300.0\n")
        (theirs / name).chmod(0o755)
    done = world.version(PATH=f"{theirs}:{os.environ['PATH']}")
    assert done.stdout == "v3.300.0\n"
    assert not world.cache.exists()
