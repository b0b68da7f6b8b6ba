/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/api/http: requests in pieces, limits, and clients that misbehave. */
#include "vmm/api/http.h"
#include "tests/unit/local_socket.h"
#include "tests/unit/pass_fds.h"
#include "tests/unit/test.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>

static struct event_loop *loop;
static struct http *http;
static struct sockaddr_un address;
static socklen_t address_len;
static struct http_call *waiting;
static int requests, departures;

static void reply_text(struct http_call *call, const char *text)
{
	http_reply(call, &(struct http_response){.status = 200, .type = "text/plain", .body = text, .body_len = strlen(text)});
}

static void on_gone(void *opaque)
{
	waiting = NULL;
	departures++;
}

/* Says what it was asked; some paths do more. */
static void serve_request(void *opaque, struct http_call *call, const struct http_request *request)
{
	static char large[400000];
	char text[1200];
	int fds[4];

	requests++;
	snprintf(text, sizeof(text), "%s %s %zu %.100s", request->method_name, request->path, request->body_len, request->body);
	if (strcmp(request->path, "/later") == 0) {
		waiting = call;
	} else if (strcmp(request->path, "/stream") == 0) {
		waiting = http_stream(call, "text/plain", on_gone, NULL) ? call : NULL;
		if (waiting)
			http_stream_send(call, "one", 3);
	} else if (strcmp(request->path, "/large") == 0) {
		memset(large, 'x', sizeof(large) - 1);
		reply_text(call, large);
	} else if (strcmp(request->path, "/fds") == 0) {
		size_t count = http_take_fds(call, fds, ARRAY_SIZE(fds));

		snprintf(text, sizeof(text), "%zu", count);
		while (count)
			close(fds[--count]);
		reply_text(call, text);
	} else if (strcmp(request->path, "/none") == 0) {
		http_reply(call, &(struct http_response){.status = 204, .headers = "Deprecation: true\r\n"});
	} else {
		reply_text(call, text);
	}
}

static void serve(unsigned int patience_ms)
{
	const struct http_options options = {.server = "test", .max_body = 1000, .patience_ms = patience_ms, .fn = serve_request};
	_cleanup_(fd_close) int fd = local_listen(&address, &address_len);

	requests = departures = 0;
	waiting = NULL;
	CHECK_EQ(event_loop_create(&loop, NULL), 0);
	CHECK_EQ(http_create(loop, &fd, &options, &http, NULL), 0);
	CHECK_EQ(event_loop_start(loop, "http", NULL), 0);
}

static void destroy(void *opaque)
{
	http_destroy(http);
}

static void end(void)
{
	event_loop_call(loop, destroy, NULL);
	event_loop_destroy(loop);
}

static int client(void)
{
	return local_connect(&address, address_len, 60);
}

