"""The component's wiring, with Pulumi's own mocks: what a consumer's unit tests do too."""

import pulumi
import pytest
from programs import block, declare, run
from pulumi_vllm.component.mocks import OUTPUTS
from pulumi_vllm.plan.names import is_ours


def test_a_server_is_these_resources():
    made, _ = declare()
    assert [one["type"] for one in made.values() if one["type"].startswith("vllm:host")] == [
        "vllm:host:Files", "vllm:host:Weights", "vllm:host:Service",
    ]  # fmt: skip
    assert {"llm", "llm-machine", "llm-volume", "llm-attachment", "llm-ca", "llm-certificate"} <= made.keys()
    assert made["llm-machine"]["provider"] == "spheron-es", "a machine goes where its volume is"
    assert made["llm-machine"]["maxUsdPerHour"] == 9.0


def test_outputs_are_what_a_client_needs():
    _, seen = declare()
    assert seen["endpoint"] == "https://192.0.2.7/v1"
    assert seen["usd_per_hour"] == pytest.approx(7.96)
    assert seen["ca_certificate"] == "-----BEGIN CERTIFICATE-----"
    assert "--tensor-parallel-size" in " ".join(seen["plan"]["flags"])


def test_a_given_key_is_used_and_a_missing_one_is_made():
    _, seen = declare(keys={"team-a": "sk-given"})
    assert seen["api_keys"]["team-a"] == "sk-given"
    assert set(seen["api_keys"].values()) == {"sk-given", "sk-random"}


def test_no_secret_is_in_a_rendered_file_or_in_cloud_init():
    made, _ = declare(keys={"team-a": "sk-planted"}, hf_token="hf_planted")
    files = made["llm-files"]
    assert "planted" not in str(files["files"])
    assert "planted" not in str(made["llm-machine"]["cloudInit"])
    assert "@@secret:keys_map@@" in str(files["files"])
    assert "sk-planted" not in str(files["secrets"]), "the gateway's map holds hashes only"


def test_every_file_has_a_mode_and_a_meaning():
    files = declare()[0]["llm-files"]
    assert files["files"].keys() == files["attributes"].keys() == files["actions"].keys()


def test_mistakes_come_as_one_error_with_all_of_them():
    wrong = {**block(), "contxt": "32Ki", "storage": "a lot"}
    with pytest.raises(pulumi.RunError) as caught:
        declare(server=wrong)
    assert "contxt" in str(caught.value)
    assert "storage" in str(caught.value)


def test_our_names_are_recognised_in_a_sweep():
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
def test_the_machine_knows_which_others_do_the_same(stack, others):
    made, _ = declare(server=block(stack))
    assert set(made["llm-machine"].get("alternatives", ())) == others


@pytest.mark.parametrize(("billed", "million"), [("on-demand", 0.307), ("spot", 0.3133)])
def test_the_fallback_is_told_as_what_it_is(monkeypatch, billed, million):
    monkeypatch.setitem(OUTPUTS["vllm:spheron:Instance"], "billedAs", billed)
    machine = block()["machine"] | {"billing": "spot", "fallback": "on-demand"}
    _, seen = declare(server=block() | {"machine": machine})
    told = seen["plan"]
    assert (told["billing"], told["usd_per_hour"]) == (billed, 7.92)
    assert told["usd_per_million_output_tokens"] == pytest.approx(million, abs=1e-4)
    assert any("interruptions a month" in line for line in told["because"]) == (billed == "spot")


def test_a_state_that_does_not_know_its_billing_is_told_as_asked_for(monkeypatch):
    monkeypatch.setitem(OUTPUTS["vllm:spheron:Instance"], "billedAs", None)
    _, seen = declare(server=block() | {"machine": block()["machine"] | {"billing": "spot"}})
    assert seen["plan"]["billing"] == "spot"


def test_a_name_of_ones_own_is_in_the_endpoint_and_in_the_certificate():
    named = block() | {"access": block()["access"] | {"hostname": "llm.example.com"}}
    made, seen = declare(server=named)
    assert seen["endpoint"] == "https://llm.example.com/v1"
    assert made["llm-certificate"]["hostname"] == "llm.example.com"
    assert '"server_name": "llm.example.com"' in made["llm-files"]["files"]["/etc/pulumi-vllm/readiness.json"]


def test_a_certificate_of_ones_own_takes_the_place_of_ours_and_ours_is_kept(monkeypatch):
    monkeypatch.setitem(OUTPUTS["vllm:index:CustomCertificate"], "chain", "THE CHAIN")
    named = block() | {"access": block()["access"] | {"hostname": "llm.example.com"}}
    made, seen = declare(server=named, tls_certificate="MY PEM", tls_private_key="MY KEY")
    assert {"llm-given-certificate", "llm-ca"} <= made.keys()
    assert "llm-certificate" not in made
    assert made["llm-given-certificate"]["hostname"] == "llm.example.com"
    assert seen["ca_certificate"] == "THE CHAIN", "what was parsed, not what was given"
    assert made["llm-files"]["values"]["ca_certificate"] == "THE CHAIN"


def test_a_certificate_with_its_key_in_one_text_goes_nowhere():
    named = block() | {"access": block()["access"] | {"hostname": "llm.example.com"}}
    both = "LEAF\n-----BEGIN RSA PRIVATE KEY-----\nPLANTED"
    with pytest.raises(pulumi.RunError) as caught:
        declare(server=named, tls_certificate=both, tls_private_key="MY KEY")
    assert "tls_certificate: holds a private key" in str(caught.value)
    assert "PLANTED" not in str(caught.value)


def test_no_certificate_is_none_given():
    made, _ = declare(tls_certificate=None, tls_private_key=None)
    assert "llm-certificate" in made
    assert "llm-given-certificate" not in made


def test_half_a_certificate_is_told_with_every_other_mistake():
    with pytest.raises(pulumi.RunError) as caught:
        declare(server=block() | {"storage": "a lot"}, tls_private_key="MY KEY")
    said = str(caught.value)
    assert "storage" in said
    assert "tls_private_key: is given alone" in said
    assert "server.access.hostname: missing" in said
    assert "MY KEY" not in said


def test_evidence_says_when_the_certificates_end(monkeypatch):
    monkeypatch.setitem(OUTPUTS["vllm:index:Certificate"], "expires", "2027-11-01")
    monkeypatch.setitem(OUTPUTS["vllm:index:Authority"], "expires", "2036-11-01")
    evidence = declare()[1]["evidence"]
    assert (evidence["certificate_expires"], evidence["ca_expires"]) == ("2027-11-01", "2036-11-01")
    assert evidence["readiness"]["passed"] is True


def test_every_resource_goes_before_it_is_made_anew():
    """Told as an option, because `--replace` asks no provider: a machine made first would be the old one, adopted."""
    from pulumi_vllm import Server

    def program():
        return {"endpoint": Server("llm", {"server": block()}).endpoint}

    monitor, _ = run(program)
    ours = [one for one in monitor.requests.values() if one.custom]
    assert len(ours) == 12
    assert all(one.deleteBeforeReplace and one.deleteBeforeReplaceDefined for one in ours)


def test_whatever_is_a_secret_is_one_for_programs_in_other_languages_too():
    from pulumi_vllm.provider.plugin.construct import component_schema

    server = component_schema()["resources"]["vllm:index:Server"]
    for properties in ("inputProperties", "properties"):
        for name, said in server[properties].items():
            assert said.get("secret", False) == ("(secret)" in said["description"]), name
