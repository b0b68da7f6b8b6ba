#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Snapshots under the real program and the real /dev/kvm: taken, given up, restored, taken of what was restored. The guests
# check themselves: one its registers and timers all the time, one each page of the pass before. TAP on stdout.
# usage: snapshots.sh MVMM GUEST-DIRECTORY

# shellcheck source=tests/kvm/lib.sh
. "$(dirname "$0")/lib.sh"

# begin NAME GUEST OPTION...: a machine that is asked by the fifo NAME.in.
begin() {
	local name=$1 guest=$2
	shift 2
	start "$name" run --kernel "$guests/guest_$guest" "$@"
}

# start NAME COMMAND OPTION...
start() {
	local name=$1 command=$2
	shift 2
	[ -p "$work/$name.in" ] || mkfifo "$work/$name.in"
	"$mvmm" "$command" --name "$name" "$@" <>"$work/$name.in" >"$work/$name.log" 2>"$work/$name.err" &
	pids+=($!)
	pid=$!
}

restore() {
	local name=$1 from=$2
	shift 2
	start "$name" restore --from "$work/$from" "$@"
	until_true 20 runs "$name"
}

runs() { "$mvmm" info "$1" 2>/dev/null | grep -q "^state *${2:-running}"; }
gone() { ! "$mvmm" info "$1" >/dev/null 2>&1; }
snapshot() { timeout -s KILL $((60 * patience)) "$mvmm" snapshot "$@" >"$work/out" 2>"$work/err"; }

# ends_well NAME: the guest that travels looks at everything and says so.
ends_well() {
	printf e >"$work/$1.in"
	until_true 20 says "$1.log" '^good' && until_true 20 gone "$1" && ! says "$1.err" .
}

# works NAME: the guest that counts passes is some further, and has found nothing wrong.
works() {
	local before
	before=$(stat -c %s "$work/$1.log")
	further() { [ "$(stat -c %s "$work/$1.log")" -gt "$before" ]; }
	until_true 20 further "$1" && ! says "$1.log" WRONG
}

# refuses PATTERN COMMAND...: one line on stderr that has the pattern, exit code 2.
refuses() {
	local pattern=$1 code
	shift
	timeout -s KILL $((20 * patience)) "$@" >"$work/out" 2>"$work/err" </dev/null
	code=$?
	[ $code = 2 ] && [ "$(wc -l <"$work/err")" = 1 ] && grep -q -- "$pattern" "$work/err"
}

not() { ! "$@"; }
nothing_of_temporary() { ! find "$work" -maxdepth 1 -name ".$1.*" | grep -q .; }
nothing_of() { [ ! -e "$work/$1" ] && nothing_of_temporary "$1"; }
# whole NAME: the folder is complete, or nothing is there
whole() { if [ -e "$work/$1" ]; then "$mvmm" snapshot verify "$work/$1" >/dev/null; else nothing_of "$1"; fi; }

# ---- taken and restored ----

begin first travel --cpus 2 --memory 64M
until_true 20 says first.log ready
check 'a running machine is kept in a folder' snapshot first --to "$work/snap"
check '... which is nobody else'\''s' test "$(stat -c %a "$work/snap" "$work/snap"/* | sort -u | tr '\n' ' ')" = '600 700 '
check '... whose memory has the size of RAM' test "$(stat -c %s "$work/snap/memory")" = $((64 << 20))
check '... but not its blocks' test "$(stat -c %b "$work/snap/memory")" -lt 4096
check '... which verifies' "$mvmm" snapshot verify "$work/snap"
check 'the machine goes on' ends_well first
restore one snap
restore two snap
check 'two machines are made of it, at once' ends_well one
check '... and both are as it was' ends_well two
restore one snap
check 'a restored machine is kept, too' snapshot one --to "$work/child"
restore two child
check '... and restored' ends_well two
check '... and goes on' ends_well one
check 'nothing is written into the folder' "$mvmm" snapshot verify "$work/snap"

begin first pattern --memory 64M --cmdline pages=4096
until_true 20 says first.log begins
check 'a machine that writes all its memory is kept' snapshot first --to "$work/pages" --json
check '... and its pause is told' grep -q '"pause": 0\.' "$work/out"
restore one pages
check '... and goes on where it was' works one
check '... and here' works first
"$mvmm" receive --from "unix:$work/sock" --name moved --serial "file=$work/moved.log" </dev/null 2>"$work/moved.err" &
pids+=($!)
until_true 20 says moved.err waiting
check 'a restored machine moves to another host' timeout $((60 * patience)) "$mvmm" migrate one --to "unix:$work/sock" --downtime $((2 * patience))s
check '... and finds all its memory there' works moved
"$mvmm" stop --force moved

mkdir "$work/there"
truncate -s 1M "$work/there/disk"
cd "$work/there" || exit 1
begin second idle --memory 32M --disk disk
until_true 20 runs second
check 'a machine is kept with a disk that it found in its folder' snapshot second --to ../relative --disks none --stop
cd "$work" || exit 1
start one restore --from "$work/relative"
check '... and finds it from another one' until_true 20 runs one
"$mvmm" stop --force one

# ---- paused, stopped, rebooted ----

