#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The tiny guests of the kvm suite again, on the test host's hardware virtualization: what they do, and what of a machine's state moves.
# How migrations go and fail takes the suite's clock too long here; the cases migrate* show it with real guests.
# host: --cpus 2 --memory 7G
# timeout: 400

cd "$(dirname "$(readlink -f "$0")")/../../.." || exit 1
meson test -C build-release --no-rebuild --quiet guests move
tests/meson-results kvm build-release/meson-logs/testlog.json
