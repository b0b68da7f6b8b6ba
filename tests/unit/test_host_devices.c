/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/machine/host_devices: devices of the host come, on a fake kernel. Whoever asks for one is answered exactly once,
 * and whatever fails leaves nothing behind.
 */
#include "tests/unit/host_devices_rig.h"

#include <poll.h>

/* ---- coming ---- */

static void those_of_the_configuration_fill_the_bus_from_above(void)
{
	struct vfio_pci_info info;

	for (size_t count = 0; count <= 2; count++) {
		start(count);
		CHECK_EQ(host_devices_count(t.devices), count);
		CHECK_EQ(identity(SLOT_A), count > 0 ? NVME : NOTHING);
		CHECK_EQ(identity(SLOT_B), count > 1 ? NVME : NOTHING);
		CHECK_EQ(appeared(), 0); /* they have been there before the guest was */
		CHECK_EQ(t.p.base.told > 0, count > 0);
		if (count) {
			host_devices_info(t.devices, count - 1, &info);
			CHECK_STR(info.id, "a");
			CHECK_EQ(info.devfn, PCI_DEVFN(SLOT_A, 0));
		}
		done();
	}
	CHECK_EQ(t.gone, 0);
}

static void one_that_comes_later_is_told_to_the_guest(void)
{
	start(0);
	CHECK_EQ(add(0), 0);
	CHECK_EQ(appeared(), 1u << SLOT_A);
	CHECK_EQ(add(1), 0);
	CHECK_EQ(appeared(), 1u << SLOT_B);
	CHECK_EQ(host_devices_count(t.devices), 2);
	CHECK_EQ(identity(SLOT_A), NVME);
	CHECK_EQ(identity(SLOT_B), NVME);
	done();
}

static void one_that_cannot_come_is_told_why(void)
{
	start(1);
	CHECK_EQ(add(0), -EEXIST);
	SAYS("a: a device with this id exists; use another id=");
	CHECK_EQ(host_devices_set_blocker(t.devices, "the machine is being migrated", NULL), 0);
	CHECK_EQ(add(1), -EBUSY);
	SAYS("b: the machine is being migrated");
	CHECK_EQ(host_devices_set_blocker(t.devices, NULL, NULL), 0);
	CHECK_EQ(add(1), 0);
	CHECK_EQ(add(2), -ENOSPC);
	SAYS("--vfio c: no slot of the PCI bus is free; remove another device");
	CHECK_EQ(host_devices_count(t.devices), 2);
	CHECK_EQ(appeared(), 1u << SLOT_B);
	/* Another one leaves, and there is room. */
	eject(SLOT_A);
	CHECK_EQ(add(2), 0);
	CHECK_EQ(appeared(), 1u << SLOT_A);
	done();
}

/* Two functions of one device, which can only be reset together. */
static struct vfio_config functions[] = {
	{.device = (char *)BDF, .id = (char *)"f0", .backend = VFIO_BACKEND_IOMMUFD, .fd = -1},
	{.device = (char *)SIBLING, .id = (char *)"f1", .backend = VFIO_BACKEND_IOMMUFD, .fd = -1},
};

static void setup_functions(void)
{
	struct fake_device *both[2];

	setup();
	add_device(SIBLING);
	both[0] = t.p.device;
	both[1] = &t.p.base.fake->devices[3];
	both[1]->group = both[0]->group;
	both[1]->iommu = both[0]->iommu;
	for (size_t i = 0; i < ARRAY_SIZE(both); i++) {
		both[i]->flags = VFIO_DEVICE_FLAGS_PCI;
		both[i]->pci->can_hot_reset = true;
		both[i]->pci->dependent_count = 2;
		both[i]->pci->dependents[1].devfn = 1;
	}
	t.p.base.fake->counted = VFIO_DEVICE_PCI_HOT_RESET;
}

static void functions_that_come_together_are_reset_once(void)
{
	struct vfio_pci_info info;

	setup_functions();
	CHECK_EQ(create_of(functions, 2), 0);
	CHECK_EQ(t.p.base.fake->count, 1);
	for (size_t i = 0; i < 2; i++) {
		host_devices_info(t.devices, i, &info);
		CHECK_STR(info.reset, "bus");
	}
	CHECK_LOGGED(&t.p, "warning", 0);
	done();
}

