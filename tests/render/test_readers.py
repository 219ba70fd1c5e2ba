"""The rendered files, checked by the programs that read them, and by tables of the words that old versions know."""

import configparser
import json
import os
import re
import shutil
import stat
import subprocess
import sys

import combinations
import pytest
import since
from pulumi_vllm.render import cloud_init, layout, package_files
from pulumi_vllm_local.images.image_cache import ImageCache

import stacks


def need(program):
    path = shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin") or shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed; `sudo ./dev test fast` installs it")
    return path


def run(*words):
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def units(files):
    return [file for file in files if file.path.startswith("/etc/systemd/system/")]


def test_unit_directives_are_old_enough(files):
    for file in units(files):
        parsed = configparser.ConfigParser(strict=False, interpolation=None, delimiters=["="])
        parsed.optionxform = str
        parsed.read_string(file.text.replace("\\\n", ""))
        for section in parsed.sections():
            for directive, value in parsed[section].items():
                known = since.DIRECTIVES[section]
                assert directive in known, f"{file.path}: {directive}: say in since.py since when it is known"
                assert known[directive] <= min(since.SYSTEMD), (file.path, directive)
                if directive == "Type" and section == "Service":
                    assert since.SERVICE_TYPES[value] <= min(since.SYSTEMD)


def test_haproxy_words_are_old_enough(files):
    (text,) = [file.text for file in files if file.path.endswith("/haproxy.cfg")]
    for word, known in since.haproxy_words(text):
        assert word in known, f"haproxy.cfg: {word}: say in since.py since when it is known"
        assert known[word] <= min(since.HAPROXY), word


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("    http-request set-var(txn.k) http_auth_bearer,sha2(256)", "http_auth_bearer"),
        ("    bind quic4@:443 quic ssl crt /x", "quic"),
        ("    log-format '%[bytes_in]'", "bytes_in"),
        ("    http-request pause 1s", "http-request pause"),
        ("    http-request deny if { req.ssl_hello_type gt 1 }", "req.ssl_hello_type"),
    ],
)
def test_a_word_that_is_too_new_or_unknown_is_found(line, word):
    newer = [
        word for word, known in since.haproxy_words(line) if known.get(word, (9, 9)) > min(since.HAPROXY)
    ]
    assert newer == [word]


def test_programs_parse(files):
    for file in files:
        if file.text.startswith("#!/usr/bin/python3") or file.path.endswith(".py"):
            compile(file.text, file.path, "exec")


EVERYTHING = [
    *((name, stacks) for name in stacks.NAMES),
    *((name, combinations) for name in combinations.COMBINATIONS),
]


def distinct(path):
    """The texts that a file has, in all stacks and combinations."""
    return {file.text for name, kind in EVERYTHING for file in kind.rendered(name) if file.path == path}


@pytest.mark.ci
def test_shellcheck(tmp_path):
    for text in distinct("/usr/local/lib/pulumi-vllm/bootstrap"):
        (tmp_path / "bootstrap").write_text(text)
        run(need("bash"), "-n", str(tmp_path / "bootstrap"))
        run(need("shellcheck"), str(tmp_path / "bootstrap"))


