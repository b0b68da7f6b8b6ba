# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# For the cases of the test host, which source it: where things are, a guest, and how results are told.

tree=$(dirname "$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")")
mvmm=${MVMM:-$tree/build-release/vmm/mvmm}
# shellcheck source=tests/wait.sh
. "$tree/tests/wait.sh"
# For the kernels of guests. Those of Debian would test their cryptography and prepare for being traced first, which takes up to
# half of their boot. That one of them stands for a while means nothing where the machine is slow.
guest_words='console=ttyS0 quiet reboot=t panic=-1 cryptomgr.notests initcall_blacklist=crypto_kdf108_init,init_kprobe_trace'
[ "$patience" = 1 ] || guest_words+=" rcupdate.rcu_cpu_stall_timeout=$((40 * patience)) watchdog_thresh=$((20 * patience))"
work=$(mktemp -d)
# not by a child that a signal meets before it is another program
trap '[ "$BASHPID" != $$ ] || { rm -rf "$work"; jobs -rp | xargs -r kill 2>/dev/null; }' EXIT

# turns N: how often to do what a quick machine does N times
turns() { echo $((($1 + patience - 1) / patience)); }

ok() { echo "ok $1"; }
not_ok() { echo "not ok $1: ${*:2}"; }

# is WHAT GOT WANTED: the same text
is()
{
	if [ "$2" = "$3" ]; then
		ok "$1"
	else
		not_ok "$1" "got '$2', wanted '$3'"
	fi
}

# has WHAT FILE PATTERN: a line of the file matches; it is shown when none does
has()
{
	if grep -qE -- "$3" "$2"; then
		ok "$1"
	else
		not_ok "$1" "no line like '$3'"
		sed 's/^/    /' "$2"
	fi
}

# complaints FILE [MORE]: what a guest's kernel said there that it should not have; MORE is a pattern of further such words
complaints() { "$tree/tests/guest/complaints" "${2:-}" "$1"; }

# guest_file kernel|initramfs VERSION: where it is, as the script of this name in tests/guest says; asked once, for that takes
# seconds
guest_file()
{
	[ -s "$work/$1-$2" ] || "$tree/tests/guest/$1" "$2" >"$work/$1-$2" || return
	cat "$work/$1-$2"
}

# guest COMMAND [OPTION...]: boots Debian's kernel, or $guest_kernel (see tests/guest/kernel), under mvmm with more
# options of `mvmm run`, runs COMMAND, which has no double quotes in it, and powers off. $guest_net is mvmm.net of
# tests/guest/init, $guest_args more for the kernel. Prints the console as it comes; the status is mvmm's. A kernel that found SVM
# would prepare for guests of its own, for a second and more.
guest()
{
	local kernel initrd words="$guest_words ${guest_args:-}"
	kernel=$(guest_file kernel "${guest_kernel:-debian-elf}") || return
	initrd=$(guest_file initramfs "${guest_kernel:-debian-elf}") || return
	timeout -k 5 "$((${guest_timeout:-60} * patience))" "$mvmm" run --kernel "$kernel" --initrd "$initrd" \
		--cpu "${guest_cpu:-host,-svm}" --cmdline "$words mvmm.net=${guest_net:-} mvmm.run=\"${1//[$'\n\t']/ }\"" "${@:2}" </dev/null |
		sed -u 's/\r$//'
	return "${PIPESTATUS[0]}"
}

# move FROM TO [OPTION...]: a machine goes from process to process, to `mvmm receive` with these options; $what is about what. What
# the two commands say is in migrate.out and TO.out, the guest's serial port in TO.log.
move()
{
	"$mvmm" receive --from "unix:$work/$2.sock" --name "$2" --serial "file=$work/$2.log" "${@:3}" >"$work/$2.out" 2>&1 </dev/null &
	until_true 20 test -S "$work/$2.sock"
	timeout -k 5 $((120 * patience)) "$mvmm" migrate "$1" --to "unix:$work/$2.sock" --downtime $((300 * patience))ms >"$work/migrate.out" 2>&1
	is "${what:?}: to $2" $? 0
	tail -n 3 "$work/migrate.out" "$work/$2.out" "$work"/"$1".{out,err} 2>/dev/null | sed "s/^/    /"
}

# stands_still WHAT NAME: the machine of this name does not go on; the log gets what KVM does with it
stands_still()
{
	not_ok "$1" "it does not go on"
	{
		"$mvmm" info "$2"
		for _ in 1 2; do
			(cd /sys/kernel/debug/kvm && grep . exits halt_exits irq_injections irq_window_exits)
			sleep 1
		done
		echo 1 >/sys/kernel/tracing/events/kvm/enable
		sleep 0.2
		echo 0 >/sys/kernel/tracing/events/kvm/enable
		tail -n 60 /sys/kernel/tracing/trace
		tail -n 20 "$work/$2.log" "$work/$2.out" "$work/$2.err"
	} 2>&1 | sed 's/^/    /'
}
