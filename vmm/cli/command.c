/* SPDX-License-Identifier: Apache-2.0 */
/* See command.h. */
#include "vmm/cli/command.h"

#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>

#include "vmm/config/nearest.h"
#include "vmm/control/control_client.h"

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

bool command_parse_all(const struct command *command, void *target, size_t help_offset, int argc, char *const *argv,
		       const char **operands, size_t count, int *code, struct err *err)
{
	if (!command_parse(command, target, help_offset, argc, argv, operands, count, code, err))
		return false;
	if (!count || operands[count - 1])
		return true;
	err_set(err, -EINVAL, "%s: an argument is missing; write mvmm %s %s", command->name, command->name,
		command->operands);
	*code = EXIT_BAD_INPUT;
	return false;
}

struct plain_options {
	bool help;
};

static const struct option_key flag = {"flag", OPTION_FLAG};
static const struct option plain_options[] = {
	{"help", NULL, "show this", &flag, 1, .plain = true, .offset = offsetof(struct plain_options, help)},
};
const struct option_table command_plain_options = {plain_options, ARRAY_SIZE(plain_options)};

bool command_parse_plain(const struct command *command, int argc, char *const *argv, const char **operands, size_t count,
			 int *code, struct err *err)
{
	struct plain_options given = {0};

	return command_parse_all(command, &given, offsetof(struct plain_options, help), argc, argv, operands, count, code,
				 err);
}

int command_run_sub(const struct command *command, const struct command *const *sub, size_t count, int argc,
		    char *const *argv, struct err *err)
{
	const char *word = argc ? argv[0] : NULL;
	struct nearest near = nearest_begin(word ?: "", strlen(word ?: ""));
	char hint[NEAREST_HINT];

	for (size_t i = 0; word && i < count; i++) {
		const char *name = strchr(sub[i]->name, ' ') + 1;

		if (strcmp(name, word) == 0)
			return sub[i]->run(argc - 1, argv + 1, err);
		nearest_offer(&near, name);
	}
	if (word && (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)) {
		command_print_help(command);
		return EXIT_OFF;
	}
	if (!word)
		err_set(err, -EINVAL, "%s: a command is missing; write mvmm %s %s", command->name, command->name,
			command->operands);
	else if (near.best)
		err_set(err, -EINVAL, "%s %.60s: unknown command%s", command->name, word, nearest_hint("", near.best, hint));
	else
		err_set(err, -EINVAL, "%s %.60s: unknown command; mvmm %s --help lists them", command->name, word,
			command->name);
	return EXIT_BAD_INPUT;
}

int command_call(const char *machine, const char *method, json_t *parameters, const int *fds, size_t fd_count,
		 int timeout_ms, json_t **ret, struct err *err)
{
	struct control_client client;
	int code = control_client_open(machine, &client, err);

	if (code) {
		json_decref(parameters);
		return code == -EINVAL ? EXIT_BAD_INPUT : EXIT_FAILED;
	}
	code = control_client_pass(&client, method, parameters, fds, fd_count, timeout_ms, ret, err);
	control_client_close(&client);
	return code ? EXIT_FAILED : EXIT_OFF;
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
