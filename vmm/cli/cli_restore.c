/* SPDX-License-Identifier: Apache-2.0 */
/* `mvmm restore`: makes a machine from a snapshot and runs it. */
#include "vmm/cli/command.h"
#include "vmm/session/session.h"

static const struct option_key flag = {"flag", OPTION_FLAG};
static const struct option_key name = {"name", OPTION_STRING, .help = "NAME"};
static const struct option_key file = {"file", OPTION_STRING, .help = "FILE"};
static const struct option_key port = {"port", OPTION_STRING, .help = "stdio|pty|none|FILE"};
static const struct option_key clock = {"clock", OPTION_STRING, .help = "stop|run"};
static const struct option_key override = {"override", OPTION_STRING, .help = "ID=VALUE"};

#define FIELD(member) .plain = true, .offset = offsetof(struct restore_options, member)
#define LIST(array, counter)                                                      \
	FIELD(array), .count_offset = offsetof(struct restore_options, counter), \
	.item_size = sizeof(struct arrival_override)

static const struct option options[] = {
	{"from", "DIR", "the folder of the snapshot", &file, 1, FIELD(from)},
	{"state", "FILE", "the two files of a snapshot, instead of a folder: its state", &file, 1, FIELD(state)},
	{"memory", "FILE", "and its memory", &file, 1, FIELD(memory)},
	{"name", "NAME", "the machine's name; by default that of the machine in the snapshot", &name, 1, FIELD(here.name)},
	{"disk", "ID=PATH", "the file or block device of this disk; may be repeated", &override, 1,
	 LIST(here.disks, here.disk_count)},
	{"net", "ID=tap=NAME|passt[=SOCKET]|mac=MAC", "what this network card is connected to, and another MAC address; may be "
	 "repeated", &override, 1, LIST(here.nets, here.net_count)},
	{"vfio", "ID=BDF|BDF[,KEY=VALUE]...", "the device of this host for this id; or without an id, another one that is "
	 "plugged in once the guest runs; may be repeated", &override, 1, LIST(here.vfios, here.vfio_count)},
	{"vsock", "SOCKET|kernel|cid=N,socket=SOCKET|cid=N,kernel",
	 "the UNIX socket of the machine's vsock, or the kernel's vhost-vsock; and another CID", &file, 1,
	 FIELD(here.vsock)},
	{"clock", "stop|run", "whether the guest's clocks have stood still or gone on since the snapshot; by default as the "
	 "machine was configured", &clock, 1, FIELD(here.clock)},
	{"kernel", "FILE", "the kernel that a reboot of the guest boots; by default the one kept in the folder", &file, 1,
	 FIELD(here.kernel)},
	{"initrd", "FILE", "the initial ramdisk for that", &file, 1, FIELD(here.initrd)},
	{"serial", "stdio|file=PATH|socket=PATH|pty|none", "the first serial port; by default stdio, if the console does not use it",
	 &port, 1, FIELD(here.serial)},
	{"console", "PATH|pty|stdio|none", "the machine's virtio console, if it has one; pty by default", &port, 1,
	 FIELD(here.console)},
	{"memory-mode", "map|copy|prefetch|uffd=SOCKET",
	 "how memory comes in: mapped, and read when the guest touches it (the default); all of it read and checked; mapped, "
	 "and what the guest touches first read ahead (see mvmm snapshot record); or from another process by a userfaultfd",
	 &file, 1, FIELD(memory_mode)},
	{"paused", NULL, "leave the machine paused, until mvmm resume", &flag, 1, FIELD(paused)},
	{"force-cpu", NULL, "accept a guest that relies on features or bits that this host's CPU lacks; it may fail", &flag, 1,
	 FIELD(here.force_cpu)},
	{"verbose", NULL, "say more", &flag, 1, FIELD(here.verbose)},
	{"quiet", NULL, "say nothing but errors", &flag, 1, FIELD(here.quiet)},
	{"help", NULL, "show this", &flag, 1, FIELD(help)},
};

static const struct option_table table = {options, ARRAY_SIZE(options)};

static int cli_restore_check(const struct restore_options *given, struct err *err)
{
	if (given->from && (given->state || given->memory))
		return err_set(err, -EINVAL, "--from: names a folder with both files; leave out --state and --memory");
	if (!given->from && (!given->state || !given->memory))
		return err_set(err, -EINVAL, "--from is missing; write --from DIR, the folder that mvmm snapshot --to made");
	if (given->here.verbose && given->here.quiet)
		return err_set(err, -EINVAL, "--quiet: cannot be combined with --verbose; leave one out");
	return 0;
}

static int cli_restore_run(int argc, char *const *argv, struct err *err)
{
	struct restore_options given = {0};
	int code;

	options_init(&table, &given);
	if (command_parse(&command_restore, &given, offsetof(struct restore_options, help), argc, argv, NULL, 0, &code, err))
		code = cli_restore_check(&given, err) ? EXIT_BAD_INPUT : session_restore(&given, err);
	options_done(&table, &given);
	return code;
}

const struct command command_restore = {
	.name = "restore",
	.operands = "",
	.summary = "Make a machine from a snapshot and run it",
	.text = "Disks, networks and the vsock are those that the snapshot names, unless options name others by their ids;\n"
		"mvmm snapshot inspect DIR shows them.\n",
	.options = &table,
	.run = cli_restore_run,
};