"$mvmm" pause first
check 'a paused machine is kept' snapshot first --to "$work/paused"
check '... and stays paused' runs first paused
start one restore --from "$work/paused"
check '... and is paused when it is restored' until_true 20 runs one paused
"$mvmm" resume one
check '... until it is resumed' works one
"$mvmm" stop --force one
start one restore --from "$work/pages" --paused
check 'a machine is paused after its restore if that is asked for' until_true 20 runs one paused
"$mvmm" resume one
check '... and runs when it is resumed' works one
"$mvmm" stop --force one
"$mvmm" resume first
check 'a machine ends with its snapshot if that is asked for' snapshot first --to "$work/last" --stop
check '... and has gone' gone first
restore one last
check '... into the folder' works one
"$mvmm" stop --force one

begin first reboot --memory 32M --on-reboot reboot --cmdline wait
until_true 20 says first.log up
kept() { "$mvmm" pause first && snapshot first --to "$work/reboots"; }
check 'a guest that reboots is kept between two of them' kept
"$mvmm" stop --force first
typed() { printf x 1<>"$work/one.in"; } # without a reader, opening it to write alone would wait
lives() { typed; [ "$(grep -c up "$work/one.log")" -ge 2 ]; }
ends() { typed; gone one; }
start one restore --from "$work/reboots" --kernel "$guests/guest_reboot"
until_true 20 runs one paused
"$mvmm" resume one
check 'a restored machine boots again, with the kernel that was named' until_true 20 lives
"$mvmm" stop --force one
mkdir "$work/parts"
cp --reflink=auto "$work/reboots"/* "$work/parts"
cp "$guests/guest_reboot" "$work/parts/kernel"
start one restore --from "$work/parts"
until_true 20 runs one paused
mv "$work/parts" "$work/moved"
"$mvmm" resume one
check 'or with the one kept in a folder that has gone elsewhere' until_true 20 lives
"$mvmm" stop --force one
mv "$work/moved/kernel" "$work/moved/initrd"
start one restore --from "$work/moved"
check 'an initrd without a kernel is nothing' until_true 20 runs one paused
"$mvmm" stop --force one
start one restore --from "$work/reboots"
until_true 20 runs one paused
"$mvmm" resume one
check 'without a kernel a reboot ends it' until_true 20 ends
check '... which is said' until_true 20 says one.err 'mvmm restore --kernel FILE'

# ---- given up ----

begin first pattern --memory 512M --cmdline pages=100000
until_true 60 says first.log 'passes\|begins'
size_limit() { prlimit --pid "$pid" --fsize="$1:"; }
size_limit $((100 << 20))
check 'a snapshot for which there is no room fails' not snapshot first --to "$work/full"
size_limit unlimited
check '... and leaves nothing' nothing_of full
check '... and the machine goes on' works first
if mkdir "$work/small" && mount -t tmpfs -o size=4m none "$work/small" 2>/dev/null; then
	check 'a file system that is full is the wrong place' refuses 'No space left.*; free some space, or choose a folder' \
		"$mvmm" snapshot first --to "$work/small/full"
	check '... on which nothing is left' nothing_of small/full
	umount "$work/small"
fi
timeout -s INT 0.05 "$mvmm" snapshot first --to "$work/gone" >"$work/out" 2>"$work/err"
check 'Ctrl-C leaves nothing, or all of it' whole gone
timeout --preserve-status -s TERM 0.05 "$mvmm" snapshot first --to "$work/gone3" >"$work/out" 2>"$work/err"
code=$?
told() { if [ -e "$work/gone3" ]; then [ $code = 0 ]; else [ $code = 143 ]; fi; }
check 'another signal does, too, and the exit code tells which' told
timeout -s KILL 0.05 "$mvmm" snapshot first --to "$work/gone2" >"$work/out" 2>"$work/err"
free() { runs first; }
check 'the death of the command gives the snapshot up' until_true 20 free
check '... and the machine goes on' works first
check '... and the next snapshot removes what was left' snapshot first --to "$work/gone2" --replace
check '... before it' nothing_of_temporary gone2
"$mvmm" stop --force first

# ---- what is refused ----

begin first echo --memory 32M
until_true 20 runs first
check 'a folder that exists is not replaced' refuses 'exists; add --replace' "$mvmm" snapshot first --to "$work/snap"
check 'a snapshot is' snapshot first --to "$work/snap" --replace
restore one snap
check '... but not while a machine has its memory' refuses 'mapped by a machine' "$mvmm" snapshot first --to "$work/snap" --replace
check 'a name in use' refuses 'one' "$mvmm" restore --from "$work/snap" --name one
check 'a folder that is missing' refuses 'does not exist' "$mvmm" restore --from "$work/nothing"
check 'a folder that is none' refuses 'not a snapshot' "$mvmm" restore --from "$work"
chmod g+w "$work/snap/memory"
check 'a file that others may write' refuses 'may be written' "$mvmm" restore --from "$work/snap" --name two
chmod g-w "$work/snap/memory"
"$mvmm" receive --from "unix:$work/sock2" --name there </dev/null >/dev/null 2>"$work/there.err" &
pids+=($!)
until_true 20 says there.err waiting
kill -STOP $!
"$mvmm" migrate first --to "unix:$work/sock2" >/dev/null 2>&1 &
until_true 20 runs first migrating
check 'a machine that migrates' not snapshot first --to "$work/moving"
check '... which is said' grep -q 'is being migrated' "$work/err"
check '... and nothing is left of that' nothing_of moving
"$mvmm" migrate first --cancel
echo "1..$n"
