/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vfio/migration: the states that devices go through, by the arcs of the protocol alone and all devices together; what
 * is read on one side is in the device of the other side; and whatever fails, the devices run again afterwards, or have
 * been reset, which is said.
 */
#include "tests/unit/fake_pci.h"
#include "tests/unit/vfio_bench.h"
#include "vfio/migration.h"

#define STOP_COPY_ONLY VFIO_MIGRATION_STOP_COPY
#define P2P (VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P)
#define PRE_COPY (VFIO_MIGRATION_STOP_COPY | VFIO_UAPI_MIGRATION_PRE_COPY)
#define ALL (P2P | VFIO_UAPI_MIGRATION_PRE_COPY)
#define MAX_DEVICES 3

static struct vfio_bench b;
static size_t members;
static struct vfio_device *devices[MAX_DEVICES];
static struct vfio_migration *group[MAX_DEVICES];
static struct fake_migration *fakes[MAX_DEVICES];

static const char *const names[MAX_DEVICES] = {"0000:01:00.0", "0000:02:00.0", "0000:03:00.0"};

/* Opens a device for each of flags, which end with 0. */
static void setup(const uint32_t *flags)
{
	int iommu;

	bench_init(&b);
	iommu = fake_iommu(b.fake, true);
	for (members = 0; flags[members]; members++) {
		struct fake_device *fake = fake_device(b.fake, names[members], fake_group(b.fake), iommu);

		fake_migrates(fake, flags[members]);
		fakes[members] = &fake->migration;
	}
	bench_space(&b, NULL);
	for (size_t i = 0; i < members; i++) {
		CHECK_EQ(bench_open(&b, names[i], VFIO_WANT_AUTO, &devices[i]), 0);
		CHECK_EQ(vfio_migration_create(devices[i], &group[i], &b.err), 0);
		CHECK_EQ(vfio_migration_state(group[i]), VFIO_DEVICE_STATE_RUNNING);
	}
	fake_journal(b.fake);
}

static void done(void)
{
	for (size_t i = 0; i < members; i++) {
		vfio_migration_destroy(group[i]);
		vfio_device_close(devices[i]);
	}
	bench_done(&b);
}

static void setup_one(uint32_t flags)
{
	setup((uint32_t[]){flags, 0});
}

#define ARCS(want) CHECK_STR(fake_journal(b.fake), want)

static void start_all(void)
{
	for (size_t i = 0; i < members; i++)
		CHECK_EQ(vfio_migration_start(group[i], &b.err), 0);
}

static void all_run(void)
{
	for (size_t i = 0; i < members; i++) {
		CHECK_EQ(fakes[i]->state, VFIO_DEVICE_STATE_RUNNING);
		CHECK_EQ(vfio_migration_state(group[i]), VFIO_DEVICE_STATE_RUNNING);
	}
}

/* ---- Ways ---- */

static void down_and_up(uint32_t flags, const char *start, const char *stop, const char *run)
{
	setup_one(flags);
	start_all();
	ARCS(start);
	CHECK_EQ(vfio_migration_group_stop(group, 1, &b.err), 0);
	ARCS(stop);
	CHECK_EQ(vfio_migration_state(group[0]), VFIO_DEVICE_STATE_STOP_COPY);
	CHECK_EQ(vfio_migration_group_run(group, 1, &b.err), 0);
	ARCS(run);
	all_run();
	CHECK_EQ(vfio_migration_group_run(group, 1, &b.err), 0);
	ARCS("");
	CHECK(!vfio_migration_was_reset(group[0]));
	done();
}

static void each_kind_of_device_goes_its_way(void)
{
	down_and_up(STOP_COPY_ONLY, "", "STOP 0, STOP_COPY 0", "STOP 0, RUNNING 0");
	down_and_up(P2P, "", "RUNNING_P2P 0, STOP 0, STOP_COPY 0", "STOP 0, RUNNING_P2P 0, RUNNING 0");
	down_and_up(PRE_COPY, "PRE_COPY 0", "STOP_COPY 0", "STOP 0, RUNNING 0");
	down_and_up(ALL, "PRE_COPY 0", "PRE_COPY_P2P 0, STOP_COPY 0", "STOP 0, RUNNING_P2P 0, RUNNING 0");
}

