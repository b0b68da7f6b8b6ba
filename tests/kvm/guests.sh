#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Tiny guests under the real program and the real /dev/kvm, also one that interprets the guest slowly. TAP on stdout.
# usage: guests.sh MVMM GUEST-DIRECTORY

# shellcheck source=tests/kvm/lib.sh
. "$(dirname "$0")/lib.sh"

# skip NAME...: for a KVM whose guests see CPUID as the processor has it, whatever was set.
skip() {
	n=$((n + 1))
	echo "ok $n - $1 # SKIP this KVM shows its guests the processor's own CPUID"
}

# run GUEST [MEMORY] ARG...: leaves what it printed in out and err, its exit status in $status.
run() {
	local guest=$1 size=32M
	shift
	if [[ ${1-} == [0-9]* ]]; then
		size=$1
		shift
	fi
	timeout -k 1 $((60 * patience)) "$mvmm" run --kernel "$guests/guest_$guest" --memory "$size" "$@" >"$work/out" 2>"$work/err" </dev/null
	status=$?
}

# bit ROW COLUMN BIT: a bit of what the cpuid guest printed.
bit() {
	local word
	word=$(awk -v row="$1" -v column="$2" '$1 == row {print $column}' "$work/out" | tr -d '\r')
	echo $((0x${word:-0} >> $3 & 1))
}

no_line() { ! grep -q "$@"; }
lines() { wc -l <"$1"; }

run hello
check 'power-off ends with 0' test "$status" = 0
check 'the serial port reaches stdout' test "$(tr -d '\r' <"$work/out")" = hello
check 'nothing is left in the runtime folder' nothing_left

run reboot --on-reboot exit
check 'a reset ends the program when it is asked to' test "$status" = 0

run fault --on-reboot exit
check 'a triple fault is a reset' test "$status" = 0
check '... and said to be one' grep -q 'vCPU 0: .* triple fault' "$work/err"

timeout -k 1 -s INT $((3 * patience)) "$mvmm" run --kernel "$guests/guest_reboot" --memory 32M >"$work/out" 2>"$work/err" </dev/null
check 'a guest reboots again and again' test "$(grep -c up "$work/out")" -ge 3
"$mvmm" run --kernel "$guests/guest_fault" --memory 32M --name faults >"$work/out" 2>"$work/err" </dev/null &
pid=$!
until_true 20 grep -q 'rebooted 7 times' "$work/err"
check 'one that does so as soon as it starts has to wait' test "$(grep -c 'triple fault' "$work/err")" -le 8
waits() { "$mvmm" info faults | grep -q rebooting; }
check '... which info tells' until_true 20 waits
check '... but who stops it does not' timeout $((20 * patience)) "$mvmm" stop faults
wait "$pid"
check '... and it has ended well' test $? = 0

# moved LIVES: the guest has begun so many lives since its files were moved.
moved() { [ "$(grep -c up "$work/lives.out")" -ge $((before + $1)) ]; }
touch "$work/lives.out"
cp "$guests/guest_reboot" "$work/kernel"
truncate -s 1M "$work/disk" "$work/other"
disk=$(stat -c %i "$work/disk") other=$(stat -c %i "$work/other")
"$mvmm" run --name lives --kernel "$work/kernel" --disk "$work/disk" --memory 32M >"$work/lives.out" 2>"$work/lives.err" </dev/null &
pid=$!
until_true 20 grep -q up "$work/lives.out"
rm "$work/kernel"
mv "$work/other" "$work/disk"
before=$(grep -c up "$work/lives.out")
check 'it reboots from files that were removed or moved over' until_true 20 moved 3
stat -Lc %i "/proc/$pid/fd/"* >"$work/inodes" 2>/dev/null
check 'and has the disk that it had' grep -qx "$disk" "$work/inodes"
check 'and no other' no_line -x "$other" "$work/inodes"
"$mvmm" stop lives --force
wait "$pid"
check 'which nothing is said about' no_line -v 'each time within a second of its start' "$work/lives.err"

run panic
check 'a panic ends with 3' test "$status" = 3
check 'and says so in one line' test "$(lines "$work/err")" = 1

run memory
check 'RAM is where the map says' test "$(grep -c ' ram ok' "$work/out")" -ge 2
check 'all of it answers' no_line BAD "$work/out"
run memory 5G
check '5 GiB: RAM on both sides of the hole' grep -q '^000100000000+000080000000 ram' "$work/out"

run pci
check 'the host bridge and the entropy source answer' test "$(lines "$work/out")" = 2

for cpus in 1 4; do
	run smp --cpus $cpus
	check "$cpus vCPUs start" grep -q "^all 0$cpus" "$work/out"
done

run smp 64M --cpus 254
check '254 vCPUs start' grep -q '^all fe' "$work/out"

for memory in 32M,prefault=on 32M,shared=on 32M,shared=on,prefault=on; do
	run hello $memory
	check "memory $memory" test "$status" = 0
