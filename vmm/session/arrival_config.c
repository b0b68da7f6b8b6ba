/* SPDX-License-Identifier: Apache-2.0 */
/* See arrival_config.h. */
#include "vmm/session/arrival_config.h"

#include "vmm/snapshot/description.h"

#include <stdio.h>
#include <sys/stat.h>

/* ---- what the options name ---- */

static int arrival_config_override_each(struct machine_config *config, const char *option,
					const struct arrival_override *texts, size_t count, struct err *err)
{
	const char *again = arrival_override_again(texts, count);
	int code = again ? err_set(err, -EINVAL, "--%s %.200s: an earlier --%s is of the same id; leave one out", option, again,
				   option) : 0;

	for (size_t i = 0; !code && i < count; i++)
		code = machine_config_override(config, option, texts[i].text, err);
	return code;
}

/* A guest that moves keeps its connections, and its driver the address. */
static int arrival_config_check_nets(const struct machine_config *config, struct err *err)
{
	for (size_t i = 0; i < config->net_count; i++)
		if (config->nets[i].new_mac)
			return err_set(err, -EINVAL, "--net %s=...,mac=: a machine that moves keeps its MAC addresses; leave "
				       "it out", config->nets[i].id);
	return 0;
}

/* The ports are this host's, not those of the source. A console of the machine must be connected to something. */
static int arrival_config_override_ports(struct machine_config *config, const struct arrival_options *options,
					 struct err *err)
{
	const char *console = options->console ?: config->console.kind == PORT_NONE ? NULL : "pty";
	bool stdio = console && strcmp(console, "stdio") == 0;
	int code;

	if (options->console && config->console.kind == PORT_NONE && strcmp(console, "none") != 0)
		return err_set(err, -EINVAL, "--console %.200s: the machine has no console; leave it out", console);
	code = console ? machine_config_override(config, "console", console, err) : 0;
	return code ?: machine_config_override(config, "serial", options->serial ?: stdio ? "none" : "stdio", err);
}

static int arrival_config_override(struct machine_config *config, const struct arrival_options *options,
				   struct err *err)
{
	int code = arrival_config_override_each(config, "disk", options->disks, options->disk_count, err);

	code = code ?: arrival_config_override_each(config, "net", options->nets, options->net_count, err);
	code = code ?: arrival_config_override_each(config, "vfio", options->vfios, options->vfio_count, err);
	if (!code && options->vsock)
		code = machine_config_override(config, "vsock", options->vsock, err);
	if (!code && options->name)
		code = machine_config_override(config, "name", options->name, err);
	if (!code && options->clock)
		code = machine_config_override(config, "clock", options->clock, err);
	return code ?: arrival_config_override_ports(config, options, err);
}

/* ---- what the source names and the options do not ---- */

/* The options that are missing: "--net net0=..., --vfio vfio0=...". */
struct missing {
	char text[300];
	size_t used;
};

static void arrival_config_miss(struct missing *missing, const char *option, const char *id, const char *value)
{
	size_t room = sizeof(missing->text) - missing->used;
	int len = snprintf(missing->text + missing->used, room, "%s--%s %s%s", missing->used ? ", " : "", option, id,
			   value);

	if ((size_t)len < room)
		missing->used += (size_t)len;
	else
		missing->text[missing->used] = 0; /* the message gets too long; the next attempt names it */
}

/* A disk in --disk-dir: path becomes absolute, and stays in the folder whenever it is opened. */
static int arrival_config_place(struct disk_config *disk, const char *folder, bool *ret, struct err *err)
{
	size_t len = strlen(folder);
	char *path;

	while (len && folder[len - 1] == '/')
		len--;
	*ret = disk->path[0] != '/' || (strncmp(disk->path, folder, len) == 0 && disk->path[len] == '/');
	if (!*ret)
		return 0;
	if (disk->path[0] != '/') {
		if (asprintf(&path, "%.*s/%s", (int)len, folder, disk->path) < 0)
			return err_sys(err, -ENOMEM, "--disk-dir");
		free(disk->path);
		disk->path = path;
	}
	disk->below = folder;
	return 0;
}

static int arrival_config_check_disks(struct machine_config *config, const struct receive_options *options,
				      struct missing *missing, struct err *err)
{
	for (size_t i = 0; i < config->disk_count; i++) {
		struct disk_config *disk = &config->disks[i];
		bool placed = false;

		if (arrival_override_find(options->here.disks, options->here.disk_count, disk->id))
			continue;
		if (options->disk_dir && arrival_config_place(disk, options->disk_dir, &placed, err))
			return -ENOMEM;
		if (!placed)
			arrival_config_miss(missing, "disk", disk->id, "=PATH");
	}
	return 0;
}

static int arrival_config_check_named(struct machine_config *config, const struct receive_options *options,
				      struct err *err)
{
	const struct arrival_options *here = &options->here;
	struct missing missing = {""};
	int code = arrival_config_check_disks(config, options, &missing, err);

