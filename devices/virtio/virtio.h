/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio device (virtio 1.2 sections 2 and 3): features, config space, virtqueues and status. The guest reaches it
 * through a transport (virtio_pci.c, virtio_mmio.c). Device and transport call each other through the two tables below.
 *
 * The transport calls the device's ops on vCPU threads, one at a time, under device->lock. The device's own threads
 * work on the queues from activate to reset or drain, without this lock.
 */
#pragma once

#include "core/event_loop.h"
#include "core/guest_memory.h"
#include "core/irq.h"
#include "core/log.h"
#include "core/rate_limiter.h"
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
	/* Reads (writes) len bytes of the device-specific config at offset; bytes beyond its end read as zero. */
	void (*config_read)(struct virtio_device *device, unsigned int offset, void *data, unsigned int len);
	/* NULL: nothing is writable. */
	void (*config_write)(struct virtio_device *device, unsigned int offset, const void *data, unsigned int len);
	/*
	 * DRIVER_OK: the enabled queues are started, device->features has the negotiated features. The device begins to
	 * watch queues[i].kick_fd and checks each queue once without a kick. After a failure it is as after reset.
	 */
	int (*activate)(struct virtio_device *device, struct err *err);
	/*
	 * Stops, waits for all requests in flight, and forgets what the guest negotiated. Called only for an active
	 * device (drained or not), also before destroy; on a vCPU thread: it must not wait for what waits for a vCPU.
	 */
	void (*reset)(struct virtio_device *device);
	/*
	 * The first half of activate, for a device that is loaded as active: creates its threads and descriptors before
	 * its state is loaded, and leaves it drained. NULL: there are none.
	 */
	int (*prepare)(struct virtio_device *device, struct err *err);
	/*
	 * Completes all requests in flight, cancels none, and stops accessing queues and guest memory, so that state
	 * can be saved or memory changed. resume continues; it allocates nothing and opens no descriptor. Called only
	 * between activate (prepare) and reset. -ETIMEDOUT: requests are still in flight at deadline (of
	 * monotonic_ms(); one that has passed: now); err names the device. It starts no new ones: drain is called
	 * again, or resume undoes it.
	 */
	int (*drain)(struct virtio_device *device, int64_t deadline, struct err *err);
	void (*resume)(struct virtio_device *device);
	/*
	 * transport->call_fd of a queue has changed, of an active device that is not drained. NULL: the device asks
	 * each time, or uses only notify_queue.
	 */
	void (*call_changed)(struct virtio_device *device, unsigned int queue);
	/*
	 * What limits the device, from index 0 on: a disk and an rng have one, a network card that of packets to the
	 * guest and that of packets from it, but not with vhost; NULL: there are no more. The device asks its limiters
	 * again when its queues are kicked. They begin without a limit. ops.limiter NULL: there are none.
	 */
	struct rate_limiter *(*limiter)(struct virtio_device *device, unsigned int index);
	/* Frees the device, which is reset and has no transport any more. */
	void (*destroy)(struct virtio_device *device);
	/*
	 * The device's own saved state besides features and queues; NULL: none. Its object is the struct virtio_device.
	 * Saved and loaded under the lock. An active device is drained then; a load has already made it active, and
	 * resume is called next. What can fail should fail in the load: the guest can still continue on the source.
	 * With a table that accepts version 0, the record may also be missing.
	 */
	const struct state_table *state;
};

/* How the guest reaches a device; one table for each transport. */
struct virtio_transport;
struct virtio_transport_ops {
	/* ---- called by the device ---- */
	/* Interrupts the driver for a queue. Any thread. */
	void (*notify_queue)(struct virtio_device *device, unsigned int queue);
	/* Interrupts the driver for a change of the config space. Any thread. */
	void (*notify_config)(struct virtio_device *device);
	/* An eventfd that interrupts the driver for a queue when vhost kicks it; valid until call_changed or reset. */
	int (*call_fd)(struct virtio_device *device, unsigned int queue);

