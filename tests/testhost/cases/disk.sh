#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2016 # what is in single quotes runs in the guest
# virtio-blk under the guest's driver: fio with verification, serial number, discard and zeroes, read-only, and what
# happens when the host's disk fails, is full, or is used by another.
# prepare: tests/guest/kernel debian-elf && tests/guest/initramfs debian-elf && tests/guest/tools fio blkdiscard
# timeout: 300

# shellcheck source=tests/testhost/lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
tools=$("$tree/tests/guest/tools" fio blkdiscard)
truncate -s 64M "$work/disk"
fio="fio --name=v --filename=/dev/vda --ioengine=libaio --direct=1 --rw=randrw --bsrange=512-128k --iodepth=32 --size=32M
	--verify=crc32c --verify_fatal=1 --output-format=terse"

# verifies NAME OPTIONS OPTION...: the options of the disk, and more for mvmm
verifies()
{
	guest "$fio >/dev/null && echo verified; echo serial=\$(cat /sys/block/vda/serial); echo queues=\$(ls /sys/block/vda/mq | wc -l)" --memory 256M \
		--disk "$work/disk$2" --disk "$tools,readonly=on" "${@:3}" >"$work/out" 2>&1
	is "$1: the guest powers off" $? 0
	has "$1: what fio wrote it reads back" "$work/out" '^verified'
	sed 's/^/    /' "$work/out"
}

verifies 'one queue' ,serial=abc-123
has 'the serial number is seen' "$work/out" '^serial=abc-123$'
queues=$((patience > 1 ? 2 : 4)) # four processors on one slow one wait for each other more than they work
verifies "$queues queues, direct" ",queues=$queues,direct=on" --cpus $queues
has "$queues queues are used" "$work/out" "^queues=$queues\$"

tr '\0' x </dev/zero | head -c 64M >"$work/disk"
# busybox has an applet of that name, which knows no zeroes and comes before what PATH has
guest '/usr/bin/blkdiscard -o 0 -l 16M /dev/vda && echo discarded; /usr/bin/blkdiscard -z -o 16M -l 16M /dev/vda && echo zeroed' \
	--disk "$work/disk" --disk "$tools,readonly=on" >"$work/out" 2>&1
has 'discard' "$work/out" '^discarded'
has 'write zeroes' "$work/out" '^zeroed'
is 'zeroes are zeroes on the host' "$(dd if="$work/disk" bs=1M skip=16 count=16 status=none | tr -d '\0' | wc -c)" 0
is 'the rest is as it was' "$(dd if="$work/disk" bs=1M skip=32 status=none | tr -d x | wc -c)" 0
is 'discarded space is given back' "$(($(stat -c %b "$work/disk") * 512 <= (49 << 20)))" 1

sum=$(sha256sum <"$work/disk")
guest 'cat /sys/block/vda/ro; echo no | dd of=/dev/vda 2>&1; echo sector $(cat /sys/block/vda/queue/logical_block_size)' \
	--disk "$work/disk,readonly=on,sector-size=4096" >"$work/out" 2>&1
has 'read-only: the guest knows' "$work/out" '^1'
has 'the guest sees sectors of the size that was asked for' "$work/out" '^sector 4096'
is 'read-only: nothing changes' "$(sha256sum <"$work/disk")" "$sum"

# A host disk that fails every request reaches the guest as an I/O error, and it goes on.
loop=$(losetup --show -f "$work/disk")
for name in probability=100 times=-1 verbose=0; do
	echo "${name#*=}" >"/sys/kernel/debug/fail_make_request/${name%=*}"
done
echo 1 >"/sys/block/${loop##*/}/make-it-fail"
guest 'dd if=/dev/vda of=/dev/null bs=4k count=1 2>&1; echo alive' \
	--disk "$loop,direct=on" >"$work/out" 2>&1
is 'a failing disk: the guest powers off' $? 0
has 'a failing disk: the guest is told' "$work/out" '[Ii](nput)?/(output|O) error'
has 'a failing disk: it goes on' "$work/out" '^alive'
has 'a failing disk: the user is told where' "$work/out" 'disk0: read at offset [0-9]+: Input/output error'
echo 0 >"/sys/block/${loop##*/}/make-it-fail"
losetup -d "$loop"

# A full host: blocks that were acknowledged are there, the others are an error.
mkdir "$work/small"
mount -t tmpfs -o size=20M small "$work/small"
truncate -s 64M "$work/small/disk"
guest 'i=1; while yes $i | head -c 1048576 | dd of=/dev/vda bs=1M seek=$i iflag=fullblock oflag=direct conv=fsync 2>/dev/null &&
	[ $i -lt 60 ]; do echo wrote $i; i=$((i + 1)); done' --disk "$work/small/disk" >"$work/out" 2>&1
