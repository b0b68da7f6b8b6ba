#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# In the guest: fio on the disk whose serial number is "bench"; one line "@@ NAME IOPS" a job.

for disk in /sys/block/vd*; do
	[ "$(cat "$disk/serial")" != bench ] || break
done
for rw in randread randwrite; do
	fio --name=$rw --rw=$rw --filename="/dev/${disk##*/}" --bs=4k --iodepth=32 --ioengine=libaio --direct=1 \
		--time_based --ramp_time=1 --runtime=4 --norandommap --randrepeat=0 \
		--output-format=terse --terse-version=3 |
		awk -F ';' -v name=$rw '{ print "@@", name, $8 + $49 }'
done
