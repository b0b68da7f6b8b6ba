/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See mptable.h. The floating pointer is where a kernel searches, between 0xf0000 and 1 MiB, and the table behind it. Called by
 * vmm/ before the guest starts.
 */
#include "boot/mptable.h"

#include "boot/checksum.h"
#include "boot/layout_x86.h"

#define LEGACY_APICS 254u /* the ids of CPUs are below: one of 8 bits is left for the IOAPIC, and 255 is all of them */
#define IOAPIC_VERSION 0x11u
#define LAPIC_VERSION 0x14u
#define BUS_PCI 0u
#define BUS_ISA 1u
#define ISA_LINES 16u
#define PIN_CASCADE 2u /* of the second 8259, which nothing is connected to */
#define PCI_DEVICES 32u

/* ---- the layouts in chapter 4; all fields are little-endian, as on x86 ---- */
struct pointer {
	char signature[4];
	uint32_t table;
	uint8_t length, revision, checksum, features[5];
} __attribute__((packed));
_Static_assert(sizeof(struct pointer) == 16, "4.1");

struct table {
	char signature[4];
	uint16_t length;
	uint8_t revision, checksum;
	char oem[8], product[12];
	uint32_t oem_table;
	uint16_t oem_length, entries;
	uint32_t local_apic;
	uint16_t more_length;
	uint8_t more_checksum, reserved;
} __attribute__((packed));
_Static_assert(sizeof(struct table) == 44, "4.2");

struct processor {
	uint8_t type, apic_id, apic_version, flags;
	uint32_t signature, features, reserved[2];
} __attribute__((packed));
#define PROCESSOR_ENABLED 1u
#define PROCESSOR_BOOT 2u
#define PROCESSOR_FAMILY 0x600u
#define PROCESSOR_FEATURES 0x201u /* an FPU, a local APIC */
_Static_assert(sizeof(struct processor) == 20, "4.3.1");

struct bus {
	uint8_t type, id;
	char name[6];
} __attribute__((packed));

struct ioapic {
	uint8_t type, id, version, flags;
	uint32_t address;
} __attribute__((packed));

struct interrupt {
	uint8_t type, kind;
	uint16_t flags;
	uint8_t bus, line, apic, pin;
} __attribute__((packed));
_Static_assert(sizeof(struct bus) == 8 && sizeof(struct ioapic) == 8 && sizeof(struct interrupt) == 8, "4.3.2 to 4.3.5");
#define EDGE_HIGH 5u
#define LEVEL_LOW 15u

enum { ENTRY_PROCESSOR, ENTRY_BUS, ENTRY_IOAPIC, ENTRY_INTERRUPT, ENTRY_LOCAL_INTERRUPT };
enum { KIND_INT = 0, KIND_NMI = 1, KIND_EXTINT = 3 };

struct mp {
	struct pointer pointer;
	struct table table;
	uint8_t entries[LEGACY_APICS * sizeof(struct processor) + 2 * sizeof(struct bus) + sizeof(struct ioapic) +
			(ISA_LINES + 4 * PCI_DEVICES + 2) * sizeof(struct interrupt)];
} __attribute__((packed));
_Static_assert(sizeof(struct mp) <= LAYOUT_MPTABLE_SIZE, "it fits");

/* Adds an entry of len bytes behind the last one. */
static void mptable_add(struct mp *mp, const void *entry, size_t len)
{
	memcpy(mp->entries + mp->table.length - sizeof(mp->table), entry, len);
	mp->table.length = (uint16_t)(mp->table.length + len);
	mp->table.entries++;
}

static void mptable_add_interrupt(struct mp *mp, uint16_t flags, uint8_t bus, uint8_t line, uint8_t apic, uint8_t pin)
{
	const struct interrupt entry = {ENTRY_INTERRUPT, KIND_INT, flags, bus, line, apic, pin};

	mptable_add(mp, &entry, sizeof(entry));
}

