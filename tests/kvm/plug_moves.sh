#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A disk and a network card that came while the guest ran go with it: to another process, into a snapshot and out of it, into
# its next life. And what is refused meanwhile. A card whose tap was handed in is there, too. The guest drives what it finds on
# the bus, without a break. TAP on stdout. usage: plug_moves.sh MVMM GUEST-DIRECTORY

# shellcheck source=tests/kvm/lib.sh
. "$(dirname "$0")/lib.sh"

disk() { timeout -s KILL $((20 * patience)) "$mvmm" disk "$@" >"$work/out" 2>"$work/err"; }
net() { timeout -s KILL $((20 * patience)) "$mvmm" net "$@" >"$work/out" 2>"$work/err"; }
# refused PATTERN COMMAND...: with one line
refused() {
	local pattern=$1
	shift
	! "$@" && [ "$(wc -l <"$work/err")" = 1 ] && grep -q -e "$pattern" "$work/err"
}
not() { ! "$@"; }
# does COMMAND...: in time
does() { timeout -s KILL $((60 * patience)) "$mvmm" "$@" >"$work/out" 2>"$work/err"; }
# ended: the machine that was begun last
ended() { wait "${pids[-1]}"; unset 'pids[-1]'; }
has() { "$mvmm" info "$1" | grep -q "id $2,"; }
runs() { "$mvmm" info "$1" 2>/dev/null | grep -q '^state *running'; }
first_word() { od -An -N8 -tx8 "$1"; }
# written FILE: the guest writes it now
written() { [ "$(first_word "$1")" != "$word" ]; }
writes() { word=$(first_word "$1"); until_true 20 written "$1"; }
# sends TAP: the guest sends packets now
packets() { cat "/sys/class/net/$1/statistics/rx_packets"; }
sent() { [ "$(packets "$1")" -gt "$count" ]; }
sends() { count=$(packets "$1"); until_true 20 sent "$1"; }
# quiet TAP: it sends none
quiet() { count=$(packets "$1"); pause 0.2; [ "$(packets "$1")" = "$count" ]; }

# shellcheck disable=SC2317
cleanup_taps() { for made in "$tap" "$other" "$third"; do ip link del "$made" 2>/dev/null; done; cleanup; }
tap=plug$((BASHPID % 100000)) other=${tap}b third=${tap}c
trap cleanup_taps EXIT
for name in "$tap" "$other" "$third"; do
	if ! { ip tuntap add "$name" mode tap && ip link set "$name" up; } 2>/dev/null; then
		echo '1..0 # SKIP no tap can be made here'
		exit 0
	fi
done
cd "$work" || exit 1
truncate -s 1M first.img second.img third.img
truncate -s $((2222 * 512)) sign.img

# run_guest NAME OPTION...: until it is at work
run_guest() {
	local name=$1
	shift
	rm -f "$work/$name.log" # of another of this name
	"$mvmm" run --kernel "$guests/guest_plug" --name "$name" --memory 32M --serial "file=$work/$name.log" "$@" </dev/null \
		2>"$work/$name.err" &
	pids+=($!)
	until_true 20 says "$name.log" begins
}

