/* SPDX-License-Identifier: Apache-2.0 */
/* `mvmm disk remove`, `mvmm net remove` and `mvmm vfio remove`: the guest is asked to release a device, or is not. */
#include "vmm/cli/command.h"

/* Beside the time for the guest: storage completes its requests, or the kernel unpins terabytes. */
#define PATIENCE_MS 180000

struct remove_options {
	bool force, help;
	unsigned int timeout;
};

static const struct option_key flag = {"flag", OPTION_FLAG};
static const struct option_key seconds = {"seconds", OPTION_UINT, .value = 30, .min = 1, .max = 86400,
					  .help = "SECONDS"};

#define FIELD(member) .plain = true, .offset = offsetof(struct remove_options, member)

static const struct option options[] = {
	{"force", NULL, "take it away even if the guest uses it", &flag, 1, FIELD(force)},
	{"timeout", "SECONDS", "how long to wait for the guest to release it, 30 by default", &seconds, 1,
	 FIELD(timeout)},
	{"help", NULL, "show this", &flag, 1, FIELD(help)},
};
static const struct option_table table = {options, ARRAY_SIZE(options)};

static int cli_remove_run(const struct command *command, const char *method, int argc, char *const *argv, struct err *err)
{
	struct remove_options given = {.timeout = (unsigned int)seconds.value};
	const char *operands[2];
	int code;

	if (!command_parse_all(command, &given, offsetof(struct remove_options, help), argc, argv, operands, 2, &code, err))
		return code;
	return command_call(operands[0], method,
			    json_pack("{s:s, s:b, s:i}", "id", operands[1], "force", given.force, "timeout",
				      (int)given.timeout),
			    NULL, 0, (int)given.timeout * 1000 + PATIENCE_MS, NULL, err);
}

static int cli_remove_run_disk(int argc, char *const *argv, struct err *err)
{
	return cli_remove_run(&command_disk_remove, "RemoveDisk", argc, argv, err);
}

static int cli_remove_run_net(int argc, char *const *argv, struct err *err)
{
	return cli_remove_run(&command_net_remove, "RemoveNet", argc, argv, err);
}

static int cli_remove_run_vfio(int argc, char *const *argv, struct err *err)
{
	return cli_remove_run(&command_vfio_remove, "RemoveDevice", argc, argv, err);
}

const struct command command_disk_remove = {
	.name = "disk remove", .operands = "NAME ID", .options = &table, .run = cli_remove_run_disk,
	.summary = "Ask the guest to release a disk, and remove it",
};

const struct command command_net_remove = {
	.name = "net remove", .operands = "NAME ID", .options = &table, .run = cli_remove_run_net,
	.summary = "Ask the guest to release a network card, and remove it",
};

const struct command command_vfio_remove = {
	.name = "vfio remove", .operands = "NAME ID", .options = &table, .run = cli_remove_run_vfio,
	.summary = "Ask the guest to release a device, and remove it",
};
