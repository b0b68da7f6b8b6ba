/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `mvmm snapshot inspect`, `verify` and `merge`: what is done with the folders of snapshots, without any machine.
 * cli_snapshot.c has `mvmm snapshot NAME` and asks here first whether its first word is one of these.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <time.h>

#include "core/monotonic.h"
#include "vmm/cli/command.h"
#include "vmm/machine/machine_offer.h"
#include "vmm/migration/loop.h"
#include "vmm/snapshot/description.h"
#include "vmm/snapshot/memory_reader.h"
#include "vmm/snapshot/merge.h"

#define QUIET_MS 500 /* work that takes less shows no progress */
#define LINE_MS 1000 /* between two lines without a terminal */
#define SHOW_MS 100  /* on a terminal */

struct files_options {
	char *to;
	bool replace, json, help;
};

static const struct option_key flag = {"flag", OPTION_FLAG};
static const struct option_key folder = {"folder", OPTION_STRING, .help = "DIR"};

#define FIELD(member) .plain = true, .offset = offsetof(struct files_options, member)
#define HELP {"help", NULL, "show this", &flag, 1, FIELD(help)}

static const struct option inspect_options[] = {
	{"json", NULL, "print an object", &flag, 1, FIELD(json)},
	HELP,
};
static const struct option verify_options[] = {HELP};
static const struct option merge_options[] = {
	{"to", "DIR", "the folder to make; it must not exist", &folder, 1, FIELD(to)},
	{"replace", NULL, "take the place of the snapshot that is in DIR", &flag, 1, FIELD(replace)},
	HELP,
};

static const struct option_table inspect_table = {inspect_options, ARRAY_SIZE(inspect_options)};
static const struct option_table verify_table = {verify_options, ARRAY_SIZE(verify_options)};
static const struct option_table merge_table = {merge_options, ARRAY_SIZE(merge_options)};

static const struct command snapshot_inspect, snapshot_verify_command, snapshot_merge_command;

/* Anything wrong with a folder is the input's fault, but for what went wrong while it was worked on. */
static int cli_snapshot_files_exit(int code)
{
	return code == -EIO || code == -ENOMEM ? EXIT_FAILED : EXIT_BAD_INPUT;
}

/* Reads a command's words; it wants at least least operands. False: the command ends with *code. */
static bool cli_snapshot_files_begin(const struct command *command, int argc, char *const *argv,
				     struct files_options *given, const char **operands, size_t least, size_t most,
				     int *code, struct err *err)
{
	*given = (struct files_options){0};
	if (!command_parse(command, given, offsetof(struct files_options, help), argc, argv, operands, most, code, err))
		return false;
	if (operands[least - 1])
		return true;
	err_set(err, -EINVAL, "%s: a folder is missing; write mvmm %s %s", command->name, command->name,
		command->operands);
	*code = EXIT_BAD_INPUT;
	return false;
}

/* ---- inspect ---- */

/* What a host device has in the snapshot. */
static void cli_snapshot_files_add_state(const struct snapshot_state *state, const char *id, json_t *device)
{
	for (size_t i = 0; i < state->device_count; i++)
		if (strcmp(state->devices[i].id, id) == 0)
			json_object_set_new(device, "state", json_integer((json_int_t)state->devices[i].state.len));
}

static json_t *cli_snapshot_files_devices(const struct snapshot *snapshot, const struct machine_offer *offer)
{
	json_t *devices = json_array();

	for (size_t i = 0; i < offer->device_count; i++) {
		const struct offered_device *device = &offer->devices[i];
		json_t *object = json_pack("{s:s, s:s, s:i}", "id", device->id, "kind", device->kind, "slot",
					   device->devfn >> 3);

		if (device->mmio)
			json_object_set_new(object, "transport", json_string("mmio"));
		cli_snapshot_files_add_state(snapshot->state, device->id, object);
		json_array_append_new(devices, object);
	}
	return devices;
}

