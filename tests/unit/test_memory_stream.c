/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/migration/memory_sender and memory_receiver, with zero, compress, limiter and send_queue below them: memory of every
 * kind arrives as it was, by one channel or several; what was never touched stays so; hostile, cut and stalled streams end by
 * name; the cap holds.
 */
#include "tests/unit/channel_pair.h"
#include "tests/unit/test.h"
#include "vmm/migration/compress.h"
#include "vmm/migration/memory_receiver.h"
#include "vmm/migration/memory_sender.h"
#include "vmm/migration/zero.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include "core/bitmap.h"
#include "core/guest_discard.h"

#define PAGE 4096u
#define LOW MIB(7)                    /* bytes of private memory at 0; no multiple of a chunk's two */
#define HIGH_GPA (GIB(4) + 0x3000)    /* where a memfd lies; cuts chunks in two, and words of the bitmap */
#define HIGH (MIB(5) + 0x5000)
#define MAX_CHANNELS 8u

/* ---- two machines' memory ---- */

struct side {
	struct guest_memory *memory;
	uint8_t *low, *high;
	int fd;
	unsigned long low_marks[LOW / PAGE / 64 + 1], high_marks[HIGH / PAGE / 64 + 1];
};

static struct side source, target;
static struct channel *out[MAX_CHANNELS], *in[MAX_CHANNELS];
static unsigned int channel_count;
static struct memory_sender *sender;
static struct memory_receiver *receiver;
static struct memory_sender_options sending;

