#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The process that parses what describes a machine that is restored or arrives: what it holds, that it is gone before the guest
# runs, and what becomes of a machine whose stage has failed. TAP on stdout.
# usage: stages.sh MVMM GUEST-DIRECTORY

# shellcheck source=tests/kvm/lib.sh
. "$(dirname "$0")/lib.sh"

runs() { "$mvmm" info "$1" 2>/dev/null | grep -q '^state *running'; }
gone() { ! kill -0 "$1" 2>/dev/null; }
# stage_of PID: sets stage to the process that parses for it
stage_of() {
	stage=$(pgrep -P "$1" -x mvmm-stage)
}
has_status() { grep -q "^$1:[[:space:]]*$2$" "/proc/$stage/status"; }
# only_socket: the stage has one descriptor, which is a socket
only_socket() { [ "$(readlink "/proc/$stage/fd/"* | sed 's/:.*//')" = socket ]; }

# receive NAME: a process that waits for a machine; sets pid
receive() {
	"$mvmm" receive --seccomp on --from "unix:$work/$1.sock" --name "$1" --serial "file=$work/$1.log" </dev/null 2>"$work/$1.err" &
	pid=$!
	pids+=("$pid")
	until_true 20 says "$1.err" waiting
}

"$mvmm" run --name source --kernel "$guests/guest_idle" --memory 32M --serial none </dev/null 2>"$work/source.err" &
pids+=($!)
until_true 20 runs source

receive first
check 'a process parses for one that receives' stage_of "$pid"
check 'it has no descriptor but its socket' only_socket
check '... a filter' has_status Seccomp 2
check '... no capability' has_status CapPrm 0000000000000000
check '... no privileges to gain' has_status NoNewPrivs 1
kill -KILL "$stage"
timeout -s KILL $((60 * patience)) "$mvmm" migrate source --to "unix:$work/first.sock" >"$work/out" 2>"$work/err"
check 'when it has been killed, the migration fails' test $? != 0
check '... in one line that says so' grep -qx 'mvmm: .*the offered machine: the process that parses it was ended by signal 9 (Killed)' "$work/err"
check '... and no other' test "$(wc -l <"$work/err")" = 1
check 'the target ends' until_true 20 gone "$pid"
check '... with the same line' says first.err 'the process that parses it was ended by signal 9'
check 'the guest goes on at its source' runs source
check 'nothing else is left' test "$(ls "$XDG_RUNTIME_DIR/mvmm")" = source

receive second
stage_of "$pid"
timeout -s KILL $((60 * patience)) "$mvmm" migrate source --to "unix:$work/second.sock" >"$work/out" 2>"$work/err"
check 'a machine arrives with it' until_true 20 runs second
check '... and then it is gone' gone "$stage"
check '... and is no child any more' test -z "$(pgrep -P "$pid")"

"$mvmm" snapshot second --to "$work/kept" --stop >"$work/out" 2>"$work/err"
"$mvmm" restore --seccomp on --from "$work/kept" --name third --serial none </dev/null 2>"$work/third.err" &
pid=$!
pids+=("$pid")
check 'a machine is restored with it' until_true 20 runs third
check '... and then it is gone' test -z "$(pgrep -P "$pid")"
"$mvmm" stop --force third
"$mvmm" restore --seccomp off --from "$work/kept" --name fourth --serial none </dev/null 2>"$work/fourth.err" &
pids+=($!)
check 'without filters, the process parses itself' until_true 20 runs fourth
"$mvmm" stop --force fourth
wait
check 'names and folders are free' until_true 20 nothing_left
echo "1..$n"
