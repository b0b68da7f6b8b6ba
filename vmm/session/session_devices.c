/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operations on devices that come, go and change while the guest runs, as operations.h says. A device is part of the
 * configuration while it is there, so that it exists after a reboot, on another host and in a snapshot; descriptors that
 * were handed in for it are kept among the machine's files. See session_internal.h.
 */
#include "vmm/session/session_internal.h"

#include "devices/virtio/virtio.h"
#include "vmm/config/config_plug.h"
#include "vmm/machine/host_devices.h"
#include "vmm/machine/slots.h"

#include <fcntl.h>

static int session_devices_check(struct session *session, struct err *err)
{
	return session_check_settled(session, err) ?: slots_check_free(machine_slots(session->machine), err);
}

/* It is not, or not any more. */
static void session_devices_drop(struct session *session, const char *id)
{
	machine_files_forget(&session->files, id);
	config_plug_remove(session->config, id);
}

void session_device_gone(void *opaque, const char *id)
{
	struct session *session = opaque;

	session_event_device(session, SESSION_DEVICE_REMOVED, id);
	session_devices_drop(session, id);
}

/* ---- add ---- */

static void session_devices_progress(void *opaque, const struct vfio_progress *progress)
{
	const struct session *session = opaque;

	session->adding.reply.progress(session->adding.reply.opaque, progress->what, progress->done, progress->total);
}

/* The device that was added is the last of its kind in the configuration; nothing changes that until then. */
static void session_devices_added(void *opaque, int code, const struct err *err)
{
	struct session *session = opaque;
	const struct add_device_reply reply = session->adding.reply;
	const char *id = config_plug_last(session->config, session->adding.option);

	vfio_given_close(&session->adding.given);
	if (!code)
		session_event_device(session, SESSION_DEVICE_ADDED, id);
	else
		session_devices_drop(session, id);
	reply.done(reply.opaque, code ? NULL : id, code, err); /* may add another one */
}

static int session_devices_begin(struct session *session, struct err *err)
{
	const struct host_devices_reply vfio = {session_devices_progress, session_devices_added, session};
	const struct machine_config *config = session->config;
	const char *option = session->adding.option;

	if (strcmp(option, "vfio") == 0)
		return host_devices_add(machine_host_devices(session->machine), &config->vfios[config->vfio_count - 1],
					session->adding.given.count ? &session->adding.given : NULL, &vfio, err);
	if (strcmp(option, "disk") == 0)
		return machine_add_disk(session->machine, &config->disks[config->disk_count - 1], session_devices_added,
					session, err);
	return machine_add_net(session->machine, &config->nets[config->net_count - 1], session_devices_added, session, err);
}

/* The file in place of the device's own ROM. It is kept, for the next lives. */
static int session_devices_take_rom(struct session *session, const struct vfio_config *vfio, struct vfio_given *given,
				    struct err *err)
{
	_cleanup_(fd_close) int fd = -1;
	int code = 0;

	if (vfio->rom != VFIO_ROM_FILE)
		return 0;
	fd = vfio_given_take(given, VFIO_GIVEN_ROM);
	if (fd < 0)
		code = session_reach_open(session, vfio->rom_file, O_RDONLY, &fd, err);
	return code ? err_prefix(err, code, "rom") : machine_files_pass(&session->files, vfio->id, &fd, 1, err);
}

/* A device is no file that could be below a folder: it is passed. */
static int session_devices_take_given(struct session *session, struct vfio_given *given, struct err *err)
{
	struct vfio_config *vfio = &session->config->vfios[session->config->vfio_count - 1];
	int code;

	if (!given->count)
		return session_reach_refuse(vfio->device, err);
	code = session_devices_take_rom(session, vfio, given, err);
	if (code)
		return code;
	vfio->given = true;
	session->adding.given = *given;
	return 0;
}

int session_devices_add(struct session *session, const char *option, const char *text, struct vfio_given *given,
			const struct add_device_reply *reply, struct err *err)
{
	int code = session_devices_check(session, err) ?: config_plug_add(session->config, option, text, err);

	if (code)
		return code;
	session->adding = (struct session_adding){.option = option, .reply = *reply};
	code = given ? session_devices_take_given(session, given, err) : 0;
	code = code ?: session_devices_begin(session, err);
	if (code) {
		session->adding.given.count = 0; /* still the caller's */
		session_devices_drop(session, config_plug_last(session->config, option));
	} else if (given) {
		given->count = 0;
	}
	return code;
}

/* An image that was opened here, and once more with O_DIRECT. */
struct image {
	int fds[2];
	size_t count;
};

