#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2016 # what is in single quotes runs in the guest
# A guest reboots that was asked for its device and has not let it go, by the host or by the user: the next life is
# without it. And a device handed in by its descriptor: leaves for good, and ends with the guest's reboot.
# host: --device edu --memory 2G
# prepare: tests/guest/kernel 7.2-elf && tests/guest/initramfs 7.2-elf
# timeout: 200

# shellcheck source=tests/testhost/lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
# shellcheck source=tests/testhost/vfio.sh
. "$tree/tests/testhost/vfio.sh"
# a kernel that is deaf to what ACPI says of its slots
guest_kernel=7.2-elf guest_args=acpiphp.disable=1
edu=$(function_of 1234:11e8)
dmesg -C

# lives BACKEND: a guest that reboots some seconds after it has seen the device, and powers off where there is none
lives()
{
	: >"$work/out"
	guest 'grep -qs 0x11e8 /sys/bus/pci/devices/*/device && { echo with; sleep 6; reboot -f; sleep 60; }; echo without' \
		--memory 128M --name lives --vfio "$edu,id=edu,backend=$1" >"$work/out" 2>"$work/err" &
	guest_pid=$!
	until_true 40 grep -q '^with$' "$work/out"
}

# lived WHAT
lived()
{
	wait "$guest_pid"
	is "$1: the guest powers off" "$?" 0
	is "$1: two lives, the second one without" "$(grep -E '^with' "$work/out" | tr '\n' ' ')" 'with without '
	cat "$work/err"
}

for backend in iommufd legacy; do
	give "$edu"
	lives "$backend"
	timeout $((40 * patience)) "$mvmm" vfio unbind "$edu"
	is "$backend: the host gets its device at the guest's reboot" "$?" 0
	lived "$backend: the host wants it"
	has "$backend: which was said" "$work/err" 'vfio edu: the host wants it back'
done

give "$edu"
lives iommufd
timeout $((40 * patience)) "$mvmm" vfio remove lives edu
is 'removed by the reboot' "$?" 0
lived 'the user wants it'

# held COMMAND...: with the device's file as descriptor 10 and iommufd's as 11, which nobody else has
held() { exec "$@" 10<>"/dev/vfio/devices/$(ls "/sys/bus/pci/devices/$edu/vfio-dev")" 11<>/dev/iommu; }
tiny() { held "$mvmm" run --kernel "$tree/build-release/tests/guests/guest_$1" --memory 32M --name tiny \
	--vfio fd=10,id=edu --iommufd fd=11; }

(tiny reboot) </dev/null >"$work/out" 2>"$work/err"
is 'handed in: a reboot is the end' "$? $(grep -c up "$work/out")" '1 1'
has 'handed in: which is explained' "$work/err" '^mvmm: reboot: --vfio fd=10: .*bound only once'
(tiny button) </dev/null >"$work/out" 2>"$work/err" &
until_true 20 grep -q waiting "$work/out"
"$mvmm" vfio add tiny fd=3 >"$work/add" 2>&1
is 'handed in: not to a machine that runs' "$?" 1
has 'handed in: and says so' "$work/add" 'fd=3: only mvmm run takes descriptors'
"$mvmm" vfio remove --force tiny edu
timeout $((20 * patience)) "$mvmm" vfio unbind "$edu"
is 'handed in: once removed it is the host'"'"'s again' "$?" 0
has 'handed in: the machine goes on' <("$mvmm" info tiny) running
"$mvmm" stop --force tiny
wait
kernel_is_quiet "the kernel has no complaint"
