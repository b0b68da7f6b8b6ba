/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by serial.c (the port) and serial_state.c (saved state); no other file includes it. */
#pragma once

#include "core/token_bucket.h"
#include "devices/platform.h"

#include <linux/serial_reg.h>
#include <pthread.h>

#define FIFO 16u
#define IN_SIZE 4096u

/* Bytes for the guest to read, the first one in front. data and count are in struct serial_state. */
struct input_queue {
	uint8_t *data;
	uint32_t *count, size;
};

struct serial_state {
	uint8_t ier, fcr, lcr, mcr, scr, dll, dlm;
	uint8_t errors; /* of the line status register */
	uint8_t deltas; /* of the modem status register */
	bool thre;      /* the interrupt "transmitter empty" is pending */
	bool held;      /* no input before in_timer */
	uint32_t in_count, looped_count;
	uint8_t in[IN_SIZE], looped[FIFO];
	struct token_bucket_fill limit; /* of the output, of the time of a save */
};

struct serial {
	struct bus *pio;
	uint16_t port;
	struct irq_line *irq;
	struct event_loop *loop;
	const struct log *log;

	/* the loop's thread */
	int in_fd;
	struct event_source *in_timer;
	struct serial_output *output;

	pthread_mutex_t lock; /* all below */
	struct serial_state state;
	bool line_high;
	struct input_queue in, looped;
	uint32_t fifo;  /* bytes of in that have arrived in the receive FIFO */
	bool overdue;   /* they are reported even if they are fewer than the trigger level */
	bool in_armed;  /* in_timer runs */
	bool in_paused; /* in_fd is not read: the queue was full */
	bool in_plain;  /* in_fd cannot be watched: a file */
	struct event_source *in_source;
};

/* Sets the interrupt line from the registers. Lock held. */
void serial_update_line(struct serial *serial);
/* Holds input back for a moment. Lock held. */
void serial_hold(struct serial *serial);
/* Moves waiting input into the FIFO. Lock held. */
void serial_arrive(struct serial *serial);
