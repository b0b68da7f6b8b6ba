#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2016 # what is in single quotes runs in the guest
# Clones of a Debian guest are told apart while the first machine runs on: each has a generation ID of its own, its kernel reseeds
# its random numbers, and what they give are other ones. Its clocks stand still or go on, as --clock says, also if the snapshot is a
# week old or of tomorrow, and its real-time clock shows the time. Its vsock connection ends, and it can have another CID. Its
# network card keeps its MAC address, or gets that of --net.
# prepare: tests/guest/kernel 6.12-elf && tests/guest/initramfs 6.12-elf && tests/guest/tools socat
# timeout: 400

# shellcheck source=tests/testhost/lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
export XDG_RUNTIME_DIR=$work/run
mkdir -m 700 "$XDG_RUNTIME_DIR"
tools=$("$tree/tests/guest/tools" socat)
for tap in tap0 tap1 tap2 tap3; do
	ip tuntap add "$tap" mode tap && ip link set "$tap" up
done

# The guest tells in each turn what it is. What comes to port 6000 is its next command, and the end of that connection is told.
commands='(while :; do socat -u VSOCK-LISTEN:6000 CREATE:/tmp/in; mv /tmp/in /tmp/order; echo connection ended; done) &
driver=/sys/bus/virtio/drivers/virtio_net; device=$(basename $(readlink -f /sys/class/net/eth0/device));
while :; do
	echo turn random=$(head -c 9 /dev/urandom | base64) id=$(dd if=/dev/mem bs=16 skip=65280 count=1 2>/dev/null | base64)
		behind=$(($(cat /sys/class/rtc/rtc0/since_epoch) - $(date +%s))) rtc=$(cat /sys/class/rtc/rtc0/since_epoch) up=$(cut -d. -f1 /proc/uptime)
		forks=$(dmesg | grep -c due.to.virtual.machine.f[o]rk) mac=$(cat /sys/class/net/eth0/address) bad=$(complaints | wc -l) end;
	[ ! -s /tmp/order ] || { rm /tmp/order; echo $device >$driver/unbind; echo $device >$driver/bind; };
	sleep 1;
done'

# turn LOG N: the N-th complete turn that is told there, into $said
turn() { said=$(tr -d '\r' <"$work/$1.log" | grep -a '^turn .* end$' | sed -n "$2p") && [ -n "$said" ]; }
# value NAME: of $said
value() { sed -n "s/.* $1=\([^ ]*\) .*/\1/p" <<<"$said"; }
# ended LOG: a connection has ended in this guest
ended() { tr -d '\r' <"$work/$1.log" | grep -aq '^connection ended$'; }

# restores NAME OPTION...: a clone, which tells what it has woken up as; its first turn may have begun before
restores()
{
	local began
	began=$(date +%s)
	"$mvmm" restore --from "$work/snapshot" --name "$1" --serial "file=$work/$1.log" "${@:2}" >"$work/$1.out" 2>&1 </dev/null &
	until_true 60 turn "$1" 3 || { not_ok "$1: works" 'see what it said'; tail -n 20 "$work/$1.log" "$work/$1.out" | sed 's/^/    /'; exit 1; }
	ok "$1: works"
	turn "$1" 2
	echo "    $said"
	is "$1: its kernel has reseeded its random numbers" "$(value forks)" 1
	is "$1: its kernel has no complaint" "$(value bad)" 0
	is "$1: its real-time clock shows the time" "$(($(value rtc) >= began && $(value rtc) <= $(date +%s) + 1))" 1
	until_true 20 ended "$1"
	is "$1: its connection has ended" $? 0
}

: >"$work/o.log"
"$mvmm" run --kernel "$(guest_file kernel 6.12-elf)" --initrd "$(guest_file initramfs 6.12-elf)" --name o --memory 256M \
	--disk "$tools,readonly=on" --net tap=tap0 --vsock "cid=6,socket=$work/v0" --serial "file=$work/o.log" --cpu host,-svm \
	--cmdline "$guest_words mvmm.run=\"${commands//[$'\n\t']/ }\"" >"$work/o.out" 2>&1 </dev/null &
until_true 180 turn o 1 || { not_ok 'the guest works' 'see what it said'; tail -n 30 "$work/o.log" "$work/o.out" | sed 's/^/    /'; exit 1; }
# The guest may not listen yet; then the connection ends at once.
connects()
{
	(printf 'CONNECT 6000\n'; sleep 1000) | socat - "UNIX-CONNECT:$work/v0" >"$work/connection" 2>&1 &
	until_true 5 grep -q '^OK' "$work/connection"
}
until_true 60 connects
is 'somebody is connected with the guest' $? 0
"$mvmm" snapshot o --to "$work/snapshot" --disks none >"$work/out" 2>&1
is 'a snapshot is taken' $? 0
sed 's/^/    /' "$work/out"

# pass DAYS: so many days later
pass() { date -s "@$(($(date +%s) + $1 * 86400))" >/dev/null; }
# behind SECONDS: the guest's date is, but for the time that this takes
behind() { [ "$(value behind)" -ge "$(($1 - 2))" ] && [ "$(value behind)" -lt "$(($1 + 1000))" ]; }
declare -A random id mac
note() { random[$1]=$(value random) id[$1]=$(value id) mac[$1]=$(value mac); }

pass 7
restores c1 --net net0=tap=tap1 --vsock "$work/v1"
note c1
behind 604800
is 'c1: its clocks have stood still for a week' $? 0
restores c2 --net net0=tap=tap2,mac=02:00:00:00:00:09 --vsock cid=9,kernel --clock run
note c2
is 'c2: its clocks have gone on' "$(($(value behind) <= 1 && $(value behind) >= -1))" 1
pass -8
restores c3 --net net0=tap=tap3 --vsock "$work/v3" --clock run
note c3
behind -86400
is 'c3: its clocks have not been set back by a day' $? 0
pass 1
count=$(tr -d '\r' <"$work/o.log" | grep -ac '^turn .* end$')
until_true 60 turn o $((count + 1))
note o
echo "    $said"
is 'the first machine is as it was' "$(value forks) $(value bad) $(ended o || echo connected)" '0 0 connected'
is 'no random number comes twice' "$(printf '%s\n' "${random[@]}" | sort -u | wc -l)" 4
is 'no generation ID comes twice' "$(printf '%s\n' "${id[@]}" | sort -u | wc -l)" 4
is 'the MAC addresses are the same' "${mac[c1]} ${mac[c2]} ${mac[c3]}" "${mac[o]} ${mac[o]} ${mac[o]}"

# Its driver reads the address when it begins anew.
echo begin | socat -t 5 - VSOCK-CONNECT:9:6000
is 'c2: it has another CID' $? 0
has_mac() { turn c2 '$' && [ "$(value mac)" = 02:00:00:00:00:09 ]; }
until_true 40 has_mac
is 'c2: it has another MAC address' "$(value mac)" 02:00:00:00:00:09
for name in o c1 c2 c3; do
	"$mvmm" stop --force "$name"
done
wait %1
sed 's/^/    /' "$work"/*.out
