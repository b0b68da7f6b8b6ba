#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2016 # dollars are those of the doctor's lines
# What somebody without rights is told: one line that names the option, the thing and what to do, exit status 2; and what
# the doctor says to him, to root, and where there is nothing.
# host: --device edu --memory 2G
# timeout: 120

# shellcheck source=tests/testhost/lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
# shellcheck source=tests/testhost/vfio.sh
. "$tree/tests/testhost/vfio.sh"

chmod 755 "$work"
cp "$mvmm" "$tree/build-release/tests/guests/guest_hello" "$work"
install -d -o 65534 -m 700 "$work/run"
head -c 65536 /dev/zero >"$work/disk"
chmod 644 "$work/disk"
ip tuntap add tap0 mode tap user 0
ip tuntap add tapu mode tap user 65534
# as udev has it
chmod 666 /dev/kvm /dev/net/tun

# nobody WORD...: mvmm as a user of no group
nobody()
{
	setpriv --reuid=65534 --regid=65534 --clear-groups env XDG_RUNTIME_DIR="$work/run" "$work/mvmm" "$@" \
		</dev/null >"$work/out" 2>"$work/err"
}

# refused WHAT PATTERN OPTION...
refused()
{
	local what=$1 pattern=$2
	shift 2
	nobody run --kernel "$work/guest_hello" --memory 32M "$@"
	is "$what: one line, exit status 2, nothing left" \
		"$? $(wc -l <"$work/err") $(find "$work/run" -mindepth 2 | wc -l)" '2 1 0'
	has "$what: says what and what to do" "$work/err" "^mvmm: .*$pattern"
}

# runs WHAT OPTION...
runs()
{
	local what=$1
	shift
	nobody run --kernel "$work/guest_hello" --memory 32M "$@"
	is "$what" "$? $(tr -d '\r' <"$work/out")" '0 hello'
	cat "$work/err"
}

refused 'a disk that may not be written' "--disk $work/disk: no permission to write it; add readonly=on" --disk "$work/disk"
runs 'but read' --disk "$work/disk,readonly=on"
chmod 600 "$work/disk"
refused 'a disk that may not be read' "--disk $work/disk: no permission to read it" --disk "$work/disk,readonly=on"
runs 'a tap of this user' --net tap=tapu
refused 'a tap of another user' "tap=tap0: .*ip tuntap" --net tap=tap0
refused 'no right to vhost-net' '/dev/vhost-net: join the group' --net tap=tapu,vhost=on
chmod 600 /dev/net/tun
refused 'no right to make a tap' '/dev/net/tun' --net tap=tapu
chmod 666 /dev/net/tun
refused 'no right to vhost-vsock' '/dev/vhost-vsock' --vsock cid=3
edu=$(function_of 1234:11e8)
give "$edu"
refused 'no right to a device' "vfio .*$edu.*/dev/" --vfio "$edu"
give_back "$edu"
chmod 600 /dev/kvm
refused 'no right to KVM' '/dev/kvm: .*group'

# found WHAT NAME STATE TEXT: a line of the doctor's
found() { has "$1: $2" "$work/out" "^$2 +$3 +$4"; }

echo 4 >/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages
"$mvmm" doctor >"$work/out" 2>"$work/err"
is 'doctor: root has all' "$? $(grep -c ' ok  ' "$work/out") $(grep -c ' --  ' "$work/out")" '0 13 0'
found doctor "guest's CPU" ok 'KVM offers nested virtualization and '
found doctor KVM ok '/dev/kvm works'
found doctor IOMMU ok '[1-9][0-9]* IOMMU groups'
found doctor 'huge pages' ok '4 huge pages of 2M and 0 of 1G'
nobody doctor
is 'doctor: without KVM it fails' "$?" 1
found 'doctor, nobody' KVM -- '/dev/kvm: Permission denied'
found 'doctor, nobody' "guest's CPU" -- 'what KVM offers is not known'
found 'doctor, nobody' 'VFIO container' ok '/dev/vfio/vfio is there'
found 'doctor, nobody' 'locked memory' -- '[0-9]+ MiB may be locked'
for line in 'usermod -aG kvm \$USER' 'chown \$USER /dev/iommu' 'ulimit -l unlimited' 'chmod 0666 /dev/vhost-net'; do
	has "doctor, nobody: $line" "$work/out" "^ +$line"
done
echo 0 >/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages
unshare -m sh -c 'mount -t tmpfs none /dev && mount -t tmpfs none /sys && exec "$0" doctor' "$mvmm" >"$work/out" 2>"$work/err"
is 'doctor: where there is nothing it fails' "$?" 1
is 'doctor: and only what needs no file is well' "$(sed -n 's/  *ok  .*//p' "$work/out" | tr '\n' ' ')" 'io_uring locked memory userfaultfd '
for line in 'modprobe kvm_intel' 'boot the host with intel_iommu=on' 'modprobe iommufd' 'modprobe vfio_iommu_type1' \
	'modprobe vfio-pci' 'echo 512 >/sys' 'modprobe tun' 'modprobe vhost_net' 'modprobe vhost_vsock'; do
	has "doctor, nothing: $line" "$work/out" "^ +$line"
done
