/* SPDX-License-Identifier: Apache-2.0 */
/*
 * devices/virtio/virtio_pci, what the driver reads and writes: capabilities, negotiation step by step, queues, the
 * window in config space, the device's own config; and what is refused.
 */
#include "tests/unit/virtio_probe.h"

/* ---- what it looks like ---- */

static void shows_itself(void)
{
	unsigned int seen = 0, cap;

	set_up();
	CHECK_EQ(rig_cfg(&rig, SLOT, PCI_VENDOR_ID, 2), 0x1af4);
	CHECK_EQ(rig_cfg(&rig, SLOT, PCI_DEVICE_ID, 2), 0x1040 + 42);
	CHECK_EQ(rig_cfg(&rig, SLOT, PCI_REVISION_ID, 1), 1);
	CHECK_EQ(rig_cfg(&rig, SLOT, PCI_CLASS_DEVICE, 2), 0x00ff);
	CHECK(rig_cfg(&rig, SLOT, PCI_SUBSYSTEM_ID, 2) >= 0x40);
	CHECK_EQ(rig_cfg(&rig, SLOT, PCI_INTERRUPT_PIN, 1), 1);
	for (unsigned int n = 0; (cap = rig_find_cap(&rig, SLOT, PCI_CAP_ID_VNDR, n)); n++) {
		uint32_t type = rig_cfg(&rig, SLOT, cap + VIRTIO_PCI_CAP_CFG_TYPE, 1);
		uint32_t length = rig_cfg(&rig, SLOT, cap + VIRTIO_PCI_CAP_LENGTH, 4);

		seen |= 1u << type;
		CHECK_EQ(rig_cfg(&rig, SLOT, cap + VIRTIO_PCI_CAP_BAR, 1), 0);
		CHECK_EQ(length, ((uint32_t[]){0, sizeof(struct virtio_pci_common_cfg), 4 * QUEUES, 1, 8, 0})[type]);
		CHECK_EQ(rig_cfg(&rig, SLOT, cap + VIRTIO_PCI_CAP_OFFSET, 4) % 4096, 0);
		if (type == VIRTIO_PCI_CAP_NOTIFY_CFG)
			CHECK_EQ(rig_cfg(&rig, SLOT, cap + VIRTIO_PCI_NOTIFY_CAP_MULT, 4), 4);
	}
	CHECK_EQ(seen, 0x3e);
	cap = rig_find_cap(&rig, SLOT, PCI_CAP_ID_MSIX, 0);
	CHECK(cap);
	CHECK_EQ(rig_cfg(&rig, SLOT, cap + PCI_MSIX_FLAGS, 2), QUEUES);
	CHECK_EQ(GET(num_queues), QUEUES);
	CHECK_EQ(GET(msix_config), VIRTIO_MSI_NO_VECTOR);
}

/* ---- negotiation ---- */

static void negotiates_features(void)
{
	uint64_t offered = 0;

	set_up();
	for (uint32_t i = 0; i < 2; i++) {
		SET(device_feature_select, i);
		offered |= (uint64_t)GET(device_feature) << 32 * i;
	}
	CHECK_EQ(offered, OWN_FEATURE | VERSION_1 | 1ull << VIRTIO_RING_F_INDIRECT_DESC | 1ull << VIRTIO_RING_F_EVENT_IDX);
	SET(device_feature_select, 2);
	CHECK_EQ(GET(device_feature), 0);
	SET(device_feature_select, UINT32_MAX);
	CHECK_EQ(GET(device_feature), 0);

	SET(guest_feature_select, 2); /* there are no such features to accept */
	SET(guest_feature, 0xff);
	CHECK_EQ(GET(guest_feature), 0);
	negotiate(OWN_FEATURE);
	CHECK_EQ(GET(device_status), FEATURES_OK);
	SET(guest_feature_select, 0); /* too late */
	SET(guest_feature, 0);
	CHECK_EQ(GET(guest_feature), OWN_FEATURE);
	SET(device_status, DRIVER_OK);
	CHECK_EQ(GET(device_status), DRIVER_OK);
	CHECK_EQ(probe->activated, 1);
	CHECK_EQ(probe->features, OWN_FEATURE | VERSION_1);
	CHECK(probe->device.active);
}

