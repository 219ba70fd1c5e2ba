"""The weights program against a small hub: complete downloads, resumed ones, and the message of each fault."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Program, SmallHub

    Hubs = Callable[[dict[str, bytes]], SmallHub]
    Found = Callable[[dict[str, Any]], dict[str, bytes]]

PROGRAMS = Path(__file__).parents[2] / "templates/usr/local/lib/pulumi-vllm"
REVISION = "0123456789abcdef0123456789abcdef01234567"


def test_a_model_is_downloaded_and_a_second_run_sends_no_request(
    weights: Program, hub: SmallHub, config: dict[str, Any], found: Found
) -> None:
    hub.page = 2
    first = weights(**config)
    assert (first.returncode, first.stderr) == (0, "")
    assert found(config) == hub.kept
    manifest = json.loads((Path(config["directory"]) / ".manifest.json").read_text())
    assert manifest["revision"] == REVISION
    assert set(manifest["files"]) == set(hub.kept)
    assert set(manifest["files"]["params.json"]) == {"size", "git_sha1"}
    record = json.loads(Path(config["progress"]).read_text())
    assert (record["done"], record["files_done"], record["bytes_done"]) == (
        True,
        len(hub.kept),
        record["bytes"],
    )
    hub.requests.clear()
    second = weights(**config)
    assert (second.returncode, hub.requests) == (0, [])
    assert "already complete" in second.stdout


@pytest.mark.parametrize("mode", [0o664, 0o600, 0o755])
def test_another_mode_is_repaired_and_nothing_is_downloaded(
    weights: Program, hub: SmallHub, config: dict[str, Any], mode: int
) -> None:
    assert weights(**config).returncode == 0
    changed = Path(config["directory"]) / "consolidated-00001.safetensors"
    before = changed.stat().st_ino
    changed.chmod(mode)
    hub.requests.clear()
    assert weights(**config).returncode == 0
    found = changed.stat()
    assert (found.st_mode & 0o7777, found.st_ino, hub.requests) == (0o644, before, [])
    assert json.loads(Path(config["progress"]).read_text())["bytes_fetched"] == 0
    # The manifest is newer than the change again, which is what a preview compares.
    assert found.st_ctime_ns <= (changed.parent / ".manifest.json").stat().st_mtime_ns
    assert "already complete" in weights(**config).stdout


def test_patterns_that_change_make_the_manifest_incomplete(
    weights: Program, hub: SmallHub, config: dict[str, Any], found: Found
) -> None:
    assert weights(**config | {"include": ["*.json"]}).returncode == 0
    assert set(found(config)) == {"params.json"}
    assert weights(**config).returncode == 0
    assert found(config) == hub.kept
    none = weights(**config | {"include": ["*.gguf"]})
    assert none.returncode == 2
    assert "select no file" in none.stderr


@pytest.mark.parametrize("how", ["edited", "shorter", "gone"])
def test_only_a_damaged_file_is_downloaded_again(
    weights: Program, hub: SmallHub, config: dict[str, Any], found: Found, how: str
) -> None:
    assert weights(**config).returncode == 0
    place = Path(config["directory"]) / "consolidated-00002.safetensors"
    data = place.read_bytes()
    if how == "gone":
        place.unlink()
    else:
        place.write_bytes(data[:-1] if how == "shorter" else b"x" + data[1:])
    hub.requests.clear()
    assert weights(**config).returncode == 0
    assert set(hub.fetched) == {"consolidated-00002.safetensors"}
    assert found(config) == hub.kept


def test_verify_finds_a_bit_flip_that_left_no_trace(
    weights: Program, hub: SmallHub, config: dict[str, Any], found: Found
) -> None:
    assert weights(**config).returncode == 0
    root = Path(config["directory"])
    (root / "params.json").write_bytes(b'{"dim": 257}')
    later = time.time() + 60  # the disk itself flips a bit: the file's times stay older than the manifest's
    os.utime(root / ".manifest.json", (later, later))
    hub.requests.clear()
    assert weights(**config).returncode == 0
    assert hub.fetched == []
    verified = weights("--verify", **config)
    assert verified.returncode == 0
    assert (
        "all hashes correct (all as the manifest on this volume has them; the catalogue has none"
        in verified.stdout
    )
    assert hub.fetched == ["params.json"]
    assert found(config) == hub.kept


@pytest.mark.parametrize(("known", "origin"), [(0, "all"), (2, "3 of 5"), (5, None)])
def test_a_download_says_where_its_hashes_come_from(
    weights: Program, hub: SmallHub, config: dict[str, Any], known: int, origin: str | None
) -> None:
    names = sorted(hub.kept)[:known]
    digests = {name: hashlib.sha256(hub.kept[name]).hexdigest() for name in names}
    shown = weights(**config, digests=digests).stdout
    assert f"({f'{origin} as the hub lists them now; ' if origin else 'as the catalogue has them)'}" in shown


def catalogue_of(hub: SmallHub) -> dict[str, str]:
    """The hashes of two files, one that the hub lists by sha256 and one by git's id."""
    names = ("consolidated-00001.safetensors", "params.json")
    return {name: hashlib.sha256(hub.files[name]).hexdigest() for name in names}


