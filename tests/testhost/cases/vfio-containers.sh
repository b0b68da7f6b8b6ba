#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Containers on the real kernel, without a guest: an NVMe, two VFs and a mediated device through both backends, and every
# place in the kernel's VFIO and iommufd code that can be told to fail, with a device that has no reset to wait for.
# host: --device nvme --device igb,vfs=2 --device mtty --device edu
# timeout: 400

cd "$(dirname "$(readlink -f "$0")")/../../.." || exit 1
probe=$PWD/build-release/tests/testhost/vfio_probe
mdev=83b8f4f2-509f-382f-3c1e-e6bfe0fa1001
out=$(mktemp -d)

# check WHAT CONDITION...: ok when the condition holds, else what the probe printed
check()
{
	local what=$1
	shift
	if "$@"; then
		echo "ok $what"
	else
		echo "not ok $what: $*"
		cat "$out"/*
	fi
}

give_to_vfio()
{
	local device=/sys/bus/pci/devices/$1
	echo vfio-pci >"$device/driver_override"
	[ ! -e "$device/driver" ] || echo "$1" >"$device/driver/unbind"
	echo "$1" >/sys/bus/pci/drivers_probe
}

# run ARGUMENT...: what the probe prints is kept for the checks that follow
run() { "$probe" "$@" >"$out/attach" 2>"$out/log"; }

# values NAME: what the devices' lines of the last run say for NAME, each once
values() { grep -o "[ ]$1=[^ ]*" "$out/attach" | sort -u | cut -d= -f2 | paste -sd' '; }
is() { [ "$1" = "$2" ]; }
said() { grep -q -- "$1" "$2"; }
# One of the kernel's warnings is for an allocation on the way out, which must not fail and now and then is told to.
quiet()
{
	dmesg >"$out/dmesg" && said 'the faults begin' "$out/dmesg" && ! grep -E 'Oops|BUG:|WARNING:|general protection|refcount_t' "$out/dmesg" |
		grep -v 'WARNING: .* at __iommu_release_dma_ownership'
}

nvme=$(basename "$(echo /sys/bus/pci/drivers/nvme/0*)")
edu=$(grep -l 0x11e8 /sys/bus/pci/devices/*/device | cut -d/ -f6)
mapfile -t vfs < <(printf '%s\n' /sys/bus/pci/devices/*/physfn | cut -d/ -f6)
for device in "$nvme" "$edu" "${vfs[@]}"; do
	give_to_vfio "$device"
done
echo "$mdev" >/sys/devices/virtual/mtty/mtty/mdev_supported_types/mtty-2/create
devices=("$nvme" "${vfs[@]}" "$mdev")

# What is mapped for the devices and what the process has pinned is gone when they are closed: the probe compares.
check "iommufd: attach, all of it given back" run attach iommufd "${devices[@]}"
check "iommufd: 512 MiB are pinned meanwhile" said pinned_kib=524288 "$out/attach"
check "iommufd: one IOAS for all" is "$(values ioas | wc -w)" 1
check "iommufd: one page table for three devices of one IOMMU, none for the mediated one" is "$(values hwpt | wc -w) $(values hwpt | cut -d' ' -f1)" "2 0"
check "iommufd: GET_HW_INFO knows VT-d" is "$(values iommu)" "- vtd"
check "iommufd: this IOMMU refuses dirty tracking with EOPNOTSUPP" is "$(values dirty_hwpt)" EOPNOTSUPP
check "iommufd: who is not covered makes all memory dirty" said "dirty_pages=65536 of=65536" "$out/attach"

check "legacy: attach, all of it given back" run attach legacy "${devices[@]}"
check "legacy: 512 MiB are locked meanwhile" said locked_kib=524288 "$out/attach"
check "legacy: sysfs knows VT-d" is "$(values iommu)" "- vtd"
check "legacy: type1 covers no function" is "$(values coverage)" "device none"

exec {group}<>"/dev/vfio/$(basename "$(readlink "/sys/bus/pci/devices/$nvme/iommu_group")")"
for backend in iommufd legacy; do
	run attach $backend "$nvme"
	check "$backend: a device in use is told so, with the file" said "in use.*fuser -v /dev/vfio/" "$out/attach"
done
exec {group}>&-

# Allocations that may sleep and single pages fail too, and say nothing about it.
for knob in failslab/ignore-gfp-wait fail_page_alloc/ignore-gfp-wait; do
	echo N >/sys/kernel/debug/$knob
done
echo 0 >/sys/kernel/debug/fail_page_alloc/min-order
for knob in failslab fail_page_alloc fail_usercopy fail_iommufd; do
	[ ! -e /sys/kernel/debug/$knob ] || echo 0 >/sys/kernel/debug/$knob/verbose
done
dmesg -C
echo 'the faults begin' >/dev/kmsg # whoever finds no complaint has found this
# Enabling a PCI function runs the kernel's ACPI interpreter, which does not survive this: that call is for mtty alone.
for backend in iommufd legacy; do
	check "$backend: a fault in any call is a clean error and leaves nothing" \
		run faults-enable $backend "$mdev"
	check "$backend: the same with an IOMMU behind it" run faults $backend "$edu" "$mdev"
	check "$backend: more than 50 places failed" [ "$(sed -n 's/^faults=\([0-9]*\) .*/\1/p' "$out/attach")" -gt 50 ]
	check "$backend: the kernel has nothing to say about them" quiet
done
rm -rf "$out"
