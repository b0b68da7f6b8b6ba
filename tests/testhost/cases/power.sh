#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2016 # what is in single quotes runs in the guest
# SIGTERM is the power button: for a guest that listens, for one that sleeps, and for one that does not listen. And guests
# without kvmclock, which measure their time by the machine's other clocks.
# prepare: tests/guest/kernel debian-elf && tests/guest/initramfs debian-elf
# timeout: 300

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

button '(head -c 1 /dev/input/event0 >/dev/null && echo pressed; poweroff -f) &
	sleep 0.2; echo freeze >/sys/power/state; echo woken; while :; do sleep 1; done'
wait "$guest_pid"
is 'it wakes a guest that sleeps, and ends it' "$? $(grep -c woken "$work/out") $(grep -c pressed "$work/out")" '0 1 1'

button 'while :; do sleep 1; done'
sleep 1
is 'a guest that does not listen goes on' "$(kill -0 "$mvmm_pid" && echo on)" on
kill "$mvmm_pid"
until_true 10 test ! -e "/proc/$mvmm_pid"
is 'a second SIGTERM ends it' "$?" 0
wait "$guest_pid"
is 'nothing of it is left' "$("$mvmm" ps | grep -c button)" 0

# Told to do without, and with the feature masked.
without_kvmclock()
{
	guest_timeout=90 guest 'cat /sys/devices/system/clocksource/clocksource0/current_clocksource; sleep 1; echo alive' \
		>"$work/out" 2>&1
	echo "$? $(grep -c ^alive "$work/out") $(grep -c ^kvm-clock "$work/out")"
}
is 'a guest comes up and ends with no-kvmclock' "$(guest_args=no-kvmclock without_kvmclock)" '0 1 0'
is '... and without the feature' "$(guest_cpu=host,-svm,-kvmclock without_kvmclock)" '0 1 0'
