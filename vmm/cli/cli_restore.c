/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `mvmm restore`: makes a machine from a snapshot and runs it. `mvmm clone` (cli_clone.c) makes many in this way; most
 * options are those of both, so that their table stands here.
 */
#include <fcntl.h>

#include "vmm/cli/clone.h"
#include "vmm/cli/command.h"
#include "vmm/control/control_client.h"
#include "vmm/session/session.h"
#include "vmm/snapshot/restore_request.h"
#include "vmm/snapshot/snapshot_report.h"

#define PATIENCE_MS 10000 /* for a process that waits, */
#define COPY_MS 600000    /* and that makes a disk first */

static const struct option_key flag = {"flag", OPTION_FLAG};
static const struct option_key name = {"name", OPTION_STRING, .help = "NAME"};
static const struct option_key file = {"file", OPTION_STRING, .help = "FILE"};
static const struct option_key port = {"port", OPTION_STRING, .help = "stdio|pty|none|FILE"};
static const struct option_key number = {"number", OPTION_UINT, .value = 1, .min = 1, .max = CLONE_MAX, .help = "N"};
static const struct option_key jobs = {"number", OPTION_UINT, .min = 1, .max = CLONE_MAX, .help = "J"};
static const struct option_key descriptor = {"descriptor", OPTION_FD, .value = UINT32_MAX, .help = "FD"};
static const struct option_key clock = {"clock", OPTION_STRING, .help = "stop|run"};
static const struct option_key disks = {"disks", OPTION_WORD, .words = snapshot_disks_words};
static const struct option_key seccomp = {"seccomp", OPTION_WORD, .words = seccomp_words, .value = MVMM_SECCOMP};
static const struct option_key override = {"override", OPTION_STRING, .help = "ID=VALUE"};

#define FIELD(member) .plain = true, .offset = offsetof(struct restore_options, member)
#define CLONE_FIELD(member) .plain = true, .offset = offsetof(struct clone_options, member)
#define LIST(array, counter)                                                      \
	FIELD(array), .count_offset = offsetof(struct restore_options, counter), \
	.item_size = sizeof(struct arrival_override)

