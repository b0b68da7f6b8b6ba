#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# An NVMe disk passed through, by both backends: what the guest writes the host reads, RAM on both sides of the hole,
# plugged in and out under load, also by force, and into a clone of a machine without it, taken back by the host, twenty times from
# start to end.
# host: --device nvme --memory 8G
# prepare: for k in 7.2 7.2-elf; do tests/guest/initramfs $k; done
# timeout: 600

# shellcheck source=tests/testhost/lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
# shellcheck source=tests/testhost/vfio.sh
. "$tree/tests/testhost/vfio.sh"
guest_kernel=7.2-elf guest_timeout=150
nvme=$(function_of 1b36:0010)
dmesg -C

# A block that differs from run to run, at three places of the disk.
stamp()
{
	local place
	for place in 0 77777 131071; do
		echo "echo $1-$place | dd of=/dev/nvme0n1 bs=512 seek=$place conv=sync,fsync 2>/dev/null;"
	done
}

host_reads()
{
	local place got=''
	for place in 0 77777 131071; do
		got+=$(dd if=/dev/nvme0n1 bs=512 skip=$place count=1 iflag=direct 2>/dev/null | tr -d '\0')' '
	done
	echo "$got"
}

dd if=/dev/urandom of=/dev/nvme0n1 bs=1M count=70 oflag=direct 2>/dev/null || not_ok "the disk has content"
for backend in iommufd legacy; do
	before=$(pinned)
	give "$nvme"
	guest "$(stamp "$backend") grep -c nvme0q /proc/interrupts; ls /dev/nvme0n1" \
		--memory 256M --vfio "$nvme,backend=$backend" >"$work/out" 2>"$work/err"
	has "$backend: the guest's driver finds the disk" "$work/out" '^/dev/nvme0n1'
	has "$backend: it has MSI-X vectors" "$work/out" '^[2-9]'
	# The kernel takes memory above the hole first.
	guest 'dd if=/dev/nvme0n1 bs=1M count=32 2>/dev/null | crc32' --memory 5G \
		--vfio "$nvme,backend=$backend" >"$work/out" 2>"$work/err"
	cat "$work/err"
	# More than the guest's memory, so that it reads into every page, also where its kernel's bzImage lay.
	for shared in off on; do
		guest_kernel=7.2 guest 'dd if=/dev/nvme0n1 bs=1M count=70 2>/dev/null | crc32' --memory "64M,shared=$shared" \
			--vfio "$nvme,backend=$backend" >"$work/all-$shared" 2>&1
	done
	give_back "$nvme"
	until_true 10 test -b /dev/nvme0n1
	is "$backend: the host reads what the guest wrote" "$(host_reads)" "$backend-0 $backend-77777 $backend-131071 "
	sum=$(dd if=/dev/nvme0n1 bs=1M count=32 2>/dev/null | busybox crc32)
	has "$backend: 5 GiB: DMA above the hole is right" "$work/out" "^$sum\$"
	sum=$(dd if=/dev/nvme0n1 bs=1M count=70 2>/dev/null | busybox crc32)
	has "$backend: DMA is right all over private memory" "$work/all-off" "^$sum\$"
	has "$backend: and all over shared memory" "$work/all-on" "^$sum\$"
	is "$backend: nothing stays pinned" "$(pinned)" "$before"
done
kernel_is_quiet "the kernel has no complaint"

# Descriptors handed in by somebody with more rights: whoever runs the machine may not open VFIO's files himself, and perhaps not
# even enter the folder of this checkout.
give "$nvme"
chmod 666 /dev/kvm
mkdir -m 700 "$work/nobody"
chown 65534 "$work/nobody"
chmod 755 "$work"
cp "$mvmm" "$tree/build-release/tests/guests/guest_pci" "$work/"
cdev=/dev/vfio/devices/$(ls "/sys/bus/pci/devices/$nvme/vfio-dev")
(
	ulimit -l unlimited
	exec 10<>"$cdev" 11<>/dev/iommu
	setpriv --reuid=65534 --regid=65534 --clear-groups env XDG_RUNTIME_DIR="$work/nobody" "$work/mvmm" run \
		--kernel "$work/guest_pci" --memory 64M --vfio fd=10 --iommufd fd=11
) </dev/null >"$work/out" 2>"$work/err"
has "descriptors handed in: the device is there without a right to open it" "$work/out" '1b36:0010'
cat "$work/err"
give_back "$nvme"

# own NAME PID: MiB of the machine's memory, mapped from the snapshot $work/NAME, that are its own
own() { awk -v file="$1/memory" '/^[0-9a-f]+-/ {on = index($0, file)} on && /^Private_Dirty/ {n += $2} END {print int(n / 1024)}' "/proc/$2/smaps"; }

# warm: the machine plug, which waits for a disk, becomes a snapshot; clone: a clone of it gets one
clone()
{
	"$mvmm" restore --from "$work/warm" --name clone --serial "file=$work/clone" --vfio "$nvme,backend=$backend,id=disk" \
		</dev/null >"$work/clone.out" 2>&1 &
	until_true 60 grep -q '^wrote' "$work/clone"
	has "$backend: a clone gets a disk" "$work/clone.out" "--vfio $nvme.*was plugged in; its id is disk"
	has "$backend: DMA into its memory is right" "$work/clone" "^sum $sum"
	has "$backend: and out of it" "$work/clone" '^wrote by this guest'
	is "$backend: all of its memory is its own" "$(own warm $!)" 256
	"$mvmm" vfio remove clone disk >"$work/remove" 2>&1
	is "$backend: the clone lets it go" "$?" 0
	until_true 30 grep -q '^left' "$work/clone"
	"$mvmm" stop --force clone
	wait $!
	rm "$work/clone"
}