static void a_device_that_saves_on_the_way_keeps_running(void)
{
	setup_one(ALL);
	start_all();
	ARCS("PRE_COPY 0");
	/* Called off: nothing of it stops for that. */
	CHECK_EQ(vfio_migration_group_run(group, 1, &b.err), 0);
	ARCS("RUNNING 0");
	CHECK_EQ(vfio_migration_read(group[0], &(char){0}, 1, &b.err), -ECANCELED);
	CHECK_HAS(b.err.text, "has been ended");
	done();
}

static void none_stops_before_all_are_quiet(void)
{
	setup((uint32_t[]){ALL, P2P, ALL, 0});
	CHECK_EQ(vfio_migration_group_check(group, members, &(size_t){0}, &b.err), 0);
	start_all();
	ARCS("PRE_COPY 0, PRE_COPY 2");
	CHECK_EQ(vfio_migration_group_stop(group, members, &b.err), 0);
	ARCS("PRE_COPY_P2P 0, RUNNING_P2P 1, PRE_COPY_P2P 2, STOP_COPY 0, STOP 1, STOP_COPY 1, STOP_COPY 2");
	/* And none works with the others again before all have left their stop. */
	CHECK_EQ(vfio_migration_group_run(group, members, &b.err), 0);
	ARCS("STOP 0, RUNNING_P2P 0, STOP 1, RUNNING_P2P 1, STOP 2, RUNNING_P2P 2, RUNNING 0, RUNNING 1, RUNNING 2");
	all_run();
	done();
}

static void two_devices_without_p2p_are_refused(void)
{
	size_t which = 9;

	setup((uint32_t[]){ALL, PRE_COPY, 0});
	CHECK_EQ(vfio_migration_group_check(group + 1, 1, &which, &b.err), 0);
	CHECK_EQ(which, 9);
	CHECK_EQ(vfio_migration_group_check(group, members, &which, &b.err), -ENOTSUP);
	CHECK_EQ(which, 1);
	CHECK_HAS(b.err.text, "vfio 0000:02:00.0: of 2 devices each must");
	done();
}

static void a_device_that_cannot_migrate_is_refused(void)
{
	struct vfio_migration *none = NULL;

	setup_one(ALL);
	fakes[0]->flags = 0;
	CHECK_EQ(vfio_migration_create(devices[0], &none, &b.err), -ENOTSUP);
	CHECK_STR(b.err.text, "vfio 0000:01:00.0: its driver on this host (vfio-pci) cannot migrate it");
	CHECK(!none);
	b.fake->alias = "alias vfio_pci:v00000000d00000000sv*sd*bc*sc*i* mlx5_vfio_pci\n";
	CHECK_EQ(vfio_migration_create(devices[0], &none, &b.err), -ENOTSUP);
	CHECK_HAS(b.err.text, "which may: 'mvmm vfio bind --driver mlx5_vfio_pci 0000:01:00.0'");
	/* Flags that promise no state to be read are no way either. */
	fakes[0]->flags = VFIO_MIGRATION_P2P;
	CHECK_EQ(vfio_migration_flags(devices[0]), 0);
	done();
}

/* Every state that a device may have been left in: group_run leads from there to RUNNING. */
static void from_each_state_there_is_a_way_back(void)
{
	for (uint32_t state = 0; state < VFIO_UAPI_STATES; state++) {
		bool by_reset = state == VFIO_DEVICE_STATE_ERROR || state == VFIO_DEVICE_STATE_RESUMING;

		setup_one(ALL);
		fakes[0]->state = state;
		CHECK_EQ(vfio_migration_group_run(group, 1, &b.err), 0);
		all_run();
		CHECK_EQ(fakes[0]->resets, by_reset);
		CHECK_EQ(vfio_migration_was_reset(group[0]), by_reset);
		CHECK_EQ(bench_logged(&b, "it has been reset, and its driver must set it up anew"), by_reset);
		done();
	}
}

