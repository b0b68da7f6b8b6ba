#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Disks come, go and change under the real program and the real /dev/kvm. The guest drives each disk that it finds on the bus
# and lets go of one when it is asked. TAP on stdout. usage: hotplug.sh MVMM GUEST-DIRECTORY

# shellcheck source=tests/kvm/lib.sh
. "$(dirname "$0")/lib.sh"

# run_guest NAME OPTION...: until it is at work
run_guest()
{
	local name=$1
	shift
	rm -f "$work/$name.log" # of another of this name
	"$mvmm" run --kernel "$guests/guest_plug" --name "$name" --memory 64M --serial "file=$work/$name.log" "$@" </dev/null \
		2>"$work/$name.err" &
	pids[0]=$!
	until_true 20 says "$name.log" begins
}

# end_guest NAME: it has found nothing wrong
end_guest()
{
	local code
	timeout -s KILL $((20 * patience)) "$mvmm" stop "$1" 2>"$work/err" || return
	wait "${pids[0]}"
	code=$?
	unset 'pids[0]'
	[ $code = 0 ] && says "$1.log" ends && ! says "$1.log" WRONG &&
		! grep -qv -e 'the guest has ejected it' -e 'the guest has not ejected it' -e 'lines .*left out' "$work/$1.err"
}

disk() { timeout -s KILL $((20 * patience)) "$mvmm" disk "$@" >"$work/out" 2>"$work/err"; }
# refused CODE PATTERN WORD...: with one line
refused()
{
	local code=$1 pattern=$2
	shift 2
	disk "$@"
	[ $? = "$code" ] && [ "$(wc -l <"$work/err")" = 1 ] && grep -q -e "$pattern" "$work/err"
}
written() { [ "$(od -An -N8 -tx8 "$1" | tr -d ' ')" != 0000000000000000 ]; }
# still FILE: nobody writes it any more
still() { local before; before=$(od -An -N8 -tx8 "$1"); pause 0.1; [ "$(od -An -N8 -tx8 "$1")" = "$before" ]; }
is_free() { python3 -c 'import fcntl, os, struct, sys
fcntl.fcntl(os.open(sys.argv[1], os.O_RDWR), 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))' "$1" 2>/dev/null; }
not() { ! "$@"; }
# has NAME ID: mvmm info lists it
has() { "$mvmm" info "$1" | grep -q "id $2,"; }
count_fds() { find "/proc/${pids[0]}/fd" -mindepth 1 | wc -l; }
count_tasks() { find "/proc/${pids[0]}/task" -mindepth 1 -maxdepth 1 | wc -l; }
rss() { awk '/^VmRSS/ { print $2 }' "/proc/${pids[0]}/status"; }

cd "$work" || exit 1
truncate -s 1M first.img second.img third.img
truncate -s 2M large.img
truncate -s 0 empty.img
truncate -s $((2222 * 512)) sign.img

# ---- come and go ----

check 'a guest runs with a disk' run_guest w --disk first.img
check 'a disk is added, by a path of the user' disk add w second.img,id=data
check 'its path and id are told' grep -qx "$work/second.img was added; its id is data" out
check 'the guest finds it' until_true 10 says w.log 'size 1f 2048'
check 'and writes it' until_true 10 written second.img
check 'info lists it' has w data
check 'it is locked' not is_free second.img
check 'one in use is refused' refused 1 'in use by another mvmm' add w second.img
check 'an id in use is refused' refused 1 'id=data: another device has this id' add w third.img,id=data
check 'one that is no disk is refused' refused 2 'Is a directory' add w "$work"
check 'one that does not exist is refused' refused 2 'No such file' add w none.img
check 'a mistyped key is refused' refused 2 'did you mean readonly' add w third.img,redonly=on
check 'an unknown disk cannot go' refused 1 'none: no disk with this id; mvmm info lists them' remove w none
check 'the guest is asked for it, and lets go' disk remove w data
check 'it has' says w.log 'lets go 1f'
check 'nobody writes it any more' still second.img
check 'it is unlocked' is_free second.img
check 'info does not list it' not has w data
check 'one from the start goes, too' disk remove w disk0
check 'by the same way' says w.log 'lets go 01'
check 'which is unlocked' is_free first.img
check 'the number of one that has gone is free' disk add w first.img
check 'so it is disk0 again' grep -q 'its id is disk0' out
check 'direct I/O takes two descriptors' disk add w second.img,direct=on,readonly=on,id=cd
check 'all of it goes well' end_guest w

# ---- replace, resize ----

