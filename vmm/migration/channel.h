/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection of a migration, from the HELLOs to its end. It sends and receives frames; the tables of wire.h check
 * both directions. Each wait has a limit and can be cancelled. dialer.c makes channels on the source, acceptor.c on the
 * target.
 *
 * Calls block; they are made on the migration's threads, never on an event loop. One thread sends at a time
 * (channel_send takes a lock, because the keep-alive thread sends too); one thread receives.
 *
 * The error code says what failed, and err has a message:
 * -ECONNRESET  the connection was lost or closed
 * -ETIMEDOUT   the peer sent nothing, or received nothing, for silence_ms
 * -EPROTO      the peer violated the protocol
 * -EREMOTEIO   something failed on the peer's side; err has the peer's message
 * -ECANCELED   the cancel descriptor became readable
 * -EINTR       the interrupt descriptor became readable
 */
#pragma once

#include <pthread.h>
#include <sys/uio.h>

#include "vmm/migration/wire.h"

#define CHANNEL_SILENCE_MS 10000
#define CHANNEL_KEEP_ALIVE_MS 1000
#define CHANNEL_FAREWELL_MS 2000

struct channel;
struct tls;

struct channel_options {
	enum wire_side side; /* of this end */
	enum wire_kind kind;
	uint32_t index, count; /* among the channels of this kind */
	int cancel_fd;         /* readable: every wait ends with -ECANCELED. Not owned; -1: none */
	unsigned int silence_ms; /* 0: CHANNEL_SILENCE_MS */
};

/* memory_sender.c and memory_receiver.c access it directly too. */
struct channel {
	int fd; /* blocking mode */
	struct channel_options options;
	struct wire_conversation conversation; /* under lock */
	pthread_mutex_t lock;                  /* protects conversation */
	pthread_mutex_t send_lock;             /* held for a whole frame */
	int interrupt_fd;
	uint8_t header[WIRE_HEADER_SIZE];
	size_t header_have;
	struct wire_frame frame;
	bool has_frame;         /* frame is checked and not taken yet */
	uint32_t payload_left;  /* of the taken frame */
	int64_t heard;          /* ms, time of the last received data */
	uint64_t sent, received;        /* bytes; atomic */
	pthread_t keeper;
	int keeper_fd; /* eventfd that ends the keeper thread; -1: there is none */
	struct tls *tls; /* the TLS connection behind fd, or NULL */
};

/* A channel on a connected stream socket, before HELLO; takes *fd. It owns channel->tls, if the caller sets that. */
int channel_create(const struct channel_options *options, int *fd, struct channel **ret, struct err *err);
/* Closes the connection at once and frees the channel. NULL is fine. */
void channel_destroy(struct channel *channel);

/* Sends a frame and its payload. Waits as long as the peer receives some of it. */
int channel_send(struct channel *channel, enum wire_type type, uint64_t a, uint64_t b, const void *payload, size_t len,
		 struct err *err);

/* Sends up to CHANNEL_MAX_FRAMES frames at once, so that the peer wakes up only once. */
#define CHANNEL_MAX_FRAMES 4u
struct channel_frame {
	enum wire_type type;
	const void *payload;
	size_t len;
};
int channel_send_frames(struct channel *channel, const struct channel_frame *frames, size_t count, struct err *err);

/*
 * Waits for the next frame and takes it. The caller then reads its payload, frame->length bytes. PROGRESS is skipped.
 * Silence on the control channel ends the wait; on other channels there may be any time between two frames.
 */
int channel_receive(struct channel *channel, struct wire_frame *frame, struct err *err);
/* Reads the next len bytes of the taken frame's payload. */
int channel_payload(struct channel *channel, void *buf, size_t len, struct err *err);
/* Reads the rest of the payload and adds a zero byte; the caller frees it. */
int channel_payload_all(struct channel *channel, char **ret, struct err *err);

/*
 * As channel_receive, if the protocol fixes the next frame: REFUSED, FAILED or ABORT is -EREMOTEIO with the peer's
 * message, any other unexpected type is -EPROTO.
 */
int channel_expect(struct channel *channel, enum wire_type type, struct wire_frame *frame, struct err *err);
/* The same for one of two types. */
int channel_expect_either(struct channel *channel, enum wire_type type, enum wire_type other, struct wire_frame *frame,
			  struct err *err);

/*
 * Waits until channel_receive would return a frame without waiting: 1; 0 if none has come until then (ms), or an error.
 */
int channel_await(struct channel *channel, int64_t until, struct err *err);

/* Whether channel_receive would return a frame without waiting: 1, 0, or an error (also for silence). */
int channel_check(struct channel *channel, struct err *err);

/* Reads the message of a REFUSED, FAILED or ABORT frame into err. Returns -EREMOTEIO, or why it cannot be read. */
int channel_words(struct channel *channel, const struct wire_frame *frame, struct err *err);

/*
 * Call after a failure (code, err) that the peer may have caused: waits up to CHANNEL_FAREWELL_MS for the peer's
 * message on this (control) channel. Returns -EREMOTEIO with that message, else code and leaves err unchanged.
 */
int channel_last_words(struct channel *channel, int code, struct err *err);

/* Sends the reason for the end (REFUSED, FAILED or ABORT), then does channel_finish. */
void channel_farewell(struct channel *channel, enum wire_type type, const char *words);

/*
 * For the side that sends last, before it destroys the channel: waits up to CHANNEL_FAREWELL_MS until the peer has
 * closed the connection. Without this wait, an unread PROGRESS would make TCP discard data in flight to the peer.
 * Nothing can be sent afterwards.
 */
void channel_finish(struct channel *channel);

/* Starts a thread that sends PROGRESS every second until the channel ends, or end. After HELLO. */
int channel_keep_alive(struct channel *channel, struct err *err);
void channel_keep_alive_end(struct channel *channel);

/* While fd is readable, waits end with -EINTR, so that this thread notices a failure elsewhere. -1: none. Not owned. */
void channel_set_interrupt(struct channel *channel, int fd);

/* Shuts the connection down, so that all threads that wait on it fail. The channel stays. */
void channel_break(struct channel *channel);

/* Bytes so far, including headers. Any thread. */
uint64_t channel_sent(const struct channel *channel);
uint64_t channel_received(const struct channel *channel);

/* ---- for files that read and write the connection themselves ---- */

/* Sends bytes that consist of whole, checked frames. Modifies iov. */
int channel_send_bytes(struct channel *channel, struct iovec *iov, size_t count, struct err *err);
/* The code and message for a send or recv that failed with errno (0: the peer closed the connection). */
int channel_lost(const struct channel *channel, int error, struct err *err);
/* wire_step under the channel's lock. */
int channel_step(struct channel *channel, enum wire_side from, const struct wire_frame *frame, struct err *err);
/* Sets the version that the HELLOs agreed on. */
void channel_agree(struct channel *channel, uint32_t version);
