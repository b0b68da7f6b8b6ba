/* SPDX-License-Identifier: Apache-2.0 */
/* See service.h. */
#include "vmm/session/service.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define FIRST_FD 3       /* sd_listen_fds(3) */
#define MAX_LISTEN_FDS 64u
#define RETRY_NS 100000000u
#define MESSAGE_MAX 192u

/* ---- what the environment says ---- */

/* A number from 1 to max; 0 if there is none. */
static uint64_t service_number(const char *name, uint64_t max)
{
	const char *text = getenv(name);
	char *end;
	uint64_t value;

	if (!text || *text < '0' || *text > '9')
		return 0;
	errno = 0;
	value = strtoull(text, &end, 10);
	return errno || *end || value > max ? 0 : value;
}

/* Whether the variable, if it is there, names this process: another one may have inherited it. */
static bool service_is_ours(const char *name)
{
	return !getenv(name) || service_number(name, INT32_MAX) == (uint64_t)getpid();
}

static void service_forget(void)
{
	static const char *const names[] = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID",
					    "LISTEN_PIDFDID", "LISTEN_FDNAMES"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		unsetenv(names[i]);
}

/* There is no log yet. The first problem is kept. */
static void service_complain(struct service *service, const char *fmt, ...) _printf_(2, 3);

static void service_complain(struct service *service, const char *fmt, ...)
{
	va_list args;

	if (service->problem[0])
		return;
	va_start(args, fmt);
	vsnprintf(service->problem, sizeof(service->problem), fmt, args);
	va_end(args);
}

/* ---- the manager's socket ---- */

/* A path, or with @ a name in the abstract namespace. 0: no such address. */
static socklen_t service_address(const char *text, struct sockaddr_un *ret)
{
	size_t len = strlen(text);

	*ret = (struct sockaddr_un){.sun_family = AF_UNIX};
	if ((text[0] != '/' && text[0] != '@') || !text[1] || len >= sizeof(ret->sun_path))
		return 0;
	memcpy(ret->sun_path, text, len);
	if (text[0] == '@')
		ret->sun_path[0] = 0;
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (text[0] == '/'));
}

static int service_connect(const char *text, int *ret)
{
	struct sockaddr_un address;
	socklen_t len = service_address(text, &address);
	_cleanup_(fd_close) int fd = len ? socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) : -1;

	if (!len)
		return -EAFNOSUPPORT;
	if (fd < 0 || connect(fd, (const struct sockaddr *)&address, len) < 0)
		return -errno;
	*ret = take_fd(&fd);
	return 0;
}

static void service_open_socket(struct service *service)
{
	const char *text = getenv("NOTIFY_SOCKET");
	int code = text ? service_connect(text, &service->fd) : 0;

	service->connected = text && !code;
	if (code)
		service_complain(service, "NOTIFY_SOCKET=%.60s: %s; the service manager will not be told that the machine runs",
				 text, strerrordesc_np(-code));
}

/* ---- sockets that were handed in ---- */

static int service_option(int fd, int option)
{
	int value = -1;
	socklen_t len = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, option, &value, &len) == 0 ? value : -1;
}

/* Others are for options that name a descriptor, as --vfio fd=N. */
static bool service_is_control(int fd)
{
	return service_option(fd, SO_DOMAIN) == AF_UNIX && service_option(fd, SO_TYPE) == SOCK_STREAM &&
	       service_option(fd, SO_ACCEPTCONN) == 1;
}

static void service_take(struct service *service, int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
		service_complain(service, "LISTEN_FDS: descriptor %d is not open", fd);
		return;
	}
	if (!service_is_control(fd))
		return;
	if (service->socket_count == SERVICE_SOCKETS) {
		service_complain(service, "LISTEN_FDS: a machine serves at most %u sockets; not descriptor %d", SERVICE_SOCKETS,
				 fd);
		return;
	}
	fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	service->sockets[service->socket_count++] = fd;
}

void service_open(struct service *service)
{
	int count = getenv("LISTEN_PID") && service_is_ours("LISTEN_PID") ? (int)service_number("LISTEN_FDS", MAX_LISTEN_FDS) : 0;

	*service = (struct service){0};
	service_open_socket(service);
	if (service->connected && service_is_ours("WATCHDOG_PID"))
		service->watchdog_ns = service_number("WATCHDOG_USEC", UINT64_MAX / 1000) * 1000;
	for (int i = 0; i < count; i++)
		service_take(service, FIRST_FD + i);
	service_forget();
}

int service_take_socket(struct service *service)
{
	return service->socket_count ? take_fd(&service->sockets[--service->socket_count]) : -1;
}

/* ---- messages ---- */

/* The manager may be busy, and its queue full. */
static bool service_send(const struct service *service, const char *text)
{
	return !service->connected || send(service->fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL) >= 0 || errno != EAGAIN;
}

/* All that is to be known, which may be said again. */
static void service_tell(struct service *service)
{
	char text[MESSAGE_MAX];

	snprintf(text, sizeof(text), "%s%sSTATUS=%s", service->ready ? "READY=1\n" : "", service->stopping ? "STOPPING=1\n" : "",
		 service->status);
	if (!service_send(service, text) && service->retry)
		event_timer_set(service->retry, RETRY_NS, 0);
}

static void service_on_retry(void *opaque, uint32_t expirations)
{
	service_tell(opaque);
}

static void service_on_watchdog(void *opaque, uint32_t expirations)
{
	service_send(opaque, "WATCHDOG=1");
}

int service_watch(struct service *service, struct event_loop *loop, const struct log *log, struct err *err)
{
	int code;

	if (service->problem[0])
		log_warn(log, "%s", service->problem);
	code = !service->connected ? 0 : event_loop_timer(loop, service_on_retry, service, &service->retry, err);

	if (!code && service->watchdog_ns)
		code = event_loop_timer(loop, service_on_watchdog, service, &service->watchdog, err);
	return code ? err_prefix(err, code, "service manager") : 0;
}

static void service_set_status(struct service *service, const char *status)
{
	snprintf(service->status, sizeof(service->status), "%s", status);
	for (char *c = service->status; *c; c++)
		if ((unsigned char)*c < ' ')
			*c = '?';
}

void service_status(struct service *service, const char *status)
{
	if (strcmp(service->status, status) == 0)
		return;
	service_set_status(service, status);
	service_tell(service);
}

/* A sign of life is given twice as often as it is wanted. */
void service_ready(struct service *service, const char *status)
{
	bool first = !service->ready;

	if (!first) {
		service_status(service, status);
		return;
	}
	service->ready = true;
	service_set_status(service, status);
	service_tell(service);
	if (service->watchdog)
		event_timer_set(service->watchdog, 1, MAX(service->watchdog_ns / 2, 1u));
}

void service_stopping(struct service *service)
{
	if (service->stopping)
		return;
	service->stopping = true;
	service_set_status(service, "ending");
	service_tell(service);
}

void service_close(struct service *service)
{
	event_source_remove(take_ptr(service->watchdog));
	event_source_remove(take_ptr(service->retry));
	if (service->connected)
		fd_close(&service->fd);
	service->connected = false;
	for (int fd; (fd = service_take_socket(service)) >= 0;)
		close(fd);
}