static const char *cli_snapshot_files_disk_path(const struct machine_config *config, const char *id)
{
	for (size_t i = 0; i < config->disk_count; i++)
		if (config->disks[i].id && strcmp(config->disks[i].id, id) == 0)
			return config->disks[i].path;
	return NULL;
}

/* The writable disks; copied: the snapshot has their content. */
static json_t *cli_snapshot_files_disks(const struct snapshot *snapshot, const struct machine_config *config)
{
	json_t *disks = json_array();

	for (size_t i = 0; i < snapshot->state->disk_count; i++) {
		const struct snapshot_disk *disk = &snapshot->state->disks[i];
		_cleanup_(fd_close) int fd = -1;
		char name[8 + sizeof(disk->id)];

		snprintf(name, sizeof(name), "disks/%s", disk->id);
		snapshot_open_part(snapshot, name, &fd, NULL);
		json_array_append_new(disks,
				      json_pack("{s:s, s:I, s:s?, s:b}", "id", disk->id, "size", (json_int_t)disk->size,
						"path", cli_snapshot_files_disk_path(config, disk->id), "copied", fd >= 0));
	}
	return disks;
}

static json_t *cli_snapshot_files_parts(const struct snapshot *snapshot)
{
	static const char *const names[] = {"kernel", "initrd", "prefetch"};
	json_t *parts = json_array();

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		_cleanup_(fd_close) int fd = -1;

		if (!snapshot_open_part(snapshot, names[i], &fd, NULL) && fd >= 0)
			json_array_append_new(parts, json_string(names[i]));
	}
	return parts;
}

static uint64_t cli_snapshot_files_page_count(const struct snapshot_state *state)
{
	uint64_t count = 0;

	for (size_t i = 0; i < state->pages.len; i++)
		count += (unsigned int)__builtin_popcount(((const uint8_t *)state->pages.data)[i]);
	return count;
}

/* Adds what the offer says: the machine as it was. */
static int cli_snapshot_files_add_machine(const struct snapshot *snapshot, const struct machine_offer *offer,
					  json_t *object, struct err *err)
{
	struct machine_config config;
	int code;

	machine_config_init(&config);
	code = machine_offer_config(offer, &config, err);
	if (!code) {
		json_object_set_new(object, "name", json_string(config.name));
		json_object_set_new(object, "cpus", json_integer(config.cpus));
		json_object_set_new(object, "devices", cli_snapshot_files_devices(snapshot, offer));
		json_object_set_new(object, "disks", cli_snapshot_files_disks(snapshot, &config));
	}
	machine_config_done(&config);
	return code;
}

static int cli_snapshot_files_add_offer(const struct snapshot *snapshot, const json_t *description, json_t *object,
					struct err *err)
{
	struct machine_offer *offer;
	int code = machine_offer_read(json_incref(json_object_get(description, "offer")), &offer, err);

	if (code)
		return err_prefix(err, code, "machine.json: offer");
	code = cli_snapshot_files_add_machine(snapshot, offer, object, err);
	machine_offer_destroy(offer);
	return code;
}

static int cli_snapshot_files_add_description(const struct snapshot *snapshot, json_t *object, struct err *err)
{
	static const char *const members[] = {"id", "parent", "created", "format", "experimental", "program"};
	json_t *description;
	int code = snapshot_description_read(snapshot->state, NULL, &description, err);

	if (code)
		return code;
	for (size_t i = 0; i < ARRAY_SIZE(members); i++)
		json_object_set(object, members[i], json_object_get(description, members[i]) ?: json_null());
	code = cli_snapshot_files_add_offer(snapshot, description, object, err);
	json_decref(description);
	return code;
}

