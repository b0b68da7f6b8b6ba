#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The program itself: bad input ends it with exit code 2, one line on stderr and nothing left behind; the help, the man
# page and the completion have every command and option. TAP on stdout. usage: cli.sh MVMM SOURCE-ROOT SNAPSHOT-MAKE
set -u
mvmm=$(realpath "$1")
root=$(realpath "$2")
snapshot_make=$(realpath "$3")
unset XDG_RUNTIME_DIR
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/run" "$work/here"
export XDG_RUNTIME_DIR=$work/run
cd "$work/here" || exit 1
# shellcheck source=tests/unit/tap.sh
. "$root/tests/unit/tap.sh"

# What is in the runtime folder and in the current one, but for the files that the tests made.
left_behind() {
	find "$work/run" -mindepth 2
	find "$work/here" -mindepth 1 -newer "$work/made"
}

# complaint WORD... : what is wrong with how the program refuses these words.
complaint() {
	local code lines
	timeout 10 "$mvmm" "$@" <"/dev/null" >"$work/out" 2>"$work/err"
	code=$?
	lines=$(wc -l <"$work/err")
	[ $code = 2 ] || echo "exit code $code"
	[ "$lines" = 1 ] || { echo "$lines lines on stderr:"; cat "$work/err"; }
	grep -q '^mvmm: ' "$work/err" || echo 'the line does not begin with "mvmm: "'
	[ -s "$work/out" ] && { echo "on stdout:"; cat "$work/out"; }
	left_behind
}

# refuses NAME PATTERN WORD... : the program refuses the words, with a line in which PATTERN is found.
refuses() {
	local name=$1 pattern=$2 found
	shift 2
	found=$(complaint "$@")
	grep -qE -- "$pattern" "$work/err" || found+=$'\n'"not in the line: $pattern"$'\n'$(cat "$work/err")
	report "$name" "$found"
}