# The same by mvmm clone, which has no terminal and hands --vfio on.
cloned()
{
	"$mvmm" clone "$work/warm" --count 1 --name 'cloned{n}' --serial "file=$work/cloned{n}" \
		--vfio "$nvme,backend=$backend,id=disk" >"$work/cloned.out" 2>&1
	is "$backend: mvmm clone makes a clone with a disk" "$?" 0
	until_true 60 grep -q '^wrote' "$work/cloned1"
	has "$backend: DMA into its memory is right, too" "$work/cloned1" "^sum $sum"
	"$mvmm" vfio remove cloned1 disk >"$work/remove" 2>&1
	is "$backend: which lets it go" "$?" 0
	"$mvmm" stop --force cloned1
	cat "$work/cloned.out"
	rm "$work/cloned1"
}

# A machine that lives on while devices come and go. The guest reads as long as there is something to read.
until_true 10 test -b /dev/nvme0n1
sum=$(dd if=/dev/nvme0n1 bs=1M count=32 2>/dev/null | busybox crc32)
give "$nvme"
for backend in iommufd legacy; do
	guest 'echo up; while [ ! -e /dev/nvme0n1 ]; do sleep 0.2; done; echo came; echo sum $(dd if=/dev/nvme0n1 bs=1M count=32 | crc32);
		echo by this guest | dd of=/dev/nvme0n1 bs=512 seek=80000 conv=sync,fsync; echo 3 >/proc/sys/vm/drop_caches;
		echo wrote $(dd if=/dev/nvme0n1 bs=512 skip=80000 count=1); dd if=/dev/nvme0n1 of=/dev/null bs=4k;
		while [ -e /dev/nvme0n1 ]; do sleep 0.2; done; echo left; while [ ! -e /dev/nvme0n1 ]; do sleep 0.2; done;
		echo again; dd if=/dev/nvme0n1 of=/dev/null bs=4k count=1000 2>/dev/null && echo works;
		dd if=/dev/nvme0n1 of=/dev/null bs=4k 2>/dev/null & while [ -e /dev/nvme0n1 ]; do sleep 0.2; done; echo pulled; wait;
		while [ ! -e /dev/nvme0n1 ]; do sleep 0.2; done; dd if=/dev/nvme0n1 of=/dev/null bs=4k count=1000 2>/dev/null && echo back;
		sleep 100' --memory 256M --name plug >"$work/out" 2>"$work/err" &
	until_true 60 grep -q '^up' "$work/out"
	[ -d "$work/warm" ] || "$mvmm" snapshot plug --to "$work/warm" >/dev/null || not_ok "a snapshot of a machine without the disk"
	clone
	cloned
	"$mvmm" vfio add plug "$nvme,backend=$backend,id=disk" >/dev/null || not_ok "$backend: add"
	until_true 30 grep -q came "$work/out"
	has "$backend: the guest finds a disk that is plugged in" "$work/out" came
	sleep 1
	"$mvmm" vfio remove plug disk >"$work/remove" 2>&1
	is "$backend: it lets it go under load" "$?" 0
	until_true 30 grep -q left "$work/out"
	"$mvmm" vfio add plug "$nvme,backend=$backend" >"$work/add" 2>&1
	has "$backend: an id is made up" "$work/add" 'vfio0'
	until_true 30 grep -q works "$work/out"
	has "$backend: it works again" "$work/out" works
	"$mvmm" vfio remove plug vfio0 --force >"$work/remove" 2>&1
	is "$backend: it is pulled out under load" "$?" 0
	until_true 30 grep -q pulled "$work/out"
	has "$backend: the guest, which is told, lets go of it" "$work/out" pulled
	"$mvmm" vfio add plug "$nvme,backend=$backend" >"$work/add" 2>&1
	is "$backend: it comes back" "$?" 0
	until_true 30 grep -q back "$work/out"
	has "$backend: and works" "$work/out" back
	# The host wants its device back while the guest has it: the guest is asked, and the unbind waits for that.
	timeout $((40 * patience)) "$mvmm" vfio unbind "$nvme" >"$work/unbind" 2>&1
	is "$backend: the host gets back what the guest has" "$?" 0
	has "$backend: the machine says so" "$work/err" 'host wants it back'
	has "$backend: the machine goes on" <("$mvmm" info plug) running
	"$mvmm" stop --force plug
	wait
	give "$nvme"
done
kernel_is_quiet "the kernel has no complaint about comings and goings"

before=$(pinned)
for i in $(seq "$(turns 20)"); do
	"$mvmm" run --kernel "$tree/build-release/tests/guests/guest_hello" --memory 64M --vfio "$nvme" \
		</dev/null >"$work/out" 2>"$work/err" || not_ok "cycle $i" "$(cat "$work/err")"
done
is "many starts leave nothing pinned" "$(pinned)" "$before"
is "and the last guest ran" "$(tr -d '\r' <"$work/out")" hello
"$mvmm" run --kernel "$tree/build-release/tests/guests/guest_button" --memory 64M --name holder --vfio "$nvme" \
	</dev/null >"$work/out" 2>&1 &
until_true 20 grep -q waiting "$work/out"
"$mvmm" run --kernel "$tree/build-release/tests/guests/guest_hello" --memory 64M --vfio "$nvme" </dev/null >"$work/out" 2>"$work/err"
is "a device in use is refused" "$?" 2
has "with the file and what tells more" "$work/err" 'has it open.*/dev/vfio'
"$mvmm" stop --force holder
wait
give_back "$nvme"
"$mvmm" run --kernel "$tree/build-release/tests/guests/guest_hello" --memory 64M --vfio "$nvme" </dev/null >"$work/out" 2>"$work/err"
is "one that is not bound is refused" "$?" 2
has "with the command that binds it" "$work/err" "mvmm vfio bind $nvme"
