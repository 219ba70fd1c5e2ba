"""Flags, an engine or weights with which vLLM does not become ready: the previous ones come back and serve."""

import ssl
import threading
from collections import Counter

import openai
from harness import client

REFUSED = {"engine": {"flags": {"chat-template": "/nowhere/template.jinja"}}}
REASON = (
    "The supplied chat template (/nowhere/template.jinja) looks like a file path, but it failed to be opened"
)
BACK = "back, and vLLM serves again with them; correct the change, then run `pulumi up` again"
UNIT = "/etc/systemd/system/vllm.service"
GATEWAY = "/etc/pulumi-vllm/gateway/haproxy.cfg"


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
    assert project.changes().get("update") == 2  # files and service
    fails(project, REASON, BACK)
    project.write(gateway)
    assert set(project.changes()) == {"same"}
    assert serves(project, tmp_path)
