/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/session/outgoing and throttle: what a migration asks of its machine, on the thread of the loop, each call that can
 * fail failing once; who has the guest afterwards, and what the user is told. Machine and source are fakes: what the
 * source's thread does is the test's own.
 */
#include "vmm/session/outgoing.h"

#include <sys/mman.h>

#include "core/monotonic.h"
#include "tests/unit/fake_machine.h"
#include "tests/unit/test.h"
#include "vmm/machine/disk_copies.h"
#include "vmm/machine/machine_offer.h"
#include "vmm/migration/source.h"
#include "vmm/session/host_devices_migration.h"
#include "vmm/session/throttle.h"

/* ---- the source: what it does on its thread is the test's ---- */

struct migration_source {
	struct migration_source_config config;
	char cancelled[64]; /* the reason */
};

static int (*script)(const struct migration_machine_ops *ops, void *machine, struct err *err);
static struct migration_source source;
static enum migration_state outcome; /* of a script that has no error */
static bool source_fails, too_late;

int migration_source_create(const struct migration_source_config *config, int *fd, struct migration_source **ret,
			    struct err *err)
{
	if (source_fails)
		return err_set(err, -EINVAL, "tcp:: no host");
	source = (struct migration_source){.config = *config};
	*ret = &source;
	return 0;
}

void migration_source_destroy(struct migration_source *s)
{
}

void migration_source_run(struct migration_source *s, struct migration_report *report)
{
	struct err err = {""};
	int code;

	*report = (struct migration_report){.state = MIGRATION_MEMORY, .paused = s->config.paused};
	s->config.tell(s->config.opaque, report);
	code = script(s->config.ops, s->config.machine, &err);
	report->state = code ? MIGRATION_FAILED : outcome;
	snprintf(report->text, sizeof(report->text), "%s", err.text);
}

int migration_source_cancel(struct migration_source *s, const char *reason, struct err *err)
{
	if (too_late)
		return err_set(err, -EBUSY, "too late");
	snprintf(s->cancelled, sizeof(s->cancelled), "%s", reason);
	return 0;
}

/* ---- a session ---- */

static struct event_loop *loop;
static struct outgoing *outgoing;
static struct log out;
static unsigned int gone, stays, told, replied;
static struct migration_report reply;
static struct err err;

static void on_gone(void *opaque)
{
	gone++;
}

static void on_stays(void *opaque)
{
	stays++;
}

static void on_progress(void *opaque, const struct migration_report *report)
{
	told++;
}

static void on_done(void *opaque, const struct migration_report *report)
{
	replied++;
	reply = *report;
	event_loop_stop(loop);
}

static bool said(const char *words)
{
	char text[4096] = "";

	return pread(out.fd, text, sizeof(text) - 1, 0) > 0 && strstr(text, words);
}

static void setup(void)
{
	machine = (struct machine){.locked = true, .disk = {.id = (char *)"disk0", .type = VIRTIO_ID_BLOCK}};
	out = (struct log){.fd = memfd_create("log", MFD_CLOEXEC), .level = LOG_DEBUG};
	outcome = MIGRATION_DONE;
	source_fails = too_late = false;
	gone = stays = told = replied = 0;
	err.text[0] = 0;
	CHECK_EQ(event_loop_create(&loop, &err), 0);
}

static void teardown(void)
{
	outgoing_destroy(take_ptr(outgoing), "the test is over");
	event_loop_destroy(take_ptr(loop));
	fd_close(&out.fd);
	CHECK_EQ(machine.moving, 0);
	CHECK_EQ(machine.vcpu_pauses, 0);
}

static int create(enum migration_copy copy)
{
	const struct outgoing_host host = {.loop = loop, .log = &out, .machine = &machine, .name = "vm", .gone = on_gone,
					   .stays = on_stays};
	const struct migration_reply to = {.progress = on_progress, .done = on_done};
	struct migration_request request = {.to = strdup("tcp:other"), .copy_disks = copy};
	int fd = -1, code = outgoing_create(&host, &request, &fd, &to, &outgoing, &err);

	CHECK_EQ(request.to == NULL, code == 0); /* else it is still the caller's */
	migration_request_done(&request);
	return code;
}

