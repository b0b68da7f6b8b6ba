/* SPDX-License-Identifier: Apache-2.0 */
/* See memory_stream_rig.h. */
#include "tests/unit/memory_stream_rig.h"

#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "core/bitmap.h"

struct side source, target;
struct channel *out[MAX_CHANNELS], *in[MAX_CHANNELS];
unsigned int channel_count;
struct memory_sender *sender;
struct memory_receiver *receiver;
struct memory_sender_options sending;

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

void set_up(unsigned int channels, bool tcp, unsigned int silence)
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

void tear_down(void)
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

void start_sender(void)
{
	struct err err = {""};

	memory_sender_create(&sending, &sender, &err);
	CHECK_STR(err.text, "");
}

void start_receiver(void)
{
	const struct memory_receiver_options options = {.memory = target.memory, .channels = in, .channel_count = channel_count};
	struct err err = {""};

	memory_receiver_create(&options, &receiver, &err);
	CHECK_STR(err.text, "");
}

void start_both(void)
{
	start_receiver();
	start_sender();
}

void mark_all(void)
{
	for (size_t i = 0; i < LOW / PAGE; i++)
		bitmap_set(source.low_marks, i);
	for (size_t i = 0; i < HIGH / PAGE; i++)
		bitmap_set(source.high_marks, i);
}

size_t marks_left(void)
{
	size_t left = 0;

	for (size_t i = 0; i < LOW / PAGE; i++)
		left += bitmap_test(source.low_marks, i);
	for (size_t i = 0; i < HIGH / PAGE; i++)
		left += bitmap_test(source.high_marks, i);
	return left;
}

int send_marks(uint64_t deadline, struct err *err)
{
	const struct memory_marks marks[] = {{0, LOW, source.low_marks}, {HIGH_GPA, HIGH, source.high_marks}};

	return memory_sender_send(sender, marks, 2, deadline, err);
}

static uint64_t random_state = 88172645463325252ull;

uint64_t next_random(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	return random_state ^= random_state << 17;
}

void scribble(uint8_t *page)
{
	for (size_t i = 0; i < PAGE; i += 8)
		memcpy(page + i, &(uint64_t){next_random()}, 8);
}