static int cli_snapshot_files_describe(const struct snapshot *snapshot, json_t *object, struct err *err)
{
	const struct snapshot_state *state = snapshot->state;
	uint64_t data = 0;
	int code = cli_snapshot_files_add_description(snapshot, object, err);

	if (code)
		return err_prefix(err, code, "%.200s", snapshot->path);
	code = snapshot_data_bytes(snapshot->memory_fd, state->memory_bytes, &data);
	if (code)
		return err_sys(err, code, "%.200s: memory", snapshot->path);
	json_object_set_new(object, "paused", json_boolean(state->paused));
	json_object_set_new(object, "memory", json_pack("{s:I, s:I}", "size", (json_int_t)state->memory_bytes, "data",
							(json_int_t)data));
	if (snapshot_state_is_diff(state))
		json_object_set_new(object, "pages", json_integer((json_int_t)cli_snapshot_files_page_count(state)));
	json_object_set_new(object, "files", cli_snapshot_files_parts(snapshot));
	return 0;
}

/* Texts of a snapshot are anybody's: none of their control characters reaches the terminal, also not in UTF-8. */
static void cli_snapshot_files_clean_text(json_t *string)
{
	_cleanup_(free_ptr) char *text = strdup(json_string_value(string));

	for (unsigned char *c = (unsigned char *)text; c && *c; c++)
		if (*c < ' ' || *c == 0x7f)
			*c = '?';
		else if (*c == 0xc2 && c[1] < 0xa0)
			c[0] = c[1] = '?';
	if (!text || json_string_set(string, text))
		json_string_set(string, "?");
}

static void cli_snapshot_files_clean(json_t *value)
{
	const char *key;
	json_t *member;
	size_t i;

	if (json_is_string(value))
		cli_snapshot_files_clean_text(value);
	json_object_foreach(value, key, member)
		cli_snapshot_files_clean(member);
	json_array_foreach(value, i, member)
		cli_snapshot_files_clean(member);
}

static const char *cli_snapshot_files_text(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key)) ?: "";
}

static const char *cli_snapshot_files_bytes(const json_t *object, const char *key, char *buf)
{
	return migration_format_bytes((uint64_t)json_integer_value(json_object_get(object, key)), buf);
}

/* A line with what format makes of each element of an array; none if it is empty. */
static void cli_snapshot_files_print_list(const json_t *object, const char *key, const char *title,
					  void (*print)(const json_t *element))
{
	const json_t *element;
	size_t i;

	json_array_foreach(json_object_get(object, key), i, element) {
		printf(i ? ", " : "%-9s", title);
		print(element);
	}
	if (json_array_size(json_object_get(object, key)))
		putchar('\n');
}

static void cli_snapshot_files_print_device(const json_t *device)
{
	char size[24];

	printf("%s (%s", cli_snapshot_files_text(device, "id"), cli_snapshot_files_text(device, "kind"));
	if (json_object_get(device, "state"))
		printf(", %s of state", cli_snapshot_files_bytes(device, "state", size));
	putchar(')');
}

static void cli_snapshot_files_print_disk(const json_t *disk)
{
	bool copied = json_is_true(json_object_get(disk, "copied"));
	char size[24];

	printf("%s (%s, %s%s)", cli_snapshot_files_text(disk, "id"), cli_snapshot_files_bytes(disk, "size", size),
	       copied ? "kept here" : "not kept here, ", copied ? "" : cli_snapshot_files_text(disk, "path"));
}

static void cli_snapshot_files_print_part(const json_t *part)
{
	printf("%s", json_string_value(part));
}

