# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# For the scripts of this folder, which source it with their arguments: the program, where the guests are, a folder for what is
# written, a runtime folder in it, and how results are told. Ends the script where there is no KVM.

set -u
# shellcheck disable=SC2034 # for who sources it
mvmm=$(realpath "$1") guests=$(realpath "$2")
# shellcheck source=tests/wait.sh
. "$(dirname "${BASH_SOURCE[0]}")/../wait.sh"
work=$(mktemp -d)
export XDG_RUNTIME_DIR=$work/run
mkdir -m 700 "$XDG_RUNTIME_DIR"
pids=() # of processes that do not outlive the script

# A child that a signal meets before it is another program runs this, too.
cleanup() {
	local pid
	[ "$BASHPID" = $$ ] || return
	for pid in "${pids[@]}"; do
		kill -KILL "$pid" 2>/dev/null
	done
	rm -rf "$work"
}
trap cleanup EXIT

nothing_left() { [ -z "$(ls -A "$XDG_RUNTIME_DIR/mvmm" 2>/dev/null)" ]; }

# says FILE PATTERN: what a process has written
says() { grep -q "$2" "$work/$1" 2>/dev/null; }

n=0

# check NAME COMMAND...: the command's success is the test's; what it says is no result.
check()
{
	local name=$1
	shift
	n=$((n + 1))
	if "$@" >&2; then
		echo "ok $n - $name"
	else
		echo "not ok $n - $name"
		tail -n 20 "$work"/*.err "$work"/out "$work"/err 2>/dev/null | sed 's/^/# /'
	fi
}

if ! [ -w /dev/kvm ]; then
	echo '1..0 # SKIP /dev/kvm is missing or may not be used'
	exit 0
fi
