/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio device (virtio 1.2 sections 2 and 3): features, config space, virtqueues and its life. The device knows its
 * kind; a transport (virtio_pci) knows how the guest reaches it. Between them stand the two tables below.
 *
 * Who calls what: the transport calls the device's ops from vCPU threads, one at a time under device->lock. The
 * device's own threads work on the queues from activate to reset/drain, without that lock.
 */
#pragma once

#include "core/event_loop.h"
#include "core/guest_memory.h"
#include "core/log.h"
#include "core/state.h"
#include "devices/virtio/virtqueue.h"

#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <pthread.h>

#define VIRTIO_MAX_QUEUES 64u
#define VIRTIO_NO_DEADLINE (-1)

struct virtio_device;

struct virtio_device_ops {
	/* Reads (writes) len bytes of the device-specific config at offset; beyond its end reads give zero. */
	void (*config_read)(struct virtio_device *device, unsigned int offset, void *data, unsigned int len);
	/* NULL when nothing is writable. */
	void (*config_write)(struct virtio_device *device, unsigned int offset, const void *data, unsigned int len);
	/*
	 * DRIVER_OK: the enabled queues are started and device->features is what was negotiated. The device begins to
	 * watch queues[i].kick_fd and looks at each queue once by itself. A failure leaves it as after reset.
	 */
	int (*activate)(struct virtio_device *device, struct err *err);
	/*
	 * Stops, waits for everything in flight, and forgets what the guest negotiated. Called for an active device
	 * only (drained or not), on a vCPU thread, so nothing it waits for may wait for a vCPU. Also before destroy.
	 */
	void (*reset)(struct virtio_device *device);
	/*
	 * The first half of activate, for a device that is loaded as an active one: makes what it runs on, before its state is
	 * loaded, and leaves it drained. NULL: there is nothing to make.
	 */
	int (*prepare)(struct virtio_device *device, struct err *err);
	/*
	 * Stops touching queues and guest memory, in-flight requests completed and none cancelled, so that state can be saved
	 * or memory changed; resume goes on as if nothing had happened, with what the device has: it allocates nothing and
	 * makes no descriptor. Only between activate (prepare) and reset. -ETIMEDOUT when requests are still in flight at
	 * deadline (of monotonic_ms()): then the device has gone on. err names it.
	 */
	int (*drain)(struct virtio_device *device, int64_t deadline, struct err *err);
	void (*resume)(struct virtio_device *device);
	/* Frees the device, which is reset and off its transport. */
	void (*destroy)(struct virtio_device *device);
	/*
	 * Saved state, of the struct virtio_device *, with which the device begins: what it has beside features and
	 * queues. NULL: nothing. Saved and loaded under the lock, the device drained (when it is active, which a load
	 * has made it by then: resume is called next). What may fail should fail here, while the guest can still go on
	 * where it was.
	 */
	const struct state_table *state;
};

/* What the transport does for the device. */
struct virtio_transport_ops {
	/* Interrupts the driver for a queue. Any thread. */
	void (*notify_queue)(struct virtio_device *device, unsigned int queue);
	/* Tells the driver that the config space changed. Any thread. */
	void (*notify_config)(struct virtio_device *device);
	/* An eventfd that interrupts the driver for a queue when someone else (vhost) kicks it; valid until reset. */
	int (*call_fd)(struct virtio_device *device, unsigned int queue);
};

/* Embedded in each device. */
struct virtio_device {
	const struct virtio_device_ops *ops;
	char *id;          /* names it to people: "disk0"; init's copy */
	uint16_t type;     /* VIRTIO_ID_* */
	uint32_t class_code; /* PCI class to show */
	uint64_t offered;  /* feature bits the device has; VERSION_1, INDIRECT_DESC, EVENT_IDX are added by init */
	uint64_t features; /* what the driver accepted; valid from activate to reset */
	unsigned int queue_count;
	struct virtqueue *queues;
	unsigned int config_size; /* bytes of device-specific config */
	struct guest_memory *memory;
	const struct log *log;
	bool active; /* between activate and reset */
	bool broken; /* since virtio_device_broken, until reset; shows as DEVICE_NEEDS_RESET */
	uint8_t config_generation;
	pthread_mutex_t lock;

	const struct virtio_transport_ops *transport;
	void *transport_opaque;
};

