/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Host devices that are plugged into a restored machine once it runs (`mvmm restore --vfio BDF`), one after the other,
 * as `mvmm vfio add` does it. The machine goes on without one that cannot be added, and the log says so. See
 * session_internal.h.
 */
#include "vmm/session/session_internal.h"

#include "vfio/host.h"
#include "vmm/config/config_plug.h"
#include "vmm/session/session.h"

/* "ID=BDF", and not a device with options as BDF,KEY=VALUE. */
static bool session_plug_names_id(const struct arrival_override *vfio)
{
	return vfio->text[strcspn(vfio->text, "=,")] == '=';
}

size_t session_plug_sort(struct arrival_override *vfios, size_t count)
{
	size_t named = 0;

	for (size_t i = 0; i < count; i++) {
		struct arrival_override vfio = vfios[i];

		if (!session_plug_names_id(&vfio))
			continue;
		memmove(&vfios[named + 1], &vfios[named], (i - named) * sizeof(*vfios));
		vfios[named++] = vfio;
	}
	return named;
}

/* ---- before the machine is made ---- */

static int session_plug_check_host(const struct vfio_config *vfio, struct err *err)
{
	struct vfio_host host;
	int code = vfio_host_find(vfio_sys_host(), vfio->device, &host, err);

	code = code ?: vfio_host_check_bound(&host, err);
	return code ? err_prefix(err, code, "--vfio %s", vfio->device) : 0;
}

int session_plug_check(struct machine_config *config, const struct arrival_override *vfios, size_t count,
		       struct err *err)
{
	size_t before = config->vfio_count;
	int code = 0;

	for (size_t i = 0; !code && i < count; i++) {
		code = config_plug_add(config, "vfio", vfios[i].text, err);
		code = code ?: session_plug_check_host(&config->vfios[config->vfio_count - 1], err);
	}
	while (config->vfio_count > before)
		config_plug_remove(config, config->vfios[config->vfio_count - 1].id);
	return code;
}

/* ---- while it runs ---- */

static void session_plug_next(struct session *session);

static void session_plug_failed(struct session *session, int code, const struct err *err)
{
	const char *text = session->plug.vfios[session->plug.at].text;

	if (code == -ECANCELED)
		log_warn(&session->log, "--vfio %s: %s", text, err->text);
	else
		log_error(&session->log, "--vfio %s: %s; the machine runs without it, and mvmm vfio add %s %s tries again",
			  text, err->text, session->config->name, text);
}

/* The log has the progress already. */
static void session_plug_progress(void *opaque, const char *what, uint64_t done, uint64_t total)
{
}

static void session_plug_done(void *opaque, const char *id, int code, const struct err *err)
{
	struct session *session = opaque;

	if (code)
		session_plug_failed(session, code, err);
	else
		log_info(&session->log, "--vfio %s: was plugged in; its id is %s", session->plug.vfios[session->plug.at].text,
			 id);
	session->plug.at++;
	if (code == -ECANCELED) /* this life of the machine ends */
		session->plug.at = session->plug.count;
	session_plug_next(session);
}

static void session_plug_next(struct session *session)
{
	const struct add_device_reply reply = {session_plug_progress, session_plug_done, session};
	struct err err;

	for (; session->plug.at < session->plug.count; session->plug.at++) {
		const char *text = session->plug.vfios[session->plug.at].text;
		int code = session->operated.ops->add_device(session, "vfio", text, NULL, &reply, &err);

		if (!code)
			return;
		session_plug_failed(session, code, &err);
	}
}

void session_plug(struct session *session, const struct arrival_override *vfios, size_t count)
{
	session->plug = (struct session_plug){.vfios = vfios, .count = count};
	session_plug_next(session);
}
