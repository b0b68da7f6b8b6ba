/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/session/ports: the clients of a socket, one after the other, and what becomes of a file. */
#include "vmm/session/ports.h"
#include "tests/unit/test.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static struct event_loop *loop;
static struct port *port;
static char dir[64], path[96];
static int in_fd, out_fd;
static unsigned int changes;

static void changed(void *opaque, int in, int out)
{
	in_fd = in;
	out_fd = out;
	changes++;
}

static void stop(void *opaque)
{
	event_loop_stop(loop);
}

static void expired(void *opaque, uint32_t events)
{
	event_loop_stop(loop);
}

/* Serves what is ready now. */
static void serve(void)
{
	struct event_source *timer;

	CHECK_EQ(event_loop_timer(loop, expired, NULL, &timer, NULL), 0);
	event_timer_set(timer, 1000000, 0);
	event_loop_run(loop);
	event_source_remove(timer);
}

static void begin(enum port_kind kind, const char *name)
{
	const struct port_events events = {.changed = changed, .leave = stop};
	struct port_config config = {.kind = kind, .path = path};
	struct err err = {""};

	if (!dir[0]) {
		snprintf(dir, sizeof(dir), "/tmp/mvmm-test-XXXXXX");
		CHECK(mkdtemp(dir));
	}
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	in_fd = out_fd = -1;
	changes = 0;
	CHECK_EQ(event_loop_create(&loop, NULL), 0);
	port_open(&config, "--serial", loop, NULL, &events, &port, &err);
	CHECK_STR(err.text, "");
}

static void end(void)
{
	port_close(take_ptr(port));
	event_loop_destroy(take_ptr(loop));
}

static void end_folder(void)
{
	unlink(path);
	CHECK_EQ(rmdir(dir), 0);
	dir[0] = 0;
}

static int connect_client(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	CHECK_EQ(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	serve();
	return fd;
}

static void hears(int fd, const char *text)
{
	char buf[16] = "";

	CHECK_EQ(write(out_fd, text, strlen(text)), (ssize_t)strlen(text));
	CHECK_EQ(recv(fd, buf, sizeof(buf) - 1, MSG_DONTWAIT), (ssize_t)strlen(text));
	CHECK_STR(buf, text);
}

static void one_client_at_a_time(void)
{
	char byte;
	int first, second;

	begin(PORT_SOCKET, "socket");
	first = connect_client();
	hears(first, "first");
	second = connect_client();
	CHECK_EQ(recv(second, &byte, 1, MSG_DONTWAIT), 0);
	close(second);
	hears(first, "still");
	CHECK_EQ(shutdown(first, SHUT_WR), 0); /* it has no more input, and is replaced when another one comes */
	second = connect_client();
	hears(second, "second");
	close(first);
	close(second);
	end();
	end_folder();
}

static void a_client_that_leaves_its_input_makes_room(void)
{
	int first, second;

	begin(PORT_SOCKET, "socket");
	first = connect_client();
	CHECK_EQ(write(first, "nobody reads this", 17), 17);
	close(first);
	second = connect_client();
	CHECK_EQ(changes, 3); /* come, gone, come */
	hears(second, "welcome");
	close(second);
	end();
	end_folder();
}

static off_t size(void)
{
	struct stat st;

	return stat(path, &st) < 0 ? -1 : st.st_size;
}

static void a_file_is_appended_to(void)
{
	struct stat st;
	mode_t mask = umask(0);

	begin(PORT_FILE, "log");
	CHECK_EQ(size(), 0);
	end(); /* the guest has not run */
	CHECK_EQ(size(), -1);
	begin(PORT_FILE, "log");
	umask(mask);
	CHECK_EQ(stat(path, &st), 0);
	CHECK_EQ(st.st_mode & 07777, 0600);
	port_keep(port);
	CHECK_EQ(write(port_out(port), "one", 3), 3);
	CHECK_EQ(truncate(path, 0), 0); /* by logrotate */
	CHECK_EQ(write(port_out(port), "two", 3), 3);
	CHECK_EQ(size(), 3);
	end();
	begin(PORT_FILE, "log");
	port_keep(port);
	CHECK_EQ(write(port_out(port), "three", 5), 5);
	end();
	CHECK_EQ(size(), 8);
	end_folder();
}

TEST_MAIN(TEST(one_client_at_a_time), TEST(a_client_that_leaves_its_input_makes_room), TEST(a_file_is_appended_to))
