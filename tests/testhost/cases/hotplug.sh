#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2016 # what is in single quotes runs in the guest
# Disks and network cards come, go and change under the drivers of Linux, while another disk is written and verified.
# prepare: tests/guest/kernel debian-elf && tests/guest/initramfs debian-elf && tests/guest/tools fio iperf3
# timeout: 400

# shellcheck source=tests/testhost/lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
tools=$("$tree/tests/guest/tools" fio iperf3)
truncate -s 32M "$work/busy" "$work/hot" "$work/image"
: >"$work/empty"
ip tuntap add tap0 mode tap && ip addr add 10.99.0.1/24 dev tap0 && ip link set tap0 up
iperf3 -s >/dev/null 2>&1 &

# What the guest does is longer than a command line: it is on a disk of its own, vdc. vda is busy, vdb has the tools, those that
# come are vdd.
cat >"$work/script" <<'END'
fio="fio --ioengine=libaio --direct=1 --rw=randrw --bsrange=4k-64k --iodepth=8 --verify=crc32c --verify_fatal=1 --output-format=terse"
wait_for() { until eval "$1"; do sleep 0.2; done; echo $2; }
$fio --name=busy --filename=/dev/vda --size=16M --loops=500 >/dev/null 2>&1 & load=$!
echo ready
wait_for '[ -b /dev/vdd ]' came
$fio --name=hot --filename=/dev/vdd --size=8M >/dev/null && echo verified
yes data | head -c 4194304 | dd of=/dev/vdd bs=64k iflag=fullblock oflag=direct 2>/dev/null; echo written
wait_for '[ ! -b /dev/vdd ]' left
wait_for '[ -b /dev/vdd ]' placeholder
wait_for '[ $(cat /sys/block/vdd/size) = 65536 ]' grown
head -c 5 /dev/vdd | grep -q image && echo image
wait_for '[ ! -b /dev/vdd ]' gone
wait_for 'load-modules; [ -e /sys/class/net/eth0 ]' card
ip addr add 10.99.0.2/24 dev eth0; ip link set eth0 up
iperf3 -c 10.99.0.1 -t 2 -f m | grep receiver
wait_for 'grep -q 0 /sys/class/net/eth0/carrier' unplugged
wait_for 'grep -q 1 /sys/class/net/eth0/carrier' plugged
iperf3 -c 10.99.0.1 -t 1 -f m | grep receiver
wait_for '[ ! -e /sys/class/net/eth0 ]' cardless
kill -0 $load && echo busy still
kill $load; wait
echo over
END
truncate -s 8K "$work/script"
guest "tr -d '\\0' </dev/vdc >/tmp/script; sh /tmp/script" --name hp --memory 256M --disk "$work/busy" --disk "$tools,readonly=on" \
	--disk "$work/script,readonly=on" >"$work/out" 2>&1 &
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
comes over
has 'the busy disk has noticed nothing' "$work/out" '^busy still'
wait "$pid"
is 'the guest powers off' $? 0
complaints "$work/out" >"$work/complaints"
sed 's/^/    /' "$work/complaints"
tail -n 40 "$work/out" | sed 's/^/    /'
