/* SPDX-License-Identifier: Apache-2.0 */
/*
 * boot/acpi_x86 and its DSDT: the tables are found as a guest finds them, sum up to zero, say what the machine is, and
 * iasl reads them without complaint. The numbers of the DSDT, layout_x86.h and devices/platform.h agree.
 */
#include "boot/acpi.h"
#include "devices/platform.h"
#include "tests/unit/boot_guest.h"

#include <fcntl.h>

#define RAM MIB(2)
#define CPUS_MAX 254u

struct tables {
	struct boot_guest guest;
	const uint8_t *fadt, *dsdt, *madt, *mcfg, *ssdt;
};

static uint8_t sum(const uint8_t *p, size_t len)
{
	uint8_t total = 0;

	while (len--)
		total = (uint8_t)(total + *p++);
	return total;
}

/* The table at address, whole and in its place. */
static const uint8_t *table_at(const struct boot_guest *guest, uint64_t address, const char *signature)
{
	const uint8_t *table = guest->ram + address;

	CHECK(address >= LAYOUT_ACPI && address % 16 == 0);
	CHECK(!memcmp(table, signature, 4));
	CHECK(get_le32(table + 4) >= 36 && address + get_le32(table + 4) <= LAYOUT_MPTABLE);
	CHECK_EQ(sum(table, get_le32(table + 4)), 0);
	return table;
}

/* Builds for that many CPUs, every step-th APIC id, and follows the RSDP. */
static struct tables build_with(unsigned int cpus, uint32_t step, bool serial, bool timer, uint32_t virtio_mmio)
{
	struct tables tables = {.guest = boot_guest_new(RAM)};
	uint32_t ids[CPUS_MAX];
	const struct acpi_config config = {
		.cpus = cpus, .apic_ids = ids, .pci_mem64 = GIB(512), .pci_mem64_size = GIB(256), .serial = serial,
		.keyboard = virtio_mmio, .timer = timer, .hotplug = 0xff000000, .virtio_mmio = virtio_mmio,
	};
	const uint8_t *rsdp, *xsdt;

	for (uint32_t i = 0; i < cpus; i++)
		ids[i] = i * step;
	/* What was there before, after a reboot say, does not matter */
	memset(tables.guest.ram + LAYOUT_ACPI, 0xa5, LAYOUT_ACPI_SIZE);
	CHECK_EQ(acpi_build(&config, tables.guest.memory, NULL), 0);
	rsdp = tables.guest.ram + LAYOUT_ACPI;
	CHECK(!memcmp(rsdp, "RSD PTR ", 8));
	CHECK_EQ(sum(rsdp, 20), 0);
	CHECK_EQ(sum(rsdp, 36), 0);
	CHECK_EQ(rsdp[15], 2);
	xsdt = table_at(&tables.guest, get_le64(rsdp + 24), "XSDT");
	CHECK_EQ(get_le32(xsdt + 4), 36 + (virtio_mmio ? 4 : 3) * 8);
	tables.fadt = table_at(&tables.guest, get_le64(xsdt + 36), "FACP");
	tables.madt = table_at(&tables.guest, get_le64(xsdt + 44), "APIC");
	tables.mcfg = table_at(&tables.guest, get_le64(xsdt + 52), "MCFG");
	tables.ssdt = virtio_mmio ? table_at(&tables.guest, get_le64(xsdt + 60), "SSDT") : NULL;
	tables.dsdt = table_at(&tables.guest, get_le64(tables.fadt + 140), "DSDT");
	return tables;
}

static struct tables build(unsigned int cpus, uint32_t step, bool serial)
{
	return build_with(cpus, step, serial, true, 0);
}

/* The generic address at fadt + offset is this port, byte-wide. */
static void check_register(const uint8_t *fadt, size_t offset, uint16_t port)
{
	CHECK_EQ(fadt[offset], 1);
	CHECK_EQ(fadt[offset + 1], 8);
	CHECK_EQ(fadt[offset + 3], 1);
	CHECK_EQ(get_le64(fadt + offset + 4), port);
}

/* The generic address at fadt + offset and its older field are this port; access is its unit. */
static void check_block(const uint8_t *fadt, size_t old, size_t offset, uint16_t port, uint8_t bits, uint8_t access)
{
	CHECK_EQ(get_le32(fadt + old), port);
	CHECK_EQ(fadt[offset], 1);
	CHECK_EQ(fadt[offset + 1], bits);
	CHECK_EQ(fadt[offset + 3], access);
	CHECK_EQ(get_le64(fadt + offset + 4), port);
}

