/* SPDX-License-Identifier: Apache-2.0 */
/* devices/virtio/balloon: which pages go back to the host, by how many calls, and what the guest tells. */
#include "core/bitmap.h"
#include "core/event_loop.h"
#include "core/irq.h"
#include "tests/unit/test.h"
#include "tests/unit/virtio_driver.h"

#include <linux/virtio_balloon.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define PAGE GUEST_PAGE_SIZE
#define RAM_SIZE MIB(4)
#define FIRST_PFN (DRIVER_RAM_BASE / PAGE)
#define END_PFN (FIRST_PFN + RAM_SIZE / PAGE)
#define ARENA (DRIVER_RAM_BASE + MIB(1)) /* pages that tests give away; rings and buffers lie below */
#define ARENA_PFN ((uint32_t)(ARENA / PAGE))
#define ARENA_PAGES 512u

enum { INFLATE, DEFLATE, STATS, REPORT_LINUX, REPORT };

static struct event_loop *loop;
static struct virtio_driver *driver;
static struct virtio_device *balloon;

/* What the release hook was asked for. */
static struct {
	uint64_t gpa[64], len[64];
	unsigned int count;
	int answer;
	unsigned int slow; /* each of so many questions takes 2 ms; 0: none */
} asked;

/* Something else that the loop has to do, from the first question on. */
static struct {
	int fd;
	struct event_source *source;
	unsigned int asked; /* how often the hook was asked before it had its turn */
} urgent = {.fd = -1};

static int release(void *opaque, uint64_t gpa, uint64_t len)
{
	if (asked.count < ARRAY_SIZE(asked.gpa)) {
		asked.gpa[asked.count] = gpa;
		asked.len[asked.count] = len;
	}
	if (!asked.count && asked.slow)
		eventfd_kick(urgent.fd);
	if (asked.slow && asked.count % asked.slow == 0)
		usleep(2000);
	asked.count++;
	return asked.answer;
}

static void urgent_turn(void *opaque, uint32_t events)
{
	eventfd_drain(urgent.fd);
	urgent.asked = asked.count;
}

static void tear_down(void)
{
	driver_destroy(driver);
	event_loop_destroy(loop);
	fd_close(&urgent.fd);
	driver = NULL;
	loop = NULL;
}

static void set_up(bool shared, uint64_t features)
{
	tear_down();
	memset(&asked, 0, sizeof(asked));
	CHECK_EQ(event_loop_create(&loop, NULL), 0);
	CHECK_EQ(event_loop_start(loop, "test", NULL), 0);
	driver = driver_create(RAM_SIZE, shared);
	CHECK_EQ(virtio_balloon_create("balloon0", driver->memory, loop, NULL, &balloon, NULL), 0);
	virtio_balloon_set_release(balloon, release, NULL);
	CHECK_EQ(driver_attach(driver, balloon, features), 0);
	CHECK(driver->next < ARENA - KIB(64));
	memset(driver_at(driver, ARENA), 0xaa, ARENA_PAGES * PAGE);
}

/* 0xaa: kept; 0: gone. Anything else is neither. */
static int content(uint32_t page)
{
	const uint8_t *bytes = driver_at(driver, ARENA + page * PAGE);

	for (unsigned int i = 1; i < PAGE; i++)
		CHECK_EQ(bytes[i], bytes[0]);
	return bytes[0];
}

static void give(unsigned int queue, const uint32_t *pfns, uint32_t count)
{
	uint64_t gpa = driver_alloc(driver, count * 4, 1);
	uint16_t head;
	uint32_t len;

	CHECK(driver->next <= ARENA);
	memcpy(driver_at(driver, gpa), pfns, count * 4);
	if (count > 1) /* in two parts, cut through a number */
		driver_add(&driver->queues[queue], (struct driver_segment[]){{gpa, 6}, {gpa + 6, count * 4 - 6}}, 2, true);
	else
		driver_add(&driver->queues[queue], &(struct driver_segment){gpa, 4}, 1, false);
	driver_kick(&driver->queues[queue]);
	CHECK(driver_wait_used(&driver->queues[queue], 5000, &head, &len));
}

