/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/machine/host_devices: devices of the host come and go, on a fake kernel and with a guest that this test plays by
 * the registers of the power device. Whoever asks for a device is answered exactly once, and whatever fails leaves
 * nothing behind.
 */
#include "tests/unit/fake_internal.h"
#include "tests/unit/vfio_pci_bench.h"
#include "vmm/machine/host_devices.h"

#include <assert.h>
#include <poll.h>
#include <sys/resource.h>

#define POWER 0x600
#define SECOND "0000:02:00.0"
#define THIRD "0000:03:00.0"
#define SIBLING "0000:01:00.1" /* of the first */
#define SLOTS 0xc0000000u /* room for two */
#define SLOT_A 31u        /* the highest comes first */
#define SLOT_B 30u
#define REQ_IRQ VFIO_PCI_REQ_IRQ_INDEX

/* A caller of host_devices_remove. */
struct caller {
	unsigned int answers;
	int code;
};

static struct {
	struct pci_bench p;
	struct power *power;
	struct irq_line line;
	struct slots *slots;
	struct host_devices *devices;
	unsigned int paused, pauses;
	unsigned int gone;
	char last_gone[16];
	struct caller first, second;
	int slow_fd;  /* readable: memory can be mapped; -1: it always can */
	int close_fd; /* the same for closing a device */
	bool closing; /* a worker waits for that; atomic */
	pthread_t loop;
	unsigned int loop_closed; /* devices that the loop had to close meanwhile */
	bool no_room; /* for the guest's memory */
} t;

static struct vfio_config configs[] = {
	{.device = (char *)BDF, .id = (char *)"a", .backend = VFIO_BACKEND_IOMMUFD, .fd = -1},
	{.device = (char *)SECOND, .id = (char *)"b", .backend = VFIO_BACKEND_IOMMUFD, .fd = -1},
	{.device = (char *)THIRD, .id = (char *)"c", .backend = VFIO_BACKEND_IOMMUFD, .fd = -1},
};

/* ---- the machine around them ---- */

/* KVM's calls fail in turn as the fake kernel's do. */
static int add_file(void *opaque, int fd, struct err *err)
{
	if (fake_fails(t.p.base.fake))
		return err_set(err, t.p.base.fake->fail_errno, "KVM refuses");
	return bench_tell(&t.p.base, fd, err);
}

static void remove_file(void *opaque, int fd)
{
	struct pollfd closing = {.fd = t.close_fd, .events = POLLIN};

	__atomic_store_n(&t.closing, t.close_fd >= 0, __ATOMIC_RELAXED);
	if (t.close_fd >= 0 && pthread_equal(pthread_self(), t.loop))
		t.loop_closed++;
	else if (t.close_fd >= 0)
		poll(&closing, 1, 60000);
	bench_untell(&t.p.base, fd);
}

/* Waits as long as memory takes that is mapped slowly. */
static int need_memory(void *opaque, uint64_t bytes, struct err *err)
{
	struct pollfd fd = {.fd = t.slow_fd, .events = POLLIN};

	assert(bytes && bytes <= LOW_SIZE + HIGH_SIZE);
	if (t.no_room)
		return err_set(err, -ENOMEM, "the host has no room");
	if (t.slow_fd >= 0)
		poll(&fd, 1, 60000);
	return 0;
}

static int map(void *opaque, uint64_t gpa, uint64_t size, void *host, struct err *err)
{
	if (fake_fails(t.p.base.fake))
		return err_set(err, t.p.base.fake->fail_errno, "KVM refuses");
	return pb_map(&t.p, gpa, size, host, err);
}

static void unmap(void *opaque, uint64_t gpa)
{
	pb_unmap(&t.p, gpa);
}

static void pause_vcpus(void *opaque)
{
	t.paused++;
	t.pauses++;
}

static void resume_vcpus(void *opaque)
{
	t.paused--;
}

static void gone(void *opaque, const char *id)
{
	CHECK_EQ(t.paused, 0);
	t.gone++;
	snprintf(t.last_gone, sizeof(t.last_gone), "%s", id);
}

