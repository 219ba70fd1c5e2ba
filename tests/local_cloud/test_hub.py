"""The model hub over plain HTTP and with the real client."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
import requests
from pulumi_vllm_local.fake_engine import model
from pulumi_vllm_local.hub import content, model_hub
from pulumi_vllm_local.tiny_model import model_files
from pulumi_vllm_local.web import serving

TINY = model_files.REPOSITORY
LARGE = "mistralai/Mistral-Small-4-119B-2603"


@pytest.fixture(scope="module")
def repositories(tmp_path_factory):
    return content.repositories(tmp_path_factory.mktemp("hub"))


@pytest.fixture
def url(repositories):
    with serving(model_hub.application(repositories), dated=False) as found:
        yield found


def _get(url, path, repository=TINY, revision=None, **more):
    revision = revision or model_files.pinned()["revision"]
    return requests.get(f"{url}/{repository}/resolve/{revision}/{path}", timeout=10, **more)


def _fault(url, **values):
    requests.post(f"{url}/_fault", params=values, timeout=5).raise_for_status()


def test_tree_and_files_match_the_pinned_record(url):
    pinned = model_files.pinned()
    tree = requests.get(f"{url}/api/models/{TINY}/tree/{pinned['revision']}?recursive=true", timeout=5).json()
    assert {item["path"]: item["size"] for item in tree} == {
        path: file["size"] for path, file in pinned["files"].items()
    }
    for path, file in pinned["files"].items():
        answer = _get(url, path)
        assert hashlib.sha256(answer.content).hexdigest() == file["sha256"]
        assert answer.headers["X-Repo-Commit"] == pinned["revision"]
    weights = next(item for item in tree if item["path"].endswith(".safetensors"))
    assert weights["lfs"]["oid"] == pinned["files"]["consolidated.safetensors"]["sha256"]
    head = requests.head(f"{url}/{TINY}/resolve/{pinned['revision']}/tekken.json", timeout=5)
    assert head.headers["Content-Length"] == "259426"
    assert requests.get(f"{url}/api/models/{TINY}", timeout=5).json()["sha"] == pinned["revision"]


def test_placeholders_have_real_names_and_say_what_they_are(repositories):
    by_name = {item.name: item for item in repositories}
    large = by_name[LARGE]
    assert large.revision == "a11f36bebf709121056b1dbcc943d1c6afbe494d"
    names = {file.path for file in large.files}
    assert {"consolidated-00001-of-00003.safetensors", "model-00001-of-00003.safetensors"} <= names
    assert {"params.json", "tekken.json", "config.json", "model.safetensors.index.json"} <= names
    assert b"Placeholder" in (large.folder / "README.md").read_bytes()
    small = by_name[f"{LARGE}-NVFP4"]
    for repository in (one for one in repositories if one.file("tekken.json")):
        model.check(str(repository.folder))  # complete for a loader
    shards = [file.path for file in small.files if file.path.startswith("consolidated-")]
    assert len(shards) == 13
    assert not any(file.path.startswith("model-") for file in small.files)


@pytest.mark.parametrize(
    ("asked", "status", "length", "span"),
    [
        ("bytes=0-99", 206, 100, "bytes 0-99/259426"),
        ("bytes=259000-", 206, 426, "bytes 259000-259425/259426"),
        ("bytes=-26", 206, 26, "bytes 259400-259425/259426"),
        ("bytes=259400-999999", 206, 26, "bytes 259400-259425/259426"),
        ("bytes=259426-", 416, 0, "bytes */259426"),
    ],
)
def test_ranges(url, repositories, *, asked, status, length, span):
    answer = _get(url, "tekken.json", headers={"Range": asked})
    assert (answer.status_code, len(answer.content), answer.headers["Content-Range"]) == (
        status,
        length,
        span,
    )
    whole = (repositories[0].folder / "tekken.json").read_bytes()
    if status == 206:
        first = int(span.split()[1].split("-")[0])
        assert answer.content == whole[first : first + length]


def test_each_kind_of_missing_thing_has_its_error_code(url):
    codes = {
        _get(url, "none.bin").headers["X-Error-Code"]: "EntryNotFound",
        _get(url, "params.json", revision="0" * 40).headers["X-Error-Code"]: "RevisionNotFound",
        _get(url, "params.json", repository="o/n").headers["X-Error-Code"]: "RepoNotFound",
    }
    assert all(found == wanted for found, wanted in codes.items())


def test_faults(url, repositories):
    whole = (repositories[0].folder / "tekken.json").read_bytes()
    _fault(url, corrupt="tekken.json")
    bad = _get(url, "tekken.json").content
    assert len(bad) == len(whole)
    assert sum(a != b for a, b in zip(bad, whole, strict=True)) == 1
    _fault(url, corrupt="", cut="1000", cuts="1")
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        _get(url, "tekken.json")
    assert _get(url, "tekken.json").content == whole
    _fault(url, cut="", status="429", times="1", on="get", retry_after="3")
    limited = _get(url, "tekken.json")
    assert (limited.status_code, limited.headers["Retry-After"]) == (429, "3")
    assert _get(url, "tekken.json").status_code == 200
    _fault(url, status="", etag="wrong")
    assert _get(url, "consolidated.safetensors", stream=True).headers["ETag"] == '"' + "f" * 64 + '"'
    _fault(url, etag="", gated="1")
    assert _get(url, "params.json").headers["X-Error-Code"] == "GatedRepo"
    assert requests.get(f"{url}/api/models/{TINY}", timeout=5).status_code == 200
    _fault(url, gated="", auth="hf_good")
    assert _get(url, "params.json").status_code == 401
    assert _get(url, "params.json", headers={"Authorization": "Bearer hf_good"}).status_code == 200
    _fault(url, auth="", rate="1000000")
    assert requests.get(f"{url}/_fault", timeout=5).json() == {"times": 0, "on": "get", "retry_after": 3,
                                                               "cuts": 0, "rate": 1e6}  # fmt: skip
    assert requests.post(f"{url}/_fault?speed=1", timeout=5).status_code == 400


def test_the_log_has_ranges_and_bytes(url):
    _get(url, "tekken.json", headers={"Range": "bytes=0-9", "Authorization": "Bearer hf_secret"})
    rows = requests.get(f"{url}/_log", timeout=5).json()
    assert (rows[-1]["range"], rows[-1]["status"], rows[-1]["sent"]) == ("bytes=0-9", 206, 10)
    assert "hf_secret" not in str(rows)


def _hf(url, home, *words, token=None):
    program = Path(sys.executable).parent / "hf"
    environment = {"HF_ENDPOINT": url, "HF_HOME": str(home), "PATH": os.environ["PATH"], "NO_COLOR": "1"}
    if token:
        environment["HF_TOKEN"] = token
    return subprocess.run(
        [program, *words], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.ci
def test_the_real_client_downloads_and_is_refused(url, tmp_path):
    revision, into = model_files.pinned()["revision"], tmp_path / "model"
    download = ("download", TINY, "--revision", revision, "--local-dir", str(into))
    done = _hf(url, tmp_path / "home", *download)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in into.iterdir() if path.is_file()} == set(model_files.pinned()["files"])
    verify = _hf(
        url, tmp_path / "home", "cache", "verify", TINY, "--revision", revision, "--local-dir", str(into)
    )
    assert verify.returncode == 0, verify.stderr + verify.stdout
    large = tmp_path / "large"
    part = _hf(url, tmp_path / "home", "download", LARGE, "--exclude", "model*", "--revision",
               "a11f36bebf709121056b1dbcc943d1c6afbe494d", "--local-dir", str(large))  # fmt: skip
    assert part.returncode == 0, part.stderr
    assert len(list(large.glob("consolidated-*"))) == 3
    assert not list(large.glob("model*"))
    _fault(url, gated="1")
    refused = _hf(url, tmp_path / "other", *download[:-1], str(tmp_path / "again"))
    assert refused.returncode == 1
    assert "requires approval" in refused.stderr + refused.stdout


@pytest.mark.ci
def test_the_real_client_resumes_but_accepts_a_corrupt_body(url, tmp_path):
    revision, into = model_files.pinned()["revision"], tmp_path / "model"
    _fault(url, cut="11000000", cuts="1", corrupt="consolidated.safetensors")
    done = _hf(url, tmp_path / "home", "download", TINY, "--revision", revision, "--local-dir", str(into))
    assert done.returncode == 0, done.stderr
    rows = requests.get(f"{url}/_log", timeout=5).json()
    assert any(row["range"].startswith("bytes=10485760-") and row["status"] == 206 for row in rows)
    verify = _hf(
        url, tmp_path / "home", "cache", "verify", TINY, "--revision", revision, "--local-dir", str(into)
    )
    assert verify.returncode == 1
    assert "consolidated.safetensors" in verify.stdout + verify.stderr


def test_the_date_header_can_be_wrong(url):
    def off_s():
        reported = parsedate_to_datetime(requests.head(f"{url}/", timeout=5).headers["Date"])
        return abs(reported.timestamp() - time.time())

    assert off_s() < 60
    _fault(url, clock="-3600")
    assert off_s() > 3000
