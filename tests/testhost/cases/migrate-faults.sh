#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Migrations of tiny guests that are struck at any point, by hardware virtualization: see tests/kvm/migrate_faults.py.
# A random few of what it does on a KVM that is quick.
# timeout: 500

# shellcheck source=tests/testhost/lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"

set -o pipefail
python3 "$tree/tests/kvm/migrate_faults.py" "$mvmm" "$(dirname "$(dirname "$mvmm")")/tests/guests" "$(turns 48)" |
	sed -uE 's/^(not ok|ok) [0-9]+ - /\1 /'
