/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The saved state of the interrupt controllers that all vCPUs share: both 8259 and the IOAPIC, as KVM_GET_IRQCHIP tells them;
 * the local APICs are the vCPUs'. Loaded last of all: which pins are high KVM learns from the devices, and what the IOAPIC
 * has pending it then delivers to local APICs that are there already.
 */
#include "vmm/kvm/irqchip.h"

#include "boot/layout_x86.h"
#include "core/state.h"

#include <sys/ioctl.h>

struct irqchip_image {
	struct kvm_pic_state pic[2];
	uint32_t ioapic_select, ioapic_id, ioapic_irr;
	uint64_t ioapic_redirection[KVM_IOAPIC_NUM_PINS];
};

static int irqchip_state_get(struct kvm *kvm, uint32_t chip, struct kvm_irqchip *ret, struct err *err)
{
	*ret = (struct kvm_irqchip){.chip_id = chip};
	return ioctl(kvm->vm_fd, KVM_GET_IRQCHIP, ret) < 0 ? err_sys(err, -errno, "KVM_GET_IRQCHIP %u", chip) : 0;
}

static int irqchip_state_set(struct kvm *kvm, struct kvm_irqchip *chip, struct err *err)
{
	return ioctl(kvm->vm_fd, KVM_SET_IRQCHIP, chip) < 0 ? err_sys(err, -errno, "KVM_SET_IRQCHIP %u", chip->chip_id) : 0;
}

static int irqchip_state_fill(void *object, void *into, struct err *err)
{
	struct irqchip_image *image = into;
	struct kvm_irqchip chip;
	int code = 0;

	for (uint32_t i = 0; i < 2 && code == 0; i++) {
		code = irqchip_state_get(object, i, &chip, err);
		image->pic[i] = chip.chip.pic;
	}
	code = code ?: irqchip_state_get(object, KVM_IRQCHIP_IOAPIC, &chip, err);
	image->ioapic_select = chip.chip.ioapic.ioregsel;
	image->ioapic_id = chip.chip.ioapic.id;
	image->ioapic_irr = chip.chip.ioapic.irr;
	for (unsigned int pin = 0; pin < KVM_IOAPIC_NUM_PINS; pin++)
		image->ioapic_redirection[pin] = chip.chip.ioapic.redirtbl[pin].bits;
	return code;
}

static int irqchip_state_apply(void *object, const void *from, uint32_t version, struct err *err)
{
	const struct irqchip_image *image = from;
	struct kvm_irqchip chip;
	int code = 0;

	if (image->ioapic_irr >> KVM_IOAPIC_NUM_PINS)
		return err_set(err, -EBADMSG, "interrupts of pins that the IOAPIC does not have");
	for (uint32_t i = 0; i < 2 && code == 0; i++) {
		chip = (struct kvm_irqchip){.chip_id = i, .chip.pic = image->pic[i]};
		code = irqchip_state_set(object, &chip, err);
	}
	chip = (struct kvm_irqchip){
		.chip_id = KVM_IRQCHIP_IOAPIC,
		.chip.ioapic = {.base_address = LAYOUT_IOAPIC, .ioregsel = image->ioapic_select, .id = image->ioapic_id,
				.irr = image->ioapic_irr},
	};
	for (unsigned int pin = 0; pin < KVM_IOAPIC_NUM_PINS; pin++)
		chip.chip.ioapic.redirtbl[pin].bits = image->ioapic_redirection[pin];
	return code ?: irqchip_state_set(object, &chip, err);
}

static const struct state_field fields[] = {
	STATE_BYTES(struct irqchip_image, pic, 1),
	STATE_UINT(struct irqchip_image, ioapic_select, 1),
	STATE_UINT(struct irqchip_image, ioapic_id, 1),
	STATE_UINT(struct irqchip_image, ioapic_irr, 1),
	STATE_BYTES(struct irqchip_image, ioapic_redirection, 1),
};

const struct state_table irqchip_state = {
	.name = "irqchip-x86", .version = 1, .oldest = 1, STATE_FIELDS(fields), .image = sizeof(struct irqchip_image),
	.fill = irqchip_state_fill, .apply = irqchip_state_apply,
};
