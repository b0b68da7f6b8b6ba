#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# What mvmm-tls and mvmm-resolve hold when strangers talk to them: one stops here at its second byte, the other at its last.
# TAP on stdout.
# usage: helpers.sh MVMM GUEST-DIRECTORY

# shellcheck source=tests/kvm/lib.sh
. "$(dirname "$0")/lib.sh"

has_status() { grep -q "^$1:[[:space:]]*$2$" "/proc/$helper/status"; }
descriptors() { [ "$(find "/proc/$helper/fd" -mindepth 1 -printf '%f\n' | sort -n | paste -sd' ')" = "$1" ]; }
# each_thread FIELD VALUE
each_thread() { [ "$(cat "/proc/$helper/task/"*/status | grep -c "^$1:[[:space:]]*$2$")" = "$(find "/proc/$helper/task" -mindepth 1 -maxdepth 1 | wc -l)" ]; }

# ---- mvmm-tls ----

# grandchild PID NAME: sets helper to a process of that name that a child of PID has started
grandchild() {
	local child
	helper=
	for child in $(pgrep -P "$1"); do helper=${helper:-$(pgrep -P "$child" -x "$2")}; done
	[ -n "$helper" ]
}

"$(dirname "$0")/../certificates" "$work/pki"
"$mvmm" receive --seccomp on --from tcp:127.0.0.1:7158 --name target --tls "$work/pki/good" --serial none </dev/null 2>"$work/target.err" &
pid=$!
pids+=("$pid")
until_true 20 says target.err waiting
exec 5<>/dev/tcp/127.0.0.1/7158
printf '\026' >&5 # the first byte of a handshake
check 'somebody who says one byte has a mvmm-tls' until_true 20 grandchild "$pid" mvmm-tls
check 'each of its threads has a filter' until_true 20 each_thread Seccomp 2
check '... no capability' each_thread CapPrm 0000000000000000
check '... and can gain no privileges' each_thread NoNewPrivs 1
check 'it has the connection, the pair and its report' descriptors '3 4 5'
exec 5<&- 5>&-
check 'it ends with the connection' until_true 20 sh -c "! kill -0 $helper 2>/dev/null"
kill -KILL "$pid"

# ---- mvmm-resolve ----

resolve=$(dirname "$mvmm")/mvmm-resolve
for mode in on log off; do
	"$resolve" localhost $mode 3>"$work/out" </dev/null
	check "mvmm-resolve finds localhost, --seccomp $mode" grep -qxE '127\.0\.0\.1|::1' "$work/out"
	"$resolve" name.invalid $mode 3>"$work/out" </dev/null
	check '... and says that there is no such host' grep -q '^!.' "$work/out"
done
mkfifo "$work/full"
exec 6<>"$work/full"
dd if=/dev/zero bs=4096 count=16 >&6 2>/dev/null # as many bytes as a pipe takes
"$resolve" localhost on 3>&6 6<&- </dev/null &
helper=$!
pids+=("$helper")
check 'it has a filter when it knows' until_true 20 has_status Seccomp 2
check '... no capability' has_status CapPrm 0000000000000000
kill -KILL "$helper"
echo "1..$n"
