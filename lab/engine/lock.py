#!/usr/bin/env python3
"""Write the hashed locks of an engine, or the lock of uv.

usage: lock.py 0.26.0              locks the requirements under `locked` in engine.yaml of that version
       lock.py 0.33.0 11 12 13     the same for these Python minor versions only: 0.32.0 and newer need 3.11
       lock.py uv==0.13.9          locks the uv that installs an engine

uv resolves one lock per Python minor version, for Linux x86-64 with glibc 2.35 or newer (Ubuntu 22.04, Debian 12).
An overrides.txt beside engine.yaml is honoured. A lock is copied to every host, so it keeps only the hashes of wheels
that such a host can install. At the end import_check.py proves that the locked packages fit together.
"""

import datetime as dt
import pathlib
import subprocess
import sys
import tempfile
import tomllib

import yaml
from packaging import tags, utils

ENGINES = pathlib.Path(__file__).resolve().parents[2] / "components/pulumi_vllm/plan/data/engines"
MINORS = (10, 11, 12, 13)
GLIBC = 35
SETTLED_DAYS = 7  # a release younger than this may still be withdrawn


def platforms() -> list[str]:
    """Return the platform tags of such a host, best first."""
    modern = [f"manylinux_2_{minor}_x86_64" for minor in range(GLIBC, 4, -1)]
    return [*modern, "manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"]


def resolve(requirements: list[str], overrides: pathlib.Path, minor: int, newest: str) -> list[dict]:
    """Return the packages that uv chooses, each with all of its wheels."""
    with tempfile.TemporaryDirectory() as folder:
        wanted, found = pathlib.Path(folder, "requirements.in"), pathlib.Path(folder, "pylock.toml")
        wanted.write_text("\n".join(requirements) + "\n")
        command = ["uv", "pip", "compile", "--quiet", "--format", "pylock.toml", "--generate-hashes"]
        command += ["--only-binary", ":all:", "--exclude-newer", newest, "--python-version", f"3.{minor}"]
        command += ["--python-platform", f"x86_64-manylinux_2_{GLIBC}", "-o", str(found), str(wanted)]
        if overrides.exists():
            command += ["--overrides", str(overrides)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return tomllib.loads(found.read_text())["packages"]


def lines(package: dict, fitting: frozenset[tags.Tag]) -> str:
    """Return the lines of one package in a requirements file."""
    hashes = []
    for wheel in package["wheels"]:
        name = wheel.get("name") or wheel["url"].rsplit("/", 1)[-1]
        if utils.parse_wheel_filename(name)[3] & fitting:
            hashes.append(wheel["hashes"]["sha256"])
    if not hashes:
        sys.exit(
            f"{package['name']} {package['version']}: no wheel for Linux x86-64 with glibc 2.35; choose another version"
        )
    return " \\\n".join(
        [f"{package['name']}=={package['version']}", *(f"    --hash=sha256:{one}" for one in sorted(hashes))]
    )


def locked(requirements: list[str], overrides: pathlib.Path, minor: int, left_out: list[str]) -> str:
    """Return the text of one lock."""
    newest = (dt.datetime.now(dt.UTC) - dt.timedelta(days=SETTLED_DAYS)).date().isoformat()
    python = (3, minor)
    fitting = frozenset(tags.cpython_tags(python, platforms=platforms())) | frozenset(
        tags.compatible_tags(python, f"cp3{minor}", platforms())
    )
    packages = resolve(requirements, overrides, minor, newest)
    kept = (package for package in packages if package["name"] not in left_out)
    return "\n".join(lines(package, fitting) for package in kept) + "\n"


def main() -> None:
    """Write the locks of one engine version, or that of uv."""
    wanted, *minors = sys.argv[1:]
    if wanted.startswith("uv=="):
        (ENGINES / "requirements-uv.txt").write_text(locked([wanted], ENGINES / "none", MINORS[0], []))
        return
    folder = ENGINES / wanted
    engine = yaml.safe_load((folder / "engine.yaml").read_text())
    for minor in map(int, minors or MINORS):
        text = locked(engine["locked"], folder / "overrides.txt", minor, engine["left_out"])
        (folder / f"requirements-3.{minor}.txt").write_text(text)
        print(f"{wanted}: python 3.{minor}, {text.count('==')} packages, {len(text) // 1024} KiB")
    subprocess.run([sys.executable, pathlib.Path(__file__).with_name("import_check.py"), wanted], check=True)


if __name__ == "__main__":
    main()
