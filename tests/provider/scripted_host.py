"""A host that answers from a script, and a request of the engine on it."""

import asyncio
import hashlib
import json
from types import SimpleNamespace

from pulumi_vllm.host.errors import HostError, Unreachable
from pulumi_vllm.host.facts import Facts
from pulumi_vllm.host.mask import mask
from pulumi_vllm.host.ssh import Result
from pulumi_vllm.provider.resources.service import Service

UNIT = "/etc/systemd/system/vllm.service"
DIRECTORY = "/models/weights/o/n/f"
FILES = {
    "files": {UNIT: "[Unit]\n", "/etc/pulumi-vllm/key": "key=@@secret:k@@\n"},
    "attributes": {UNIT: "0644 root:root", "/etc/pulumi-vllm/key": "0600 root:root"},
    "actions": {UNIT: "restart vllm.service", "/etc/pulumi-vllm/key": "reload haproxy.service"},
    "secrets": {"k": "hunter2"},
}


def file(text, mode):
    digest = hashlib.sha256(text.encode()).hexdigest()
    return {"text": mask(text), "mode": mode, "owner": "root:root", "sha256": digest}


class Host:
    """A host: its facts, and what it prints for a script that contains a word."""

    def __init__(self, facts=None, **answers):
        self.observed, self.ran, self.written = facts or {}, [], []
        self.answers = {"rollback.json": '{"nothing": "vLLM was not ready on this host"}'} | answers
        self.client = ""
        self.failures = {}

    async def run(self, script, **_):
        self.ran.append(script)
        for word, failure in self.failures.items():
            if word in script:
                raise failure
        for word, answer in self.answers.items():
            if word in script:
                return Result(answer, "", 0)
        return Result("", "", 0)

    async def client_address(self):
        return self.client

    async def put(self, files):
        self.written = [file.path for file in files]
        self.texts = {file.path: file.data.decode() for file in files}
        return tuple(self.written)


class Call:
    """A request that records what it reports, on a host; None stands for an unreachable one."""

    name = "server-resource"
    instance_status = "running"
    unreadable = False

    def __init__(self, host):
        self.host, self.lines, self.failure = host, [], Unreachable("root@192.0.2.7: can't be reached")
        instances = SimpleNamespace(get=lambda _: SimpleNamespace(status=self.instance_status))
        self.session = SimpleNamespace(
            hosts=lambda: self, ask=asyncio.to_thread, cloud=lambda: SimpleNamespace(instances=instances)
        )

    async def progress(self, line):
        self.lines.append(line)

    warn = info = progress

    async def sleep(self, _seconds):
        return

    async def get(self, *_):
        if self.host is None:
            raise self.failure
        return self.host

    async def facts(self, host, **_):
        if self.unreadable:
            raise HostError("root@192.0.2.7: the probe's output can't be read")
        return Facts.parse({"probe": 1, **host.observed})

    def mark_changed(self, _host):
        return


CONNECTION = {"instanceId": "i", "connection": {"host": "192.0.2.7", "privateKey": "pem"}}
DECLARED = {**CONNECTION, **FILES, "directory": DIRECTORY, "repository": "o/n", "revision": "f" * 40}
DECLARED |= {"engineVersion": "0.26.0", "weightsRevision": "f" * 40, "servingDigest": "d"}
SERVICE = {**CONNECTION, "engineVersion": "0.26.0", "weightsRevision": "f" * 40, "servingDigest": "d"}


async def start(host, old=None, **more):
    new = {**SERVICE, **more}
    await Service().check(None, new, None)
    return await Service().update(Call(host), "id", old or new, new)


def readiness(engine="active", check="activating", result=None, before="inactive"):
    text = json.dumps(result) if result else ""
    failed = '"passed": false'
    return {"ActiveState vllm-readiness": f"{engine}\n{check}\n{text}", failed: f"{before}\n"}
