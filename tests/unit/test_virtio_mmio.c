/* SPDX-License-Identifier: Apache-2.0 */
/*
 * devices/virtio/virtio_mmio: its registers as a driver uses them and as a hostile one does, its interrupt, the
 * notifications of its queues, pauses, and the way to another machine.
 */
#include "core/bus.h"
#include "core/irq.h"
#include "tests/unit/state_subject.h"
#include "tests/unit/virtio_probe.h"

#include <linux/virtio_mmio.h>

#define AT 0xe0101000ull
#define PAGE 0x1000u

/* The machine: a bus, with or without a hypervisor that takes its eventfds, and a line. */
static struct {
	struct bus *bus;
	int trigger; /* what the line is wired to, or -1 */
	unsigned int wired, attached, attaches;
	bool refuse_wire, refuse_attach;
} host;
static struct virtio_transport *mmio;

static int wire(struct irq_line *line, int trigger_fd, int resample_fd, struct err *err)
{
	CHECK_EQ(resample_fd, -1); /* an edge */
	if (host.refuse_wire)
		return err_set(err, -EMFILE, "told to");
	host.trigger = trigger_fd;
	host.wired++;
	return 0;
}

static void unwire(struct irq_line *line, int trigger_fd)
{
	CHECK_EQ(trigger_fd, host.trigger);
	host.wired--;
}

static const struct irq_line_ops line_ops = {.wire = wire, .unwire = unwire};

static int attach(void *opaque, const struct bus_kick *kick)
{
	CHECK_EQ(kick->addr, AT + VIRTIO_MMIO_QUEUE_NOTIFY);
	CHECK_EQ(kick->len, 4);
	CHECK_EQ(kick->fd, probe->device.queues[kick->value].kick_fd);
	if (host.refuse_attach)
		return -ENOSPC;
	host.attached++;
	host.attaches++;
	return 0;
}

static void detach(void *opaque, const struct bus_kick *kick)
{
	host.attached--;
}

static const struct bus_eventfd_ops hypervisor = {attach, detach};

static int plug_at(uint64_t addr, struct err *err)
{
	const struct virtio_mmio_config config = {.mmio = host.bus, .addr = addr, .slot = 1, .line = {.ops = &line_ops}};

	return virtio_mmio_create(&probe->device, &config, &mmio, err);
}

static void end(void)
{
	virtio_transport_destroy(mmio);
	mmio = NULL;
	CHECK_EQ(host.wired, 0);
	CHECK_EQ(host.attached, 0);
	bus_destroy(host.bus);
	host.bus = NULL;
	driver_destroy(memory);
	memory = NULL;
}

/* A new machine with the guest memory that there is, or a new one, and a probe. */
static void begin(bool kernel)
{
	virtio_transport_destroy(mmio);
	mmio = NULL;
	bus_destroy(host.bus);
	memset(&host, 0, sizeof(host));
	host.bus = bus_create();
	if (!memory)
		memory = driver_create(MIB(1), false);
	if (kernel)
		CHECK_EQ(bus_set_eventfd_ops(host.bus, &hypervisor, NULL, NULL), 0);
	make_probe();
	CHECK_EQ(plug_at(AT, NULL), 0);
}

static void begin_anew(bool kernel)
{
	if (host.bus)
		end();
	begin(kernel);
}

/* ---- the driver ---- */

static uint64_t reg_of(uint64_t offset, unsigned int len)
{
	uint8_t data[8] = {0};

	CHECK(bus_read(host.bus, AT + offset, data, len));
	return get_le64(data);
}

static void put_of(uint64_t offset, unsigned int len, uint64_t value)
{
	uint8_t data[8];

	put_le64(data, value);
	CHECK(bus_write(host.bus, AT + offset, data, len));
}

#define REG(name) ((uint32_t)reg_of(VIRTIO_MMIO_##name, 4))
#define PUT(name, value) put_of(VIRTIO_MMIO_##name, 4, value)

static void agree_on(uint64_t features)
{
	PUT(STATUS, ACK);
	PUT(STATUS, DRIVER);
	for (uint32_t i = 0; i < 2; i++) {
		PUT(DRIVER_FEATURES_SEL, i);
		PUT(DRIVER_FEATURES, features >> 32 * i);
	}
	PUT(STATUS, FEATURES_OK);
}