/* The button is fixed hardware, so that it can wake a guest. */
static void fadt_has_fixed_hardware(void)
{
	struct tables tables = build(1, 1, true);
	const uint8_t *fadt = tables.fadt, *facs;

	CHECK_EQ(get_le32(fadt + 4), 276);
	CHECK_EQ(fadt[8], 6);
	CHECK_EQ(fadt[131], 4);
	CHECK_EQ(get_le32(fadt + 40), get_le64(fadt + 140));
	CHECK_EQ(get_le16(fadt + 109), 1 << 2 | 1 << 4);           /* no VGA, no ASPM, no 8042 */
	/* WBINVD, C1, no fixed sleep button, RTC does not wake, timer of 32 bits, reset; not hardware-reduced */
	CHECK_EQ(get_le32(fadt + 112), 1 << 10 | 1 << 8 | 1 << 6 | 1 << 5 | 1 << 2 | 1u);
	CHECK_EQ(get_le16(fadt + 46), LAYOUT_GSI_SCI);
	CHECK_EQ(get_le32(fadt + 48), 0); /* ACPI mode is always on */
	check_block(fadt, 56, 148, LAYOUT_POWER + POWER_PM1_STATUS, 32, 2);
	check_block(fadt, 64, 172, LAYOUT_POWER + POWER_PM1_CONTROL, 16, 2);
	check_block(fadt, 76, 208, LAYOUT_POWER + POWER_PM1_TIMER, 32, 3);
	CHECK(fadt[88] == 4 && fadt[89] == 2 && fadt[91] == 4 && fadt[92] == 0);
	CHECK_EQ(POWER_PM1_ENABLE, POWER_PM1_STATUS + 2);
	CHECK_EQ(fadt[108], RTC_CENTURY);
	CHECK(get_le16(fadt + 96) > 100 && get_le16(fadt + 98) > 1000); /* neither C2 nor C3 */
	facs = tables.guest.ram + get_le32(fadt + 36);
	CHECK(get_le32(fadt + 36) >= LAYOUT_ACPI && get_le32(fadt + 36) % 64 == 0 && memcmp(facs, "FACS", 4) == 0 && get_le32(facs + 4) == 64);
	CHECK_EQ(fadt[128], 1);
	check_register(fadt, 116, LAYOUT_POWER + POWER_RESET_REG);
	check_register(fadt, 244, LAYOUT_POWER + POWER_SLEEP_CONTROL);
	check_register(fadt, 256, LAYOUT_POWER + POWER_SLEEP_STATUS);
	boot_guest_free(&tables.guest);
}

static void a_timer_is_named_if_it_is_needed(void)
{
	struct tables tables = build_with(1, 1, true, false, 0);

	CHECK(get_le32(tables.fadt + 76) == 0 && tables.fadt[91] == 0 && get_le64(tables.fadt + 212) == 0);
	boot_guest_free(&tables.guest);
}

static void madt_lists_every_cpu(void)
{
	static const struct {
		unsigned int cpus;
		uint32_t step;
	} cases[] = {{1, 1}, {4, 1}, {254, 1}, {254, 2}, {2, 255}, {3, 0x7f80}};

	for (size_t c = 0; c < ARRAY_SIZE(cases); c++) {
		struct tables tables = build(cases[c].cpus, cases[c].step, true);
		const uint8_t *end = tables.madt + get_le32(tables.madt + 4), *p;
		unsigned int cpus = 0, ioapics = 0, overrides = 0;

		CHECK_EQ(get_le32(tables.madt + 36), LAYOUT_LAPIC);
		CHECK_EQ(get_le32(tables.madt + 40), 0); /* no PICs */
		for (p = tables.madt + 44; p < end; p += p[1]) {
			uint32_t id = cpus * cases[c].step;

			CHECK(p[1] >= 2 && p + p[1] <= end);
			if (p[0] == 0) {
				CHECK(p[1] == 8 && id < 255 && p[2] == cpus++ && p[3] == id && get_le32(p + 4) == 1);
			} else if (p[0] == 9) {
				CHECK(p[1] == 16 && id >= 255 && get_le32(p + 4) == id);
				CHECK(get_le32(p + 8) == 1 && get_le32(p + 12) == cpus++);
			} else if (p[0] == 1) {
				CHECK(p[1] == 12 && get_le32(p + 4) == LAYOUT_IOAPIC && get_le32(p + 8) == 0);
				ioapics++;
			} else {
				CHECK(p[0] == 2 && p[1] == 10 && p[2] == 0);
				CHECK(p[3] == (overrides ? LAYOUT_GSI_SCI : LAYOUT_GSI_GED));
				CHECK(get_le32(p + 4) == p[3] && get_le16(p + 8) == 0xd);
				overrides++;
			}
		}
		CHECK(p == end);
		CHECK_EQ(cpus, cases[c].cpus);
		CHECK_EQ(ioapics, 1);
		CHECK_EQ(overrides, 2);
		boot_guest_free(&tables.guest);
	}
}

