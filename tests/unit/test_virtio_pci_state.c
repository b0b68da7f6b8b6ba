/* SPDX-License-Identifier: Apache-2.0 */
/*
 * devices/virtio/virtio_pci_state, and below it the states of PCI functions, MSI-X and virtqueues: a device moves to
 * another machine at every point of its life and goes on as if it had been paused.
 */
#include "core/irq.h"
#include "tests/unit/state_subject.h"
#include "tests/unit/virtio_probe.h"

/* What a case begins with; tear_down takes it. */
static void *make(void)
{
	move_to(&make_probe()->device);
	return pci;
}

static int save(void *object, struct state_buffer *out, struct err *err)
{
	return virtio_transport_save(pci, out, err);
}

static int load(void *object, const void *data, size_t len, struct err *err)
{
	return virtio_transport_load(pci, data, len, err);
}

/* Every byte of config space and of the BAR is read and written; the device runs and interrupts. */
static void use(void *object)
{
	static struct virtq_chain chain;

	virtio_transport_resume(pci);
	for (unsigned int i = 0; i < QUEUES; i++) {
		struct virtqueue *vq = &probe->device.queues[i];

		notify(i);
		if (probe->device.active && vq->setup.enabled && virtqueue_pop(vq, &chain) == 1)
			virtqueue_push(vq, &chain, 0);
	}
	for (unsigned int at = 0; at < 256; at += 4)
		rig_cfg_write(&rig, SLOT, at, 4, rig_cfg(&rig, SLOT, at, 4));
	command(MEMORY | MASTER);
	bar = rig_bar(&rig, SLOT);
	for (unsigned int at = 0; at < 0x8000; at += 0x1000)
		for (unsigned int i = 0; i < 64; i += 4) {
			uint8_t data[4];

			if (bus_read(rig.mmio, bar + at + i, data, 4))
				bus_write(rig.mmio, bar + at + i, data, 4);
		}
}

static void leave(void *object)
{
}

static const struct state_subject subject = {make, save, load, use, leave};

/* Pauses, moves, and checks that nothing has changed on the way. */
static void move(void)
{
	virtio_transport_drain(pci, VIRTIO_NO_DEADLINE, NULL);
	subject_comes_back(&subject, pci);
	bar = rig_bar(&rig, SLOT);
}

/* Saves what is there, and gives what loading it into the device that now is there answers. */
static struct state_buffer saved;

static void save_it(void)
{
	state_buffer_free(&saved);
	virtio_transport_drain(pci, VIRTIO_NO_DEADLINE, NULL);
	CHECK_EQ(virtio_transport_save(pci, &saved, NULL), 0);
}

static void is_refused(int code, const char *text)
{
	struct err err = {""};

	CHECK_EQ(virtio_transport_load(pci, saved.data, saved.len, &err), code);
	if (!strstr(err.text, text))
		printf("# %s\n", err.text);
	CHECK(strstr(err.text, text));
}

/* ---- life ---- */

static void a_device_that_nobody_has_touched_moves(void)
{
	set_up();
	move();
	virtio_transport_resume(pci);
	command(MEMORY | MASTER);
	bring_up(3);
	CHECK_EQ(probe->activated, 1);
}

static void a_driver_goes_on_in_the_middle_of_its_steps(void)
{
	set_up();
	SET(device_feature_select, 1);
	negotiate(OWN_FEATURE);
	SET(queue_select, 1);
	SET(queue_size, 8);
	SET(queue_desc_lo, 0x41000);
	move();
	CHECK_EQ(GET(device_status), FEATURES_OK);
	CHECK_EQ(GET(device_feature_select), 1);
	CHECK_EQ(GET(guest_feature_select), 1);
	CHECK_EQ(GET(queue_select), 1);
	CHECK_EQ(GET(queue_size), 8);
	CHECK_EQ(GET(queue_desc_lo), 0x41000);
	CHECK_EQ(GET(queue_enable), 0);
	virtio_transport_resume(pci);
	enable_queue(1);
	CHECK_EQ(probe->activated, 0);
	SET(device_status, DRIVER_OK);
	CHECK_EQ(probe->activated, 1);
	CHECK_EQ(probe->features, VERSION_1 | OWN_FEATURE);
}

/* One chain of a byte in queue index, made available. */
static void add_chain(unsigned int index, uint16_t at)
{
	const struct virtqueue *vq = &probe->device.queues[index];
	struct vring_desc *desc = driver_at(memory, vq->setup.desc);
	struct vring_avail *avail = driver_at(memory, vq->setup.avail);

	desc[at % vq->setup.size] = (struct vring_desc){.addr = htole64(DRIVER_RAM_BASE), .len = htole32(1)};
	avail->ring[at % vq->setup.size] = htole16(at % vq->setup.size);
	avail->idx = htole16((uint16_t)(at + 1));
}

