#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Where a restored guest's memory comes from, on the real KVM: each way brings it as it was; and when the file or the process behind
# it goes away, the machine ends with one line and a status, and no page is taken for zeros.
# TAP on stdout. usage: memory_modes.sh MVMM GUEST-DIRECTORY UFFD-HANDLER

# shellcheck source=tests/kvm/lib.sh
. "$(dirname "$0")/lib.sh"
handler=$(realpath "$3") sock=$work/uffd

grows() { [ "$(stat -c %s "$work/$1" 2>/dev/null || echo 0)" -gt "${2-0}" ]; }
ended() { ! [ -d "/proc/$1" ] || grep -q '^State:.Z' "/proc/$1/status"; }

# take FOLDER GUEST ARGUMENT...: a snapshot of a guest at work
take() {
	local folder=$1 guest=$2 pid
	shift 2
	rm -f "$work/s.log" # of the one before
	"$mvmm" run --kernel "$guests/guest_$guest" --name s "$@" --serial "file=$work/s.log" 2>"$work/s.err" </dev/null &
	pid=$!
	pids+=("$pid")
	until_true 60 says s.log 'begins\|ready' && timeout $((60 * patience)) "$mvmm" snapshot s --to "$work/$folder" --disks none >"$work/out" 2>"$work/err" || return 1
	"$mvmm" stop --force s && wait "$pid"
}

# begin FOLDER OPTION...: a clone at work; its process in $clone
begin() {
	local folder=$1
	shift
	rm -f "$work/c.log" "$work/c.err"
	"$mvmm" restore --from "$work/$folder" --name c "$@" --serial "file=$work/c.log" 2>"$work/c.err" </dev/null &
	clone=$!
	pids+=("$clone")
	until_true 30 works_or_ended && grows c.log
}
works_or_ended() { grows c.log || ended "$clone"; }

# goes OPTION...: the clone finds all that its pages had
goes() {
	begin snap "$@" || return 1
	timeout $((60 * patience)) "$mvmm" stop c 2>"$work/err" && wait "$clone" && says c.log 'wrong 00000000' && ! says c.log WRONG
}

# falls PATTERN: the clone ends with status 1 and with this line alone
falls() {
	until_true 40 ended "$clone" || return 1
	wait "$clone"
	[ $? = 1 ] && [ "$(wc -l <"$work/c.err")" = 1 ] && says c.err "$1.*; the machine ends" && nothing_left
}

check 'a guest is kept' take snap pattern --memory 64M --cmdline pages=4096
check 'its memory is mapped' goes
check '... or copied' goes --memory-mode copy
check '... or read ahead, if there is a list' test "$(goes --memory-mode prefetch; grep -c 'mvmm snapshot record makes one' "$work/c.err")" = 1
before=$(sha256sum "$work/snap/memory" "$work/snap/state" "$work/snap/machine.json")
check '... which is recorded' timeout $((60 * patience)) "$mvmm" snapshot record "$work/snap" 2>"$work/err"
check '... and then used' goes --memory-mode prefetch
unchanged() { [ "$before" = "$(sha256sum "$work/snap/memory" "$work/snap/state" "$work/snap/machine.json")" ]; }
check 'nothing writes into the memory file or its description' unchanged

# The guest of a recording would write to its disk.
disk_is_safe() {
	local before status
	truncate -s 16M "$work/disk.img"
	take on clone --memory 64M --disk "$work/disk.img" || return 1
	before=$(sha256sum <"$work/disk.img")
	timeout $((60 * patience)) "$mvmm" snapshot record "$work/on" --until 200ms 2>"$work/err"
	status=$?
	[ "$before" = "$(sha256sum <"$work/disk.img")" ] || return 1
	[ $status = 0 ] || grep -q 'name a copy of it with --disk disk0=PATH' "$work/err"
}
check 'a recording leaves the disk as it is' disk_is_safe

check 'another mode is refused' test "$(goes --memory-mode all; grep -c 'write map, copy, prefetch or uffd=SOCKET' "$work/c.err")" = 1
damaged() {
	cp --sparse=always -r "$work/snap" "$work/other"
	printf x | dd of="$work/other/memory" bs=1 seek=20000000 conv=notrunc status=none
	begin other --memory-mode copy && return 1
	wait "$clone"
	[ $? = 2 ] && says c.err 'other/memory is damaged'
}
check 'a copy is checked' damaged

# ---- the file goes away ----

