/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/control/control: the protocol, and clients that misbehave. */
#include "tests/unit/control_rig.h"
#include "tests/unit/local_socket.h"
#include "tests/unit/shortage.h"

#include <fcntl.h>

static struct control_call *waiting;

/* A slow method, answered by the test itself, and one with a large answer. */
static void call_slow(void *opaque, struct control_call *call, const json_t *parameters)
{
	waiting = call;
}

static void call_large(void *opaque, struct control_call *call, const json_t *parameters)
{
	char *text = malloc(MIB(1));

	memset(text, 'x', MIB(1));
	control_reply(call, json_pack("{s:s#}", "text", text, (int)MIB(1)));
	free(text);
}

/* Writes into the descriptor that came along. */
static void call_write(void *opaque, struct control_call *call, const json_t *parameters)
{
	_cleanup_(fd_close) int fd = control_take_fd(call);
	bool written = fd >= 0 && write(fd, "hello", 5) == 5;

	control_reply(call, json_pack("{s:b}", "written", written));
}

/* Counts the descriptors that came along, of which it takes up to five. */
static void call_count(void *opaque, struct control_call *call, const json_t *parameters)
{
	int fds[5];
	size_t count = control_take_fds(call, fds, ARRAY_SIZE(fds));

	control_reply(call, json_pack("{s:i}", "count", (int)count));
	while (count)
		close(fds[--count]);
}

static int departures;

static void on_gone(void *opaque)
{
	departures++;
	control_reply(waiting, NULL);
	waiting = NULL;
}

/* A slow method that learns that its client has gone. */
static void call_watched(void *opaque, struct control_call *call, const json_t *parameters)
{
	waiting = call;
	control_watch_client(call, on_gone, NULL);
}

static void call_nothing(void *opaque, struct control_call *call, const json_t *parameters)
{
	control_reply(call, NULL);
}

static const struct control_method test_methods[] = {
	{"Slow", call_slow}, {"Large", call_large}, {"Write", call_write}, {"Nothing", call_nothing},
	{"Count", call_count}, {"Watched", call_watched},
};
static const struct control_interface test_interface = {"io.test", "interface io.test\n", test_methods,
							 ARRAY_SIZE(test_methods)};

static void describes_itself(void)
{
	int fd;

	serve(&test_interface);
	fd = client();
	put(fd, "{\"method\":\"org.varlink.service.GetInfo\"}");
	CHECK(strstr(receive(fd), "\"interfaces\":[\"org.varlink.service\",\"io.test\"]"));
	ASK(fd, "{\"method\":\"org.varlink.service.GetInterfaceDescription\",\"parameters\":{\"interface\":\"io.test\"}}",
	    "{\"parameters\":{\"description\":\"interface io.test\\n\"}}");
	ASK(fd, "{\"method\":\"org.varlink.service.GetInterfaceDescription\",\"parameters\":{\"interface\":\"x\"}}",
	    "{\"error\":\"org.varlink.service.InterfaceNotFound\",\"parameters\":{\"interface\":\"x\"}}");
	ASK(fd, "{\"method\":\"io.test.None\"}",
	    "{\"error\":\"org.varlink.service.MethodNotFound\",\"parameters\":{\"method\":\"io.test.None\"}}");
	ASK(fd, "{\"method\":\"io.tes.Slow\"}",
	    "{\"error\":\"org.varlink.service.InterfaceNotFound\",\"parameters\":{\"interface\":\"io.tes.Slow\"}}");
	ASK(fd, "{\"method\":\"Slow\"}",
	    "{\"error\":\"org.varlink.service.InterfaceNotFound\",\"parameters\":{\"interface\":\"Slow\"}}");
	close(fd);
	end();
}

static void refuses_what_is_no_request(void)
{
	static const char *const bad[] = {"", "[]", "{}", "nonsense", "{\"method\":1}", "{\"method\":\"a.b\",\"parameters\":[]}",
					  "{\"method\":\"a.b\",\"method\":\"a.b\"}"};

	serve(&test_interface);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		int fd = client();

		put(fd, bad[i]);
		CHECK(strstr(receive(fd), "{\"error\":\"io.test.Failed\",\"parameters\":{\"text\":\"not a request: "));
		CHECK_STR(receive(fd), "");
		close(fd);
	}
	end();
}

