/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/machine/slots_bus, slots_job and slots_leave: devices come and go, asked, ejected and by force, with a guest that this test plays by
 * the registers of the power device. Whoever asks is answered exactly once; whatever the guest ejects, only what is there
 * leaves.
 */
#include "tests/unit/pci_rig.h"
#include "tests/unit/test.h"
#include "vmm/machine/slots.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#define POWER 0x600
#define MASK 0xe0000000u /* room for three */
#define NOTHING 0xffffffff
#define FOREVER 600000

/* What a device was told, in order. */
struct device {
	struct pci_function function;
	struct slot *slot;
	char told[120];
	int settle, disconnect; /* what they return */
	bool settles_alone;     /* afterwards settle returns 0 */
	int removed;            /* as gone was told; -1: it is not gone */
};

static struct {
	struct pci_rig rig;
	struct event_loop *loop;
	struct event_source *stop;
	struct log log;
	struct power *power;
	struct irq_line line;
	struct slots *slots;
	struct device devices[3];
	unsigned int paused;
	bool guest_stopped;
	/* The callers' answers. */
	unsigned int answers;
	int code;
	struct err err;
	int stop_fd, hold_fd; /* hold_fd: the worker waits for it; -1: it does not */
} t;

/* ---- the machine ---- */

static void tell(struct device *device, const char *what)
{
	size_t at = strlen(device->told);

	snprintf(device->told + at, sizeof(device->told) - at, "%s ", what);
}

static int dev_settle(void *opaque, struct err *err)
{
	struct device *device = opaque;
	int code = device->settle;

	tell(device, "settle");
	if (device->settles_alone)
		device->settle = 0;
	return code ? err_set(err, code, "its storage is gone") : 0;
}

static void dev_unsettle(void *opaque)
{
	tell(opaque, "unsettle");
}

static int dev_disconnect(void *opaque, struct err *err)
{
	struct device *device = opaque;

	tell(device, "disconnect");
	return device->disconnect ? err_set(err, device->disconnect, "it is in use") : 0;
}

static void dev_detach(void *opaque)
{
	struct device *device = opaque;

	CHECK_EQ(t.paused, 1);
	tell(device, "detach");
	pci_bus_remove(&device->function);
}

static void dev_close(void *opaque)
{
	struct pollfd hold = {.fd = t.hold_fd, .events = POLLIN};

	tell(opaque, "close");
	if (t.hold_fd >= 0)
		poll(&hold, 1, 60000);
}

static void dev_gone(void *opaque, bool removed)
{
	struct device *device = opaque;

	CHECK_EQ(t.paused, 0);
	tell(device, "gone");
	device->removed = removed;
	device->slot = NULL;
}

static const struct slot_ops ops = {
	.kind = "disk", .noun = "disk", .settle = dev_settle, .unsettle = dev_unsettle, .disconnect = dev_disconnect,
	.detach = dev_detach, .close = dev_close, .gone = dev_gone,
};
static const struct slot_ops host_ops = {
	.kind = "vfio", .noun = "host device", .detach = dev_detach, .close = dev_close, .gone = dev_gone,
};

static void pause_vcpus(void *opaque)
{
	t.paused++;
}

static void resume_vcpus(void *opaque)
{
	t.paused--;
}

static bool guest_runs(void *opaque)
{
	return !t.guest_stopped;
}

static void on_power(void *opaque, enum power_event event)
{
}

static void on_stop(void *opaque, uint32_t events)
{
	eventfd_t value;

	eventfd_read(t.stop_fd, &value);
	event_loop_stop(t.loop);
}

static void level(struct irq_line *line, bool high)
{
}

