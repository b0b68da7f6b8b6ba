/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio devices (virtio 1.2), for tiny guests that drive one: where it is, on the PCI bus or on MMIO, its queues, and
 * interrupts by MSI-X.
 * A queue has room for requests of up to four descriptors, one request at a time.
 */
#pragma once

#include "tests/guests/guest.h"

#ifndef VIRTIO_QUEUE_SIZE
#define VIRTIO_QUEUE_SIZE 4u
#endif

#define VIRTIO_NET 1u /* device types */
#define VIRTIO_BLK 2u

/* struct virtio_pci_common_cfg */
#define VIRTIO_FEATURE_SELECT 0x08
#define VIRTIO_FEATURES 0x0c
#define VIRTIO_CONFIG_VECTOR 0x10
#define VIRTIO_STATUS 0x14
#define VIRTIO_QUEUE_SELECT 0x16
#define VIRTIO_QUEUE_LENGTH 0x18
#define VIRTIO_QUEUE_VECTOR 0x1a
#define VIRTIO_QUEUE_ENABLE 0x1c
#define VIRTIO_QUEUE_NOTIFY 0x1e
#define VIRTIO_QUEUE_DESC 0x20

#define VIRTIO_NO_VECTOR 0xffffu

/* A page of registers (include/uapi/linux/virtio_mmio.h) */
#define MMIO_AT(device) (0xe0100000ul + (device) * 0x1000ul)
#define MMIO_DEVICES 30u
#define MMIO_MAGIC 0x00
#define MMIO_VERSION 0x04
#define MMIO_TYPE 0x08
#define MMIO_DEVICE_FEATURES 0x10
#define MMIO_DEVICE_FEATURES_SELECT 0x14
#define MMIO_FEATURES 0x20
#define MMIO_FEATURES_SELECT 0x24
#define MMIO_QUEUE_SELECT 0x30
#define MMIO_QUEUE_MAX 0x34
#define MMIO_QUEUE_LENGTH 0x38
#define MMIO_QUEUE_READY 0x44
#define MMIO_QUEUE_NOTIFY 0x50
#define MMIO_INTERRUPT_STATUS 0x60
#define MMIO_INTERRUPT_ACK 0x64
#define MMIO_STATUS 0x70
#define MMIO_QUEUE_DESC 0x80 /* 16 bytes on, those of the available and the used ring */
#define MMIO_GENERATION 0xfc
#define MMIO_CONFIG 0x100

#define VIRTIO_NEXT 1u /* flags of a descriptor */
#define VIRTIO_WRITE 2u

struct virtio_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

struct virtio_queue {
	struct virtio_desc desc[VIRTIO_QUEUE_SIZE];
	struct {
		uint16_t flags, idx, ring[VIRTIO_QUEUE_SIZE], event;
	} avail;
	struct {
		uint16_t flags, idx;
		struct {
			uint32_t id, len;
		} ring[VIRTIO_QUEUE_SIZE];
		uint16_t event;
	} used __attribute__((aligned(4)));
	uintptr_t doorbell;
	uint16_t number, wide; /* the doorbell has 32 bits */
} __attribute__((aligned(4096)));

/* A request of a disk for one sector. */
struct virtio_blk_request {
	struct {
		uint32_t type, reserved;
		uint64_t sector;
	} header;
	uint64_t data[64];
	uint8_t status; /* 0: it was done */
};

#define VIRTIO_BLK_FLUSH (1u << 9) /* feature: without it, each write is on the disk before it is answered */
#define VIRTIO_NET_STATUS (1u << 16) /* feature: the config space tells the link */

struct virtio {
	uintptr_t config, common, notify; /* addresses: config space, two structures of the BAR */
	uint32_t step;                    /* between the doorbells */
	uintptr_t mmio;                   /* or the page */
};

static inline void virtio_write16(uintptr_t addr, uint16_t value)
{
	*(volatile uint16_t *)addr = value;
}

