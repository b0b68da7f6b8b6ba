/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/snapshot/snapshot_devices, and how snapshot_take uses it: what is in the devices of a fake kernel is in the file
 * and then in other devices; they stand still from before memory is written until all is read, and no vCPU runs before
 * they do; whatever fails, the machine and its devices are as before.
 */
#include "tests/unit/fake_pci.h"
#include "tests/unit/vfio_bench.h"
#include "vmm/snapshot/snapshot_devices.h"
#include "vmm/snapshot/snapshot_take.h"
#include "vmm/snapshot/track.h"

#include <sys/eventfd.h>
#include <sys/stat.h>

#define PLAIN (VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P)
#define ALL (PLAIN | VFIO_UAPI_MIGRATION_PRE_COPY)
#define COUNT 2
#define WRITTEN KIB(20)
#define INITIAL 40 /* of fake_migrates */

struct side {
	struct vfio_device *devices[COUNT];
	struct vfio_migration *group[COUNT];
	struct fake_migration *fakes[COUNT];
};

static const char *const ids[COUNT] = {"card", "gpu"};
static struct vfio_bench b;
static struct side from, to;
static size_t present;
static struct track *track;
static struct snapshot_files files;
static struct snapshot_report report;
static struct snapshot_take *take;
static bool paused, begun;
static bool cancel_when_stopped;
static uint8_t inside[COUNT][FAKE_INSIDE];
static char bytes[KIB(64)];

/* ---- the machine ---- */

static int do_begin(void *machine, char **offer, struct err *err)
{
	begun = true;
	*offer = strdup("{}");
	return 0;
}

static void do_end(void *machine)
{
	begun = false;
}

static struct guest_memory *do_memory(void *machine)
{
	return b.memory;
}

static struct dirty_set *do_dirty(void *machine)
{
	return &b.dirty;
}

static int do_track(void *machine, struct err *err)
{
	return dirty_set_start(&b.dirty, err);
}

static void do_untrack(void *machine)
{
	dirty_set_stop(&b.dirty);
}

static void do_throttle(void *machine, unsigned int percent)
{
}

static int do_pause(void *machine, int64_t deadline, uint64_t *stopped_at, struct state_buffer *state, struct err *err)
{
	paused = true;
	*stopped_at = 1;
	return state ? state_buffer_add(state, "machine", 7) : 0;
}

static void do_resume(void *machine)
{
	for (size_t i = 0; i < present; i++)
		CHECK(from.fakes[i]->state == VFIO_DEVICE_STATE_RUNNING || from.fakes[i]->state == VFIO_UAPI_STATE_PRE_COPY);
	paused = false;
}

static size_t do_devices(void *machine, struct vfio_migration *const **ret)
{
	*ret = from.group;
	return present;
}

static const char *do_device_id(void *machine, size_t index)
{
	return ids[index];
}

static int do_start_devices(void *machine, struct err *err)
{
	int code = 0;

	for (size_t i = 0; !code && i < present; i++)
		code = vfio_migration_start(from.group[i], err);
	if (code)
		vfio_migration_group_run(from.group, present, NULL);
	return code;
}

static int do_stop_devices(void *machine, struct err *err)
{
	CHECK(paused);
	memcpy((char *)b.host + WRITTEN, "the last", 8); /* a device's, before it has stopped */
	if (cancel_when_stopped)
		snapshot_take_cancel(take, "enough");
	return vfio_migration_group_stop(from.group, present, err);
}

static void do_run_devices(void *machine)
{
	vfio_migration_group_run(from.group, present, NULL);
}

static uint64_t do_untold(void *machine)
{
	return 0;
}

static const struct migration_machine_ops ops = {
	.begin = do_begin, .end = do_end, .memory = do_memory, .dirty = do_dirty, .track = do_track,
	.untrack = do_untrack, .throttle = do_throttle, .pause = do_pause, .resume = do_resume, .devices = do_devices,
	.device_id = do_device_id, .start_devices = do_start_devices, .stop_devices = do_stop_devices,
	.run_devices = do_run_devices, .untold = do_untold,
};

/* ---- the rig ---- */

static void open_side(struct side *side, int first, int iommu, uint32_t flags)
{
	for (int i = 0; i < COUNT; i++) {
		struct fake_device *fake;
		char name[32];

		snprintf(name, sizeof(name), "0000:0%d:00.0", first + i);
		fake = fake_device(b.fake, name, fake_group(b.fake), iommu);
		fake_migrates(fake, flags);
		side->fakes[i] = &fake->migration;
		CHECK_EQ(bench_open(&b, name, VFIO_WANT_AUTO, &side->devices[i]), 0);
		CHECK_EQ(vfio_migration_create(side->devices[i], &side->group[i], &b.err), 0);
	}
}

