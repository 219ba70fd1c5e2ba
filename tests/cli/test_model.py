"""`pulumi-vllm model add` against the local cloud's hub, which has published models without their weights."""

import http.server
import json
import pathlib
import threading
from dataclasses import replace

import pytest
import requests
import yaml
from pulumi_vllm import cli
from pulumi_vllm.hub.errors import HubError
from pulumi_vllm.hub.hub_client import HubClient
from pulumi_vllm.plan import ConfigError, Deployment, catalogue, plan, published_config, weight_memory
from pulumi_vllm.plan.published_config import Published, Wishes
from pulumi_vllm_local.hub import content, model_hub, published_models
from pulumi_vllm_local.web import serving

SMALL = [
    "meta-llama/Llama-3.1-8B-Instruct",
    "Qwen/Qwen3-30B-A3B",
    "openai/gpt-oss-20b",
    "google/gemma-3-27b-it",
    "Qwen/Qwen2.5-VL-32B-Instruct",
]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def repositories(tmp_path_factory):
    cache = tmp_path_factory.mktemp("hub")
    mistral = cache / "mistral"
    mistral.mkdir()
    params = {
        "dim": 1024, "n_layers": 4, "n_heads": 8, "n_kv_heads": 2, "head_dim": 128, "hidden_dim": 4096,
        "vocab_size": 1000, "max_position_embeddings": 32768,
    }  # fmt: skip
    (mistral / "params.json").write_text(json.dumps(params))
    (mistral / "tekken.json").write_text("{}")
    shard = {
        "tok_embeddings.weight": ("BF16", (1000, 1024)),
        "output.weight": ("BF16", (1000, 1024)),
        **{
            f"layers.{n}.attention.w{one}.weight": ("BF16", (1024 if one in "qo" else 256, 1024))
            for n in range(4) for one in "qkvo"
        },
        **{f"layers.{n}.feed_forward.w{one}.weight": ("BF16", (4096, 1024)) for n in range(4) for one in "123"},
    }  # fmt: skip
    (mistral / "consolidated.safetensors").write_bytes(published_models._header(shard)[0])
    (mistral / "model-00001-of-00001.safetensors").write_bytes(published_models._header(shard)[0])
    other = cache / "other"
    other.mkdir()
    (other / "README.md").write_text("no model")
    broken = cache / "broken"
    broken.mkdir()
    (broken / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    (broken / "model.safetensors").write_bytes(b"<html>" + bytes(100))
    return (
        *published_models.repositories(cache / "published"),
        content.Repository.read("example/mistral", mistral, COMMIT),
        content.Repository.read("example/readme", other, COMMIT),
        content.Repository.read("example/broken", broken, COMMIT),
    )


@pytest.fixture
def hub(repositories, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with serving(model_hub.application(repositories), dated=False) as url:
        monkeypatch.setenv("PULUMI_VLLM_LOCAL_HUB", url)
        yield url


def add(*words):
    return cli.main(["model", "add", *words])


def as_json(capsys, *words):
    assert add(*words, "--json", "--name", "own") == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("repository", SMALL)
def test_a_published_model_becomes_a_file_that_a_plan_reads(hub, tmp_path, repository, capsys):
    assert add(repository, "--name", "own") == 0
    written = yaml.safe_load((tmp_path / "models/own.yaml").read_text())
    (precision,) = written["precisions"].values()
    pinned = next(one for one in json.loads(published_json())["models"] if one["repository"] == repository)
    assert precision["revision"] == pinned["revision"]
    assert "unknown: the vendor's context limit" in capsys.readouterr().err
    machine = {"gpu": "H200", "count": 1, "max_usd_per_hour": 9}
    decided = plan(
        Deployment.parse({"model": "own", "context": "8Ki", "machine": machine, "storage": "500GB"})
    )
    assert decided.memory.kv_tokens > 100_000
    assert decided.served_names == ("own", repository)
    sent = sum(row["sent"] for row in requests.get(f"{hub}/_log", timeout=5).json())
    assert sent < 12_000_000 < precision["bytes"]


def published_json():
    return pathlib.Path(published_models.__file__).with_suffix(".json").read_text()


@pytest.mark.parametrize(
    "repository", [*SMALL, "Qwen/Qwen3-Next-80B-A3B-Instruct", "deepseek-ai/DeepSeek-V3"]
)
def test_the_headers_and_the_formulas_agree(repository):
    """Two ways to the same bytes: the shapes of all tensors, and the dimensions of the configuration."""
    found = next(one for one in json.loads(published_json())["models"] if one["repository"] == repository)
    tensors = published_models.tensors(found["config"])
    each = published_models.BYTES
    sized = tuple(
        (name, shape, each[dtype] * published_config.prod(shape)) for name, (dtype, shape) in tensors.items()
    )
    file = published_config.model_file(Published(repository, COMMIT, found["config"], False, sized, 10**9))
    assert "other" not in next(iter(file["precisions"].values()))["tensors"]
    model = catalogue.model_of(file)
    (exact,) = model.precisions.values()
    formula = replace(exact, tensors={})
    for parallel in (1, 2, 8):
        one, other = (
            weight_memory.weight_bytes(model.dimensions, way, parallel, vision=True)
            for way in (exact, formula)
        )
        assert one == pytest.approx(other, rel=0.005)


def test_the_mistral_format_leaves_out_the_same_weights_in_the_other_format(hub, capsys):
    found = as_json(capsys, "example/mistral")
    (precision,) = found["precisions"].values()
    assert precision["exclude"][0] == "model-*.safetensors"
    assert found["dimensions"]["attention"] == {"kind": "gqa", "kv_heads": 2, "head_dim": 128}
    assert found["flags"]["config-format"] == found["flags"]["tool-call-parser"] == "mistral"
    assert precision["tensors"]["mlp"] == 4 * 3 * 4096 * 1024 * 2


def test_what_is_known_of_an_architecture_and_what_a_person_adds(hub, capsys):
    found = as_json(capsys, "openai/gpt-oss-20b")
    assert (found["thinks"], found["flags"]["reasoning-parser"]) == ("always", "openai_gptoss")
    assert found["requests"] == {
        "reasoning_efforts": {"none": "low", "minimal": "low", "xhigh": "high", "max": "high"}
    }
    found = as_json(capsys, "Qwen/Qwen3-30B-A3B", "--tool-call-parser", "qwen3_coder", "--context", "32Ki")
    assert found["flags"]["tool-call-parser"] == "qwen3_coder"
    assert found["maximum_context"] == 32768
    assert found["requests"] == {"developer_role": "system"}
    assert "unknown" not in found
    found = as_json(capsys, "google/gemma-3-27b-it")
    assert found["flags"] == {}
    assert any("tool parser" in one for one in found["unknown"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("gpt-oss-20b",), "gpt-oss-20b: is not a repository; write OWNER/NAME"),
        (("example/none",), "example/none or this revision does not exist, or is private"),
        (("openai/gpt-oss-20b", "--revision", COMMIT), "or this revision does not exist"),
        (("example/readme",), "example/readme: has no config.json at 0123456789ab"),
        (("example/broken",), "model.safetensors: has no header of a safetensors file"),
        (("openai/gpt-oss-20b", "--context", "lots"), "--context: "),
        (("openai/gpt-oss-20b", "--endpoint", "hub"), "--endpoint hub: is not an address"),
        (("openai/gpt-oss-20b", "--endpoint", "http://127.0.0.1:9"), "cannot be reached"),
        (
            ("openai/gpt-oss-20b", "--name", "own", "--tool-call-parser", "opena"),
            "vLLM has no parser 'opena'; did you",
        ),
        (("openai/gpt-oss-20b", "--name", "Own"), "name: 'Own' is not allowed"),
        (("openai/gpt-oss-20b", "--name", "mistral-small-4"), "mistral-small-4 is in the catalogue"),
    ],
)
def test_what_cannot_be_described_is_refused_with_a_remedy(hub, words, message, capsys, tmp_path):
    assert add(*words) != 0
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.yaml"))


def test_a_file_that_exists_is_kept(hub, tmp_path, capsys):
    assert add("openai/gpt-oss-20b", "--name", "own") == 0
    assert add("openai/gpt-oss-20b", "--name", "own") != 0
    assert "exists; --force replaces it" in capsys.readouterr().err
    assert add("openai/gpt-oss-20b", "--name", "own", "--force") == 0


def test_a_gated_repository_takes_a_token(hub, monkeypatch, capsys):
    requests.post(f"{hub}/_fault", params={"gated": "1"}, timeout=5).raise_for_status()
    assert add("openai/gpt-oss-20b", "--name", "own") != 0
    assert "is refused (403); accept its licence on its page, and set HF_TOKEN" in capsys.readouterr().err
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert add("openai/gpt-oss-20b", "--name", "own") == 0
    assert "hf_secret" not in "".join(capsys.readouterr())


def test_the_token_stays_with_the_hub():
    """Files of weights are redirected to another host, which must not get it."""
    received = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            received.append((self.headers["Host"].partition(":")[0], self.headers["Authorization"]))
            if self.path == "/there":
                self.send_response(302)
                self.send_header("Location", f"http://localhost:{self.server.server_port}/elsewhere")
                self.end_headers()
            elif self.path == "/here":
                self.send_response(302)
                self.send_header("Location", "/file")
                self.end_headers()
            else:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"{}")

        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        client = HubClient(f"http://127.0.0.1:{server.server_port}", "a/b", "hf_secret")
        client._get("/there")
        client._get("/here")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    with_token, without = ("127.0.0.1", "Bearer hf_secret"), ("localhost", None)
    assert received == [with_token, without, with_token, with_token]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"mamba_d_state": 128}, "has state-space layers, which no memory formula covers"),
        (
            {"index_topk": 2048, "kv_lora_rank": 512},
            "has a sparse index beside the attention, which no memory",
        ),
        ({"architectures": []}, "names no architecture"),
        ({"hidden_size": None}, "its configuration lacks hidden_size"),
        ({"max_position_embeddings": None}, "its configuration lacks max_position_embeddings"),
    ],
)
def test_a_network_without_a_formula_is_never_planned(config, message):
    base = json.loads(published_json())["models"][0]["config"]
    with pytest.raises(ConfigError, match=message):
        published_config.model_file(Published("a/b", COMMIT, base | config, False, (), 1))


