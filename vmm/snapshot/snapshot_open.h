/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opens a snapshot to restore, show, check or merge it: a folder, or two files "state" and "memory" of any names. What
 * is in it is hostile; it is read once, into memory of this process, and checked. The content of the memory file is
 * neither read nor checked here.
 */
#pragma once

#include "vmm/snapshot/state_file.h"

struct snapshot {
	int dir_fd; /* the folder; for two files the one that state is in */
	int state_fd, memory_fd; /* read-only; memory -1 with SNAPSHOT_NO_MEMORY */
	struct snapshot_state *state;
	char *path; /* as the user wrote it: of the folder, or of the state */
	bool folder;
	void *bytes; /* what state points into */
	size_t bytes_len;
};

enum snapshot_flags {
	SNAPSHOT_ANY_OWNER = 1, /* for those who map nothing of it: read it even if others may write it */
	SNAPSHOT_ANY_KIND = 2,  /* a diff as well */
	SNAPSHOT_NO_MEMORY = 4, /* of two files, the state alone: somebody else has the memory */
};

/*
 * Opens what can be restored. Refused: a diff, and files that somebody else may write, since they are mapped: the owner
 * of folder and files must be root or this user, and nobody else may write them. -ENOENT; -EBADMSG: damaged, or not a
 * snapshot; -ENOTSUP: another version or architecture; -EPERM: others may write it; -EBUSY: being written.
 */
int snapshot_open(const char *folder, struct snapshot **ret, struct err *err);
int snapshot_open_files(const char *state, const char *memory, struct snapshot **ret, struct err *err);

/* The same, with flags (enum snapshot_flags). memory: NULL if path is a folder, else path is the state file's. */
int snapshot_open_as(const char *path, const char *memory, unsigned int flags, struct snapshot **ret, struct err *err);

/* NULL is fine. Ends the lock. */
void snapshot_close(struct snapshot *snapshot);

/*
 * Locks the memory file (flock), until close: shared by those who map or read it, exclusive to replace it. -EBUSY and a
 * sentence if somebody else has locked it otherwise. The lock goes with memory_fd, also to a copy of the descriptor.
 */
int snapshot_lock(struct snapshot *snapshot, bool exclusive, struct err *err);

/* Opens a file of the folder ("kernel", "disks/ID") read-only: 0 and *fd = -1 if there is none. */
int snapshot_open_part(const struct snapshot *snapshot, const char *name, int *fd, struct err *err);
