#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2016 # what is in single quotes runs in the guest
# A Debian guest moves with a mediated device on board, mtty, while it sends itself lines through the loop inside the
# device: all come back, each once and in order, over several moves, two snapshots and a restore, by both backends.
# host: --memory 3G --device mtty
# prepare: tests/guest/kernel 7.2-elf && tests/guest/initramfs 7.2-elf
# timeout: 400

# shellcheck source=tests/testhost/lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
# shellcheck source=tests/testhost/vfio.sh
. "$tree/tests/testhost/vfio.sh"
export XDG_RUNTIME_DIR=$work/run
mkdir -m 700 "$XDG_RUNTIME_DIR"
kernel=$(guest_file kernel 7.2-elf) initrd=$(guest_file initramfs 7.2-elf)
hops=$(turns 4)
lines=$((25 * hops + 150))
ttys=(83b8f4f2-509f-382f-3c1e-e6bfe0fa1001 83b8f4f2-509f-382f-3c1e-e6bfe0fa1002)
for uuid in "${ttys[@]}"; do
	echo "$uuid" >/sys/devices/virtual/mtty/mtty/mdev_supported_types/mtty-2/create
done

work_of_guest='port=$(grep -l 4348 /sys/bus/pci/devices/*/vendor); t=/dev/$(basename $(find ${port%vendor} -name ttyS[0-9]* | tail -1));
stty -F $t 115200 raw -echo; exec 3<>$t; cat <&3 >/dev/shm/got & n=0;
while [ $n -lt '$lines' ]; do n=$((n + 1)); echo line$n >&3; echo sent $n; sleep 0.05; done; sleep 1;
seq '$lines' | sed s/^/line/ >/dev/shm/want; cmp /dev/shm/got /dev/shm/want && echo all came back;
grep ttyS /proc/interrupts; dmesg | tail -n 5'

sends() { [ "$(grep -c '^sent' "$work/$1.log")" -ge 8 ]; }

# hop N: from h$((N - 1)) to h$N, and to the other device
hop()
{
	what=$backend
	move "h$(($1 - 1))" "h$1" --vfio "tty=${ttys[$1 % 2]},backend=$backend"
	until_true 30 sends "h$1"
	is "$backend: sends there" $? 0
}

dmesg -C
for backend in iommufd legacy; do
	before=$(pinned)
	: >"$work/h0.log"
	"$mvmm" run --kernel "$kernel" --initrd "$initrd" --memory 256M --name h0 --serial "file=$work/h0.log" \
		--vfio "${ttys[0]},id=tty,backend=$backend" \
		--cmdline "$guest_words mvmm.run=\"${work_of_guest//[$'\n\t']/ }\"" >"$work/h0.out" 2>&1 </dev/null &
	until_true 60 sends h0
	is "$backend: sends" $? 0
	for i in $(seq $hops); do
		hop "$i"
	done
	# A snapshot while the device works, after which both go on; and one that ends the machine, and is the next hop.
	"$mvmm" snapshot "h$hops" --to "$work/kept" --live --downtime $((300 * patience))ms >"$work/kept.out" 2>&1
	is "$backend: a live snapshot" $? 0
	grep -q device/tty "$work/kept/state"
	is "$backend: with the state of the device" $? 0
	"$mvmm" snapshot "h$hops" --to "$work/last" --stop >"$work/last.out" 2>&1
	is "$backend: a snapshot that ends the machine" $? 0
	cat "$work/kept.out" "$work/last.out"
	"$mvmm" restore --from "$work/last" --name again --serial "file=$work/h-again.log" \
		--vfio "tty=${ttys[(hops + 1) % 2]},backend=$backend" >"$work/again.out" 2>&1 </dev/null &
	until_true 90 grep -q '@@ exit' "$work/h-again.log" || cat "$work/again.out"
	has "$backend: the restored machine goes on sending" "$work/h-again.log" "^sent"
	cat "$work"/h*.log >"$work/all"
	has "$backend: all lines came back, each once" "$work/all" '^all came back'
	is "$backend: the guest's kernel has no complaint" "$(complaints "$work/all" 'nobody cared')" ''
	wait
	rm -rf "$work"/h* "$work/kept" "$work/last"
	is "$backend: nothing stays pinned" "$(pinned)" "$before"
done
kernel_is_quiet "the kernel has no complaint"