truncated() { begin other && truncate -s 0 "$work/other/memory" && falls 'memory was truncated while'; }
fresh() { rm -rf "$work/other" && cp --sparse=always -r "$work/snap" "$work/other"; }
fresh
check 'a file that is truncated ends the machine with a line' truncated
paused() {
	begin other && "$mvmm" pause c 2>"$work/err" && truncate -s 4096 "$work/other/memory" && falls 'memory was truncated while'
}
fresh
check '... also one that is paused' paused
written() {
	begin other && pause 1.2 && printf x | dd of="$work/other/memory" bs=1 seek=5 conv=notrunc status=none && falls 'memory was written to while'
}
fresh
check 'a file that is written to ends it, too' written
removed() {
	begin other && rm -r "$work/other" && timeout $((60 * patience)) "$mvmm" stop c && wait "$clone" && says c.log 'wrong 00000000'
}
fresh
check '... and one that is removed does not' removed

# ---- huge pages ----

huge() {
	take huge pattern --memory 64M,hugepages=2M --cmdline pages=512 && ! begin huge && says c.err 'use --memory-mode copy' || return 1
	begin huge --memory-mode copy && timeout $((60 * patience)) "$mvmm" stop c && wait "$clone" && says c.log 'wrong 00000000'
}
if [ "$(cat /sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages 2>/dev/null || echo 0)" -ge 32 ]; then
	check 'memory of huge pages is copied' huge
fi

# ---- another process brings it ----

skip() {
	n=$((n + 1))
	echo "ok $n - $1 # SKIP no right to a userfaultfd"
}
if ! "$mvmm" doctor | grep -q '^userfaultfd *ok'; then
	skip 'a handler'
	echo "1..$n"
	exit 0
fi

serve() {
	"$handler" "$sock" "$work/snap/memory" >"$work/handler.out" 2>"$work/handler.err" &
	server=$!
	pids+=("$server")
	until_true 20 test -S "$sock"
}
# The process that serves the one clone.
child() { pgrep -P "$server"; }
gone() {
	begin snap --memory-mode "uffd=$sock" && kill -KILL "$(child)" && falls "the handler of the guest's memory at .* is gone"
}
# It stops amidst the guest's first, slow look at its pages.
silent() {
	local begun stopped
	"$mvmm" restore --from "$work/slow" --name c --memory-mode "uffd=$sock" --serial "file=$work/c.log" 2>"$work/c.err" </dev/null &
	clone=$!
	pids+=("$clone")
	until_true 20 answers && stopped=$(child) && kill -STOP "$stopped" || return 1
	pids+=("$stopped")
	begun=$SECONDS
	pause 3
	answers && falls "the handler of the guest's memory at .* has brought no page for 10 s" && [ $((SECONDS - begun)) -ge 8 ]
}
# It is never heard of again: the first page that is waited for is one that the restoring process itself writes. It waits beside
# the other checks, which look for what is left, so it has a folder of its own.
mute() {
	local stopped
	"$handler" "$work/mute" "$work/snap/memory" >"$work/mute.out" 2>&1 &
	stopped=$!
	pids+=("$stopped")
	until_true 20 test -S "$work/mute" && kill -STOP "$stopped" && mkdir "$work/apart" || return 1
	XDG_RUNTIME_DIR=$work/apart "$mvmm" restore --from "$work/snap" --name m --memory-mode "uffd=$work/mute" --serial none 2>"$work/m.err" </dev/null &
	muted=$!
	pids+=("$muted")
}
mute_falls() {
	until_true 40 ended "$muted" || return 1
	wait "$muted"
	[ $? = 1 ] && [ "$(wc -l <"$work/m.err")" = 1 ] && says m.err "the handler of the guest's memory at .*/mute has brought no page for 10 s; the machine ends"
}
answers() { timeout $((5 * patience)) "$mvmm" info c >"$work/out" 2>"$work/err"; }
check 'a handler is there' serve
check 'another one takes no connection' mute
check 'it brings the memory' goes --memory-mode "uffd=$sock"
check '... for another clone, too' goes --memory-mode "uffd=$sock"
check 'one that is killed ends the machine with a line' gone
check 'a guest that works slowly is kept' take slow pattern --memory 64M --cmdline 'pages=8192 pause=20000'
check 'one that is stopped does so after 10 s, in which the machine can be asked' silent
check '... and one that has never said anything, too, though nothing runs yet' mute_falls
none() {
	begin snap --memory-mode "uffd=$work/nobody" && return 1
	wait "$clone"
	[ $? = 2 ] && says c.err "uffd=$work/nobody: No such file or directory; start the handler first"
}
check 'one that is not there is told before the start' none

echo "1..$n"
