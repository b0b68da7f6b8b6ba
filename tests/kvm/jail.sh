#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Machines in a jail, of root and of an ordinary user, who gets a copy of /dev/kvm's node for that: what such a process is, that
# guests reboot, use disks, are kept and restored in it, and that nothing is left behind, however it ends. TAP on stdout.
# usage: jail.sh MVMM GUEST-DIRECTORY

# shellcheck source=tests/kvm/jail_lib.sh
. "$(dirname "$0")/jail_lib.sh"

arrives() { machine=$(cat "$work/$who/mvmm/to/pid" 2>/dev/null) && by "$work/mvmm" info to 2>/dev/null | grep -q arriving; }

for turn in root user; do
	turn "$turn"
	make_jail

	by "$work/mvmm" run --kernel "$work/guest_hello" --memory 32M --jail "$jail" >"$work/out" 2>"$work/err" </dev/null
	check "$who: a guest runs in a jail and powers off" test "$? $(cat "$work/out")" = '0 hello'
	check "$who: nothing is left" nothing_stays
	by "$work/mvmm" run --kernel "$work/guest_hello" --memory 32M --jail "$jail,pid=on" >"$work/out" 2>"$work/err" </dev/null
	check "$who: and with a namespace of process numbers" test "$? $(cat "$work/out")" = '0 hello'

	by sh -c "umask 077; head -c 1M /dev/zero >$work/$who/own; head -c 1M /dev/zero >$work/$who/direct"
	start reboots run --kernel "$work/guest_reboot" --memory 32M --name reboots --disk "$work/$who/own" --disk "$work/$who/direct,direct=on" \
		--jail "$jail"
	check "$who: a guest reboots in a jail, with disks that its user could not open" until_true 20 grep -q 'rebooted 6 times' "$work/$who-reboots.err"
	kill -HUP "$keeper"
	check "$who: a signal to the process that was started ends the machine" ends 129
	check "$who: nothing is left of it" nothing_stays

	by truncate -s 8M "$work/$who/disk"
	start disk run --kernel "$work/guest_disk" --memory 32M --name disk --disk "$work/$who/disk" --jail "$jail,pid=on,nofile=200,fsize=64M"
	check "$who: it has no capabilities" until_true 5 every_thread '^CapEff:	0000000000000000'
	check "$who: nor can it get any" until_true 5 every_thread '^CapBnd:	0000000000000000'
	check "$who: no thread gets new privileges" until_true 5 every_thread '^NoNewPrivs:	1'
	check "$who: each is the other user" until_true 5 every_thread "^Uid:	$nobody	$nobody	$nobody	$nobody"
	check "$who: without groups" until_true 5 every_thread '^Groups:[[:space:]]*$'
	check "$who: it is the first process of a namespace" status '^NSpid:.*	1$'
	for kind in mnt net ipc uts pid; do
		check "$who: its namespace $kind is another one" other_namespace "$kind"
	done
	[ "$who" = root ] || check "$who: and that of users" other_namespace user
	check "$who: it sees its own root, with the devices that it has open" sees './dev ./dev/kvm ./proc ./proc/self'
	mounts=4
	[ "$who" = root ] || mounts=5 # his node of kvm is one
	check "$who: and no other mounts" test "$(wc -l <"/proc/$machine/mountinfo")" = "$mounts"
	check "$who: an interface without a connection" test "$(grep -c : "/proc/$machine/net/dev")" = 1
	check "$who: its limits hold" grep -qE '^Max open files +200 +200' "/proc/$machine/limits"
	check "$who: mvmm info knows the number that others see" grep -q "^pid *$machine$" <(by "$work/mvmm" info disk)
	by "$work/mvmm" pause disk && by "$work/mvmm" resume disk
	check "$who: it is paused and resumed" test $? = 0
	by "$work/mvmm" snapshot disk --to "$work/$who/snapshot" --disks copy --live >"$work/out" 2>"$work/err"
	check "$who: a snapshot is taken of it" test $? = 0
	by "$work/mvmm" stop disk >"$work/out" 2>"$work/err"
	check "$who: it stops" ends 0
	check "$who: its guest has read what it wrote" grep -q 'wrong 00000000' "$work/$who-disk.out"
	check "$who: nothing is left" nothing_stays

	for mode in map copy; do
		start restored restore --from "$work/$who/snapshot" --name restored --memory-mode "$mode" --disk disk0="$work/$who/new-$mode" \
			--jail "$jail"
		check "$who: restored by $mode, it has no capabilities" until_true 5 every_thread '^CapEff:	0000000000000000'
		check "$who: restored by $mode, it sees its own root" sees './dev ./dev/kvm ./proc ./proc/self'
		by "$work/mvmm" stop restored >"$work/out" 2>"$work/err"
		check "$who: restored by $mode, it stops" ends 0
		check "$who: restored by $mode, its guest has read what it wrote" grep -q 'wrong 00000000' "$work/$who-restored.out"
	done
	by "$work/mvmm" clone "$work/$who/snapshot" --count 3 --name 'c{n}' --disk disk0="$work/$who/clone{n}" --jail "$jail" \
		>"$work/out" 2>"$work/err"
	check "$who: three clones share a jail's folder" test $? = 0
	for i in 1 2 3; do by "$work/mvmm" stop "c$i"; done >"$work/out" 2>"$work/err"
	check "$who: nothing is left of them" until_true 5 nothing_stays

	start one run --kernel "$work/guest_idle" --memory 32M --name one --jail "$jail"
	first=$keeper
	start two run --kernel "$work/guest_idle" --memory 32M --name two --jail "$jail" --allow "$work"
	by "$work/mvmm" stop --force one
	wait "$first"
	check "$who: a machine keeps its /dev when another one of the folder ends" test -e "/proc/$machine/root/dev/kvm"
	check "$who: and what is allowed" test -e "/proc/$machine/root/$work/kvm"
	by "$work/mvmm" stop --force two
	wait "$keeper"
	check "$who: the last one removes what was made" nothing_stays

	"${as[@]}" "$work/mvmm" receive --from "unix:$work/$who/migration" --name to --disk disk0="$work/$who/disk" --serial none --jail "$jail,pid=on" \
		>"$work/$who-to.out" 2>&1 </dev/null &
	target=$!
	pids+=("$target")
	until_true 10 test -S "$work/$who/migration"
	start from run --kernel "$work/guest_disk" --memory 32M --name from --disk "$work/$who/disk" --jail "$jail"
	by "$work/mvmm" migrate from --to "unix:$work/$who/migration" --downtime 1s >"$work/out" 2>"$work/err"
	check "$who: from jail to jail" test $? = 0
	check "$who: the source ends" ends 0
	machine=$(cat "$work/$who/mvmm/to/pid")
	check "$who: the target has no capabilities" until_true 5 every_thread '^CapEff:	0000000000000000'
	check "$who: and its own root" sees './dev ./dev/kvm ./proc ./proc/self'
	keeper=$target
	by "$work/mvmm" stop to >"$work/out" 2>"$work/err"
	check "$who: it stops" ends 0
	check "$who: nothing is left on either side" nothing_stays

	start from run --kernel "$work/guest_pattern" --memory 64M --cmdline pages=8192 --serial none --name from --jail "$jail"
	"${as[@]}" "$work/mvmm" receive --from "unix:$work/$who/slow" --name to --serial none --jail "$jail" >"$work/$who-to.out" 2>&1 </dev/null &
	target=$!
	pids+=("$target")
	until_true 10 test -S "$work/$who/slow"
	by "$work/mvmm" migrate from --to "unix:$work/$who/slow" --bandwidth 1M >"$work/out" 2>"$work/err" &
	pids+=($!)
	check "$who: a machine arrives slowly" until_true 20 arrives
	check "$who: meanwhile no thread has capabilities" until_true 5 every_thread '^CapEff:	0000000000000000'
	check "$who: and it still arrives" arrives
	by "$work/mvmm" stop --force to
	wait "$target"
	by "$work/mvmm" stop --force from
	wait "$keeper"
	check "$who: nothing is left of it" until_true 5 nothing_stays

	start filtered run --kernel "$work/guest_idle" --memory 32M --name filtered --seccomp on --jail "$jail"
	check "$who: each thread has a filter of system calls, too" until_true 5 every_thread '^Seccomp:	2'
	check "$who: and no capabilities" until_true 5 every_thread '^CapPrm:	0000000000000000'
	by "$work/mvmm" stop --force filtered
	wait "$keeper"

	start killed run --kernel "$work/guest_idle" --memory 32M --name killed --jail "$jail,pid=on"
	kill -KILL "$machine"
	check "$who: a machine that is killed is told" ends 137
	check "$who: nothing is left of it, either" nothing_stays
	start alone run --kernel "$work/guest_idle" --memory 32M --name alone --jail "$jail"
	kill -KILL "$keeper"
	check "$who: a machine ends with the process that started it" until_true 5 gone
	wait "$keeper" 2>/dev/null
	by "$work/mvmm" run --kernel "$work/guest_hello" --memory 32M --jail "$jail" >"$work/out" 2>"$work/err" </dev/null
	check "$who: the next machine removes what nobody could" nothing_stays
	by "$work/mvmm" ps >/dev/null
