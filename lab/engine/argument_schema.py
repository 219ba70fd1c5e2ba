#!/usr/bin/env python3
"""Write arguments.json of an engine from the command-line parser of its own wheel.

usage: argument_schema.py [--stdout] 0.26.0 ...

uv installs the wheel into a temporary environment of about 5 GB. No GPU is needed. The file keeps the name, kind, type
and choices of each argument. A type is found by trying values, because the name of the parser's function does not
tell which values it accepts. With --stdout the file is printed.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import yaml

ENGINES = pathlib.Path(__file__).resolve().parents[2] / "components/pulumi_vllm/plan/data/engines"
# Large, and not needed to build the parser: kernels, image and sound codecs, compilers.
LEFT_OUT = (
    "flashinfer", "humming-kernels", "nvidia-cuda-nvcc", "nvidia-cutlass", "nvidia-cudnn-frontend", "opencv", "pynvvideocodec",
    "quack-kernels", "tilelang", "tokenspeed", "torchaudio", "torchcodec", "torchvision", "z3-solver",
)  # fmt: skip
PYTHON = f"3.{sys.version_info.minor}"

ASK = r"""
import importlib, json, sys
import vllm.platforms
from vllm.platforms.cpu import CpuPlatform
vllm.platforms._current_platform = CpuPlatform()  # a wheel for CUDA finds no device on this machine
for name in ("common", "launchers", "openai"):
    try:
        cli_args = importlib.import_module(f"vllm.entrypoints.{name}.cli_args")
        break
    except ModuleNotFoundError:
        pass
from vllm.utils.argparse_utils import FlexibleArgumentParser as Parser
parser = cli_args.make_arg_parser(Parser())
def takes(action, text):
    try:
        (action.type or str)(text)
    except Exception:
        return False
    return True
def kind(action):
    for label, texts in (("text", ("x",)), ("json", ("{}",)), ("json", ("[]",)), ("tokens or auto", ("32k", "auto")), ("tokens", ("32k",)),
                         ("number", ("0.5",)), ("integer", ("7",))):
        if all(takes(action, text) for text in texts):
            return label
    return "text"
found = {}
for action in parser._actions:
    longs = [one for one in action.option_strings if one.startswith("--")]
    shorts = [one for one in action.option_strings if not one.startswith("--")]
    if not longs or "--help" in longs:
        continue
    no = [one for one in longs if one.startswith("--no-") and "--" + one[5:] in longs]
    names = [one[2:].replace("_", "-") for one in longs if one not in no]
    names = list(dict.fromkeys(names))
    one = {}
    if action.nargs == 0 or no:
        one["switch"] = "both" if no else "on"
    else:
        one["type"] = kind(action)
    if action.choices is not None:
        one["choices"] = [str(value) for value in action.choices]
    if action.nargs in ("*", "+", "?") or isinstance(action.nargs, int) and action.nargs > 1:
        one["words"] = str(action.nargs)
    if action.required:
        one["required"] = True
    if shorts:
        one["short"] = shorts
    if names[1:]:
        one["also"] = names[1:]
    text = (action.help or "").strip().lower()
    if getattr(action, "deprecated", False) or set(longs) & set(getattr(Parser, "_deprecated", ())) or text.startswith(("deprecated", "[deprecated", "(deprecated")):
        one["deprecated"] = True
    found[names[0]] = one
json.dump({"abbreviations": parser.allow_abbrev, "arguments": found}, open(sys.argv[1], "w"))
"""


def requirements(version: str) -> tuple[list[str], list[str]]:
    """Return the requirements to install, and uv's options for the overrides."""
    folder = ENGINES / version
    if (folder / "engine.yaml").exists():
        wanted = yaml.safe_load((folder / "engine.yaml").read_text())["locked"]
    else:
        wanted = [f"vllm=={version}"]
    overrides = folder / "overrides.txt"
    return wanted, ["--overrides", str(overrides)] if overrides.exists() else []


def dump(version: str) -> str:
    """Return the text of arguments.json."""
    wanted, overrides = requirements(version)
    with tempfile.TemporaryDirectory() as folder:
        here = pathlib.Path(folder)
        (here / "in.txt").write_text("\n".join(wanted) + "\n")
        compile_ = [
            "uv",
            "pip",
            "compile",
            "--quiet",
            "--no-header",
            "--no-annotate",
            "--only-binary",
            ":all:",
        ]
        compile_ += ["--python-version", PYTHON, "--python-platform", "x86_64-manylinux_2_35", *overrides]
        subprocess.run(
            [*compile_, "-o", here / "all.txt", here / "in.txt"], check=True, stdout=subprocess.DEVNULL
        )
        kept = [line for line in (here / "all.txt").read_text().splitlines() if not line.startswith(LEFT_OUT)]
        (here / "kept.txt").write_text("\n".join(kept) + "\n")
        subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, here / "venv"], check=True)
        python = here / "venv/bin/python"
        install = [
            "uv",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--python",
            python,
            "-r",
            here / "kept.txt",
        ]
        subprocess.run(install, check=True)
        environment = {
            "VLLM_TARGET_DEVICE": "cpu",
            "VLLM_NO_USAGE_STATS": "1",
            "HOME": folder,
            "PATH": "/usr/bin:/bin",
        }
        asked = subprocess.run(
            [python, "-c", ASK, here / "found.json"],
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if asked.returncode:
            sys.exit(f"{version}: the parser could not be built:\n{asked.stderr[-3000:]}")
        found = json.loads((here / "found.json").read_text())
    rows = ",\n".join(
        f"  {json.dumps(name)}: {json.dumps(one)}" for name, one in sorted(found["arguments"].items())
    )
    head = (
        f'{{\n "version": {json.dumps(version)},\n "abbreviations": {json.dumps(found["abbreviations"])},\n'
    )
    return f'{head} "arguments": {{\n{rows}\n }}\n}}\n'


def main() -> None:
    """Write, or print, the file of each version named."""
    for version in (word for word in sys.argv[1:] if word != "--stdout"):
        text = dump(version)
        if "--stdout" in sys.argv:
            sys.stdout.write(text)
            continue
        (ENGINES / version).mkdir(exist_ok=True)
        (ENGINES / version / "arguments.json").write_text(text)
        print(f"{version}: {len(text.splitlines()) - 5} arguments, {len(text) // 1024} KiB")


if __name__ == "__main__":
    main()