	/* ---- called by virtio_transport.c; under device->lock unless stated otherwise ---- */
	/* Whether the device may access memory; NULL: always. */
	bool (*may_run)(const struct virtio_transport *transport);
	/* Resets what is the transport's own, of interrupts. */
	void (*reset)(struct virtio_transport *transport);
	/* The device is drained: what it has notified reaches the vCPUs now. NULL: it has. Without the lock. */
	void (*drained)(struct virtio_transport *transport);
	/* Interrupts the driver after a load, for what may have been lost on the way. Without the lock. */
	void (*kick)(struct virtio_transport *transport);
	/* The guest does not find it any more. Without the lock. */
	void (*detach)(struct virtio_transport *transport);
	/* Frees it, but not the device. */
	void (*free)(struct virtio_transport *transport);
	unsigned int (*slot)(const struct virtio_transport *transport);
	/* The table of its part of virtio_transport.h; and records that come before it, without the lock; or NULL. */
	const struct state_table *state;
	int (*save)(struct virtio_transport *transport, struct state_buffer *out, struct err *err);
	int (*load)(struct virtio_transport *transport, const uint8_t **data, size_t *len, struct err *err);
};

/* Embedded in each device. */
struct virtio_device {
	const struct virtio_device_ops *ops;
	char *id;            /* its name for users: "disk0"; a copy */
	uint16_t type;       /* VIRTIO_ID_* */
	uint32_t class_code; /* PCI class */
	uint64_t offered;    /* the device's feature bits; init adds VERSION_1, INDIRECT_DESC, EVENT_IDX */
	uint64_t features;   /* accepted by the driver; valid from activate to reset */
	unsigned int queue_count;
	struct virtqueue *queues;
	unsigned int config_size; /* bytes of device-specific config */
	struct guest_memory *memory;
	const struct log *log;
	bool active; /* between activate and reset */
	bool broken; /* from virtio_device_broken to reset; the driver sees DEVICE_NEEDS_RESET */
	uint8_t config_generation;
	pthread_mutex_t lock;

	const struct virtio_transport_ops *transport;
	void *transport_opaque;
};

/*
 * Fills in the common part and allocates queue_count queues of max_size[i] entries, with their kick eventfds. -ENOMEM
 * or -EMFILE. virtio_device_done frees them; no effect on a zeroed device.
 */
int virtio_device_init(struct virtio_device *device, const struct virtio_device_ops *ops, const char *id, uint16_t type,
		       unsigned int queue_count, const uint16_t *max_size, struct guest_memory *memory,
		       const struct log *log, struct err *err);
void virtio_device_done(struct virtio_device *device);

/* What has happened on a queue. Any thread. */
struct virtqueue_counts virtio_device_counts(const struct virtio_device *device, unsigned int queue);

static inline bool virtio_has(const struct virtio_device *device, unsigned int feature)
{
	return device->features >> feature & 1;
}

/*
 * The config space has changed. The caller holds device->lock over the change and this call: a driver that reads a wide
 * field in parts then sees the generation change with it (section 2.5.1).
 */
void virtio_device_config_changed(struct virtio_device *device);

/*
 * The device cannot continue (an invalid queue): sets DEVICE_NEEDS_RESET, interrupts for config, and logs one line,
 * once until the next reset. Any thread.
 */
void virtio_device_broken(struct virtio_device *device, const char *why);

/* Changes one of the device's limits as rate_limiter_set does. -ENOTSUP: it has no such limiter. Any thread. */
int virtio_device_set_limit(struct virtio_device *device, unsigned int index, const struct token_bucket_limit *bytes,
			    const struct token_bucket_limit *ops);
/* For ops->resume and ops->drain: time counts for its limiters again, or no more. */
void virtio_device_run_limits(struct virtio_device *device, bool run);

/* Implements config_read for a config structure. */
void virtio_config_copy(const void *config, size_t size, unsigned int offset, void *data, unsigned int len);

/* ---- constructors, one file each; all return a device without a transport ---- */

/*
 * An image that another program has opened, with its own rights, for what the disk does. Kept by the caller: the disk
 * duplicates the descriptors.
 */
struct virtio_blk_passed {
	int fd;        /* through the page cache */
	int direct_fd; /* of a disk with direct: the same file, opened with O_DIRECT; else -1 */
};

struct virtio_blk_options {
	const char *id;
	const char *path;
	const char *file;    /* what is opened, if that is not path; messages name path. NULL: path */
	const struct virtio_blk_passed *passed; /* used instead of opening it; NULL: none */
	const char *below; /* the only folder that path may lead to (core/beneath.h); NULL: the path is trusted */
	bool readonly;
	bool direct;         /* O_DIRECT */
	unsigned int queues; /* 1 to 64 */
	const char *serial;  /* up to 20 characters; NULL: id */
	unsigned int sector_size; /* that the guest sees, 512 or 4096; 0: the device's own, 512 for a file */
	/*
	 * An operation fails: false: the guest is told; true: stop_fd, an eventfd, is kicked to pause the machine. With
	 * news, it is also kicked when a line about failures was logged, for virtio_blk_take_news.
	 */
	bool stop_on_error, news;
	int stop_fd;
	bool lockless;       /* it is never locked */
	bool unlocked;       /* another process still has the lock: virtio_blk_lock is called before the guest runs */
};
/*
 * Opens and locks the file (an OFD write lock, or read lock when read-only). It may be empty: the guest then sees a disk
 * without room. devices/virtio/blk.c
 */