static void setup(uint32_t flags)
{
	int iommu;

	bench_init(&b);
	iommu = fake_iommu(b.fake, false); /* reports nothing: all of memory counts as written */
	bench_space(&b, NULL);
	open_side(&from, 1, iommu, flags);
	open_side(&to, 5, iommu, flags);
	for (size_t i = 0; i < COUNT; i++)
		memcpy(inside[i], from.fakes[i]->inside, FAKE_INSIDE);
	present = COUNT;
	paused = begun = cancel_when_stopped = false;
	snapshot_files_init(&files);
	files.state = memfd_create("state", MFD_CLOEXEC);
	files.memory = memfd_create("memory", MFD_CLOEXEC);
	CHECK_EQ(track_create(b.memory, &b.dirty, NULL, &track, &b.err), 0);
	fake_journal(b.fake);
}

static void end_side(struct side *side)
{
	for (int i = 0; i < COUNT; i++) {
		vfio_migration_destroy(side->group[i]);
		vfio_device_close(side->devices[i]);
	}
}

static void done(void)
{
	track_destroy(track);
	snapshot_files_close(&files);
	end_side(&from);
	end_side(&to);
	bench_done(&b);
}

static void tell(void *opaque, const struct snapshot_report *told)
{
}

static void run(const struct snapshot_request *request)
{
	const struct snapshot_take_config config = {
		.request = request, .files = &files, .ops = &ops, .track = track, .tell = tell, .kernel = -1, .initrd = -1,
	};

	CHECK_EQ(snapshot_take_create(&config, &take, &b.err), 0);
	CHECK_EQ(track_begin(track, request, &b.err), 0);
	snapshot_take_run(take, &report);
	snapshot_take_destroy(take);
	track_abort(track);
}

static struct snapshot_state *parse(void)
{
	struct snapshot_state *state;
	ssize_t len = pread(files.state, bytes, sizeof(bytes), 0);
	char last[8];

	CHECK(!present || (pread(files.memory, last, 8, WRITTEN) == 8 && memcmp(last, "the last", 8) == 0));
	CHECK_EQ(snapshot_state_parse(bytes, (size_t)MAX(len, 0), &state, &b.err), 0);
	return state;
}

static void all_run(void)
{
	for (size_t i = 0; i < COUNT; i++) {
		CHECK_EQ(from.fakes[i]->state, VFIO_DEVICE_STATE_RUNNING);
		CHECK_EQ(from.fakes[i]->resets, 0);
		CHECK(memcmp(from.fakes[i]->inside, inside[i], FAKE_INSIDE) == 0);
	}
	CHECK(!paused && !begun);
}

static const char *id_of(const void *opaque, size_t index)
{
	return ((const char *const *)opaque)[index];
}

static int load(const struct snapshot_state *state)
{
	return snapshot_devices_load(state, to.group, COUNT, id_of, ids, -1, &b.err);
}

/* ---- what is right ---- */

static void what_is_in_the_devices_is_in_others_after_a_restore(void)
{
	const struct snapshot_request request = {0};
	struct snapshot_state *state;

	setup(PLAIN);
	from.fakes[1]->piece = 7;
	run(&request);
	CHECK_STR(report.text, "");
	CHECK_EQ(report.phase, SNAPSHOT_WRITTEN);
	all_run();
	CHECK_STR(fake_journal(b.fake), "RUNNING_P2P 0, RUNNING_P2P 1, STOP 0, STOP_COPY 0, STOP 1, STOP_COPY 1, STOP 0, "
					"RUNNING_P2P 0, STOP 1, RUNNING_P2P 1, RUNNING 0, RUNNING 1");
	state = parse();
	CHECK_EQ(state->device_count, COUNT);
	for (size_t i = 0; i < COUNT; i++) {
		CHECK_STR(state->devices[i].id, ids[i]);
		CHECK(state->devices[i].state.len == FAKE_INSIDE);
		CHECK(memcmp(state->devices[i].state.data, inside[i], FAKE_INSIDE) == 0);
	}
	CHECK_EQ(load(state), 0);
	for (size_t i = 0; i < COUNT; i++) {
		CHECK_EQ(to.fakes[i]->state, VFIO_DEVICE_STATE_STOP);
		CHECK(memcmp(to.fakes[i]->inside, inside[i], FAKE_INSIDE) == 0);
	}
	CHECK_EQ(vfio_migration_group_run(to.group, COUNT, &b.err), 0);
	CHECK_EQ(to.fakes[0]->resets + to.fakes[1]->resets, 0);
	free(state);
	done();
}

