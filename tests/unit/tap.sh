# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# For the unit tests that are scripts, which source it: TAP on stdout.
n=0

# report NAME FINDINGS: passes when there are none.
report() {
	n=$((n + 1))
	if [ -z "$2" ]; then
		echo "ok $n - $1"
	else
		echo "not ok $n - $1"
		sed 's/^/# /' <<<"$2"
	fi
}