@pytest.mark.parametrize("name", ["consolidated-00001.safetensors", "params.json"])
def test_verify_trusts_the_catalogue_and_not_a_rewritten_manifest(
    weights: Program, hub: SmallHub, config: dict[str, Any], found: Found, name: str
) -> None:
    config |= {"digests": catalogue_of(hub)}
    assert weights(**config).returncode == 0
    root = Path(config["directory"])
    changed = b"x" + hub.files[name][1:]
    (root / name).write_bytes(changed)
    manifest = json.loads((root / ".manifest.json").read_text())
    assert set(manifest["files"][name]) == {"size", "sha256"}
    manifest["files"][name]["sha256"] = hashlib.sha256(changed).hexdigest()
    (root / ".manifest.json").write_text(json.dumps(manifest))
    later = time.time() + 60
    os.utime(root / ".manifest.json", (later, later))
    # Without the catalogue, the manifest would prove itself.
    without = {key: value for key, value in config.items() if key != "digests"}
    assert weights("--verify", **without).returncode == 0
    assert (root / name).read_bytes() == changed
    # Also without --verify: such a manifest is none.
    hub.requests.clear()
    run = weights(**config)
    assert run.returncode == 0, run.stderr
    assert f".manifest.json lists another sha256 of {name} than the catalogue; asking the hub" in run.stdout
    assert set(hub.fetched) == {name}
    assert found(config) == hub.kept


def test_verify_uses_the_catalogue_where_the_manifest_has_another_kind_of_hash(
    weights: Program, hub: SmallHub, config: dict[str, Any], found: Found
) -> None:
    assert weights(**config).returncode == 0
    root = Path(config["directory"])
    manifest = json.loads((root / ".manifest.json").read_text())
    changed = b"x" + hub.files["params.json"][1:]
    (root / "params.json").write_bytes(changed)
    blob = hashlib.sha1(b"blob %d\0" % len(changed) + changed).hexdigest()
    manifest["files"]["params.json"]["git_sha1"] = blob
    (root / ".manifest.json").write_text(json.dumps(manifest))
    assert weights("--verify", **config).returncode == 0
    assert (root / "params.json").read_bytes() == changed
    assert weights("--verify", **config, digests=catalogue_of(hub)).returncode == 0
    assert found(config) == hub.kept


def test_a_hub_that_contradicts_the_catalogue_is_refused(
    weights: Program, hub: SmallHub, config: dict[str, Any], found: Found
) -> None:
    digests = catalogue_of(hub)
    for other, message in (
        (
            digests | {"consolidated-00001.safetensors": "0" * 64},
            "another sha256 of consolidated-00001.safetensors",
        ),
        (digests | {"gone": "0" * 64}, "no gone, which the catalogue names"),
    ):
        run = weights(**config, digests=other)
        assert run.returncode == 3
        assert f"{hub.url}: lists {message}" in run.stderr
        assert found(config) == {}
    # What the hub lists by git's id, it can't list by sha256; the bytes decide.
    run = weights(**config, digests=digests | {"params.json": "0" * 64})
    assert run.returncode == 3
    assert "params.json: sha256 is" in run.stdout + run.stderr
    assert "params.json" not in found(config)


def test_a_change_with_a_restored_mtime_is_found(
    weights: Program, hub: SmallHub, config: dict[str, Any], found: Found
) -> None:
    assert weights(**config).returncode == 0
    place = Path(config["directory"]) / "consolidated-00001.safetensors"
    when, data = place.stat(), place.read_bytes()
    place.write_bytes(data[:1000] + bytes([data[1000] ^ 1]) + data[1001:])
    os.utime(place, ns=(when.st_atime_ns, when.st_mtime_ns))
    hub.requests.clear()
    assert weights(**config).returncode == 0
    assert set(hub.fetched) == {"consolidated-00001.safetensors"}
    assert found(config) == hub.kept