# An ELF file that a machine gets as far as its own faults with: 64-bit, x86-64, with a PVH note and a "hlt".
make_kernel() {
	local le=('\x00\x00\x00\x00\x00\x00\x00\x00')
	printf '\x7fELF\x02\x01\x01\x00%b' "${le[0]}"
	printf '\x02\x00\x3e\x00\x01\x00\x00\x00%b\x40\x00\x00\x00\x00\x00\x00\x00%b' '\x00\x00\x10\x00\x00\x00\x00\x00' "${le[0]}"
	printf '\x00\x00\x00\x00\x40\x00\x38\x00\x02\x00\x40\x00\x00\x00\x00\x00'
	# PT_LOAD: 0x10 bytes at offset 0x100 to 1 MiB
	printf '\x01\x00\x00\x00\x05\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00'
	printf '\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x00\x00'
	printf '\x10\x00\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00'
	# PT_NOTE: at offset 0xb0, name "Xen", type 18 (XEN_ELFNOTE_PHYS32_ENTRY), 4 bytes
	printf '\x04\x00\x00\x00\x04\x00\x00\x00\xb0\x00\x00\x00\x00\x00\x00\x00%b%b' "${le[0]}" "${le[0]}"
	printf '\x14\x00\x00\x00\x00\x00\x00\x00\x14\x00\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00'
	printf '\x04\x00\x00\x00\x04\x00\x00\x00\x12\x00\x00\x00Xen\x00\x00\x00\x10\x00'
	head -c $((0x100 - 0xb0 - 20)) /dev/zero
	printf '\xfa\xf4\xeb\xfd\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00'
}
make_kernel >kernel
head -c 65536 /dev/zero >disk
head -c 30 kernel >truncated
head -c 5000 /dev/urandom >garbage
{ head -c 18 kernel; printf '\xb7\x00'; tail -c +21 kernel; } >arm
truncate -s 600M large
mkdir folder
# poke FILE OFFSET BYTES: changes a file where it stands
poke() { printf %b "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; }
"$snapshot_make" base 1 0 0=1 9=9
"$snapshot_make" diff 2 1 1=2 700=3
"$snapshot_make" later 3 2 1=0
"$snapshot_make" escapes 1 0 escapes
for copy in newer arm cut flipped short holed words link; do cp -a base "snapshot-$copy"; done
cp -a base shared
cp -a base open
chmod g+w shared
chmod o+w open/memory
poke snapshot-newer/state 8 '\x02'
poke snapshot-arm/state 12 '\xb7'
truncate -s -1 snapshot-cut/state
poke snapshot-flipped/state 77 x
truncate -s -4096 snapshot-short/memory
mv snapshot-link/memory snapshot-link/kernel
ln -s kernel snapshot-link/memory
truncate -s 0 snapshot-holed/memory
truncate -s "$(stat -c %s base/memory)" snapshot-holed/memory
poke snapshot-words/machine.json 20 x
cp -a base .writing.new-abcdef
rm .writing.new-abcdef/state
printf '{"cpus": 1,\n "kernel" "k"}' >broken.json
printf '{"disk": [{"path": "disk", "redonly": true}]}' >unknown.json
printf '{"cpus": 1, "cpus": 2}' >doubled.json
touch "$work/made"
sleep 0.05 # what a run leaves behind is newer

refuses 'no command' 'no command; write mvmm run'
refuses 'unknown command' 'rnu: unknown command, did you mean run\?' rnu
refuses 'option before the command' 'options come after a command' --kernel kernel
refuses 'a host device without a name' '--vfio: no device; write --vfio BDF' vfio add any backend=legacy
refuses 'no kernel named' '--kernel is missing' run
refuses 'unknown option' '--memry: unknown option, did you mean --memory\?' run --memry 5
refuses 'abbreviated option' '--mem: unknown option, did you mean --memory\?' run --mem 512M
refuses 'unknown key' 'readony: unknown key, did you mean readonly\?' run --kernel kernel --disk disk,readony=on
refuses 'unknown value' '--on-reboot exot: unknown value, did you mean exit\?' run --kernel kernel --on-reboot exot
refuses 'missing value' '--kernel: needs a value' run --kernel
refuses 'value taken for an option' '--kernel: needs a value' run --kernel --initrd
refuses 'option given twice' '--cpus: given twice' run --cpus 1 --cpus 2
refuses 'stray word' 'disk: unexpected' run --kernel kernel disk
refuses 'short option' '-k: unknown option' run -k kernel
refuses 'new line in a value' '--cpus 1\?2: not a number' run --cpus $'1\n2'
refuses 'no CPU' '--cpus 0: out of range; write a number from 1 to 254' run --kernel kernel --cpus 0
refuses 'too many CPUs' '--cpus 255: out of range' run --kernel kernel --cpus 255
refuses 'memory not a page multiple' '--memory 1048577: not a multiple of the page size' run --kernel kernel --memory 1048577
refuses 'no memory' '--memory 0: out of range' run --kernel kernel --memory 0
refuses 'memory that is no size' '--memory lots: not a size' run --kernel kernel --memory lots
refuses 'more memory than the machine has' '--memory 1T: more than the host has' run --kernel kernel --memory 1T
refuses 'name with a slash' '--name a/b: not a name' run --kernel kernel --name a/b
refuses 'name too long' '--name x{33}: not a name' run --kernel kernel --name xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
refuses 'two devices of one id' '--disk id=a: another device has this id' run --kernel kernel --disk disk,id=a --disk disk,id=a
many=()
for _ in {1..30}; do many+=(--disk disk); done
refuses 'too many devices' '31 devices: more than the 30' run --kernel kernel "${many[@]}"
refuses 'metrics of no machine' 'metrics: NAME is missing' metrics
refuses 'metrics in two forms' '--prometheus: cannot be combined with --json' metrics --json --prometheus any
refuses 'a filter of another kind' '--seccomp none: unknown value' run --kernel kernel --seccomp none
refuses 'a folder to allow that is missing' '--allow nowhere: No such file' run --kernel kernel --allow nowhere
refuses 'a jail in no folder' '--jail nowhere: the folder: No such file' run --kernel kernel --jail nowhere
refuses 'a jail in a file' '--jail .*/disk: the folder: Not a directory' run --kernel kernel --jail disk
refuses 'a jail in the root of all files' '--jail /: it is the root' run --kernel kernel --jail /
refuses 'a jail for root' '--jail uid=0: out of range; write a number from 1' run --kernel kernel --jail folder,uid=0
refuses 'a jail for a user without a group' '--jail uid=5: write uid=N and gid=N, both or none' run --kernel kernel --jail folder,uid=5
refuses 'a limit without a control group' '--jail cpu=: is a limit of a control group; add cgroup=GROUP' \
	run --kernel kernel --jail folder,cpu=50
refuses 'a limit of disks without a control group' '--jail io=: is a limit of a control group; add cgroup=GROUP' \
	run --kernel kernel --jail folder,io=1M
refuses 'no network namespace' '--jail netns=nowhere: No such file' run --kernel kernel --jail folder,netns=nowhere
refuses 'another network namespace' '--jail netns=disk: no network namespace' run --kernel kernel --jail folder,netns=disk
refuses 'no control group' '--jail cgroup=.*: no control group of version 2' run --kernel kernel --jail "folder,cgroup=$PWD/folder/x"
refuses 'few descriptors' '--jail nofile=1: out of range' run --kernel kernel --jail folder,nofile=1
refuses 'a jail with an unknown key' 'uidd: unknown key, did you mean uid' run --kernel kernel --jail folder,uidd=5
refuses 'all files to allow' '--allow /: would show all files' run --kernel kernel --jail folder --allow /
refuses 'devices to allow' '--allow /dev: the jail has a /dev of its own' run --kernel kernel --jail folder --allow /dev
refuses 'a file to allow' '--allow .*/disk: not a folder' run --kernel kernel --jail folder --allow disk
refuses 'a snapshot in a jail in no folder' '--jail nowhere: the folder: No such file' restore --from base --jail nowhere
refuses 'a machine from elsewhere in a jail in no folder' '--jail nowhere: the folder: No such file' receive --from unix:x --jail nowhere
refuses 'CPUs for a process that waits' '--cpu-affinity: goes with the mvmm restore --wait that prepared --spare a' \
	restore --spare a --cpu-affinity 0
refuses 'a jail for a process that waits' '--jail: goes with the mvmm restore --wait' restore --spare a --jail folder
refuses 'CPUs that are not there' '--cpu-affinity 1000: this host has CPUs 0 to' run --kernel kernel --cpu-affinity 1000
refuses 'CPUs of a vCPU that is not there' '--cpu-affinity 1=0: the machine has vCPUs 0 to 0' \
	run --kernel kernel --cpu-affinity 1=0
refuses 'a limit that is no rate' '--disk bandwidth=fast: not a rate; write 10M' run --kernel kernel --disk disk,bandwidth=fast
refuses 'a limit of nothing' '--rng ops=0: out of range; write a number from 1' run --kernel kernel --rng ops=0
refuses 'limits of what the kernel moves' 'vhost=on: the kernel moves its packets and knows no limits' \
	run --kernel kernel --net tap=t,vhost=on,rx-bandwidth=1M
refuses 'limits of no disk' 'disk set: an argument is missing; write mvmm disk set NAME DISK KEY=RATE' disk set web
refuses 'migration to nowhere' '--to is missing' migrate
refuses 'migration and status' 'only one of --to, --status' migrate --to tcp:a --status
refuses 'migration to no address' '--to: there: not an address' migrate --to there
refuses 'migration within no time' '--downtime 300: not a time' migrate --to tcp:a --downtime 300
refuses 'a copy of read-only disks alone' '--copy-readonly: needs --copy-disks' migrate --to tcp:a --copy-readonly
refuses 'migration with too many streams' '--streams 17: out of range' migrate --to tcp:a --streams 17
refuses 'reception from nowhere' '--from is missing' receive
for from in tcp: tcp:192.0.2.1:7151 'tcp:[::]:7151'; do
	refuses "reception from $from by anybody" '--from tcp:.*whoever reaches this address could send a machine; add --tls DIR.*or --insecure' \
		receive --from "$from"
done
refuses 'a name to check without certificates' '--tls-peer a.example: needs --tls DIR' receive --from tcp: --tls-peer a.example
refuses 'reception from no address' '--from: tcp:\[x: ' receive --from 'tcp:[x'
refuses 'vsock without a cid' 'cid is missing' run --kernel kernel --vsock socket=s
refuses 'configuration missing' '--config none.json: open: No such file' run --config none.json
refuses 'configuration that is no JSON' '--config broken.json: line 2, column' run --config broken.json
refuses 'configuration with an unknown key' 'disk\[0\]: redonly: unknown key, did you mean readonly\?' run --config unknown.json
refuses 'configuration with a doubled key' '--config doubled.json: line 1, column .*duplicate' run --config doubled.json
refuses 'configuration that is a folder' '--config /: not a plain file' run --config /
refuses 'kernel missing' '--kernel none: open: No such file' run --kernel none
refuses 'kernel that is a folder' '--kernel /' run --kernel /
refuses 'kernel truncated' '--kernel truncated' run --kernel truncated
refuses 'kernel of garbage' '--kernel garbage' run --kernel garbage
refuses 'kernel of another architecture' '--kernel arm' run --kernel arm
XDG_RUNTIME_DIR=/proc/none refuses 'no place for the runtime folder' 'set XDG_RUNTIME_DIR' run --kernel kernel
XDG_RUNTIME_DIR=here refuses 'runtime folder not absolute' 'not an absolute path' run --kernel kernel

# skipped NAME REASON
skipped() {
	n=$((n + 1))
	echo "ok $n - $1 # SKIP $2"
}

# ---- restore and clone ----

refuses 'restore without a folder' '--from is missing; write --from DIR' restore
refuses 'restore from one file of two' '--memory is missing; a snapshot of two files needs both' restore --state base/state
refuses 'restore from the other one' '--state is missing; a snapshot of two files' restore --memory base/memory
refuses 'restore: a descriptor that is not open' '--ready-fd 77: Bad file descriptor' restore --from base --ready-fd 77
refuses 'a log in a folder' '--log: folder: Is a directory' run --kernel kernel --log folder
refuses 'a log of an unknown level' '--log level=warn: unknown value, did you mean warning\?' run --kernel kernel --log x,level=warn
refuses 'two levels of a log' '--verbose: cannot be combined with --log level=error' run --kernel kernel --log x,level=error --verbose
[ -e /run/systemd/journal/socket ] ||
	refuses 'a journal that is not there' '--log: journald: .*is systemd-journald there' run --kernel kernel --log journald
refuses 'metrics in a folder' '--metrics folder: Is a directory' run --kernel kernel --metrics folder
refuses 'metrics in no time' '--metrics every=0s: out of range' run --kernel kernel --metrics x,every=0s
refuses 'receive: a log in a folder' '--log: folder: Is a directory' receive --from unix:x --log folder
refuses 'metrics in no folder' '--metrics none/x: No such file' run --kernel kernel --metrics none/x
refuses 'restore: a log that cannot be written' '--log: folder: Is a directory' restore --from base --log folder
refuses 'clone of nothing' 'nothing to clone; write the name of a machine, or the folder' clone --count 2
refuses 'clone: no machine and no folder of this name' 'none: no machine of this name runs' clone none --count 2
refuses 'clone: folder missing' './none: does not exist; name the folder of a snapshot' clone ./none --count 2
refuses 'clone: not a snapshot' './folder: not a snapshot: no file "state"' clone ./folder
refuses 'clone: no machine, but a folder' 'snapshot-cut: state: damaged' clone snapshot-cut
refuses 'clone: none at all' '--count 0: ' clone base --count 0
refuses 'clone: too many' '--count 70000: ' clone base --count 70000
refuses 'clone: an option of restore alone' '--from: unknown option' clone --from base

# ---- snapshots in folders ----

for verb in "snapshot inspect" "snapshot verify" "restore --from"; do
	read -ra words <<<"$verb"
	refuses "$verb: folder missing" "none: does not exist; name the folder of a snapshot" "${words[@]}" none
	refuses "$verb: not a folder" "kernel: not a folder; name the folder" "${words[@]}" kernel
	refuses "$verb: not a snapshot" 'folder: not a snapshot: no file "state" in it' "${words[@]}" folder
	refuses "$verb: newer version" 'state: a snapshot of format version 2, this program knows 1; use the mvmm' "${words[@]}" snapshot-newer
	refuses "$verb: other architecture" 'another architecture .ELF machine 183.*restore it on a host' "${words[@]}" snapshot-arm
	refuses "$verb: state cut off" 'state: damaged: [0-9]+ bytes, of' "${words[@]}" snapshot-cut
	refuses "$verb: state with a byte changed" 'state: damaged: its checksum' "${words[@]}" snapshot-flipped
	refuses "$verb: memory of the wrong size" 'memory has 4227072 bytes, the snapshot.s is 4231168' "${words[@]}" snapshot-short
	refuses "$verb: memory that is elsewhere" 'memory is a symbolic link; put the file itself' "${words[@]}" snapshot-link
	refuses "$verb: description changed" 'machine.json is not what the state says' "${words[@]}" snapshot-words
	exec 8<.writing.new-abcdef
	flock 8
	refuses "$verb: folder that is being written" 'a snapshot is being written to it; wait' "${words[@]}" .writing.new-abcdef
	exec 8<&-
	refuses "$verb: what a dead writer left" 'not a snapshot: no file "state"' "${words[@]}" .writing.new-abcdef
done
refuses 'snapshot verify without a folder' 'a folder is missing; write mvmm snapshot verify DIR' snapshot verify
refuses 'restore: two files of which one is none' 'kernel: state: .*not the state of a snapshot' restore --state kernel --memory base/memory
refuses 'restore: two files that do not belong together' 'base/state: memory has' restore --state base/state --memory disk
refuses 'restore: a diff' 'diff: a diff, .*since the snapshot 01010101-.*; write mvmm snapshot merge' restore --from diff
refuses 'restore: a folder that others may write' 'shared: the folder may be written by others .* chmod go-w' restore --from shared
refuses 'restore: memory that others may write' 'open: memory may be written by others' restore --from open
refuses 'verify: memory lost' 'memory is damaged: the 2 MiB at offset 0 ' snapshot verify snapshot-holed
refuses 'snapshot merge without a place' '--to is missing' snapshot merge base diff
refuses 'snapshot merge of one' 'a folder is missing' snapshot merge base --to new
refuses 'a diff without its parent' 'later: a diff of 02020202-.*, but base is 01010101-.*in the order' snapshot merge base later --to new
refuses 'full snapshots that are merged' 'base: not a diff' snapshot merge diff base --to new
refuses 'a merge of damaged memory' 'snapshot-holed: memory is damaged' snapshot merge snapshot-holed diff --to new
refuses 'a merge to where something is' 'later: exists; add --replace' snapshot merge base diff --to later
refuses 'a merge to no snapshot' 'folder: is no snapshot and is not replaced' snapshot merge base diff --to folder --replace
refuses 'a merge to a folder that is none' 'none/new: its parent folder: No such file' snapshot merge base diff --to none/new
(
	ulimit -f 1
	refuses 'a merge that a limit does not allow' 'new: .*(File too large|larger than)' snapshot merge base diff --to new
)
n=$((n + 1))
exec 8<base/memory
flock -s 8
refuses 'a snapshot replaced that is mapped' 'base: its memory is mapped by a machine or read' snapshot merge base diff --to base --replace
exec 8<&-

# In the background of a shell that has not ignored it, before its first look at signals.
interrupted() {
	python3 -c 'import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
os.kill(os.getpid(), signal.SIGINT)
os.execv(sys.argv[1], sys.argv[1:])' "$mvmm" snapshot merge base diff --to new >"$work/out" 2>"$work/err"
	[ $? = 130 ] || { echo "not exit code 130"; cat "$work/err"; }
	left_behind
}
report 'Ctrl-C ends a merge, and nothing is left of it' "$(interrupted)"

no_space() {
	unshare -rm sh -c 'mount -t tmpfs -o size=16k mvmm "$3" && "$1" snapshot merge base diff --to "$3/new" 2>"$2"
		echo "$? $(ls -A "$3")"' _ "$mvmm" "$work/err" "$work/here/folder" 2>/dev/null
}
if unshare -rm mount -t tmpfs mvmm folder 2>/dev/null; then
	report 'no space: one line and nothing left' "$(
		[ "$(no_space)" = '2 ' ] || no_space
		grep -qE 'folder/new: (memory|kernel): no space left; free some' "$work/err" || cat "$work/err")"
