"""The policy pack in a real preview: the engine checks every resource with it and stops on a violation."""

import os

from harness import REPOSITORY

# The engine that ./dev builds starts the pack from this folder; other engines from policy/.
PACK = REPOSITORY / "dev.d" / "policy"


def test_a_preview_with_the_pack(projects):
    project = projects("fake")
    project.environment["PATH"] = f"{PACK}{os.pathsep}{project.environment['PATH']}"

    def preview(*words: str):
        return project.pulumi("preview", "--policy-pack", str(PACK), *words, check=False)

    refused = preview()
    assert refused.returncode != 0
    assert "has a machine and no tag ttl; run: pulumi stack tag set ttl YYYY-MM-DD" in refused.stdout
    assert refused.stdout.count("[mandatory]") == 1, refused.stdout

    project.pulumi("stack", "tag", "set", "ttl", "2999-01-01")
    strict = project.folder / "strict.json"
    strict.write_text('{"price-ceiling": {"maxUsdPerHour": 0.02}, "total-price": {"maxUsdPerHour": 0.001}}')
    refused = preview("--policy-pack-config", str(strict))
    assert "server-machine: may cost $0.05/h, but the limit is $0.02/h" in refused.stdout
    assert "machines and volumes cost $0.01/h together" in refused.stdout
    assert "tag ttl 2999-01-01 is more than 30 days away" in refused.stdout

    patient = project.folder / "patient.json"
    patient.write_text('{"ttl": {"maxDays": 1000000}}')
    passed = preview("--policy-pack-config", str(patient))
    assert passed.returncode == 0, passed.stdout
    assert "[mandatory]" not in passed.stdout
