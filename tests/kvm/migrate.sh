#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Tiny guests that go from process to process under the real program and the real /dev/kvm. The guest writes numbers into its
# pages and checks those of the pass before, so it finds a page that was lost or came late. TAP on stdout.
# usage: migrate.sh MVMM GUEST-DIRECTORY

# shellcheck source=tests/kvm/lib.sh
. "$(dirname "$0")/lib.sh"
hop=0 # of the machine that runs: it is called m$hop, and so are its files

size_of() { stat -c %s "$work/$1"; }
larger() { [ "$(size_of "$1")" -gt "$2" ]; }

# begin GUEST OPTION...: the first machine.
begin() {
	local guest=$1
	shift
	hop=$((hop + 1))
	"$mvmm" run --kernel "$guests/guest_$guest" --name m$hop --serial "file=$work/m$hop.log" "$@" </dev/null 2>"$work/m$hop.err" &
	pids[hop]=$!
	until_true 20 says m$hop.log 'begins\|waiting\|up'
}

# receive ADDRESS OPTION...: the next machine's process, which listens when this returns.
receive() {
	local address=$1 next=$((hop + 1))
	shift
	rm -f "$work/m$next.err" # of one that has ended
	(ulimit -v "${room:-unlimited}" &&
		exec "$mvmm" receive --from "$address" --name m$next --serial "file=$work/m$next.log" "$@" </dev/null 2>"$work/m$next.err") &
	pids[next]=$!
	until_true 20 says m$next.err waiting
}

# migrate ADDRESS OPTION...: to where the next one waits; true when the guest has gone there. How long that takes is no matter
# here: a busy machine has the time it needs.
migrate() {
	local address=$1 code
	shift
	case " $* " in *' --downtime '*) ;; *) set -- "$@" --downtime $((2 * patience))s ;; esac
	set -- "$@" --downtime-limit $((100 * patience))s
	timeout -s KILL $((60 * patience)) "$mvmm" migrate m$hop --to "$address" "$@" >"$work/out" 2>"$work/err"
	code=$?
	[ $code = 0 ] || return 1
	wait "${pids[hop]}" || return 1 # the source ends with 0
	hop=$((hop + 1))
	cat "$work/out" >>"$work/summaries"
}

# Ends the guest, which tells whether its memory was right all the time.
end_well() {
	local code
	timeout -s KILL $((60 * patience)) "$mvmm" stop m$hop 2>"$work/err"
	wait "${pids[hop]}"
	code=$?
	[ $code = 0 ] && says m$hop.log 'passes .*, wrong 00000000' && ! grep -q WRONG "$work"/m*.log
}

# there_and_back TIMES ADDRESS [ADDRESS-OF-THE-SOURCE]: fewer times on a slow machine
there_and_back() {
	local i
	for i in $(seq $((($1 + patience - 1) / patience))); do
		receive "$2" && migrate "${3:-$2}" --downtime $((2 * patience))s && until_true 20 larger m$hop.log 0 || return 1
	done
}

# ---- whole memory, compared from outside: a guest that only waits ----

# read_memory PID ADDRESS BYTES
read_memory() { dd if="/proc/$1/mem" bs=1M iflag=skip_bytes,count_bytes skip="$2" count="$3" status=none; }

