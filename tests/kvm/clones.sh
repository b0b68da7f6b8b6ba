#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# mvmm clone under the real program and the real /dev/kvm: 100 of a running machine, each with its own name, port and identity; of
# a snapshot, with disks of their own; what fails is named, and Ctrl-C leaves what runs. TAP on stdout.
# usage: clones.sh MVMM GUEST-DIRECTORY

# shellcheck source=tests/kvm/lib.sh
. "$(dirname "$0")/lib.sh"
mvmm=$(realpath "$mvmm") guests=$(realpath "$guests")
cd "$work" || exit 1

quietly() { timeout -s KILL $((60 * patience)) "$mvmm" "$@" >"$work/out" 2>"$work/err"; }

# run_guest NAME GUEST PATTERN OPTION...: in the background, until it has said that
run_guest()
{
	local name=$1 guest=$2 pattern=$3
	shift 3
	"$mvmm" run --kernel "$guests/guest_$guest" --name "$name" --memory 32M "$@" </dev/null 2>"$work/$name.err" &
	pids+=($!)
	until_true 20 says "$name.log" "$pattern"
}

# The numbers of those that run, of machines with this prefix.
count_of() { "$mvmm" ps --json | grep -c "\"name\": \"$1"; }

# end_all PREFIX [SIGNAL]: at once
end_all()
{
	local pid
	for pid in $("$mvmm" ps --json | python3 -c 'import json, sys
for m in json.load(sys.stdin):
	if m["name"].startswith(sys.argv[1]): print(m["pid"])' "$1"); do
		kill -"${2:-KILL}" "$pid" 2>/dev/null
	done
}

# Each guest says who it is, and ends. They are busy while they wait, so one of them runs at a time.
ask_all()
{
	timeout -s KILL $((60 * patience)) python3 - "$mvmm" "$1" <<'END' >"$work/answers"
import socket, subprocess, sys
for n in range(1, int(sys.argv[2]) + 1):
	subprocess.check_call([sys.argv[1], "resume", f"c{n}"])
	with socket.socket(socket.AF_UNIX) as s:
		s.settimeout(30)
		s.connect(f"c{n}.sock")
		s.sendall(b"p")
		text = b""
		while b"end" not in text:
			text += s.recv(4096)
		print(text.decode().strip())
		s.sendall(b"e")
END
}

# runs COUNT PREFIX: so many run
runs() { [ "$(count_of "$2")" = "$1" ]; }
between() { [ "$(count_of "$3")" -gt "$1" ] && [ "$(count_of "$3")" -lt "$2" ]; }
all_say() { says d-1.log "$1" && says d-2.log "$1" && says d-3.log "$1"; }
end_right() { quietly stop d-1 && quietly stop d-2 && quietly stop d-3 && ! grep -q WRONG d-?.log && all_say 'wrong 00000000'; }
named() { ! quietly clone ./snap --count 7 && says err 'mvmm: i-5: .*in use' && says err '5 of 7 clones do not run' && runs 7 i-; }
different_ids() { [ "$(grep -o 'id [0-9a-f]*' "$work/answers" | sort -u | wc -l)" = "$1" ]; }
refused() {
	local pattern=$1
	shift
	quietly clone "$@"
	[ $? = 2 ] && [ "$(wc -l <"$work/err")" = 1 ] && grep -q -e "$pattern" "$work/err"
}

truncate -s 4M a.img
check 'a guest waits' run_guest w clone . --serial file=w.log
check '100 clones of a machine that runs on' quietly clone w --count 100 --name 'c{n}' --serial 'socket=c{n}.sock' --paused --json
check 'all of them are told with their times' [ "$(grep -c '"time"' out)" = 100 ]
check 'each has its own name' runs 100 c
check 'the first one still runs' runs 1 w
check 'and has closed what they have in memory' bash -c "! readlink /proc/${pids[-1]}/fd/* | grep -E '/memfd:(state|memory)'"
check 'nobody else holds their memory' quietly stop --force w
check 'a clone can be cloned' quietly clone c1 --count 2 --name 'd{n}' --paused --live
end_all d
check 'each answers on its own port' ask_all 100
check 'no two have the same generation ID' different_ids 100
check 'they end as their guests do' until_true 20 runs 0 c

check 'a guest works on its disk' run_guest d disk '\.\.\.' --disk a.img,id=disk0 --serial file=d.log
check 'a disk needs the number' refused '--disk disk0=x.img: the clones cannot share it; write {n}' d --count 2 --disks copy --disk disk0=x.img
check 'and an option' refused 'disk disk0: each clone needs one of its own; write --disk disk0=PATH with {n}' d --count 2
check 'clones of a machine get copies of its disk' quietly clone d --count 3 --disks copy --disk 'disk0=x{n}.img' --serial 'file=d-{n}.log'
check 'their guests go on with them' until_true 30 all_say '\.\.\.\.\.\.\.\.\.'
check 'and find them as they were' end_right
quietly stop d

check 'another guest waits' run_guest i idle . --serial file=i.log
check 'it is kept' quietly snapshot i --to snap
check 'a snapshot is cloned' quietly clone ./snap --count 5 --jobs 2
silent() { quietly clone snap --count 1 --name s && [ ! -s err ]; }
check 'its name alone will do, and nothing is said' silent
end_all s-
check 'clones have their messages in files' quietly clone ./snap --count 2 --name 'g{n}' --log 'g{n}.log'
end_all g TERM
check 'each in its own' until_true 20 says g2.log 'power button'
end_all g
check 'a name in use is told with its clone' named
untimed() { ! quietly clone ./snap --count 1 --json && says out '"median": null' && says out '"running": 0'; }
check 'without a clone that runs there are no times' untimed
end_all i-
until_true 20 runs 0 i-
in_folder() { quietly clone snap --count 2 && ! [ -s err ]; }
check 'a folder needs no slash, and nothing is said of machines' in_folder
end_all i-
until_true 20 runs 0 i-
many_at_once() { (ulimit -Sn 45 && quietly clone ./snap --count 60 --jobs 60) && runs 60 i- && ! [ -s err ]; }
check 'more at once than there are descriptors wait for each other' many_at_once
end_all i-
"$mvmm" clone ./snap --count 1000 --jobs 1 --name 'k{n}' >out 2>err &
pids+=($!)
until_true 20 between 3 1000 k
kill -INT $!
wait $!
check 'Ctrl-C is told' [ $? = 130 ]
check 'no more are started' between 3 1000 k
check 'those that run, run on' quietly info k1
end_all k
quietly stop --force i
echo "1..$n"
