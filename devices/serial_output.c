/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See serial_output.h. Output goes into a ring; a moment later the loop's thread writes it without the lock: a burst of
 * characters becomes one write(2), and a slow reader never makes the guest wait. What does not fit into the ring is
 * dropped, counted and reported. Beyond the limit, output waits in the ring, but at the end. A regular file that cannot be written (its file system is full) is tried again for
 * ever; a pipe or a socket without a reader ends the output.
 */
#include "devices/serial_output.h"

#include "core/monotonic.h"
#include "core/nowait.h"

#include <poll.h>
#include <pthread.h>

#define SIZE 65536u
#define EAGER 4096u /* this much output is written without delay */
#define WRITES_AT_ONCE 32u /* a guest may print as fast as it is written: the loop has other work */
#define MILLISECOND 1000000ull
#define DELAY (1 * MILLISECOND)
#define DELAY_MAX (64 * MILLISECOND)
#define FLUSH_MS 100
/* At the end: how long a reader may take nothing, and how long it may take in all. */
#define END_IDLE_MS 1000
#define END_MS 10000

struct serial_output {
	const struct log *log;
	struct event_source *timer;
	pthread_mutex_t lock; /* all below */
	uint64_t delay;
	struct nowait_out to;
	uint32_t head, count; /* of the ring */
	bool armed;           /* timer runs */
	bool complained;      /* a failed write was logged */
	uint64_t dropped;     /* bytes since the ring was full; 0 again when it is empty */
	bool flushing;        /* the limit does not count */
	struct token_bucket bucket;
	uint8_t ring[SIZE];
};

/* Lock held. */
static void serial_output_take(struct serial_output *output, uint32_t count)
{
	output->head = (output->head + count) % SIZE;
	output->count -= count;
}

static void serial_output_arm(struct serial_output *output, uint64_t delay)
{
	output->armed = true;
	event_timer_set(output->timer, delay, 0);
}

/* Lock held. */
static void serial_output_keep(struct serial_output *output, uint8_t byte)
{
	if (output->count == SIZE) {
		if (!output->dropped++)
			log_warn(output->log, "serial: %s; what does not fit is dropped",
				 token_bucket_wait(&output->bucket, monotonic_ns()) ? "more output than its limit lets pass" :
										      "nobody reads the output");
		return;
	}
	output->ring[(output->head + output->count++) % SIZE] = byte;
	if (!output->armed)
		serial_output_arm(output, DELAY);
	else if (output->count == EAGER && output->delay == DELAY)
		serial_output_arm(output, 1);
}

void serial_output_put(struct serial_output *output, uint8_t byte)
{
	pthread_mutex_lock(&output->lock);
	if (output->to.fd >= 0)
		serial_output_keep(output, byte);
	pthread_mutex_unlock(&output->lock);
}

/* ---- writing; on the loop's thread ---- */

/* Lock held. */
static void serial_output_wrote(struct serial_output *output, uint32_t n)
{
	serial_output_take(output, n);
	token_bucket_take(&output->bucket, n, monotonic_ns());
	output->delay = DELAY;
	if (output->count || !(output->dropped || output->complained))
		return;
	log_warn(output->log, "serial: the output goes on; %llu bytes were dropped",
		 (unsigned long long)output->dropped);
	output->dropped = 0;
	output->complained = false;
}

/* True: the output has ended. Lock held. */
static bool serial_output_failed(struct serial_output *output, int code)
{
	if (output->to.file) {
		if (!output->complained)
			log_warn(output->log, "serial: the output cannot be written (%s); this is tried again",
				 strerrordesc_np(-code));
		output->complained = true;
		return false;
	}
	log_warn(output->log, "serial: output ends: %s", strerrordesc_np(-code));
	output->to.fd = -1;
	output->dropped = 0;
	serial_output_take(output, output->count);
	return true;
}

/* How much of the output may be written in one piece now. Lock held. */
static uint32_t serial_output_piece(struct serial_output *output)
{
	uint32_t len = MIN(output->count, SIZE - output->head);

	return output->flushing ? len : (uint32_t)MIN(len, token_bucket_level(&output->bucket, monotonic_ns()));
}

/*
 * Writes some: 0: there is no more output; -EAGAIN: the descriptor takes no more now; 1: there may be more at once, as
 * far as the limit lets it.
 */
static int serial_output_write(struct serial_output *output)
{
	for (unsigned int i = 0; i < WRITES_AT_ONCE; i++) {
		uint32_t head, len;
		ssize_t n;
		bool over = false, more;

		pthread_mutex_lock(&output->lock);
		head = output->head;
		len = serial_output_piece(output);
		more = output->count;
		pthread_mutex_unlock(&output->lock);
		if (!len || output->to.fd < 0)
			return more && output->to.fd >= 0;
		n = nowait_write(&output->to, output->ring + head, len);
		if (n == -EAGAIN)
			return -EAGAIN;
		pthread_mutex_lock(&output->lock);
		if (n < 0)
			over = serial_output_failed(output, (int)n);
		else
			serial_output_wrote(output, (uint32_t)n);
		pthread_mutex_unlock(&output->lock);
		if (n < 0)
			return over ? 0 : -EAGAIN;
	}
	return 1;
}

