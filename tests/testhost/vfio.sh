# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# For the cases that pass devices of the test host through; sourced after lib.sh.

# function_of PATTERN: the address of the first PCI function whose "vendor:device" matches
function_of() { "$mvmm" vfio list | awk -v want="$1" '$2 ~ want {print $1; exit}'; }

# give ADDRESS...: to VFIO
give()
{
	local address
	for address; do
		"$mvmm" vfio bind "$address" >/dev/null || not_ok "bind $address"
	done
}

# give_back ADDRESS...: to the host's drivers
give_back()
{
	local address
	for address; do
		"$mvmm" vfio unbind "$address" >/dev/null || not_ok "unbind $address"
	done
}

# pinned: pages that are pinned for devices and not given back
pinned()
{
	echo 1 >/proc/sys/vm/stat_refresh
	awk '$1 == "nr_foll_pin_acquired" {a = $2} $1 == "nr_foll_pin_released" {r = $2} END {print a - r}' /proc/vmstat
}

# kernel_is_quiet WHAT: nothing in the kernel's log since the last time
kernel_is_quiet()
{
	if dmesg | grep -E 'Oops|BUG:|WARNING:|general protection|refcount_t|DMAR: .*fault'; then
		not_ok "$1" "the kernel complains"
	else
		ok "$1"
	fi
	dmesg -C
}