def test_only_a_file_corrupted_in_transit_is_downloaded_again(
    weights: Program, hub: SmallHub, config: dict[str, Any], found: Found
) -> None:
    hub.corrupt = {"consolidated-00001.safetensors": 1}
    run = weights(**config)
    assert run.returncode == 0
    assert "consolidated-00001.safetensors: sha256 is" in run.stdout
    assert found(config) == hub.kept
    sizes = {path: len(data) for path, data in hub.kept.items() if data}
    assert hub.sent_of == sizes | {"consolidated-00001.safetensors": 2 * 400_001}


def test_a_file_that_is_always_wrong_ends_the_run_and_is_never_kept(
    weights: Program, hub: SmallHub, config: dict[str, Any], found: Found
) -> None:
    hub.corrupt = {"consolidated-00001.safetensors": 99}
    run = weights(**config)
    assert run.returncode == 3
    assert "sha256 wrong 3 times; check disk, memory and the hub" in run.stderr
    assert "consolidated-00001.safetensors" not in found(config)
    hub.corrupt = {}
    assert weights(**config).returncode == 0
    assert found(config) == hub.kept


def test_chunks_that_arrive_out_of_order_are_hashed_in_order(
    weights: Program, hub: SmallHub, config: dict[str, Any], found: Found
) -> None:
    hub.slow_ranges = {"bytes=0-": 0.5}  # the first chunk comes last: more wait for it than memory holds
    assert weights(**config | {"chunk_bytes": 4096, "include": ["consolidated-*"]}).returncode == 0
    assert set(found(config).values()) == {
        data for path, data in hub.kept.items() if path.startswith("consolidated")
    }


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_hub_is_asked_again(
    weights: Program, hub: SmallHub, config: dict[str, Any], found: Found, status: int
) -> None:
    hub.statuses = [status, status]
    assert weights(**config).returncode == 0
    assert found(config) == hub.kept


@pytest.mark.ci
def test_retry_after_is_honoured(weights: Program, hub: SmallHub, config: dict[str, Any]) -> None:
    hub.statuses, hub.headers = [429], {"Retry-After": "1"}
    begun = time.monotonic()
    assert weights(**config | {"include": ["params.json"]}).returncode == 0
    assert time.monotonic() - begun > 1


def test_a_hub_that_stays_busy_ends_the_run_and_keeps_the_chunks(
    weights: Program, hub: SmallHub, config: dict[str, Any]
) -> None:
    hub.statuses = [200] * 6 + [503] * 99
    result = weights(**config)
    assert result.returncode == 1
    assert "status 503 (4 tries in a row without a byte)" in result.stderr
    hub.statuses, before = [], hub.sent
    assert before
    assert weights(**config).returncode == 0
    assert hub.sent == sum(map(len, hub.kept.values()))


@pytest.mark.parametrize(
    ("refuse", "token", "message"),
    [
        ((401, ""), "", "no token is set"),
        ((401, "RepoNotFound"), "hf_planted", "the token was refused"),
        ((403, "GatedRepo"), "hf_planted", "accept the terms at"),
        ((403, ""), "", "accept the terms at"),
        ((404, "RevisionNotFound"), "", f"revision {REVISION} does not exist"),
        ((404, "RepoNotFound"), "", "check the name"),
        ((410, ""), "", "the hub answered 410"),
    ],
)
def test_a_refusal_is_one_message_after_one_request(
    weights: Program,
    hub: SmallHub,
    config: dict[str, Any],
    tmp_path: Path,
    *,
    refuse: tuple[int, str],
    token: str,
    message: str,
) -> None:
    hub.refuse = refuse
    (tmp_path / "token").write_text(token + "\n")
    result = weights(**config | {"token_file": str(tmp_path / "token")})
    assert result.returncode == 3
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert len(hub.requests) == 1
    assert "hf_planted" not in result.stderr + result.stdout + Path(config["progress"]).read_text()


def test_the_token_is_sent_to_the_hub_only(
    weights: Program, hub: SmallHub, config: dict[str, Any], *, found: Found, tmp_path: Path, small_hub: Hubs
) -> None:
    hub.token, mirror = "hf_planted", small_hub(dict(hub.files))
    hub.files_at = mirror.url
    (tmp_path / "token").write_text("hf_planted\n")
    config["token_file"] = str(tmp_path / "token")
    mirror.statuses = [403]  # an expired signed URL: the hub issues a new one
    assert weights(**config).returncode == 0
    assert found(config) == hub.kept
    assert {token for _, _, token in hub.requests} == {"Bearer hf_planted"}
    assert {token for _, _, token in mirror.requests} == {""}


