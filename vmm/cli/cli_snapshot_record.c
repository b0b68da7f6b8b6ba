/* SPDX-License-Identifier: Apache-2.0 */
/* `mvmm snapshot record`: restores a snapshot once, and keeps the list of pages that its guest touches first. */
#include <stdio.h>

#include "vmm/cli/command.h"
#include "vmm/session/session.h"

#define UNTIL_NS 5000000000ull

static const struct option_key flag = {"flag", OPTION_FLAG};
static const struct option_key file = {"file", OPTION_STRING, .help = "PATH"};
static const struct option_key override = {"override", OPTION_STRING, .help = "ID=VALUE"};
static const struct option_key until = {"until", OPTION_TIME, .min = 1000000, .max = 3600000000000, .help = "TIME"};

#define FIELD(member) .plain = true, .offset = offsetof(struct restore_options, member)
#define LIST(array, counter)                                                      \
	FIELD(array), .count_offset = offsetof(struct restore_options, counter), \
	.item_size = sizeof(struct arrival_override)

static const struct option options[] = {
	{"until", "TIME", "how long to wait for the guest's first byte on its serial port or console; 5s by default", &until, 1,
	 FIELD(record_ns)},
	{"disk", "ID=PATH", "the file of this disk, which the guest may change; may be repeated. By default a copy of a disk "
	 "that may be written, which shares its blocks", &override, 1, LIST(here.disks, here.disk_count)},
	{"net", "ID=tap=NAME|passt[=SOCKET]", "what this network card is connected to; may be repeated", &override, 1,
	 LIST(here.nets, here.net_count)},
	{"vsock", "SOCKET|kernel", "the UNIX socket of the machine's vsock, or the kernel's vhost-vsock", &file, 1,
	 FIELD(here.vsock)},
	{"force-cpu", NULL, "accept a guest that relies on features or bits that this host's CPU lacks; it may fail", &flag, 1,
	 FIELD(here.force_cpu)},
	{"verbose", NULL, "say more", &flag, 1, FIELD(here.verbose)},
	{"quiet", NULL, "say nothing but errors", &flag, 1, FIELD(here.quiet)},
	{"help", NULL, "show this", &flag, 1, FIELD(help)},
};

static const struct option_table table = {options, ARRAY_SIZE(options)};

static int cli_snapshot_record_with(struct restore_options *given, const char *folder, struct err *err)
{
	char name[32];

	if (!folder) {
		err_set(err, -EINVAL, "snapshot record: a folder is missing; write mvmm snapshot record DIR");
		return EXIT_BAD_INPUT;
	}
	snprintf(name, sizeof(name), "record-%d", getpid());
	given->here.name = strdup(name);
	given->from = strdup(folder);
	given->here.serial = strdup("none");
	given->record_ns = given->record_ns ?: UNTIL_NS;
	if (given->here.name && given->from && given->here.serial)
		return session_restore(given, err);
	err_sys(err, -ENOMEM, "snapshot record");
	return EXIT_FAILED;
}

static int cli_snapshot_record_run(int argc, char *const *argv, struct err *err)
{
	struct restore_options given = {.ready_fd = -1};
	const char *folder = NULL;
	int code;

	options_init(&table, &given);
	if (command_parse(&command_snapshot_record, &given, offsetof(struct restore_options, help), argc, argv, &folder, 1, &code,
			  err))
		code = cli_snapshot_record_with(&given, folder, err);
	free(given.here.name);
	free(given.here.kernel); /* found in the folder */
	free(given.here.initrd);
	free(given.from);
	free(given.here.serial);
	options_done(&table, &given);
	return code;
}

const struct command command_snapshot_record = {
	.name = "snapshot record",
	.operands = "DIR",
	.summary = "Restore a snapshot once, and list what its guest touches first",
	.text = "The guest runs until it writes to its serial port or console, or until a time has passed, and ends. Then\n"
		"mvmm restore --memory-mode prefetch reads the parts of memory that it touched ahead.\n",
	.options = &table,
	.run = cli_snapshot_record_run,
};