/* Neighbours in any order, twice the same one, and pages that are not memory. */
static void inflates(void)
{
	for (int shared = 0; shared < 2; shared++) {
		const uint32_t pfns[] = {ARENA_PFN + 7, ARENA_PFN + 3, ARENA_PFN + 5, UINT32_MAX, ARENA_PFN + 4, 0,
					 ARENA_PFN + 4, FIRST_PFN - 1, END_PFN, ARENA_PFN + 100};
		struct stat before, after;

		set_up(shared, DRIVER_ALL_FEATURES);
		if (shared)
			CHECK_EQ(fstat(driver->ram.fd, &before), 0);
		give(INFLATE, pfns, ARRAY_SIZE(pfns));
		for (uint32_t i = 0; i < ARENA_PAGES; i++)
			CHECK_EQ(content(i), (i >= 3 && i <= 5) || i == 7 || i == 100 ? 0 : 0xaa);
		CHECK_EQ(asked.count, 3);
		CHECK_EQ(asked.gpa[0], ARENA + 3 * PAGE);
		CHECK_EQ(asked.len[0], 3 * PAGE);
		CHECK_EQ(asked.gpa[1], ARENA + 7 * PAGE);
		CHECK_EQ(asked.len[1], PAGE);
		CHECK_EQ(asked.gpa[2], ARENA + 100 * PAGE);
		if (shared) { /* the pages are gone, not only zero */
			give(INFLATE, pfns, ARRAY_SIZE(pfns));
			CHECK_EQ(fstat(driver->ram.fd, &after), 0);
			CHECK(after.st_blocks <= before.st_blocks - 4 * 8);
		}
		CHECK(!balloon->broken);
	}
}

/* A run that goes to the last page of memory, and on. */
static void inflates_to_the_end(void)
{
	uint32_t pfns[8];

	set_up(false, DRIVER_ALL_FEATURES);
	for (uint32_t i = 0; i < 8; i++)
		pfns[i] = (uint32_t)END_PFN - 4 + i;
	memset(driver_at(driver, (END_PFN - 5) * PAGE), 0xaa, 5 * PAGE);
	give(INFLATE, pfns, 8);
	CHECK_EQ(asked.count, 1);
	CHECK_EQ(asked.gpa[0], (END_PFN - 4) * PAGE);
	CHECK_EQ(asked.len[0], 4 * PAGE);
	CHECK_EQ(*(uint8_t *)driver_at(driver, (END_PFN - 5) * PAGE), 0xaa);
	CHECK_EQ(*(uint8_t *)driver_at(driver, (END_PFN - 1) * PAGE), 0);
}

static void keeps_what_is_pinned(void)
{
	const uint32_t pfns[] = {ARENA_PFN, ARENA_PFN + 1};

	for (int shared = 0; shared < 2; shared++) {
		set_up(shared, DRIVER_ALL_FEATURES);
		asked.answer = -EBUSY;
		give(INFLATE, pfns, 2);
		CHECK_EQ(asked.count, 1);
		CHECK_EQ(content(0), 0xaa);
		virtio_balloon_set_release(balloon, NULL, NULL);
		give(INFLATE, pfns, 2);
		CHECK_EQ(content(0), 0);
		CHECK_EQ(content(1), 0);
	}
}

/* Many numbers in one chain, more than are sorted at a time: each part of 256 is one run. */
static void inflates_in_pieces(void)
{
	static uint32_t pfns[10240];

	set_up(false, DRIVER_ALL_FEATURES);
	for (uint32_t i = 0; i < ARRAY_SIZE(pfns); i++)
		pfns[i] = ARENA_PFN + (i * 7 % 256 + i / 256 * 256) % ARENA_PAGES;
	give(INFLATE, pfns, ARRAY_SIZE(pfns));
	for (uint32_t i = 0; i < ARENA_PAGES; i++)
		CHECK_EQ(content(i), 0);
	CHECK_EQ(asked.count, ARRAY_SIZE(pfns) / 256);
	CHECK(!balloon->broken);
}

