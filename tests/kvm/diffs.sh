#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Snapshots of a guest at work: live ones, diffs, and diffs of what was restored. The guest writes numbers into its pages and
# checks those of the pass before, so it finds a page that is missing or of another moment. TAP on stdout.
# usage: diffs.sh MVMM GUEST-DIRECTORY

# shellcheck source=tests/kvm/lib.sh
. "$(dirname "$0")/lib.sh"

quick() { timeout -s KILL $((60 * patience)) "$mvmm" "$@" >"$work/out" 2>"$work/err"; }

# begin NAME MEMORY: a machine whose guest writes without end
begin() {
	local name=$1
	"$mvmm" run --kernel "$guests/guest_pattern" --cmdline 'pages=3000' --memory "$2" --name "$name" \
		--serial "file=$work/$name.log" </dev/null 2>"$work/$name.err" &
	pids+=($!)
	until_true 20 grep -qs 'begins\|huge pages' "$work/$name.log" "$work/$name.err"
	says "$name.log" begins
}

# restore SNAPSHOT NAME OPTION...
restore() {
	local from=$work/$1 name=$2
	shift 2
	"$mvmm" restore --from "$from" --name "$name" --serial "file=$work/$name.log" "$@" </dev/null 2>"$work/$name.err" &
	pids+=($!)
	until_true 20 quick info "$name"
}

# end_well NAME: the guest ends, and its memory was right all the time
end_well() {
	quick stop "$1" && says "$1.log" 'passes .*, wrong 00000000' && ! grep -q WRONG "$work/$1.log"
}

snap() { quick snapshot "$1" --to "$work/$2" "${@:3}"; }

# well SNAPSHOT: whoever is restored from it goes on well
well() {
	quick snapshot verify "$work/$1" && restore "$1" "of-$1" && quick resume "of-$1" && pause 0.2 && end_well "of-$1"
	local good=$?
	rm -f "$work/of-$1".*
	return $good
}

# like_memory NAME SNAPSHOT...: the machine is paused; these merged are what its memory is
like_memory() {
	local name=$1 good
	shift
	rm -rf "$work/full" "$work/merged"
	snap "$name" full "${keep[@]}" && quick snapshot merge "${@/#/$work/}" --to "$work/merged" &&
		cmp "$work/full/memory" "$work/merged/memory" && quick snapshot verify "$work/merged"
	good=$?
	rm -rf "$work/full" "$work/merged"
	return $good
}

live_while_it_writes() {
	for i in 1 2 3; do
		snap a "live$i" --live && well "live$i" || return
	done
}

refused_without_track() {
	! snap a none --diff && says err '\-\-track' && ! [ -e "$work/none" ]
}

a_chain() {
	keep=(--track)
	snap a base --track && pause 0.1 && snap a d1 --diff && pause 0.1 && snap a d2 --diff --live && pause 0.1 &&
		quick pause a && snap a d3 --diff && like_memory a base d1 d2 d3 && quick resume a &&
		quick snapshot merge "$work/base" "$work/d1" "$work/d2" --to "$work/m2" && well m2 && well base
}

# What a migration has collected belongs to the next diff, too.
after_a_migration_that_failed() {
	keep=(--track)
	"$mvmm" receive --from "unix:$work/there" --name there </dev/null 2>"$work/there.err" &
	pids+=($!)
	snap a base2 --track && pause 0.1 && ! quick migrate a --to "unix:$work/nobody" && until_true 20 says there.err waiting && ! quick migrate a --to "unix:$work/there" --bandwidth 1M --timeout 1s &&
		pause 0.1 && quick pause a && snap a d4 --diff && like_memory a base2 d4 && quick resume a
}

# Somebody ends the asker.
given_up() {
	local asker
	keep=(--track)
	snap a base3 --track && pause 0.1 || return
	"$mvmm" snapshot a --to "$work/never" --diff --live --downtime 1ms </dev/null >/dev/null 2>&1 &
	asker=$!
	pause 0.02
	kill -INT $asker 2>/dev/null
	wait $asker
	pause 0.1
	rm -rf "$work/never"
	quick pause a && if snap a d5 --diff; then like_memory a base3 d5; else false; fi && quick resume a
}

of_a_clone() {
	keep=()
	restore base c && pause 0.2 && snap c dc1 --diff && quick snapshot merge "$work/base" "$work/dc1" --to "$work/mc1" && well mc1 &&
		snap c dc2 --diff --live && quick snapshot merge "$work/base" "$work/dc2" --to "$work/mc2" && well mc2 &&
		snap c lc --live && well lc && snap c fc && well fc &&
		quick pause c && snap c dc3 --diff && like_memory c base dc3 && quick resume c && end_well c
}

of_a_clone_of_a_clone() {
	keep=(--track)
	restore mc1 cc && pause 0.2 && snap cc dd1 --diff --track && pause 0.1 && quick pause cc && snap cc dd2 --diff &&
		like_memory cc mc1 dd1 dd2 && quick resume cc && end_well cc
}

begin a 64M
check 'a live snapshot of a guest that writes is of one moment' live_while_it_writes
check 'a diff without a parent is refused, and names the option' refused_without_track
check 'a chain of diffs is what memory is' a_chain
check 'a migration that fails takes nothing from the next diff' after_a_migration_that_failed
check 'a diff that is given up is in the next one' given_up
check 'the guest that was snapshotted is well' end_well a
check 'a clone has diffs of what it came from' of_a_clone
check 'and a clone of its diff, too' of_a_clone_of_a_clone
if begin h 64M,hugepages=2M; then
	huge_pages() {
		keep=(--track)
		snap h hb --track --live && pause 0.1 && quick pause h && snap h hd --diff && like_memory h hb hd &&
			quick resume h && end_well h
	}
	check 'huge pages are snapshotted live, and by diffs' huge_pages
else
	n=$((n + 1))
	echo "ok $n - huge pages are snapshotted live, and by diffs # SKIP no huge pages are reserved"
fi
check 'nothing is left behind' until_true 20 nothing_left
echo "1..$n"
