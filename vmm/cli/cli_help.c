/* SPDX-License-Identifier: Apache-2.0 */
/* `mvmm help`, `mvmm --help`, `mvmm COMMAND --help`, and the words for completion scripts. */
#include <stdio.h>

#include "vmm/cli/command.h"

void command_print_help(const struct command *command)
{
	printf("usage: mvmm %s%s%s%s\n\n%s.\n", command->name, *command->operands ? " " : "", command->operands,
	       command->options->count > 1 ? " [OPTION]..." : "", command->summary);
	if (command->text)
		printf("\n%s", command->text);
	printf("\n");
	options_print_help(command->options);
}

bool command_parse(const struct command *command, void *target, size_t help_offset, int argc, char *const *argv,
		   const char **operands, size_t max_operands, int *code, struct err *err)
{
	for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++) {
		if (strcmp(argv[i], "-h") == 0) {
			command_print_help(command);
			*code = EXIT_OFF;
			return false;
		}
	}
	if (options_parse(command->options, target, argc, argv, operands, max_operands, err)) {
		*code = EXIT_BAD_INPUT;
		return false;
	}
	if (*(bool *)((char *)target + help_offset)) {
		command_print_help(command);
		*code = EXIT_OFF;
		return false;
	}
	return true;
}

static void cli_help_print_overview(void)
{
	printf("mvmm runs virtual machines with KVM.\n\nusage: mvmm COMMAND [ARGUMENT]...\n\n");
	for (size_t i = 0; commands[i]; i++)
		printf("  %-8s%s\n", commands[i]->name, commands[i]->summary);
	printf("\nmvmm help COMMAND, or mvmm COMMAND --help, tells a command's options; mvmm --version the version.\n"
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
	.summary = "Tell what there is, or what a command takes",
	.options = &table,
	.run = cli_help_run,
};
