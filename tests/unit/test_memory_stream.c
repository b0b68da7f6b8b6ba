/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/migration/memory_sender and memory_receiver, with zero, compress, limiter and send_queue below them: memory of every
 * kind arrives as it was, by one channel or several; what was never touched stays so; the cap holds.
 */
#include "tests/unit/memory_stream_rig.h"
#include "vmm/migration/zero.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "core/bitmap.h"
#include "core/guest_discard.h"

/* What is marked travels; all of it arrives, or the words say why not. */
static void send_round(void)
{
	struct err err = {""};

	send_marks(0, &err);
	CHECK_STR(err.text, "");
	CHECK_EQ(marks_left(), 0);
}

static void end_and_compare(void)
{
	const struct memory_marks marks[] = {{0, LOW, source.low_marks}, {HIGH_GPA, HIGH, source.high_marks}};
	struct memory_sender_stats sent;
	uint64_t bytes = 0;
	struct err err = {""};

	memory_sender_end(sender, marks, 2, &err);
	CHECK_STR(err.text, "");
	CHECK_EQ(marks_left(), 0);
	memory_receiver_wait(receiver, -1, &err);
	CHECK_STR(err.text, "");
	memory_sender_get_stats(sender, &sent);
	for (unsigned int i = 0; i < channel_count; i++)
		bytes += channel_received(in[i]);
	CHECK_EQ(sent.bytes, bytes);
	CHECK_EQ(memcmp(source.low, target.low, LOW), 0);
	CHECK_EQ(memcmp(source.high, target.high, HIGH), 0);
}

/* Runs of random pages, zeros among them and memory that stays untouched. */
static void fill(uint8_t *host, size_t size)
{
	for (size_t at = 0; at < size;) {
		size_t run = (1 + next_random() % 90) * PAGE;
		unsigned int kind = next_random() % 4;

		run = MIN(run, size - at);
		for (size_t i = 0; i < run && kind < 3; i += PAGE) {
			if (kind == 0)
				memset(host + at + i, 0, PAGE);
			else if (kind == 1)
				scribble(host + at + i);
			else
				host[at + i + next_random() % PAGE] = (uint8_t)next_random();
		}
		at += run;
	}
}

/* ---- what arrives ---- */

static void arrives_whole(unsigned int channels, bool tcp, bool compress)
{
	set_up(channels, tcp, 5000);
	sending.compress = compress;
	fill(source.low, LOW);
	fill(source.high, HIGH);
	start_both();
	mark_all();
	send_round();
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 300; i++) {
			size_t low = next_random() % (LOW / PAGE), high = next_random() % (HIGH / PAGE);

			if (i % 3)
				scribble(source.low + low * PAGE);
			else
				memset(source.low + low * PAGE, 0, PAGE);
			source.high[high * PAGE + 17]++;
			bitmap_set(source.low_marks, low);
			bitmap_set(source.high_marks, high);
		}
		send_round();
	}
	end_and_compare();
	tear_down();
}

static void memory_arrives_whole_by_any_number_of_channels(void)
{
	arrives_whole(1, false, false);
	arrives_whole(3, false, false);
	arrives_whole(4, true, false);
	arrives_whole(MAX_CHANNELS, true, false);
}

static void memory_arrives_whole_compressed(void)
{
	arrives_whole(1, true, true);
	arrives_whole(3, false, true);
}

static void only_marked_pages_travel(void)
{
	struct memory_marks marks = {HIGH_GPA + PAGE, 3 * PAGE, source.high_marks};
	struct memory_sender_stats stats;

	set_up(2, false, 5000);
	start_both();
	memset(source.low, 1, 8 * PAGE);
	memset(source.high, 2, 8 * PAGE);
	bitmap_set(source.low_marks, 3);
	bitmap_set(source.low_marks, 5);
	send_round();
	source.high_marks[0] = ~0ul; /* bits beyond size are not this call's */
	CHECK_EQ(memory_sender_send(sender, &marks, 1, 0, NULL), 0);
	CHECK_EQ(source.high_marks[0], ~0ul << 3);
	CHECK_EQ(memory_sender_end(sender, NULL, 0, NULL), 0);
	CHECK_EQ(memory_receiver_wait(receiver, -1, NULL), 0);
	memory_sender_get_stats(sender, &stats);
	CHECK_EQ(stats.pages, 5);
	CHECK_EQ(stats.bytes, 5 * PAGE + (3 + 2) * WIRE_HEADER_SIZE);
	for (size_t i = 0; i < 8; i++) {
		CHECK_EQ(target.low[i * PAGE], i == 3 || i == 5);
		CHECK_EQ(target.high[i * PAGE], i >= 1 && i <= 3 ? 2 : 0);
	}
	marks = (struct memory_marks){LOW - PAGE, 2 * PAGE, source.high_marks};
	CHECK_EQ(memory_sender_send(sender, &marks, 1, 0, NULL), -EINVAL);
	marks = (struct memory_marks){0x800, PAGE, source.high_marks};
	CHECK_EQ(memory_sender_send(sender, &marks, 1, 0, NULL), -EINVAL);
	tear_down();
}

