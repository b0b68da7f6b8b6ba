# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# For the cases of the test host that run tests of the build folder: suite NAME...

# shellcheck source=tests/testhost/lib.sh
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/lib.sh"

suite()
{
	meson test -C "$tree/build-release" --no-rebuild --quiet --timeout-multiplier $((2 * patience)) "$@"
	"$tree/tests/meson-results" kvm "$tree/build-release/meson-logs/testlog.json"
}