static void cli_snapshot_files_print(const json_t *object)
{
	const json_t *memory = json_object_get(object, "memory"), *pages = json_object_get(object, "pages");
	char size[24], data[24];

	printf("%-9s%s%s\n", "snapshot", cli_snapshot_files_text(object, "id"),
	       json_is_true(json_object_get(object, "experimental")) ? " (experimental: another version may refuse it)" : "");
	if (pages)
		printf("%-9s%s; %lld pages that changed since\n", "diff of", cli_snapshot_files_text(object, "parent"),
		       (long long)json_integer_value(pages));
	printf("%-9s%s, by %s\n", "created", cli_snapshot_files_text(object, "created"),
	       cli_snapshot_files_text(object, "program"));
	printf("%-9s%s, %lld CPU%s%s\n", "machine", cli_snapshot_files_text(object, "name"),
	       (long long)json_integer_value(json_object_get(object, "cpus")),
	       json_integer_value(json_object_get(object, "cpus")) == 1 ? "" : "s",
	       json_is_true(json_object_get(object, "paused")) ? ", paused by its user" : "");
	printf("%-9s%s, %s of it data\n", "memory", cli_snapshot_files_bytes(memory, "size", size),
	       cli_snapshot_files_bytes(memory, "data", data));
	cli_snapshot_files_print_list(object, "devices", "devices", cli_snapshot_files_print_device);
	cli_snapshot_files_print_list(object, "disks", "disks", cli_snapshot_files_print_disk);
	cli_snapshot_files_print_list(object, "files", "files", cli_snapshot_files_print_part);
}

static int cli_snapshot_files_inspect(int argc, char *const *argv, struct err *err)
{
	struct files_options given;
	struct snapshot *snapshot;
	json_t *object;
	const char *path;
	int code;

	if (!cli_snapshot_files_begin(&snapshot_inspect, argc, argv, &given, &path, 1, 1, &code, err))
		return code;
	code = snapshot_open_as(path, NULL, SNAPSHOT_ANY_OWNER | SNAPSHOT_ANY_KIND, &snapshot, err);
	if (code)
		return cli_snapshot_files_exit(code);
	object = json_object();
	code = cli_snapshot_files_describe(snapshot, object, err);
	snapshot_close(snapshot);
	if (!code && given.json) {
		json_dumpf(object, stdout, JSON_INDENT(2));
		putchar('\n');
	} else if (!code) {
		cli_snapshot_files_clean(object);
		cli_snapshot_files_print(object);
	}
	json_decref(object);
	return code ? cli_snapshot_files_exit(code) : EXIT_OFF;
}

/* ---- long work ---- */

struct work {
	const char *verb; /* "verifying" */
	bool terminal, shown;
	int64_t next;     /* when to show something again */
	int signal_fd, signal; /* signal: that which ended the work */
};

static int cli_snapshot_files_tick(void *opaque, uint64_t done, uint64_t total, struct err *err)
{
	struct work *work = opaque;
	struct signalfd_siginfo info;
	char part[24], all[24];

	if (read(work->signal_fd, &info, sizeof(info)) == sizeof(info)) {
		work->signal = (int)info.ssi_signo;
		return err_set(err, -ECANCELED, "cancelled");
	}
	if (monotonic_ms() < work->next)
		return 0;
	work->next = monotonic_ms() + (work->terminal ? SHOW_MS : LINE_MS);
	work->shown = true;
	fprintf(stderr, "%s%s: %s of %s%s", work->terminal ? "\r\33[K" : "", work->verb, migration_format_bytes(done, part),
		migration_format_bytes(total, all), work->terminal ? "" : "\n");
	fflush(stderr);
	return 0;
}

/* Ctrl-C ends the work at the next tick, so that nothing is left of it. */
static struct work cli_snapshot_files_work(const char *verb)
{
	return (struct work){.verb = verb, .terminal = isatty(STDERR_FILENO), .next = monotonic_ms() + QUIET_MS,
			     .signal_fd = command_watch_signals()};
}

/* Returns the exit code. */
static int cli_snapshot_files_done(struct work *work, int code, struct err *err)
{
	if (work->terminal && work->shown)
		fputs("\r\33[K", stderr);
	fd_close(&work->signal_fd);
	if (work->signal) {
		err->text[0] = 0;
		return EXIT_SIGNAL + work->signal;
	}
	return code ? cli_snapshot_files_exit(code) : EXIT_OFF;
}