/* The whole of it: fn is the source's part. */
static void migrate(int (*fn)(const struct migration_machine_ops *ops, void *machine, struct err *err))
{
	script = fn;
	event_loop_claim(loop);
	CHECK_EQ(create(MIGRATION_COPY_NONE), 0);
	while (!replied)
		event_loop_run(loop);
	CHECK_EQ(replied, 1);
}

/* ---- what the source does ---- */

static struct state_buffer state;
static uint64_t stopped_at;

static int all_of_it(const struct migration_machine_ops *ops, void *m, struct err *why)
{
	struct vfio_migration *const *group;
	struct disk_shared shared[WIRE_MAX_DISKS];
	const struct disk_copy *disks;
	char *offer = NULL;
	int code = ops->begin(m, &offer, why);

	free(offer);
	code = code ?: ops->track(m, why) ?: ops->start_devices(m, why);
	if (code)
		return code;
	if (ops->devices(m, &group) || ops->disks(m, &disks) + ops->shared_disks(m, shared) != 1 ||
	    ops->untold(m) != MIB(64) || ops->memory(m) != machine_memory(&machine) || ops->dirty(m) != &machine.dirty)
		return err_set(why, -EINVAL, "not the machine's");
	ops->throttle(m, 50);
	ops->throttle(m, 0);
	state_buffer_free(&state);
	code = ops->pause(m, 12345, &stopped_at, &state, why);
	if (code) {
		ops->untrack(m);
		ops->run_devices(m);
		ops->end(m);
		return code;
	}
	code = ops->stop_devices(m, why) ?: ops->save(m, &state, why);
	ops->unlock_disks(m);
	if (outcome == MIGRATION_FAILED || code) {
		code = code ?: ops->lock_disks(m, why) ?: err_set(why, -EIO, "the target refuses");
		ops->run_devices(m);
		ops->resume(m);
	}
	ops->untrack(m);
	if (outcome != MIGRATION_UNRESOLVED)
		ops->end(m);
	return code;
}

static void guest_goes(void)
{
	setup();
	migrate(all_of_it);
	CHECK_EQ(reply.state, MIGRATION_DONE);
	CHECK_EQ(gone, 1);
	CHECK_EQ(stays, 0);
	CHECK_EQ(told, 1);
	CHECK_EQ(machine.deadline, 12345);
	CHECK(stopped_at && stopped_at <= monotonic_ns());
	CHECK_EQ(state.len, 10); /* saved at once, and once more */
	CHECK(machine.paused && !machine.locked);
	CHECK_EQ(machine.tracked, 0);
	CHECK(said("runs at tcp:other now"));
	CHECK(said("vfio a: nothing reports what it writes; 64 MiB"));
	CHECK(!outgoing_active(outgoing));
	CHECK_EQ(outgoing_cancel(outgoing, "late", &err), -ENOENT);
	teardown();
}

static void guest_stays_where_the_target_refuses(void)
{
	setup();
	outcome = MIGRATION_FAILED;
	migrate(all_of_it);
	CHECK_EQ(reply.state, MIGRATION_FAILED);
	CHECK_EQ(gone, 0);
	CHECK_EQ(stays, 1);
	CHECK(!machine.paused && machine.locked && !machine.devices);
	CHECK(said("not migrated: the target refuses"));
	CHECK_EQ(outgoing_report(outgoing)->state, MIGRATION_FAILED);
	teardown();
}

static void device_that_does_not_run_again_is_told(void)
{
	setup();
	outcome = MIGRATION_FAILED;
	machine.runs_badly = true;
	migrate(all_of_it);
	CHECK(!machine.paused);
	CHECK(said("vfio a: does not run again"));
	teardown();
}

/* ---- each call fails ---- */

static void refused(const char *words)
{
	migrate(all_of_it);
	CHECK_EQ(reply.state, MIGRATION_FAILED);
	CHECK_STR(reply.text, words);
	CHECK(!machine.paused && machine.locked);
	CHECK_EQ(machine.moving, machine.track_fails); /* whose undo is the source's */
	outgoing_destroy(take_ptr(outgoing), NULL);
	teardown();
}

