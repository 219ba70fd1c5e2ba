# What ./dev brings: packages, the Python environment, the Pulumi engine. Sourced by ./dev, which has the
# helpers. Every cache entry is made beside its place and moved there whole, so a killed run leaves none half-made.
# The functions run inside `step`, where `set -e` is off: each line is chained or returns.
# shellcheck shell=bash disable=SC2154  # root, state, venv, cache, version are set by ./dev

missing_packages() {
  local name
  for name in "$@"; do
    [[ $(dpkg-query -W -f='${Status}' "$name" 2>/dev/null || true) == "install ok installed" ]] || printf '%s ' "$name"
  done
}

apt_install() {
  # No service is started by its package's hand: the guests run those programs, this machine does not.
  if [[ ! -e /usr/sbin/policy-rc.d ]]; then
    policy=/usr/sbin/policy-rc.d
    printf '#!/bin/sh\n# put here by ./dev for the time of one apt-get\nexit 101\n' >"$policy" && chmod 0755 "$policy"
  fi
  apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" || return
  if [[ " $* " == *" haproxy "* && -d /run/systemd/system ]]; then systemctl disable -q haproxy; fi
  if [[ -n $policy ]]; then rm -f "$policy" && policy=""; fi
}

need_packages() {
  have apt-get || die "apt-get: not found; ./dev sets up Debian and Ubuntu. Elsewhere install: $*"
  if grep -qs 'put here by ./dev' /usr/sbin/policy-rc.d; then rm -f /usr/sbin/policy-rc.d; fi # of a killed run
  local names
  read -ra names <<<"$(missing_packages "$@")"
  ((${#names[@]})) || return 0
  ((EUID == 0)) || die "missing packages; run: sudo apt-get install --no-install-recommends ${names[*]}"
  step "packages: ${names[*]}" logged apt apt_install "${names[@]}"
}

find_python() {
  for python in python3 python3.13 python3.12 python3.11; do
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && return
  done
  die "python3: 3.11 or newer is needed; run: apt-get install python3"
}

need_uv() {
  uv=$cache/uv/$(digest "$root/requirements/uv.txt")/bin/uv
  [[ ! -x $uv ]] || return 0
  find_python
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    need_packages "$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
  step "uv, at its locked version" logged uv install_uv "${uv%/bin/uv}"
}

install_uv() {
  mkdir -p "$cache/uv" && local work && work=$(mktemp -d "$1.making-XXXXXX") && "$python" -m venv "$work" &&
    "$work/bin/python" -m pip install --quiet --require-hashes --no-deps --only-binary :all: -r "$root/requirements/uv.txt" &&
    rm -rf "$1" && mv -T "$work" "$1"
}

need_environment() {
  local lock=$root/requirements/dev.txt
  find_python
  local stamp
  stamp="$(digest "$lock") $("$python" -c 'import sys; print(sys.version.split()[0])')"
  if [[ $(cat "$venv/.lock" 2>/dev/null || true) != "$stamp" ]] || ! "$venv/bin/python" -c '' 2>/dev/null; then
    need_uv
    step "Python environment from requirements/dev.txt" logged environment install_environment "$lock" "$stamp"
  fi
  local entry
  for entry in pulumi-vllm=pulumi_vllm.cli pulumi-resource-vllm=pulumi_vllm.provider.serve; do
    [[ -x $venv/bin/${entry%=*} ]] || launcher "$venv/bin/${entry%=*}" "${entry#*=}"
  done
}

install_environment() {
  rm -f "$venv/.lock"
  local wanted=${2#* }
  [[ $("$venv/bin/python" -c 'import sys; print(sys.version.split()[0])' 2>/dev/null || true) == "$wanted" ]] ||
    "$uv" venv --clear --no-config --python "$python" "$venv" || return
  # pip is in the lock: the older language host asks `python -m pip list` for plugins.
  "$uv" pip sync --no-config --require-hashes --python "$venv/bin/python" "$1" &&
    "$venv/bin/python" - "$root/components" <<'PY' && printf '%s' "$2" >"$venv/.lock"
import pathlib, sys, sysconfig
pathlib.Path(sysconfig.get_path("purelib"), "pulumi_vllm_dev.pth").write_text(sys.argv[1] + "\n")
PY
}

launcher() { # file, module with main()
  cat >"$1.new" <<SH
#!/bin/sh
exec "\$(dirname "\$0")/python" -u -c 'import sys; sys.argv[0] = "${1##*/}"; from $2 import main; sys.exit(main())' "\$@"
SH
  chmod 0755 "$1.new" && mv "$1.new" "$1"
}

# --- the engine: on PATH, else downloaded, else built ----------------------------------------------------------

find_engine() {
  local found
  built=$cache/engine/$(cd "$root/toolchain" && digest go.mod go.sum tools.go language/* build pulumi-language-python)/bin
  if have pulumi && have pulumi-language-python; then
    found=$(PULUMI_SKIP_UPDATE_CHECK=1 pulumi version 2>/dev/null || true)
    printf '%s\n' v3.216.0 "$found" | sort -V -C && engine=$(dirname "$(command -v pulumi)") && return
    say "pulumi on PATH says '$found'; v3.216.0 or newer is needed, so ours is used"
  fi
  for engine in "$cache/engine/$version/bin" "$built"; do
    [[ ! -x $engine/pulumi ]] || return 0
  done
  engine="" && return 1
}

need_engine() {
  if find_engine; then return; fi
  if [[ ${CI:-} != true ]] && step "Pulumi engine $version: official download" logged download download_engine; then
    engine=$cache/engine/$version/bin
    return
  fi
  need_go
  step "Pulumi engine $version: built from pinned Go modules (9 min on 2 cores)" \
    logged engine env GO="$go" "${go_env[@]}" nice "$root/toolchain/build" "$built"
  [[ -z ${go_env[*]} ]] || { chmod -R u+w "$cache/go/work" && rm -rf "$cache/go/work"; }
  engine=$built
}

download_engine() {
  local name site=${PULUMI_VLLM_ENGINE_SITE:-https://get.pulumi.com/releases/sdk} work
  case $(uname -m) in x86_64) name=x64 ;; aarch64) name=arm64 ;; *) return 1 ;; esac
  name=pulumi-$version-linux-$name.tar.gz
  mkdir -p "$cache/engine" && work=$(mktemp -d "$cache/engine/$version.making-XXXXXX") || return
  local get=(curl -fsSL --proto '=https,http' --connect-timeout 5 --speed-time 30 --speed-limit 10000)
  if "${get[@]}" -o "$work/sums" "$site/pulumi-${version#v}-checksums.txt" &&
    "${get[@]}" -o "$work/$name" "$site/$name" &&
    (cd "$work" && grep -E "  $name\$" sums | sha256sum -c -) && tar -xzf "$work/$name" -C "$work" &&
    [[ $("$work/pulumi/pulumi" version) == "$version" ]] &&
    mkdir "$work/whole" && mv "$work/pulumi" "$work/whole/bin"; then
    rm -rf "${cache:?}/engine/$version" && mv -T "$work/whole" "$cache/engine/$version" && rm -rf "$work"
  else
    rm -rf "$work" && return 1
  fi
}

need_go() {
  go=go go_env=()
  local floor
  floor=$(awk '$1 == "go" {print $2}' "$root/toolchain/go.mod")
  if have go && printf '%s\n' "$floor" "$(GOTOOLCHAIN=local go env GOVERSION | sed 's/^go//')" | sort -V -C; then return; fi
  need_uv
  local home
  home=$cache/go/$(digest "$root/requirements/go.txt")
  [[ -x $home/go/bin/go ]] || step "Go, for the engine" logged go install_go "$home"
  go=$home/go/bin/go
  # Somebody without Go does not want two gigabytes of its caches: they go when the engine is built.
  go_env=("GOPATH=$cache/go/work/path" "GOCACHE=$cache/go/work/cache")
}

install_go() {
  find_python
  mkdir -p "$cache/go" && local work && work=$(mktemp -d "$1.making-XXXXXX") &&
    "$uv" pip install --no-config --require-hashes --no-deps --python "$python" --target "$work" -r "$root/requirements/go.txt" &&
    rm -rf "$1" && mv -T "$work" "$1"
}

# --- what is there, and what is wanted ---------------------------------------------------------------------------

doctor() {
  local bad=0 name
  verdict() { # ok?, what, the line that installs it
    if (($1 == 0)); then printf 'ok       %s\n' "$2"; else printf 'MISSING  %s: %s\n' "$2" "$3" && bad=1; fi
  }
  verdict "$((EUID != 0))" "root (for the embedded cloud's machines)" "sudo -i"
  (find_python) 2>/dev/null && name=0 || name=1
  verdict "$name" "python3 >= 3.11" "apt-get install python3"
  for name in git "${machine_packages[@]}" "${test_packages[@]}"; do
    verdict "$([[ -z $(missing_packages "$name") ]] && echo 0 || echo 1)" "package $name" "apt-get install --no-install-recommends $name"
  done
  [[ -f $venv/.lock ]] && name=0 || name=1
  verdict "$name" "Python environment .venv" "./dev test fast"
  find_engine && name=0 || name=1
  verdict "$name" "Pulumi engine${engine:+ in $engine}" "./dev pulumi version"
  return "$bad"
}

lock() {
  need_uv
  local options=(--quiet --no-config --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header) name
  step "requirements/dev.txt" "$uv" pip compile "${options[@]}" --extra local pyproject.toml requirements/dev.in -c requirements/pins.txt -o requirements/dev.txt "$@"
  for name in uv go; do
    step "requirements/$name.txt" "$uv" pip compile "${options[@]}" "requirements/$name.in" -o "requirements/$name.txt" "$@"
  done
}
