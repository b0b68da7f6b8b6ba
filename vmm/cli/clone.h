/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `mvmm clone`: what its files share. cli_clone.c is the command and starts the processes; clone_plan.c makes their
 * command lines and checks that they can run beside each other; clone_source.c takes a snapshot of a running machine.
 */
#pragma once

#include "vmm/config/options.h"
#include "vmm/session/session.h"
#include "vmm/snapshot/snapshot_open.h"

#define CLONE_MAX 65535u
#define CLONE_READY_FD 3    /* of a clone, for mvmm restore --ready-fd */
#define CLONE_FIRST_FD 10   /* descriptors that clones inherit are not below */

struct clone_options {
	struct restore_options restore;
	unsigned int count, jobs; /* jobs 0: as many as there are CPUs */
	uint32_t disks;           /* enum snapshot_disks, of a running machine */
	bool live;                /* of a running machine: memory is written while its guest works */
	bool json;
};

/* In cli_restore.c. */
extern const struct option_table cli_clone_options;
/* Whether the options go together. -EINVAL. */
int cli_restore_check(const struct restore_options *given, struct err *err);

/* ---- clone_source.c ---- */

/* What clones are made from. */
struct clone_source {
	char *folder; /* a snapshot; NULL: the descriptors of one that has no name, and is gone with the last clone */
	int state, memory;
	struct {
		char id[64];
		int fd;
	} disks[WIRE_MAX_DISKS];
	size_t disk_count;
	int signal; /* that ended the snapshot, or 0 */
};

/*
 * what: a folder if it has a slash or no machine of this name runs. A running machine is paused and runs on.
 * signal_fd (command_watch_signals) ends its snapshot.
 */
int clone_source_open(const char *what, const struct clone_options *given, int signal_fd, struct clone_source *ret,
		      struct err *err);
void clone_source_close(struct clone_source *source);

/* ---- clone_plan.c ---- */

struct clone_plan {
	char **words; /* of mvmm restore, with {n} for the number; ends with NULL */
	size_t count;
};

/*
 * Makes the command lines of the clones from that of `mvmm clone`, and checks that what two of them use is not the same.
 * -EINVAL names the option that needs {n}.
 */
int clone_plan_make(int argc, char *const *argv, const struct clone_options *given, const struct clone_source *source,
		    struct clone_plan *ret, struct err *err);
void clone_plan_done(struct clone_plan *plan);
/* The words of clone n, ended by NULL; clone_plan_free frees them. NULL: no memory. */
char **clone_plan_fill(const struct clone_plan *plan, unsigned int n);
void clone_plan_free(char **words);
/* The value of --name in the words. */
const char *clone_plan_name(char *const *words);
