"""Properties of every rendered stack."""

import base64
import hashlib
import json
import re
import subprocess

import pytest
from pulumi_vllm.plan import Deployment, PlanError, plan
from pulumi_vllm.render import (
    HostFile,
    bootstrap,
    bootstrap_stamp,
    cloud_init,
    file_table,
    layout,
    models_mount,
    package_files,
    render,
    templates,
)
from pulumi_vllm.render.engine_places import engine_places

import stacks


def by_path(stack):
    return {file.path: file for file in stacks.rendered(stack)}


def engine_file(stack):
    several = stacks.planned(stack).engines > 1
    return by_path(stack)[layout.unit_file(layout.ENGINE_TEMPLATE if several else layout.ENGINE_UNIT)]


def test_every_template_is_rendered(stack):
    folder = package_files.templates()
    wanted = {f"/{path.relative_to(folder)}".removesuffix(".j2") for path in folder.rglob("*.j2")}
    if stacks.planned(stack).engines > 1:  # one unit for all of them, and two files for each
        several = {layout.ENGINE_ENVIRONMENT, layout.CANARY_CONFIG, layout.unit_file(layout.ENGINE_UNIT)}
        wanted = wanted - several | {layout.unit_file(layout.ENGINE_TEMPLATE)}
        for place in engine_places(stacks.planned(stack).engines):
            wanted |= {place.environment, place.canary_config}
    assert wanted <= set(by_path(stack))


def test_no_secret_is_readable_by_others(stack):
    for file in stacks.rendered(stack):
        assert not file.secrets or file.mode == "0600", file.path
    assert {secret for file in stacks.rendered(stack) for secret in file.secrets} == set(
        stacks.planned(stack).secrets
    )


def test_a_start_records_every_file_that_a_change_would_restart_or_reload(stack):
    files = by_path(stack)
    for unit, action in (("vllm.service", "restart"), ("haproxy.service", "reload")):
        file = engine_file(stack) if unit == "vllm.service" else files[layout.unit_file(unit)]
        text = file.text.replace("\\\n", "")
        (recorded,) = re.findall(r"^ExecStartPre=-\+\S+/record-start %n (.*)$", text, re.MULTILINE)
        assert set(recorded.split()) == {
            path for path, file in files.items() if file.on_change == f"{action} {unit}"
        }


def test_the_bootstrap_makes_our_folders_with_the_modes_that_a_preview_compares():
    made = re.findall(r"^install -d -m (\d{4}) (/.*)$", bootstrap().text, re.MULTILINE)
    modes = {path: f"{mode} root:root" for mode, paths in made for path in paths.split()}
    assert {path: modes[path] for path in layout.FOLDERS} == layout.FOLDERS


