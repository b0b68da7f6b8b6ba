/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `mvmm snapshot NAME --to DIR`: keeps a running machine in a folder. This command makes the folder and its files; the
 * machine gets their descriptors and writes them. The folder has its name only when everything is in it. If this command
 * dies before, the machine gives the snapshot up and runs on. `mvmm snapshot inspect` and the others that need no
 * machine are in cli_snapshot_files.c.
 */
#include <stdio.h>
#include <sys/signalfd.h>

#include "core/monotonic.h"
#include "vmm/cli/command.h"
#include "vmm/control/control.h"
#include "vmm/control/control_client.h"
#include "vmm/migration/request.h"
#include "vmm/snapshot/folder.h"
#include "vmm/snapshot/snapshot_report.h"

#define PATIENCE_MS 10000 /* for replies that wait for nothing */

struct snapshot_options {
	char *to;
	bool diff, live, track, stop, replace, json, quiet, help;
	uint32_t disks;
	uint64_t downtime, timeout; /* ns */
};

static const struct option_key flag = {"flag", OPTION_FLAG};
static const struct option_key folder = {"folder", OPTION_STRING, .help = "DIR"};
static const struct option_key downtime = {
	"downtime", OPTION_TIME, .min = 1000000, .max = 3600000000000, .value = MIGRATION_DEFAULT_DOWNTIME,
};
static const struct option_key timeout = {
	"timeout", OPTION_TIME, .min = 1000000000, .max = 604800000000000, .value = MIGRATION_DEFAULT_TIMEOUT,
};
static const struct option_key disks = {"disks", OPTION_WORD, .words = snapshot_disks_words};

#define FIELD(member) .plain = true, .offset = offsetof(struct snapshot_options, member)

static const struct option options[] = {
	{"to", "DIR", "the folder to make; it must not exist", &folder, 1, FIELD(to)},
	{"disks", "reflink|copy|none",
	 "how to keep the writable disks: share their blocks (the default), copy them, or not at all", &disks, 1,
	 FIELD(disks)},
	{"live", NULL, "write memory while the guest works, and pause it for the rest alone", &flag, 1, FIELD(live)},
	{"downtime", "TIME", "with --live: how long the guest may be paused; 300ms by default. It is paused for less, about "
	 "5ms, if it lets what is left become so little", &downtime, 1, FIELD(downtime)},
	{"timeout", "TIME", "with --live: how long to wait until the rest fits into the downtime; 10m by default", &timeout, 1,
	 FIELD(timeout)},
	{"diff", NULL, "write only what has changed since the last snapshot that was taken with --track or --diff, or since "
	 "the one from which the machine was restored", &flag, 1, FIELD(diff)},
	{"track", NULL, "keep track of what the guest changes from now on, for --diff; until a snapshot without both", &flag, 1,
	 FIELD(track)},
	{"stop", NULL, "end the machine when the snapshot is complete", &flag, 1, FIELD(stop)},
	{"replace", NULL, "take the place of the snapshot that is in DIR", &flag, 1, FIELD(replace)},
	{"json", NULL, "print an object at the end", &flag, 1, FIELD(json)},
	{"quiet", NULL, "do not show progress", &flag, 1, FIELD(quiet)},
	{"help", NULL, "show this", &flag, 1, FIELD(help)},
};

static const struct option_table table = {options, ARRAY_SIZE(options)};

/* A snapshot that is being taken. */
struct saving {
	struct control_client *client;
	const struct snapshot_options *given;
	struct snapshot_folder *folder;
	json_t *names; /* of the files, as strings */
	int fds[CONTROL_MAX_FDS];
	size_t count;
	int signal_fd, signal; /* signal: that which cancelled it; or 0 */
	bool terminal, committed;
	double shown_at; /* seconds, in the machine's time */
	struct err err;  /* why it was not committed, */
	int code;        /* and its code */
};

/* ---- the files ---- */

static int cli_snapshot_add_file(struct saving *saving, const char *name, struct err *err)
{
	int fd, code;

	if (saving->count == ARRAY_SIZE(saving->fds))
		return err_set(err, -ENOSPC, "more than %zu files", saving->count);
	code = snapshot_folder_create(saving->folder, name, &fd, err);
	if (code)
		return code;
	saving->fds[saving->count++] = fd;
	return json_array_append_new(saving->names, json_string(name)) ? err_sys(err, -ENOMEM, "%s", name) : 0;
}

/* A file for each disk of the machine; those that are read-only stay empty and are removed. */
static int cli_snapshot_add_disks(struct saving *saving, const json_t *info, struct err *err)
{
	const json_t *device;
	size_t index;
	int code = 0;

	json_array_foreach(json_object_get(info, "devices"), index, device) {
		const char *kind = json_string_value(json_object_get(device, "kind"));
		const char *id = json_string_value(json_object_get(device, "id"));
		char name[80];

		if (code || !kind || !id || strcmp(kind, "disk") != 0 || json_is_true(json_object_get(device, "readonly")))
			continue;
		snprintf(name, sizeof(name), "disks/%s", id);
		code = cli_snapshot_add_file(saving, name, err);
	}
	return code;
}

