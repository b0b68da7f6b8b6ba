/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by the files of the virtio disk (virtio 1.2 section 5.2); no other file includes it. blk.c is the device and
 * its queue threads, blk_io.c turns a chain into I/O and its result into a status byte, blk_file.c opens the image,
 * blk_dirty.c tracks changes, blk_fault.c tells what the host does wrong, blk_count.c counts, blk_replace.c gives the disk
 * another image.
 *
 * Each queue has a thread with its own io_uring and requests. The only changing data that threads share are the write
 * cache mode, the size and the faults.
 */
#pragma once

#include "core/ring.h"
#include "devices/virtio/virtio.h"
#include "devices/virtio/virtio_layout.h"
#include "devices/virtio/virtio_thread.h"

#include <linux/virtio_blk.h>
#include <stdatomic.h>

#define BLK_SECTOR 512u
#define BLK_QUEUE_SIZE 256u
#define BLK_MAX_SEGMENTS (BLK_QUEUE_SIZE - 2) /* of data: header and status take two */
#define BLK_MAX_REQUEST MIB(128) /* of data; no driver sends as much, and a pause waits for it */
#define BLK_MAX_DISCARD_SECTORS (1u << 21)      /* 1 GiB a request */
#define BLK_MAX_WRITE_ZEROES_SECTORS (1u << 17) /* 64 MiB: some files need writes of zeroes */
#define BLK_INLINE_SEGMENTS 6u                  /* a request with more segments allocates */

/* ---- blk_file.c: the image ---- */

struct blk_file {
	int fd;          /* opened with O_DIRECT if direct; holds the lock */
	int buffered_fd; /* the same file through the page cache, for I/O that O_DIRECT refuses; fd if not direct */
	bool readonly;
	bool direct;
	bool lockless;          /* nothing is locked */
	uint64_t sectors;       /* of 512 bytes; atomic: virtio_blk_resize changes it */
	uint32_t block_size;    /* the guest's logical block, in bytes */
	uint32_t physical_size; /* and its physical block */
	uint32_t memory_align;  /* of addresses for O_DIRECT; a power of two */
	uint32_t offset_align;  /* of offsets and lengths; a power of two */
};

/* The size of an open file or block device; cached: as far as the kernel knows it without asking a server. */
int blk_file_size(int fd, bool cached, uint64_t *bytes);
/* How much of that the guest sees: whole blocks. */
static inline uint64_t blk_file_sectors(const struct blk_file *file, uint64_t bytes)
{
	return bytes / file->block_size * (file->block_size / BLK_SECTOR);
}

/* Opens and checks the image, and locks it unless options->unlocked. err names the option and the path. */
int blk_file_open(const struct virtio_blk_options *options, const struct log *log, struct blk_file *file,
		  struct err *err);
/* After all I/O has ended. No effect on a closed image (fd -1). */
void blk_file_close(struct blk_file *file);

/* Takes or releases the lock (-EBUSY: err says which process has it). No I/O is in flight. */
int blk_file_lock(const struct blk_file *file, struct err *err);
void blk_file_unlock(const struct blk_file *file);

/* ---- blk_guard.c: whom the lock keeps out ---- */

/* NULL: other hosts cannot write the image meanwhile, or it is not written. Else why they may. */
const char *blk_guard(const struct blk_file *file);
/* The same from an image's mode, its file system's number and its mount's line in mountinfo. */
const char *blk_guard_judge(mode_t mode, uint32_t type, const char *mount);

/* ---- blk_pace.c: when to interrupt, when to ask for kicks ---- */

struct blk_pace {
	unsigned int held;     /* completions without an interrupt so far */
	unsigned int goal;     /* completions for an interrupt */
	bool busy;             /* while no request was in flight, several arrived, or one while completions were held */
	bool overlapped;       /* the driver has had several requests at a time since the last failure */
	unsigned int credit;   /* successful interrupts since the last change of goal */
	unsigned int patience; /* as many before the goal doubles */
	uint64_t gap_ns;       /* the driver's time between requests, smoothed */
	uint64_t since_ns;     /* the start of the next gap; 0: not known */
	uint64_t held_ns;      /* when the first of held completed */
};

