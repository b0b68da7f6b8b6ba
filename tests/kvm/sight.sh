#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# What a running machine tells of itself: metrics, events. Tiny guests under the real program and the real /dev/kvm. TAP on stdout.
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
asked() { timeout $((10 * patience)) "$mvmm" metrics smp >"$work/out"; }
check 'each of several vCPUs is asked while all of them run' asked
"$mvmm" stop --force smp

check 'a machine that does not run has no metrics' test "$("$mvmm" metrics none 2>&1 >/dev/null | grep -c 'none: no machine of this name')" = 1
start limited --kernel "$guests/guest_disk" --disk "$work/disk,ops=50"
check 'waits for limits are counted' until_true 20 above 'mvmm_limit_waits_total{device="disk0"}' 10
"$mvmm" stop --force limited

# ---- events ----

# follow ARG...: prints events to $work/events in the background.
follow() {
	: >"$work/events"
	"$mvmm" events "$@" >>"$work/events" 2>"$work/events.err" &
	follower=$!
	pids+=("$follower")
}
told() { grep -q "$1" "$work/events"; }
ended() { ! kill -0 "$1" 2>/dev/null; }
# The last word of each line.
words() { sed 's/^[^ ]* [^ ]* //; s/,.*//' "$work/events" | paste -sd' '; }

start happens --kernel "$guests/guest_button" --disk "$work/disk"
follow happens
check 'a listener is told the state first' until_true 20 told ' happens state, state running$'
"$mvmm" pause happens
"$mvmm" pause happens
"$mvmm" resume happens
"$mvmm" resume happens
truncate -s 9M "$work/disk"
"$mvmm" disk resize happens disk0 >/dev/null
"$mvmm" disk set happens disk0 ops=1000
check 'the size that the guest sees is told' until_true 20 told 'disk-resized, id disk0, size 9437184$'
"$mvmm" migrate happens --to "unix:$work/nobody" 2>/dev/null
check 'a migration that fails is told, with the reason' until_true 20 told 'migration, state failed, text .'
"$mvmm" snapshot happens --to "$work/kept" --disks copy >/dev/null 2>"$work/err"
check 'a snapshot is told when it is complete' until_true 20 told 'snapshot, state done, id .*, pause '
check 'how long its pause was is a metric' test "$(metric mvmm_snapshot_pause_seconds)" != 0
"$mvmm" stop happens
check 'mvmm events ends with the machine' until_true 20 ended "$follower"
check 'which is told last' test "$(tail -n 1 "$work/events" | cut -d' ' -f2-)" = 'happens ended, reason off'
check 'each thing is told once, in its order' test "$(words | sed -E 's/(migration|snapshot)( \1)*/\1/g')" = \
	'state paused resumed disk-resized limits-changed migration snapshot power-button ended'

follow --json
start dies --kernel "$guests/guest_button"
check 'a machine that starts later is found' until_true 20 told '"name":"dies","event":"state"'
"$mvmm" stop --force dies
check 'and its end is told' until_true 20 told '"name":"dies","event":"ended","reason":"stopped"'
check 'nothing else ends then' kill -0 "$follower"
kill -TERM "$follower"
wait "$follower"
check 'a signal ends it well' test $? = 0
check 'each line is JSON' python3 -c 'import json, sys; [json.loads(line) for line in open(sys.argv[1])]' "$work/events"

start counted --kernel "$guests/guest_button"
"$mvmm" pause counted
check 'what has happened is counted' above 'mvmm_events_total{event="paused"}' 0
"$mvmm" stop --force counted

# The host fails writes of the guest: the file may not become as large as its disk is.
truncate -s 0 "$work/small"
truncate -s 8M "$work/small"
machine=broken
(
	ulimit -f 2048
	exec "$mvmm" run --name broken --memory 32M --kernel "$guests/guest_disk" --disk "$work/small" >"$work/broken.out" \
		2>"$work/broken.err" </dev/null
) &
pids+=($!)
until_true 20 found
check 'operations of the host that fail are counted' until_true 20 above 'mvmm_disk_host_errors_total{device="disk0"}' 20
check 'and so are the requests that they fail' above 'mvmm_disk_failed_requests_total{device="disk0",kind="write"}' 20
check 'they are few events, however many they are' test "$(metric 'mvmm_events_total{event="disk-error"}')" -lt 5
check 'and one at least' above 'mvmm_events_total{event="disk-error"}' 0
"$mvmm" stop --force broken