/* Sent by the caller's thread, after a rehearsal that sends a page of each channel's that nobody asked for. */
static void last_pages_go_with_the_end(void)
{
	for (int compress = 0; compress < 2; compress++) {
		set_up(3, compress, 5000);
		sending.compress = compress;
		fill(source.low, LOW);
		fill(source.high, HIGH);
		start_both();
		mark_all();
		send_round();
		CHECK_EQ(memory_sender_rehearse(sender, NULL), 0);
		for (size_t i = 0; i < 60; i++) {
			size_t page = next_random() % (LOW / PAGE);

			if (i % 3)
				scribble(source.low + page * PAGE);
			else
				memset(source.low + page * PAGE, 0, PAGE);
			bitmap_set(source.low_marks, page);
		}
		end_and_compare();
		tear_down();
	}
}

static size_t resident(const uint8_t *host, size_t size)
{
	unsigned char there[MIB(8) / PAGE];
	size_t count = 0;

	CHECK_EQ(mincore((void *)(uintptr_t)host, size, there), 0);
	for (size_t i = 0; i < size / PAGE; i++)
		count += there[i] & 1;
	return count;
}

static size_t file_pages(int fd)
{
	struct stat st;

	CHECK_EQ(fstat(fd, &st), 0);
	return (size_t)st.st_blocks / 8;
}

/* A page of zeros that was sent with content before must become zero again; no other one is brought into being. */
static void untouched_memory_stays_untouched_on_both_sides(void)
{
	struct memory_sender_stats stats;

	set_up(2, false, 5000);
	scribble(source.low + 5 * PAGE);
	scribble(source.low + MIB(4));
	scribble(source.high + 7 * PAGE);
	start_both();
	mark_all();
	send_round();
	memory_sender_get_stats(sender, &stats);
	CHECK_EQ(stats.pages, 3);
	CHECK_EQ(stats.zero_pages, LOW / PAGE + HIGH / PAGE - 3);
	CHECK_EQ(resident(source.low, LOW), 2);
	CHECK_EQ(file_pages(source.fd), 1);
	memset(source.low + MIB(4), 0, PAGE);
	memset(source.high + 7 * PAGE, 0, PAGE);
	bitmap_set(source.low_marks, MIB(4) / PAGE);
	bitmap_set(source.high_marks, 7);
	send_round();
	end_and_compare();
	tear_down();
	set_up(2, false, 5000);
	start_both();
	mark_all();
	scribble(source.low);
	send_round();
	CHECK_EQ(memory_sender_end(sender, NULL, 0, NULL), 0);
	CHECK_EQ(memory_receiver_wait(receiver, -1, NULL), 0);
	CHECK_EQ(resident(target.low, LOW), 1);
	CHECK_EQ(file_pages(target.fd), 0);
	tear_down();
}

/* As a kernel image is: mapped over anonymous memory, not read yet. What is absent there is not zero. */
static void a_file_mapped_into_ram_is_not_taken_for_zeros(void)
{
	static uint8_t image[16 * PAGE];
	int fd = memfd_create("image", MFD_CLOEXEC);

	set_up(2, false, 5000);
	for (size_t i = 0; i < 16; i++)
		scribble(image + i * PAGE);
	CHECK_EQ(write(fd, image, sizeof(image)), sizeof(image));
	CHECK(mmap(source.low + MIB(1), sizeof(image), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0) != MAP_FAILED);
	close(fd);
	start_both();
	mark_all();
	send_round();
	end_and_compare();
	CHECK_EQ(memcmp(target.low + MIB(1), image, sizeof(image)), 0);
	tear_down();
}

