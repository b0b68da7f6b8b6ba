# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Sourced by tests/testhost/run-cases. A case takes minutes, so a case that passed is not run again until something that it depends
# on changes: the programs of build-release, the scripts, the test host with its QEMU, the guests. With
# MVMM_AGAIN (tests/run --again) every case is run.

# made_of_all: prints a key of what all cases depend on; takes a second
made_of_all()
{
	local top
	top=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
	{
		echo "$top ${MVMM_HOPS:-} ${MVMM_SLOW_CLOCK:-} ${MVMM_LONG:-}"
		"$top/tests/testhost/build" --print-dir && packages_qemu &&
			"$top/tests/guest/kernel" 6.1 && "$top/tests/guest/kernel" 6.12 || date +%N
		cat "$top"/{quickstart,docs/mvmm.bash} "$top"/tests/{certificates,meson-results,*.sh,unit/cli.sh}
		find "$top"/build-release/{vmm,tests/{guests,kvm,testhost}} "$top"/tests/{guest,kvm,testhost} -type f \
			! -path '*/cases/*' ! -name '*-test' ! -path '*.p/*' -print0 | sort -z | xargs -0 cat
	} | key
}

# made_of COMMON FILE...: prints the key of a case that also depends on these files
made_of() { { echo "$1" && cat "${@:2}"; } | key; }

key() { sha256sum | cut -c1-32; }

# recall MEMORY KEY: prints the results remembered in the file MEMORY and their date; fails if they have another key
recall()
{
	[ -z "${MVMM_AGAIN:-}" ] && [ -s "$1" ] && [ "$(head -n 1 "$1")" = "$2" ] || return
	tail -n +2 "$1"
	echo "# recalled $(basename "$1"): it passed at $(date -r "$1" '+%F %T'), and nothing that it depends on has changed"
}

# remember MEMORY KEY RESULTS: writes the results to the file MEMORY if all of them are ok
remember()
{
	rm -f "$1"
	grep -q '^ok ' <<<"$3" && ! grep -qE '^(not ok|skip) ' <<<"$3" || return
	mkdir -p "$(dirname "$1")" && { echo "$2" && grep '^ok ' <<<"$3"; } >"$1"
}