/* Returns an id that no CPU has, for the IOAPIC. */
static uint8_t mptable_add_cpus(struct mp *mp, unsigned int cpus, const uint32_t *apic_ids)
{
	uint8_t next = 0;

	for (unsigned int i = 0; i < cpus; i++) {
		const struct processor entry = {
			.type = ENTRY_PROCESSOR, .apic_id = (uint8_t)apic_ids[i], .apic_version = LAPIC_VERSION,
			.flags = PROCESSOR_ENABLED | (i ? 0 : PROCESSOR_BOOT), .signature = PROCESSOR_FAMILY,
			.features = PROCESSOR_FEATURES,
		};

		if (apic_ids[i] >= LEGACY_APICS)
			continue;
		mptable_add(mp, &entry, sizeof(entry));
		next = MAX(next, (uint8_t)(apic_ids[i] + 1));
	}
	return next;
}

/* ISA's lines are the pins of the same number; PCI's pins are as in the DSDT. */
static void mptable_add_interrupts(struct mp *mp, uint8_t apic)
{
	for (uint8_t pin = 0; pin < ISA_LINES; pin++)
		if (pin != PIN_CASCADE)
			mptable_add_interrupt(mp, EDGE_HIGH, BUS_ISA, pin, apic, pin);
	for (uint8_t device = 0; device < PCI_DEVICES; device++)
		for (uint8_t pin = 0; pin < 4; pin++)
			mptable_add_interrupt(mp, LEVEL_LOW, BUS_PCI, (uint8_t)(device << 2 | pin), apic,
					      (uint8_t)(LAYOUT_GSI_PCI + (device + pin) % 4));
	mptable_add(mp, &(struct interrupt){ENTRY_LOCAL_INTERRUPT, KIND_EXTINT, 0, BUS_ISA, 0, 0, 0},
		    sizeof(struct interrupt));
	mptable_add(mp, &(struct interrupt){ENTRY_LOCAL_INTERRUPT, KIND_NMI, 0, BUS_ISA, 0, 0xff, 1},
		    sizeof(struct interrupt));
}

int mptable_build(unsigned int cpus, const uint32_t *apic_ids, struct guest_memory *memory, struct err *err)
{
	struct mp *mp = guest_memory_at(memory, LAYOUT_MPTABLE, LAYOUT_MPTABLE_SIZE);
	uint8_t apic;

	if (!mp)
		return err_set(err, -ENOSPC, "no guest memory for the MP table at 0x%llx", LAYOUT_MPTABLE);
	mp->pointer = (struct pointer){.signature = {'_', 'M', 'P', '_'}, .length = 1, .revision = 4,
				       .table = (uint32_t)(LAYOUT_MPTABLE + offsetof(struct mp, table))};
	mp->pointer.checksum = checksum_of(&mp->pointer, sizeof(mp->pointer));
	mp->table = (struct table){.signature = {'P', 'C', 'M', 'P'}, .length = sizeof(mp->table), .revision = 4,
				   .local_apic = LAYOUT_LAPIC};
	memcpy(mp->table.oem, "MVMM    ", 8);
	memcpy(mp->table.product, "MVMM        ", 12);
	apic = mptable_add_cpus(mp, cpus, apic_ids);
	mptable_add(mp, &(struct bus){ENTRY_BUS, BUS_PCI, {'P', 'C', 'I', ' ', ' ', ' '}}, sizeof(struct bus));
	mptable_add(mp, &(struct bus){ENTRY_BUS, BUS_ISA, {'I', 'S', 'A', ' ', ' ', ' '}}, sizeof(struct bus));
	mptable_add(mp, &(struct ioapic){ENTRY_IOAPIC, apic, IOAPIC_VERSION, 1, LAYOUT_IOAPIC}, sizeof(struct ioapic));
	mptable_add_interrupts(mp, apic);
	mp->table.checksum = checksum_of(&mp->table, mp->table.length);
	guest_memory_dirty(memory, LAYOUT_MPTABLE, LAYOUT_MPTABLE_SIZE);
	return 0;
}
