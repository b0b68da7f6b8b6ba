/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The saved state of the interrupt controllers that all vCPUs share: both 8259 and the IOAPIC, as KVM_GET_IRQCHIP
 * returns them; the local APICs are part of the vCPUs' state. It is loaded last: the devices set the pins, and when the
 * IOAPIC delivers its pending interrupts, the local APICs have been loaded. And the PIT, as KVM_GET_PIT2 returns it.
 */
#include "vmm/kvm/irqchip.h"

#include "boot/layout_x86.h"
#include "core/state.h"

#include <sys/ioctl.h>

struct irqchip_state {
	struct kvm_pic_state pic[2];
	struct kvm_ioapic_state ioapic;
};

static int irqchip_state_get(struct kvm *kvm, uint32_t chip, struct kvm_irqchip *ret, struct err *err)
{
	*ret = (struct kvm_irqchip){.chip_id = chip};
	return ioctl(kvm->vm_fd, KVM_GET_IRQCHIP, ret) < 0 ? err_sys(err, -errno, "KVM_GET_IRQCHIP %u", chip) : 0;
}

static int irqchip_state_set(struct kvm *kvm, struct kvm_irqchip *chip, struct err *err)
{
	return ioctl(kvm->vm_fd, KVM_SET_IRQCHIP, chip) < 0 ?
	       err_sys(err, -errno, "KVM_SET_IRQCHIP %u", chip->chip_id) : 0;
}

static int irqchip_state_collect(void *object, void *into, struct err *err)
{
	struct irqchip_state *state = into;
	struct kvm_irqchip chip;
	int code = 0;

	for (uint32_t i = 0; i < 2 && code == 0; i++) {
		code = irqchip_state_get(object, i, &chip, err);
		state->pic[i] = chip.chip.pic;
	}
	code = code ?: irqchip_state_get(object, KVM_IRQCHIP_IOAPIC, &chip, err);
	state->ioapic = chip.chip.ioapic;
	return code;
}

static int irqchip_state_judge(const void *object, const void *loaded, uint32_t version, struct err *err)
{
	if (((const struct irqchip_state *)loaded)->ioapic.irr >> KVM_IOAPIC_NUM_PINS)
		return err_set(err, -EBADMSG, "interrupts of pins that the IOAPIC does not have");
	return 0;
}

static int irqchip_state_loaded(void *object, const void *loaded, struct err *err)
{
	const struct irqchip_state *state = loaded;
	struct kvm_irqchip chip;
	int code = 0;

	for (uint32_t i = 0; i < 2 && code == 0; i++) {
		chip = (struct kvm_irqchip){.chip_id = i, .chip.pic = state->pic[i]};
		code = irqchip_state_set(object, &chip, err);
	}
	chip = (struct kvm_irqchip){.chip_id = KVM_IRQCHIP_IOAPIC, .chip.ioapic = state->ioapic};
	chip.chip.ioapic.base_address = LAYOUT_IOAPIC;
	return code ?: irqchip_state_set(object, &chip, err);
}

static const struct state_field fields[] = {
	STATE_BYTES(struct irqchip_state, pic, 1),
	STATE_UINT_AS("ioapic_select", struct irqchip_state, ioapic.ioregsel, 1),
	STATE_UINT_AS("ioapic_id", struct irqchip_state, ioapic.id, 1),
	STATE_UINT_AS("ioapic_irr", struct irqchip_state, ioapic.irr, 1),
	STATE_BYTES_AS("ioapic_redirection", struct irqchip_state, ioapic.redirtbl, 1),
};

const struct state_table irqchip_state = {
	.name = "irqchip-x86", .version = 1, .oldest = 1, STATE_FIELDS(fields), STATE_APART(struct irqchip_state),
	.collect = irqchip_state_collect, .judge = irqchip_state_judge, .loaded = irqchip_state_loaded,
};

/* ---- the PIT ---- */

static int irqchip_state_collect_pit(void *object, void *into, struct err *err)
{
	return ioctl(((struct kvm *)object)->vm_fd, KVM_GET_PIT2, into) < 0 ? err_sys(err, -errno, "KVM_GET_PIT2") : 0;
}

static int irqchip_state_loaded_pit(void *object, const void *loaded, struct err *err)
{
	struct kvm_pit_state2 pit = *(const struct kvm_pit_state2 *)loaded;

	return ioctl(((struct kvm *)object)->vm_fd, KVM_SET_PIT2, &pit) < 0 ? err_sys(err, -errno, "KVM_SET_PIT2") : 0;
}

static const struct state_field pit_fields[] = {
	STATE_BYTES(struct kvm_pit_state2, channels, 1),
	STATE_UINT(struct kvm_pit_state2, flags, 1),
};

const struct state_table pit_state = {
	.name = "pit", .version = 1, .oldest = 1, STATE_FIELDS(pit_fields), STATE_APART(struct kvm_pit_state2),
	.collect = irqchip_state_collect_pit, .loaded = irqchip_state_loaded_pit,
};