static void a_function_at_work_is_not_reset_by_the_next_one(void)
{
	setup_functions();
	CHECK_EQ(create_of(functions, 1), 0);
	CHECK_EQ(t.p.base.fake->count, 1);
	CHECK_EQ(add_of(&functions[1]), 0);
	CHECK_EQ(t.p.base.fake->count, 1);
	CHECK_LOGGED(&t.p, "vfio " SIBLING ": it can only be reset with its bus, on which " BDF " is in use", 1);
	done();
}

/* It takes a second or more. */
static void the_loop_does_not_wait_for_a_reset_of_the_bus(void)
{
	setup_functions();
	CHECK_EQ(create_of(functions, 0), 0);
	CHECK_EQ(begin_adding(&functions[0], &t.first), 0);
	for (unsigned int i = 0; !__atomic_load_n(&t.p.base.fake->count, __ATOMIC_RELAXED) && i < 5000; i++)
		poll(NULL, 0, 1);
	CHECK_EQ(t.p.base.fake->count, 1);
	wait_for_answer(&t.first);
	ANSWERED(t.first, 0);
	CHECK_EQ(t.p.base.fake->count, 1);
	done();
}

/* A worker maps memory: the loop turns meanwhile, and nothing else is added, removed or migrated. */
static void the_loop_does_not_wait_for_memory(void)
{
	struct caller third = {0};

	start(0);
	t.slow_fd = eventfd(0, EFD_CLOEXEC);
	CHECK_EQ(begin_adding(&configs[0], &t.first), 0);
	for (unsigned int i = 0; i < 10; i++)
		pb_pump(&t.p);
	CHECK_EQ(t.first.answers, 0);
	CHECK_EQ(t.pauses, 0);
	CHECK_EQ(host_devices_count(t.devices), 0);
	CHECK_EQ(begin_adding(&configs[1], &t.second), -EBUSY);
	SAYS("b: the device a is being added; try again when it is there");
	CHECK_EQ(host_devices_set_blocker(t.devices, "the machine is being migrated", &t.p.base.err), -EBUSY);
	SAYS("the device a is being added; try again when it is there");
	CHECK(host_devices_release(t.devices, 0, 4096) != 0); /* a page that is given back now would be pinned, or not */
	eventfd_kick(t.slow_fd);
	wait_for_answer(&t.first);
	ANSWERED(t.first, 0);
	CHECK_EQ(appeared(), 1u << SLOT_A);
	CHECK_EQ(host_devices_count(t.devices), 1);
	/* What the guest ejects meanwhile goes when the other one is there. */
	CHECK_EQ(begin_adding(&configs[1], &third), 0);
	eject(SLOT_A);
	wait_for_answer(&third);
	settle();
	CHECK_EQ(identity(SLOT_A), NOTHING);
	CHECK_EQ(identity(SLOT_B), NVME);
	close(t.slow_fd);
	done();
}

static void without_room_it_stays_away(void)
{
	start(0);
	t.no_room = true;
	CHECK_EQ(add(0), -ENOMEM);
	SAYS("--vfio " BDF ": the host has no room");
	CHECK_EQ(host_devices_count(t.devices), 0);
	CHECK_EQ(host_devices_release(t.devices, 0, 4096), 0);
	t.no_room = false;
	CHECK_EQ(add(0), 0);
	done();
}

