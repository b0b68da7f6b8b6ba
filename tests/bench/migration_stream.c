/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast memory travels over the loopback: by the migration's sender and receiver, and by bare loops of send(2) and recv(2)
 * with as many connections, from the same memory of random bytes into the same memory, which is there already: what a host
 * takes to find pages for it differs from one moment to the next. In turns, so that whatever else the machine does meets both.
 *
 *	migration_stream [MIB [STREAMS [ROUNDS [bare]]]]
 *
 * Prints a line a round: GiB/s, and the CPU's milliseconds for a GiB, which another load disturbs less. `warm` is bare into one
 * small buffer a connection, as fast as the loopback gets. With the word `bare` that loop alone, into fresh memory: what stands
 * beside a migration as a whole, whose target has to find its memory too.
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#include "core/bitmap.h"
#include "tests/unit/channel_pair.h"
#include "vmm/migration/memory_receiver.h"
#include "vmm/migration/memory_sender.h"

#define MAX_STREAMS WIRE_MAX_STREAMS
#define BARE_CALL MIB(1)

static uint8_t *from, *to;
static size_t size;
static unsigned int streams = 4;

static void fail(const char *what)
{
	fprintf(stderr, "migration_stream: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static double cpu(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* What a copy took. */
struct cost {
	double rate; /* GiB/s */
	double cpu;  /* ms for a GiB */
};

static struct cost begin(void)
{
	return (struct cost){now(), cpu()};
}

static struct cost since(struct cost begun)
{
	double gib = (double)size / (double)GIB(1);

	return (struct cost){gib / (now() - begun.rate), (cpu() - begun.cpu) * 1000 / gib};
}

static uint8_t *fresh(void)
{
	uint8_t *host = mmap(NULL, size + MIB(2), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (host == MAP_FAILED)
		fail("mmap");
	host = (uint8_t *)(uintptr_t)align_up((uintptr_t)host, MIB(2));
	madvise(host, size, MADV_HUGEPAGE);
	return host;
}

static void connect_pairs(int fds[][2])
{
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
	struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(name);

	if (bind(listener, (struct sockaddr *)&name, len) < 0 || listen(listener, 1) < 0 ||
	    getsockname(listener, (struct sockaddr *)&name, &len) < 0)
		fail("listen");
	for (unsigned int i = 0; i < streams; i++) {
		fds[i][0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (connect(fds[i][0], (struct sockaddr *)&name, len) < 0)
			fail("connect");
		setsockopt(fds[i][0], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		fds[i][1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (fds[i][1] < 0)
			fail("accept");
	}
	close(listener);
}

/* ---- bare ---- */

struct end {
	pthread_t thread;
	int fd;
	uint8_t *memory;
	size_t len;
	bool warm; /* the same bytes again and again */
};

static void *bare_send(void *opaque)
{
	struct end *end = opaque;

	for (size_t at = 0; at < end->len;) {
		ssize_t n = send(end->fd, end->memory + at, MIN(end->len - at, BARE_CALL), MSG_NOSIGNAL);

		if (n <= 0)
			fail("send");
		at += (size_t)n;
	}
	return NULL;
}

static void *bare_receive(void *opaque)
{
	struct end *end = opaque;

	for (size_t at = 0; at < end->len;) {
		ssize_t n = recv(end->fd, end->memory + (end->warm ? 0 : at), MIN(end->len - at, BARE_CALL), 0);

		if (n <= 0)
			fail("recv");
		at += (size_t)n;
	}
	return NULL;
}

static struct cost bare(bool warm)
{
	struct end ends[MAX_STREAMS][2];
	int fds[MAX_STREAMS][2];
	size_t share = size / streams;
	struct cost cost;

	connect_pairs(fds);
	cost = begin();
	for (unsigned int i = 0; i < streams; i++) {
		ends[i][0] = (struct end){.fd = fds[i][0], .memory = from + i * share, .len = share};
		ends[i][1] = (struct end){.fd = fds[i][1], .memory = to + i * share, .len = share, .warm = warm};
		if (pthread_create(&ends[i][0].thread, NULL, bare_send, &ends[i][0]) ||
		    pthread_create(&ends[i][1].thread, NULL, bare_receive, &ends[i][1]))
			fail("thread");
	}
	for (unsigned int i = 0; i < streams; i++) {
		pthread_join(ends[i][0].thread, NULL);
		pthread_join(ends[i][1].thread, NULL);
		close(fds[i][0]);
		close(fds[i][1]);
	}
	cost = since(cost);
	return cost;
}

/* ---- mvmm's ---- */

static struct guest_memory *memory_of(uint8_t *host)
{
	const struct guest_region region = {.gpa = 0, .size = size, .host = host, .fd = -1};
	struct guest_memory *memory = guest_memory_create();

	if (!memory || guest_memory_add(memory, &region, NULL))
		fail("memory");
	return memory;
}

static _Noreturn void stop(const struct err *err)
{
	fprintf(stderr, "migration_stream: %s\n", err->text);
	exit(1);
}

static struct cost migration(void)
{
	struct channel *out[MAX_STREAMS], *in[MAX_STREAMS];
	int fds[MAX_STREAMS][2];
	struct guest_memory *source = memory_of(from), *target = memory_of(to);
	const struct memory_sender_options sending = {
		.memory = source, .channels = out, .channel_count = streams, .cancel_fd = -1};
	const struct memory_receiver_options receiving = {.memory = target, .channels = in, .channel_count = streams};
	unsigned long *marks = malloc(size / 4096 / 8);
	const struct memory_marks all = {.gpa = 0, .size = size, .bitmap = marks};
	struct memory_receiver *receiver;
	struct memory_sender *sender;
	struct err err;
	struct cost cost;

	memset(marks, 0xff, size / 4096 / 8);
	connect_pairs(fds);
	for (unsigned int i = 0; i < streams; i++) {
		out[i] = channel_end(fds[i][0], WIRE_SOURCE, WIRE_MEMORY, i, streams, 0);
		in[i] = channel_end(fds[i][1], WIRE_TARGET, WIRE_MEMORY, i, streams, 0);
	}
	if (memory_receiver_create(&receiving, &receiver, &err) || memory_sender_create(&sending, &sender, &err))
		stop(&err);
	cost = begin();
	if (memory_sender_send(sender, &all, 1, 0, &err) || memory_sender_end(sender, NULL, 0, &err) ||
	    memory_receiver_wait(receiver, -1, &err))
		stop(&err);
	cost = since(cost);
	memory_sender_destroy(sender);
	memory_receiver_destroy(receiver);
	for (unsigned int i = 0; i < streams; i++) {
		channel_destroy(out[i]);
		channel_destroy(in[i]);
	}
	for (size_t at = 0; at < size; at += MIB(32))
		if (memcmp(from + at, to + at, 4096) != 0)
			stop(&(struct err){"what arrived is not what was sent"});
	guest_memory_destroy(source);
	guest_memory_destroy(target);
	free(marks);
	return cost;
}

static void fill(uint8_t *host)
{
	uint64_t x = 88172645463325252ull;

	for (size_t i = 0; i < size; i += 8) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		memcpy(host + i, &x, 8);
	}
}

static void compare(void)
{
	struct cost mvmm = migration(), loop = bare(false), warm = bare(true);

	printf("mvmm=%.2f bare=%.2f warm=%.2f ratio=%.2f mvmm_cpu=%.0f bare_cpu=%.0f warm_cpu=%.0f\n", mvmm.rate, loop.rate,
	       warm.rate, mvmm.rate / loop.rate, mvmm.cpu, loop.cpu, warm.cpu);
}

static void bare_alone(void)
{
	struct cost loop;

	memset(to, 1, size); /* so that the kernel has pages at hand when they are asked for */
	madvise(to, size, MADV_DONTNEED);
	loop = bare(false);
	printf("bare=%.2f bare_cpu=%.0f\n", loop.rate, loop.cpu);
}

int main(int argc, char **argv)
{
	int rounds = argc > 3 ? atoi(argv[3]) : 5;
	bool alone = argc > 4 && strcmp(argv[4], "bare") == 0;

	size = MIB(argc > 1 ? strtoul(argv[1], NULL, 10) : 1024);
	if (argc > 2)
		streams = (unsigned int)strtoul(argv[2], NULL, 10);
	if (!size || size % MIB(2) || !streams || streams > MAX_STREAMS || size % (streams * MIB(2)) || rounds < 1) {
		fprintf(stderr, "usage: migration_stream [MIB [STREAMS [ROUNDS [bare]]]]\n");
		return 2;
	}
	from = fresh();
	to = fresh();
	fill(from);
	if (!alone)
		memset(to, 1, size);
	for (int i = 0; i < rounds; i++)
		alone ? bare_alone() : compare();
	return 0;
}
