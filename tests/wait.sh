# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# For the tests in shell, which source it: how they wait. On an emulated processor each process that a test starts takes 20 to
# 60 ms from the guest it waits for, so a wait has none of its own, and looks less often where everything is slow.

# shellcheck disable=SC2034 # for who sources it
patience=${MVMM_PATIENCE:-1} # how many times as long as on a quick machine anything may take; see tests/run
export LC_ALL=C              # a locale is a dozen files to open for each process
exec 90<> <(:)               # nobody writes there; a number that no test gives to what it hands on

# pause SECONDS
pause() { ! read -r -t "$1" -u 90; }

# until_true SECONDS COMMAND...: tries it ten times a second; both are meant for a quick machine
until_true()
{
	local end=$((SECONDS + $1 * patience + 1))
	shift
	until "$@" 2>/dev/null; do
		[ "$SECONDS" -lt "$end" ] || return 1
		pause ".$patience"
	done
}