int virtio_blk_create(const struct virtio_blk_options *options, struct guest_memory *memory, const struct log *log,
		      struct virtio_device **ret, struct err *err);

/*
 * Takes or releases the lock on a disk's file: when its guest begins to run here, or continues elsewhere. The machine
 * is paused, and what it wrote has been flushed, because another host may read it next. -EBUSY: err says which process
 * has the lock.
 */
int virtio_blk_lock(struct virtio_device *disk, struct err *err);
void virtio_blk_unlock(struct virtio_device *disk);
/* NULL: the lock shows that no machine of another host writes the disk, or it is read-only. Else why it does not. */
const char *virtio_blk_guard(struct virtio_device *disk);

/* What the host does to a disk. */
#define VIRTIO_BLK_LAST_SIZE 128
struct virtio_blk_health {
	uint64_t size;       /* that the guest sees, bytes */
	uint64_t image_size;
	uint64_t failed;     /* operations */
	unsigned int kept;   /* requests that wait for a resume, which tries them again */
	char last[VIRTIO_BLK_LAST_SIZE]; /* the last failure: "write at offset 512: ...", or "" */
};
void virtio_blk_health(struct virtio_device *disk, struct virtio_blk_health *ret);
/* Whether failures were logged since the last call. */
bool virtio_blk_take_news(struct virtio_device *disk);
/* The guest sees the size that the image has now, *bytes. On the loop's thread. devices/virtio/blk_fault.c */
int virtio_blk_resize(struct virtio_device *disk, uint64_t *bytes, struct err *err);

/* What the guest has asked a disk for, since the device was made. */
enum virtio_blk_kind { VIRTIO_BLK_READ, VIRTIO_BLK_WRITE, VIRTIO_BLK_FLUSH, VIRTIO_BLK_DISCARD, VIRTIO_BLK_KINDS };
struct virtio_blk_counts {
	uint64_t requests; /* that were completed, also those that failed */
	uint64_t bytes;    /* of those that succeeded; discards and writes of zeroes count what they name */
	uint64_t failed;   /* of the requests */
	struct counter_histogram took; /* from the driver's queue to its status */
};
/* Of all queues. Any thread. */
void virtio_blk_count(struct virtio_device *disk, struct virtio_blk_counts ret[VIRTIO_BLK_KINDS]);

/*
 * Another image for a disk whose guest runs on: its size is shown to the guest, all else that the guest knows of the disk
 * stays. open and close may take long, on any thread: open checks and locks the image, close writes back what the guest
 * has written, unlocks it and closes it (-errno: what was written is lost, and err says so). swap exchanges it with the
 * disk's, whose health begins anew: on a drained device, on the loop's thread. devices/virtio/blk_replace.c
 */
struct virtio_blk_spare;
int virtio_blk_spare_open(struct virtio_device *disk, const char *path, const struct virtio_blk_passed *passed,
			  struct virtio_blk_spare **ret, struct err *err);
int virtio_blk_spare_swap(struct virtio_device *disk, struct virtio_blk_spare *spare, struct err *err);
int virtio_blk_spare_close(struct virtio_blk_spare *spare, struct err *err);

/*
 * From now on all requests that need the image fail, also those that wait for a limit or a resume, and none is told as a
 * failure of the host: the disk is being taken away. On a drained device; it resumes then. devices/virtio/blk.c
 */
void virtio_blk_disconnect(struct virtio_device *disk);
/* Writes back what the guest has written, on a disk that it does not reach any more. -errno: that is lost. Any thread. */
int virtio_blk_flush(struct virtio_device *disk, struct err *err);

/* A disk's contents, for a copy. */
struct virtio_blk_image {
	int fd;        /* through the page cache; the disk's own */
	uint64_t size; /* bytes that the guest sees */
	bool readonly;
	bool direct;   /* the guest's I/O bypasses the page cache */
};
void virtio_blk_image(struct virtio_device *disk, struct virtio_blk_image *ret);