/* A chain that takes long: whoever else waits for the loop has a turn after one or two of its parts. */
static void a_long_chain_keeps_nobody_waiting(void)
{
	static uint32_t pfns[2048];

	for (unsigned int queue = INFLATE; queue <= REPORT; queue += REPORT) {
		struct driver_segment segments[8];
		uint16_t head;
		uint32_t len;

		set_up(false, DRIVER_ALL_FEATURES);
		asked.slow = queue == INFLATE ? 256 : 1;
		urgent.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		CHECK_EQ(event_loop_watch(loop, urgent.fd, EPOLLIN, urgent_turn, NULL, &urgent.source, NULL), 0);
		if (queue == INFLATE) {
			for (uint32_t i = 0; i < ARRAY_SIZE(pfns); i++)
				pfns[i] = ARENA_PFN + i * 2 % ARENA_PAGES;
			give(INFLATE, pfns, ARRAY_SIZE(pfns));
			CHECK(urgent.asked <= 512);
			CHECK_EQ(asked.count, ARRAY_SIZE(pfns));
		} else {
			for (unsigned int i = 0; i < ARRAY_SIZE(segments); i++)
				segments[i] = (struct driver_segment){ARENA + 2 * i * PAGE, PAGE, true};
			driver_add(&driver->queues[queue], segments, ARRAY_SIZE(segments), true);
			driver_kick(&driver->queues[queue]);
			CHECK(driver_wait_used(&driver->queues[queue], 5000, &head, &len));
			CHECK(urgent.asked <= 2);
			CHECK_EQ(asked.count, ARRAY_SIZE(segments));
		}
		CHECK(urgent.asked > 0);
		for (uint32_t i = 0; i < 16; i++)
			CHECK_EQ(content(i), i % 2 ? 0xaa : 0);
	}
}

/* A reset in the middle of a chain: the next driver's chains are taken from their beginning. */
static void a_reset_ends_a_chain(void)
{
	static uint32_t pfns[1000];
	uint64_t gpa;

	set_up(false, DRIVER_ALL_FEATURES);
	asked.slow = 256;
	urgent.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	for (uint32_t i = 0; i < ARRAY_SIZE(pfns); i++)
		pfns[i] = ARENA_PFN + i * 2 % ARENA_PAGES;
	gpa = driver_alloc(driver, sizeof(pfns), 4);
	memcpy(driver_at(driver, gpa), pfns, sizeof(pfns));
	driver_add(&driver->queues[INFLATE], &(struct driver_segment){gpa, sizeof(pfns)}, 1, false);
	driver_kick(&driver->queues[INFLATE]);
	while (poll(&(struct pollfd){.fd = urgent.fd, .events = POLLIN}, 1, -1) != 1) {
	}
	driver_reset(driver);
	CHECK_EQ(driver_start(driver, DRIVER_ALL_FEATURES), 0);
	memset(driver_at(driver, ARENA), 0xaa, ARENA_PAGES * PAGE);
	give(INFLATE, &(uint32_t){ARENA_PFN + 3}, 1);
	CHECK_EQ(content(3), 0);
}

/* A range of many pages is given back in parts. */
static void reports_of_any_size_are_taken_in_parts(void)
{
	struct virtio_balloon_stats stats;
	uint16_t head;
	uint32_t len;

	tear_down();
	memset(&asked, 0, sizeof(asked));
	CHECK_EQ(event_loop_create(&loop, NULL), 0);
	CHECK_EQ(event_loop_start(loop, "test", NULL), 0);
	driver = driver_create(MIB(128), false);
	CHECK_EQ(virtio_balloon_create("balloon0", driver->memory, loop, NULL, &balloon, NULL), 0);
	virtio_balloon_set_release(balloon, release, NULL);
	CHECK_EQ(driver_attach(driver, balloon, DRIVER_ALL_FEATURES), 0);
	driver_add(&driver->queues[REPORT], &(struct driver_segment){ARENA, MIB(100), true}, 1, false);
	driver_kick(&driver->queues[REPORT]);
	CHECK(driver_wait_used(&driver->queues[REPORT], 5000, &head, &len));
	CHECK_EQ(asked.count, 4);
	for (unsigned int i = 0; i < asked.count; i++)
		CHECK(asked.len[i] <= MIB(32));
	virtio_balloon_get_stats(balloon, &stats);
	CHECK_EQ(stats.reported, MIB(100));
}

