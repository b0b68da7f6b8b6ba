/* SPDX-License-Identifier: Apache-2.0 */
/* mvmm: finds the command and runs it. Nothing else in the program ends the process or prints its last message. */
#include <fcntl.h>
#include <jansson.h>
#include <malloc.h>
#include <stdio.h>
#include <sys/random.h>

#include "vmm/cli/command.h"

/* Prints one line to stderr; replaces control characters. */
static void main_show(struct err *err)
{
	for (char *c = err->text; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
	fprintf(stderr, "mvmm: %s\n", err->text);
}

/* Else a file that is opened later, such as a disk, could become stdin, stdout or stderr. */
static bool main_standard_files_open(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
			return false;
	return true;
}

/* For the hash tables of JSON objects; jansson would open and read a file for it. */
static void main_seed(void)
{
	size_t seed;

	if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) == sizeof(seed))
		json_object_seed(seed);
}

static int main_dispatch(int argc, char **argv, struct err *err)
{
	const struct command *command;
	const char *word = argc > 1 ? argv[1] : NULL, *name = argc ? strrchr(argv[0], '/') : NULL;

	if (argc && strcmp(name ? name + 1 : argv[0], "firecracker") == 0)
		return command_api_firecracker(argc - 1, argv + 1, err);
	if (!word) {
		err_set(err, -EINVAL, "no command; write mvmm run --kernel FILE, or mvmm --help");
		return EXIT_BAD_INPUT;
	}
	if (strcmp(word, "--version") == 0) {
		puts("mvmm " MVMM_VERSION);
		return EXIT_OFF;
	}
	if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
		word = "help";
	if (word[0] == '-') {
		err_set(err, -EINVAL, "%.60s: options come after a command; write mvmm run %.60s, or mvmm --help", word, word);
		return EXIT_BAD_INPUT;
	}
	command = command_find(word, err);
	return command ? command->run(argc - 2, argv + 2, err) : EXIT_BAD_INPUT;
}

int main(int argc, char **argv)
{
	struct err err = {""};
	int code;

	/*
	 * calloc() clears memory that malloc has fetched in advance, and so touches all of our large tables. Memory
	 * fresh from the kernel is zero and costs nothing until it is used.
	 */
	mallopt(M_TOP_PAD, 0);
	/* Each arena is a mapping and an unmapping when a thread starts, for the sake of threads that allocate at work. */
	mallopt(M_ARENA_MAX, 1);
	main_seed();
	if (!main_standard_files_open())
		return EXIT_FAILED;
	code = main_dispatch(argc, argv, &err);
	if (fflush(stdout) != 0 && !err.text[0]) {
		err_sys(&err, -errno, "writing the output");
		code = EXIT_FAILED;
	}
	if (err.text[0])
		main_show(&err);
	return code;
}