	if (code)
		return code;
	for (size_t i = 0; i < config->net_count; i++)
		if (!arrival_override_find(here->nets, here->net_count, config->nets[i].id))
			arrival_config_miss(&missing, "net", config->nets[i].id, "=tap=NAME|passt");
	for (size_t i = 0; i < config->vfio_count; i++)
		if (!arrival_override_find(here->vfios, here->vfio_count, config->vfios[i].id))
			arrival_config_miss(&missing, "vfio", config->vfios[i].id, "=BDF");
	if (config->vsock.cid && !config->vsock.named)
		arrival_config_miss(&missing, "vsock", "SOCKET|", "kernel");
	if (!missing.used)
		return 0;
	return err_set(err, -EACCES, "mvmm receive uses nothing of its host that it was not told to; add %s there%s",
		       missing.text, options->disk_dir ? "" : ", or --disk-dir DIR for all disks in a folder");
}

/* ---- the kernel, for a reboot ---- */

/* The files of the source are not those of this host: another kernel, or one without its initrd, is not booted. */
static int arrival_config_take_kernel(struct machine_config *config, const struct arrival_options *options,
				      struct err *err)
{
	if (!options->kernel && options->initrd)
		return err_set(err, -EINVAL, "--initrd %.200s: needs --kernel, to boot it with", options->initrd);
	if (options->kernel && config->initrd && !options->initrd)
		return err_set(err, -EINVAL, "--kernel %.200s: the machine has an initrd, too; add --initrd FILE",
			       options->kernel);
	free(take_ptr(config->kernel));
	free(take_ptr(config->initrd));
	config->kernel = options->kernel ? strdup(options->kernel) : NULL;
	config->initrd = options->initrd ? strdup(options->initrd) : NULL;
	if ((options->kernel && !config->kernel) || (options->initrd && !config->initrd))
		return err_sys(err, -ENOMEM, "--kernel");
	return 0;
}

/* ---- all of it ---- */

/* --disk-dir as an absolute path, which paths can be compared with. */
static int arrival_config_find_folder(struct receive_options *options, struct err *err)
{
	_cleanup_(free_ptr) char *folder = options->disk_dir ? realpath(options->disk_dir, NULL) : NULL;
	struct stat st;

	if (!options->disk_dir)
		return 0;
	if (!folder || stat(folder, &st) < 0)
		return err_sys(err, -errno, "--disk-dir %.200s", options->disk_dir);
	if (!S_ISDIR(st.st_mode))
		return err_set(err, -ENOTDIR, "--disk-dir %.200s: not a folder", options->disk_dir);
	if (options->disk_dir[0] != '/') {
		free(options->disk_dir);
		options->disk_dir = take_ptr(folder);
	}
	return 0;
}

/* It is this host's alone. */
static int arrival_config_take_affinity(struct machine_config *config, const struct arrival_options *options,
					struct err *err)
{
	int code = 0;

	for (size_t i = 0; i < options->affinity.count && !code; i++) {
		char option[] = "--cpu-affinity", *words[] = {option, options->affinity.items[i].text};

		code = options_parse(&machine_options, config, ARRAY_SIZE(words), words, NULL, 0, err);
	}
	return code;
}

static int arrival_config_finish(struct machine_config *config, const struct arrival_options *options, struct err *err)
{
	int code = arrival_config_take_affinity(config, options, err);

	config->incoming = true;
	config->force_cpu = options->force_cpu;
	config->verbose = options->verbose;
	config->quiet = options->quiet;
	return code ?: machine_config_finish(config, err);
}

int arrival_config_make(const struct machine_offer *offer, struct receive_options *options,
			struct machine_config *config, struct err *err)
{
	int code = machine_offer_config(offer, config, err) ?: arrival_config_find_folder(options, err);

	code = code ?: arrival_config_override(config, &options->here, err);
	code = code ?: arrival_config_check_nets(config, err);
	code = code ?: arrival_config_check_named(config, options, err);
	code = code ?: arrival_config_take_kernel(config, &options->here, err);
	return code ?: arrival_config_finish(config, &options->here, err);
}

int arrival_config_read(const struct snapshot_state *state, struct stage *stage, struct machine_offer **ret, struct err *err)
{
	json_t *description;
	int code = snapshot_description_read(state, stage, &description, err);

	if (code)
		return code;
	code = machine_offer_read(json_incref(json_object_get(description, "offer")), ret, err);
	json_decref(description);
	return code;
}

int arrival_config_restore(const struct machine_offer *offer, const struct arrival_options *options,
			   struct machine_config *config, struct err *err)
{
	int code = machine_offer_config(offer, config, err);

	code = code ?: arrival_config_override(config, options, err);
	code = code ?: arrival_config_take_kernel(config, options, err);
	return code ?: arrival_config_finish(config, options, err);
}
