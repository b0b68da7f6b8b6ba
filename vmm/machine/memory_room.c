/* SPDX-License-Identifier: Apache-2.0 */
/* See memory_room.h. */
#include "vmm/machine/memory_room.h"

#include "core/err.h"
#include "core/errand.h"

#include <limits.h>
#include <stdio.h>

struct place {
	const char *root, *folder;
};

/*
 * The number after key, at the beginning of a line of a file, times unit; key "": the file has only the number. False
 * if there is no number, as in "max".
 */
static bool memory_room_number(struct place place, const char *name, const char *key, uint64_t unit, uint64_t *ret)
{
	char path[PATH_MAX], line[256];
	bool found = false;
	FILE *file;

	snprintf(path, sizeof(path), "%s%s/%s", place.root, place.folder, name);
	file = errand_fopen(path);
	while (file && !found && fgets(line, sizeof(line), file)) {
		size_t len = strlen(key);
		char *end;

		if (strncmp(line, key, len) != 0)
			continue;
		*ret = strtoull(line + len, &end, 10) * unit;
		found = end != line + len;
	}
	if (file)
		fclose(file);
	return found;
}

static uint64_t memory_room_sum(struct place place, const char *name, const char *const keys[2], uint64_t unit)
{
	uint64_t total = 0, value;

	for (int i = 0; i < 2; i++)
		total += memory_room_number(place, name, keys[i], unit, &value) ? value : 0;
	return total;
}

/* The path of this process's control group; "" for the root group. False without version 2. */
static bool memory_room_own_group(const char *root, char group[PATH_MAX])
{
	char path[PATH_MAX], line[PATH_MAX];
	bool found = false;
	FILE *file;

	snprintf(path, sizeof(path), "%s/proc/self/cgroup", root);
	file = errand_fopen(path);
	while (file && !found && fgets(line, sizeof(line), file))
		found = strncmp(line, "0::/", 4) == 0;
	if (file)
		fclose(file);
	if (found)
		snprintf(group, PATH_MAX, "/%.*s", (int)strcspn(line + 4, "\n"), line + 4);
	return found;
}

static uint64_t memory_room_in_group(const char *root, const char *group)
{
	static const char *const caches[] = {"active_file ", "inactive_file "};
	char folder[PATH_MAX + 16];
	struct place place = {root, folder};
	uint64_t most, now, room;

	snprintf(folder, sizeof(folder), "/sys/fs/cgroup%s", group);
	if (!memory_room_number(place, "memory.max", "", 1, &most) ||
	    !memory_room_number(place, "memory.current", "", 1, &now))
		return UINT64_MAX;
	room = most - MIN(most, now) + memory_room_sum(place, "memory.stat", caches, 1);
	if (memory_room_number(place, "memory.swap.max", "", 1, &most) &&
	    memory_room_number(place, "memory.swap.current", "", 1, &now))
		room += most - MIN(most, now);
	return room;
}

uint64_t memory_room(const char *root)
{
	static const char *const keys[] = {"MemAvailable:", "SwapFree:"};
	uint64_t room = memory_room_sum((struct place){root, "/proc"}, "meminfo", keys, 1024) ?: UINT64_MAX;
	char group[PATH_MAX];

	if (!memory_room_own_group(root, group))
		return room;
	for (;;) {
		uint64_t here = memory_room_in_group(root, group);

		room = MIN(room, here);
		if (!*group)
			return room;
		*strrchr(group, '/') = 0;
	}
}

uint64_t memory_used(const char *root)
{
	static const char *const keys[] = {"VmRSS:", "VmSwap:"};

	return memory_room_sum((struct place){root, "/proc/self"}, "status", keys, 1024);
}

uint64_t memory_own(const char *root)
{
	static const char *const keys[] = {"RssAnon:", "VmSwap:"};

	return memory_room_sum((struct place){root, "/proc/self"}, "status", keys, 1024);
}