static void a_live_one_reads_devices_while_they_run(void)
{
	const struct snapshot_request request = {.live = true, .goal = {.downtime = 10000000000ull}};
	struct snapshot_state *state;

	setup(ALL);
	run(&request);
	CHECK_STR(report.text, "");
	CHECK_EQ(report.phase, SNAPSHOT_WRITTEN);
	all_run();
	CHECK(strncmp(fake_journal(b.fake), "PRE_COPY 0, PRE_COPY 1, PRE_COPY_P2P 0, PRE_COPY_P2P 1, STOP_COPY 0", 66) == 0);
	state = parse();
	CHECK_EQ(state->device_count, COUNT);
	for (size_t i = 0; i < COUNT; i++)
		CHECK_EQ(state->devices[i].state.len, INITIAL + FAKE_INSIDE);
	CHECK_EQ(load(state), 0);
	for (size_t i = 0; i < COUNT; i++)
		CHECK(memcmp(to.fakes[i]->inside, inside[i], FAKE_INSIDE) == 0);
	free(state);
	done();
}

static void a_machine_that_is_to_end_keeps_its_devices_stopped(void)
{
	const struct snapshot_request request = {.stop = true};

	setup(PLAIN);
	run(&request);
	CHECK_EQ(report.phase, SNAPSHOT_WRITTEN);
	CHECK(paused && begun);
	for (size_t i = 0; i < COUNT; i++)
		CHECK_EQ(from.fakes[i]->state, VFIO_DEVICE_STATE_STOP_COPY);
	do_run_devices(NULL);
	do_resume(NULL);
	do_end(NULL);
	all_run();
	done();
}

static void a_machine_without_devices_has_no_states(void)
{
	const struct snapshot_request requests[] = {{0}, {.live = true, .goal = {.downtime = 10000000000ull}}, {.stop = true}};
	struct snapshot_state *state;

	for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
		setup(PLAIN);
		present = 0;
		run(&requests[i]);
		CHECK_EQ(report.phase, SNAPSHOT_WRITTEN);
		state = parse();
		CHECK_EQ(state->device_count, 0);
		CHECK_EQ(snapshot_devices_load(state, NULL, 0, id_of, ids, -1, &b.err), 0);
		CHECK_EQ(load(state), -EBADMSG);
		CHECK_STR(b.err.text, "the snapshot has the states of 0 host devices, but the machine has 2");
		free(state);
		CHECK_STR(fake_journal(b.fake), "");
		done();
	}
}

/* ---- what is wrong ---- */

static void the_state_of_other_devices_is_refused(void)
{
	struct snapshot_state state = {.device_count = 2, .devices = {{.id = "card"}, {.id = "disk"}}};

	setup(PLAIN);
	CHECK_EQ(load(&state), -EBADMSG);
	CHECK_STR(b.err.text, "the snapshot has no state of the machine's host device gpu");
	CHECK_STR(fake_journal(b.fake), "");
	done();
}

static void a_device_that_refuses_its_state_is_named(void)
{
	struct snapshot_state state = {.device_count = 2, .devices = {{.id = "card"}, {.id = "gpu"}}};

	setup(PLAIN);
	state.devices[0].state = (struct snapshot_bytes){inside[0], FAKE_INSIDE};
	state.devices[1].state = (struct snapshot_bytes){inside[1], FAKE_INSIDE - 1};
	CHECK_EQ(load(&state), -EINVAL);
	CHECK_HAS(b.err.text, "--vfio gpu: the device refuses the state: vfio 0000:06:00.0: from RESUMING to STOP");
	to.fakes[0]->fail_write = -EIO;
	state.devices[1].state.len = FAKE_INSIDE;
	end_side(&to);
	fake_journal(b.fake);
	for (int i = 0; i < COUNT; i++) {
		CHECK_EQ(bench_open(&b, i ? "0000:06:00.0" : "0000:05:00.0", VFIO_WANT_AUTO, &to.devices[i]), 0);
		CHECK_EQ(vfio_migration_create(to.devices[i], &to.group[i], &b.err), 0);
	}
	CHECK_EQ(load(&state), -EIO);
	CHECK_HAS(b.err.text, "--vfio card: vfio 0000:05:00.0: write its state");
	done();
}

static void a_load_can_be_cancelled(void)
{
	struct snapshot_state state = {.device_count = 2, .devices = {{.id = "card"}, {.id = "gpu"}}};
	int cancelled = eventfd(1, EFD_CLOEXEC);

	setup(PLAIN);
	for (size_t i = 0; i < COUNT; i++)
		state.devices[i].state = (struct snapshot_bytes){inside[i], FAKE_INSIDE};
	CHECK_EQ(snapshot_devices_load(&state, to.group, COUNT, id_of, ids, cancelled, &b.err), -ECANCELED);
	close(cancelled);
	done();
}