static void failures_leave_the_guest_as_it_was(void)
{
	setup();
	machine.devices_fail = true;
	refused("vfio a: cannot be migrated");
	setup();
	machine.offer_fails = true;
	refused("the machine cannot be described");
	setup();
	machine.track_fails = true;
	refused("disk0: out of memory");
	setup();
	machine.save_fails = true;
	refused("vcpu0 fails");
	setup();
	machine.pause_code = -ETIMEDOUT;
	refused("cannot be paused: disk0: slow");
}

static void machine_that_has_ended_does_not_go(void)
{
	static const char *const words[] = {
		[MACHINE_OFF] = "the guest powered off",      [MACHINE_REBOOT] = "the guest rebooted",
		[MACHINE_PANIC] = "the guest's kernel panicked", [MACHINE_STOPPED] = "the machine was ended",
		[MACHINE_FAILED] = "the machine failed",
	};

	for (enum machine_end end = MACHINE_OFF; end <= MACHINE_FAILED; end++) {
		setup();
		machine.end = end;
		refused(words[end]);
	}
}

static int end_while_it_is_paused(const struct migration_machine_ops *ops, void *m, struct err *why)
{
	machine.not_yet = 3;
	machine.end = MACHINE_OFF;
	return ops->pause(m, INT64_MAX, &stopped_at, NULL, why);
}

static void machine_that_ends_while_it_is_paused_is_not_paused(void)
{
	setup();
	migrate(end_while_it_is_paused);
	CHECK_STR(reply.text, "the guest powered off");
	CHECK_EQ(machine.unpauses, 1);
	CHECK_EQ(machine.pauses, 0);
	teardown();
}

static void pause_is_asked_for_until_it_is_complete(void)
{
	setup();
	machine.not_yet = 3;
	migrate(all_of_it);
	CHECK_EQ(reply.state, MIGRATION_DONE);
	CHECK_EQ(machine.not_yet, 0);
	CHECK_EQ(machine.pauses, 1);
	teardown();
}

static void machine_that_the_user_paused_stays_so(void)
{
	setup();
	machine.paused = true;
	outcome = MIGRATION_FAILED;
	migrate(all_of_it);
	CHECK(machine.paused);
	CHECK_EQ(machine.resumes, 0);
	CHECK(reply.paused);
	teardown();
	setup();
	machine.paused = true;
	migrate(all_of_it);
	CHECK(said("is paused at tcp:other now"));
	teardown();
}

static void what_cannot_begin_leaves_nothing(void)
{
	setup();
	source_fails = true;
	CHECK_EQ(create(MIGRATION_COPY_NONE), -EINVAL);
	CHECK_STR(err.text, "tcp:: no host");
	CHECK(!outgoing && !outgoing_active(outgoing));
	CHECK_EQ(outgoing_report(outgoing)->state, MIGRATION_NONE);
	CHECK_EQ(outgoing_cancel(outgoing, "none", &err), -ENOENT);
	CHECK_EQ(outgoing_resolve(outgoing, true, true, &err), -EINVAL);
	teardown();
}

/* ---- being cancelled ---- */

static int wait_for_the_reason(const struct migration_machine_ops *ops, void *m, struct err *why)
{
	while (!((volatile char *)source.cancelled)[0])
		usleep(1000);
	return err_set(why, -ECANCELED, "%s", source.cancelled);
}

static void reason_reaches_the_source(void)
{
	setup();
	event_loop_claim(loop);
	script = wait_for_the_reason;
	CHECK_EQ(create(MIGRATION_COPY_NONE), 0);
	CHECK(outgoing_active(outgoing) && outgoing_at_work(outgoing));
	CHECK_EQ(outgoing_resolve(outgoing, true, true, &err), -EINVAL);
	too_late = true;
	CHECK_EQ(outgoing_cancel(outgoing, "enough", &err), -EBUSY);
	too_late = false;
	CHECK_EQ(outgoing_cancel(outgoing, "enough", &err), 0);
	while (!replied)
		event_loop_run(loop);
	CHECK_STR(reply.text, "enough");
	CHECK(!outgoing_at_work(outgoing));
	teardown();
}

static void end_of_the_session_cancels_and_waits(void)
{
	setup();
	script = wait_for_the_reason;
	CHECK_EQ(create(MIGRATION_COPY_NONE), 0);
	outgoing_destroy(take_ptr(outgoing), "the machine was ended");
	CHECK_EQ(replied, 1);
	CHECK_STR(reply.text, "the machine was ended");
	teardown();
}

