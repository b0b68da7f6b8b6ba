#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Limits of a disk, measured over ten seconds, changed while the guest runs, and kept over pause and snapshot; and the
# host's CPUs that vCPUs run on. Tiny guests under the real program and the real /dev/kvm. TAP on stdout.
# usage: limits.sh MVMM GUEST-DIRECTORY

# shellcheck source=tests/kvm/lib.sh
. "$(dirname "$0")/lib.sh"

# start NAME ARG...: runs a machine in the background
start() {
	local name=$1
	shift
	"$mvmm" run --name "$name" --memory 32M "$@" >"$work/$name.out" 2>"$work/$name.err" </dev/null &
	pids+=($!)
	until_true 20 runs "$name"
}
runs() { "$mvmm" info "$1" 2>/dev/null | grep -q running; }

# done_by NAME requests|bytes: what the disk of a machine has done
done_by() {
	"$mvmm" metrics "$1" | awk -v name="mvmm_disk_$2_total" 'index($1, name) == 1 { sum += $2 } END { print sum + 0 }'
}

# measure NAME requests|bytes: leaves in $rate what it does a second, over ten seconds
measure() {
	local before=$EPOCHREALTIME first after last
	first=$(done_by "$1" "$2")
	sleep 10
	after=$EPOCHREALTIME
	last=$(done_by "$1" "$2")
	rate=$(((last - first) * 1000000 / (${after/./} - ${before/./})))
}
# near RATE: no more in any case; a guest on a busy machine may do less, but not much less than half
near() {
	local least=95 load
	read -r load _ </proc/loadavg
	[ "${load%.*}" -lt "$(nproc)" ] || least=40
	echo "# $rate a second"
	[ "$rate" -ge $(($1 * least / 100)) ] && [ "$rate" -le $(($1 * 105 / 100)) ]
}

# still NAME COUNT: the disk has done that many requests, and does no more
still() {
	local count
	until_true 20 reached "$1" "$2"
	sleep 1
	count=$(done_by "$1" requests)
	[ "$count" = "$2" ] || { echo "# $count requests, not $2"; false; }
}
reached() { [ "$(done_by "$1" requests)" -ge "$2" ]; }

truncate -s 8M "$work/disk" "$work/other"
disk=(--kernel "$guests/guest_disk" --disk)

# ---- rates ----

start slow "${disk[@]}" "$work/disk,ops=300"
measure slow requests
check '300 operations a second, within 5 % over ten seconds' near 300
"$mvmm" disk set slow disk0 ops=off,bandwidth=100K
measure slow bytes
check 'another limit while the guest runs: 100 KiB a second' near 102400
"$mvmm" disk set slow disk0 bandwidth=off
measure slow bytes
check 'without it, more' test "$rate" -gt 204800

# ---- bursts ----

"$mvmm" disk set slow disk0 ops=10/1h
sleep 1
before=$(done_by slow requests)
"$mvmm" disk set slow disk0 ops=20/1h+300
check 'a burst comes on top of what is there' still slow $((before + 320))
start=$EPOCHREALTIME
"$mvmm" pause slow
end=$EPOCHREALTIME
check 'a pause does not wait for a limit' test $((${end/./} - ${start/./})) -lt 5000000
"$mvmm" resume slow
check 'and the burst does not come again' still slow $((before + 320))
"$mvmm" snapshot slow --to "$work/snapshot" --disks none --stop >/dev/null
"$mvmm" restore --from "$work/snapshot" --name again >"$work/again.out" 2>"$work/again.err" </dev/null &
pids+=($!)
until_true 20 runs again
check 'nor after a restore' still again 0
"$mvmm" disk set again disk0 bandwidth=1M
check 'nor with a limit of another kind' still again 0
"$mvmm" disk set again disk0 ops=5/1h
check 'but a new limit is full' still again 5
refused() {
	"$mvmm" disk set again disk0 "$1" 2>"$work/err"
	[ $? = 2 ] && grep -q "$2" "$work/err"
}
check 'what is no limit is refused' refused readonly=on 'disk0: readonly: unknown limit; write one of bandwidth=RATE, ops=RATE'
check 'and what is no rate' refused bandwidth=much 'disk0: bandwidth=much: not a rate'
"$mvmm" stop again --force

# ---- CPUs ----

# cpus_of NAME THREAD: the host's CPUs that a thread of the machine may run on
cpus_of() {
	local task
	for task in /proc/"$(sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' <("$mvmm" info "$1" --json))"/task/*; do
		[ "$(cat "$task/comm")" != "$2" ] || sed -n 's/^Cpus_allowed_list:\s*//p' "$task/status"
	done
}
all=$(sed -n 's/^Cpus_allowed_list:\s*//p' /proc/self/status)
last=${all##*[-,]}
start placed --kernel "$guests/guest_idle" --cpus 3 --cpu-affinity 0="${all%%[-,]*}" --cpu-affinity 1="$last"
check 'a vCPU runs on the CPU it was given' test "$(cpus_of placed vcpu0)" = "${all%%[-,]*}"
check 'and another on another' test "$(cpus_of placed vcpu1)" = "$last"
check 'the others on any' test "$(cpus_of placed vcpu2)" = "$all"
"$mvmm" snapshot placed --to "$work/placed" --stop >/dev/null
"$mvmm" restore --from "$work/placed" --name elsewhere --cpu-affinity "$last" >"$work/elsewhere.out" 2>"$work/elsewhere.err" </dev/null &
pids+=($!)
until_true 20 runs elsewhere
check 'a restore is told its own' test "$(cpus_of elsewhere vcpu0) $(cpus_of elsewhere vcpu2)" = "$last $last"
"$mvmm" stop elsewhere --force
echo "1..$n"
