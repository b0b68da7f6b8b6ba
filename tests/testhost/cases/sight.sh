#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What a Linux guest does with its disk, its network and a host device, as its machine has counted it, and as its events tell it.
# host: --device nvme --memory 3G
# prepare: tests/guest/kernel 7.2-elf && tests/guest/initramfs 7.2-elf
# timeout: 240

# shellcheck source=tests/testhost/lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
# shellcheck source=tests/testhost/vfio.sh
. "$tree/tests/testhost/vfio.sh"
guest_kernel=7.2-elf guest_timeout=150
nvme=$(function_of 1b36:0010)

ip tuntap add tap0 mode tap && ip addr add 10.99.0.1/24 dev tap0 && ip link set tap0 up
dd if=/dev/urandom of="$work/disk" bs=1M count=16 2>/dev/null
give "$nvme"

# metric LINE: its value; 0 if there is none
metric()
{
	local value
	value=$("$mvmm" metrics web | sed -n "s/^$1 //p")
	echo "${value:-0}"
}
# counts WHAT LINE LEAST
counts()
{
	local value
	value=$(metric "$2")
	if [ "$value" -ge "$3" ]; then ok "$1"; else not_ok "$1" "$2 is $value, not $3 or more"; fi
}

"$mvmm" events >"$work/events" 2>"$work/events.err" &
events=$!
guest_net=10.99.0.2/24 guest 'dd if=/dev/vda of=/dev/null bs=4k count=500 iflag=direct 2>/dev/null; ping -c 3 -s 1000 10.99.0.1;
	dd if=/dev/zero of=/dev/vda bs=64k count=16 conv=fsync 2>/dev/null; echo ready;
	while [ ! -e /dev/nvme0n1 ]; do sleep 0.2; done; dd if=/dev/nvme0n1 of=/dev/null bs=4k count=200 iflag=direct 2>/dev/null; echo nvme;
	while [ -e /dev/nvme0n1 ]; do sleep 0.2; done; echo left; sleep 100' \
	--name web --memory 256M --cpus 2 --disk "$work/disk,direct=on" --net tap=tap0 --balloon on --log "$work/log,level=debug" \
	--metrics "$work/metrics,every=500ms" >"$work/out" 2>"$work/err" &
until_true 60 grep -q '^ready' "$work/out"
counts 'its reads' 'mvmm_disk_requests_total{device="disk0",kind="read"}' 500
counts 'their bytes' 'mvmm_disk_bytes_total{device="disk0",kind="read"}' 2048000
counts 'what it wrote' 'mvmm_disk_bytes_total{device="disk0",kind="write"}' 1048576
counts 'a flush' 'mvmm_disk_requests_total{device="disk0",kind="flush"}' 1
is 'none that failed' "$(metric 'mvmm_disk_failed_requests_total{device="disk0",kind="read"}')" 0
counts 'interrupts of the disk' 'mvmm_queue_interrupts_total{device="disk0",kind="disk"}' 100
counts 'packets that it sent' 'mvmm_net_packets_total{device="net0",direction="tx"}' 3
counts 'and got, with their bytes' 'mvmm_net_bytes_total{device="net0",direction="rx"}' 3000
counts 'exits of the first CPU' 'mvmm_vcpu_exits_total{vcpu="0",reason="io"}' 100
counts 'of which KVM has counted all' mvmm_kvm_vcpu_exits_total 1000
counts 'the memory of the process' 'mvmm_process_memory_bytes{kind="private"}' 20000000
has 'the guest tells the balloon what it has free' <("$mvmm" metrics web) '^mvmm_guest_free_bytes [1-9]'

"$mvmm" vfio add web "$nvme,id=nvme" >/dev/null 2>"$work/add" || not_ok 'an NVMe is added' "$(cat "$work/add")"
until_true 30 grep -q '^nvme' "$work/out"
counts 'interrupts of a host device have vectors' "mvmm_vfio_vectors{device=\"nvme\",host=\"$nvme\"}" 1
is 'which works' "$(metric "mvmm_vfio_fenced{device=\"nvme\",host=\"$nvme\"}")" 0
"$mvmm" vfio remove web nvme >/dev/null 2>"$work/remove" || not_ok 'the NVMe is removed' "$(cat "$work/remove")"
until_true 30 grep -q '^left' "$work/out"
"$mvmm" pause web
"$mvmm" resume web
"$mvmm" stop --force web
wait %2
until_true 10 grep -q ' web ended, reason stopped' "$work/events"
for event in 'state, state running' 'device-added, id nvme' 'device-removed, id nvme' paused resumed 'ended, reason stopped'; do
	has "told: $event" "$work/events" " web $event\$"
done
kill "$events"
wait "$events"
is 'a signal ends mvmm events' $? 0
has 'the metrics are in a file' "$work/metrics" '^\{"name":"web".*"time":"20.*Z"\}$'
is 'the last line has the end' "$(tail -n 1 "$work/metrics" | grep -c '"event":"ended"')" 1
has 'the log has the machine and the thread' "$work/log" '^20[0-9TZ.:-]+ web\[[a-z0-9.-]+\] '
cat "$work/events" "$work/log" | sed 's/^/    /'
give_back "$nvme"
