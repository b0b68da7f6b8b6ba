/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/control: the protocol, and clients that misbehave. */
#include "vmm/control/control_machine.h"
#include "tests/unit/shortage.h"
#include "vmm/snapshot/restore_request.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

static struct event_loop *loop;
static struct control *control;
static struct sockaddr_un address;
static socklen_t address_len;
static struct control_call *waiting;
static int paused, stopped, forced;
static uint64_t ballooned;

/* One pause at a time may wait for its answer. */
static void (*pause_done)(void *opaque, int code, const struct err *err);
static void *pause_opaque;
static bool pause_waits;

static int do_pause(struct session *session, void (*done)(void *opaque, int code, const struct err *err), void *opaque,
		    struct err *err)
{
	paused++;
	pause_done = done;
	pause_opaque = opaque;
	if (!pause_waits)
		done(opaque, 0, NULL);
	return 0;
}

static int do_resume(struct session *session, struct err *err)
{
	return err_set(err, -EBUSY, "not now");
}

static int do_stop(struct session *session, bool force, struct err *err)
{
	stopped++;
	forced += force;
	return 0;
}

static int do_describe(struct session *session, json_t **ret, struct err *err)
{
	*ret = json_pack("{s:s}", "state", "running");
	return 0;
}

static int do_set_balloon(struct session *session, uint64_t bytes, struct err *err)
{
	ballooned = bytes;
	return 0;
}

/* "late" fails after it has begun. */
static int do_add_device(struct session *session, const char *option, const char *vfio,
			 const struct add_device_reply *reply, struct err *err)
{
	CHECK_STR(option, "vfio");
	if (strcmp(vfio, "x") == 0)
		return err_set(err, -ENODEV, "no such device");
	reply->progress(reply->opaque, "map", 4096, 8192);
	if (strcmp(vfio, "late") == 0)
		reply->done(reply->opaque, NULL, err_set(err, -EIO, "it fails"), err);
	else
		reply->done(reply->opaque, "vfio0", 0, NULL);
	return 0;
}

static int do_resize_disk(struct session *session, const char *id, uint64_t *bytes, struct err *err)
{
	*bytes = MIB(3);
	return strcmp(id, "disk0") == 0 ? 0 : err_set(err, -ENODEV, "no such disk");
}

static int do_set_limits(struct session *session, const char *id, const char *limits, struct err *err)
{
	return strcmp(limits, "ops=5") == 0 ? 0 : err_set(err, -EINVAL, "%s: %s: no limit", id, limits);
}

static unsigned int passed_count; /* descriptors with the last request */

/* One called "kept" has been taken. */
static int do_add_passed(struct session *session, const char *option, json_t *device, int *fds, size_t count,
			 const struct add_device_reply *reply, struct err *err)
{
	const char *id = json_string_value(json_object_get(device, "id"));

	passed_count = (unsigned int)count;
	if (!id)
		return err_set(err, -EINVAL, "--%s: no id", option);
	for (size_t i = 0; i < count && strcmp(id, "kept") == 0; i++)
		close(take_fd(&fds[i]));
	reply->done(reply->opaque, id, 0, NULL);
	return 0;
}

static int do_replace_disk(struct session *session, const char *id, const char *path, int *fds, size_t count,
			   void (*done)(void *opaque, uint64_t bytes, int code, const struct err *err), void *opaque,
			   struct err *err)
{
	passed_count = (unsigned int)count;
	if (strcmp(path, "/slow") == 0)
		done(opaque, 0, err_set(err, -ETIMEDOUT, "its storage does not answer"), err);
	else
		done(opaque, MIB(5), 0, NULL);
	return 0;
}

static int do_set_link(struct session *session, const char *id, bool plugged, struct err *err)
{
	return plugged ? 0 : err_set(err, -ENODEV, "no such card");
}

/* "slow" stays. */
static int do_remove_device(struct session *session, const char *kind, const char *id, bool force,
			    unsigned int timeout_ms, void (*done)(void *opaque, int code, const struct err *err),
			    void *opaque, struct err *err)
{
	if (strcmp(id, "kind") == 0)
		return err_set(err, -ENOENT, "no such %s", kind);
	if (strcmp(id, "none") == 0)
		return err_set(err, -ENOENT, "no such device");
	if (strcmp(id, "slow") == 0 && !force)
		done(opaque, err_set(err, -ETIMEDOUT, "it stays"), err);
	else
		done(opaque, 0, NULL);
	return 0;
}

