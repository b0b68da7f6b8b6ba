/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/kvm/irqchip_state_x86: both 8259, the IOAPIC and the PIT come back as they were, one that has just been made, too; what
 * none of them can be is refused.
 */
#include "core/state.h"
#include "tests/unit/fake_kvm.h"
#include "tests/unit/test.h"
#include "vmm/kvm/irqchip.h"

#include <sys/ioctl.h>

static struct kvm kvm;
static struct state_buffer saved;
static struct err err;

static void end(void)
{
	state_buffer_free(&saved);
	if (kvm.vm_fd > 0)
		kvm_close(&kvm);
	kvm.vm_fd = 0;
	fake_kvm_reset();
}

static void begin(void)
{
	end();
	CHECK_EQ(kvm_open(&kvm, &err), 0);
	CHECK_EQ(kvm_create_vm(&kvm, &err), 0);
	for (uint32_t i = 0; i < 2; i++)
		fake_kvm.chips[i].chip.pic = (struct kvm_pic_state){.imr = (uint8_t)(0xf0 + i), .irq_base = 0x30, .init4 = 1,
								    .priority_add = 7, .elcr_mask = 0xf8};
	fake_kvm.chips[KVM_IRQCHIP_IOAPIC].chip.ioapic.irr = 1u << 23;
	fake_kvm.chips[KVM_IRQCHIP_IOAPIC].chip.ioapic.redirtbl[23].bits = 0x03000000000189a0;
	for (unsigned int i = 0; i < 3; i++)
		fake_kvm.pit.channels[i] = (struct kvm_pit_channel_state){.count = 0x10000, .mode = 0xff, .gate = i != 2};
}

static void they_come_back(void)
{
	struct kvm_irqchip chips[3];
	struct kvm_pit_state2 pit;

	begin();
	memcpy(chips, fake_kvm.chips, sizeof(chips));
	pit = fake_kvm.pit;
	CHECK_EQ(state_save(&irqchip_state, &kvm, &saved, &err), 0);
	memset(fake_kvm.chips, 0, sizeof(fake_kvm.chips));
	CHECK_EQ(state_load(&irqchip_state, &kvm, saved.data, saved.len, &err), 0);
	for (uint32_t i = 0; i < 2; i++)
		CHECK(memcmp(&fake_kvm.chips[i].chip.pic, &chips[i].chip.pic, sizeof(chips[i].chip.pic)) == 0);
	CHECK_EQ(fake_kvm.chips[2].chip.ioapic.irr, 1 << 23);
	CHECK_EQ(fake_kvm.chips[2].chip.ioapic.redirtbl[23].bits, chips[2].chip.ioapic.redirtbl[23].bits);
	saved.len = 0;
	CHECK_EQ(state_save(&pit_state, &kvm, &saved, &err), 0);
	memset(&fake_kvm.pit, 0, sizeof(fake_kvm.pit));
	CHECK_EQ(state_load(&pit_state, &kvm, saved.data, saved.len, &err), 0);
	CHECK(memcmp(&fake_kvm.pit, &pit, sizeof(pit)) == 0);
}

/* The value of a field of the saved record, the n-th of that name with its length before it. */
static uint8_t *field(const char *name, unsigned int n)
{
	char counted[40];
	int len = snprintf(counted, sizeof(counted), "%c%s", (int)strlen(name), name);

	for (uint8_t *at = saved.data;; at++, n--) {
		at = memmem(at, saved.len - (size_t)(at - saved.data), counted, (size_t)len);
		CHECK(at);
		if (!n)
			return at + len + 1 + 4;
	}
}

struct wrong {
	const char *name;
	unsigned int n, at;
	uint8_t value;
};

static void expect_refused(const struct state_table *table, const struct wrong *wrong, size_t count)
{
	begin();
	CHECK_EQ(state_save(table, &kvm, &saved, &err), 0);
	for (size_t i = 0; i < count; i++) {
		uint8_t *value = field(wrong[i].name, wrong[i].n) + wrong[i].at, good = *value;

		*value = wrong[i].value;
		if (state_load(table, &kvm, saved.data, saved.len, &err) != -EBADMSG)
			printf("# %s %u\n", wrong[i].name, wrong[i].n);
		CHECK_EQ(state_load(table, &kvm, saved.data, saved.len, &err), -EBADMSG);
		*value = good;
	}
	CHECK_EQ(state_load(table, &kvm, saved.data, saved.len, &err), 0);
	end();
}

static void what_they_cannot_be_is_refused(void)
{
	static const struct wrong chips[] = {
		{"priority_add", 0, 0, 8}, {"irq_base", 1, 0, 0x31}, {"read_reg_select", 0, 0, 2}, {"poll", 1, 0, 2},
		{"special_mask", 0, 0, 2}, {"init_state", 1, 0, 4}, {"auto_eoi", 0, 0, 2}, {"rotate_on_auto_eoi", 1, 0, 2},
		{"special_fully_nested_mode", 0, 0, 2}, {"init4", 1, 0, 2}, {"ioapic_irr", 0, 3, 1},
	};
	static const struct wrong counters[] = {
		{"count", 0, 2, 2}, {"count", 1, 0, 1}, {"mode", 2, 0, 6}, {"rw_mode", 0, 0, 4}, {"bcd", 1, 0, 2}, {"gate", 2, 0, 2},
		{"read_state", 0, 0, 5}, {"write_state", 1, 0, 5}, {"count_latched", 2, 0, 5}, {"status_latched", 0, 0, 2},
		{"flags", 0, 0, 4}, {"flags", 0, 3, 0x80},
	};

	expect_refused(&irqchip_state, chips, ARRAY_SIZE(chips));
	expect_refused(&pit_state, counters, ARRAY_SIZE(counters));
}

static void every_call_may_fail(void)
{
	static const struct state_table *const tables[] = {&irqchip_state, &pit_state};

	for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
		unsigned int n = 0;

		do {
			int code;

			begin();
			fake_kvm_fail(++n, EIO);
			code = state_save(tables[i], &kvm, &saved, &err) ?:
			       state_load(tables[i], &kvm, saved.data, saved.len, &err);
			CHECK_EQ(code, fake_kvm.failed ? -EIO : 0);
		} while (fake_kvm.failed);
		CHECK_EQ(n, i ? 3 : 7);
	}
	end();
}

TEST_MAIN(TEST(they_come_back), TEST(what_they_cannot_be_is_refused), TEST(every_call_may_fail))