/* Until the next write, in ns. Lock held. */
static uint64_t serial_output_pause(struct serial_output *output, bool more)
{
	uint64_t limited = token_bucket_wait(&output->bucket, monotonic_ns());

	return limited ? MAX(limited, DELAY) : more ? 1 : output->delay;
}

static void serial_output_due(void *opaque, uint32_t events)
{
	struct serial_output *output = opaque;
	int more = serial_output_write(output);

	pthread_mutex_lock(&output->lock);
	output->armed = false;
	if (more < 0)
		output->delay = MIN(output->delay * 2, DELAY_MAX);
	if (output->count)
		serial_output_arm(output, serial_output_pause(output, more > 0));
	pthread_mutex_unlock(&output->lock);
}

static uint32_t serial_output_left(struct serial_output *output)
{
	uint32_t left;

	pthread_mutex_lock(&output->lock);
	left = output->count;
	pthread_mutex_unlock(&output->lock);
	return left;
}

static void serial_output_set_flushing(struct serial_output *output, bool flushing)
{
	pthread_mutex_lock(&output->lock);
	output->flushing = flushing;
	pthread_mutex_unlock(&output->lock);
}

static void serial_output_wait(struct serial_output *output, int64_t idle_ms, int64_t all_ms)
{
	int64_t begun = monotonic_ms(), moved = begun, now = begun;
	uint32_t before = serial_output_left(output), left;

	serial_output_set_flushing(output, true);
	while (serial_output_write(output) && now - moved < idle_ms && now - begun < all_ms) {
		struct pollfd ready = {.fd = output->to.file ? -1 : output->to.fd, .events = POLLOUT};

		poll(&ready, 1, 10);
		now = monotonic_ms();
		left = serial_output_left(output);
		moved = left == before ? moved : now;
		before = left;
	}
	serial_output_set_flushing(output, false);
}

void serial_output_flush(struct serial_output *output)
{
	serial_output_wait(output, FLUSH_MS, FLUSH_MS);
}

void serial_output_set_fd(struct serial_output *output, int fd)
{
	serial_output_write(output);
	pthread_mutex_lock(&output->lock);
	output->to = nowait_out(fd);
	output->delay = DELAY;
	output->dropped = 0;
	output->complained = false;
	if (fd < 0)
		serial_output_take(output, output->count);
	pthread_mutex_unlock(&output->lock);
}

void serial_output_set_limit(struct serial_output *output, const struct token_bucket_limit *limit)
{
	pthread_mutex_lock(&output->lock);
	token_bucket_init(&output->bucket, limit, monotonic_ns());
	if (output->count)
		serial_output_arm(output, 1);
	pthread_mutex_unlock(&output->lock);
}

void serial_output_save_limit(struct serial_output *output, struct token_bucket_fill *ret)
{
	pthread_mutex_lock(&output->lock);
	token_bucket_save(&output->bucket, ret, monotonic_ns());
	pthread_mutex_unlock(&output->lock);
}

void serial_output_load_limit(struct serial_output *output, const struct token_bucket_fill *fill)
{
	pthread_mutex_lock(&output->lock);
	token_bucket_load(&output->bucket, fill, monotonic_ns());
	pthread_mutex_unlock(&output->lock);
}

int serial_output_fd(const struct serial_output *output)
{
	return output->to.fd;
}

int serial_output_create(struct event_loop *loop, const struct log *log, struct serial_output **ret, struct err *err)
{
	struct serial_output *output = calloc(1, sizeof(*output));
	int code;

	if (!output)
		return err_sys(err, -ENOMEM, "serial");
	output->log = log;
	output->to.fd = -1;
	output->delay = DELAY;
	code = event_loop_timer(loop, serial_output_due, output, &output->timer, err);
	if (code) {
		free(output);
		return code;
	}
	pthread_mutex_init(&output->lock, NULL);
	*ret = output;
	return 0;
}

void serial_output_destroy(struct serial_output *output)
{
	uint64_t lost;

	if (!output)
		return;
	serial_output_wait(output, END_IDLE_MS, END_MS);
	lost = output->count + output->dropped;
	if (lost)
		log_warn(output->log, "serial: the last %llu bytes of the output are lost: %s", (unsigned long long)lost,
			 output->to.file ? "the file cannot be written" : "nobody reads them");
	event_source_remove(output->timer);
	pthread_mutex_destroy(&output->lock);
	free(output);
}