else
	skipped 'no space: one line and nothing left' 'no right to mount'
fi

merged() {
	"$mvmm" snapshot merge base diff later --to new || echo "exit code $?"
	"$mvmm" snapshot verify new || echo "exit code $?"
	cmp <(head -c 4096 new/memory) <(head -c 4096 base/memory)
	"$mvmm" snapshot inspect new --json | python3 -c 'import json, sys
s = json.load(sys.stdin)
want = dict(parent=None, experimental=True, name="m", cpus=2, paused=True, files=["kernel"],
	devices=[dict(id="disk0", kind="disk", slot=1)], disks=[dict(id="disk0", size=65536, path="/a", copied=True)],
	created="2026-01-01T00:00:00Z", id="03030303-0303-0303-0303-030303030303", memory=dict(size=4231168, data=12288))
for key in want:
	if s.get(key) != want[key]: print(key, "is", s.get(key))'
	"$mvmm" snapshot inspect diff | grep -q '^diff of *01010101-.*; 2 pages' || "$mvmm" snapshot inspect diff
	rm -rf new
}
report 'merged snapshots verify and are shown' "$(merged | grep -vx 'new: .*')"
harmless() {
	local shown
	shown=$("$mvmm" snapshot inspect escapes) || echo "exit code $?"
	grep -q '^created  ?\[31mred??m, by mvmm' <<<"$shown" || cat -v <<<"$shown"
}
report 'what a snapshot says of itself is no order to the terminal' "$(harmless)"