/* Times are of one monotonic clock, in ns. */
void blk_pace_init(struct blk_pace *pace);
/* count requests, at least one, have arrived while in_flight were in flight. */
void blk_pace_took(struct blk_pace *pace, unsigned int count, unsigned int in_flight, uint64_t now);
/* count requests have completed. */
void blk_pace_completed(struct blk_pace *pace, unsigned int count, uint64_t now);
/*
 * Whether to interrupt now; then nothing is held any more. quiet: nothing has happened for blk_pace_poll_ns. in_flight:
 * requests in flight before the last ones were taken.
 */
bool blk_pace_interrupt(struct blk_pace *pace, bool quiet, unsigned int in_flight, uint64_t now);
/* How long to sleep without kicks. */
uint64_t blk_pace_poll_ns(const struct blk_pace *pace);

/* ---- blk_fault.c: failures of the host ---- */

struct blk_request;
struct blk_queue;
struct blk;

struct blk_fault {
	int stop_fd; /* not owned */
	bool stops;  /* failed requests are kept, for which it is kicked; else the guest is told */
	bool tells;  /* it is also kicked when failures were logged */
	atomic_bool news; /* failures were logged */
	pthread_mutex_t lock;
	/* under lock */
	uint64_t count;       /* operations that failed */
	unsigned int untold;  /* of them since the last line */
	unsigned int kept;    /* requests that wait for a resume */
	uint64_t told_ns;     /* when the last line was logged */
	bool size_told;       /* the size of the image is not what the guest sees, and that was told */
	char last[VIRTIO_BLK_LAST_SIZE]; /* the last failure */
	uint64_t looked_ns;   /* atomic */
};

void blk_fault_init(struct blk_fault *fault, const struct virtio_blk_options *options);
void blk_fault_done(struct blk_fault *fault);
/* The request's operation has failed with -errno, or 0: the image ends before it. True: the request is kept. */
bool blk_fault_failed(struct blk_queue *q, struct blk_request *request, int result);
/* The kept requests, linked by next_free; they are not kept any more. */
struct blk_request *blk_fault_take_kept(struct blk_queue *q);
/* Looks at the size of the image, once a second at most; now 0: in any case. */
void blk_fault_look(struct blk *blk, uint64_t now);

/* ---- blk.c: the device ---- */

/* The disk's properties that the guest has read or set. */
struct blk_state {
	uint64_t sectors;
	uint32_t block_size;        /* bytes */
	uint32_t discard_alignment; /* sectors */
	uint16_t min_io_size;       /* blocks */
	uint8_t physical_block_exp;
	bool readonly, wce;
	struct rate_limiter_state limit; /* of the time of a save */
};

struct blk {
	struct virtio_device device;
	struct blk_file file;
	struct blk_state state;
	atomic_bool disconnected; /* all requests fail; set while no request is in flight */
	atomic_int lost;         /* errno of a flush of which the guest does not know yet, or 0 */
	uint8_t serial[VIRTIO_BLK_ID_BYTES];
	atomic_bool write_cache; /* false: a write is on disk before it completes */
	atomic_bool cached;      /* some write went through the page cache, although the file is direct */
	char id[64];
	struct blk_queue *queues;
	struct rate_limiter limiter;
	struct blk_fault fault;
	struct blk_bitmap *dirty; /* atomic; NULL before the first virtio_blk_track */
	atomic_bool tracked;
};

static inline uint64_t blk_sectors(const struct blk *blk)
{
	return __atomic_load_n(&blk->file.sectors, __ATOMIC_ACQUIRE);
}

/* Indexes of the ring's registered files. */
enum { BLK_FILE_DIRECT, BLK_FILE_BUFFERED, BLK_FILE_KICK, BLK_FILES };

