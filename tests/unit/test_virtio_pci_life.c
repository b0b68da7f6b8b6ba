/* SPDX-License-Identifier: Apache-2.0 */
/*
 * devices/virtio/virtio_pci, what happens over time: interrupts and notifications on every path, bus mastering, pause,
 * reset, a device that breaks, a real one from end to end, several vCPUs at once.
 */
#include "tests/unit/virtio_probe.h"

#include "core/monotonic.h"

/* ---- interrupts ---- */

static void interrupts_by_message(void)
{
	set_up();
	enable_msix(true);
	for (unsigned int i = 0; i <= QUEUES; i++)
		program_vector(i, 100 + i, false);
	SET(msix_config, QUEUES + 1);
	CHECK_EQ(GET(msix_config), VIRTIO_MSI_NO_VECTOR);
	SET(msix_config, 0);
	CHECK_EQ(GET(msix_config), 0);
	for (unsigned int i = 0; i < 2; i++) {
		SET(queue_select, i);
		SET(queue_msix_vector, i + 1);
		CHECK_EQ(GET(queue_msix_vector), i + 1);
	}
	bring_up(3);
	notify(0);
	CHECK_EQ(rig_delivered(&rig, 101), 1);
	notify(1);
	notify(2); /* has no vector */
	CHECK_EQ(rig_delivered(&rig, 102), 1);
	CHECK_EQ(rig_delivered(&rig, 101) + rig_delivered(&rig, 103) + rig_delivered(&rig, 100), 0);
	config_changes();
	CHECK_EQ(rig_delivered(&rig, 100), 1);
	program_vector(1, 101, true); /* masked: kept until it is not */
	notify(0);
	CHECK_EQ(rig_delivered(&rig, 101), 0);
	program_vector(1, 111, false);
	CHECK_EQ(rig_delivered(&rig, 111), 1);
	CHECK(!line_high());
	CHECK_EQ(get(VIRTIO_PCI_CAP_ISR_CFG, 0, 1), 0);
	SET(device_status, 0);
	CHECK_EQ(GET(msix_config), VIRTIO_MSI_NO_VECTOR);
	notify(0);
	config_changes();
	CHECK_EQ(rig_delivered(&rig, 111) + rig_delivered(&rig, 100), 0);
}

