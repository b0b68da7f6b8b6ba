/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots for the tests: a state that is sound, and folders with such a state and memory of a given content. */
#pragma once

#include "core/util.h"
#include "tests/unit/test.h"
#include "vmm/snapshot/state_file.h"

#define RIG_MEMORY (MIB(4) + KIB(36)) /* not a multiple of 2 MiB, and pages that do not fill a byte */
#define RIG_PAGES (RIG_MEMORY / SNAPSHOT_PAGE)
#define RIG_OFFER                                                                                                      \
	"{\"version\":1,\"config\":{\"kernel\":\"/k\",\"name\":\"m\",\"memory\":{\"size\":4231168},\"cpus\":2,"              \
	"\"disk\":[{\"path\":\"/a\",\"id\":\"disk0\"}]},\"memory\":[{\"gpa\":0,\"size\":4231168}],\"cpu\":{\"architecture\":" \
	"\"x86-64\",\"cpuid\":[]},\"tsc_khz\":2000000,\"hotplug\":0,\"devices\":[{\"id\":\"disk0\",\"kind\":\"disk\",\"slot\":1," \
	"\"features\":5,\"size\":65536}]}"

struct snapshot_rig {
	struct snapshot_state state;
	uint8_t memory[RIG_MEMORY];
	uint8_t sums[24], pages[(RIG_PAGES + 7) / 8];
	char *description;
};

/*
 * A snapshot whose id is all byte id, of empty memory; parent 0: a full one. The caller fills memory, and for a diff
 * marks pages, then calls rig_finish. rig_done frees what belongs to it.
 */
void rig_init(struct snapshot_rig *rig, uint8_t id, uint8_t parent);
void rig_fill(struct snapshot_rig *rig, unsigned int page, uint8_t byte); /* and marks it */
void rig_finish(struct snapshot_rig *rig);
void rig_finish_with(struct snapshot_rig *rig, const char *offer);
void rig_done(struct snapshot_rig *rig);

/* A folder of the test's own, and paths in it, which the next five calls do not overwrite. rig_rmdir: all of it. */
void rig_mkdir(void);
const char *rig_path(const char *name);
void rig_rmdir(void);
void rig_remove(const char *name);

/* Writes rig to the folder path, and closes everything. EXTRA: also the files "kernel" and "disks/disk0". */
enum rig_how { RIG_REPLACE = 1, RIG_EXTRA = 2, RIG_SYNC = 4 };
int rig_write(struct snapshot_rig *rig, const char *path, unsigned int how, struct err *err);
/* How many names there are in the folder of the test. */
unsigned int rig_names(void);
/* Changes a byte of a file, or its size. */
void rig_flip(const char *path, off_t at);
void rig_cut(const char *path, off_t size);