static void make_ready(unsigned int index)
{
	uint64_t ring = driver_alloc(memory, 3 * KIB(16), KIB(16));

	PUT(QUEUE_SEL, index);
	PUT(QUEUE_NUM, REG(QUEUE_NUM_MAX));
	PUT(QUEUE_DESC_LOW, ring);
	PUT(QUEUE_DESC_HIGH, ring >> 32);
	PUT(QUEUE_AVAIL_LOW, ring + KIB(16));
	PUT(QUEUE_AVAIL_HIGH, 0);
	PUT(QUEUE_USED_LOW, ring + 2 * KIB(16));
	PUT(QUEUE_USED_HIGH, 0);
	PUT(QUEUE_READY, 1);
}

static void start(unsigned int queues)
{
	agree_on(VERSION_1);
	for (unsigned int i = 0; i < queues; i++)
		make_ready(i);
	PUT(STATUS, DRIVER_OK);
}

static bool interrupted(void)
{
	return eventfd_drain(host.trigger);
}

/* ---- registers ---- */

static void shows_itself(void)
{
	begin_anew(true);
	CHECK_EQ(REG(MAGIC_VALUE), 0x74726976);
	CHECK_EQ(REG(VERSION), 2);
	CHECK_EQ(REG(DEVICE_ID), 42);
	CHECK_EQ(REG(VENDOR_ID), 0x4d4d564d);
	CHECK_EQ(REG(STATUS), 0);
	CHECK_EQ(REG(INTERRUPT_STATUS), 0);
	CHECK_EQ(REG(QUEUE_NUM_MAX), 16);
	CHECK_EQ(virtio_transport_slot(mmio), 1);
	for (unsigned int i = 0; i < 3; i++) {
		put_of(VIRTIO_MMIO_SHM_SEL, 4, ((uint32_t[]){0, 1, 255})[i]);
		CHECK_EQ(REG(SHM_LEN_LOW), UINT32_MAX);
		CHECK_EQ(REG(SHM_LEN_HIGH), UINT32_MAX);
		CHECK_EQ(REG(SHM_BASE_LOW), UINT32_MAX);
		CHECK_EQ(REG(SHM_BASE_HIGH), UINT32_MAX);
	}
	for (unsigned int at = 0; at < VIRTIO_MMIO_CONFIG; at += 4) /* what is not readable, and what is not there */
		if (at == 0x10 + 4 || at == VIRTIO_MMIO_DRIVER_FEATURES || at == VIRTIO_MMIO_QUEUE_SEL ||
		    at == VIRTIO_MMIO_QUEUE_NOTIFY || at == VIRTIO_MMIO_INTERRUPT_ACK || at == 0xc0 || at == 0xf8)
			CHECK_EQ(reg_of(at, 4), 0);
}

/* Section 4.2.2.2 */
static void registers_are_accessed_whole(void)
{
	begin_anew(true);
	for (unsigned int i = 0; i < 3; i++) {
		unsigned int len = ((unsigned int[]){1, 2, 8})[i];

		CHECK_EQ(reg_of(VIRTIO_MMIO_MAGIC_VALUE, len), 0);
		CHECK_EQ(reg_of(VIRTIO_MMIO_INTERRUPT_STATUS, len), 0);
		put_of(VIRTIO_MMIO_STATUS, len, ACK);
		CHECK_EQ(REG(STATUS), 0);
		put_of(VIRTIO_MMIO_QUEUE_NOTIFY, len, 0);
		CHECK(!kicked(0));
	}
	for (unsigned int at = 1; at < 4; at++) {
		CHECK_EQ(reg_of(VIRTIO_MMIO_MAGIC_VALUE + at, 4), 0);
		put_of(VIRTIO_MMIO_STATUS + at, 4, ACK);
		CHECK_EQ(REG(STATUS), 0);
	}
	CHECK_EQ(reg_of(VIRTIO_MMIO_CONFIG - 2, 4), 0); /* over the edge to the config space */
	put_of(VIRTIO_MMIO_CONFIG - 2, 4, UINT32_MAX);
	CHECK_EQ(probe->config[0], 0);
	CHECK(!bus_read(host.bus, AT + PAGE - 2, (uint8_t[4]){0}, 4));
	PUT(STATUS, ACK | 0x100); /* no such bit, and no reset either */
	CHECK_EQ(REG(STATUS), 0);
	PUT(STATUS, ACK);
	PUT(STATUS, 0x100);
	CHECK_EQ(REG(STATUS), ACK);
}

