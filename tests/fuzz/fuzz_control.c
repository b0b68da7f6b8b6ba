/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket: an input is what one client sends before it is done. Always: the server answers what it must,
 * hangs up in the end, and still serves the next client.
 */
#include "vmm/config/config_plug.h"
#include "vmm/control/control_machine.h"
#include "vmm/snapshot/restore_request.h"
#include "vmm/snapshot/snapshot_take.h"
#include "tests/fuzz/fuzz.h"

#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

static struct sockaddr_un address = {.sun_family = AF_UNIX};
static socklen_t address_len = sizeof(sa_family_t);
static bool paused;
static struct machine_config config;

static int do_pause(struct session *session, void (*done)(void *opaque, int code, const struct err *err), void *opaque,
		    struct err *err)
{
	paused = true;
	done(opaque, 0, NULL);
	return 0;
}

static int do_cancel(struct session *session, struct err *err)
{
	paused = true;
	return 0;
}

static int do_resume(struct session *session, struct err *err)
{
	paused = false;
	return 0;
}

static int do_stop(struct session *session, bool force, struct err *err)
{
	return paused ? err_set(err, -EBUSY, "is paused") : 0;
}

static int do_describe(struct session *session, json_t **ret, struct err *err)
{
	*ret = json_pack("{s:s}", "state", paused ? "paused" : "running");
	return 0;
}

static int do_resize_disk(struct session *session, const char *id, uint64_t *bytes, struct err *err)
{
	*bytes = 1;
	return 0;
}

static int do_set_limits(struct session *session, const char *id, const char *limits, struct err *err)
{
	struct machine_limits changed;

	return machine_config_set_limits(&config, id, limits, &changed, err);
}

static int do_set_balloon(struct session *session, uint64_t bytes, struct err *err)
{
	return 0;
}

/* What is plugged in is a line of the configuration, checked as the command line's are. */
static int do_add_device(struct session *session, const char *option, const char *text,
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

static int do_replace_disk(struct session *session, const char *id, const char *path, int *fds, size_t count,
			   void (*done)(void *opaque, uint64_t bytes, int code, const struct err *err), void *opaque,
			   struct err *err)
{
	if (count > 2)
		return err_set(err, -EINVAL, "too many descriptors");
	done(opaque, 1, 0, NULL);
	return 0;
}

static int do_set_link(struct session *session, const char *id, bool plugged, struct err *err)
{
	return plugged ? 0 : err_set(err, -ENODEV, "no such card");
}

static int do_remove_device(struct session *session, const char *kind, const char *id, bool force,
			    unsigned int timeout_ms, void (*done)(void *opaque, int code, const struct err *err),
			    void *opaque, struct err *err)
{
	if (!force && strlen(id) > 8)
		return err_set(err, -ENOENT, "no such device");
	done(opaque, force ? 0 : err_set(err, -ETIMEDOUT, "it stays"), err);
	return 0;
}

static int do_migrate(struct session *session, struct migration_request *request, int *fd,
		      const struct migration_reply *reply, struct err *err)
{
	struct migration_report report = {.state = request->streams ? MIGRATION_DONE : MIGRATION_FAILED};

	if (paused)
		return err_set(err, -EBUSY, "is paused");
	reply->progress(reply->opaque, &report);
	reply->done(reply->opaque, &report);
	return 0;
}

static const struct migration_report *do_migration_status(struct session *session)
{
	static const struct migration_report report = {.state = MIGRATION_NONE};

	return &report;
}

static int do_migration_resolve(struct session *session, bool go_on, bool sure, struct err *err)
{
	return go_on ? 0 : err_set(err, -EINVAL, "there is nothing to resolve");
}

static int do_snapshot(struct session *session, const struct snapshot_request *request, struct snapshot_files *files,
		       const struct snapshot_reply *reply, struct err *err)
{
	const struct snapshot_report report = {.phase = request->live ? SNAPSHOT_DONE : SNAPSHOT_FAILED};

	if (paused)
		return err_set(err, -EBUSY, "is paused");
	reply->progress(reply->opaque, &report);
	reply->done(reply->opaque, &report);
	return 0;
}

static int do_snapshot_commit(struct session *session, const char *id, struct err *err)
{
	return err_set(err, -EINVAL, "nothing waits for it");
}

static int do_snapshot_cancel(struct session *session, const char *reason, struct err *err)
{
	return 0;
}

static int do_restore(struct session *session, struct restore_request *request, const char **name, struct err *err)
{
	*name = request->here.name ?: "fuzz";
	return request->paused ? err_set(err, -EINVAL, "does not wait") : 0;
}

static int do_metrics(struct session *session, json_t **ret, struct err *err)
{
	*ret = json_pack("{s:s, s:[]}", "name", "m", "families");
	return *ret ? 0 : err_set(err, -ENOMEM, "metrics");
}

/* Two events at once; the second one finds whoever cannot take more. */
static int do_watch_events(struct session *session, struct event_watcher *watcher, struct err *err)
{
	json_t *event = json_pack("{s:s, s:s}", "name", "m", "event", "state");

	if (!event)
		return err_set(err, -ENOMEM, "events");
	watcher->event(watcher->opaque, event);
	watcher->event(watcher->opaque, event);
	json_decref(event);
	return 0;
}

static void do_unwatch_events(struct session *session, struct event_watcher *watcher)
{
}

static const struct operations ops = {
	.describe = do_describe,
	.metrics = do_metrics,
	.watch_events = do_watch_events,
	.unwatch_events = do_unwatch_events,
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
	.migration_cancel = do_cancel,
	.migration_resolve = do_migration_resolve,
	.snapshot = do_snapshot,
	.snapshot_commit = do_snapshot_commit,
	.snapshot_cancel = do_snapshot_cancel,
	.restore = do_restore,
};

/* The server lives on a thread of its own as long as the fuzzer; clients come and go. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static const struct operated machine = {.ops = &ops};
	static struct event_loop *loop;
	static struct control *control;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

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
		",\"parameters\":{\"to\":\"tcp:x\",\"streams\":1,\"continue\":true}",
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
