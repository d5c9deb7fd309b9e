#!/bin/sh
# SPDX-License-Identifier: MIT
# guest_kernel.sh DIRECTORY: put the kernel of Debian's linux-image-cloud-amd64,
# and the modules a virtio-net guest needs, into DIRECTORY.  They come from /boot
# where that package is installed; else the package is downloaded and unpacked,
# not installed: no boot loader hears of it.
set -eu

target=$1
modules="virtio virtio_ring virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci
	failover net_failover virtio_net"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

newest() {
	ls -1 "$1"/boot/vmlinuz-*-cloud-amd64 2>/dev/null | sort -V | tail -n 1
}

root=""
image=$(newest "$root")
if [ -z "$image" ] || [ ! -d "/lib/modules/${image#*/vmlinuz-}" ]; then
	package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/^ *Depends: //p')
	if [ -z "$package" ]; then
		[ "$(id -u)" != 0 ] || apt-get update -q >&2
		package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: //p')
	fi
	[ -n "$package" ] || { echo "apt knows no linux-image-cloud-amd64: add Debian's archive" >&2; exit 1; }
	chmod 755 "$scratch" # apt downloads as a user of its own
	(cd "$scratch" && apt-get download -q "$package") >&2
	root=$scratch/root
	dpkg-deb -x "$scratch"/*.deb "$root"
	image=$(newest "$root")
fi

mkdir -p "$target"
for module in $modules; do
	find "$root/lib/modules/${image##*/vmlinuz-}" -name "$module.ko" -exec cp {} "$target" \; -quit
	[ -f "$target/$module.ko" ] || { echo "$image has no module $module" >&2; exit 1; }
done
cp "$image" "$target/vmlinuz" # last: it is what make looks for
