# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# For tests/testhost/run-cases, which sources it: a case takes minutes, so one that has passed is not run again while everything
# that it is made of is as it was: the programs of build-release, the scripts, the test host with its QEMU, the guests. With
# MVMM_AGAIN (tests/run --again) nothing is recalled.

# made_of_all: a key of what all such tests have in common; takes a second
made_of_all()
{
	local top
	top=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
	{
		echo "$top ${MVMM_HOPS:-} ${MVMM_SLOW_CLOCK:-}"
		"$top/tests/testhost/build" --print-dir && packages_qemu &&
			"$top/tests/guest/kernel" 6.1 && "$top/tests/guest/kernel" 6.12 || date +%N
		cat "$top"/{quickstart,docs/mvmm.bash} "$top"/tests/{certificates,meson-results,*.sh,unit/cli.sh}
		find "$top"/build-release/{vmm,tests/{guests,kvm,testhost}} "$top"/tests/{guest,kvm,testhost} -type f \
			! -path '*/cases/*' ! -name '*-test' ! -path '*.p/*' -print0 | sort -z | xargs -0 cat
	} | key
}

# made_of COMMON FILE...: the key of one that is made of these files, too
made_of() { { echo "$1" && cat "${@:2}"; } | key; }

key() { sha256sum | cut -c1-32; }

# recall MEMORY KEY: the results that are remembered there, and when they were got; fails where there are none for this key
recall()
{
	[ -z "${MVMM_AGAIN:-}" ] && [ -s "$1" ] && [ "$(head -n 1 "$1")" = "$2" ] || return
	tail -n +2 "$1"
	echo "# recalled $(basename "$1"): it passed at $(date -r "$1" '+%F %T'), and nothing that it is made of has changed"
}

# remember MEMORY KEY RESULTS: when all of them are ok
remember()
{
	rm -f "$1"
	grep -q '^ok ' <<<"$3" && ! grep -qE '^(not ok|skip) ' <<<"$3" || return
	mkdir -p "$(dirname "$1")" && { echo "$2" && grep '^ok ' <<<"$3"; } >"$1"
}
