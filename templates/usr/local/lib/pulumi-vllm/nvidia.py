"""The GPUs and the driver, as nvidia-smi reports them, and what to do about what is wrong with them."""

from __future__ import annotations

import functools
import re
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import dataclass

from reporting import Failure, printable

# Beyond this, other programs hold memory that vLLM counts on. An idle H100 or H200 reports 0 MiB; a monitor takes some.
MEMORY_OF_OTHERS_MIB = 1024
# Two drivers may report the memory of one card differently; two sizes of one kind differ by 15 % or more.
MEMORY_TOLERANCE = 0.02
# In the driver's name. A GPU named without a form is the module on a board (SXM), where one exists. The cards are other
# GPUs: slower, with other links.
FORMS = ("PCIe", "NVL")
ANOTHER = "use another machine"
REBOOT = f"reboot the machine; if that does not help, {ANOTHER}"
IMAGE = "the image has no working NVIDIA driver, choose another operating system"
# A part of nvidia-smi's message, and its remedy. The first that matches counts.
REMEDIES = (
    ("version mismatch", "the driver was updated while its old kernel module runs; reboot the machine"),
    ("GPU is lost", f"a GPU no longer answers; {REBOOT}"),
    ("Unable to determine the device handle", f"a GPU no longer answers; {REBOOT}"),
    ("requires reset", f"a GPU has to be reset; {REBOOT}"),
    ("did not answer", f"the driver hangs; {REBOOT}"),
    ("No devices were found", f"the machine has no GPU; {ANOTHER}"),
)


@dataclass(frozen=True)
class Gpu:
    """One GPU. A text that the driver could not read is kept as it is."""

    index: int
    name: str
    memory: str
    memory_mib: int | None
    used_mib: int | None
    mig: str
    wants: tuple[str, ...]  # what the driver asks for, such as "Reset"
    processes: dict[int, int]  # process: MiB

    def __str__(self) -> str:
        """Name and memory, as a person reads it."""
        return f"{self.name} ({self.memory})"


def output(*command: str, timeout_s: float = 60.0) -> str:
    """Standard output of a program. Raises Failure with the program's own message."""
    try:
        run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    except FileNotFoundError:
        raise Failure(f"{command[0]} is not installed") from None
    except OSError as error:
        raise Failure(f"{command[0]} can't be started ({error.strerror})") from None
    try:
        out, errors = run.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        run.kill()  # not waited for: a process inside a driver that hangs does not end
        raise Failure(f"`{' '.join(command)}` did not answer within {timeout_s:.0f} s") from None
    if run.returncode:
        reason = printable(errors or out) or run.returncode
        raise Failure(f"`{' '.join(command)}` failed: {reason}")
    return out.strip()


@functools.cache
def report(timeout_s: float) -> tuple[str, tuple[Gpu, ...]] | Failure:
    """The version of the driver and the GPUs, or why they can't be read. nvidia-smi is asked once."""
    try:
        text = output("nvidia-smi", "-q", "-x", timeout_s=timeout_s)
        log = ET.fromstring(text)  # noqa: S314 - from the driver's own program
    except Failure as failure:
        remedy = next((remedy for part, remedy in REMEDIES if part in str(failure)), IMAGE)
        return Failure(f"{failure}; {remedy}")
    except ET.ParseError as error:
        remedy = next((remedy for part, remedy in REMEDIES if part in text), REBOOT)
        return Failure(f"`nvidia-smi -q -x` printed no XML ({error}: {printable(text)[:80]}); {remedy}")
    gpus = tuple(parsed(index, gpu) for index, gpu in enumerate(log.findall("gpu")))
    return (log.findtext("driver_version") or "").strip(), gpus


def installed(timeout_s: float) -> tuple[str, tuple[Gpu, ...]]:
    """The version of the driver and the GPUs. Raises Failure with the remedy."""
    found = report(timeout_s)
    if isinstance(found, Failure):
        raise found
    return found


