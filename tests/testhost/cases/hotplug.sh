#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2016 # what is in single quotes runs in the guest
# Disks and network cards come, go and change under the drivers of Linux, while another disk is written and verified, and
# another card sends by vhost, whose cable is pulled, too; they are also taken away by force, while they work, and go along when
# their guest moves.
# prepare: tests/guest/kernel debian-elf && tests/guest/initramfs debian-elf && tests/guest/tools fio iperf3
# timeout: 600

# shellcheck source=tests/testhost/lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
tools=$("$tree/tests/guest/tools" fio iperf3)
truncate -s 32M "$work/busy" "$work/hot" "$work/image"
truncate -s 1M "$work/sign"
: >"$work/empty"
ip tuntap add tap0 mode tap && ip addr add 10.99.0.1/24 dev tap0 && ip link set tap0 up
ip tuntap add tap1 mode tap && ip addr add 10.98.0.1/24 dev tap1 && ip link set tap1 up
iperf3 -s >/dev/null 2>&1 &
iperf3 -s -p 5202 >/dev/null 2>&1 &

# What the guest does is longer than a command line: it is on a disk of its own, vdc. vda is busy, vdb has the tools, those that
# come are vdd. eth0 sends, the card that comes is eth1.
cat >"$work/script" <<'END'
fio="fio --ioengine=libaio --direct=1 --rw=randrw --bsrange=4k-64k --iodepth=8 --verify=crc32c --verify_fatal=1 --output-format=terse"
wait_for() { until eval "$1"; do sleep 0.2; done; echo $2; }
$fio --name=busy --filename=/dev/vda --size=16M --loops=500 >/dev/null 2>&1 & load=$!
iperf3 -c 10.98.0.1 -p 5202 -t 10000 -b 20M >/tmp/stream 2>&1 & stream=$!
echo ready
wait_for '[ -b /dev/vdd ]' came
$fio --name=hot --filename=/dev/vdd --size=8M >/dev/null && echo verified
yes data | head -c 4194304 | dd of=/dev/vdd bs=64k iflag=fullblock oflag=direct 2>/dev/null; echo written
wait_for '[ ! -b /dev/vdd ]' left
wait_for '[ -b /dev/vdd ]' placeholder
wait_for '[ $(cat /sys/block/vdd/size) = 65536 ]' grown
head -c 5 /dev/vdd | grep -q image && echo image
wait_for '[ $(cat /sys/block/vdd/size) = 98304 ]' resized
wait_for '[ ! -b /dev/vdd ]' gone
wait_for '[ -e /sys/class/net/eth1 ]' card
ip addr add 10.99.0.2/24 dev eth1; ip link set eth1 up
iperf3 -c 10.99.0.1 -t 2 -f m | grep receiver
wait_for 'grep -q 0 /sys/class/net/eth1/carrier' unplugged
wait_for 'grep -q 1 /sys/class/net/eth1/carrier' plugged
iperf3 -c 10.99.0.1 -t 1 -f m | grep receiver
wait_for '[ ! -e /sys/class/net/eth1 ]' cardless
wait_for '[ -b /dev/vdd ]' doomed
$fio --name=doomed --filename=/dev/vdd --size=8M --loops=500 >/tmp/doomed 2>&1 & doomed=$!
wait_for 'read -r a b c d e f </sys/block/vdd/stat; [ $e -gt 100 ]' loaded
wait $doomed || echo failed
wait_for '[ ! -b /dev/vdd ] && [ ! -e /sys/bus/pci/devices/0000:00:1f.0 ]' lost
wait_for '[ -b /dev/vdd ]' next
$fio --name=next --filename=/dev/vdd --size=4M >/dev/null && echo works
wait_for '[ ! -b /dev/vdd ]' parted
wait_for '[ -e /sys/class/net/eth1 ]' other
ip addr add 10.99.0.2/24 dev eth1; ip link set eth1 up
iperf3 -c 10.99.0.1 -t 10000 >/dev/null 2>&1 & sender=$!
wait_for '[ $(cat /sys/class/net/eth1/statistics/tx_packets) -gt 500 ]' sending
wait_for '[ ! -e /sys/class/net/eth1 ] && [ ! -e /sys/bus/pci/devices/0000:00:1f.0 ]' cut
kill $sender
wait_for 'grep -q 0 /sys/class/net/eth0/carrier' dark
wait_for 'grep -q 1 /sys/class/net/eth0/carrier' bright
sent=$(cat /sys/class/net/eth0/statistics/tx_packets)
wait_for '[ $(cat /sys/class/net/eth0/statistics/tx_packets) -gt $((sent + 100)) ]' flowing
wait_for '[ -b /dev/vdd ] && [ $(cat /sys/block/vdd/size) = 2048 ]' sign
kill -0 $load && echo busy still
kill -0 $stream && echo stream still
kill $load $stream; wait
echo over
END
truncate -s 8K "$work/script"
guest_net=10.98.0.2/24 guest "tr -d '\\0' </dev/vdc >/tmp/script; sh /tmp/script" --name hp --memory 256M --disk "$work/busy" \
	--disk "$tools,readonly=on" --disk "$work/script,readonly=on" --net tap=tap1,vhost=on >"$work/out" 2>&1 &
pid=$!

# comes WORD: the guest has come so far
comes() { until_true 60 grep -q "^$1" "$work/out" || not_ok "the guest comes to '$1'" "$(tail -n 5 "$work/out")"; }
# does WHAT WORD...: mvmm with these words
does() { timeout -k 5 $((90 * patience)) "$mvmm" "${@:2}" >"$work/did" 2>&1; is "$1" $? 0; sed 's/^/    /' "$work/did"; }

