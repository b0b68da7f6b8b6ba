#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# What a running machine tells of itself: metrics. Tiny guests under the real program and the real /dev/kvm. TAP on stdout.
# usage: sight.sh MVMM GUEST-DIRECTORY

# shellcheck source=tests/kvm/lib.sh
. "$(dirname "$0")/lib.sh"

# metric LINE: the value of a metric of $machine, written as NAME or NAME{LABELS}; 0 if there is none.
metric() {
	local value
	value=$("$mvmm" metrics "$machine" | sed -n "s/^$1 //p")
	echo "${value:-0}"
}
above() { [ "$(metric "$1")" -gt "$2" ]; }

# start NAME ARG...: runs a machine in the background
start() {
	machine=$1
	shift
	"$mvmm" run --name "$machine" --memory 32M "$@" >"$work/$machine.out" 2>"$work/$machine.err" </dev/null &
	pids+=($!)
	until_true 20 found
}
found() { "$mvmm" info "$machine" 2>/dev/null | grep -q running; }

# ---- metrics ----

truncate -s 8M "$work/disk"
start disk --kernel "$guests/guest_disk" --disk "$work/disk" --cpus 1
check 'reads of the guest are counted' until_true 20 above 'mvmm_disk_requests_total{device="disk0",kind="read"}' 10
check 'and writes' above 'mvmm_disk_requests_total{device="disk0",kind="write"}' 10
check 'and their bytes' above 'mvmm_disk_bytes_total{device="disk0",kind="write"}' 5119
check 'the queue has been kicked' above 'mvmm_queue_kicks_total{device="disk0",kind="disk"}' 1
check 'exits are counted by reason' above 'mvmm_vcpu_exits_total{vcpu="0",reason="mmio"}' 1
check 'so are page faults' above 'mvmm_process_page_faults_total{kind="minor"}' 10
check 'the process has private memory' above 'mvmm_process_memory_bytes{kind="private"}' 100000
check 'nothing has failed' test "$(metric 'mvmm_disk_failed_requests_total{device="disk0",kind="read"}')" = 0
if [ -e /sys/kernel/debug/kvm ] || [ "$(metric mvmm_kvm_vcpu_exits_total)" -gt 0 ]; then
	check "KVM's own statistics are there" above mvmm_kvm_vcpu_exits_total 10
fi
"$mvmm" pause disk
check 'a paused machine answers the same twice' cmp -s <("$mvmm" metrics disk | grep disk_) <("$mvmm" metrics disk | grep disk_)

# Each line is a comment, or a name, labels and a number; each family has its type before its samples; buckets only grow.
well_formed() {
	awk '
		/^# HELP mvmm_[a-z0-9_]+ .+/ { helped = $3; next }
		/^# TYPE mvmm_[a-z0-9_]+ (counter|gauge|histogram)$/ {
			if (helped != $3 || $3 in types) { print "no help, or twice: " $0; bad = 1 }
			types[$3] = $4; family = $3; bucket = -1
			if ($4 == "counter" && $3 !~ /_total$/) { print "a counter: " $3; bad = 1 }
			next
		}
		!/^mvmm_[a-z0-9_]+\{machine="disk"(,[a-z]+="[^"\\]*")*\} [0-9.e+-]+$/ { print "no sample: " $0; bad = 1; next }
		{
			name = $1; sub(/\{.*/, "", name)
			if (types[family] == "histogram") sub(/_(bucket|sum|count)$/, "", name)
			if (name != family) { print "not of " family ": " $0; bad = 1 }
			if ($1 ~ /le="1e-06"/) bucket = -1
			if ($1 ~ /_bucket/) { if ($2 < bucket) { print "less: " $0; bad = 1 }; bucket = $2 }
			count++
		}
		END { exit bad || count < 30 }'
}
check "what Prometheus reads is well formed" well_formed < <("$mvmm" metrics disk --prometheus)
json() { "$mvmm" metrics disk --json | python3 -c "import json, sys; m = json.load(sys.stdin); assert $1, m"; }
check 'the JSON has the same' json 'm["name"] == "disk" and {"mvmm_info", "mvmm_disk_request_seconds"} <= {f["name"] for f in m["families"]}'
check 'a histogram counts what the counter counts' json '[s["count"] for f in m["families"] if f["name"] == "mvmm_disk_request_seconds" for s in f["samples"]] == [s["value"] for f in m["families"] if f["name"] == "mvmm_disk_requests_total" for s in f["samples"]]'
"$mvmm" stop --force disk

start smp --kernel "$guests/guest_pattern" --cmdline pages=512 --cpus 4
check 'each of several vCPUs is asked while all of them run' timeout $((10 * patience)) "$mvmm" metrics smp
"$mvmm" stop --force smp

check 'a machine that does not run has no metrics' test "$("$mvmm" metrics none 2>&1 >/dev/null | grep -c 'none: no machine of this name')" = 1
check 'nothing is left in the runtime folder' until_true 20 nothing_left

echo "1..$n"
