/* SPDX-License-Identifier: Apache-2.0 */
/* core/peer: what is unsent costs its bytes and no more; descriptors are the server's, within its bound. */
#include "core/peer.h"
#include "tests/unit/pass_fds.h"
#include "tests/unit/test.h"

#include <fcntl.h>
#include <malloc.h>
#include <sys/socket.h>

static struct peer peer;
static int far = -1;

static void begin(unsigned int most_fds)
{
	int ends[2];

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	peer = (struct peer){.fd = ends[0], .most_fds = most_fds};
	far = ends[1];
}

static void end(void)
{
	peer_done(&peer);
	fd_close(&far);
}

static void bytes_arrive_in_order(void)
{
	static char sent[KIB(3)], got[sizeof(sent)];
	size_t len = 0;
	ssize_t n;

	begin(0);
	for (unsigned int round = 0; round < 500; round++) {
		memset(sent, (int)round, sizeof(sent));
		CHECK(peer_append(&peer, sent, sizeof(sent)));
		CHECK(peer_flush(&peer));
	}
	CHECK(peer_unsent(&peer));
	while (len < 500 * sizeof(sent)) {
		n = read(far, got, sizeof(got) - len % sizeof(got));
		CHECK(n > 0);
		for (ssize_t i = 0; i < n; i++)
			CHECK_EQ((uint8_t)got[i], (len + (size_t)i) / sizeof(sent) % 256);
		len += (size_t)n;
		CHECK(peer_flush(&peer));
	}
	CHECK_EQ(peer_unsent(&peer), 0);
	CHECK(!peer.out);
	end();
}

/* One that always leaves something unread, for as long as it likes. */
static void a_slow_reader_costs_what_is_unsent(void)
{
	static char bytes[KIB(4)];
	ssize_t n;

	begin(0);
	for (unsigned int round = 0; round < 20000; round++) {
		while (peer_unsent(&peer) <= KIB(64)) {
			CHECK(peer_append(&peer, bytes, sizeof(bytes)));
			CHECK(peer_flush(&peer));
		}
		n = read(far, bytes, sizeof(bytes));
		CHECK(n > 0);
		CHECK(peer_flush(&peer));
		CHECK(peer_unsent(&peer) > 0);
		CHECK(malloc_usable_size(peer.out) < KIB(256));
	}
	end();
}

static void one_that_has_left_is_noticed(void)
{
	char byte;

	begin(0);
	fd_close(&far);
	CHECK_EQ(peer_receive(&peer, &byte, 1), 0);
	CHECK(peer_append(&peer, "x", 1));
	CHECK(!peer_flush(&peer));
	end();
}

/* The end of a pipe is there when nobody has its other one any more. */
static bool has_ended(int fd)
{
	char byte;

	return read(fd, &byte, 1) == 0;
}

static void descriptors_are_taken_or_closed(void)
{
	int pipe_fds[2], taken[3];
	char byte;

	begin(4);
	CHECK_EQ(pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK), 0);
	pass_copies(far, "x", 1, pipe_fds[1], 3);
	CHECK_EQ(peer_receive(&peer, &byte, 1), 1);
	pass_copies(far, "x", 1, pipe_fds[1], 8); /* seven of them are too many */
	close(pipe_fds[1]);
	CHECK_EQ(peer_receive(&peer, &byte, 1), 1);
	CHECK_EQ(peer.passed_count, 4);
	CHECK_EQ(peer_take_fds(&peer, taken, 3), 3);
	for (unsigned int i = 0; i < 3; i++) {
		CHECK_EQ(fcntl(taken[i], F_GETFD), FD_CLOEXEC);
		close(taken[i]);
	}
	CHECK(!has_ended(pipe_fds[0]));
	peer_close_fds(&peer);
	CHECK(has_ended(pipe_fds[0]));
	close(pipe_fds[0]);
	end();
}

static void one_that_may_send_none_has_them_closed(void)
{
	int pipe_fds[2];
	char byte;

	begin(0);
	CHECK_EQ(pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK), 0);
	pass_copies(far, "x", 1, pipe_fds[1], 2);
	close(pipe_fds[1]);
	CHECK_EQ(peer_receive(&peer, &byte, 1), 1);
	CHECK(has_ended(pipe_fds[0]));
	close(pipe_fds[0]);
	end();
}

TEST_MAIN(TEST(bytes_arrive_in_order), TEST(a_slow_reader_costs_what_is_unsent), TEST(one_that_has_left_is_noticed),
	  TEST(descriptors_are_taken_or_closed), TEST(one_that_may_send_none_has_them_closed))
