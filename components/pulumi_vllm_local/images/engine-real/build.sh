#!/bin/bash
# Install vLLM as /opt/vllm in a layer over the base image: build.sh BASE LAYER LOCK UV
# It runs inside the base image, so that the path and the interpreter are those of the machines. The result is LAYER/root.
set -euo pipefail
base=$1 layer=$2 lock=$3 uv=$4
merged=$layer/merged bundle=/etc/ssl/certs/ca-certificates.crt
mkdir -p "$layer/root" "$layer/work" "$merged"
mount -t overlay overlay -o "lowerdir=$base,upperdir=$layer/root,workdir=$layer/work" "$merged"
mount -t tmpfs tmpfs "$merged/run"
mount -t tmpfs tmpfs "$merged/tmp"
mount -t proc proc "$merged/proc"
mount --rbind /dev "$merged/dev"
mount --bind /sys "$merged/sys"
touch "$merged"/run/{uv,lock}
mkdir -p "$merged/run/systemd/resolve"
cp -L /etc/resolv.conf "$merged/run/systemd/resolve/stub-resolv.conf"
mount --bind "$uv" "$merged/run/uv"
mount --bind "$lock" "$merged/run/lock"
for config in "${UV_CONFIG_FILE:-}" "${XDG_CONFIG_HOME:-$HOME/.config}/uv/uv.toml" /etc/uv/uv.toml; do
  [[ -f $config ]] || continue
  cp "$config" "$merged/run/uv.toml"
  export UV_CONFIG_FILE=/run/uv.toml
  break
done
if [[ -n ${PIP_INDEX_URL:-} && -z ${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-} ]]; then export UV_DEFAULT_INDEX=$PIP_INDEX_URL; fi
[[ ! -f $bundle ]] || mount --bind "$bundle" "$merged$bundle"

# The cache is on the file system of the layer, so that uv links files instead of copying 6 GB. It is removed at the end.
chroot "$merged" env -u PYTHONPATH HOME=/run PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  UV_CACHE_DIR=/opt/.uv-cache UV_LINK_MODE=hardlink UV_HTTP_TIMEOUT=300 SSL_CERT_FILE=$bundle \
  bash -euc '
    echo "creating the environment"
    /run/uv venv --quiet --python /usr/bin/python3 /opt/vllm
    echo "downloading and installing"
    /run/uv pip sync --quiet --require-hashes --python /opt/vllm/bin/python /run/lock
    rm -rf /opt/.uv-cache
    echo "compiling bytecode"
    # Otherwise each machine compiles 5,000 files itself: 20 s and 138 MB. Packages ship files for other Python versions
    # that do not compile here, so the exit code is ignored.
    /opt/vllm/bin/python -m compileall -q -j2 /opt/vllm/lib/python3*/site-packages >/dev/null || true
    echo "checking that the engine imports"
    cd / && /opt/vllm/bin/python -c "import torch, torchvision, vllm"
    sha256sum /run/lock | cut -d" " -f1 > /opt/vllm/.stamp
  '
umount -R "$merged"
rm -rf "$layer/work" "$merged" "$layer"/root/{root,tmp,run,var}
