/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See acpi.h. All tables are at LAYOUT_ACPI: the RSDP first, where a guest that searches finds it, then the other
 * tables, and the record that the DSDT reads at the end. Called by vmm/ before the guest starts.
 */
#include "boot/acpi.h"

#include "boot/checksum.h"
#include "boot/layout_x86.h"

/* iasl's output is one array of unsigned char, dsdt_x86_aml_code. */
static const
#include "boot/dsdt_x86.hex"

#define X2APIC_ID_MIN 255u
#define TABLES_SIZE (LAYOUT_MPTABLE - LAYOUT_ACPI)

/* ---- the tables' layouts in ACPI 6.4; all fields are little-endian, as on x86 ---- */
struct rsdp { /* 5.2.5.3 */
	char signature[8];
	uint8_t checksum;
	char oem_id[6];
	uint8_t revision;
	uint32_t rsdt;
	uint32_t length;
	uint64_t xsdt;
	uint8_t extended_checksum, reserved[3];
} __attribute__((packed));

struct header { /* 5.2.6 */
	char signature[4];
	uint32_t length;
	uint8_t revision, checksum;
	char oem_id[6], oem_table_id[8];
	uint32_t oem_revision;
	char creator_id[4];
	uint32_t creator_revision;
} __attribute__((packed));

struct address { /* 5.2.3.2 */
	uint8_t space, bits, bit_offset, access;
	uint64_t address;
} __attribute__((packed));
#define SPACE_IO 1u
#define ACCESS_BYTE 1u
#define ACCESS_WORD 2u
#define ACCESS_DWORD 3u

struct fadt { /* 5.2.9; some fields that are zero have no name */
	struct header header;
	uint32_t facs, dsdt;
	uint8_t reserved0, profile;
	uint16_t sci_interrupt;
	uint8_t system_management[8];
	uint32_t pm1a_events, pm1b_events, pm1a_control, pm1b_control, pm2_control, timer, gpe0, gpe1;
	uint8_t events_len, control_len, pm2_len, timer_len, gpe0_len, gpe1_len, gpe1_base, c_states;
	uint16_t c2_latency, c3_latency, flush[2];
	uint8_t duty[2], day_alarm, month_alarm, century;
	uint16_t boot_arch;
	uint8_t reserved1;
	uint32_t flags;
	struct address reset;
	uint8_t reset_value;
	uint16_t arm_boot_arch;
	uint8_t minor;
	uint64_t x_facs, x_dsdt;
	struct address x_pm1a_events, x_pm1b_events, x_pm1a_control, x_pm1b_control, x_pm2_control, x_timer, x_gpe0, x_gpe1;
	struct address sleep_control, sleep_status;
	char hypervisor[8];
} __attribute__((packed));
_Static_assert(sizeof(struct fadt) == 276, "revision 6");
_Static_assert(offsetof(struct fadt, boot_arch) == 109 && offsetof(struct fadt, sleep_control) == 244, "revision 6");
_Static_assert(offsetof(struct fadt, pm1a_events) == 56 && offsetof(struct fadt, century) == 108, "revision 6");
_Static_assert(offsetof(struct fadt, x_pm1a_events) == 148, "revision 6");
#define FADT_WBINVD (1u << 0)
#define FADT_C1 (1u << 2)           /* all CPUs can halt */
#define FADT_SLEEP_BUTTON (1u << 5) /* it is a device of the DSDT, or does not exist */
#define FADT_NO_RTC_WAKE (1u << 6)
#define FADT_TIMER_32_BITS (1u << 8)
#define FADT_RESET (1u << 10)
#define NO_C2 0x65u                 /* latencies that say that there is no such state */
#define NO_C3 0x3e9u
#define BOOT_ARCH_8042 (1u << 1)
#define BOOT_ARCH_NO_VGA (1u << 2)
#define BOOT_ARCH_NO_ASPM (1u << 4) /* the host manages the links */