static void answer(void *opaque, int code, const struct err *err)
{
	struct caller *caller = opaque;

	CHECK_EQ(!err, !code);
	if (err)
		t.p.base.err = *err;
	caller->answers++;
	caller->code = code;
}

static void on_power(void *opaque, enum power_event event)
{
}

static void add_device(const char *bdf)
{
	struct fake_kernel *fake = t.p.base.fake;
	struct fake_device *device = strcmp(bdf, BDF) == 0 ? t.p.device :
				     fake_device(fake, bdf, fake_group(fake), fake_iommu(fake, true));
	struct fake_pci *pci = device->pci ?: fake_pci(device);

	fake_pci_bar(pci, 0, 0, KIB(16), FAKE_REGION_RWM);
	pci->irqs[REQ_IRQ] = (struct fake_irq){.flags = VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_NORESIZE, .count = 1};
}

static void setup(void)
{
	static const struct irq_line_ops line_ops = {.set = pb_level};
	struct power_config config = {.port = POWER, .event = on_power, .irq = &t.line};
	struct slots_config slots = {
		.mask = SLOTS, .pause_vcpus = pause_vcpus, .resume_vcpus = resume_vcpus,
	};

	memset(&t, 0, sizeof(t));
	t.slow_fd = t.close_fd = -1;
	t.loop = pthread_self();
	pb_init(&t.p);
	t.line.ops = &line_ops;
	config.pio = t.p.rig.pio;
	slots.pci = t.p.rig.bus;
	slots.loop = t.p.loop;
	slots.log = &t.p.base.log;
	CHECK_EQ(power_create(&config, &t.power, NULL), 0);
	slots.power = t.power;
	CHECK_EQ(slots_create(&slots, &t.slots, NULL), 0);
	add_device(BDF);
	add_device(SECOND);
	add_device(THIRD);
}

static int create_of(struct vfio_config *vfios, size_t count)
{
	static const struct host_devices_ops ops = {
		.add_file = add_file, .remove_file = remove_file, .need_memory = need_memory, .map = {map, unmap},
		.gone = gone,
	};
	const struct host_devices_machine machine = {
		.ops = &ops, .sys = &t.p.base.fake->sys, .memory = t.p.base.memory, .dirty = &t.p.base.dirty,
		.pci = t.p.rig.bus, .slots = t.slots, .msi = &t.p.rig.msi, .loop = t.p.loop, .log = &t.p.base.log,
	};
	const struct machine_config config = {.vfios = vfios, .vfio_count = count, .iommufd = -1};

	t.p.base.err.text[0] = 0;
	return host_devices_create(&config, &machine, &t.devices, &t.p.base.err);
}

static int create(size_t count)
{
	return create_of(configs, count);
}

static void start(size_t count)
{
	setup();
	CHECK_EQ(create(count), 0);
}

static void destroy(void)
{
	host_devices_destroy(take_ptr(t.devices));
}

/* Nothing is left, here or in the kernel. */
static void done(void)
{
	destroy();
	CHECK_EQ(t.loop_closed, 0);
	CHECK_EQ(t.paused, 0);
	slots_destroy(t.slots);
	power_destroy(t.power);
	pb_done(&t.p);
}

/* ---- the guest, and people ---- */

static void wait_for_answer(const struct caller *caller)
{
	for (unsigned int i = 0; !caller->answers && i < 5000; i++) {
		poll(NULL, 0, 1);
		pb_pump(&t.p);
	}
}

static bool is_leaving(void)
{
	struct err err;

	return slots_check_free(t.slots, &err) == -EBUSY && strstr(err.text, "is being removed");
}

/* Until nothing leaves any more. */
static void settle(void)
{
	for (unsigned int i = 0, quiet = 0; quiet < 2 && i < 10000; i++) {
		pb_pump(&t.p);
		quiet = is_leaving() ? 0 : quiet + 1;
		if (!quiet)
			poll(NULL, 0, 1);
	}
	CHECK(!is_leaving());
}

