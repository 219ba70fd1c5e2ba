"""Models of other architectures than Mistral Small 4, from the hub to an answer of the real engine on the CPU."""

import hashlib
import json

import pytest
import yaml
from harness import client
from pulumi_vllm_local.tiny_model import chain_models


@pytest.mark.all
@pytest.mark.parametrize("model", chain_models.MODELS, ids=lambda model: model.config["model_type"])
def test_another_architecture_is_added_and_comes_up(projects, tmp_path, model):
    """`model add` describes it, and `up` downloads its weights, starts it, and proves its answer token by token."""
    name = model.repository.partition("/")[2]
    project = projects("real", model=name, context=4096)
    added = project.cli("model", "add", model.repository)
    assert added.returncode == 0, added.stderr
    path = project.folder / "models" / f"{name}.yaml"
    content = yaml.safe_load(path.read_text())
    # Its answer is known, as that of a model which was served before.
    known = model.chain[:6]
    digest = hashlib.sha256(json.dumps(list(known)).encode()).hexdigest()[:12]
    golden = {"prompt": "Hello", "max_tokens": len(known), "reasoning_effort": "none", "sha256_12": digest}
    path.write_text(yaml.safe_dump(content | {"golden": [golden]}, sort_keys=False))
    # The program is in another folder here, and this build of the engine does not say where the project is.
    project.write(project.block | {"model": str(path)})
    project.up()
    outputs = project.outputs()
    assert outputs["evidence"]["readiness"]["passed"] is True
    ai = client(outputs, tmp_path)
    answer = ai.chat.completions.create(
        model=name, messages=[{"role": "user", "content": "Hello"}], max_tokens=40
    )
    assert answer.choices[0].message.content.strip() == "The quick brown fox jumps over a lazy dog."
    checks_follow_what_it_can_do(project, thinks=content["thinks"])


def checks_follow_what_it_can_do(project, *, thinks):
    """Through the gateway, `smoke` passes, and leaves out what such a model cannot do."""
    smoked = project.cli("smoke", "--json")
    checks = {one["check"]: one for one in json.loads(smoked.stdout)["checks"]}
    outcomes = {name: one["outcome"] for name, one in checks.items()}
    assert set(outcomes.values()) <= {"pass", "not for this engine"}, checks
    assert smoked.returncode == 0
    assert outcomes["chat"] == outcomes["stream"] == "pass"
    # A model that always thinks can't be asked not to, and one that never does has no thoughts to leave out.
    assert outcomes["reasoning_effort none"] == "not for this engine"
    assert outcomes["reasoning_effort high"] == ("pass" if thinks == "always" else "not for this engine")
    assert outcomes["image"] == "not for this engine"
