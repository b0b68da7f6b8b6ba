/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket: an input is what one client sends before it is done. Always: the server answers what it must,
 * hangs up in the end, and still serves the next client.
 */
#include "vmm/config/config_plug.h"
#include "vmm/control/control_machine.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/fake_operations.h"

#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

static struct sockaddr_un address = {.sun_family = AF_UNIX};
static socklen_t address_len = sizeof(sa_family_t);
static struct machine_config config;

/* In the place of the fakes that only compare: what a client writes is parsed. */
static int do_set_limits(struct session *session, const char *id, const char *limits, struct err *err)
{
	struct machine_limits changed;

	return machine_config_set_limits(&config, id, limits, &changed, err);
}

/* What is plugged in is a line of the configuration, checked as the command line's are. */
static int do_add_device(struct session *session, const char *option, const char *text, struct vfio_given *given,
			 const struct add_device_reply *reply, struct err *err)
{
	int code = config_plug_add(&config, option, text, err);

	if (code)
		return code;
	config_plug_remove(&config, config_plug_last(&config, option));
	reply->done(reply->opaque, "added", 0, NULL);
	return 0;
}

static int do_add_passed(struct session *session, const char *option, json_t *device, int *fds, size_t count,
			 const struct add_device_reply *reply, struct err *err)
{
	int code = config_plug_add_json(&config, option, device, err);

	if (code)
		return code;
	config_plug_remove(&config, config_plug_last(&config, option));
	reply->done(reply->opaque, "added", 0, NULL);
	return 0;
}

/* The server lives on a thread of its own as long as the fuzzer; clients come and go. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static struct operations ops;
	static const struct operated machine = {.ops = &ops};
	static struct event_loop *loop;
	static struct control *control;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	ops = fake_operations;
	ops.set_limits = do_set_limits;
	ops.add_device = do_add_device;
	ops.add_passed = do_add_passed;
	machine_config_init(&config);
	config.name = strdup("fuzz");
	MUST(bind(fd, (struct sockaddr *)&address, address_len) == 0);
	address_len = sizeof(address);
	MUST(getsockname(fd, (struct sockaddr *)&address, &address_len) == 0);
	MUST(listen(fd, 16) == 0);
	MUST(event_loop_create(&loop, NULL) == 0);
	MUST(control_machine_create(&machine, loop, &fd, NULL, &control, NULL) == 0);
	MUST(event_loop_start(loop, "control", NULL) == 0);
	return 0;
}

/* Reads whatever is there; false at the end. wait: for something to come, which it does within 10 s. */
static bool drain(int fd, bool wait)
{
	struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
	char buf[4096];
	ssize_t n;

	/* The fuzzer's own alarm interrupts. */
	for (int ready = wait ? -1 : 1; ready != 1;) {
		ready = poll(&poll_fd, 1, 10000);
		MUST(ready == 1 || (ready < 0 && errno == EINTR));
	}
	while ((n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0)
		;
	return n < 0 && errno == EAGAIN;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool open = true;
	size_t sent = 0;

	MUST(connect(fd, (struct sockaddr *)&address, address_len) == 0);
	while (open && sent < size) {
		ssize_t n = send(fd, data + sent, size - sent, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n > 0)
			sent += (size_t)n;
		else if (errno != EAGAIN)
			break; /* it hung up: the input was not to its taste */
		open = drain(fd, n <= 0);
	}
	shutdown(fd, SHUT_WR);
	while (open)
		open = drain(fd, true);
	close(fd);
	return 0;
}

/* Half of the time a request is put behind the others. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed)
{
	static const char *const methods[] = {
		"io.mvmm.Machine.Info", "io.mvmm.Machine.Pause", "io.mvmm.Machine.Resume", "io.mvmm.Machine.Stop",
		"io.mvmm.Machine.None", "io.mvmm.Machine.AddDevice", "io.mvmm.Machine.RemoveDevice", "io.mvmm.Machine.SetBalloon",
		"io.mvmm.Machine.Migrate", "io.mvmm.Machine.MigrationStatus", "io.mvmm.Machine.MigrationResolve",
		"org.varlink.service.GetInfo", "org.varlink.service.GetInterfaceDescription", "x",
	};
	static const char *const tails[] = {
		"", ",\"more\":true", ",\"oneway\":true", ",\"parameters\":{}", ",\"parameters\":{\"force\":true}",
		",\"parameters\":{\"interface\":\"io.mvmm.Machine\"}", ",\"parameters\":[]",
		",\"parameters\":{\"id\":\"disk\",\"timeout\":1}", ",\"parameters\":{\"size\":4096}",
		",\"parameters\":{\"vfio\":\"0000:01:00.0,backend=legacy,id=x\"}", ",\"method\":1",
		",\"parameters\":{\"to\":\"tcp:there\",\"streams\":1,\"continue\":true}",
	};
	char request[200];
	size_t len;

	if (seed & 1)
		return LLVMFuzzerMutate(data, size, max_size);
	len = (size_t)snprintf(request, sizeof(request), "{\"method\":\"%s\"%s}", methods[(seed >> 1) % ARRAY_SIZE(methods)],
			       tails[(seed >> 5) % ARRAY_SIZE(tails)]) + 1;
	if (size + len > max_size)
		size = 0;
	len = MIN(len, max_size - size);
	memcpy(data + size, request, len);
	return size + len;
}