/*
 * Fills in the common part and allocates queue_count queues of max_size entries each (max_size[i]); kick eventfds are
 * made here. -ENOMEM or -EMFILE. virtio_device_done frees it and is harmless on a zeroed device.
 */
int virtio_device_init(struct virtio_device *device, const struct virtio_device_ops *ops, const char *id, uint16_t type,
		       unsigned int queue_count, const uint16_t *max_size, struct guest_memory *memory,
		       const struct log *log, struct err *err);
void virtio_device_done(struct virtio_device *device);

static inline bool virtio_has(const struct virtio_device *device, unsigned int feature)
{
	return device->features >> feature & 1;
}

/*
 * The config space has new contents. Who changes it holds device->lock over the change and this call, so that the
 * driver, which reads a wide field in parts, sees the generation change with it (section 2.5.1).
 */
void virtio_device_config_changed(struct virtio_device *device);

/*
 * The device cannot go on (a queue full of nonsense): sets DEVICE_NEEDS_RESET, interrupts for config, and logs one line
 * until the next reset. Any thread.
 */
void virtio_device_broken(struct virtio_device *device, const char *why);

/* Copies from a config structure in the way config_read wants it. */
void virtio_config_copy(const void *config, size_t size, unsigned int offset, void *data, unsigned int len);

/* ---- the constructors, one file each; all return a device that waits for its transport ---- */

struct virtio_blk_options {
	const char *id;
	const char *path;
	bool readonly;
	bool direct;         /* O_DIRECT */
	unsigned int queues; /* 1 to 64 */
	const char *serial;  /* up to 20 characters; NULL: id */
	bool unlocked;       /* somebody else has the lock still: virtio_blk_lock comes before the guest runs */
};
/* Opens and locks the file (an OFD write lock, or read lock when read-only). devices/virtio/blk.c */
int virtio_blk_create(const struct virtio_blk_options *options, struct guest_memory *memory, const struct log *log,
		      struct virtio_device **ret, struct err *err);

/*
 * Takes the lock on a disk's file, or gives it up: when its guest begins to run here, or goes on elsewhere. The machine is
 * paused. -EBUSY says who has it.
 */
int virtio_blk_lock(struct virtio_device *disk, struct err *err);
void virtio_blk_unlock(struct virtio_device *disk);

/* What a disk's content is, for whoever copies it. */
struct virtio_blk_image {
	int fd;        /* through the page cache; the disk's own */
	uint64_t size; /* bytes that the guest sees */
	bool readonly;
	bool direct;   /* the guest's I/O goes by the page cache */
};
void virtio_blk_image(struct virtio_device *disk, struct virtio_blk_image *ret);

/*
 * A copy of a disk that is written meanwhile: from the return of track on, a collect tells what has been changed since the
 * one before, by writes, discards and zeroes that have ended, well or not. Bit n of bitmap, which is ORed, stands for the
 * VIRTIO_BLK_GRANULE bytes from n times that on; a part that is read after it was collected is told again if that was too
 * early. track and untrack on the loop's thread; collect on any one, between them. devices/virtio/blk_dirty.c
 */
#define VIRTIO_BLK_GRANULE KIB(64)
int virtio_blk_track(struct virtio_device *disk, struct err *err);
void virtio_blk_untrack(struct virtio_device *disk);
void virtio_blk_collect(struct virtio_device *disk, unsigned long *bitmap);

struct virtio_net_options {
	const char *id;
	const char *tap;     /* interface name, or NULL */
	int tap_fd;          /* an opened tap handed in, or -1; consumed */
	bool passt;          /* user networking through passt */
	const char *socket;  /* passt's socket to connect to; NULL with passt: start one */
	uint8_t mac[6];      /* all zero: made from id and machine name */
	unsigned int queues; /* pairs, 1 to 16 */
	bool vhost;
	struct dirty_set *dirty; /* which vhost tells what it writes; NULL: nobody asks */
	const char *machine; /* the machine's name */
};
/* devices/virtio/net.c */
int virtio_net_create(const struct virtio_net_options *options, struct guest_memory *memory, const struct log *log,
		      struct virtio_device **ret, struct err *err);

/* A locally administered address that the same machine gets for the same device every time. */
void virtio_net_make_mac(uint8_t mac[6], const char *machine, const char *id);