static void session_devices_close_image(struct image *image)
{
	while (image->count)
		fd_close(&image->fds[--image->count]);
}

/* Where requests may name one. The machine checks what it is. A pipe must not block here. */
static int session_devices_open_image(const struct session *session, const struct disk_config *disk, const char *path,
				      struct image *image, struct err *err)
{
	int flags = (disk->readonly ? O_RDONLY : O_RDWR) | O_NOCTTY | O_NONBLOCK;
	int code = session_reach_open(session, path, flags, &image->fds[0], err);

	image->count = !code;
	if (code || !disk->direct)
		return code;
	code = session_reach_open(session, path, flags | O_DIRECT, &image->fds[1], err);
	image->count += !code;
	return code;
}

static int session_devices_check_disk(const struct disk_config *disk, size_t count, struct err *err)
{
	if (count != (disk->direct ? 2 : 1))
		return err_set(err, -EINVAL, "--disk %.100s: %s", disk->path, disk->direct ?
			       "pass two descriptors, the second one opened with O_DIRECT" : "pass one descriptor");
	return 0;
}

static int session_devices_check_net(const struct net_config *net, size_t count, struct err *err)
{
	if (net->kind != NET_TAP || net->vhost)
		return err_set(err, -EINVAL, "--net %s: only mvmm run has that; write tap=NAME",
			       net->kind == NET_TAP ? "vhost=on" : "passt");
	if (count != net->queues)
		return err_set(err, -EINVAL, "--net tap=%s,queues=%u: pass a descriptor for each queue", net->target,
			       net->queues);
	return 0;
}

/* What the device needs is handed in, and nothing else: a machine opens nothing for others. */
static int session_devices_check_passed(const struct session *session, const char *option, size_t count, struct err *err)
{
	const struct machine_config *config = session->config;

	if (strcmp(option, "disk") == 0)
		return session_devices_check_disk(&config->disks[config->disk_count - 1], count, err);
	if (strcmp(option, "net") == 0)
		return session_devices_check_net(&config->nets[config->net_count - 1], count, err);
	return 0;
}

int session_devices_add_passed(struct session *session, const char *option, json_t *device, int *fds, size_t count,
			       const struct add_device_reply *reply, struct err *err)
{
	int code = session_devices_check(session, err) ?: config_plug_add_json(session->config, option, device, err);
	_cleanup_(session_devices_close_image) struct image image = {.count = 0};
	const char *id;

	if (code)
		return code;
	id = config_plug_last(session->config, option);
	session->adding = (struct session_adding){.option = option, .reply = *reply};
	if (!count && strcmp(option, "disk") == 0) {
		const struct disk_config *disk = &session->config->disks[session->config->disk_count - 1];

		code = session_devices_open_image(session, disk, disk->path, &image, err);
		fds = image.fds;
		count = image.count;
	}
	code = code ?: session_devices_check_passed(session, option, count, err);
	code = code ?: machine_files_pass(&session->files, id, fds, count, err);
	code = code ?: session_devices_begin(session, err);
	if (code)
		session_devices_drop(session, id);
	return code;
}

/* ---- remove ---- */

void session_devices_leave(struct session *session)
{
	const struct machine_config *config = session->config;

	for (size_t i = config->vfio_count; session->jail && i--;) {
		const struct vfio_config *vfio = &config->vfios[i];

		if (!vfio->given)
			continue;
		log_warn(&session->log, "%s: does not come along into the reboot, since a jailed machine cannot open it again; "
			 "mvmm vfio add %s %s adds it", vfio->id, config->name, vfio->device);
		session_device_gone(session, vfio->id);
	}
}

int session_devices_remove(struct session *session, const char *kind, const char *id, bool force, unsigned int timeout_ms,
			   void (*done)(void *opaque, int code, const struct err *err), void *opaque, struct err *err)
{
	int code = session_check_settled(session, err);

	return code ?: machine_remove_device(session->machine, kind, id, force, timeout_ms, done, opaque, err);
}

/* ---- replace ---- */

static struct disk_config *session_devices_find_disk(const struct machine_config *config, const char *id)
{
	for (size_t i = 0; i < config->disk_count; i++)
		if (strcmp(config->disks[i].id, id) == 0)
			return &config->disks[i];
	return NULL;
}

static void session_devices_end_replacing(struct session_replacing *replacing)
{
	for (size_t i = 0; i < replacing->count; i++)
		fd_close(&replacing->fds[i]);
	free(replacing->id);
	free(replacing->path);
	*replacing = (struct session_replacing){0};
}

