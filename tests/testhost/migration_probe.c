/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A migration without guests: devices at work are moved by vfio/migration.c from one address space to another one, while
 * what they write is followed by their trackers and copied. Run by tests/testhost/cases/vfio-migration.sh.
 *
 *	migration_probe move BACKEND log|nolog FROM... TO...	softdevs at work: as many on either side
 *	migration_probe chars BACKEND FROM TO			characters in flight in an mtty
 *	migration_probe fail BACKEND FROM TO			failures that are ordered, and the way back
 *
 * Each device has a thread that reads it. Memory is compared whole when the devices stand still, and what they write
 * later on the other side when they are done. Prints "name=value" words and "right", or says what is wrong and exits 1.
 */
#include "core/bitmap.h"
#include "tests/testhost/softdev_drive.h"
#include "vfio/migration.h"

#include <linux/serial_reg.h>
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>

#define SIZE MIB(16) /* of memory, on either side */
#define PAGES (SIZE / GUEST_PAGE_SIZE)
#define WINDOW MIB(2) /* of each device's job */
#define MAX_DEVICES 4
#define ROOM MIB(80)

/* One side. */
struct host {
	struct guest_memory *memory;
	struct dirty_set dirty;
	struct vfio_space *space;
	uint8_t *ram;
	size_t count;
	struct vfio_device *devices[MAX_DEVICES];
	struct vfio_region bars[MAX_DEVICES];
	struct vfio_migration *group[MAX_DEVICES];
};

/* What came out of a device, and the thread that reads it. */
struct stream {
	struct vfio_migration *from;
	pthread_t thread;
	uint8_t *data;
	size_t len, early; /* bytes; those read before the stop */
	int code;
	struct err err;
};

static struct log log_to = {.fd = 2, .level = LOG_INFO};
static struct host hosts[2];
static struct stream streams[MAX_DEVICES];
static struct err err;

static double now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

/* ---- Reading ---- */

/* Until the end, the failure, or the end of the session. */
static void *read_all(void *opaque)
{
	struct stream *s = opaque;

	for (;;) {
		ssize_t n = vfio_migration_read(s->from, s->data + s->len, MIN(ROOM - s->len, 70001u), &s->err);

		if (n == -EAGAIN) {
			__atomic_store_n(&s->early, s->len, __ATOMIC_RELEASE);
			vfio_migration_wait(s->from, 5);
			continue;
		}
		if (n <= 0) {
			s->code = (int)n;
			return NULL;
		}
		s->len += (size_t)n;
	}
}

static void begin_reading(struct host *host)
{
	for (size_t i = 0; i < host->count; i++) {
		streams[i].from = host->group[i];
		streams[i].len = streams[i].early = 0;
		pthread_create(&streams[i].thread, NULL, read_all, &streams[i]);
	}
}

/* 0, or the first that is not, with its sentence in err. */
static int end_reading(struct host *host)
{
	int ret = 0;

	for (size_t i = 0; i < host->count; i++) {
		pthread_join(streams[i].thread, NULL);
		if (ret == 0 && streams[i].code < 0)
			err = streams[i].err;
		ret = ret ?: streams[i].code;
	}
	return ret;
}

/* The devices have given their initial bytes and wait for more. */
static int wait_until_ready(struct host *host)
{
	for (size_t i = 0; i < host->count; i++)
		for (int tries = 0;; tries++) {
			struct vfio_migration_pending pending;

			if (vfio_migration_pending(host->group[i], &pending, &err) < 0)
				return fail("%s", err.text);
			if (!pending.initial && pending.stop_known)
				break;
			if (tries == 5000)
				return fail("the initial bytes do not end");
			usleep(2000);
		}
	return 0;
}

/* ---- Memory ---- */

