#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The migration states of the project's own VFIO device: every arc, whole states moved from one device to another while
# it works, sizes and speed on demand.
# host: --device softdev,count=2 --device softdev,iommu=plain
# timeout: 200

# shellcheck source=tests/testhost/lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
# shellcheck source=tests/testhost/vfio.sh
. "$tree/tests/testhost/vfio.sh"
# shellcheck disable=SC2154 # of lib.sh
probe=$(dirname "$(dirname "$mvmm")")/tests/testhost/softdev_migration
sys=/sys/bus/platform/devices
a=$sys/softdev.0 b=$sys/softdev.1

# probe WHAT ARGUMENT...
# shellcheck disable=SC2154 # of lib.sh
probe()
{
	"$probe" "${@:2}" >"$work/out" 2>&1
	has "$1" "$work/out" '^right$'
}

number() { sed -n "s/.*\b$1=\([0-9]*\).*/\1/p" "$work/out"; }
between() { is "$1" "$(($2 >= $3 && $2 <= $4)) ($2)" "1 ($2)"; }

dmesg -C
for flags in 7 5 3 1 0; do
	echo $flags >$a/migration
	probe "arcs, migration flags $flags" arcs $flags $a
done
echo 7 >$a/migration

probe "a device at work moves to another one, its state is the same byte for byte" move $a $b
for size in 16384 1048576; do
	echo $size | tee $a/store_size >$b/store_size
	probe "the same with $size bytes of state" move $a $b
done

probe "what fails on the way leaves a device that goes on" fail $a

echo 67108864 >$a/store_size
probe "64 MiB of state" time $a
between "their size" "$(number bytes)" 67108864 67700000
echo 1048576 >$a/store_size
echo 1024 >$a/state_rate
probe "1 MiB of state at 1 MiB a second" time $a
between "takes a second, in ms" "$(number ms)" 950 2500
echo 0 >$a/state_rate
echo 65536 | tee $a/store_size >$b/store_size
is "a size that is no page multiple is refused" "$(bash -c "echo 5 >$a/store_size" 2>&1 | grep -c 'Invalid argument')" 1
kernel_is_quiet "the kernel has no complaint"
