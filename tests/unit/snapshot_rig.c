/* SPDX-License-Identifier: Apache-2.0 */
/* See snapshot_rig.h. */
#include "tests/unit/snapshot_rig.h"

#include "vmm/snapshot/description.h"
#include "vmm/snapshot/folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

static char folder[64];

void rig_init(struct snapshot_rig *rig, uint8_t id, uint8_t parent)
{
	struct snapshot_state *state = &rig->state;

	memset(rig, 0, sizeof(*rig));
	memset(state->id, id, sizeof(state->id));
	memset(state->parent, parent, sizeof(state->parent));
	memset(state->boot_id, 0xb0, sizeof(state->boot_id));
	state->memory_bytes = RIG_MEMORY;
	state->created_ns = 1767225600000000000u + id;
	state->paused = true;
	state->machine = (struct snapshot_bytes){"the state", 9};
	state->sums = (struct snapshot_bytes){rig->sums, sizeof(rig->sums)};
	if (parent)
		state->pages = (struct snapshot_bytes){rig->pages, sizeof(rig->pages)};
	state->disks[0] = (struct snapshot_disk){"disk0", 65536, 7, 8, 9};
	state->disk_count = 1;
	state->devices[0] = (struct snapshot_device){"gpu", {"its state", 9}};
	state->device_count = 1;
}

void rig_fill(struct snapshot_rig *rig, unsigned int page, uint8_t byte)
{
	memset(rig->memory + page * SNAPSHOT_PAGE, byte, SNAPSHOT_PAGE);
	rig->pages[page / 8] |= (uint8_t)(1u << page % 8);
}

void rig_finish(struct snapshot_rig *rig)
{
	rig_finish_with(rig, RIG_OFFER);
}

void rig_finish_with(struct snapshot_rig *rig, const char *offer)
{
	for (size_t at = 0, i = 0; at < RIG_MEMORY; at += SNAPSHOT_SUM_BYTES, i++)
		put_le64(rig->sums + 8 * i,
			 snapshot_sum(rig->memory + at, (size_t)MIN(SNAPSHOT_SUM_BYTES, RIG_MEMORY - at)));
	CHECK_EQ(snapshot_description_write(&rig->state, offer, &rig->description, NULL), 0);
	rig->state.description = (struct snapshot_bytes){rig->description, strlen(rig->description)};
}

void rig_done(struct snapshot_rig *rig)
{
	free(rig->description);
}

void rig_mkdir(void)
{
	snprintf(folder, sizeof(folder), "%.40s/mvmm-test-XXXXXX", getenv("TMPDIR") ?: "/tmp");
	CHECK(mkdtemp(folder));
}

const char *rig_path(const char *name)
{
	static char paths[6][PATH_MAX];
	static unsigned int next;
	char *path = paths[next++ % ARRAY_SIZE(paths)];

	snprintf(path, PATH_MAX, "%s/%s", folder, name);
	return path;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	(void)st;
	(void)kind;
	(void)ftw;
	return remove(path);
}

void rig_remove(const char *name)
{
	CHECK_EQ(nftw(rig_path(name), remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

void rig_rmdir(void)
{
	rig_remove("");
}

/* Pages that are marked, or not zero, are data. */
static int rig_write_memory(const struct snapshot_rig *rig, int fd)
{
	if (ftruncate(fd, RIG_MEMORY) < 0)
		return -errno;
	for (size_t page = 0; page < RIG_PAGES; page++)
		if (rig->pages[page / 8] >> page % 8 & 1 &&
		    pwrite(fd, rig->memory + page * SNAPSHOT_PAGE, SNAPSHOT_PAGE, (off_t)(page * SNAPSHOT_PAGE)) !=
			    SNAPSHOT_PAGE)
			return -errno;
	return 0;
}

static int rig_write_files(struct snapshot_rig *rig, struct snapshot_folder *to, bool extra, struct err *err)
{
	static const char disk[65536];
	struct state_buffer state = {0};
	_cleanup_(fd_close) int fd = -1;
	int code = snapshot_folder_create(to, "memory", &fd, err);

	if (!code) {
		code = rig_write_memory(rig, fd);
		if (code)
			err_sys(err, code, "the test's memory");
	}
	code = code ?: snapshot_state_write(&rig->state, &state, err);
	code = code ?: snapshot_folder_put(to, "machine.json", rig->description, strlen(rig->description), err);
	if (extra)
		code = code ?: snapshot_folder_put(to, "kernel", "k", 1, err) ?:
		       snapshot_folder_put(to, "disks/disk0", disk, sizeof(disk), err);
	code = code ?: snapshot_folder_put(to, "state", state.data, state.len, err);
	state_buffer_free(&state);
	return code;
}

int rig_write(struct snapshot_rig *rig, const char *path, unsigned int how, struct err *err)
{
	struct snapshot_folder *to;
	int code = snapshot_folder_begin(path, how & RIG_REPLACE, &to, err);

	if (code)
		return code;
	code = rig_write_files(rig, to, how & RIG_EXTRA, err) ?: snapshot_folder_commit(to, how & RIG_SYNC, err);
	snapshot_folder_end(to);
	return code;
}

unsigned int rig_names(void)
{
	DIR *dir = opendir(folder);
	unsigned int count = 0;

	CHECK(dir);
	while (readdir(dir))
		count++;
	closedir(dir);
	return count - 2;
}

void rig_flip(const char *path, off_t at)
{
	_cleanup_(fd_close) int fd = open(path, O_RDWR | O_CLOEXEC);
	uint8_t byte = 0;
	bool done = pread(fd, &byte, 1, at) == 1;

	byte ^= 0x40;
	done = done && pwrite(fd, &byte, 1, at) == 1;
	CHECK(done);
}

void rig_cut(const char *path, off_t size)
{
	CHECK_EQ(truncate(path, size), 0);
}
