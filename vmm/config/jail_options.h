/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The options --jail and --allow of all commands that make a machine. They are read from the command line only: whoever
 * describes a machine, in a file or from another host, has no say in what holds it.
 */
#pragma once

#include "vmm/config/options.h"

struct jail_config {
	char *dir;             /* the folder that is the root of all files; NULL: no jail */
	unsigned int uid, gid; /* 0: those of who starts the machine */
	char *netns;           /* the file of a network namespace; NULL: an empty one */
	char *cgroup;          /* a group of version 2; NULL: that of who starts the machine */
	bool pid;              /* a namespace of process numbers */
	unsigned int nofile;   /* descriptors; 0: the hard limit */
	uint64_t fsize;        /* bytes of a file that is written; 0: no limit */
	unsigned int cpu;      /* percent of one CPU; 0: no limit */
	uint64_t memory;       /* bytes, of this process and its files; 0: no limit */
	uint64_t io;           /* bytes a second, read and as many written, of each block device; 0: no limit */
	unsigned int io_weight; /* of block devices' time, where others want it; 0: the kernel's */
};

struct jail_options {
	struct jail_config config;
	struct jail_folder {
		char *path;
	} *allowed; /* folders in which requests may name files, and that can be seen in the jail, too */
	size_t allowed_count;
};

#define JAIL_KEYS 12
extern const struct option_key jail_keys[JAIL_KEYS];
extern const struct option_key jail_allow_key;

/* The rows of a table of options whose target is a struct `type` with a struct jail_options `member`. */
#define JAIL_OPTIONS(type, member)                                                                                        \
	{"jail",                                                                                                          \
	 "DIR[,uid=N,gid=N][,netns=FILE][,cgroup=GROUP][,cpu=PERCENT][,memory=SIZE][,io=SIZE][,io-weight=N][,pid=on|off][,nofile=N]" \
	 "[,fsize=SIZE]",                                                                                                \
	 "hold the machine in this folder: namespaces of its own, no rights, limits", jail_keys, JAIL_KEYS, .bare = true, \
	 .command_only = true, .offset = offsetof(struct type, member.config)},                                             \
	{"allow", "DIR", "a folder in which requests may name files, and that the jail shows under the same path; may be repeated", &jail_allow_key, 1,         \
	 .plain = true, .command_only = true, .offset = offsetof(struct type, member.allowed),                            \
	 .count_offset = offsetof(struct type, member.allowed_count), .item_size = sizeof(struct jail_folder)}

/* Checks them without a look at the host. -EINVAL: the message names the option and what to do. */
int jail_options_check(const struct jail_options *options, struct err *err);