static void requests_are_bounded(void)
{
	static char text[CONTROL_MAX_REQUEST];
	int fd;

	serve(&test_interface);
	fd = client();
	memset(text, ' ', sizeof(text));
	CHECK_EQ(send(fd, text, sizeof(text), MSG_NOSIGNAL), sizeof(text));
	CHECK_STR(receive(fd), "{\"error\":\"io.test.Failed\",\"parameters\":{\"text\":\"not a request: longer than 64 KiB\"}}");
	CHECK_STR(receive(fd), "");
	close(fd);
	end();
}

static void requests_may_come_in_pieces_and_together(void)
{
	static const char one[] = "{\"method\":\"io.mvmm.Machine.Pause\"}";
	char two[2 * sizeof(one)];
	int fd;

	serve(NULL);
	fd = client();
	for (size_t i = 0; i < sizeof(one); i++)
		CHECK_EQ(send(fd, one + i, 1, MSG_NOSIGNAL), 1);
	CHECK_STR(receive(fd), "{\"parameters\":{}}");
	memcpy(two, one, sizeof(one));
	memcpy(two + sizeof(one), one, sizeof(one));
	CHECK_EQ(send(fd, two, sizeof(two), MSG_NOSIGNAL), sizeof(two));
	CHECK_EQ(shutdown(fd, SHUT_WR), 0);
	CHECK_STR(receive(fd), "{\"parameters\":{}}");
	CHECK_STR(receive(fd), "{\"parameters\":{}}");
	CHECK_STR(receive(fd), "");
	CHECK_EQ(asked.paused, 3);
	close(fd);
	end();
}

static void oneway_has_no_answer(void)
{
	int fd;

	serve(NULL);
	fd = client();
	put(fd, "{\"method\":\"io.mvmm.Machine.Resume\",\"oneway\":true}");
	ASK(fd, "{\"method\":\"io.mvmm.Machine.Pause\"}", "{\"parameters\":{}}");
	close(fd);
	end();
}

static void wait_for_slow(void)
{
	for (int i = 0; i < 5000 && !__atomic_load_n(&waiting, __ATOMIC_ACQUIRE); i++)
		usleep(1000);
	CHECK(waiting);
}

static void progress_now(void *opaque)
{
	control_progress(waiting, json_pack("{s:i}", "percent", 50));
}

static void finish_now(void *opaque)
{
	control_reply(waiting, json_pack("{s:i}", "percent", 100));
	waiting = NULL;
}

static void slow_calls_tell_how_they_go(void)
{
	int fd, other;

	serve(&test_interface);
	fd = client();
	put(fd, "{\"method\":\"io.test.Slow\",\"more\":true}");
	put(fd, "{\"method\":\"io.test.None\"}");
	wait_for_slow();
	event_loop_call(loop, progress_now, NULL);
	CHECK_STR(receive(fd), "{\"parameters\":{\"percent\":50},\"continues\":true}");
	other = client(); /* others do not wait for it */
	put(other, "{\"method\":\"org.varlink.service.GetInfo\"}");
	CHECK(strstr(receive(other), "mvmm"));
	close(other);
	event_loop_call(loop, finish_now, NULL);
	CHECK_STR(receive(fd), "{\"parameters\":{\"percent\":100}}");
	CHECK(strstr(receive(fd), "MethodNotFound"));
	put(fd, "{\"method\":\"io.test.Slow\"}");
	wait_for_slow();
	event_loop_call(loop, progress_now, NULL); /* not asked for */
	event_loop_call(loop, finish_now, NULL);
	CHECK_STR(receive(fd), "{\"parameters\":{\"percent\":100}}");
	close(fd);
	end();
}

