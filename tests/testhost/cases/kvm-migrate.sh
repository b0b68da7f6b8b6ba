#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# How the tiny guests of the kvm suite move, and what keeps them from it: for build machines without KVM.
# only: [ ! -e /dev/kvm ]
# timeout: 600

# shellcheck source=tests/testhost/suite.sh
. "$(dirname "$(readlink -f "$0")")/../suite.sh"
suite migrate
