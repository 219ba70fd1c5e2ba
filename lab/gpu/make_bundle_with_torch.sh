#!/bin/bash
# Here, without a GPU: fill .g0 .g1 ... at the checkout's root with an engine that needs a newer torch than the GPU machine has.
# The bundle contains torch, Triton and NCCL. cuBLAS, cuDNN and the other CUDA libraries are those of the machine.
# On two busy cores it takes 20 minutes, nearly all of them for xz.
# usage: make_bundle_with_torch.sh VERSION [WORK]   (reads wheels-VERSION.txt; WORK keeps the downloads between runs)
set -euo pipefail
kit=$(cd "$(dirname "$0")" && pwd)
cd "$(git -C "$kit" rev-parse --show-toplevel)"
version=$1 work=${2:-$(mktemp -d)} part_mib=${PART_MIB:-48}  # below 64 MiB with the checkout
mkdir -p "$work/wheels" && rm -rf "$work/site" && mkdir "$work/site"
[ -x "$work/venv/bin/pip" ] || { python3 -m venv "$work/venv"; "$work/venv/bin/pip" install -q -U pip; }
platform=(); for n in $(seq 5 39); do platform+=(--platform "manylinux_2_${n}_x86_64"); done
platform+=(--platform manylinux2014_x86_64 --platform manylinux2010_x86_64 --platform manylinux1_x86_64
           --platform linux_x86_64 --platform any)
# The GPU machine has CPython 3.12, so every wheel is chosen for that interpreter.
target=(--no-deps --only-binary=:all: --python-version 3.12 --implementation cp --abi cp312 --abi abi3 --abi none)
"$work/venv/bin/pip" download -q -d "$work/wheels" "${target[@]}" "${platform[@]}" -r "$kit/wheels-$version.txt"
"$work/venv/bin/pip" install -q --no-index --no-compile --upgrade --target "$work/site" \
  "${target[@]}" "${platform[@]}" "$work"/wheels/*.whl
cd "$work/site"
# These are left out: the FlashAttention 2 kernels (Hopper uses version 3), the Rust front end, Triton's profiler, the
# assembler for Blackwell, static libraries, torch's protobuf compiler, and builds for other Python versions.
rm -rf bin vllm/vllm_flash_attn/_vllm_fa2_C* vllm/vllm-rs triton/backends/nvidia/lib/cupti* \
  triton/backends/nvidia/bin/ptxas-blackwell triton/_C/libproton.so triton/instrumentation torch/bin/protoc*
find . \( -name '*.a' -o -name '__pycache__' -o -name '*.cpython-31[0134]-*' \) -prune -exec rm -rf {} +
find . -type f \( -name '*.so' -o -name '*.so.*' \) -print0 | xargs -0 python3 "$kit/prune_fatbin.py" | grep -v 'blanked 0, not read 0, symbols 0'
find . \( -type f -o -type l \) \( -name '*.so' -o -name '*.so.*' -o -path './triton/backends/nvidia/bin/*' -o -path './torch/bin/*' \) > "$work/code"
# xz with its x86 filter compresses machine code best. zstd compresses the rest, nearly a gigabyte of text, in a minute.
tar c -T "$work/code" | nice -n 15 xz -T2 --block-size=32MiB --x86 --lzma2=preset=6 > "$work/code.tar.xz"
tar c -X "$work/code" . | nice -n 15 zstd -T2 -9 --long=27 -q -f -o "$work/rest.tar.zst"
cd - > /dev/null
rm -f .g*/site.* "$work"/site.part.*
cat "$work/code.tar.xz" "$work/rest.tar.zst" | split -b "${part_mib}M" -d - "$work/site.part."
for part in "$work"/site.part.*; do n=$((10#${part##*.})); mkdir -p ".g$n"; mv "$part" ".g$n/"; done
stat -c %s "$work/code.tar.xz" > .g0/site.code_bytes
du -sm .g*
