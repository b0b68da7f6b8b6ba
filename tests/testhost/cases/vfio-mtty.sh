#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A mediated device, mtty: a 16550 with two ports and INTx, no IOMMU behind it, no reset, and no eventfd to unmask its
# interrupt. Its ports are looped back inside, so what the guest sends it receives.
# host: --device mtty
# prepare: tests/guest/initramfs 7.2-elf
# timeout: 200

# shellcheck source=tests/testhost/lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
# shellcheck source=tests/testhost/vfio.sh
. "$tree/tests/testhost/vfio.sh"
guest_kernel=7.2-elf
uuid=83b8f4f2-509f-382f-3c1e-e6bfe0fa1001
echo "$uuid" >/sys/devices/virtual/mtty/mtty/mdev_supported_types/mtty-2/create
has "the list knows it" <("$mvmm" vfio list) "$uuid.*mediated"
dmesg -C

for backend in iommufd legacy; do
	before=$(pinned)
	guest 'port=$(grep -l 4348 /sys/bus/pci/devices/*/vendor); list=$(find ${port%vendor} -name ttyS[0-9]*);
		for t in $list; do basename $t; done; t=/dev/$(basename $t);
		stty -F $t 115200 raw -echo; exec 3<>$t; (timeout 10 head -c 12 <&3; echo) & sleep 1; echo hello, mtty >&3; sleep 1;
		grep ttyS /proc/interrupts; wait' --memory 256M --vfio "$uuid,backend=$backend" >"$work/out" 2>"$work/err"
	has "$backend: the guest's driver finds two ports" "$work/out" '^ttyS[1-9]'
	has "$backend: what is sent comes back" "$work/out" '^hello, mtty'
	has "$backend: by interrupts on the line" "$work/out" 'IO-APIC.*ttyS[1-9]'
	is "$backend: nothing stays pinned" "$(pinned)" "$before"
done
"$mvmm" run --kernel "$tree/build-release/tests/guests/guest_button" --memory 64M --name mdev --vfio "$uuid" </dev/null >"$work/out" 2>&1 &
until_true 20 grep -q waiting "$work/out"
has "info: a mediated device is attached to the IOAS itself" <("$mvmm" info mdev) 'hwpt 0'
"$mvmm" stop --force mdev
wait
kernel_is_quiet "the kernel has no complaint"
