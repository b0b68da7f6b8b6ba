/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The saved state of every virtio device as the machine saves it, function and queues included: untouched and busy ones come
 * back byte for byte, broken records are survived, and another kind's record is refused.
 */
#include "tests/unit/state_devices.h"
#include "tests/unit/state_subject.h"
#include "tests/unit/test.h"

static struct state_devices d;
static unsigned int kind;

static void *make(void)
{
	state_devices_make(&d, kind);
	return &d;
}

static int save(void *object, struct state_buffer *out, struct err *err)
{
	return virtio_pci_save(d.pci, out, err);
}

static int load(void *object, const void *data, size_t len, struct err *err)
{
	return virtio_pci_load(d.pci, data, len, err);
}

static void use(void *object)
{
	state_devices_use(&d);
}

static void drop(void *object)
{
}

static const struct state_subject subject = {make, save, load, use, drop};

static void fresh_ones_come_back(void)
{
	state_devices_open(&d);
	for (kind = 0; kind < state_device_count; kind++) {
		make();
		virtio_pci_drain(d.pci, VIRTIO_NO_DEADLINE, NULL);
		subject_comes_back(&subject, &d);
	}
	state_devices_close(&d);
}

static void busy_ones_come_back_and_go_on(void)
{
	state_devices_open(&d);
	for (kind = 0; kind < state_device_count; kind++) {
		make();
		state_devices_bring_up(&d);
		CHECK(virtio_pci_device(d.pci)->active);
		virtio_pci_drain(d.pci, VIRTIO_NO_DEADLINE, NULL);
		subject_comes_back(&subject, &d);
		CHECK(virtio_pci_device(d.pci)->active);
		use(&d);
		CHECK(!virtio_pci_device(d.pci)->active);
	}
	state_devices_close(&d);
}

static void any_record_is_survived(void)
{
	state_devices_open(&d);
	for (kind = 0; kind < state_device_count; kind++) {
		make();
		state_devices_bring_up(&d);
		virtio_pci_drain(d.pci, VIRTIO_NO_DEADLINE, NULL);
		subject_survives(&subject, &d);
	}
	state_devices_close(&d);
}

static void another_kinds_record_is_refused(void)
{
	state_devices_open(&d);
	for (kind = 0; kind < state_device_count; kind++) {
		struct state_buffer buffer = {0};

		make();
		virtio_pci_drain(d.pci, VIRTIO_NO_DEADLINE, NULL);
		CHECK_EQ(save(&d, &buffer, NULL), 0);
		for (unsigned int i = 1; i < state_device_count; i++) {
			state_devices_make(&d, (kind + i) % state_device_count);
			CHECK_EQ(load(&d, buffer.data, buffer.len, NULL), -EBADMSG);
		}
		state_buffer_free(&buffer);
	}
	state_devices_close(&d);
}

TEST_MAIN(TEST(fresh_ones_come_back), TEST(busy_ones_come_back_and_go_on), TEST(any_record_is_survived),
	  TEST(another_kinds_record_is_refused))