/* ---- verify ---- */

static int cli_snapshot_files_verify(int argc, char *const *argv, struct err *err)
{
	struct files_options given;
	struct snapshot *snapshot;
	struct work work;
	const char *path;
	int code;

	if (!cli_snapshot_files_begin(&snapshot_verify_command, argc, argv, &given, &path, 1, 1, &code, err))
		return code;
	code = snapshot_open_as(path, NULL, SNAPSHOT_ANY_OWNER | SNAPSHOT_ANY_KIND, &snapshot, err);
	if (code)
		return cli_snapshot_files_exit(code);
	work = cli_snapshot_files_work("verifying");
	code = snapshot_lock(snapshot, false, err);
	if (!code) {
		code = snapshot_verify(snapshot, &(struct snapshot_progress){cli_snapshot_files_tick, &work}, err);
		if (code)
			err_prefix(err, code, "%.200s", path);
	}
	snapshot_close(snapshot);
	code = cli_snapshot_files_done(&work, code, err);
	if (code == EXIT_OFF)
		printf("%s: all of it is as it was written\n", path);
	return code;
}

/* ---- merge ---- */

static int cli_snapshot_files_merge_with(struct files_options *given, const char *const *folders, struct err *err)
{
	struct work work;
	struct snapshot_merge merge = {folders, 0, given->to, given->replace, true, {cli_snapshot_files_tick, &work}};
	int code;

	if (!given->to) {
		err_set(err, -EINVAL, "snapshot merge: --to is missing; write --to DIR, the folder to make");
		return EXIT_BAD_INPUT;
	}
	while (merge.count < SNAPSHOT_MERGE_MAX && folders[merge.count])
		merge.count++;
	work = cli_snapshot_files_work("merging");
	code = snapshot_merge(&merge, err);
	code = cli_snapshot_files_done(&work, code, err);
	if (code == EXIT_OFF)
		printf("%s: the moment of %s\n", given->to, folders[merge.count - 1]);
	return code;
}

static int cli_snapshot_files_merge(int argc, char *const *argv, struct err *err)
{
	const char *folders[SNAPSHOT_MERGE_MAX];
	struct files_options given;
	int code;

	if (cli_snapshot_files_begin(&snapshot_merge_command, argc, argv, &given, folders, 2, SNAPSHOT_MERGE_MAX, &code, err))
		code = cli_snapshot_files_merge_with(&given, folders, err);
	options_done(&merge_table, &given);
	return code;
}

/* ---- the commands ---- */

static const struct command snapshot_inspect = {
	.name = "snapshot inspect",
	.operands = "DIR",
	.summary = "Show what a snapshot is of",
	.options = &inspect_table,
	.run = cli_snapshot_files_inspect,
};

static const struct command snapshot_verify_command = {
	.name = "snapshot verify",
	.operands = "DIR",
	.summary = "Read all of a snapshot and check that it is as it was written",
	.options = &verify_table,
	.run = cli_snapshot_files_verify,
};

static const struct command snapshot_merge_command = {
	.name = "snapshot merge",
	.operands = "BASE DIFF... --to DIR",
	.summary = "Make one snapshot of one and the diffs that were taken after it",
	.text = "The snapshots are given in the order in which they were taken, and stay as they are. The new one restores the\n"
		"moment of the last diff and has its id. If BASE is a diff too, so is the new one.\n",
	.options = &merge_table,
	.run = cli_snapshot_files_merge,
};

const struct command *snapshot_file_command(const char *word)
{
	static const struct {
		const char *word;
		const struct command *command;
	} commands[] = {
		{"inspect", &snapshot_inspect}, {"verify", &snapshot_verify_command}, {"merge", &snapshot_merge_command},
		{"record", &command_snapshot_record},
	};

	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (strcmp(commands[i].word, word) == 0)
			return commands[i].command;
	return NULL;
}
