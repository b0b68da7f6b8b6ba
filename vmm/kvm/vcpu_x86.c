/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The initial registers of a vCPU (Intel SDM volume 3, "Processor Management and Initialization"; Linux
 * Documentation/arch/x86/boot.rst, "64-bit boot protocol"; the PVH start info ABI). Only the first vCPU enters the
 * kernel; the others wait for its INIT and SIPI.
 */
#include "vmm/kvm/vcpu_arch.h"

#include "boot/layout_x86.h"

#include <sys/ioctl.h>

#define CR0_PE (1ull << 0)
#define CR0_ET (1ull << 4)
#define CR0_NE (1ull << 5)
#define CR0_PG (1ull << 31)
#define CR4_PAE (1ull << 5)
#define EFER_LME (1ull << 8)
#define EFER_LMA (1ull << 10)

#define MSR_IA32_MISC_ENABLE 0x1a0u
#define MISC_ENABLE_FAST_STRING 1ull
#define MSR_MTRR_DEF_TYPE 0x2ffu
#define MTRR_ENABLE_WRITE_BACK 0x806ull

static int vcpu_set_msrs(int vcpu_fd, struct err *err)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entries[2];
	} msrs = {
		.head.nmsrs = 2,
		.entries = {
			{.index = MSR_IA32_MISC_ENABLE, .data = MISC_ENABLE_FAST_STRING},
			{.index = MSR_MTRR_DEF_TYPE, .data = MTRR_ENABLE_WRITE_BACK},
		},
	};
	int set = ioctl(vcpu_fd, KVM_SET_MSRS, &msrs);

	if (set < 0)
		return err_sys(err, -errno, "KVM_SET_MSRS");
	return set == 2 ? 0 : err_set(err, -ENOTSUP, "KVM refuses MSR 0x%x", msrs.entries[set].index);
}

/* A flat segment over 4 GiB: code (type 11) or data (3); wide is 64-bit code. */
static struct kvm_segment vcpu_flat(uint16_t selector, uint8_t type, bool wide)
{
	return (struct kvm_segment){
		.base = 0, .limit = 0xffffffff, .selector = selector, .type = type, .present = 1,
		.s = 1, .g = 1, .l = wide, .db = !wide,
	};
}

static int vcpu_set_sregs(int vcpu_fd, const struct boot_entry *entry, struct err *err)
{
	bool wide = entry->protocol == BOOT_LINUX64;
	struct kvm_sregs sregs;

	if (ioctl(vcpu_fd, KVM_GET_SREGS, &sregs) < 0)
		return err_sys(err, -errno, "KVM_GET_SREGS");
	sregs.cs = vcpu_flat(0x10, 11, wide);
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = vcpu_flat(0x18, 3, false);
	sregs.tr = (struct kvm_segment){.selector = 0x20, .limit = 0x67, .type = 11, .present = 1};
	sregs.gdt = (struct kvm_dtable){.base = entry->gdt, .limit = 5 * 8 - 1};
	sregs.idt = (struct kvm_dtable){0};
	sregs.cr0 = CR0_PE | CR0_ET | CR0_NE;
	sregs.cr4 = 0;
	sregs.efer = 0;
	if (wide) {
		sregs.cr3 = entry->page_tables;
		sregs.cr4 = CR4_PAE;
		sregs.cr0 |= CR0_PG;
		sregs.efer = EFER_LME | EFER_LMA;
	}
	return ioctl(vcpu_fd, KVM_SET_SREGS, &sregs) < 0 ? err_sys(err, -errno, "KVM_SET_SREGS") : 0;
}

static int vcpu_set_regs(int vcpu_fd, const struct boot_entry *entry, struct err *err)
{
	struct kvm_regs regs = {.rflags = 2, .rip = entry->entry};

	if (entry->protocol == BOOT_LINUX64)
		regs.rsi = entry->params;
	else
		regs.rbx = entry->params;
	return ioctl(vcpu_fd, KVM_SET_REGS, &regs) < 0 ? err_sys(err, -errno, "KVM_SET_REGS") : 0;
}

int vcpu_arch_reset(struct kvm *kvm, int vcpu_fd, const struct boot_entry *entry, struct err *err)
{
	int ret = vcpu_set_msrs(vcpu_fd, err);

	if (ret < 0 || !entry)
		return ret;
	ret = vcpu_set_sregs(vcpu_fd, entry, err);
	return ret < 0 ? ret : vcpu_set_regs(vcpu_fd, entry, err);
}

/* KVM treats rates as equal if they differ by at most 250 ppm. */
static bool vcpu_same_rate(unsigned int a, unsigned int b, unsigned int ppm)
{
	uint64_t difference = a > b ? a - b : b - a;

	return difference * 1000000 <= (uint64_t)ppm * b;
}

/* The VM answers without loading the vCPU's state into the processor, where KVM can ask it (Linux 5.16). */
static int vcpu_tsc_khz(const struct kvm *kvm, int vcpu_fd)
{
	int rate = ioctl(kvm->vm_fd, KVM_GET_TSC_KHZ, 0);

	return rate > 0 ? rate : ioctl(vcpu_fd, KVM_GET_TSC_KHZ, 0);
}

/*
 * Without scaling, a guest that uses kvmclock tolerates a slightly different rate: its kernel takes the rate from
 * kvmclock, and its timers are late or early by the difference. The offset then refers to the unscaled host counter.
 */
int vcpu_arch_set_tsc(struct kvm *kvm, int vcpu_fd, bool stable, struct vcpu_tsc_rates *rates, struct err *err)
{
	int rate = vcpu_tsc_khz(kvm, vcpu_fd);
	unsigned int host = (unsigned int)rate, told = rates->told ?: host;

	if (rate <= 0)
		return rate < 0 ? err_sys(err, -errno, "KVM_GET_TSC_KHZ") :
		       err_set(err, -ENOTSUP, "KVM does not know the rate of its TSC");
	*rates = (struct vcpu_tsc_rates){.told = told, .host = told, .real = host};
	if (vcpu_same_rate(told, host, 250))
		return 0;
	if (kvm_check(kvm, KVM_CAP_TSC_CONTROL) && ioctl(vcpu_fd, KVM_SET_TSC_KHZ, (unsigned long)told) == 0) {
		*rates = (struct vcpu_tsc_rates){.told = told, .host = host, .real = told};
		return 0;
	}
	if (!vcpu_same_rate(told, host, stable ? 250 : 10000))
		return err_set(err, -ENOTSUP, "the guest's time stamp counter runs at %u kHz, this host's at %u kHz, "
					      "and this processor or its KVM cannot scale it", told, host);
	return 0;
}
