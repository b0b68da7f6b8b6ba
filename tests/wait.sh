# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Sourced by the tests in shell: functions that wait. On an emulated processor, each process that a test starts takes 20 to
# 60 ms from the guest that it waits for. So these functions start no process, and poll less often on a slow machine.

# shellcheck disable=SC2034 # used by the scripts that source this
patience=${MVMM_PATIENCE:-1} # the factor for all time limits; see tests/run
export LC_ALL=C              # with a locale, each process opens a dozen files
exec 90<> <(:)               # nothing is ever written to it; no test passes on a descriptor of this number

# pause SECONDS: sleeps
pause() { ! read -r -t "$1" -u 90; }

# until_true SECONDS COMMAND...: tries the command ten times a second; on a slow machine longer, and less often
until_true()
{
	local end=$((SECONDS + $1 * patience + 1))
	shift
	until "$@" 2>/dev/null; do
		[ "$SECONDS" -lt "$end" ] || return 1
		pause ".$patience"
	done
}