static void setup(void)
{
	static const struct irq_line_ops line_ops = {.set = level};
	struct power_config power = {.port = POWER, .event = on_power, .irq = &t.line};
	struct slots_config config = {
		.mask = MASK, .pause_vcpus = pause_vcpus, .resume_vcpus = resume_vcpus, .guest_runs = guest_runs,
	};

	memset(&t, 0, sizeof(t));
	rig_open(&t.rig);
	t.log = (struct log){.fd = memfd_create("log", MFD_CLOEXEC), .level = LOG_INFO};
	t.stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	t.hold_fd = -1;
	t.line.ops = &line_ops;
	CHECK_EQ(event_loop_create(&t.loop, NULL), 0);
	CHECK_EQ(event_loop_watch(t.loop, t.stop_fd, EPOLLIN, on_stop, NULL, &t.stop, NULL), 0);
	power.pio = t.rig.pio;
	CHECK_EQ(power_create(&power, &t.power, NULL), 0);
	config.pci = t.rig.bus;
	config.power = t.power;
	config.loop = t.loop;
	config.log = &t.log;
	CHECK_EQ(slots_create(&config, &t.slots, NULL), 0);
}

static void done(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(t.devices); i++) {
		slots_forget(t.devices[i].slot);
		pci_bus_remove(&t.devices[i].function);
	}
	CHECK_EQ(t.paused, 0);
	slots_destroy(t.slots);
	power_destroy(t.power);
	event_loop_destroy(t.loop);
	rig_close(&t.rig);
	close(t.stop_fd);
	close(t.log.fd);
}

static bool logged(const char *text)
{
	static char all[4096];
	ssize_t n = pread(t.log.fd, all, sizeof(all) - 1, 0);

	all[MAX(n, 0)] = 0;
	return strstr(all, text);
}

static void pump(void)
{
	eventfd_write(t.stop_fd, 1);
	event_loop_run(t.loop);
}

/* Until cond is true. */
#define AWAIT(cond)                                                \
	do {                                                       \
		for (unsigned int i_ = 0; !(cond) && i_ < 20000; i_++) { \
			pump();                                    \
			poll(NULL, 0, 1);                          \
		}                                                  \
		CHECK(cond);                                       \
	} while (0)

static bool idle(void)
{
	return slots_check_free(t.slots, NULL) == 0;
}

/* A device is on the bus, in the slot that is found for it, whose number is returned. */
static unsigned int plug_as(struct device *device, const char *id, const struct slot_ops *kind, int devfn)
{
	CHECK(devfn >= 0);
	*device = (struct device){.removed = -1};
	pci_function_init(&device->function, NULL, id, 0x1af4, 0x1042, 0x018000, 1);
	CHECK_EQ(pci_bus_add(t.rig.bus, &device->function, devfn, NULL), 0);
	CHECK_EQ(slots_add(t.slots, kind, device, id, (uint8_t)devfn, &device->slot, NULL), 0);
	return (unsigned int)devfn >> 3;
}

static unsigned int plug(struct device *device, const char *id)
{
	return plug_as(device, id, &ops, slots_find_free(t.slots, "disk", id, NULL));
}

static bool is_there(unsigned int device)
{
	return rig_cfg(&t.rig, PCI_DEVFN(device, 0), PCI_VENDOR_ID, 4) != NOTHING;
}

static void answer(void *opaque, int code, const struct err *err)
{
	CHECK_EQ(!err, !code);
	if (err)
		t.err = *err;
	t.answers++;
	t.code = code;
}

static int take(const char *id, bool force, unsigned int ms)
{
	t.err.text[0] = 0;
	return slots_remove(t.slots, slots_find(t.slots, &host_ops, id) ? &host_ops : &ops, id, force, ms, answer, NULL, &t.err);
}

#define ANSWERED(count, what)        \
	do {                         \
		CHECK_EQ(t.answers, (count)); \
		CHECK_EQ(t.code, (what));     \
	} while (0)

/* ---- the guest ---- */

static uint32_t reads(unsigned int reg)
{
	uint8_t data[4] = {0};

	bus_read(t.rig.pio, POWER + reg, data, sizeof(data));
	return get_le32(data);
}

static uint32_t asked_for(void)
{
	return reads(POWER_PCI_DOWN);
}

static void ejects(unsigned int device)
{
	uint8_t data[4];

	put_le32(data, 1u << device);
	bus_write(t.rig.pio, POWER + POWER_PCI_DOWN, data, sizeof(data));
}

/* ---- coming ---- */

