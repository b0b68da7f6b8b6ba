/* SPDX-License-Identifier: Apache-2.0 */
/*
 * boot/mptable_x86: the table is found as a kernel finds it, sums up to zero, and has every CPU, one IOAPIC that has an id of its
 * own, and every line once.
 */
#include "boot/mptable.h"
#include "tests/unit/boot_guest.h"

#define RAM MIB(2)
#define CPUS_MAX 254u

static uint8_t sum(const uint8_t *p, size_t len)
{
	uint8_t total = 0;

	while (len--)
		total = (uint8_t)(total + *p++);
	return total;
}

/* As Linux searches: at each multiple of 16 between 0xf0000 and 1 MiB. */
static const uint8_t *find(const struct boot_guest *guest)
{
	for (uint32_t at = 0xf0000; at < 0x100000; at += 16) {
		const uint8_t *pointer = guest->ram + at;

		if (!memcmp(pointer, "_MP_", 4) && pointer[8] == 1 && !sum(pointer, 16)) {
			CHECK_EQ(pointer[9], 4);
			CHECK_EQ(pointer[11], 0); /* a table, no default */
			return guest->ram + get_le32(pointer + 4);
		}
	}
	CHECK(!"found");
	return NULL;
}

struct seen {
	unsigned int cpus, ioapics, isa, pci, local;
	bool ids[256];
	uint8_t ioapic;
};

static void see(const uint8_t *entry, struct seen *seen)
{
	switch (entry[0]) {
	case 0:
		CHECK(!seen->ids[entry[1]] && entry[3] == (seen->cpus ? 1 : 3));
		seen->ids[entry[1]] = true;
		seen->cpus++;
		break;
	case 1:
		CHECK(!memcmp(entry + 2, entry[1] ? "ISA   " : "PCI   ", 6));
		break;
	case 2:
		CHECK_EQ(get_le32(entry + 4), LAYOUT_IOAPIC);
		CHECK_EQ(entry[3], 1);
		seen->ioapic = entry[1];
		seen->ioapics++;
		break;
	case 3:
		CHECK(entry[1] == 0 && entry[6] == seen->ioapic && seen->ioapics);
		if (entry[4]) { /* an edge, active high, where the line has the pin's number */
			CHECK(entry[5] == entry[7] && get_le16(entry + 2) == 5);
			CHECK(entry[7] != 2 && entry[7] < 16);
			seen->isa |= 1u << entry[7];
		} else {
			CHECK(entry[7] == LAYOUT_GSI_PCI + ((entry[5] >> 2) + (entry[5] & 3)) % 4 && get_le16(entry + 2) == 15);
			seen->pci++;
		}
		break;
	default:
		CHECK(entry[0] == 4 && entry[1] == (entry[7] ? 1 : 3)); /* NMI at LINT1, the 8259 at LINT0 */
		seen->local++;
	}
}

static void has_cpus_and_lines(void)
{
	static const struct {
		unsigned int cpus, step, expected;
	} cases[] = {{1, 1, 1}, {4, 1, 4}, {4, 3, 4}, {254, 1, 254}, {254, 2, 127}};

	for (size_t c = 0; c < ARRAY_SIZE(cases); c++) {
		struct boot_guest guest = boot_guest_new(RAM);
		uint32_t ids[CPUS_MAX];
		struct seen seen = {0};
		const uint8_t *table, *at;

		for (uint32_t i = 0; i < cases[c].cpus; i++)
			ids[i] = i * cases[c].step;
		memset(guest.ram + LAYOUT_ACPI, 0xa5, LAYOUT_ACPI_SIZE); /* what was there before does not matter */
		CHECK_EQ(mptable_build(cases[c].cpus, ids, guest.memory, NULL), 0);
		table = find(&guest);
		CHECK(!memcmp(table, "PCMP", 4) && table[6] == 4 && !sum(table, get_le16(table + 4)));
		CHECK(table + get_le16(table + 4) <= guest.ram + LAYOUT_MPTABLE + LAYOUT_MPTABLE_SIZE);
		CHECK_EQ(get_le32(table + 36), LAYOUT_LAPIC);
		at = table + 44;
		for (unsigned int i = 0; i < get_le16(table + 34); i++) {
			see(at, &seen);
			at += at[0] ? 8 : 20;
		}
		CHECK(at == table + get_le16(table + 4));
		CHECK_EQ(seen.cpus, cases[c].expected);
		CHECK(seen.ioapics == 1 && !seen.ids[seen.ioapic]);
		CHECK_EQ(seen.isa, 0xfffb);
		CHECK_EQ(seen.pci, 128);
		CHECK_EQ(seen.local, 2);
		boot_guest_free(&guest);
	}
}

static void needs_memory(void)
{
	struct guest_memory *empty = guest_memory_create();
	struct err err;

	CHECK_EQ(mptable_build(1, (uint32_t[]){0}, empty, &err), -ENOSPC);
	guest_memory_destroy(empty);
}

TEST_MAIN(TEST(has_cpus_and_lines), TEST(needs_memory))
