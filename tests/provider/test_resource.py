"""Differences and validation of inputs."""

from pulumi_vllm.provider.plugin.package_schema import RESOURCES
from pulumi_vllm.provider.plugin.protocol import UNKNOWN, Secret
from pulumi_vllm.provider.plugin.resource import Kind, check_shape

FILES, INSTANCE, VOLUME = (
    RESOURCES[t] for t in ("vllm:host:Files", "vllm:spheron:Instance", "vllm:spheron:Volume")
)


def test_each_changed_file_is_one_line_of_the_diff():
    old = {"files": {"/a": "1", "/b": "2"}, "attributes": {}, "instanceId": "i"}
    new = {"files": {"/a": "1", "/b": "3", "/c": "4"}, "attributes": {}, "instanceId": "i"}
    assert FILES.compare(old, new) == {'files["/b"]': Kind.UPDATE, 'files["/c"]': Kind.ADD}


def test_another_machine_replaces_the_resources_on_it():
    assert FILES.compare({"instanceId": "i"}, {"instanceId": UNKNOWN}) == {"instanceId": Kind.REPLACE}


def test_a_rotated_secret_is_one_change_without_names():
    assert FILES.compare({"secrets": Secret({"a": "1"})}, {"secrets": {"a": "2"}}) == {"secrets": Kind.UPDATE}


def test_a_silent_input_causes_no_diff():
    assert INSTANCE.compare({"cloudInit": {"runcmd": ["a"]}}, {"cloudInit": {"runcmd": ["b"]}}) == {}


def test_ignored_changes_are_ignored():
    assert INSTANCE.compare({"gpu": "H100"}, {"gpu": "H200"}, ("gpu",)) == {}


def test_all_failures_are_reported_with_the_closest_name():
    failures = {f.property: f.reason for f in check_shape(VOLUME, {"sizeGB": 3, "gpu": 4, "count": 1})}
    assert "did you mean sizeGb?" in failures["sizeGB"]
    assert failures["gpu"] == "gpu must be a string"
    assert failures["sizeGb"].startswith("missing")


def test_a_failing_secret_is_reported_without_its_path():
    """The engine prints the value of the property that a failure names."""
    (failure,) = check_shape(INSTANCE, _instance(sshPrivateKey=Secret(17)))
    assert failure.property == ""
    assert "17" not in failure.reason


def test_unknown_values_are_valid():
    assert check_shape(INSTANCE, _instance(sshPrivateKey=UNKNOWN)) == []


def _instance(**more):
    return {
        "gpu": "H200",
        "count": 2,
        "sshKeyId": "k",
        "sshPublicKey": "ssh-ed25519 A",
        "sshPrivateKey": "p",
    } | more


async def test_unknown_secrets_are_not_missing():
    """In the preview of a replacement, the whole map is one unknown secret."""
    new = {
        "instanceId": "i",
        "files": {"/a": "@@secret:t@@"},
        "attributes": {"/a": "0600 root:root"},
        "secrets": Secret(UNKNOWN),
    }
    assert await FILES.check(None, new, None) == []
    assert await FILES.check(None, {**new, "secrets": Secret({})}, None) != []


def test_an_import_is_not_replaced_for_inputs_that_the_cloud_lacks():
    imported = {"gpu": "H200", "count": 2}
    assert INSTANCE.compare(imported, _instance()) == {"sshPublicKey": Kind.ADD}