/* RAM into which a file is mapped privately, as the kernel image is: its bytes come back, and writing works. */
static void inflates_over_a_mapped_file(void)
{
	const uint32_t pfns[] = {ARENA_PFN + 9, ARENA_PFN + 10, ARENA_PFN + 11};
	int file = memfd_create("kernel", MFD_CLOEXEC);
	uint8_t page[PAGE];

	set_up(false, DRIVER_ALL_FEATURES);
	memset(page, 0x77, sizeof(page));
	CHECK_EQ(write(file, page, sizeof(page)), sizeof(page));
	CHECK(mmap(driver_at(driver, ARENA + 10 * PAGE), PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, file, 0) !=
	      MAP_FAILED);
	memset(driver_at(driver, ARENA + 10 * PAGE), 0xaa, PAGE);
	give(INFLATE, pfns, 3);
	CHECK_EQ(content(9), 0);
	CHECK_EQ(content(10), 0x77);
	CHECK_EQ(content(11), 0);
	memset(driver_at(driver, ARENA + 10 * PAGE), 1, PAGE);
	CHECK_EQ(pread(file, page, 1, 0), 1);
	CHECK_EQ(page[0], 0x77);
	close(file);
}

/* The fourth queue for Linux before 6.11, the fifth as the specification has it. Only whole pages go. */
static void takes_free_page_reports(void)
{
	struct virtio_balloon_stats stats;

	for (unsigned int i = 0; i < 4; i++) {
		unsigned int queue = i & 1 ? REPORT_LINUX : REPORT;
		uint16_t head;
		uint32_t len;

		set_up(i & 2, DRIVER_ALL_FEATURES);
		driver_add(&driver->queues[queue],
			   (struct driver_segment[]){{ARENA + 2 * PAGE, 8 * PAGE, true},
						     {ARENA + 20 * PAGE + 1, 2 * PAGE, true},
						     {ARENA + 30 * PAGE, PAGE - 1, true}}, 3, true);
		driver_kick(&driver->queues[queue]);
		CHECK(driver_wait_used(&driver->queues[queue], 5000, &head, &len));
		for (uint32_t page = 0; page < 40; page++)
			CHECK_EQ(content(page), (page >= 2 && page < 10) || page == 21 ? 0 : 0xaa);
		CHECK_EQ(asked.count, 2);
		virtio_balloon_get_stats(balloon, &stats);
		CHECK_EQ(stats.reported, 9 * PAGE);
	}
	CHECK(!(balloon->offered & 1ull << VIRTIO_BALLOON_F_PAGE_POISON));
}

/* A driver that never negotiated reporting has no such queue. */
static void ignores_reports_unasked(void)
{
	uint16_t head;
	uint32_t len;

	set_up(false, 0);
	driver_add(&driver->queues[REPORT], &(struct driver_segment){ARENA, PAGE, true}, 1, false);
	driver_kick(&driver->queues[REPORT]);
	CHECK(driver_wait_used(&driver->queues[REPORT], 5000, &head, &len));
	CHECK_EQ(content(0), 0xaa);
}

static void has_a_target(void)
{
	struct virtio_balloon_config config = {0};
	struct virtio_balloon_stats stats;

	set_up(false, DRIVER_ALL_FEATURES);
	virtio_balloon_set_target(balloon, MIB(3) + 4095);
	CHECK_EQ(driver->config_calls, 1);
	CHECK_EQ(balloon->config_generation, 1);
	balloon->ops->config_read(balloon, 0, &config, balloon->config_size);
	CHECK_EQ(config.num_pages, MIB(3) / PAGE);
	CHECK_EQ(config.actual, 0);
	balloon->ops->config_write(balloon, 0, "xxxx", 4); /* not the driver's */
	balloon->ops->config_write(balloon, 4, "\0\1\0\0", 4);
	virtio_balloon_get_stats(balloon, &stats);
	CHECK_EQ(stats.target, MIB(3));
	CHECK_EQ(stats.actual, 256 * PAGE);
	give(DEFLATE, &(uint32_t){ARENA_PFN}, 1);
	CHECK_EQ(content(0), 0xaa);
	driver_reset(driver); /* a guest that reboots has an empty balloon, and the same target */
	virtio_balloon_get_stats(balloon, &stats);
	CHECK_EQ(stats.target, MIB(3));
	CHECK_EQ(stats.actual, 0);
	virtio_balloon_set_target(balloon, UINT64_MAX);
	virtio_balloon_get_stats(balloon, &stats);
	CHECK_EQ(stats.target, UINT32_MAX * PAGE);
}