struct virtio_vsock_options {
	const char *id;
	uint32_t cid;       /* the guest's, 3 or more */
	const char *socket; /* UNIX socket for the user-space form; NULL: kernel vhost-vsock */
	/* While somebody asks there, the kernel's form stands still, for it does not tell what it writes; NULL: nobody. */
	struct dirty_set *dirty;
};
/* devices/virtio/vsock.c */
int virtio_vsock_create(const struct virtio_vsock_options *options, struct guest_memory *memory, struct event_loop *loop,
			const struct log *log, struct virtio_device **ret, struct err *err);
/* The guest goes on elsewhere, or from a saved state: its connections end, and it is told. Any thread. */
void virtio_vsock_transport_reset(struct virtio_device *vsock);

/* devices/virtio/rng.c */
int virtio_rng_create(const char *id, struct guest_memory *memory, struct event_loop *loop, const struct log *log,
		      struct virtio_device **ret, struct err *err);

/*
 * A console on a pair of descriptors (the same one for a pty or a socket), which are consumed and made non-blocking;
 * *in_fd -1: nothing is ever typed. Output waits for a slow reader; where nobody reads at all (a pty without a client,
 * a closed pipe: SIGPIPE must be ignored) it is lost. devices/virtio/console.c
 */
int virtio_console_create(const char *id, int *in_fd, int *out_fd, struct guest_memory *memory, struct event_loop *loop,
			  const struct log *log, struct virtio_device **ret, struct err *err);

/* What the guest last told about its memory; UINT64_MAX where it has not. Bytes. */
struct virtio_balloon_stats {
	uint64_t actual; /* what the guest has given back */
	uint64_t target; /* what it was asked for */
	uint64_t free, total, available, caches;
	uint64_t major_faults, minor_faults, swap_in, swap_out;
	uint64_t reported; /* given back by free-page reporting since the start */
};
/*
 * Whoever has pinned guest memory (VFIO) must agree before pages go back to the host: called with the range in guest
 * addresses, page aligned, on the loop's thread; nonzero keeps the pages. NULL: nobody minds.
 */
typedef int virtio_balloon_release_fn(void *opaque, uint64_t gpa, uint64_t len);
/* devices/virtio/balloon.c */
int virtio_balloon_create(const char *id, struct guest_memory *memory, struct event_loop *loop, const struct log *log,
			  struct virtio_device **ret, struct err *err);
void virtio_balloon_set_release(struct virtio_device *balloon, virtio_balloon_release_fn *fn, void *opaque);
/* Asks the guest to give back bytes (rounded down to pages). Not from within the device's own callbacks. */
void virtio_balloon_set_target(struct virtio_device *balloon, uint64_t bytes);
/* What the guest told when it was asked last; asks it again for the next time. Any thread. */
void virtio_balloon_get_stats(struct virtio_device *balloon, struct virtio_balloon_stats *stats);

/* The PCI transport: a function on the bus for a device, which it owns from success on. devices/virtio/virtio_pci.c */
struct bus;
struct pci_bus;
struct msi_controller;
struct virtio_pci;
int virtio_pci_create(struct virtio_device *device, struct pci_bus *bus, struct bus *mmio, struct msi_controller *msi,
		      struct event_loop *loop, int devfn, struct virtio_pci **ret, struct err *err);
/* Off the bus, reset, destroyed with its device. NULL is fine. */
void virtio_pci_destroy(struct virtio_pci *pci);
struct virtio_device *virtio_pci_device(struct virtio_pci *pci);
uint8_t virtio_pci_devfn(const struct virtio_pci *pci);
/* Around a pause of the machine. -ETIMEDOUT as virtio_device_ops.drain says: it is not paused. */
int virtio_pci_drain(struct virtio_pci *pci, int64_t deadline, struct err *err);
void virtio_pci_resume(struct virtio_pci *pci);

/*
 * Saved state: appends all there is of the device and its function. -EBUSY when it is not drained. On the loop's thread.
 * devices/virtio/virtio_pci_state.c
 */
int virtio_pci_save(struct virtio_pci *pci, struct state_buffer *out, struct err *err);
/*
 * Loads what virtio_pci_save has appended, data of len bytes, into a device that has just been put into the same slot;
 * guest memory is there already, and the bus's state. It is then drained, and goes on with virtio_pci_resume as the one
 * that was saved would have. -EBADMSG for nonsense, -ENOTSUP (err names the bits) when the guest uses features that this
 * device does not have. After a failure the device is only good for being destroyed. The loop's thread.
 */
int virtio_pci_load(struct virtio_pci *pci, const void *data, size_t len, struct err *err);
