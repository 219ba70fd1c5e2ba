"""The record of the files with which a unit starts."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

from tests.host_programs.conftest import PROGRAMS


def test_a_record_holds_invocation_and_digests(tmp_path):
    unit, drop_in, environment, config = (tmp_path / name for name in ("unit", "a.conf", "env", "cfg"))
    of_every_service = tmp_path / "service.d" / "lxc.conf"
    of_every_service.parent.mkdir()
    for file in (unit, drop_in, of_every_service, environment, config):
        file.write_text(file.name)
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(
        f"""#!/bin/sh
echo FragmentPath={unit}
echo DropInPaths={of_every_service} {drop_in} {tmp_path}/gone.conf
echo 'EnvironmentFiles={environment} (ignore_errors=no)'
echo 'EnvironmentFiles=/run/pulumi-vllm-gateway/environment (ignore_errors=yes)'
"""
    )
    systemctl.chmod(0o755)
    records = tmp_path / "starts"
    subprocess.run(
        [sys.executable, PROGRAMS / "record-start", "--directory", records, "a.service", config],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "INVOCATION_ID": "abc"},
        check=True,
    )
    record = json.loads((records / "a.service.json").read_text())
    assert record["invocation"] == "abc"
    expected = {
        str(file): hashlib.sha256(file.name.encode()).hexdigest()
        for file in (unit, drop_in, environment, config)
    }
    assert record["files"] == expected
    assert (records / "a.service.json").stat().st_mode & 0o777 == 0o600