static void put(int fd, const char *text)
{
	CHECK_EQ(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* Reads until the text ends with this, or the server has ended the connection. */
static const char *until(int fd, const char *tail)
{
	static char text[8192];
	size_t len = 0;
	ssize_t n;

	text[0] = 0;
	while (len < sizeof(text) - 1 && (len < strlen(tail) || !*tail || strcmp(text + len - strlen(tail), tail) != 0)) {
		n = recv(fd, text + len, 1, 0);
		if (n <= 0)
			break;
		text[++len] = 0;
	}
	return text;
}

#define OK(body, len) \
	"HTTP/1.1 200 \r\nServer: test\r\nConnection: keep-alive\r\nContent-Type: text/plain\r\nContent-Length: " len "\r\n\r\n" body

static void replies(void)
{
	int fd;

	serve(60000);
	fd = client();
	put(fd, "GET /a?b=c HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n");
	CHECK_STR(until(fd, "GET /a 0 "), OK("GET /a 0 ", "9"));
	put(fd, "PUT //x/y/ HTTP/1.1\r\nContent-Length: 5\r\nContent-Type: application/json\r\n\r\nhello");
	CHECK_STR(until(fd, "hello"), OK("PUT //x/y/ 5 hello", "18"));
	put(fd, "PATCH /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n");
	CHECK_STR(until(fd, "hello"), OK("PATCH /x 5 hello", "16"));
	put(fd, "DELETE /none HTTP/1.1\r\n\r\n");
	CHECK_STR(until(fd, "\r\n\r\n"), "HTTP/1.1 204 \r\nServer: test\r\nConnection: keep-alive\r\nDeprecation: true\r\n\r\n");
	close(fd);
	end();
}

static void a_request_may_come_byte_by_byte(void)
{
	static const char request[] = "PUT /x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
	int fd;

	serve(60000);
	fd = client();
	for (const char *c = request; *c; c++)
		put(fd, (const char[]){*c, 0});
	CHECK_STR(until(fd, "\r\n\r\n"), "HTTP/1.1 100 \r\n\r\n");
	for (const char *c = "abc"; *c; c++)
		put(fd, (const char[]){*c, 0});
	CHECK_STR(until(fd, "abc"), OK("PUT /x 3 abc", "12"));
	close(fd);
	end();
}

/* Two requests in one write, the second half of which comes late, from one who sends no more. */
static void pipelined_and_half_closed_clients_are_answered_in_order(void)
{
	int fd;

	serve(60000);
	fd = client();
	put(fd, "PUT /1 HTTP/1.1\r\nContent-Length: 1\r\n\r\naGET /2 HTTP/1.1\r\n\r\nGET /3 HT");
	put(fd, "TP/1.1\r\n\r\n");
	shutdown(fd, SHUT_WR);
	CHECK_STR(until(fd, ""), OK("PUT /1 1 a", "10") OK("GET /2 0 ", "9") OK("GET /3 0 ", "9"));
	CHECK_EQ(requests, 3);
	close(fd);
	end();
}

static void a_client_that_wants_to_end_is_disconnected(void)
{
	int fd;

	serve(60000);
	fd = client();
	put(fd, "GET /none HTTP/1.1\r\nConnection: close\r\n\r\n");
	CHECK(strstr(until(fd, ""), "\r\nConnection: close\r\n"));
	close(fd);
	fd = client();
	put(fd, "GET /none HTTP/1.0\r\n\r\n");
	CHECK(strstr(until(fd, ""), "\r\nConnection: close\r\n"));
	close(fd);
	end();
}

#define REFUSED(text) "{ \"error\": \"" text "\" }"

static void refuse(const char *request, const char *error)
{
	int fd = client();
	const char *reply;

	put(fd, request);
	reply = until(fd, "");
	if (strncmp(reply, "HTTP/1.1 400 \r\nServer: test\r\nConnection: close\r\n", 48) != 0 || !strstr(reply, error))
		CHECK_STR(reply, error);
	close(fd);
}

static void what_is_no_request_is_refused(void)
{
	char text[20100] = "GET /";

	serve(60000);
	refuse("hello\r\n\r\n", "{ \"error\": \"Invalid request: ");
	refuse("GET /\x01 HTTP/1.1\r\n\r\n", "Invalid request: ");
	refuse("GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", "Invalid request: ");
	refuse("GET / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", "Invalid request: ");
	refuse("PUT / HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n", "Invalid request: ");
	refuse("PUT / HTTP/1.1\r\nContent-Length: 1001\r\n\r\n",
	       REFUSED("Request payload with size 1001 is larger than the limit of 1000 allowed by server."));
	refuse("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n", "larger than the limit of 1000");
	memset(text + 5, 'a', 2000);
	strcpy(text + 2005, " HTTP/1.1\r\n\r\n");
	refuse(text, REFUSED("Invalid URI: longer than 1024 bytes."));
	strcpy(text, "GET / HTTP/1.1\r\nA: ");
	memset(text + 19, 'a', 20000);
	text[20019] = 0;
	refuse(text, REFUSED("Invalid header. Reason: all of them are more than 16384 bytes."));
	strcpy(text, "GET / HTTP/1.1\r\n");
	for (int i = 0; i < 65; i++)
		strcat(text, "A: b\r\n");
	strcat(text, "\r\n");
	refuse(text, REFUSED("Invalid header. Reason: more than 64 of them."));
	CHECK_EQ(requests, 0);
	end();
}

/* It has sent more than a socket holds before it reads why that was refused. */
static void who_sends_too_much_gets_to_the_reply(void)
{
	static char body[600000];
	int fd;

	serve(60000);
	fd = client();
	put(fd, "PUT / HTTP/1.1\r\nContent-Length: 600000\r\n\r\n");
	memset(body, 'x', sizeof(body) - 1);
	put(fd, body);
	CHECK(strstr(until(fd, ""), "larger than the limit"));
	close(fd);
	end();
}

static void a_slow_client_is_dropped_and_an_idle_one_stays(void)
{
	int slow, idle, deaf;
	char byte;

	serve(300);
	idle = client();
	slow = client();
	put(slow, "GET /a HTTP");
	deaf = client();
	put(deaf, "GET /large HTTP/1.1\r\n\r\n");
	CHECK_STR(until(slow, ""), "");
	/* There are 400,000 bytes for it, and the socket holds less. */
	for (struct pollfd hup = {.fd = deaf}; !(hup.revents & POLLHUP);)
		CHECK(poll(&hup, 1, 60000) == 1);
	put(idle, "GET /none HTTP/1.1\r\n\r\n");
	CHECK(strstr(until(idle, "\r\n\r\n"), "204"));
	CHECK_EQ(recv(idle, &byte, 1, MSG_DONTWAIT), -1);
	close(slow);
	close(idle);
	close(deaf);
	end();
}

static void a_large_reply_arrives(void)
{
	static char text[400200];
	size_t len = 0;
	ssize_t n;
	int fd;

	serve(60000);
	fd = client();
	put(fd, "GET /large HTTP/1.1\r\nConnection: close\r\n\r\n");
	while ((n = recv(fd, text + len, sizeof(text) - len, 0)) > 0)
		len += (size_t)n;
	CHECK_EQ(text + len - strstr(text, "\r\n\r\n"), 4 + 399999);
	close(fd);
	end();
}

static void the_eleventh_client_is_turned_away(void)
{
	int fds[11];

	serve(60000);
	for (unsigned int i = 0; i < 11; i++)
		fds[i] = client();
	CHECK_STR(until(fds[10], ""), "HTTP/1.1 503 \r\nServer: test\r\nConnection: close\r\nContent-Type: application/json\r\n"
				      "Content-Length: 40\r\n\r\n{ \"error\": \"Too many open connections\" }");
	put(fds[3], "GET /none HTTP/1.1\r\n\r\n");
	CHECK(strstr(until(fds[3], "\r\n\r\n"), "204"));
	close(fds[0]);
	do { /* until the server has seen that the first one has gone */
		close(fds[10]);
		fds[10] = client();
		if (send(fds[10], "GET /none HTTP/1.1\r\n\r\n", 22, MSG_NOSIGNAL) < 0)
			continue;
	} while (!strstr(until(fds[10], "\r\n\r\n"), "204"));
	for (unsigned int i = 1; i < 11; i++)
		close(fds[i]);
	end();
}

static void reply_now(void *opaque)
{
	reply_text(take_ptr(waiting), "late");
}

static void is_waiting(void *opaque)
{
	*(bool *)opaque = waiting;
}

/* Until a request has come, or gone. */
static void wait_for_call(bool there)
{
	bool is;

	do {
		event_loop_call(loop, is_waiting, &is);
		poll(NULL, 0, 1);
	} while (is != there);
}

static void a_late_reply_holds_up_nobody(void)
{
	int fd, other;

	serve(300);
	fd = client();
	other = client();
	put(fd, "GET /later HTTP/1.1\r\n\r\nGET /next HTTP/1.1\r\n\r\n");
	wait_for_call(true);
	put(other, "GET /none HTTP/1.1\r\n\r\n");
	CHECK(strstr(until(other, "\r\n\r\n"), "204"));
	poll(NULL, 0, 600); /* a call may take longer than the patience */
	event_loop_call(loop, reply_now, NULL);
	CHECK_STR(until(fd, "/next 0 "), OK("late", "4") OK("GET /next 0 ", "12"));
	/* One that does not wait for its reply. */
	put(fd, "GET /later HTTP/1.1\r\n\r\n");
	wait_for_call(true);
	close(fd);
	event_loop_call(loop, reply_now, NULL);
	close(other);
	end();
}

static void send_piece(void *opaque)
{
	if (waiting)
		http_stream_send(waiting, opaque, strlen(opaque));
}

static void a_stream_ends_with_its_client(void)
{
	int fd;

	serve(300);
	fd = client();
	put(fd, "GET /stream HTTP/1.1\r\n\r\n");
	CHECK_STR(until(fd, "one\r\n"), "HTTP/1.1 200 \r\nServer: test\r\nConnection: close\r\nContent-Type: text/plain\r\n"
					 "Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
	event_loop_call(loop, send_piece, (char[]){"second"});
	CHECK_STR(until(fd, "second\r\n"), "6\r\nsecond\r\n");
	close(fd);
	wait_for_call(false);
	CHECK_EQ(departures, 1);
	/* One that does not read is dropped, however much there is for it. */
	fd = client();
	put(fd, "GET /stream HTTP/1.1\r\n\r\n");
	wait_for_call(true);
	while (departures == 1)
		event_loop_call(loop, send_piece, (char[]){"many pieces of which nobody reads one, until the server has had enough"});
	close(fd);
	end();
}

static void descriptors_ride_on_a_request(void)
{
	static const char request[] = "PUT /fds HTTP/1.1\r\nContent-Length: 1\r\n\r\n";
	const int fds[] = {open("/dev/null", O_RDONLY | O_CLOEXEC), open("/dev/null", O_RDONLY | O_CLOEXEC)};
	int fd;

	serve(60000);
	fd = client();
	pass_fds(fd, request, sizeof(request) - 1, fds, 2);
	put(fd, "x");
	CHECK_STR(until(fd, "\r\n\r\n2"), OK("2", "1"));
	put(fd, "PUT /fds HTTP/1.1\r\nContent-Length: 1\r\n\r\nx"); /* they belonged to the first one */
	CHECK_STR(until(fd, "\r\n\r\n0"), OK("0", "1"));
	close(fds[0]);
	close(fds[1]);
	close(fd);
	end();
}

TEST_MAIN(TEST(replies), TEST(a_request_may_come_byte_by_byte),
	  TEST(pipelined_and_half_closed_clients_are_answered_in_order), TEST(a_client_that_wants_to_end_is_disconnected),
	  TEST(what_is_no_request_is_refused), TEST(who_sends_too_much_gets_to_the_reply),
	  TEST(a_slow_client_is_dropped_and_an_idle_one_stays), TEST(a_large_reply_arrives),
	  TEST(the_eleventh_client_is_turned_away), TEST(a_late_reply_holds_up_nobody), TEST(a_stream_ends_with_its_client),
	  TEST(descriptors_ride_on_a_request))
