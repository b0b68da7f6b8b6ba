#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Limits under the drivers of Linux: a disk and both directions of a network card keep their rate over ten seconds, and a
# limited disk delays no other one.
# prepare: tests/guest/kernel debian-elf && tests/guest/initramfs debian-elf && tests/guest/tools fio iperf3
# timeout: 300

# shellcheck source=tests/testhost/lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
tools=$("$tree/tests/guest/tools" fio iperf3)
truncate -s 64M "$work/slow" "$work/fast"
ip tuntap add tap0 mode tap && ip addr add 10.99.0.1/24 dev tap0 && ip link set tap0 up
iperf3 -s >/dev/null 2>&1 &

# count METRIC: of the machine, with its labels
count() { "$mvmm" metrics limited | awk -v name="$1" 'index($0, name) == 1 { sum += $NF } END { print sum + 0 }'; }

# begin METRIC...: what is measured from now on
begin()
{
	metrics=("$@") since=() first=()
	for metric; do
		since+=("$EPOCHREALTIME")
		first+=("$(count "$metric")")
	done
}

# kept WHAT N RATE: the metric number N has grown by so much a second, within 5 %
kept()
{
	local now=$EPOCHREALTIME last rate
	last=$(count "${metrics[$2]}")
	rate=$(((last - first[$2]) * 1000000 / (${now/./} - ${since[$2]/./})))
	echo "    $1: $rate a second"
	is "$1" "$((rate >= $3 * 95 / 100 && rate <= $3 * 105 / 100))" 1
}

# works NAME: the guest has come so far
works() { until_true 60 grep -q "^$1" "$work/out"; }

fio='fio --ioengine=libaio --direct=1 --iodepth=8 --rw=randread --bs=4k --time_based --norandommap --randrepeat=0'
guest_net=10.99.0.2/24 guest "$fio --name=slow --filename=/dev/vda --runtime=19 >/dev/null &
	sleep 1; $fio --name=fast --filename=/dev/vdb --runtime=3 --output-format=terse | cut -d';' -f8 | sed 's/^/beside /';
	echo slow; iperf3 -c 10.99.0.1 -t 14 >/dev/null; wait; echo receiving; iperf3 -c 10.99.0.1 -t 13 -R >/dev/null; echo over" \
	--name limited --memory 256M --disk "$work/slow,bandwidth=400K" --disk "$work/fast" --disk "$tools,readonly=on" \
	--net tap=tap0,tx-bandwidth=500K,rx-bandwidth=300K >"$work/out" 2>&1 &
pid=$!
works slow
pause 2
begin 'mvmm_disk_bytes_total{device="disk0",kind="read"}' 'mvmm_net_bytes_total{device="net0",direction="tx"}'
pause 10
kept 'a disk keeps its bandwidth' 0 $((400 * 1024))
kept 'a card keeps that of what it sends' 1 $((500 * 1024))
works receiving
pause 2
begin 'mvmm_net_bytes_total{device="net0",direction="rx"}'
pause 10
kept 'a card keeps that of what it receives' 0 $((300 * 1024))
wait "$pid"
is 'the guest powers off' $? 0
# The limited one does 100 requests a second.
beside=$(sed -n 's/^beside //p' "$work/out")
is 'a limited disk delays no other one' "$((${beside:-0} >= 500))" 1
sed 's/^/    /' "$work/out"
