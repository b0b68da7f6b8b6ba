/* SPDX-License-Identifier: Apache-2.0 */
/* boot/place_x86: the memory map that a kernel is given, by either protocol and for any size of memory. */
#include "boot/boot.h"
#include "tests/boot_images.h"
#include "tests/unit/boot_guest.h"

static struct boot_image *open_kernel(bool elf)
{
	static uint8_t bytes[MAX(IMAGES_BZ_SIZE, IMAGES_ELF_SIZE)];

	if (elf)
		images_make_elf(bytes);
	else
		images_make_bz(bytes);
	return boot_image_of(bytes, elf ? IMAGES_ELF_SIZE : IMAGES_BZ_SIZE);
}

struct range {
	uint64_t start, size;
	uint32_t type;
};

static size_t read_e820(const struct boot_guest *guest, struct range *ranges)
{
	const struct boot_params *params = (void *)(guest->ram + LAYOUT_BOOT_PARAMS);

	for (size_t i = 0; i < params->e820_entries; i++) {
		const struct boot_e820_entry *entry = &params->e820_table[i];

		ranges[i] = (struct range){entry->addr, entry->size, entry->type};
	}
	return params->e820_entries;
}

static size_t read_start_info(const struct boot_guest *guest, struct range *ranges)
{
	const uint8_t *info = guest->ram + LAYOUT_BOOT_PARAMS, *map = guest->ram + get_le64(info + 40);
	uint32_t count = get_le32(info + 48);

	for (size_t i = 0; i < count; i++, map += 24)
		ranges[i] = (struct range){get_le64(map), get_le64(map + 8), get_le32(map + 16)};
	return count;
}

/* The type of an address, 0 for none; the ranges must ascend and not touch when they are alike. */
static uint32_t type_at(const struct range *ranges, size_t count, uint64_t address)
{
	uint32_t type = 0;

	for (size_t i = 0; i < count; i++) {
		CHECK(ranges[i].size);
		CHECK(!i || ranges[i].start >= ranges[i - 1].start + ranges[i - 1].size);
		if (address >= ranges[i].start && address - ranges[i].start < ranges[i].size)
			type = ranges[i].type;
	}
	return type;
}

static void check_map(const struct range *ranges, size_t count, uint64_t size)
{
	const uint64_t low = MIN(size, LAYOUT_HOLE);
	uint64_t ram = 0;

	for (size_t i = 0; i < count; i++)
		ram += ranges[i].type == 1 ? ranges[i].size : 0;
	CHECK_EQ(ram, size - (LAYOUT_HIGH - LAYOUT_EBDA));
	CHECK_EQ(type_at(ranges, count, 0), 1);
	CHECK_EQ(type_at(ranges, count, LAYOUT_EBDA - 1), 1);
	CHECK_EQ(type_at(ranges, count, LAYOUT_EBDA), 2);
	CHECK_EQ(type_at(ranges, count, 0xa0000), 0);
	CHECK_EQ(type_at(ranges, count, LAYOUT_ACPI), 2);
	CHECK_EQ(type_at(ranges, count, LAYOUT_ACPI + LAYOUT_ACPI_SIZE - 1), 2);
	CHECK_EQ(type_at(ranges, count, LAYOUT_HIGH), 1);
	CHECK_EQ(type_at(ranges, count, low - 1), 1);
	CHECK_EQ(type_at(ranges, count, low), 0);
	CHECK_EQ(type_at(ranges, count, LAYOUT_ECAM), 2);
	CHECK_EQ(type_at(ranges, count, LAYOUT_ECAM + LAYOUT_ECAM_SIZE), 0);
	CHECK_EQ(type_at(ranges, count, LAYOUT_KVM_TSS), 2);
	CHECK_EQ(type_at(ranges, count, LAYOUT_4G), size > low ? 1 : 0);
	CHECK_EQ(type_at(ranges, count, LAYOUT_4G + (size - low)), 0);
	if (size > low)
		CHECK_EQ(type_at(ranges, count, LAYOUT_4G + (size - low) - 1), 1);
}

static void memory_is_described(void)
{
	static const uint64_t sizes[] = {
		MIB(128), MIB(512), LAYOUT_HOLE - 4096, LAYOUT_HOLE, LAYOUT_HOLE + 4096, GIB(4), GIB(5), GIB(64),
		GIB(1024),
	};

	for (size_t s = 0; s < ARRAY_SIZE(sizes); s++) {
		for (size_t f = 0; f < 2; f++) {
			struct boot_guest guest = boot_guest_new(sizes[s]);
			struct boot_config config = {.cmdline = ""};
			struct range ranges[128];
			struct boot_image *image;
			struct boot_entry entry;
			size_t count;

			config.image = image = open_kernel(f == 1);
			CHECK_EQ(boot_load(&config, guest.memory, &entry, NULL), 0);
			count = f ? read_start_info(&guest, ranges) : read_e820(&guest, ranges);
			check_map(ranges, count, sizes[s]);
			boot_image_close(image);
			boot_guest_free(&guest);
		}
	}
}

/* Memory in pieces: alike neighbours become one entry, what lies in the hole is a device's and none. */
static void pieces_are_joined(void)
{
	struct guest_memory *memory = guest_memory_create();
	uint8_t *ram = mmap(NULL, GIB(2), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	static const struct guest_region regions[] = {
		{.gpa = 0, .size = GIB(1)}, {.gpa = GIB(1), .size = MIB(512)},
		{.gpa = LAYOUT_PCI_MEM32, .size = MIB(1)},
		{.gpa = LAYOUT_4G, .size = MIB(1)}, {.gpa = LAYOUT_4G + MIB(2), .size = MIB(1)},
	};
	struct boot_guest guest = {.memory = memory, .ram = ram, .size = GIB(2)};
	struct boot_config config = {.cmdline = ""};
	struct range ranges[128];
	struct boot_image *image;
	struct boot_entry entry;
	uint64_t used = 0;
	size_t count;

	CHECK(ram != MAP_FAILED);
	for (size_t i = 0; i < ARRAY_SIZE(regions); i++) {
		struct guest_region region = regions[i];

		region.host = ram + used;
		region.fd = -1;
		used += region.size;
		CHECK_EQ(guest_memory_add(memory, &region, NULL), 0);
	}
	config.image = image = open_kernel(false);
	CHECK_EQ(boot_load(&config, memory, &entry, NULL), 0);
	count = read_e820(&guest, ranges);
	/* 0, EBDA, ACPI, 1 MiB, ECAM, KVM's pages, two above 4 GiB */
	CHECK_EQ(count, 8);
	CHECK_EQ(ranges[3].start, LAYOUT_HIGH);
	CHECK_EQ(ranges[3].size, MIB(1536) - LAYOUT_HIGH);
	CHECK_EQ(ranges[6].start, LAYOUT_4G);
	CHECK_EQ(ranges[7].start, LAYOUT_4G + MIB(2));
	boot_image_close(image);
	boot_guest_free(&guest);
}

TEST_MAIN(TEST(memory_is_described), TEST(pieces_are_joined))
