#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# QEMU's edu device, driven by a tiny guest: registers, DMA both ways, INTx and MSI, by both backends. It has no reset.
# And an NVMe: one tiny guest touches its registers while it sleeps, does not decode or has been reset; another one keeps
# it busy with DMA when it reboots and when the device is taken away.
# host: --device edu --device nvme
# timeout: 120

# shellcheck source=tests/testhost/lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
# shellcheck source=tests/testhost/vfio.sh
. "$tree/tests/testhost/vfio.sh"
edu=$(function_of 1234:11e8) nvme=$(function_of 1b36:0010)
dmesg -C
give "$edu" "$nvme"

# under_load [OPTION...]: a guest that keeps the NVMe busy
under_load()
{
	timeout -k 1 $((60 * patience)) "$mvmm" run --kernel "$tree/build-release/tests/guests/guest_load" --memory 64M \
		--name load --vfio "$nvme,backend=$backend,id=disk" "$@" </dev/null >"$work/load" 2>&1 &
	load=$!
	until_true 20 grep -q 'under load' "$work/load"
}

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
	under_load --cmdline reboot
	until_true 20 eval "[ \$(grep -c 'under load' $work/load) -ge 4 ]"
	has "$backend: it reboots under load" <(grep -c 'under load' "$work/load") '^([4-9]|[1-9][0-9]+)$'
	"$mvmm" stop --force load
	wait "$load"
	under_load
	"$mvmm" vfio remove --force load disk
	is "$backend: a device under load is removed by force" "$?" 0
	until_true 20 grep -q '^gone' "$work/load"
	has "$backend: and the guest goes on" "$work/load" '^gone'
	wait "$load"
	kernel_is_quiet "$backend: no DMA goes astray at reboots and a removal under load"
	has "$backend: that there is no reset is said" "$work/err" 'no reset|only be reset with its bus'
done
give_back "$edu" "$nvme"
kernel_is_quiet "the kernel has no complaint"
