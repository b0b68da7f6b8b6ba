/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the guest sees of virtio devices: the layouts of their config spaces (virtio 1.2 sections 5.1.4, 5.2.4, 5.3.4,
 * 5.5.6 and 5.10.4), little-endian. They are our own because they must not grow with the headers of the machine that
 * builds mvmm: their sizes are in PCI capabilities, which are equal on both sides of a migration.
 */
#pragma once

#include "core/util.h"

#include <linux/virtio_pci.h>

struct virtio_layout_net {
	uint8_t mac[6];
	uint16_t status;
	uint16_t max_virtqueue_pairs;
	uint16_t mtu;
} __attribute__((packed));
_Static_assert(sizeof(struct virtio_layout_net) == 12, "virtio 1.2");

struct virtio_layout_blk {
	uint64_t capacity; /* sectors of 512 bytes */
	uint32_t size_max;
	uint32_t seg_max;
	uint16_t cylinders;
	uint8_t heads, sectors;
	uint32_t blk_size;
	uint8_t physical_block_exp, alignment_offset;
	uint16_t min_io_size;
	uint32_t opt_io_size;
	uint8_t wce;
	uint8_t unused0;
	uint16_t num_queues;
	uint32_t max_discard_sectors, max_discard_seg, discard_sector_alignment;
	uint32_t max_write_zeroes_sectors, max_write_zeroes_seg;
	uint8_t write_zeroes_may_unmap;
	uint8_t unused1[3];
	uint32_t max_secure_erase_sectors, max_secure_erase_seg, secure_erase_sector_alignment;
} __attribute__((packed));
_Static_assert(sizeof(struct virtio_layout_blk) == 72, "virtio 1.2");
_Static_assert(offsetof(struct virtio_layout_blk, wce) == 32, "virtio 1.2");

struct virtio_layout_console {
	uint16_t cols, rows;
	uint32_t max_nr_ports;
	uint32_t emerg_wr;
} __attribute__((packed));
_Static_assert(sizeof(struct virtio_layout_console) == 12, "virtio 1.2");

struct virtio_layout_balloon {
	uint32_t num_pages; /* that the device asks for, of 4 KiB */
	uint32_t actual;
} __attribute__((packed));
_Static_assert(sizeof(struct virtio_layout_balloon) == 8, "virtio 1.2");

struct virtio_layout_vsock {
	uint64_t guest_cid;
} __attribute__((packed));
_Static_assert(sizeof(struct virtio_layout_vsock) == 8, "virtio 1.2");

/* The transport's structures (section 4.1.4), which the kernel's headers cannot change any more. */
_Static_assert(sizeof(struct virtio_pci_cap) == 16, "virtio 1.2");
_Static_assert(sizeof(struct virtio_pci_notify_cap) == 20, "virtio 1.2");
_Static_assert(sizeof(struct virtio_pci_cfg_cap) == 20, "virtio 1.2");
_Static_assert(sizeof(struct virtio_pci_common_cfg) == 56, "virtio 1.2");
