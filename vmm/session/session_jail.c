/* SPDX-License-Identifier: Apache-2.0 */
/* The jail of a session: entered before anything is opened, closed when what the machine needs is open. */
#include "vmm/session/session_internal.h"

#include "devices/virtio/virtio.h"
#include "vmm/jail/jail.h"
#include "vmm/session/exit_code.h"

#include <fcntl.h>
#include <sys/stat.h>

static int session_jail_ignore(void *opaque, const char *name, pid_t pid)
{
	return 0;
}

bool session_jail_enter(struct session *session, struct jail_options *options, bool host_devices, int *code,
			struct err *err)
{
	const struct jail_machine machine = {.host_devices = host_devices};
	int entered = jail_options_check(options, err);

	session->reach = options;
	entered = entered ?: jail_enter(options, &machine, &session->jail, code, err);
	if (entered < 0)
		*code = EXIT_BAD_INPUT;
	if (entered > 0) /* the machine could not remove its runtime folder */
		rundir_each(session_jail_ignore, NULL, NULL);
	return entered == 0;
}

/* ---- what a reboot of the guest cannot open again: it is not there any more, or the user may not ---- */

/* What cannot be opened is left to the machine, which says why. */
static void session_jail_open_disk(struct session *session, const struct disk_config *disk)
{
	const char *name = machine_files_find(&session->files, disk->below, disk->path);
	int flags = (disk->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC, fds[] = {-1, -1};
	struct stat st;

	if (!name || stat(name, &st) < 0 || (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) ||
	    machine_files_passed(&session->files, disk->id, &(const int *){NULL}))
		return;
	fds[0] = open(name, flags);
	fds[1] = disk->direct ? open(name, flags | O_DIRECT) : -1;
	if (fds[0] >= 0 && disk->direct == (fds[1] >= 0))
		machine_files_pass(&session->files, disk->id, fds, 1 + disk->direct, NULL);
	fd_close(&fds[0]);
	fd_close(&fds[1]);
}

static void session_jail_open_net(struct session *session, const struct net_config *net)
{
	int fds[MACHINE_FILES_PASSED];

	if (net->kind != NET_TAP || net->queues > ARRAY_SIZE(fds) ||
	    machine_files_passed(&session->files, net->id, &(const int *){NULL}) ||
	    virtio_net_open_tap(net->target, net->queues, fds, NULL))
		return;
	if (machine_files_pass(&session->files, net->id, fds, net->queues, NULL))
		for (unsigned int i = 0; i < net->queues; i++)
			fd_close(&fds[i]);
}

void session_jail_open(struct session *session)
{
	const struct machine_config *config = session->config;

	if (!session->jail || session->held)
		return;
	session->held = true;
	for (size_t i = 0; i < config->disk_count; i++)
		session_jail_open_disk(session, &config->disks[i]);
	for (size_t i = 0; i < config->net_count; i++)
		session_jail_open_net(session, &config->nets[i]);
}

/* What is open stays open; what is only named is out of reach. Nobody is left who has seen what names it. */
int session_jail_close(struct session *session, struct err *err)
{
	int code;

	stage_destroy(take_ptr(session->stage));
	code = session->jail ? jail_close(session->jail, err) : 0;
	if (code || !session->jail)
		return code;
	session->inside = true;
	session_folder_done(session); /* it cannot be made again from here */
	session->folder.timer = NULL;
	return 0;
}
