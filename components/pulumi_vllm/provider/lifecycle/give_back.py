"""Give a host back that somebody else made: end what this package runs there, and leave everything else as it is."""

from typing import TYPE_CHECKING, Final

from pulumi_vllm.provider.lifecycle.drain import DRAIN_MARGIN_S, drain_script
from pulumi_vllm.render import layout
from pulumi_vllm.render.engine_places import engine_places

if TYPE_CHECKING:
    from pulumi_vllm.host.ssh import Host

_TIMERS: Final = (layout.CANARY_TIMER, layout.LIFETIME_TIMER)
_LAST: Final = (layout.GATEWAY_UNIT, layout.FIREWALL_UNIT, layout.MOUNT_UNIT)
_MOST_ENGINES: Final = 8
_SERVING: Final = (
    *(unit for unit in layout.UNITS if unit not in {*_TIMERS, *_LAST}),
    *(place.unit for place in engine_places(_MOST_ENGINES)),
)
_STOP_S: Final = 240.0
_FILES: Final = (
    *(layout.unit_file(unit) for unit in (*layout.UNITS, layout.ENGINE_TEMPLATE, layout.NOTIFY_UNIT)),
    layout.NEEDRESTART,
    layout.CONFIG,
    layout.PROGRAMS,
    layout.RUNTIME,
    layout.STATE,
)
"""What is removed: units, configuration with its secrets, programs, and records."""


async def give_back(host: "Host", drain_timeout_s: float) -> None:
    """Drain the gateway, stop and disable our units, unload our rules, unmount the store, and remove our files.

    Weights, caches, the engine and the installed packages stay. A second run does what the first one did not.

    Raises:
        HostError: a unit does not stop, or the store is in use.
    """
    script = f"{drain_script(drain_timeout_s)}\n{_SCRIPT}"
    await host.run(script, timeout_s=drain_timeout_s + DRAIN_MARGIN_S + _STOP_S)


# An earlier run, or a failed `up`, may have left only some of the units. `stop` fails for a unit that does not exist.
# With our unit gone, that of the haproxy package comes to light. It never ran here, and must not run at the next boot.
_SCRIPT = f"""
stop() {{
  for unit in "$@"; do
    systemctl disable -q "$unit" 2>/dev/null || true
    if [ "$(systemctl show -P ActiveState "$unit")" != inactive ]; then systemctl stop "$unit"; fi
  done
}}
stop {" ".join(_TIMERS)} {" ".join(_SERVING)} {layout.GATEWAY_UNIT} {layout.FIREWALL_UNIT}
if [ -e {layout.unit_file(layout.MOUNT_UNIT)} ]; then
  rm -f {layout.VOLUME_MARKER}
  sync
  stop {layout.MOUNT_UNIT}
  ! mountpoint -q {layout.MODELS} || {{ echo "{layout.MODELS} is still mounted" >&2; exit 1; }}
fi
rmdir {layout.MODELS} 2>/dev/null || true
rm -rf -- {" ".join(_FILES)}
systemctl daemon-reload
systemctl disable -q {layout.GATEWAY_UNIT} 2>/dev/null || true
systemctl reset-failed 'vllm*' 2>/dev/null || true
"""
