#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Whole machines move with host devices on board, by mvmm migrate and mvmm receive, and by mvmm snapshot and mvmm restore:
# the project's own devices at work in each tracking mode and one of each at once, by both backends, and back again; a tiny
# guest checks every byte. What cannot be moved or kept is refused and goes on.
# host: --device softdev,count=4 --device softdev,iommu=plain,count=2
# timeout: 400

# shellcheck source=tests/testhost/lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
# shellcheck source=tests/testhost/vfio.sh
. "$tree/tests/testhost/vfio.sh"
# shellcheck disable=SC2154 # of lib.sh
kernel=$(dirname "$(dirname "$mvmm")")/tests/guests/guest_softdev
sys=/sys/bus/platform/devices
export XDG_RUNTIME_DIR=$work
give_up='' # options of a migration that fails
hop=0 # the machine that runs is called m$hop, and so are its files

knob() { for device in "${@:3}"; do echo "$2" >"$sys/softdev.$device/$1"; done; }
vfio() { local i=0 d; for d; do echo "--vfio $sys/softdev.$d,id=d$((i++)),backend=$backend"; done; }
says() { grep -q "$2" "$work/m$1.out"; }

# port: file descriptors of the keys of the machine that is about to begin
port()
{
	rm -f "$work/m$hop.keys"
	mkfifo "$work/m$hop.keys"
	exec {keys}<>"$work/m$hop.keys"
}

# begin WORDS DEVICE...: a guest that lets them work
begin()
{
	hop=$((hop + 1))
	port
	# shellcheck disable=SC2046 # options are words
	"$mvmm" run --kernel "$kernel" --cmdline "$1" --memory 64M --name m$hop $(vfio "${@:2}") <&"$keys" >"$work/m$hop.out" 2>"$work/m$hop.err" &
	pid=$!
	until_true 20 says $hop '^at work'
}

# receive DEVICE...: waits for the machine, which will have these
receive()
{
	local i=0 d options=()
	for d; do options+=(--vfio "d$((i++))=$sys/softdev.$d,backend=$backend"); done
	hop=$((hop + 1))
	port
	"$mvmm" receive --from "unix:$work/way" --name m$hop "${options[@]}" <&"$keys" >"$work/m$hop.out" 2>"$work/m$hop.err" &
	next=$!
	until_true 20 grep -q waiting "$work/m$hop.err"
}

# migrate [OPTION]...: m$((hop - 1)) goes to where it is waited for
migrate()
{
	timeout -k 1 $((60 * patience)) "$mvmm" migrate m$((hop - 1)) --to "unix:$work/way" "$@" >"$work/summary" 2>"$work/err" &&
		wait $pid && pid=$next
}

answers() { grep '^device .*[dD]$' "$work/m$hop.out"; }
answered() { [ "$(answers | wc -l)" -ge "$1" ]; }

# look COUNT: the guest looks at all that its devices have written, and lets them begin again
look()
{
	looked=$1
	local wanted=$(($(answers | wc -l) + looked))
	printf c >&"$keys"
	until_true 60 answered $wanted
}

right() { answers | tail -n "$looked" | grep -c ' passes 0*[1-9a-f][0-9a-f]* wrong bytes 00000000 stopped'; }

finish()
{
	printf q >&"$keys"
	wait "$pid"
	is "$1: the guest ends well" $? 0
}

# moves WHAT WORDS "DEVICE..." "DEVICE..." [OPTION]...: from the first to the second, while they work
# shellcheck disable=SC2086 # devices are words
moves()
{
	local count
	count=$(wc -w <<<"$3")
	begin "$2" $3
	sleep 1
	receive $4
	migrate "${@:5}"
	is "$1: it goes over" $? 0
	[ $pid = "$next" ] || tail -n 5 "$work/err" "$work/m$((hop - 1))".??? "$work/m$hop".??? | sed 's/^/    /'
	look "$count"
	is "$1: every byte" "$(right)" "$count"
	finish "$1"
	tail -n 2 "$work/summary"
}

# restores DEVICE...: m$hop was kept in $work/kept, and goes on with these
restores()
{
	local i=0 d options=()
	for d; do options+=(--vfio "d$((i++))=$sys/softdev.$d,backend=$backend"); done
	hop=$((hop + 1))
	port
	"$mvmm" restore --from "$work/kept" --name m$hop "${options[@]}" <&"$keys" >"$work/m$hop.out" 2>"$work/m$hop.err" &
	pid=$!
}

