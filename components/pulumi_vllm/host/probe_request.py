"""What a probe looks at, and the text of its program.

All that is ours on a host is always included, so that one probe serves every resource.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pulumi_vllm.render import layout, package_files

if TYPE_CHECKING:
    from collections.abc import Mapping

# The modules of the probe program: each imports earlier ones only.
_MODULES = (
    "mask",
    "probe_reading",
    "probe_files",
    "probe_processes",
    "probe_network",
    "probe_gateway",
    "probe_engine",
    "probe_access",
    "probe_clock",
    "probe_program",
)
_IMPORT = re.compile(r"^from pulumi_vllm\.host\.\w+ import (?:\([^)]*\)|.*)\n", re.MULTILINE)

# Where the probe program finds the rest of what it reports.
_PATHS: Mapping[str, str | tuple[str, ...]] = {
    "weights_root": layout.WEIGHTS,
    "engine_stamp": layout.ENGINE_STAMP,
    "engine_packages": f"{layout.VENV}/lib/python3*/site-packages",
    "readiness_result": layout.READINESS_RESULT,
    "canary_results": layout.CANARY_RESULT.replace(".json", "*.json"),
    "restored_files": layout.RESTORED_FILES,
    "units_directory": layout.UNITS_DIRECTORY,
    "volume": layout.MODELS,
    "volume_marker": layout.VOLUME_MARKER,
    "starts": layout.STARTS,
    "engine_units": (layout.ENGINE_UNIT, layout.EVERY_INSTANCE),
    "folders": tuple(layout.FOLDERS),
    "gateway_socket": layout.GATEWAY_ADMIN_SOCKET,
    "gateway_certificate": layout.GATEWAY_CERTIFICATE,
    "gateway_maps": (layout.KEYS_MAP, layout.LIMITS_MAP),
    "firewall_rules": layout.FIREWALL_RULES,
    "firewall_table": layout.FIREWALL_TABLE,
}


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """Files, units and directories of weights that a probe reports."""

    paths: tuple[str, ...] = layout.FILES_ELSEWHERE
    units: tuple[str, ...] = layout.UNITS
    directories: tuple[str, ...] = (layout.CONFIG, layout.PROGRAMS)
    weights: tuple[str, ...] = ()

    def including(self, paths: tuple[str, ...], units: tuple[str, ...], weights: str | None) -> ProbeRequest:
        """Extend the request. It only grows, so that a shared probe also serves the next resource."""
        known = {layout.unit_file(unit) for unit in self.units}
        more = {path for path in paths if not path.startswith(self.directories)} - known
        if weights is not None and weights.startswith(f"{layout.WEIGHTS}/"):
            weights = None  # a probe reports every manifest there
        return ProbeRequest(
            paths=tuple(sorted({*self.paths, *more})),
            units=(*layout.UNITS, *sorted({*self.units, *units} - set(layout.UNITS))),
            directories=self.directories,
            weights=tuple(sorted({*self.weights, *((weights,) if weights else ())})),
        )

    def to_json(self, login: str = "root") -> str:
        """Format the request as the argument of `probe_program.py`, for a host whose managed user is `login`."""
        known = sorted(package_files.digests())
        return json.dumps({**asdict(self), **_PATHS, "login": login, "known": known}, sort_keys=True)


def probe_source() -> str:
    """Return the probe program as it runs on a host, which has no package of ours: one text of all its modules."""
    folder = Path(__file__).parent
    return "\n".join(_IMPORT.sub("", (folder / f"{name}.py").read_text()) for name in _MODULES)
