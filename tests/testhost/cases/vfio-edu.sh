#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# QEMU's edu device, driven by a tiny guest: registers, DMA both ways, INTx and MSI, by both backends. It has no reset.
# And an NVMe, whose registers another tiny guest touches while it sleeps, does not decode or has been reset.
# host: --device edu --device nvme
# timeout: 120

# shellcheck source=tests/testhost/lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
# shellcheck source=tests/testhost/vfio.sh
. "$tree/tests/testhost/vfio.sh"
edu=$(function_of 1234:11e8) nvme=$(function_of 1b36:0010)
dmesg -C
give "$edu" "$nvme"
for backend in iommufd legacy; do
	timeout -k 1 $((40 * patience)) "$mvmm" run --kernel "$tree/build-release/tests/guests/guest_edu" --memory 64M \
		--vfio "$edu,backend=$backend" </dev/null >"$work/out" 2>"$work/err"
	for what in registers factorial dma line msi; do
		has "$backend: $what" "$work/out" "^$what works"
	done
	timeout -k 1 $((40 * patience)) "$mvmm" run --kernel "$tree/build-release/tests/guests/guest_bars" --memory 64M \
		--vfio "$nvme,backend=$backend" --vfio "$edu,backend=$backend" </dev/null >"$work/bars" 2>"$work/bars.err"
	is "$backend: the machine lives on" "$?" 0
	for what in decoding d3hot d0 'no decoding' 'decoding again' 'function reset' 'reset in d3hot'; do
		has "$backend: $what" "$work/bars" "^$what works"
	done
	cat "$work/bars.err"
	has "$backend: that there is no reset is said" "$work/err" 'no reset|only be reset with its bus'
done
give_back "$edu" "$nvme"
kernel_is_quiet "the kernel has no complaint"
