"""Model files: their schema, where they are found, and what a plan of one says."""

import pathlib

import pytest
import yaml
from pulumi_vllm.plan import ConfigError, Deployment, catalogue, explain, own_models, plan, reasons
from pulumi_vllm.plan.model_schema import problems

SHIPPED = pathlib.Path(catalogue.__file__).parent / "data/models"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
OWN = {
    "name": "support-llm",
    "license": "Apache-2.0",
    "maximum_context": 32768,
    "dimensions": {
        "layers": 32,
        "hidden": 4096,
        "heads": 32,
        "vocabulary": 128256,
        "tied_embeddings": False,
        "rope_positions": 131072,
        "attention": {"kind": "gqa", "kv_heads": 8, "head_dim": 128},
        "mlp": {"kind": "dense", "intermediate": 14336},
    },
    "precisions": {
        "bf16": {
            "repository": "example/support-llm",
            "revision": COMMIT,
            "bytes": 16_060_556_376,
            "linear_bytes": 2.0,
            "expert_bytes": 2.0,
        }
    },
    "flags": {"tool-call-parser": "llama3_json", "enable-auto-tool-choice": True},
    "unknown": ["its vendor's context limit"],
}
MACHINE = {"gpu": "H100", "count": 1, "max_usd_per_hour": 9}


def block(model, **more):
    return {"model": model, "context": 8192, "machine": MACHINE, "storage": "200GB", **more}


def changed(**values):
    """OWN with values by dotted key."""
    content = yaml.safe_load(yaml.safe_dump(OWN))
    for dotted, value in values.items():
        *parents, last = dotted.split("__")
        at = content
        for key in parents:
            at = at[key]
        at[last] = value
    return content


@pytest.fixture
def project(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models/support-llm.yaml").write_text(yaml.safe_dump(OWN, sort_keys=False))
    return tmp_path


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_model_follows_the_schema(path):
    content = yaml.safe_load(path.read_text())
    assert problems(content, path.name) == ()
    assert content["name"] == path.stem


@pytest.mark.parametrize("name", ["support-llm", "./models/support-llm.yaml"])
def test_a_model_file_is_found_by_name_and_by_path(project, name):
    decided = plan(Deployment.parse(block(name), folders=(project,)))
    assert decided.served_names == ("support-llm", "example/support-llm")
    assert (decided.repository, decided.revision) == ("example/support-llm", COMMIT)
    assert decided.measured == "no"
    assert "Unknown about support-llm: its vendor's context limit." in reasons.because(decided)
    assert explain.labels(decided)["fits"].startswith("unverified: computed from published dimensions")


def test_the_working_directory_is_the_project(project, monkeypatch):
    monkeypatch.chdir(project)
    assert plan(Deployment.parse(block("support-llm"))).model.name == "support-llm"
    known = own_models.catalogue_with("support-llm")
    assert plan(Deployment.parse(block("support-llm"), known), catalogue=known).model.name == "support-llm"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dimensions__layer": 3}, "dimensions.layer: unknown key; did you mean layers?"),
        ({"dimensions__attention__heads": 3}, "dimensions.attention.heads: unknown key; "),
        (
            {"dimensions__attention__kind": "mamba"},
            "dimensions.attention.kind: 'mamba' is not known; write gqa or mla",
        ),
        (
            {"dimensions__mlp__kind": "densee"},
            "dimensions.mlp.kind: 'densee' is not known; write dense or moe",
        ),
        ({"dimensions__mlp": {"intermediate": 4}}, "dimensions.mlp.kind: missing; add one of dense or moe"),
        (
            {"dimensions__tied_embeddings": "no"},
            "dimensions.tied_embeddings: 'no' is not true or false; write true or",
        ),
        ({"dimensions__layers": "32"}, "dimensions.layers: '32' is not a whole number; write a whole number"),
        (
            {"precisions__bf16__revision": "main"},
            "precisions.bf16.revision: 'main' is no commit; write its 40 hex",
        ),
        (
            {"precisions__bf16__repository": "x"},
            "precisions.bf16.repository: 'x' is not a repository; write owner/",
        ),
        (
            {"precisions__bf16__tensors": {"expert": 1}},
            "precisions.bf16.tensors: 'expert' is no group of tensors; ",
        ),
        ({"precisions": {}}, "precisions: is empty; write at least one"),
        ({"flags__tool-call-parser": "llama"}, "flags.tool-call-parser: vLLM has no parser 'llama'; "),
        ({"flags__reasoning-parser": "r1"}, "flags.reasoning-parser: vLLM has no parser 'r1'; "),
        ({"flags__port": 1}, "flags.port: cannot be set here; the engine stays behind the gateway"),
        ({"thinks": "yes"}, "thinks: 'yes' is not allowed; write always, on request or never"),
        (
            {"name": "mistral-small-4"},
            "name: 'mistral-small-4' is a model of the catalogue; choose another name",
        ),
        ({"name": "other"}, "name: 'other' is not the file's name; write support-llm, or rename the file"),
    ],
)
def test_every_error_of_a_file_names_its_key_and_the_remedy(project, values, message):
    path = project / "models/support-llm.yaml"
    path.write_text(yaml.safe_dump(changed(**values)))
    with pytest.raises(ConfigError) as raised:
        Deployment.parse(block("support-llm"), folders=(project,))
    (found,) = raised.value.errors
    assert found.startswith(f"{path}: {message}")