static void mcfg_is_the_ecam(void)
{
	struct tables tables = build(1, 1, true);

	CHECK_EQ(get_le32(tables.mcfg + 4), 60);
	CHECK_EQ(get_le64(tables.mcfg + 44), LAYOUT_ECAM);
	CHECK_EQ(get_le16(tables.mcfg + 52), 0);
	CHECK_EQ(tables.mcfg[54], 0);
	CHECK_EQ(((uint64_t)tables.mcfg[55] + 1) << 20, LAYOUT_ECAM_SIZE);
	boot_guest_free(&tables.guest);
}

static void dsdt_record_is_written(void)
{
	struct tables with = build(1, 1, true), without = build(1, 1, false);
	const uint8_t *record = with.guest.ram + LAYOUT_ACPI_RECORD;

	CHECK_EQ(get_le64(record), GIB(512));
	CHECK_EQ(get_le64(record + 8), GIB(256));
	CHECK_EQ(get_le32(record + 16), 1);
	CHECK_EQ(get_le32(record + 20), 0xff000000);
	CHECK_EQ(get_le32(without.guest.ram + LAYOUT_ACPI_RECORD + 16), 0);
	CHECK_EQ(get_le32(record + 24), 0);
	boot_guest_free(&with.guest);
	boot_guest_free(&without.guest);
}

/* ---- the numbers of the DSDT, as the bytes that AML (ACPI 6.4, 20.2) and its resource descriptors (6.4) have ---- */

static void expect_bytes(const struct tables *tables, const char *what, const uint8_t *bytes, size_t len)
{
	const void *found = memmem(tables->dsdt, get_le32(tables->dsdt + 4), bytes, len);

	if (!found)
		printf("# the DSDT has no %s\n", what);
	CHECK(found);
}

static void expect_ports(const struct tables *tables, const char *what, uint16_t port, uint8_t count)
{
	uint8_t bytes[] = {0x47, 1, 0, 0, 0, 0, 1, count};

	put_le16(bytes + 2, port);
	put_le16(bytes + 4, port);
	expect_bytes(tables, what, bytes, sizeof(bytes));
}

static void expect_interrupt(const struct tables *tables, const char *what, bool edge, uint32_t gsi)
{
	uint8_t bytes[] = {0x89, 6, 0, edge ? 3 : 1, 1, 0, 0, 0, 0};

	put_le32(bytes + 5, gsi);
	expect_bytes(tables, what, bytes, sizeof(bytes));
}

