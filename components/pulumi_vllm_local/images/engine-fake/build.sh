#!/bin/bash
# Install the fake engine as /opt/vllm in a layer over the base image: build.sh BASE LAYER PACKAGE STAMP
set -euo pipefail
base=$1 layer=$2 package=$3 stamp=$4
merged=$layer/merged
mkdir -p "$layer/root" "$layer/work" "$merged"
mount -t overlay overlay -o "lowerdir=$base,upperdir=$layer/root,workdir=$layer/work" "$merged"
chroot "$merged" python3 -m venv --without-pip /opt/vllm
site=$(echo "$merged"/opt/vllm/lib/python3*/site-packages)
if [[ -d $package/vllm ]]; then cp -r "$package"/. "$site/"; else cp -r "$package" "$site/vllm"; fi
find "$site" -name __pycache__ -prune -exec rm -rf {} +
chroot "$merged" /opt/vllm/bin/python -m compileall -q "${site#"$merged"}"
chroot "$merged" /opt/vllm/bin/python -c "import vllm"
cp "$stamp" "$merged/opt/vllm/.stamp"
umount "$merged"
rm -rf "$layer/work" "$merged"