/* What a restored machine has: bytes of the file, holes of it, own copies, and pages that were given back. */
static void memory_over_a_file_is_sent_as_it_reads(void)
{
	struct guest_file base = {.fd = memfd_create("memory", MFD_CLOEXEC)};
	unsigned long absent[ZERO_MAP_PAGES / BITS_PER_LONG] = {0}, own[ZERO_MAP_PAGES / BITS_PER_LONG] = {0};
	struct memory_sender_stats stats;
	struct guest_region region;
	struct zero_map *map;
	uint8_t page[PAGE];

	set_up(2, false, 5000);
	CHECK_EQ(ftruncate(base.fd, LOW), 0);
	for (size_t i = 0; i < 64; i += 2) {
		scribble(page);
		CHECK_EQ(pwrite(base.fd, page, PAGE, (off_t)(i * PAGE)), PAGE);
	}
	CHECK(mmap(source.low, LOW, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, base.fd, 0) != MAP_FAILED);
	region = *guest_memory_region_of(source.memory, source.low);
	region.base = &base;
	CHECK_EQ(guest_memory_remove(source.memory, 0, NULL), 0);
	CHECK_EQ(guest_memory_add(source.memory, &region, NULL), 0);
	scribble(source.low + 4 * PAGE);  /* over bytes of the file */
	scribble(source.low + 5 * PAGE);  /* over a hole */
	page[0] = *(volatile uint8_t *)(source.low + 6 * PAGE); /* only read */
	CHECK_EQ(guest_discard(&region, 8 * PAGE, 4 * PAGE), 0);
	scribble(source.low + 9 * PAGE);
	CHECK_EQ(zero_map_create(source.memory, &map, NULL), 0);
	zero_map_absent(map, &region, 0, 64, absent);
	zero_map_own(map, &region, 0, 64, own);
	zero_map_destroy(map);
	for (size_t i = 0; i < 64; i++) {
		bool gone = i >= 8 && i < 12;

		CHECK_EQ(bitmap_test(absent, i), (i % 2 || gone) && i != 5 && i != 9);
		CHECK_EQ(bitmap_test(own, i), gone || i == 4 || i == 5);
	}
	start_both();
	mark_all();
	send_round();
	memory_sender_get_stats(sender, &stats);
	CHECK_EQ(stats.pages, 32 + 1 + 1 - 2); /* the odd ones, less 8 and 10 */
	CHECK_EQ(base.given, 1);
	end_and_compare();
	tear_down();
	free(base.gone);
	close(base.fd);
}

/* A page that is not here yet is elsewhere, and not zero: all are read. */
static void memory_from_elsewhere_is_not_taken_for_zeros(void)
{
	unsigned long absent[1] = {0}, own[1] = {0};
	struct guest_file base = {.fd = -1};
	struct guest_region region;
	struct zero_map *map;

	set_up(1, false, 5000);
	region = *guest_memory_region_of(source.memory, source.low);
	region.base = &base;
	CHECK_EQ(zero_map_create(source.memory, &map, NULL), 0);
	zero_map_absent(map, &region, 0, 64, absent);
	zero_map_own(map, &region, 0, 64, own);
	zero_map_destroy(map);
	CHECK_EQ(absent[0], 0);
	CHECK_EQ(own[0], ~0ul);
	tear_down();
}

/* Written by another mapping alone, as by a device: this process has never touched the pages. */
static void a_memfd_that_somebody_else_wrote_is_seen(void)
{
	uint8_t page[PAGE];

	set_up(1, false, 5000);
	scribble(page);
	CHECK_EQ(pwrite(source.fd, page, PAGE, PAGE + 9 * PAGE), PAGE);
	start_both();
	mark_all();
	send_round();
	end_and_compare();
	CHECK_EQ(memcmp(target.high + 9 * PAGE, page, PAGE), 0);
	tear_down();
}

static void compression_makes_less_of_what_repeats(void)
{
	struct memory_sender_stats stats;

	set_up(1, false, 5000);
	sending.compress = true;
	for (size_t i = 0; i < MIB(1); i++)
		source.low[i] = (uint8_t)(i / 64);
	start_both();
	mark_all();
	send_round();
	end_and_compare();
	memory_sender_get_stats(sender, &stats);
	CHECK_EQ(stats.pages, 256);
	CHECK(stats.bytes < KIB(100));
	tear_down();
}