static void an_active_device_is_resumed_where_it_was(void)
{
	static struct virtq_chain chain;
	struct virtqueue *vq;

	set_up();
	bring_up(2);
	vq = &probe->device.queues[0];
	for (uint16_t i = 0; i < 40; i++) { /* more than once around */
		add_chain(0, i);
		if (i < 38) {
			CHECK_EQ(virtqueue_pop(vq, &chain), 1);
			virtqueue_push(vq, &chain, 0);
		}
		if (i == 30)
			virtqueue_notify(vq);
	}
	move();
	vq = &probe->device.queues[0];
	CHECK_EQ(probe->activated + probe->resumed + probe->drained, 0);
	CHECK_EQ(probe->prepared, 1);
	CHECK(probe->device.active && virtio_has(&probe->device, VIRTIO_F_VERSION_1));
	CHECK_EQ(vq->signalled_used, 31);
	virtio_transport_resume(pci);
	CHECK_EQ(probe->activated, 0);
	CHECK_EQ(probe->resumed, 1);
	for (uint16_t i = 38; i < 40; i++) {
		CHECK_EQ(virtqueue_pop(vq, &chain), 1);
		CHECK_EQ(chain.head, i % 16);
		virtqueue_push(vq, &chain, 0);
	}
	CHECK_EQ(virtqueue_pop(vq, &chain), 0);
	CHECK_EQ(le16toh(((struct vring_used *)driver_at(memory, vq->setup.used))->idx), 40);
	SET(device_status, 0);
	CHECK_EQ(probe->resets, 1);
}

static void a_device_without_bus_mastering_waits_for_it(void)
{
	set_up();
	command(MEMORY);
	bring_up(1);
	move();
	virtio_transport_resume(pci);
	CHECK_EQ(probe->activated, 0);
	command(MEMORY | MASTER);
	CHECK_EQ(probe->activated, 1);
	command(MEMORY); /* active, and yet not running */
	move();
	virtio_transport_resume(pci);
	CHECK_EQ(probe->resumed, 0);
	command(MEMORY | MASTER);
	CHECK_EQ(probe->resumed, 1);
}

static void a_broken_device_stays_so_until_it_is_reset(void)
{
	set_up();
	bring_up(1);
	virtio_device_broken(&probe->device, "told to");
	probe->device.queues[0].broken = true;
	move();
	CHECK_EQ(GET(device_status), DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET);
	CHECK(probe->device.queues[0].broken);
	virtio_transport_resume(pci);
	SET(device_status, 0);
	bring_up(1);
	CHECK_EQ(GET(device_status), DRIVER_OK);
}

static void a_move_that_fails_leaves_the_source_as_it_was(void)
{
	set_up();
	bring_up(1);
	save_it();
	virtio_transport_resume(pci);
	CHECK_EQ(probe->drained, 1);
	CHECK_EQ(probe->resumed, 1);
	notify(0);
	CHECK(line_high());
}

/* ---- BARs, notifications and the window ---- */

static void a_bar_is_decoded_where_the_guest_has_put_it(void)
{
	uint64_t moved = RIG_MEM64 + GIB(1);

	set_up();
	bring_up(3);
	command(0);
	rig_cfg_write(&rig, SLOT, PCI_BASE_ADDRESS_0, 4, (uint32_t)moved);
	rig_cfg_write(&rig, SLOT, PCI_BASE_ADDRESS_1, 4, (uint32_t)(moved >> 32));
	command(MEMORY | MASTER);
	rig_cfg_write(&rig, SLOT, PCI_INTERRUPT_LINE, 1, 11);
	move();
	CHECK_EQ(bar, moved);
	CHECK_EQ(rig_cfg(&rig, SLOT, PCI_INTERRUPT_LINE, 1), 11);
	CHECK_EQ(rig.attached, 3); /* notifications of enabled queues */
	CHECK_EQ(GET(device_status), DRIVER_OK);
}

static void a_bar_that_is_not_decoded_stays_so(void)
{
	set_up();
	command(0);
	move();
	CHECK(!bus_read(rig.mmio, bar, (uint8_t[4]){0}, 4));
	command(MEMORY);
	CHECK(bus_read(rig.mmio, bar, (uint8_t[4]){0}, 4));
}

