/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long a program takes from exec to its first KVM_RUN:
 *
 *	first_run COMMAND [ARG...]
 *
 * writes microseconds to descriptor 3 and ends the program there. A seccomp filter hands the KVM_RUN
 * ioctl, and nothing else, to this process, so that the program runs at full speed and on as many threads as it likes.
 * Exit status 1 when the program ended before, with its own output above.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/kvm.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TIMEOUT_MS 120000

static int64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "first_run: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* The filter's listener: whoever has it hears of every KVM_RUN from now on. */
static int install_filter(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, KVM_RUN, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -1;
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
}

static void send_fd(int socket, int fd)
{
	char byte = 0, control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec iov = {&byte, 1};
	struct msghdr message = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	if (sendmsg(socket, &message, 0) != 1)
		fail("cannot pass the listener");
}

static int receive_fd(int socket)
{
	char byte, control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = {&byte, 1};
	struct msghdr message = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	int fd = -1;

	if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != 1 || !CMSG_FIRSTHDR(&message))
		fail("no listener came");
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
	return fd;
}

int main(int argc, char **argv)
{
	int64_t *began = mmap(NULL, sizeof(*began), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct pollfd listener = {.events = POLLIN};
	int sockets[2], status;
	int64_t took;
	pid_t child;

	if (argc < 2) {
		fprintf(stderr, "usage: first_run COMMAND [ARG...]\n");
		return 2;
	}
	if (began == MAP_FAILED || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets))
		fail("cannot begin");
	child = fork();
	if (child == 0) {
		char byte;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		listener.fd = install_filter();
		if (listener.fd < 0)
			fail("no seccomp filter");
		send_fd(sockets[1], listener.fd);
		if (read(sockets[1], &byte, 1) != 1)
			_exit(1);
		close(listener.fd);
		*began = now_us();
		execvp(argv[1], argv + 1);
		fail(argv[1]);
	}
	listener.fd = receive_fd(sockets[0]);
	if (write(sockets[0], "", 1) != 1)
		fail("the child is gone");
	/* POLLHUP: the last process with the filter has ended. */
	status = poll(&listener, 1, TIMEOUT_MS);
	took = now_us() - *began;
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	if (status != 1 || !(listener.revents & POLLIN)) {
		fprintf(stderr, "first_run: %s %s\n", argv[1], status ? "ended without KVM_RUN" : "took too long");
		return 1;
	}
	dprintf(3, "%lld\n", (long long)took);
	return 0;
}
