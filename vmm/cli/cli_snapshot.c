/* SPDX-License-Identifier: Apache-2.0 */
/* `mvmm snapshot`: finds the command of its first word. */
#include <stdio.h>

#include "vmm/cli/command.h"

struct snapshot_options {
	bool help;
};

static const struct option_key flag = {"flag", OPTION_FLAG};
static const struct option options[] = {
	{"help", NULL, "show this", &flag, 1, .plain = true, .offset = offsetof(struct snapshot_options, help)},
};
static const struct option_table table = {options, ARRAY_SIZE(options)};

static int cli_snapshot_run(int argc, char *const *argv, struct err *err)
{
	const struct command *files = argc ? snapshot_file_command(argv[0]) : NULL;

	if (files)
		return files->run(argc - 1, argv + 1, err);
	if (argc && (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0)) {
		command_print_help(&command_snapshot);
		return EXIT_OFF;
	}
	if (argc)
		err_set(err, -EINVAL, "snapshot %.60s: unknown command; write mvmm snapshot inspect, verify or merge", argv[0]);
	else
		err_set(err, -EINVAL, "snapshot: a command is missing; write mvmm snapshot inspect, verify or merge");
	return EXIT_BAD_INPUT;
}

const struct command command_snapshot = {
	.name = "snapshot",
	.operands = "inspect|verify|merge",
	.summary = "Show, check and merge snapshots",
	.text = SNAPSHOT_FILES_TEXT,
	.options = &table,
	.run = cli_snapshot_run,
};
