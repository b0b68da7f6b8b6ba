/* SPDX-License-Identifier: Apache-2.0 */
/* See kvm_arch.h. On Intel without unrestricted guest mode, KVM needs four pages in the hole below 4 GiB. */
#include "vmm/kvm/kvm_arch.h"

#include "boot/layout_x86.h"

#include <linux/kvm.h>
#include <sys/ioctl.h>

int kvm_arch_setup(int vm_fd, struct err *err)
{
	uint64_t identity = LAYOUT_KVM_IDENTITY;

	if (ioctl(vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity) < 0)
		return err_sys(err, -errno, "KVM_SET_IDENTITY_MAP_ADDR");
	if (ioctl(vm_fd, KVM_SET_TSS_ADDR, LAYOUT_KVM_TSS) < 0)
		return err_sys(err, -errno, "KVM_SET_TSS_ADDR");
	return 0;
}
