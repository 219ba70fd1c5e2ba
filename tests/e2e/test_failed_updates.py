"""Flags, an engine or weights with which vLLM does not become ready: the previous ones come back and serve."""

import contextlib
import hashlib
import os
import signal
import ssl
import threading
from collections import Counter

import openai
import pytest
from drifts import ASK_HAPROXY
from harness import answers, chat_long, client, shipped, wait_for
from pulumi_vllm.plan import engine_locks

FLAGS = {"chat-template": "/nowhere/template.jinja"}
REFUSED = {"engine": {"flags": FLAGS}}
REASON = "The supplied chat template string (/nowhere/template.jinja) appears path-like, but doesn't exist!"
BACK = "back, and vLLM serves again with them; correct the change, then run `pulumi up` again"
UNIT = "/etc/systemd/system/vllm.service"
BOOT = "cat /proc/sys/kernel/random/boot_id; stat -c %Y /proc/1"
# Five starts of 3 s, with 10 s between them, and what a busy computer adds.
BY_ITSELF_WITHIN_S = 240
GATEWAY = "/etc/pulumi-vllm/gateway/haproxy.cfg"
NAMES = "openssl x509 -noout -ext subjectAltName"
PRESENTED = f"openssl s_client -connect 127.0.0.1:443 </dev/null 2>/dev/null | {NAMES}"
DRAINED = f"{ASK_HAPROXY} echo show stat vllm 4 -1 | ask | grep -q DRAIN && echo yes || true"


class Watcher:
    """Ask the gateway for a chat again and again, and count the answers by their status."""

    def __init__(self, project, folder):
        self.outputs, self.folder = project.outputs(), folder
        self.seen, self.stop = Counter(), threading.Event()
        self.thread = threading.Thread(target=self._ask)

    def _ask(self):
        ai = client(self.outputs, self.folder)
        while not self.stop.wait(0.2):
            try:
                chat(ai, self.outputs)
                self.seen["answered"] += 1
            except openai.APIStatusError as error:
                retry = error.response.headers.get("retry-after")
                self.seen[f"{error.status_code} {'with' if retry else 'without'} Retry-After"] += 1
            except (openai.APIConnectionError, ssl.SSLError) as error:
                self.seen[f"{type(error).__name__}: {error.__cause__}"] += 1

    def __enter__(self):
        self.thread.start()
        return self.seen

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()


def chat(ai, outputs):
    answer = ai.chat.completions.create(
        model=outputs["model"], messages=[{"role": "user", "content": "hi"}], max_tokens=8
    )
    return answer.choices[0].message.content


def serves(project, folder) -> bool:
    outputs = project.outputs()
    return bool(chat(client(outputs, folder), outputs))


def fails(project, *parts: str) -> str:
    done = project.pulumi("up", "--yes", "--skip-preview", check=False)
    assert done.returncode != 0, done.stdout
    for part in parts:
        assert part in done.stdout, f"{part!r} is not in:\n{done.stdout}"
    return done.stdout


def test_refused_flags_are_rolled_back(projects, tmp_path):
    project = projects("fake")
    good = project.block
    project.write(good | REFUSED)
    fails(project, REASON, "vLLM was not ready on this host before, so nothing was restored")

    project.write(good)
    project.up()
    assert serves(project, tmp_path)
    unit = project.on_host(f"cat {UNIT}")

    # A change of the gateway alone, which a rollback of vLLM must not undo.
    gateway = good | {"gateway": {"requests_per_minute": 777}}
    project.write(gateway)
    project.up()
    project.on_host(f"grep -q 777 {GATEWAY}")

    project.write(gateway | REFUSED)
    with Watcher(project, tmp_path) as seen:
        fails(project, REASON, BACK)
    assert set(seen) == {"answered", "503 with Retry-After"}
    assert serves(project, tmp_path)
    assert project.on_host(f"cat {UNIT}; grep -q 777 {GATEWAY}") == unit
    assert project.on_host("stat -c '%a %U' /var/lib/pulumi-vllm/ready.json").strip() == "600 root"

    # The change is still to be made, and is tried again. Without it, nothing is to be done.
    shown = project.pulumi("preview").stdout
    assert f"restored on the host after an update that failed: {UNIT}" in shown
    assert "changed on the host" not in shown
    assert "`pulumi up` restarts vLLM" in shown
    assert project.changes().get("update") == 2  # files and service
    fails(project, REASON, BACK)
    project.write(gateway)
    assert set(project.changes()) == {"same"}
    assert serves(project, tmp_path)


@pytest.mark.all
def test_a_hostname_and_its_certificate_come_back_together(projects):
    project = projects("fake")
    access = project.block["access"]
    good = project.block | {"access": access | {"hostname": "a.example.com"}}
    project.write(good)
    project.up()
    assert "DNS:a.example.com" in project.on_host(PRESENTED)
    project.write(good | {"access": access | {"hostname": "b.example.com"}} | REFUSED)
    fails(project, REASON, BACK)
    assert "DNS:a.example.com" in project.on_host(PRESENTED)
    shown = project.pulumi("preview").stdout
    assert "/etc/pulumi-vllm/gateway/tls.pem" in shown
    assert "does not answer" not in shown
    # The flag alone is corrected. The new name is still to be served.
    project.write(good | {"access": access | {"hostname": "b.example.com"}})
    project.up()
    assert "DNS:b.example.com" in project.on_host(PRESENTED)
    assert set(project.changes()) == {"same"}


