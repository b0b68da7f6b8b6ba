#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2016 # what is in single quotes runs in the guest
# Linux guests in a jail, of root and of an ordinary user: disk, tap, vsock, a move from jail to jail, a snapshot and its
# restore, an NVMe disk passed through; the limits of a control group.
# host: --device nvme --memory 4G
# prepare: tests/guest/kernel debian-elf && tests/guest/initramfs debian-elf && tests/guest/kernel 7.2-elf && tests/guest/initramfs 7.2-elf && tests/guest/tools socat
# timeout: 900

# shellcheck source=tests/testhost/lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
# shellcheck source=tests/testhost/vfio.sh
. "$tree/tests/testhost/vfio.sh"
tools=$("$tree/tests/guest/tools" socat)
nvme=$(function_of 1b36:0010)
nobody=65534
chmod 755 "$work"
chmod 666 /dev/kvm /dev/net/tun
modprobe -a tun 2>/dev/null
# what an ordinary user can read
cp "$mvmm" "$work/mvmm"
cp "$tools" "$work/tools"
for kind in kernel initramfs; do
	for version in debian-elf 7.2-elf; do
		cp "$(guest_file $kind $version)" "$work/guest-$kind-$version"
		echo "$work/guest-$kind-$version" >"$work/$kind-$version"
	done
done
chmod 644 "$work/tools" "$work"/guest-*

head -c 1000000 /dev/urandom >"$work/data"
sum=$(sha256sum <"$work/data")
ip tuntap add taproot mode tap && ip addr add 10.99.0.1/24 dev taproot && ip link set taproot up
ip tuntap add tapuser mode tap user $nobody && ip addr add 10.98.0.1/24 dev tapuser && ip link set tapuser up
socat -U TCP-LISTEN:5000,fork,reuseaddr OPEN:"$work/data" &

# turn USER: whose machines come now
turn()
{
	who=$1
	jail=$work/$who-jail
	mkdir "$jail"
	mkdir -m 700 "$work/$who"
	as=(env XDG_RUNTIME_DIR="$work/$who")
	# guest() of lib.sh starts what $mvmm names
	mvmm=$work/mvmm-$who
	if [ "$who" = root ]; then
		options=$jail,uid=$nobody,gid=$nobody
		host=10.99.0.1
	else
		chown "$nobody:$nobody" "$jail" "$work/$who"
		as+=(setpriv --reuid "$nobody" --regid "$nobody" --clear-groups)
		options=$jail
		host=10.98.0.1
	fi
	# Devices pin memory. Root may exceed the limit, and raises that of a machine that may not any more.
	printf '#!/bin/sh\nulimit -l %s\nexec %s %s "$@"\n' "$([ "$who" = root ] && echo 8192 || echo unlimited)" "${as[*]}" "$work/mvmm" \
		>"$mvmm"
	chmod 755 "$mvmm"
}

nothing_stays() { [ -z "$(find "$jail" "$work/$who/mvmm" -mindepth 1)" ]; }
# machine NAME: its process
machine() { cat "$work/$who/mvmm/$1/pid"; }
has_nothing()
{
	is "$who: $2: no capabilities, no new privileges" \
		"$(awk '/^(CapEff|CapBnd|NoNewPrivs)/ { print $2 }' "/proc/$1/status" | tr '\n' ' ')" '0000000000000000 0000000000000000 1 '
	is "$who: $2: its root" "$(cd "/proc/$1/root" && echo dev* proc*)" 'dev proc'
}

