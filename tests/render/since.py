"""Word → first version that knows it: systemd's unit directives (man pages), HAProxy's configuration (manual).

Hosts have systemd 249 (Ubuntu 22.04), 252 (Debian 12), 255 (Ubuntu 24.04) or 257 (Debian 13), and HAProxy 2.4 to
3.0. A word that is not here is refused: say first since when it is known. 0 stands for before any version that matters.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SYSTEMD = (249, 252, 255, 257)
HAPROXY = ((2, 4), (3, 0))

UNIT = {
    **dict.fromkeys(["Description", "Documentation", "Wants", "Requires", "BindsTo", "PartOf", "After", "Before"], 0),
    **dict.fromkeys(["Conflicts", "DefaultDependencies", "ConditionPathExists", "OnFailure"], 0),
    "ReloadPropagatedFrom": 185, "RequiresMountsFor": 201, "AssertPathExists": 218, "StartLimitBurst": 229,
    "StartLimitIntervalSec": 230,
}  # fmt: skip
SERVICE = {
    **dict.fromkeys(["Type", "User", "Group", "SupplementaryGroups", "EnvironmentFile", "Environment"], 0),
    **dict.fromkeys(["WorkingDirectory", "ExecStart", "ExecStartPre", "ExecStartPost", "ExecReload", "ExecStop"], 0),
    **dict.fromkeys(["ExecStopPost", "Restart", "RestartSec", "KillMode", "KillSignal", "RemainAfterExit", "UMask"], 0),
    **dict.fromkeys(["LimitNOFILE", "LimitMEMLOCK", "LimitCORE", "LimitNPROC", "Nice", "OOMScoreAdjust"], 0),
    **dict.fromkeys(["CapabilityBoundingSet", "PrivateTmp", "PrivateNetwork", "StandardOutput", "StandardError"], 0),
    "NoNewPrivileges": 187, "MemoryMax": 231, "SystemCallFilter": 187, "TimeoutStartSec": 188, "TimeoutStopSec": 188,
    "RestartPreventExitStatus": 189, "SuccessExitStatus": 189, "DeviceAllow": 208, "DevicePolicy": 208,
    "SystemCallArchitectures": 209, "PrivateDevices": 209, "RestrictAddressFamilies": 211, "RuntimeDirectory": 211,
    "RuntimeDirectoryMode": 211, "ProtectHome": 214, "ProtectSystem": 214, "AmbientCapabilities": 229,
    "InaccessiblePaths": 231, "MemoryDenyWriteExecute": 231, "ReadOnlyPaths": 231, "ReadWritePaths": 231,
    "RestrictRealtime": 231, "PrivateUsers": 232, "ProtectControlGroups": 232, "ProtectKernelModules": 232,
    "ProtectKernelTunables": 232, "RemoveIPC": 232, "BindPaths": 233, "BindReadOnlyPaths": 233,
    "RestrictNamespaces": 233, "CacheDirectory": 235, "ConfigurationDirectory": 235, "IPAddressAllow": 235,
    "IPAddressDeny": 235, "KeyringMode": 235, "LockPersonality": 235, "LogsDirectory": 235, "StateDirectory": 235,
    "RuntimeDirectoryPreserve": 235,
    "StateDirectoryMode": 235, "TemporaryFileSystem": 238, "ProtectHostname": 242, "RestrictSUIDSGID": 242,
    "OOMPolicy": 243, "ProtectKernelLogs": 244, "ProtectClock": 245, "LoadCredential": 247, "ProcSubset": 247,
    "ProtectProc": 247, "SystemCallErrorNumber": 209, "ExecPaths": 248, "NoExecPaths": 248, "PrivateIPC": 248,
    "ExtensionImages": 248, "RestrictFileSystems": 250, "MemoryPressureWatch": 254, "RestartSteps": 254,
    "RestartMaxDelaySec": 254, "RestartMode": 254,
}  # fmt: skip
MOUNT = {
    **dict.fromkeys(["What", "Where", "Type", "Options", "LazyUnmount"], 0),
    "TimeoutSec": 0,
    "ForceUnmount": 228,
}
DIRECTIVES = {
    "Unit": UNIT,
    "Service": SERVICE,
    "Mount": MOUNT,
    "Timer": {"OnActiveSec": 0, "OnUnitActiveSec": 0, "AccuracySec": 209},
    "Install": {"WantedBy": 0, "RequiredBy": 0, "Alias": 0},
}
SERVICE_TYPES = {"simple": 0, "oneshot": 0, "notify": 0, "forking": 0, "exec": 240, "notify-reload": 253}

# The first word of a line, or the first two where the first only names a family.
FAMILIES = {
    "http-request",
    "http-response",
    "http-after-response",
    "http-check",
    "http-error",
    "option",
    "timeout",
}
FAMILIES |= {"stats", "no", "tune", "log", "tcp-request"}
LINES = {
    **dict.fromkeys(["global", "defaults", "frontend", "backend", "user", "group", "maxconn", "mode", "bind"], (0, 0)),
    **dict.fromkeys(["log global", "log stdout", "no log", "acl", "default_backend", "server", "stats socket"], (0, 0)),
    **dict.fromkeys(["timeout connect", "timeout client", "timeout server", "timeout http-request"], (1, 3)),
    **dict.fromkeys(["timeout queue", "timeout tunnel", "timeout http-keep-alive", "stick-table"], (1, 4)),
    **dict.fromkeys(["timeout client-fin", "timeout server-fin"], (1, 5)), "timeout check": (1, 3),
    **dict.fromkeys(["option abortonclose", "option dontlognull", "option httpchk", "option redispatch"], (1, 3)),
    **dict.fromkeys(["option http-server-close", "option http-no-delay", "http-request deny"], (1, 4)),
    **dict.fromkeys(["http-request set-header", "http-request del-header", "http-request track-sc0"], (1, 5)),
    "tcp-request connection": (1, 4),
    **dict.fromkeys(["unique-id-format", "log-format", "ssl-default-bind-options", "http-check expect"], (1, 5)),
    **dict.fromkeys(["http-request set-var", "http-request set-uri", "http-request use-service"], (1, 6)),
    **dict.fromkeys(["http-request silent-drop", "http-request set-path", "http-request capture"], (1, 6)),
    **dict.fromkeys(["http-request set-priority-class", "http-request set-priority-offset"], (1, 9)),
    **dict.fromkeys(["tune.bufsize", "tune.maxrewrite", "retries", "fullconn"], (1, 3)),
    **dict.fromkeys(["balance", "use-server"], (1, 4)), "lua-load": (1, 6),
    "http-request unset-var": (1, 8),
    "hard-stop-after": (1, 8), "http-request replace-path": (2, 2), "http-request return": (2, 2),
    "http-error status": (2, 2), "http-check send": (2, 2), "http-after-response set-header": (2, 2),
    "http-after-response del-header": (2, 2), "http-request wait-for-body": (2, 4), "http-request set-timeout": (2, 4),
    ".if": (2, 4), ".else": (2, 4), ".endif": (2, 4),
}  # fmt: skip
# Words after `bind`, `server`, `stick-table`, `stats socket` and the actions.
WORDS = {
    **dict.fromkeys(["ssl", "crt", "v6only", "alpn", "type", "len", "size", "expire", "store", "level"], (1, 5)),
    **dict.fromkeys(["check", "inter", "fall", "rise", "maxconn", "status", "if", "unless", "or", "table"], (1, 4)),
    **dict.fromkeys(["conn_cur", "http_req_rate", "string", "content-type", "hdr", "format"], (1, 5)),
    "ssl-min-ver": (1, 8), "no-tls-tickets": (1, 5), "proto": (1, 8), "raw": (1, 9), "stdout": (1, 9),
    "expose-fd": (1, 8), "listeners": (1, 8), "default-errorfiles": (2, 2), "prometheus-exporter": (2, 0),
    "quic": (2, 6),
}  # fmt: skip
# Sample fetches and converters.
SAMPLES = {
    **dict.fromkeys(["path", "method", "src", "date", "hex", "lower", "map_str", "map_str_int", "ltime"], (1, 5)),
    **dict.fromkeys(["nbsrv", "req.fhdr", "req.fhdr_cnt", "req.hdr", "req.hdr_cnt", "req.hdr_val"], (1, 5)),
    **dict.fromkeys(["sc_http_req_rate", "sc_conn_cur", "conn_cur", "http_req_rate", "base64"], (1, 5)),
    "sc1_conn_cur": (1, 5), "ipmask": (1, 9),
    **dict.fromkeys(["var", "req.body_size", "req.body", "regsub", "json", "bytes", "sub", "add", "length"], (1, 6)),
    **dict.fromkeys(["set-var", "unset-var", "int", "str", "bool", "mul", "neg"], (1, 6)),
    **dict.fromkeys(["lua.conversation", "lua.engine", "div"], (1, 6)),  # its own fetches, in Lua
    "field": (1, 6), "req.hdrs": (1, 9), "concat": (1, 9), "unique-id": (2, 0), "uuid": (2, 1), "sha2": (2, 1),
    "defined": (2, 4), "http_auth_bearer": (2, 5), "bytes_in": (3, 0),
}  # fmt: skip
_NAME = r"[a-z][a-z0-9_.-]*"


def haproxy_words(text: str) -> Iterator[tuple[str, dict[str, tuple[int, int]]]]:
    """Every word of a configuration that a version may not know, and its table."""
    for line in text.splitlines():
        code = re.sub(r"'[^']*'", lambda quoted: _inside(quoted[0]), line.strip())
        code = re.sub(r"(^|\s)#.*", "", code)
        if not code:
            continue
        words = code.split()
        key = " ".join(words[:2]) if words[0] in FAMILIES else words[0]
        yield re.sub(r"\(.*", "", key), LINES
        for word in words:
            if word in WORDS:
                yield word, WORDS
        for name in re.findall(rf"({_NAME})\(", code):
            yield name, SAMPLES
        for name in re.findall(rf"(?:%\[|\{{ |!\{{ |,)({_NAME})", code):
            yield name, SAMPLES
        for name in re.findall(rf"^(?:acl \S+|http-request set-var\(\S+\)) ({_NAME})", code):
            yield name, SAMPLES


def _inside(quoted: str) -> str:
    """Of a quoted text only what HAProxy evaluates in it."""
    if quoted.startswith("'regsub"):
        return "regsub("
    return " ".join(re.findall(r"%\[[^\]]*\]", quoted))