static void a_deadline_ends_the_call_and_the_next_goes_on(void)
{
	struct memory_sender_stats stats;
	unsigned int calls = 0;
	size_t left;

	set_up(2, false, 5000);
	for (size_t i = 0; i < LOW; i += PAGE)
		scribble(source.low + i);
	start_both();
	mark_all();
	left = marks_left();
	CHECK_EQ(send_marks(1, NULL), 0); /* long past: nothing is taken */
	CHECK_EQ(marks_left(), left);
	while (marks_left() && calls++ < 10000) {
		struct timespec now;

		clock_gettime(CLOCK_MONOTONIC, &now);
		CHECK_EQ(send_marks((uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec + 200000, NULL), 0);
	}
	CHECK(calls > 1);
	memory_sender_get_stats(sender, &stats);
	CHECK(stats.zero_ns > 0 && stats.zero_ns < stats.busy_ns); /* high memory is blank */
	end_and_compare();
	tear_down();
}

/* The loopback copies, and says so; it is not asked for more, and what was sent is right. */
static void zero_copy_is_given_up_where_it_is_none(void)
{
	struct memory_sender_stats stats;

	set_up(2, true, 5000);
	for (size_t i = 0; i < LOW; i += PAGE)
		scribble(source.low + i);
	start_both();
	for (int round = 0; round < 4; round++) {
		mark_all();
		send_round();
	}
	end_and_compare();
	memory_sender_get_stats(sender, &stats);
	CHECK(!stats.zero_copy);
	tear_down();
}

/* ---- the cap ---- */

static void the_cap_is_even_and_exact(void)
{
	const uint64_t rates[] = {MIB(1), MIB(100), GIB(10)};
	const int64_t second = 1000000000;

	for (size_t i = 0; i < ARRAY_SIZE(rates); i++) {
		struct limiter limiter;
		int64_t now = 5 * second, begun = now;
		uint64_t sent = 0;

		limiter_init(&limiter, rates[i]);
		for (unsigned int n = 0; now < begun + 3 * second; n++) {
			size_t piece = limiter_piece(&limiter, MIB(2)) - n % 5 * 1000;
			int64_t when = limiter_take(&limiter, piece, now);

			now = MAX(now, when);
			sent += piece;
			if (n % 7 == 0)
				now += second / 1000; /* busy elsewhere */
		}
		CHECK((double)sent <= (double)rates[i] * 3 * 1.05 && (double)sent >= (double)rates[i] * 3 * 0.95);
		/* A rest is not saved up for more than a hundredth of a second. */
		now += 60 * second;
		CHECK(limiter_take(&limiter, rates[i] / 50, now) <= now);
		CHECK(limiter_take(&limiter, 1, now) >= now + second / 200);
		limiter_destroy(&limiter);
	}
}

static void the_cap_holds_over_all_channels(void)
{
	struct memory_sender_stats stats;
	struct limiter limiter;
	double rate;

	set_up(4, true, 5000);
	limiter_init(&limiter, MIB(20));
	sending.limiter = &limiter;
	for (size_t i = 0; i < LOW; i += PAGE)
		scribble(source.low + i);
	start_both();
	mark_all();
	send_round();
	memory_sender_get_stats(sender, &stats);
	rate = (double)stats.bytes / ((double)stats.busy_ns / 1e9);
	CHECK(stats.bytes > LOW);
	CHECK(rate < MIB(20) * 1.05);
	CHECK(rate > MIB(20) * 0.5); /* others may have the CPU */
	end_and_compare();
	tear_down();
	limiter_destroy(&limiter);
}

TEST_MAIN(TEST(memory_arrives_whole_by_any_number_of_channels), TEST(memory_arrives_whole_compressed),
	  TEST(only_marked_pages_travel), TEST(last_pages_go_with_the_end),
	  TEST(untouched_memory_stays_untouched_on_both_sides), TEST(a_file_mapped_into_ram_is_not_taken_for_zeros),
	  TEST(memory_over_a_file_is_sent_as_it_reads), TEST(memory_from_elsewhere_is_not_taken_for_zeros),
	  TEST(a_memfd_that_somebody_else_wrote_is_seen), TEST(compression_makes_less_of_what_repeats),
	  TEST(a_deadline_ends_the_call_and_the_next_goes_on), TEST(zero_copy_is_given_up_where_it_is_none),
	  TEST(the_cap_is_even_and_exact), TEST(the_cap_holds_over_all_channels))
