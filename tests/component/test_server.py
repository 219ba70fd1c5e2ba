"""The component's resources and outputs, with Pulumi's mocks, as in users' unit tests."""

import json
import runpy
from datetime import UTC, datetime
from pathlib import Path

import pulumi
import pulumi_vllm
import pytest
import yaml
from mocked_programs import STACKS, block, declare, run
from pulumi_vllm.component.mocks import OUTPUTS
from pulumi_vllm.plan.names import is_ours
from pulumi_vllm.plan.recovery import LAST_UP_VARIABLE


def test_a_server_declares_its_resources():
    made, _ = declare()
    assert [one["type"] for one in made.values() if one["type"].startswith("vllm:host")] == [
        "vllm:host:Files", "vllm:host:Weights", "vllm:host:Service",
    ]  # fmt: skip
    assert {"llm", "llm-machine", "llm-volume", "llm-attachment", "llm-ca", "llm-certificate"} <= made.keys()
    assert made["llm-machine"]["provider"] == "spheron-es", "the machine is rented where the volume is"
    assert made["llm-machine"]["maxUsdPerHour"] == 9.0


@pytest.mark.parametrize("stack", ["spheron-h200-2x-fp8", "spheron-h100-1x-nvfp4"])
def test_a_shipped_stack_asks_for_the_ranges_of_its_clients(stack):
    shipped = yaml.safe_load((STACKS / f"Pulumi.{stack}.yaml").read_text())["config"]["pulumi-vllm:server"]
    with pytest.raises(pulumi.RunError) as caught:
        declare(server=shipped)
    assert str(caught.value) == (
        "server.access.allow: missing, so nobody could reach the server; set the address range of your clients: "
        "pulumi config set --path 'pulumi-vllm:server.access.allow[0]' YOUR.ADDRESS/32"
    )


def test_the_program_of_init_exports_what_the_commands_read(monkeypatch):
    """`smoke`, `bench`, `drift` and people read them."""
    exported = {}
    monkeypatch.setattr(pulumi, "export", exported.__setitem__)
    pulumi.runtime.set_all_config({"pulumi-vllm:server": json.dumps(block())})
    starter = Path(pulumi_vllm.__file__).parent / "cli" / "starter" / "__main__.py"

    def program():
        runpy.run_path(str(starter), run_name="__main__")
        return {name: exported[name] for name in ("evidence", "plan", "memory", "flags", "gateway")}

    outputs = run(program)[1]
    assert exported.keys() >= {
        "endpoint",
        "model",
        "api_key",
        "ca_certificate",
        "evidence",
        "plan",
        "memory",
        "flags",
        "gateway",
        "connection",
    }
    assert "--max-model-len 32768" in outputs["flags"].splitlines(), "one flag per line"
    assert outputs["plan"]["machine"] == "2x H200"
    assert outputs["memory"]["fits"] is True
    assert outputs["gateway"]["requests_per_minute"] > 0
    assert outputs["evidence"]["certificate_expires"]


def test_the_shell_of_a_person_does_not_change_what_is_declared(monkeypatch):
    before = declare()[0]["llm-files"]["files"]
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    assert declare()[0]["llm-files"]["files"] == before
    monkeypatch.setenv("PULUMI_VLLM_LOCAL_HUB", "http://127.0.0.1:7000/")
    assert '"endpoint": "http://127.0.0.1:7000"' in str(declare()[0]["llm-files"]["files"])


def test_outputs_are_what_a_client_needs():
    _, outputs = declare()
    assert outputs["endpoint"] == "https://192.0.2.7/v1"
    assert outputs["usd_per_hour"] == pytest.approx(7.96)
    assert outputs["ca_certificate"] == "-----BEGIN CERTIFICATE-----"
    assert "--tensor-parallel-size" in " ".join(outputs["plan"]["flags"])


def test_a_given_key_is_used_and_a_missing_one_is_random():
    _, outputs = declare(keys={"team-a": "sk-given"})
    assert outputs["api_keys"]["team-a"] == "sk-given"
    assert set(outputs["api_keys"].values()) == {"sk-given", "sk-random"}


def test_no_secret_is_in_a_rendered_file_or_in_cloud_init():
    made, _ = declare(keys={"team-a": "sk-planted"}, hf_token="hf_planted")
    files = made["llm-files"]
    assert "planted" not in str(files["files"])
    assert "planted" not in str(made["llm-machine"]["cloudInit"])
    assert "@@secret:keys_map@@" in str(files["files"])
    assert "sk-planted" not in str(files["secrets"]), "the gateway's map has digests only"


