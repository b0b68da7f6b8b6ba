/* SPDX-License-Identifier: Apache-2.0 */
/* The table of commands: lookup, and `mvmm help` for people and for completion scripts. */
#include <stdio.h>

#include "vmm/cli/command.h"
#include "vmm/config/nearest.h"

/* In the order of the help; ends with NULL. */
static const struct command *const commands[] = {
	&command_run, &command_ps, &command_info, &command_stop, &command_ctrl_alt_del, &command_pause, &command_resume,
	&command_balloon,
	&command_disk, &command_net, &command_migrate, &command_receive, &command_snapshot, &command_restore, &command_clone,
	&command_vfio, &command_metrics, &command_events, &command_api, &command_doctor, &command_help, NULL,
};

const struct command *command_find(const char *name, struct err *err)
{
	struct nearest near = nearest_begin(name, strlen(name));
	char hint[NEAREST_HINT];

	for (size_t i = 0; commands[i]; i++)
		if (strcmp(commands[i]->name, name) == 0)
			return commands[i];
	for (size_t i = 0; commands[i]; i++)
		nearest_offer(&near, commands[i]->name);
	err_set(err, -EINVAL, "%.60s: unknown command%s", name,
		near.best ? nearest_hint("", near.best, hint) : "; mvmm --help lists them");
	return NULL;
}

static void cli_help_print_overview(void)
{
	printf("mvmm runs virtual machines with KVM.\n\nusage: mvmm COMMAND [ARGUMENT]...\n\n");
	for (size_t i = 0; commands[i]; i++)
		printf("  %-14s%s\n", commands[i]->name, commands[i]->summary);
	printf("\nmvmm help COMMAND, or mvmm COMMAND --help, shows a command's options; mvmm --version the version.\n"
	       "A first machine: mvmm run --kernel bzImage --initrd initrd.img --cmdline console=ttyS0\n");
}

struct help_options {
	bool words, help;
};

static const struct option_key flag = {"flag", OPTION_FLAG};

static const struct option options[] = {
	{"words", NULL, "only the words, one option a line, for completion scripts", &flag, 1, .plain = true,
	 .offset = offsetof(struct help_options, words)},
	{"help", NULL, "show this", &flag, 1, .plain = true, .offset = offsetof(struct help_options, help)},
};

static const struct option_table table = {options, ARRAY_SIZE(options)};

static int cli_help_run(int argc, char *const *argv, struct err *err)
{
	struct help_options given = {0};
	const struct command *command;
	const char *name;
	int code;

	if (!command_parse(&command_help, &given, offsetof(struct help_options, help), argc, argv, &name, 1, &code, err))
		return code;
	command = name ? command_find(name, err) : NULL;
	if (name && !command)
		return EXIT_BAD_INPUT;
	if (!given.words && command)
		command_print_help(command);
	else if (!given.words)
		cli_help_print_overview();
	else if (command)
		options_print_words(command->options);
	else
		for (size_t i = 0; commands[i]; i++)
			puts(commands[i]->name);
	return EXIT_OFF;
}

const struct command command_help = {
	.name = "help",
	.operands = "[COMMAND]",
	.summary = "List the commands, or the options of a command",
	.options = &table,
	.run = cli_help_run,
};
