/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/host_devices_migration: all host devices of a machine on their way, in the order of their ids, on a fake kernel and with
 * a list of devices of our own. They come and go for nobody meanwhile; none stops before all are quiet; and whatever
 * fails, each runs again, was reset, or is cut off, which is said.
 */
#include "tests/unit/fake_pci.h"
#include "tests/unit/vfio_bench.h"
#include "vmm/session/host_devices_migration.h"

#define PLAIN VFIO_MIGRATION_STOP_COPY
#define ALL (VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P | VFIO_UAPI_MIGRATION_PRE_COPY)
#define COUNT 3

/* What this module asks of vmm/machine/host_devices.h. */
struct host_devices {
	size_t count;
	struct vfio_device *devices[COUNT];
	bool fenced[COUNT];
	const char *blocker;
};

static struct vfio_bench b;
static struct host_devices list;
static struct fake_migration *fakes[COUNT];
static struct host_devices_migration *moving;
static enum host_devices_purpose purpose;

/* In another order than they come in the list: "a" is the third of it, "b" the first, "c" the second. */
static const char *const ids[COUNT] = {"b", "c", "a"};
static const char *const names[COUNT] = {"0000:01:00.0", "0000:02:00.0", "0000:03:00.0"};

size_t host_devices_count(const struct host_devices *devices)
{
	return devices->count;
}

void host_devices_info(const struct host_devices *devices, size_t index, struct vfio_pci_info *info)
{
	*info = (struct vfio_pci_info){.id = ids[index], .device = devices->devices[index], .fenced = devices->fenced[index]};
}

int host_devices_set_blocker(struct host_devices *devices, const char *why, struct err *err)
{
	devices->blocker = why;
	return 0;
}

void host_devices_cut_off(struct host_devices *devices, size_t index)
{
	devices->fenced[index] = true;
}

static void setup(uint32_t flags)
{
	bench_init(&b);
	list = (struct host_devices){.count = COUNT};
	for (size_t i = 0; i < COUNT; i++) {
		struct fake_device *device = fake_device(b.fake, names[i], fake_group(b.fake), fake_iommu(b.fake, i != 1));

		fake_migrates(device, flags);
		fakes[i] = &device->migration;
	}
	bench_space(&b, NULL);
	for (size_t i = 0; i < COUNT; i++)
		CHECK_EQ(bench_open(&b, names[i], VFIO_WANT_AUTO, &list.devices[i]), 0);
	fake_journal(b.fake);
	b.err.text[0] = 0;
}

static int begin(void)
{
	return host_devices_migration_begin(&list, "vm", purpose, &moving, &b.err);
}

static void done(void)
{
	host_devices_migration_end(take_ptr(moving));
	CHECK(!list.blocker);
	for (size_t i = 0; i < COUNT; i++)
		vfio_device_close(list.devices[i]);
	bench_done(&b);
}

#define ARCS(want) CHECK_STR(fake_journal(b.fake), want)

/* The next arc to a state fails and leaves the device in another one. */
static void fail_arc(size_t i, uint32_t to, uint32_t into)
{
	fakes[i]->fail_to = to;
	fakes[i]->fail_into = into;
	fakes[i]->fail_errno = -EIO;
	fakes[i]->fail_times = 1;
}

static void all_run(void)
{
	for (size_t i = 0; i < COUNT; i++)
		CHECK_EQ(fakes[i]->state, VFIO_DEVICE_STATE_RUNNING);
}

static void they_go_in_the_order_of_their_ids(void)
{
	struct vfio_migration *const *group;

	setup(ALL);
	CHECK_EQ(begin(), 0);
	CHECK_EQ(host_devices_migration_group(moving, &group), COUNT);
	for (size_t i = 0; i < COUNT; i++)
		CHECK_STR(host_devices_migration_id(moving, i), ((const char *[]){"a", "b", "c"})[i]);
	CHECK(vfio_migration_device(group[0]) == list.devices[2]);
	CHECK_HAS(list.blocker, "the machine is being migrated");
	CHECK_EQ(host_devices_migration_start(moving, &b.err), 0);
	ARCS("PRE_COPY 2, PRE_COPY 0, PRE_COPY 1");
	CHECK_EQ(host_devices_migration_stop(moving, &b.err), 0);
	ARCS("PRE_COPY_P2P 2, PRE_COPY_P2P 0, PRE_COPY_P2P 1, STOP_COPY 2, STOP_COPY 0, STOP_COPY 1");
	CHECK_EQ(host_devices_migration_run(moving, &b.err), 0);
	ARCS("STOP 2, RUNNING_P2P 2, STOP 0, RUNNING_P2P 0, STOP 1, RUNNING_P2P 1, RUNNING 2, RUNNING 0, RUNNING 1");
	CHECK_EQ(host_devices_migration_check_whole(moving, &b.err), 0);
	done();
}

