/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A handler for mvmm restore --memory-mode uffd=SOCKET: it serves the memory of machines from a snapshot's memory file,
 * page by page, as they touch it. An example to start from: a handler of your own can fetch pages from elsewhere.
 *
 *	cc -O2 -o uffd-handler uffd-handler.c
 *	uffd-handler SOCKET MEMORY-FILE &
 *	mvmm restore --from DIR --memory-mode uffd=SOCKET
 *
 * A machine connects and sends one message: a JSON array of regions, and with it a userfaultfd. The handler reads page
 * faults from that and copies pages (ioctl_userfaultfd(2)). The machine ends if the connection is closed, or if a page
 * that it waits for does not come for 10 seconds. When the machine ends, it closes the connection.
 *
 * UFFD_EVENT_REMOVE says that the guest gave pages back, by its balloon: from then on they are zero. Until the event is
 * read, pages cannot be copied (EAGAIN), so faults that were read before it are kept and served after it.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define MAX_REGIONS 16
#define MAX_WAITING 1024 /* faults that wait for an event to be read; more stay in the userfaultfd */

struct region {
	unsigned long long base, size, offset, page_size; /* address in the machine; bytes; in the file; bytes */
	unsigned char *removed;                           /* for each page */
};

struct machine {
	int connection, fd;
	const char *memory; /* the mapped file */
	unsigned long long memory_size;
	struct region regions[MAX_REGIONS];
	int region_count;
	unsigned long long waiting[MAX_WAITING]; /* addresses */
	int waiting_count;
	void *zeros;
};

static void fail(const char *what)
{
	fprintf(stderr, "uffd-handler: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* The number of a member of the JSON object at text. */
static unsigned long long number(const char *text, const char *name)
{
	const char *end = strchr(text, '}'), *at = strstr(text, name);

	if (!end || !at || at > end || !(at = strchr(at, ':')))
		return 0;
	return strtoull(at + 1, NULL, 10);
}

static bool parse(struct machine *m, const char *text)
{
	for (; (text = strchr(text, '{')) && m->region_count < MAX_REGIONS; text++) {
		struct region *r = &m->regions[m->region_count++];

		r->base = number(text, "\"base_host_virt_addr\"");
		r->size = number(text, "\"size\"");
		r->offset = number(text, "\"offset\"");
		r->page_size = number(text, "\"page_size\"");
		if (!r->page_size || r->page_size & (r->page_size - 1) || r->offset > m->memory_size ||
		    r->size > m->memory_size - r->offset)
			return false;
		r->removed = calloc(1, r->size / r->page_size + 1);
		if (!r->removed)
			fail("memory");
	}
	return m->region_count > 0;
}

/* The message, and the userfaultfd that came with it. */
static void receive(struct machine *m)
{
	char text[4096];
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = {text, sizeof(text) - 1};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
				 .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(m->connection, &message, MSG_CMSG_CLOEXEC);
	struct cmsghdr *rights = n > 0 ? CMSG_FIRSTHDR(&message) : NULL;

	if (n < 0)
		fail("recvmsg");
	text[n] = 0;
	if (!rights || rights->cmsg_type != SCM_RIGHTS || !parse(m, text)) {
		fprintf(stderr, "uffd-handler: no userfaultfd, or regions that are not in the memory file\n");
		exit(1);
	}
	memcpy(&m->fd, CMSG_DATA(rights), sizeof(m->fd));
}

static struct region *find(struct machine *m, unsigned long long address)
{
	for (int i = 0; i < m->region_count; i++)
		if (address >= m->regions[i].base && address - m->regions[i].base < m->regions[i].size)
			return &m->regions[i];
	return NULL;
}

/* False: not now, there is an event to read first. */
static bool serve(struct machine *m, unsigned long long address)
{
	struct region *r = find(m, address);
	unsigned long long at = r ? (address - r->base) & ~(r->page_size - 1) : 0;
	struct uffdio_copy copy;

	if (!r)
		return true;
	copy = (struct uffdio_copy){.dst = r->base + at, .len = r->page_size};
	copy.src = (unsigned long)(r->removed[at / r->page_size] ? m->zeros : m->memory + r->offset + at);
	if (ioctl(m->fd, UFFDIO_COPY, &copy) == 0)
		return true;
	if (errno == EEXIST) { /* two processors touched it */
		struct uffdio_range page = {copy.dst, copy.len};

		ioctl(m->fd, UFFDIO_WAKE, &page);
		return true;
	}
	if (errno != EAGAIN && errno != ESRCH && errno != ENOENT)
		fail("UFFDIO_COPY");
	return errno != EAGAIN;
}

static void serve_waiting(struct machine *m)
{
	int left = 0;

	for (int i = 0; i < m->waiting_count; i++)
		if (!serve(m, m->waiting[i]))
			m->waiting[left++] = m->waiting[i];
	m->waiting_count = left;
}

static void take_removal(struct machine *m, const struct uffd_msg *message)
{
	for (unsigned long long at = message->arg.remove.start; at < message->arg.remove.end;) {
		struct region *r = find(m, at);

		if (!r)
			return;
		r->removed[(at - r->base) / r->page_size] = 1;
		at += r->page_size;
	}
}

/* Until the machine ends. Pages are served one by one; a real handler would bring some more at once. */
static void run(struct machine *m)
{
	struct pollfd fds[] = {{.fd = m->fd, .events = POLLIN}, {.fd = m->connection, .events = POLLRDHUP}};

	for (;;) {
		struct uffd_msg message;

		if (poll(fds, 2, m->waiting_count ? 1 : -1) < 0 && errno != EINTR)
			fail("poll");
		if (fds[1].revents)
			return;
		while (m->waiting_count < MAX_WAITING && read(m->fd, &message, sizeof(message)) == sizeof(message)) {
			if (message.event == UFFD_EVENT_PAGEFAULT)
				m->waiting[m->waiting_count++] = message.arg.pagefault.address;
			else if (message.event == UFFD_EVENT_REMOVE)
				take_removal(m, &message);
		}
		serve_waiting(m);
	}
}

static int listen_at(const char *path)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || strlen(path) >= sizeof(name.sun_path))
		fail(path);
	strcpy(name.sun_path, path);
	unlink(path);
	umask(077); /* the memory of machines is served to whoever connects */
	if (bind(fd, (struct sockaddr *)&name, sizeof(name)) < 0 || listen(fd, 16) < 0)
		fail(path);
	return fd;
}

int main(int argc, char **argv)
{
	struct machine m = {0};
	struct stat st;
	int listener, file;

	if (argc != 3) {
		fprintf(stderr, "usage: uffd-handler SOCKET MEMORY-FILE\n");
		return 2;
	}
	file = open(argv[2], O_RDONLY | O_CLOEXEC);
	if (file < 0 || fstat(file, &st) < 0)
		fail(argv[2]);
	m.memory_size = (unsigned long long)st.st_size;
	m.memory = mmap(NULL, m.memory_size, PROT_READ, MAP_SHARED, file, 0);
	m.zeros = mmap(NULL, 1 << 30, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m.memory == MAP_FAILED || m.zeros == MAP_FAILED)
		fail(argv[2]);
	listener = listen_at(argv[1]);
	signal(SIGCHLD, SIG_IGN); /* a process for each machine; nobody waits for them */
	for (;;) {
		m.connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (m.connection < 0 && errno != EINTR && errno != ECONNABORTED)
			fail("accept");
		if (m.connection >= 0 && fork() == 0) {
			close(listener);
			receive(&m);
			run(&m);
			return 0;
		}
		if (m.connection >= 0)
			close(m.connection);
	}
}
