/* SPDX-License-Identifier: Apache-2.0 */
/* `mvmm disk resize`: shows a running guest the size that the image of a disk has now. */
#include <stdio.h>

#include "vmm/cli/command.h"
#include "vmm/control/control_client.h"

#define PATIENCE_MS 10000 /* for a reply */

struct disk_options {
	bool help;
};

static const struct option_key flag = {"flag", OPTION_FLAG};
static const struct option options[] = {
	{"help", NULL, "show this", &flag, 1, .plain = true, .offset = offsetof(struct disk_options, help)},
};
static const struct option_table table = {options, ARRAY_SIZE(options)};

static const struct command disk_resize;

static int cli_disk_call(const char *name, const char *id, struct err *err)
{
	struct control_client client;
	json_t *reply;
	char size[24];
	int code = control_client_open(name, &client, err);

	if (code)
		return code == -EINVAL ? EXIT_BAD_INPUT : EXIT_FAILED;
	code = control_client_call(&client, "ResizeDisk", json_pack("{s:s}", "id", id), PATIENCE_MS, &reply, err);
	control_client_close(&client);
	if (code)
		return EXIT_FAILED;
	printf("%s: the guest sees %s\n", id,
	       number_format_size((uint64_t)json_integer_value(json_object_get(reply, "size")), size));
	json_decref(reply);
	return EXIT_OFF;
}

static int cli_disk_run_resize(int argc, char *const *argv, struct err *err)
{
	struct disk_options given = {0};
	const char *operands[2];
	int code;

	if (!command_parse(&disk_resize, &given, offsetof(struct disk_options, help), argc, argv, operands, 2, &code,
			   err))
		return code;
	if (operands[1])
		return cli_disk_call(operands[0], operands[1], err);
	err_set(err, -EINVAL, "disk resize: an argument is missing; write mvmm disk resize NAME DISK");
	return EXIT_BAD_INPUT;
}

static const struct command disk_resize = {
	.name = "disk resize",
	.operands = "NAME DISK",
	.summary = "Show a running guest the size that the image of a disk has now",
	.text = "DISK is the disk's id, as mvmm info shows it. Resize the image first, e.g. with truncate -s.\n",
	.options = &table,
	.run = cli_disk_run_resize,
};

static int cli_disk_run(int argc, char *const *argv, struct err *err)
{
	if (argc && strcmp(argv[0], "resize") == 0)
		return cli_disk_run_resize(argc - 1, argv + 1, err);
	if (argc && strcmp(argv[0], "set") == 0)
		return command_disk_set.run(argc - 1, argv + 1, err);
	if (argc && (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0)) {
		command_print_help(&command_disk);
		return EXIT_OFF;
	}
	if (argc)
		err_set(err, -EINVAL, "disk %.60s: unknown command; write mvmm disk resize or mvmm disk set", argv[0]);
	else
		err_set(err, -EINVAL, "disk: a command is missing; write mvmm disk resize or mvmm disk set");
	return EXIT_BAD_INPUT;
}

const struct command command_disk = {
	.name = "disk",
	.operands = "resize|set",
	.summary = "Limit a disk of a running machine, or show its guest that its image was resized",
	.text = "  resize NAME DISK                    the guest sees the size that the image of the disk has now\n"
		"  set NAME DISK KEY=RATE[,KEY=RATE]   limit what it reads and writes\n",
	.options = &table,
	.run = cli_disk_run,
};
