#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2016 # what is in single quotes runs in the guest
# A Debian guest at work is kept in a folder and restored from it, again and again: fio finds on its disk what it wrote, its memory
# keeps its checksum, and a TCP connection with the test host stays open. A machine that is made of it beside it, with a copy of its
# disk, works too, also after it has moved on. Many clones of an idle guest have random numbers and identities of their own, and
# share the memory that they do not write.
# With --long: both kernels, more memory, four processors and a hundred clones.
# prepare: for k in debian-elf 6.12-elf; do tests/guest/kernel $k && tests/guest/initramfs $k; done; tests/guest/tools fio socat
# timeout: 400
# timeout-long: 1500

# shellcheck source=tests/testhost/lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
export XDG_RUNTIME_DIR=$work/run
mkdir -m 700 "$XDG_RUNTIME_DIR"
tools=$("$tree/tests/guest/tools" fio socat)
for i in 0 1 2; do
	ip tuntap add "tap$i" mode tap && ip link set "tap$i" up
done
ip address add 10.99.0.1/24 dev tap0

# fio writes and verifies a part of the disk each time; the connection gives back what it gets.
work_of_guest='head -c 4000000 /dev/urandom >/dev/shm/keep; sum=$(md5sum </dev/shm/keep | cut -c1-32); n=0;
(socat TCP:10.99.0.1:5000 EXEC:cat; echo BAD connection) &
(while fio --name=v --filename=/dev/vda --ioengine=libaio --direct=1 --rw=randwrite --bsrange=512-64k --iodepth=8 --size=4M
	--verify=crc32c --verify_fatal=1 --output-format=terse >/tmp/fio 2>&1; do echo verified; done; echo BAD disk; cat /tmp/fio) &
while :; do
	[ $(md5sum </dev/shm/keep | cut -c1-32) = $sum ] || echo BAD memory;
	[ $(complaints | wc -l) = 0 ] || { echo BAD kernel; complaints; };
	n=$((n + 1)); echo round $n; sleep 0.5;
done'

# talk: sends numbers, one when the one before has come back; the last one of these is in the file "far"
cat >"$work/talk" <<-END
	#!/usr/bin/env bash
	while n=\$((n + 1)) && echo \$n && read -r got && [ "\$got" = \$n ]; do echo \$n >$work/far; sleep 0.2; done
	echo broken >$work/far
END
chmod +x "$work/talk"

said() { [ "$(tr -d '\r' <"$work/$1.log" 2>/dev/null | grep -ac "^$2")" -ge "$3" ]; }
talks() { [ "$(cat "$work/far" 2>/dev/null)" -gt "$1" ] 2>/dev/null; }
gone() { ! "$mvmm" info "$1" >/dev/null 2>&1; }

# works NAME: the guest goes on. What fio verifies first, it began to write before; the connection is tap0's.
works()
{
	local far
	far=$(cat "$work/far" 2>/dev/null)
	if ! until_true 60 said "$1" round 3 || ! until_true 90 said "$1" verified "${2:-1}"; then
		stands_still "$what: $1 works" "$1"
		exit 1
	fi
	[ -n "${alone:-}" ] || until_true 60 talks $((${far:-0} + 3)) || { not_ok "$what: the connection of $1 lives" "$(cat "$work/far")"; exit 1; }
	ok "$what: $1 works"
}

# snapshot NAME FOLDER OPTION...
snapshot()
{
	timeout -k 5 $((120 * patience)) "$mvmm" snapshot "$1" --to "$work/$2" "${@:3}" >"$work/out" 2>&1
	is "$what: a snapshot of $1 is taken, ${*:3}" $? 0
	sed 's/^/    /' "$work/out"
}

# restore NAME FOLDER OPTION...: see the file NAME.err
restore() { "$mvmm" restore --from "$work/$2" --name "$1" --serial "file=$work/$1.log" "${@:3}" </dev/null >"$work/$1.err" 2>&1 & }

# ends: the machine s5 does, and nothing of what was said was bad
ends()
{
	"$mvmm" stop --force s5
	kill "$talker"
	wait
	is "$what: nothing was bad" "$(cat "$work"/[scm]*.log | tr -d '\r' | grep -a -A 3 ^BAD)" ''
	is "$what: no message but of the move" "$(cat "$work"/[sc]?.err | grep -v 'runs at unix:.*/m1.sock now')" ''
}

# again_and_again WHAT KERNEL OPTION...: the machine ends with each snapshot, and goes on from there
again_and_again()
{
	local i
	what=$1
	rm -rf "$work"/{s?.*,snap?,far,disk}
	truncate -s 16M "$work/disk"
	socat TCP-LISTEN:5000,reuseaddr EXEC:"$work/talk" &
	talker=$!
	"$mvmm" run --kernel "$(guest_file kernel "$2")" --initrd "$(guest_file initramfs "$2")" --name s0 --disk "$work/disk,direct=on" \
		--disk "$tools,readonly=on" --net tap=tap0 --serial "file=$work/s0.log" --cpu host,-svm "${@:3}" \
		--cmdline "$guest_words mvmm.net=10.99.0.2/24 mvmm.run=\"${work_of_guest//[$'\n\t']/ }\"" </dev/null >"$work/s0.err" 2>&1 &
	until_true 180 said s0 round 1
	works s0
	for i in 1 2 3 4 5; do
		snapshot "s$((i - 1))" "snap$i" --stop --disks none
		until_true 20 gone "s$((i - 1))"
		restore "s$i" "snap$i"
		works "s$i"
		rm -rf "$work/snap$((i - 1))"
	done
}

