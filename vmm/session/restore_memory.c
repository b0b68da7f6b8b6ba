/* SPDX-License-Identifier: Apache-2.0 */
/* See restore_memory.h. */
#include "vmm/session/restore_memory.h"

#include "vmm/session/exit_code.h"
#include "vmm/snapshot/memory_copy.h"
#include "vmm/snapshot/memory_guard.h"
#include "vmm/snapshot/memory_uffd.h"
#include "vmm/snapshot/prefetch.h"

#include <stdio.h>
#include <sys/file.h>

#define UFFD "uffd="

struct restore_memory {
	struct restore_memory_options options;
	char *what; /* the memory's name, for messages */
	struct ram_source source;
	struct memory_copy copy;
	struct memory_guard *guard; /* NULL: the memory is ordinary */
	struct memory_uffd *uffd;
	struct prefetch_job *ahead;
};

/* ---- the modes ---- */

static void restore_memory_map_file(struct restore_memory *memory)
{
	memory->source.fd = memory->options.snapshot->memory_fd;
}

static int restore_memory_map(struct restore_memory *memory, struct err *err)
{
	restore_memory_map_file(memory);
	return 0;
}

static int restore_memory_prefetch(struct restore_memory *memory, struct err *err)
{
	_cleanup_(free_ptr) struct prefetch *prefetch = NULL;
	const struct snapshot *snapshot = memory->options.snapshot;
	int code = prefetch_open(snapshot, &prefetch, err);

	code = code ?: prefetch_begin(&prefetch, snapshot->memory_fd, &memory->ahead, err);
	restore_memory_map_file(memory);
	return code ? err_prefix(err, code, "--memory-mode prefetch") : 0;
}

static int restore_memory_copy(struct restore_memory *memory, struct err *err)
{
	const struct snapshot *snapshot = memory->options.snapshot;

	memory->copy = (struct memory_copy){
		.fd = snapshot->memory_fd, .what = memory->what, .sums = snapshot->state->sums,
		.log = memory->options.log, .cancel_fd = memory->options.cancel_fd,
	};
	memory->source.fill = memory_copy_fill;
	memory->source.opaque = &memory->copy;
	return 0;
}

static uint64_t restore_memory_page_size(enum hugepages hugepages)
{
	return hugepages == HUGEPAGES_1G ? GIB(1) : hugepages == HUGEPAGES_2M ? MIB(2) : GUEST_PAGE_SIZE;
}

static int restore_memory_from_handler(struct restore_memory *memory, struct err *err)
{
	const struct memory_uffd_options options = {
		.socket = memory->options.mode + strlen(UFFD),
		.page_size = restore_memory_page_size(memory->options.config->hugepages),
	};
	int code = memory_uffd_create(&options, &memory->uffd, err);

	memory->source.fill = memory_uffd_fill;
	memory->source.on_touch = true;
	memory->source.opaque = memory->uffd;
	return code;
}

static const struct mode {
	const char *name;
	bool has_value; /* the name is what it begins with */
	unsigned int flags;
	bool guarded;
	int (*begin)(struct restore_memory *memory, struct err *err);
} modes[] = {
	{"map", false, 0, true, restore_memory_map},
	{"prefetch", false, 0, true, restore_memory_prefetch},
	{"copy", false, SNAPSHOT_ANY_OWNER, false, restore_memory_copy},
	{UFFD, true, SNAPSHOT_ANY_OWNER, true, restore_memory_from_handler},
};

static const struct mode *restore_memory_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(modes); i++)
		if (!name || (modes[i].has_value ? strncmp(name, modes[i].name, strlen(modes[i].name)) :
						   strcmp(name, modes[i].name)) == 0)
			return &modes[i];
	return NULL;
}

int restore_memory_check(const char *mode, unsigned int *flags, struct err *err)
{
	const struct mode *found = restore_memory_find(mode);

	if (!found)
		return err_set(err, -EINVAL, "--memory-mode %.60s: write map, copy, prefetch or uffd=SOCKET", mode);
	*flags = found->flags;
	return 0;
}

/* ---- its life ---- */

static int restore_memory_guard(struct restore_memory *memory, const struct mode *mode, struct err *err)
{
	const struct memory_guard_options options = {
		.fd = memory->source.fd, .what = memory->what, .loop = memory->options.loop,
		.log = memory->options.log, .lost = memory->options.lost, .dying = memory->options.dying,
		.opaque = memory->options.opaque, .exit_code = EXIT_FAILED,
	};

	return mode->guarded ? memory_guard_create(&options, &memory->guard, err) : 0;
}

int restore_memory_create(const struct restore_memory_options *options, struct restore_memory **ret, struct err *err)
{
	struct restore_memory *memory = calloc(1, sizeof(*memory));
	const struct mode *mode = restore_memory_find(options->mode);
	int code;

	if (!memory)
		return err_sys(err, -ENOMEM, "memory");
	memory->options = *options;
	memory->source.fd = -1;
	if (asprintf(&memory->what, options->snapshot->folder ? "%s/memory" : "the memory file of %s",
		     options->snapshot->path) < 0)
		memory->what = NULL;
	code = memory->what ? mode->begin(memory, err) : err_sys(err, -ENOMEM, "memory");
	code = code ?: restore_memory_guard(memory, mode, err);
	if (code) {
		restore_memory_destroy(memory);
		return code;
	}
	*ret = memory;
	return 0;
}

const struct ram_source *restore_memory_source(struct restore_memory *memory)
{
	return &memory->source;
}

int restore_memory_start(struct restore_memory *memory, struct guest_memory *ram, struct err *err)
{
	int code = memory->guard ? memory_guard_start(memory->guard, ram, err) : 0;

	if (!code && memory->uffd)
		code = memory_uffd_watch(memory->uffd, memory->guard, err);
	if (!memory->guard) /* the file has been read */
		flock(memory->options.snapshot->memory_fd, LOCK_UN);
	if (!code && memory->ahead)
		prefetch_map(memory->ahead, ram);
	return code;
}

int restore_memory_renew(struct restore_memory *memory, struct err *err)
{
	int code = memory && memory->uffd ? memory_uffd_renew(memory->uffd, err) : 0;

	return code || !memory || !memory->ahead ? code : prefetch_renew(memory->ahead, err);
}

bool restore_memory_is_lost(struct restore_memory *memory, bool fault)
{
	return memory->guard && memory_guard_ask(memory->guard, fault);
}

void restore_memory_leave(struct restore_memory *memory)
{
	if (!memory)
		return;
	memory_uffd_unwatch(memory->uffd);
	prefetch_end(take_ptr(memory->ahead));
}

void restore_memory_destroy(struct restore_memory *memory)
{
	if (!memory)
		return;
	prefetch_end(memory->ahead);
	memory_guard_destroy(memory->guard);
	memory_uffd_destroy(memory->uffd);
	flock(memory->options.snapshot->memory_fd, LOCK_UN);
	free(memory->what);
	free(memory);
}
