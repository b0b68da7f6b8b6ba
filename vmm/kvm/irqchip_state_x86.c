/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The saved state of the interrupt controllers that all vCPUs share: both 8259 and the IOAPIC, field by field as
 * KVM_GET_IRQCHIP returns them; the local APICs are part of the vCPUs' state. It is loaded last: the devices set the
 * pins, and when the IOAPIC delivers its pending interrupts, the local APICs have been loaded. And the PIT, as
 * KVM_GET_PIT2 returns it; its counters begin anew when they are loaded.
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

static bool irqchip_state_is_pic(const struct kvm_pic_state *pic)
{
	uint8_t yes_or_no = pic->read_reg_select | pic->poll | pic->special_mask | pic->auto_eoi |
			    pic->rotate_on_auto_eoi | pic->special_fully_nested_mode | pic->init4;

	return yes_or_no <= 1 && pic->priority_add <= 7 && pic->init_state <= 3 && !(pic->irq_base & 7);
}

static int irqchip_state_judge(const void *object, const void *loaded, uint32_t version, struct err *err)
{
	const struct irqchip_state *state = loaded;

	if (state->ioapic.irr >> KVM_IOAPIC_NUM_PINS)
		return err_set(err, -EBADMSG, "interrupts of pins that the IOAPIC does not have");
	return irqchip_state_is_pic(&state->pic[0]) && irqchip_state_is_pic(&state->pic[1]) ? 0 :
	       err_set(err, -EBADMSG, "an invalid state of an 8259");
}

static int irqchip_state_loaded(void *object, const void *loaded, struct err *err)
{
	const struct irqchip_state *state = loaded;
	struct kvm_irqchip chip;
	int code = 0;

	/* The second 8259 first: what the devices have set there would be pending in the first one. */
	for (uint32_t i = 2; i-- > 0 && code == 0;) {
		chip = (struct kvm_irqchip){.chip_id = i, .chip.pic = state->pic[i]};
		code = irqchip_state_set(object, &chip, err);
	}
	chip = (struct kvm_irqchip){.chip_id = KVM_IRQCHIP_IOAPIC, .chip.ioapic = state->ioapic};
	chip.chip.ioapic.base_address = LAYOUT_IOAPIC;
	return code ?: irqchip_state_set(object, &chip, err);
}

#define PIC(name) STATE_UINT(struct kvm_pic_state, name, 1)
static const struct state_field pic_fields[] = {
	PIC(last_irr), PIC(irr), PIC(imr), PIC(isr), PIC(priority_add), PIC(irq_base), PIC(read_reg_select), PIC(poll),
	PIC(special_mask), PIC(init_state), PIC(auto_eoi), PIC(rotate_on_auto_eoi), PIC(special_fully_nested_mode),
	PIC(init4), PIC(elcr), PIC(elcr_mask),
};
static const struct state_table pic_table = {
	.name = "8259", .version = 1, .oldest = 1, STATE_FIELDS(pic_fields),
};

struct irqchip_pin {
	uint64_t redirection;
};

static const struct state_field pin_fields[] = {
	STATE_UINT(struct irqchip_pin, redirection, 1),
};
static const struct state_table pin_table = {
	.name = "pin", .version = 1, .oldest = 1, STATE_FIELDS(pin_fields),
};

static const struct state_field fields[] = {
	STATE_ARRAY(struct irqchip_state, pic, 2, &pic_table),
	STATE_UINT_AS("ioapic_select", struct irqchip_state, ioapic.ioregsel, 2),
	STATE_UINT_AS("ioapic_id", struct irqchip_state, ioapic.id, 2),
	STATE_UINT_AS("ioapic_irr", struct irqchip_state, ioapic.irr, 2),
	STATE_ARRAY(struct irqchip_state, ioapic.redirtbl, 2, &pin_table),
};

const struct state_table irqchip_state = {
	.name = "irqchip-x86", .version = 2, .oldest = 2, STATE_FIELDS(fields), STATE_APART(struct irqchip_state),
	.collect = irqchip_state_collect, .judge = irqchip_state_judge, .loaded = irqchip_state_loaded,
};

/* ---- the PIT ---- */

static int irqchip_state_collect_pit(void *object, void *into, struct err *err)
{
	return ioctl(((struct kvm *)object)->vm_fd, KVM_GET_PIT2, into) < 0 ? err_sys(err, -errno, "KVM_GET_PIT2") : 0;
}

/* Mode 255: the guest has not chosen one. */
static bool irqchip_state_is_channel(const struct kvm_pit_channel_state *channel)
{
	uint8_t yes_or_no = channel->status_latched | channel->bcd | channel->gate;

	return yes_or_no <= 1 && channel->count <= 0x10000 && (channel->mode <= 5 || channel->mode == 0xff) &&
	       channel->rw_mode <= 3 && channel->count_latched <= 4 && channel->read_state <= 4 && channel->write_state <= 4;
}

static int irqchip_state_judge_pit(const void *object, const void *loaded, uint32_t version, struct err *err)
{
	const struct kvm_pit_state2 *pit = loaded;

	if (pit->flags & ~(uint32_t)(KVM_PIT_FLAGS_HPET_LEGACY | KVM_PIT_FLAGS_SPEAKER_DATA_ON))
		return err_set(err, -EBADMSG, "unknown flags 0x%x", pit->flags);
	for (size_t i = 0; i < ARRAY_SIZE(pit->channels); i++)
		if (!irqchip_state_is_channel(&pit->channels[i]))
			return err_set(err, -EBADMSG, "an invalid state of counter %zu", i);
	return 0;
}

static int irqchip_state_loaded_pit(void *object, const void *loaded, struct err *err)
{
	struct kvm_pit_state2 pit = *(const struct kvm_pit_state2 *)loaded;

	return ioctl(((struct kvm *)object)->vm_fd, KVM_SET_PIT2, &pit) < 0 ? err_sys(err, -errno, "KVM_SET_PIT2") : 0;
}

#define CHANNEL(name) STATE_UINT(struct kvm_pit_channel_state, name, 1)
static const struct state_field channel_fields[] = {
	CHANNEL(count), CHANNEL(latched_count), CHANNEL(count_latched), CHANNEL(status_latched), CHANNEL(status),
	CHANNEL(read_state), CHANNEL(write_state), CHANNEL(write_latch), CHANNEL(rw_mode), CHANNEL(mode), CHANNEL(bcd),
	CHANNEL(gate),
};
static const struct state_table channel_table = {
	.name = "counter", .version = 1, .oldest = 1, STATE_FIELDS(channel_fields),
};

static const struct state_field pit_fields[] = {
	STATE_ARRAY(struct kvm_pit_state2, channels, 2, &channel_table),
	STATE_UINT(struct kvm_pit_state2, flags, 2),
};

const struct state_table pit_state = {
	.name = "pit", .version = 2, .oldest = 2, STATE_FIELDS(pit_fields), STATE_APART(struct kvm_pit_state2),
	.collect = irqchip_state_collect_pit, .judge = irqchip_state_judge_pit, .loaded = irqchip_state_loaded_pit,
};