/* Puts a buffer with one figure, and a tag nobody knows, into the statistics queue. */
static void tell(uint64_t gpa, uint16_t tag, uint64_t value)
{
	struct virtio_balloon_stat stat[] = {{tag, value}, {999, 1}};

	memcpy(driver_at(driver, gpa), stat, sizeof(stat));
	driver_add(&driver->queues[STATS], &(struct driver_segment){gpa, sizeof(stat) + 3}, 1, false);
	driver_kick(&driver->queues[STATS]);
	driver_settle(loop);
}

static void asks_for_statistics(void)
{
	struct driver_queue *queue;
	struct virtio_balloon_stats stats;
	uint64_t gpa;
	uint16_t head;
	uint32_t len;

	set_up(false, DRIVER_ALL_FEATURES);
	queue = &driver->queues[STATS];
	gpa = driver_alloc(driver, 128, 1);
	virtio_balloon_get_stats(balloon, &stats);
	CHECK_EQ(stats.free, UINT64_MAX);
	tell(gpa, VIRTIO_BALLOON_S_MEMFREE, 12345);
	CHECK(!driver_used(queue, &head, &len)); /* kept until somebody asks */
	virtio_balloon_get_stats(balloon, &stats);
	CHECK_EQ(stats.free, 12345);
	CHECK_EQ(stats.total, UINT64_MAX);
	CHECK(driver_wait_used(queue, 5000, &head, &len));
	virtio_balloon_get_stats(balloon, &stats); /* the driver has not answered yet */
	CHECK_EQ(stats.free, 12345);
	tell(gpa, VIRTIO_BALLOON_S_MEMTOT, 777);
	virtio_balloon_get_stats(balloon, &stats);
	CHECK_EQ(stats.total, 777);
	CHECK(driver_wait_used(queue, 5000, &head, &len));
	tell(gpa, VIRTIO_BALLOON_S_CACHES, 1);
	tell(gpa, VIRTIO_BALLOON_S_CACHES, 2); /* a second buffer waits its turn */
	CHECK(!driver_used(queue, &head, &len));
	balloon->ops->drain(balloon, VIRTIO_NO_DEADLINE, NULL);
	virtio_balloon_get_stats(balloon, &stats);
	CHECK(!driver_used(queue, &head, &len));
	balloon->ops->resume(balloon);
	virtio_balloon_get_stats(balloon, &stats);
	CHECK(driver_wait_used(queue, 5000, &head, &len));
	virtio_balloon_get_stats(balloon, &stats);
	CHECK_EQ(stats.caches, 2);
	CHECK(driver_wait_used(queue, 5000, &head, &len));
	driver_reset(driver);
	virtio_balloon_get_stats(balloon, &stats);
	CHECK_EQ(stats.caches, UINT64_MAX);
	CHECK_EQ(driver_start(driver, DRIVER_ALL_FEATURES), 0);
	tell(driver_alloc(driver, 128, 1), VIRTIO_BALLOON_S_MINFLT, 5);
	virtio_balloon_get_stats(balloon, &stats);
	CHECK_EQ(stats.minor_faults, 5);
	tear_down();
}

