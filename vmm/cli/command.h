/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program's commands, one row each: `mvmm run`, `mvmm ps` and so on. main.c looks a command up and runs it; the help
 * and the completion are made from the same rows. A new command is a file cli_NAME.c with its struct command, a line
 * below and a line in main.c's table.
 */
#pragma once

#include "core/err.h"
#include "vmm/config/options.h"

/* What the program ends with; the man page has the same list. */
enum exit_code {
	EXIT_OFF = 0,       /* done; for run: the guest powered off, or the machine was ended as asked */
	EXIT_FAILED = 1,    /* something failed while it ran */
	EXIT_BAD_INPUT = 2, /* nothing was begun */
	EXIT_PANIC = 3,     /* the guest's kernel panicked */
	EXIT_SIGNAL = 128,  /* and the signal's number: ended by it */
};

struct command {
	const char *name;
	const char *operands; /* for the help: "NAME", or "" */
	const char *summary;  /* one line */
	const char *text;     /* more for the help, or NULL */
	const struct option_table *options;
	/*
	 * Gets the words after the command's name. What it returns is the program's exit code; when err->text is not empty it
	 * is shown before that, on one line.
	 */
	int (*run)(int argc, char *const *argv, struct err *err);
};

extern const struct command command_run, command_ps, command_stop, command_pause, command_resume, command_info,
	command_balloon, command_migrate, command_receive, command_vfio, command_doctor, command_help;

/* All of them, in the order of the help; ends with NULL. main.c */
extern const struct command *const commands[];

/* The command, or NULL with err saying which is nearest. main.c */
const struct command *command_find(const char *name, struct err *err);

/* Prints a command's help to stdout. cli_help.c */
void command_print_help(const struct command *command);

/*
 * Reads the words of a command whose options have a bool `help` at help_offset in target. True when the command is to
 * go on; else *code is the exit code, the help having been shown or err set. cli_help.c
 */
bool command_parse(const struct command *command, void *target, size_t help_offset, int argc, char *const *argv,
		   const char **operands, size_t max_operands, int *code, struct err *err);
