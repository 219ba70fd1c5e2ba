"""The inputs of images and the requirements of this computer, without building images."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from pulumi_vllm.cli.local import ENGINE_LOCKS
from pulumi_vllm_local.images import apt_sources
from pulumi_vllm_local.images.engine_locks import EngineLocks
from pulumi_vllm_local.images.image_cache import ImageCache, ImageError, folder
from pulumi_vllm_local.machines import host_checks

DEB822 = """\
Types: deb deb-src
# a snapshot
URIs: http://mirror.example/debian
Suites: trixie trixie-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: https://vendor.example/apt
Suites: cloud-sdk-trixie
Components: main
"""
ONE_LINE = """\
deb [arch=amd64 signed-by=/usr/share/keyrings/ubuntu.gpg] http://mirror.example/ubuntu noble main universe # ours
deb http://mirror.example/ubuntu noble-security main universe
deb-src http://mirror.example/ubuntu noble main
deb http://vendor.example/ubuntu stable main
"""


def test_the_release_of_this_computer_is_parsed() -> None:
    found = apt_sources.suite('ID=ubuntu\nVERSION_ID="24.04"\nVERSION_CODENAME=noble\n')
    assert (found.distribution, found.codename) == ("ubuntu", "noble")
    with pytest.raises(apt_sources.SuiteError, match="neither Debian nor Ubuntu"):
        apt_sources.suite("ID=fedora\nVERSION_ID=42\n")


def test_machines_have_this_release_or_another_of_its_distribution() -> None:
    this = apt_sources.Suite("debian", "bookworm")
    assert apt_sources.of_machines(this, "") == apt_sources.of_machines(this, "bookworm") == this
    assert apt_sources.of_machines(this, "trixie").codename == "trixie"
    with pytest.raises(
        apt_sources.SuiteError, match=r"release noble is unknown; .* bullseye, bookworm, trixie"
    ):
        apt_sources.of_machines(this, "noble")


def test_another_release_takes_the_place_of_the_one_of_this_computer(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / "debian.sources").write_text(DEB822.replace("-updates", "-backports"))
    (tmp_path / "sources.list").write_text(ONE_LINE)
    bullseye = apt_sources.sources("trixie", "bullseye", tmp_path)
    jammy = apt_sources.sources("noble", "jammy", tmp_path)
    # Archives of third parties, and backports, which end with a release, are left out.
    assert [line for line in bullseye.splitlines() if line.startswith("Suites")] == ["Suites: bullseye"]
    assert [line for line in jammy.splitlines() if line.startswith("Suites")] == [
        "Suites: jammy",
        "Suites: jammy-security",
    ]
    assert jammy.count("mirror.example/ubuntu") == 2
    known = apt_sources.RELEASES[apt_sources.suite(Path("/etc/os-release").read_text()).distribution]
    keys = [ImageCache(release=release).key("base") for release in known]
    assert len(set(keys)) == len(known) > 1


def test_only_apt_sources_of_the_release_are_used(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / "debian.sources").write_text(DEB822)
    (tmp_path / "sources.list").write_text(ONE_LINE)
    trixie, noble = (
        apt_sources.sources("trixie", etc_apt=tmp_path),
        apt_sources.sources("noble", etc_apt=tmp_path),
    )
    assert "Suites: trixie trixie-updates" in trixie
    assert "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg" in trixie
    assert "vendor" not in trixie + noble
    assert noble.count("Types: deb\n") == 2
    assert "Signed-By: /usr/share/keyrings/ubuntu.gpg" in noble


def test_a_list_of_mirrors_is_replaced_by_its_first(tmp_path: Path) -> None:
    mirrors = tmp_path / "mirrors.list"
    mirrors.write_text("http://one.example/debian\nhttp://two.example/debian\n")
    (tmp_path / "sources.list").write_text(f"deb mirror+file:{mirrors} bookworm main\n")
    assert "URIs: http://one.example/debian\n" in apt_sources.sources("bookworm", etc_apt=tmp_path)


def test_an_unknown_image_is_an_error() -> None:
    with pytest.raises(ImageError, match="image gpu-h200-3x: unknown"):
        ImageCache().key("gpu-h200-3x")


def test_different_images_have_different_keys() -> None:
    images = ImageCache()
    assert images.key("gpu-h200-2x") == images.key("gpu-h200-2x")
    assert images.key("gpu-h200-2x") != images.key("gpu-h200-4x")


def test_the_stamp_of_the_fake_engine_has_every_lock() -> None:
    stamps = EngineLocks(ENGINE_LOCKS).digests().split()
    locks = [path.read_bytes() for path in ENGINE_LOCKS.glob("*/requirements-*.txt")]
    assert len(locks) > 4
    assert sorted(stamps) == sorted(hashlib.sha256(lock).hexdigest() for lock in locks)
    assert len(stamps) == len(set(stamps))


def test_engine_images_need_the_folder_of_locks(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no folder of engine locks at None"):
        ImageCache().key("engine-fake")
    with pytest.raises(ImageError, match="has no lock of the CPU engine for Python"):
        ImageCache(tmp_path).key("engine-real")
    assert len(ImageCache(ENGINE_LOCKS).key("engine-real")) == 12


def test_locks_have_hashes_and_no_index_url() -> None:
    locks = EngineLocks(ENGINE_LOCKS)
    for python in ("3.11", "3.12", "3.13"):
        lock = locks.cpu(python)
        assert lock is not None
        text = lock.read_text()
        assert "://" not in text
        assert "\ntorch==2.13.0 \\\n    --hash=sha256:" in text
        assert "triton==" not in text


def test_a_gpu_layer_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    progress: list[str] = []
    images = ImageCache()
    root = images.ensure("gpu-h100-4x", progress.append)
    assert (root / "usr/bin/nvidia-smi").stat().st_mode & 0o777 == 0o755
    assert (root / "usr/share/lc-gpu/count").read_text() == "4\n"
    assert images.cached("gpu-h100-4x") == root
    assert [path.name for path in folder().glob(".build-*")] == []
    assert progress[0] == "image gpu-h100-4x: building"


def found(**changed: object) -> host_checks.Found:
    whole: dict[str, object] = {
        "platform": "linux",
        "user": 0,
        "programs": dict.fromkeys(host_checks.PROGRAMS, True),
        "overlay": True,
        "loops": True,
        "group_kill": True,
        "free_bytes": 10**11,
        "os_release": "ID=debian\nVERSION_CODENAME=trixie\n",
    }
    return host_checks.Found(**(whole | changed))  # type: ignore[arg-type]


def test_a_suitable_computer_has_no_unmet_requirement() -> None:
    assert host_checks.unmet(found()) == ()


def test_each_unmet_requirement_has_a_remedy() -> None:
    assert "Linux virtual machine" in host_checks.unmet(found(platform="darwin"))[0]
    programs = dict.fromkeys(host_checks.PROGRAMS, True) | {"nft": False, "mmdebstrap": False}
    messages = host_checks.unmet(
        found(
            user=1000,
            programs=programs,
            overlay=False,
            loops=False,
            group_kill=False,
            free_bytes=10**9,
            os_release="ID=arch",
        )
    )
    assert len(messages) == 7
    assert "sudo apt-get install -y --no-install-recommends mmdebstrap nftables" in messages[1]
    assert "1.0 GB are free" in messages[5]
