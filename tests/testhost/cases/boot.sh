#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2016 # what is in single quotes runs in the guest
# Kernels boot, see the processors and the memory they were given, and power off: Debian's cloud kernels and the test
# host's own, as bzImage and by the PVH note; 1 and 4 vCPUs; 128 MiB and 5 GiB, which is on both sides of the hole. PCI is found by
# its ports alone, too.
# host: --memory 8G
# prepare: for k in 6.1 6.12 7.2 7.2-elf; do tests/guest/kernel $k && tests/guest/initramfs $k; done
# timeout: 400

# shellcheck source=tests/testhost/lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"

# boots KERNEL CPUS MEMORY LEAST-MIB: the guest sees at least so much of its memory
boots()
{
	local what="Linux $1, $2 vCPUs, $3"
	guest_kernel=$1 guest 'echo uname=$(uname -r) cpus=$(nproc); grep MemTotal /proc/meminfo; echo fatal=$(dmesg | grep -c PCI:.[F]atal); complaints' \
		--cpus "$2" --memory "$3" >"$work/out" 2>&1
	is "$what: powers off" $? 0
	has "$what: is the kernel that was asked for" "$work/out" "^uname=${1%-elf}\."
	has "$what: finds its processors" "$work/out" " cpus=$2\$"
	is "$what: finds its memory" "$(($(awk '$1 == "MemTotal:" { print $2; exit }' "$work/out") / 1024 >= $4))" 1
	has "$what: has been asked for complaints" "$work/out" '^@@ exit 0'
	is "$what: has no complaint" "$(complaints "$work/out")" ''
	has "$what: finds PCI at once" "$work/out" '^fatal=0'
	grep -v '^ok' "$work/out" | tail -n 5 | sed 's/^/    /'
}

guest_timeout=120 # four processors on one take long
for kernel in 6.1 6.12 7.2 7.2-elf; do
	boots "$kernel" 1 128M 80
	boots "$kernel" 4 5G 4800
done

guest_args=pci=nommconf guest 'echo ecam=$(dmesg | grep -c MMCONFIG.[a]t); echo pci=$(cat /sys/bus/pci/devices/*/vendor); complaints' \
	--memory 128M >"$work/out" 2>&1
is 'pci=nommconf: powers off' $? 0
has 'pci=nommconf: the guest has no ECAM' "$work/out" '^ecam=0'
has 'pci=nommconf: finds the bridge and the virtio device' "$work/out" '^pci=0x1b36 0x1af4'
is 'pci=nommconf: has no complaint' "$(complaints "$work/out")" ''