/*
 * To copy a disk while it is written: after track has returned, each collect reports what has changed since the
 * previous one, by writes, discards and zeroes that have ended, successful or not. It ORs bitmap; bit n is the n-th
 * VIRTIO_BLK_GRANULE bytes. A part is read after it was collected; if it changes later, the next collect reports it
 * again. track and untrack on the loop's thread; collect between them, on any thread. devices/virtio/blk_dirty.c
 */
#define VIRTIO_BLK_GRANULE KIB(64)
int virtio_blk_track(struct virtio_device *disk, struct err *err);
void virtio_blk_untrack(struct virtio_device *disk);
void virtio_blk_collect(struct virtio_device *disk, unsigned long *bitmap);

struct virtio_net_options {
	const char *id;
	const char *tap;     /* interface name, or NULL */
	const int *tap_fds;  /* that interface, open once for each queue; duplicated; NULL: it is opened */
	bool passt;          /* user networking through passt */
	const char *socket;  /* passt's socket to connect to; NULL with passt: start passt */
	uint8_t mac[6];      /* all zero: made from id and the machine's name */
	unsigned int queues; /* pairs, 1 to 16 */
	bool vhost;
	bool unplugged;      /* virtio_net_set_link has not plugged the cable in */
	struct dirty_set *dirty; /* vhost adds itself as a source; NULL: no tracking */
	const char *machine; /* the machine's name */
};
/* Indexes of a network card's limiters. */
enum { VIRTIO_NET_LIMIT_RX, VIRTIO_NET_LIMIT_TX };
/* devices/virtio/net.c */
int virtio_net_create(const struct virtio_net_options *options, struct guest_memory *memory, const struct log *log,
		      struct virtio_device **ret, struct err *err);

/*
 * Opens a tap interface once for each of its queues, as virtio_net_create does it, for another process: with the rights of
 * this one. fds are the caller's. devices/virtio/net_tap.c
 */
int virtio_net_open_tap(const char *name, unsigned int queues, int *fds, struct err *err);
/* The name of the interface that an open tap belongs to. -EINVAL: it is no tap. */
int virtio_net_name_tap(int fd, char name[16], struct err *err);

/*
 * Plugs the cable in or out: the guest sees its link go up or down, and while it is out, what either side sends is lost.
 * On the loop's thread. -EBUSY: the guest waits for the device. devices/virtio/net_cable.c
 */
int virtio_net_set_link(struct virtio_device *net, bool plugged, struct err *err);
bool virtio_net_link(struct virtio_device *net);

/*
 * Waits for what the network needs and has started, which is passt: it sets itself up while other parts of the machine
 * are made. -errno: it has ended, and err has its reason. On the loop's thread, before the guest runs.
 */
int virtio_net_ready(struct virtio_device *net, struct err *err);

/* The packets of a card, or of one of its queue pairs, since the device was made; not those that vhost moves. */
struct virtio_net_counts {
	uint64_t rx_packets, rx_bytes; /* to the guest; without the virtio header */
	uint64_t rx_dropped;           /* too long for the guest's buffers, or the machine was paused */
	uint64_t tx_packets, tx_bytes; /* from the guest */
	uint64_t reserved[3];          /* a cache line */
};
/* Of all queue pairs. Any thread. */
void virtio_net_count(struct virtio_device *net, struct virtio_net_counts *ret);

/*
 * The card has another address from now on, whatever the driver has set. The driver sees it in the config space, and is
 * notified when the device resumes; Linux' driver reads it only when it is bound. On a drained device, the loop's
 * thread.
 */
void virtio_net_set_mac(struct virtio_device *net, const uint8_t mac[6]);

/* A locally administered address, always the same for the same machine and device. */
void virtio_net_make_mac(uint8_t mac[6], const char *machine, const char *id);

struct virtio_vsock_options {
	const char *id;
	uint32_t cid;       /* the guest's, 3 or more */
	const char *socket; /* UNIX socket for the user-space form; NULL: kernel vhost-vsock */
	struct dirty_set *dirty; /* while it is started, vhost-vsock is stopped: it has no log; NULL: no tracking */
};
/* devices/virtio/vsock.c */
int virtio_vsock_create(const struct virtio_vsock_options *options, struct guest_memory *memory,
			struct event_loop *loop, const struct log *log, struct virtio_device **ret, struct err *err);
/* The guest continues elsewhere, or from a saved state: ends its connections and notifies it. Any thread. */
void virtio_vsock_transport_reset(struct virtio_device *vsock);

/* devices/virtio/rng.c */
int virtio_rng_create(const char *id, struct guest_memory *memory, struct event_loop *loop, const struct log *log,
		      struct virtio_device **ret, struct err *err);

