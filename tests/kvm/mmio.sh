#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Virtio devices on MMIO under the real program and the real /dev/kvm: the registers, by a guest that knows no manners; what can be
# done to a machine while it runs; moves and snapshots of a guest that checks its disk. TAP on stdout.
# usage: mmio.sh MVMM GUEST-DIRECTORY

# shellcheck source=tests/kvm/lib.sh
. "$(dirname "$0")/lib.sh"

truncate -s 1M "$work/disk"
printf disk | dd of="$work/disk" conv=notrunc status=none
timeout -s KILL $((60 * patience)) "$mvmm" run --kernel "$guests/guest_mmio" --memory 32M --on-reboot exit --transport mmio \
	--disk "$work/disk" 	>"$work/out" 2>"$work/err" </dev/null
check 'a guest that drives the registers ends well' test $? = 0
for what in 'the first page' 'a page without a device' 'the config space' 'nothing by other widths' 'the order of steps' \
	'no queue 64' 'no queue 65536' 'no queue -1' 'ready and back' 'reads with interrupts' 'a queue that is taken back'; do
	check "the guest finds: $what" grep -q "^$what works" "$work/out"
done
check 'what it breaks is logged' grep -q 'disk0: the guest must reset it: its driver has disabled a queue' "$work/err"

# ---- while the guest runs ----

# begin NAME: a guest that works on its disk
begin() {
	truncate -s 64M "$work/$1.img"
	"$mvmm" run --kernel "$guests/guest_disk" --name "$1" --memory 64M --transport mmio --disk "$work/$1.img,id=root" \
		--serial "file=$work/$1.log" </dev/null 2>"$work/$1.err" &
	pids+=($!)
	until_true 20 works_on "$1"
}
works_on() { says "$1.log" '\.\.\.\.'; }

# ends NAME: at its power button, having found nothing wrong
ends() {
	timeout -s KILL $((60 * patience)) "$mvmm" stop "$1" 2>"$work/err" && until_true 20 says "$1.log" 'passes .*, wrong 00000000' &&
		! says "$1.log" WRONG
}

check 'a guest works on its disk' begin first
check 'info tells where a device is' grep -q '"slot": "mmio:e0101000"' <("$mvmm" info first --json)
refused() {
	"$mvmm" disk add first "$work/disk" >"$work/out" 2>"$work/err"
	[ $? = 1 ] && grep -q 'transport mmio, which has no hot plug' "$work/err"
}
check 'a disk cannot come' refused
leaves() {
	"$mvmm" disk remove first root >"$work/out" 2>"$work/err"
	[ $? = 1 ] && grep -q 'disk root: the machine runs with --transport mmio, which has no hot plug' "$work/err"
}
check 'nor go' leaves
truncate -s 65M "$work/first.img"
# does COMMAND...: of mvmm, in time
does() { timeout -s KILL $((120 * patience)) "$mvmm" "$@" >"$work/out" 2>"$work/err"; }
check 'it can grow' does disk resize first root
check 'and be limited' does disk set first root ops=1000
check 'and be without a limit' does disk set first root ops=off

# ---- moves ----

"$mvmm" receive --from "unix:$work/second.sock" --name second --disk "root=$work/first.img" --serial "file=$work/second.log" \
	</dev/null >"$work/second.out" 2>"$work/second.err" &
pids+=($!)
until_true 20 test -S "$work/second.sock"
check 'the machine moves' does migrate first --to "unix:$work/second.sock"
check 'and works there' until_true 20 works_on second
check 'where its device is at the same place' grep -q '"slot": "mmio:e0101000"' <("$mvmm" info second --json)
check 'a snapshot is taken' does snapshot second --to "$work/snapshot" --disks copy
check 'it ends well there' ends second
restore() {
	"$mvmm" restore --from "$work/snapshot" --name third --serial "file=$work/third.log" --disk "root=$work/third.img" </dev/null \
		2>"$work/third.err" &
	pids+=($!)
	until_true 20 works_on third
}
check 'the snapshot goes on' restore
check 'with its device at the same place' grep -q '"slot": "mmio:e0101000"' <("$mvmm" info third --json)
check 'and ends well' ends third
# ---- the keyboard, on either transport ----

# listens NAME OPTION...: a guest that waits for keys
listens() {
	local name=$1
	shift
	"$mvmm" run --kernel "$guests/guest_keyboard" --name "$name" --memory 32M --on-reboot exit --serial "file=$work/$name.log" "$@" \
		</dev/null 2>"$work/$name.err" &
	keys=$!
	pids+=("$keys")
	until_true 20 says "$name.log" listens
}
# resets NAME: the three keys come, as they are pressed and let go, and then the guest ends the machine
resets() {
	does ctrl-alt-del "$1" && wait "$keys" && says "$1.log" '^1411e071e0f071f011f014'
}
check 'a guest listens to its keyboard' listens keys --transport mmio
check 'Ctrl, Alt and Del reach it, and it resets the machine' resets keys
check 'also a guest on PCI' listens moved
check 'whose snapshot' does snapshot moved --to "$work/keys" --stop
wait "$keys"
"$mvmm" restore --from "$work/keys" --name again --serial "file=$work/again.log" </dev/null 2>"$work/again.err" &
keys=$!
pids+=("$keys")
runs() { "$mvmm" info "$1" 2>/dev/null | grep -q running; }
check 'goes on' until_true 20 runs again
check 'listening' resets again
deaf() {
	"$mvmm" run --kernel "$guests/guest_idle" --name deaf --memory 32M --serial none </dev/null 2>"$work/deaf.err" &
	pids+=($!)
	until_true 20 runs deaf
	! does ctrl-alt-del deaf && grep -q 'listens to no keyboard' "$work/err"
	local code=$?
	does stop deaf --force
	return $code
}
check 'a guest without a driver for it is told of' deaf

check 'nothing is left' until_true 20 nothing_left
echo "1..$n"