@pytest.mark.ci
def test_systemd_reads_the_units(files, host):
    """Only systemd knows its own grammar; the binaries it asks for are stubs."""
    analyze = need("systemd-analyze")
    for program in (
        "opt/vllm/bin/python",
        "usr/sbin/haproxy",
        "usr/sbin/nft",
        "usr/bin/flock",
        "usr/bin/install",
        "bin/sh",
        "bin/kill",
        "bin/rm",
        "usr/bin/touch",
    ):
        (host / program).parent.mkdir(parents=True, exist_ok=True)
        (host / program).write_text("")
        (host / program).chmod(0o755)
    (host / "usr/local/lib/pulumi-vllm/install").touch(mode=0o755)
    shutil.copytree("/usr/lib/systemd/system", host / "usr/lib/systemd/system", symlinks=True)
    (host / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nvllm:x:900:900::/var/lib/vllm:/bin/false\n")
    (host / "etc/group").write_text("root:x:0:\nvllm:x:900:\n")
    names = [file.path.rpartition("/")[2] for file in units(files)]
    output = run(analyze, "verify", f"--root={host}", "--man=no", "--recursive-errors=yes", *names)
    assert output == ""


def test_exposure_as_reviewed(stack, tmp_path):
    """What `systemd-analyze security` makes of each unit (0 best, 10 worst); another systemd counts otherwise."""
    analyze, golden = need("systemd-analyze"), stacks.ROOT / f"tests/rendered/{stack}/{stacks.EXPOSURE}"
    version = run(analyze, "--version").split()[1]
    host = stacks.laid_out(stacks.rendered(stack), tmp_path)
    lines = [f"systemd {version}: exposure of each unit, 0 best, 10 worst"]
    for unit in sorted(path for path in (host / "etc/systemd/system").glob("*.service")):
        output = run(analyze, "security", "--offline=yes", "--no-pager", str(unit))
        lines.append(re.search(r"Overall exposure level for (\S+: [\d.]+)", output)[1])
    if os.environ.get("UPDATE_GOLDENS"):
        golden.write_text("\n".join(lines) + "\n")
    reviewed = golden.read_text().splitlines()
    if reviewed[0] != lines[0]:
        pytest.skip(f"the scores were made by another version: {reviewed[0]}")
    assert reviewed == lines, f"{stack}: exposure changed; if that is meant, run with UPDATE_GOLDENS=1"


@pytest.mark.ci
def test_cloud_init_reads_the_user_data(tmp_path):
    """By the guests' own cloud-init; that one lets unknown top-level keys pass, so they are checked here."""
    inside = 'mount --bind "$1" "$2/mnt" && exec chroot "$2" cloud-init schema --config-file /mnt/user-data'
    base = ImageCache().ensure("base")
    for given in {json.dumps(cloud_init(kind.planned(name))): None for name, kind in EVERYTHING}:
        document = json.loads(given)
        assert document.keys() <= {"packages", "runcmd", "writeFiles"}, "the API takes these"
        written = {{"writeFiles": "write_files"}.get(name, name): value for name, value in document.items()}
        (tmp_path / "user-data").write_text(f"#cloud-config\n{json.dumps(written)}\n")
        output = run(need("unshare"), "-m", "sh", "-c", inside, "sh", str(tmp_path), str(base))
        assert "Valid cloud-config" in output


@pytest.mark.ci
def test_haproxy_reads_its_configuration(tmp_path):
    haproxy, gateway = need("haproxy"), tmp_path
    new = [
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=x",
    ]
    run(need("openssl"), "req", *new, "-keyout", f"{gateway}/k", "-out", f"{gateway}/c")
    (gateway / "tls.pem").write_text((gateway / "c").read_text() + (gateway / "k").read_text())
    (gateway / "keys.map").write_text("0" * 64 + " team-a\n")
    (health,) = distinct("/etc/pulumi-vllm/gateway/health.map")
    (gateway / "health.map").write_text(health)
    for limits in distinct("/etc/pulumi-vllm/gateway/limits.map"):
        (gateway / "limits.map").write_text(limits)
        for given in distinct("/etc/pulumi-vllm/gateway/haproxy.cfg"):
            text = given.replace("/etc/pulumi-vllm/gateway", str(gateway)).replace(
                "/run/pulumi-vllm-gateway", str(gateway)
            )
            text = text.replace(layout.PROGRAMS, str(package_files.templates() / layout.PROGRAMS.lstrip("/")))
            (gateway / "haproxy.cfg").write_text(re.sub(r"    (user|group) haproxy\n", "", text))
            for words in (["env"], ["env", "GATEWAY_IPV6=1"]):
                output = run(*words, haproxy, "-c", "-f", str(gateway / "haproxy.cfg"))
                assert "WARNING" not in output.upper(), output


@pytest.mark.ci
def test_nft_reads_the_firewall(tmp_path):
    # The rules name the user vllm, whom a host has before it loads them.
    users, rules = tmp_path / "passwd", tmp_path / "rules"
    users.write_text("root:x:0:0::/root:/bin/sh\nvllm:x:990:990::/:/usr/sbin/nologin\n")
    for text in distinct("/etc/pulumi-vllm/nftables.nft"):
        rules.write_text(text)
        script = f"mount --bind {users} /etc/passwd && {need('nft')} -c -f {rules}"
        run(need("unshare"), "-rnm", "sh", "-c", script)


@pytest.mark.ci
def test_the_wheel_renders_in_an_empty_place(tmp_path):
    """Only a built wheel shows that the templates and the data files travel."""
    wheels = tmp_path / "wheels"
    words = ["-m", "build", "--wheel", "--no-isolation", "--outdir", str(wheels), str(stacks.ROOT)]
    run(sys.executable, *words)
    (wheel,) = wheels.glob("*.whl")
    site = tmp_path / "site"
    shutil.unpack_archive(wheel, site, "zip")
    program = tmp_path / "render.py"
    program.write_text(
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "import yaml, pulumi_vllm.plan as p, pulumi_vllm.render as r\n"
        f"block = yaml.safe_load(open({str(stacks.ROOT / 'stacks/Pulumi.local.yaml')!r}))\n"
        "files = r.render(p.plan(p.Deployment.parse(block['config']['pulumi-vllm:server'])))\n"
        f"assert p.__file__.startswith({str(site)!r})\n"
        "print(len(files))\n"
    )
    assert int(run(sys.executable, str(program))) == len(stacks.rendered("local")) - 1


def test_modes_are_as_listed(files, host):
    for file in files:
        place = host / file.path.lstrip("/")
        assert stat.S_IMODE(place.stat().st_mode) == int(file.mode, 8)
