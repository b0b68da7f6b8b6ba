/* SPDX-License-Identifier: Apache-2.0 */
/* See ports.h. */
#include "vmm/session/ports.h"

#include "core/errand.h"
#include "vmm/session/terminal.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>

struct port {
	const struct log *log;
	const char *option;
	int in_fd, out_fd;
	struct terminal *terminal; /* owns the descriptors of a terminal */
	int slave_fd;  /* of a pseudo terminal: kept open, because a client that leaves would hang up the serial port */
	/* a socket */
	struct event_loop *loop;
	int listen_fd;
	struct event_source *listener;
	char *path; /* removed at the end: a socket, or a file that did not exist before, until port_keep */
	struct port_events events;
};

static int ports_open_stdio(struct port *port, const struct port_config *config, struct err *err)
{
	int ret = terminal_open(port->loop, port->events.leave, port->events.opaque, &port->terminal, err);

	if (ret < 0)
		return ret;
	port->in_fd = terminal_in(port->terminal);
	port->out_fd = terminal_out(port->terminal);
	return 0;
}

static int ports_open_pty(struct port *port, const struct port_config *config, struct err *err)
{
	_cleanup_(fd_close) int fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	struct termios raw;
	char path[64];

	if (fd < 0 || grantpt(fd) < 0 || unlockpt(fd) < 0 || ptsname_r(fd, path, sizeof(path)) != 0)
		return err_sys(err, -errno, "%s pty", port->option);
	port->slave_fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (port->slave_fd < 0)
		return err_sys(err, -errno, "%s pty: %s", port->option, path);
	if (tcgetattr(port->slave_fd, &raw) == 0) {
		cfmakeraw(&raw);
		tcsetattr(port->slave_fd, TCSANOW, &raw);
	}
	/* The console must notice that no client is there: else its output fills the pty and blocks the guest. */
	if (!port->events.changed)
		fd_close(&port->slave_fd);
	log_info(port->log, "%s is %s", port->option, path);
	port->in_fd = port->out_fd = take_fd(&fd);
	return 0;
}

/* A device is also read. A file is appended to, also after somebody (such as logrotate) has truncated it. */
static int ports_open_file(struct port *port, const struct port_config *config, struct err *err)
{
	struct stat st;
	bool device = stat(config->path, &st) == 0 && S_ISCHR(st.st_mode);
	int fd = device ? open(config->path, O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK) :
			  open(config->path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);

	if (fd >= 0 && !device)
		port->path = strdup(config->path);
	else if (fd < 0 && errno == EEXIST)
		fd = open(config->path, O_WRONLY | O_APPEND | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return err_sys(err, -errno, "%s %s", port->option, config->path);
	port->out_fd = fd;
	port->in_fd = device ? fd : -1;
	return 0;
}

/* ---- a socket: one client at a time, the next one waits in the backlog ---- */

static void ports_drop_client(struct port *port)
{
	port->events.changed(port->events.opaque, -1, -1);
	fd_close(&port->in_fd);
	port->out_fd = -1;
}

/* Also one that has left input which the guest does not read; but not one that still waits for output. */
static bool ports_client_gone(const struct port *port)
{
	struct pollfd client = {.fd = port->in_fd};
	char byte;

	if (poll(&client, 1, 0) == 1 && client.revents & (POLLHUP | POLLERR))
		return true;
	return recv(port->in_fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

static void ports_on_connect(void *opaque, uint32_t events)
{
	struct port *port = opaque;
	int fd = event_source_accept(port->listener, NULL);

	if (fd < 0)
		return;
	if (port->in_fd >= 0 && !ports_client_gone(port)) {
		fd_close(&fd);
		return;
	}
	if (port->in_fd >= 0)
		ports_drop_client(port);
	port->in_fd = port->out_fd = fd;
	port->events.changed(port->events.opaque, fd, fd);
}

/* Replaces a socket file on which nothing listens any more. */
static bool ports_stale(const struct sockaddr_un *addr)
{
	_cleanup_(fd_close) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	return fd >= 0 && connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0 && errno == ECONNREFUSED;
}

static int ports_bind_socket(int fd, const struct sockaddr_un *addr)
{
	if (bind(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0)
		return 0;
	if (errno != EADDRINUSE || !ports_stale(addr))
		return -errno;
	unlink(addr->sun_path);
	return bind(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0 ? -errno : 0;
}

static int ports_open_socket(struct port *port, const struct port_config *config, struct err *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int ret;

	if (strlen(config->path) >= sizeof(addr.sun_path))
		return err_set(err, -ENAMETOOLONG, "%s socket=%s: the path of a socket has at most %zu characters",
			       port->option, config->path, sizeof(addr.sun_path) - 1);
	memcpy(addr.sun_path, config->path, strlen(config->path));
	port->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (port->listen_fd < 0)
		return err_sys(err, -errno, "%s socket=%s", port->option, config->path);
	ret = ports_bind_socket(port->listen_fd, &addr);
	if (ret < 0)
		return err_sys(err, ret, "%s socket=%s", port->option, config->path);
	port->path = strdup(config->path);
	if (!port->path || listen(port->listen_fd, 1) < 0)
		return err_sys(err, port->path ? -errno : -ENOMEM, "%s socket=%s", port->option, config->path);
	return event_loop_watch(port->loop, port->listen_fd, EPOLLIN, ports_on_connect, port, &port->listener, err);
}

static int ports_open_none(struct port *port, const struct port_config *config, struct err *err)
{
	return 0;
}

int port_open(const struct port_config *config, const char *option, struct event_loop *loop, const struct log *log,
	      const struct port_events *events, struct port **ret, struct err *err)
{
	static int (*const openers[])(struct port *port, const struct port_config *config, struct err *err) = {
		[PORT_NONE] = ports_open_none, [PORT_STDIO] = ports_open_stdio, [PORT_PTY] = ports_open_pty,
		[PORT_FILE] = ports_open_file, [PORT_SOCKET] = ports_open_socket,
	};
	struct port *port = malloc(sizeof(*port));
	int code;

	if (!port)
		return err_sys(err, -ENOMEM, "%s", option);
	*port = (struct port){
		.log = log, .option = option, .in_fd = -1, .out_fd = -1, .slave_fd = -1, .listen_fd = -1, .loop = loop,
		.events = *events,
	};
	code = openers[config->kind](port, config, err);
	if (code < 0) {
		port_close(port);
		return code;
	}
	*ret = port;
	return 0;
}

void port_close(struct port *port)
{
	if (!port)
		return;
	event_source_remove(port->listener);
	if (port->path)
		errand_unlink(port->path);
	free(port->path);
	fd_close(&port->listen_fd);
	fd_close(&port->slave_fd);
	if (port->terminal) {
		terminal_close(port->terminal);
	} else {
		if (port->in_fd != port->out_fd)
			fd_close(&port->in_fd);
		fd_close(&port->out_fd);
	}
	free(port);
}

void port_keep(struct port *port)
{
	if (port->listen_fd < 0)
		free(take_ptr(port->path));
}

int port_in(const struct port *port)
{
	return port->in_fd;
}

int port_out(const struct port *port)
{
	return port->out_fd;
}