static void make_side(struct side *side)
{
	struct guest_region region;

	side->low = mmap(NULL, LOW, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	side->fd = memfd_create("ram", MFD_CLOEXEC);
	CHECK_EQ(ftruncate(side->fd, PAGE + HIGH), 0);
	side->high = mmap(NULL, HIGH, PROT_READ | PROT_WRITE, MAP_SHARED, side->fd, PAGE);
	CHECK(side->low != MAP_FAILED && side->high != MAP_FAILED);
	/* One page a piece, so that what was touched can be told. */
	madvise(side->low, LOW, MADV_NOHUGEPAGE);
	madvise(side->high, HIGH, MADV_NOHUGEPAGE);
	side->memory = guest_memory_create();
	region = (struct guest_region){.gpa = 0, .size = LOW, .host = side->low, .fd = -1};
	CHECK_EQ(guest_memory_add(side->memory, &region, NULL), 0);
	region = (struct guest_region){.gpa = HIGH_GPA, .size = HIGH, .host = side->high, .fd = side->fd, .fd_offset = PAGE};
	CHECK_EQ(guest_memory_add(side->memory, &region, NULL), 0);
}

static void free_side(struct side *side)
{
	if (!side->memory)
		return;
	guest_memory_destroy(side->memory);
	munmap(side->low, LOW);
	munmap(side->high, HIGH);
	close(side->fd);
	memset(side, 0, sizeof(*side));
}

static void connect_tcp(int fds[2])
{
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(name);

	CHECK_EQ(bind(listener, (struct sockaddr *)&name, len), 0);
	CHECK_EQ(listen(listener, 1), 0);
	CHECK_EQ(getsockname(listener, (struct sockaddr *)&name, &len), 0);
	fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK_EQ(connect(fds[0], (struct sockaddr *)&name, len), 0);
	fds[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	CHECK(fds[1] >= 0);
	close(listener);
}

/* Memory on both sides and channels between; silence in ms. */
static void set_up(unsigned int channels, bool tcp, unsigned int silence)
{
	make_side(&source);
	make_side(&target);
	channel_count = channels;
	for (unsigned int i = 0; i < channels; i++) {
		int fds[2];

		if (tcp)
			connect_tcp(fds);
		else
			CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
		out[i] = channel_end(fds[0], WIRE_SOURCE, WIRE_MEMORY, i, channels, silence);
		in[i] = channel_end(fds[1], WIRE_TARGET, WIRE_MEMORY, i, channels, silence);
	}
	sending = (struct memory_sender_options){
		.memory = source.memory, .channels = out, .channel_count = channels, .cancel_fd = -1};
}

static void tear_down(void)
{
	memory_sender_destroy(sender);
	sender = NULL;
	memory_receiver_destroy(receiver);
	receiver = NULL;
	for (unsigned int i = 0; i < channel_count; i++) {
		channel_destroy(out[i]);
		channel_destroy(in[i]);
	}
	channel_count = 0;
	free_side(&source);
	free_side(&target);
}

static void start_sender(void)
{
	struct err err = {""};

	memory_sender_create(&sending, &sender, &err);
	CHECK_STR(err.text, "");
}

static void start_receiver(void)
{
	const struct memory_receiver_options options = {.memory = target.memory, .channels = in, .channel_count = channel_count};
	struct err err = {""};

	memory_receiver_create(&options, &receiver, &err);
	CHECK_STR(err.text, "");
}

static void start_both(void)
{
	start_receiver();
	start_sender();
}

static void mark_all(void)
{
	for (size_t i = 0; i < LOW / PAGE; i++)
		bitmap_set(source.low_marks, i);
	for (size_t i = 0; i < HIGH / PAGE; i++)
		bitmap_set(source.high_marks, i);
}

static size_t marks_left(void)
{
	size_t left = 0;

	for (size_t i = 0; i < LOW / PAGE; i++)
		left += bitmap_test(source.low_marks, i);
	for (size_t i = 0; i < HIGH / PAGE; i++)
		left += bitmap_test(source.high_marks, i);
	return left;
}

static int send_marks(uint64_t deadline, struct err *err)
{
	const struct memory_marks marks[] = {{0, LOW, source.low_marks}, {HIGH_GPA, HIGH, source.high_marks}};

	return memory_sender_send(sender, marks, 2, deadline, err);
}

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

static uint64_t random_state = 88172645463325252ull;

static uint64_t next_random(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	return random_state ^= random_state << 17;
}

static void scribble(uint8_t *page)
{
	for (size_t i = 0; i < PAGE; i += 8)
		memcpy(page + i, &(uint64_t){next_random()}, 8);
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

/* ---- what goes wrong while sending ---- */

static int refuse_tick(void *opaque, struct err *err)
{
	return err_set(err, -ESHUTDOWN, "the guest is off");
}

/* Nobody reads: silence, the cancel descriptor and the caller's own wish end it, each by its name, and for good. */
static void a_target_that_reads_nothing_ends_sending(void)
{
	struct err err;
	int64_t begun;

	for (int how = 0; how < 3; how++) {
		struct timespec now;

		set_up(2, false, how == 0 ? 300 : 60000);
		for (size_t i = 0; i < LOW; i += PAGE)
			scribble(source.low + i);
		sending.cancel_fd = how == 1 ? eventfd(1, EFD_CLOEXEC) : -1;
		sending.tick = how == 2 ? refuse_tick : NULL;
		clock_gettime(CLOCK_MONOTONIC, &now);
		begun = now.tv_sec;
		if (how == 1) {
			CHECK_EQ(memory_sender_create(&sending, &sender, &err), -ECANCELED);
			sender = NULL;
		} else {
			start_sender();
			mark_all();
			CHECK_EQ(send_marks(0, &err), how == 0 ? -ETIMEDOUT : -ESHUTDOWN);
			if (how == 0)
				CHECK(strstr(err.text, "memory channel ") && strstr(err.text, "the target has not answered for"));
			CHECK_EQ(send_marks(0, &err), how == 0 ? -ETIMEDOUT : -ESHUTDOWN);
			CHECK_EQ(memory_sender_end(sender, NULL, 0, &err), how == 0 ? -ETIMEDOUT : -ESHUTDOWN);
		}
		clock_gettime(CLOCK_MONOTONIC, &now);
		CHECK(now.tv_sec - begun < 20);
		fd_close(&sending.cancel_fd);
		tear_down();
	}
}

static void cancelling_ends_what_is_under_way(void)
{
	struct limiter limiter;
	struct err err;

	set_up(2, false, 60000);
	limiter_init(&limiter, KIB(64)); /* the cap's wait ends as well */
	sending.limiter = &limiter;
	sending.cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	for (size_t i = 0; i < LOW; i += PAGE)
		scribble(source.low + i);
	start_both();
	CHECK_EQ(eventfd_write(sending.cancel_fd, 1), 0);
	mark_all();
	CHECK_EQ(send_marks(0, &err), -ECANCELED);
	CHECK_STR(err.text, "cancelled");
	fd_close(&sending.cancel_fd);
	tear_down();
	limiter_destroy(&limiter);
}

static void one_channel_that_is_cut_ends_them_all_and_is_named(void)
{
	struct err err;

	set_up(3, true, 5000);
	for (size_t i = 0; i < LOW; i += PAGE)
		scribble(source.low + i);
	start_both();
	channel_break(in[1]);
	CHECK_EQ(memory_receiver_wait(receiver, -1, &err), -ECONNRESET);
	CHECK_STR(err.text, "memory channel 1: the source closed the connection");
	mark_all();
	CHECK_EQ(send_marks(0, &err), -ECONNRESET);
	CHECK(strncmp(err.text, "memory channel ", 15) == 0);
	tear_down();
}

/* ---- hostile streams ---- */

static void write_frame(unsigned int channel, uint32_t type, uint64_t a, uint64_t b, const void *payload, size_t len)
{
	const struct wire_frame frame = {.type = type, .length = (uint32_t)len, .a = a, .b = b};
	uint8_t header[WIRE_HEADER_SIZE];

	wire_put_header(header, &frame);
	CHECK_EQ(send(out[channel]->fd, header, sizeof(header), MSG_NOSIGNAL), sizeof(header));
	send(out[channel]->fd, payload, len, MSG_NOSIGNAL); /* whoever was shocked by the header has left */
}

static void nonsense_is_refused_by_name(void)
{
	static uint8_t pages[MIB(1)];
	static const struct {
		unsigned int channel;
		uint32_t type;
		uint64_t a, b;
		size_t len;
		const char *words;
	} cases[] = {
		{0, WIRE_PAGES, MIB(8), 0, PAGE, "0x800000, 4096 bytes: not guest memory"},
		{0, WIRE_PAGES, UINT64_MAX - MIB(4) + 1, 0, PAGE, "not guest memory"},
		{1, WIRE_PAGES, LOW - PAGE, 0, 2 * PAGE, "0x6ff000, 8192 bytes: not guest memory"},
		{0, WIRE_PAGES, HIGH_GPA - PAGE, 0, 2 * PAGE, "not guest memory"},
		{1, WIRE_PAGES, 0, 0, PAGE, "memory channel 1: 0x0 does not belong to this channel"},
		{0, WIRE_ZERO, MIB(2), PAGE, 0, "does not belong to this channel"},
		{0, WIRE_ZERO, MIB(8), MIB(2), 0, "not guest memory"},
		{1, WIRE_ZERO, MIB(6), MIB(2), 0, "not guest memory"},
		{0, WIRE_PAGES, 17, 0, PAGE, "PAGES with 0x11"},
		{0, WIRE_ZSTD, 0, 8 * PAGE, 20, "invalid compressed data for 0x0, 32768 bytes"},
		{0, WIRE_ZSTD, MIB(8), 8 * PAGE, 20, "not guest memory"},
		{0, WIRE_END, 1, 0, 0, "1 pages and 0 of zeros were sent, but 0 and 0 received"},
		{0, WIRE_END, 0, 7, 0, "0 pages and 7 of zeros were sent, but 0 and 0 received"},
		{0, WIRE_HELLO, WIRE_MAGIC, 0, WIRE_HELLO_SIZE, "HELLO from the source"},
		{0, WIRE_GO, 0, 0, 0, "GO from the source"},
		{0, 0xdeadbeef, 0, 0, 0, "unknown type"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct err err = {""};

		set_up(2, false, 5000);
		start_receiver();
		write_frame(cases[i].channel, cases[i].type, cases[i].a, cases[i].b, pages, cases[i].len);
		CHECK_EQ(memory_receiver_wait(receiver, -1, &err), -EPROTO);
		if (!strstr(err.text, cases[i].words))
			printf("# case %zu: %s\n", i, err.text);
		CHECK(strstr(err.text, cases[i].words));
		CHECK(strncmp(err.text, "memory channel ", 15) == 0);
		tear_down();
	}
}

/* A zstd frame of another size than it says, shorter or longer, and one cut off. */
static void compressed_frames_must_be_what_they_say(void)
{
	static uint8_t pages[8 * PAGE], packed[8 * PAGE];
	struct compressor *compressor;
	const size_t claims[] = {4 * PAGE, 16 * PAGE, 8 * PAGE};
	struct err err;
	size_t len;

	CHECK_EQ(compressor_create(&compressor, NULL), 0);
	memset(pages, 0x5a, sizeof(pages));
	len = compressor_pack(compressor, pages, sizeof(pages), packed, sizeof(packed));
	CHECK(len > 0 && len < 200);
	for (size_t i = 0; i < ARRAY_SIZE(claims); i++) {
		set_up(1, false, 5000);
		start_receiver();
		write_frame(0, WIRE_ZSTD, PAGE, claims[i], packed, claims[i] == 8 * PAGE ? len - 1 : len);
		CHECK_EQ(memory_receiver_wait(receiver, -1, &err), -EPROTO);
		CHECK_EQ(target.low[0], 0);
		CHECK_EQ(target.low[PAGE + claims[i]], 0);
		tear_down();
	}
	set_up(1, false, 5000);
	start_receiver();
	write_frame(0, WIRE_ZSTD, PAGE, 8 * PAGE, packed, len);
	write_frame(0, WIRE_END, 8, 0, NULL, 0);
	CHECK_EQ(memory_receiver_wait(receiver, -1, &err), 0);
	CHECK_EQ(memcmp(target.low + PAGE, pages, sizeof(pages)), 0);
	tear_down();
	compressor_destroy(compressor);
}

static void what_comes_last_counts(void)
{
	static uint8_t page[PAGE];

	set_up(1, false, 5000);
	start_receiver();
	memset(page, 1, PAGE);
	write_frame(0, WIRE_ZERO, PAGE, PAGE, NULL, 0);
	write_frame(0, WIRE_PAGES, PAGE, 0, page, PAGE);
	write_frame(0, WIRE_ZERO, 0, 3 * PAGE, NULL, 0);
	memset(page, 2, PAGE);
	write_frame(0, WIRE_PAGES, 2 * PAGE, 0, page, PAGE);
	write_frame(0, WIRE_END, 2, 4, NULL, 0);
	CHECK_EQ(memory_receiver_wait(receiver, -1, NULL), 0);
	CHECK(zero_page(target.low + PAGE));
	CHECK_EQ(target.low[2 * PAGE], 2);
	tear_down();
}

/* A sound stream, cut after `bytes`. */
static int receive_cut(size_t bytes, size_t *whole, struct err *err)
{
	static uint8_t stream[4 * WIRE_HEADER_SIZE + 3 * PAGE];
	const struct wire_frame frames[] = {
		{WIRE_PAGES, 2 * PAGE, 0, 0}, {WIRE_ZERO, 0, 2 * PAGE, PAGE}, {WIRE_PAGES, PAGE, PAGE, 0}, {WIRE_END, 0, 3, 1}};
	size_t at = 0;
	int code;

	for (size_t i = 0; i < ARRAY_SIZE(frames); i++) {
		wire_put_header(stream + at, &frames[i]);
		at += WIRE_HEADER_SIZE + frames[i].length;
	}
	*whole = at;
	set_up(1, false, 5000);
	start_receiver();
	CHECK_EQ(send(out[0]->fd, stream, MIN(bytes, at), MSG_NOSIGNAL), (ssize_t)MIN(bytes, at));
	channel_break(out[0]);
	code = memory_receiver_wait(receiver, -1, err);
	tear_down();
	return code;
}

static void a_cut_at_every_frame_is_found(void)
{
	size_t whole = SIZE_MAX;
	struct err err;

	for (size_t bytes = 0; bytes < whole; bytes += bytes % PAGE < 100 ? 1 : 509) {
		CHECK_EQ(receive_cut(bytes, &whole, &err), bytes == whole ? 0 : -ECONNRESET);
		CHECK_STR(err.text, "memory channel 0: the source closed the connection");
	}
	CHECK_EQ(receive_cut(whole, &whole, &err), 0);
}

static void a_stall_within_a_frame_is_found_and_between_frames_is_none(void)
{
	static uint8_t page[PAGE];
	const struct timespec pause = {.tv_nsec = 350000000};
	struct err err;

	set_up(1, false, 100);
	start_receiver();
	write_frame(0, WIRE_PAGES, 0, 0, page, PAGE);
	nanosleep(&pause, NULL);
	write_frame(0, WIRE_END, 1, 0, NULL, 0);
	CHECK_EQ(memory_receiver_wait(receiver, -1, &err), 0);
	tear_down();
	for (int how = 0; how < 2; how++) {
		const struct wire_frame frame = {WIRE_PAGES, 2 * PAGE, 0, 0};
		uint8_t header[WIRE_HEADER_SIZE];

		set_up(1, false, 100);
		start_receiver();
		wire_put_header(header, &frame);
		CHECK(send(out[0]->fd, header, how ? sizeof(header) : 3, 0) > 0);
		if (how)
			CHECK_EQ(send(out[0]->fd, page, PAGE, 0), PAGE);
		CHECK_EQ(memory_receiver_wait(receiver, -1, &err), -ETIMEDOUT);
		CHECK_STR(err.text, "memory channel 0: the source has not answered for 0 s");
		tear_down();
	}
}

static void waiting_for_memory_can_be_cancelled_and_failure_be_polled(void)
{
	int cancel_fd = eventfd(1, EFD_CLOEXEC);
	eventfd_t count;
	struct err err;

	set_up(2, false, 5000);
	start_receiver();
	CHECK(read(memory_receiver_fd(receiver), &count, sizeof(count)) < 0);
	CHECK_EQ(memory_receiver_wait(receiver, cancel_fd, &err), -ECANCELED);
	CHECK_EQ(read(memory_receiver_fd(receiver), &count, sizeof(count)), sizeof(count));
	close(cancel_fd);
	tear_down();
}

TEST_MAIN(TEST(memory_arrives_whole_by_any_number_of_channels), TEST(memory_arrives_whole_compressed),
	  TEST(only_marked_pages_travel), TEST(last_pages_go_with_the_end),
	  TEST(untouched_memory_stays_untouched_on_both_sides),
	  TEST(a_file_mapped_into_ram_is_not_taken_for_zeros),
	  TEST(memory_over_a_file_is_sent_as_it_reads), TEST(memory_from_elsewhere_is_not_taken_for_zeros), TEST(a_memfd_that_somebody_else_wrote_is_seen),
	  TEST(compression_makes_less_of_what_repeats), TEST(a_deadline_ends_the_call_and_the_next_goes_on),
	  TEST(zero_copy_is_given_up_where_it_is_none), TEST(the_cap_is_even_and_exact), TEST(the_cap_holds_over_all_channels),
	  TEST(a_target_that_reads_nothing_ends_sending), TEST(cancelling_ends_what_is_under_way),
	  TEST(one_channel_that_is_cut_ends_them_all_and_is_named), TEST(nonsense_is_refused_by_name),
	  TEST(compressed_frames_must_be_what_they_say), TEST(what_comes_last_counts), TEST(a_cut_at_every_frame_is_found),
	  TEST(a_stall_within_a_frame_is_found_and_between_frames_is_none),
	  TEST(waiting_for_memory_can_be_cancelled_and_failure_be_polled))
