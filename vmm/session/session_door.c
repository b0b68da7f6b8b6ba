/* SPDX-License-Identifier: Apache-2.0 */
/* The door of a session, see door.h: made before its threads are, closed when what the machine needs is open. */
#include "vmm/session/session_internal.h"

#include "core/helpers.h"
#include "vmm/migration/helper.h"

int session_make_stage(struct session *session, struct err *err)
{
	return session->seccomp != SECCOMP_OFF || session->jail ? json_stage_create(session->seccomp, &session->stage, err) : 0;
}

int session_make_door(struct session *session, bool early, struct err *err)
{
	const struct door_options options = {
		.jail = session->jail, .jail_closed = !early, .seccomp = session->seccomp, .log = &session->log,
	};
	int code = door_create(&options, &session->door, err);

	return code || !early ? code : door_serve(session->door, err);
}

static bool session_door_has_passt(const struct machine_config *config)
{
	for (size_t i = 0; i < config->net_count; i++)
		if (config->nets[i].kind == NET_PASST && !config->nets[i].target)
			return true;
	return false;
}

int session_make_helpers(struct session *session, const char *tls, struct err *err)
{
	static const char *const passt[] = {"passt", "--foreground", "--quiet", "--stderr", "--fd", "3"};
	char path[PATH_MAX];
	const char *const target[] = {path, "target", tls, NULL, seccomp_words[session->seccomp]};
	const struct helper_rule rules[] = {{passt, ARRAY_SIZE(passt)}, {target, ARRAY_SIZE(target)}};
	int code;

	if ((session->seccomp == SECCOMP_OFF && !session->jail) || (!tls && !session_door_has_passt(session->config)))
		return 0;
	helper_find("mvmm-tls", path);
	session->tls_helper = strdup(path); /* it cannot be looked for in a jail */
	if (!session->tls_helper)
		return err_sys(err, -ENOMEM, "helpers");
	code = helpers_create(rules, tls ? 2 : 1, session->jail, &session->helpers, err);
	if (!code)
		thread_set_helpers(session->helpers);
	return code;
}
