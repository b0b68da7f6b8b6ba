#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2016 # what is in single quotes runs in the guest
# Linux by Firecracker's API: a placeholder of a disk is swapped while it runs, an NVMe disk of the host is there from the start,
# and comes and goes in another life.
# host: --device nvme
# prepare: tests/guest/initramfs 7.2-elf
# timeout: 400

# shellcheck source=tests/testhost/lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
# shellcheck source=tests/testhost/vfio.sh
. "$tree/tests/testhost/vfio.sh"
guest_kernel=7.2-elf
nvme=$(function_of 1b36:0010)
ln -s "$mvmm" "$work/firecracker"
: >"$work/empty"
truncate -s 32M "$work/image"
dmesg -C

cat >"$work/client" <<'END'
import http.client, json, socket, sys
class Connection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(sys.argv[1])
client = Connection("localhost", timeout=120)
client.request(sys.argv[2], sys.argv[3], sys.argv[4] if len(sys.argv) > 4 else None)
reply = client.getresponse()
print(reply.status, reply.read().decode())
END
api() { python3 "$work/client" "$work/$life.sock" "$@"; }

# put WHAT PATH BODY: what must be done
put() { is "$1" "$(api PUT "$2" "$3")" '204 '; }

# boot COMMAND: a machine of this life that runs it
boot()
{
	local words="$guest_words mvmm.net= mvmm.run=\\\"$1\\\""
	put "$life: its kernel" /boot-source "{\"kernel_image_path\": \"$(guest_file kernel "$guest_kernel")\",
		\"initrd_path\": \"$(guest_file initramfs "$guest_kernel")\", \"boot_args\": \"$words\"}"
	put "$life: its size" /machine-config '{"vcpu_count": 2, "mem_size_mib": 256}'
	put "$life: its serial port" /serial "{\"serial_out_path\": \"$work/$life.log\"}"
	put "$life: a placeholder" /drives/stub "{\"drive_id\": \"stub\", \"is_root_device\": false, \"path_on_host\": \"$work/empty\"}"
	put "$life: it starts" /actions '{"action_type": "InstanceStart"}'
}

begin()
{
	life=$1
	XDG_RUNTIME_DIR=$work "$work/firecracker" --api-sock "$work/$life.sock" --enable-pci >"$work/$life.out" 2>&1 </dev/null &
	machine=$!
	until_true 20 test -S "$work/$life.sock"
}

says() { until_true 60 grep -q "$1" "$work/$life.log" || { not_ok "$life: the guest says $1" 'it does not' && sed 's/^/    /' "$work/$life.log" "$work/$life.out"; }; }

give "$nvme"
begin first
put 'first: an NVMe disk' /device-passthrough/disk "{\"id\": \"disk\", \"sbdf\": \"$nvme\"}"
boot 'until [ -b /dev/nvme0n1 ]; do sleep 0.1; done; echo there; until [ $(cat /sys/block/vda/size) = 65536 ]; do sleep 0.1; done; echo swapped; dd if=/dev/nvme0n1 of=/dev/vda bs=1M count=8 && echo copied'
says there && ok 'the guest has the disk that was put before the start'
is 'a placeholder is swapped' "$(api PATCH /drives/stub "{\"drive_id\": \"stub\", \"path_on_host\": \"$work/image\"}")" '204 '
says copied && ok 'the guest works with both'
wait "$machine"
is 'a guest that powers off ends it with 0' $? 0

begin second
boot 'echo up; until [ -b /dev/nvme0n1 ]; do sleep 0.1; done; echo came; until [ ! -e /dev/nvme0n1 ]; do sleep 0.1; done; echo went'
says up
put 'second: an NVMe disk that comes' /device-passthrough/disk "{\"id\": \"disk\", \"sbdf\": \"$nvme\"}"
says came && ok 'the guest has a disk that comes'
is 'it goes' "$(api DELETE /device-passthrough/disk)" '204 '
says went && ok 'and the guest lets go of it'
wait "$machine"
is 'the second one ends with 0' $? 0

give_back "$nvme"
until_true 10 test -b /dev/nvme0n1
is 'what was copied is the same' "$(head -c 8M /dev/nvme0n1 | cksum)" "$(head -c 8M "$work/image" | cksum)"
kernel_is_quiet "the host's kernel has nothing to say"
