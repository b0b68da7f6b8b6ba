/* SPDX-License-Identifier: Apache-2.0 */
/* See face.h. */
#include "vmm/api/firecracker/face.h"

#include "core/monotonic.h"
#include "core/thread.h"

#include <fcntl.h>
#include <stdio.h>

/* ---- replies ---- */

/* A client's text may have been cut within a character. */
static json_t *face_text(const char *text)
{
	json_t *value = json_string(text);
	char copy[sizeof(((struct err *)0)->text)];

	if (value)
		return value;
	snprintf(copy, sizeof(copy), "%s", text);
	for (char *c = copy; *c; c++)
		if (*c & 0x80)
			*c = '?';
	return json_string(copy);
}

static void face_reply(const struct face_request *request, unsigned int status, json_t *body)
{
	char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;

	http_reply(request->call, &(struct http_response){
		.status = body && !text ? 500 : status,
		.headers = request->deprecated ? "Deprecation: true\r\n" : NULL,
		.type = "application/json",
		.body = text,
		.body_len = text ? strlen(text) : 0,
	});
	free(text);
	json_decref(body);
}

void face_finish(struct face_request *request, int code, const struct err *err)
{
	const struct log *log = request->face->log;

	if (request->counter)
		request->counter->fails += code < 0;
	request->face->deprecated_calls += request->deprecated;
	if (code < 0) {
		log_each(log, LOG_ERROR, "Received Error. Status code: 400 Bad Request. Message: %s", err->text);
		if (request->call)
			face_reply(request, 400, json_pack("{s:o}", "fault_message", face_text(err->text)));
	} else {
		log_each(log, LOG_INFO, "The request was executed successfully. Status code: %s.",
			 request->reply || request->text ? "200 OK" : "204 No Content");
		if (request->call && request->text)
			http_reply(request->call, &(struct http_response){.status = 200, .type = "text/plain; version=0.0.4",
									  .body = request->text, .body_len = strlen(request->text)});
		else if (request->call)
			face_reply(request, request->reply ? 200 : 204, json_incref(request->reply));
	}
	log_each(log, LOG_DEBUG, "Total previous API call duration: %lld us.",
		 (long long)((int64_t)(monotonic_ns() / 1000) - request->begun_us));
	face_free(request);
}

void face_free(struct face_request *request)
{
	json_decref(request->reply);
	free(request->text);
	if (request->table)
		body_done(request->table, &request->body);
	fd_close(&request->fd);
	while (request->passed_count)
		fd_close(&request->passed[--request->passed_count]);
	free(request);
}

/* ---- devices ---- */

struct face_drive *face_find_drive(struct face *face, const char *id)
{
	for (size_t i = 0; i < face->drive_count; i++)
		if (strcmp(face->drives[i].body.drive_id, id) == 0)
			return &face->drives[i];
	return NULL;
}

struct face_net *face_find_net(struct face *face, const char *id)
{
	for (size_t i = 0; i < face->net_count; i++)
		if (strcmp(face->nets[i].body.iface_id, id) == 0)
			return &face->nets[i];
	return NULL;
}

struct face_host *face_find_host(struct face *face, const char *id)
{
	for (size_t i = 0; i < face->host_count; i++)
		if (strcmp(face->hosts[i].body.id, id) == 0)
			return &face->hosts[i];
	return NULL;
}

void face_name(struct face *face, const char *kind, const char *id, char name[MACHINE_MAX_NAME + 1])
{
	char long_name[300];

	snprintf(long_name, sizeof(long_name), "%s-%s", kind, id);
	if (machine_name_check(long_name, NULL))
		snprintf(long_name, sizeof(long_name), "%s.%u", kind, face->names++);
	snprintf(name, MACHINE_MAX_NAME + 1, "%s", long_name);
}

struct face_opening {
	const char *path;
	int flags, fd;
};

static int face_do_open(void *argument)
{
	struct face_opening *opening = argument;

	opening->fd = open(opening->path, opening->flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);
	return opening->fd < 0 ? -errno : 0;
}

int face_open(const char *path, int flags, int *ret, struct err *err)
{
	struct face_opening opening = {.path = path, .flags = flags};
	int code = thread_call(face_do_open, &opening);

	if (code)
		return err_set(err, code, "%s (os error %d)", strerrordesc_np(-code), -code);
	*ret = opening.fd;
	return 0;
}

int face_take_passed(struct face_request *request)
{
	for (size_t i = 0; i < request->passed_count; i++)
		if (request->passed[i] >= 0)
			return take_fd(&request->passed[i]);
	return -1;
}

int face_file(struct face_request *request, const char *path, int flags, int *ret, struct err *err)
{
	int fd = face_take_passed(request);

	if (fd < 0)
		return face_open(path, flags, ret, err);
	*ret = fd;
	return 0;
}

/* ---- limits ---- */

#define MAX_BYTES (1ull << 50)
#define MAX_OPS 1000000000ull
#define MAX_PERIOD_MS 3600000ull

struct rate face_rate(const struct fc_token_bucket *bucket, bool given, bool ops)
{
	uint64_t max = ops ? MAX_OPS : MAX_BYTES;

	if (!given)
		return (struct rate){0};
	if (!bucket->size || !bucket->refill_time)
		return (struct rate){.given = true};
	return (struct rate){
		.given = true, .amount = MIN(bucket->size, max), .burst = MIN(bucket->one_time_burst, max),
		.period_ns = MIN(bucket->refill_time, MAX_PERIOD_MS) * 1000000,
	};
}

void face_limits(const struct fc_rate_limiter *limiter, const char *prefix, const char *ops, char text[400])
{
	struct rate bandwidth = face_rate(&limiter->bandwidth, FC_GIVEN(fc_rate_limiter, *limiter, bandwidth), false);
	struct rate count = face_rate(&limiter->ops, FC_GIVEN(fc_rate_limiter, *limiter, ops), true);
	char rate[NUMBER_RATE_TEXT];
	size_t used = strlen(text);

	if (bandwidth.given)
		used += (size_t)snprintf(text + used, 400 - used, "%s%sbandwidth=%s", used ? "," : "", prefix,
					 number_format_rate(&bandwidth, false, rate));
	if (count.given)
		snprintf(text + used, 400 - used, "%s%s%s=%s", used ? "," : "", prefix, ops,
			 number_format_rate(&count, true, rate));
}

/* ---- its life ---- */

void face_init(struct face *face)
{
	*face = (struct face){.kernel_fd = -1, .initrd_fd = -1};
	body_init(&fc_machine_config, &face->machine);
	body_init(&fc_logger, &face->logger);
}

void face_close_files(struct face *face)
{
	for (size_t i = 0; i < face->drive_count; i++)
		fd_close(&face->drives[i].fd);
	for (size_t i = 0; i < face->net_count; i++)
		fd_close(&face->nets[i].fd);
	fd_close(&face->kernel_fd);
	fd_close(&face->initrd_fd);
}

void face_done(struct face *face)
{
	face_close_files(face);
	for (size_t i = 0; i < face->drive_count; i++)
		body_done(&fc_drive, &face->drives[i].body);
	for (size_t i = 0; i < face->net_count; i++)
		body_done(&fc_net, &face->nets[i].body);
	for (size_t i = 0; i < face->host_count; i++)
		body_done(&fc_host_device, &face->hosts[i].body);
	body_done(&fc_boot_source, &face->boot);
	body_done(&fc_vsock, &face->vsock);
	body_done(&fc_serial, &face->serial);
	body_done(&fc_logger, &face->logger);
	body_done(&fc_metrics, &face->metrics);
	json_decref(face->counted);
}