static void interrupts_by_pin(void)
{
	set_up();
	bring_up(3);
	CHECK(!line_high());
	notify(1);
	CHECK(line_high());
	CHECK(rig_cfg(&rig, SLOT, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
	CHECK_EQ(get(VIRTIO_PCI_CAP_ISR_CFG, 0, 1), 1);
	CHECK(!line_high());
	CHECK_EQ(get(VIRTIO_PCI_CAP_ISR_CFG, 0, 1), 0);
	config_changes();
	CHECK(line_high());
	notify(0);
	CHECK_EQ(get(VIRTIO_PCI_CAP_ISR_CFG, 0, 1), 3);
	CHECK(!line_high());
	command(MEMORY | MASTER | PCI_COMMAND_INTX_DISABLE);
	notify(0);
	CHECK(!line_high());
	command(MEMORY | MASTER);
	CHECK(line_high());
	enable_msix(true);
	CHECK(!line_high());
	enable_msix(false);
	CHECK(line_high());
	SET(device_status, 0);
	CHECK(!line_high());
	CHECK_EQ(get(VIRTIO_PCI_CAP_ISR_CFG, 0, 1), 0);
	config_changes(); /* nobody to tell */
	CHECK(!line_high());
}

/* A device that has handed its interrupts to somebody else is told where they go now. */
static void tells_of_changed_calls(void)
{
	set_up();
	bring_up(2);
	CHECK_EQ(probe->call_changed[0] + probe->call_changed[1], 0);
	enable_msix(true);
	CHECK_EQ(probe->call_changed[0], 1);
	CHECK_EQ(probe->call_changed[1], 1);
	CHECK_EQ(probe->call_changed[2], 0); /* not enabled */
	program_vector(1, 7, false);
	SET(queue_select, 1);
	SET(queue_msix_vector, 1);
	CHECK_EQ(probe->call_changed[0], 1);
	CHECK_EQ(probe->call_changed[1], 2);
	eventfd_kick(probe->device.transport->call_fd(&probe->device, 1));
	CHECK_EQ(rig_delivered(&rig, 7), 1);
	CHECK_EQ(virtio_transport_drain(pci, VIRTIO_NO_DEADLINE, NULL), 0);
	enable_msix(false); /* it asks when it is resumed */
	CHECK_EQ(probe->call_changed[1], 2);
	virtio_transport_resume(pci);
	SET(device_status, 0);
	CHECK_EQ(probe->call_changed[1], 2);
}

/* An eventfd that somebody else kicks: the vector's own, or one that leads to the pin. */
static void hands_out_call_fds(void)
{
	int fd;

	set_up();
	enable_msix(true);
	program_vector(1, 7, false);
	SET(queue_select, 0);
	SET(queue_msix_vector, 1);
	bring_up(2);
	fd = probe->device.transport->call_fd(&probe->device, 0);
	CHECK(fd >= 0);
	eventfd_kick(fd);
	CHECK_EQ(rig_delivered(&rig, 7), 1);
	CHECK(probe->device.transport->call_fd(&probe->device, 1) != fd);

	set_up();
	bring_up(2);
	fd = probe->device.transport->call_fd(&probe->device, 1);
	CHECK(fd >= 0);
	CHECK_EQ(probe->device.transport->call_fd(&probe->device, 1), fd);
	eventfd_kick(fd);
	driver_settle(loop);
	CHECK(line_high());
	CHECK_EQ(get(VIRTIO_PCI_CAP_ISR_CFG, 0, 1), 1);
	SET(device_status, 0);
	eventfd_kick(fd); /* late */
	driver_settle(loop);
	CHECK(!line_high());
}

/* ---- notifications ---- */

static void attaches_notifications_once(void)
{
	set_up();
	CHECK_EQ(rig.attaches, 0);
	bring_up(2);
	CHECK_EQ(rig.attaches, 2);
	SET(device_status, 0);
	bring_up(2);
	CHECK_EQ(rig.attaches, 2); /* each costs the kernel a grace period */
	CHECK_EQ(rig.detaches, 0);
	command(MASTER);
	CHECK_EQ(rig.attached, 0);
	command(MEMORY | MASTER);
	CHECK_EQ(rig.attached, 2);
	rig_cfg_write(&rig, SLOT, PCI_BASE_ADDRESS_0, 4, (uint32_t)bar + 0x100000);
	CHECK_EQ(rig.attached, 2);
	CHECK_EQ(rig.attaches, 6);
	bar = rig_bar(&rig, SLOT);
	set(VIRTIO_PCI_CAP_NOTIFY_CFG, 4, 2, 1);
	CHECK(kicked(1) && !kicked(0) && !kicked(2));
	virtio_transport_destroy(pci);
	pci = NULL;
	CHECK_EQ(rig.attached, 0);
	rig_close(&rig);
}

static void notifies_without_the_kernel(void)
{
	set_up();
	rig.refuse_attach = true;
	bring_up(3);
	CHECK_EQ(rig.attached, 0);
	for (unsigned int i = 0; i < QUEUES; i++) {
		set(VIRTIO_PCI_CAP_NOTIFY_CFG, 4 * i, 2, i);
		for (unsigned int q = 0; q < QUEUES; q++)
			CHECK_EQ(kicked(q), q == i);
	}
	set(VIRTIO_PCI_CAP_NOTIFY_CFG, 4 * QUEUES, 2, QUEUES);
	set(VIRTIO_PCI_CAP_NOTIFY_CFG, 4092, 4, 1023);
	CHECK(!kicked(0) && !kicked(1) && !kicked(2));
	CHECK_EQ(get(VIRTIO_PCI_CAP_NOTIFY_CFG, 0, 4), 0);
}

/* ---- life ---- */

static void waits_for_bus_mastering_and_pauses(void)
{
	set_up();
	command(MEMORY);
	bring_up(1);
	CHECK_EQ(GET(device_status), DRIVER_OK);
	CHECK_EQ(probe->activated, 0);
	virtio_transport_drain(pci, VIRTIO_NO_DEADLINE, NULL);
	command(MEMORY | MASTER);
	CHECK_EQ(probe->activated, 0);
	virtio_transport_resume(pci);
	CHECK_EQ(probe->activated, 1);
	CHECK_EQ(probe->drained, 0);
	virtio_transport_drain(pci, VIRTIO_NO_DEADLINE, NULL);
	CHECK_EQ(probe->drained, 1);
	virtio_transport_drain(pci, VIRTIO_NO_DEADLINE, NULL);
	command(MEMORY);
	CHECK_EQ(probe->drained, 1);
	virtio_transport_resume(pci);
	CHECK_EQ(probe->resumed, 0);
	command(MEMORY | MASTER);
	CHECK_EQ(probe->resumed, 1);
	virtio_transport_drain(pci, VIRTIO_NO_DEADLINE, NULL);
	SET(device_status, 0);
	CHECK_EQ(probe->resets, 1);
	virtio_transport_resume(pci);
	CHECK_EQ(probe->resumed, 1);
	CHECK_EQ(probe->activated, 1);
}

static void goes_on_when_a_pause_gives_up(void)
{
	struct state_buffer none = {0};
	struct err err;

	set_up();
	bring_up(1);
	probe->hung = true;
	CHECK_EQ(virtio_transport_drain(pci, VIRTIO_NO_DEADLINE, &err), -ETIMEDOUT);
	CHECK_STR(err.text, "probe0: told to hang");
	CHECK_EQ(virtio_transport_save(pci, &none, NULL), -EBUSY);
	virtio_transport_resume(pci);
	CHECK_EQ(probe->resumed, 1);
	CHECK_EQ(virtio_transport_drain(pci, VIRTIO_NO_DEADLINE, &err), -ETIMEDOUT);
	probe->hung = false;
	CHECK_EQ(virtio_transport_drain(pci, VIRTIO_NO_DEADLINE, &err), 0);
	virtio_transport_resume(pci);
	CHECK_EQ(probe->drained, 1);
	CHECK_EQ(probe->resumed, 2);
}

static void *reset_it(void *opaque)
{
	SET(device_status, 0);
	return NULL;
}

static void *write_config(void *opaque)
{
	set(VIRTIO_PCI_CAP_DEVICE_CFG, 0, 1, 1);
	return NULL;
}

/* The guest's access that began with fn waits for the device: who pauses or resumes the machine does not. */
static void is_not_waited_for(void *(*fn)(void *opaque), unsigned int resumed)
{
	pthread_t vcpu;
	struct err err;

	set_up();
	bring_up(1);
	probe->blocked = true;
	CHECK_EQ(pthread_create(&vcpu, NULL, fn, NULL), 0);
	while (!__atomic_load_n(&probe->waits, __ATOMIC_SEQ_CST))
		usleep(100);
	CHECK_EQ(virtio_transport_drain(pci, monotonic_ms() + 1, &err), -ETIMEDOUT);
	CHECK_STR(err.text, "probe0: the guest waits for it, and it does not answer");
	virtio_transport_resume(pci);
	virtio_transport_drain(pci, 0, NULL);
	virtio_transport_resume(pci);
	__atomic_store_n(&probe->blocked, false, __ATOMIC_SEQ_CST);
	pthread_join(vcpu, NULL);
	CHECK_EQ(virtio_transport_drain(pci, VIRTIO_NO_DEADLINE, &err), 0);
	virtio_transport_resume(pci);
	CHECK_EQ(probe->resumed, resumed);
}

static void a_guest_that_waits_holds_up_nobody(void)
{
	is_not_waited_for(reset_it, 0);
	is_not_waited_for(write_config, 1);
}

/* Nobody who only tries to get a lock gets it: another vCPU has just taken it. */
int pthread_mutex_trylock(pthread_mutex_t *mutex)
{
	return EBUSY;
}

/* A pause that has begun is undone while the guest's access waits: the device runs again when it has ended. */
static void goes_on_after_the_guest_has_waited(void)
{
	pthread_t vcpu;

	set_up();
	bring_up(1);
	CHECK_EQ(virtio_transport_drain(pci, VIRTIO_NO_DEADLINE, NULL), 0);
	probe->blocked = true;
	CHECK_EQ(pthread_create(&vcpu, NULL, write_config, NULL), 0);
	while (!__atomic_load_n(&probe->waits, __ATOMIC_SEQ_CST))
		usleep(100);
	virtio_transport_resume(pci);
	CHECK_EQ(probe->resumed, 0);
	__atomic_store_n(&probe->blocked, false, __ATOMIC_SEQ_CST);
	pthread_join(vcpu, NULL);
	CHECK_EQ(probe->resumed, 1);
}

static void breaks_and_heals(void)
{
	set_up();
	SET(msix_config, 0);
	bring_up(1);
	virtio_device_broken(&probe->device, "just so");
	CHECK_EQ(GET(device_status), DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET);
	CHECK_EQ(get(VIRTIO_PCI_CAP_ISR_CFG, 0, 1), 2);
	virtio_device_broken(&probe->device, "again");
	CHECK_EQ(get(VIRTIO_PCI_CAP_ISR_CFG, 0, 1), 0);
	SET(device_status, DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET | VIRTIO_CONFIG_S_FAILED);
	CHECK_EQ(GET(device_status), DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET | VIRTIO_CONFIG_S_FAILED);
	SET(device_status, 0);
	CHECK_EQ(GET(device_status), 0);
	CHECK_EQ(probe->resets, 1);
	bring_up(1);
	CHECK_EQ(GET(device_status), DRIVER_OK);
}

static void cannot_be_started(void)
{
	set_up();
	probe->fail = -EIO;
	bring_up(1);
	CHECK_EQ(GET(device_status), DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET);
	CHECK(!probe->device.active);
	command(MEMORY);
	command(MEMORY | MASTER); /* is not tried again */
	CHECK_EQ(probe->activated, 1);
	SET(device_status, 0);
	CHECK_EQ(probe->resets, 0);
	probe->fail = 0;
	negotiate(0);
	enable_queue(0);
	program_queue(1, UINT64_MAX - 15, 0x1000, 0x1000); /* not memory */
	SET(device_status, DRIVER_OK);
	CHECK_EQ(GET(device_status), DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET);
	CHECK_EQ(probe->activated, 1);
	SET(device_status, 0);
	bring_up(2);
	CHECK_EQ(GET(device_status), DRIVER_OK);
	CHECK_EQ(probe->activated, 2);
}

static void leaves_nothing(void)
{
	set_up();
	bring_up(3);
	probe->device.transport->call_fd(&probe->device, 0);
	destroyed = 0;
	virtio_transport_destroy(pci);
	CHECK_EQ(destroyed, 1);
	CHECK_EQ(rig.attached, 0);
	CHECK(!pci_bus_function(rig.bus, SLOT));
	pci = NULL;
	for (unsigned int i = 0; i < RIG_VECTORS; i++)
		CHECK(!rig.vectors[i].used);
	virtio_transport_destroy(NULL);
	rig_close(&rig);
}

/* No slot is free: the device stays the caller's. */
static void fails_without_a_slot(void)
{
	struct virtio_transport *second = NULL;
	struct probe *other = calloc(1, sizeof(*other));
	struct err err;

	set_up();
	CHECK_EQ(virtio_device_init(&other->device, &probe_ops, "other0", 42, 1, (uint16_t[]){8}, memory->memory, NULL,
				    NULL), 0);
	CHECK_EQ(virtio_pci_create(&other->device, rig.bus, rig.mmio, &rig.msi, loop, SLOT, &second, &err), -EBUSY);
	CHECK(!second);
	destroyed = 0;
	other->device.ops->destroy(&other->device);
	CHECK_EQ(destroyed, 1);
}

/* ---- a real device, from end to end ---- */

static void serves_entropy(void)
{
	struct virtio_device *device;
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	uint64_t ring, buffer;

	for (int msix = 0; msix < 2; msix++) {
		set_up();
		virtio_transport_destroy(pci);
		pci = NULL;
		CHECK_EQ(virtio_rng_create("rng0", memory->memory, loop, NULL, &device, NULL), 0);
		plug(device);
		enable_msix(msix);
		program_vector(1, 55, false);
		SET(queue_select, 0);
		SET(queue_msix_vector, 1);
		ring = driver_alloc(memory, 3 * 4096, 4096);
		buffer = driver_alloc(memory, 4096, 4096);
		desc = driver_at(memory, ring);
		avail = driver_at(memory, ring + 4096);
		used = driver_at(memory, ring + 8192);
		negotiate(0);
		program_queue(0, ring, ring + 4096, ring + 8192);
		SET(device_status, DRIVER_OK);
		for (uint16_t i = 0; i < 200; i++) {
			bool done = false;

			desc[0] = (struct vring_desc){buffer, 64, VRING_DESC_F_WRITE, 0};
			avail->ring[i % 64] = 0;
			__atomic_store_n(&avail->idx, i + 1, __ATOMIC_RELEASE);
			set(VIRTIO_PCI_CAP_NOTIFY_CFG, 0, 2, 0);
			for (int wait = 0; wait < 5000 && !done; wait++) {
				done = msix ? rig_delivered(&rig, 55) : line_high();
				if (!done)
					usleep(wait < 1000 ? 10 : 1000);
			}
			CHECK(done);
			if (!msix)
				CHECK_EQ(get(VIRTIO_PCI_CAP_ISR_CFG, 0, 1), 1);
			CHECK_EQ(__atomic_load_n(&used->idx, __ATOMIC_ACQUIRE), i + 1);
			CHECK_EQ(used->ring[i % 64].len, 64);
		}
	}
	tear_down();
}

/* ---- several vCPUs ---- */

static void *hammer(void *seed)
{
	unsigned int state = (unsigned int)(uintptr_t)seed;

	for (unsigned int i = 0; i < 4000; i++) {
		uint8_t data[4] = {0};

		state = state * 1103515245 + 12345;
		switch (state >> 16 & 7) {
		case 0:
			bus_read(rig.mmio, bar + (state >> 20 & 0x7ffc), data, 4);
			break;
		case 1:
			data[0] = (uint8_t[]){DRIVER_OK, DRIVER, FEATURES_OK, 0}[state >> 20 & 3];
			bus_write(rig.mmio, bar + COMMON(device_status), data, 1);
			break;
		case 2:
			command(state >> 20 & 1 ? MEMORY | MASTER : MEMORY);
			break;
		case 3:
			data[0] = 1; /* VERSION_1 */
			bus_write(rig.mmio, bar + COMMON(guest_feature_select), data, 4);
			bus_write(rig.mmio, bar + COMMON(guest_feature), data, 4);
			break;
		case 4:
			enable_msix(state >> 20 & 1);
			break;
		case 5:
			probe->device.transport->notify_queue(&probe->device, state >> 20 & 1);
			break;
		case 6:
			config_changes();
			break;
		default:
			rig_cfg_write(&rig, SLOT, window() + (state >> 20 & 28), 4, state >> 24);
		}
	}
	return NULL;
}

/* Whatever two vCPUs do at once, the device's life stays in order. */
static void survives_two_vcpus(void)
{
	pthread_t threads[2];

	set_up();
	for (uintptr_t i = 0; i < 2; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, hammer, (void *)(i + 17)), 0);
	for (unsigned int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	command(MEMORY | MASTER);
	SET(device_status, 0);
	CHECK(probe->activated > 20);
	CHECK_EQ(probe->activated, probe->resets);
	CHECK(probe->resumed <= probe->drained);
	CHECK_EQ(GET(device_status), 0);
	tear_down();
}

TEST_MAIN(TEST(interrupts_by_message), TEST(interrupts_by_pin), TEST(tells_of_changed_calls), TEST(hands_out_call_fds),
	  TEST(attaches_notifications_once), TEST(notifies_without_the_kernel),
	  TEST(waits_for_bus_mastering_and_pauses), TEST(goes_on_when_a_pause_gives_up),
	  TEST(a_guest_that_waits_holds_up_nobody),
	  TEST(goes_on_after_the_guest_has_waited), TEST(breaks_and_heals),
	  TEST(cannot_be_started), TEST(leaves_nothing), TEST(fails_without_a_slot), TEST(serves_entropy),
	  TEST(survives_two_vcpus))
