/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes the folder of a snapshot. It is written beside its place, under a temporary name (".NAME.new-XXXXXX"), and
 * renamed when it is whole: whatever dies when, the folder is there with everything in it, or it is not. The commands
 * that make a snapshot call this.
 *
 *	state, memory, machine.json     always
 *	kernel, initrd, disks/ID        what the machine was started from, and copies of its disks
 *	prefetch                        the pages that a restore needs first
 *
 * A guest's memory may hold secrets: the folder has mode 0700, its files 0600. A lock (flock) on the temporary folder
 * lasts as long as its writer; one without is a dead writer's and is removed by the next who writes to the same place.
 */
#pragma once

#include "core/err.h"

struct snapshot_folder;

/*
 * Begins to write the folder path. replace: path may exist, if it is a snapshot; commit puts the new one in its place.
 * -EEXIST, -EBUSY: another process writes it, or a machine has mapped its memory; -ENOENT, -EACCES, -ENOSPC, ...
 */
int snapshot_folder_begin(const char *path, bool replace, struct snapshot_folder **ret, struct err *err);

/* Creates a file, for reading and writing. name is one of those above. The descriptor is the caller's. */
int snapshot_folder_create(struct snapshot_folder *folder, const char *name, int *fd, struct err *err);
/* Creates a file with this content. */
int snapshot_folder_put(struct snapshot_folder *folder, const char *name, const void *data, size_t len, struct err *err);
/* The message for a write to one of its files that failed with code, which it returns: what to do about no space. */
int snapshot_folder_fault(const struct snapshot_folder *folder, int code, const char *name, struct err *err);
/* Removes a file that is not needed after all. */
int snapshot_folder_drop(struct snapshot_folder *folder, const char *name);

/*
 * Puts the folder in its place. sync: its content and its name are on stable storage then. With replace, the old folder
 * is removed; it stays under a temporary name if a machine has mapped it since begin, until the next begin. After an
 * error the folder is not there, or, if that of the last sync failed, may be after a crash.
 */
int snapshot_folder_commit(struct snapshot_folder *folder, bool sync, struct err *err);

/* Frees it; removes what was not committed. NULL is fine. */
void snapshot_folder_end(struct snapshot_folder *folder);