static void features_are_agreed_on(void)
{
	uint64_t offered = 0;

	begin_anew(true);
	for (uint32_t i = 0; i < 2; i++) {
		PUT(DEVICE_FEATURES_SEL, i);
		offered |= (uint64_t)REG(DEVICE_FEATURES) << 32 * i;
	}
	CHECK_EQ(offered, OWN_FEATURE | VERSION_1 | 1ull << VIRTIO_RING_F_INDIRECT_DESC | 1ull << VIRTIO_RING_F_EVENT_IDX);
	PUT(DEVICE_FEATURES_SEL, 2);
	CHECK_EQ(REG(DEVICE_FEATURES), 0);
	agree_on(VERSION_1 | 1ull << 5); /* never offered */
	CHECK_EQ(REG(STATUS), DRIVER);
	PUT(STATUS, DRIVER_OK);
	CHECK_EQ(REG(STATUS), DRIVER);
	PUT(STATUS, 0);
	agree_on(0); /* a driver for what was before 1.0 */
	CHECK_EQ(REG(STATUS), DRIVER);
	PUT(STATUS, 0);
	agree_on(VERSION_1 | OWN_FEATURE);
	CHECK_EQ(REG(STATUS), FEATURES_OK);
	PUT(DRIVER_FEATURES_SEL, 0); /* too late */
	PUT(DRIVER_FEATURES, 0);
	PUT(STATUS, DRIVER_OK);
	CHECK_EQ(REG(STATUS), DRIVER_OK);
	CHECK_EQ(probe->activated, 1);
	CHECK_EQ(probe->features, VERSION_1 | OWN_FEATURE);
}

static void queues_are_set_up(void)
{
	begin_anew(true);
	agree_on(VERSION_1);
	PUT(QUEUE_SEL, 1);
	CHECK_EQ(REG(QUEUE_NUM_MAX), 32);
	for (unsigned int i = 0; i < 5; i++) {
		PUT(QUEUE_NUM, ((uint32_t[]){0, 24, 64, 0x10008, UINT32_MAX})[i]);
		CHECK_EQ(probe->device.queues[1].setup.size, 32);
	}
	PUT(QUEUE_NUM, 8);
	PUT(QUEUE_DESC_LOW, 0x9abcdef0);
	PUT(QUEUE_DESC_HIGH, 0x12345678);
	CHECK_EQ(probe->device.queues[1].setup.desc, 0x123456789abcdef0);
	for (unsigned int i = 0; i < 3; i++) {
		PUT(QUEUE_READY, ((uint32_t[]){2, 0x101, UINT32_MAX})[i]);
		CHECK_EQ(REG(QUEUE_READY), 0);
	}
	make_ready(1);
	CHECK_EQ(REG(QUEUE_READY), 1);
	PUT(QUEUE_NUM, 4); /* too late for both */
	PUT(QUEUE_AVAIL_LOW, 0x10);
	CHECK_EQ(probe->device.queues[1].setup.size, 32);
	CHECK(probe->device.queues[1].setup.avail != 0x10);
	PUT(QUEUE_READY, 0); /* until it is taken back */
	CHECK_EQ(REG(QUEUE_READY), 0);
	PUT(QUEUE_NUM, 4);
	CHECK_EQ(probe->device.queues[1].setup.size, 4);
	PUT(QUEUE_READY, 1);
	PUT(STATUS, DRIVER_OK);
	PUT(QUEUE_SEL, 0);
	PUT(QUEUE_READY, 1);
	CHECK_EQ(REG(QUEUE_READY), 0);
	CHECK(probe->device.queues[1].setup.enabled && !probe->device.queues[0].setup.enabled);
	PUT(STATUS, 0);
	PUT(QUEUE_SEL, 1);
	CHECK_EQ(REG(QUEUE_READY), 0);
	CHECK_EQ(probe->device.queues[1].setup.size, 32);
}

