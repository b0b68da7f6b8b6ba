#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# virtio-net between a guest and its host: a tap by our own threads and by vhost-net, several queues, passt without any
# right, and what is said and left behind when it cannot be.
# prepare: tests/guest/kernel debian-elf && tests/guest/initramfs debian-elf && tests/guest/tools iperf3 socat
# timeout: 400

# shellcheck source=tests/testhost/lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
tools=$("$tree/tests/guest/tools" iperf3 socat)

ip tuntap add tap0 mode tap && ip addr add 10.99.0.1/24 dev tap0 && ip link set tap0 up
ip tuntap add tapm mode tap multi_queue && ip addr add 10.98.0.1/24 dev tapm && ip link set tapm up
found=$(cat /sys/class/net/tap0/tun_flags)
iperf3 -s >/dev/null &
head -c 4000000 /dev/urandom >"$work/data"
sum=$(sha256sum <"$work/data")
# Whoever connects to 5000 gets the data, and at 5001 the checksum of what he sends.
socat -U TCP-LISTEN:5000,fork,reuseaddr OPEN:"$work/data" &
socat -t 30 TCP-LISTEN:5001,fork,reuseaddr EXEC:sha256sum &

# transfers NAME ADDRESS OPTION...: four megabytes each way compared by checksum, then as fast as it goes
transfers()
{
	local name=$1 host=$2
	shift 2
	guest_net=${host%.*}.2/24 guest "socat -u TCP:$host:5000 OPEN:/tmp/data,creat; sha256sum </tmp/data;
		socat -t 30 - TCP:$host:5001 </tmp/data; iperf3 -c $host -t 1 -f m | grep receiver;
		iperf3 -c $host -t 1 -f m -R | grep receiver; cat /sys/class/net/eth0/mtu" \
		--memory 256M --disk "$tools,readonly=on" "$@" >"$work/out" 2>&1
	is "$name: the guest powers off" $? 0
	is "$name: both ways unharmed" "$(grep -c "^$sum" "$work/out")" 2
	is "$name: iperf3 both ways" "$(grep -c 'Mbits/sec.*receiver' "$work/out")" 2
	sed "s/^/    /" "$work/out"
}

transfers tap 10.99.0.1 --net tap=tap0
transfers vhost 10.99.0.1 --net tap=tap0,vhost=on
transfers 'two queues' 10.98.0.1 --cpus 2 --net tap=tapm,queues=2
transfers 'two queues by vhost' 10.98.0.1 --cpus 2 --net tap=tapm,queues=2,vhost=on
is 'the tap is left as it was found' "$(cat /sys/class/net/tap0/tun_flags)" "$found"

guest "ls -d /sys/class/net/eth0/queues/rx-* | wc -l" --cpus 2 --memory 256M --net tap=tapm,queues=2 >"$work/out" 2>&1
has 'a guest with two CPUs uses two queues' "$work/out" '^2$'

# passt serves the address that the host has; the gateway's address leads to the host's own ports.
ip route add default via 10.99.0.9 dev tap0
socat -u TCP-LISTEN:5002 OPEN:"$work/back",creat &
guest_net=dhcp guest "socat -u TCP:10.99.0.9:5000 OPEN:/tmp/data,creat; sha256sum </tmp/data;
	socat -t 20 - TCP:10.99.0.9:5002 </tmp/data" --memory 256M --disk "$tools,readonly=on" --net passt >"$work/out" 2>&1
is 'passt: the guest powers off' $? 0
has 'passt: unharmed into the guest' "$work/out" "^$sum"
is 'passt: unharmed out of it' "$(sha256sum <"$work/back")" "$sum"
is 'passt: none is left' "$(pgrep -c passt)" 0
sed "s/^/    /" "$work/out"

: >"$work/out"
(until_true 30 grep -q waiting "$work/out" && pkill -KILL passt) &
guest "ip link set eth0 up; echo waiting; until grep -q 0 /sys/class/net/eth0/carrier; do sleep 0.1; done; echo lost" \
	--memory 256M --net passt >"$work/out" 2>&1
is 'without its passt a guest goes on' $? 0
has 'it sees that the link is down' "$work/out" '^lost'
has 'so does the user' "$work/out" 'its network has ended'

# refused WHAT NET TEXT
refused()
{
	guest true --net "$2" >"$work/out" 2>&1
	is "$1: exit status" $? 2
	is "$1: one line" "$(wc -l <"$work/out")" 1
	has "$1: it says so" "$work/out" "$3"
}

refused 'no such tap' tap=nosuch 'tap=nosuch: there is no such interface; create it with: ip tuntap add dev nosuch'
refused 'no tap' tap=lo 'tap=lo: this interface is not a tap'
refused 'a tap of one queue' tap=tap0,queues=2 'tap=tap0,queues=2: it has a single queue'
refused 'nobody listens' passt=/nosuch 'passt=/nosuch: nobody listens there'
