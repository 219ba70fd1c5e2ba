"""The Pulumi CLI, run in this folder for what it prints."""

import os
import subprocess
from collections.abc import Mapping
from typing import Final

_NO_PROJECT: Final = "no Pulumi.yaml project file found here or above; run this in the project's folder"
# Words of the CLI → the sentence that takes their place. {} is the CLI's own sentence.
_REMEDIES: Final = {
    "no Pulumi.yaml project file found": _NO_PROJECT,
    "pass the fully qualified name": _NO_PROJECT,
    "no stack named": "{}; `pulumi stack ls` lists the project's",
    "PULUMI_ACCESS_TOKEN must be set": "the CLI is logged in to no backend; run `pulumi login`, or with --local",
}


class PulumiCliError(Exception):
    """The CLI is missing, did not finish in time, or failed. What it printed on stdout is not in the message."""


class CliMissingError(PulumiCliError):
    """There is no Pulumi CLI on PATH."""


def run_pulumi(
    *words: str, timeout_s: float, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `pulumi` without questions and without colours, and return what it printed and its exit code.

    `environment` is added to this process's.

    Raises:
        PulumiCliError: the CLI is missing, or did not finish within `timeout_s` seconds.
    """
    try:
        return subprocess.run(
            ["pulumi", "--non-interactive", "--color", "never", *words],
            env=os.environ | {"PULUMI_SKIP_UPDATE_CHECK": "1"} | dict(environment or {}),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
            timeout=timeout_s,
        )
    except OSError:
        raise CliMissingError("pulumi is not on PATH; install the Pulumi CLI") from None
    except subprocess.TimeoutExpired:
        raise PulumiCliError(f"`{_shown(words)}` did not finish within {timeout_s:.0f} s") from None


def pulumi_output(*words: str, timeout_s: float, environment: Mapping[str, str] | None = None) -> str:
    """Return what `pulumi` prints on stdout.

    Raises:
        PulumiCliError: the CLI is missing, did not finish in time, or failed; with its first error.
    """
    done = run_pulumi(*words, timeout_s=timeout_s, environment=environment)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        first = next((line for line in lines if line.startswith("error:")), " ".join(lines))
        reason = first.removeprefix("error:").strip() or f"exit code {done.returncode}"
        raise PulumiCliError(f"`{_shown(words)}` failed: {with_remedy(reason)}")
    return done.stdout


def with_remedy(reason: str) -> str:
    """Return why the CLI failed, with what to do where that is known."""
    found = (text.format(reason) for begin, text in _REMEDIES.items() if begin in reason)
    return next(found, reason)


def _shown(words: tuple[str, ...]) -> str:
    """Return the command without its options."""
    named = []
    for word in words:
        if word.startswith("-"):
            break
        named.append(word)
    return " ".join(["pulumi", *named])
