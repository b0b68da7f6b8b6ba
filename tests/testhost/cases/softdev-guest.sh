#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The project's own VFIO device in a guest, by both backends, two at once behind different IOMMUs: a tiny guest checks
# every byte that they write, also of long jobs that run while it looks away.
# host: --device softdev,count=2 --device softdev,iommu=plain
# timeout: 200

# shellcheck source=tests/testhost/lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
# shellcheck source=tests/testhost/vfio.sh
. "$tree/tests/testhost/vfio.sh"
kernel=$(dirname "$(dirname "$mvmm")")/tests/guests/guest_softdev
sys=/sys/bus/platform/devices
dmesg -C

# run BACKEND [OPTION]...
run()
{
	timeout -k 1 $((60 * patience)) "$mvmm" run --kernel "$kernel" --memory 64M --vfio "$sys/softdev.0,backend=$1" \
		--vfio "$sys/softdev.2,backend=$1" "${@:2}" >"$work/out" 2>"$work/err"
}

# rounds N: the guest has begun its Nth
rounds() { [ "$(grep -c '^at work' "$work/out")" -ge "$1" ]; }

mkfifo "$work/keys"
for backend in iommufd legacy; do
	before=$(pinned)
	run $backend </dev/null
	is "$backend: the guest ends well" $? 0
	for what in registers pattern 'nothing around it' copy message fault; do
		is "$backend: $what, each device" "$(grep -c "^$what works" "$work/out")" 2
	done
	run $backend --cmdline work <"$work/keys" &
	exec {keys}>"$work/keys"
	for round in 1 2; do
		until_true 20 rounds $round
		sleep 1
		[ $round = 2 ] || printf c >&"$keys"
	done
	printf q >&"$keys"
	exec {keys}>&-
	wait
	right=$(grep -c '^device .* passes 0*[1-9a-f][0-9a-f]* wrong bytes 00000000 stopped' "$work/out")
	is "$backend: endless jobs, every byte, twice" "$right" 4
	[ "$right" = 4 ] || sed 's/^/    /' "$work/out" "$work/err"
	is "$backend: nothing stays pinned" "$(pinned)" "$before"
done
kernel_is_quiet "the kernel has no complaint"
