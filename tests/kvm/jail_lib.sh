# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# For the scripts that hold machines in a jail, which source it with their arguments: machines of root and of an ordinary
# user, who gets a copy of /dev/kvm's node for that.

# shellcheck source=tests/kvm/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

if [ "$(id -u)" != 0 ]; then
	echo '1..0 # SKIP only root can start machines of others'
	exit 0
fi
if [ -z "${IN_JAIL_TEST-}" ]; then
	# mounts of its own: a copy of the node for the ordinary user, and the control groups
	IN_JAIL_TEST=1 exec unshare -m --propagation private "$0" "$@"
fi

# The search for leaks traces the process, which a jail does not allow.
export ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0
nobody=65534
kvm=$(stat -c '%Hr %Lr' /dev/kvm)
chmod 755 "$work"
cp "$mvmm" "$work/mvmm"
cp "$guests"/guest_{hello,reboot,disk,button,idle,pattern} "$work"
# shellcheck disable=SC2086 # two numbers
mknod "$work/kvm" c $kvm && chmod 600 "$work/kvm" && chown "$nobody" "$work/kvm" && mount --bind "$work/kvm" /dev/kvm || exit 1

# turn USER: from now on, by() runs as root, or as an ordinary user
turn() {
	who=$1
	as=(env XDG_RUNTIME_DIR="$work/$who")
	[ "$who" = root ] || as+=(setpriv --reuid "$nobody" --regid "$nobody" --clear-groups)
}
by() { "${as[@]}" "$@"; }

# start NAME ARG...: a machine in the background; $keeper is the process that was started
start() {
	started=$1
	shift
	(cd "$work" && exec env --default-signal=HUP "${as[@]}" "$work/mvmm" "$@") >"$work/$who-$started.out" 2>"$work/$who-$started.err" </dev/null &
	keeper=$!
	pids+=("$keeper")
	until_true 20 machine_found
}
machine_found() { machine=$(cat "$work/$who/mvmm/$started/pid" 2>/dev/null) && by "$work/mvmm" info "$started" 2>/dev/null | grep -q running; }

# status PATTERN: a line of the machine's /proc/PID/status
status() { grep -qE -- "$1" "/proc/$machine/status"; }
# every_thread PATTERN: of all threads but those that KVM runs in the kernel
every_thread() {
	local thread
	for thread in /proc/"$machine"/task/*/status; do
		grep -qE -- "$1" "$thread" 2>/dev/null || grep -q '^Name:	kvm-' "$thread" 2>/dev/null || [ ! -e "$thread" ] || {
			grep -E '^(Name|State|Uid|CapEff|NoNewPrivs):' "$thread" >"$work/err" # is shown
			return 1
		}
	done
}
other_namespace() { [ "$(readlink "/proc/$machine/ns/$1")" != "$(readlink "/proc/$$/ns/$1")" ]; }
# The files it sees, as a list of words.
sees() { [ "$(cd "/proc/$machine/root" && find . -mindepth 1 -maxdepth 2 | sort | tr '\n' ' ')" = "$1 " ]; }
nothing_stays() {
	[ -z "$(ls -A "$work/$who-jail")" ] && [ -z "$(ls -A "$work/$who/mvmm")" ] && ! grep -q "$work/$who-jail" /proc/self/mountinfo
}
ends() {
	wait "$keeper"
	[ $? = "$1" ]
}
gone() { ! kill -0 "$machine" 2>/dev/null; }

# make_jail: for whose turn it is; $jail is what --jail gets
make_jail() {
	mkdir -m 755 "$work/$who-jail"
	mkdir -m 700 "$work/$who"
	jail=$work/$who-jail
	if [ "$who" = root ]; then
		jail+=,uid=$nobody,gid=$nobody
	else
		chown "$nobody:$nobody" "$work/$who-jail" "$work/$who"
	fi
}
