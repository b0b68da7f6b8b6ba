#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The real program on the real KVM, of which one ioctl fails: each one of a start, some of a reboot, of the source and of the target
# of a migration. Then there is a sentence and the right exit status, nothing is left behind, and one guest goes on.
# TAP on stdout. usage: faults.sh MVMM GUEST-DIRECTORY FAIL-LIBRARY

# shellcheck source=tests/kvm/lib.sh
. "$(dirname "$0")/lib.sh"
library=$(realpath "$3")
export FAIL_KVM=$work/fail

sentence() { grep -q '^mvmm: ' "$1"; }
ended() { ! [ -d "/proc/$1" ] || grep -q '^State:.Z' "/proc/$1/status"; }
# What fail_kvm.c maps: in place, for it never finds the file shorter. fail N: the n-th call from now on; '': nothing yet.
fail() { printf '%-31s\n%-32s' "$1" '' 1<>"$FAIL_KVM"; }
told() { tail -c 32 "$FAIL_KVM" | head -n 1; }
counted() { told | cut -d' ' -f1; }
wrong() {
	printf '# %s: status %s, call %s\n' "$1" "$2" "$(told)"
	sed 's/^/#   /' "$work/err"
	return 1
}

# ---- a start ----

start_once() {
	fail "$1"
	LD_PRELOAD=$library timeout -k 1 $((60 * patience)) "$mvmm" run --kernel "$guests/guest_hello" --memory 32M --cpus 2 \
		>"$work/out" 2>"$work/err" </dev/null
}

# It goes well, or ends with 2 before the guest runs or with 1 afterwards, and says why.
each_call_of_a_start() {
	local at calls status
	start_once 0 || return 1
	calls=$(counted)
	[ "$calls" -gt 20 ] || return 1
	for at in $(seq "$calls"); do
		start_once "$at"
		status=$?
		nothing_left || wrong 'something is left' $status || return 1
		case $status in
		0) grep -q hello "$work/out" || wrong 'no guest' $status || return 1 ;;
		1 | 2) sentence "$work/err" || wrong 'no sentence' $status || return 1 ;;
		*) wrong 'another status' $status || return 1 ;;
		esac
	done
	echo "# $calls calls"
}
check 'each call of a start may fail' each_call_of_a_start

# ---- a reboot: the second life ----

some_calls_of_a_reboot() {
	local at calls status pid
	start_once 0
	calls=$(counted)
	for at in $(seq $((calls + 3)) $((calls / 8 + 1)) $((2 * calls))); do
		fail "$at"
		LD_PRELOAD=$library "$mvmm" run --kernel "$guests/guest_reboot" --memory 32M --cpus 2 --name again \
			>"$work/out" 2>"$work/err" </dev/null &
		pid=$!
		pids+=("$pid")
		until_true 30 goes_on_or_ends "$pid" || wrong 'it stands' '?' || return 1
		until_true 30 stops "$pid" || wrong 'it does not stop' '?' || return 1
		wait "$pid"
		status=$?
		nothing_left || wrong 'something is left' $status || return 1
		[ "$(grep -c up "$work/out")" -ge 4 ] || sentence "$work/err" || wrong 'no sentence' $status || return 1
	done
}
# What is asked while a life ends may come too early for the next one.
stops() { ended "$1" || { timeout 5 "$mvmm" stop --force again 2>"$work/stop"; ended "$1"; }; }
goes_on_or_ends() { [ "$(grep -c up "$work/out")" -ge 4 ] || ended "$1"; }
check 'some calls of a reboot may fail' some_calls_of_a_reboot

# ---- a migration ----

grows() { [ "$(stat -c %s "$work/$1")" -gt "$2" ]; }

# move_once SIDE N: a guest and where it goes; SIDE's n-th call fails. One of both goes on.
move_once() {
	local side=$1 at=$2 preload_here='' preload_there='' status alive
	[ "$side" = source ] && preload_here=$library || preload_there=$library
	rm -f "$work"/[st].log "$work"/[st].err
	fail ''
	LD_PRELOAD=$preload_here "$mvmm" run --kernel "$guests/guest_pattern" --name s --memory 32M --cmdline pages=512 \
		--serial "file=$work/s.log" 2>"$work/s.err" </dev/null &
	pids[0]=$!
	until_true 20 says s.log 'begins' || return 1
	[ "$side" = source ] || fail "$at"
	LD_PRELOAD=$preload_there "$mvmm" receive --from "unix:$work/sock" --name t --serial "file=$work/t.log" \
		2>"$work/t.err" </dev/null &
	pids[1]=$!
	until_true 20 says t.err 'waiting' || return 1
	[ "$side" = target ] || fail "$at"
	timeout -k 1 $((60 * patience)) "$mvmm" migrate s --to "unix:$work/sock" --downtime $((2 * patience))s >"$work/out" 2>"$work/err"
	status=$?
	if [ $status = 0 ]; then
		wait "${pids[0]}" || return 1
		alive=t
	else
		until_true 20 ended "${pids[1]}" || return 1
		wait "${pids[1]}" && return 1 # it ends with an error
		sentence "$work/err" || return 1
		alive=s
	fi
	timeout -k 1 $((60 * patience)) "$mvmm" stop $alive 2>>"$work/err" || return 1
	wait "${pids[$([ $alive = t ] && echo 1 || echo 0)]}" || says $alive.err KVM || return 1
	nothing_left
}

some_calls_of_a_move() {
	local side=$1 calls at
	move_once "$side" 0 || wrong 'none failed' '?' || return 1
	calls=$(counted)
	for at in $(seq $((1 + RANDOM % 5)) $((calls / 10 + 1)) "$calls"); do
		move_once "$side" "$at" || { cat "$work/s.err" "$work/t.err" >>"$work/err"; wrong "call $at of $calls" '?'; return 1; }
	done
	echo "# $calls calls"
}
check 'some calls of a migration may fail at the target' some_calls_of_a_move target
check '... and at the source' some_calls_of_a_move source

echo "1..$n"