static void the_highest_free_slot_is_the_first(void)
{
	struct err err;

	setup();
	CHECK_EQ(plug(&t.devices[0], "a"), 31);
	CHECK_EQ(plug(&t.devices[1], "b"), 30);
	CHECK_EQ(plug(&t.devices[2], "c"), 29);
	CHECK_EQ(slots_find_free(t.slots, "disk", "d", &err), -ENOSPC);
	CHECK_STR(err.text, "--disk d: no slot of the PCI bus is free; remove another device");
	CHECK(slots_find(t.slots, &ops, "b") == &t.devices[1]);
	CHECK(!slots_find(t.slots, &host_ops, "b") && !slots_find(t.slots, &ops, "d"));
	CHECK_EQ(reads(POWER_PCI_UP), 0);
	slots_announce(t.devices[1].slot);
	CHECK_EQ(reads(POWER_PCI_UP), 1u << 30);
	done();
}

static int work_result;

static int work(void *opaque, struct err *err)
{
	struct pollfd hold = {.fd = t.hold_fd, .events = POLLIN};

	if (t.hold_fd >= 0)
		poll(&hold, 1, 60000);
	return work_result ? err_set(err, work_result, "no such image") : 0;
}

static void worked(void *opaque, int code, const struct err *err)
{
	t.answers++;
	t.code = code;
}

static void one_thing_is_done_at_a_time(void)
{
	const struct slots_job job = {SLOTS_ADDING, "x", work, worked, NULL};

	setup();
	plug(&t.devices[0], "a");
	t.hold_fd = eventfd(0, EFD_CLOEXEC);
	CHECK_EQ(slots_begin(t.slots, &job, &t.err), 0);
	CHECK_EQ(slots_begin(t.slots, &job, &t.err), -EBUSY);
	CHECK_STR(t.err.text, "the device x is being added; try again when it is there");
	CHECK_EQ(take("a", false, FOREVER), -EBUSY);
	CHECK_STR(t.err.text, "a: the device x is being added; try again when it is there");
	CHECK_EQ(take("a", true, 1), -EBUSY);
	CHECK_EQ(slots_set_blocker(t.slots, "the machine is being migrated", NULL), -EBUSY);
	/* What the guest ejects meanwhile leaves afterwards. */
	ejects(31);
	pump();
	CHECK(is_there(31));
	CHECK_EQ(t.answers, 0);
	eventfd_write(t.hold_fd, 1);
	AWAIT(t.devices[0].removed == 1);
	CHECK_EQ(t.answers, 1);
	close(t.hold_fd);
	t.hold_fd = -1;
	/* One that fails, and one that the machine's end waits for. */
	work_result = -ENOENT;
	t.answers = 0;
	CHECK_EQ(slots_begin(t.slots, &(struct slots_job){SLOTS_CHANGING, "x", work, worked, NULL}, &t.err), 0);
	slots_finish(t.slots);
	CHECK_EQ(t.answers, 1);
	CHECK_EQ(t.code, -ENOENT);
	work_result = 0;
	done();
}

/* ---- the guest lets go ---- */

static void one_that_is_asked_for_leaves_when_its_requests_are_complete(void)
{
	setup();
	plug(&t.devices[0], "a");
	CHECK_EQ(take("b", false, FOREVER), -ENOENT);
	CHECK_STR(t.err.text, "b: no disk with this id; mvmm info lists them");
	CHECK_EQ(take("a", false, FOREVER), 0);
	CHECK(slots_is_asked(t.devices[0].slot));
	CHECK_EQ(take("a", false, FOREVER), -EBUSY);
	CHECK_STR(t.err.text, "a: the guest has already been asked");
	CHECK_EQ(asked_for(), 1u << 31);
	t.devices[0].settle = -EINPROGRESS;
	ejects(31);
	AWAIT(strstr(t.devices[0].told, "settle settle "));
	CHECK(is_there(31) && !idle());
	t.devices[0].settle = 0;
	t.devices[0].told[0] = 0;
	AWAIT(idle());
	CHECK_STR(t.devices[0].told, "settle detach close gone ");
	CHECK_EQ(t.devices[0].removed, 1);
	ANSWERED(1, 0);
	CHECK(!is_there(31));
	CHECK(logged("disk a: the guest has ejected it"));
	CHECK_EQ(plug(&t.devices[0], "a"), 31);
	done();
}