/* Not every driver makes a device RUNNING when it is closed: whoever moved it away does, and whoever finds it otherwise. */
static void none_is_left_stopped(void)
{
	setup_one(ALL);
	CHECK_EQ(vfio_migration_group_stop(group, 1, &b.err), 0);
	vfio_migration_destroy(group[0]);
	CHECK_EQ(fakes[0]->state, VFIO_DEVICE_STATE_RUNNING);
	CHECK_EQ(fakes[0]->resets, 1);
	fakes[0]->state = VFIO_DEVICE_STATE_STOP;
	CHECK_EQ(vfio_migration_create(devices[0], &group[0], &b.err), 0);
	CHECK_EQ(fakes[0]->resets, 2);
	all_run();
	CHECK(!vfio_migration_was_reset(group[0]));
	vfio_migration_destroy(take_ptr(group[0]));
	CHECK_EQ(fakes[0]->resets, 2);
	fakes[0]->state = VFIO_DEVICE_STATE_STOP;
	fakes[0]->refuse_reset = true;
	CHECK_EQ(vfio_migration_create(devices[0], &group[0], &b.err), -EIO);
	CHECK(!group[0]);
	done();
}

/* ---- What is read ---- */

static uint8_t stream[4096];

/* Reads what there is; the last answer. */
static ssize_t drain(size_t i, size_t *len, size_t piece)
{
	ssize_t n;

	while ((n = vfio_migration_read(group[i], stream + *len, MIN(piece, sizeof(stream) - *len), &b.err)) > 0)
		*len += (size_t)n;
	return n;
}

/* After the stop, where a read that was interrupted is no end. */
static ssize_t drain_to_the_end(size_t i, size_t *len)
{
	ssize_t n;

	do
		n = drain(i, len, 50);
	while (n == -EAGAIN);
	return n;
}

static void check_pending(uint64_t initial, uint64_t dirty, uint64_t stop_copy)
{
	struct vfio_migration_pending pending;

	CHECK_EQ(vfio_migration_pending(group[0], &pending, &b.err), 0);
	CHECK_EQ(pending.initial, initial);
	CHECK_EQ(pending.dirty, dirty);
	CHECK_EQ(pending.stop_copy, stop_copy);
	CHECK_EQ(pending.stop_known, !fakes[0]->no_data_size);
}

static void its_state_is_read_while_it_runs_and_then_to_the_end(void)
{
	size_t len = 0;

	setup_one(ALL);
	start_all();
	check_pending(40, 0, 140);
	CHECK_EQ(drain(0, &len, 7), -EAGAIN);
	CHECK_EQ(len, 40);
	check_pending(0, 0, 100);
	fakes[0]->dirty = 12;
	check_pending(0, 12, 112);
	CHECK_EQ(drain(0, &len, 100), -EAGAIN);
	/* Set up anew: the initial bytes are new ones. */
	fakes[0]->initial = 9;
	fakes[0]->reinit = true;
	check_pending(9, 0, 109);
	CHECK(fakes[0]->v2);
	CHECK_EQ(vfio_migration_group_stop(group, 1, &b.err), 0);
	check_pending(0, 0, 109);
	CHECK_EQ(drain(0, &len, 11), 0);
	CHECK_EQ(len, 40 + 12 + 9 + FAKE_INSIDE);
	CHECK(memcmp(stream + len - FAKE_INSIDE, fakes[0]->inside, FAKE_INSIDE) == 0);
	CHECK_EQ(drain(0, &len, 11), 0);
	check_pending(0, 0, 0);
	done();
}

