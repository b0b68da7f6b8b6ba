#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2016 # what is in single quotes runs in the guest
# Linux on virtio-mmio: kernels with PCI and ACPI, without the one and without the other, told to use neither, one of them, or both.
# Each finds its processors, writes to its disk and reads it back, reaches its host, and ends by the keyboard controller. Ctrl, Alt
# and Del reboot one. One goes from process to process and from a snapshot to the next process while it works.
# prepare: for k in 6.12-elf nopci-elf noacpi-elf; do tests/guest/kernel $k && tests/guest/initramfs $k; done
# timeout: 1200

# shellcheck source=tests/testhost/lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
export XDG_RUNTIME_DIR=$work/run
mkdir -m 700 "$XDG_RUNTIME_DIR"
ip link add br0 type bridge && ip addr add 10.99.0.1/24 dev br0 && ip link set br0 up
for i in 0 1; do
	ip tuntap add "tap$i" mode tap && ip link set "tap$i" master br0 up
done
truncate -s 16M "$work/disk"
many=() # more than there are lines
for i in {1..10}; do
	truncate -s 1M "$work/disk$i"
	many+=(--disk "$work/disk$i,readonly=on")
done

# What a guest does: a megabyte to the disk and back past the page cache, and its host.
tries='echo cpus=$(nproc) clock=$(cat /sys/devices/system/clocksource/clocksource0/current_clocksource);
ls -l /sys/bus/virtio/devices | grep -o devices/.*;
dd if=/dev/urandom of=/tmp/some bs=64k count=16 2>/dev/null; cat /tmp/some >/dev/vda; sync; echo 3 >/proc/sys/vm/drop_caches;
dd if=/dev/vda bs=64k count=16 2>/dev/null | cmp - /tmp/some && echo same; ping -c 2 10.99.0.1 >/dev/null && echo reached;
n=0; for d in /dev/vd?; do dd if=$d of=/dev/null bs=64k 2>/dev/null && n=$((n + 1)); done; echo disks=$n; complaints; echo @@ tried; reboot -f; sleep 60'