/* The devices that the guest has been asked to let go since the last time. */
static uint32_t asked_for(void)
{
	uint8_t data[4] = {0};

	bus_read(t.p.rig.pio, POWER + POWER_PCI_DOWN, data, sizeof(data));
	return get_le32(data);
}

static uint32_t appeared(void)
{
	uint8_t data[4] = {0};

	bus_read(t.p.rig.pio, POWER + POWER_PCI_UP, data, sizeof(data));
	return get_le32(data);
}

/* The loop has not seen it yet. */
static void ejects(unsigned int device)
{
	uint8_t data[4];

	put_le32(data, 1u << device);
	bus_write(t.p.rig.pio, POWER + POWER_PCI_DOWN, data, sizeof(data));
}

static void eject(unsigned int device)
{
	ejects(device);
	settle();
}

static uint32_t identity(unsigned int device)
{
	return rig_cfg(&t.p.rig, PCI_DEVFN(device, 0), PCI_VENDOR_ID, 4);
}

#define NOTHING 0xffffffff /* is read where there is no device */
#define NVME 0x00101b36

static void progress(void *opaque, const struct vfio_progress *step)
{
}

static int begin_adding(const struct vfio_config *config, struct caller *caller)
{
	const struct host_devices_reply reply = {progress, answer, caller};

	t.p.base.err.text[0] = 0;
	return host_devices_add(t.devices, config, &reply, &t.p.base.err);
}

/* Waits for its end. */
static int add_of(const struct vfio_config *config)
{
	struct caller caller = {0};
	int rc = begin_adding(config, &caller);

	if (rc < 0)
		return rc;
	wait_for_answer(&caller);
	CHECK_EQ(caller.answers, 1);
	return caller.code;
}

static int add(size_t i)
{
	return add_of(&configs[i]);
}

static int remove_device(const char *id, bool force, unsigned int timeout_ms, struct caller *caller)
{
	int rc;

	t.p.base.err.text[0] = 0;
	rc = host_devices_remove(t.devices, id, force, timeout_ms, answer, caller, &t.p.base.err);
	if (rc == 0 && force)
		settle();
	return rc;
}

/* Asks for it, with more time than the test takes. */
static void ask(const char *id, struct caller *caller)
{
	CHECK_EQ(remove_device(id, false, 600000, caller), 0);
}

/* The host asks for it back. */
static void host_wants(size_t index)
{
	CHECK(fake_pci_fire(t.p.base.fake->devices[index].pci, REQ_IRQ, 0));
	pb_pump(&t.p);
}

#define ANSWERED(caller, with) CHECK_EQ((caller).answers == 1 ? (caller).code : 1, with)
#define SAYS(sentence) CHECK_STR(t.p.base.err.text, sentence)

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

/* ---- going ---- */

static void the_guest_is_asked_and_lets_it_go(void)
{
	start(2);
	ask("b", &t.first);
	CHECK_EQ(asked_for(), 1u << SLOT_B);
	pb_pump(&t.p);
	CHECK_EQ(t.first.answers, 0);
	CHECK_EQ(identity(SLOT_B), NVME);
	eject(SLOT_B);
	ANSWERED(t.first, 0);
	CHECK_EQ(identity(SLOT_B), NOTHING);
	CHECK_EQ(identity(SLOT_A), NVME);
	CHECK_EQ(host_devices_count(t.devices), 1);
	CHECK_EQ(t.gone, 1);
	CHECK_STR(t.last_gone, "b");
	CHECK_EQ(t.pauses, 1); /* the vCPUs did not look at the bus meanwhile */
	CHECK(!t.p.base.fake->devices[1].fd);
	/* Its id and its place are free. */
	CHECK_EQ(add(1), 0);
	CHECK_EQ(appeared(), 1u << SLOT_B);
	done();
	CHECK_EQ(t.gone, 1);
	ANSWERED(t.first, 0);
}

static void one_that_is_not_there_cannot_go(void)
{
	start(1);
	CHECK_EQ(remove_device("b", false, 1000, &t.first), -ENOENT);
	SAYS("b: no host device with this id; mvmm info lists them");
	CHECK_EQ(remove_device("b", true, 1000, &t.first), -ENOENT);
	CHECK_EQ(t.first.answers, 0);
	CHECK_EQ(asked_for(), 0);
	done();
}

