/* SPDX-License-Identifier: Apache-2.0 */
/* See command.h. */
#include "vmm/cli/command.h"

#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>

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

int command_watch_signals(void)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}