# beside: a machine is made of s5 while it works, and moves on
beside()
{
	what='beside it'
	snapshot s5 copy --live --disks copy
	is "$what: its disk was copied" "$(stat -c %s "$work/copy/disks/disk0")" "$(stat -c %s "$work/disk")"
	"$mvmm" snapshot verify "$work/copy" >"$work/out" 2>&1
	is "$what: the snapshot verifies" $? 0
	restore c1 copy --disk "disk0=$work/disk1" --net net0=tap=tap1
	alone=1 works c1
	move c1 m1 --disk "disk0=$work/disk1" --disk "disk1=$tools" --net net0=tap=tap2
	alone=1 works m1 2
	snapshot m1 moved --stop --disks none
	restore c2 moved
	alone=1 works c2
	works s5 3
	"$mvmm" stop --force c2
}

# What the guest that is cloned says when it begins, and then when it is asked.
answers='stty -echo; while echo answer $(head -c 16 /dev/urandom | base64) $(cat /proc/sys/kernel/random/uuid)
	$(dd if=/dev/mem bs=16 skip=65280 count=1 2>/dev/null | base64) end; do read -r word; done'

# answer NAME [WORD]: what it says, to a word if there is one
answer()
{
	: >"$work/$1.answer"
	# shellcheck disable=SC2094 # it waits for what the other end writes
	{ echo -n "${2:+$2$'\n'}" && until_true 60 grep -q '^answer.* end' "$work/$1.answer"; } |
		socat -t 0.1 - "UNIX-CONNECT:$work/$1.socket" 2>/dev/null >"$work/$1.answer"
	tr -d '\r' <"$work/$1.answer" | grep -a '^answer' >>"$work/answers"
}

# values NUMBER: how many different ones the answers have there
values() { cut -d' ' -f"$1" "$work/answers" | sort -u | wc -l; }

# pss PATTERN: the share of memory of these machines, in KiB
pss() { "$mvmm" ps --json | python3 -c "import json, re, sys; print(*(m['pid'] for m in json.load(sys.stdin) if re.match('$1', m['name'])))" |
	tr ' ' '\n' | sed 's|.*|/proc/&/smaps_rollup|' | xargs cat | awk '/^Pss:/ { all += $2 } END { print all }'; }

# clones COUNT: of an idle guest
clones()
{
	local i began=$SECONDS first
	what="$1 clones"
	"$mvmm" run --kernel "$(guest_file kernel 6.12-elf)" --initrd "$(guest_file initramfs 6.12-elf)" --name idle --memory 256M \
		--cpu host,-svm --serial "socket=$work/idle.socket" --cmdline "$guest_words mvmm.run=\"${answers//[$'\n\t']/ }\"" </dev/null >"$work/idle.err" 2>&1 &
	until_true 20 test -S "$work/idle.socket"
	answer idle
	has "$what: the first one answers" "$work/answers" '^answer .* .* .* end'
	first=$(pss idle)
	snapshot idle idle --disks none
	timeout -k 5 $((120 * patience)) "$mvmm" clone "$work/idle" --count "$1" --name 'c-{n}' --serial "socket=$work/c-{n}.socket" >"$work/out" 2>&1
	is "$what: all are made" $? 0
	tail -n 2 "$work/out" | sed 's/^/    /'
	echo "    each has $(($(pss c-) / $1)) KiB of memory, which shares what others have too; the first one has $first KiB"
	for i in $(seq "$1"); do
		answer "c-$i" ask
	done
	is "$what: all answer" "$(wc -l <"$work/answers")" $(($1 + 1))
	is "$what: no random number comes twice" "$(values 2)" $(($1 + 1))
	is "$what: no UUID comes twice" "$(values 3)" $(($1 + 1))
	is "$what: no generation ID comes twice" "$(values 4)" $(($1 + 1))
	is "$what: each has less than a third of the first one's memory" "$(($(pss c-) / $1 < first / 3))" 1
	"$mvmm" ps | sed 's/^/    /;3q'
	for i in $(seq "$1"); do "$mvmm" stop --force "c-$i"; done
	"$mvmm" stop --force idle
	echo "    it took $((SECONDS - began)) s"
}

again_and_again '1 vCPU' debian-elf --memory 256M
beside
ends
if [ -n "${MVMM_LONG:-}" ]; then
	again_and_again '4 vCPUs' debian-elf --memory 256M --cpus 4
	ends
	for kernel in debian-elf 6.12-elf; do
		again_and_again "$kernel, 3G" $kernel --memory 3G
		ends
	done
	clones 100
else
	clones 20
fi