static void one_that_the_guest_keeps_stays(void)
{
	setup();
	plug(&t.devices[0], "a");
	CHECK_EQ(take("a", false, 1), 0);
	AWAIT(t.answers);
	ANSWERED(1, -ETIMEDOUT);
	CHECK_STR(t.err.text, "the guest has not ejected it, and it stays; --force removes it anyway");
	CHECK(!slots_is_asked(t.devices[0].slot));
	CHECK_STR(t.devices[0].told, "");
	done();
}

static void one_whose_requests_do_not_complete_stays(void)
{
	setup();
	plug(&t.devices[0], "a");
	t.devices[0].settle = -EIO;
	CHECK_EQ(take("a", true, FOREVER), 0);
	AWAIT(idle());
	ANSWERED(1, -EIO);
	CHECK_STR(t.devices[0].told, "settle unsettle ");
	CHECK(is_there(31));
	CHECK(logged("disk a: its storage is gone; it stays"));
	CHECK_EQ(asked_for(), 0);
	/* It can be tried again. */
	t.devices[0].settle = 0;
	ejects(31);
	AWAIT(t.devices[0].removed == 1);
	ANSWERED(1, -EIO);
	done();
}

static void what_is_not_there_cannot_be_ejected(void)
{
	setup();
	ejects(31);
	ejects(30);
	ejects(3);
	pump();
	CHECK_EQ(plug(&t.devices[0], "a"), 31);
	CHECK_EQ(plug(&t.devices[1], "b"), 30);
	pump();
	AWAIT(idle());
	CHECK(is_there(31) && is_there(30));
	CHECK_EQ(t.devices[0].removed, -1);
	/* Nor if the loop has not heard of it before. */
	ejects(29);
	CHECK_EQ(plug(&t.devices[2], "c"), 29);
	pump();
	AWAIT(idle());
	CHECK(is_there(29));
	CHECK_EQ(slots_check_present(t.slots, NULL), 0);
	done();
}

/* ---- by force ---- */

static void by_force_the_guest_gets_time_to_let_go(void)
{
	setup();
	plug(&t.devices[0], "a");
	plug(&t.devices[1], "b");
	t.devices[0].settle = -EINPROGRESS;
	t.devices[0].settles_alone = true;
	CHECK_EQ(take("a", true, FOREVER), 0);
	AWAIT(strstr(t.devices[0].told, "disconnect"));
	CHECK_STR(t.devices[0].told, "settle settle disconnect ");
	CHECK(is_there(31));
	CHECK_EQ(asked_for(), 1u << 31);
	CHECK_EQ(t.answers, 0);
	/* Meanwhile nothing else leaves, though the guest lets go of it. */
	CHECK_EQ(take("b", true, FOREVER), -EBUSY);
	CHECK_STR(t.err.text, "b: the device a is being removed; try again when it is gone");
	ejects(30);
	pump();
	CHECK(is_there(30) && is_there(31));
	ejects(31);
	AWAIT(!is_there(31));
	CHECK(logged("disk a: the guest has ejected it"));
	AWAIT(t.devices[1].removed == 1);
	CHECK_STR(t.devices[0].told, "settle settle disconnect settle detach close gone ");
	ANSWERED(1, 0);
	CHECK_EQ(asked_for(), 0);
	CHECK_EQ(plug(&t.devices[0], "a"), 31);
	done();
}

static void a_guest_that_keeps_it_loses_it(void)
{
	setup();
	plug(&t.devices[0], "a");
	CHECK_EQ(take("a", true, 1), 0);
	AWAIT(idle());
	ANSWERED(1, 0);
	CHECK_STR(t.devices[0].told, "settle disconnect settle detach close gone ");
	CHECK(logged("disk a: the guest has not ejected it; it is gone now"));
	/* What comes next does not take the slot that the guest has not cleared yet. */
	CHECK_EQ(plug(&t.devices[0], "b"), 30);
	CHECK_EQ(asked_for(), 1u << 31);
	ejects(31);
	pump();
	CHECK(is_there(30));
	CHECK_EQ(plug(&t.devices[1], "c"), 31);
	pump();
	CHECK(is_there(31));
	done();
}