@pytest.mark.parametrize(
    "path", ["../x", "a/../../x", "/etc/x", "a//b", "./x", ".parts/x", ".manifest.json", "a\\b", "a\nb", ""]
)
def test_a_path_outside_the_directory_is_refused_before_any_write(
    weights: Program, hub: SmallHub, config: dict[str, Any], found: Found, path: str
) -> None:
    good = hub.listing()
    hub.rows = [*good, {"type": "file", "path": path, "size": 1, "oid": "0" * 40}]
    result = weights(**config)
    assert result.returncode == 1
    assert "nothing was written" in result.stderr
    assert found(config) == {}


def test_a_full_disk_is_reported_before_the_first_byte(
    weights: Program, hub: SmallHub, config: dict[str, Any]
) -> None:
    result = weights(**config | {"reserve_bytes": 1 << 60})
    assert result.returncode == 4
    assert "grow the volume" in result.stderr
    assert hub.fetched == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"revision": "main"}, "40 hex digits"),
        ({"repository": "../x"}, "OWNER/NAME"),
        ({"chunk": 1}, "unknown keys chunk"),
        ({"token_file": "/nowhere/token"}, "can't read the hub token"),
        ({"endpoint": "http://127.0.0.1:9"}, "no file list after 4 tries"),
    ],
)
def test_a_wrong_configuration_is_an_error(
    weights: Program, config: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    result = weights(**config | change)
    assert result.returncode in (1, 2)
    assert message in result.stderr


def test_unfinished_files_of_another_revision_are_removed(
    weights: Program, hub: SmallHub, config: dict[str, Any]
) -> None:
    other = Path(config["directory"]).parent / ("f" * 40)
    (other / ".parts").mkdir(parents=True)
    (other / ".parts" / "x.part").write_bytes(b"x")
    (other / "params.json").write_bytes(b"x")
    assert weights(**config).returncode == 0
    assert [place.name for place in other.iterdir()] == ["params.json"]


_PROGRAM = """
import io, pathlib, sys
sys.path.insert(0, sys.argv[1])
from partial_files import File
from transfer import SPARE, Transfer

class Watched(set):  # a hashing thread may read this set at any moment
    def add(self, index):
        super().add(index)
        print(index in file.held)

class Body(io.BytesIO):
    def isclosed(self):
        return True

root = pathlib.Path(sys.argv[2])
(root / ".parts").mkdir()
transfer = Transfer(None, root, chunk=4, attempts=1, backoff_s=0.0, owner=(-1, -1))
transfer.request_range = lambda file, at, end: (Body(b"abcdefgh"[at:end]), "")
file = File("one", 8, "sha256", "")
transfer.begin(file)
file.done, transfer.buffers = Watched(), [None] * SPARE
transfer.fetch(file, 1, memoryview(bytearray(4)))
"""


def test_a_chunk_is_done_only_after_its_buffer_is_stored(tmp_path: Path) -> None:
    """Otherwise it would be read back from the disk, and the transfer would lose the buffer."""
    words = [sys.executable, "-I", "-c", _PROGRAM, str(PROGRAMS), str(tmp_path)]
    run = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("True\n", "")


@pytest.mark.parametrize(
    "headers", [{"RateLimit": '"api";r=0;t=3'}, {"RateLimit": "limit=10, t=3"}, {"Retry-After": "3"}]
)
def test_a_limited_rate_is_waited_for(
    weights: Program, hub: SmallHub, config: dict[str, Any], found: Found, headers: dict[str, str]
) -> None:
    hub.statuses, hub.headers = [429], headers
    started = time.monotonic()
    run = weights(**config)
    assert (run.returncode, found(config)) == (0, hub.kept)
    assert time.monotonic() - started >= 3
    assert "status 429, the hub limits the rate of this address; retrying in 3." in run.stdout


@pytest.mark.parametrize(
    ("token", "remedy"),
    [
        ("", "set the secret hf_token, since a token has its own budget; or run it again"),
        ("hf_x", "run it again later"),
    ],
)
def test_a_rate_that_stays_limited_says_what_helps(
    weights: Program, hub: SmallHub, config: dict[str, Any], token: str, remedy: str
) -> None:
    hub.statuses, hub.headers = [429] * 99, {"RateLimit": '"resolvers";r=0;t=1'}
    secret = weights.folder / "token"
    secret.write_text(token)
    run = weights(**config | {"attempts": 2, "token_file": str(secret)})
    assert run.returncode == 1
    assert remedy in run.stderr
    assert "check the network" not in run.stderr