/* Goes to tcp:there alone, by way of its memory. */
static int do_migrate(struct session *session, struct migration_request *request, int *fd,
		      const struct migration_reply *reply, struct err *err)
{
	bool there = strcmp(request->to, "tcp:there") == 0;
	struct migration_report report = {.state = MIGRATION_MEMORY};

	if (strcmp(request->to, "tcp:busy") == 0)
		return err_set(err, -EBUSY, "is paused");
	reply->progress(reply->opaque, &report);
	report.state = there ? MIGRATION_DONE : MIGRATION_FAILED;
	snprintf(report.text, sizeof(report.text), "%s", there ? "" : "nobody listens");
	reply->done(reply->opaque, &report);
	return 0;
}

static const struct migration_report *do_migration_status(struct session *session)
{
	static const struct migration_report report = {.state = MIGRATION_UNRESOLVED, .text = "who knows"};

	return &report;
}

static int asker = -1; /* leaves while its request is looked at */
static bool asker_was_there, asker_left;

static int do_restore(struct session *session, struct restore_request *request, const char **name, struct err *err)
{
	if (asker >= 0) {
		asker_was_there = !request->asker_left(request->asker);
		shutdown(asker, SHUT_RDWR);
		asker_left = request->asker_left(request->asker);
	}
	*name = request->here.name;
	return request->here.disk_count == 1 ? 0 : err_set(err, -EINVAL, "there is one disk");
}

static const struct operations ops = {
	.describe = do_describe,
	.pause = do_pause,
	.resume = do_resume,
	.stop = do_stop,
	.set_balloon = do_set_balloon,
	.resize_disk = do_resize_disk,
	.set_limits = do_set_limits,
	.add_device = do_add_device,
	.add_passed = do_add_passed,
	.replace_disk = do_replace_disk,
	.set_link = do_set_link,
	.remove_device = do_remove_device,
	.migrate = do_migrate,
	.migration_status = do_migration_status,
	.restore = do_restore,
};
static const struct operated machine = {.ops = &ops};

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

/* The server on a socket with an abstract address. */
static void serve(bool own)
{
	_cleanup_(fd_close) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	address.sun_family = AF_UNIX;
	address_len = sizeof(sa_family_t);
	CHECK_EQ(bind(fd, (struct sockaddr *)&address, address_len), 0);
	address_len = sizeof(address);
	CHECK_EQ(getsockname(fd, (struct sockaddr *)&address, &address_len), 0);
	CHECK_EQ(listen(fd, 32), 0);
	paused = stopped = forced = 0;
	waiting = NULL;
	CHECK_EQ(event_loop_create(&loop, NULL), 0);
	if (own) {
		CHECK_EQ(control_create(loop, &fd, &test_interface, NULL, NULL, &control, NULL), 0);
	} else {
		CHECK_EQ(control_machine_create(&machine, loop, &fd, NULL, &control, NULL), 0);
	}
	CHECK_EQ(event_loop_start(loop, "control", NULL), 0);
}

static void destroy(void *opaque)
{
	control_destroy(control);
}

static void end(void)
{
	event_loop_call(loop, destroy, NULL);
	event_loop_destroy(loop);
}

