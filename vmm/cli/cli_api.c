/* SPDX-License-Identifier: Apache-2.0 */
/* `mvmm api --as FACE ...`, and mvmm under the name of a program whose face it has. */
#include "vmm/api/firecracker/firecracker_line.h"
#include "vmm/cli/command.h"
#include "vmm/session/session.h"

enum api_face { API_NONE, API_FIRECRACKER };

struct api_options {
	int face;
	bool help;
};

static const char *const faces[] = {"none", "firecracker", NULL};
static const struct option_key face = {"face", OPTION_WORD, .words = faces};
static const struct option_key flag = {"flag", OPTION_FLAG};

static const struct option options[] = {
	{"as", "firecracker", "whose API, and whose command line, the words after it are of", &face, 1, .plain = true,
	 .offset = offsetof(struct api_options, face)},
	{"help", NULL, "show this", &flag, 1, .plain = true, .offset = offsetof(struct api_options, help)},
};

static const struct option_table table = {options, ARRAY_SIZE(options)};

int command_api_firecracker(int argc, char *const *argv, struct err *err)
{
	struct firecracker_options given;
	int code;

	return firecracker_line(argc, argv, &given, &code, err) ? session_api(&given, err) : code;
}

static int cli_api_run(int argc, char *const *argv, struct err *err)
{
	struct api_options given = {0};
	int own = argc > 1 && strcmp(argv[0], "--as") == 0 ? 2 : argc, code; /* what comes after --as FACE is the face's */

	if (!command_parse(&command_api, &given, offsetof(struct api_options, help), own, argv, NULL, 0, &code, err))
		return code;
	if (given.face == API_FIRECRACKER)
		return command_api_firecracker(argc - own, argv + own, err);
	err_set(err, -EINVAL, "api: whose API is missing; write mvmm api --as firecracker");
	return EXIT_BAD_INPUT;
}

const struct command command_api = {
	.name = "api",
	.operands = "",
	.summary = "Serve the HTTP API of another program, and run the machine that its clients start",
	.text = "mvmm api --as firecracker takes Firecracker's options after these words, and so does a link to mvmm that is\n"
		"called firecracker. mvmm api --as firecracker --help lists them.\n",
	.options = &table,
	.run = cli_api_run,
};