/* What was written since the last time is copied; the pages, or -1. */
static long copy_dirty(struct host *from, struct host *to)
{
	static unsigned long bitmap[PAGES / BITS_PER_LONG];
	long pages = 0;

	memset(bitmap, 0, sizeof(bitmap));
	if (dirty_set_collect(&from->dirty, 0, SIZE, bitmap, &err) < 0)
		return fail("collect: %s", err.text);
	for (size_t i = 0; i < PAGES; i++)
		if (bitmap_test(bitmap, i)) {
			memcpy(to->ram + i * GUEST_PAGE_SIZE, from->ram + i * GUEST_PAGE_SIZE, GUEST_PAGE_SIZE);
			pages++;
		}
	return pages;
}

/* Rounds while the devices work and this process writes, too, outside of their windows. */
static int copy_rounds(struct host *from, struct host *to)
{
	from->dirty.rounds_follow = true;
	if (dirty_set_start(&from->dirty, &err) < 0)
		return fail("start: %s", err.text);
	memcpy(to->ram, from->ram, SIZE);
	for (uint64_t round = 0; round < 8; round++) {
		uint64_t gpa = SIZE - (round + 1) * 3 * GUEST_PAGE_SIZE;

		usleep(20000);
		if (guest_memory_write(from->memory, gpa, &round, sizeof(round)) < 0 || copy_dirty(from, to) < 0)
			return -1;
	}
	from->dirty.rounds_follow = false;
	return 0;
}

static int check_memory(const struct host *from, const struct host *to)
{
	size_t wrong = 0;

	for (size_t i = 0; i < PAGES; i++)
		wrong += memcmp(from->ram + i * GUEST_PAGE_SIZE, to->ram + i * GUEST_PAGE_SIZE, GUEST_PAGE_SIZE) != 0;
	return wrong ? fail("memory: some pages differ") : 0;
}

/* ---- Jobs ---- */

static uint64_t window(size_t device)
{
	return device * 2 * WINDOW + 12345 * 8;
}

#define WINDOW_USED (WINDOW - 99)

static void begin_jobs(struct host *host)
{
	for (size_t i = 0; i < host->count; i++) {
		softdev_set(&host->bars[i], SOFTDEV_REG_INTERVAL, 50);
		softdev_start(&host->bars[i], SOFTDEV_PATTERN, window(i), WINDOW_USED, 5 + i, 0);
	}
}

/* Each device has gone on by so many passes. */
static int wait_for_work(struct host *host, const uint64_t *since, uint64_t passes)
{
	for (size_t i = 0; i < host->count; i++)
		for (int tries = 0; softdev_get(&host->bars[i], SOFTDEV_REG_PASS) < since[i] + passes; tries++) {
			if (tries == 10000)
				return fail("device %zu does nothing", i);
			usleep(2000);
		}
	return 0;
}

static void passes_of(struct host *host, uint64_t *ret)
{
	for (size_t i = 0; i < host->count; i++)
		ret[i] = softdev_get(&host->bars[i], SOFTDEV_REG_PASS);
}

/* The jobs end; every byte of their windows is what they should have written, the first half of it on the other side. */
static int check_jobs(struct host *host)
{
	_cleanup_(free_ptr) uint8_t *want = malloc(WINDOW);

	for (size_t i = 0; i < host->count; i++) {
		uint64_t pass, position;

		softdev_set(&host->bars[i], SOFTDEV_REG_COMMAND, SOFTDEV_STOP);
		pass = softdev_get(&host->bars[i], SOFTDEV_REG_PASS);
		position = softdev_get(&host->bars[i], SOFTDEV_REG_POSITION);
		softdev_progress(5 + i, pass, position, want, WINDOW_USED);
		if (memcmp(want, host->ram + window(i), WINDOW_USED) != 0)
			return fail("device %zu: pass %llu, position %llu is not what it wrote", i, (unsigned long long)pass,
				    (unsigned long long)position);
	}
	return 0;
}

/* ---- Moving ---- */

static int load(struct host *to)
{
	for (size_t i = 0; i < to->count; i++)
		if (vfio_migration_load(to->group[i], &err) < 0 ||
		    vfio_migration_write(to->group[i], streams[i].data, streams[i].len, &err) < 0 ||
		    vfio_migration_loaded(to->group[i], &err) < 0)
			return fail("%s", err.text);
	return 0;
}

