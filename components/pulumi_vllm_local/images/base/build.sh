#!/bin/bash
# Build the root file system that all machines share: build.sh ROOT SUITE PACKAGES SOURCES_FILE
set -euo pipefail
root=$1 suite=$2 packages=$3 sources=$4
seed=$(dirname "$0")/seed

mmdebstrap --quiet --variant=minbase --mode=root --include="$packages" \
  --aptopt='Acquire::Languages "none"' --aptopt='APT::Install-Recommends "false"' \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-include=/usr/share/doc/*/copyright' --dpkgopt='path-exclude=/usr/share/locale/*' \
  "$suite" "$root" "$sources"

# networkd is disabled by default, and without it a machine has no network. Nothing has to wait until it is online.
chroot "$root" systemctl --quiet enable systemd-networkd systemd-resolved
chroot "$root" systemctl --quiet mask systemd-networkd-wait-online.service apt-daily.timer apt-daily-upgrade.timer
ln -sfn /run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
# A rented machine does not have these two. They are installed here so that no machine has to download them.
chroot "$root" systemctl --quiet disable haproxy.service nftables.service

install -D -m644 "$seed/99-localcloud.cfg" "$root/etc/cloud/cloud.cfg.d/99-localcloud.cfg"
install -m644 "$seed"/*.service "$seed"/*.path "$root/etc/systemd/system/"
install -D -m755 "$seed/lc-disk-links" "$root/usr/local/sbin/lc-disk-links"
install -m755 "$seed/mount.virtiofs" "$root/usr/sbin/mount.virtiofs"
chroot "$root" systemctl --quiet enable lc-disks.service lc-disks.path lc-reboot.service

# Each machine generates its own host keys and machine id.
rm -f "$root"/etc/ssh/ssh_host_*
: > "$root/etc/machine-id"
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin "$root"/var/log/{apt,dpkg.log,bootstrap.log}
chroot "$root" bash -c 'mkdir -p /var/log/apt; compileall() { python3 -m compileall -q /usr/lib/python3/dist-packages; }; compileall' || true

cycles=$(chroot "$root" systemd-analyze verify multi-user.target 2>&1 | grep -i cycle || true)
if [[ -n $cycles ]]; then echo "units order in a cycle: $cycles" >&2; exit 1; fi
