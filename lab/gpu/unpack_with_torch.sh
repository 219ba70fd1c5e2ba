#!/bin/bash
# On the GPU machine, once for each part of make_bundle_with_torch.sh: store the part. Once PARTS of them are there, unpack them.
# usage: unpack_with_torch.sh PARTS [SITE [SHARED]]    (SITE: /tmp/site)
# With SHARED, the engine uses the machine's torch: unpack_with_torch.sh PARTS /tmp/old /tmp/site unpacks into /tmp/old and
# links the packages that it shares with /tmp/site. torch and its companions are never linked.
set -euo pipefail
kit=$(cd "$(dirname "$0")" && pwd)
site=${2:-/tmp/site} shared=${3:-}
parts=/tmp/parts.$(basename "$site")
mkdir -p "$parts"
for part in .g*/"$(basename "$site")".{part.*,code_bytes}; do [ -e "$part" ] && cp "$part" "$parts/"; done
ls -l "$parts"
[ "$(find "$parts" -name '*.part.*' | wc -l)" = "$1" ] && [ ! -d "$site" ] || exit 0
mkdir "$site"
code=$(cat "$parts"/*.code_bytes)
# Not every machine has zstd. PyArrow reads the same format.
unzstd() {
  if command -v zstd > /dev/null; then zstd -dc --long=27; else
    python3 -c 'import shutil, sys, pyarrow; shutil.copyfileobj(pyarrow.CompressedInputStream(pyarrow.PythonFile(sys.stdin.buffer, "r"), "zstd"), sys.stdout.buffer, 1 << 20)'
  fi
}
time {
  [ "$code" = 0 ] || cat "$parts"/*.part.* | head -c "$code" | xz -dc -T0 | tar x -C "$site" &
  cat "$parts"/*.part.* | tail -c "+$((code + 1))" | unzstd | tar x -C "$site"
  wait
}
if [ -n "$shared" ]; then
  for entry in "$shared"/*; do
    case $(basename "$entry") in
      torch* | functorch | triton* | nvidia* | vllm* | flashinfer* | humming* | quack* | cutlass* | huggingface_hub* | random_weights*) continue ;;
    esac
    [ -e "$site/$(basename "$entry")" ] || ln -s "$entry" "$site/"
  done
  # Where both have a version of a package, only the metadata of the unpacked one may be found.
  for info in "$site"/*.dist-info; do
    [ -L "$info" ] || for other in "$site/$(basename "$info" | sed 's/-[0-9].*//')"-[0-9]*.dist-info; do
      if [ -L "$other" ]; then rm "$other"; fi
    done
  done
else
  # torch looks for the CUDA libraries beside itself. NCCL came with the bundle; the others are those of the machine.
  own=$(python3 -c 'import nvidia.cudnn; print(next(iter(nvidia.cudnn.__path__)))')
  for entry in "$(dirname "$own")"/*; do
    [ -e "$site/nvidia/$(basename "$entry")" ] || ln -s "$entry" "$site/nvidia/"
  done
  ls -l "$site/nvidia"
fi
cp "$kit/random_weights.py" "$kit/controls.py" "$site/"
info=$site/random_weights-1.0.dist-info
mkdir "$info"
printf 'Metadata-Version: 2.1\nName: random-weights\nVersion: 1.0\n' > "$info/METADATA"
printf '[vllm.general_plugins]\nrandom_weights = random_weights:register\ncontrols = controls:register\n' > "$info/entry_points.txt"
# vllm-install.service does the same. Without it, each process of each start would compile every module again.
time PYTHONPATH=$site python3 -m compileall -q -j 0 "$site" > /dev/null || true
du -sm "$site"
PYTHONPATH=$site python3 -c 'import torch, triton; print(torch.__version__, triton.__version__, torch.__file__, torch.cuda.get_device_name(), (torch.ones(8, device="cuda", dtype=torch.bfloat16) @ torch.ones(8, 8, device="cuda", dtype=torch.bfloat16)).sum().item())' || true