static void the_window_still_looks_where_it_looked(void)
{
	set_up();
	aim(0, COMMON(device_status), 1);
	move();
	SET(device_status, ACK);
	CHECK_EQ(rig_cfg(&rig, SLOT, window() + sizeof(struct virtio_pci_cap), 1), ACK);
}

/* ---- interrupts ---- */

/* MSI-X with config at vector 0, and queues 0 to 2 at 1 to 3, of which the third is masked. */
static void program_vectors(void)
{
	enable_msix(true);
	for (unsigned int i = 0; i <= QUEUES; i++)
		program_vector(i, 100 + i, i == 3);
	SET(msix_config, 0);
	for (unsigned int i = 0; i < QUEUES; i++) {
		SET(queue_select, i);
		SET(queue_msix_vector, i + 1);
	}
}

static void vectors_are_connected_as_they_were(void)
{
	set_up();
	program_vectors();
	bring_up(3);
	move();
	virtio_transport_resume(pci);
	for (unsigned int i = 0; i < 3; i++) /* one each, in case it was on its way */
		CHECK_EQ(rig_delivered(&rig, 100 + i), 1);
	notify(0);
	CHECK_EQ(rig_delivered(&rig, 101), 1);
	notify(2);
	CHECK_EQ(rig_delivered(&rig, 103), 0);
	program_vector(3, 103, false);
	CHECK_EQ(rig_delivered(&rig, 103), 1);
	virtio_transport_drain(pci, VIRTIO_NO_DEADLINE, NULL);
	virtio_transport_resume(pci);
	CHECK_EQ(rig_delivered(&rig, 101), 0); /* that was once */
}

static uint8_t pending_bits(void)
{
	unsigned int cap = rig_find_cap(&rig, SLOT, PCI_CAP_ID_MSIX, 0);
	uint8_t bits;

	CHECK(bus_read(rig.mmio, bar + (rig_cfg(&rig, SLOT, cap + PCI_MSIX_PBA, 4) & ~7u), &bits, 1));
	return bits;
}

static void an_interrupt_in_a_masked_vector_is_not_lost(void)
{
	set_up();
	program_vectors();
	bring_up(3);
	notify(2);
	CHECK_EQ(pending_bits(), 1 << 3);
	move();
	CHECK_EQ(pending_bits(), 1 << 3);
	virtio_transport_resume(pci);
	program_vector(3, 203, false);
	CHECK_EQ(rig_delivered(&rig, 203), 1);
}

