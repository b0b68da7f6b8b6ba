#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The tiny guests of the kvm suite on the test host's hardware virtualization: what they do, what of a machine's state moves, and
# what of bad input only a machine that has KVM finds out.
# host: --memory 7G
# timeout: 400

# shellcheck source=tests/testhost/lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"

meson test -C "$tree/build-release" --no-rebuild --quiet --timeout-multiplier $((2 * patience)) guests move golden cli
"$tree/tests/meson-results" kvm "$tree/build-release/meson-logs/testlog.json"
