#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2016 # what is in single quotes runs in the guest
# How Linux guests end and go on: reboot, reboot taken for the end, panic, a pause in between; on both kinds of kernel
# image.
# prepare: for k in debian 7.2-elf; do tests/guest/kernel $k && tests/guest/initramfs $k; done
# timeout: 240

# shellcheck source=tests/testhost/lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"

# The disk counts the lives: the guest reboots twice and powers off in its third.
for kernel in debian 7.2-elf; do
	printf 0 >"$work/disk"
	truncate -s 1M "$work/disk"
	guest_timeout=90 guest_kernel=$kernel guest 'n=$(head -c 1 /dev/vda); echo life $n; [ $n = 2 ] ||
		{ printf $((n + 1)) | dd of=/dev/vda conv=notrunc,fsync 2>/dev/null; reboot -f; sleep 60; }' \
		--disk "$work/disk" >"$work/out" 2>&1
	is "$kernel: reboots end with the power-off" $? 0
	is "$kernel: three lives" "$(grep -c '^life' "$work/out")" 3
	has "$kernel: the last one is the third" "$work/out" '^life 2'
	guest_kernel=$kernel guest 'reboot -f; sleep 60' --on-reboot exit >"$work/out" 2>&1
	is "$kernel: a reboot can be the end" $? 0
	guest_kernel=$kernel guest 'sleep 1; echo c >/proc/sysrq-trigger; sleep 60' >"$work/out" 2>&1
	is "$kernel: a panic ends with 3" $? 3
	has "$kernel: and is said in one line" "$work/out" "^mvmm: the guest's kernel panicked"
done

guest 'i=0; while [ $i -lt 40 ]; do i=$((i + 1)); read -r up _ </proc/uptime; echo tick $i $up; sleep 0.1; done' --name pauses --cpus 2 >"$work/out" 2>&1 &
pid=$!
until_true 30 grep -q 'tick 10 ' "$work/out"
"$mvmm" pause pauses
sleep 0.5
before=$(tail -n 1 "$work/out")
sleep 2
is 'a paused guest does not tick' "$(tail -n 1 "$work/out")" "$before"
"$mvmm" resume pauses
wait $pid
is 'it goes on and powers off' $? 0
has 'no tick is missing' <(grep -c '^tick' "$work/out") '^40$'
is 'its time stood still' "$(awk '/^tick/ { if (NR > 1 && last && $3 - last > most) most = $3 - last; last = $3 }
	END { print most < 2 }' "$work/out")" 1