static int start(struct host *host)
{
	for (size_t i = 0; i < host->count; i++)
		if (vfio_migration_start(host->group[i], &err) < 0)
			return fail("%s", err.text);
	begin_reading(host);
	return 0;
}

static void tell(const struct host *from, double ms)
{
	const struct vfio_device *who;
	size_t len = 0, early = 0;

	for (size_t i = 0; i < from->count; i++) {
		len += streams[i].len;
		early += streams[i].early;
		printf("coverage=%s ", vfio_coverage_name(vfio_device_coverage(from->devices[i])));
	}
	printf("untold=%llu bytes=%zu early=%zu downtime_ms=%.1f\n",
	       (unsigned long long)vfio_device_untracked(from->space, &who), len, early, ms);
}

static int run_move(struct host *from, struct host *to)
{
	uint64_t before[MAX_DEVICES] = {0};
	double stopped;

	begin_jobs(from);
	if (wait_for_work(from, before, 1) < 0 || start(from) < 0 || copy_rounds(from, to) < 0 || wait_until_ready(from) < 0)
		return -1;
	passes_of(from, before);
	stopped = now_ms();
	if (vfio_migration_group_stop(from->group, from->count, &err) < 0)
		return fail("%s", err.text);
	if (copy_dirty(from, to) < 0)
		return -1;
	if (end_reading(from) < 0)
		return fail("%s", err.text);
	if (load(to) < 0)
		return -1;
	tell(from, now_ms() - stopped);
	if (check_memory(from, to) < 0)
		return -1;
	if (vfio_migration_group_run(to->group, to->count, &err) < 0)
		return fail("%s", err.text);
	if (wait_for_work(to, before, 2) < 0 || check_jobs(to) < 0)
		return -1;
	/* Called off after all: it would go on here, too, from where it was stopped. */
	if (vfio_migration_group_run(from->group, from->count, &err) < 0)
		return fail("%s", err.text);
	return wait_for_work(from, before, 2) < 0 ? -1 : check_jobs(from);
}

/* ---- Failures ---- */

/* What was not to work did not, and the devices go on as if nothing had been: 0. */
static int check_goes_on(struct host *host, const char *what, int code)
{
	uint64_t before[MAX_DEVICES];

	if (code >= 0)
		return fail("%s: works", what);
	printf("%s: %s\n", what, err.text);
	if (vfio_migration_group_run(host->group, host->count, &err) < 0)
		return fail("%s: %s", what, err.text);
	for (size_t i = 0; i < host->count; i++)
		if (vfio_migration_state(host->group[i]) != VFIO_DEVICE_STATE_RUNNING || vfio_migration_was_reset(host->group[i]))
			return fail("%s: device %zu is in state %u", what, i, vfio_migration_state(host->group[i]));
	passes_of(host, before);
	return wait_for_work(host, before, 1);
}

/* An arc to each state of the way down fails; the stop is undone by itself, and the reader learns of it. */
static int fail_arcs(struct host *from, const char *device)
{
	static const char *const states[] = {"7", "3", "5", "1"};

	for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
		bool early = i < 2;

		if (early && start(from) < 0)
			return -1;
		if (softdev_order(device, "fail_state", states[i]) < 0)
			return -1;
		if (check_goes_on(from, states[i], vfio_migration_group_stop(from->group, from->count, &err)) < 0)
			return -1;
		if (early && end_reading(from) != -ECANCELED)
			return fail("%s: the reader has not been told", states[i]);
	}
	return 0;
}