static void clients_may_leave_at_any_time(void)
{
	int fd;

	serve(&test_interface);
	fd = client();
	put(fd, "{\"method\":\"io.test.Slow\",\"more\":true}");
	wait_for_slow();
	close(fd);
	fd = client();
	put(fd, "{\"method\":\"org.varlink.service.GetInfo\"}"); /* by its answer the other's end was seen */
	CHECK(strstr(receive(fd), "mvmm"));
	event_loop_call(loop, progress_now, NULL);
	event_loop_call(loop, finish_now, NULL);
	put(fd, "{\"method\":\"io.test.Slow\"}");
	wait_for_slow();
	end();
	control_reply(waiting, NULL); /* after the server's end */
	CHECK_STR(receive(fd), "");
	close(fd);
}

static void who_does_not_read_only_stops_itself(void)
{
	int slow, fd;

	serve(&test_interface);
	slow = client();
	for (int i = 0; i < 20; i++)
		put(slow, "{\"method\":\"io.test.Large\"}");
	fd = client();
	put(fd, "{\"method\":\"org.varlink.service.GetInfo\"}");
	CHECK(strstr(receive(fd), "mvmm"));
	for (int i = 0; i < 20; i++) {
		static char text[MIB(1) + 64];
		size_t len = 0;
		ssize_t n;

		while (len < MIB(1) + 27 && (n = recv(slow, text, MIN(sizeof(text), MIB(1) + 27 - len), 0)) > 0)
			len += (size_t)n;
		CHECK_EQ(len, MIB(1) + 27); /* {"parameters":{"text":"..."}} and its zero byte */
	}
	close(slow);
	close(fd);
	end();
}

static void clients_are_bounded(void)
{
	int fds[CONTROL_MAX_CLIENTS], fd;

	serve(&test_interface);
	for (unsigned int i = 0; i < CONTROL_MAX_CLIENTS; i++) {
		fds[i] = client();
		put(fds[i], "{\"method\":\"org.varlink.service.GetInfo\"}");
		CHECK(strstr(receive(fds[i]), "mvmm"));
	}
	fd = client();
	CHECK_STR(receive(fd), "");
	close(fd);
	for (unsigned int i = 0; i < CONTROL_MAX_CLIENTS; i++)
		close(fds[i]);
	end();
}

/* There is always a descriptor for one client; the next one waits until there is another. */
static void answers_without_descriptors(void)
{
	static struct shortage shortage;
	int fds[2];

	serve(&test_interface);
	for (unsigned int i = 0; i < 2; i++) /* twice: the reserve is filled again */
		for (unsigned int j = 0; j < 2; j++) {
			if (!j) {
				fds[0] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
				fds[1] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
				shortage_begin(&shortage);
			}
			CHECK_EQ(connect(fds[j], (struct sockaddr *)&address, address_len), 0);
			put(fds[j], "{\"method\":\"org.varlink.service.GetInfo\"}");
			if (j)
				shortage_ease(&shortage);
			CHECK(strstr(receive(fds[j]), "mvmm"));
			if (j) {
				shortage_end(&shortage);
				close(fds[0]);
				close(fds[1]);
			}
		}
	end();
}

static void descriptors_come_along(void)
{
	int fd, pipes[2];
	char text[8] = "";

	serve(&test_interface);
	fd = client();
	CHECK_EQ(pipe2(pipes, O_CLOEXEC | O_NONBLOCK), 0);
	put_fds(fd, "{\"method\":\"io.test.Write\"}", pipes[1], 1);
	CHECK_STR(receive(fd), "{\"parameters\":{\"written\":true}}");
	CHECK_EQ(read(pipes[0], text, 5), 5);
	CHECK_STR(text, "hello");
	ASK(fd, "{\"method\":\"io.test.Write\"}", "{\"parameters\":{\"written\":false}}");
	/* those that nobody takes, or beyond what there is room for, or of a request that is none, are closed */
	put_fds(fd, "{\"method\":\"io.test.Nothing\"}", pipes[1], 1);
	CHECK_STR(receive(fd), "{\"parameters\":{}}");
	put_fds(fd, "{\"method\":\"io.test.Nothing\"}", pipes[1], 8);
	CHECK_STR(receive(fd), "{\"parameters\":{}}");
	put_fds(fd, "{\"method\":\"io.test.Nothing\"}", pipes[1], CONTROL_MAX_FDS + 9);
	CHECK_STR(receive(fd), "{\"parameters\":{}}");
	put_fds(fd, "{\"method\":\"io.test.Count\"}", pipes[1], 3);
	CHECK_STR(receive(fd), "{\"parameters\":{\"count\":3}}");
	put_fds(fd, "{\"method\":\"io.test.Count\"}", pipes[1], 7);
	CHECK_STR(receive(fd), "{\"parameters\":{\"count\":5}}");
	put_fds(fd, "nonsense", pipes[1], 2);
	CHECK(strstr(receive(fd), "not a request"));
	CHECK(nobody_has(pipes));
	close(pipes[0]);
	close(fd);
	end();
}

