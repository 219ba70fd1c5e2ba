#!/bin/bash
# Here, without a GPU: fill .g0 .g1 .g2 at the checkout's root with the engine as the GPU machine unpacks it.
# The parts are one xz tar, cut so that each travels alone (64 MiB a call, the working tree included).
# usage: make_bundle.sh [WORK]   (WORK keeps the downloads between runs; default: a temporary folder)
set -euo pipefail
kit=$(cd "$(dirname "$0")" && pwd)
cd "$(git -C "$kit" rev-parse --show-toplevel)"
work=${1:-$(mktemp -d)}
mkdir -p "$work/wheels" "$work/site"
[ -x "$work/venv/bin/pip" ] || { python3 -m venv "$work/venv"; "$work/venv/bin/pip" install -q -U pip; }
platform=(); for n in $(seq 17 39); do platform+=(--platform "manylinux_2_${n}_x86_64"); done
platform+=(--platform manylinux2014_x86_64 --platform manylinux2010_x86_64 --platform manylinux1_x86_64
           --platform linux_x86_64 --platform any)
# The GPU machine's interpreter, not ours: every wheel is chosen for CPython 3.12.
target=(--no-deps --only-binary=:all: --python-version 3.12 --implementation cp --abi cp312 --abi abi3 --abi none)
"$work/venv/bin/pip" download -q -d "$work/wheels" "${target[@]}" "${platform[@]}" -r "$kit/wheels.txt"
"$work/venv/bin/pip" install -q --no-index --no-compile --upgrade --target "$work/site" \
  "${target[@]}" "${platform[@]}" "$work"/wheels/*.whl
# Left out: the FlashAttention 2 kernels (Hopper takes version 3), the Rust front end, other Pythons' builds.
tar c -C "$work/site" --exclude='*_vllm_fa2_C*' --exclude='vllm/vllm-rs' --exclude='*.cpython-31[0134]-*' \
  --exclude='./bin' --exclude='__pycache__' . | nice -n 15 xz -T2 "${XZ_LEVEL:--6}" > "$work/site.tar.xz"
rm -rf .g0 .g1 .g2 && mkdir .g0 .g1 .g2
part=$(( ($(stat -c %s "$work/site.tar.xz") + 2) / 3 ))
split -b "$part" -d "$work/site.tar.xz" "$work/part."
for i in 0 1 2; do mv "$work/part.0$i" ".g$i/site.tar.xz.$i"; done
du -sm .g0 .g1 .g2
