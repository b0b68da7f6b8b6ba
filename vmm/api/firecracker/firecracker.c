/* SPDX-License-Identifier: Apache-2.0 */
/* See firecracker.h: the server and the life of the face. */
#include "vmm/api/firecracker/firecracker.h"

#include "core/monotonic.h"
#include "vmm/api/firecracker/face_before.h"
#include "vmm/api/firecracker/face_full.h"
#include "vmm/api/firecracker/face_metrics.h"
#include "vmm/api/firecracker/face_paths.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#define BACKLOG 128

struct firecracker {
	struct face face;
	struct http *http; /* or NULL */
};

/* ---- what the command line puts ---- */

/* As a PUT of this body would, for what is the same there. */
static int firecracker_put(struct firecracker *firecracker, const struct body *body, face_fn *fn, json_t *value, struct err *err)
{
	struct face_request request = {.face = &firecracker->face, .table = body, .fd = -1};
	int code;

	body_init(body, &request.body);
	code = value ? body_read(body, value, &request.body, err) : err_sys(err, -ENOMEM, "API");
	code = code ?: fn(&request, err);
	body_done(body, &request.body);
	json_decref(value);
	return code;
}

static int firecracker_put_reports(struct firecracker *firecracker, const struct firecracker_options *options, struct err *err)
{
	int code = firecracker_put(firecracker, &fc_logger, face_before_logger,
				   json_pack("{s:s*, s:s*, s:s*, s:b, s:b}", "log_path", options->log_path, "level", options->level,
					     "module", options->module, "show_level", options->show_level, "show_log_origin",
					     options->show_log_origin), err);

	/* It is not what a client has put. */
	if (!options->log_path && !options->level && !options->module && !options->show_level && !options->show_log_origin)
		firecracker->face.logger.given = 0;
	log_each(firecracker->face.log, LOG_INFO, "Running Firecracker v" FIRECRACKER_VERSION);
	if (!code && options->metrics_path)
		code = firecracker_put(firecracker, &fc_metrics, face_before_metrics,
				       json_pack("{s:s}", "metrics_path", options->metrics_path), err);
	return code;
}

/* ---- the socket ---- */

static int firecracker_listen(const char *path, int *ret, struct err *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	_cleanup_(fd_close) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (strlen(path) >= sizeof(address.sun_path))
		return err_set(err, -ENAMETOOLONG, "--api-sock %.120s: the path of a socket has at most %zu characters", path,
			       sizeof(address.sun_path) - 1);
	memcpy(address.sun_path, path, strlen(path));
	if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, BACKLOG) < 0)
		return err_sys(err, -errno, "Failed to open the API socket at: %.120s. Check that it is not already used", path);
	*ret = take_fd(&fd);
	return 0;
}

static void firecracker_serve(void *opaque, struct http_call *call, const struct http_request *request)
{
	struct firecracker *firecracker = opaque;

	face_paths_serve(&firecracker->face, call, request);
}

static int firecracker_open(struct firecracker *firecracker, struct event_loop *loop, struct err *err)
{
	const struct firecracker_options *options = firecracker->face.options;
	const struct http_options http = {
		.server = "Firecracker API", .max_body = options->max_body, .patience_ms = HTTP_PATIENCE_MS,
		.fn = firecracker_serve, .opaque = firecracker, .log = firecracker->face.log,
	};
	_cleanup_(fd_close) int fd = -1;
	int code = firecracker_listen(options->api_sock, &fd, err) ?: http_create(loop, &fd, &http, &firecracker->http, err);

	if (!code)
		log_each(firecracker->face.log, LOG_INFO, "API server started.");
	return code;
}

/* ---- life ---- */

int firecracker_create(struct event_loop *loop, const struct operated *operated, const struct firecracker_options *options,
		       struct log *log, struct firecracker **ret, struct err *err)
{
	struct firecracker *firecracker = calloc(1, sizeof(*firecracker));
	struct face *face;
	int code;

	if (!firecracker)
		return err_sys(err, -ENOMEM, "API");
	face = &firecracker->face;
	face_init(face);
	face->options = options;
	face->loop = loop;
	face->operated = operated;
	face->log = log;
	log_set_machine(log, options->id);
	face_paths_init(face);
	code = firecracker_put_reports(firecracker, options, err);
	if (!code && !options->no_api)
		code = firecracker_open(firecracker, loop, err);
	if (code) {
		firecracker_destroy(firecracker, 1);
		return code;
	}
	*ret = firecracker;
	return 0;
}

int firecracker_begin(struct firecracker *firecracker, struct err *err)
{
	struct face *face = &firecracker->face;
	struct face_request *request;
	int code;

	if (!face->options->config_file)
		return 0;
	code = face_full_load(face, face->options->config_file, err);
	request = code ? NULL : calloc(1, sizeof(*request));
	if (!code && !request)
		code = err_sys(err, -ENOMEM, "API");
	if (code)
		return code;
	*request = (struct face_request){.face = face, .fd = -1, .begun_us = (int64_t)(monotonic_ns() / 1000)};
	code = face_before_start(request, err);
	if (code < 0)
		face_finish(request, code, err);
	return MIN(code, 0);
}

void firecracker_destroy(struct firecracker *firecracker, int code)
{
	if (!firecracker)
		return;
	http_destroy(firecracker->http);
	firecracker->face.phase = FACE_BEFORE; /* the machine has gone */
	face_metrics_destroy(firecracker->face.lines);
	log_each(firecracker->face.log, code ? LOG_ERROR : LOG_INFO, "Firecracker exiting %s. exit_code=%d",
		 code ? "with error" : "successfully", code);
	face_done(&firecracker->face);
	free(firecracker);
}
