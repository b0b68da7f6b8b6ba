/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the tests of boot/: a guest's memory of any size that costs nothing until it is touched, and files without names.
 */
#pragma once

#include "boot/boot.h"
#include "boot/layout_x86.h"
#include "core/guest_memory.h"
#include "tests/unit/test.h"

#include <stdio.h>
#include <sys/mman.h>

struct boot_guest {
	struct guest_memory *memory;
	uint8_t *ram;
	uint64_t size;
};

/* RAM as the machine arranges it: up to the hole, the rest from 4 GiB on. */
static inline struct boot_guest boot_guest_new(uint64_t size)
{
	struct boot_guest guest = {
		.memory = guest_memory_create(),
		.ram = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0),
		.size = size,
	};
	uint64_t low = MIN(size, LAYOUT_HOLE);
	struct guest_region regions[] = {
		{.size = low, .host = guest.ram, .fd = -1},
		{.gpa = LAYOUT_4G, .size = size - low, .host = guest.ram + low, .fd = -1},
	};

	CHECK(guest.memory && guest.ram != MAP_FAILED);
	for (size_t i = 0; i < (size > low ? 2 : 1); i++)
		CHECK_EQ(guest_memory_add(guest.memory, &regions[i], NULL), 0);
	return guest;
}

static inline void boot_guest_free(struct boot_guest *guest)
{
	guest_memory_destroy(guest->memory);
	munmap(guest->ram, guest->size);
}

/* A file of these bytes, and then zeroes up to size; its name is in path until the next one is made. */
struct boot_test_file {
	int fd;
	char path[64];
};

static inline struct boot_test_file boot_file_new(const void *bytes, size_t len, uint64_t size)
{
	struct boot_test_file file = {.fd = memfd_create("test", MFD_CLOEXEC)};

	CHECK(file.fd >= 0);
	CHECK_EQ(pwrite(file.fd, bytes, len, 0), len);
	CHECK_EQ(ftruncate(file.fd, (off_t)size), 0);
	snprintf(file.path, sizeof(file.path), "/proc/self/fd/%d", file.fd);
	return file;
}

/* Opens a kernel that is sound. */
static inline struct boot_image *boot_image_of(const void *bytes, size_t len)
{
	struct boot_test_file file = boot_file_new(bytes, len, len);
	struct boot_image *image = NULL;
	struct err err = {""};

	if (boot_image_open(file.path, NULL, &image, &err) < 0)
		printf("# %s\n", err.text);
	close(file.fd);
	CHECK(image);
	return image;
}