static void one_that_has_gone_with_its_machine_is_reset_for_whoever_comes_next(void)
{
	setup(ALL);
	CHECK_EQ(begin(), 0);
	CHECK_EQ(host_devices_migration_start(moving, &b.err), 0);
	CHECK_EQ(host_devices_migration_stop(moving, &b.err), 0);
	fake_journal(b.fake);
	host_devices_migration_end(take_ptr(moving));
	ARCS("reset 2, reset 0, reset 1");
	all_run();
	done();
}

static void what_cannot_move_is_named_and_nothing_is_held(void)
{
	setup(ALL);
	fakes[1]->flags = 0;
	CHECK_EQ(begin(), -ENOTSUP);
	CHECK_STR(b.err.text, "--vfio c: vfio 0000:02:00.0: its driver on this host (vfio-pci) cannot migrate it; remove it "
			      "first: mvmm vfio remove vm c");
	CHECK(!moving && !list.blocker);
	fakes[1]->flags = ALL;
	list.fenced[0] = true;
	CHECK_EQ(begin(), -ENOTSUP);
	CHECK_STR(b.err.text, "--vfio b: it has failed and is fenced; remove it first: mvmm vfio remove vm b");
	CHECK(!moving && !list.blocker);
	list.fenced[0] = false;
	fakes[0]->flags = PLAIN;
	CHECK_EQ(begin(), -ENOTSUP);
	CHECK_HAS(b.err.text, "--vfio b: vfio 0000:01:00.0: of 3 devices each must be able to stop its traffic");
	CHECK_HAS(b.err.text, "mvmm vfio remove vm b");
	CHECK(!moving && !list.blocker);
	purpose = HOST_DEVICES_SNAPSHOT;
	CHECK_EQ(begin(), -ENOTSUP);
	CHECK_HAS(b.err.text, "and this one's driver cannot, and a snapshot needs its state; remove it first: mvmm vfio remove vm b");
	purpose = HOST_DEVICES_MIGRATE;
	ARCS("");
	done();
}

static void one_alone_needs_no_others_and_none_is_no_trouble(void)
{
	struct vfio_migration *const *group;
	const char *id = "";

	setup(PLAIN);
	list.count = 1;
	CHECK_EQ(begin(), 0);
	CHECK_EQ(host_devices_migration_start(moving, &b.err), 0);
	CHECK_EQ(host_devices_migration_stop(moving, &b.err), 0);
	ARCS("STOP 0, STOP_COPY 0");
	CHECK_EQ(host_devices_migration_run(moving, &b.err), 0);
	host_devices_migration_end(take_ptr(moving));
	list.count = 0;
	CHECK_EQ(begin(), 0);
	CHECK_EQ(host_devices_migration_group(moving, &group), 0);
	CHECK_EQ(host_devices_migration_untold(moving, &id), 0);
	CHECK(!id);
	CHECK_EQ(host_devices_migration_stop(moving, &b.err), 0);
	CHECK_EQ(host_devices_migration_run(moving, &b.err), 0);
	done();
}

static void who_cannot_tell_what_it_writes_is_named(void)
{
	const char *id;

	setup(ALL);
	CHECK_EQ(begin(), 0);
	CHECK_EQ(host_devices_migration_untold(moving, &id), LOW_SIZE + HIGH_SIZE);
	CHECK_STR(id, "c");
	done();
}

static void a_start_that_fails_leaves_all_as_they_were(void)
{
	setup(ALL);
	CHECK_EQ(begin(), 0);
	fail_arc(0, VFIO_UAPI_STATE_PRE_COPY, VFIO_DEVICE_STATE_RUNNING);
	CHECK_EQ(host_devices_migration_start(moving, &b.err), -EIO);
	CHECK_HAS(b.err.text, "vfio 0000:01:00.0: from RUNNING to PRE_COPY");
	ARCS("PRE_COPY 2, RUNNING 2");
	all_run();
	CHECK_EQ(host_devices_migration_check_whole(moving, &b.err), 0);
	done();
}

