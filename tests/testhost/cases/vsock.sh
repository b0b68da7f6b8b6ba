#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# virtio-vsock, by a UNIX socket and by vhost-vsock: connections from both sides, ten megabytes each way compared by
# checksum (each answered over the same, half-closed, connection), and what is said when it cannot be.
# prepare: tests/guest/kernel debian-elf && tests/guest/initramfs debian-elf && tests/guest/tools socat
# timeout: 300

# shellcheck source=tests/testhost/lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
tools=$("$tree/tests/guest/tools" socat)
head -c 10000000 /dev/urandom >"$work/data"
sum=$(sha256sum <"$work/data")
socket=$work/v

# In the guest: the checksum of what comes to port 6000; then the host's checksum of a file of its own.
commands="socat -t 30 VSOCK-LISTEN:6000 EXEC:sha256sum & echo begun; wait; dd if=/dev/urandom of=/tmp/data bs=1M count=10;
	sha256sum </tmp/data; socat -t 30 - VSOCK-CONNECT:2:5000 </tmp/data; echo done"

# answered CONNECT: somebody has listened, and told what came
answered()
{
	eval "$1" >"$work/answer" 2>&1
	grep -qE '^[0-9a-f]{64}' "$work/answer"
}

# transfers NAME CONNECT OPTION...: CONNECT is the host's command that sends the data to port 6000 and prints the answer
transfers()
{
	local name=$1 connect=$2 client
	shift 2
	: >"$work/out"
	(until_true 40 grep -q begun "$work/out" && until_true 20 answered "$connect") &
	client=$!
	guest "$commands" --memory 256M --disk "$tools,readonly=on" "$@" >"$work/out" 2>&1
	is "$name: the guest powers off" $? 0
	wait $client
	has "$name: from the host" "$work/answer" "$sum"
	is "$name: from the guest" "$(grep -E '^[0-9a-f]{64}' "$work/out" | uniq -c | awk '{ print $1 }')" 2
	sed "s/^/    /" "$work/out" "$work/answer"
}

socat -t 30 UNIX-LISTEN:"${socket}_5000" EXEC:sha256sum &
transfers 'UNIX socket' "(printf 'CONNECT 6000\n'; cat $work/data) | socat -t 30 - UNIX-CONNECT:$socket" \
	--vsock cid=5,socket="$socket"
is 'the socket is gone' "$([ -e "$socket" ] || echo gone)" gone

socat -t 30 VSOCK-LISTEN:5000 EXEC:sha256sum &
transfers vhost-vsock "socat -t 30 - VSOCK-CONNECT:6:6000 <$work/data" --vsock cid=6

# refused WHAT VSOCK TEXT
refused()
{
	guest true --vsock "$2" >"$work/out" 2>&1
	is "$1: exit status" $? 2
	is "$1: one line" "$(wc -l <"$work/out")" 1
	has "$1: it says so" "$work/out" "$3"
}

touch "$work/file"
refused 'a file in the way' "cid=5,socket=$work/file" 'a file is in the way'
refused 'no folder' "cid=5,socket=$work/none/v" 'No such file'
refused 'a reserved number' cid=2 'cid=2'
