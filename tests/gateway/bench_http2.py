"""Whether the refusal of a large body reaches a client: `python tests/gateway/bench_http2.py`, with curl.

The rendered haproxy.cfg as it is (HTTP/1.1), and with HTTP/2 offered. Bodies of 2, 8 and 64 MiB, a limit of 1 MiB.
"""

import collections
import subprocess
import tempfile
from pathlib import Path

from backend import Backend
from rendered_gateway import KEYS, Gateway

OFFERED = {"alpn http/1.1 proto h1": "alpn h2,http/1.1"}
TRIES = 15


def status(there: Gateway, protocol: str, body: Path, *expect: str) -> str:
    """What curl got, or its error."""
    command = [
        "curl",
        "--silent",
        f"--http{protocol}",
        *expect,
        "--max-time",
        "15",
        "--cacert",
        str(there.ca),
    ]
    command += ["--output", "/dev/null", "--write-out", "%{http_code}", "--config", "-"]
    command += ["--data-binary", f"@{body}", f"{there.url}/completions"]
    key = f'header = "Authorization: Bearer {KEYS["team-a"]}"\n'
    done = subprocess.run(command, input=key, capture_output=True, text=True, check=False)
    return f"status {done.stdout}" if done.returncode == 0 else f"curl's error {done.returncode}"


def main(folder: Path, backend: Backend) -> None:
    for protocol, changes in (("1.1", {}), ("2", OFFERED)):
        with Gateway(folder / protocol, backend.port, changes=changes, max_body_mib=1) as there:
            found: collections.Counter[str] = collections.Counter()
            for mib in (2, 8, 64):
                (folder / "body").write_bytes(b"x" * (mib << 20))
                for expect in ((), ("--header", "Expect: 100-continue")):
                    found.update(status(there, protocol, folder / "body", *expect) for _ in range(TRIES))
            print(f"HTTP/{protocol}: {dict(found)}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place, Backend() as running:
        main(Path(place), running)
