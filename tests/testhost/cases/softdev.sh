#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The project's own VFIO device behind a software IOMMU with dirty tracking: which page tables and trackers vfio/ takes,
# and that what they report is what was written, for each kind of tracker; a device that loses dirty bits is found out.
# host: --device softdev,count=2 --device softdev,iommu=plain
# timeout: 300

# shellcheck source=tests/testhost/lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
# shellcheck source=tests/testhost/vfio.sh
. "$tree/tests/testhost/vfio.sh"
# shellcheck disable=SC2154 # of lib.sh
probe=$(dirname "$(dirname "$mvmm")")/tests/testhost/softdev_probe
sys=/sys/bus/platform/devices
a=$sys/softdev.0 b=$sys/softdev.1 plain=$sys/softdev.2

# probe WHAT EXPECTED-END ARGUMENT...: exact, or why not
# shellcheck disable=SC2154 # of lib.sh
probe()
{
	"$probe" "${@:3}" >"$work/out" 2>"$work/log"
	is "$1" "$(tail -n 1 "$work/out" | sed 's/ at 0x[0-9a-f]*: missing=[1-9][0-9]*/ missing=some/')" "$2" | tee "$work/result"
	! grep -q '^not ok' "$work/result" || sed 's/^/    /' "$work/out" "$work/log"
}

value() { grep -o "[ ]$1=[^=]*\( [a-z]*=\|$\)" "$work/out" | sed "s/ $1=//;s/ [a-z]*=$//" | paste -sd' '; }

dmesg -C
probe "iommufd, the IOMMU's page table: reports are exact" exact iommufd nolog $a $b
is "iommufd: two devices of one IOMMU share a page table" "$(value hwpt | tr ' ' '\n' | sort -u | wc -l)" 1
has "iommufd: made with dirty tracking, at the first try" "$work/out" '^attach_einval=0 hwpt_dirty=1 hwpt_plain=0$'
is "iommufd: the page table covers them" "$(value coverage)" "hwpt hwpt"
is "iommufd: no warning" "$(cat "$work/log")" ""

probe "iommufd, one of the IOMMUs cannot tell: everything is reported" exact iommufd nolog $a $plain
is "iommufd: devices of two IOMMUs have two page tables" "$(value hwpt | tr ' ' '\n' | sort -u | wc -l)" 2
has "iommufd: EINVAL leads to another page table, without the dirty flag" "$work/out" '^attach_einval=1 hwpt_dirty=1 hwpt_plain=1$'
is "iommufd: GET_HW_INFO tells which one tracks" "$(value tracks)" "1 0"
is "iommufd: coverage is each device's" "$(value coverage)" "hwpt none"
is "iommufd: one warning names the device" "$(grep -c 'softdev.2: its IOMMU does not track dirty pages' "$work/log")" 1

for backend in iommufd legacy; do
	probe "$backend, the devices' own logs: reports are exact" exact $backend log $a $b $plain
	is "$backend: the devices cover themselves" "$(value coverage)" "device log device log device log"
done
# Whether a driver pins what it writes is not to be seen from here: type1 is asked of no device behind an IOMMU.
echo 1 >$b/pins
probe "legacy, devices that pin nothing, and one that does: everything is reported" exact legacy nolog $a $b $plain
is "legacy: nothing covers them" "$(value coverage)" "none none none"
echo 0 >$b/pins

echo 0 >$b/dma_logging
for backend in iommufd legacy; do
	probe "$backend, a log of its own in one device only: reports are exact" exact $backend log $a $b
done
is "legacy: each device has its best tracker" "$(value coverage)" "device log none"
echo 1 >$b/dma_logging

# The test's own power: one mark in ten is lost.
echo 10 >$a/lose_dirty
lost='failed: after a round: memory missing=some extra=0'
probe "iommufd: lost dirty bits of the page table are found out" "$lost" iommufd nolog $a
probe "iommufd: those of the device's log are found out" "$lost" iommufd log $a
echo 0 >$a/lose_dirty

# As in vfio-containers.sh, with page tables that track.
for knob in failslab/ignore-gfp-wait fail_page_alloc/ignore-gfp-wait; do
	echo N >/sys/kernel/debug/$knob
done
echo 0 >/sys/kernel/debug/fail_page_alloc/min-order
for knob in failslab fail_page_alloc fail_usercopy fail_iommufd; do
	[ ! -e /sys/kernel/debug/$knob ] || echo 0 >/sys/kernel/debug/$knob/verbose
done
for backend in iommufd legacy; do
	"$(dirname "$probe")/vfio_probe" faults $backend $a $plain >"$work/out" 2>"$work/log"
	is "$backend: a fault in any call leaves nothing" $? 0
	has "$backend: dozens of places failed" "$work/out" '^faults=[0-9]{2,} '
done

is "while there are devices the module stays" "$(rmmod softdev 2>&1 | grep -c 'in use')" 1
echo >/sys/module/softdev/parameters/devices
is "the devices go" "$(ls -d $sys/softdev.* 2>/dev/null)" ""
rmmod softdev
is "the module goes" "$(ls -d /sys/module/softdev 2>/dev/null)" ""
insmod "$MVMM_TESTHOST/softdev.ko" devices=ttp
is "both come back" "$(compgen -G "$sys/softdev.*" | wc -l)" 3
kernel_is_quiet "the kernel has no complaint"