struct facs { /* 5.2.10: what the fixed hardware shares with an operating system, at a multiple of 64 */
	char signature[4];
	uint32_t length, hardware, waking_vector, global_lock, flags;
	uint64_t x_waking_vector;
	uint8_t version, reserved[31];
} __attribute__((packed));
_Static_assert(sizeof(struct facs) == 64, "version 2");

struct madt { /* 5.2.12 */
	struct header header;
	uint32_t local_apic, flags;
} __attribute__((packed));
struct madt_local_apic {
	uint8_t type, length, uid, apic_id;
	uint32_t flags;
} __attribute__((packed));
struct madt_local_x2apic {
	uint8_t type, length;
	uint16_t reserved;
	uint32_t apic_id, flags, uid;
} __attribute__((packed));
struct madt_ioapic {
	uint8_t type, length, id, reserved;
	uint32_t address, gsi_base;
} __attribute__((packed));
struct madt_override {
	uint8_t type, length, bus, source;
	uint32_t gsi;
	uint16_t flags;
} __attribute__((packed));
enum { MADT_LOCAL_APIC = 0, MADT_IOAPIC = 1, MADT_OVERRIDE = 2, MADT_LOCAL_X2APIC = 9 };
#define MADT_ENABLED 1u
#define MADT_LEVEL_HIGH 0xdu

struct mcfg { /* PCI firmware specification 3.3, 4.1.2 */
	struct header header;
	uint64_t reserved0, base;
	uint16_t segment;
	uint8_t first_bus, last_bus;
	uint32_t reserved1;
} __attribute__((packed));

/* The AML of a virtio device on MMIO (19.6 and 20.2), which differs in name, _UID and resources. */
struct virtio_aml {
	uint8_t device[2], device_length[2];
	uint8_t root, two_names;
	char scope[4], name[4];
	uint8_t hid_name;
	char hid[4];
	uint8_t hid_string;
	char hid_value[9];
	uint8_t uid_name;
	char uid[4];
	uint8_t uid_byte, uid_value;
	uint8_t crs_name;
	char crs[4];
	uint8_t crs_buffer, crs_length, crs_byte, crs_size;
	uint8_t memory; /* a 32-bit fixed memory range, 6.4.3.4 */
	uint16_t memory_length;
	uint8_t memory_writable;
	uint32_t memory_base, memory_size;
	uint8_t interrupt; /* an extended interrupt, 6.4.3.6 */
	uint16_t interrupt_length;
	uint8_t interrupt_flags, interrupt_count;
	uint32_t interrupt_gsi;
	uint16_t end_tag;
} __attribute__((packed));
#define VIRTIO_AML_RESOURCES 23u
#define VIRTIO_AML_INTERRUPT 0x0bu /* consumer, edge, active high, shared */
_Static_assert(sizeof(struct virtio_aml) == 68, "its lengths are constants below");
_Static_assert(sizeof(struct virtio_aml) - offsetof(struct virtio_aml, memory) == VIRTIO_AML_RESOURCES, "a buffer");

/* At LAYOUT_ACPI_RECORD, for the DSDT. */
struct acpi_record {
	uint64_t mem64, mem64_size;
	uint32_t serial;
	uint32_t hotplug;
	uint32_t keyboard;
};

struct builder {
	uint8_t *base; /* LAYOUT_ACPI's host address */
	uint64_t used;
	bool full;
};

/* The next len bytes, zeroed. If they do not fit, the builder is full and returns its start as scratch space. */
static void *acpi_take(struct builder *builder, size_t len)
{
	void *p = builder->base;

	if (len > TABLES_SIZE - builder->used) {
		builder->full = true;
		return p;
	}
	p = builder->base + builder->used;
	builder->used += len;
	return memset(p, 0, len);
}

static uint64_t acpi_guest_address(const struct builder *builder, const void *p)
{
	return LAYOUT_ACPI + (uint64_t)((const uint8_t *)p - builder->base);
}