static void dsdt_agrees_with_layout(void)
{
	struct tables tables = build(1, 1, true);
	uint8_t ecam[] = {0x86, 9, 0, 1, [11] = 0};
	uint8_t io[] = {0x88, 13, 0, 1, 0xc, 3, [15] = 0};
	uint8_t mem32[] = {0x87, 23, 0, 0, 0xc, 1, [25] = 0};
	uint8_t record[] = {0x5b, 0x80, 'C', 'O', 'N', 'F', 0, 0x0c, 0, 0, 0, 0, 0x0a, 28};
	uint8_t power[] = {0x5b, 0x80, 'P', 'O', 'W', 'R', 1, 0x0b, 0, 0, 0x0a, POWER_PM1_STATUS};
	/* WriteAsZeros, double words; a gap of 32 bits, then three times 32 bits */
	static const uint8_t fields[] = {0x43, 0, 32, 'E', 'V', 'T', 'S', 32, 'U', 'P', '_', '_', 32,
					 'D', 'O', 'W', 'N', 32};

	put_le32(ecam + 4, LAYOUT_ECAM);
	put_le32(ecam + 8, LAYOUT_ECAM_SIZE);
	expect_bytes(&tables, "ECAM", ecam, sizeof(ecam));
	put_le16(io + 8, LAYOUT_PCI_IO);
	put_le16(io + 10, LAYOUT_PCI_IO + LAYOUT_PCI_IO_SIZE - 1);
	put_le16(io + 14, LAYOUT_PCI_IO_SIZE);
	expect_bytes(&tables, "PCI ports", io, sizeof(io));
	put_le32(mem32 + 10, LAYOUT_PCI_MEM32);
	put_le32(mem32 + 14, LAYOUT_PCI_MEM32 + LAYOUT_PCI_MEM32_SIZE - 1);
	put_le32(mem32 + 22, LAYOUT_PCI_MEM32_SIZE);
	expect_bytes(&tables, "PCI memory", mem32, sizeof(mem32));
	put_le32(record + 8, LAYOUT_ACPI_RECORD);
	expect_bytes(&tables, "record", record, sizeof(record));
	expect_ports(&tables, "COM1", LAYOUT_COM1, 8);
	expect_ports(&tables, "RTC", LAYOUT_RTC, 2);
	expect_ports(&tables, "keyboard data", LAYOUT_KEYBOARD, 1);
	expect_ports(&tables, "keyboard commands", LAYOUT_KEYBOARD + 4, 1);
	expect_interrupt(&tables, "keyboard interrupt", true, LAYOUT_GSI_KEYBOARD);
	expect_ports(&tables, "PCI configuration ports", LAYOUT_PCI_PORTS, 8);
	expect_ports(&tables, "pvpanic", LAYOUT_PVPANIC, 1);
	expect_ports(&tables, "power ports", LAYOUT_POWER, POWER_PORTS);
	expect_interrupt(&tables, "COM1 interrupt", true, LAYOUT_GSI_COM1);
	expect_interrupt(&tables, "RTC interrupt", true, LAYOUT_GSI_RTC);
	expect_interrupt(&tables, "event interrupt", false, LAYOUT_GSI_GED);
	put_le16(power + 8, LAYOUT_POWER);
	expect_bytes(&tables, "power region", power, sizeof(power));
	expect_bytes(&tables, "event fields", fields, sizeof(fields));
	CHECK_EQ(POWER_GED_EVENTS, 4);
	CHECK_EQ(POWER_PCI_UP, 8);
	CHECK_EQ(POWER_PCI_DOWN, 12);
	CHECK_EQ(POWER_SLEEP_CONTROL, LAYOUT_POWER_SLEEP_CONTROL);
	CHECK_EQ(POWER_SLEEP_STATUS, LAYOUT_POWER_SLEEP_STATUS);
	CHECK_EQ(POWER_RESET_REG, LAYOUT_POWER_RESET);
	boot_guest_free(&tables.guest);
}

/* How the drivers find them, and where they lie: in memory that no guest takes for its own. */
static void dsdt_has_what_tells_clones_apart(void)
{
	struct tables tables = build(1, 1, true);
	static const uint8_t cid[] = {8, '_', 'C', 'I', 'D', 0x0d, 'V', 'M', '_', 'G', 'e', 'n', '_', 'C', 'o', 'u', 'n',
				      't', 'e', 'r', 0};
	static const uint8_t hid[] = {8, '_', 'H', 'I', 'D', 0x0d, 'A', 'M', 'Z', 'N', 'C', '1', '0', 'C', 0, 8, '_', 'C', 'I',
				      'D', 0x0d, 'V', 'M', 'C', 'L', 'O', 'C', 'K', 0};
	/* a package of two: the address, and zero above it */
	uint8_t address[] = {8, 'A', 'D', 'D', 'R', 0x12, 8, 2, 0x0c, 0, 0, 0, 0, 0};
	uint8_t memory[] = {0x86, 9, 0, 0, [11] = 0};
	/* of Local0: bit 2 and bit 3 */
	static const uint8_t told[] = {0x7b, 0x60, 0x0a, 4, 0, 0x86, 'V', 'G', 'E', 'N', 0x0a, 0x80};
	static const uint8_t ticked[] = {0x7b, 0x60, 0x0a, 8, 0, 0x86, 'V', 'C', 'L', 'K', 0x0a, 0x80};

	expect_bytes(&tables, "generation ID", cid, sizeof(cid));
	put_le32(address + 9, LAYOUT_VMGENID);
	expect_bytes(&tables, "address of the generation ID", address, sizeof(address));
	expect_bytes(&tables, "vmclock", hid, sizeof(hid));
	put_le32(memory + 4, LAYOUT_VMCLOCK);
	put_le32(memory + 8, LAYOUT_VMCLOCK_SIZE);
	expect_bytes(&tables, "page of vmclock", memory, sizeof(memory));
	expect_bytes(&tables, "notification of a generation", told, sizeof(told));
	expect_bytes(&tables, "notification of a time", ticked, sizeof(ticked));
	CHECK(POWER_NEW_GENERATION == 4 && POWER_NEW_TIME == 8);
	CHECK(LAYOUT_VMGENID % 8 == 0 && LAYOUT_VMGENID + 16 <= LAYOUT_ACPI_RECORD);
	CHECK(LAYOUT_VMCLOCK + LAYOUT_VMCLOCK_SIZE <= LAYOUT_VMGENID);
	boot_guest_free(&tables.guest);
}

