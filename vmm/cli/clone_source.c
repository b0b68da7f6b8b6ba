/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See clone.h. The snapshot of a running machine is written into files without names: memory and state into memfds,
 * which are sealed, disks beside the first clone's. The clones inherit the descriptors, so that nothing has to be removed,
 * whatever dies when.
 */
#include "vmm/cli/clone.h"

#include "vmm/control/control.h"
#include "vmm/control/control_client.h"
#include "vmm/migration/request.h"
#include "vmm/snapshot/snapshot_report.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/stat.h>

#define PATIENCE_MS 10000 /* for replies that wait for nothing */
#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

/* A snapshot that is being taken. */
struct taking {
	const struct clone_options *given;
	struct control_client client;
	struct clone_source *source;
	json_t *names; /* of the files, as strings */
	int fds[CONTROL_MAX_FDS];
	size_t count;
	int signal_fd;
	struct err err; /* of the commit */
};

/* ---- files ---- */

/* *fd gets a number that no descriptor of a clone's own beginning has. */
static int clone_source_add(struct taking *taking, const char *name, int *fd, struct err *err)
{
	int raised = fcntl(*fd, F_DUPFD_CLOEXEC, CLONE_FIRST_FD);

	if (raised < 0)
		return err_sys(err, -errno, "%s", name);
	close(*fd);
	*fd = raised;
	if (taking->count == ARRAY_SIZE(taking->fds) || json_array_append_new(taking->names, json_string(name)))
		return err_sys(err, -ENOSPC, "%s", name);
	taking->fds[taking->count++] = *fd;
	return 0;
}

static int clone_source_add_memfd(struct taking *taking, const char *name, int *fd, struct err *err)
{
	*fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (*fd < 0 || fchmod(*fd, 0600) < 0)
		return err_sys(err, -errno, "%s", name);
	return clone_source_add(taking, name, fd, err);
}

/* The folder that has the file of the first clone's disk: --disk ID=PATH. NULL: no such option. The caller's. */
static char *clone_source_find_folder(const struct clone_options *given, const char *id)
{
	size_t len = strlen(id);

	for (size_t i = 0; i < given->restore.here.disk_count; i++) {
		const char *text = given->restore.here.disks[i].text, *path = text + len + 1, *end, *slash;

		if (strncmp(text, id, len) != 0 || text[len] != '=')
			continue;
		end = strchrnul(path, ',');
		slash = memrchr(path, '/', (size_t)(end - path));
		return slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
	}
	return NULL;
}

static int clone_source_make_nameless(const char *folder)
{
	int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	_cleanup_(free_ptr) char *path = NULL;

	if (fd >= 0 || asprintf(&path, "%s/.clone-XXXXXX", folder) < 0)
		return fd;
	fd = mkostemp(path, O_CLOEXEC);
	if (fd >= 0)
		unlink(path);
	return fd;
}

static int clone_source_add_disk(struct taking *taking, const char *id, struct err *err)
{
	_cleanup_(free_ptr) char *folder = clone_source_find_folder(taking->given, id);
	struct clone_source *source = taking->source;
	char name[80];
	int *fd = &source->disks[source->disk_count].fd;

	if (!folder)
		return err_set(err, -EINVAL, "disk %s: each clone needs one of its own; write --disk %s=PATH with {n} in it, which "
			       "stands for the number of each", id, id);
	if (taking->given->disks == SNAPSHOT_DISKS_NONE)
		return 0;
	*fd = clone_source_make_nameless(folder);
	if (*fd < 0)
		return err_sys(err, -errno, "--disk %s: a file in %.200s", id, folder);
	snprintf(source->disks[source->disk_count++].id, sizeof(source->disks[0].id), "%s", id);
	snprintf(name, sizeof(name), "disks/%s", id);
	return clone_source_add(taking, name, fd, err);
}

static int clone_source_add_disks(struct taking *taking, struct err *err)
{
	const json_t *device;
	json_t *info;
	size_t index;
	int code = control_client_call(&taking->client, "Info", NULL, PATIENCE_MS, &info, err);

	if (code)
		return code;
	json_array_foreach(json_object_get(info, "devices"), index, device) {
		const char *kind = json_string_value(json_object_get(device, "kind"));
		const char *id = json_string_value(json_object_get(device, "id"));

		if (!code && kind && id && strcmp(kind, "disk") == 0 && !json_is_true(json_object_get(device, "readonly")) &&
		    taking->source->disk_count < ARRAY_SIZE(taking->source->disks))
			code = clone_source_add_disk(taking, id, err);
	}
	json_decref(info);
	return code;
}

