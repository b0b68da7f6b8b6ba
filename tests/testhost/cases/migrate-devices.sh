#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2016 # what is in single quotes runs in the guest
# A Debian guest with every virtio device goes from process to process while it downloads: the connection goes on through
# another tap of the same bridge, which hears of the move, by our own threads and by vhost-net; the disk keeps what it is
# given, and memory, while the balloon is blown up and let go; entropy comes; vsock is reached at its new place.
# host: --memory 6G
# prepare: tests/guest/kernel debian-elf && tests/guest/initramfs debian-elf && tests/guest/tools socat
# timeout: 600

# shellcheck source=tests/testhost/lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
export XDG_RUNTIME_DIR=$work/run
mkdir -m 700 "$XDG_RUNTIME_DIR"
kernel=$(guest_file kernel debian-elf) initrd=$(guest_file initramfs debian-elf)
tools=$("$tree/tests/guest/tools" socat)
hops=$(turns 3)

ip link add br0 type bridge && ip addr add 10.99.0.1/24 dev br0 && ip link set br0 up
for i in 0 1; do
	ip tuntap add "tap$i" mode tap && ip link set "tap$i" master br0 up
done
head -c 50000 /dev/urandom >"$work/piece"
# Whoever connects gets the piece again and again, until it is enough.
cat >"$work/give" <<END
#!/bin/bash
. "$tree/tests/wait.sh"
for ((n = 0; 1; n++)); do
	[ ! -e "$work/enough" ] || break
	cat "$work/piece"
	pause 0.2
done
echo \$n >"$work/given"
END
chmod +x "$work/give"
socat -U TCP-LISTEN:5000,fork,reuseaddr "EXEC:$work/give" 2>"$work/server" &

# checksum N: that of N pieces
checksum() { yes "$work/piece" | head -n "$1" | xargs cat | sha256sum | cut -c1-64; }

work_of_guest='head -c 2000000 /dev/urandom >/dev/shm/keep; md5sum /dev/shm/keep >/tmp/sum; (while true; do
	head -c 300000 /dev/urandom >/tmp/x; dd if=/tmp/x of=/dev/vdb bs=4k conv=fsync 2>/dev/null;
	echo 1 >/proc/sys/vm/drop_caches; head -c 300000 /dev/vdb | cmp - /tmp/x || echo BAD disk; echo round; sleep 0.3;
done) &
socat -t 30 VSOCK-LISTEN:6000,fork EXEC:hostname &
socat -u TCP:10.99.0.1:5000 - | sha256sum; [ $(head -c 5000 /dev/hwrng | wc -c) = 5000 ] || echo BAD entropy;
md5sum -c /tmp/sum || echo BAD memory;
echo arrived; sleep 1; complaints needs.reset\|virtio.*error\|virtio.*fail'

works() { grep -q '^round' "$work/$1.log"; }

# says PLACE: what the guest answers over vsock
says() { printf 'CONNECT 6000\n' | timeout $((15 * patience)) socat -t $((15 * patience)) - "UNIX-CONNECT:$work/$1.vsock" | tail -n 1 | tr -d '\r'; }
answers() { [ "$(says "$1")" = guest ]; }

# blow NAME: its balloon is told other sizes until it has moved
blow()
{
	local size=0
	until [ -e "$work/moved" ]; do
		size=$((80 - size))
		"$mvmm" balloon "$1" --size ${size}M 2>/dev/null && echo told >>"$work/sizes"
		pause 0.2
	done
}

hop()
{
	rm -f "$work/moved"
	blow "$1" &
	move "$1" "$2" --disk "disk0=$tools" --disk-dir "$work" --net "net0=tap=tap$3" --vsock "$work/$2.vsock"
	touch "$work/moved"
	until_true 30 works "$2" || {
		stands_still "$what: works there" "$2"
		exit 1
	}
	ok "$what: works there"
	is "$what: vsock answers there" "$(says "$2")" guest
}

# travels WHAT VHOST CPUS
travels()
{
	what=$1
	: >"$work/h0.log"
	truncate -s 16M "$work/disk"
	"$mvmm" run --kernel "$kernel" --initrd "$initrd" --cpus "$3" --memory 256M --disk "$tools,readonly=on" --disk "$work/disk" \
		--net "tap=tap0,vhost=$2" --vsock "cid=5,socket=$work/h0.vsock" --balloon on --console pty --name h0 \
		--serial "file=$work/h0.log" --cmdline "$guest_words mvmm.net=10.99.0.2/24 \
			mvmm.run=\"${work_of_guest//[$'\n\t']/ }\"" >"$work/h0.out" 2>&1 </dev/null &
	until_true 60 works h0
	is "$what: works" $? 0
	until_true 20 answers h0
	is "$what: vsock answers" $? 0
	for i in $(seq $hops); do
		hop "h$((i - 1))" "h$i" $((i % 2))
	done
	touch "$work/enough"
	until_true 60 grep -q '@@ exit' "$work/h$hops.log"
	is "$what: ends well" "$? $(grep -o '@@ exit [0-9]*' "$work/h$hops.log")" '0 @@ exit 0'
	cat "$work"/h*.log | tr -d '\r' >"$work/all"
	has "$what: the download is whole" "$work/all" "^$(checksum "$(cat "$work/given")")"
	is "$what: its balloon was told other sizes on the way" $(($(wc -l <"$work/sizes") > hops)) 1
	is "$what: nothing was bad" "$(grep -a ^BAD "$work/all")" ''
	is "$what: its kernel has no complaint" \
		"$(complaints "$work/all" 'needs reset|virtio.*(error|fail)')" ''
	rm -f "$work"/h* "$work/disk" "$work/enough" "$work/given" "$work/sizes"
}

travels 'by vhost-net' on 2
travels 'by its own threads' off 1
cat "$work/server"
