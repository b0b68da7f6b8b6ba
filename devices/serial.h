/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by serial.c (the port) and serial_state.c (saved state); no other file includes it. */
#pragma once

#include "devices/platform.h"

#include <linux/serial_reg.h>
#include <pthread.h>

#define FIFO 16u
#define IN_SIZE 4096u
#define OUT_SIZE 65536u

/* A ring of bytes; size is a power of two. */
struct ring {
	uint8_t *data;
	uint32_t size, head, count;
};

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
};

struct serial {
	struct bus *pio;
	uint16_t port;
	struct irq_line *irq;
	struct event_loop *loop;
	const struct log *log;

	/* the loop's thread */
	int in_fd, out_fd;
	bool out_socket;
	size_t out_chunk; /* bytes that one write takes without blocking */
	uint64_t out_delay;
	struct event_source *out_timer, *in_timer;

	pthread_mutex_t lock; /* all below */
	struct serial_state state;
	bool line_high;
	struct input_queue in, looped;
	struct ring out;
	bool in_paused; /* in_fd is not read: the queue was full */
	bool in_plain;  /* in_fd cannot be watched: a file */
	struct event_source *in_source;
	bool out_armed, out_lossy;
	uint8_t out_data[OUT_SIZE];
};

/* Sets the interrupt line from the registers. Lock held. */
void serial_update_line(struct serial *serial);
/* Holds input back for a moment. Lock held. */
void serial_hold(struct serial *serial);
