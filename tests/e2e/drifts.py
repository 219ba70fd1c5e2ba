"""The kinds of drift: what is done on the host, what a preview says, and what must hold after `up`."""

from dataclasses import dataclass

UNIT = "/etc/systemd/system/vllm.service"
GATEWAY = "/etc/systemd/system/haproxy.service"
ENVIRONMENT = "/etc/pulumi-vllm/vllm.env"
CONFIG = "/etc/pulumi-vllm/gateway/haproxy.cfg"
KEYS = "/etc/pulumi-vllm/gateway/keys.map"
CERTIFICATE = "/etc/pulumi-vllm/gateway/tls.pem"
ASK_HAPROXY = """
ask() { python3 -c 'import socket, sys
with socket.socket(socket.AF_UNIX) as link:
    link.connect("/run/pulumi-vllm-gateway/admin.sock")
    link.sendall(sys.stdin.buffer.read() + b"\\n")
    print(b"".join(iter(lambda: link.recv(65536), b"")).decode())'; }
"""
GPUS = "/usr/share/lc-gpu"
WEIGHT = "/models/weights/*/*/*/consolidated.safetensors"
_PROCESS = "/proc/$(systemctl show -P MainPID {unit})"
_OWNER = "stat -c %U " + _PROCESS.format(unit="vllm.service")


@dataclass(frozen=True)
class Drift:
    """One kind of drift."""

    name: str
    inject: str
    """Script for the host."""
    says: str
    """Part of the preview's warning."""
    check: str = "true"
    """Script for the host that fails if `up` has not repaired it."""
    refused: str = ""
    """Script that a person runs on the host after `up` has refused; empty if `up` repairs it."""
    restarts: bool = False
    """Whether `up` restarts vLLM."""
    secret: str = ""
    """What must appear in no preview and no state."""
    engine: str = "fake"
    """Engine of the local cloud's images; "none" for a machine on which the locked one is installed."""
    stack: str = "local"
    """The shipped stack whose machine is changed."""


