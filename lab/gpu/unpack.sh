#!/bin/bash
# On the GPU machine: keep the part that came with this call; once all three lie there, unpack them into /tmp/site.
set -euo pipefail
kit=$(cd "$(dirname "$0")" && pwd)
mkdir -p /tmp/parts
for part in .g[0-2]/site.tar.xz.*; do [ -e "$part" ] && cp "$part" /tmp/parts/; done
ls -l /tmp/parts
[ "$(find /tmp/parts -type f | wc -l)" = 3 ] && [ ! -d /tmp/site ] || exit 0
mkdir /tmp/site
cat /tmp/parts/site.tar.xz.? | xz -dc -T0 | tar x -C /tmp/site
cp "$kit/random_weights.py" /tmp/site/
info=/tmp/site/random_weights-1.0.dist-info
mkdir "$info"
printf 'Metadata-Version: 2.1\nName: random-weights\nVersion: 1.0\n' > "$info/METADATA"
printf '[vllm.general_plugins]\nrandom_weights = random_weights:register\n' > "$info/entry_points.txt"
# As vllm-install.service does it: without, each process of each start would compile every module anew.
time PYTHONPATH=/tmp/site python3 -m compileall -q -j 0 /tmp/site > /dev/null || true
du -sm /tmp/site
