/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copies the contents of disks into files on this host, also while the guest writes to them: first everything, then what
 * has changed since. What is a hole or zero in the disk is a hole in its file. Used by snapshot_disks.c, and by
 * session/restore_disks.c for a disk that nobody writes.
 */
#pragma once

#include "vmm/migration/disk_reader.h"
#include "vmm/migration/disk_target.h"

struct disk_copier;

struct disk_copier_options {
	const struct disk_copy *disks; /* the copier has descriptors of its own; collect is called in follow and finish only */
	const int *fds;                /* for each disk an empty file, which gets the disk's size; the same */
	size_t count;                  /* 1 to WIRE_MAX_DISKS */
	/* Called about ten times a second; nonzero ends the copying. May be NULL. */
	int (*tick)(void *opaque, struct err *err);
	void *opaque;
};

/* An error of this and the following names the disk. */
int disk_copier_create(const struct disk_copier_options *options, struct disk_copier **ret, struct err *err);
/* NULL is fine. */
void disk_copier_destroy(struct disk_copier *copier);

/* Copies until so little is left that the rest takes milliseconds, or until the guest writes as fast as this copies. */
int disk_copier_follow(struct disk_copier *copier, struct err *err);
/* Nothing writes to the disks any more: copies all that is left. */
int disk_copier_finish(struct disk_copier *copier, struct err *err);

/*
 * finish in two: collect is for the owner's thread, and copy_rest for another one, to which the copier was handed over:
 * it calls no tick any more. give_up makes it end soon, with -ECANCELED. Any thread.
 */
void disk_copier_collect(struct disk_copier *copier);
void disk_copier_hand_over(struct disk_copier *copier);
int disk_copier_copy_rest(struct disk_copier *copier, struct err *err);
void disk_copier_give_up(struct disk_copier *copier);

/* Bytes that are to be copied as far as it is known, including holes. Any thread. */
uint64_t disk_copier_left(const struct disk_copier *copier);