/* ---- nobody knows who has it ---- */

static void lose_the_reply(enum migration_copy copy)
{
	setup();
	outcome = MIGRATION_UNRESOLVED;
	script = all_of_it;
	event_loop_claim(loop);
	CHECK_EQ(create(copy), 0);
	while (!replied)
		event_loop_run(loop);
	CHECK_EQ(reply.state, MIGRATION_UNRESOLVED);
	CHECK(outgoing_active(outgoing) && !outgoing_at_work(outgoing));
	CHECK(machine.paused && machine.moving);
}

static void user_says_that_it_runs_there(void)
{
	lose_the_reply(MIGRATION_COPY_NONE);
	CHECK_EQ(outgoing_resolve(outgoing, false, false, &err), 0);
	CHECK_EQ(gone, 1);
	CHECK_EQ(outgoing_report(outgoing)->state, MIGRATION_DONE);
	teardown();
}

static void user_says_that_it_goes_on_here(void)
{
	lose_the_reply(MIGRATION_COPY_NONE);
	machine.lock_fails = true;
	CHECK_EQ(outgoing_resolve(outgoing, true, false, &err), -EBUSY);
	CHECK_STR(err.text, "the guest cannot continue here: disk0 is in use");
	machine.lock_fails = false;
	machine.guard = "no lock of another host is seen";
	CHECK_EQ(outgoing_resolve(outgoing, true, false, &err), -EPERM);
	CHECK(machine.paused && !machine.locked && outgoing_active(outgoing));
	CHECK_EQ(outgoing_resolve(outgoing, true, true, &err), 0);
	CHECK(!machine.paused && machine.locked && !machine.devices);
	CHECK_EQ(outgoing_report(outgoing)->state, MIGRATION_FAILED);
	teardown();
}

static void copied_disk_guards_nothing(void)
{
	lose_the_reply(MIGRATION_COPY_WRITABLE);
	CHECK_EQ(outgoing_resolve(outgoing, true, false, &err), -EPERM);
	CHECK(strstr(err.text, "disk0: it was copied"));
	teardown();
	lose_the_reply(MIGRATION_COPY_NONE);
	CHECK_EQ(outgoing_resolve(outgoing, true, false, &err), 0);
	teardown();
}

/* ---- the throttle ---- */

static struct event_source *stop_timer;

static void on_stop(void *opaque, uint32_t expirations)
{
	event_loop_stop(loop);
}

/* Until the vCPUs are paused, or run. */
static void turn_until(bool paused)
{
	do {
		event_timer_set(stop_timer, 1000000, 0);
		event_loop_run(loop);
	} while (machine.vcpu_pauses != paused);
}

static void throttle_stops_and_lets_go(void)
{
	struct throttle *throttle;

	setup();
	event_loop_claim(loop);
	CHECK_EQ(event_loop_timer(loop, on_stop, NULL, &stop_timer, &err), 0);
	CHECK_EQ(throttle_create(loop, machine_vcpus(&machine), &throttle, &err), 0);
	throttle_set(throttle, 50);
	for (int i = 0; i < 3; i++) {
		turn_until(true);
		turn_until(false);
	}
	throttle_set(throttle, 99);
	turn_until(true);
	throttle_set(throttle, 0);
	CHECK_EQ(machine.vcpu_pauses, 0);
	throttle_set(throttle, 80);
	turn_until(true);
	throttle_destroy(throttle);
	event_source_remove(stop_timer);
	teardown();
}

TEST_MAIN(TEST(guest_goes), TEST(guest_stays_where_the_target_refuses), TEST(device_that_does_not_run_again_is_told),
	  TEST(failures_leave_the_guest_as_it_was), TEST(machine_that_has_ended_does_not_go),
	  TEST(machine_that_ends_while_it_is_paused_is_not_paused), TEST(pause_is_asked_for_until_it_is_complete),
	  TEST(machine_that_the_user_paused_stays_so), TEST(what_cannot_begin_leaves_nothing),
	  TEST(reason_reaches_the_source), TEST(end_of_the_session_cancels_and_waits), TEST(user_says_that_it_runs_there),
	  TEST(user_says_that_it_goes_on_here), TEST(copied_disk_guards_nothing), TEST(throttle_stops_and_lets_go))