def test_all_errors_of_the_file_and_of_the_block_come_at_once(project):
    path = project / "models/support-llm.yaml"
    path.write_text(
        yaml.safe_dump(changed(precisions__bf16__revision="main", dimensions__mlp__kind="x", foo=1))
    )
    with pytest.raises(ConfigError) as raised:
        Deployment.parse(block("support-llm", profile="fast"), folders=(project,))
    keys = [error.removeprefix(f"{path}: ").partition(":")[0] for error in raised.value.errors]
    assert keys == ["dimensions.mlp.kind", "precisions.bf16.revision", "foo", "server.profile"]


@pytest.mark.parametrize("text", ["[1, 2]", "name: [", "a\0b", "\xff"])
def test_a_file_that_is_no_model_is_refused_with_its_path(project, text):
    path = project / "models/support-llm.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"support-llm\.yaml"):
        Deployment.parse(block("support-llm"), folders=(project,))


def test_a_missing_file_is_refused_with_where_it_was_looked_for(project):
    with pytest.raises(ConfigError, match=r"server\.model: there is no file \./x\.yaml in .*model add"):
        Deployment.parse(block("./x.yaml"), folders=(project,))
    with pytest.raises(ConfigError, match=r"server\.model: 'support-lm' is not in the catalogue"):
        Deployment.parse(block("support-lm"), folders=(project,))
    with pytest.raises(ConfigError, match="`pulumi-vllm model add Qwen/Qwen3-14B` describes another model"):
        Deployment.parse(block("Qwen/Qwen3-14B"), folders=(project,))


def test_a_fine_tune_takes_the_place_of_the_models_weights():
    weights = {"repository": "example/tuned", "revision": COMMIT}
    decided = plan(Deployment.parse(block("mistral-small-4", precision="nvfp4", weights=weights)))
    usual = plan(Deployment.parse(block("mistral-small-4", precision="nvfp4")))
    assert (decided.repository, decided.revision) == ("example/tuned", COMMIT)
    assert "example--tuned" in decided.weights_directory or "example/tuned" in decided.weights_directory
    assert decided.memory == usual.memory
    assert decided.measured != "yes"
    assert "example/tuned" in decided.served_names
    assert any("nothing checked that" in sentence for sentence in reasons.because(decided))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"repository": "example/tuned"}, "server.weights.revision: missing"),
        ({"revision": COMMIT}, "server.weights.revision: has no effect without server.weights.repository"),
        (
            {"repository": "tuned", "revision": COMMIT},
            "server.weights.repository: 'tuned' is not a repository",
        ),
        ({"repository": "a/b", "revision": "main"}, "server.weights.revision: 'main' is no commit"),
    ],
)
def test_a_fine_tune_is_pinned(weights, message):
    with pytest.raises(ConfigError) as raised:
        Deployment.parse(block("mistral-small-4", weights=weights))
    assert raised.value.errors[0].startswith(message)


def test_a_file_does_not_replace_a_model_of_the_catalogue(project):
    path = project / "models/llama-3.1-8b.yaml"
    path.write_text(yaml.safe_dump(changed()))
    with pytest.raises(ConfigError, match=r"llama-3.1-8b.yaml: llama-3.1-8b is in the catalogue too; rename"):
        Deployment.parse(block("llama-3.1-8b"), folders=(project,))