/* The disk has the other image, and keeps it in its next lives, as far as there is memory to say so. */
static void session_devices_keep_image(struct session *session, struct session_replacing *replacing)
{
	struct disk_config *disk = session_devices_find_disk(session->config, replacing->id);
	struct err why;

	if (machine_files_pass(&session->files, replacing->id, replacing->fds, replacing->count, &why)) {
		log_warn(&session->log, "%s; a reboot finds it by its path", why.text);
		machine_files_forget(&session->files, replacing->id);
	}
	free(disk->path);
	disk->path = take_ptr(replacing->path);
	disk->below = NULL;
}

static void session_devices_replaced(void *opaque, int code, const struct err *err)
{
	struct session *session = opaque;
	const struct session_replacing end = session->replacing;
	uint64_t bytes = 0;

	if (!code && machine_disk_size(session->machine, end.id, &bytes) == 0) {
		session_devices_keep_image(session, &session->replacing);
		session_event(session, SESSION_DISK_REPLACED, json_pack("{s:s, s:I}", "id", end.id, "size",
									(json_int_t)bytes));
	}
	session_devices_end_replacing(&session->replacing);
	end.done(end.opaque, bytes, code, err);
}

int session_devices_replace_disk(struct session *session, const char *id, const char *path, int *fds, size_t count,
				 void (*done)(void *opaque, uint64_t bytes, int code, const struct err *err),
				 void *opaque, struct err *err)
{
	struct session_replacing *replacing = &session->replacing;
	const struct disk_config *disk = session_devices_find_disk(session->config, id);
	_cleanup_(session_devices_close_image) struct image image = {.count = 0};
	int code = session_devices_check(session, err);

	if (!code && !count && disk) {
		code = session_devices_open_image(session, disk, path, &image, err);
		fds = image.fds;
		count = image.count;
	}
	if (code)
		return code;
	*replacing = (struct session_replacing){.id = strdup(id), .path = strdup(path), .done = done, .opaque = opaque};
	if (!replacing->id || !replacing->path)
		code = err_sys(err, -ENOMEM, "%s", id);
	code = code ?: machine_replace_disk(session->machine, id, path, fds, count, session_devices_replaced, session, err);
	for (; !code && replacing->count < MIN(count, ARRAY_SIZE(replacing->fds)); replacing->count++)
		replacing->fds[replacing->count] = take_fd(&fds[replacing->count]);
	if (code)
		session_devices_end_replacing(replacing);
	return code;
}

int session_devices_resize_disk(struct session *session, const char *id, uint64_t *bytes, struct err *err)
{
	int code = session_check_settled(session, err) ?: machine_resize_disk(session->machine, id, bytes, err);

	if (!code)
		session_event(session, SESSION_DISK_RESIZED, json_pack("{s:s, s:I}", "id", id, "size", (json_int_t)*bytes));
	return code;
}

/* ---- networks ---- */

int session_devices_set_link(struct session *session, const char *id, bool plugged, struct err *err)
{
	struct machine_config *config = session->config;
	int code = session_check_settled(session, err) ?: machine_set_link(session->machine, id, plugged, err);

	for (size_t i = 0; !code && i < config->net_count; i++)
		if (strcmp(config->nets[i].id, id) == 0)
			config->nets[i].link = plugged;
	if (!code)
		session_event(session, plugged ? SESSION_LINK_UP : SESSION_LINK_DOWN, json_pack("{s:s}", "id", id));
	return code;
}

static int session_devices_adopt_tap(struct session *session, struct net_config *net, struct err *err)
{
	char name[16];
	int code = virtio_net_name_tap(net->fd, name, err), fd;

	if (code)
		return err_prefix(err, code, "--net fd=%d", net->fd);
	fd = fcntl(net->fd, F_DUPFD_CLOEXEC, 3);
	if (fd < 0)
		return err_sys(err, -errno, "--net fd=%d", net->fd);
	code = machine_files_pass(&session->files, net->id, &fd, 1, err);
	fd_close(&fd);
	free(net->target);
	net->target = strdup(name);
	if (!code && !net->target)
		code = err_sys(err, -ENOMEM, "--net fd=%d", net->fd);
	if (code)
		return code;
	fd_close(&net->fd);
	net->kind = NET_TAP;
	return 0;
}

int session_devices_adopt(struct session *session, struct err *err)
{
	struct machine_config *config = session->config;
	int code = 0;

	for (size_t i = 0; !code && i < config->net_count; i++)
		if (config->nets[i].kind == NET_FD)
			code = session_devices_adopt_tap(session, &config->nets[i], err);
	return code;
}