DRIFTS = (
    Drift(
        "byte of a weight changed, and its hash in the manifest",
        "cd /models/weights/*/*/*/; f=$(ls *.safetensors | head -n 1); sha256sum $f > /root/w; "
        "printf x | dd of=$f conv=notrunc bs=1 seek=1000 status=none; "
        'sed -i "s/$(cut -c1-64 /root/w)/$(sha256sum $f | cut -c1-64)/" .manifest.json',
        ".manifest.json lists other files or hashes than at the last `pulumi up`",
        "cd /models/weights/*/*/*/; sha256sum -c /root/w",
        restarts=True,
    ),
    Drift(
        "byte of a weight changed",
        f"printf x | dd of=$(echo {WEIGHT}) conv=notrunc bs=1 seek=1000 status=none",
        "missing or changed since they were verified: consolidated.safetensors; `pulumi up` downloads them again",
        f"test $(stat -c %Z {WEIGHT}) -le $(stat -c %Y $(dirname {WEIGHT})/.manifest.json)",
        restarts=True,
    ),
    Drift(
        "weight file deleted",
        f"rm {WEIGHT}",
        "missing or changed since they were verified: consolidated.safetensors; `pulumi up` downloads them again",
        f"test -s {WEIGHT}",
        restarts=True,
    ),
    Drift(
        "unit edited to run as root, restarted",
        f"sed -i 's/^User=.*/User=root/; s/^NoNewPrivileges=.*//; s/^ProtectSystem=.*//' {UNIT}; "
        "systemctl daemon-reload; systemctl restart vllm",
        "vllm.service process was started with other files than declared",
        f'test "$({_OWNER})" = vllm',
        restarts=True,
    ),
    Drift(
        "line added to the environment file, restarted",
        f"echo FOREIGN=1 >> {ENVIRONMENT}; systemctl restart vllm",
        "vllm.service process was started with other files than declared",
        f"! grep -z FOREIGN {_PROCESS.format(unit='vllm.service')}/environ",
        restarts=True,
    ),
    Drift(
        "environment file changed, vLLM restarted, file put back",
        f"cp -p {ENVIRONMENT} /root/e; echo FOREIGN=1 >> {ENVIRONMENT}; systemctl restart vllm; "
        f"cp -p /root/e {ENVIRONMENT}",
        f"vllm.service process was started with other files than declared: {ENVIRONMENT}",
        f"! grep -z FOREIGN {_PROCESS.format(unit='vllm.service')}/environ",
        restarts=True,
    ),
    Drift(
        "drop-in for vLLM, restarted",
        f"mkdir -p {UNIT}.d; printf '[Service]\\nNice=5\\n' > {UNIT}.d/mine.conf; systemctl daemon-reload; "
        "systemctl restart vllm",
        f"{UNIT}.d/mine.conf",
        f"test ! -e {UNIT}.d/mine.conf; test $(ps -o ni= $(systemctl show -P MainPID vllm)) = 0",
        restarts=True,
    ),
    Drift(
        "drop-in for the gateway, restarted",
        f"mkdir -p {GATEWAY}.d; printf '[Service]\\nNice=5\\n' > {GATEWAY}.d/mine.conf; systemctl daemon-reload; "
        "systemctl restart haproxy",
        f"haproxy.service process was started with {GATEWAY}.d/mine.conf, which nobody declared",
        "test $(ps -o ni= $(systemctl show -P MainPID haproxy)) = 0",
    ),
    Drift(
        "limit of the running process changed",
        "setpriv --reuid vllm --regid vllm --clear-groups "
        "prlimit --nofile=4711:4711 --pid $(systemctl show -P MainPID vllm)",
        "vllm.service limits are open files 4711, declared 65536",
        f"! grep 4711 {_PROCESS.format(unit='vllm.service')}/limits",
        restarts=True,
    ),
    Drift(
        "memory limit set with systemctl",
        "systemctl set-property --runtime haproxy.service MemoryMax=1G",
        "changed on the host: /run/systemd/system.control/haproxy.service.d/50-MemoryMax.conf",
        'test "$(systemctl show -P MemoryMax haproxy)" = infinity',
    ),
    Drift(
        "unit edited, not restarted",
        f"sed -i 's/^LimitNOFILE=.*/LimitNOFILE=4711/' {UNIT}",
        f"changed on the host: {UNIT}",
        f"! grep 4711 {UNIT}",
    ),
    Drift(
        "units disabled",
        "systemctl disable -q vllm haproxy vllm-firewall models.mount",
        "vllm.service at boot is disabled, declared enabled",
        "systemctl is-enabled vllm haproxy vllm-firewall models.mount",
    ),
    Drift(
        "unit masked",
        f"ln -sf /dev/null {GATEWAY}; systemctl daemon-reload",
        "haproxy.service at boot is masked, declared enabled",
        "systemctl is-enabled haproxy",
    ),
    Drift(
        "gateway drained",
        "/usr/local/lib/pulumi-vllm/drain --timeout 0 || true",
        "gateway answers 503 to every request: its server is DRAIN, declared UP",
        "curl -skf https://127.0.0.1/healthz",
    ),
    Drift(
        "gateway's server in maintenance",
        f"{ASK_HAPROXY}echo set server vllm/local state maint | ask",
        "gateway answers 503 to every request: its server is MAINT, declared UP",
        "curl -skf https://127.0.0.1/healthz",
    ),
    Drift(
        "gateway's configuration changed, reloaded, file put back",
        f"cp -p {CONFIG} /root/c; sed -i '/deny status 401/d' {CONFIG}; systemctl reload haproxy; "
        f"cp -p /root/c {CONFIG}",
        f"haproxy.service process runs with another {CONFIG} than on disk",
        'test "$(curl -sk -o /dev/null -w %{http_code} https://127.0.0.1/v1/models)" = 401',
    ),
    Drift(
        "API key added in the gateway's memory",
        f"{ASK_HAPROXY}echo add map {KEYS} $(printf mine | sha256sum | cut -c1-64) mallory | ask",
        f"{KEYS} has other entries in the gateway's memory than on disk: + mallory",
        'test "$(curl -sk -o /dev/null -w %{http_code} -H "Authorization: Bearer mine" '
        'https://127.0.0.1/v1/models)" = 401',
    ),
    Drift(
        "certificate changed in the gateway's memory",
        "cd /root; openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=foreign -keyout k.pem -out c.pem 2>/dev/null; "
        f"{ASK_HAPROXY}(echo 'set ssl cert {CERTIFICATE} <<'; cat c.pem k.pem; echo) | ask; "
        f"echo commit ssl cert {CERTIFICATE} | ask",
        "certificate in the gateway's memory is ",
        f"{ASK_HAPROXY}! echo show ssl cert {CERTIFICATE} | ask | grep foreign",
    ),
    Drift(
        "firewall flushed",
        "nft flush ruleset",
        "firewall has none of its rules, so anybody reaches port 22, port 443",
        "nft list table inet pulumi_vllm | grep -q 'counter.*drop'",
    ),
    Drift(
        "rule of the firewall removed",
        "nft delete rule inet pulumi_vllm input handle "
        "$(nft -a list chain inet pulumi_vllm input | sed -n 's/.*counter.*drop # handle //p')",
        "firewall has other rules than declared: - counter drop",
        "nft list table inet pulumi_vllm | grep -q 'counter.*drop'",
    ),
    Drift(
        "port opened in the firewall for a foreign listener",
        "systemd-run -q --unit foreign python3 -m http.server 9000; "
        "nft insert rule inet pulumi_vllm input tcp dport 9000 accept",
        "firewall has other rules than declared: + tcp dport 9000 accept",
        "! nft list table inet pulumi_vllm | grep 9000; systemctl stop foreign",
    ),
    Drift(
        "port forwarded past the firewall",
        "nft add table ip foreign; nft add chain ip foreign pre '{ type nat hook prerouting priority -100; }'; "
        "nft add rule ip foreign pre tcp dport 8080 redirect to :443",
        "forwarded ports pass by our rules: tcp dport 8080 redirect to :443",
        refused="nft delete table ip foreign",
    ),
    Drift(
        "service stopped",
        "systemctl stop vllm",
        "vllm.service is inactive",
        "systemctl is-active vllm",
        restarts=True,
    ),
    Drift(
        "canary's timer stopped",
        "systemctl stop vllm-canary.timer",
        "vllm-canary.timer is inactive",
        "systemctl is-active vllm-canary.timer",
    ),
    Drift(
        "settings of needrestart and of unattended upgrades changed",
        "sed -i '/vllm/d' /etc/needrestart/conf.d/pulumi-vllm.conf; rm /etc/apt/apt.conf.d/52pulumi-vllm",
        "changed on the host: /etc/apt/apt.conf.d/52pulumi-vllm, /etc/needrestart/conf.d/pulumi-vllm.conf",
        "grep -q vllm /etc/needrestart/conf.d/pulumi-vllm.conf; grep -q nvidia /etc/apt/apt.conf.d/52pulumi-vllm",
    ),
    Drift(
        "secrets in a drop-in and in the environment file",
        f"mkdir -p {UNIT}.d; printf '[Service]\nEnvironment=HF_TOKEN=planted-4711\n' > {UNIT}.d/token.conf; "
        f"echo WANDB_API_KEY=planted-4711 >> {ENVIRONMENT}; systemctl daemon-reload",
        f"changed on the host: {ENVIRONMENT}, {UNIT}.d/token.conf",
        f"test ! -e {UNIT}.d/token.conf; ! grep WANDB {ENVIRONMENT}",
        secret="planted-4711",
    ),
    Drift(
        "volume mounted read-only",
        "mount -o remount,bind,ro /models",
        "/models is mounted read-only, declared writable",
        "touch /models/x; rm /models/x",
    ),
    Drift(
        "another file system mounted over the volume",
        "mount -t tmpfs tmpfs /models",
        "/models is another file system (tmpfs, tmpfs), declared the volume",
        refused="umount /models",
    ),
    Drift(
        "volume full",
        "fallocate -l $(($(df --output=avail -B1 /models | tail -n 1) - 10000000)) /models/filler",
        "free space on /models is ",
        refused="rm /models/filler",
    ),
    Drift(
        "mount unit edited",
        "sed -i 's/^TimeoutSec=.*/TimeoutSec=4711/' /etc/systemd/system/models.mount",
        "/etc/systemd/system/models.mount has another text than declared",
        "! grep 4711 /etc/systemd/system/models.mount",
    ),
    Drift(
        "mode of a secret file",
        "chmod 644 /etc/pulumi-vllm/gateway/keys.map",
        "changed on the host: /etc/pulumi-vllm/gateway/keys.map",
        "test $(stat -c %a /etc/pulumi-vllm/gateway/keys.map) = 600",
    ),
    Drift(
        "modes of folders",
        "chmod 777 /usr/local/lib/pulumi-vllm; chmod 755 /etc/pulumi-vllm/secrets",
        "folder /usr/local/lib/pulumi-vllm is 0777 root:root, declared 0755 root:root",
        "test $(stat -c %a /usr/local/lib/pulumi-vllm) = 755; test $(stat -c %a /etc/pulumi-vllm/secrets) = 700",
    ),
    Drift(
        "sudo rule added",
        "echo 'mallory ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/mallory",
        "sudoers file /etc/sudoers.d/mallory is new since the last `pulumi up`: mallory ALL=(ALL) NOPASSWD: ALL",
        refused="rm /etc/sudoers.d/mallory",
    ),
    Drift(
        "SSH key added for root",
        "ssh-keygen -q -t ed25519 -N '' -C mallory -f /root/k; cat /root/k.pub >> ~root/.ssh/authorized_keys",
        " of root is new since the last `pulumi up`: ssh-ed25519 mallory",
        refused="sed -i /mallory/d ~root/.ssh/authorized_keys",
    ),
    Drift(
        "account added",
        "useradd --non-unique --uid 0 --shell /bin/sh mallory",
        "account mallory is new since the last `pulumi up`: uid 0, shell /bin/sh",
        refused="userdel --force mallory",
    ),
    Drift(
        "option of sshd changed",
        "printf 'PermitRootLogin yes\n' > /etc/ssh/sshd_config.d/00-mine.conf",
        "sshd option permitrootlogin is yes, and was without-password at the last `pulumi up`",
        refused="rm /etc/ssh/sshd_config.d/00-mine.conf",
    ),
    Drift(
        "clock behind",
        # A container has the clock of its host, so what its programs read is changed.
        "cp -p /etc/python3.*/sitecustomize.py /root/s; "
        "echo 'import time; now = time.time; time.time = lambda: now() - 400' | tee -a /etc/python3.*/sitecustomize.py",
        "clock is 400 s behind that of this computer, and may differ by 60 s",
        refused="cp -p /root/s /etc/python3.*/sitecustomize.py",
    ),
    Drift(
        "a GPU of two gone",
        f"echo 1 > {GPUS}/count",
        "list of GPUs is 1x NVIDIA H200, and was 2x NVIDIA H200 at the last `pulumi up`",
        refused=f"echo 2 > {GPUS}/count",
        stack="spheron-h200-2x-fp8",
    ),
    Drift(
        "another version of the NVIDIA driver",
        f"sed -i 's/<driver_version>[0-9.]*/<driver_version>590.44.01/' {GPUS}/nvidia-smi-q.xml",
        "NVIDIA driver is 590.44.01, and was ",
        restarts=True,
        stack="spheron-h200-2x-fp8",
    ),
    Drift(
        "source file of vLLM edited",
        "echo '# mine' >> /opt/vllm/lib/python3*/site-packages/vllm/version.py",
        "source files of vLLM were written to after its installation: /opt/vllm/lib/python3",
        "! grep mine /opt/vllm/lib/python3*/site-packages/vllm/version.py",
        restarts=True,
        engine="none",
    ),
    Drift(
        "package of vLLM in another version",
        "cd /opt/vllm/lib/python3*/site-packages; mv numpy-*.dist-info numpy-0.0.1.dist-info",
        "packages of vLLM are not those of the lock: numpy is 0.0.1 (locked ",
        "ls -d /opt/vllm/lib/python3*/site-packages/numpy-[1-9]*.dist-info",
        restarts=True,
        engine="none",
    ),
)