static void one_that_cannot_do_so_while_it_runs_is_waited_for(void)
{
	size_t len = 0;

	setup_one(P2P);
	CHECK_EQ(drain(0, &len, 11), -ECANCELED);
	start_all();
	check_pending(0, 0, 100);
	CHECK_EQ(drain(0, &len, 11), -EAGAIN);
	vfio_migration_wait(group[0], 7);
	CHECK_EQ(b.fake->waited_ms, 7);
	CHECK_EQ(vfio_migration_group_stop(group, 1, &b.err), 0);
	CHECK_EQ(drain(0, &len, 11), 0);
	CHECK_EQ(len, FAKE_INSIDE);
	CHECK_EQ(vfio_migration_group_run(group, 1, &b.err), 0);
	CHECK_EQ(drain(0, &len, 11), -ECANCELED);
	done();
}

/* A read of nothing is the end only where it can be; such a device is waited for by time. */
static void a_driver_that_cannot_poll_is_not_at_its_end(void)
{
	size_t len = 0;

	setup_one(ALL);
	fakes[0]->no_poll = fakes[0]->no_data_size = fakes[0]->no_precopy_v2 = true;
	start_all();
	check_pending(40, 0, 40);
	CHECK_EQ(drain(0, &len, 100), -EAGAIN);
	CHECK_EQ(len, 40);
	b.fake->waited_ms = 0;
	vfio_migration_wait(group[0], 30);
	CHECK_EQ(b.fake->waited_ms, 30);
	CHECK_EQ(vfio_migration_group_stop(group, 1, &b.err), 0);
	CHECK_EQ(drain(0, &len, 100), 0);
	CHECK_EQ(len, 40 + FAKE_INSIDE);
	done();
}

static void one_that_can_is_waited_for_by_poll(void)
{
	size_t len = 0;

	setup_one(ALL);
	start_all();
	CHECK_EQ(drain(0, &len, 100), -EAGAIN);
	b.fake->waited_ms = 0;
	vfio_migration_wait(group[0], 30);
	CHECK_EQ(b.fake->waited_ms, 30);
	fakes[0]->dirty = 1;
	vfio_migration_wait(group[0], 30);
	CHECK_EQ(b.fake->waited_ms, 30);
	CHECK_EQ(vfio_migration_group_run(group, 1, &b.err), 0);
	vfio_migration_wait(group[0], 5);
	CHECK_EQ(b.fake->waited_ms, 35);
	done();
}

/* One device's stream goes into another one, in pieces of its own. */
static void what_was_read_is_in_the_other_device(void)
{
	uint8_t inside[FAKE_INSIDE];
	size_t len = 0, half;

	setup((uint32_t[]){ALL, P2P, 0});
	memcpy(inside, fakes[0]->inside, sizeof(inside));
	CHECK(memcmp(inside, fakes[1]->inside, sizeof(inside)) != 0);
	CHECK_EQ(vfio_migration_start(group[0], &b.err), 0);
	CHECK_EQ(vfio_migration_group_stop(group, 1, &b.err), 0);
	CHECK_EQ(drain(0, &len, 33), 0);
	fake_journal(b.fake);
	CHECK_EQ(vfio_migration_load(group[1], &b.err), 0);
	ARCS("RUNNING_P2P 1, STOP 1, RESUMING 1");
	half = len / 2;
	fakes[1]->piece = 13;
	CHECK_EQ(vfio_migration_write(group[1], stream, half, &b.err), 0);
	CHECK_EQ(vfio_migration_write(group[1], stream + half, len - half, &b.err), 0);
	CHECK_EQ(vfio_migration_loaded(group[1], &b.err), 0);
	ARCS("STOP 1");
	CHECK_EQ(vfio_migration_group_run(group + 1, 1, &b.err), 0);
	ARCS("RUNNING_P2P 1, RUNNING 1");
	CHECK(memcmp(inside, fakes[1]->inside, sizeof(inside)) == 0);
	CHECK(!vfio_migration_was_reset(group[1]));
	done();
}