/*
 * A console on two descriptors (the same for a pty or a socket), which are consumed and made non-blocking; *in_fd -1:
 * no input. Output waits for a slow reader; without a reader (a pty without a client, a closed pipe: SIGPIPE must be
 * ignored) it is lost. devices/virtio/console.c
 */
int virtio_console_create(const char *id, int *in_fd, int *out_fd, struct guest_memory *memory, struct event_loop *loop,
			  const struct log *log, struct virtio_device **ret, struct err *err);

/* The guest's last report about its memory, in bytes; UINT64_MAX: not reported. */
struct virtio_balloon_stats {
	uint64_t actual; /* given back by the guest */
	uint64_t target; /* requested from the guest */
	uint64_t free, total, available, caches;
	uint64_t major_faults, minor_faults, swap_in, swap_out;
	uint64_t reported; /* given back by free-page reporting since the start */
};
/*
 * Called before pages go back to the host, because guest memory may be pinned (VFIO): with a page-aligned range of
 * guest addresses, on the loop's thread. Nonzero keeps the pages. NULL: all pages can go back.
 */
typedef int virtio_balloon_release_fn(void *opaque, uint64_t gpa, uint64_t len);
/* devices/virtio/balloon.c */
int virtio_balloon_create(const char *id, struct guest_memory *memory, struct event_loop *loop, const struct log *log,
			  struct virtio_device **ret, struct err *err);
void virtio_balloon_set_release(struct virtio_device *balloon, virtio_balloon_release_fn *fn, void *opaque);
/* Asks the guest to give back bytes (rounded down to pages). Not from the device's own callbacks. */
void virtio_balloon_set_target(struct virtio_device *balloon, uint64_t bytes);
/* The guest's last report; requests a new one. Any thread. */
void virtio_balloon_get_stats(struct virtio_device *balloon, struct virtio_balloon_stats *stats);

/* ---- transports: virtio_transport.c, and one file each for the constructors ---- */

/* A PCI function for a device, which it owns after success. devices/virtio/virtio_pci.c */
struct bus;
struct pci_bus;
struct msi_controller;
int virtio_pci_create(struct virtio_device *device, struct pci_bus *bus, struct bus *mmio, struct msi_controller *msi,
		      struct event_loop *loop, int devfn, struct virtio_transport **ret, struct err *err);
/* A page of registers for a device, which it owns after success. devices/virtio/virtio_mmio.c */
struct virtio_mmio_config {
	struct bus *mmio;
	uint64_t addr;        /* of the page */
	unsigned int slot;    /* virtio_transport_slot */
	struct irq_line line; /* a copy, of a line that others may have, too */
};
int virtio_mmio_create(struct virtio_device *device, const struct virtio_mmio_config *config,
		       struct virtio_transport **ret, struct err *err);
/*
 * Removes it from the bus, resets and destroys it and its device. NULL is fine. detach does the first two: while the
 * vCPUs are paused if there are any, and with a drained device, for which it does not wait.
 */
void virtio_transport_destroy(struct virtio_transport *transport);
void virtio_transport_detach(struct virtio_transport *transport);
struct virtio_device *virtio_transport_device(const struct virtio_transport *transport);
/* Where the guest finds it: the number of the PCI device, or of the page. */
unsigned int virtio_transport_slot(const struct virtio_transport *transport);
/*
 * Before and after a pause of the machine. -ETIMEDOUT as virtio_device_ops.drain, also if the guest itself waits for
 * the device: call it again, or virtio_transport_resume, which never waits for the device.
 */
int virtio_transport_drain(struct virtio_transport *transport, int64_t deadline, struct err *err);
void virtio_transport_resume(struct virtio_transport *transport);

/*
 * Appends the saved state of the device and its transport. -EBUSY: it is not drained. On the loop's thread.
 * devices/virtio/virtio_transport_state.c
 */
int virtio_transport_save(struct virtio_transport *transport, struct state_buffer *out, struct err *err);
/*
 * Loads the len bytes of virtio_transport_save into a new device in the same slot; guest memory and the bus's state are
 * loaded before. The device is then drained; virtio_transport_resume continues it. -EBADMSG: data is invalid; -ENOTSUP:
 * the guest uses features that this device does not have (err names the bits). After a failure the device can only be
 * destroyed. On the loop's thread.
 */
int virtio_transport_load(struct virtio_transport *transport, const void *data, size_t len, struct err *err);
