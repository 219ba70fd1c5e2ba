"""A project of a user of the package, created with the commands that users type."""

import os
import subprocess
from pathlib import Path

from harness import Project

THEIRS = {
    name: value for name, value in os.environ.items() if not name.startswith(("PULUMI_", "SPHERON_", "HF_"))
}


class Consumer(Project):
    """A folder that users' commands created; only the state and the home of the engine are set by the tests."""

    def __init__(self, folder: Path, stack: str, **environment: str):
        self.folder, self.stack = folder, stack
        self.environment = THEIRS | {
            "PULUMI_HOME": str(folder.parent / "home"),
            "PULUMI_BACKEND_URL": f"file://{folder.parent}/state",
            "PULUMI_CONFIG_PASSPHRASE": "test",
            "PULUMI_SKIP_UPDATE_CHECK": "1",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "PULUMI_AUTOMATION_API_SKIP_VERSION_CHECK": "1",
        } | environment  # fmt: skip
        (folder.parent / "state").mkdir(parents=True, exist_ok=True)

    def fresh_home(self) -> None:
        """Use an empty home, as on another computer; only the state stays."""
        self.environment["PULUMI_HOME"] += "-again"
        self.pulumi("stack", "select", self.stack)

    def shell(self, script: str, folder: Path | None = None) -> str:
        # `env -0` returns the exported variables, so that they apply to the next commands as in a terminal.
        done = subprocess.run(
            ["bash", "-ec", f'{script}\nenv -0 > "{self.folder.parent}/exported"'],
            cwd=folder or self.folder, env=self.environment, text=True, capture_output=True, check=False, timeout=1500,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        rows = (self.folder.parent / "exported").read_text().split("\0")
        exported = dict(row.split("=", 1) for row in rows if "=" in row)
        self.environment |= {k: v for k, v in exported.items() if k.startswith(("SPHERON_", "HF_"))}
        return done.stdout