static void a_guest_that_does_nothing_keeps_it(void)
{
	start(1);
	CHECK_EQ(remove_device("a", false, 1, &t.first), 0);
	wait_for_answer(&t.first);
	ANSWERED(t.first, -ETIMEDOUT);
	SAYS("the guest has not ejected it, and it stays; --force removes it anyway");
	/* It is there, and works: its BAR is mapped when the guest decodes it. */
	CHECK_EQ(identity(SLOT_A), NVME);
	rig_cfg_write(&t.p.rig, PCI_DEVFN(SLOT_A, 0), PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	CHECK_EQ(t.p.maps, 1);
	CHECK_EQ(t.gone + t.pauses, 0);
	/* It can be asked for again. */
	CHECK_EQ(asked_for(), 1u << SLOT_A);
	ask("a", &t.second);
	CHECK_EQ(asked_for(), 1u << SLOT_A);
	eject(SLOT_A);
	ANSWERED(t.second, 0);
	CHECK_EQ(t.p.maps, 0);
	CHECK_EQ(t.gone, 1);
	done();
	ANSWERED(t.first, -ETIMEDOUT);
}

static void a_guest_that_is_late_lets_it_go_all_the_same(void)
{
	start(1);
	CHECK_EQ(remove_device("a", false, 1, &t.first), 0);
	wait_for_answer(&t.first);
	eject(SLOT_A);
	CHECK_EQ(identity(SLOT_A), NOTHING);
	CHECK_EQ(t.gone, 1);
	done();
	ANSWERED(t.first, -ETIMEDOUT);
}

static void one_caller_waits_at_a_time(void)
{
	start(1);
	ask("a", &t.first);
	CHECK_EQ(asked_for(), 1u << SLOT_A);
	CHECK_EQ(remove_device("a", false, 1000, &t.second), -EBUSY);
	SAYS("a: the guest has already been asked");
	CHECK_EQ(asked_for(), 0);
	eject(SLOT_A);
	ANSWERED(t.first, 0);
	CHECK_EQ(t.second.answers, 0);
	done();
}

static void force_asks_nobody(void)
{
	start(1);
	CHECK_EQ(remove_device("a", true, 1000, &t.first), 0);
	ANSWERED(t.first, 0);
	CHECK_EQ(asked_for(), 0);
	CHECK_EQ(identity(SLOT_A), NOTHING);
	CHECK_EQ(t.gone, 1);
	done();
	ANSWERED(t.first, 0);
}

static void force_answers_who_waits_too(void)
{
	start(1);
	CHECK_EQ(remove_device("a", false, 1, &t.first), 0);
	CHECK_EQ(remove_device("a", true, 1000, &t.second), 0);
	ANSWERED(t.first, 0);
	ANSWERED(t.second, 0);
	CHECK_EQ(t.gone, 1);
	/* Neither the time nor the guest, which has seen the question, bring anything more. */
	poll(NULL, 0, 5);
	eject(SLOT_A);
	ANSWERED(t.first, 0);
	ANSWERED(t.second, 0);
	CHECK_EQ(t.gone, 1);
	done();
}

static void a_guest_may_let_go_what_nobody_asked_for(void)
{
	start(2);
	eject(SLOT_A);
	CHECK_EQ(identity(SLOT_A), NOTHING);
	CHECK_EQ(host_devices_count(t.devices), 1);
	CHECK_EQ(t.gone, 1);
	CHECK_STR(t.last_gone, "a");
	/* Nor is it a matter when there is nothing. */
	eject(SLOT_A);
	eject(3);
	CHECK_EQ(t.gone, 1);
	CHECK_EQ(identity(SLOT_B), NVME);
	done();
}

/* All memory may be unpinned then: neither the guest nor the loop waits for that, and nothing else comes or goes. */
static void the_guest_runs_while_a_device_is_closed(void)
{
	start(2);
	t.close_fd = eventfd(0, EFD_CLOEXEC);
	ask("b", &t.first);
	ejects(SLOT_B);
	pb_pump(&t.p);
	CHECK_EQ(t.pauses, 1);
	CHECK_EQ(t.paused, 0);
	CHECK_EQ(identity(SLOT_B), NOTHING);
	CHECK_EQ(host_devices_count(t.devices), 1);
	CHECK_EQ(t.first.answers + t.gone, 0);
	CHECK_EQ(remove_device("b", true, 1000, &t.second), -EBUSY);
	SAYS("b: the device b is being removed; try again when it is gone");
	CHECK_EQ(remove_device("a", true, 1000, &t.second), -EBUSY);
	CHECK_EQ(begin_adding(&configs[2], &t.second), -EBUSY);
	CHECK_EQ(host_devices_set_blocker(t.devices, "the machine is being migrated", &t.p.base.err), -EBUSY);
	CHECK(host_devices_release(t.devices, 0, 4096) != 0);
	/* What is ejected meanwhile leaves as the next one. */
	ejects(SLOT_A);
	pb_pump(&t.p);
	CHECK_EQ(identity(SLOT_A), NVME);
	eventfd_kick(t.close_fd);
	settle();
	ANSWERED(t.first, 0);
	CHECK_EQ(t.second.answers, 0);
	CHECK_EQ(t.gone, 2);
	CHECK_EQ(t.pauses, 2);
	CHECK_EQ(host_devices_count(t.devices), 0);
	CHECK_EQ(host_devices_release(t.devices, 0, 4096), 0);
	close(t.close_fd);
	done();
}

/* A vCPU may map another device's BAR while one leaves. */
static void bars_are_mapped_while_a_device_is_closed(void)
{
	start(2);
	t.close_fd = eventfd(0, EFD_CLOEXEC);
	CHECK_EQ(host_devices_remove(t.devices, "b", true, 0, answer, &t.first, &t.p.base.err), 0);
	for (unsigned int i = 0; i < 20; i++)
		rig_cfg_write(&t.p.rig, PCI_DEVFN(SLOT_A, 0), PCI_COMMAND, 2, i & 1 ? PCI_COMMAND_MEMORY : 0);
	eventfd_kick(t.close_fd);
	for (unsigned int i = 0; i < 20; i++)
		rig_cfg_write(&t.p.rig, PCI_DEVFN(SLOT_A, 0), PCI_COMMAND, 2, i & 1 ? PCI_COMMAND_MEMORY : 0);
	settle();
	ANSWERED(t.first, 0);
	CHECK_EQ(t.p.maps, 1);
	close(t.close_fd);
	done();
}

static void the_end_waits_for_a_device_that_is_closed(void)
{
	start(2);
	t.close_fd = eventfd(0, EFD_CLOEXEC);
	CHECK_EQ(host_devices_remove(t.devices, "b", true, 0, answer, &t.first, &t.p.base.err), 0);
	ejects(SLOT_A);
	eventfd_kick(t.close_fd);
	destroy();
	ANSWERED(t.first, 0);
	CHECK_EQ(t.gone, 2);
	CHECK_EQ(fake_left(t.p.base.fake), 0);
	close(t.close_fd);
	done();
}

/* An eject that the loop has not seen when its device is taken by force, or where none was. */
static void an_eject_is_none_of_the_next_one_there(void)
{
	start(1);
	ejects(SLOT_A);
	CHECK_EQ(remove_device("a", true, 1000, &t.first), 0);
	CHECK_EQ(add(1), 0);
	pb_pump(&t.p);
	CHECK_EQ(identity(SLOT_A), NVME);
	ejects(SLOT_B);
	CHECK_EQ(add(0), 0);
	pb_pump(&t.p);
	CHECK_EQ(identity(SLOT_B), NVME);
	CHECK_EQ(t.gone, 1);
	done();
}

/* ---- with a blocker ---- */

static void a_blocker_stops_adding_and_removing(void)
{
	start(2);
	ask("a", &t.first);
	asked_for();
	CHECK_EQ(host_devices_set_blocker(t.devices, "the machine is being migrated", NULL), 0);
	CHECK_EQ(remove_device("b", false, 1000, &t.second), -EBUSY);
	SAYS("b: the machine is being migrated");
	CHECK_EQ(remove_device("a", true, 1000, &t.second), -EBUSY);
	CHECK_EQ(asked_for(), 0);
	eject(SLOT_A);
	eject(SLOT_B);
	CHECK_EQ(identity(SLOT_A), NVME);
	CHECK_EQ(identity(SLOT_B), NVME);
	CHECK_EQ(t.first.answers + t.gone, 0);
	CHECK_EQ(host_devices_set_blocker(t.devices, NULL, NULL), 0);
	CHECK_EQ(t.first.answers + t.gone, 0);
	settle();
	ANSWERED(t.first, 0);
	CHECK_EQ(t.second.answers, 0);
	CHECK_EQ(t.gone, 2);
	CHECK_EQ(host_devices_count(t.devices), 0);
	done();
}

static void a_callers_time_runs_with_a_blocker(void)
{
	start(1);
	CHECK_EQ(remove_device("a", false, 1, &t.first), 0);
	CHECK_EQ(host_devices_set_blocker(t.devices, "the machine is being migrated", NULL), 0);
	wait_for_answer(&t.first);
	ANSWERED(t.first, -ETIMEDOUT);
	CHECK_EQ(host_devices_set_blocker(t.devices, NULL, NULL), 0);
	pb_pump(&t.p);
	CHECK_EQ(identity(SLOT_A), NVME);
	done();
}

/* ---- the host wants one back; one fails ---- */

/* The kernel repeats the request as long as somebody waits for the device, and so does this, with ever fewer lines. */
static void the_guest_is_asked_as_long_as_the_host_waits(void)
{
	start(1);
	host_wants(0);
	CHECK_EQ(asked_for(), 1u << SLOT_A);
	CHECK_LOGGED(&t.p, "vfio a: the host wants it back; asking the guest to eject it", 1);
	host_wants(0);
	CHECK_LOGGED(&t.p, "the guest has read the request and keeps the device; it is asked again; "
			     "mvmm vfio remove NAME a --force takes it away", 1);
	for (unsigned int i = 3; i <= 100; i++) {
		CHECK_EQ(asked_for(), 1u << SLOT_A);
		host_wants(0);
	}
	CHECK_LOGGED(&t.p, "wants it back", 7);
	host_wants(0);
	for (unsigned int i = 102; i <= 128; i++)
		host_wants(0);
	CHECK_LOGGED(&t.p, "the guest has not read the request; it is asked again", 1);
	eject(SLOT_A);
	CHECK_EQ(t.gone, 1);
	done();
}

/* A caller is no host: he asks again, and when his time is over the host still wants it. */
static void the_host_waits_longer_than_a_caller(void)
{
	start(1);
	host_wants(0);
	asked_for();
	CHECK_EQ(remove_device("a", false, 1, &t.first), 0);
	CHECK_EQ(asked_for(), 1u << SLOT_A);
	host_wants(0);
	CHECK_EQ(remove_device("a", false, 1, &t.second), -EBUSY);
	wait_for_answer(&t.first);
	ANSWERED(t.first, -ETIMEDOUT);
	destroy();
	CHECK_EQ(t.gone, 1);
	done();
}

/* The target has the device: a guest that ejects it here would lose it there. */
static void a_guest_that_moves_is_asked_afterwards(void)
{
	start(2);
	ask("b", &t.first); /* not read yet */
	CHECK_EQ(host_devices_set_blocker(t.devices, "the machine is being migrated", NULL), 0);
	CHECK_EQ(asked_for(), 0);
	host_wants(0);
	host_wants(0);
	CHECK_EQ(asked_for(), 0);
	CHECK_LOGGED(&t.p, "vfio a: the host wants it back; the guest is asked after the migration", 1);
	CHECK_LOGGED(&t.p, "wants it back", 1);
	CHECK_EQ(slots_check_present(t.slots, &t.p.base.err), 0);
	CHECK_EQ(host_devices_set_blocker(t.devices, NULL, NULL), 0);
	CHECK_EQ(asked_for(), 1u << SLOT_A | 1u << SLOT_B);
	eject(SLOT_A);
	eject(SLOT_B);
	ANSWERED(t.first, 0);
	CHECK_EQ(t.gone, 2);
	done();
}

static void a_device_that_was_ejected_meanwhile_does_not_move(void)
{
	start(1);
	CHECK_EQ(host_devices_set_blocker(t.devices, "the machine is being migrated", NULL), 0);
	eject(SLOT_A);
	CHECK_EQ(slots_check_present(t.slots, &t.p.base.err), -EBUSY);
	SAYS("vfio a: the guest has ejected it meanwhile; migrate again, without it");
	host_wants(0);
	CHECK_EQ(asked_for(), 0);
	CHECK_EQ(host_devices_set_blocker(t.devices, NULL, NULL), 0);
	settle();
	CHECK_EQ(t.gone, 1);
	done();
}

static void the_host_and_a_caller_may_want_the_same_one(void)
{
	start(1);
	ask("a", &t.first);
	CHECK_EQ(asked_for(), 1u << SLOT_A);
	host_wants(0);
	CHECK_EQ(asked_for(), 1u << SLOT_A);
	CHECK_EQ(remove_device("a", false, 1, &t.second), -EBUSY);
	eject(SLOT_A);
	ANSWERED(t.first, 0);
	CHECK_EQ(t.gone, 1);
	done();
}

static void one_that_is_cut_off_reads_as_ones(void)
{
	struct vfio_pci_info info;

	start(1);
	rig_cfg_write(&t.p.rig, PCI_DEVFN(SLOT_A, 0), PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	CHECK_EQ(t.p.maps, 1);
	host_devices_cut_off(t.devices, 0);
	CHECK_EQ(identity(SLOT_A), 0xffffffff);
	CHECK_EQ(t.p.maps, 0);
	host_devices_info(t.devices, 0, &info);
	CHECK(info.fenced);
	CHECK_EQ(t.gone, 0);
	/* It is there all the same, and goes as others do. */
	ask("a", &t.first);
	eject(SLOT_A);
	ANSWERED(t.first, 0);
	done();
}

/* ---- the end ---- */

static void who_waits_is_answered_by_the_end(void)
{
	start(2);
	ask("a", &t.first);
	destroy();
	ANSWERED(t.first, 0);
	CHECK_EQ(t.gone, 1);
	CHECK_STR(t.last_gone, "a"); /* and b will be there for the next machine */
	done();
}

static void what_the_host_wants_goes_with_the_end(void)
{
	start(2);
	host_wants(1);
	destroy();
	CHECK_EQ(t.gone, 1);
	CHECK_STR(t.last_gone, "b");
	done();
}

/* Blocked, or not seen by the loop yet: the guest has let it go before it ended. */
static void what_was_let_go_does_not_come_again(void)
{
	for (unsigned int blocked = 0; blocked <= 1; blocked++) {
		start(2);
		if (blocked)
			CHECK_EQ(host_devices_set_blocker(t.devices, "the machine is being migrated", NULL), 0);
		ejects(SLOT_A);
		destroy();
		CHECK_EQ(t.gone, 1);
		CHECK_STR(t.last_gone, "a");
		done();
	}
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

/* No descriptor is left for a caller's time: nobody was asked, and he may try again. */
static void no_descriptor_for_the_time(void)
{
	struct rlimit old, none;

	start(1);
	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = (struct rlimit){.rlim_max = old.rlim_max};
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
	CHECK_EQ(remove_device("a", false, 1000, &t.first), -EMFILE);
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
	CHECK_EQ(asked_for(), 0);
	ask("a", &t.second);
	CHECK_EQ(asked_for(), 1u << SLOT_A);
	eject(SLOT_A);
	ANSWERED(t.second, 0);
	CHECK_EQ(t.first.answers, 0);
	done();
}

static void without_a_thread_the_loop_closes_it(void)
{
	struct rlimit old, none;
	int rc;

	start(1);
	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = (struct rlimit){.rlim_max = old.rlim_max};
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
	rc = host_devices_remove(t.devices, "a", true, 0, answer, &t.first, &t.p.base.err);
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
	CHECK_EQ(rc, 0);
	CHECK_EQ(t.first.answers, 0);
	settle();
	ANSWERED(t.first, 0);
	CHECK_EQ(t.gone, 1);
	done();
}

/* The guest has its devices at work: memory decoded, DMA on. */
static void at_work(unsigned int slot)
{
	rig_cfg_write(&t.p.rig, PCI_DEVFN(slot, 0), PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

/* Each device may write into guest memory and into the other one until its DMA ends. */
static void all_dma_ends_before_anything_is_unmapped(void)
{
	const char *journal, *unmap;

	start(2);
	at_work(SLOT_A);
	at_work(SLOT_B);
	fake_journal(t.p.base.fake);
	destroy();
	journal = fake_journal(t.p.base.fake);
	unmap = strstr(journal, "unmap");
	CHECK(unmap && !strstr(unmap, "command"));
	CHECK_EQ(strncmp(journal, "command 2, command 2, ", 22), 0);
	CHECK_EQ(t.p.base.fake->detached_masters, 0);
	done();
}

static void dma_ends_before_a_device_leaves(void)
{
	for (int force = 0; force < 2; force++) {
		start(1);
		at_work(SLOT_A);
		CHECK_EQ(remove_device("a", force, 600000, &t.first), 0);
		if (!force)
			eject(SLOT_A);
		pb_pump(&t.p);
		CHECK_EQ(host_devices_count(t.devices), 0);
		CHECK_EQ(t.p.base.fake->detached_masters, 0);
		done();
	}
}

TEST_MAIN(TEST(those_of_the_configuration_fill_the_bus_from_above), TEST(one_that_comes_later_is_told_to_the_guest),
	  TEST(one_that_cannot_come_is_told_why), TEST(the_guest_is_asked_and_lets_it_go),
	  TEST(one_that_is_not_there_cannot_go), TEST(a_guest_that_does_nothing_keeps_it),
	  TEST(a_guest_that_is_late_lets_it_go_all_the_same), TEST(one_caller_waits_at_a_time),
	  TEST(force_asks_nobody), TEST(force_answers_who_waits_too), TEST(a_guest_may_let_go_what_nobody_asked_for),
	  TEST(an_eject_is_none_of_the_next_one_there), TEST(a_blocker_stops_adding_and_removing),
	  TEST(a_callers_time_runs_with_a_blocker),
	  TEST(the_guest_is_asked_as_long_as_the_host_waits), TEST(the_host_waits_longer_than_a_caller),
	  TEST(a_guest_that_moves_is_asked_afterwards), TEST(a_device_that_was_ejected_meanwhile_does_not_move),
	  TEST(the_host_and_a_caller_may_want_the_same_one), TEST(one_that_is_cut_off_reads_as_ones),
	  TEST(functions_that_come_together_are_reset_once), TEST(the_loop_does_not_wait_for_memory),
	  TEST(without_room_it_stays_away), TEST(the_end_cancels_an_addition),
	  TEST(all_dma_ends_before_anything_is_unmapped), TEST(dma_ends_before_a_device_leaves),
	  TEST(a_function_at_work_is_not_reset_by_the_next_one), TEST(who_waits_is_answered_by_the_end), TEST(what_the_host_wants_goes_with_the_end),
	  TEST(what_was_let_go_does_not_come_again), TEST(every_call_fails_at_creation),
	  TEST(every_call_fails_at_an_addition), TEST(no_descriptor_for_the_time),
	  TEST(the_guest_runs_while_a_device_is_closed), TEST(bars_are_mapped_while_a_device_is_closed),
	  TEST(the_end_waits_for_a_device_that_is_closed), TEST(without_a_thread_the_loop_closes_it), TEST(the_loop_does_not_wait_for_a_reset_of_the_bus),
	  TEST(one_that_does_not_fit_on_the_bus_is_closed_by_a_worker))
