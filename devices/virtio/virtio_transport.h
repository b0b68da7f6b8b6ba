/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the transports of virtio devices share (virtio 1.2 sections 2.1, 2.2 and 3.1): the status, which the driver sets
 * step by step, the negotiation of features, the set-up of queues, pauses, and the state of all that. A transport
 * decodes the driver's accesses and calls this; it begins with a struct virtio_transport. No other file includes it.
 *
 * Unless stated otherwise, all of it is under device->lock. A write that the specification does not allow then is
 * ignored.
 */
#pragma once

#include "devices/virtio/virtio.h"

#define VIRTIO_ISR_QUEUE 0x1u /* sections 4.1.4.5 and 4.2.2 */
#define VIRTIO_ISR_CONFIG 0x2u
#define VIRTIO_CONFIG_SLOT VIRTIO_MAX_QUEUES /* in arrays by queue, the element after the queues */

struct virtio_queue_state {
	uint16_t vector;              /* by PCI alone */
	struct virtqueue_setup setup; /* only for saving, as place */
	struct virtqueue_place place; /* of an enabled queue of an active device */
};

struct virtio_transport_state {
	/* What the driver has selected and accepted. */
	uint32_t device_feature_select, driver_feature_select;
	uint64_t driver_features;
	uint16_t queue_select;
	struct virtio_queue_state queues[VIRTIO_MAX_QUEUES + 1]; /* and the config slot, which has only a vector */

	/* Only for saving: the device's, or used without the device's lock. */
	uint32_t queue_count;
	uint16_t type;
	uint8_t status, isr, config_generation;
	bool active, broken;
};

struct virtio_transport {
	const struct virtio_transport_ops *ops;
	struct virtio_device *device;
	struct virtio_transport_state state;
	uint8_t status; /* also read without the lock; DEVICE_NEEDS_RESET is device->broken */

	enum { VIRTIO_STOPPED, VIRTIO_DRAINING, VIRTIO_RUNNING } flow; /* of an active device */
	bool loaded;    /* and not resumed since */
	/*
	 * Atomic: a thread that waits for the device under its lock holds up nobody who pauses or resumes the machine.
	 */
	bool paused;    /* the machine is, or is about to be */
	bool unsettled; /* paused has changed since virtio_transport_settle */
	bool waits;     /* a vCPU may wait under the lock; it settles afterwards */

	/* Of interrupts that the driver reads the reason of, under isr_lock. */
	pthread_mutex_t isr_lock;
	uint8_t isr;
};

/* ops and device of a zeroed transport; attach makes it the device's. done undoes init. */
void virtio_transport_init(struct virtio_transport *transport, const struct virtio_transport_ops *ops,
			   struct virtio_device *device);
void virtio_transport_attach(struct virtio_transport *transport);
void virtio_transport_done(struct virtio_transport *transport);

/* For an access by the guest that may wait for the device: without the lock, which it takes and releases. */
void virtio_transport_lock(struct virtio_transport *transport);
void virtio_transport_unlock(struct virtio_transport *transport);

/* Resets the device and all that the driver has set. */
void virtio_transport_reset(struct virtio_transport *transport);
/* Activates, drains (by deadline, or -ETIMEDOUT: it goes on draining) or resumes the device, to match status, pause and
 * whether the transport lets it run. */
int virtio_transport_settle(struct virtio_transport *transport, int64_t deadline, struct err *err);
/* Tells a running device that the eventfd of a queue's interrupts has changed. */
void virtio_transport_call_changed(struct virtio_transport *transport, unsigned int queue);

/* Whether the driver has said DRIVER_OK. Any thread. */
static inline bool virtio_transport_driven(const struct virtio_transport *transport)
{
	return __atomic_load_n(&transport->status, __ATOMIC_ACQUIRE) & VIRTIO_CONFIG_S_DRIVER_OK;
}

/* ---- what the driver reads and writes ---- */