# ---- machines ----

if [ -r /dev/kvm ] && [ -w /dev/kvm ]; then
	refuses 'initrd missing' '--initrd none: .*No such file' run --kernel kernel --initrd none
	refuses 'initrd larger than memory' '--initrd large: ' run --kernel kernel --initrd large --memory 128M
	refuses 'disk missing' '--disk none: no such file' run --kernel kernel --disk none
	refuses 'disk that is a folder' '--disk /tmp: ' run --kernel kernel --disk /tmp
	refuses 'a file that was to be written is not left' '--disk none' run --kernel kernel --disk none --serial file=new --console ./new2
	echo precious >old
	touch -d '1 minute ago' old
	refuses 'nor one overwritten' '--disk none' run --kernel kernel --disk none --serial file=old
	report 'what was in it is there' "$(grep -q precious old || echo no)"
	refuses 'tap missing' '--net tap=mvmm-none: ' run --kernel kernel --net tap=mvmm-none
	refuses 'unknown CPU feature' 'avx5122: unknown feature, did you mean -avx512' run --kernel kernel --cpu host,-avx5122

	# A machine that sits there, which has a name and a disk.
	"$mvmm" run --kernel kernel --memory 32M --disk disk --name first --serial none </dev/null 2>"$work/first" &
	first=$!
	for _ in {1..100}; do
		"$mvmm" ps | grep -q '^first .* running' && break
		sleep 0.1
	done
	left_behind() { find "$work/run" -mindepth 2 ! -path '*/first*'; }
	kept() {
		"$mvmm" snapshot first --to kept --disks none >/dev/null || echo "exit code $?"
		"$mvmm" snapshot verify kept || echo "exit code $?"
		"$mvmm" snapshot inspect kept | grep -xE '(machine +first, 1 CPU|memory +32 MiB, .* of it data|disks +disk0 .64 KiB, not kept here, .*disk.)' |
			wc -l | grep -x 3 || "$mvmm" snapshot inspect kept
	}
	report 'a snapshot of it verifies and is shown' "$(kept | grep -vxE '3|kept: .*')"
	refuses 'name in use' "--name first: in use by process $first" run --kernel kernel --name first
	refuses 'disk in use' '--disk disk: ' run --kernel kernel --disk disk
	report 'info tells the disk' "$("$mvmm" info first | grep -q 'id disk0, kind disk' || echo no)"
	report 'info gives JSON' "$("$mvmm" info --json first | grep -q '"memory": 33554432' || echo no)"
	"$mvmm" stop first --timeout 1 2>"$work/err"
	code=$?
	report 'stop says when the guest does not listen' "$([ $code = 1 ] || echo code; grep -q 'stop --force first' "$work/err" || cat "$work/err")"
	"$mvmm" pause first
	report 'ps tells that it is paused' "$("$mvmm" ps | grep -q '^first .* paused' || echo no)"
	"$mvmm" stop first --force
	code=$?
	report 'stop --force ends it' "$([ $code = 0 ] || echo code; [ -e "$work/run/mvmm/first" ] && echo folder)"
	wait $first || echo code >>"$work/first"
	report 'and the program with 0' "$(cat "$work/first")"
	"$mvmm" pause frist 2>"$work/err"
	code=$?
	report 'no such machine' "$([ $code = 1 ] || echo code; grep -q 'frist: no machine of this name runs' "$work/err" || cat "$work/err")"

	# Ends by signals, and after a crash the next one takes over without a word.
	# The shell ignores SIGINT for its jobs, and what its starter ignored the program ignores.
	for signal in INT HUP KILL; do
		env --default-signal=INT,HUP "$mvmm" run --kernel kernel --memory 32M --name second --serial none </dev/null 2>"$work/err" &
		second=$!
		for _ in {1..100}; do
			"$mvmm" ps | grep -q '^second .* running' && break
			sleep 0.1
		done
		kill -$signal $second
		wait $second 2>/dev/null
		code=$?
		report "SIG$signal ends it" "$([ $code = $((128 + $(kill -l $signal))) ] || echo code; cat "$work/err")"
	done
	report 'ps does not show the dead' "$("$mvmm" ps | grep second)"
	left_behind() { find "$work/run" -mindepth 2; }
	report 'and clears them away' "$(left_behind)"
