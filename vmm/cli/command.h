/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program's commands, such as `mvmm run` and `mvmm ps`. main.c runs one; help and completion come from the same
 * structs. A new command is a file cli_NAME.c with its struct command, a line below and a line in cli_help.c.
 */
#pragma once

#include "core/err.h"
#include "vmm/config/options.h"
#include "vmm/session/exit_code.h"

#include <jansson.h>

struct command {
	const char *name;
	const char *operands; /* for the help: "NAME", or "" */
	const char *summary;  /* one line */
	const char *text;     /* more text for the help, or NULL */
	const struct option_table *options;
	/*
	 * Gets the words after the command's name. Returns the program's exit code; if err->text is not empty, it is
	 * shown on one line before the program ends.
	 */
	int (*run)(int argc, char *const *argv, struct err *err);
};

extern const struct command command_run, command_ps, command_stop, command_ctrl_alt_del, command_pause, command_resume,
	command_info, command_balloon, command_disk, command_net, command_migrate, command_receive, command_snapshot,
	command_restore, command_clone, command_vfio, command_metrics, command_events, command_api, command_doctor,
	command_help;

/* mvmm under the name firecracker: the words after it. In cli_api.c. */
int command_api_firecracker(int argc, char *const *argv, struct err *err);

/* Commands of `mvmm disk`, `mvmm net` and `mvmm vfio` that are in cli_limits.c and cli_remove.c. */
extern const struct command command_disk_set, command_net_set;
extern const struct command command_disk_remove, command_net_remove, command_vfio_remove;

/* Commands of `mvmm snapshot` that have a file of their own. */
extern const struct command command_snapshot_record;

/* The command, or NULL and err with the most similar name. In cli_help.c. */
const struct command *command_find(const char *name, struct err *err);

/* The command of `mvmm snapshot WORD` that works on folders; NULL: the word is none of them. In cli_snapshot_files.c. */
const struct command *snapshot_file_command(const char *word);
/* A line of help for each of them. */
#define SNAPSHOT_FILES_TEXT                                                                     \
	"  inspect DIR                       what the snapshot in DIR is of\n"                    \
	"  verify DIR                        check that all of it is as it was written\n"         \
	"  merge BASE DIFF... [--to DIR]     make one snapshot of one and the diffs after it\n"            \
	"  record DIR                        list what its guest touches first, for --memory-mode prefetch\n"

/* Prints a command's help to stdout. */
void command_print_help(const struct command *command);

/*
 * Parses the words of a command whose options have a bool `help` at help_offset in target. True: the command continues.
 * False: *code is the exit code, and the help was shown or err is set.
 */
bool command_parse(const struct command *command, void *target, size_t help_offset, int argc, char *const *argv,
		   const char **operands, size_t max_operands, int *code, struct err *err);

/* The same of a command that wants exactly count operands. */
bool command_parse_all(const struct command *command, void *target, size_t help_offset, int argc, char *const *argv,
		       const char **operands, size_t count, int *code, struct err *err);

/* The same of a command whose options are command_plain_options: --help, and no other. */
extern const struct option_table command_plain_options;
bool command_parse_plain(const struct command *command, int argc, char *const *argv, const char **operands, size_t count,
			 int *code, struct err *err);

/* Runs the command of `mvmm COMMAND WORD` that the first word names; their names are "COMMAND WORD". */
int command_run_sub(const struct command *command, const struct command *const *sub, size_t count, int argc,
		    char *const *argv, struct err *err);

/*
 * Calls a method of a machine's control socket, with descriptors that it gets, as control_client_pass does. The exit code;
 * EXIT_OFF: *ret (if ret is not NULL) is the caller's.
 */
int command_call(const char *machine, const char *method, json_t *parameters, const int *fds, size_t fd_count,
		 int timeout_ms, json_t **ret, struct err *err);

/*
 * From now on SIGINT, SIGTERM and SIGHUP are read from the signalfd that this returns; -1 if there is none. A reader that
 * has gone, or a limit of a file's size, is an error of the write, and does not end the process amidst its work.
 */
int command_watch_signals(void);