/* The buffer that the driver has left with the first device is given back by the second. */
static void moves_with_a_buffer_in_hand(void)
{
	struct driver_luggage luggage;
	struct virtio_balloon_stats stats;
	struct virtio_balloon_config config = {0};
	uint16_t head;
	uint32_t len;

	set_up(false, DRIVER_ALL_FEATURES);
	virtio_balloon_set_target(balloon, MIB(3));
	balloon->ops->config_write(balloon, 4, "\0\1\0\0", 4);
	tell(driver_alloc(driver, 128, 1), VIRTIO_BALLOON_S_MEMFREE, 12345);
	driver_pack(driver, &luggage);
	CHECK_EQ(virtio_balloon_create("balloon0", driver->memory, loop, NULL, &balloon, NULL), 0);
	CHECK_EQ(driver_unpack(driver, balloon, &luggage, NULL), 0);
	balloon->ops->config_read(balloon, 0, &config, balloon->config_size);
	CHECK_EQ(config.num_pages, MIB(3) / PAGE);
	CHECK_EQ(config.actual, 256);
	virtio_balloon_get_stats(balloon, &stats);
	CHECK_EQ(stats.free, 12345);
	CHECK_EQ(stats.actual, 256 * PAGE);
	CHECK(driver_wait_used(&driver->queues[STATS], 5000, &head, &len));
	tell(driver_alloc(driver, 128, 1), VIRTIO_BALLOON_S_MEMFREE, 54321);
	virtio_balloon_get_stats(balloon, &stats);
	CHECK_EQ(stats.free, 54321);
	tear_down();
}

/* ---- while the machine migrates: another thread collects what was written and copies it ---- */

static uint8_t copied[ARENA_PAGES * PAGE];
static bool enough;

static void copy_round(struct dirty_source *source)
{
	unsigned long bitmap[ARENA_PAGES / BITS_PER_LONG] = {0};

	if (source->ops->collect(source, ARENA, sizeof(copied), bitmap, NULL))
		abort();
	for (size_t i = 0; i < ARENA_PAGES; i++)
		if (bitmap_test(bitmap, i))
			memcpy(copied + i * PAGE, driver_at(driver, ARENA + i * PAGE), PAGE);
}

static void *copy_rounds(void *source)
{
	while (!__atomic_load_n(&enough, __ATOMIC_ACQUIRE))
		copy_round(source);
	return NULL;
}

static void what_goes_and_comes_while_it_is_copied_is_right_in_the_end(void)
{
	for (int shared = 0; shared < 2; shared++) {
		struct dirty_source *source;
		unsigned int random = 1;
		pthread_t thread;

		set_up(shared, DRIVER_ALL_FEATURES);
		source = guest_memory_dirty_source(driver->memory);
		CHECK_EQ(source->ops->start(source, NULL), 0);
		memcpy(copied, driver_at(driver, ARENA), sizeof(copied));
		enough = false;
		CHECK_EQ(pthread_create(&thread, NULL, copy_rounds, source), 0);
		for (uint32_t round = 0; round < 600; round++) {
			uint32_t pfns[16], first = (random = random * 1103515245 + 12345) >> 16;

			for (uint32_t i = 0; i < ARRAY_SIZE(pfns); i++)
				pfns[i] = ARENA_PFN + (first + i) % ARENA_PAGES;
			give(INFLATE, pfns, ARRAY_SIZE(pfns));
			give(DEFLATE, pfns, ARRAY_SIZE(pfns));
			/* Half of what came back is written to; the other half stays as the host gave it. */
			for (uint32_t i = 0; i < ARRAY_SIZE(pfns); i += 2)
				guest_memory_write(driver->memory, (uint64_t)pfns[i] * PAGE + 8, &round, sizeof(round));
		}
		__atomic_store_n(&enough, true, __ATOMIC_RELEASE);
		pthread_join(thread, NULL);
		copy_round(source);
		for (uint32_t i = 0; i < ARENA_PAGES; i++)
			CHECK(memcmp(copied + i * PAGE, driver_at(driver, ARENA + i * PAGE), PAGE) == 0);
		source->ops->stop(source);
	}
	tear_down();
}

TEST_MAIN(TEST(inflates), TEST(inflates_to_the_end), TEST(keeps_what_is_pinned), TEST(inflates_in_pieces),
	  TEST(a_long_chain_keeps_nobody_waiting), TEST(a_reset_ends_a_chain),
	  TEST(reports_of_any_size_are_taken_in_parts),
	  TEST(inflates_over_a_mapped_file), TEST(takes_free_page_reports), TEST(ignores_reports_unasked),
	  TEST(has_a_target), TEST(asks_for_statistics), TEST(moves_with_a_buffer_in_hand),
	  TEST(what_goes_and_comes_while_it_is_copied_is_right_in_the_end))
