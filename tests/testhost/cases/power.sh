#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# SIGTERM is the power button: for a guest that listens, and for one that does not.
# prepare: tests/guest/kernel debian-elf && tests/guest/initramfs debian-elf
# timeout: 200

# shellcheck source=tests/testhost/lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
# button COMMAND: run a guest, press its button by SIGTERM when COMMAND is about to begin
button()
{
	: >"$work/out"
	guest "echo waiting; $1" --name button >"$work/out" 2>"$work/err" &
	guest_pid=$!
	until_true 60 grep -q waiting "$work/out"
	sleep 0.5
	mvmm_pid=$("$mvmm" info button | sed -n 's/^pid *//p')
	kill "$mvmm_pid"
}

button 'head -c 1 /dev/input/event0 >/dev/null && echo pressed; poweroff -f'
wait "$guest_pid"
is 'SIGTERM presses the power button' "$? $(grep -c pressed "$work/out")" '0 1'

button 'while :; do sleep 1; done'
sleep 1
is 'a guest that does not listen goes on' "$(kill -0 "$mvmm_pid" && echo on)" on
kill "$mvmm_pid"
until_true 10 test ! -e "/proc/$mvmm_pid"
is 'a second SIGTERM ends it' "$?" 0
wait "$guest_pid"
is 'nothing of it is left' "$("$mvmm" ps | grep -c button)" 0