static void the_last_slot_is_taken_again_all_the_same(void)
{
	setup();
	plug(&t.devices[0], "a");
	plug(&t.devices[1], "b");
	plug(&t.devices[2], "c");
	CHECK_EQ(take("a", true, 1), 0);
	AWAIT(idle());
	/* The guest has not read the request yet, and never will. */
	CHECK_EQ(plug(&t.devices[0], "d"), 31);
	CHECK_EQ(asked_for(), 0);
	pump();
	CHECK(is_there(31));
	done();
}

static void a_guest_that_is_paused_gets_its_time_when_it_runs(void)
{
	setup();
	plug(&t.devices[0], "a");
	t.guest_stopped = true;
	CHECK_EQ(take("a", true, 1), 0);
	AWAIT(t.answers);
	ANSWERED(1, -ETIMEDOUT);
	CHECK_STR(t.err.text, "a: its requests fail from now on; it leaves when the machine, which is paused, runs again");
	CHECK(is_there(31) && !idle());
	t.guest_stopped = false;
	AWAIT(idle());
	CHECK_EQ(t.devices[0].removed, 1);
	ANSWERED(1, -ETIMEDOUT);
	done();
}

static void one_that_cannot_be_disconnected_leaves_at_once(void)
{
	setup();
	plug(&t.devices[0], "a");
	t.devices[0].disconnect = -EBUSY;
	CHECK_EQ(take("a", true, FOREVER), 0);
	AWAIT(idle());
	CHECK_STR(t.devices[0].told, "settle disconnect detach close gone ");
	CHECK(logged("disk a: it is in use; it leaves at once"));
	ANSWERED(1, 0);
	CHECK_EQ(asked_for(), 1u << 31);
	done();
}

/* As a card that is pulled out. */
static void the_guest_is_told_of_a_host_device_afterwards(void)
{
	setup();
	plug_as(&t.devices[0], "a", &host_ops, PCI_DEVFN(31, 0));
	CHECK_EQ(take("a", true, FOREVER), 0);
	AWAIT(idle());
	CHECK_STR(t.devices[0].told, "detach close gone ");
	ANSWERED(1, 0);
	CHECK_EQ(asked_for(), 1u << 31);
	CHECK_EQ(plug(&t.devices[1], "b"), 30);
	ejects(31);
	pump();
	CHECK_EQ(plug(&t.devices[2], "c"), 31);
	pump();
	CHECK(is_there(31) && is_there(30));
	done();
}

static void what_the_guest_cannot_eject_leaves_by_force_alone(void)
{
	setup();
	plug_as(&t.devices[0], "a", &ops, PCI_DEVFN(5, 0));
	CHECK_EQ(take("a", false, FOREVER), -EOPNOTSUPP);
	CHECK_STR(t.err.text, "a: the guest's tables do not let it eject this device; --force takes it away");
	CHECK_EQ(take("a", true, FOREVER), 0);
	AWAIT(idle());
	CHECK_STR(t.devices[0].told, "settle detach close gone ");
	ANSWERED(1, 0);
	CHECK_EQ(asked_for(), 0);
	done();
}

static void force_overtakes_a_caller_who_waits(void)
{
	setup();
	plug(&t.devices[0], "a");
	CHECK_EQ(take("a", false, FOREVER), 0);
	CHECK_EQ(asked_for(), 1u << 31);
	/* The guest lets go of it at the same time: it need not be disconnected. */
	ejects(31);
	CHECK_EQ(take("a", true, FOREVER), 0);
	AWAIT(idle());
	CHECK_STR(t.devices[0].told, "settle detach close gone ");
	ANSWERED(2, 0);
	CHECK_EQ(asked_for(), 0);
	CHECK_EQ(plug(&t.devices[0], "a"), 31);
	done();
}

/* ---- the host wants it ---- */

static void the_host_asks_as_long_as_it_waits(void)
{
	setup();
	plug_as(&t.devices[0], "a", &host_ops, PCI_DEVFN(31, 0));
	for (unsigned int i = 0; i < 3; i++) {
		slots_want(t.devices[0].slot);
		CHECK_EQ(asked_for(), 1u << 31);
	}
	slots_want(t.devices[0].slot);
	CHECK(logged("vfio a: the host wants it back; asking the guest to eject it"));
	CHECK(logged("the guest has read the request and keeps the device"));
	CHECK(slots_is_asked(t.devices[0].slot));
	ejects(31);
	slots_want(t.devices[0].slot);
	AWAIT(t.devices[0].removed == 1);
	CHECK_EQ(t.answers, 0);
	done();
}