done

# ---- control groups ----

mkdir "$work/groups"
mount -t cgroup2 none "$work/groups" 2>"$work/err" || mount --bind /sys/fs/cgroup "$work/groups"
turn root
group=mvmm-test-$$
if [ "$(stat -f -c %T "$work/groups")" = cgroup2fs ]; then
	start grouped run --kernel "$work/guest_idle" --memory 32M --name grouped --jail "$work/root-jail,cgroup=$work/groups/$group"
	check 'a group is made, and the machine is in it' grep -q "^0::.*/$group$" "/proc/$machine/cgroup"
	check 'the process that started it is not' sh -c "! grep -q $group /proc/$keeper/cgroup"
	by "$work/mvmm" stop --force grouped
	wait "$keeper"
	check 'the group is removed' test ! -e "$work/groups/$group"
	mkdir "$work/groups/$group"
	by "$work/mvmm" run --kernel "$work/guest_hello" --memory 32M --jail "$work/root-jail,cgroup=$work/groups/$group" >"$work/out" 2>"$work/err" \
		</dev/null
	check 'a group that was there is used' test "$? $(cat "$work/out")" = '0 hello'
	check 'and stays' test -e "$work/groups/$group"
	if ! grep -qw cpu "$work/groups/cgroup.controllers"; then
		by "$work/mvmm" run --kernel "$work/guest_hello" --jail "$work/root-jail,cgroup=$work/groups/$group,cpu=50" >"$work/out" 2>"$work/err" \
			</dev/null
		check 'a limit that the group cannot have is refused' test $? = 2
		check 'with a line that says so' grep -q '^mvmm: --jail cgroup=.*,cpu=: the group above it does not give it the cpu' "$work/err"
	fi
	rmdir "$work/groups/$group"
	turn user
	by "$work/mvmm" run --kernel "$work/guest_hello" --jail "$work/user-jail,cgroup=$work/groups/$group" >"$work/out" 2>"$work/err" </dev/null
	check 'an ordinary user needs a group of his' test $? = 2
	check 'and is told' grep -q 'no permission to make the group; name a group that was delegated to you' "$work/err"
fi
umount "$work/groups"
umount /dev/kvm
echo "1..$n"