is 'a full host: the guest powers off' $? 0
wrote=$(grep -c '^wrote' "$work/out")
is 'a full host: it stops writing when the host is full' "$((wrote >= 10 && wrote <= 20))" 1
lost=0
for i in $(seq "$wrote"); do
	dd if="$work/small/disk" bs=1M skip="$i" count=1 status=none | cmp -s - <(yes "$i" | head -c 1M) || lost=$((lost + 1))
done
is 'a full host: nothing acknowledged is lost' "$lost" 0
sed 's/^/    /' "$work/out"

# The same with on-error=stop: the machine pauses instead, and goes on when there is room. Then the disk grows.
truncate -s 0 "$work/small/disk"
truncate -s 64M "$work/small/disk"
guest 'dd if=/dev/zero of=/dev/vda bs=1M count=30 oflag=direct 2>&1 && echo wrote all; until [ $(cat /sys/block/vda/size) = 196608 ]; do sleep 1; done; echo grown' \
	--name room --disk "$work/small/disk,on-error=stop" >"$work/out" 2>&1 &
until_true 60 sh -c "'$mvmm' info room | grep -q '^state *paused'"
is 'a full host, on-error=stop: the machine is paused' $? 0
"$mvmm" info room >"$work/info"
has 'a full host, on-error=stop: info tells why' "$work/info" 'waiting [1-9].*last_failure write at offset [0-9]+: No space left'
mount -o remount,size=80M "$work/small"
"$mvmm" resume room
until_true 60 grep -q '^wrote all' "$work/out"
is 'a full host, on-error=stop: the request is tried again' $? 0
truncate -s 96M "$work/small/disk"
"$mvmm" disk resize room disk0 >"$work/info"
has 'a disk that grows: the command tells the size' "$work/info" 'disk0: the guest sees 96M'
wait $!
is 'a disk that grows: the guest sees it' "$(grep -c ^grown "$work/out")" 1
sed 's/^/    /' "$work/out"
umount "$work/small"

guest 'echo waiting; sleep 20' --name holder --disk "$work/disk" >"$work/out" 2>&1 &
until_true 30 "$mvmm" info holder
guest true --disk "$work/disk" >"$work/out2" 2>&1
is 'a disk that another machine writes to: refused' $? 2
has 'and the message names it' "$work/out2" "$work/disk"
"$mvmm" stop --force holder

# Storage that hangs: the guest runs on, whoever asks is answered, a pause is undone, and an order to end the machine is
# obeyed, although the kernel lets a thread go only when the storage answers.
truncate -s 32M "$work/fs"
mkfs.ext4 -q "$work/fs"
mkdir "$work/frozen"
loop=$(losetup --show -f "$work/fs")
mount "$loop" "$work/frozen"
truncate -s 8M "$work/frozen/disk"
guest 'echo waiting; i=0; while sleep 1; do i=$((i + 1)); echo tick $i; done & sleep 2; dd if=/dev/zero of=/dev/vda bs=4k oflag=direct' \
	--name hung --disk "$work/frozen/disk" >"$work/out" 2>&1 &
pid=$!
until_true 30 grep -q '^waiting' "$work/out"
fsfreeze -f "$work/frozen"
until_true 30 grep -q '^tick 4' "$work/out"
"$mvmm" pause hung 2>"$work/err" &
pausing=$!
until_true 10 sh -c "'$mvmm' info hung | grep -q pausing"
is 'hung storage: a machine that is being paused tells so' $? 0
ticks=$(grep -c ^tick "$work/out")
wait "$pausing"
is 'hung storage: a pause gives up' $? 1
has 'and names the disk' "$work/err" 'disk0: its storage has not completed its requests'
is 'and the guest ran meanwhile' "$(($(grep -c ^tick "$work/out") > ticks))" 1
is 'hung storage: the machine runs' "$("$mvmm" info hung | sed -n 's/^state *//p')" running
timeout 10 "$mvmm" stop --force hung
is 'hung storage: it can be ended' $? 0
has 'and what it waited for is told' "$work/out" 'disk0: its storage has not completed its requests; what it has not done'
is 'and its name is free' "$("$mvmm" ps | grep -c hung)" 0
fsfreeze -u "$work/frozen"
wait "$pid"
umount "$work/frozen"
losetup -d "$loop"
