#!/bin/bash
# On the GPU machine: the host of a stack, with a systemd of its own as process 1. The machine's own files are the lower
# layer of its root and stay as they are; GPUs, network and results are the machine's.
# usage: host.sh FOLDER     (from host_files.py)   prints the process id of systemd in the machine's own process table
set -euo pipefail
folder=$(cd "$1" && pwd) kit=$(cd "$(dirname "$0")" && pwd) site=${SITE:-/tmp/site} results=${RESULTS:-/tmp/results}
root=/tmp/gpu-host
umount -R $root 2>/dev/null || true
mkdir -p $root /models "$results"
mount -t tmpfs tmpfs $root
mkdir -p $root/{upper,work,merged,packages}
mount -t overlay -o lowerdir=/,upperdir=$root/upper,workdir=$root/work overlay $root/merged
tar xJf "$folder/packages.tar.xz" -C $root/packages
# Only what is missing: the machine's own libraries are newer, and its Python needs them.
tar c -C $root/packages . | tar x -C $root/merged --skip-old-files --keep-directory-symlink
cp -a "$folder/root/." $root/merged/
chown -R 0:0 $root/merged/etc/pulumi-vllm
mkdir -p $root/merged/opt/{site,kit,results,models,vllm/bin}
awk '$2 ~ "^/(usr|opt|lib)" {print $2}' /proc/mounts | while read -r place; do mount --rbind "$place" "$root/merged$place"; done
mount --bind "$site" $root/merged/opt/site
mount --bind "$kit" $root/merged/opt/kit
mount --bind "$results" $root/merged/opt/results
mount --bind /models $root/merged/opt/models
python=$(command -v python3) path=/opt/site
base=$(python3 -c 'import sys; print(sys.base_prefix)')
case $base in
/root/* | /home/*) # which the unit may not see
  mkdir -p $root/merged/opt/python && mount --bind "$base" $root/merged/opt/python
  path=$path:$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  python=/opt/python/bin/python3
  ;;
esac
# shellcheck disable=SC2016  # the wrapper expands the unit's PYTHONPATH
printf '#!/bin/sh\nexec env PYTHONPATH=%s:$PYTHONPATH PYTHONDONTWRITEBYTECODE=1 %s "$@"\n' "$path" "$python" > $root/merged/opt/vllm/bin/python
chmod 755 $root/merged/opt/vllm/bin/python
{
  for name in PATH LD_LIBRARY_PATH CUDA_HOME VLLM_FAKE_START_S; do [ -z "${!name:-}" ] || echo "$name=${!name}"; done
  # On a shared host NVLink multicast must stay off (server.py).
  printf '%s\n' NCCL_NVLS_ENABLE=0 TORCH_SYMM_MEM_DISABLE_MULTICAST=1 NVSHMEM_DISABLE_NVLS=1
} > $root/merged/etc/pulumi-vllm/gpu-machine.env
for name in vllm haproxy; do
  grep -q "^$name:" $root/merged/etc/passwd || chroot $root/merged useradd --system --user-group --shell /usr/sbin/nologin "$name"
done
# Process 1 has a place of its own in the tree of control groups, at whose top it sees itself.
mkdir -p $root/cgroup && mount -t cgroup2 cgroup2 $root/cgroup && mkdir -p $root/cgroup/gpu-host
cat > $root/init <<'INIT'
set -eu
merged=/tmp/gpu-host/merged
mount --make-rprivate /
mount -t proc proc $merged/proc
mount -t sysfs sysfs $merged/sys
mount -t cgroup2 cgroup2 $merged/sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs $merged/dev
for device in null zero full random urandom tty kmsg; do cp -a /dev/$device $merged/dev/; done
cp -a /dev/nvidia* /dev/infiniband $merged/dev/ 2>/dev/null || true
mkdir -p $merged/dev/pts $merged/dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts $merged/dev/pts && ln -s pts/ptmx $merged/dev/ptmx
mount -t tmpfs -o mode=1777 tmpfs $merged/dev/shm
ln -s /proc/self/fd $merged/dev/fd
mount -t tmpfs -o mode=755 tmpfs $merged/run
mount -t tmpfs -o mode=1777 tmpfs $merged/tmp
mkdir -p $merged/run/systemd/system
for unit in systemd-udevd systemd-udev-trigger systemd-remount-fs systemd-modules-load systemd-timesyncd systemd-networkd \
  systemd-resolved systemd-logind systemd-sysctl systemd-hwdb-update ldconfig systemd-update-done; do
  ln -s /dev/null $merged/run/systemd/system/$unit.service
done
cd $merged && mkdir -p .old && pivot_root . .old && exec chroot . /bin/sh -c \
  'umount -l /.old; exec env -i container=gpu-machine /lib/systemd/systemd --system --unit=multi-user.target' </dev/null >/opt/results/systemd.txt 2>&1
INIT
(echo "$BASHPID" > $root/cgroup/gpu-host/cgroup.procs && exec setsid unshare --cgroup --mount --pid --uts --ipc --fork --kill-child \
  bash $root/init) </dev/null >/dev/null 2>&1 &
for _ in $(seq 100); do
  process=$(pgrep -f '^/lib/systemd/systemd --system --unit=multi-user.target' || true)
  [ -n "$process" ] && break
  sleep 0.1
done
echo "$process" > $root/pid
inside() { nsenter -t "$process" -m -p -u -i -C "$@"; }
for _ in $(seq 100); do inside systemctl is-system-running 2>/dev/null | grep -qE 'running|degraded' && break; sleep 0.2; done
echo "systemd is process $process: $(inside systemctl is-system-running || true), $(inside systemctl --version | head -n 1)"
inside systemctl --failed --no-legend --plain || true