/* Every slot has its address and its bit; every device's pins have their GSIs. */
/* A method that makes named objects must not run twice at a time: the second call fails. ACPI 6.4, 20.2.5.2: MethodFlags */
static void dsdt_methods_with_names_are_serialized(void)
{
	static const uint8_t osc[] = {'_', 'O', 'S', 'C', 4 | 1 << 3};
	struct tables tables = build(1, 1, true);

	expect_bytes(&tables, "_OSC, serialized, of four arguments", osc, sizeof(osc));
	boot_guest_free(&tables.guest);
}

static void dsdt_has_slots_and_pins(void)
{
	struct tables tables = build(1, 1, true);

	for (uint32_t d = 1; d < 32; d++) {
		uint8_t slot[] = {'S', "0123456789ABCDEF"[d / 16], "0123456789ABCDEF"[d % 16], '_',
				  8, '_', 'A', 'D', 'R', 0x0c, 0, 0, (uint8_t)d, 0, 8, '_', 'S', 'U', 'N'};

		expect_bytes(&tables, "slot", slot, sizeof(slot));
	}
	for (uint8_t d = 0; d < 32; d++) {
		for (uint8_t p = 1; p < 4; p++) {
			uint8_t gsi = (uint8_t)(LAYOUT_GSI_PCI + (d + p) % 4);
			uint8_t pin[] = {0x0c, 0xff, 0xff, d, 0, 0x0a, p, 0, 0x0a, gsi};

			if (p == 1) /* One has a byte of its own */
				memmove(pin + 5, pin + 6, sizeof(pin) - 6);
			if (d == 0)
				continue; /* 0xffff is encoded as a word */
			expect_bytes(&tables, "pin", pin, sizeof(pin) - (p == 1));
		}
	}
	boot_guest_free(&tables.guest);
}

/* ---- virtio devices on MMIO ---- */

static void ssdt_has_the_devices_that_there_are(void)
{
	struct tables tables = build_with(1, 1, true, true, 1u << 1 | 1u << 9 | 1u << 30);
	const uint8_t *end = tables.ssdt + get_le32(tables.ssdt + 4), *device = tables.ssdt + 36;
	static const uint8_t numbers[] = {1, 9, 30}, gsis[] = {5, 5, 13};
	static const char *const names[] = {"VI01", "VI09", "VI1E"};

	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		uint8_t resources[] = {0x86, 9, 0, 1, 0, 0, 0, 0, 0, 0x10, 0, 0, 0x89, 6, 0, 0x0b, 1, gsis[i], 0, 0, 0, 0x79, 0};

		/* DeviceOp, and a length of two bytes that ends where the next one begins */
		CHECK(device[0] == 0x5b && device[1] == 0x82 && device[2] >> 6 == 1);
		CHECK(!memcmp(device + 4, "\\\x2e_SB_", 6) && !memcmp(device + 10, names[i], 4));
		put_le32(resources + 4, (uint32_t)layout_virtio_mmio(numbers[i]));
		CHECK(memmem(device, 80, "LNRO0005", 9) && memmem(device, 80, resources, sizeof(resources)));
		device += 2 + (device[2] & 15) + device[3] * 16;
		CHECK(device <= end);
	}
	CHECK(device == end);
	CHECK_EQ(get_le32(tables.guest.ram + LAYOUT_ACPI_RECORD + 24), 1);
	CHECK_EQ(get_le16(tables.fadt + 109), 1 << 4 | 1 << 2 | 1 << 1); /* there is an 8042 */
	boot_guest_free(&tables.guest);
}

