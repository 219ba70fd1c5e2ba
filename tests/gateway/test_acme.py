"""A certificate from an ACME server over a DNS challenge, as in docs/how-to/bring-a-certificate.md, and its renewal.

Pebble is Let's Encrypt's own server for tests; lego is the client inside Pulumi's providers for ACME.
"""

import asyncio
import contextlib
import json
import os
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from pulumi_vllm.provider.resources.certificate_problems import problems
from pulumi_vllm.provider.resources.custom_certificate import CustomCertificate
from rendered_gateway import certificate, free_port, program

NAME = "llm.example.com"
# lego calls it as `present|cleanup NAME VALUE`; it lays the answer to the challenge into the name server.
ANSWER = """#!{python}
import json, sys, urllib.request
what, name, value = sys.argv[1:4]
body = {{"host": name, "value": value}} if what == "present" else {{"host": name}}
where = "http://127.0.0.1:{port}/" + ("set-txt" if what == "present" else "clear-txt")
urllib.request.urlopen(where, json.dumps(body).encode(), timeout=10).close()
"""


@dataclass
class Acme:
    """Pebble and its name server on loopback, and what lego needs to ask them."""

    folder: Path
    port: int
    management: int
    dns: int

    def ask(self, *words):
        """The chain and the key that lego gets."""
        command = [
            program("lego"), "--server", f"https://127.0.0.1:{self.port}/dir",
            "--email", "a@example.com", "--accept-tos",
            "--domains", NAME, "--path", str(self.folder / "lego"), "--dns", "exec", "--dns.disable-cp",
            "--dns.resolvers", f"127.0.0.1:{self.dns}", *words,
        ]  # fmt: skip
        environment = {
            "LEGO_CA_CERTIFICATES": str(self.folder / "ca.pem"),
            "EXEC_PATH": str(self.folder / "answer"),
            "PATH": os.environ["PATH"],
        }
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        got = self.folder / "lego/certificates"
        return (got / f"{NAME}.crt").read_text(), (got / f"{NAME}.key").read_text()

    def root(self):
        """What clients know: it is made anew with each start of Pebble."""
        context = ssl.create_default_context(cafile=self.folder / "ca.pem")
        where = f"https://127.0.0.1:{self.management}/roots/0"
        with urllib.request.urlopen(where, timeout=10, context=context) as answer:
            return answer.read().decode()


@pytest.fixture
def acme(tmp_path):
    folder = tmp_path / "acme"
    folder.mkdir()
    certificate(folder)  # of Pebble's own API
    made = Acme(folder, free_port(), free_port(), free_port())
    challenges = free_port()
    answer = folder / "answer"
    answer.write_text(ANSWER.format(python=sys.executable, port=challenges))
    answer.chmod(0o755)
    pebble = {
        "listenAddress": f"127.0.0.1:{made.port}", "managementListenAddress": f"127.0.0.1:{made.management}",
        "certificate": str(folder / "leaf.pem"), "privateKey": str(folder / "leaf.key"),
        "httpPort": 80, "tlsPort": 443, "ocspResponderURL": "",
    }  # fmt: skip
    (folder / "pebble.json").write_text(json.dumps({"pebble": pebble}))
    names, off = f"127.0.0.1:{made.dns}", ["-http01", "", "-https01", "", "-tlsalpn01", ""]
    commands = (
        [program("pebble-challtestsrv"), "-management", f"127.0.0.1:{challenges}", "-dns01", names, *off],
        [program("pebble"), "-config", str(folder / "pebble.json"), "-dnsserver", names],
    )  # fmt: skip
    with contextlib.ExitStack() as running:
        log = running.enter_context((folder / "log").open("wb"))
        for command in commands:
            process = running.enter_context(
                subprocess.Popen(
                    command, stdout=log, stderr=log, env={**os.environ, "PEBBLE_VA_NOSLEEP": "1"}
                )
            )
            running.callback(process.kill)
        end = time.monotonic() + 30
        while True:
            with contextlib.suppress(urllib.error.URLError):
                made.root()
                break
            assert time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.05)
        yield made


async def shown(gateway, root):
    """The serial number of the certificate that a client sees who knows the root alone."""
    context = ssl.create_default_context(cadata=root)
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port, ssl=context, server_hostname=NAME)
    peer = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(peer).serial_number


@pytest.mark.ci
async def test_a_certificate_of_an_acme_server_and_its_renewal(acme, gateways):
    gateway, serials = gateways(), []
    root = await asyncio.to_thread(acme.root)
    with pytest.raises(ssl.SSLCertVerificationError):
        await shown(gateway, root)
    for words in (["run"], ["renew", "--days", "36500", "--no-random-sleep"]):
        chain, key = await asyncio.to_thread(acme.ask, *words)
        assert chain.count("BEGIN CERTIFICATE") == 2, "leaf and intermediate"
        assert problems(chain, key, NAME) == []
        inputs = {"certificate": chain, "privateKey": key, "hostname": NAME}
        _, given = await CustomCertificate().create(None, inputs)
        (gateway.folder / "tls.pem").write_text(given["pem"])
        await asyncio.to_thread(gateway.reload)
        wanted = x509.load_pem_x509_certificate(chain.encode()).serial_number
        for _ in range(600):  # for a moment the worker from before the reload still takes connections
            with contextlib.suppress(ssl.SSLCertVerificationError):
                serials.append(await shown(gateway, root))
                if serials[-1] == wanted:
                    break
            await asyncio.sleep(0.05)
        assert serials[-1] == wanted
    assert len(set(serials)) == 2