# keep [OPTION]...: m$hop becomes a snapshot
keep()
{
	rm -rf "$work/kept"
	timeout -k 1 $((60 * patience)) "$mvmm" snapshot m$hop --to "$work/kept" "$@" >"$work/summary" 2>"$work/err"
}

# is_kept WHAT WORDS "DEVICE..." "DEVICE..." [OPTION]...: from the first into a folder while they work, and on with the second;
# before that, a snapshot that the machine lives on after
# shellcheck disable=SC2086 # devices are words
is_kept()
{
	local count
	count=$(wc -w <<<"$3")
	begin "$2" $3
	sleep $((2 * patience)) # a pass of the slow ones
	keep "${@:5}"
	is "$1: it is kept" $? 0
	look "$count"
	is "$1: every byte of the one that lives on" "$(right)" "$count"
	sleep $((2 * patience))
	keep --stop "${@:5}"
	is "$1: it is kept, and ends" $? 0
	has "$1: inspect shows it" <("$mvmm" snapshot inspect "$work/kept") '^devices .*d0 \(vfio, .* of state\)'
	wait $pid
	"$mvmm" restore --from "$work/kept" --name other --memory-mode "uffd=$work/none" >"$work/out" 2>&1
	is "$1: its memory does not come by a handler" "$? $(grep -c 'need all of memory at once' "$work/out")" '2 1'
	restores $4
	look "$count"
	is "$1: every byte of the restored one" "$(right)" "$count"
	answers
	finish "$1"
	cat "$work/summary" "$work/m$hop.err"
}

# not_kept WHAT PATTERN [OPTION]...: no snapshot, and m$hop goes on
not_kept()
{
	keep "${@:3}"
	is "$1: it is not kept" "$? $(find "$work" -maxdepth 1 -name '*kept*' | wc -l)" '1 0'
	has "$1: it is said" "$work/err" "$2"
	look 1
	is "$1: every byte" "$(right)" 1
}

# refused WHAT PATTERN: m$hop is not let go, and goes on
refused()
{
	timeout -k 1 $((60 * patience)) "$mvmm" migrate m$hop --to "unix:$work/way" >"$work/summary" 2>"$work/err"
	has "$1 is refused" "$work/err" "$2"
	look 1
	is "$1: it works on" "$(right)" 1
	finish "$1"
	wait "$next"
}

