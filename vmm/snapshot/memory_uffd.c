/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See memory_uffd.h, and Documentation/admin-guide/mm/userfaultfd.rst of Linux. The watch is a thread of its own, since
 * each other one may be waiting for a page, the event loop's as well.
 */
#include "vmm/snapshot/memory_uffd.h"

#include "core/errand.h"
#include "core/irq.h"
#include "core/monotonic.h"
#include "core/thread.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

#define SILENCE_MS 10000u
#define SAMPLE_MS 500
#define CONNECT_SECONDS 10
#define MINCORE_PAGES 65536u /* at a time */

struct memory_uffd {
	struct memory_uffd_options options;
	char socket[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	int fd, connection, stop_fd;
	char *host;
	uint64_t size;
	struct memory_guard *guard;
	pthread_t thread;
	bool watching;
	/* the watch's thread */
	int64_t since;      /* when a page was first waited for without progress; 0: none is */
	uint64_t present;   /* pages, then */
	int64_t next_count; /* counting them takes time */
	unsigned char *there;
};

/* ---- the userfaultfd ---- */

/* In the device's way, access to the device decides, and in the other, a capability or a sysctl. */
static int memory_uffd_open(struct err *err)
{
	_cleanup_(fd_close) int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	int fd = device < 0 ? -1 : ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (fd >= 0)
		return fd;
	if (errno == ENOSYS)
		return err_set(err, -ENOSYS, "this host's kernel has no userfaultfd");
	if (errno != EPERM)
		return err_sys(err, -errno, "userfaultfd");
	return err_set(err, -EPERM, "no right to a userfaultfd for page faults of the kernel, which KVM causes: give this "
		       "user access to /dev/userfaultfd, or set the sysctl vm.unprivileged_userfaultfd to 1");
}

static int memory_uffd_shake_hands(int fd, struct err *err)
{
	struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_MISSING_HUGETLBFS |
							      UFFD_FEATURE_MISSING_SHMEM};

	return ioctl(fd, UFFDIO_API, &api) < 0 ? err_set(err, -ENOTSUP, "the userfaultfd of this host's kernel is too old") :
						 0;
}

int memory_uffd_check(struct err *err)
{
	_cleanup_(fd_close) int fd = memory_uffd_open(err);

	return fd < 0 ? fd : memory_uffd_shake_hands(fd, err);
}

/* ---- the handler ---- */

/* A handler that has been stopped takes connections until its queue is full, so that connecting may wait. */
static int memory_uffd_connect(struct memory_uffd *uffd, const char *path, struct err *err)
{
	const struct timeval patience = {.tv_sec = CONNECT_SECONDS};
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	size_t len = strlen(path);

	if (!len || len >= sizeof(name.sun_path))
		return err_set(err, -ENAMETOOLONG, "--memory-mode uffd=%s: a socket's path has 1 to %zu bytes", path,
			       sizeof(name.sun_path) - 1);
	memcpy(name.sun_path, path, len);
	memcpy(uffd->socket, path, len + 1);
	uffd->connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (uffd->connection < 0)
		return err_sys(err, -errno, "--memory-mode uffd=%s", path);
	setsockopt(uffd->connection, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (connect(uffd->connection, (struct sockaddr *)&name, sizeof(name)) == 0)
		return 0;
	if (errno == EAGAIN)
		return err_set(err, -ETIMEDOUT, "--memory-mode uffd=%s: the handler takes no connection for %d s", path,
			       CONNECT_SECONDS);
	return err_set(err, -errno, "--memory-mode uffd=%s: %s; start the handler first", path, strerrordesc_np(errno));
}

int memory_uffd_create(const struct memory_uffd_options *options, struct memory_uffd **ret, struct err *err)
{
	struct memory_uffd *uffd = calloc(1, sizeof(*uffd));
	int code;

	if (!uffd)
		return err_sys(err, -ENOMEM, "--memory-mode uffd");
	uffd->options = *options;
	uffd->options.page_size = options->page_size ?: GUEST_PAGE_SIZE;
	uffd->options.silence = options->silence ?: SILENCE_MS;
	uffd->connection = uffd->stop_fd = -1;
	uffd->fd = memory_uffd_open(err);
	code = uffd->fd < 0 ? err_prefix(err, uffd->fd, "--memory-mode uffd") : memory_uffd_shake_hands(uffd->fd, err);
	code = code ?: memory_uffd_connect(uffd, options->socket, err);
	if (code) {
		memory_uffd_destroy(uffd);
		return code;
	}
	*ret = uffd;
	return 0;
}

static int memory_uffd_send(const struct memory_uffd *uffd, char *text, struct err *err)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec iov = {.iov_base = text, .iov_len = strlen(text)};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
				 .msg_controllen = sizeof(control)};
	struct cmsghdr *rights = CMSG_FIRSTHDR(&message);

	rights->cmsg_level = SOL_SOCKET;
	rights->cmsg_type = SCM_RIGHTS;
	rights->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(rights), &uffd->fd, sizeof(int));
	if (sendmsg(uffd->connection, &message, MSG_NOSIGNAL) != (ssize_t)iov.iov_len)
		return err_sys(err, -errno, "--memory-mode uffd=%s: the message to the handler", uffd->socket);
	return 0;
}