# boots KERNEL WORDS PLACE [OPTION...]: the devices are at PLACE of the guest's sysfs; $guest_transport, $guest_card
boots()
{
	local what="$1, '$2', ${guest_transport:-mmio}"
	[ $# = 3 ] || what+=', many disks'
	guest_kernel=$1-elf guest_timeout=90 guest_net=10.99.0.2/24 guest_args="reboot=k tsc=nowatchdog $2" guest "$tries" \
		--transport "${guest_transport:-mmio}" --cpus 2 --memory 256M --on-reboot exit --disk "$work/disk" --net "${guest_card:-tap=tap0}" "${@:4}" >"$work/out" 2>&1
	is "$what: ends" $? 0
	has "$what: has tried it all" "$work/out" '^@@ tried'
	has "$what: finds its processors" "$work/out" '^cpus=2 '
	has "$what: finds its devices" "$work/out" "^devices/$3"
	has "$what: its disk gives back what it got" "$work/out" '^same'
	has "$what: reaches its host" "$work/out" '^reached'
	has "$what: reads all of its disks" "$work/out" "^disks=$(($(grep -o -- --disk <<<"$*" | wc -l) + 1))\$"
	# The test host is too slow to measure the counter's frequency by.
	is "$what: has no complaint" "$(complaints "$work/out" | grep -v 'could not calculate TSC khz')" ''
	grep -v '^ok' "$work/out" | tail -n 4 | sed 's/^/    /'
}

boots 6.12 '' platform/LNRO0005:00 "${many[@]}"
guest_card=tap=tap0,vhost=on boots 6.12 pci=off platform/LNRO0005:00
# This kernel's ACPI does not come up, for it lacks the handler of PCI's config space; it has the MADT, and the command line.
boots nopci '' virtio-mmio-cmdline/virtio-mmio.0 "${many[@]}"
boots nopci acpi=off virtio-mmio-cmdline/virtio-mmio.0
boots nopci 'pci=off acpi=off' virtio-mmio-cmdline/virtio-mmio.0
# This one knows no KVM, so it needs the PIT, which a machine on PCI has if the line says so, and would check whether its timer
# works for a time that assumes that no processor has more than 4 GHz; the test host's clock is slow, and the counter is not.
boots noacpi no_timer_check virtio-mmio-cmdline/virtio-mmio.0
is 'it does without kvmclock' "$(grep -c kvm-clock "$work/out")" 0
boots noacpi 'no_timer_check pci=off' virtio-mmio-cmdline/virtio-mmio.0
guest_transport=pci boots noacpi 'no_timer_check no-kvmclock' pci0000:00/0000:00:01.0

# ---- the keyboard ----

# boots_anew WORDS: a guest whose kernel gets these, too
boots_anew()
{
	dd if=/dev/zero of="$work/disk" bs=512 count=1 conv=notrunc 2>/dev/null
	guest_kernel=noacpi-elf guest_args="reboot=k no_timer_check $1" guest 'echo life $(head -c 1 /dev/vda | tr -dc 1);
		printf 1 | dd of=/dev/vda conv=notrunc 2>/dev/null; sync; echo listens; sleep 300' \
		--transport mmio --name keys --disk "$work/disk" --memory 128M >"$work/out" 2>&1 &
	pid=$!
	until_true 90 grep -q '^listens' "$work/out"
	"$mvmm" ctrl-alt-del keys
	until_true 90 grep -q '^life 1' "$work/out"
	is "'$1': Ctrl, Alt and Del reboot a guest" $? 0
	"$mvmm" stop --force keys
	wait $pid
}
boots_anew ''
boots_anew 'i8042.noaux i8042.nomux i8042.dumbkbd'

# ---- on the way ----

# It ends when the first bytes of its disk say so.
work_of_guest='n=0; end=; while [ x$end != xend ]; do n=$((n + 1));
	echo number$n | dd of=/dev/vda bs=512 seek=$n conv=sync,notrunc,fsync 2>/dev/null; echo 1 >/proc/sys/vm/drop_caches;
	dd if=/dev/vda bs=512 skip=$n count=1 2>/dev/null | grep -aq number$n || echo BAD disk;
	ping -c 1 -W 20 10.99.0.1 >/dev/null || echo BAD net; end=$(head -c 3 /dev/vda | tr -dc a-z); echo round $n; sleep 0.2; done;
complaints; echo @@ tried; reboot -f; sleep 60'
works() { [ "$(grep -ac '^round' "$work/$1.log")" -ge "${2:-3}" ]; }

what='nopci, acpi=off'
dd if=/dev/zero of="$work/disk" bs=1M count=1 conv=notrunc 2>/dev/null
"$mvmm" run --kernel "$(guest_file kernel nopci-elf)" --initrd "$(guest_file initramfs nopci-elf)" --transport mmio --cpus 2 \
	--memory 256M --disk "$work/disk,direct=on" --net tap=tap0 --name h0 --serial "file=$work/h0.log" --on-reboot exit --cpu host,-svm \
	--cmdline "$guest_words reboot=k tsc=nowatchdog acpi=off mvmm.net=10.99.0.2/24 mvmm.run=\"${work_of_guest//[$'\n\t']/ }\"" \
	>"$work/h0.out" 2>&1 </dev/null &
until_true 120 works h0
is "$what: works" $? 0
move h0 h1 --disk-dir "$work" --net net0=tap=tap1
until_true 60 works h1
is "$what: works there" $? 0
"$mvmm" snapshot h1 --to "$work/kept" --disks none --stop >"$work/snapshot.out" 2>&1
is "$what: is kept" $? 0
"$mvmm" restore --from "$work/kept" --name h2 --serial "file=$work/h2.log" >"$work/h2.out" 2>&1 </dev/null &
pid=$!
until_true 60 works h2
is "$what: works when it is back" $? 0
printf end | dd of="$work/disk" conv=notrunc 2>/dev/null
wait $pid
is "$what: ends by its keyboard controller" $? 0
cat "$work"/h?.log >"$work/all"
has "$what: has come to its end" "$work/all" '^@@ tried'
is "$what: nothing was bad" "$(grep -a ^BAD "$work/all")" ''
is "$what: has no complaint" "$(complaints "$work/all")" ''
tail -n 4 "$work"/h?.out | sed 's/^/    /'