static void a_state_that_is_none_is_refused_and_the_device_reset(void)
{
	setup_one(ALL);
	CHECK_EQ(vfio_migration_write(group[0], "x", 1, &b.err), -EINVAL);
	CHECK_EQ(vfio_migration_loaded(group[0], &b.err), -EINVAL);
	CHECK_EQ(vfio_migration_load(group[0], &b.err), 0);
	CHECK_EQ(vfio_migration_write(group[0], "nonsense", 8, &b.err), 0);
	CHECK_EQ(vfio_migration_loaded(group[0], &b.err), -EINVAL);
	CHECK_HAS(b.err.text, "refuses the state: vfio 0000:01:00.0: from RESUMING to STOP");
	CHECK_EQ(vfio_migration_group_run(group, 1, &b.err), 0);
	all_run();
	CHECK(vfio_migration_was_reset(group[0]));
	done();
}

/* ---- Failures ---- */

/* The arc to a state fails and leaves the device in another one. */
static void fail_arc(size_t i, uint32_t to, uint32_t into, int times)
{
	fakes[i]->fail_to = to;
	fakes[i]->fail_into = into;
	fakes[i]->fail_errno = -EIO;
	fakes[i]->fail_times = times;
}

static void a_stop_that_fails_half_way_takes_all_back(void)
{
	setup((uint32_t[]){ALL, ALL, 0});
	start_all();
	fail_arc(1, VFIO_DEVICE_STATE_STOP_COPY, VFIO_UAPI_STATE_PRE_COPY_P2P, 1);
	CHECK_EQ(vfio_migration_group_stop(group, members, &b.err), -EIO);
	CHECK_HAS(b.err.text, "vfio 0000:02:00.0: from PRE_COPY_P2P to STOP_COPY: ");
	ARCS("PRE_COPY 0, PRE_COPY 1, PRE_COPY_P2P 0, PRE_COPY_P2P 1, STOP_COPY 0, STOP 0, RUNNING_P2P 0, RUNNING 0, "
	     "RUNNING_P2P 1, RUNNING 1");
	all_run();
	CHECK(!fakes[0]->resets && !fakes[1]->resets);
	/* And it can be tried again. */
	start_all();
	CHECK_EQ(vfio_migration_group_stop(group, members, &b.err), 0);
	done();
}

static void a_device_in_error_is_reset_and_the_others_run(void)
{
	setup((uint32_t[]){ALL, ALL, 0});
	start_all();
	fail_arc(0, VFIO_DEVICE_STATE_STOP_COPY, VFIO_DEVICE_STATE_ERROR, 1);
	CHECK_EQ(vfio_migration_group_stop(group, members, &b.err), -EIO);
	all_run();
	CHECK(vfio_migration_was_reset(group[0]) && !vfio_migration_was_reset(group[1]));
	CHECK(!vfio_migration_is_lost(group[0]));
	CHECK_EQ(bench_logged(&b, "vfio 0000:01:00.0: it has been reset, and its driver"), 1);
	done();
}

static void a_way_back_is_tried_twice_before_a_reset(void)
{
	for (int times = 1; times <= 2; times++) {
		setup_one(P2P);
		CHECK_EQ(vfio_migration_group_stop(group, 1, &b.err), 0);
		fail_arc(0, VFIO_DEVICE_STATE_RUNNING_P2P, VFIO_DEVICE_STATE_STOP, times);
		CHECK_EQ(vfio_migration_group_run(group, 1, &b.err), 0);
		all_run();
		CHECK_EQ(vfio_migration_was_reset(group[0]), times == 2);
		CHECK_EQ(bench_logged(&b, "from STOP to RUNNING_P2P: "), times == 2);
		done();
	}
}

static void one_that_cannot_be_reset_is_lost_and_the_others_run(void)
{
	setup((uint32_t[]){ALL, ALL, 0});
	start_all();
	fail_arc(0, VFIO_UAPI_STATE_PRE_COPY_P2P, VFIO_DEVICE_STATE_ERROR, 1);
	fakes[0]->refuse_reset = true;
	CHECK_EQ(vfio_migration_group_stop(group, members, &b.err), -EIO);
	CHECK_HAS(b.err.text, "from PRE_COPY to PRE_COPY_P2P");
	CHECK(vfio_migration_is_lost(group[0]) && !vfio_migration_is_lost(group[1]));
	CHECK_EQ(fakes[1]->state, VFIO_DEVICE_STATE_RUNNING);
	CHECK_EQ(vfio_migration_group_run(group, members, &b.err), -EIO);
	CHECK_HAS(b.err.text, "vfio 0000:01:00.0: it is in state ERROR and could not be reset");
	fakes[0]->refuse_reset = false;
	CHECK_EQ(vfio_migration_group_run(group, members, &b.err), 0);
	CHECK(!vfio_migration_is_lost(group[0]));
	all_run();
	done();
}