/* The current operation of a request. */
enum blk_op { BLK_READ, BLK_WRITE, BLK_SYNC, BLK_PUNCH, BLK_ZERO_RANGE, BLK_ZERO_WRITE };

struct blk_request {
	struct blk_request *next_free; /* or the next kept one */
	uint16_t head;      /* of the chain */
	uint16_t iov_count; /* data segments */
	uint8_t op;         /* enum blk_op: the current operation */
	uint8_t attempts;   /* without progress */
	bool in;            /* data is for the guest to read */
	bool through;       /* a write that is on disk when it completes */
	uint8_t file;       /* BLK_FILE_* */
	uint32_t in_bytes;  /* of the chain: data and status */
	uint32_t type;      /* VIRTIO_BLK_T_* */
	uint32_t flags;     /* of a discard or a write of zeroes */
	uint64_t started;   /* ns of CLOCK_MONOTONIC */
	uint64_t offset;    /* bytes into the disk */
	uint64_t size;      /* bytes in all */
	uint64_t done;      /* bytes done */
	struct iovec *iov;  /* the data segments, then a segment of the status byte */
	void *extra;        /* a long iov, or a bounce buffer; freed at the end */
	struct iovec *rest; /* the rest of iov after a short transfer; freed at the end */
	struct iovec segments[BLK_INLINE_SEGMENTS];
};

struct blk_queue {
	struct blk *blk;
	struct virtqueue *vq;
	struct virtio_thread thread;
	struct io_uring ring;
	bool fixed_files; /* the descriptors are registered */
	bool stale_files; /* those of another image; set while the thread is parked */
	bool kick_armed;
	bool poll_once; /* the kernel has no multishot poll: arm it again each time */
	bool no_punch, no_zero_range; /* the file has refused it */
	unsigned int in_flight;       /* requests in the kernel */
	unsigned int pushed;          /* requests completed in this round of the thread */
	uint64_t now;                 /* ns; when this round began */
	struct virtio_blk_counts counts[VIRTIO_BLK_KINDS];
	uint64_t limited_ns;          /* so long the limit lets no request begin; 0: it does */
	struct blk_pace pace;
	struct blk_request *requests, *free;
	struct blk_request *kept; /* they failed, and wait for a resume */
	atomic_bool retry;        /* that was the resume */
	void *zeroes; /* what requests write that fallocate cannot do; NULL before the first one */
	struct virtq_chain chain; /* the chain being popped */
};

/* ---- blk_dirty.c: changes ---- */

/* A bit for each VIRTIO_BLK_GRANULE bytes. A disk that was resized has several: threads may still use the others. */
struct blk_bitmap {
	struct blk_bitmap *before;
	size_t granules;
	unsigned long bits[];
};

void blk_dirty_done(struct blk *blk);

/* An operation on [offset, offset + size) of the disk has ended. Any thread. */
void blk_mark(struct blk *blk, uint64_t offset, uint64_t size);

/* ---- blk_count.c: metrics ---- */

/* The request is complete. On the queue's thread. */
void blk_count(struct blk_queue *q, const struct blk_request *request, uint8_t status);

/* ---- blk_io.c: requests ---- */

/* A submission entry; submits the queued ones if the ring is full. NULL: the kernel does not take them. */
struct io_uring_sqe *blk_get_sqe(struct blk_queue *q);
/* Starts q->chain with a free request, or completes it at once. -EPROTO: it has no header or no status. */
int blk_request_start(struct blk_queue *q);
/* Whether I/O fails at once. */
static inline bool blk_is_disconnected(struct blk *blk)
{
	return atomic_load_explicit(&blk->disconnected, memory_order_relaxed);
}
/* Frees what a request has allocated. */
void blk_request_free(struct blk_request *request);
/* Tries the kept requests again. */
void blk_retry(struct blk_queue *q);
/* The kernel has completed the request's operation with result bytes or -errno: continues or completes the request. */
void blk_request_done(struct blk_queue *q, struct blk_request *request, int result);