@pytest.mark.parametrize(
    ("quantization", "name"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8"),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"g": {"weights": {"type": "float", "num_bits": 8}}},
            },
            "fp8",
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"g": {"weights": {"type": "float", "num_bits": 4}}},
            },
            "nvfp4",
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"g": {"weights": {"type": "int", "num_bits": 8}}},
            },
            "int8",
        ),
        ({"quant_method": "awq", "bits": 4}, "awq-int4"),
        ({"quant_method": "gptq", "bits": 8}, "gptq-int8"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4"),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, "fp8"),
        ({"quant_method": "mxfp4"}, "mxfp4"),
        ({}, "bf16"),
    ],
)
def test_the_name_of_a_precision_follows_from_the_quantization(quantization, name):
    base = json.loads(published_json())["models"][0]["config"]
    file = published_config.model_file(
        Published("a/b", COMMIT, base | {"quantization_config": quantization}, False, (), 1)
    )
    assert list(file["precisions"]) == [name]


def test_an_unknown_class_and_a_window_in_every_layer_are_reported():
    base = json.loads(published_json())["models"][0]["config"]
    config = base | {"architectures": ["NewForCausalLM"], "sliding_window": 4096}
    unknown = " ".join(
        published_config.model_file(Published("a/b", COMMIT, config, False, (), 1), Wishes())["unknown"]
    )
    assert "has no class NewForCausalLM" in unknown
    assert "a window of 4,096 tokens in every layer" in unknown


def test_a_hub_that_answers_something_else_is_reported(hub):
    with pytest.raises(HubError, match=r"names no commit of|is this the address of a model hub"):
        HubClient(f"{hub}/_log?", "a/b").find_revision()


def test_the_thoughts_of_a_model_that_always_thinks_stay_out_of_its_answer(hub, capsys):
    found = as_json(capsys, "deepseek-ai/DeepSeek-R1-Distill-Llama-70B")
    assert found["thinks"] == "always"
    assert found["flags"]["reasoning-parser"] == "deepseek_r1"
    assert found["requests"] == {"developer_role": "system", "reasoning_efforts": {"none": "low"}}