# A client that asks for events and reads none: the machine keeps a bounded number for it, and goes on.
deaf() {
	python3 - "$XDG_RUNTIME_DIR/mvmm/$machine/control.sock" "$mvmm" "$machine" <<-'END'
		import json, socket, subprocess, sys
		path, mvmm, name = sys.argv[1:]
		peer = socket.socket(socket.AF_UNIX)
		peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
		peer.connect(path)
		peer.send(b'{"method": "io.mvmm.Machine.Events", "more": true}\0')
		asked = socket.socket(socket.AF_UNIX)
		asked.connect(path)
		def call(method):
		    asked.send(b'{"method": "io.mvmm.Machine.%s"}\0' % method)
		    answer = b''
		    while not answer.endswith(b'\0'):
		        answer += asked.recv(65536)
		    assert b'error' not in answer, answer
		rounds = 4000
		for _ in range(rounds):
		    call(b'Pause')
		    call(b'Resume')
		peer.settimeout(5)
		text = b''
		try:
		    while True:
		        text += peer.recv(1 << 20)
		except TimeoutError:
		    pass
		call(b'Pause')
		text += peer.recv(1 << 20)
		events = [json.loads(line)['parameters']['event'] for line in text.split(b'\0') if line]
		lost = sum(event.get('lost', 0) for event in events)
		assert events[-1]['event'] == 'paused' and events[-1]['lost'] > 0, events[-1]
		assert lost + len(events) == 1 + 2 * rounds + 1, (lost, len(events))
		assert len(text) < 1 << 20, len(text)
	END
}
start slow --kernel "$guests/guest_button"
check 'a client that does not read loses events, and is told how many' deaf
"$mvmm" stop --force slow

# ---- metrics in a file, and the log ----

lines() { cat "$@" 2>/dev/null | wc -l; }
more_than() { [ "$(lines "$2")" -gt "$1" ]; }
# all_lines FILE CONDITION: of each object `m` in the file
all_lines() { python3 -c "import json, sys; lines = [json.loads(line) for line in open(sys.argv[1])]; assert lines and all($2 for m in lines), lines[-1]" "$1"; }

start writes --kernel "$guests/guest_button" --metrics "$work/metrics,every=100ms" --log "$work/log,level=debug"
check 'metrics are written to a file' until_true 20 more_than 2 "$work/metrics"
kill -TERM "${pids[-1]}"
check 'and at the end' until_true 20 grep -q '"event":"ended"' "$work/metrics"
check 'each line is an object with a time' all_lines "$work/metrics" 'm["name"] == "writes" and m["time"].endswith("Z") and m["families"]'
check 'the log tells time, machine and thread' grep -qE '^20[0-9-]{8}T[0-9:]{8}\.[0-9]{6}Z writes\[main\] pressing the power button' "$work/log"
check 'and stderr nothing' test ! -s "$work/writes.err"

"$mvmm" run --kernel "$guests/guest_panic" --memory 32M --metrics "$work/panic" --serial none --log "$work/log" </dev/null 2>"$work/err"
check 'a panic is among the metrics of a short life' grep -q '"event":"guest-panic"' "$work/panic"
check 'the end of a machine is in the log' grep -q "\[main\] the guest's kernel panicked" "$work/log"

# As under systemd, stderr is a socket, and a disk's own thread has something to say.
speaks_to_a_socket() {
	python3 - "$mvmm" "$guests/guest_disk" "$work/small" <<-'END'
		import resource, socket, subprocess, sys, tempfile
		mvmm, guest, disk = sys.argv[1:]
		here, there = socket.socketpair()
		machine = subprocess.Popen([mvmm, 'run', '--name', 'socket', '--memory', '32M', '--kernel', guest, '--disk', disk],
		                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=there,
		                           preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 21, 1 << 21)))
		there.close()
		here.settimeout(20)
		text = b''
		while b'disk0: write at offset' not in text:
		    more = here.recv(4096)
		    assert more, text
		    text += more
		assert machine.poll() is None
		subprocess.run([mvmm, 'stop', '--force', 'socket'], check=True)
		machine.wait()
	END
}
check 'a thread can speak where stderr is a socket' speaks_to_a_socket