static void refuses_wrong_features(void)
{
	set_up();
	negotiate(1ull << 5); /* never offered */
	CHECK_EQ(GET(device_status), DRIVER);
	SET(device_status, DRIVER_OK);
	CHECK_EQ(GET(device_status), DRIVER);
	CHECK_EQ(probe->activated, 0);
	SET(guest_feature_select, 0);
	SET(guest_feature, 0);
	SET(device_status, FEATURES_OK);
	CHECK_EQ(GET(device_status), FEATURES_OK);

	SET(device_status, 0);
	SET(guest_feature_select, 1); /* a driver for what was before 1.0 */
	SET(guest_feature, 0);
	SET(device_status, FEATURES_OK);
	CHECK_EQ(GET(device_status), DRIVER);
}

static void status_moves_forward_only(void)
{
	set_up();
	SET(device_status, VIRTIO_CONFIG_S_DRIVER_OK | DRIVER);
	CHECK_EQ(GET(device_status), DRIVER);
	SET(device_status, ACK);
	CHECK_EQ(GET(device_status), DRIVER);
	bring_up(1);
	SET(device_status, FEATURES_OK);
	CHECK_EQ(GET(device_status), DRIVER_OK);
	SET(device_status, DRIVER_OK);
	CHECK_EQ(probe->activated, 1);
	SET(device_status, DRIVER_OK | VIRTIO_CONFIG_S_FAILED);
	CHECK_EQ(GET(device_status), DRIVER_OK | VIRTIO_CONFIG_S_FAILED);
	SET(device_status, 0);
	CHECK_EQ(GET(device_status), 0);
	CHECK_EQ(probe->resets, 1);
	CHECK(!probe->device.active);
	SET(device_status, 0); /* what is not active is not reset again */
	CHECK_EQ(probe->resets, 1);
	bring_up(2);
	CHECK_EQ(probe->activated, 2);
}

/* ---- queues ---- */

static void programs_queues(void)
{
	set_up();
	negotiate(0);
	SET(queue_select, 1);
	CHECK_EQ(GET(queue_size), 32);
	CHECK_EQ(GET(queue_notify_off), 1);
	CHECK_EQ(GET(queue_enable), 0);
	for (unsigned int i = 0; i < 4; i++) {
		SET(queue_size, ((uint16_t[]){0, 24, 64, 0x8000})[i]);
		CHECK_EQ(GET(queue_size), 32);
	}
	SET(queue_size, 8);
	CHECK_EQ(GET(queue_size), 8);
	SET(queue_enable, 2);
	CHECK_EQ(GET(queue_enable), 0);
	set(VIRTIO_PCI_CAP_COMMON_CFG, COMMON(queue_desc_lo), 8, 0x123456789abcdef0);
	CHECK_EQ(GET(queue_desc_lo), 0x9abcdef0);
	CHECK_EQ(GET(queue_desc_hi), 0x12345678);
	set(VIRTIO_PCI_CAP_COMMON_CFG, COMMON(queue_desc_lo), 2, 0xffff); /* not a whole field */
	CHECK_EQ(GET(queue_desc_lo), 0x9abcdef0);
	set(VIRTIO_PCI_CAP_COMMON_CFG, COMMON(queue_size), 4, 0xffffffff);
	CHECK_EQ(GET(queue_size), 8);
	enable_queue(1);
	CHECK_EQ(GET(queue_enable), 1);
	SET(queue_size, 4); /* too late for all of it */
	SET(queue_avail_lo, 0x10);
	SET(queue_enable, 0);
	CHECK_EQ(GET(queue_size), 8);
	CHECK(GET(queue_avail_lo) != 0x10);
	CHECK_EQ(GET(queue_enable), 1);
	SET(device_status, DRIVER_OK);
	SET(queue_select, 0);
	SET(queue_enable, 1);
	CHECK_EQ(GET(queue_enable), 0);
	CHECK(probe->device.queues[1].setup.enabled && !probe->device.queues[0].setup.enabled);
	SET(device_status, 0);
	SET(queue_select, 1);
	CHECK_EQ(GET(queue_size), 32);
	CHECK_EQ(GET(queue_enable), 0);
	CHECK_EQ(GET(queue_desc_lo), 0);
}