def parsed(index: int, gpu: ET.Element) -> Gpu:
    """One GPU of the XML report."""

    def value(path: str) -> str:
        return (gpu.findtext(path) or "").strip()

    action = value("gpu_recovery_action")
    wants = [action] if action.lower() not in ("", "none", "n/a", "[n/a]", "not supported") else []
    wants += ["Reset"] if value("gpu_reset_status/reset_required") == "Yes" else []
    wants += ["Reset"] if any("requires reset" in (part or "").lower() for part in gpu.itertext()) else []
    processes = {
        int(one.findtext("pid") or 0): mebibytes(one.findtext("used_memory") or "") or 0
        for one in gpu.findall("processes/process_info")
    }
    return Gpu(
        index,
        value("product_name") or "a GPU without a name",
        value("fb_memory_usage/total") or "unknown memory",
        mebibytes(value("fb_memory_usage/total")),
        mebibytes(value("fb_memory_usage/used")),
        value("mig_mode/current_mig"),
        tuple(dict.fromkeys(wants)),
        processes,
    )


def mebibytes(text: str) -> int | None:
    """The number of a text such as "143771 MiB", or None."""
    found = re.fullmatch(r"(\d+) MiB", text.strip())
    return int(found[1]) if found else None


def of_kind(gpus: tuple[Gpu, ...], family: str) -> list[Gpu]:
    """The GPUs whose name contains the family as words of its own: H20 is no H200."""
    return [gpu for gpu in gpus if contains(gpu.name, family)]


def contains(name: str, wanted: str) -> bool:
    """Whether a name contains words of its own, with or without spaces between letters and digits."""
    parts = re.findall(r"[A-Za-z]+|\d+", wanted)
    kind = rf"(?<![A-Z0-9]){'[ _-]?'.join(map(re.escape, parts))}(?![A-Z0-9])"
    return bool(re.search(kind, name, re.IGNORECASE))


def unfit(gpu: Gpu, wanted: str, named: list[str], memory_mib: int, ours: frozenset[int]) -> list[str]:
    """What is wrong with one GPU of the right family, each with its remedy. `named` are words of the driver's name."""
    found = []
    name = f"GPU {gpu.index} ({gpu})"
    if gpu.wants:
        return [f"{name}: the driver asks for: {', '.join(gpu.wants)}; {REBOOT}"]
    form = next((form for form in FORMS if contains(gpu.name, form)), None)
    planned_form = next((form for form in FORMS if form in named), None)
    if form != planned_form:
        what = f"the {form} card" if form else "a module on a board"
        found.append(f"{name}: {what} is not the {wanted} that was planned; {ANOTHER}")
    elif gpu.memory_mib is None:
        found.append(f"{name}: its memory can't be read; {REBOOT}")
    elif memory_mib and abs(gpu.memory_mib - memory_mib) > MEMORY_TOLERANCE * memory_mib:
        planned = f"the plan counts on {memory_mib} MiB"
        found.append(f"{name}: {planned}; {ANOTHER}")
    if gpu.mig == "Enabled":
        switch = f"`nvidia-smi -i {gpu.index} -mig 0`, then reboot"
        found.append(f"{name}: MIG divides it, and vLLM needs it whole; {switch}, or {ANOTHER}")
    own = sum(used for pid, used in gpu.processes.items() if pid in ours)
    # Without a list of processes, as in some containers, a running vLLM can't be told from others.
    if gpu.used_mib is not None and (gpu.processes or not ours):
        others = {pid: used for pid, used in gpu.processes.items() if pid not in ours}
        if gpu.used_mib - own > MEMORY_OF_OTHERS_MIB:
            processes = ", ".join(f"process {pid} {used} MiB" for pid, used in others.items())
            holder = (
                processes or "no process of this machine is listed, so another machine may share the card"
            )
            remedy = "end them" if others else ANOTHER
            found.append(f"{name}: {gpu.used_mib - own} MiB are in use by others ({holder}); {remedy}")
    return found
