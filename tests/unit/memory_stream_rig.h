/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of vmm/migration/memory_sender and memory_receiver have in common: the memory of two machines, of two
 * kinds, and channels between.
 */
#pragma once

#include "tests/unit/channel_pair.h"
#include "tests/unit/test.h"
#include "vmm/migration/memory_receiver.h"
#include "vmm/migration/memory_sender.h"

#define PAGE 4096u
#define LOW MIB(7)                    /* bytes of private memory at 0; no multiple of a chunk's two */
#define HIGH_GPA (GIB(4) + 0x3000)    /* where a memfd lies; cuts chunks in two, and words of the bitmap */
#define HIGH (MIB(5) + 0x5000)
#define MAX_CHANNELS 8u

struct side {
	struct guest_memory *memory;
	uint8_t *low, *high;
	int fd;
	unsigned long low_marks[LOW / PAGE / 64 + 1], high_marks[HIGH / PAGE / 64 + 1];
};
extern struct side source, target;
extern struct channel *out[MAX_CHANNELS], *in[MAX_CHANNELS];
extern unsigned int channel_count;
extern struct memory_sender *sender;
extern struct memory_receiver *receiver;
extern struct memory_sender_options sending; /* of the next start_sender; set_up makes them */

/* Memory on both sides and channels between; silence in ms. */
void set_up(unsigned int channels, bool tcp, unsigned int silence);
void tear_down(void);
void start_sender(void);
void start_receiver(void);
void start_both(void);
void mark_all(void);
/* Pages that are marked on the source. */
size_t marks_left(void);
/* Sends what is marked, until deadline (core/monotonic.h, 0: none). */
int send_marks(uint64_t deadline, struct err *err);
/* The same numbers in each run. */
uint64_t next_random(void);
/* Fills a page with them. */
void scribble(uint8_t *page);
