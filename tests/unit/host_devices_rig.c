/* SPDX-License-Identifier: Apache-2.0 */
/* See host_devices_rig.h. */
#include "tests/unit/host_devices_rig.h"

#include <assert.h>
#include <poll.h>

#define POWER 0x600
#define SLOTS 0xc0000000u /* room for two */

struct host_bench t;

struct vfio_config configs[3] = {
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

void answer(void *opaque, int code, const struct err *err)
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

void add_device(const char *bdf)
{
	struct fake_kernel *fake = t.p.base.fake;
	struct fake_device *device = strcmp(bdf, BDF) == 0 ? t.p.device :
				     fake_device(fake, bdf, fake_group(fake), fake_iommu(fake, true));
	struct fake_pci *pci = device->pci ?: fake_pci(device);

	fake_pci_bar(pci, 0, 0, KIB(16), FAKE_REGION_RWM);
	pci->irqs[REQ_IRQ] = (struct fake_irq){.flags = VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_NORESIZE, .count = 1};
}

void setup(void)
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

int create_of(struct vfio_config *vfios, size_t count)
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

int create(size_t count)
{
	return create_of(configs, count);
}

void start(size_t count)
{
	setup();
	CHECK_EQ(create(count), 0);
}

void destroy(void)
{
	host_devices_destroy(take_ptr(t.devices));
}

void done(void)
{
	destroy();
	CHECK_EQ(t.loop_closed, 0);
	CHECK_EQ(t.paused, 0);
	slots_destroy(t.slots);
	power_destroy(t.power);
	pb_done(&t.p);
}

/* ---- the guest, and people ---- */

void wait_for_answer(const struct caller *caller)
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

void settle(void)
{
	for (unsigned int i = 0, quiet = 0; quiet < 2 && i < 10000; i++) {
		pb_pump(&t.p);
		quiet = is_leaving() ? 0 : quiet + 1;
		if (!quiet)
			poll(NULL, 0, 1);
	}
	CHECK(!is_leaving());
}

uint32_t asked_for(void)
{
	uint8_t data[4] = {0};

	bus_read(t.p.rig.pio, POWER + POWER_PCI_DOWN, data, sizeof(data));
	return get_le32(data);
}

uint32_t appeared(void)
{
	uint8_t data[4] = {0};

	bus_read(t.p.rig.pio, POWER + POWER_PCI_UP, data, sizeof(data));
	return get_le32(data);
}

void ejects(unsigned int device)
{
	uint8_t data[4];

	put_le32(data, 1u << device);
	bus_write(t.p.rig.pio, POWER + POWER_PCI_DOWN, data, sizeof(data));
}

void eject(unsigned int device)
{
	ejects(device);
	settle();
}

uint32_t identity(unsigned int device)
{
	return rig_cfg(&t.p.rig, PCI_DEVFN(device, 0), PCI_VENDOR_ID, 4);
}

static void progress(void *opaque, const struct vfio_progress *step)
{
}

int begin_adding(const struct vfio_config *config, struct caller *caller)
{
	const struct host_devices_reply reply = {progress, answer, caller};

	t.p.base.err.text[0] = 0;
	return host_devices_add(t.devices, config, NULL, &reply, &t.p.base.err);
}

int add_of(const struct vfio_config *config)
{
	struct caller caller = {0};
	int rc = begin_adding(config, &caller);

	if (rc < 0)
		return rc;
	wait_for_answer(&caller);
	CHECK_EQ(caller.answers, 1);
	return caller.code;
}

int add(size_t i)
{
	return add_of(&configs[i]);
}

int remove_device(const char *id, bool force, unsigned int timeout_ms, struct caller *caller)
{
	int rc;

	t.p.base.err.text[0] = 0;
	rc = host_devices_remove(t.devices, id, force, timeout_ms, answer, caller, &t.p.base.err);
	if (rc == 0 && force)
		settle();
	return rc;
}

void ask(const char *id, struct caller *caller)
{
	CHECK_EQ(remove_device(id, false, 600000, caller), 0);
}

void host_wants(size_t index)
{
	CHECK(fake_pci_fire(t.p.base.fake->devices[index].pci, REQ_IRQ, 0));
	pb_pump(&t.p);
}
