/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel loaders on hostile files. The first byte of an input chooses memory, initrd, command line and whether the
 * file goes on with zeroes, the others are the kernel file. What opens must load or refuse; what it
 * reports must lie where boot.h says.
 */
#include "boot/boot.h"
#include "boot/layout_x86.h"
#include "tests/boot_images.h"
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <sys/mman.h>

#define HEADERS 1024u
#define LONG_FILE KIB(32)

static const uint64_t sizes[] = {MIB(1), MIB(2), MIB(32), LAYOUT_HOLE};
static uint8_t *ram;
static int kernel_fd, initrd_fd;
static char kernel_path[64], initrd_path[64], long_line[4096];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	ram = mmap(NULL, LAYOUT_HOLE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	MUST(ram != MAP_FAILED);
	kernel_fd = memfd_create("kernel", MFD_CLOEXEC);
	initrd_fd = memfd_create("initrd", MFD_CLOEXEC);
	MUST(kernel_fd >= 0 && initrd_fd >= 0 && ftruncate(initrd_fd, 10000) == 0);
	snprintf(kernel_path, sizeof(kernel_path), "/proc/self/fd/%d", kernel_fd);
	snprintf(initrd_path, sizeof(initrd_path), "/proc/self/fd/%d", initrd_fd);
	memset(long_line, 'x', sizeof(long_line) - 1);
	return 0;
}

static void load(const struct boot_config *config, uint64_t ram_size)
{
	const struct guest_region region = {.size = ram_size, .host = ram, .fd = -1};
	struct guest_memory *memory = guest_memory_create();
	struct boot_entry entry;
	struct err err = {""};

	MUST(memory && guest_memory_add(memory, &region, NULL) == 0);
	if (boot_load(config, memory, &entry, &err) < 0) {
		MUST(err.text[0]);
	} else {
		MUST(entry.entry >= LAYOUT_HIGH && entry.entry < ram_size);
		MUST(entry.protocol == BOOT_LINUX64 || entry.protocol == BOOT_PVH);
		MUST(entry.params == LAYOUT_BOOT_PARAMS);
	}
	guest_memory_destroy(memory);
	MUST(mmap(ram, ram_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
		  0) != MAP_FAILED);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct boot_config config = {.cmdline = "console=ttyS0"};
	struct boot_image *image;
	struct err err = {""};
	uint64_t ram_size;

	if (size < 1)
		return 0;
	ram_size = sizes[data[0] % ARRAY_SIZE(sizes)];
	if (data[0] & 4)
		config.initrd = initrd_path;
	if (data[0] & 8)
		config.cmdline = long_line;
	MUST(ftruncate(kernel_fd, 0) == 0 && pwrite(kernel_fd, data + 1, size - 1, 0) == (ssize_t)size - 1);
	if (data[0] & 16)
		MUST(ftruncate(kernel_fd, MAX(LONG_FILE, size)) == 0);
	if (boot_image_open(kernel_path, NULL, &image, &err) < 0) {
		MUST(!strncmp(err.text, "--kernel /proc/self/fd/", 23));
		return 0;
	}
	config.image = image;
	load(&config, ram_size);
	boot_image_close(image);
	return 0;
}

/* Now and then starts anew from a sound kernel, for random bytes never become one. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed)
{
	static uint8_t file[MAX(IMAGES_BZ_SIZE, IMAGES_ELF_SIZE)];
	size_t made;

	if (size < 64 || seed % 16 == 0) {
		if (seed & 16)
			images_make_bz(file);
		else
			images_make_elf(file);
		made = seed & 16 ? IMAGES_BZ_SIZE : IMAGES_ELF_SIZE;
		size = MIN(made + 1, max_size);
		data[0] = (uint8_t)(seed >> 8);
		memcpy(data + 1, file, size - 1);
	}
	if (seed % 4 == 0)
		return LLVMFuzzerMutate(data, size, max_size);
	/* Headers are where the decisions are; the bytes behind them stay. */
	LLVMFuzzerMutate(data, MIN(size, HEADERS), MIN(size, HEADERS));
	return size;
}
