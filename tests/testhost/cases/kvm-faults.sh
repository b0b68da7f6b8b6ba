#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Migrations of tiny guests that are struck at any moment, as the kvm suite has them: for build machines without KVM.
# only: [ ! -e /dev/kvm ]
# timeout: 900

# shellcheck source=tests/testhost/suite.sh
. "$(dirname "$(readlink -f "$0")")/../suite.sh"
suite migrate_faults
