/* SPDX-License-Identifier: Apache-2.0 */
/* See migration_proxy.h. One poll loop, connections in pairs. */
#include "tests/unit/migration_proxy.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/irq.h"
#include "core/util.h"

#define MAX_FDS 40
#define DRIP 4096 /* bytes in DRIP_MS */
#define DRIP_MS 10

struct proxy {
	struct sockaddr_un front, back;
	uint64_t limit, passed;
	bool stall, drip;
	pthread_t thread;
	struct pollfd fds[MAX_FDS]; /* 0: the end, 1: the listener, then pairs */
	nfds_t count;
};

static void cut(struct proxy *proxy)
{
	for (nfds_t i = 2; i < proxy->count; i++)
		fd_close(&proxy->fds[i].fd);
	proxy->count = 2;
}

static void connect_through(struct proxy *proxy)
{
	int front = accept4(proxy->fds[1].fd, NULL, NULL, SOCK_CLOEXEC), back = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (front < 0 || connect(back, (struct sockaddr *)&proxy->back, sizeof(proxy->back)) < 0 || proxy->count + 2 > MAX_FDS) {
		fd_close(&front);
		fd_close(&back);
		return;
	}
	proxy->fds[proxy->count++] = (struct pollfd){front, POLLIN, 0};
	proxy->fds[proxy->count++] = (struct pollfd){back, POLLIN, 0};
}

/* Copies what is there, and no more than most, from one end to the other; false when the limit is reached. */
static bool pass(struct proxy *proxy, nfds_t i, uint64_t most)
{
	char buf[65536];
	struct pollfd *from = &proxy->fds[i], *to = &proxy->fds[i & 1 ? i - 1 : i + 1];
	ssize_t n = recv(from->fd, buf, MIN(sizeof(buf), most), MSG_DONTWAIT);

	if (n < 0 && errno == EAGAIN)
		return true;
	if (n <= 0) {
		from->events = 0; /* and what comes back still goes */
		shutdown(to->fd, SHUT_WR);
		if (n < 0 || to->events == 0) {
			fd_close(&from->fd);
			fd_close(&to->fd);
		}
		return true;
	}
	for (ssize_t sent = 0; sent < n;) {
		ssize_t m = send(to->fd, buf + sent, (size_t)(n - sent), MSG_NOSIGNAL);

		if (m <= 0)
			break;
		sent += m;
	}
	proxy->passed += (uint64_t)n;
	return proxy->passed < proxy->limit;
}

/* The first connection, control, is as fast as ever. */
static void drip(struct proxy *proxy)
{
	while (poll(proxy->fds, 1, DRIP_MS) == 0)
		for (nfds_t i = 2; i < proxy->count; i++)
			if (proxy->fds[i].fd >= 0)
				pass(proxy, i, i < 4 ? UINT64_MAX : DRIP);
}

static void *run(void *opaque)
{
	struct proxy *proxy = opaque;
	bool flows = true;

	while (flows && poll(proxy->fds, proxy->count, -1) >= 0 && !proxy->fds[0].revents) {
		if (proxy->fds[1].revents)
			connect_through(proxy);
		for (nfds_t i = 2; i < proxy->count && flows; i++)
			if (proxy->fds[i].fd >= 0 && proxy->fds[i].revents)
				flows = pass(proxy, i, proxy->limit - proxy->passed);
	}
	if (proxy->drip)
		drip(proxy);
	else if (!proxy->stall)
		cut(proxy);
	poll(proxy->fds, 1, -1); /* for the end */
	cut(proxy);
	return NULL;
}

static void release(struct proxy *proxy)
{
	fd_close(&proxy->fds[0].fd);
	fd_close(&proxy->fds[1].fd);
	unlink(proxy->front.sun_path);
	free(proxy);
}

struct proxy *proxy_open(const char *front, const char *back, uint64_t limit, bool stall,
			 bool drips)
{
	struct proxy *proxy = malloc(sizeof(*proxy));

	if (!proxy)
		return NULL;
	*proxy = (struct proxy){.front.sun_family = AF_UNIX, .back.sun_family = AF_UNIX, .limit = limit, .stall = stall, .drip = drips,
				.count = 2};
	snprintf(proxy->front.sun_path, sizeof(proxy->front.sun_path), "%s", front);
	snprintf(proxy->back.sun_path, sizeof(proxy->back.sun_path), "%s", back);
	unlink(front);
	proxy->fds[0] = (struct pollfd){eventfd(0, EFD_CLOEXEC), POLLIN, 0};
	proxy->fds[1] = (struct pollfd){socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), POLLIN, 0};
	if (bind(proxy->fds[1].fd, (struct sockaddr *)&proxy->front, sizeof(proxy->front)) == 0 && listen(proxy->fds[1].fd, 16) == 0 &&
	    pthread_create(&proxy->thread, NULL, run, proxy) == 0)
		return proxy;
	release(proxy);
	return NULL;
}

uint64_t proxy_close(struct proxy *proxy)
{
	uint64_t passed;

	if (!proxy)
		return 0;
	eventfd_kick(proxy->fds[0].fd);
	pthread_join(proxy->thread, NULL);
	passed = proxy->passed;
	release(proxy);
	return passed;
}