/* Starts a table of len bytes at the next multiple of 16. */
static void *acpi_start_table(struct builder *builder, const char *signature, uint8_t revision, size_t len)
{
	struct header *header;

	acpi_take(builder, align_up(builder->used, 16) - builder->used);
	header = acpi_take(builder, len);
	*header = (struct header){.revision = revision, .oem_revision = 1, .creator_revision = 1};
	memcpy(header->signature, signature, 4);
	memcpy(header->oem_id, "MVMM  ", 6);
	memcpy(header->oem_table_id, "MVMM    ", 8);
	memcpy(header->creator_id, "MVMM", 4);
	return header;
}

/* The table ends here. Returns its guest address. */
static uint64_t acpi_end_table(struct builder *builder, void *table)
{
	struct header *header = table;

	header->length = (uint32_t)(builder->base + builder->used - (uint8_t *)table);
	header->checksum = checksum_of(header, builder->full ? 0 : header->length);
	return acpi_guest_address(builder, table);
}

static uint64_t acpi_add_dsdt(struct builder *builder)
{
	void *table;

	acpi_take(builder, align_up(builder->used, 16) - builder->used);
	table = acpi_take(builder, sizeof(dsdt_x86_aml_code));
	if (!builder->full)
		memcpy(table, dsdt_x86_aml_code, sizeof(dsdt_x86_aml_code));
	return acpi_guest_address(builder, table);
}

static uint64_t acpi_add_facs(struct builder *builder)
{
	struct facs *facs;

	acpi_take(builder, align_up(builder->used, 64) - builder->used);
	facs = acpi_take(builder, sizeof(*facs));
	facs->length = sizeof(*facs);
	facs->version = 2;
	memcpy(facs->signature, "FACS", 4);
	return acpi_guest_address(builder, facs);
}

static struct address acpi_power_register(unsigned int offset)
{
	return (struct address){SPACE_IO, 8, 0, ACCESS_BYTE, LAYOUT_POWER + offset};
}

/* A block of the fixed registers, that is accessed by 1 << (access - 1) bytes. */
static struct address acpi_fixed_block(unsigned int offset, uint8_t bytes, uint8_t access)
{
	return (struct address){SPACE_IO, (uint8_t)(bytes * 8), 0, access, LAYOUT_POWER + offset};
}

/* There are no general-purpose events: hot plug comes by the DSDT's event device. */
static void acpi_set_fixed_registers(struct fadt *fadt, bool timer)
{
	fadt->pm1a_events = LAYOUT_POWER + LAYOUT_POWER_PM1_EVENTS;
	fadt->events_len = 4;
	fadt->x_pm1a_events = acpi_fixed_block(LAYOUT_POWER_PM1_EVENTS, 4, ACCESS_WORD);
	fadt->pm1a_control = LAYOUT_POWER + LAYOUT_POWER_PM1_CONTROL;
	fadt->control_len = 2;
	fadt->x_pm1a_control = acpi_fixed_block(LAYOUT_POWER_PM1_CONTROL, 2, ACCESS_WORD);
	fadt->c2_latency = NO_C2;
	fadt->c3_latency = NO_C3;
	if (!timer)
		return;
	fadt->timer = LAYOUT_POWER + LAYOUT_POWER_PM1_TIMER;
	fadt->timer_len = 4;
	fadt->x_timer = acpi_fixed_block(LAYOUT_POWER_PM1_TIMER, 4, ACCESS_DWORD);
}

