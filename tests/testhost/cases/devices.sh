#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The small virtio devices under the guest's own drivers: entropy, console on a pty both ways, balloon with statistics,
# free-page reporting and deflation when memory runs out; by MSI-X and by INTx, with old and new kernels, over a pause.
# prepare: for k in 6.1-elf 6.12-elf; do tests/guest/kernel $k && tests/guest/initramfs $k; done
# timeout: 300

# shellcheck source=tests/testhost/lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"

# What the guest does: bytes from hwrng; numbers out by hvc0 and others in (by a file, for seq writes each line by itself to a
# terminal); then it waits for a word and powers off. One that starves, when it gets a word before that one, fills its free memory
# and 4 MB that the balloon has, in steps of 1 MiB, for each of which it first looks everywhere else.
works='head -c 200000 /dev/hwrng | wc -c; cat /sys/class/misc/hw_random/rng_current;
	exec 9<>/dev/hvc0; stty raw -echo <&9; echo ready; head -c 3 <&9 >/dev/null; seq 50000 >/tmp/n; cat /tmp/n >&9; head -c 108894 <&9 | sha256sum;
	grep virtio /proc/interrupts; echo waiting;'
starves='head -c 3 <&9 >/dev/null; n=$(($(grep MemFree /proc/meminfo | tr -dc 0-9) * 1024 + 4000000));
	head -c $n /dev/zero >/dev/shm/x; [ $(wc -c </dev/shm/x) = $n ] && echo all is written; rm /dev/shm/x; echo filled;'
ends='head -c 3 <&9 >/dev/null; dmesg | grep -i [o]ut.of.memory'

# balloon MEMBER: as info tells
balloon()
{
	"$mvmm" info devices | sed -n "s/^balloon.* $1 \([0-9]*\).*/\1/p"
}

# balloon_is BYTES: the guest has given back so much
balloon_is()
{
	[ "$(balloon actual)" = "$1" ]
}

gave_back_pages()
{
	[ "$(balloon reported)" -gt $((64 << 20)) ]
}

resident_kib()
{
	sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$("$mvmm" info devices | sed -n 's/^pid *//p')/status"
}

# below WHAT NUMBER LIMIT
below()
{
	if [ "${2:-$3}" -lt "$3" ]; then
		ok "$1"
	else
		not_ok "$1" "${2:-nothing}, which is not below $3"
	fi
}

# exercise NAME COMMANDS OPTION...: everything that these let it, with one guest. In a subshell, for a session's first process
# would get the pty as its terminal, and what reads from it in the background would be stopped.
exercise()
(
	name=$1
	guest_timeout=200 guest "$2$ends" --memory 192M --name devices --console pty --balloon on "${@:3}" >"$work/out" 2>"$work/err" &
	guest_pid=$!
	until_true 20 grep -q /dev/pts "$work/err"
	pty=$(grep -o '/dev/pts/[0-9]*' "$work/err")
	exec 8<>"$pty"
	stty -F "$pty" raw -echo
	until_true 40 grep -q ready "$work/out"
	printf 'go\n' >&8
	timeout $((20 * patience)) head -c 288894 <&8 | sha256sum >"$work/sum"
	is "$name: the console shows all" "$(cat "$work/sum")" "$(seq 50000 | sha256sum)"
	"$mvmm" pause devices
	seq 20000 >&8 &
	sleep 1
	"$mvmm" resume devices
	until_true 20 grep -q waiting "$work/out"
	has "$name: it takes all that is typed" "$work/out" "$(seq 20000 | sha256sum | cut -d' ' -f1)"
	has "$name: entropy" "$work/out" '^200000'
	has "$name: by the device" "$work/out" '^virtio_rng.0'

	ok_when "$name: free pages are reported" 10 gave_back_pages
	"$mvmm" balloon devices --size 112M
	ok_when "$name: inflates" 20 balloon_is $((112 << 20))
	below "$name: the pages are the host's" "$(resident_kib)" $((90 << 10))
	balloon free >/dev/null # each call asks for the next one's figures
	sleep 0.5
	below "$name: the guest tells what it has left" "$(balloon free)" $((80 << 20))
	[[ $2 != *filled* ]] || starve
	"$mvmm" balloon devices --size 0
	ok_when "$name: deflates" 20 balloon_is 0
	printf 'go\n' >&8
	wait "$guest_pid"
	is "$name: the guest powers off" $? 0
	is "$name: it has killed nobody" "$(grep -ci 'out of memory' "$work/out")" 0
	sed "s/^/    /" "$work/err" "$work/out"
)

# starve: the guest runs out of memory
starve()
{
	printf 'go\n' >&8
	until_true 90 grep -q filled "$work/out"
	has "$name: memory that runs out comes from the balloon" "$work/out" '^all is written'
	below "$name: it has deflated" "$(balloon actual)" $((112 << 20))
}

# ok_when WHAT SECONDS COMMAND...
ok_when()
{
	if until_true "${@:2}"; then
		ok "$1"
	else
		not_ok "$1" "not within $2 s: $("$mvmm" info devices | tail -n 1)"
	fi
}

guest_kernel=6.1-elf
exercise 'Linux 6.1' "$works"
has 'Linux 6.1: by MSI-X' "$work/out" 'PCI-MSI.*virtio.*inflate'
guest_kernel=6.12-elf exercise 'Linux 6.12' "$works$starves" --cpus 2
guest_args=pci=nomsi exercise 'without MSI-X' "$works"
is 'without MSI-X: by the pin' "$(grep -c 'PCI-MSI.*virtio' "$work/out")" 0
