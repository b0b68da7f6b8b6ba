/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The driver's side of virtio, for tests: a guest memory of its own, rings in it, and a transport that records. Tests
 * of a device attach it, add buffers, kick, and wait for them to come back:
 *
 *	struct virtio_driver *driver = driver_create(MIB(1), false);
 *	virtio_rng_create("rng0", driver->memory, ..., &device, NULL);
 *	driver_attach(driver, device, DRIVER_ALL_FEATURES);
 *	gpa = driver_alloc(driver, 64, 1);
 *	driver_add(queue, (struct driver_segment[]){{gpa, 64, true}}, 1, false);
 *	driver_kick(queue);
 *	driver_wait_used(queue, 1000, &head, &len);
 *	driver_destroy(driver);
 *
 * Everything that lies in guest memory is open to tests that want to write nonsense there.
 */
#pragma once

#include "devices/virtio/virtio.h"

#define DRIVER_ALL_FEATURES UINT64_MAX
#define DRIVER_INDIRECT 32u       /* segments of one indirect table */
#define DRIVER_RAM_BASE 0x40000ull /* guest address of the memory's first byte */

struct driver_segment {
	uint64_t gpa;
	uint32_t len;
	bool in; /* the device writes it */
};

struct driver_queue {
	struct virtio_driver *driver;
	struct virtqueue *vq;
	uint16_t size;
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	uint64_t tables;      /* DRIVER_INDIRECT descriptors for each head */
	uint16_t free;        /* first free descriptor; they hang together by link, not by what lies in guest memory */
	uint16_t free_count;
	uint16_t link[VIRTQUEUE_MAX_SIZE];
	uint16_t chain_len[VIRTQUEUE_MAX_SIZE]; /* by head, of what was added and has not come back */
	uint16_t avail_idx;   /* what has been added; driver_kick publishes it */
	uint16_t used_idx;    /* what has been taken back */
	int call_fd;          /* the device's interrupts */
	unsigned int calls;   /* how often the device's own code interrupted; atomic */
};

struct virtio_driver {
	struct guest_memory *memory;
	struct guest_region ram;
	uint64_t next; /* first guest address that driver_alloc has not given away */
	struct virtio_device *device;
	struct driver_queue queues[VIRTIO_MAX_QUEUES];
	unsigned int config_calls; /* atomic */
};

/* size is a page multiple; shared: in a memfd, otherwise private. Unmapped pages lie on both sides. Aborts when the
 * host has no memory. */
struct virtio_driver *driver_create(uint64_t size, bool shared);
/* Resets and destroys the device too, if one is attached. NULL is fine. */
void driver_destroy(struct virtio_driver *driver);

/* Takes ownership of device, negotiates what it offers of features, makes all rings and activates it. The answer is
 * activate's; the device stays attached. */
int driver_attach(struct virtio_driver *driver, struct virtio_device *device, uint64_t features);
/* Resets the device. All guest addresses given away are void. */
void driver_reset(struct virtio_driver *driver);
/* Negotiates and activates again after driver_reset. */
int driver_start(struct virtio_driver *driver, uint64_t features);
/* Of /proc/self/task or /proc/self/fd: a number that another thread, or another descriptor, changes. */
uint64_t sum_of_names(const char *path);

/*
 * Moves the guest from the device it has to another one of its kind, as a load does: pack drains and saves the first and
 * destroys it, so that its file or its socket is free; unpack takes ownership of the second, which begins where the first
 * was left, and resumes it. What comes back by another save must be the same, or unpack aborts; -errno is what the load
 * says, and then the device is attached and of no use.
 */
struct driver_luggage {
	uint64_t features;
	struct virtqueue_place places[VIRTIO_MAX_QUEUES];
	struct virtqueue_setup rings[VIRTIO_MAX_QUEUES];
	struct state_buffer state;
};
void driver_pack(struct virtio_driver *driver, struct driver_luggage *luggage);
int driver_unpack(struct virtio_driver *driver, struct virtio_device *device, struct driver_luggage *luggage,
		  struct err *err);

/* Guest memory for buffers, zeroed, until driver_reset; aborts when there is none left. */
uint64_t driver_alloc(struct virtio_driver *driver, uint64_t len, uint64_t align);
/* The host address of a guest byte. */
void *driver_at(struct virtio_driver *driver, uint64_t gpa);

/* Adds a chain, in one indirect table or in the ring's own; readable segments come first. Its head, or -1 when no
 * descriptor is free. */
int driver_add(struct driver_queue *queue, const struct driver_segment *segments, unsigned int count, bool indirect);
/* Adds a head without looking at it. */
void driver_add_head(struct driver_queue *queue, uint16_t head);
/* Shows the device what was added and kicks it if it wants to be (always: in any case). True when it was kicked. */
bool driver_kick(struct driver_queue *queue);
void driver_kick_always(struct driver_queue *queue);
/* Takes a used chain back and frees its descriptors; false when there is none. Asks to hear of the next one. */
bool driver_used(struct driver_queue *queue, uint16_t *head, uint32_t *len);
/* The same after waiting for the interrupt, timeout_ms at most. */
bool driver_wait_used(struct driver_queue *queue, int timeout_ms, uint16_t *head, uint32_t *len);

/* Returns when a loop that runs has worked off whatever was ready before. */
void driver_settle(struct event_loop *loop);

/* The words by which each side says when it wants to be woken (VIRTIO_RING_F_EVENT_IDX). */
uint16_t *driver_used_event(struct driver_queue *queue);
uint16_t *driver_avail_event(struct driver_queue *queue);