static inline void virtio_write8(uintptr_t addr, uint8_t value)
{
	*(volatile uint8_t *)addr = value;
}

/* The capability of this kind, for vendor-specific ones of this type, as a place in config space; 0: none. */
static inline uintptr_t virtio_capability(uintptr_t config, uint32_t kind, uint32_t type)
{
	for (uint32_t cap = read32(config + 0x34) & 0xfc; cap; cap = read32(config + cap) >> 8 & 0xfc)
		if ((read32(config + cap) & 0xff) == kind && (kind != 9 || read32(config + cap) >> 24 == type))
			return config + cap;
	return 0;
}

static inline uintptr_t virtio_structure(uintptr_t config, uint32_t type)
{
	uintptr_t cap = virtio_capability(config, 9, type);

	return cap ? (read32(config + 0x10 + 4 * (read32(cap + 4) & 7)) & ~15u) + read32(cap + 8) : 0;
}

/* Puts the device's BAR at bar (64 KiB there); false: it is no virtio device. */
static inline int virtio_place(struct virtio *virtio, uintptr_t config, uint32_t bar)
{
	write32(config + 4, 0);
	write32(config + 0x10, bar);
	write32(config + 0x14, 0);
	write32(config + 4, 6);
	*virtio = (struct virtio){config, virtio_structure(config, 1), virtio_structure(config, 2), 0, 0};
	if (virtio->notify)
		virtio->step = read32(virtio_capability(config, 9, 2) + 16);
	return virtio->common && virtio->notify;
}

/* Whether config is that of a virtio device of this type. */
static inline int virtio_is(uintptr_t config, uint32_t type)
{
	return read32(config) == ((0x1040u + type) << 16 | 0x1af4);
}

/* The first device of the type on MMIO. */
static inline int virtio_find_mmio(struct virtio *virtio, uint32_t type)
{
	for (uintptr_t device = 1; device <= MMIO_DEVICES; device++)
		if (read32(MMIO_AT(device)) == 0x74726976 && read32(MMIO_AT(device) + MMIO_TYPE) == type) {
			*virtio = (struct virtio){.mmio = MMIO_AT(device)};
			return 1;
		}
	return 0;
}

/* The first device of the type, whose BAR is put at bar; false: there is none. */
static inline int virtio_find(struct virtio *virtio, uint32_t type, uint32_t bar)
{
	for (uintptr_t device = 0; device < 32; device++)
		if (virtio_is(ECAM + (device << 15), type))
			return virtio_place(virtio, ECAM + (device << 15), bar);
	return virtio_find_mmio(virtio, type);
}

/* The driver accepts VERSION_1 and these features of the lower half. */
static inline void virtio_begin(const struct virtio *virtio, uint32_t features)
{
	if (virtio->mmio) {
		write32(virtio->mmio + MMIO_STATUS, 0);
		write32(virtio->mmio + MMIO_STATUS, 3);
		for (uint32_t half = 0; half < 2; half++) {
			write32(virtio->mmio + MMIO_FEATURES_SELECT, half);
			write32(virtio->mmio + MMIO_FEATURES, half ? 1 : features);
		}
		write32(virtio->mmio + MMIO_STATUS, 11);
		return;
	}
	virtio_write8(virtio->common + VIRTIO_STATUS, 0);
	virtio_write8(virtio->common + VIRTIO_STATUS, 3);
	for (uint32_t half = 0; half < 2; half++) {
		write32(virtio->common + VIRTIO_FEATURE_SELECT, half);
		write32(virtio->common + VIRTIO_FEATURES, half ? 1 : features);
	}
	virtio_write8(virtio->common + VIRTIO_STATUS, 11);
}