/* Beside what else the machine has, and no line of PCI or of the platform. */
static void pages_and_lines_are_free(void)
{
	CHECK_EQ(LAYOUT_VIRTIO_MMIO, LAYOUT_ECAM + LAYOUT_ECAM_SIZE);
	CHECK(layout_virtio_mmio(LAYOUT_VIRTIO_MMIO_DEVICES + 1) <= LAYOUT_IOAPIC);
	CHECK(LAYOUT_PCI_MEM32 + LAYOUT_PCI_MEM32_SIZE <= LAYOUT_VIRTIO_MMIO);
	for (unsigned int d = 1; d <= LAYOUT_VIRTIO_MMIO_DEVICES; d++) {
		uint32_t gsi = layout_virtio_mmio_gsi(d);

		CHECK(gsi > LAYOUT_GSI_COM1 && gsi < 16);
		CHECK(gsi != LAYOUT_GSI_RTC && gsi != LAYOUT_GSI_GED && gsi != LAYOUT_GSI_SCI);
	}
}

/* ---- iasl ---- */

static void decompile(const char *dir, const char *name, const uint8_t *table)
{
	char path[128], command[256], line[512];
	bool complained = false;
	FILE *out;
	int fd;

	snprintf(path, sizeof(path), "%s/%s.dat", dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	CHECK(fd >= 0);
	CHECK_EQ(write(fd, table, get_le32(table + 4)), get_le32(table + 4));
	close(fd);
	snprintf(command, sizeof(command), "iasl -vs -d %s 2>&1 && cat %s/%s.dsl", path, dir, name);
	out = popen(command, "r");
	CHECK(out);
	while (fgets(line, sizeof(line), out)) {
		if (strstr(line, "rror") || strstr(line, "arning") || strstr(line, "nvalid")) {
			printf("# %s: %s", name, line);
			complained = true;
		}
	}
	CHECK_EQ(pclose(out), 0);
	CHECK(!complained);
}

static void iasl_reads_them(void)
{
	static const unsigned int cpus[] = {1, 4, CPUS_MAX};
	char dir[] = "/tmp/test_boot_acpi_XXXXXX", command[64];

	CHECK(mkdtemp(dir));
	for (size_t i = 0; i < ARRAY_SIZE(cpus); i++) {
		struct tables tables = build_with(cpus[i], 2, true, true, UINT32_MAX);

		decompile(dir, "dsdt", tables.dsdt);
		decompile(dir, "ssdt", tables.ssdt);
		decompile(dir, "facp", tables.fadt);
		decompile(dir, "apic", tables.madt);
		decompile(dir, "mcfg", tables.mcfg);
		boot_guest_free(&tables.guest);
	}
	snprintf(command, sizeof(command), "rm -r %s", dir);
	CHECK_EQ(system(command), 0);
}

static void too_much_is_refused(void)
{
	struct boot_guest guest = boot_guest_new(RAM);
	struct guest_memory *empty = guest_memory_create();
	static uint32_t ids[20000];
	struct acpi_config config = {.cpus = ARRAY_SIZE(ids), .apic_ids = ids};
	struct err err;

	CHECK_EQ(acpi_build(&config, guest.memory, &err), -ENOSPC);
	CHECK_STR(err.text, "the ACPI tables of 20000 CPUs do not fit into 112 KiB");
	config.cpus = 1;
	CHECK_EQ(acpi_build(&config, empty, &err), -ENOSPC);
	guest_memory_destroy(empty);
	boot_guest_free(&guest);
}

TEST_MAIN(TEST(fadt_has_fixed_hardware), TEST(a_timer_is_named_if_it_is_needed), TEST(madt_lists_every_cpu),
	  TEST(mcfg_is_the_ecam), TEST(dsdt_record_is_written), TEST(dsdt_agrees_with_layout),
	  TEST(dsdt_has_what_tells_clones_apart), TEST(dsdt_methods_with_names_are_serialized), TEST(dsdt_has_slots_and_pins),
	  TEST(ssdt_has_the_devices_that_there_are), TEST(pages_and_lines_are_free), TEST(iasl_reads_them), TEST(too_much_is_refused))