# end_guest NAME: it has found nothing wrong
end_guest() {
	local code
	does stop "$1" || return
	wait "${pids[-1]}"
	code=$?
	unset 'pids[-1]'
	[ $code = 0 ] && says "$1.log" ends && ! grep -q WRONG "$work"/*.log
}

# works NAME TAP: with both devices, of which it was told nothing new
works() { has "$1" data && has "$1" card && writes second.img && sends "$2" && ! says "$1.log" 'disk\|card'; }
# lets_go NAME: of both
lets_go() {
	disk remove "$1" data && net remove "$1" card && says "$1.log" 'lets go 1f' && says "$1.log" 'lets go 1e' &&
		! has "$1" data && ! has "$1" card
}

# ---- to another process, into a snapshot ----

check 'a guest runs with a disk' run_guest a --disk first.img
check 'another one comes' disk add a second.img,id=data
check 'and a card' net add a "tap=$tap,id=card"
check 'the guest finds both' until_true 20 says a.log 'card 1e'
check 'and drives them' sends "$tap"
"$mvmm" receive --from unix:sock --name b --serial file=b.log --disk disk0=first.img --disk data=second.img \
	--net "card=tap=$other" </dev/null 2>b.err &
receiver=$!
until_true 20 says b.err waiting
check 'it moves to another process' does migrate a --to unix:sock --downtime $((2 * patience))s
ended
pids+=("$receiver")
check 'where it works with what came to it' works b "$other"
check 'and lets it go' lets_go b
disk add b second.img,id=data
net add b "tap=$tap,id=card"
check 'others come' until_true 20 says b.log 'card 1e'
check 'and are kept in a snapshot' does snapshot b --to snap --disks none --stop
ended
"$mvmm" restore --from snap --name c --serial file=c.log </dev/null 2>c.err &
pids+=($!)
until_true 20 runs c
check 'out of which it works with them' works c "$tap"
check 'and lets them go' lets_go c
check 'their slots are free' disk add c second.img,id=data
check 'for others' until_true 20 says c.log 'disk 1f'
check 'nothing was wrong' end_guest c

# ---- what is refused meanwhile ----

check 'a guest runs with a disk and a card' run_guest d --disk first.img --net "tap=$tap,id=card" --disk third.img,id=data
"$mvmm" receive --from unix:sock --name e --serial file=e.log --disk disk0=first.img --disk data=third.img \
	--net "card=tap=$other" </dev/null 2>e.err &
receiver=$!
pids+=("$receiver")
until_true 20 says e.err waiting
"$mvmm" migrate d --to unix:sock --bandwidth 64K --downtime 1ms >moving 2>&1 &
mover=$!
until_true 20 grep -q 'round\|memory\|sending' moving
check 'while it moves no disk comes' refused 'is being migrated; mvmm migrate --cancel cancels that' disk add d second.img
check 'nor a card' refused 'is being migrated' net add d "tap=$third"
check 'none goes' refused 'is being migrated' disk remove d data
check 'not by force' refused 'is being migrated' disk remove d data --force
check 'no card goes' refused 'is being migrated' net remove d card
check 'no disk gets another image' refused 'is being migrated' disk replace d data second.img
check 'or size' refused 'is being migrated' disk resize d data
check 'and no link changes' refused 'is being migrated' net set d card link=off
does migrate d --cancel
wait "$mover"
wait "$receiver"
unset 'pids[-1]'
check 'when it has been cancelled, the card goes' net remove d card
check 'and a disk comes' disk add d second.img
check 'nothing was wrong' end_guest d

# ---- the next life ----

check 'a guest runs' run_guest f --disk first.img
check 'a disk comes' disk add f second.img,id=data
check 'and a card' net add f "tap=$tap,id=card"
until_true 20 says f.log 'card 1e'
check 'and a sign to reboot' disk add f sign.img,id=sign
check 'with both it reboots: they have other places then' until_true 20 says f.log '^card 0'
check 'the disk, too' until_true 20 says f.log '^size 02 2048'
does stop f --force
ended

# ---- a tap that was handed in ----

cat >hand.py <<'END'
import fcntl, os, struct, sys
tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
fcntl.ioctl(tap, 0x400454ca, struct.pack("16sH22x", sys.argv[1].encode(), 0x5002)) # TUNSETIFF: IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
os.dup2(tap, 9)
os.execv(sys.argv[2], sys.argv[2:])
END
python3 hand.py "$tap" "$mvmm" run --kernel "$guests/guest_plug" --name g --memory 32M --serial "file=$work/g.log" \
	--net fd=9,id=given </dev/null 2>g.err &
pids+=($!)
check 'a guest runs with a tap that was handed in' until_true 20 says g.log begins
check 'by which it sends' sends "$tap"
check 'it is listed' has g given
check 'its cable is pulled' net set g given link=off
check 'which the guest sees' until_true 20 says g.log 'link 01 down'
check 'it sends nothing more' quiet "$tap"
check 'and is plugged in' net set g given link=on
check 'which it sees, too' until_true 20 says g.log 'link 01 up'
check 'and sends' sends "$tap"
check 'another card comes' net add g "tap=$other,id=more"
check 'and sends' sends "$other"
check 'the one that was handed in goes' net remove g given
check 'and its tap is free' run_guest h --net "tap=$tap"
check 'for another guest' end_guest h
check 'a card goes by force, while it sends' net remove g more --force
check 'its tap is free' run_guest h --net "tap=$other"
check 'for another guest' end_guest h
check 'a descriptor does not come later' refused 'fd=9' net add g fd=9
left() { find "/proc/${pids[-1]}/fd" "/proc/${pids[-1]}/task" -mindepth 1 -maxdepth 1 | wc -l; }
cycles() {
	local i force
	for i in {1..50}; do
		force=()
		[ $((i % 2)) = 0 ] || force=(--force)
		net add g "tap=$other,id=x" && net remove g x "${force[@]}" || return 1
	done
}
before=$(left)
check '50 cards come and go, every second one by force' cycles
check 'descriptors and threads are as before' [ "$(left)" = "$before" ]
seen=$(grep -c 'card 1f' g.log)
check 'slots are' net add g "tap=$other,id=x"
once_more() { [ "$(grep -c 'card 1f' g.log)" -gt "$seen" ]; }
check 'it is the same one for all' until_true 10 once_more
check 'nothing was wrong' end_guest g
nothing_left || { check 'nothing is left in the runtime folder' false; }
echo "1..$n"