/* It is opened before that is known, and then closed by a worker, too. */
static void one_that_does_not_fit_on_the_bus_is_closed_by_a_worker(void)
{
	start(0);
	t.close_fd = eventfd(0, EFD_CLOEXEC);
	t.p.fake->config[PCI_HEADER_TYPE] = PCI_HEADER_TYPE_BRIDGE;
	for (int end = 0; end < 2; end++) {
		t.closing = false;
		CHECK_EQ(begin_adding(&configs[0], &t.first), 0);
		for (unsigned int i = 0; !__atomic_load_n(&t.closing, __ATOMIC_RELAXED) && i < 5000; i++) {
			poll(NULL, 0, 1);
			pb_pump(&t.p);
		}
		CHECK_EQ(t.first.answers, 0);
		CHECK_EQ(begin_adding(&configs[1], &t.second), -EBUSY);
		eventfd_kick(t.close_fd);
		if (end)
			destroy();
		wait_for_answer(&t.first);
		ANSWERED(t.first, -EINVAL);
		CHECK(strstr(t.p.base.err.text, "it is a bridge"));
		CHECK(!t.p.device->fd);
		t.first = (struct caller){0};
		eventfd_drain(t.close_fd);
	}
	close(t.close_fd);
	done();
}

/* The end of the machine does not wait for memory. */
static void the_end_cancels_an_addition(void)
{
	start(0);
	t.slow_fd = eventfd(1, EFD_CLOEXEC | EFD_SEMAPHORE);
	CHECK_EQ(begin_adding(&configs[0], &t.first), 0);
	destroy();
	ANSWERED(t.first, -ECANCELED);
	SAYS("a: the machine ended, or the guest rebooted, before it was there");
	CHECK_EQ(t.gone, 0);
	close(t.slow_fd);
	done();
}

/* ---- every call fails ---- */

/* True when the nth call of making or adding one was reached. */
static bool live(size_t count, size_t added, unsigned int n, int code)
{
	bool reached;
	int rc;

	setup();
	if (added)
		CHECK_EQ(create(count), 0);
	t.p.base.fake->fail_errno = code;
	t.p.base.fake->fail_at = t.p.base.fake->calls + n;
	rc = added ? add(count) : create(count);
	reached = t.p.base.fake->calls >= t.p.base.fake->fail_at;
	t.p.base.fake->fail_at = 0;
	CHECK(reached || rc == 0);
	if (rc < 0) {
		CHECK(t.p.base.err.text[0] && !strstr(t.p.base.err.text, "Success"));
		CHECK(!t.devices == !added);
		CHECK_EQ(appeared(), 0);
		CHECK_EQ(identity(added && count ? SLOT_B : SLOT_A), NOTHING);
		CHECK(!t.p.base.fake->devices[added ? count : 0].fd);
	}
	if (rc < 0 && added) {
		CHECK_EQ(host_devices_count(t.devices), count);
		CHECK_EQ(identity(SLOT_A), count ? NVME : NOTHING);
		CHECK_EQ(add(count), 0); /* nothing is in its way */
	} else if (rc < 0) {
		CHECK_EQ(fake_left(t.p.base.fake), 0);
		CHECK_EQ(t.p.base.told, 0);
	}
	CHECK_EQ(t.gone, 0);
	done();
	return reached;
}

static void every_call(size_t count, size_t added)
{
	static const int codes[] = {-ENOMEM, -EINVAL, -EBUSY, -ENOTTY, -EIO, -ENOSPC};

	for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
		unsigned int n = 1;

		while (live(count, added, n, codes[i]))
			n++;
		printf("# %s: %u calls failed, each once\n", strerrorname_np(-codes[i]), n - 1);
		CHECK(n > 30 && n < 1000);
	}
}

static void every_call_fails_at_creation(void)
{
	every_call(1, 0);
	every_call(2, 0);
}

static void every_call_fails_at_an_addition(void)
{
	every_call(0, 1);
	every_call(1, 1);
}

TEST_MAIN(TEST(those_of_the_configuration_fill_the_bus_from_above), TEST(one_that_comes_later_is_told_to_the_guest),
	  TEST(one_that_cannot_come_is_told_why), TEST(functions_that_come_together_are_reset_once),
	  TEST(the_loop_does_not_wait_for_memory), TEST(without_room_it_stays_away), TEST(the_end_cancels_an_addition),
	  TEST(a_function_at_work_is_not_reset_by_the_next_one), TEST(every_call_fails_at_creation),
	  TEST(every_call_fails_at_an_addition), TEST(the_loop_does_not_wait_for_a_reset_of_the_bus),
	  TEST(one_that_does_not_fit_on_the_bus_is_closed_by_a_worker))