static int cli_snapshot_add_files(struct saving *saving, struct err *err)
{
	static const char *const always[] = {"state", "memory", "machine.json", "kernel", "initrd"};
	json_t *info = NULL;
	int code = 0;

	for (size_t i = 0; i < ARRAY_SIZE(always) && !code; i++)
		code = cli_snapshot_add_file(saving, always[i], err);
	if (code || saving->given->disks == SNAPSHOT_DISKS_NONE)
		return code;
	code = control_client_call(saving->client, "Info", NULL, PATIENCE_MS, &info, err);
	code = code ?: cli_snapshot_add_disks(saving, info, err);
	json_decref(info);
	return code;
}

/* What could not be kept is not in the folder. */
static void cli_snapshot_drop_empty(struct saving *saving)
{
	for (size_t i = 0; i < saving->count; i++)
		if (lseek(saving->fds[i], 0, SEEK_END) == 0)
			snapshot_folder_drop(saving->folder, json_string_value(json_array_get(saving->names, i)));
}

/* ---- progress ---- */

static double cli_snapshot_number(const json_t *object, const char *key)
{
	return json_number_value(json_object_get(object, key));
}

static const char *cli_snapshot_bytes(const json_t *object, const char *key, char *buf)
{
	return migration_format_bytes((uint64_t)MAX(cli_snapshot_number(object, key), 0.0), buf);
}

static void cli_snapshot_end_line(const struct saving *saving)
{
	if (saving->terminal)
		fputs("\r\33[K", stderr);
}

static void cli_snapshot_show_round(const json_t *report)
{
	char left[24];

	fprintf(stderr, "round %.0f: %s left, pause %.1f ms", cli_snapshot_number(report, "round"),
		cli_snapshot_bytes(report, "left", left), cli_snapshot_number(report, "predicted") * 1e3);
}

static void cli_snapshot_show(struct saving *saving, const json_t *report)
{
	double memory = cli_snapshot_number(report, "memory");
	char content[24];

	if (saving->given->quiet || saving->given->json ||
	    (cli_snapshot_number(report, "elapsed") < saving->shown_at + 1.0 && !saving->terminal))
		return;
	saving->shown_at = cli_snapshot_number(report, "elapsed");
	cli_snapshot_end_line(saving);
	if (json_object_get(report, "round"))
		cli_snapshot_show_round(report);
	else if (json_object_get(report, "disk_left"))
		fprintf(stderr, "disks: %s left to copy", cli_snapshot_bytes(report, "disk_left", content));
	else
		fprintf(stderr, "%s: %.0f %%", json_string_value(json_object_get(report, "state")) ?: "",
			memory ? 100 * cli_snapshot_number(report, "passed") / memory : 100);
	fprintf(stderr, ", %s written%s", cli_snapshot_bytes(report, "content", content),
		saving->terminal ? "" : "\n");
	fflush(stderr);
}

/* ---- the end ---- */

/* Everything is written: the folder gets its name, and then the machine may forget what it would put back. */
static void cli_snapshot_commit(struct saving *saving, const json_t *report)
{
	const char *id = json_string_value(json_object_get(report, "id")), *name = saving->client->name;
	struct err err;
	int code;

	if (!saving->given->quiet && !saving->given->json && saving->terminal) {
		cli_snapshot_end_line(saving);
		fputs("syncing", stderr);
	}
	cli_snapshot_drop_empty(saving);
	code = saving->code = saving->signal ? -EINTR : snapshot_folder_commit(saving->folder, true, &saving->err);
	cli_snapshot_end_line(saving);
	saving->committed = !code;
	if (code)
		control_client_call_beside(name, "SnapshotCancel", NULL, PATIENCE_MS, &err);
	else if (control_client_call_beside(name, "SnapshotCommit", json_pack("{s:s}", "id", id ?: ""), PATIENCE_MS,
					     &err))
		err_set(&saving->err, -EIO, "%.200s is complete, but the machine has given it up: %s", saving->given->to,
			err.text);
}

static void cli_snapshot_on_progress(void *opaque, const json_t *parameters)
{
	const json_t *report = json_object_get(parameters, "snapshot");
	const char *state = json_string_value(json_object_get(report, "state"));
	struct saving *saving = opaque;

	if (state && strcmp(state, "written") == 0 && !saving->committed)
		cli_snapshot_commit(saving, report);
	else
		cli_snapshot_show(saving, report);
}

static void cli_snapshot_on_signal(void *opaque)
{
	struct saving *saving = opaque;
	struct signalfd_siginfo info;
	struct err err;

	if (read(saving->signal_fd, &info, sizeof(info)) != sizeof(info) || saving->committed)
		return;
	saving->signal = (int)info.ssi_signo;
	control_client_call_beside(saving->client->name, "SnapshotCancel", NULL, PATIENCE_MS, &err);
}

