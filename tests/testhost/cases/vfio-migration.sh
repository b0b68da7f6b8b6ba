#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Devices are moved by vfio/migration.c on real kernel code, without guests: the project's own, at work, in each tracking
# mode and with one of each at once; with all of the protocol and with parts of it; failures on the way; and characters in
# flight in an mtty.
# host: --device softdev,count=4 --device softdev,iommu=plain,count=2 --device mtty
# timeout: 300

# shellcheck source=tests/testhost/lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
# shellcheck source=tests/testhost/vfio.sh
. "$tree/tests/testhost/vfio.sh"
# shellcheck disable=SC2154 # of lib.sh
probe=$(dirname "$(dirname "$mvmm")")/tests/testhost/migration_probe
sys=/sys/bus/platform/devices
a=$sys/softdev.0 b=$sys/softdev.1 c=$sys/softdev.2 d=$sys/softdev.3 plain=$sys/softdev.4 other=$sys/softdev.5

# probe WHAT ARGUMENT...
# shellcheck disable=SC2154 # of lib.sh
probe()
{
	timeout -k 1 $((100 * patience)) "$probe" "${@:2}" >"$work/out" 2>"$work/log"
	has "$1" "$work/out" '^right$' | tee "$work/result"
	! grep -q '^not ok' "$work/result" || sed 's/^/    /' "$work/log"
}

# fails WHAT PATTERN ARGUMENT...: it says so
fails()
{
	timeout -k 1 $((100 * patience)) "$probe" "${@:3}" >"$work/out" 2>"$work/log"
	has "$1" "$work/out" "$2"
}

number() { sed -n "s/.*\b$1=\([0-9]*\).*/\1/p" "$work/out"; }
coverage() { grep -o 'coverage=[a-z0-9]*\( log\)\?' "$work/out" | cut -d= -f2 | paste -sd, ; }
knob() { for device in "${@:3}"; do echo "$2" >"$device/$1"; done; }

# new_mtty: a mediated device with one port
new_mtty()
{
	local uuid
	uuid=$(cat /proc/sys/kernel/random/uuid)
	echo "$uuid" >/sys/devices/virtual/mtty/mtty/mdev_supported_types/mtty-1/create
	echo "$uuid"
}

dmesg -C
tty=$(new_mtty) other_tty=$(new_mtty)
for backend in iommufd legacy; do
	[ $backend = iommufd ] && page_table=hwpt || page_table=none
	before=$(pinned)
	probe "$backend: a device at work moves, followed by its own log" move $backend log $a $b
	is "$backend: that is its tracker" "$(coverage)" "device log"
	probe "$backend: and without its own log" move $backend nolog $a $b
	is "$backend: that is its tracker" "$(coverage)" "$page_table"
	probe "$backend: two at once" move $backend nolog $a $b $c $d
	knob dma_logging 0 $b $plain
	probe "$backend: one of each mode at once" move $backend log $a $b $plain $c $d $other
	is "$backend: those are their trackers" "$(coverage)" "device log,$page_table,none"
	is "$backend: what nobody can tell is known" "$(number untold)" 16777216
	knob dma_logging 1 $b $plain
	probe "$backend: characters in flight in an mtty: none lost, none doubled" chars $backend "$tty" "$other_tty"
	probe "$backend: failures on the way leave devices that go on, or a reset" fail $backend $a $b
	is "$backend: each reset is said" "$(grep -c 'it has been reset, and its driver must set it up anew' "$work/log")" 3
	is "$backend: nothing stays pinned" "$(pinned)" "$before"
done

for flags in 1 3 5; do
	knob migration $flags $a $b
	probe "a device with migration flags $flags" move iommufd nolog $a $b
done
knob migration 5 $a $b $c $d
fails "two without P2P are refused" 'softdev.0: of 2 devices each must be able to stop its traffic' move iommufd nolog $a $b $c $d
knob migration 0 $b
fails "one that cannot migrate is refused" 'softdev.1: its driver on this host .* cannot migrate it' move iommufd nolog $a $b
knob migration 7 $a $b $c $d
knob store_size 1048576 $a $b
probe "1 MiB of state" move iommufd log $a $b
is "goes out while the device runs" "$(($(number early) > 1048576 && $(number early) <= $(number bytes)))" 1
knob store_size 65536 $a $b

# The test's own power: one mark in ten is lost.
knob lose_dirty 10 $a
for log in log nolog; do
	fails "lost dirty bits are found out ($log)" '^failed: memory' move iommufd $log $a $b
done
knob lose_dirty 0 $a
kernel_is_quiet "the kernel has no complaint"