static void there_is_no_queue_beyond_the_last(void)
{
	begin_anew(true);
	agree_on(VERSION_1);
	for (unsigned int i = 0; i < 5; i++) {
		PUT(QUEUE_SEL, ((uint32_t[]){QUEUES, VIRTIO_MAX_QUEUES, UINT16_MAX, 0x10000, UINT32_MAX})[i]);
		CHECK_EQ(REG(QUEUE_NUM_MAX), 0);
		PUT(QUEUE_NUM, 8);
		PUT(QUEUE_DESC_LOW, 0x1000);
		PUT(QUEUE_READY, 1);
		CHECK_EQ(REG(QUEUE_READY), 0);
		PUT(QUEUE_READY, 0);
	}
	for (unsigned int i = 0; i < QUEUES; i++)
		CHECK(!probe->device.queues[i].setup.enabled && !probe->device.queues[i].setup.desc);
	CHECK_EQ(host.attaches, 0);
	PUT(STATUS, DRIVER_OK);
	CHECK_EQ(probe->activated, 1);
}

/* Section 4.2.2.2: the device must not access the queue any more. */
static void a_queue_that_is_taken_back_stops_the_device(void)
{
	begin_anew(true);
	start(2);
	PUT(QUEUE_SEL, 2);
	PUT(QUEUE_READY, 0); /* was not ready */
	CHECK(probe->device.active);
	PUT(QUEUE_SEL, 1);
	PUT(QUEUE_READY, 0);
	CHECK_EQ(REG(QUEUE_READY), 0);
	CHECK(!probe->device.active);
	CHECK_EQ(probe->resets, 1);
	CHECK_EQ(REG(STATUS), DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET);
	CHECK_EQ(REG(INTERRUPT_STATUS), 2);
	CHECK(interrupted());
	PUT(QUEUE_READY, 1); /* it does not start again by that */
	PUT(STATUS, DRIVER_OK);
	CHECK_EQ(probe->activated, 1);
	PUT(STATUS, 0);
	CHECK_EQ(probe->resets, 1);
	CHECK_EQ(REG(INTERRUPT_STATUS), 0);
	start(3);
	CHECK_EQ(REG(STATUS), DRIVER_OK);
	CHECK_EQ(probe->activated, 2);
}

static void a_ring_that_is_nowhere_starts_nothing(void)
{
	begin_anew(true);
	agree_on(VERSION_1);
	PUT(QUEUE_DESC_HIGH, 0xffffffff);
	PUT(QUEUE_READY, 1);
	PUT(STATUS, DRIVER_OK);
	CHECK_EQ(REG(STATUS), DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET);
	CHECK_EQ(probe->activated, 0);
	PUT(QUEUE_READY, 0);
	PUT(STATUS, 0);
	start(1);
	CHECK_EQ(REG(STATUS), DRIVER_OK);
}

static void the_config_space_is_passed_on(void)
{
	begin_anew(true);
	for (unsigned int i = 0; i < 8; i++)
		probe->config[i] = (uint8_t)(i + 1);
	CHECK_EQ(reg_of(VIRTIO_MMIO_CONFIG, 4), 0x04030201);
	CHECK_EQ(reg_of(VIRTIO_MMIO_CONFIG + 1, 2), 0x0302);
	CHECK_EQ(reg_of(VIRTIO_MMIO_CONFIG + 7, 1), 8);
	CHECK_EQ(reg_of(VIRTIO_MMIO_CONFIG, 8), 0x0807060504030201);
	CHECK_EQ(reg_of(VIRTIO_MMIO_CONFIG + 6, 4), 0x0807);
	CHECK_EQ(reg_of(PAGE - 4, 4), 0);
	put_of(VIRTIO_MMIO_CONFIG + 4, 2, 0xbbaa);
	CHECK_EQ(probe->config[4], 0xaa);
	put_of(VIRTIO_MMIO_CONFIG + 6, 4, 0); /* over the end */
	put_of(PAGE - 1, 1, 0);
	CHECK_EQ(probe->config[6], 7);
	for (unsigned int i = 1; i <= 300; i++) {
		config_changes();
		CHECK_EQ(REG(CONFIG_GENERATION), i & 255);
	}
	probe->device.config_size = 0;
	CHECK_EQ(reg_of(VIRTIO_MMIO_CONFIG, 4), 0);
	put_of(VIRTIO_MMIO_CONFIG, 1, 9);
	CHECK_EQ(probe->config[0], 1);
}