def test_security_updates_leave_the_units_and_the_driver_alone(tmp_path):
    files = by_path("local")
    upgrades = tmp_path / "upgrades"
    upgrades.write_text(files[layout.UNATTENDED_UPGRADES].text)
    command = ["apt-config", "dump", "Unattended-Upgrade", "-c", str(upgrades)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    held = re.findall(r'Package-Blacklist:: "(.*)";', shown)
    packages = (
        "nvidia-driver-580-server",
        "libnvidia-compute-580",
        "linux-image-generic",
        "linux-modules-6.8.0",
    )
    assert all(any(re.match(one, package) for one in held) for package in packages)
    assert not any(re.match(one, "openssl") for one in held)
    # needrestart evaluates each file, then asks the first expression that matches a unit.
    settings = tmp_path / "settings"
    settings.write_text(files[layout.NEEDRESTART].text)
    script = (
        "our %nrconf = (override_rc => {}); local (@ARGV, $/) = $ARGV[0]; eval <>; die $@ if $@; "
        "for $u (qw(vllm.service vllm@1.service vllm-weights.service haproxy.service ssh.service)) "
        "{ print $u, qq(\\n) if grep { $u =~ /$_/ } keys %{$nrconf{override_rc}} }"
    )
    shown = subprocess.run(["perl", "-e", script, settings], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == [
        "vllm.service",
        "vllm@1.service",
        "vllm-weights.service",
        "haproxy.service",
    ]


def test_no_template_syntax_is_left(stack):
    for file in stacks.rendered(stack):
        if not file.path.startswith("/usr/local/lib") and "requirements" not in file.path:
            assert "{{" not in file.text, file.path
            assert "{%" not in file.text, file.path


def test_json_files_are_json_with_the_agreed_keys(stack):
    files = by_path(stack)
    weights = json.loads(files["/etc/pulumi-vllm/weights.json"].text)
    assert weights["directory"] == f"/models/weights/{weights['repository']}/{weights['revision']}"
    readiness = json.loads(files["/etc/pulumi-vllm/readiness.json"].text)
    several = stacks.planned(stack).engines > 1
    assert set(readiness) == {
        "gateway", "server_name", "ca", "token_file", "model", "golden", "answers", "timeout_s",
        "result", "gateway_socket", "health_map", *(("engines", "only") if several else ("engine_url",)),
    }  # fmt: skip
    assert len(readiness["answers"]) == (0 if readiness["golden"] else 7)
    install = json.loads(files["/etc/pulumi-vllm/install.json"].text)
    for path in [*install["locks"].values(), install["uv_lock"]]:
        assert path in files
    preflight = json.loads(files["/etc/pulumi-vllm/preflight.json"].text)
    assert (preflight["gpus"] is None) == (stack == "local")


def test_the_stop_path_fits_a_reclaim(stack):
    unit = engine_file(stack).text
    assert "TimeoutStopSec=45\n" in unit
    assert "--shutdown-timeout 30" in unit


def test_the_engine_listens_on_loopback_only(stack):
    assert "--host 127.0.0.1 \\\n" in engine_file(stack).text


def test_bootstrap_and_user_data():
    script = bootstrap(stacks.planned("local"))
    assert (
        bootstrap_stamp(stacks.planned("local"))
        == hashlib.sha256(script.text.encode()).hexdigest()
        == script.sha256
    )
    user_data = cloud_init(stacks.planned("spheron-h200-2x-fp8"))
    assert set(user_data) == {"runcmd"}, "cloud-init calls an empty list of packages or files too short"
    (line,) = user_data["runcmd"]
    assert len(line) < 12_000
    assert "\n" not in line
    script_sent = base64.b64decode(line.split("echo ")[1].split()[0]).decode()
    assert script_sent == bootstrap(stacks.planned("spheron-h200-2x-fp8")).text
    assert "gcc" in script_sent
    assert "gcc" not in script.text


def test_rendering_twice_is_the_same(stack):
    again = render(stacks.planned(stack), mount=stacks.mount(stack))
    assert again == stacks.rendered(stack)


@pytest.mark.parametrize(
    ("kind", "source", "line"),
    [
        ("block", "LABEL=pv", "What=LABEL=pv\n"),
        ("virtiofs", "tag", "Type=virtiofs\n"),
        ("nfs", "h:/e", "_netdev"),
    ],
)
def test_mount_kinds(kind, source, line):
    assert line in models_mount(kind, source).text


def test_an_unknown_mount_kind_is_an_error():
    with pytest.raises(
        PlanError, match="mount kind 'floppy' is unknown; this version mounts block, virtiofs, nfs"
    ):
        models_mount("floppy", "x")


def test_a_missing_template_variable_is_an_error():
    with pytest.raises(PlanError, match="'packages' is undefined"):
        templates.fill("/usr/local/lib/pulumi-vllm/bootstrap")


def test_secret_and_value_names():
    file = HostFile("/x", "@@secret:a@@ @@value:b@@ @@secret:a@@")
    assert (file.secrets, file.values) == (("a",), ("b",))


def test_a_changed_flag_changes_the_unit_and_restarts():
    block = stacks.planned("local").deployment.model_dump(by_alias=True)
    more = plan(Deployment.parse({**block, "concurrency": 4}))
    before, after = by_path("local"), {file.path: file for file in render(more)}
    changed = [path for path, file in after.items() if file.sha256 != before[path].sha256]
    assert [(path, after[path].on_change) for path in changed] == [
        ("/etc/pulumi-vllm/gateway/haproxy.cfg", "reload haproxy.service"),
        ("/etc/pulumi-vllm/requests.json", "restart vllm.service"),
        ("/etc/systemd/system/vllm.service", "restart vllm.service"),
    ]


def test_the_table_is_in_order():
    paths = [path for path, *_ in file_table._TABLE]
    assert paths == sorted(paths)


def test_units_name_units_that_exist(stack):
    paths = by_path(stack)
    ours = {
        path.rpartition("/")[2]: file
        for path, file in paths.items()
        if path.startswith("/etc/systemd/system/")
    }
    for file in ours.values():
        for line in file.text.splitlines():
            if line.startswith(("Requires=", "After=", "Before=", "Wants=")):
                for name in line.partition("=")[2].split():
                    of_image = name.endswith(".target") or name.startswith(("nvidia-", "nftables."))
                    template = re.sub(r"@\d", "@", name)
                    assert name in ours or template in ours or of_image, (file.path, name)


def test_what_a_unit_starts_is_rendered(stack):
    paths = by_path(stack)
    for file in paths.values():
        for name in re.findall(r"^Exec\w+=(/usr/local/lib/pulumi-vllm/\w+)", file.text, re.MULTILINE):
            assert paths[name].mode == "0755"
        for name in re.findall(r"^EnvironmentFile=(/etc/\S+)", file.text, re.MULTILINE):
            assert {name.replace("%i", str(number)) for number in (0, 1)} <= set(paths)