else
	skipped 'what a machine refuses' 'no right to /dev/kvm'
fi

if [ ! -e /dev/kvm ]; then
	refuses 'no /dev/kvm' '/dev/kvm is not there: load the module' run --kernel kernel
elif [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null && ! setpriv --reuid 65534 --clear-groups test -w /dev/kvm; then
	mkdir -m 700 "$work/nobody"
	chmod 711 "$work"
	chown 65534 "$work/nobody"
	cp "$mvmm" "$work/mvmm"
	refuses_nobody() {
		local mvmm=$work/as-nobody
		printf '#!/bin/sh\nexec setpriv --reuid 65534 --clear-groups env XDG_RUNTIME_DIR=%s %s "$@"\n' "$work/nobody" "$work/mvmm" >"$mvmm"
		chmod +x "$mvmm"
		refuses "$@"
	}
	if setpriv --reuid 65534 --clear-groups test -x "$work/mvmm"; then
		refuses_nobody 'no right to /dev/kvm' '/dev/kvm: .* group' run --kernel kernel
	else
		skipped 'no right to /dev/kvm' 'the temporary folder is closed to other users'
	fi
else
	skipped 'no right to /dev/kvm' 'needs root, setpriv and a /dev/kvm that not everybody may use'
fi

# ---- the help, the man page and the completion ----

options_of() { "$mvmm" help --words "$1" | sed 's/ .*//'; }

missing_help() {
	local command option
	for command in $("$mvmm" help --words); do
		"$mvmm" --help | grep -q "^  $command " || echo "mvmm --help: $command"
		for option in $(options_of "$command"); do
			"$mvmm" "$command" --help | grep -q -- "^  $option" || echo "mvmm $command --help: $option"
		done
	done
}
report 'the help knows every command and option' "$(missing_help)"

missing_man() {
	local command option
	for command in $("$mvmm" help --words); do
		grep -q "^\.SS.* $command" "$root/docs/mvmm.1" || echo "$command"
		for option in $(options_of "$command"); do
			grep -qF -- "${option//-/\\-}" "$root/docs/mvmm.1" || echo "$command $option"
		done
	done
}
report 'the man page knows every command and option' "$(missing_man)"

# completes WANTED LINE : says when the completion offers something else for the end of the line.
completes() {
	local got
	got=$(PATH=$(dirname "$mvmm"):$PATH bash -c '
		source "$1"; COMP_LINE=$2; COMP_POINT=${#2}
		_mvmm; printf "%s\n" "${COMPREPLY[@]}"' _ "$root/docs/mvmm.bash" "mvmm $2" | sort | paste -sd' ')
	[ "$got" = "$1" ] || echo "mvmm $2: offers \"$got\", not \"$1\""
}
report 'the completion offers what there is' "$(
	completes 'pause ps' p
	completes 'clone ctrl-alt-del' c
	completes '--memory' 'run --mem'
	completes 'exit reboot' 'run --on-reboot '
	completes 'off on' 'run --balloon='
	completes 'mmio pci' 'run --transport '
	completes 'disk,readonly=' 'run --cpus 2 --disk disk,reado'
	completes 'off on' 'run --disk disk,readonly='
	completes '1G' 'run --memory 512M,hugepages=1'
	completes 'garbage' 'run --kernel gar'
	completes 'passt passt=' 'run --net pas'
	completes '--timeout' 'stop --t'
	completes 'cancel stop-and-copy' 'migrate --on-timeout '
	completes 'none zstd' 'migrate --compress='
	completes '--serial' 'receive --ser'
	completes 'resume' 'help resu'
	completes 'unbind' 'vfio unb'
	completes "$(ls /sys/bus/pci/devices 2>/dev/null | sed -n 's/^0000:00://p' | sort | paste -sd' ')" 'vfio bind --group 0000:00:'
	completes '' 'vfio list '
	completes 'inspect' 'snapshot ins'
	completes 'folder' 'snapshot verify fol'
	completes 'folder' 'snapshot merge fol'
	completes 'folder' 'snapshot merge folder folder fol'
)"

report 'the version is told' "$("$mvmm" --version | grep -vxE 'mvmm [0-9]+\.[0-9]+\.[0-9]+')"
report 'nothing runs' "$("$mvmm" ps --json | tr -d '[] \n')"
echo "1..$n"
