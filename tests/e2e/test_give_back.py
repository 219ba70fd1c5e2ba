"""A failed `up` never leaves a server worse than it found it: each step of an update fails once on a serving host."""

import pytest
from harness import client

WEIGHTS = "/models/weights/*/*/*"
SHARD = "consolidated.safetensors"
ENGINE = "systemctl show -P InvocationID vllm.service"
# The step that fails: what breaks it on the host, part of the error of `up`, and the repair.
STEPS = {
    "files": (
        "mount --bind /etc/systemd/system /etc/systemd/system; mount -o remount,bind,ro /etc/systemd/system",
        "Read-only file system",
        "umount /etc/systemd/system",
    ),
    "preflight": (
        r"""cp -a /etc/hosts /etc/nsswitch.conf /root/
            sed -i "/$(hostname)/d" /etc/hosts; sed -i 's/^hosts:.*/hosts: files/' /etc/nsswitch.conf""",
        "does not resolve; add `127.0.1.1",
        "cp -a /root/hosts /root/nsswitch.conf /etc/",
    ),
    "engine": (
        "echo other > /opt/vllm/.stamp; rm -rf /var/lib/pulumi-vllm/uv; touch /var/lib/pulumi-vllm/uv",
        "vllm-install.service failed",
        "rm /var/lib/pulumi-vllm/uv; cp /root/stamp /opt/vllm/.stamp",
    ),
    "weights": (
        f"rm {WEIGHTS}/{SHARD}",
        "vllm-weights.service failed",
        "",
    ),
}


@pytest.mark.all
def test_each_step_that_fails_leaves_the_server_serving(projects, tmp_path):
    project = projects("fake")
    project.up()
    outputs = project.outputs()
    ai = client(outputs, tmp_path)

    def serves():
        answer = ai.chat.completions.create(
            model=outputs["model"], messages=[{"role": "user", "content": "hi"}], max_tokens=8
        )
        return bool(answer.choices[0].message.content)

    assert serves()
    started = project.on_host(f"cp /opt/vllm/.stamp /root/stamp; {ENGINE}")
    for number, (step, (script, message, repair)) in enumerate(STEPS.items()):
        # Other flags, so that everything that an update does is done.
        project.write(project.block | {"context": 2048 - 16 * (number + 1)})
        project.on_host(script)
        if step == "weights":
            project.cloud.hub(status=404, code="", on="resolve")
        done = project.pulumi("up", "--yes", "--skip-preview", check=False)
        assert done.returncode != 0, step
        assert message in done.stdout, f"{step}: {done.stdout}"
        assert serves(), step
        assert project.on_host(ENGINE) == started, f"{step}: vllm was restarted"
        project.cloud.hub(status="", code="", on="")
        if repair:
            project.on_host(repair)

    # The repaired weights are other bytes than the loaded ones, so that vllm starts again, once.
    project.up()
    assert serves()
    restarted = project.on_host(ENGINE)
    assert restarted != started
    assert set(project.changes()) == {"same"}

    # A mode is repaired, and vllm serves meanwhile.
    project.on_host(f"chmod g+w {WEIGHTS}/{SHARD}")
    assert project.changes().get("update") == 2  # the weights, and vllm if their bytes differ
    project.up()
    assert project.on_host(f"stat -c %a {WEIGHTS}/{SHARD}; {ENGINE}") == f"644\n{restarted}"
    assert set(project.changes()) == {"same"}
