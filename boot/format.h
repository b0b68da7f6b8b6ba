/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside boot/: the formats that a kernel file may have. Each architecture lists its own, best guess first, in
 * boot_formats; image.c asks them in turn.
 */
#pragma once

#include "boot/file.h"

struct boot_format {
	/* How much it wants to remember of a file. */
	size_t parsed_size;
	/* The file's first bytes are of this format. */
	bool (*is)(const uint8_t *head);
	/* Checks it, and fills what is remembered, which is zero before. -ENOEXEC when it is broken. */
	int (*parse)(const struct boot_file *file, void *parsed, struct err *err);
	/* As boot_load, with the messages' "--kernel PATH: " left to the format, for they may concern other options. */
	int (*load)(const struct boot_file *file, const void *parsed, const struct boot_config *config,
		    struct guest_memory *memory, struct boot_entry *ret, struct err *err);
};

/* The architecture's, ended by NULL: formats_*.c. */
extern const struct boot_format *const boot_formats[];

/* x86 */
extern const struct boot_format boot_bzimage, boot_elf_pvh;