for turn in root user; do
	turn "$turn"
	mkdir -m 777 "$work/$who-sockets"
	printf before >"$work/$who-disk"
	truncate -s 1M "$work/$who-disk"
	chown "$nobody" "$work/$who-disk"

	guest_net=${host%.*}.2/24 guest "head -c 6 /dev/vda; echo; socat -u TCP:$host:5000 OPEN:/tmp/data,creat; sha256sum </tmp/data;
		printf after | dd of=/dev/vda conv=notrunc,fsync 2>/dev/null" --memory 256M --disk "$work/$who-disk" \
		--disk "$work/tools,readonly=on" --net tap="tap$who" --jail "$options,pid=on" >"$work/out" 2>&1
	is "$who: the guest powers off" $? 0
	has "$who: it reads its disk" "$work/out" '^before'
	is "$who: and has written it" "$(head -c 5 "$work/$who-disk")" after
	has "$who: its tap leads to the host" "$work/out" "^$sum"
	sed 's/^/    /' "$work/out"
	nothing_stays
	is "$who: nothing is left" $? 0

	guest 'i=0; while [ $i -lt 400 ]; do i=$((i + 1)); echo tick $i; sleep 0.2; done' --name one --memory 128M \
		--vsock "cid=7,socket=$work/$who-sockets/v" --jail "$options" --allow "$work/$who-sockets" >"$work/one.log" 2>&1 &
	until_true 60 grep -q 'tick 5' "$work/one.log"
	has_nothing "$(machine one)" 'a Linux guest'
	"$mvmm" snapshot one --to "$work/$who/snapshot" >"$work/out" 2>&1
	is "$who: a snapshot is taken" $? 0
	"$mvmm" receive --from "unix:$work/$who/move" --name two --serial "file=$work/$who/two.log" --vsock "$work/$who/v2" --jail "$options" \
		>"$work/two.out" 2>&1 </dev/null &
	target=$!
	until_true 20 test -S "$work/$who/move"
	"$mvmm" migrate one --to "unix:$work/$who/move" --downtime $((300 * patience))ms >"$work/out" 2>&1
	is "$who: the guest moves from jail to jail" $? 0
	until_true 30 grep -q tick "$work/$who/two.log"
	is "$who: and goes on" $? 0
	has_nothing "$(machine two)" 'after the move'
	"$mvmm" stop --force two
	wait "$target"
	"$mvmm" restore --from "$work/$who/snapshot" --name three --serial "file=$work/$who/three.log" --vsock "$work/$who/v3" \
		--jail "$options" >"$work/three.out" 2>&1 </dev/null &
	until_true 60 grep -q tick "$work/$who/three.log"
	is "$who: the snapshot is restored in a jail" $? 0
	has_nothing "$(machine three)" 'after the restore'
	"$mvmm" stop --force three
	wait $!
	nothing_stays
	is "$who: nothing is left after that" $? 0
done

# ---- a host device ----

# give_nodes: to the ordinary user, as the host's owner does it
give_nodes()
{
	mvmm=$work/mvmm give "$nvme"
	[ "$who" = root ] || chown $nobody /dev/iommu /dev/vfio/vfio "/dev/vfio/devices/$(ls "/sys/bus/pci/devices/$nvme/vfio-dev")" \
		"/dev/vfio/$(basename "$(readlink "/sys/bus/pci/devices/$nvme/iommu_group")")"
}

