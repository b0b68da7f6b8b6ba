/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the virtio disk (virtio 1.2 section 5.2): what its files share. blk.c is the device and its queue
 * threads, blk_io.c turns a chain into I/O and its result into a status byte, blk_file.c opens what lies behind,
 * blk_dirty.c knows what was changed.
 *
 * One thread a queue, each with its own io_uring and its own requests; threads share nothing that changes but the
 * write cache mode. Nothing outside these files includes this.
 */
#pragma once

#include "devices/virtio/virtio.h"
#include "devices/virtio/virtio_thread.h"

#include <liburing.h>
#include <linux/virtio_blk.h>
#include <stdatomic.h>

#define BLK_SECTOR 512u
#define BLK_QUEUE_SIZE 256u
#define BLK_MAX_SEGMENTS (BLK_QUEUE_SIZE - 2) /* of data: header and status take two */
#define BLK_MAX_DISCARD_SECTORS (1u << 21)      /* 1 GiB a request */
#define BLK_MAX_WRITE_ZEROES_SECTORS (1u << 17) /* 64 MiB: this may have to be written byte for byte */
#define BLK_INLINE_SEGMENTS 6u                  /* more than that and a request allocates */

/* ---- blk_file.c: the image ---- */

struct blk_file {
	int fd;          /* opened O_DIRECT when asked for; holds the lock */
	int buffered_fd; /* the same file through the page cache, for what O_DIRECT cannot take; fd when not direct */
	bool readonly;
	bool direct;
	uint64_t sectors;       /* of 512 bytes */
	uint32_t block_size;    /* what the guest is told: logical, bytes */
	uint32_t physical_size; /* physical, bytes */
	uint32_t memory_align;  /* what O_DIRECT asks of addresses, and of offsets and lengths; powers of two */
	uint32_t offset_align;
};

/* Opens, checks, locks unless that is left for later. err names the option and the path. The result is closed by blk_file_close. */
int blk_file_open(const struct virtio_blk_options *options, const struct log *log, struct blk_file *file,
		  struct err *err);
/* All I/O has ended. Harmless on one that is closed or was never opened but has fd -1. */
void blk_file_close(struct blk_file *file);

/* Takes the lock (-EBUSY says who has it), or gives it up. No I/O is in flight; name is for a warning. */
int blk_file_lock(const struct blk_file *file, const struct log *log, const char *name, struct err *err);
void blk_file_unlock(const struct blk_file *file);

/* ---- blk_pace.c: when to interrupt, when to ask for kicks ---- */

struct blk_pace {
	unsigned int held;     /* completions the driver has not been told of */
	unsigned int told;     /* those of the last interrupt */
	unsigned int arrived;  /* requests since then */
	bool busy;             /* some of them while completions were held and nothing was in flight */
	unsigned int goal;     /* so many completions make an interrupt */
	unsigned int cap;      /* the goal grows up to here */
	unsigned int credit;   /* interrupts since goal or cap were changed last */
	unsigned int patience; /* how many it takes for a trial */
	uint64_t gap_ns;       /* the driver's time for one request, smoothed */
	uint64_t since_ns;     /* from when the next gap counts; 0: not known */
	uint64_t held_ns;      /* when the first of held completed */
};

/* Times are of one monotonic clock, nanoseconds. */
void blk_pace_init(struct blk_pace *pace);
/* count requests, at least one, have arrived while in_flight were with the kernel. */
void blk_pace_took(struct blk_pace *pace, unsigned int count, unsigned int in_flight, uint64_t now);
/* count requests were given back. */
void blk_pace_completed(struct blk_pace *pace, unsigned int count, uint64_t now);
/*
 * Whether to interrupt now; then nothing is held any more. quiet: nothing has happened for blk_pace_poll_ns. in_flight:
 * what was with the kernel before requests were taken last.
 */
bool blk_pace_interrupt(struct blk_pace *pace, bool quiet, unsigned int in_flight, uint64_t now);
/* How long to sleep without kicks. */
uint64_t blk_pace_poll_ns(const struct blk_pace *pace);

/* ---- blk.c: the device ---- */

struct blk_queue;

/* What the guest has read of the disk, and set. */
struct blk_state {
	uint64_t sectors;
	uint32_t block_size;        /* bytes */
	uint32_t discard_alignment; /* sectors */
	uint16_t min_io_size;       /* blocks */
	uint8_t physical_block_exp;
	bool readonly, wce;
};

struct blk {
	struct virtio_device device;
	struct blk_file file;
	struct blk_state state;
	uint8_t serial[VIRTIO_BLK_ID_BYTES];
	atomic_bool write_cache; /* false: a write is on disk before it is reported done */
	char id[64];
	struct blk_queue *queues;
	unsigned long *dirty; /* a bit for each VIRTIO_BLK_GRANULE bytes; NULL before the first virtio_blk_track */
	atomic_bool tracked;
};

/* Where in ring->registered files a request's descriptor is. */
enum { BLK_FILE_DIRECT, BLK_FILE_BUFFERED, BLK_FILES };

struct blk_request {
	struct blk_request *next_free;
	uint16_t head;      /* of the chain */
	uint16_t iov_count; /* data segments */
	uint8_t op;         /* enum blk_op: what is done now */
	uint8_t attempts;   /* in vain, without progress */
	bool in;            /* the data segments are the guest's to read */
	uint8_t file;       /* BLK_FILE_* */
	uint32_t in_bytes;  /* of the chain: data and status */
	uint32_t type;      /* VIRTIO_BLK_T_* */
	uint32_t flags;     /* of a discard or a write of zeroes */
	uint64_t offset;    /* bytes into the disk */
	uint64_t size;      /* bytes to do */
	uint64_t done;      /* bytes done */
	struct iovec *iov;  /* data segments, then the status byte as one of its own */
	void *extra;        /* freed at the end: iov when it is long, or a bounce buffer */
	struct iovec *rest; /* what is left of iov after a short transfer; freed at the end */
	struct iovec segments[BLK_INLINE_SEGMENTS];
};

struct blk_queue {
	struct blk *blk;
	struct virtqueue *vq;
	struct virtio_thread thread;
	struct io_uring ring;
	bool fixed_files; /* descriptors are registered */
	bool kick_armed;
	bool poll_once; /* no multishot poll here: armed again each time */
	bool no_punch, no_zero_range; /* the file cannot: learned from its answer */
	unsigned int in_flight;       /* requests the kernel has */
	unsigned int pushed;          /* requests given back in this round of the thread */
	struct blk_pace pace;
	struct blk_request *requests, *free;
	struct virtq_chain chain; /* the one being popped */
};

/* ---- blk_dirty.c: what was changed ---- */

/* An operation on [offset, offset + size), which lies on the disk, has ended. Any thread. */
void blk_mark(struct blk *blk, uint64_t offset, uint64_t size);

/* ---- blk_io.c: requests ---- */

/* A submission entry; submits what is queued when the ring is full. NULL only when the kernel does not take it. */
struct io_uring_sqe *blk_get_sqe(struct blk_queue *q);
/* Starts the request in q->chain with a free request, or answers it at once. -EPROTO when it cannot be answered. */
int blk_request_start(struct blk_queue *q);
/* The kernel has done what the request asked for, with result bytes or -errno: goes on with it or gives it back. */
void blk_request_done(struct blk_queue *q, struct blk_request *request, int result);