uint8_t virtio_transport_read_status(const struct virtio_transport *transport);
void virtio_transport_write_status(struct virtio_transport *transport, uint8_t value);
/* 32 of the features, from 32 * select on. */
uint32_t virtio_transport_feature_half(uint64_t features, uint32_t select);
void virtio_transport_write_features(struct virtio_transport *transport, uint32_t value);
/* The selected queue; NULL: there is none. */
struct virtqueue *virtio_transport_selected(const struct virtio_transport *transport);
/* The same if the driver may program it now; else NULL. */
struct virtqueue *virtio_transport_programmable(const struct virtio_transport *transport);
void virtio_transport_write_size(struct virtqueue *vq, uint32_t value);
/* The driver disables a queue. A device works on all of its queues or on none: an active one stops, and needs a reset. */
void virtio_transport_take_back(struct virtio_transport *transport, struct virtqueue *vq);
/* 32 bits of a queue's address. */
void virtio_transport_write_half(uint64_t *value, bool high, uint32_t half);
/* The device's own config space, from 0 on; both without the lock. data is zeroed: a device without one leaves it so. */
void virtio_transport_read_config(struct virtio_transport *transport, uint64_t offset, void *data, unsigned int len);
void virtio_transport_write_config(struct virtio_transport *transport, uint64_t offset, const void *data,
				   unsigned int len);

/* ---- state, virtio_transport_state.c ---- */

/* For the transport's table, whose object is the transport. loaded comes after the transport has loaded its own part:
 * the device is then active and drained if it was. */
int virtio_transport_collect(void *object, void *into, struct err *err);
int virtio_transport_judge(const void *object, const void *loaded, uint32_t version, struct err *err);
int virtio_transport_loaded(void *object, const void *loaded, struct err *err);

/* Fields of both structs above, in the order in which records have them: a transport's own ones come between. */
#define VIRTIO_QUEUE_FIRST_FIELD STATE_UINT_AS("size", struct virtio_queue_state, setup.size, 1)
#define VIRTIO_QUEUE_FIELDS                                                    \
	STATE_BOOL_AS("enabled", struct virtio_queue_state, setup.enabled, 1), \
	STATE_UINT_AS("desc", struct virtio_queue_state, setup.desc, 1),       \
	STATE_UINT_AS("avail", struct virtio_queue_state, setup.avail, 1),     \
	STATE_UINT_AS("used", struct virtio_queue_state, setup.used, 1),       \
	STATE_UINT(struct virtio_queue_state, place.next_avail, 1),            \
	STATE_UINT(struct virtio_queue_state, place.next_used, 1),             \
	STATE_UINT(struct virtio_queue_state, place.signalled_used, 1),        \
	STATE_UINT(struct virtio_queue_state, place.avail_idx, 1),             \
	STATE_UINT(struct virtio_queue_state, place.used_idx, 1),              \
	STATE_BOOL(struct virtio_queue_state, place.broken, 1)
#define VIRTIO_TRANSPORT_FIRST_FIELDS                       \
	STATE_UINT(struct virtio_transport_state, type, 1), \
	STATE_UINT(struct virtio_transport_state, queue_select, 1)
/* queues_ is the table of a struct virtio_queue_state. */
#define VIRTIO_TRANSPORT_FIELDS(queues_)                                     \
	STATE_UINT(struct virtio_transport_state, status, 1),                \
	STATE_UINT(struct virtio_transport_state, isr, 1),                   \
	STATE_UINT(struct virtio_transport_state, config_generation, 1),     \
	STATE_BOOL(struct virtio_transport_state, active, 1),                \
	STATE_BOOL(struct virtio_transport_state, broken, 1),                \
	STATE_UINT(struct virtio_transport_state, device_feature_select, 1), \
	STATE_UINT(struct virtio_transport_state, driver_feature_select, 1), \
	STATE_UINT(struct virtio_transport_state, driver_features, 1),       \
	STATE_LIST(struct virtio_transport_state, queues, 1, queue_count, queues_)