/* Reading fails, and writing does: back here, and a reset there. */
static int fail_data(struct host *from, struct host *to, const char *device, const char *other)
{
	int rc;

	if (softdev_order(device, "fail_data", "20000") < 0 || start(from) < 0)
		return -1;
	rc = end_reading(from);
	if (check_goes_on(from, "read", rc) < 0)
		return -1;
	if (start(from) < 0 || wait_until_ready(from) < 0 || vfio_migration_group_stop(from->group, from->count, &err) < 0)
		return fail("stop");
	if (end_reading(from) < 0 || softdev_order(other, "fail_data", "30000") < 0)
		return fail("%s", err.text);
	if (vfio_migration_load(to->group[0], &err) < 0 ||
	    vfio_migration_write(to->group[0], streams[0].data, streams[0].len, &err) != -EIO)
		return fail("write: works");
	printf("write: %s\n", err.text);
	if (vfio_migration_group_run(to->group, 1, &err) < 0 || !vfio_migration_was_reset(to->group[0]) ||
	    vfio_migration_state(to->group[0]) != VFIO_DEVICE_STATE_RUNNING)
		return fail("write: no reset");
	streams[0].len -= 1;
	if (load(to) == 0)
		return fail("a state that lacks a byte is taken");
	streams[0].len += 1;
	return vfio_migration_group_run(to->group, 1, &err) < 0 || load(to) < 0 ? -1 :
	       check_goes_on(from, "the target goes away", -1);
}

/* The device falls into ERROR: a reset, said so. */
static int fail_hard(struct host *from, const char *device)
{
	if (softdev_order(device, "fail_hard", "1") < 0 || softdev_order(device, "fail_state", "3") < 0 || start(from) < 0)
		return -1;
	if (vfio_migration_group_stop(from->group, from->count, &err) >= 0 || end_reading(from) != -ECANCELED)
		return fail("a device in ERROR stops");
	if (vfio_migration_state(from->group[0]) != VFIO_DEVICE_STATE_RUNNING || !vfio_migration_was_reset(from->group[0]))
		return fail("a device in ERROR is not reset");
	return softdev_order(device, "fail_hard", "0");
}

static int run_fail(struct host *from, struct host *to, char **paths)
{
	begin_jobs(from);
	return fail_arcs(from, paths[0]) < 0 || fail_data(from, to, paths[0], paths[1]) < 0 ? -1 : fail_hard(from, paths[0]);
}

/* ---- Characters ---- */

static int port_write(const struct vfio_region *bar, unsigned int reg, uint8_t value)
{
	return vfio_region_write(bar, reg, &value, 1);
}

static uint8_t port_read(const struct vfio_region *bar, unsigned int reg)
{
	uint8_t value = 0;

	vfio_region_read(bar, reg, &value, 1);
	return value;
}

/* Five before, five while it gives its header, five more at the last moment: fifteen on the other side, none twice. */
static int run_chars(struct host *from, struct host *to)
{
	char got[32] = "";

	/* A reset leaves characters in it. */
	port_write(&from->bars[0], UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR | UART_FCR_CLEAR_XMIT);
	for (int i = 0; i < 5; i++)
		port_write(&from->bars[0], UART_TX, (uint8_t)('a' + i));
	if (start(from) < 0)
		return -1;
	for (int i = 5; i < 10; i++)
		port_write(&from->bars[0], UART_TX, (uint8_t)('a' + i));
	if (wait_until_ready(from) < 0)
		return -1;
	for (int i = 10; i < 15; i++)
		port_write(&from->bars[0], UART_TX, (uint8_t)('a' + i));
	port_write(&to->bars[0], UART_TX, 'X');
	if (vfio_migration_group_stop(from->group, 1, &err) < 0 || end_reading(from) < 0)
		return fail("%s", err.text);
	if (load(to) < 0 || vfio_migration_group_run(to->group, 1, &err) < 0)
		return fail("%s", err.text);
	for (size_t i = 0; i < sizeof(got) - 1 && port_read(&to->bars[0], UART_LSR) & UART_LSR_DR; i++)
		got[i] = (char)port_read(&to->bars[0], UART_RX);
	printf("bytes=%zu early=%zu got=%s\n", streams[0].len, streams[0].early, got);
	return strcmp(got, "abcdefghijklmno") == 0 ? 0 : fail("characters");
}