static void get_departures(void *to)
{
	*(int *)to = departures;
}

static void a_call_learns_that_its_client_has_gone(void)
{
	int fd, seen = 0;

	serve(&test_interface);
	departures = 0;
	fd = client();
	put(fd, "{\"method\":\"io.test.Watched\"}");
	close(fd);
	for (int i = 0; i < 5000 && !seen; i++) {
		usleep(1000);
		event_loop_call(loop, get_departures, &seen);
	}
	CHECK_EQ(seen, 1);
	end();
}

static void listen_there(void *fd)
{
	CHECK_EQ(control_listen(control, fd, NULL), 0);
}

static void listen_there_too(void *fd)
{
	CHECK_EQ(control_listen_more(control, fd, NULL), 0);
}

static void refuse_more(void *fd)
{
	CHECK_EQ(control_listen_more(control, fd, NULL), -ENOSPC);
}

/* They stay when the server's own socket is replaced, and are as many as it says. */
static void several_sockets_lead_to_one_server(void)
{
	struct sockaddr_un first, more[CONTROL_MAX_SOCKETS + 2];
	int fd;

	serve(&test_interface);
	first = address;
	for (size_t i = 0; i < ARRAY_SIZE(more); i++) {
		socklen_t len;

		fd = local_listen(&more[i], &len);
		event_loop_call(loop, i < CONTROL_MAX_SOCKETS ? listen_there_too : i == CONTROL_MAX_SOCKETS ? refuse_more : listen_there,
				&fd);
		fd_close(&fd);
	}
	for (size_t i = 0; i < ARRAY_SIZE(more); i++) {
		address = more[i];
		if (i == CONTROL_MAX_SOCKETS)
			continue;
		fd = client();
		put(fd, "{\"method\":\"io.test.Nothing\"}");
		CHECK_STR(receive(fd), "{\"parameters\":{}}");
		close(fd);
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK(connect(fd, (struct sockaddr *)&first, address_len) < 0);
	close(fd);
	end();
}

/* A folder that was moved away has the old socket: who calls there is not left waiting. */
static void nobody_waits_at_a_socket_that_was_left(void)
{
	struct sockaddr_un next, left;
	socklen_t len;
	int fd = local_listen(&next, &len), late;

	serve(&test_interface);
	left = address;
	late = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	event_loop_call(loop, listen_there, &fd);
	CHECK_EQ(fd, -1);
	CHECK(connect(late, (struct sockaddr *)&left, address_len) < 0 && errno == ECONNREFUSED);
	close(late);
	end();
}

TEST_MAIN(TEST(nobody_waits_at_a_socket_that_was_left), TEST(several_sockets_lead_to_one_server),
	  TEST(descriptors_come_along), TEST(a_call_learns_that_its_client_has_gone), TEST(describes_itself),
	  TEST(refuses_what_is_no_request), TEST(requests_are_bounded), TEST(requests_may_come_in_pieces_and_together),
	  TEST(oneway_has_no_answer), TEST(slow_calls_tell_how_they_go), TEST(clients_may_leave_at_any_time),
	  TEST(who_does_not_read_only_stops_itself), TEST(clients_are_bounded), TEST(answers_without_descriptors))
