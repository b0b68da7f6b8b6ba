/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `mvmm disk`: disks of a running machine come, go, and get another image or size. Images are opened here, with the rights
 * of the user, and passed to the machine, which opens none for others.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "vmm/cli/command.h"
#include "vmm/config/config.h"
#include "vmm/config/config_json.h"
#include "vmm/control/control_client.h"

#define PATIENCE_MS 10000  /* for a reply */
#define STORAGE_MS 180000  /* for one that waits for storage */

static const struct command disk_add, disk_replace, disk_resize;

/* ---- images ---- */

/* An image that was opened for a machine, and its absolute path. */
struct image {
	int fds[2]; /* the second one with O_DIRECT, or -1 */
	char *path;
};

static void cli_disk_close(struct image *image)
{
	fd_close(&image->fds[0]);
	fd_close(&image->fds[1]);
	free(image->path);
}

static int cli_disk_open_failed(int code, const char *path, bool readonly, struct err *err)
{
	if ((code == -EACCES || code == -EPERM || code == -EROFS) && !readonly)
		return err_set(err, code, "%.200s: you may not write it (%s); add readonly=on, or change its owner or mode",
			       path, strerrordesc_np(-code));
	return err_sys(err, code, "%.200s", path);
}

/* The machine checks what it is. A pipe must not block here. */
static int cli_disk_open(const char *path, bool readonly, bool direct, struct image *ret, struct err *err)
{
	int flags = (readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;

	ret->fds[0] = open(path, flags);
	if (ret->fds[0] < 0)
		return cli_disk_open_failed(-errno, path, readonly, err);
	if (direct) {
		ret->fds[1] = open(path, flags | O_DIRECT);
		if (ret->fds[1] < 0)
			return err_set(err, -errno, "%.200s,direct=on: %s; leave direct=on out", path, strerrordesc_np(errno));
	}
	ret->path = realpath(path, NULL);
	return ret->path ? 0 : err_sys(err, -errno, "%.200s", path);
}

/* ---- add ---- */

static int cli_disk_call_add(const char *machine, const struct machine_config *config, const struct image *image,
			     struct err *err)
{
	json_t *root = NULL, *reply = NULL;
	int code = config_json_write(&machine_options, config, &root, err);

	if (!code) {
		json_t *disk = json_incref(json_array_get(json_object_get(root, "disk"), 0));

		json_object_set_new(disk, "path", json_string(image->path));
		code = command_call(machine, "AddDisk", json_pack("{s:o}", "disk", disk), image->fds,
				    config->disks[0].direct ? 2 : 1, STORAGE_MS, &reply, err);
	}
	if (!code)
		printf("%s was added; its id is %s\n", image->path, json_string_value(json_object_get(reply, "id")));
	json_decref(root);
	json_decref(reply);
	return code;
}

/* The text is parsed as mvmm run does it, so that it means the same. */
static int cli_disk_add(const char *machine, const char *text, struct err *err)
{
	_cleanup_(cli_disk_close) struct image image = {.fds = {-1, -1}};
	_cleanup_(machine_config_done) struct machine_config config;
	char option[] = "--disk", *words[] = {option, (char *)text};
	int code;

	machine_config_init(&config);
	if (options_parse(&machine_options, &config, ARRAY_SIZE(words), words, NULL, 0, err))
		return EXIT_BAD_INPUT;
	code = cli_disk_open(config.disks[0].path, config.disks[0].readonly, config.disks[0].direct, &image, err);
	return code ? EXIT_BAD_INPUT : cli_disk_call_add(machine, &config, &image, err);
}

static int cli_disk_run_add(int argc, char *const *argv, struct err *err)
{
	const char *operands[2];
	int code;

	return command_parse_plain(&disk_add, argc, argv, operands, 2, &code, err) ?
	       cli_disk_add(operands[0], operands[1], err) : code;
}

/* ---- replace, resize ---- */

static void cli_disk_print_size(const char *id, json_t *reply)
{
	char size[24];

	printf("%s: the guest sees %s\n", id,
	       number_format_size((uint64_t)json_integer_value(json_object_get(reply, "size")), size));
	json_decref(reply);
}

/* How the machine uses the disk, as mvmm info shows it: so the image is opened. */
static int cli_disk_ask(const char *machine, const char *id, bool *readonly, bool *direct, struct err *err)
{
	json_t *info = NULL, *device;
	size_t i;
	int code = command_call(machine, "Info", NULL, NULL, 0, PATIENCE_MS, &info, err);

	if (code)
		return code;
	*readonly = *direct = false;
	json_array_foreach(json_object_get(info, "devices"), i, device) {
		if (strcmp(json_string_value(json_object_get(device, "id")) ?: "", id) != 0)
			continue;
		*readonly = json_is_true(json_object_get(device, "readonly"));
		*direct = json_is_true(json_object_get(device, "direct"));
	}
	json_decref(info);
	return EXIT_OFF;
}

static int cli_disk_replace(const char *machine, const char *id, const char *path, struct err *err)
{
	_cleanup_(cli_disk_close) struct image image = {.fds = {-1, -1}};
	bool readonly, direct;
	json_t *reply;
	int code = cli_disk_ask(machine, id, &readonly, &direct, err);

	if (code)
		return code;
	if (cli_disk_open(path, readonly, direct, &image, err))
		return EXIT_BAD_INPUT;
	code = command_call(machine, "ReplaceDisk", json_pack("{s:s, s:s}", "id", id, "path", image.path), image.fds,
			    direct ? 2 : 1, STORAGE_MS, &reply, err);
	if (!code)
		cli_disk_print_size(id, reply);
	return code;
}

static int cli_disk_run_replace(int argc, char *const *argv, struct err *err)
{
	const char *operands[3];
	int code;

	return command_parse_plain(&disk_replace, argc, argv, operands, 3, &code, err) ?
	       cli_disk_replace(operands[0], operands[1], operands[2], err) : code;
}

static int cli_disk_run_resize(int argc, char *const *argv, struct err *err)
{
	const char *operands[2];
	json_t *reply;
	int code;

	if (!command_parse_plain(&disk_resize, argc, argv, operands, 2, &code, err))
		return code;
	code = command_call(operands[0], "ResizeDisk", json_pack("{s:s}", "id", operands[1]), NULL, 0, PATIENCE_MS, &reply,
			    err);
	if (!code)
		cli_disk_print_size(operands[1], reply);
	return code;
}

/* ---- the commands ---- */

static const struct command disk_add = {
	.name = "disk add", .operands = "NAME FILE[,KEY=VALUE]...",
	.options = &command_plain_options, .run = cli_disk_run_add,
	.summary = "Add a disk to a running machine",
	.text = "The disk is written as for mvmm run --disk. The file is opened with your rights and passed to the machine.\n",
};
static const struct command disk_replace = {
	.name = "disk replace", .operands = "NAME ID FILE", .options = &command_plain_options, .run = cli_disk_run_replace,
	.summary = "Give a disk of a running machine another image",
	.text = "The guest sees the size of FILE; all else that it knows of the disk stays. FILE is opened with your rights and\n"
		"passed to the machine.\n",
};
static const struct command disk_resize = {
	.name = "disk resize", .operands = "NAME ID", .options = &command_plain_options, .run = cli_disk_run_resize,
	.summary = "Show a running guest the size that the image of a disk has now",
	.text = "ID is the disk's, as mvmm info shows it. Resize the image first, e.g. with truncate -s.\n",
};

static const struct command *const subcommands[] = {
	&disk_add, &command_disk_remove, &disk_replace, &disk_resize, &command_disk_set,
};

static int cli_disk_run(int argc, char *const *argv, struct err *err)
{
	return command_run_sub(&command_disk, subcommands, ARRAY_SIZE(subcommands), argc, argv, err);
}

const struct command command_disk = {
	.name = "disk",
	.operands = "add|remove|replace|resize|set",
	.summary = "Add, remove, replace, resize and limit disks of a running machine",
	.text = "  add NAME FILE                      add a disk\n"
		"  remove NAME ID                     ask the guest to release a disk, and remove it\n"
		"  replace NAME ID FILE               give a disk another image\n"
		"  resize NAME ID                     the guest sees the size that the image of the disk has now\n"
		"  set NAME ID KEY=RATE[,KEY=RATE]    limit what it reads and writes\n",
	.options = &command_plain_options,
	.run = cli_disk_run,
};
