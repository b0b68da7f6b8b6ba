/* SPDX-License-Identifier: Apache-2.0 */
/* See jail_network.h. One message: 0 and the namespace's descriptor, or an error. */
#include "vmm/jail/jail_network.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>

#define WAIT_MS 60000 /* other namespaces that are made or removed are in the way */

union jail_network_rights {
	struct cmsghdr header;
	char space[CMSG_SPACE(sizeof(int))];
};

int jail_network_open(struct jail_network *network, struct err *err)
{
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
		return err_sys(err, -errno, "--jail: a socket");
	*network = (struct jail_network){.keeper_fd = fds[0], .machine_fd = fds[1]};
	return 0;
}

void jail_network_done(struct jail_network *network)
{
	fd_close(&network->keeper_fd);
	fd_close(&network->machine_fd);
}

void jail_network_make(struct jail_network *network)
{
	_cleanup_(fd_close) int fd = -1;
	int code = 0;
	struct iovec iov = {&code, sizeof(code)};
	union jail_network_rights rights = {.space = {0}};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};

	if (network->keeper_fd < 0)
		return;
	fd_close(&network->machine_fd);
	fd = unshare(CLONE_NEWNET) < 0 ? -1 : open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	code = fd < 0 ? -errno : 0;
	if (fd >= 0) {
		message.msg_control = &rights;
		message.msg_controllen = sizeof(rights);
		rights.header = (struct cmsghdr){CMSG_LEN(sizeof(fd)), SOL_SOCKET, SCM_RIGHTS};
		memcpy(CMSG_DATA(&rights.header), &fd, sizeof(fd));
	}
	sendmsg(network->keeper_fd, &message, MSG_NOSIGNAL); /* unless the machine has ended */
	fd_close(&network->keeper_fd);
}

static int jail_network_receive(struct jail_network *network, int *ret)
{
	int code = -EPIPE;
	struct iovec iov = {&code, sizeof(code)};
	union jail_network_rights rights = {.space = {0}};
	struct msghdr message = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &rights, .msg_controllen = sizeof(rights),
	};
	struct pollfd waiting = {.fd = network->machine_fd, .events = POLLIN};

	if (poll(&waiting, 1, WAIT_MS) != 1)
		return -ETIMEDOUT;
	if (recvmsg(network->machine_fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) < 0)
		return -errno;
	if (!code && message.msg_controllen < sizeof(rights))
		return -EMFILE; /* there was no room for it */
	if (!code)
		memcpy(ret, CMSG_DATA(&rights.header), sizeof(*ret));
	return code;
}

int jail_network_take(struct jail_network *network, int *ret, struct err *err)
{
	int code;

	if (network->machine_fd < 0)
		return 0;
	fd_close(&network->keeper_fd);
	code = jail_network_receive(network, ret);
	fd_close(&network->machine_fd);
	return code ? err_sys(err, code, "--jail: a network namespace") : 0;
}