static void has_no_queue_beyond_the_last(void)
{
	set_up();
	for (unsigned int i = 0; i < 3; i++) {
		SET(queue_select, ((uint16_t[]){QUEUES, VIRTIO_MAX_QUEUES, UINT16_MAX})[i]);
		CHECK_EQ(GET(queue_size), 0);
		CHECK_EQ(GET(queue_enable), 0);
		CHECK_EQ(GET(queue_msix_vector), VIRTIO_MSI_NO_VECTOR);
		SET(queue_size, 8);
		SET(queue_msix_vector, 0);
		SET(queue_desc_lo, 0x1000);
		SET(queue_enable, 1);
		CHECK_EQ(GET(queue_enable), 0);
		CHECK_EQ(GET(queue_msix_vector), VIRTIO_MSI_NO_VECTOR);
	}
	CHECK_EQ(rig.attaches, 0);
}

/* ---- the window in config space ---- */

static void opens_a_window(void)
{
	const unsigned int data = sizeof(struct virtio_pci_cap);

	set_up();
	aim(0, COMMON(num_queues), 2);
	CHECK_EQ(rig_cfg(&rig, SLOT, window() + data, 2), QUEUES);
	aim(0, COMMON(device_status), 1);
	rig_cfg_write(&rig, SLOT, window() + data, 1, ACK);
	CHECK_EQ(GET(device_status), ACK);
	bring_up(3);
	aim(0, (uint32_t)(structure(VIRTIO_PCI_CAP_NOTIFY_CFG) - bar) + 8, 2);
	rig_cfg_write(&rig, SLOT, window() + data, 2, 2);
	CHECK(kicked(2));
	/* Nothing happens through these. */
	for (unsigned int i = 0; i < 5; i++) {
		static const uint32_t bad[][3] = {{1, 20, 1}, {0, 20, 3}, {0, 20, 0}, {0, 0x8000, 1}, {0, 0xfffffffc, 4}};

		aim(bad[i][0], bad[i][1], bad[i][2]);
		rig_cfg_write(&rig, SLOT, window() + data, 4, 0);
		rig_cfg(&rig, SLOT, window() + data, 4);
		CHECK_EQ(GET(device_status), DRIVER_OK);
	}
	probe->config[1] = 0x99; /* nor where an access would not be aligned */
	aim(0, (uint32_t)(structure(VIRTIO_PCI_CAP_DEVICE_CFG) - bar) + 1, 2);
	CHECK(rig_cfg(&rig, SLOT, window() + data, 1) != 0x99);
	aim(0, COMMON(device_status), 1);
	rig_cfg_write(&rig, SLOT, window() + data, 1, 0);
	CHECK_EQ(GET(device_status), 0);
}

/* ---- device config ---- */

static void passes_device_config(void)
{
	uint8_t data[8];

	set_up();
	for (unsigned int i = 0; i < 8; i++)
		probe->config[i] = (uint8_t)(i + 1);
	CHECK_EQ(get(VIRTIO_PCI_CAP_DEVICE_CFG, 0, 4), 0x04030201);
	CHECK_EQ(get(VIRTIO_PCI_CAP_DEVICE_CFG, 6, 4), 0x0807);
	CHECK_EQ(get(VIRTIO_PCI_CAP_DEVICE_CFG, 4092, 4), 0);
	set(VIRTIO_PCI_CAP_DEVICE_CFG, 4, 2, 0xbbaa);
	CHECK_EQ(probe->config[4], 0xaa);
	set(VIRTIO_PCI_CAP_DEVICE_CFG, 6, 4, 0); /* over the end */
	CHECK_EQ(probe->config[6], 7);
	CHECK(bus_read(rig.mmio, structure(VIRTIO_PCI_CAP_DEVICE_CFG), data, 8));
	CHECK_EQ(data[7], 8);
	for (unsigned int i = 1; i <= 300; i++) {
		config_changes();
		CHECK_EQ(GET(config_generation), i & 255);
	}
}

TEST_MAIN(TEST(shows_itself), TEST(negotiates_features), TEST(refuses_wrong_features), TEST(status_moves_forward_only),
	  TEST(programs_queues), TEST(has_no_queue_beyond_the_last), TEST(opens_a_window), TEST(passes_device_config))
