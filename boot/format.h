/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the files of boot/: the formats of kernel files. Each architecture lists its formats in boot_formats, the most
 * likely one first; image.c tries them in this order.
 */
#pragma once

#include "boot/file.h"

struct boot_format {
	/* The size of the result of parse. */
	size_t parsed_size;
	/* Whether the file's first bytes are of this format. */
	bool (*is)(const uint8_t *head);
	/* Checks the file and fills parsed, which is zeroed. -ENOEXEC: the file is invalid. */
	int (*parse)(const struct boot_file *file, void *parsed, struct err *err);
	/* As boot_load. Writes the messages' "--kernel PATH: " itself, because they may concern other options. */
	int (*load)(const struct boot_file *file, const void *parsed, const struct boot_config *config,
		    struct guest_memory *memory, struct boot_entry *ret, struct err *err);
};

/* The architecture's formats, ended by NULL: formats_*.c. */
extern const struct boot_format *const boot_formats[];

/* x86 */
extern const struct boot_format boot_bzimage, boot_elf_pvh;