static struct snapshot_devices *create(uint64_t limit, int want)
{
	const struct snapshot_devices_options options = {.ops = &ops, .limit = limit, .cancel_fd = -1};
	struct snapshot_devices *devices;

	CHECK_EQ(snapshot_devices_create(&options, &devices, &b.err), want);
	return devices;
}

static void a_state_that_is_too_large_is_refused(void)
{
	struct snapshot_devices *devices;

	setup(PLAIN);
	CHECK(!create(2 * FAKE_INSIDE - 1, -EFBIG));
	CHECK_HAS(b.err.text, "too large for a snapshot, which holds up to 0 MiB of it; remove a device first");
	CHECK_STR(fake_journal(b.fake), "");
	snapshot_devices_destroy(create(2 * FAKE_INSIDE, 0));
	/* The device does not know before, and is found out while it is read. */
	from.fakes[0]->no_data_size = from.fakes[1]->no_data_size = true;
	devices = create(2 * FAKE_INSIDE - 1, 0);
	paused = true;
	CHECK_EQ(snapshot_devices_stop(devices, &b.err), 0);
	CHECK_EQ(snapshot_devices_read(devices, &b.err), -EFBIG);
	snapshot_devices_run(devices);
	snapshot_devices_destroy(devices);
	paused = false;
	all_run();
	done();
}

static void a_cancel_lets_the_devices_run_on(void)
{
	const struct snapshot_request request = {0};

	setup(PLAIN);
	cancel_when_stopped = true;
	run(&request);
	CHECK_EQ(report.phase, SNAPSHOT_FAILED);
	CHECK_STR(report.text, "enough");
	all_run();
	done();
}

static void a_device_that_fails_leaves_the_machine_as_it_was(void)
{
	const struct snapshot_request requests[] = {{0}, {.stop = true}, {.live = true, .goal = {.downtime = 10000000000ull}}};

	for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
		setup(requests[i].live ? ALL : PLAIN);
		from.fakes[1]->fail_read = -EIO;
		run(&requests[i]);
		CHECK_EQ(report.phase, SNAPSHOT_FAILED);
		CHECK_HAS(report.text, "vfio 0000:02:00.0: read its state: ");
		all_run();
		done();
	}
}

/* Each call to the kernel fails in turn: in every case the machine is as before, or the files are complete. */
static void every_call_fails_in_turn(const struct snapshot_request *request, uint32_t flags)
{
	unsigned int n = 0, failed = 0;
	bool reached;

	do {
		setup(flags);
		b.fake->fail_at = b.fake->calls + ++n;
		b.fake->fail_errno = -EIO;
		run(request);
		reached = b.fake->calls >= b.fake->fail_at;
		b.fake->fail_at = 0;
		failed += report.phase == SNAPSHOT_FAILED;
		CHECK(!paused && !begun);
		CHECK(report.phase == SNAPSHOT_WRITTEN || report.text[0]);
		for (size_t i = 0; i < COUNT; i++)
			CHECK_EQ(from.fakes[i]->state, VFIO_DEVICE_STATE_RUNNING);
		if (report.phase == SNAPSHOT_WRITTEN) {
			struct snapshot_state *state = parse();

			CHECK_EQ(load(state), 0);
			for (size_t i = 0; i < COUNT; i++)
				CHECK(memcmp(to.fakes[i]->inside, inside[i], FAKE_INSIDE) == 0);
			free(state);
		}
		done();
	} while (reached);
	CHECK(n > 15 && n < 400 && failed > 10);
}

static void every_call_fails_in_turn_in_a_pause(void)
{
	const struct snapshot_request request = {0};

	every_call_fails_in_turn(&request, PLAIN);
}

static void every_call_fails_in_turn_while_it_runs(void)
{
	const struct snapshot_request request = {.live = true, .goal = {.downtime = 10000000000ull}};

	every_call_fails_in_turn(&request, ALL);
}

TEST_MAIN(TEST(what_is_in_the_devices_is_in_others_after_a_restore), TEST(a_live_one_reads_devices_while_they_run),
	  TEST(a_machine_that_is_to_end_keeps_its_devices_stopped), TEST(a_machine_without_devices_has_no_states),
	  TEST(the_state_of_other_devices_is_refused), TEST(a_device_that_refuses_its_state_is_named),
	  TEST(a_load_can_be_cancelled), TEST(a_state_that_is_too_large_is_refused), TEST(a_cancel_lets_the_devices_run_on),
	  TEST(a_device_that_fails_leaves_the_machine_as_it_was), TEST(every_call_fails_in_turn_in_a_pause),
	  TEST(every_call_fails_in_turn_while_it_runs))