/* ---- a migration ---- */

static void a_blocker_defers_all(void)
{
	setup();
	plug(&t.devices[0], "a");
	plug(&t.devices[1], "b");
	CHECK_EQ(take("a", false, FOREVER), 0);
	CHECK_EQ(slots_set_blocker(t.slots, "the machine is being migrated", NULL), 0);
	CHECK_EQ(asked_for(), 0);
	CHECK_EQ(take("b", false, FOREVER), -EBUSY);
	CHECK_STR(t.err.text, "b: the machine is being migrated");
	CHECK_EQ(take("b", true, FOREVER), -EBUSY);
	ejects(30);
	pump();
	CHECK(is_there(30));
	CHECK_EQ(slots_check_present(t.slots, &t.err), -EBUSY);
	CHECK_STR(t.err.text, "disk b: the guest has ejected it meanwhile; migrate again, without it");
	CHECK_EQ(slots_set_blocker(t.slots, NULL, NULL), 0);
	AWAIT(t.devices[1].removed == 1);
	CHECK_EQ(asked_for(), 1u << 31);
	CHECK_EQ(t.answers, 0);
	done();
}

/* ---- the end ---- */

static void the_end_takes_what_is_on_its_way(void)
{
	setup();
	plug(&t.devices[0], "a");
	plug(&t.devices[1], "b");
	plug(&t.devices[2], "c");
	/* Disconnected, in the guest's hands. */
	CHECK_EQ(take("a", true, FOREVER), 0);
	slots_finish(t.slots);
	CHECK_STR(t.devices[0].told, "settle disconnect detach close gone ");
	CHECK_EQ(t.devices[0].removed, 1);
	ANSWERED(1, 0);
	/* Settling. */
	t.devices[1].settle = -EINPROGRESS;
	CHECK_EQ(take("b", true, FOREVER), 0);
	slots_finish(t.slots);
	CHECK_STR(t.devices[1].told, "settle detach close gone ");
	CHECK_EQ(t.devices[1].removed, 1);
	ANSWERED(2, 0);
	CHECK(idle());
	/* Asked for, and not let go: it does not come again, others do. */
	CHECK_EQ(plug(&t.devices[0], "d"), 31);
	CHECK_EQ(take("c", false, FOREVER), 0);
	slots_leave(t.devices[2].slot);
	CHECK_EQ(t.devices[2].removed, 1);
	slots_leave(t.devices[0].slot);
	CHECK_EQ(t.devices[0].removed, 0);
	/* Ejected, which the loop has not heard. */
	plug(&t.devices[1], "e");
	ejects(t.devices[1].function.devfn >> 3);
	slots_leave_ejected(t.slots);
	CHECK_EQ(t.devices[1].removed, 1);
	done();
}

TEST_MAIN(TEST(the_highest_free_slot_is_the_first), TEST(one_thing_is_done_at_a_time),
	  TEST(one_that_is_asked_for_leaves_when_its_requests_are_complete), TEST(one_that_the_guest_keeps_stays),
	  TEST(one_whose_requests_do_not_complete_stays), TEST(what_is_not_there_cannot_be_ejected),
	  TEST(by_force_the_guest_gets_time_to_let_go), TEST(a_guest_that_keeps_it_loses_it),
	  TEST(the_last_slot_is_taken_again_all_the_same), TEST(a_guest_that_is_paused_gets_its_time_when_it_runs),
	  TEST(one_that_cannot_be_disconnected_leaves_at_once), TEST(the_guest_is_told_of_a_host_device_afterwards),
	  TEST(what_the_guest_cannot_eject_leaves_by_force_alone), TEST(force_overtakes_a_caller_who_waits),
	  TEST(the_host_asks_as_long_as_it_waits), TEST(a_blocker_defers_all), TEST(the_end_takes_what_is_on_its_way))
