/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a request names by a path, instead of passing a descriptor. Who asks, opens: a machine opens such a file only below
 * the folders of --allow, or in its jail, and never what a link leads to elsewhere (core/beneath.h). A machine that was
 * captured, or who asks in the name of its user, gets no more of the host by it. See session_internal.h.
 */
#include "vmm/session/session_internal.h"

#include "core/beneath.h"

static int session_reach_open_in_each(const struct session *session, const char *path, int flags)
{
	const struct jail_options *options = session->reach;
	int fd = -EXDEV;

	for (size_t i = 0; options && i < options->allowed_count && fd == -EXDEV; i++)
		fd = beneath_open(options->allowed[i].path, path, flags);
	return fd == -EXDEV && session->inside ? beneath_open("/", path, flags) : fd;
}

int session_reach_open(const struct session *session, const char *path, int flags, int *ret, struct err *err)
{
	int fd = session_reach_open_in_each(session, path, flags);

	if (fd == -EXDEV || (fd == -ENOENT && session->inside)) /* there is no such path in the jail */
		return session_reach_refuse(path, err);
	if (fd < 0)
		return err_sys(err, fd, "%.200s", path);
	*ret = fd;
	return 0;
}

int session_reach_refuse(const char *path, struct err *err)
{
	return err_set(err, -EACCES, "%.200s is out of reach: a machine opens what a request names by its path only in its jail "
		       "or below --allow DIR; use the mvmm commands, which pass descriptors, or start it with --allow", path);
}