@pytest.mark.all
def test_ctrl_c_in_a_drain_leaves_the_gateway_open(projects, tmp_path):
    project = projects("fake", drain_timeout_s=5)
    project.up()
    project.write(project.block | {"engine": {"flags": {"max-num-batched-tokens": 1024}}})
    with streams(project, tmp_path):
        running = project.start("up", "--yes", "--skip-preview")
        wait_for(lambda: project.on_host(DRAINED), 60, "drain")
        running.send_signal(signal.SIGINT)
        out, _ = running.communicate(timeout=180)
    assert running.returncode, out
    wait_for(lambda: answers(project, tmp_path), 60, "answer after Ctrl-C")
    assert not project.on_host(DRAINED)
    project.up()
    assert set(project.changes()) == {"same"}


@contextlib.contextmanager
def streams(project, folder):
    """Keep four long answers running, until the gateway admits no more."""
    outputs = project.outputs()
    ai = client(outputs, folder)
    ended = threading.Event()

    def run():
        with contextlib.suppress(openai.APIError, openai.APIConnectionError):
            while not ended.is_set():
                for _ in chat_long(ai, outputs["model"], 1500):
                    pass

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


@pytest.mark.all
def test_an_update_that_is_killed_before_a_reboot_comes_back_by_itself(projects, tmp_path):
    project = projects("fake")
    good = project.block
    project.up()
    unit, boot = project.on_host(f"cat {UNIT}"), project.on_host(BOOT)

    project.write(good | REFUSED)
    running = project.start("up", "--yes", "--skip-preview")
    wait_for(lambda: "/nowhere" in project.on_host(f"cat {UNIT}"), 120, "changed unit")
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()
    project.pulumi("cancel", "--yes")
    project.on_host("systemctl reboot", check=False)

    wait_for(lambda: project.on_host(BOOT, check=False) not in ("", boot), 120, "boot")
    wait_for(lambda: project.on_host(f"cat {UNIT}", check=False) == unit, BY_ITSELF_WITHIN_S, "previous unit")
    wait_for(lambda: project.on_host("cat /run/pulumi-vllm/readiness.json", check=False), 60, "result")
    assert serves(project, tmp_path)
    assert "are those again that vLLM was ready with" in project.on_host("journalctl -o cat -u vllm-rollback")

    fails(project, REASON, BACK)
    project.write(good)
    project.up()
    assert set(project.changes()) == {"same"}


@pytest.mark.all
def test_an_engine_that_does_not_start_is_rolled_back(projects, tmp_path):
    block = shipped("spheron-h200-1x-fp8") | {"engine": {"version": "0.26.0"}}
    project = projects("fake")
    project.write(block)
    project.up()
    minor = project.on_host("python3 -c 'import sys; print(*sys.version_info[:2], sep=\".\")'").strip()
    digests = {
        version: [hashlib.sha256(lock.encode()).hexdigest() for lock in engine_locks.of(version).values()]
        for version in ("0.26.0", "0.33.0")
    }
    new = hashlib.sha256(engine_locks.of("0.33.0")[minor].encode()).hexdigest()
    # As if both were installed from their locks, the second one with another CUDA than the host's. The stamp of the
    # fake engine names the locks of all engines.
    project.on_host(
        f"""
        cp -a /opt/vllm /opt/vllm-{new[:12]}
        sed -i -E '/{"|".join(digests["0.33.0"])}/d' /opt/vllm/.stamp
        sed -i -E '/{"|".join(digests["0.26.0"])}/d' /opt/vllm-{new[:12]}/.stamp
        echo 'raise ImportError("libcudart.so.13: cannot open shared object file")' \\
            > /opt/vllm-{new[:12]}/lib/python{minor}/site-packages/vllm/__init__.py
        """
    )
    project.write(block | {"engine": {"version": "0.33.0"}})
    shown = fails(project, "ImportError: libcudart.so.13: cannot open shared object file", BACK)
    assert "the previous files and engine are back" in shown
    assert serves(project, tmp_path)
    assert project.on_host("readlink /opt/vllm").strip() == "vllm-before"
    assert project.changes().get("update", 0) >= 2
    project.write(block)
    assert set(project.changes()) == {"same"}

    # Repaired, it is switched to. The previous engine stays.
    project.on_host(
        f"cp -a /opt/vllm/lib/python{minor}/site-packages/vllm /opt/vllm-{new[:12]}/lib/python{minor}/site-packages"
    )
    project.write(block | {"engine": {"version": "0.33.0"}})
    project.up()
    assert serves(project, tmp_path)
    assert project.on_host("readlink /opt/vllm; ls -d /opt/vllm-*").split() == [
        f"vllm-{new[:12]}", f"/opt/vllm-{new[:12]}", "/opt/vllm-before",
    ]  # fmt: skip


@pytest.mark.all
def test_other_weights_that_do_not_serve_are_rolled_back(projects, tmp_path):
    block = shipped("spheron-h200-1x-fp8")
    project = projects("fake")
    project.write(block)
    project.up()
    before = project.outputs()["evidence"]["revision"]
    project.write(block | {"precision": "nvfp4", "engine": {**block["engine"], "flags": FLAGS}})
    fails(project, REASON, BACK)
    assert serves(project, tmp_path)
    assert before in project.on_host("tr '\\0' ' ' </proc/$(systemctl show -P MainPID vllm)/cmdline")
    assert before in project.on_host("cat /etc/pulumi-vllm/weights.json")
    project.write(block)
    project.up()  # the state names the other weights
    assert set(project.changes()) == {"same"}
    project.write(block | {"precision": "nvfp4"})
    project.up()
    assert project.outputs()["evidence"]["revision"] != before
    assert serves(project, tmp_path)


@pytest.mark.all
def test_the_real_engine_is_rolled_back(projects, tmp_path):
    project = projects("real")
    good = project.block
    project.up()
    project.write(good | REFUSED)
    fails(project, REASON, BACK)
    assert serves(project, tmp_path)
    project.write(good)
    assert set(project.changes()) == {"same"}