# stays WHAT PATTERN DEVICE KNOB VALUE [KNOB VALUE]: a device fails on the way from 0 to 1; both sides say so, and the guest is
# where it was
stays()
{
	local mine=$keys here=$hop what=$1 pattern=$2 which=$3 status
	receive 1
	shift 3
	while [ $# -gt 1 ]; do
		knob "$1" "$2" "$which"
		shift 2
	done
	# shellcheck disable=SC2086 # options are words
	migrate $give_up
	is "$what: the guest stays" $? 1
	has "$what: it is said" "$work/err" "$pattern"
	wait "$next"
	status=$?
	is "$what: the target ends" $status 1
	has "$what: it says so, too" "$work/m$hop.err" "$pattern"
	hop=$here keys=$mine
	look 1
}

# fails ARGUMENT...: stays, and the guest loses nothing by it
fails()
{
	stays "$@"
	is "$1: every byte" "$(right)" 1
}

# A pass over their memory takes the slow ones longer than the move and the look at it: nothing covers up what was lost.
slow="work slow" few="--bandwidth 256K --downtime $((5 * patience))s" # of which the devices' state takes a second
dmesg -C
for backend in iommufd legacy; do
	before=$(pinned)
	moves "$backend, the device's own log" "$slow" 0 1 $few
	knob dma_logging 0 0 1 4
	[ $backend = legacy ] || moves "$backend, the IOMMU's log" "$slow" 0 1 $few
	moves "$backend, one of each at once" work "0 2 4" "1 3 5" --downtime 10s
	is "$backend: what nobody can tell is said before" \
		"$(grep -c 'nothing reports what it writes; 64 MiB' "$work/m$((hop - 1)).err")" 1
	is_kept "$backend, one of each, in a folder" work "0 2 4" "1 3 5"
	knob dma_logging 1 0 1 4
	is_kept "$backend, in a folder, live" "$slow" 0 1 --live --downtime $((5 * patience))s
	is "$backend: nothing stays pinned" "$(pinned)" "$before"
done

# type1 would call all of its memory dirty in each round: it is not asked, and a guest that does not fit is not throttled.
backend=legacy
knob dma_logging 0 0 1
begin work 0
give_up='--downtime 10ms --timeout 4s --on-timeout cancel'
fails "a device that nothing follows" 'with the 64 MiB of memory whose writers nothing reports, but the downtime is 10.0 ms' 0
give_up=''
is "the guest was not throttled for it" "$(grep -c throttled "$work/err")" 0
receive 1
migrate --downtime $((10 * patience))s
is "it goes over when that fits" $? 0
is "after a round and what was written meanwhile" "$(grep -c ': [123] rounds\?,' "$work/summary")" 1
read -r took told < <(sed -n 's/^downtime \([0-9]*\)[.0-9]* ms, predicted \([0-9]*\).*/\1 \2/p' "$work/summary")
is "within what was predicted (zeros take less): $took ms, $told ms" "$((took <= told * 3 / 2))" 1
look 1
is "... with every byte" "$(right)" 1
finish "which nothing followed"
knob dma_logging 1 0 1

# The test's own power: one mark in three is lost.
knob lose_dirty 3 0
begin "$slow" 0
sleep 1
receive 1
migrate $few
look 1
is "lost dirty bits are found out" "$? $(right)" "0 0"
printf q >&"$keys"
wait $pid
knob lose_dirty 0 0

backend=iommufd
downtime() { sed -n 's/^downtime \([0-9]*\)[.0-9]* ms.*/\1/p' "$work/summary"; }
knob store_size 67108864 0 1
moves "64 MiB of state" work 0 1
early=$(downtime)
knob migration 3 0 1
moves "64 MiB of state, all of it after the stop" work 0 1 --downtime 30s
late=$(downtime)
is "most of it is sent while the guest runs: $early ms, else $late ms" "$((early * 10 <= late * 3))" 1
knob store_size 65536 0 1

# A device fails on its way: 2 is RUNNING, 3 STOP_COPY, 4 RESUMING, 6 PRE_COPY.
knob migration 7 0 1
begin work 0
fails "a device that gives nothing" 'softdev.0: from RUNNING to PRE_COPY' 0 fail_state 6
fails "one that fails while it is read" 'softdev.0: read its state' 0 fail_data 30000
fails "one that does not stop" 'softdev.0: from PRE_COPY_P2P to STOP_COPY' 0 fail_state 3
fails "one that takes no state" 'softdev.1: from STOP to RESUMING' 1 fail_state 4
fails "one that fails while it is written" 'softdev.1: write its state' 1 fail_data 30000
fails "one that does not run there" 'd0: it did not run with the received state and had to be reset' 1 fail_state 2 fail_hard 1
knob fail_state 3 0
not_kept "a snapshot with one that does not stop" 'softdev.0: from STOP to STOP_COPY'
knob fail_data 30000 0
not_kept "a snapshot with one that fails while it is read" 'softdev.0: read its state' --stop
knob fail_data 30000 0
not_kept "a live one" 'softdev.0: read its state' --live
is "none of them was reset here" "$(grep -c 'been reset' "$work/m$hop.err")" 0
knob fail_hard 0 1
stays "one that is in ERROR" 'softdev.0: from PRE_COPY_P2P to STOP_COPY' 0 fail_state 3 fail_hard 1
has "it is reset, which is said" "$work/m$hop.err" 'softdev.0: it has been reset, and its driver must set it up anew'
knob fail_hard 0 0
finish "a guest whose device was reset"
knob migration 3 0 1
begin work 0
fails "one that fails while it is read after the stop" 'softdev.0: read its state' 0 fail_data 30000
receive 1
migrate
is "it goes over when nothing fails" $? 0
look 1
is "... with every byte" "$(right)" 1
finish "which failed before"
is "nothing stays pinned after all that" "$(pinned)" "$before"

knob migration 0 0
receive 1
begin work 0
not_kept "a device that cannot be kept" 'd0: .*cannot migrate it.*, and a snapshot needs its state.*mvmm vfio remove m[0-9]* d0'
refused "a device that cannot be moved" 'd0: .*cannot migrate it.*mvmm vfio remove m[0-9]* d0'
kernel_is_quiet "the kernel has no complaint"