check 'a guest runs with a placeholder' run_guest p --disk empty.img,id=a --disk third.img,id=b
check 'on which there is no room' says p.log 'size 01 0$'
: >p.err
check 'it gets its image' disk replace p a large.img
check 'whose size is told' grep -qx 'a: the guest sees 2M' out
check 'and interrupts the guest' until_true 10 says p.log 'size 01 4096'
check 'who writes it' until_true 10 written large.img
check 'the same image is refused' refused 1 'it is the image of a already' replace p a large.img
check 'one in use is refused, too' refused 1 'in use by another mvmm' replace p a third.img
check 'a smaller one is shown as such' disk replace p a second.img
check 'to the guest' until_true 10 says p.log 'size 01 2048'
check 'the one before is unlocked' is_free large.img
truncate -s 3M second.img
check 'it is resized' disk resize p a
check 'the guest is interrupted' until_true 10 says p.log 'size 01 6144'
many() {
	for _ in {1..50}; do
		disk replace p a large.img && disk replace p a second.img || return 1
	done
}
before=$(count_fds)
check 'to and fro, while the guest writes' many
check 'which costs no descriptor' [ "$(count_fds)" = "$before" ]
check 'the guest has found nothing wrong' end_guest p

# ---- the next life ----

run_guest r --disk first.img
check 'a disk is added' disk add r second.img,id=data
check 'and one replaced' disk replace r disk0 third.img
mv second.img gone.img
mv third.img away.img
check 'a sign to reboot' disk add r sign.img,id=sign
check 'the guest reboots, again and again' until_true 20 says r.log '^begins'
reboots() { [ "$(grep -c begins r.log)" -ge 2 ] || [ "$(grep -c 'size 03 2222' r.log)" -ge 2 ]; }
check 'with the disks that came, by their descriptors' until_true 20 reboots
check 'although their paths are gone' says r.log 'size 02 6144'
"$mvmm" stop r --force 2>err
wait "${pids[0]}"
mv gone.img second.img
mv away.img third.img

# ---- a guest that does not care ----

check 'a guest that keeps what it has' run_guest k --cmdline keeps --disk first.img
check 'is asked in vain' refused 1 'the guest has not ejected it, and it stays' remove k disk0 --timeout 1
check 'has the disk' has k disk0
check 'which is taken away by force, while it writes' disk remove k disk0 --force --timeout 1
check 'its requests fail' says k.log 'fails 01'
check 'and then the guest has lost it' until_true 10 says k.log 'lost 01'
check 'all is written' still first.img
check 'and unlocked' is_free first.img
check 'another one comes' disk add k first.img,id=hot
check 'which is found' until_true 10 says k.log 'disk 1f'
disk remove k hot --force --timeout 1
until_true 10 says k.log 'lost 1f'
check 'the next one comes' disk add k first.img,id=hot
check 'but not where the guest has not let go of one' until_true 10 says k.log 'disk 1e'
check 'the guest runs on' end_guest k

# ---- by force, from a guest that cares ----

check 'a guest runs with a disk' run_guest f --disk first.img
disk add f second.img,id=data
check 'which has another one' until_true 10 written second.img
check 'that is taken away by force' disk remove f data --force
check 'the guest lets go of it' says f.log 'lets go 1f'
check 'before it would have lost it' not says f.log lost
check 'it is unlocked' is_free second.img
check 'its slot is free' disk add f second.img,id=data
found() { [ "$(grep -c "^disk 1f" f.log)" = "$1" ]; }
check 'for the next one' until_true 10 found 2
"$mvmm" disk set f data ops=1/1h
check 'one whose requests wait for their limit goes, too' disk remove f data --force
check 'for they fail' says f.log 'fails 1f'
disk add f second.img,id=data
until_true 10 found 3
"$mvmm" pause f
check 'a guest that is paused cannot let go' refused 1 'data: its requests fail from now on; it leaves when the machine' \
	remove f data --force --timeout 1
check 'meanwhile it is being removed' refused 1 'the device data is being removed; try again' add f third.img
"$mvmm" resume f
check 'it leaves when the guest runs' until_true 20 not has f data
check 'all of it goes well' end_guest f

# ---- nothing is left of many ----

check 'a guest for many disks' run_guest m
disk add m first.img,id=x && disk remove m x
before="$(count_fds) $(count_tasks)" size=$(rss)
seen() { [ "$(grep -c '^disk 1f' m.log)" -ge "$1" ]; }
cycles() {
	local i force
	for i in {1..200}; do
		force=()
		[ $((i % 2)) = 0 ] || force=(--force)
		disk add m first.img,id=x && until_true 10 seen $((i + 1)) && disk remove m x "${force[@]}" || return 1
	done
}
check '200 disks come and go, every second one by force' cycles
check 'descriptors and threads are as before' [ "$(count_fds) $(count_tasks)" = "$before" ]
check 'memory is, within 2 MiB' [ "$(rss)" -le $((size + 2048)) ]
echo "# resident: $size KiB before, $(rss) KiB after"
check 'slots are' disk add m first.img,id=x
check 'it is the same one for all' until_true 10 seen 202
check 'that was all' end_guest m

nothing_left || { check 'nothing is left in the runtime folder' false; }
echo "1..$n"
