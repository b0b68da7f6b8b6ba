/* SPDX-License-Identifier: Apache-2.0 */
/* See deadline.h. */
#include "vmm/migration/deadline.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>

int deadline_create(int cancel_fd, struct deadline *ret, struct err *err)
{
	struct deadline deadline = {.fd = epoll_create1(EPOLL_CLOEXEC),
				    .timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)};
	struct epoll_event event = {.events = EPOLLIN};
	int code = 0;

	if (deadline.fd < 0 || deadline.timer_fd < 0 ||
	    epoll_ctl(deadline.fd, EPOLL_CTL_ADD, deadline.timer_fd, &event) < 0 ||
	    (cancel_fd >= 0 && epoll_ctl(deadline.fd, EPOLL_CTL_ADD, cancel_fd, &event) < 0))
		code = err_sys(err, -errno, "a deadline");
	if (code)
		deadline_destroy(&deadline);
	else
		*ret = deadline;
	return code;
}

void deadline_destroy(struct deadline *deadline)
{
	fd_close(&deadline->fd);
	fd_close(&deadline->timer_fd);
}

void deadline_set(struct deadline *deadline, uint64_t time)
{
	const struct itimerspec spec = {
		.it_value = {.tv_sec = (time_t)(time / 1000000000), .tv_nsec = (long)(time % 1000000000)},
	};

	timerfd_settime(deadline->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL);
}

bool deadline_passed(const struct deadline *deadline)
{
	struct pollfd fd = {.fd = deadline->timer_fd, .events = POLLIN};

	return poll(&fd, 1, 0) == 1;
}