/* ---- the snapshot ---- */

/* There is nothing that could be lost: it is committed at once. */
static void clone_source_on_progress(void *opaque, const json_t *parameters)
{
	const json_t *report = json_object_get(parameters, "snapshot");
	const char *state = json_string_value(json_object_get(report, "state"));
	const char *id = json_string_value(json_object_get(report, "id"));
	struct taking *taking = opaque;

	if (state && id && strcmp(state, "written") == 0)
		control_client_call_beside(taking->client.name, "SnapshotCommit", json_pack("{s:s}", "id", id),
					   PATIENCE_MS, &taking->err);
}

static void clone_source_on_signal(void *opaque)
{
	struct taking *taking = opaque;
	struct signalfd_siginfo info;
	struct err err;

	if (read(taking->signal_fd, &info, sizeof(info)) != sizeof(info))
		return;
	taking->source->signal = (int)info.ssi_signo;
	control_client_call_beside(taking->client.name, "SnapshotCancel", NULL, PATIENCE_MS, &err);
}

/* Nobody can change what many machines have mapped. */
static int clone_source_seal(const struct clone_source *source, struct err *err)
{
	if (fcntl(source->state, F_ADD_SEALS, SEALS) < 0 || fcntl(source->memory, F_ADD_SEALS, SEALS) < 0)
		return err_sys(err, -errno, "sealing the snapshot");
	return 0;
}

static int clone_source_take(struct taking *taking, struct err *err)
{
	const struct snapshot_request request = {
		.disks = (enum snapshot_disks)taking->given->disks, .live = taking->given->live,
		.goal = {.downtime = MIGRATION_DEFAULT_DOWNTIME, .timeout = MIGRATION_DEFAULT_TIMEOUT},
	};
	const struct control_watch watch = {clone_source_on_progress, clone_source_on_signal, taking->signal_fd, taking};
	int code = clone_source_add_memfd(taking, "state", &taking->source->state, err);
	json_t *parameters, *answer;

	code = code ?: clone_source_add_memfd(taking, "memory", &taking->source->memory, err);
	code = code ?: clone_source_add_disks(taking, err);
	if (code)
		return code;
	parameters = snapshot_request_to_json(&request);
	json_object_set(parameters, "files", taking->names);
	code = control_client_follow(&taking->client, "Snapshot", parameters, taking->fds, taking->count, &watch, &answer,
				     err);
	if (code)
		return code;
	json_decref(answer);
	return clone_source_seal(taking->source, err);
}

/* ---- either ---- */

static int clone_source_open_machine(struct control_client *client, const struct clone_options *given, int signal_fd,
				     struct clone_source *source, struct err *err)
{
	struct taking taking = {.given = given, .client = *client, .source = source, .names = json_array(),
				.signal_fd = signal_fd};
	int code = clone_source_take(&taking, err);

	json_decref(taking.names);
	control_client_close(&taking.client);
	if (code)
		clone_source_close(source);
	return code;
}

static bool clone_source_is_folder(const char *what)
{
	struct stat st;

	return stat(what, &st) == 0 && S_ISDIR(st.st_mode);
}

int clone_source_open(const char *what, const struct clone_options *given, int signal_fd, struct clone_source *ret,
		      struct err *err)
{
	bool folder = strchr(what, '/');
	struct control_client client;
	struct err why = {""};
	int code;

	*ret = (struct clone_source){.state = -1, .memory = -1};
	code = folder ? 0 : control_client_open(what, &client, &why);
	if (!folder && !code)
		return clone_source_open_machine(&client, given, signal_fd, ret, err);
	if (code && (code != -ENOENT || !clone_source_is_folder(what))) {
		*err = why;
		return code;
	}
	ret->folder = strdup(what);
	return ret->folder ? 0 : err_sys(err, -ENOMEM, "%s", what);
}

void clone_source_close(struct clone_source *source)
{
	free(take_ptr(source->folder));
	fd_close(&source->state);
	fd_close(&source->memory);
	while (source->disk_count)
		fd_close(&source->disks[--source->disk_count].fd);
}
