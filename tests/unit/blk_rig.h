/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of the disk have in common: a disk on an image in a folder of its own, the driver's requests, random
 * ones against a copy in memory, and what the disk says of itself.
 */
#pragma once

#include "devices/virtio/blk_internal.h"
#include "tests/unit/test.h"
#include "tests/unit/virtio_driver.h"

#define SLOTS 128u
#define SLOT_DATA KIB(16)
#define WAIT_MS 20000
#define NO_ANSWER 0xee

/* One request's place in guest memory: header, data and status, apart from each other. */
struct slot {
	uint64_t header, data, status;
	bool busy;
	uint16_t head;
	uint32_t type;
	uint64_t sector;
	uint32_t len;
};

struct disk {
	char dir[64], path[96];
	struct virtio_blk_options options;
	struct virtio_device *device;
	struct virtio_driver *driver;
	struct slot slots[SLOTS];
	const struct log *log; /* NULL: nobody reads it */
};

/* Below n; the same numbers in each run. */
uint32_t random_below(uint32_t n);

/* ---- a disk and its driver ---- */

/* An image of zeroes and the options for it, which the test may change before it plugs the disk. */
void make_image(struct disk *disk, off_t size);
void remove_image(struct disk *disk);
struct blk *blk_of(struct disk *disk);
/* The device with its driver, which attaches; all of it. create_over: fd, a copy of it, is there instead of the image. */
void create(struct disk *disk);
void create_over(struct disk *disk, int fd);
void attach(struct disk *disk, uint64_t features);
void plug(struct disk *disk, uint64_t features);
/* Again, after a reset of the driver. */
void place_slots(struct disk *disk);
/* All of it with one queue, and its end. */
void open_disk(struct disk *disk, off_t size);
void close_disk(struct disk *disk);

/* ---- requests ---- */

/* Makes the slot's request available; pieces: into how many segments its data are cut at the most. */
void add(struct disk *disk, unsigned int queue, struct slot *slot, bool in, unsigned int pieces);
uint8_t status_of(struct disk *disk, const struct slot *slot);
/* Waits for any request of the queue. */
struct slot *finish(struct disk *disk, unsigned int queue, uint32_t *len);
/* One request from start to end, on queue 0 by slot 0; its status. */
uint8_t ask(struct disk *disk, uint32_t type, uint64_t sector, uint32_t len, bool in);
uint8_t ask_range(struct disk *disk, uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags);
/* Of slot 0. */
uint8_t *data(struct disk *disk);
bool all_bytes(const uint8_t *p, size_t len, uint8_t value);
/* A sector as it is in the file. */
void read_image(struct disk *disk, uint64_t sector, uint8_t *bytes);
/*
 * Random reads, writes and zeroings, many at a time, against a copy in memory. Slot i has the i-th part of the disk
 * for itself, so that requests in flight never overlap; it goes by queue i mod queues.
 */
void random_operations(struct disk *disk, unsigned int rounds, bool odd_segments);

/* ---- what is told of it ---- */

/* A log that can be read; before the disk is plugged. */
void open_log(struct disk *disk);
/* The lines since the last call, in one string without the first one's "warning: ". */
const char *logged(void);
struct virtio_blk_health health(struct disk *disk);
/* Waits until that many failed requests wait for a resume. */
void await_kept(struct disk *disk, unsigned int count);
