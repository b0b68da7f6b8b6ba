#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2016 # what is in single quotes runs in the guest
# A Debian guest at work goes from process to process and back: it keeps checksums of its memory, fio verifies what it writes to
# the disk, which every second time goes along to another file, and one TCP connection through a tap stays open all the
# while. With one CPU, and with four; with two where everything is slow, for on one emulated processor four wait for each other
# more than they work.
# prepare: tests/guest/kernel debian && tests/guest/initramfs debian && tests/guest/tools fio socat
# timeout: 600

# shellcheck source=tests/testhost/lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
tools=$("$tree/tests/guest/tools" fio socat)
kernel=$(guest_file kernel debian)
initrd=$(guest_file initramfs debian)
hops=${MVMM_HOPS:-$(turns 4)}

# Two taps on one bridge: a guest that has moved to the other one is found again because it says where it is.
ip link add br0 type bridge && ip addr add 10.99.0.1/24 dev br0 && ip link set br0 up
for i in 0 1; do
	ip tuntap add tap$i mode tap && ip link set tap$i master br0 && ip link set tap$i up
done

# In the guest: while the host's numbers come, one load each on memory and disk. (fio writes and verifies a file's worth again and
# again: one that is interrupted amid its verification may never end where processors are slow.)
commands='socat -u TCP:10.99.0.1:5000 OPEN:/tmp/numbers,creat & socat=$!; dd if=/dev/urandom of=/tmp/a bs=1M count=2 2>/dev/null;
	want=$(sha256sum </tmp/a | cut -c1-64); (while [ ! -e /tmp/enough ]; do fio --name=v --filename=/dev/vda --ioengine=libaio --direct=1
	--rw=randwrite --bs=4k --iodepth=8 --size=2M --verify=crc32c --verify_backlog=256 --verify_fatal=1 >/tmp/fio 2>&1 &&
	echo fio has verified || { echo fio failed; cat /tmp/fio; break; }; done) & fio=$!;
	echo ready; i=0; while kill -0 $socat 2>/dev/null; do cp /tmp/a /tmp/b; got=$(sha256sum </tmp/b | cut -c1-64);
	[ $got = $want ] || echo memory is broken; rm /tmp/b; i=$((i + 1)); echo tick $i; done;
	kill -0 $fio && echo fio goes on; touch /tmp/enough; wait $fio; echo numbers $(sha256sum </tmp/numbers); complaints I/O.error && echo done'

# numbers: to whoever connects, ten lines a second until the file "enough" is there
numbers()
{
	local i=0
	until [ -e "$work/enough" ]; do
		i=$((i + 1))
		echo "number $i"
		pause 0.1
	done
}

ticks() { cat "$work"/m*.log 2>/dev/null | grep -c '^tick'; }
more_ticks() { [ "$(ticks)" -gt "$1" ]; }

# hop N: m$((N - 1)) becomes m$N
hop()
{
	local before from=m$(($1 - 1)) to=m$1 place=() copy=()
	[ $(($1 % 2)) = 1 ] && place=(--disk "disk0=$work/disk$1") && copy=(--copy-disks)
	"$mvmm" receive --from "unix:$work/sock" --name "$to" --serial "file=$work/$to.log" --net "net0=tap=tap$(($1 % 2))" "${place[@]}" \
		--disk "disk1=$tools" --disk-dir "$work" \
		</dev/null 2>"$work/$to.err" &
	until_true 20 grep -q waiting "$work/$to.err" || return 1
	timeout -s KILL $((120 * patience)) "$mvmm" migrate "$from" --to "unix:$work/sock" --downtime "${patience}s" "${copy[@]}" >"$work/$to.out" 2>&1 || return 1
	sed -n "s/^/    $from to $to: /p" "$work/$to.out" | tail -n 2
	before=$(ticks)
	until_true 60 more_ticks "$before"
}

# travel NAME OPTION...
travel()
{
	local name=$1 i last
	shift
	rm -f "$work"/m* "$work"/disk* "$work/enough" "$work/sent"
	truncate -s 32M "$work/disk"
	numbers | tee "$work/sent" | socat -u - TCP-LISTEN:5000,reuseaddr &
	"$mvmm" run --kernel "$kernel" --initrd "$initrd" --name m0 --memory 256M --disk "$work/disk" --disk "$tools,readonly=on" \
		--net tap=tap0 --serial "file=$work/m0.log" "$@" --cmdline "$guest_words \
		mvmm.net=10.99.0.2/24 mvmm.run=\"${commands//[$'\n\t']/ }\"" </dev/null 2>"$work/m0.err" &
	until_true 120 more_ticks 0 || {
		stands_still "$name: the guest is at work" m0
		return
	}
	ok "$name: the guest is at work"
	for i in $(seq "$hops"); do
		hop "$i" && ok "$name: move $i" && continue
		stands_still "$name: move $i" "m$i"
		return
	done
	last=m$hops
	touch "$work/enough"
	until_true 120 grep -q '^@@ exit' "$work/$last.log"
	cat "$work"/m*.log | tr -d '\r' >"$work/console"
	has "$name: it comes to its end" "$work/console" '^done'
	is "$name: its memory was right all the time" "$(grep -c '^memory is broken' "$work/console")" 0
	has "$name: its disk too" "$work/console" '^fio goes on'
	has "$name: ... what fio wrote was there" "$work/console" '^fio has verified'
	is "$name: ... always" "$(grep -ciE 'verify:|fio failed' "$work/console")" 0
	has "$name: the connection has carried every byte" "$work/console" "^numbers $(sha256sum <"$work/sent" | cut -d' ' -f1)"
	is "$name: its kernel has not complained" "$(complaints "$work/console" I/O.error)" ''
	until_true 20 test -z "$("$mvmm" ps --json | tr -d '[] \n')"
	is "$name: nothing runs" "$("$mvmm" ps --json | tr -d '[] \n')" ''
	tail -n 30 "$work/console" | sed 's/^/    /'
	cat "$work"/m*.err | sed 's/^/    /'
}

travel 'one CPU' --cpus 1
cpus=$((patience > 1 ? 2 : 4))
travel "$cpus CPUs" --cpus $cpus
is 'the log told of everything that KVM wrote' "$(dmesg | grep -c mark_page_dirty)" 0