static void a_session_without_a_descriptor_is_a_failure(void)
{
	setup_one(ALL);
	fakes[0]->no_session = true;
	CHECK_EQ(vfio_migration_start(group[0], &b.err), -EBADF);
	CHECK_EQ(vfio_migration_group_run(group, 1, &b.err), 0);
	all_run();
	done();
}

/* A life of two devices, one of which takes the other's state in the end. True when nothing failed. */
static bool life(void)
{
	struct vfio_migration_pending pending;
	struct vfio_migration_identity identity;
	size_t len = 0;
	bool fine = true;

#define STEP(call) do { b.err.text[0] = 0; if (fine && (call) < 0) { CHECK(b.err.text[0]); fine = false; } } while (0)
	STEP(vfio_migration_identity(devices[0], &identity, &b.err));
	STEP(vfio_migration_start(group[0], &b.err));
	STEP(vfio_migration_pending(group[0], &pending, &b.err));
	STEP(drain(0, &len, 50) == -EAGAIN ? 0 : -1);
	STEP(vfio_migration_group_stop(group, 1, &b.err));
	STEP((int)drain_to_the_end(0, &len));
	STEP(vfio_migration_load(group[1], &b.err));
	STEP(vfio_migration_write(group[1], stream, len, &b.err));
	STEP(vfio_migration_loaded(group[1], &b.err));
#undef STEP
	b.err.text[0] = 0;
	if (vfio_migration_group_run(group, members, &b.err) < 0) {
		CHECK(b.err.text[0]);
		CHECK(vfio_migration_is_lost(group[0]) || vfio_migration_is_lost(group[1]));
		return false;
	}
	for (size_t i = 0; i < members; i++)
		CHECK_EQ(fakes[i]->resets, vfio_migration_was_reset(group[i]));
	all_run();
	return fine;
}

/* Lives once for every call that can fail, also of the following calls; how many there were. */
static unsigned int fail_each(int code, unsigned int also, unsigned int *fine)
{
	unsigned int n = 0;
	bool reached;

	do {
		setup((uint32_t[]){ALL, P2P, 0});
		fake_pci(&b.fake->devices[0]);
		fake_pci(&b.fake->devices[1]);
		b.fake->fail_at = b.fake->calls + ++n;
		b.fake->fail_also = also;
		b.fake->fail_errno = code;
		*fine += life();
		reached = b.fake->calls >= b.fake->fail_at;
		b.fake->fail_at = 0;
		done();
	} while (reached);
	return n - 1;
}

static void every_call_fails_in_turn(void)
{
	static const int codes[] = {-EIO, -EINTR, -EBUSY, -ENOTTY, -ENODEV, -ENOMSG};

	for (size_t c = 0; c < ARRAY_SIZE(codes); c++)
		for (unsigned int also = 0; also < 4; also++) {
			unsigned int fine = 0, n = fail_each(codes[c], also, &fine);

			printf("# %s: %u calls failed, %u at a time; %u times without harm\n", strerrorname_np(-codes[c]), n, also + 1,
			       fine - 1);
			CHECK(n > 20 && n < 200 && fine >= 1);
		}
}

/* ---- Identity ---- */

