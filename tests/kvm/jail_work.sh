#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# What a machine does outside of a jail, it does in one, with the filters of system calls and without: its helpers run (passt,
# TLS), its taps and network namespace last, its memory comes in every way, and what has changed is kept. Of root and of an
# ordinary user. TAP on stdout. usage: jail_work.sh MVMM GUEST-DIRECTORY UFFD-HANDLER

# shellcheck source=tests/kvm/jail_lib.sh
. "$(dirname "$0")/jail_lib.sh"
handler=$(realpath "$3")
cp "$handler" "$work/handler"
"$(dirname "$0")/../certificates" "$work/pki" >"$work/out" 2>&1
chmod -R go+rX "$work/pki"
tap=mvmmtap$$
cp "$(dirname "$mvmm")/mvmm-tls" "$work" # it is looked for beside the program
clean() {
	ip link del "$tap" 2>/dev/null
	umount "$work/ns" "$work/tun" /dev/net/tun 2>/dev/null
	cleanup
}
trap clean EXIT

# a tap of this user, and his node of the device
ip tuntap add "$tap" mode tap user "$nobody" multi_queue
touch "$work/ns"
unshare --net="$work/ns" true && nsenter --net="$work/ns" ip tuntap add inside mode tap
# shellcheck disable=SC2046 # two numbers
mknod "$work/tun" c $(stat -c '%Hr %Lr' /dev/net/tun) && chmod 666 "$work/tun" && mount --bind "$work/tun" /dev/net/tun

reboots() { until_true 30 grep -q 'rebooted 6 times' "$work/$who-$started.err"; }
# forced NAME: it ends, and nothing is left of it
forced() {
	by "$work/mvmm" stop --force "$1" >"$work/out" 2>"$work/err"
	wait "$keeper"
	nothing_stays
}
helper() { pgrep -P "$(pgrep -P "$machine" mvmm-helpers)" "^$1" >/dev/null; }
in_namespace() { [ "$(stat -Lc %i "/proc/$machine/ns/net")" = "$(stat -c %i "$work/ns")" ]; }

# moved OPTION...: from jail to jail by TLS
moved() {
	local target
	"${as[@]}" "$work/mvmm" receive --from "unix:$work/$who/tls" --name to --disk disk0="$work/$who/disk" --serial none --jail "$jail" \
		--tls "$work/pki/good" "$@" >"$work/$who-to.out" 2>"$work/$who-to.err" </dev/null &
	target=$!
	pids+=("$target")
	until_true 10 test -S "$work/$who/tls"
	start from run --kernel "$work/guest_disk" --memory 32M --name from --disk "$work/$who/disk" --jail "$jail" "$@"
	by "$work/mvmm" migrate from --to "unix:$work/$who/tls" --tls "$work/pki/other" --tls-peer localhost --downtime $((2 * patience))s \
		>"$work/out" 2>"$work/err" || return 1
	ends 0 || return 1
	keeper=$target
	by "$work/mvmm" stop to >"$work/out" 2>"$work/err" && ends 0 && nothing_stays
}

# goes OPTION...: a guest in a jail has the memory of its snapshot
goes() {
	start restored restore --from "$work/$who/snapshot" --name restored --jail "$jail" --serial "file=$work/$who/restored.log" "$@"
	until_true 30 grep -q passes "$work/$who/restored.log"
	by "$work/mvmm" stop restored >"$work/out" 2>"$work/err" && ends 0 && grep -q 'wrong 00000000' "$work/$who/restored.log" &&
		! grep -q WRONG "$work/$who/restored.log" && rm "$work/$who/restored.log" && nothing_stays
}
kept() { by timeout $((60 * patience)) "$work/mvmm" snapshot patterns --to "$work/$who/$1" "${@:2}" >"$work/out" 2>"$work/err"; }
same() { by "$work/mvmm" snapshot verify "$1" >"$work/out" 2>"$work/err"; }

for turn in root user; do
	turn "$turn"
	make_jail
	by truncate -s 8M "$work/$who/disk"

	for filters in off on; do
		start passt run --kernel "$work/guest_reboot" --memory 32M --name passt --net passt --seccomp $filters --jail "$jail"
		check "$who, filters $filters: a guest with passt reboots" reboots
		check "$who, filters $filters: its passt runs, which was started behind the door" until_true 10 helper passt
		check "$who, filters $filters: and ends with it" forced passt
		start taps run --kernel "$work/guest_reboot" --memory 32M --name taps --net "tap=$tap,queues=2" --seccomp $filters --jail "$jail"
		check "$who, filters $filters: a guest with a tap reboots, which its user could not open" reboots
		check "$who, filters $filters: nothing is left" forced taps
		check "$who, filters $filters: a guest moves by TLS" moved --seccomp $filters
	done

	if [ "$who" = root ]; then
		start inside run --kernel "$work/guest_reboot" --memory 32M --name inside --net tap=inside --jail "$jail,netns=$work/ns"
		check 'root: a tap of the chosen network namespace is found' reboots
		check 'root: in which the machine is' in_namespace
		check 'root: and all of its threads have no rights' until_true 5 every_thread '^CapEff:	0000000000000000'
		check 'root: nothing is left' forced inside
	else
		by "$work/mvmm" run --kernel "$work/guest_hello" --memory 32M --jail "$jail,netns=$work/ns" >"$work/out" 2>"$work/err" </dev/null
		check 'user: another network namespace is refused' test "$? $(wc -l <"$work/err")" = '2 1'
		check 'user: with the reason' grep -q 'only root can enter it' "$work/err"
	fi

	start patterns run --kernel "$work/guest_pattern" --cmdline pages=2000 --memory 64M --name patterns --jail "$jail" \
		--serial "file=$work/$who/patterns.log"
	until_true 30 grep -q begins "$work/$who/patterns.log"
	check "$who: a snapshot is taken, for diffs of it" kept snapshot --track
	check "$who: and a diff" kept diff --diff
	check "$who: nothing is left" forced patterns
	check "$who: the diff is merged" by "$work/mvmm" snapshot merge "$work/$who/snapshot" "$work/$who/diff" --to "$work/$who/merged"
	check "$who: what comes of it is whole" same "$work/$who/merged"
	for mode in map copy; do
		check "$who: a guest is restored by $mode" goes --memory-mode "$mode"
	done
	check "$who: what it touches first is recorded" by timeout $((60 * patience)) "$work/mvmm" snapshot record "$work/$who/snapshot"
	check "$who: and read ahead" goes --memory-mode prefetch
	if [ "$who" = root ]; then
		"$work/handler" "$work/uffd" "$work/$who/snapshot/memory" >"$work/handler.out" 2>&1 &
		pids+=($!)
		until_true 10 test -S "$work/uffd"
		check "$who: a handler of the memory serves it" goes --memory-mode "uffd=$work/uffd"
	fi
done
umount /dev/kvm
echo "1..$n"
