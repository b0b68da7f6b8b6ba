/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stops the timer of a paused vCPU's local APIC, and lets it run on (see vcpu_arch.h). KVM lets it run whatever the
 * vCPU does, and has no call that stops it. A deadline (Intel SDM volume 3, "TSC-Deadline Mode") is taken away and set
 * again. The two counting modes are set back to what was left, by loading the whole local APIC: an interrupt that
 * reaches it meanwhile is lost.
 */
#include "vmm/kvm/vcpu_arch.h"

#include <sys/ioctl.h>

#define MSR_TSC_DEADLINE 0x6e0u
#define LAPIC_LVT_TIMER 0x320u
#define LAPIC_INITIAL_COUNT 0x380u /* 0: the timer does not count */
#define LAPIC_COUNT 0x390u
#define LVT_MODE(lvt) ((lvt) >> 17 & 3)
#define MODE_DEADLINE 2u

struct deadline_msr {
	struct kvm_msrs head;
	struct kvm_msr_entry entry;
};

/* *value stays if this KVM has no such MSR. */
static int vcpu_timer_deadline(int fd, unsigned long request, uint64_t *value)
{
	struct deadline_msr msr = {.head.nmsrs = 1, .entry = {.index = MSR_TSC_DEADLINE, .data = *value}};
	int ret = ioctl(fd, request, &msr);

	if (ret == 1)
		*value = msr.entry.data;
	return ret < 0 ? -errno : 0;
}

int vcpu_arch_stop_timer(int vcpu_fd, struct vcpu_timer *timer, struct err *err)
{
	struct vcpu_timer now = {.stopped = true};
	struct kvm_lapic_state lapic;
	uint8_t *regs = (uint8_t *)lapic.regs;
	uint64_t none = 0;
	int code;

	if (timer->stopped)
		return 0;
	if (ioctl(vcpu_fd, KVM_GET_LAPIC, &lapic) < 0)
		return err_sys(err, -errno, "KVM_GET_LAPIC");
	if (LVT_MODE(get_le32(regs + LAPIC_LVT_TIMER)) != MODE_DEADLINE)
		now.left = get_le32(regs + LAPIC_COUNT);
	code = vcpu_timer_deadline(vcpu_fd, KVM_GET_MSRS, &now.deadline);
	if (code == 0 && now.deadline)
		code = vcpu_timer_deadline(vcpu_fd, KVM_SET_MSRS, &none);
	if (code < 0)
		return err_sys(err, code, "deadline of the timer");
	*timer = now;
	return 0;
}

static int vcpu_timer_set_left(int fd, uint32_t left)
{
	struct kvm_lapic_state lapic;

	if (ioctl(fd, KVM_GET_LAPIC, &lapic) < 0)
		return -errno;
	put_le32((uint8_t *)lapic.regs + LAPIC_COUNT, left);
	return ioctl(fd, KVM_SET_LAPIC, &lapic) < 0 ? -errno : 0;
}

int vcpu_arch_start_timer(int vcpu_fd, struct vcpu_timer *timer, struct err *err)
{
	int code = 0;

	if (timer->stopped && timer->left)
		code = vcpu_timer_set_left(vcpu_fd, timer->left);
	if (timer->stopped && timer->deadline)
		code = code ?: vcpu_timer_deadline(vcpu_fd, KVM_SET_MSRS, &timer->deadline);
	timer->stopped = false;
	return code < 0 ? err_sys(err, code, "timer of the local APIC") : 0;
}

void vcpu_arch_save_timer(const struct vcpu_timer *timer, struct kvm_lapic_state *lapic, uint64_t *deadline)
{
	if (!timer->stopped)
		return;
	*deadline = timer->deadline;
	if (timer->left)
		put_le32((uint8_t *)lapic->regs + LAPIC_COUNT, timer->left);
}

/* A timer that counts has begun to when the local APIC was loaded. */
void vcpu_arch_load_timer(struct vcpu_timer *timer, const struct kvm_lapic_state *lapic, uint64_t deadline)
{
	const uint8_t *regs = (const uint8_t *)lapic->regs;
	bool counts = LVT_MODE(get_le32(regs + LAPIC_LVT_TIMER)) != MODE_DEADLINE && get_le32(regs + LAPIC_INITIAL_COUNT);

	*timer = (struct vcpu_timer){.stopped = !counts, .deadline = counts ? 0 : deadline};
}
