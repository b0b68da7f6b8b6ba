/* SPDX-License-Identifier: Apache-2.0 */
/* The jail of a session: entered before anything is opened, closed when what the machine needs is open. */
#include "vmm/session/session_internal.h"

#include "vmm/jail/jail.h"
#include "vmm/session/exit_code.h"

static int session_jail_ignore(void *opaque, const char *name, pid_t pid)
{
	return 0;
}

bool session_jail_enter(struct session *session, struct jail_options *options, bool host_devices, int *code,
			struct err *err)
{
	const struct jail_machine machine = {.host_devices = host_devices};
	int entered = jail_options_check(options, err);

	entered = entered ?: jail_enter(options, &machine, &session->jail, code, err);
	if (entered < 0)
		*code = EXIT_BAD_INPUT;
	if (entered > 0) /* the machine could not remove its runtime folder */
		rundir_each(session_jail_ignore, NULL, NULL);
	return entered == 0;
}

/* What is open stays open; what is only named is out of reach. */
int session_jail_close(struct session *session, struct err *err)
{
	int code = session->jail ? jail_close(session->jail, err) : 0;

	if (code || !session->jail)
		return code;
	session_folder_done(session); /* it cannot be made again from here */
	session->folder.timer = NULL;
	return 0;
}
