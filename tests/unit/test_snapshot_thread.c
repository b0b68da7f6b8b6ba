/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/session/snapshot_thread: from the last byte to the commit. Whoever asked for the snapshot makes its files last
 * meanwhile, and may die, hang or be refused; then the machine runs as before, with all marks of its pages.
 */
#include "vmm/session/snapshot_thread.h"

#include <stdio.h>
#include <sys/mman.h>

#include "tests/unit/fake_machine.h"
#include "tests/unit/test.h"
#include "vmm/config/config.h"
#include "vmm/machine/machine_files.h"
#include "vmm/snapshot/snapshot_take.h"
#include "vmm/snapshot/state_file.h"

#define SIZE MIB(2)

static struct event_loop *loop;
static struct machine_config config;
static struct machine_files kept;
static struct log out;
static char *host;
static struct track *track;
static struct snapshot_thread *snapshot;
static struct snapshot_report report;
static unsigned int done, stops, stays;
static struct err err;

static void on_stop(void *opaque)
{
	stops++;
}

static void on_stays(void *opaque)
{
	stays++;
}

static void on_progress(void *opaque, const struct snapshot_report *told)
{
	report = *told;
	if (told->phase == SNAPSHOT_WRITTEN)
		event_loop_stop(loop);
}

static void on_done(void *opaque, const struct snapshot_report *told)
{
	report = *told;
	done++;
	event_loop_stop(loop);
}

static void setup(void)
{
	struct guest_region region = {.size = SIZE, .fd = -1};

	host = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(host != MAP_FAILED);
	region.host = host;
	machine = (struct machine){.diskless = true, .memory = guest_memory_create()};
	CHECK_EQ(guest_memory_add(machine.memory, &region, NULL), 0);
	CHECK_EQ(track_create(machine.memory, &machine.dirty, NULL, &track, &err), 0);
	out = (struct log){.fd = memfd_create("log", MFD_CLOEXEC)};
	report = (struct snapshot_report){0};
	done = stops = stays = 0;
	machine_config_init(&config);
	CHECK_EQ(event_loop_create(&loop, &err), 0);
}

static void teardown(void)
{
	snapshot_thread_destroy(take_ptr(snapshot), "the test is over");
	track_destroy(track);
	CHECK_EQ(machine.moving, 0);
	CHECK_EQ(machine.dirty.users, 0);
	event_loop_destroy(take_ptr(loop));
	machine_config_done(&config);
	guest_memory_destroy(machine.memory);
	munmap(host, SIZE);
	fd_close(&out.fd);
}

/* Takes one until it is written; the asker then has so long. */
static void take(bool stop, unsigned int commit_ms)
{
	const struct snapshot_thread_host on = {
		.loop = loop, .log = &out, .machine = &machine, .files = &kept, .config = &config, .track = track,
		.stop = on_stop, .stays = on_stays, .commit_ms = commit_ms,
	};
	const struct snapshot_request request = {.stop = stop, .track = true};
	const struct snapshot_reply reply = {.progress = on_progress, .done = on_done};
	struct snapshot_files files;

	snapshot_files_init(&files);
	files.state = memfd_create("state", MFD_CLOEXEC);
	files.memory = memfd_create("memory", MFD_CLOEXEC);
	CHECK_EQ(snapshot_thread_create(&on, &request, &files, &reply, &snapshot, &err), 0);
	do
		event_loop_run(loop);
	while (!done && report.phase != SNAPSHOT_WRITTEN);
	CHECK_EQ(report.phase, SNAPSHOT_WRITTEN);
	CHECK(machine.paused == stop && machine.moving == stop);
	machine.devices = stop ? 2 : 0; /* stopped */
	CHECK(snapshot_thread_active(snapshot) && track_on(track));
}

/* It has failed with that reason, and the guest runs with its devices. */
static void check_given_up(const char *reason)
{
	CHECK_EQ(done, 1);
	CHECK_EQ(report.phase, SNAPSHOT_FAILED);
	CHECK_STR(report.text, reason);
	CHECK(!machine.paused && !machine.devices && !machine.moving && stays == 1 && stops == 0);
	CHECK(!snapshot_thread_active(snapshot) && !track_on(track));
}

static void nobody_waits_for_a_commit_for_ever(void)
{
	for (int stop = 0; stop < 2; stop++) {
		setup();
		take(stop, 1);
		while (!done)
			event_loop_run(loop);
		check_given_up("it was not committed within 0 s");
		CHECK_EQ(snapshot_thread_commit(snapshot, "0", &err), -EINVAL);
		teardown();
	}
}

static void a_machine_that_was_to_end_runs_on_if_the_asker_leaves(void)
{
	for (int stop = 0; stop < 2; stop++) {
		setup();
		take(stop, 0);
		CHECK_EQ(snapshot_thread_cancel(snapshot, "mvmm snapshot has ended", &err), 0);
		check_given_up("mvmm snapshot has ended");
		CHECK_EQ(snapshot_thread_cancel(snapshot, "again", &err), -ENOENT);
		teardown();
	}
}

static void a_machine_that_has_failed_meanwhile_does_not_run_again(void)
{
	setup();
	take(true, 0);
	machine.end = MACHINE_FAILED;
	CHECK_EQ(snapshot_thread_cancel(snapshot, "the machine failed", &err), 0);
	CHECK_STR(report.text, "the machine failed");
	CHECK(machine.paused && machine.devices && !machine.resumes);
	teardown();
}

static void a_commit_ends_the_machine_that_was_to_end(void)
{
	char id[37];

	for (int stop = 0; stop < 2; stop++) {
		setup();
		take(stop, 0);
		CHECK_EQ(snapshot_thread_commit(snapshot, "00000000-0000-0000-0000-000000000000", &err), -EINVAL);
		snapshot_id_text(report.id, id);
		CHECK_EQ(snapshot_thread_commit(snapshot, id, &err), 0);
		CHECK(done == 1 && report.phase == SNAPSHOT_DONE);
		CHECK(machine.paused == stop && stops == (unsigned int)stop && stays == !stop);
		CHECK(track_on(track)); /* for the diff that follows */
		teardown();
	}
}

static void the_end_of_the_session_gives_it_up(void)
{
	setup();
	take(true, 0);
	snapshot_thread_destroy(take_ptr(snapshot), "the machine was ended");
	check_given_up("the machine was ended");
	teardown();
}

TEST_MAIN(TEST(nobody_waits_for_a_commit_for_ever), TEST(a_machine_that_was_to_end_runs_on_if_the_asker_leaves),
	  TEST(a_machine_that_has_failed_meanwhile_does_not_run_again), TEST(a_commit_ends_the_machine_that_was_to_end),
	  TEST(the_end_of_the_session_gives_it_up))