int memory_uffd_fill(void *opaque, void *host, uint64_t size, struct err *err)
{
	struct memory_uffd *uffd = opaque;
	struct uffdio_register all = {.range = {(uintptr_t)host, size}, .mode = UFFDIO_REGISTER_MODE_MISSING};
	unsigned long long page_size = uffd->options.page_size;
	char text[256];

	uffd->host = host;
	uffd->size = size;
	if (ioctl(uffd->fd, UFFDIO_REGISTER, &all) < 0)
		return err_sys(err, -errno, "--memory-mode uffd: registering memory");
	/* In the machine's address space, RAM is one range, as in the file. */
	snprintf(text, sizeof(text),
		 "[{\"base_host_virt_addr\":%llu,\"size\":%llu,\"offset\":0,\"page_size\":%llu,\"page_size_kib\":%llu}]",
		 (unsigned long long)(uintptr_t)host, (unsigned long long)size, page_size, page_size);
	return memory_uffd_send(uffd, text, err);
}

/* ---- the end ---- */

/*
 * Replaces the memory by a file without a byte, so that whoever waits for a page, or touches memory from now on, gets an
 * error: EFAULT in KVM and in system calls, SIGBUS in threads, which is the guard's. Then wakes them, and takes the
 * events for which a balloon waits.
 */
static void memory_uffd_cut(struct memory_uffd *uffd)
{
	_cleanup_(fd_close) int empty = errand_memfd("mvmm-no-memory");
	struct uffdio_range all = {(uintptr_t)uffd->host, uffd->size};
	struct uffd_msg message;
	int prot = empty < 0 ? PROT_NONE : PROT_READ | PROT_WRITE;

	if (mmap(uffd->host, uffd->size, prot, MAP_PRIVATE | MAP_FIXED | (empty < 0 ? MAP_ANONYMOUS : 0), empty, 0) ==
	    MAP_FAILED)
		return; /* They wait for ever, and no page is read as zeros. */
	while (read(uffd->fd, &message, sizeof(message)) == (ssize_t)sizeof(message))
		continue;
	ioctl(uffd->fd, UFFDIO_WAKE, &all);
}

/* ---- the watch ---- */

/* Page faults that have not been served; also those that the handler has read. */
static bool memory_uffd_has_faults(const struct memory_uffd *uffd)
{
	struct pollfd unread = {.fd = uffd->fd, .events = POLLIN};
	unsigned long total = 0;
	char line[128];
	FILE *file;

	if (poll(&unread, 1, 0) > 0 && unread.revents & POLLIN)
		return true;
	snprintf(line, sizeof(line), "/proc/self/fdinfo/%d", uffd->fd);
	file = errand_fopen(line);
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "total: %lu", &total) == 1)
			break;
	if (file)
		fclose(file);
	return total > 0;
}