done
pages=/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages
reserved=$(cat $pages)
echo $((reserved + 16)) >$pages 2>/dev/null
for memory in 32M,hugepages=2M 32M,hugepages=2M,shared=on; do
	run hello $memory
	check "memory $memory" test "$status" = 0
done
echo "$reserved" >$pages 2>/dev/null
run hello 1G,hugepages=1G
check 'huge pages that are not reserved are refused' test "$status" = 2
check 'with the file to write, or that there are none' \
	grep -qE 'hugepages-1048576kB/nr_hugepages|no huge pages of that size' "$work/err"

run cpuid
check 'the hypervisor bit is set' test "$(bit 00000001 4 31)" = 1
check 'KVM tells its name' grep -q '^40000000 ........ 4b4d564b' "$work/out"
check 'the host has SSE4.1' test "$(bit 00000001 4 19)" = 1
cp "$work/out" "$work/plain"
run cpuid --cpu host,-sse4_1,-xsave
masked=check
cmp -s "$work/out" "$work/plain" && masked=skip
$masked 'a masked feature is gone' test "$(bit 00000001 4 19)" = 0
$masked 'with one that is built on it' test "$(bit 00000001 4 20)" = 0
$masked 'and with its leaf of extended state' grep -q '^0000000d 00000000 ' "$work/out"
run cpuid --cpu host,-nonsense
check 'an unknown feature is refused' test "$status" = 2

# offered KEY: the guest cpuid ran with it; else mvmm has said that KVM does not offer it.
offered() { [ "$status" = 0 ] || { [ "$status" = 2 ] && grep -q -- "--cpu host,$1=on: this host's KVM does not offer" "$work/err"; }; }
cp "$work/plain" "$work/out"
$masked 'virtualization is hidden' test "$(bit 00000001 4 5)$(bit 80000001 4 2)" = 00
$masked '... with its leaf' grep -q '^8000000a 00000000 00000000 00000000 00000000' "$work/plain"
$masked 'performance counters are hidden' grep -q '^0000000a 00000000 ' "$work/plain"
$masked '... and those of AMD' test "$(bit 80000001 4 23)" = 0
run nested --on-reboot exit
check 'a guest cannot enable what is hidden' no_line enabled "$work/out"
check '... and has tried' grep -q trying "$work/out"
run cpuid --cpu host,nested=on
check 'nested=on shows it, or is refused where KVM does not offer it' offered nested
if [ "$status" = 0 ]; then
	check '... which the guest sees' test "$(bit 00000001 4 5)$(bit 80000001 4 2)" != 00
	run nested --on-reboot exit --cpu host,nested=on
	check '... and can enable' grep -q enabled "$work/out"
fi
run cpuid --cpu host,pmu=on
check 'pmu=on shows counters, or is refused where KVM does not offer them' offered pmu

rm -f "$work/out"
(
	ulimit -Sn 200
	exec "$mvmm" run --kernel "$guests/guest_button" --memory 32M --name button >"$work/out" 2>"$work/err" </dev/null
) &
pid=$!
until_true 20 grep -q waiting "$work/out"
check 'it may have as many descriptors as the hard limit allows' \
	grep -q "^Max open files *$(ulimit -Hn) *$(ulimit -Hn) " "/proc/$pid/limits"
check 'ps lists the machine' grep -q button <("$mvmm" ps)
check 'it can be paused' "$mvmm" pause button
check 'info tells so' grep -qi paused <("$mvmm" info button)
check 'it goes on' "$mvmm" resume button
run hello --name button
check 'its name is taken' test "$status" = 2
rm -rf "$XDG_RUNTIME_DIR/mvmm"
found() { "$mvmm" ps | grep -q button; }
until_true 20 found
check 'a machine whose runtime folder is removed makes it again' found
run hello --name button
check '... and keeps its name' test "$status" = 2
kill -TERM "$pid"
wait "$pid"
check 'SIGTERM presses the power button' grep -q pressed "$work/out"
rm -f "$work/out"
(
	trap '' HUP INT
	exec "$mvmm" run --kernel "$guests/guest_button" --memory 32M --name button >"$work/out" 2>"$work/err" </dev/null
) &
pid=$!
until_true 20 grep -q waiting "$work/out"
kill -HUP "$pid"
kill -INT "$pid"
"$mvmm" info button >/dev/null # the signals have been there
kill -TERM "$pid"
wait "$pid"
check 'signals that its starter ignored are ignored' test $? = 0
run hello --name button
check 'the name is free again' test "$status" = 0

printf 'hello.' | timeout $((60 * patience)) "$mvmm" run --kernel "$guests/guest_echo" --memory 32M >"$work/out" 2>"$work/err"
check 'what is typed reaches the guest' grep -q 'HELLO\.' "$work/out"

echo "1..$n"