static uint64_t acpi_add_fadt(struct builder *builder, const struct acpi_config *config, uint64_t facs, uint64_t dsdt)
{
	struct fadt *fadt = acpi_start_table(builder, "FACP", 6, sizeof(*fadt));

	fadt->minor = 4;
	fadt->dsdt = (uint32_t)dsdt;
	fadt->x_dsdt = dsdt;
	fadt->facs = (uint32_t)facs;
	fadt->sci_interrupt = LAYOUT_GSI_SCI;
	fadt->century = LAYOUT_RTC_CENTURY;
	acpi_set_fixed_registers(fadt, config->timer);
	fadt->boot_arch = BOOT_ARCH_NO_VGA | BOOT_ARCH_NO_ASPM | (config->keyboard ? BOOT_ARCH_8042 : 0);
	fadt->flags = FADT_WBINVD | FADT_C1 | FADT_SLEEP_BUTTON | FADT_NO_RTC_WAKE | FADT_TIMER_32_BITS | FADT_RESET;
	fadt->reset = acpi_power_register(LAYOUT_POWER_RESET);
	fadt->reset_value = 1;
	fadt->sleep_control = acpi_power_register(LAYOUT_POWER_SLEEP_CONTROL);
	fadt->sleep_status = acpi_power_register(LAYOUT_POWER_SLEEP_STATUS);
	memcpy(fadt->hypervisor, "MVMM\0\0\0", 8);
	return acpi_end_table(builder, fadt);
}

static uint64_t acpi_add_madt(struct builder *builder, const struct acpi_config *config)
{
	struct madt *madt = acpi_start_table(builder, "APIC", 5, sizeof(*madt));
	struct madt_ioapic *ioapic;
	static const uint8_t level_high[] = {LAYOUT_GSI_GED, LAYOUT_GSI_SCI};

	madt->local_apic = LAYOUT_LAPIC;
	for (unsigned int i = 0; i < config->cpus; i++) {
		if (config->apic_ids[i] < X2APIC_ID_MIN) {
			struct madt_local_apic *cpu = acpi_take(builder, sizeof(*cpu));

			*cpu = (struct madt_local_apic){MADT_LOCAL_APIC, sizeof(*cpu), (uint8_t)i,
							(uint8_t)config->apic_ids[i], MADT_ENABLED};
		} else {
			struct madt_local_x2apic *cpu = acpi_take(builder, sizeof(*cpu));

			*cpu = (struct madt_local_x2apic){MADT_LOCAL_X2APIC, sizeof(*cpu), 0, config->apic_ids[i],
							  MADT_ENABLED, i};
		}
	}
	ioapic = acpi_take(builder, sizeof(*ioapic));
	*ioapic = (struct madt_ioapic){MADT_IOAPIC, sizeof(*ioapic), 0, 0, LAYOUT_IOAPIC, 0};
	for (size_t i = 0; i < ARRAY_SIZE(level_high); i++) {
		struct madt_override *line = acpi_take(builder, sizeof(*line));

		*line = (struct madt_override){MADT_OVERRIDE, sizeof(*line), 0, level_high[i], level_high[i],
					       MADT_LEVEL_HIGH};
	}
	return acpi_end_table(builder, madt);
}

static uint64_t acpi_add_mcfg(struct builder *builder)
{
	struct mcfg *mcfg = acpi_start_table(builder, "MCFG", 1, sizeof(*mcfg));

	mcfg->base = LAYOUT_ECAM;
	mcfg->last_bus = (uint8_t)(LAYOUT_ECAM_SIZE / MIB(1) - 1);
	return acpi_end_table(builder, mcfg);
}

static void acpi_add_virtio_mmio(struct builder *builder, unsigned int device)
{
	static const char digits[] = "0123456789ABCDEF";
	const struct virtio_aml aml = {
		.device = {0x5b, 0x82}, .device_length = {0x40 | ((sizeof(aml) - 2) & 15), (sizeof(aml) - 2) >> 4},
		.root = '\\', .two_names = 0x2e, .scope = {'_', 'S', 'B', '_'},
		.name = {'V', 'I', digits[device >> 4], digits[device & 15]},
		.hid_name = 8, .hid = {'_', 'H', 'I', 'D'}, .hid_string = 0x0d, .hid_value = "LNRO0005",
		.uid_name = 8, .uid = {'_', 'U', 'I', 'D'}, .uid_byte = 0x0a, .uid_value = (uint8_t)device,
		.crs_name = 8, .crs = {'_', 'C', 'R', 'S'},
		.crs_buffer = 0x11, .crs_length = VIRTIO_AML_RESOURCES + 3, .crs_byte = 0x0a, .crs_size = VIRTIO_AML_RESOURCES,
		.memory = 0x86, .memory_length = 9, .memory_writable = 1,
		.memory_base = (uint32_t)layout_virtio_mmio(device), .memory_size = LAYOUT_VIRTIO_MMIO_SIZE,
		.interrupt = 0x89, .interrupt_length = 6, .interrupt_flags = VIRTIO_AML_INTERRUPT, .interrupt_count = 1,
		.interrupt_gsi = layout_virtio_mmio_gsi(device), .end_tag = 0x79,
	};

	memcpy(acpi_take(builder, sizeof(aml)), &aml, sizeof(aml));
}