# A journal of its own, in a mount namespace whose /run is empty: the fields of a line that a disk's thread says.
in_the_journal() {
	unshare -m --propagation private bash -s -- "$mvmm" "$guests" "$work" <<-'END'
		mvmm=$1 guests=$2 work=$3
		mount -t tmpfs tmpfs /run
		mkdir -p /run/log/journal
		/lib/systemd/systemd-journald 2>/dev/null &
		journal=$!
		trap 'kill $journal' EXIT
		for _ in {1..100}; do [ -S /run/systemd/journal/socket ] && break; sleep 0.1; done
		ulimit -f 2048
		"$mvmm" run --name journal --kernel "$guests/guest_disk" --memory 32M --disk "$work/small" --serial none --log journald \
			</dev/null 2>"$work/journal.err" &
		for _ in {1..100}; do
			journalctl -D /run/log/journal -o export MVMM_MACHINE=journal >"$work/journal" 2>/dev/null
			grep -aq MESSAGE= "$work/journal" && break
			sleep 0.1
		done
		"$mvmm" stop --force journal
	END
	for field in SYSLOG_IDENTIFIER=mvmm PRIORITY=4 MVMM_THREAD=disk0-q0 'MESSAGE=disk0: write at offset'; do
		grep -aq "^$field" "$work/journal" || return 1
	done
	[ ! -s "$work/journal.err" ]
}
if [ "$(id -u)" = 0 ] && [ -x /lib/systemd/systemd-journald ]; then
	check 'the journal gets lines with the machine and the thread' in_the_journal
fi

mkdir "$work/jail"
if [ "$(id -u)" = 0 ]; then
	start jailed --kernel "$guests/guest_button" --jail "$work/jail" --log "$work/jailed.log" --metrics "$work/jailed,every=100ms"
	check 'a machine in a jail tells its memory' above 'mvmm_process_memory_bytes{kind="private"}' 100000
	check 'and writes its metrics' until_true 20 more_than 2 "$work/jailed"
	kill -TERM "${pids[-1]}"
	check 'and its log' until_true 20 grep -q 'jailed\[main\] pressing the power button' "$work/jailed.log"
	until_true 20 ended "${pids[-1]}"
fi

mkfifo "$work/fifo"
start deaf --kernel "$guests/guest_button" --metrics "$work/fifo,every=100ms"
sleep 2.5
check 'a FIFO that nobody reads does not hold the machine up' timeout $((5 * patience)) "$mvmm" pause deaf
timeout $((3 * patience)) cat "$work/fifo" >"$work/read"
"$mvmm" stop --force deaf
head -n -1 "$work/read" >"$work/whole"
check 'its reader gets whole lines' all_lines "$work/whole" 'm["name"] == "deaf"'
check 'and is told how many it has missed' grep -q '"lost":' "$work/whole"

truncate -s 8M "$work/disk"

# ---- probes: each line of docs/tracing.md, as it stands there, for two seconds ----

# traces NUMBER PATTERN: what the example of that number prints
traces() {
	local line
	line=$(grep "^bpftrace .*-e '" "$(dirname "$0")/../../docs/tracing.md" | sed -n "$1p")
	line=${line//\/usr\/local\/bin\/mvmm/$mvmm}
	bash -c "${line%\'} interval:s:2 { exit(); }'" >"$work/out" 2>"$work/err"
	grep -qE "$2" "$work/out"
}
if command -v bpftrace >/dev/null && [ -w /sys/kernel/tracing/uprobe_events ]; then
	start web --kernel "$guests/guest_disk" --disk "$work/disk"
	check 'the accesses of a guest can be traced' traces 1 '@port\[.*\]: [0-9]+'
	check 'and how long its requests take' traces 2 '@us\[disk0, 1\]'
	check 'and how many one interrupt reports' traces 3 '@chains\[disk0, 0\]'
	"$mvmm" stop --force web
fi

check 'nothing is left in the runtime folder' until_true 20 nothing_left

echo "1..$n"