comes ready
does 'a disk is added to a busy guest' disk add hp "$work/hot,id=hot"
comes came
comes verified
ok 'what fio wrote to it it reads back'
comes written
does 'the guest lets it go' disk remove hp hot
comes left
is 'what it has written is there' "$(head -c 4M "$work/hot" | sha256sum)" "$(yes data | head -c 4M | sha256sum)"
printf image | dd of="$work/image" conv=notrunc status=none
does 'a placeholder is added' disk add hp "$work/empty,id=place"
comes placeholder
does 'it gets its image' disk replace hp place "$work/image"
comes grown
comes image
ok 'the guest sees its size, and reads it'
truncate -s 48M "$work/image"
does 'it is made larger' disk resize hp place
comes resized
does 'it goes' disk remove hp place
comes gone
does 'a network card is added' net add hp tap=tap0,id=card
comes card
until_true 60 grep -q receiver "$work/out"
has 'iperf3 over it' "$work/out" 'Mbits/sec.*receiver'
does 'its cable is pulled' net set hp card link=off
comes unplugged
does 'and plugged in' net set hp card link=on
comes plugged
more() { [ "$(grep -c receiver "$work/out")" = 2 ]; }
until_true 60 more
is 'iperf3 again' $? 0
does 'the guest lets the card go' net remove hp card
comes cardless
does 'a disk is added that is doomed' disk add hp "$work/hot,id=hot"
comes loaded
does 'it is taken away by force, under load' disk remove hp hot --force
comes failed
ok 'its requests fail'
comes lost
is 'the guest has let go of it in time' "$(grep -c 'has not ejected it' "$work/out")" 0
does 'the next one comes' disk add hp "$work/image,id=hot"
comes works
does 'it goes' disk remove hp hot
comes parted
does 'a card is added' net add hp tap=tap0,id=card
comes sending
does 'it is taken away by force, while it sends' net remove hp card --force
comes cut
is 'the guest has let go of it, too' "$(grep -c 'has not ejected it' "$work/out")" 0
sent() { cat /sys/class/net/tap1/statistics/rx_packets; }
does 'the cable of the card that sends is pulled' net set hp net0 link=off
comes dark
still() { local before; before=$(sent); sleep 0.2; [ "$(sent)" = "$before" ]; }
until_true 20 still
is 'vhost moves nothing more' $? 0
does 'and plugged in' net set hp net0 link=on
comes bright
comes flowing
ok 'and it goes on'
process=$("$mvmm" info hp --json | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p')
left() { find "/proc/$process/fd" "/proc/$process/task" -mindepth 1 -maxdepth 1 | wc -l; }
before=$(left)
cycles()
{
	local i force
	for ((i = 0; i < $(turns 40); i++)); do
		force=()
		[ $((i % 2)) = 0 ] || force=(--force)
		"$mvmm" disk add hp "$work/hot,id=hot" >>"$work/cycles" 2>&1 && "$mvmm" disk remove hp hot "${force[@]}" >>"$work/cycles" 2>&1 ||
			return 1
	done
}
cycles
is 'many come and go' $? 0
is 'which leaves nothing in the process' "$(left)" "$before"
does 'the last one' disk add hp "$work/sign"
comes over
has 'the busy disk has noticed nothing' "$work/out" '^busy still'
has 'nor has the card that sends' "$work/out" '^stream still'
is 'nothing was taken that the guest had not let go of' "$(grep -c 'has not ejected it' "$work/out")" 0
wait "$pid"
is 'the guest powers off' $? 0
complaints "$work/out" >"$work/complaints"
is 'its kernel has not complained' "$(cat "$work/complaints")" ''
tail -n 40 "$work/out" | sed 's/^/    /'

# ---- what came goes along ----

commands='echo up; until load-modules; [ -b /dev/vda ] && [ -e /sys/class/net/eth0 ]; do sleep 0.2; done; n=0;
while [ -b /dev/vda ]; do n=$((n + 1)); echo $n | dd of=/dev/vda bs=512 seek=$n conv=notrunc,fsync 2>/dev/null && echo wrote; sleep 0.2; done;
echo left; while [ -e /sys/class/net/eth0 ]; do sleep 0.2; done; echo cardless; complaints'
"$mvmm" run --kernel "$(guest_file kernel debian-elf)" --initrd "$(guest_file initramfs debian-elf)" --cpu host,-svm --memory 128M \
	--name mv0 --serial "file=$work/mv0.log" --cmdline "$guest_words mvmm.run=\"${commands//$'\n'/ }\"" </dev/null >"$work/mv0.out" 2>&1 &
# says NAME WORD: the guest of this machine has come so far
says() { until_true 60 grep -q "^$2" "$work/$1.log" || not_ok "the guest comes to '$2'" "$(tail -n 5 "$work/$1.log" "$work/$1.out")"; }
says mv0 up
does 'a disk comes' disk add mv0 "$work/image,id=hot"
does 'and a card' net add mv0 tap=tap0,id=card
says mv0 wrote
what='a guest moves with them'
move mv0 mv1 --disk "hot=$work/image" --net card=tap=tap1
says mv1 wrote
ok 'it writes to the disk there'
does 'which it lets go' disk remove mv1 hot
says mv1 left
does 'as it does the card' net remove mv1 card
says mv1 cardless
says mv1 '@@ exit'
is 'nothing was wrong' "$(complaints "$work/mv1.log")" ''