def test_every_file_has_a_mode_and_an_action():
    files = declare()[0]["llm-files"]
    assert files["files"].keys() == files["attributes"].keys() == files["actions"].keys()


def test_every_error_is_reported_at_once():
    wrong = {**block(), "contxt": "32Ki", "storage": "a lot"}
    with pytest.raises(pulumi.RunError) as caught:
        declare(server=wrong)
    assert "contxt" in str(caught.value)
    assert "storage" in str(caught.value)


def test_a_sweep_recognises_physical_names():
    from pulumi_vllm.plan.names import physical_name

    assert is_ours(physical_name("unit", "llm-machine", "urn"))


@pytest.mark.parametrize(
    ("stack", "others"),
    [
        ("spheron-h100-4x-fp8", {"8x H100", "2x H200", "4x H200", "8x H200"}),
        ("spheron-h200-1x-fp8", {"4x H100", "8x H100", "2x H200", "4x H200", "8x H200"}),
        ("local", set()),
    ],
)
def test_the_machine_gets_the_alternatives(stack, others):
    made, _ = declare(server=block(stack))
    assert set(made["llm-machine"].get("alternatives", ())) == others


def test_each_up_dates_the_period_and_a_preview_does_not(monkeypatch):
    life = {"expires": "8h", "idle_stop": "2h", "owner": "ana"}
    machine = declare(server=block() | life)[0]["llm-machine"]
    assert (machine["expiresS"], machine["idleStopS"], machine["owner"]) == (8 * 3600, 2 * 3600, "ana")
    age = datetime.now(UTC) - datetime.fromisoformat(machine["lastUp"])
    assert abs(age.total_seconds()) < 60
    assert machine["endIfNeverReady"] is True
    monkeypatch.setattr(pulumi.runtime, "is_dry_run", lambda: True)
    assert "lastUp" not in declare(server=block() | life)[0]["llm-machine"]
    # `pulumi-vllm reconcile` goes on with the period.
    monkeypatch.setenv(LAST_UP_VARIABLE, "2026-11-30T07:00:00+00:00")
    assert declare(server=block() | life)[0]["llm-machine"]["lastUp"] == "2026-11-30T07:00:00+00:00"
    assert "lastUp" not in declare()[0]["llm-machine"]


def test_a_failed_machine_is_kept_where_that_is_wanted():
    kept = block()["machine"] | {"keep_failed": True}
    made, _ = declare(server=block() | {"machine": kept})
    assert made["llm-machine"]["endIfNeverReady"] is made["llm-service"]["endIfNeverReady"] is False


@pytest.mark.parametrize(("billed", "million"), [("on-demand", 0.2009), ("spot", 0.2047)])
def test_the_plan_shows_the_billing_of_the_rented_machine(monkeypatch, billed, million):
    monkeypatch.setitem(OUTPUTS["vllm:spheron:Instance"], "billedAs", billed)
    machine = block()["machine"] | {"billing": "spot", "fallback": "on-demand"}
    _, outputs = declare(server=block() | {"machine": machine})
    plan = outputs["plan"]
    assert (plan["billing"], plan["usd_per_hour"]) == (billed, 7.92)
    assert plan["usd_per_million_output_tokens"] == pytest.approx(million, abs=1e-4)
    assert any("interruptions a month" in line for line in plan["because"]) == (billed == "spot")


def test_without_a_known_billing_the_plan_shows_the_requested_one(monkeypatch):
    monkeypatch.setitem(OUTPUTS["vllm:spheron:Instance"], "billedAs", None)
    _, outputs = declare(server=block() | {"machine": block()["machine"] | {"billing": "spot"}})
    assert outputs["plan"]["billing"] == "spot"


def test_the_host_name_is_in_the_endpoint_and_the_certificate():
    named = block() | {"access": block()["access"] | {"hostname": "llm.example.com"}}
    made, outputs = declare(server=named)
    assert outputs["endpoint"] == "https://llm.example.com/v1"
    assert made["llm-certificate"]["hostname"] == "llm.example.com"
    assert '"server_name": "llm.example.com"' in made["llm-files"]["files"]["/etc/pulumi-vllm/readiness.json"]