static void interrupts_of_a_masked_function_are_not_lost(void)
{
	unsigned int cap;

	set_up();
	program_vectors();
	bring_up(3);
	cap = rig_find_cap(&rig, SLOT, PCI_CAP_ID_MSIX, 0);
	rig_cfg_write(&rig, SLOT, cap + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
	notify(0);
	config_changes();
	move();
	virtio_transport_resume(pci);
	CHECK_EQ(rig_delivered(&rig, 100) + rig_delivered(&rig, 101), 0);
	CHECK_EQ(pending_bits(), 3);
	enable_msix(true);
	CHECK_EQ(rig_delivered(&rig, 100), 1);
	CHECK_EQ(rig_delivered(&rig, 101), 1);
	CHECK_EQ(rig_delivered(&rig, 102), 0);
}

static void an_interrupt_by_the_pin_is_not_lost(void)
{
	set_up();
	bring_up(3);
	notify(1);
	config_changes();
	move();
	CHECK(line_high());
	CHECK_EQ(get(VIRTIO_PCI_CAP_ISR_CFG, 0, 1), 3);
	CHECK(!line_high());
}

static void what_somebody_else_has_kicked_is_not_lost_either(void)
{
	set_up();
	bring_up(3);
	eventfd_kick(probe->device.transport->call_fd(&probe->device, 1));
	/* Before anything is saved: a vCPU's state is saved before that of a device, and must have the interrupt. */
	CHECK_EQ(virtio_transport_drain(pci, VIRTIO_NO_DEADLINE, NULL), 0);
	CHECK(line_high());
	move();
	CHECK(line_high());
	CHECK_EQ(get(VIRTIO_PCI_CAP_ISR_CFG, 0, 1), 1);
}

/* ---- what is refused ---- */

static void features_that_are_missing_are_named(void)
{
	set_up();
	negotiate(OWN_FEATURE | 1ull << VIRTIO_RING_F_EVENT_IDX);
	save_it();
	make();
	probe->device.offered &= ~(OWN_FEATURE | 1ull << VIRTIO_RING_F_EVENT_IDX);
	is_refused(-ENOTSUP, "probe0: virtio-pci: the guest uses features that this device does not have: virtio feature bits 3, 29");
}

static void another_device_is_refused(void)
{
	set_up();
	save_it();
	make();
	probe->device.type = 43;
	is_refused(-EBADMSG, "a virtio device of type 42, not 43");
	make();
	pci_bus_function(rig.bus, SLOT)->config[PCI_DEVICE_ID]++;
	is_refused(-EBADMSG, "another device, or another make of it");
}

static void another_slot_is_refused(void)
{
	set_up();
	save_it();
	virtio_transport_destroy(pci);
	CHECK_EQ(virtio_pci_create(&make_probe()->device, rig.bus, rig.mmio, &rig.msi, loop, PCI_DEVFN(4, 0), &pci, NULL), 0);
	is_refused(-EBADMSG, "it was in PCI slot 01.0, and is in 04.0 here");
}

static void memory_that_is_not_the_guests_is_noticed(void)
{
	struct vring_avail *avail;

	set_up();
	bring_up(1);
	add_chain(0, 0);
	avail = driver_at(memory, probe->device.queues[0].setup.avail);
	save_it();
	make();
	avail->idx = 0; /* as a page that was not sent */
	is_refused(-EBADMSG, "queue 0: guest memory does not have the saved ring at 0x");
}

static void a_place_that_is_taken_is_refused(void)
{
	struct probe *other;
	struct virtio_transport *in_the_way;

	set_up();
	save_it();
	make();
	in_the_way = pci;
	rig_cfg_write(&rig, SLOT, PCI_COMMAND, 2, MEMORY);
	other = make_probe();
	CHECK_EQ(virtio_pci_create(&other->device, rig.bus, rig.mmio, &rig.msi, loop, PCI_DEVFN(4, 0), &pci, NULL), 0);
	pci_bus_function(rig.bus, PCI_DEVFN(4, 0))->devfn = SLOT; /* and says that it is the one */
	is_refused(-EINVAL, "overlapping another BAR");
	pci_bus_function(rig.bus, PCI_DEVFN(4, 0))->devfn = PCI_DEVFN(4, 0);
	virtio_transport_destroy(pci);
	pci = in_the_way;
}

static void a_device_that_runs_is_neither_saved_nor_loaded(void)
{
	struct state_buffer out = {0};

	set_up();
	bring_up(1);
	CHECK_EQ(virtio_transport_save(pci, &out, NULL), -EBUSY);
	CHECK_EQ(out.len, 0);
	save_it();
	is_refused(-EBUSY, "it is in use");
}

static void a_vector_that_cannot_be_had_is_an_error(void)
{
	set_up();
	program_vectors();
	save_it();
	make();
	for (unsigned int i = 0; i < RIG_VECTORS; i++)
		rig.vectors[i].used = true;
	is_refused(-EMFILE, "vector 0 cannot be created");
	memset(rig.vectors, 0, sizeof(rig.vectors));
}

/* ---- hostile records ---- */

static void any_record_is_survived(void)
{
	set_up();
	program_vectors();
	bring_up(3);
	add_chain(0, 0);
	add_chain(2, 0);
	notify(2);
	virtio_transport_drain(pci, VIRTIO_NO_DEADLINE, NULL);
	subject_survives(&subject, pci);
}

static void the_end(void)
{
	state_buffer_free(&saved);
	tear_down();
}

TEST_MAIN(TEST(a_device_that_nobody_has_touched_moves), TEST(a_driver_goes_on_in_the_middle_of_its_steps),
	  TEST(an_active_device_is_resumed_where_it_was), TEST(a_device_without_bus_mastering_waits_for_it),
	  TEST(a_broken_device_stays_so_until_it_is_reset), TEST(a_move_that_fails_leaves_the_source_as_it_was),
	  TEST(a_bar_is_decoded_where_the_guest_has_put_it), TEST(a_bar_that_is_not_decoded_stays_so),
	  TEST(the_window_still_looks_where_it_looked), TEST(vectors_are_connected_as_they_were),
	  TEST(an_interrupt_in_a_masked_vector_is_not_lost), TEST(interrupts_of_a_masked_function_are_not_lost),
	  TEST(an_interrupt_by_the_pin_is_not_lost), TEST(what_somebody_else_has_kicked_is_not_lost_either),
	  TEST(features_that_are_missing_are_named), TEST(another_device_is_refused), TEST(another_slot_is_refused),
	  TEST(memory_that_is_not_the_guests_is_noticed), TEST(a_place_that_is_taken_is_refused),
	  TEST(a_device_that_runs_is_neither_saved_nor_loaded), TEST(a_vector_that_cannot_be_had_is_an_error),
	  TEST(any_record_is_survived), TEST(the_end))