static void cli_snapshot_print(const struct saving *saving, const json_t *report)
{
	char content[24];

	if (saving->given->json) {
		json_dumpf(report, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
		putchar('\n');
		return;
	}
	printf("%s: %s in %.2f s; the guest was paused for %.2f ms", saving->given->to,
	       cli_snapshot_bytes(report, "content", content), cli_snapshot_number(report, "elapsed"),
	       cli_snapshot_number(report, "pause") * 1e3);
	if (json_object_get(report, "round"))
		printf(", predicted %.2f ms", cli_snapshot_number(report, "predicted") * 1e3);
	putchar('\n');
	if (saving->given->diff)
		printf("it is a diff of %s\n", json_string_value(json_object_get(report, "parent")) ?: "");
	if (!json_is_true(json_object_get(report, "reflinks")))
		printf("its kernel is not kept beside it; a machine that is restored from it ends when its guest reboots\n");
}

/* A place without room is the input's fault. Returns the exit code. */
static int cli_snapshot_failed(const struct saving *saving, int code, struct err *err)
{
	const struct err why = *err;

	if (saving->err.text[0]) {
		*err = saving->err;
		return saving->code == -ENOSPC || saving->code == -EDQUOT ? EXIT_BAD_INPUT : EXIT_FAILED;
	}
	if (code != -ENOSPC)
		return EXIT_FAILED;
	err_set(err, code, "%.400s; free some space, or choose a folder on another file system", why.text);
	return EXIT_BAD_INPUT;
}

/* ---- all of it ---- */

static int cli_snapshot_take(struct saving *saving, struct err *err)
{
	const struct snapshot_options *given = saving->given;
	const struct snapshot_request request = {
		.diff = given->diff, .live = given->live, .track = given->track, .stop = given->stop,
		.disks = (enum snapshot_disks)given->disks,
		.goal = {.downtime = given->downtime, .timeout = given->timeout},
	};
	const struct control_watch watch = {cli_snapshot_on_progress, cli_snapshot_on_signal, saving->signal_fd, saving};
	json_t *parameters = snapshot_request_to_json(&request), *answer;
	int code;

	json_object_set(parameters, "files", saving->names);
	code = control_client_follow(saving->client, "Snapshot", parameters, saving->fds, saving->count, &watch, &answer,
				     err);
	cli_snapshot_end_line(saving);
	if (saving->signal && !saving->committed)
		return EXIT_SIGNAL + saving->signal;
	if (code)
		return cli_snapshot_failed(saving, code, err);
	cli_snapshot_print(saving, json_object_get(answer, "snapshot"));
	json_decref(answer);
	if (given->stop)
		control_client_wait_end(saving->client, PATIENCE_MS); /* its name is free then */
	return EXIT_OFF;
}

static int cli_snapshot_save(struct control_client *client, const struct snapshot_options *given, struct err *err)
{
	struct saving saving = {
		.client = client, .given = given, .names = json_array(), .terminal = isatty(STDERR_FILENO),
		.signal_fd = command_watch_signals(),
	};
	int code = snapshot_folder_begin(given->to, given->replace, &saving.folder, err);

	code = code ?: cli_snapshot_add_files(&saving, err);
	code = code ? EXIT_BAD_INPUT : cli_snapshot_take(&saving, err);
	while (saving.count)
		fd_close(&saving.fds[--saving.count]);
	snapshot_folder_end(saving.folder);
	json_decref(saving.names);
	fd_close(&saving.signal_fd);
	return code;
}

static int cli_snapshot_run_with(struct snapshot_options *given, int argc, char *const *argv, struct err *err)
{
	struct control_client client;
	const char *name;
	int code;

	if (!command_parse(&command_snapshot, given, offsetof(struct snapshot_options, help), argc, argv, &name, 1, &code,
			   err))
		return code;
	if (!given->to) {
		err_set(err, -EINVAL, "--to is missing; write --to DIR, the folder to make");
		return EXIT_BAD_INPUT;
	}
	code = name ? control_client_open(name, &client, err) : control_client_open_only(&client, err);
	if (code)
		return code == -EINVAL ? EXIT_BAD_INPUT : EXIT_FAILED;
	code = cli_snapshot_save(&client, given, err);
	control_client_close(&client);
	return code;
}

static int cli_snapshot_run(int argc, char *const *argv, struct err *err)
{
	const struct command *files = argc ? snapshot_file_command(argv[0]) : NULL;
	struct snapshot_options given;
	int code;

	if (files)
		return files->run(argc - 1, argv + 1, err);
	options_init(&table, &given);
	code = cli_snapshot_run_with(&given, argc, argv, err);
	options_done(&table, &given);
	return code;
}

const struct command command_snapshot = {
	.name = "snapshot",
	.operands = "[NAME]|inspect|verify|merge|record",
	.summary = "Keep a running machine in a folder, from which mvmm restore makes others",
	.text = "NAME may be omitted if only one machine runs. Ctrl-C cancels; nothing stays behind, and the guest runs on.\n"
		"The folder holds the guest's memory with all its secrets; delete it when it is not needed any more.\n"
		SNAPSHOT_FILES_TEXT,
	.options = &table,
	.run = cli_snapshot_run,
};
