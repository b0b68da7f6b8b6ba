#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2016 # what is in single quotes runs in the guest
# A Debian guest goes from process to process while it works, with 1 and with 4 vCPUs, with memory on both sides of the hole below
# 4 GiB, and with huge pages: its memory keeps its checksum, its processors, timers and disk go on, its clocks show the time,
# and its kernel finds nothing to complain of. Where there is no memory for it, it stays where it is.
# host: --memory 8G
# prepare: tests/guest/kernel 6.12-elf && tests/guest/initramfs 6.12-elf
# timeout: 900

# shellcheck source=tests/testhost/lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
export XDG_RUNTIME_DIR=$work/run
mkdir -m 700 "$XDG_RUNTIME_DIR"
kernel=$(guest_file kernel 6.12-elf) initrd=$(guest_file initramfs 6.12-elf)

# What the guest does until the first bytes of its disk say that it is enough: memory that must not change, writes to the
# disk that are read back past the page cache, every processor's timer, and the time.
work_of_guest='head -c 4000000 /dev/urandom >/dev/shm/keep; sum=$(cat /dev/shm/* | md5sum); n=0; last=$(cut -d. -f1 /proc/uptime); end=;
while [ x$end != xend ]; do
	n=$((n + 1));
	[ x$(cat /dev/shm/* | md5sum | cut -c1-32) = x$(echo $sum | cut -c1-32) ] || echo BAD memory;
	now=$(cut -d. -f1 /proc/uptime); [ $now -ge $last ] && [ $((now - last)) -lt 60 ] || echo BAD time; last=$now;
	echo number$n | dd of=/dev/vda bs=512 seek=$n conv=sync,notrunc,fsync 2>/dev/null;
	echo 1 >/proc/sys/vm/drop_caches;
	dd if=/dev/vda bs=512 skip=$n count=1 2>/dev/null | grep -aq number$n || echo BAD disk;
	end=$(head -c 3 /dev/vda | tr -dc a-z); echo round $n; sleep 0.2;
done;
ticks() { shift $(($1 + 1)); echo $1; };
before=$(grep LOC: /proc/interrupts); sleep 2; after=$(grep LOC: /proc/interrupts);
for c in $(seq $(nproc)); do [ $(ticks $c $after) -gt $(ticks $c $before) ] || echo BAD timer $c; done;
echo clock=$(date +%s) source=$(cat /sys/devices/system/clocksource/clocksource0/current_clocksource) end; complaints'

# Linux takes memory above 4 GiB first. While huge pages have all of that, what comes next lies below, but for what is left between them.
# (What a zone has free says little about 6 MB: processors keep pages for themselves. What it holds is counted.)
on_both_sides='held() { sed -n /zone.*$1/,/^Node/s/nr_zone_.*active_anon//p /proc/zoneinfo | { read -r a; read -r b; echo $((a + b)); }; };
echo 1100 >/proc/sys/vm/nr_hugepages; b=/bin/busybox; low=$(held DMA32);
for i in 1 2 3 4 5 6; do [ $(($(held DMA32) - low)) -gt 1000 ] || cat $b $b $b >/dev/shm/low$i; done;
echo 0 >/proc/sys/vm/nr_hugepages; high=$(held Normal); cat $b $b $b >/dev/shm/high;
low=$(($(held DMA32) - low)); high=$(($(held Normal) - high));
[ $low -gt 1000 ] && [ $high -gt 1000 ] && echo low and high;'

works() { [ "$(grep -c '^round' "$work/$1.log")" -ge 3 ]; }

# hop FROM TO: the machine goes on under another name
hop()
{
	move "$1" "$2" --disk-dir "$work"
	until_true 30 works "$2" || {
		stands_still "$what: works there" "$2"
		exit 1
	}
	ok "$what: works there"
	sed 's/^/    /' "$work/$2.out"
}

# travels WHAT HOPS COMMANDS OPTION...: the guest does these, and then its work
travels()
{
	local commands=$3${work_of_guest} hops=$2
	what=$1
	: >"$work/h0.log"
	truncate -s 64M "$work/disk"
	"$mvmm" run --kernel "$kernel" --initrd "$initrd" --disk "$work/disk,direct=on" --name h0 --serial "file=$work/h0.log" \
		--cmdline "$guest_words mvmm.run=\"${commands//[$'\n\t']/ }\"" "${@:4}" >"$work/h0.out" 2>&1 </dev/null &
	if ! until_true 180 works h0; then
		not_ok "$what: works" 'see what it said'
		tail -n 30 "$work/h0.log" "$work/h0.out" | sed 's/^/    /'
		"$mvmm" stop --force h0
		return
	fi
	ok "$what: works"
	for i in $(seq "$hops"); do
		hop "h$((i - 1))" "h$i"
	done
	printf end | dd of="$work/disk" conv=notrunc 2>/dev/null
	until_true 60 grep -q '@@ exit' "$work/h$hops.log"
	is "$what: ends well" "$? $(grep -o '@@ exit [0-9]*' "$work/h$hops.log")" '0 @@ exit 0'
	cat "$work"/h*.log >"$work/all"
	is "$what: nothing was bad" "$(grep -a ^BAD "$work/all")" ''
	clock=$(grep -ao 'clock=[0-9]*' "$work/all" | cut -d= -f2)
	is "$what: its clock is right" "$((clock - $(date +%s) < 5 && $(date +%s) - clock < 60))" 1
	is "$what: its kernel has no complaint" \
		"$(complaints "$work/all")" ''
	wait
	rm -f "$work"/h* "$work/disk"
}

free_huge() { cat /sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages; }

# short_of WHAT SENTENCE: whoever waits at $work/t.sock, as $!, does not take h0, says so, and the guest works on
short_of()
{
	local target=$!
	until_true 20 test -S "$work/t.sock"
	timeout -k 5 $((60 * patience)) "$mvmm" migrate h0 --to "unix:$work/t.sock" --downtime $((300 * patience))ms >"$work/migrate.out" 2>&1
	is "$1: it is refused" $? 1
	has "$1: it is told why" "$work/migrate.out" "$2"
	wait $target
	has "$1: both sides are" "$work/t.err" "$2"
	until_true 20 goes_on
	is "$1: it works on" $? 0
}

# goes_on: the tiny guest has done another pass
goes_on()
{
	local before
	before=$(stat -c %s "$work/h0.log")
	sleep 0.5
	[ "$(stat -c %s "$work/h0.log")" -gt "$before" ]
}

# tiny OPTION...: as h0, a guest that uses 64 MiB and checks them
tiny()
{
	"$mvmm" run --kernel "$(dirname "$(dirname "$mvmm")")/tests/guests/guest_pattern" --cmdline "pages=16384 pause=100" --name h0 \
		--serial "file=$work/h0.log" "$@" 2>"$work/h0.err" </dev/null &
	until_true 60 grep -q '[.]' "$work/h0.log"
}

# receives GROUP: the target, in a control group
receives()
{
	rm -f "$work/t.sock"
	(echo "$BASHPID" >"$1/cgroup.procs" && exec "$mvmm" receive --from "unix:$work/t.sock" --name t --serial "file=$work/t.log" \
		2>"$work/t.err" </dev/null) &
}

# ends NAME: its machine does, and its memory was right all the time
ends()
{
	"$mvmm" stop "$1" --timeout 30
	is "$2: no page was wrong" "$(cat "$work"/h0.log "$work"/t.log 2>/dev/null | grep -ao 'wrong .*\|WRONG' | tr -d '\r')" 'wrong 00000000'
	wait
	rm -f "$work"/h0.* "$work"/t.*
}

# lacks: no huge pages are left; the target's group has no room; what it has is taken away when memory has come
lacks()
{
	local group=/sys/fs/cgroup/target
	echo 60 >/proc/sys/vm/nr_hugepages
	tiny --memory 96M,hugepages=2M
	receives /sys/fs/cgroup
	short_of 'no huge pages' 'not enough huge pages are reserved'
	ends h0 'no huge pages'
	is 'no huge pages: all are given back' "$(free_huge)" 60
	echo 0 >/proc/sys/vm/nr_hugepages

	echo +memory >/sys/fs/cgroup/cgroup.subtree_control
	mkdir $group
	echo 40M >$group/memory.max
	tiny --memory 128M
	receives $group
	short_of 'no room' 'the guest needs [0-9]* MiB of memory now, and this host has [0-9]* MiB left for it'
	echo 200M >$group/memory.max
	receives $group
	until_true 20 test -S "$work/t.sock"
	timeout -k 5 $((60 * patience)) "$mvmm" migrate h0 --to "unix:$work/t.sock" --bandwidth 20M --downtime 1ms >"$work/migrate.out" 2>&1 & # it does not end by itself
	until_true 30 at_least 20000000 $group/memory.current
	echo 12M >$group/memory.max
	wait $!
	is 'the room is taken away: the guest stays' $? 1
	has 'the room is taken away: the kernel ended the target' $group/memory.events '^oom_kill [1-9]'
	until_true 20 goes_on
	is 'the room is taken away: it works on' $? 0
	echo max >$group/memory.max
	receives $group
	until_true 20 test -S "$work/t.sock"
	timeout -k 5 $((60 * patience)) "$mvmm" migrate h0 --to "unix:$work/t.sock" --downtime $((5 * patience))s >"$work/migrate.out" 2>&1
	is 'where there is room it goes' $? 0
	ends t 'where there is room'
}

at_least() { [ "$(cat "$2")" -ge "$1" ]; }

# Four vCPUs on one slow processor wait for each other more than they work.
cpus=$((patience > 1 ? 1 : 4))
travels "$cpus vCPUs, 5 GiB" 2 "$on_both_sides" --cpus $cpus --memory 5G
has "$cpus vCPUs, 5 GiB: what it keeps lies on both sides of the hole" "$work/all" '^low and high'
for shared in off on; do
	echo 256 >/proc/sys/vm/nr_hugepages
	travels "huge pages, shared=$shared" 1 '' --cpus 1 --memory "256M,hugepages=2M,shared=$shared"
	is "huge pages, shared=$shared: all are given back" "$(free_huge)" 256
	echo 0 >/proc/sys/vm/nr_hugepages
done
lacks