/* ---- interrupts ---- */

static void each_reason_is_a_pulse(void)
{
	begin_anew(true);
	config_changes(); /* no driver listens yet */
	CHECK_EQ(REG(INTERRUPT_STATUS), 0);
	CHECK(!interrupted());
	start(3);
	notify(1);
	CHECK(interrupted());
	CHECK_EQ(REG(INTERRUPT_STATUS), 1);
	CHECK_EQ(REG(INTERRUPT_STATUS), 1); /* reading takes nothing away */
	config_changes();
	CHECK(interrupted());
	CHECK_EQ(REG(INTERRUPT_STATUS), 3);
	PUT(INTERRUPT_ACK, 0xfffffffc);
	CHECK_EQ(REG(INTERRUPT_STATUS), 3);
	PUT(INTERRUPT_ACK, 1);
	CHECK_EQ(REG(INTERRUPT_STATUS), 2);
	notify(0); /* although the other reason was not acknowledged */
	CHECK(interrupted());
	PUT(INTERRUPT_ACK, 3);
	CHECK_EQ(REG(INTERRUPT_STATUS), 0);
	CHECK(!interrupted());
	virtio_device_broken(&probe->device, "told to");
	CHECK_EQ(REG(INTERRUPT_STATUS), 2);
	CHECK(interrupted());
	PUT(STATUS, 0);
	CHECK_EQ(REG(INTERRUPT_STATUS), 0);
}

/* vhost sets no bit of the status. */
static void what_vhost_uses_is_shown_always(void)
{
	begin_anew(true);
	start(2);
	for (unsigned int i = 0; i < 2; i++)
		CHECK_EQ(probe->device.transport->call_fd(&probe->device, i), host.trigger);
	CHECK_EQ(REG(INTERRUPT_STATUS), 1);
	PUT(INTERRUPT_ACK, 1);
	CHECK_EQ(REG(INTERRUPT_STATUS), 1);
	PUT(STATUS, 0);
	CHECK_EQ(REG(INTERRUPT_STATUS), 0);
}

/* ---- notifications ---- */

static void the_kernel_kicks_the_queues(void)
{
	begin_anew(true);
	agree_on(VERSION_1);
	CHECK_EQ(host.attached, 0);
	make_ready(0);
	make_ready(2);
	PUT(QUEUE_READY, 0);
	PUT(QUEUE_READY, 1);
	CHECK_EQ(host.attached, 2);
	PUT(STATUS, 0); /* each change costs the kernel a grace period */
	start(3);
	CHECK_EQ(host.attached, 3);
	CHECK_EQ(host.attaches, 3);
	CHECK(!kicked(0));
	PUT(QUEUE_NOTIFY, 1); /* and what reaches the register kicks, too */
	CHECK(kicked(1));
	for (unsigned int i = 0; i < 4; i++)
		PUT(QUEUE_NOTIFY, ((uint32_t[]){QUEUES, 64, 0x10001, UINT32_MAX})[i]);
	for (unsigned int i = 0; i < QUEUES; i++)
		CHECK(!kicked(i));
}

static void the_register_kicks_what_the_kernel_does_not(void)
{
	begin_anew(false);
	start(3);
	for (unsigned int i = 0; i < QUEUES; i++) {
		PUT(QUEUE_NOTIFY, i);
		for (unsigned int k = 0; k < QUEUES; k++)
			CHECK_EQ(kicked(k), k == i);
	}
	begin_anew(true);
	host.refuse_attach = true;
	start(3);
	PUT(QUEUE_NOTIFY, 2);
	CHECK(kicked(2) && !kicked(1));
}

/* ---- life ---- */

