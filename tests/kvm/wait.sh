#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A process that is prepared for a snapshot (mvmm restore --wait) and becomes a machine when it is asked to. TAP on stdout.
# shellcheck source=tests/kvm/lib.sh
. "${0%/*}/lib.sh"

mvmm=$(realpath "$mvmm") guests=$(realpath "$guests")
cd "$work" || exit 1

shows() { "$mvmm" info "$1" 2>/dev/null | grep -q "$2"; }
prepare()
{
	"$mvmm" restore --from snap --wait --disk-changed disk "${@:2}" --name "$1" >"$1.out" 2>"$1.err" </dev/null &
	pids+=($!)
	until_true 20 shows "$1" 'state *waiting'
}
ask() { timeout -k 1 $((20 * patience)) "$mvmm" restore "$@" >out 2>err; }
refused() { ask "${@:2}"; [ $? = 2 ] && grep -q "$1" err && [ "$(wc -l <err)" = 1 ]; }
gone() { ! kill -0 "$1" 2>/dev/null; }
works() { until_true 20 says "$1" '\.\.'; }
ended_with() { wait "${pids[-1]}"; [ $? = "$1" ]; }

truncate -s 8M disk
# shellcheck disable=SC2317
cleanup_tap() { [ "$BASHPID" != $$ ] || ip link del "$tap" 2>/dev/null; cleanup; }
tap=waittap$((BASHPID % 100000))
trap cleanup_tap EXIT
if ip tuntap add "$tap" mode tap vnet_hdr 2>/dev/null && ip link set "$tap" up; then
	guest=guest_busy net=(--net "tap=$tap,id=net")
else
	guest=guest_disk net=()
fi
"$mvmm" run --name m --kernel "$guests/$guest" --memory 64M --disk disk,id=disk "${net[@]}" --serial file=m.log >m.out 2>m.err </dev/null &
pids+=($!)
check 'a guest works with its disk' works m.log
check 'and is kept' timeout -k 1 $((20 * patience)) "$mvmm" snapshot m --to snap --disks none --stop

check 'none waits for a copy of a disk that the machine does not have' \
	refused '.disk-from none=.*: the machine has no such disk' --from snap --wait --name spare --disk-from none=disk
check 'a process waits with the snapshot' prepare spare
check 'it is listed as waiting' bash -c "'$mvmm' ps | grep -q '^spare .* waiting '"
check 'what needs a machine is refused' bash -c "! '$mvmm' pause spare 2>err && grep -q 'waits with a snapshot' err"
check 'an invalid request is refused by name' refused 'no disk with this id' --spare spare --name one --disk nodisk=disk
check 'and a name that is none' refused '.name a/b: not a name' --spare spare --name a/b
check 'and a disk that is named twice' refused 'an earlier --disk is of the same id' --spare spare --disk disk=a --disk disk=b
check 'and a file that is missing' refused 'missing: does not exist' --spare spare --name one --disk disk=missing
check 'and what was said when it was prepared' refused '.from: goes with' --spare spare --from snap
check 'and a copy of a disk, which it would not use' refused '.disk-from: goes with' --spare spare --disk-from disk=disk
check 'and a log' refused '.log: goes with' --spare spare --log log
check 'and a console that the machine does not have' refused 'the machine has no console' --spare spare --name one --console pty
kill -STOP "${pids[-1]}"
timeout -s KILL 1 "$mvmm" restore --spare spare --name nobody --disk disk=disk >out 2>err
kill -CONT "${pids[-1]}"
check 'and one whose asker has gone is not taken' until_true 20 shows spare 'state *waiting'
mkdir elsewhere
cp disk elsewhere/other
check 'it waits on, and becomes a machine of another name' \
	bash -c "cd elsewhere && exec timeout -k 1 $((20 * patience)) '$mvmm' restore --spare spare --name one --disk disk=other --serial file=one.log"
check 'whose paths are those of who asked' [ -e elsewhere/one.log ]
check 'whose guest goes on' works elsewhere/one.log
check 'and does not miss what it wrote' bash -c "! grep -q WRONG elsewhere/one.log"
check 'whose old name is free' [ ! -e "$XDG_RUNTIME_DIR/mvmm/spare" ]
check 'and which is a machine like others' shows one 'state *running'
check 'a second request is refused' refused 'does not wait with a snapshot' --spare one --name two
check 'another one waits' prepare spare
check 'a name that is in use is refused' refused 'in use by process' --spare spare --name one
"$mvmm" stop --force one 2>/dev/null
check 'stop ends what waits' timeout -k 1 $((20 * patience)) "$mvmm" stop spare
check 'with the exit code of a machine that was stopped' ended_with 0
check 'another one waits' prepare spare
"$mvmm" stop spare
cp disk copy
check 'one waits with a copy of the disk' prepare spare --disk-from disk=copy
kill -STOP "${pids[-1]}"
timeout -s KILL 1 "$mvmm" restore --spare spare --name nobody --disk disk=made >out 2>err
kill -CONT "${pids[-1]}"
check 'it makes no disk for an asker who has gone' until_true 20 shows spare 'state *waiting'
check 'and leaves nothing of it' [ ! -e made ]
check 'which is made in the folder of who asks' \
	bash -c "cd elsewhere && exec timeout -k 1 $((20 * patience)) '$mvmm' restore --spare spare --name two --disk disk=new --serial none"
check 'and is that copy' [ -s elsewhere/new ]
"$mvmm" stop --force two
check 'another one waits' prepare spare
touch -d '1 hour ago' snap/memory
check 'a snapshot that was changed is refused' refused 'was changed since' --spare spare --name one
check 'and the process ends' ended_with 2
check 'another one waits' prepare spare
rm -r snap
check 'a snapshot that was removed is refused' refused 'was removed' --spare spare --name one
check 'and the process ends' ended_with 2
check 'nothing is left' until_true 10 nothing_left
echo "1..$n"