static void an_identity_is_read_from_config_space(void)
{
	struct vfio_migration_identity identity;
	struct fake_pci *pci;

	setup_one(ALL);
	CHECK_EQ(vfio_migration_identity(devices[0], &identity, &b.err), -EIO);
	CHECK_HAS(b.err.text, "vfio 0000:01:00.0: read its config space");
	pci = fake_pci(&b.fake->devices[0]);
	put_le32(pci->config, 0x5d016d76);
	put_le32(pci->config + PCI_CLASS_REVISION, 0x07000210);
	put_le32(pci->config + PCI_SUBSYSTEM_VENDOR_ID, 0x22221111);
	CHECK_EQ(vfio_migration_identity(devices[0], &identity, &b.err), 0);
	CHECK(identity.vendor == 0x6d76 && identity.device == 0x5d01 && identity.class_code == 0x070002);
	CHECK(identity.subsystem_vendor == 0x1111 && identity.subsystem == 0x2222 && identity.revision == 0x10);
	CHECK_EQ(identity.flags, ALL);
	CHECK_EQ(identity.iommu, HOST_IOMMU_NONE);
	done();
}

static void a_difference_is_named(void)
{
	static const struct vfio_migration_identity source = {1, 2, 3, 4, 5, 6, P2P, HOST_IOMMU_VTD};
	struct vfio_migration_identity target = source;
	struct err err;

	CHECK_EQ(vfio_migration_compare(&source, &target, &err), 0);
	target.flags = ALL;
	target.iommu = HOST_IOMMU_NONE;
	CHECK_EQ(vfio_migration_compare(&source, &target, &err), 0);
#define DIFFERS(member, value, says)                                                \
	do {                                                                        \
		target = source;                                                    \
		target.member = value;                                              \
		CHECK_EQ(vfio_migration_compare(&source, &target, &err), -ENODEV);  \
		CHECK_STR(err.text, says);                                          \
	} while (0)
	DIFFERS(vendor, 9, "different vendor: source 0x0001, target 0x0009");
	DIFFERS(device, 9, "different device: source 0x0002, target 0x0009");
	DIFFERS(subsystem_vendor, 9, "different subsystem vendor: source 0x0003, target 0x0009");
	DIFFERS(subsystem, 9, "different subsystem: source 0x0004, target 0x0009");
	DIFFERS(class_code, 9, "different class: source 0x000005, target 0x000009");
	DIFFERS(revision, 9, "different revision: source 0x06, target 0x09");
	DIFFERS(flags, PRE_COPY, "different support of migration: source 'stop-copy, p2p' (0x3), target 'pre-copy' (0x5)");
	DIFFERS(flags, 0, "different support of migration: source 'stop-copy, p2p' (0x3), target 'no' (0x0)");
	DIFFERS(iommu, HOST_IOMMU_AMD, "different kind of IOMMU: source vtd, target amd");
#undef DIFFERS
	CHECK_STR(vfio_migration_flags_name(STOP_COPY_ONLY), "stop-copy");
	CHECK_STR(vfio_migration_flags_name(ALL), "pre-copy, p2p");
}

TEST_MAIN(TEST(each_kind_of_device_goes_its_way), TEST(a_device_that_saves_on_the_way_keeps_running),
	  TEST(none_stops_before_all_are_quiet), TEST(two_devices_without_p2p_are_refused),
	  TEST(a_device_that_cannot_migrate_is_refused), TEST(from_each_state_there_is_a_way_back), TEST(none_is_left_stopped),
	  TEST(its_state_is_read_while_it_runs_and_then_to_the_end),
	  TEST(one_that_cannot_do_so_while_it_runs_is_waited_for), TEST(a_driver_that_cannot_poll_is_not_at_its_end),
	  TEST(one_that_can_is_waited_for_by_poll), TEST(what_was_read_is_in_the_other_device),
	  TEST(a_state_that_is_none_is_refused_and_the_device_reset), TEST(a_stop_that_fails_half_way_takes_all_back),
	  TEST(a_device_in_error_is_reset_and_the_others_run), TEST(a_way_back_is_tried_twice_before_a_reset),
	  TEST(one_that_cannot_be_reset_is_lost_and_the_others_run), TEST(a_session_without_a_descriptor_is_a_failure),
	  TEST(every_call_fails_in_turn), TEST(an_identity_is_read_from_config_space), TEST(a_difference_is_named))