static void leaves_nothing(void)
{
	struct err err;

	begin_anew(true);
	start(3);
	virtio_transport_detach(mmio);
	CHECK_EQ(host.attached, 0);
	CHECK_EQ(probe->resets, 1);
	CHECK(!bus_read(host.bus, AT, (uint8_t[4]){0}, 4));
	end();
	begin(true);
	virtio_transport_destroy(mmio);
	mmio = NULL;
	make_probe();
	CHECK_EQ(bus_add(host.bus, AT + 8, 8, &(struct bus_ops){0}, NULL, "other", NULL), 0);
	CHECK_EQ(plug_at(AT, &err), -EEXIST); /* the device is still the caller's */
	CHECK_EQ(host.wired, 0);
	CHECK(!probe->device.transport);
	host.refuse_wire = true;
	CHECK_EQ(plug_at(AT + PAGE, &err), -EMFILE);
	CHECK(!bus_read(host.bus, AT + PAGE, (uint8_t[4]){0}, 4));
	probe->device.ops->destroy(&probe->device);
}

static void a_pause_drains(void)
{
	struct err err;

	begin_anew(true);
	start(2);
	CHECK_EQ(virtio_transport_drain(mmio, VIRTIO_NO_DEADLINE, NULL), 0);
	CHECK_EQ(probe->drained, 1);
	virtio_transport_resume(mmio);
	CHECK_EQ(probe->resumed, 1);
	CHECK(!interrupted()); /* only a load may have lost one */
	probe->hung = true;
	CHECK_EQ(virtio_transport_drain(mmio, 0, &err), -ETIMEDOUT);
	probe->hung = false;
	virtio_transport_resume(mmio);
	CHECK_EQ(probe->resumed, 2);
	PUT(STATUS, 0);
	virtio_transport_drain(mmio, VIRTIO_NO_DEADLINE, NULL);
	start(1);
	CHECK_EQ(probe->activated, 1); /* it waits for the resume */
	virtio_transport_resume(mmio);
	CHECK_EQ(probe->activated, 2);
}

/* ---- the way to another machine ---- */

static void *make(void)
{
	begin(true);
	return mmio;
}

static int save(void *object, struct state_buffer *out, struct err *err)
{
	return virtio_transport_save(mmio, out, err);
}

static int load(void *object, const void *data, size_t len, struct err *err)
{
	return virtio_transport_load(mmio, data, len, err);
}

static void use(void *object)
{
	static struct virtq_chain chain;

	virtio_transport_resume(mmio);
	for (unsigned int i = 0; i < QUEUES; i++) {
		struct virtqueue *vq = &probe->device.queues[i];

		notify(i);
		if (probe->device.active && vq->setup.enabled && virtqueue_pop(vq, &chain) == 1)
			virtqueue_push(vq, &chain, 0);
	}
	for (unsigned int at = 0; at < VIRTIO_MMIO_CONFIG + 16; at += 4)
		put_of(at, 4, reg_of(at, 4));
	PUT(STATUS, 0);
}

static void leave(void *object)
{
}

static const struct state_subject subject = {make, save, load, use, leave};

static void move_it(void)
{
	virtio_transport_drain(mmio, VIRTIO_NO_DEADLINE, NULL);
	subject_comes_back(&subject, mmio);
}

static void a_driver_goes_on_where_it_was(void)
{
	begin_anew(true);
	PUT(DEVICE_FEATURES_SEL, 1);
	agree_on(VERSION_1 | OWN_FEATURE);
	make_ready(1);
	move_it();
	CHECK_EQ(REG(STATUS), FEATURES_OK);
	CHECK_EQ(REG(QUEUE_READY), 1);
	CHECK_EQ(REG(QUEUE_NUM_MAX), 32);
	CHECK_EQ(REG(DEVICE_FEATURES), 1);
	CHECK_EQ(host.attached, 1);
	virtio_transport_resume(mmio);
	CHECK(!interrupted()); /* no driver has asked for any */
	PUT(STATUS, DRIVER_OK);
	CHECK_EQ(probe->features, VERSION_1 | OWN_FEATURE);
	notify(1);
	config_changes();
	interrupted();
	move_it();
	CHECK_EQ(probe->prepared, 1);
	CHECK_EQ(REG(INTERRUPT_STATUS), 3);
	CHECK_EQ(REG(CONFIG_GENERATION), 1);
	CHECK(!interrupted());
	virtio_transport_resume(mmio);
	CHECK_EQ(probe->resumed, 1);
	CHECK(interrupted()); /* the pulse may not have reached the guest before */
	virtio_device_broken(&probe->device, "told to");
	move_it();
	virtio_transport_resume(mmio);
	CHECK_EQ(REG(STATUS), DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET);
}