static uint64_t memory_uffd_count_present(struct memory_uffd *uffd)
{
	uint64_t count = 0, step = MINCORE_PAGES * GUEST_PAGE_SIZE;

	for (uint64_t at = 0; at < uffd->size; at += step) {
		uint64_t len = MIN(step, uffd->size - at);

		if (mincore(uffd->host + at, len, uffd->there) < 0)
			continue;
		for (uint64_t i = 0; i < len / GUEST_PAGE_SIZE; i++)
			count += uffd->there[i] & 1;
	}
	return count;
}

/* Whether a page has been waited for all the time, and none has come. */
static bool memory_uffd_is_silent(struct memory_uffd *uffd)
{
	int64_t now = monotonic_ms();
	uint64_t present;

	if (!memory_uffd_has_faults(uffd)) {
		uffd->since = 0;
		return false;
	}
	if (uffd->since && now < uffd->next_count && now - uffd->since < uffd->options.silence)
		return false;
	present = memory_uffd_count_present(uffd);
	uffd->next_count = now + 20 * (monotonic_ms() - now);
	if (!uffd->since || present != uffd->present) {
		uffd->since = now;
		uffd->present = present;
	}
	return now - uffd->since >= uffd->options.silence;
}

/* True: the connection is closed. What the handler says has no meaning. */
static bool memory_uffd_hung_up(const struct memory_uffd *uffd)
{
	char bytes[256];
	ssize_t n = recv(uffd->connection, bytes, sizeof(bytes), MSG_DONTWAIT);

	return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

static void *memory_uffd_run(void *opaque)
{
	struct memory_uffd *uffd = opaque;
	struct pollfd fds[] = {{.fd = uffd->stop_fd, .events = POLLIN}, {.fd = uffd->connection, .events = POLLIN}};
	int sample = (int)MIN((unsigned int)SAMPLE_MS, uffd->options.silence / 4 + 1);

	for (;;) {
		int ready = poll(fds, 2, sample);

		if (fds[0].revents)
			return NULL;
		if (ready > 0 && fds[1].revents && memory_uffd_hung_up(uffd)) {
			memory_guard_lose(uffd->guard, "the handler of the guest's memory at %s is gone", uffd->socket);
			break;
		}
		if (memory_uffd_is_silent(uffd)) {
			memory_guard_lose(uffd->guard, "the handler of the guest's memory at %s has brought no page for "
					  "%u s", uffd->socket, uffd->options.silence / 1000);
			break;
		}
	}
	memory_uffd_cut(uffd);
	return NULL;
}

static int memory_uffd_start(struct memory_uffd *uffd, struct err *err)
{
	int code = thread_start(&uffd->thread, THREAD_MEMORY, memory_uffd_run, uffd, "uffd watch");
	uffd->watching = code == 0;
	return code ? err_sys(err, code, "--memory-mode uffd: a thread") : 0;
}

int memory_uffd_watch(struct memory_uffd *uffd, struct memory_guard *guard, struct err *err)
{
	uffd->guard = guard;
	uffd->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	uffd->there = malloc(MINCORE_PAGES);
	if (uffd->stop_fd < 0 || !uffd->there)
		return err_sys(err, uffd->there ? -errno : -ENOMEM, "--memory-mode uffd");
	return memory_uffd_start(uffd, err);
}

int memory_uffd_renew(struct memory_uffd *uffd, struct err *err)
{
	eventfd_t kicks;

	memory_uffd_unwatch(uffd);
	eventfd_read(uffd->stop_fd, &kicks);
	return memory_uffd_start(uffd, err);
}

void memory_uffd_unwatch(struct memory_uffd *uffd)
{
	if (!uffd || !uffd->watching)
		return;
	eventfd_kick(uffd->stop_fd);
	pthread_join(uffd->thread, NULL);
	uffd->watching = false;
}

void memory_uffd_destroy(struct memory_uffd *uffd)
{
	if (!uffd)
		return;
	memory_uffd_unwatch(uffd);
	fd_close(&uffd->stop_fd);
	fd_close(&uffd->connection);
	fd_close(&uffd->fd);
	free(uffd->there);
	free(uffd);
}