dd if=/dev/urandom of=/dev/nvme0n1 bs=1M count=4 oflag=direct 2>/dev/null
sum=$(dd if=/dev/nvme0n1 bs=1M count=4 iflag=direct 2>/dev/null | busybox crc32)
for turn in root-iommufd root-legacy user-iommufd user-legacy; do
	backend=${turn#*-}
	rm -rf "${work:?}/${turn%-*}" "${work:?}/${turn%-*}-jail"
	turn "${turn%-*}"
	give_nodes
	guest_kernel=7.2-elf guest_timeout=150 guest 'dd if=/dev/nvme0n1 bs=1M count=4 2>/dev/null | crc32' --memory 256M \
		--vfio "$nvme,backend=$backend" --jail "$options" >"$work/out" 2>&1
	is "$turn: a guest with a host device powers off" $? 0
	has "$turn: it reads the device" "$work/out" "^$sum"
	sed 's/^/    /' "$work/out"

	# A machine that could open no device is given one, twice: it does not come along into a reboot.
	guest_kernel=7.2-elf guest_timeout=150 guest 'echo up; while [ ! -e /dev/nvme0n1 ]; do sleep 0.2; done;
		echo $(dd if=/dev/nvme0n1 bs=1M count=4 2>/dev/null | crc32); sleep 1; reboot -f' --memory 256M --name plug --jail "$options" \
		>"$work/out" 2>"$work/err" &
	until_true 60 grep -q '^up' "$work/out"
	has_nothing "$(machine plug)" 'to be given a device'
	for life in 1 2; do
		"$mvmm" vfio add plug "$nvme,backend=$backend,id=disk" >"$work/add" 2>"$work/progress"
		is "$turn, life $life: a device is added to a machine in a jail" "$? $(cat "$work/add")" "0 $nvme,backend=$backend,id=disk was added; its id is disk"
		until_true 60 eval "[ \$(grep -c '^$sum' $work/out) = $life ]"
		is "$turn, life $life: the guest reads it" $? 0
		until_true 60 eval "[ \$(grep -c '^up' $work/out) = $((life + 1)) ]"
		is "$turn, life $life: it reboots" $? 0
		has "$turn, life $life: which is said of the device" "$work/err" "disk: does not come along.*mvmm vfio add plug $nvme adds it"
	done
	"$mvmm" stop --force plug
	wait $!
	cat "$work/err"
	mvmm=$work/mvmm give_back "$nvme"
	until_true 10 test -b /dev/nvme0n1
	nothing_stays
	is "$turn: nothing is left" $? 0
done
kernel_is_quiet 'the kernel has no complaint'
jail=$work/vfio-jail
mkdir "$jail"
mvmm=$work/mvmm

# ---- limits ----

mountpoint -q /sys/fs/cgroup || mount -t cgroup2 cgroup2 /sys/fs/cgroup
group=/sys/fs/cgroup/mvmm-test
guest 'while :; do :; done' --name busy --memory 128M --jail "$jail,uid=$nobody,gid=$nobody,cgroup=mvmm-test,cpu=20,memory=512M" \
	>"$work/out" 2>&1 &
until_true 30 grep -q populated.1 $group/cgroup.events
is 'the group has the limit of CPUs' "$(cat $group/cpu.max)" '20000 100000'
is 'and that of memory' "$(cat $group/memory.max)" $((512 << 20))
used() { awk '/^usage_usec/ { print $2 }' $group/cpu.stat; }
before=$(used) start=$(cut -d ' ' -f 1 /proc/uptime)
sleep 5
percent=$(awk -v from="$start" -v used=$(($(used) - before)) '{ printf "%d", used / 1e4 / ($1 - from) }' /proc/uptime)
is "a guest that wants more than a fifth of a CPU gets that ($percent %)" $((percent >= 15 && percent <= 25)) 1
"$mvmm" stop --force busy
wait $!
test ! -e $group
is 'the group is removed' $? 0

# A group that was there, with a limit of its owner's, which it gets back.
mkdir $group
echo '50000 100000' >$group/cpu.max
guest 'echo runs; sleep 100' --name mine --memory 128M --jail "$jail,uid=$nobody,gid=$nobody,cgroup=mvmm-test,cpu=20,memory=512M" >"$work/out" 2>&1 &
until_true 60 grep -q ^runs "$work/out"
is 'a group that was there has the limits of the machine' "$(cat $group/cpu.max) $(cat $group/memory.max)" "20000 100000 $((512 << 20))"
"$mvmm" stop --force mine
wait $!
is 'and gets its own back' "$(cat $group/cpu.max) $(cat $group/memory.max)" '50000 100000 max'
sleep 100 &
other=$!
echo $other >$group/cgroup.procs
guest true --memory 128M --jail "$work/nowhere,cgroup=mvmm-test,cpu=20,memory=512M" >"$work/out" 2>&1
is 'a machine whose jail cannot be made does not start' $? 2
is 'and what others have in the group keeps its limits' "$(cat $group/cpu.max) $(cat $group/memory.max)" '50000 100000 max'
kill $other
until_true 30 rmdir $group
is 'and stays until its owner removes it' $? 0

guest true --memory 128M --jail "$jail,uid=$nobody,gid=$nobody,cgroup=mvmm-test,io=1M" >"$work/out" 2>&1
is 'a limit of disks is refused where no disk is on a device' $? 2
has 'with a line that says so' "$work/out" '^mvmm: --jail .*io='
guest 'echo from; dd if=/dev/vda of=/dev/null bs=64k count=64 iflag=direct 2>/dev/null; echo to; sleep 100' --name slow --memory 128M \
	--disk /dev/nvme0n1,readonly=on,direct=on --jail "$jail,uid=$nobody,gid=$nobody,cgroup=mvmm-test,io=1M,io-weight=50" >"$work/out" 2>&1 &
until_true 60 grep -q ^from "$work/out"
start=$(cut -d ' ' -f 1 /proc/uptime)
has 'the group has the limit of its disk' $group/io.max '^[0-9]*:[0-9]* rbps=1048576 wbps=1048576'
has 'and its share' $group/io.weight '^default 50$'
until_true 60 grep -q ^to "$work/out"
is '4 MiB are read' $? 0
took=$(awk -v from="$start" '{ printf "%d", ($1 - from) * 10 }' /proc/uptime)
is "by 1 MiB a second (in $took tenths of a second)" $((took >= 28)) 1
"$mvmm" stop --force slow
wait $!
