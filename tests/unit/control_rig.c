/* SPDX-License-Identifier: Apache-2.0 */
/* See control_rig.h. */
#include "tests/unit/control_rig.h"
#include "tests/unit/local_socket.h"
#include "tests/unit/pass_fds.h"
#include "vmm/control/control_machine.h"

struct event_loop *loop;
struct control *control;
struct sockaddr_un address;
socklen_t address_len;
static const struct operated machine = {.ops = &fake_operations};

void serve(const struct control_interface *interface)
{
	_cleanup_(fd_close) int fd = local_listen(&address, &address_len);

	asked = (struct asked){.asker = -1};
	CHECK_EQ(event_loop_create(&loop, NULL), 0);
	CHECK_EQ(interface ? control_create(loop, &fd, interface, NULL, NULL, &control, NULL)
			   : control_machine_create(&machine, loop, &fd, NULL, &control, NULL), 0);
	CHECK_EQ(event_loop_start(loop, "control", NULL), 0);
}

static void destroy(void *opaque)
{
	control_destroy(control);
}

void end(void)
{
	event_loop_call(loop, destroy, NULL);
	event_loop_destroy(loop);
}

int client(void)
{
	return local_connect(&address, address_len, 5);
}

const char *receive(int fd)
{
	static char text[4096];
	size_t len = 0;
	ssize_t n = 0;

	while (len < sizeof(text) - 1 && (n = recv(fd, text + len, 1, 0)) == 1 && text[len])
		len++;
	text[len] = 0;
	return n < 0 ? "?" : text;
}

void put(int fd, const char *text)
{
	CHECK_EQ(send(fd, text, strlen(text) + 1, MSG_NOSIGNAL), (ssize_t)strlen(text) + 1);
}

void put_fds(int fd, const char *text, int passed, unsigned int count)
{
	pass_copies(fd, text, strlen(text) + 1, passed, count);
}

bool nobody_has(int pipe_fds[2])
{
	char byte;

	close(pipe_fds[1]);
	for (int i = 0; i < 5000; i++) {
		if (read(pipe_fds[0], &byte, 1) == 0)
			return true;
		usleep(1000);
	}
	return false;
}