/* The virtio devices that are not on PCI. */
static uint64_t acpi_add_ssdt(struct builder *builder, uint32_t virtio_mmio)
{
	struct header *ssdt = acpi_start_table(builder, "SSDT", 2, sizeof(*ssdt));

	for (unsigned int device = 1; device <= LAYOUT_VIRTIO_MMIO_DEVICES; device++)
		if (virtio_mmio >> device & 1)
			acpi_add_virtio_mmio(builder, device);
	return acpi_end_table(builder, ssdt);
}

static uint64_t acpi_add_xsdt(struct builder *builder, const uint64_t *tables, size_t count)
{
	struct header *xsdt = acpi_start_table(builder, "XSDT", 1, sizeof(*xsdt));

	memcpy(acpi_take(builder, count * sizeof(*tables)), tables, count * sizeof(*tables));
	return acpi_end_table(builder, xsdt);
}

static void acpi_fill_rsdp(struct rsdp *rsdp, uint64_t xsdt)
{
	*rsdp = (struct rsdp){.revision = 2, .length = sizeof(*rsdp), .xsdt = xsdt};
	memcpy(rsdp->signature, "RSD PTR ", 8);
	memcpy(rsdp->oem_id, "MVMM  ", 6);
	rsdp->checksum = checksum_of(rsdp, offsetof(struct rsdp, length));
	rsdp->extended_checksum = checksum_of(rsdp, sizeof(*rsdp));
}

int acpi_build(const struct acpi_config *config, struct guest_memory *memory, struct err *err)
{
	const struct acpi_record record = {config->pci_mem64, config->pci_mem64_size, config->serial, config->hotplug,
					   config->keyboard};
	struct builder builder = {.base = guest_memory_at(memory, LAYOUT_ACPI, LAYOUT_ACPI_SIZE)};
	uint64_t tables[4], xsdt, facs;
	size_t count = 0;
	struct rsdp *rsdp;

	if (!builder.base)
		return err_set(err, -ENOSPC, "no guest memory for the ACPI tables at 0x%llx", LAYOUT_ACPI);
	rsdp = acpi_take(&builder, sizeof(*rsdp));
	facs = acpi_add_facs(&builder);
	tables[count++] = acpi_add_fadt(&builder, config, facs, acpi_add_dsdt(&builder));
	tables[count++] = acpi_add_madt(&builder, config);
	tables[count++] = acpi_add_mcfg(&builder);
	if (config->virtio_mmio)
		tables[count++] = acpi_add_ssdt(&builder, config->virtio_mmio);
	xsdt = acpi_add_xsdt(&builder, tables, count);
	if (builder.full)
		return err_set(err, -ENOSPC, "the ACPI tables of %u CPUs do not fit into %llu KiB", config->cpus,
			       TABLES_SIZE >> 10);
	acpi_fill_rsdp(rsdp, xsdt);
	memcpy(builder.base + (LAYOUT_ACPI_RECORD - LAYOUT_ACPI), &record, sizeof(record));
	guest_memory_dirty(memory, LAYOUT_ACPI, LAYOUT_ACPI_SIZE);
	return 0;
}