def test_a_custom_certificate_replaces_the_own_one_and_the_ca_stays(monkeypatch):
    monkeypatch.setitem(OUTPUTS["vllm:index:CustomCertificate"], "chain", "THE CHAIN")
    named = block() | {"access": block()["access"] | {"hostname": "llm.example.com"}}
    made, outputs = declare(server=named, tls_certificate="MY PEM", tls_private_key="MY KEY")
    assert {"llm-custom-certificate", "llm-ca"} <= made.keys()
    assert "llm-certificate" not in made
    assert made["llm-custom-certificate"]["hostname"] == "llm.example.com"
    assert outputs["ca_certificate"] == "THE CHAIN", "the parsed chain, not the argument"
    assert made["llm-files"]["values"]["ca_certificate"] == "THE CHAIN"


def test_a_certificate_that_contains_its_key_is_refused():
    named = block() | {"access": block()["access"] | {"hostname": "llm.example.com"}}
    both = "LEAF\n-----BEGIN RSA PRIVATE KEY-----\nPLANTED"
    with pytest.raises(pulumi.RunError) as caught:
        declare(server=named, tls_certificate=both, tls_private_key="MY KEY")
    assert "tls_certificate: contains a private key" in str(caught.value)
    assert "PLANTED" not in str(caught.value)


def test_none_is_the_same_as_no_custom_certificate():
    made, _ = declare(tls_certificate=None, tls_private_key=None)
    assert "llm-certificate" in made
    assert "llm-custom-certificate" not in made


def test_half_a_certificate_is_reported_with_every_other_error():
    with pytest.raises(pulumi.RunError) as caught:
        declare(server=block() | {"storage": "a lot"}, tls_private_key="MY KEY")
    message = str(caught.value)
    assert "storage" in message
    assert "tls_private_key: is set alone" in message
    assert "server.access.hostname: missing" in message
    assert "MY KEY" not in message


def test_evidence_has_the_expiry_of_the_certificates(monkeypatch):
    monkeypatch.setitem(OUTPUTS["vllm:index:Certificate"], "expires", "2027-11-01")
    monkeypatch.setitem(OUTPUTS["vllm:index:Authority"], "expires", "2036-11-01")
    evidence = declare()[1]["evidence"]
    assert (evidence["certificate_expires"], evidence["ca_expires"]) == ("2027-11-01", "2036-11-01")
    assert evidence["readiness"]["passed"] is True


def test_every_resource_is_deleted_before_it_is_replaced():
    """It is an option, because `--replace` does not ask the provider: a machine made first would adopt the old one."""
    from pulumi_vllm import Server

    def program():
        return {"endpoint": Server("llm", {"server": block()}).endpoint}

    monitor, _ = run(program)
    ours = [one for one in monitor.requests.values() if one.custom]
    assert len(ours) == 12
    assert all(one.deleteBeforeReplace and one.deleteBeforeReplaceDefined for one in ours)


def test_machines_overlap_where_the_stack_file_asks_for_it():
    from pulumi_vllm import Server

    def program():
        machine = block()["machine"] | {"replace": "overlap"}
        command = {"name": "motd", "create": "true"}
        args = {"server": block() | {"machine": machine}, "commands": [command]}
        return {"endpoint": Server("llm", args).endpoint}

    monitor, _ = run(program)
    made = [one for one in monitor.requests.values() if one.custom]
    assert len(made) == 13
    assert not any(one.deleteBeforeReplace for one in made)
    assert all(one.deleteBeforeReplaceDefined for one in made)


def test_secrets_are_secret_for_programs_in_other_languages_too():
    from pulumi_vllm.provider.plugin.construct import component_schema

    server = component_schema()["resources"]["vllm:index:Server"]
    for properties in ("inputProperties", "properties"):
        for name, schema in server[properties].items():
            assert schema.get("secret", False) == ("(secret)" in schema["description"]), name


@pytest.mark.parametrize("taken", ["H200", "H100"])
def test_what_runs_on_the_host_is_planned_for_the_gpu_that_was_rented(monkeypatch, taken):
    monkeypatch.setitem(OUTPUTS["vllm:spheron:Instance"], "gpuTaken", taken)
    machine = block()["machine"]
    alone, _ = declare(server=block() | {"machine": machine | {"gpu": taken}})
    made, outputs = declare(server=block() | {"machine": machine | {"gpu": ["H200", "H100"]}})
    assert (made["llm-machine"]["gpu"], made["llm-machine"]["otherGpus"]) == ("H200", ["H100"])
    assert made["llm-volume"]["otherGpus"] == ["H100"]
    for name in ("files", "attributes", "actions"):
        assert made["llm-files"][name] == alone["llm-files"][name]
    assert made["llm-service"]["engineVersion"] == alone["llm-service"]["engineVersion"]
    assert outputs["plan"]["machine"] == f"2x {taken}"