# memory_sum PID: of the largest anonymous mapping of the process, which is the guest's RAM; but for the page of vmclock, which
# each host writes.
memory_sum() {
	local range rest name start end best=0 most=0
	while read -r range rest _ _ _ name; do
		start=$((0x${range%-*})) end=$((0x${range#*-}))
		if [ -z "$name" ] && [ $((end - start)) -gt $most ]; then
			best=$start most=$((end - start))
		fi
	done <"/proc/$1/maps"
	{ read_memory "$1" "$best" $((0xfe000)) && read_memory "$1" $((best + 0xff000)) $((most - 0xff000)); } | sha256sum
}

begin pattern --memory 64M --cmdline pages=4096
check 'a guest goes by a UNIX socket' there_and_back 1 "unix:$work/sock"
check 'and from process to process' there_and_back 5 "unix:$work/sock"
check 'by TCP' there_and_back 3 tcp:127.0.0.1:7152
check 'the summary tells downtime and stall' grep -qE '^downtime [0-9.]+ ms, predicted [0-9.]+ ms; no CPU ran for [0-9.]+ ms' "$work/out"
"$mvmm" pause m$hop
receive "unix:$work/sock"
check 'a paused machine goes' migrate "unix:$work/sock"
check '... which is said' grep -q '^it was paused and stays paused' "$work/out"
check '... and is paused there' grep -q paused <("$mvmm" ps)
receive "unix:$work/sock"
check '... and goes on from there' migrate "unix:$work/sock"
check '... and has not run meanwhile' test ! -s "$work/m$hop.log"
"$mvmm" resume m$hop
check '... until it is resumed' until_true 20 larger m$hop.log 0
check 'nothing was lost on the way' end_well
check 'names and folders are free' test -z "$(ls -A "$XDG_RUNTIME_DIR/mvmm")"

begin pattern --memory 128M --cpus 2 --cmdline pages=8192
check 'two CPUs, four streams, four times' there_and_back 4 "unix:$work/sock"
receive tcp:127.0.0.1:7152
check 'compressed, one stream' migrate tcp:127.0.0.1:7152 --streams 1 --compress zstd --downtime $((2 * patience))s
"$(dirname "$0")/../certificates" "$work/pki"
# turned_away WORDS OPTION...: the target does not let the source in, which says why; the guest stays.
turned_away() {
	local words=$1
	shift
	! timeout -s KILL $((60 * patience)) "$mvmm" migrate m$hop --to tcp:127.0.0.1:7153 "$@" >"$work/out" 2>"$work/err" && grep -q "$words" "$work/err"
}
receive tcp:127.0.0.1:7153 --tls "$work/pki/good"
check 'an expired certificate is turned away' turned_away 'our certificate has expired' --tls "$work/pki/expired"
check '... and the target says so' says "m$((hop + 1)).err" "the source's certificate has expired"
check 'a certificate of another CA is turned away' turned_away 'is not signed by our ca.pem' --tls "$work/pki/stranger"
check 'a source without TLS is turned away' turned_away 'it accepts TLS only'
check 'the right one comes in, encrypted' migrate tcp:127.0.0.1:7153 --tls "$work/pki/other" --downtime $((2 * patience))s
meson install -C "$guests/../.." --no-rebuild --quiet --destdir "$work/installed" >"$work/out" 2>"$work/err"
built=$mvmm mvmm=$(find "$work/installed" -path '*/bin/mvmm')
receive "unix:$work/sock" --tls "$work/pki/good"
check 'the program as it is installed finds its helper' migrate "unix:$work/sock" --tls "$work/pki/other" --downtime $((2 * patience))s
receive tcp:127.0.0.1:7153 --tls "$work/pki/good"
check '... on either side' migrate tcp:127.0.0.1:7153 --tls "$work/pki/other" --downtime $((2 * patience))s
mvmm=$built
receive "unix:$work/sock"
check 'the object has what the sentences tell' migrate "unix:$work/sock" --json --downtime $((2 * patience))s
for member in '"state": "done"' '"downtime": 0\.' '"stall": 0\.' '"predicted": [0-9]' '"round": [1-9]' '"save": 0\.'; do
	check "... $member" grep -q "$member" "$work/out"
done
check 'nothing was lost on the way' end_well

# The link is a quarter as fast as the guest writes its 8 MiB, however busy the host is, and the downtime takes half of them.
begin pattern --memory 64M --cmdline pages=2048
until_true 20 says m$hop.log '[.]'
size=$(size_of m$hop.log) start=${EPOCHREALTIME/[.,]/}
until_true 60 larger m$hop.log $((size + 3))
link=$((($(size_of m$hop.log) - size) * 2048 * 1000000 / (${EPOCHREALTIME/[.,]/} - start))) # KiB a second
link=$((link < 64 ? 64 : link > 40960 ? 40960 : link))
receive "unix:$work/sock"
check 'a guest that writes faster than the link is slowed down until it fits' \
	migrate "unix:$work/sock" --bandwidth ${link}K --downtime $((4096 * 1000 / link))ms --timeout $((50 * patience))s --throttle-max 99
check '... and it is told' says err 'throttled [1-9][0-9]* %.*dirtying .* sending '
check '... no longer than it takes' until_true 20 grep -q '[.][.][.][.]' "$work/m$hop.log"
check '... and nothing is lost' end_well

# ---- whole memory: a guest that waits without writing ----

begin button --memory 64M
before=$(memory_sum "${pids[hop]}")
receive "unix:$work/sock"
check 'a guest that waits goes' migrate "unix:$work/sock"
check 'its memory is the same, all of it' test "$before" = "$(memory_sum "${pids[hop]}")"
mvmm_stop() { timeout -s KILL $((60 * patience)) "$mvmm" stop m$hop && wait "${pids[hop]}"; }
check 'it hears its power button there' mvmm_stop

# ---- migrations that do not take place; each leaves the guest where it is ----

# stays PATTERN: the command that was in the background failed with these words, the target with them too, and the guest goes on.
stays() {
	local size code
	wait "$command"
	code=$?
	[ $code != 0 ] || return 1
	wait "${pids[hop + 1]}" && return 1
	grep -qE "$1" "$work/err" && grep -qE "$1" "$work/m$((hop + 1)).err" || return 1
	[ -e "/proc/${pids[hop]}" ] || return 1
	size=$(size_of m$hop.log)
	until_true 20 larger m$hop.log "$size"
}

# slowly OPTION...: a migration that does not end by itself, in the background, until memory is under way. However little the
# guest writes: a page takes 60 ms on this link, and the downtime is 1 ms.
slowly() {
	receive "unix:$work/sock"
	"$mvmm" migrate m$hop --to "unix:$work/sock" --bandwidth 64K --downtime 1ms "$@" >"$work/out" 2>"$work/err" &
	command=$!
	pids[99]=$command
	until_true 20 status memory
}

status() { "$mvmm" migrate m$hop --status 2>/dev/null | grep -q "^$1"; }

begin pattern --memory 64M --cmdline pages=1024 --balloon on
slowly
check 'info tells that it is being migrated' grep -q migrating <("$mvmm" info m$hop)
check 'a second migration is refused' grep -q 'is being migrated' <("$mvmm" migrate m$hop --to unix:/none 2>&1)
check 'so is a pause' grep -q 'is being migrated' <("$mvmm" pause m$hop 2>&1)
check 'so is a device' grep -q 'is being migrated' <("$mvmm" disk add m$hop "$mvmm,readonly=on" 2>&1)
check 'its balloon goes on' "$mvmm" balloon m$hop --size 1M
check 'the target tells that it is arriving' grep -q arriving <("$mvmm" info m$((hop + 1)))
check 'and has no balloon to set yet' grep -q 'still arriving' <("$mvmm" balloon m$((hop + 1)) --size 32M 2>&1)
"$mvmm" migrate m$hop --cancel
check 'cancelled, and the guest goes on' stays cancelled
check 'the status tells why' grep -q cancelled <("$mvmm" migrate m$hop --status)
slowly
kill -INT $command
check 'Ctrl-C cancels' stays cancelled
check '... with the exit code of a signal' test "$(wait $command; echo $?)" = 130
slowly
kill -KILL $command
wait $command 2>/dev/null
"$mvmm" migrate m$hop --cancel
check 'it goes on without its command, until it is cancelled' grep -q cancelled <(until_true 20 status failed; "$mvmm" migrate m$hop --status)
slowly --timeout 1s
check 'a time-out says so' stays 'not done within 1 s'
slowly
kill -TERM "${pids[hop + 1]}"
wait $command
check 'a target that is ended says so' grep -q 'the target was ended' "$work/err"
check '... and the guest goes on' until_true 20 larger m$hop.log "$(size_of m$hop.log)"
wait "${pids[hop + 1]}"
code=$?
check '... and it ends as by any signal' test "$code" = 143
slowly
kill -KILL "${pids[hop + 1]}"
wait $command
code=$?
check 'a target that dies' test "$code" = 1
check '... and the guest goes on' until_true 20 larger m$hop.log "$(size_of m$hop.log)"
next=$((hop + 1))
rm -f "$work/m$next.err"
"$mvmm" receive --from "unix:$work/sock" --name m$hop --serial none </dev/null 2>"$work/m$next.err" &
pids[next]=$!
until_true 20 says m$next.err waiting
"$mvmm" migrate m$hop --to "unix:$work/sock" >"$work/out" 2>"$work/err" &
command=$!
check 'a name that is taken there' stays "a machine named m$hop runs there already"
room=60000 receive "unix:$work/sock"
"$mvmm" migrate m$hop --to "unix:$work/sock" >"$work/out" 2>"$work/err" &
command=$!
check 'no address space for its memory there' stays 'memory 64M: .*Cannot allocate memory'
timeout -s KILL $((60 * patience)) "$mvmm" migrate m$hop --to unix:/none/such >"$work/out" 2>"$work/err"
check 'nobody there' grep -q '/none/such' "$work/err"
receive "unix:$work/sock"
check 'and then it goes' migrate "unix:$work/sock" --bandwidth 4M --timeout 1s --on-timeout stop-and-copy
check 'nothing was lost by all this' end_well

begin pattern --memory 64M --cmdline pages=1024
slowly
"$mvmm" stop m$hop --timeout 20 2>>"$work/err" &
stop=$!
wait $command
check 'the power button wins over a migration' grep -q 'power button was pressed' "$work/err"
wait $stop
check '... and the guest heard it' says m$hop.log 'wrong 00000000'

for end in 'powered off' rebooted; do
	begin pattern --memory 64M --cmdline "pages=1024 pause=20 passes=20 $end"
	slowly
	wait $command
	check "a guest that $end meanwhile does not go" grep -q "the guest $end" "$work/err"
	wait "${pids[hop + 1]}"
	check '... and the target is told' says m$((hop + 1)).err "the guest $end"
done
check '... and it boots again here' until_true 20 eval '[ "$(grep -c begins "$work/m$hop.log")" = 2 ]'
"$mvmm" stop --force m$hop

# ---- a disk that goes along, while its guest writes to it ----

# along OPTION...: the machine goes on, with its disk, whose file is called d$hop.
along() {
	receive "unix:$work/sock" --disk "disk0=$work/d$((hop + 1))" && migrate "unix:$work/sock" --copy-disks --downtime $((2 * patience))s "$@"
}

# The guest writes to the first 4 MiB alone.
rest_is_the_same() { cmp -i 4194304 "$work/original" "$work/d$hop"; }

# refused WORDS: the target that was begun does not take the disk; the guest stays.
refused() {
	! timeout -s KILL $((60 * patience)) "$mvmm" migrate m$hop --to "unix:$work/sock" --copy-disks >"$work/out" 2>"$work/err" &&
		grep -q "$1" "$work/err" && ! wait "${pids[hop + 1]}" && grep -q "$1" "$work/m$((hop + 1)).err"
}

truncate -s 48M "$work/original"
dd if=/dev/urandom of="$work/original" bs=1M seek=5 count=12 conv=notrunc status=none
dd if=/dev/urandom of="$work/original" bs=1000 seek=40000 count=5000 conv=notrunc status=none
cp --sparse=always "$work/original" "$work/d$((hop + 1))"
begin disk --memory 64M --disk "$work/d$((hop + 1))"
check 'a guest goes with its disk' along
check '... which is the same there' rest_is_the_same
check '... and has as many holes' test "$(du -k "$work/d$hop" | cut -f1)" -lt 30000
check '... and the summary tells what of it was the disk' grep -qE '^migrated .* sent, [12][0-9] MiB of it from disks' "$work/out"
check 'compressed memory does not touch it' along --compress zstd --streams 1
check 'and on with a cap' along --bandwidth 40M
check '... the line tells what is left of it' says err ', disks [0-9.]* [KM]iB left'
receive "unix:$work/sock"
check 'a disk that was not named is not made' refused 'it was not told to; add --disk disk0=PATH there, or --disk-dir DIR'
receive "unix:$work/sock" --disk-dir "$guests"
check '... nor where the source may not choose it' refused 'add --disk disk0=PATH there$'
receive "unix:$work/sock" --disk-dir "$work"
check 'a file that is there and was not named stays' refused "disk disk0: .*/d$hop: exists; mvmm receive --disk disk0=PATH overwrites"
truncate -s 1M "$work/d$((hop + 1))"
receive "unix:$work/sock" --disk "disk0=$work/d$((hop + 1))"
check 'so does one of another size' refused 'has 1048576 bytes, but the source.s disk has 50331648'
receive "unix:$work/sock" --disk "disk0=$work/d$hop"
check 'so does the disk itself' refused 'in use by another mvmm'
tr '\0' x </dev/zero | head -c 48M >"$work/d$((hop + 1))"
check 'one of the same size that was named is overwritten' along
check '... all of it' rest_is_the_same
receive "unix:$work/sock" --disk "disk0=$work/none/d"
check 'a place that is not there is named' refused 'none/d: cannot be created: No such file or directory'
receive "unix:$work/sock" --disk "disk0=$work/cancelled"
"$mvmm" migrate m$hop --to "unix:$work/sock" --copy-disks --bandwidth 64K --downtime 1ms >"$work/out" 2>"$work/err" &
command=$!
pids[99]=$command
until_true 20 status memory
check 'a file is made' test "$(stat -c %s:%a "$work/cancelled")" = 50331648:600
"$mvmm" migrate m$hop --cancel
wait $command
wait "${pids[hop + 1]}"
check '... and goes when it is not needed' test ! -e "$work/cancelled"
check 'what has no time is copied while it stands' along --bandwidth 8M --timeout 1s --on-timeout stop-and-copy
check '... whole' rest_is_the_same
check 'a machine tells what of it were disks' along --json
check '... what was sent' says out '"disk_sent": [1-9]'
check '... and what was left' says out '"disk_left": [0-9]'
check 'nothing was lost on the way' end_well

head -c 1M /dev/urandom >"$work/ro"
begin disk --memory 64M --disk "$work/d$hop" --disk "$work/ro,readonly=on"
receive "unix:$work/sock" --disk "disk0=$work/d$((hop + 1))" --disk "disk1=$work/ro2"
check 'a read-only disk goes along where that is asked for' migrate "unix:$work/sock" --copy-disks --copy-readonly
check '... and is the same there' cmp "$work/ro" "$work/ro2"
"$mvmm" stop m$hop 2>>"$work/err"
wait "${pids[hop]}"

echo "1..$n"