static void a_stop_that_fails_takes_all_back(void)
{
	setup(ALL);
	CHECK_EQ(begin(), 0);
	CHECK_EQ(host_devices_migration_start(moving, &b.err), 0);
	fake_journal(b.fake);
	fail_arc(0, VFIO_DEVICE_STATE_STOP_COPY, VFIO_UAPI_STATE_PRE_COPY_P2P);
	CHECK_EQ(host_devices_migration_stop(moving, &b.err), -EIO);
	ARCS("PRE_COPY_P2P 2, PRE_COPY_P2P 0, PRE_COPY_P2P 1, STOP_COPY 2, STOP 2, RUNNING_P2P 2, RUNNING 2, RUNNING_P2P 0, "
	     "RUNNING 0, RUNNING_P2P 1, RUNNING 1");
	CHECK_EQ(host_devices_migration_run(moving, &b.err), 0);
	CHECK_EQ(host_devices_migration_check_whole(moving, &b.err), 0);
	done();
}

static void one_that_had_to_be_reset_is_not_whole(void)
{
	setup(ALL);
	CHECK_EQ(begin(), 0);
	CHECK_EQ(host_devices_migration_stop(moving, &b.err), 0);
	fail_arc(1, VFIO_DEVICE_STATE_RUNNING_P2P, VFIO_DEVICE_STATE_ERROR);
	CHECK_EQ(host_devices_migration_run(moving, &b.err), 0);
	all_run();
	CHECK_EQ(fakes[0]->resets + 10 * fakes[1]->resets + 100 * fakes[2]->resets, 10);
	CHECK_EQ(host_devices_migration_check_whole(moving, &b.err), -EIO);
	CHECK_STR(b.err.text, "vfio c: it did not run with the received state and had to be reset");
	CHECK(!list.fenced[0] && !list.fenced[1] && !list.fenced[2]);
	done();
}

static void one_that_cannot_be_reset_is_cut_off_and_the_others_run(void)
{
	setup(ALL);
	CHECK_EQ(begin(), 0);
	CHECK_EQ(host_devices_migration_stop(moving, &b.err), 0);
	fail_arc(2, VFIO_DEVICE_STATE_RUNNING, VFIO_DEVICE_STATE_ERROR);
	fakes[2]->refuse_reset = true;
	CHECK_EQ(host_devices_migration_run(moving, &b.err), -EIO);
	CHECK_HAS(b.err.text, "vfio 0000:03:00.0: it is in state ERROR and could not be reset");
	CHECK(list.fenced[2] && !list.fenced[0] && !list.fenced[1]);
	CHECK_EQ(fakes[0]->state, VFIO_DEVICE_STATE_RUNNING);
	CHECK_EQ(fakes[1]->state, VFIO_DEVICE_STATE_RUNNING);
	fakes[2]->refuse_reset = false;
	done();
}

/* From begin to the way back; how many calls of it said that they failed. */
static unsigned int life(void)
{
	unsigned int failures = 0;

#define STEP(call) ({ b.err.text[0] = 0; int rc = (call); if (rc < 0) { CHECK(b.err.text[0]); failures++; } rc; })
	if (STEP(begin()) < 0) {
		CHECK(!list.blocker);
		return failures;
	}
	if (STEP(host_devices_migration_start(moving, &b.err)) == 0)
		STEP(host_devices_migration_stop(moving, &b.err));
	STEP(host_devices_migration_run(moving, &b.err));
#undef STEP
	for (size_t i = 0; i < COUNT; i++)
		CHECK(list.fenced[i] || fakes[i]->state == VFIO_DEVICE_STATE_RUNNING);
	host_devices_migration_end(take_ptr(moving));
	return failures;
}

static void every_call_fails_in_turn(void)
{
	static const int codes[] = {-EIO, -EINTR, -EBUSY, -ENOTTY, -ENODEV};
	unsigned int n, failed = 0;
	bool reached;

	for (size_t c = 0; c < ARRAY_SIZE(codes); c++)
		for (unsigned int also = 0; also < 8; also++) {
			n = 0;
			do {
				setup(ALL);
				b.fake->fail_at = b.fake->calls + ++n;
				b.fake->fail_also = also;
				b.fake->fail_errno = codes[c];
				failed += life() > 0;
				reached = b.fake->calls >= b.fake->fail_at;
				b.fake->fail_at = 0;
				done();
			} while (reached);
			CHECK(n > 15 && n < 200);
		}
	CHECK(failed > 100);
}

TEST_MAIN(TEST(they_go_in_the_order_of_their_ids), TEST(one_that_has_gone_with_its_machine_is_reset_for_whoever_comes_next),
	  TEST(what_cannot_move_is_named_and_nothing_is_held), TEST(one_alone_needs_no_others_and_none_is_no_trouble),
	  TEST(who_cannot_tell_what_it_writes_is_named), TEST(a_start_that_fails_leaves_all_as_they_were),
	  TEST(a_stop_that_fails_takes_all_back), TEST(one_that_had_to_be_reset_is_not_whole),
	  TEST(one_that_cannot_be_reset_is_cut_off_and_the_others_run), TEST(every_call_fails_in_turn))
