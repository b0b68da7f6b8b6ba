#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Disks of snapshots under the real program and the real /dev/kvm. The guest writes numbers all over its disk and checks those
# of the pass before, which it has in memory: it finds a disk that is not of the same moment as its memory. TAP on stdout.
# usage: snapshot_disks.sh MVMM GUEST-DIRECTORY

# shellcheck source=tests/kvm/lib.sh
. "$(dirname "$0")/lib.sh"

disks=$work/on # on a file system with reflinks, if one can be mounted
mkdir "$disks"
mount_xfs() { truncate -s 400M "$work/xfs" && mkfs.xfs -q "$work/xfs" && mount -o loop "$work/xfs" "$disks"; }
if mount_xfs 2>/dev/null; then
	trap '[ "$BASHPID" != $$ ] || { kill -KILL "${pids[@]}" 2>/dev/null; umount -l "$disks"; cleanup; }' EXIT
fi

# run_guest NAME OPTION...: until it is at work
run_guest()
{
	local name=$1
	shift
	rm -f "$work/$name.log" # of another of this name
	"$mvmm" run --kernel "$guests/guest_disk" --name "$name" --memory 64M --serial "file=$work/$name.log" "$@" </dev/null \
		2>"$work/$name.err" &
	pids[0]=$!
	until_true 20 says "$name.log" '\.\.\.\.'
}

snapshot_of() { timeout -s KILL $((60 * patience)) "$mvmm" snapshot "$@" >"$work/out" 2>"$work/err"; }
snapshot() { snapshot_of w "$@"; }

# restored NAME OPTION...: it runs, works for a while and finds nothing wrong
restored()
{
	local name=$1 code
	shift
	"$mvmm" restore --name "$name" --serial "file=$work/$name.log" "$@" </dev/null 2>"$work/$name.err" &
	pids[1]=$!
	until_true 20 says "$name.log" '\.\.\.\.\.\.\.\.\.' && timeout -s KILL $((60 * patience)) "$mvmm" stop "$name" 2>"$work/err"
	wait "${pids[1]}"
	code=$?
	unset 'pids[1]'
	[ $code = 0 ] && says "$name.log" 'passes .*, wrong 00000000' && ! says "$name.log" WRONG
}

# refused PATTERN OPTION...: with one line and exit code 2
refused()
{
	local pattern=$1
	shift
	timeout -s KILL $((60 * patience)) "$mvmm" restore --name c --serial none "$@" </dev/null >"$work/out" 2>"$work/err"
	[ $? = 2 ] && [ "$(wc -l <"$work/err")" = 1 ] && grep -q -e "$pattern" "$work/err"
}

not() { ! "$@"; }
same_blocks() { [ "$(stat -c %b "$1")" -le $(($(stat -c %b "$2") + 256)) ]; }

truncate -s 64M "$disks/w.img"
truncate -s 1M "$disks/cd.img"

check 'a guest works on its disk' run_guest w --disk "$disks/w.img,id=disk0" --disk "$disks/cd.img,id=cd,readonly=on"
check 'a disk is copied beside the guest that writes it' snapshot --to "$disks/copy" --disks copy
check 'a copy takes no space for holes' same_blocks "$disks/copy/disks/disk0" "$disks/w.img"
check 'a disk need not be kept' snapshot --to "$disks/none" --disks none
check 'nothing of it is in the folder then' not [ -e "$disks/none/disks" ]
if snapshot --to "$disks/reflink"; then
	check 'a disk is shared as a reflink' test -s "$disks/reflink/disks/disk0"
	check 'a machine goes on with a reflink of it' restored r --from "$disks/reflink" --disk "disk0=$disks/r.img"
	rm "$disks/r.img"
	"$mvmm" pause w # what it writes takes space
	used=$(stat -f -c %f "$disks")
	check 'clones of the machine get reflinks of it, too' timeout -s KILL $((60 * patience)) "$mvmm" clone w --count 2 --paused \
		--quiet --disk "disk0=$disks/r{n}.img"
	check 'which take no space' [ $((used - $(stat -f -c %f "$disks"))) -lt 300 ]
	for i in 1 2; do "$mvmm" stop --force w-$i; done
	"$mvmm" resume w
else
	check 'without reflinks the ways out are named' grep -q 'reflink.*--disks copy.*--disks none' "$work/err"
	check 'and nothing is left' not [ -e "$disks/reflink" ]
fi
check 'a machine goes on with the copy of the disk, beside the first' restored c1 --from "$disks/copy" --disk "disk0=$disks/c1.img"
check 'the copy in the snapshot makes as many as one likes' restored c2 --from "$disks/copy" --disk "disk0=$disks/c2.img"
check 'the disk of another is refused with the ways out' refused "c1.img: exists, and is not the disk.*--disk-changed disk0" \
	--from "$disks/copy" --disk "disk0=$disks/c1.img"
check 'a disk that has changed is refused with the ways out' refused 'has changed since the snapshot; --disk disk0=NEWFILE' \
	--from "$disks/copy"
check 'and without a copy, too' refused 'has changed since the snapshot, which has no copy' --from "$disks/none"
check 'two machines with one disk are refused by the lock' refused 'in use by another mvmm .*--disk disk0=NEWFILE' \
	--from "$disks/copy" --disk-changed disk0
truncate -s 32M "$disks/small.img"
check 'a disk of another size is refused with both' refused 'has 33554432 bytes, but the disk had 67108864' --from "$disks/copy" \
	--disk "disk0=$disks/small.img" --disk-changed disk0
truncate -s 2M "$disks/cd2.img"
check 'a read-only disk of another size is refused with both' refused 'cd: .*1048576 bytes .* 2097152' --from "$disks/copy" \
	--disk "disk0=$disks/new.img" --disk "cd=$disks/cd2.img"
check 'a file that was made for it goes again' not [ -e "$disks/new.img" ]
check 'the snapshot itself is not written' refused 'is part of the snapshot' --from "$disks/copy" \
	--disk "disk0=$disks/copy/disks/disk0" --disk-changed disk0
check 'a snapshot can be the end of the machine' snapshot --to "$disks/end" --disks none --stop
wait "${pids[0]}"
unset 'pids[0]'
check 'the disk that nothing has written since goes on' restored e --from "$disks/end"
check 'and only once' refused 'has changed since the snapshot' --from "$disks/end"

truncate -s 8M "$work/b.img"
if device=$(losetup -f --show "$work/b.img" 2>/dev/null); then
	check 'a guest works on a block device' run_guest b --disk "$device,id=disk0"
	check 'which is copied' snapshot_of b --to "$work/b-copy" --disks copy
	check 'or stays' snapshot_of b --to "$work/b-end" --disks none --stop
	wait "${pids[0]}"
	unset 'pids[0]'
	check 'a machine goes on with the copy' restored bc --from "$work/b-copy" --disk "disk0=$work/bc.img"
	check 'a block device that nothing has written since goes on' restored be --from "$work/b-end"
	check 'one that was written is told from that' refused 'has changed since the snapshot' --from "$work/b-end"
	losetup -d "$device"
fi
check 'nothing is left in the runtime folder' nothing_left
echo "1..$n"