static int client(void)
{
	const struct timeval limit = {.tv_sec = 5};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CHECK_EQ(connect(fd, (struct sockaddr *)&address, address_len), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return fd;
}

/* One message from the server, "" at the end, "?" when nothing came in time. */
static const char *receive(int fd)
{
	static char text[4096];
	size_t len = 0;
	ssize_t n = 0;

	while (len < sizeof(text) - 1 && (n = recv(fd, text + len, 1, 0)) == 1 && text[len])
		len++;
	text[len] = 0;
	return n < 0 ? "?" : text;
}

static void put(int fd, const char *text)
{
	CHECK_EQ(send(fd, text, strlen(text) + 1, MSG_NOSIGNAL), (ssize_t)strlen(text) + 1);
}

#define ASK(fd, request, answer)                   \
	do {                                       \
		put(fd, request);                  \
		CHECK_STR(receive(fd), answer);    \
	} while (0)

#define BAD_SIZE "{\"error\":\"org.varlink.service.InvalidParameter\",\"parameters\":{\"parameter\":\"size\"}}"

static void who_waits_learns_that_the_asker_has_left(void)
{
	serve(false);
	asker = client();
	put(asker, "{\"method\":\"io.mvmm.Machine.Restore\",\"parameters\":{\"name\":\"a\"}}");
	CHECK_STR(receive(asker), "");
	end();
	CHECK(asker_was_there && asker_left);
	fd_close(&asker);
}

static void calls_the_machine(void)
{
	int fd;

	serve(false);
	fd = client();
	ASK(fd, "{\"method\":\"io.mvmm.Machine.Pause\"}", "{\"parameters\":{}}");
	CHECK_EQ(paused, 1);
	ASK(fd, "{\"method\":\"io.mvmm.Machine.SetBalloon\",\"parameters\":{\"size\":1048576}}", "{\"parameters\":{}}");
	CHECK_EQ(ballooned, MIB(1));
	ASK(fd, "{\"method\":\"io.mvmm.Machine.ResizeDisk\",\"parameters\":{\"id\":\"disk0\"}}",
	    "{\"parameters\":{\"size\":3145728}}");
	ASK(fd, "{\"method\":\"io.mvmm.Machine.ResizeDisk\",\"parameters\":{\"id\":\"disk1\"}}",
	    "{\"error\":\"io.mvmm.Machine.Failed\",\"parameters\":{\"text\":\"no such disk\"}}");
	ASK(fd, "{\"method\":\"io.mvmm.Machine.ResizeDisk\"}",
	    "{\"error\":\"org.varlink.service.InvalidParameter\",\"parameters\":{\"parameter\":\"id\"}}");
	ASK(fd, "{\"method\":\"io.mvmm.Machine.SetLimits\",\"parameters\":{\"id\":\"disk0\",\"limits\":\"ops=5\"}}",
	    "{\"parameters\":{}}");
	ASK(fd, "{\"method\":\"io.mvmm.Machine.SetLimits\",\"parameters\":{\"id\":\"disk0\",\"limits\":\"x\"}}",
	    "{\"error\":\"io.mvmm.Machine.Failed\",\"parameters\":{\"text\":\"disk0: x: no limit\"}}");
	ASK(fd, "{\"method\":\"io.mvmm.Machine.SetLimits\",\"parameters\":{\"id\":\"disk0\",\"limits\":5}}",
	    "{\"error\":\"org.varlink.service.InvalidParameter\",\"parameters\":{\"parameter\":\"limits\"}}");
	ASK(fd, "{\"method\":\"io.mvmm.Machine.Restore\",\"parameters\":{\"name\":\"a\",\"disks\":[\"disk0=x\"]}}",
	    "{\"parameters\":{\"name\":\"a\"}}");
	ASK(fd, "{\"method\":\"io.mvmm.Machine.Restore\",\"parameters\":{\"name\":\"a\"}}",
	    "{\"error\":\"io.mvmm.Machine.Failed\",\"parameters\":{\"text\":\"there is one disk\"}}");
	ASK(fd, "{\"method\":\"io.mvmm.Machine.Restore\",\"parameters\":{\"disks\":\"disk0=x\"}}",
	    "{\"error\":\"org.varlink.service.InvalidParameter\",\"parameters\":{\"parameter\":\"disks\"}}");
	ASK(fd, "{\"method\":\"io.mvmm.Machine.SetBalloon\",\"parameters\":{\"size\":-1}}", BAD_SIZE);
	ASK(fd, "{\"method\":\"io.mvmm.Machine.SetBalloon\",\"parameters\":{\"size\":\"1M\"}}", BAD_SIZE);
	CHECK_EQ(ballooned, MIB(1));
	ASK(fd, "{\"method\":\"io.mvmm.Machine.Resume\",\"parameters\":{}}",
	    "{\"error\":\"io.mvmm.Machine.Failed\",\"parameters\":{\"text\":\"not now\"}}");
	ASK(fd, "{\"method\":\"io.mvmm.Machine.Stop\",\"parameters\":{\"force\":1}}",
	    "{\"error\":\"org.varlink.service.InvalidParameter\",\"parameters\":{\"parameter\":\"force\"}}");
	CHECK_EQ(stopped, 0);
	ASK(fd, "{\"method\":\"io.mvmm.Machine.Stop\",\"parameters\":{\"force\":true}}", "{\"parameters\":{}}");
	ASK(fd, "{\"method\":\"io.mvmm.Machine.Stop\"}", "{\"parameters\":{}}");
	CHECK_EQ(stopped, 2);
	CHECK_EQ(forced, 1);
	put(fd, "{\"method\":\"io.mvmm.Machine.Info\"}");
	CHECK(strstr(receive(fd), "\"state\":\"running\""));
	close(fd);
	end();
}

#define FAILED(text) "{\"error\":\"io.mvmm.Machine.Failed\",\"parameters\":{\"text\":\"" text "\"}}"
#define BAD(name) "{\"error\":\"org.varlink.service.InvalidParameter\",\"parameters\":{\"parameter\":\"" name "\"}}"
#define ADD "{\"method\":\"io.mvmm.Machine.AddDevice\""
#define REMOVE "{\"method\":\"io.mvmm.Machine.RemoveDevice\",\"parameters\":"

static void give_up_pause(void *opaque)
{
	struct err err;

	pause_done(pause_opaque, err_set(&err, -ETIMEDOUT, "cannot be paused: disk0"), &err);
}

/* A pause takes as long as storage does: meanwhile everybody else is answered. */
static void a_pause_holds_up_nobody(void)
{
	int fd, other;

	serve(false);
	fd = client();
	other = client();
	pause_waits = true;
	put(fd, "{\"method\":\"io.mvmm.Machine.Pause\"}");
	put(other, "{\"method\":\"io.mvmm.Machine.Info\"}");
	CHECK(strstr(receive(other), "\"state\":\"running\""));
	ASK(other, "{\"method\":\"io.mvmm.Machine.Stop\"}", "{\"parameters\":{}}");
	event_loop_call(loop, give_up_pause, NULL);
	CHECK_STR(receive(fd), FAILED("cannot be paused: disk0"));
	pause_waits = false;
	close(fd);
	close(other);
	end();
}

static void devices_come_and_go(void)
{
	int fd;

	serve(false);
	fd = client();
	ASK(fd, ADD "}", BAD("vfio"));
	ASK(fd, ADD ",\"parameters\":{\"vfio\":1}}", BAD("vfio"));
	ASK(fd, ADD ",\"parameters\":{\"vfio\":\"x\"}}", FAILED("no such device"));
	ASK(fd, ADD ",\"parameters\":{\"vfio\":\"late\"}}", FAILED("it fails"));
	ASK(fd, ADD ",\"parameters\":{\"vfio\":\"0000:01:00.0\"}}", "{\"parameters\":{\"id\":\"vfio0\"}}");
	ASK(fd, ADD ",\"more\":true,\"parameters\":{\"vfio\":\"0000:01:00.0\"}}",
	    "{\"parameters\":{\"step\":\"map\",\"done\":4096,\"total\":8192},\"continues\":true}");
	CHECK_STR(receive(fd), "{\"parameters\":{\"id\":\"vfio0\"}}");
	ASK(fd, REMOVE "{}}", BAD("id"));
	ASK(fd, REMOVE "{\"id\":\"a\",\"timeout\":0}}", BAD("timeout"));
	ASK(fd, REMOVE "{\"id\":\"a\",\"timeout\":86401}}", BAD("timeout"));
	ASK(fd, REMOVE "{\"id\":\"none\"}}", FAILED("no such device"));
	ASK(fd, REMOVE "{\"id\":\"slow\"}}", FAILED("it stays"));
	ASK(fd, REMOVE "{\"id\":\"slow\",\"force\":true}}", "{\"parameters\":{}}");
	ASK(fd, REMOVE "{\"id\":\"a\",\"timeout\":5}}", "{\"parameters\":{}}");
	close(fd);
	end();
}

#define MIGRATE "{\"method\":\"io.mvmm.Machine.Migrate\",\"parameters\":"
#define MIGRATION(state) "{\"parameters\":{\"migration\":{\"state\":\"" state "\""

static void migrations_are_answered_in_the_end(void)
{
	int fd;

	serve(false);
	fd = client();
	ASK(fd, MIGRATE "{}}", BAD("to"));
	ASK(fd, MIGRATE "{\"to\":\"fd\"}}", BAD("to")); /* no descriptor */
	ASK(fd, MIGRATE "{\"to\":\"tcp:a\",\"downtime\":-1}}", BAD("downtime"));
	ASK(fd, MIGRATE "{\"to\":\"tcp:busy\"}}", FAILED("is paused"));
	ASK(fd, MIGRATE "{\"to\":\"tcp:nowhere\"}}", FAILED("nobody listens"));
	put(fd, MIGRATE "{\"to\":\"tcp:there\"},\"more\":true}");
	CHECK(strstr(receive(fd), MIGRATION("memory")));
	CHECK(strstr(receive(fd), MIGRATION("done")));
	put(fd, "{\"method\":\"io.mvmm.Machine.MigrationStatus\"}");
	CHECK(strstr(receive(fd), MIGRATION("unresolved")));
	close(fd);
	end();
}

static void describes_itself(void)
{
	int fd;

	serve(true);
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

	serve(true);
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

	serve(true);
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

	serve(false);
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
	CHECK_EQ(paused, 3);
	close(fd);
	end();
}

static void oneway_has_no_answer(void)
{
	int fd;

	serve(false);
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

	serve(true);
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

	serve(true);
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

	serve(true);
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

	serve(true);
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

	serve(true);
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

/* Sends a request with that many copies of a descriptor. */
static void put_fds(int fd, const char *text, int passed, unsigned int count)
{
	char space[CMSG_SPACE(100 * sizeof(int))] __attribute__((aligned(8))) = {0};
	struct iovec iov = {.iov_base = (char *)text, .iov_len = strlen(text) + 1};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = space,
				 .msg_controllen = CMSG_SPACE(count * sizeof(int))};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	*header = (struct cmsghdr){CMSG_LEN(count * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
	for (unsigned int i = 0; i < count; i++)
		memcpy(CMSG_DATA(header) + i * sizeof(int), &passed, sizeof(int));
	CHECK_EQ(sendmsg(fd, &message, MSG_NOSIGNAL), (ssize_t)strlen(text) + 1);
}

/* Whether every copy but ours of the pipe's writing end is closed: then its reading end tells so. */
static bool nobody_has(int pipe_fds[2])
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

static void descriptors_come_along(void)
{
	int fd, pipes[2];
	char text[8] = "";

	serve(true);
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

#define ADD_DISK "{\"method\":\"io.mvmm.Machine.AddDisk\",\"parameters\":"
#define SET_LINK "{\"method\":\"io.mvmm.Machine.SetLink\",\"parameters\":"
#define REPLACE "{\"method\":\"io.mvmm.Machine.ReplaceDisk\",\"parameters\":"

/* What the machine does not take is closed, whether it fails or not. */
static void images_come_along(void)
{
	int fd, pipes[2];

	serve(false);
	fd = client();
	CHECK_EQ(pipe2(pipes, O_CLOEXEC | O_NONBLOCK), 0);
	put_fds(fd, ADD_DISK "{\"disk\":{\"id\":\"kept\"}}}", pipes[1], 2);
	CHECK_STR(receive(fd), "{\"parameters\":{\"id\":\"kept\"}}");
	CHECK_EQ(passed_count, 2);
	put_fds(fd, ADD_DISK "{\"disk\":{\"id\":\"other\"}}}", pipes[1], 3);
	CHECK_STR(receive(fd), "{\"parameters\":{\"id\":\"other\"}}");
	CHECK_EQ(passed_count, 3);
	put_fds(fd, ADD_DISK "{\"disk\":{}}}", pipes[1], 1);
	CHECK_STR(receive(fd), FAILED("--disk: no id"));
	put_fds(fd, ADD_DISK "{\"disk\":\"id=kept\"}}", pipes[1], 1);
	CHECK_STR(receive(fd), BAD("disk"));
	ASK(fd, "{\"method\":\"io.mvmm.Machine.AddNet\",\"parameters\":{\"net\":{}}}", FAILED("--net: no id"));
	CHECK_EQ(passed_count, 0);
	put_fds(fd, REPLACE "{\"id\":\"disk0\",\"path\":\"/new\"}}", pipes[1], 1);
	CHECK_STR(receive(fd), "{\"parameters\":{\"size\":5242880}}");
	put_fds(fd, REPLACE "{\"id\":\"disk0\",\"path\":\"/slow\"}}", pipes[1], 2);
	CHECK_STR(receive(fd), FAILED("its storage does not answer"));
	put_fds(fd, REPLACE "{\"id\":\"disk0\"}}", pipes[1], 1);
	CHECK_STR(receive(fd), BAD("path"));
	ASK(fd, REPLACE "{\"path\":\"/new\"}}", BAD("id"));
	ASK(fd, SET_LINK "{\"id\":\"net0\",\"up\":true}}", "{\"parameters\":{}}");
	ASK(fd, SET_LINK "{\"id\":\"net0\",\"up\":false}}", FAILED("no such card"));
	ASK(fd, SET_LINK "{\"id\":\"net0\",\"up\":\"on\"}}", BAD("up"));
	ASK(fd, SET_LINK "{\"up\":true}}", BAD("id"));
	ASK(fd, "{\"method\":\"io.mvmm.Machine.RemoveDisk\",\"parameters\":{\"id\":\"kind\"}}", FAILED("no such disk"));
	ASK(fd, "{\"method\":\"io.mvmm.Machine.RemoveNet\",\"parameters\":{\"id\":\"kind\"}}", FAILED("no such net"));
	ASK(fd, "{\"method\":\"io.mvmm.Machine.RemoveNet\",\"parameters\":{\"id\":\"net0\",\"timeout\":0}}", BAD("timeout"));
	ASK(fd, "{\"method\":\"io.mvmm.Machine.RemoveDisk\",\"parameters\":{\"id\":\"slow\"}}", FAILED("it stays"));
	ASK(fd, "{\"method\":\"io.mvmm.Machine.RemoveDisk\",\"parameters\":{\"id\":\"slow\",\"force\":true}}",
	    "{\"parameters\":{}}");
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

	serve(true);
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
	const struct sockaddr_un any = {.sun_family = AF_UNIX};
	struct sockaddr_un first, more[CONTROL_MAX_SOCKETS + 2];
	int fd;

	serve(true);
	first = address;
	for (size_t i = 0; i < ARRAY_SIZE(more); i++) {
		socklen_t len = sizeof(more[i]);

		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		CHECK_EQ(bind(fd, (const struct sockaddr *)&any, sizeof(sa_family_t)), 0);
		CHECK_EQ(listen(fd, 4), 0);
		CHECK_EQ(getsockname(fd, (struct sockaddr *)&more[i], &len), 0);
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
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), late;
	struct sockaddr_un next = {.sun_family = AF_UNIX};
	struct sockaddr_un left;

	serve(true);
	left = address;
	late = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK_EQ(bind(fd, (struct sockaddr *)&next, sizeof(sa_family_t)), 0);
	CHECK_EQ(listen(fd, 16), 0);
	event_loop_call(loop, listen_there, &fd);
	CHECK_EQ(fd, -1);
	CHECK(connect(late, (struct sockaddr *)&left, address_len) < 0 && errno == ECONNREFUSED);
	close(late);
	end();
}

TEST_MAIN(TEST(nobody_waits_at_a_socket_that_was_left), TEST(several_sockets_lead_to_one_server), TEST(descriptors_come_along),
	  TEST(images_come_along),
	  TEST(a_call_learns_that_its_client_has_gone), TEST(calls_the_machine), TEST(who_waits_learns_that_the_asker_has_left), TEST(a_pause_holds_up_nobody),
	  TEST(devices_come_and_go),
	  TEST(migrations_are_answered_in_the_end), TEST(describes_itself), TEST(refuses_what_is_no_request),
	  TEST(requests_are_bounded),
	  TEST(requests_may_come_in_pieces_and_together), TEST(oneway_has_no_answer), TEST(slow_calls_tell_how_they_go),
	  TEST(clients_may_leave_at_any_time), TEST(who_does_not_read_only_stops_itself), TEST(clients_are_bounded), TEST(answers_without_descriptors))