/* ---- A life ---- */

static int open_host(struct host *host, enum vfio_want want, bool log, bool softdev, char **paths, size_t count)
{
	struct vfio_space_options options = {.log = &log_to, .dirty = &host->dirty};
	struct guest_region region = {.size = SIZE, .fd = -1};
	int rc;

	host->memory = options.memory = guest_memory_create();
	host->ram = region.host = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	rc = guest_memory_add(host->memory, &region, &err);
	if (rc == 0)
		rc = dirty_set_add(&host->dirty, guest_memory_dirty_source(host->memory), &err);
	if (rc == 0)
		rc = vfio_space_create(&options, &host->space, &err);
	for (; rc == 0 && host->count < count; host->count++) {
		struct vfio_device_options device = {.device = paths[host->count], .backend = want, .no_device_log = !log};
		struct vfio_device **opened = &host->devices[host->count];

		rc = vfio_device_open(host->space, &device, opened, &err);
		if (rc == 0)
			rc = softdev ? softdev_prepare(*opened, &host->bars[host->count], &err) :
				       vfio_region_get(*opened, VFIO_PCI_BAR0_REGION_INDEX, &host->bars[host->count], &err);
		if (rc == 0)
			rc = vfio_migration_create(*opened, &host->group[host->count], &err);
	}
	return rc < 0 ? rc : vfio_migration_group_check(host->group, host->count, &(size_t){0}, &err);
}

static void close_host(struct host *host)
{
	dirty_set_stop(&host->dirty);
	for (size_t i = MAX_DEVICES; i--;) {
		vfio_migration_destroy(host->group[i]);
		vfio_device_close(host->devices[i]);
	}
	vfio_space_destroy(host->space);
	guest_memory_destroy(host->memory);
}

/* What is the same on both sides, as a migration would ask. */
static int check_identities(void)
{
	struct vfio_migration_identity identities[2];

	for (size_t i = 0; i < hosts[0].count; i++) {
		for (int side = 0; side < 2; side++)
			if (vfio_migration_identity(hosts[side].devices[i], &identities[side], &err) < 0)
				return fail("%s", err.text);
		if (vfio_migration_compare(&identities[0], &identities[1], &err) < 0)
			return fail("%s", err.text);
	}
	return 0;
}

int main(int argc, char **argv)
{
	bool move = argc > 5 && strcmp(argv[1], "move") == 0, chars = argc == 5 && strcmp(argv[1], "chars") == 0;
	bool failing = argc == 5 && strcmp(argv[1], "fail") == 0;
	char **paths = argv + (move ? 4 : 3);
	size_t count = (size_t)(argv + argc - paths) / 2;
	enum vfio_want want = argc > 2 && strcmp(argv[2], "legacy") == 0 ? VFIO_WANT_LEGACY : VFIO_WANT_IOMMUFD;
	bool log = move && strcmp(argv[3], "log") == 0;
	int rc;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if ((!move && !chars && !failing) || !count || count > MAX_DEVICES) {
		fprintf(stderr, "usage: migration_probe move BACKEND log|nolog FROM... TO... | chars|fail BACKEND FROM TO\n");
		return 2;
	}
	for (size_t i = 0; i < MAX_DEVICES; i++)
		streams[i].data = malloc(ROOM);
	rc = open_host(&hosts[0], want, log, !chars, paths, count);
	if (rc == 0)
		rc = open_host(&hosts[1], want, log, !chars, paths + count, count);
	if (rc < 0)
		fail("%s", err.text);
	else if (check_identities() < 0)
		rc = -1;
	else
		rc = move ? run_move(&hosts[0], &hosts[1]) : chars ? run_chars(&hosts[0], &hosts[1]) :
								     run_fail(&hosts[0], &hosts[1], paths);
	for (int side = 2; side--;)
		close_host(&hosts[side]);
	for (size_t i = 0; i < MAX_DEVICES; i++)
		free(streams[i].data);
	if (rc == 0)
		printf("right\n");
	return rc < 0;
}
