"""Firewalls on a host that somebody else made: whether the gateway's port leads to the gateway.

Our table only restricts that port. It can't open what another firewall drops. A rule that admits the port from some
addresses or at one interface counts: only the owner knows from where clients come.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from pulumi_vllm.render.layout import GATEWAY_PORT

_CLOSED: Final = "closed"


def problems(seen: Mapping[str, str]) -> Iterator[str]:
    """What drops or diverts requests before the gateway sees them, each with its remedy."""
    if rule := seen.get("forwarded"):
        yield (
            f"its firewall forwards port {GATEWAY_PORT}, which the gateway needs (`{rule}`); end what has added this "
            "rule, such as a container with that port"
        )
    if seen.get("ufw") == _CLOSED:
        yield (
            f"its firewall ufw is active and does not admit port {GATEWAY_PORT}; run `ufw allow {GATEWAY_PORT}/tcp`"
        )
    state, _, zone = seen.get("firewalld", "").partition(" ")
    if state == _CLOSED:
        command = f"firewall-cmd --zone={zone} --add-port={GATEWAY_PORT}/tcp"
        # Without --reload, which would drop what the owner has added since the last start.
        yield (
            f"its firewall firewalld runs and does not admit port {GATEWAY_PORT} in zone {zone}; run `{command} && "
            f"{command} --permanent`"
        )


# ufw prints ports as they were written: lists, ranges and names of applications. Its own files hold them resolved, one
# rule a line: `### tuple ### ACTION PROTOCOL PORTS TO SOURCE-PORTS FROM [APPLICATIONS] DIRECTION [comment=…]`. The
# first rule that admits some source or refuses all decides, then the policy.
LOOK: Final = (
    rf"""
port={GATEWAY_PORT}
"""
    r"""
dev="$(ip -o route get 192.0.2.1 2>/dev/null | sed 's/.* dev \([^ ]*\).*/\1/')"
if has nft; then
  say forwarded "$(nft list ruleset 2>/dev/null | awk -v port="$port" -v dev="$dev" '
    /^\tchain / { goes_out = 0 }
    / hook output / { goes_out = 1 }
    goes_out || /udp dport|ip6? daddr/ || (/iifname "/ && !index($0, "iifname \"" dev "\"")) { next }
    !found && $0 ~ ("dport ([{][^}]*[ {])?" port "[ ,]") && /dnat|redirect|DNAT|REDIRECT/ { $1 = $1; found = $0 }
    END { print found }')"
fi
if has ufw && ufw status | grep -q '^Status: active'; then
  policy="$(. /etc/default/ufw; echo "${DEFAULT_INPUT_POLICY:-DROP}")"
  say ufw "$(cat /etc/ufw/user.rules <(echo end) /etc/ufw/user6.rules <(echo end) 2>/dev/null \
    | awk -v port="$port" -v policy="$policy" '
      function admits(ports,   all, n, i, range) {
        n = split(ports, all, ",")
        for (i = 1; i <= n; i++) {
          if (all[i] == "any") return 1
          if (split(all[i], range, ":") == 1) range[2] = range[1]
          if (range[1] + 0 <= port && port <= range[2] + 0) return 1
        }
        return 0
      }
      /^### tuple ### / && !decided {
        sub(/ comment=.*/, "")
        if ($NF !~ /^in(_|$)/ || $NF == "in_lo" || $5 !~ /^(any|tcp)$/ || $8 != "any" || !admits($6)) next
        if ($4 ~ /^(allow|limit)/) decided = open = 1
        else if ($4 ~ /^(deny|reject)/ && $NF == "in" && $9 ~ /\/0$/) decided = 1
      }
      $0 == "end" { if (!decided && policy == "ACCEPT") open = 1; decided = 0 }
      END { print open ? "open" : "closed" }')"
fi
if has firewall-cmd && systemctl is-active -q firewalld; then
  # firewalld 2 lists the default zone as active, also where no interface is in it.
  zones="$(firewall-cmd --get-active-zones | awk '/^[^ ]/ && $2 != "(default)" { print $1 }')"
  zone="$(firewall-cmd --get-zone-of-interface="$dev" 2>/dev/null || firewall-cmd --get-default-zone)"
  state=closed what='( port port="'$port'" protocol="tcp"| service name="https")?'
  for one in $zones "$zone"; do
    if firewall-cmd -q --zone="$one" --query-port="$port/tcp" \
      || firewall-cmd -q --zone="$one" --query-service=https \
      || firewall-cmd --zone="$one" --list-all | grep -Eq \
        -e '^ *target: ACCEPT' \
        -e '^[[:space:]]*rule( (family|priority)="[^"]*")*( source [^ ]*)?'"$what"'( log .*| audit)? accept'
    then state=open; fi
  done
  say firewalld "$state $zone"
fi
"""
)