/* Those of clone alone, those of both, those of restore alone. */
static const struct option options[] = {
#define CLONE_ALONE 5
	{"count", "N", "how many to make; 1 by default", &number, 1, CLONE_FIELD(count)},
	{"jobs", "J", "how many are started at once; by default as many as there are CPUs", &jobs, 1, CLONE_FIELD(jobs)},
	{"disks", "reflink|copy|none", "how to keep the writable disks of a running machine, as for mvmm snapshot", &disks, 1,
	 CLONE_FIELD(disks)},
	{"live", NULL, "write the memory of a running machine while its guest works, so that it is paused for less", &flag, 1,
	 CLONE_FIELD(live)},
	{"json", NULL, "print the machines and their times as an object", &flag, 1, CLONE_FIELD(json)},
	/* both */
	{"name", "NAME", "the machine's name; by default that of the machine in the snapshot", &name, 1, FIELD(here.name)},
	{"disk", "ID=PATH", "the file or block device of this disk; one that does not exist is made from the snapshot; may be "
	 "repeated", &override, 1, LIST(here.disks, here.disk_count)},
	{"disk-changed", "ID", "use this disk though it has changed since the snapshot; may be repeated", &name, 1,
	 LIST(changed, changed_count)},
	{"disk-from", "ID=FILE", "the copy from which this disk is made, instead of the one in the snapshot; may be repeated",
	 &override, 1, LIST(sources, source_count)},
	{"net", "ID=tap=NAME|passt[=SOCKET][,mac=MAC] or ID=mac=MAC", "what this network card is connected to, and another MAC address; may be "
	 "repeated", &override, 1, LIST(here.nets, here.net_count)},
	{"vfio", "ID=BDF|BDF[,KEY=VALUE]...", "the device of this host for this id; or without an id, another one that is "
	 "plugged in once the guest runs; may be repeated", &override, 1, LIST(here.vfios, here.vfio_count)},
	{"vsock", "SOCKET|kernel|cid=N[,socket=SOCKET|,kernel]",
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
	AFFINITY_OPTION(restore_options, here.affinity),
	JAIL_OPTIONS(restore_options, here.jail),
	{"seccomp", "on|off|log", "allow each thread only the system calls that it needs, or log the others; " MVMM_SECCOMP_TEXT " by default",
	 &seccomp, 1, FIELD(here.seccomp)},
	{"force-cpu", NULL, "accept a guest that relies on features or bits that this host's CPU lacks; it may fail", &flag, 1,
	 FIELD(here.force_cpu)},
	REPORT_OPTIONS(restore_options, here.report),
	{"verbose", NULL, "say more", &flag, 1, FIELD(here.verbose)},
	{"quiet", NULL, "say nothing but errors", &flag, 1, FIELD(here.quiet)},
	{"help", NULL, "show this", &flag, 1, FIELD(help)},
#define RESTORE_ALONE 6
	{"from", "DIR", "the folder of the snapshot", &file, 1, FIELD(from)},
	{"state", "FILE", "the two files of a snapshot, instead of a folder: its state", &file, 1, FIELD(state)},
	{"memory", "FILE", "and its memory", &file, 1, FIELD(memory)},
	{"wait", NULL, "prepare everything and wait until mvmm restore --spare says what the machine is", &flag, 1, FIELD(wait)},
	{"spare", "NAME", "let the process that waits under this name become the machine, instead of starting one", &name, 1,
	 FIELD(spare)},
	{"ready-fd", "FD", "write a line to this descriptor when the guest runs: the time, in ns of CLOCK_MONOTONIC", &descriptor,
	 1, FIELD(ready_fd)},
};

static const struct option_table table = {options + CLONE_ALONE, ARRAY_SIZE(options) - CLONE_ALONE};
const struct option_table cli_clone_options = {options, ARRAY_SIZE(options) - RESTORE_ALONE};

int cli_restore_check(const struct restore_options *given, struct err *err)
{
	if (given->from && (given->state || given->memory))
		return err_set(err, -EINVAL, "--from: names a folder with both files; leave out --state and --memory");
	if (!given->state != !given->memory)
		return err_set(err, -EINVAL, "--%s is missing; a snapshot of two files needs both --state and --memory",
			       given->state ? "memory" : "state");
	if (!given->spare && !given->from && !given->state)
		return err_set(err, -EINVAL, "--from is missing; write --from DIR, the folder that mvmm snapshot --to made");
	if (given->here.vfio_count && (given->wait || given->spare))
		return err_set(err, -EINVAL, "--vfio: a process that waits takes no devices; add them with mvmm vfio add when the "
			       "machine runs");
	return report_options_check(&given->here.report, given->here.verbose, given->here.quiet, err);
}

/* ---- a process that waits ---- */

/* It may be asked from another folder. */
static int cli_restore_make_absolute(char **path, struct err *err)
{
	char *absolute = *path ? realpath(*path, NULL) : NULL;

	if (!*path)
		return 0;
	if (!absolute)
		return err_sys(err, -errno, "%.200s", *path);
	free(*path);
	*path = absolute;
	return 0;
}

static int cli_restore_make_source_absolute(struct arrival_override *source, struct err *err)
{
	size_t len = strcspn(source->text, "=");
	char *path = source->text[len] ? realpath(source->text + len + 1, NULL) : NULL, *text;

	if (!source->text[len]) /* refused with what the machine has */
		return 0;
	if (!path)
		return err_sys(err, -errno, "--disk-from %.200s", source->text);
	if (asprintf(&text, "%.*s=%s", (int)len, source->text, path) < 0)
		text = NULL;
	free(path);
	if (!text)
		return err_sys(err, -ENOMEM, "--disk-from");
	free(source->text);
	source->text = text;
	return 0;
}

/* What is said when it becomes a machine is not said before. */
static int cli_restore_check_wait(struct restore_options *given, struct err *err)
{
	const struct arrival_options *here = &given->here;
	const char *early = here->disk_count ? "--disk" : here->net_count ? "--net" : here->vsock ? "--vsock" :
			    here->serial ? "--serial" : here->console ? "--console" : given->paused ? "--paused" : NULL;
	char **const paths[] = {&given->from, &given->state, &given->memory, &given->here.kernel, &given->here.initrd};
	int code = 0;

	if (early)
		return err_set(err, -EINVAL, "%s: goes with mvmm restore --spare, which makes a machine of the process that "
			       "waits; leave it out here", early);
	if (!here->name)
		return err_set(err, -EINVAL, "--name is missing; the process that waits needs a name, by which mvmm restore "
			       "--spare finds it");
	for (size_t i = 0; i < ARRAY_SIZE(paths) && !code; i++)
		code = cli_restore_make_absolute(paths[i], err);
	for (size_t i = 0; i < given->source_count && !code; i++)
		code = cli_restore_make_source_absolute(&given->sources[i], err);
	return code;
}

static int cli_restore_check_spare(const struct restore_options *given, struct err *err)
{
	const char *late = given->from ? "--from" : given->state ? "--state" : given->memory ? "--memory" :
			   given->wait ? "--wait" : given->here.kernel ? "--kernel" : given->here.initrd ? "--initrd" :
			   given->here.force_cpu ? "--force-cpu" : given->here.clock ? "--clock" :
			   given->memory_mode ? "--memory-mode" : given->changed_count ? "--disk-changed" :
			   given->here.affinity.count ? "--cpu-affinity" : given->here.jail.config.dir ? "--jail" :
			   given->source_count ? "--disk-from" : given->here.report.log.to ? "--log" :
			   given->here.report.metrics.to ? "--metrics" :
			   given->ready_fd >= 0 ? "--ready-fd" : NULL;

	return late ? err_set(err, -EINVAL, "%s: goes with the mvmm restore --wait that prepared --spare %s; leave it out here",
			      late, given->spare) : 0;
}

static int cli_restore_open_file(struct restore_request *request, char *path, struct err *err)
{
	struct restore_file *opened = &request->files[request->file_count];

	if (request->file_count == ARRAY_SIZE(request->files) || !path) {
		free(path);
		return err_set(err, -ENOMEM, "--disk: too many");
	}
	*opened = (struct restore_file){path, open(path, O_PATH | O_CLOEXEC)};
	if (opened->fd < 0 && errno == ENOENT) { /* it is made from the snapshot */
		free(path);
		return 0;
	}
	request->file_count++;
	return opened->fd < 0 ? err_sys(err, -errno, "--disk: %.200s", path) : 0;
}

/* The folder that paths start from, and the disks: they are opened with the rights of who asks. */
static int cli_restore_open_files(struct restore_request *request, struct err *err)
{
	int code = cli_restore_open_file(request, strdup("."), err);

	for (size_t i = 0; i < request->here.disk_count && !code; i++) {
		char *path;

		code = machine_config_override_path(request->here.disks[i].text, &path, err);
		code = code ?: cli_restore_open_file(request, path, err);
	}
	return code;
}

/* The first file is the folder, and a disk that is not among the others does not exist yet. */
static int cli_restore_ask(struct control_client *client, struct restore_request *request, struct err *err)
{
	int timeout_ms = request->file_count > request->here.disk_count ? PATIENCE_MS : COPY_MS;
	int fds[RESTORE_MAX_FILES], code;

	for (size_t i = 0; i < request->file_count; i++)
		fds[i] = request->files[i].fd;
	code = control_client_pass(client, "Restore", restore_request_to_json(request), fds, request->file_count, timeout_ms,
				   NULL, err);
	if (code == -EREMOTEIO) /* it has refused, and the guest has not run */
		return EXIT_BAD_INPUT;
	return code ? EXIT_FAILED : EXIT_OFF;
}

static int cli_restore_use_spare(struct restore_options *given, struct err *err)
{
	struct restore_request request = {.here = given->here, .paused = given->paused};
	struct control_client client;
	int code = cli_restore_check_spare(given, err) ?: cli_restore_open_files(&request, err);

	if (!code && control_client_open(given->spare, &client, err)) {
		code = EXIT_FAILED;
	} else if (!code) {
		code = cli_restore_ask(&client, &request, err);
		control_client_close(&client);
	} else {
		code = EXIT_BAD_INPUT;
	}
	while (request.file_count) {
		struct restore_file *opened = &request.files[--request.file_count];

		fd_close(&opened->fd);
		free(opened->path);
	}
	return code;
}

/* ---- the command ---- */

static int cli_restore_with(struct restore_options *given, struct err *err)
{
	int code = cli_restore_check(given, err);

	if (!code && given->spare)
		return cli_restore_use_spare(given, err);
	if (!code && given->wait)
		code = cli_restore_check_wait(given, err);
	return code ? EXIT_BAD_INPUT : session_restore(given, err);
}

static int cli_restore_run(int argc, char *const *argv, struct err *err)
{
	struct restore_options given = {0};
	int code;

	options_init(&table, &given);
	if (command_parse(&command_restore, &given, offsetof(struct restore_options, help), argc, argv, NULL, 0, &code, err))
		code = cli_restore_with(&given, err);
	options_done(&table, &given);
	return code;
}

const struct command command_restore = {
	.name = "restore",
	.operands = "",
	.summary = "Make a machine from a snapshot and run it",
	.text = "Disks, networks and the vsock are those that the snapshot names, unless options name others by their ids;\n"
		"mvmm snapshot inspect DIR shows them. With --wait, the process that is prepared becomes a machine in about a\n"
		"millisecond when mvmm restore --spare NAME says what differs; mvmm stop NAME ends it.\n",
	.options = &table,
	.run = cli_restore_run,
};