/* Enables a queue; its interrupts come by this entry of the MSI-X table, or not at all. */
static inline void virtio_add_queue(const struct virtio *virtio, volatile struct virtio_queue *q, uint16_t number,
				    uint16_t entry)
{
	const uintptr_t rings[] = {(uintptr_t)&q->desc, (uintptr_t)&q->avail, (uintptr_t)&q->used};

	q->number = number;
	q->wide = virtio->mmio != 0;
	if (virtio->mmio) {
		q->doorbell = virtio->mmio + MMIO_QUEUE_NOTIFY;
		write32(virtio->mmio + MMIO_QUEUE_SELECT, number);
		write32(virtio->mmio + MMIO_QUEUE_LENGTH, VIRTIO_QUEUE_SIZE);
		for (uint32_t i = 0; i < 3; i++) {
			write32(virtio->mmio + MMIO_QUEUE_DESC + 16 * i, (uint32_t)rings[i]);
			write32(virtio->mmio + MMIO_QUEUE_DESC + 16 * i + 4, 0);
		}
		write32(virtio->mmio + MMIO_QUEUE_READY, 1);
		return;
	}
	virtio_write16(virtio->common + VIRTIO_QUEUE_SELECT, number);
	virtio_write16(virtio->common + VIRTIO_QUEUE_LENGTH, VIRTIO_QUEUE_SIZE);
	virtio_write16(virtio->common + VIRTIO_QUEUE_VECTOR, entry);
	for (uint32_t i = 0; i < 3; i++) {
		write32(virtio->common + VIRTIO_QUEUE_DESC + 8 * i, (uint32_t)rings[i]);
		write32(virtio->common + VIRTIO_QUEUE_DESC + 8 * i + 4, 0);
	}
	q->doorbell = virtio->notify + virtio->step * (read32(virtio->common + VIRTIO_QUEUE_ENABLE) >> 16);
	virtio_write16(virtio->common + VIRTIO_QUEUE_ENABLE, 1);
}

static inline void virtio_run(const struct virtio *virtio)
{
	if (virtio->mmio)
		write32(virtio->mmio + MMIO_STATUS, 15);
	else
		virtio_write8(virtio->common + VIRTIO_STATUS, 15);
}

/* One entry of the MSI-X table sends this vector to the first vCPU. */
static inline int virtio_enable_msix(const struct virtio *virtio, uint32_t entry, uint8_t vector)
{
	uintptr_t cap = virtio_capability(virtio->config, 0x11, 0), at;

	if (!cap)
		return 0;
	at = (read32(virtio->config + 0x10 + 4 * (read32(cap + 4) & 7)) & ~15u) + (read32(cap + 4) & ~7u) + 16 * entry;
	write32(at, 0xfee00000);
	write32(at + 4, 0);
	write32(at + 8, vector);
	write32(at + 12, 0);
	write32(cap, read32(cap) | 1u << 31);
	return 1;
}

/* Gives the device the request that begins at the first descriptor. */
static inline void virtio_submit(volatile struct virtio_queue *q)
{
	uint16_t before = q->avail.idx;

	q->avail.ring[before % VIRTIO_QUEUE_SIZE] = 0;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	q->avail.idx = before + 1;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (q->wide)
		write32(q->doorbell, q->number);
	else
		virtio_write16(q->doorbell, q->number);
}

static inline int virtio_busy(const volatile struct virtio_queue *q)
{
	return q->used.idx != q->avail.idx;
}

/* Gives a disk this request: type 0 reads the sector into data, 1 writes it. */
static inline void virtio_blk_submit(volatile struct virtio_queue *q, volatile struct virtio_blk_request *request,
				     uint32_t type, uint64_t sector)
{
	request->header.type = type;
	request->header.sector = sector;
	request->status = 0xff;
	q->desc[0] = (struct virtio_desc){(uintptr_t)&request->header, sizeof(request->header), VIRTIO_NEXT, 1};
	q->desc[1] = (struct virtio_desc){(uintptr_t)request->data, sizeof(request->data),
					  VIRTIO_NEXT | (type ? 0 : VIRTIO_WRITE), 2};
	q->desc[2] = (struct virtio_desc){(uintptr_t)&request->status, 1, VIRTIO_WRITE, 0};
	virtio_submit(q);
}
