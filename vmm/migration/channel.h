/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection of a migration, between the two HELLOs and its end: frames out and in, checked by wire.h's tables in both
 * directions, with every wait bounded and cancellable. Made by dialer.c on the source and by acceptor.c on the target.
 *
 * Calls block and are made on the migration's own threads, never on an event loop. One thread sends at a time by itself
 * (channel_send takes a lock, for the keep-alive sends too), one thread receives.
 *
 * What a failure means is in its code, and a sentence in err:
 *   -ECONNRESET  the connection is lost, or was closed
 *   -ETIMEDOUT   the peer was silent, or took nothing, for the channel's silence time
 *   -EPROTO      the peer said what it may not
 *   -EREMOTEIO   the peer told what failed on its side; err has its words
 *   -ECANCELED   the cancel descriptor became readable
 *   -EINTR       the interrupt descriptor became readable
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
	enum wire_side side; /* this end's */
	enum wire_kind kind;
	uint32_t index, count; /* of the kind's channels */
	int cancel_fd;         /* readable: every wait ends with -ECANCELED. Not owned; -1: none */
	unsigned int silence_ms; /* 0: CHANNEL_SILENCE_MS */
};

/* What memory_sender.c and memory_receiver.c need beside the calls below. */
struct channel {
	int fd; /* blocking mode */
	struct channel_options options;
	struct wire_conversation conversation; /* under lock */
	pthread_mutex_t lock;                  /* of the above */
	pthread_mutex_t send_lock;             /* held for a whole frame */
	int interrupt_fd;
	uint8_t header[WIRE_HEADER_SIZE];
	size_t header_have;
	struct wire_frame frame;
	bool has_frame;         /* frame is checked, and not taken yet */
	uint32_t payload_left;  /* of the frame that was taken */
	int64_t heard;          /* ms, when something came last */
	uint64_t sent, received;        /* bytes; atomic */
	pthread_t keeper;
	int keeper_fd; /* eventfd that ends it; -1: there is none */
	struct tls *tls; /* what stands behind fd, or NULL */
};

/* A channel on a connected stream socket, before HELLO; takes *fd. Who sets channel->tls hands that over too. */
int channel_create(const struct channel_options *options, int *fd, struct channel **ret, struct err *err);
/* Ends the connection at once, and the channel. NULL is fine. */
void channel_destroy(struct channel *channel);

/* Sends a frame and its payload, waiting as long as the peer takes something. */
int channel_send(struct channel *channel, enum wire_type type, uint64_t a, uint64_t b, const void *payload, size_t len,
		 struct err *err);

/* Several frames, so that the peer wakes up once for all; CHANNEL_MAX_FRAMES at most. */
#define CHANNEL_MAX_FRAMES 4u
struct channel_frame {
	enum wire_type type;
	const void *payload;
	size_t len;
};
int channel_send_frames(struct channel *channel, const struct channel_frame *frames, size_t count, struct err *err);

/*
 * Waits for the next frame and takes it; its payload, frame->length bytes, is read next. PROGRESS is
 * passed over. On the control channel silence ends the wait; on others there may be nothing to say between two frames
 * for any time.
 */
int channel_receive(struct channel *channel, struct wire_frame *frame, struct err *err);
/* Reads len more bytes of the payload of the frame that was taken. */
int channel_payload(struct channel *channel, void *buf, size_t len, struct err *err);
/* All that is left of the payload, with a zero byte behind it; the caller frees it. */
int channel_payload_all(struct channel *channel, char **ret, struct err *err);

/*
 * As channel_receive, for a conversation that is told what comes next: a REFUSED, FAILED or ABORT is -EREMOTEIO with the
 * peer's words, any type but the one that is expected -EPROTO.
 */
int channel_expect(struct channel *channel, enum wire_type type, struct wire_frame *frame, struct err *err);
/* The same where one of two may come. */
int channel_expect_either(struct channel *channel, enum wire_type type, enum wire_type other, struct wire_frame *frame,
			  struct err *err);

/* Whether a frame is there for channel_receive, without waiting: 1, 0, or what went wrong (silence too). */
int channel_check(struct channel *channel, struct err *err);

/* For a frame of type REFUSED, FAILED or ABORT: its words into err, fit to be shown. Returns -EREMOTEIO, or what reading them
 * came to. */
int channel_words(struct channel *channel, const struct wire_frame *frame, struct err *err);

/*
 * Something failed with code and err, perhaps because the peer gave up: waits for its last words on this (control)
 * channel, CHANNEL_FAREWELL_MS at most. -EREMOTEIO with them, else code with err as it was.
 */
int channel_last_words(struct channel *channel, int code, struct err *err);

/* Tells the peer why this ends (REFUSED, FAILED or ABORT), then as channel_finish. */
void channel_farewell(struct channel *channel, enum wire_type type, const char *words);

/*
 * For the side that spoke last, before it destroys the channel: waits until the peer has hung up, CHANNEL_FAREWELL_MS at
 * most. Without it a PROGRESS that is unread here would make TCP throw away what is still under way to the peer. Nothing
 * can be sent after it.
 */
void channel_finish(struct channel *channel);

/* Starts to send PROGRESS every second, by a thread of its own, until the channel ends. Once, after HELLO. */
int channel_keep_alive(struct channel *channel, struct err *err);

/* While fd is readable waits end with -EINTR: for a failure elsewhere that this thread must hear of. -1: none. Not owned. */
void channel_set_interrupt(struct channel *channel, int fd);

/* Ends the connection, so that whoever waits on it, on any thread, fails. The channel stays. */
void channel_break(struct channel *channel);

/* Bytes so far, headers included. Any thread. */
uint64_t channel_sent(const struct channel *channel);
uint64_t channel_received(const struct channel *channel);

/* ---- for those who read and write the connection themselves ---- */

/* Sends bytes that are whole frames, which have been checked. iov is used up. */
int channel_send_bytes(struct channel *channel, struct iovec *iov, size_t count, struct err *err);
/* The sentence and code of a send or recv that failed with errno (0: the peer closed it). */
int channel_lost(const struct channel *channel, int error, struct err *err);
/* wire_step, for threads. */
int channel_step(struct channel *channel, enum wire_side from, const struct wire_frame *frame, struct err *err);
/* HELLOs have agreed on this version. */
void channel_agree(struct channel *channel, uint32_t version);