static void a_stopped_device_stays_so_on_the_way(void)
{
	begin_anew(true);
	start(2);
	PUT(QUEUE_READY, 0);
	move_it();
	virtio_transport_resume(mmio);
	CHECK_EQ(REG(STATUS), DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET);
	CHECK_EQ(probe->activated + probe->prepared, 0);
}

static void the_state_of_pci_is_refused(void)
{
	struct state_buffer out = {0};
	struct err err;

	set_up();
	virtio_transport_drain(pci, VIRTIO_NO_DEADLINE, NULL);
	CHECK_EQ(virtio_transport_save(pci, &out, NULL), 0);
	tear_down();
	begin(true);
	CHECK_EQ(virtio_transport_load(mmio, out.data, out.len, &err), -EBADMSG);
	state_buffer_free(&out);
	end();
	begin(true);
	start(1);
	CHECK_EQ(virtio_transport_save(mmio, &out, &err), -EBUSY);
	CHECK_EQ(out.len, 0);
}

static void any_record_is_survived(void)
{
	begin_anew(true);
	start(3);
	notify(2);
	virtio_transport_drain(mmio, VIRTIO_NO_DEADLINE, NULL);
	subject_survives(&subject, mmio);
}

/* ---- hostile ---- */

/* Any accesses in any order: the device's life stays in order, and a reset heals everything. */
static void any_accesses_are_survived(void)
{
	static const unsigned int lens[] = {4, 4, 4, 4, 4, 1, 2, 8};
	uint64_t seed = 1;

	begin_anew(true);
	for (unsigned int i = 0; i < 100000; i++) {
		unsigned int len, at;
		uint64_t value;

		seed = seed * 6364136223846793005 + 1442695040888963407;
		len = lens[seed >> 60 & 7];
		at = seed >> 40 & 1 ? (unsigned int)(seed >> 41 & 0x7f) * 4 : (unsigned int)(seed >> 41 & 0x1ff);
		value = seed >> 20 & 1 ? seed >> 21 & 0xf : seed << 20;
		if (!(seed >> 53 & 0x7f)) {
			agree_on(VERSION_1); /* chance does not get far */
			PUT(STATUS, DRIVER_OK);
		} else if (seed >> 50 & 1) {
			put_of(at, len, value);
		} else {
			reg_of(at, len);
		}
		CHECK_EQ(probe->activated, probe->resets + probe->device.active);
		CHECK(host.attached <= QUEUES && probe->drained + probe->resumed == 0);
		CHECK_EQ(REG(MAGIC_VALUE), 0x74726976);
	}
	CHECK(probe->activated > 1);
	PUT(STATUS, 0);
	start(3);
	CHECK_EQ(REG(STATUS), DRIVER_OK);
	CHECK(probe->device.active);
}

static void the_end(void)
{
	end();
}

TEST_MAIN(TEST(shows_itself), TEST(registers_are_accessed_whole), TEST(features_are_agreed_on), TEST(queues_are_set_up),
	  TEST(there_is_no_queue_beyond_the_last), TEST(a_queue_that_is_taken_back_stops_the_device),
	  TEST(a_ring_that_is_nowhere_starts_nothing), TEST(the_config_space_is_passed_on), TEST(each_reason_is_a_pulse),
	  TEST(what_vhost_uses_is_shown_always), TEST(the_kernel_kicks_the_queues),
	  TEST(the_register_kicks_what_the_kernel_does_not), TEST(leaves_nothing), TEST(a_pause_drains),
	  TEST(a_driver_goes_on_where_it_was), TEST(a_stopped_device_stays_so_on_the_way), TEST(the_state_of_pci_is_refused),
	  TEST(any_record_is_survived), TEST(any_accesses_are_survived), TEST(the_end))
