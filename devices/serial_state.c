/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The saved state of the serial port: its registers, and what has been typed and not yet read. What the guest has
 * written is not in it: that has left the guest, and goes out where the descriptor is, here.
 */
#include "core/state.h"
#include "devices/serial.h"

struct image {
	uint8_t ier, fcr, lcr, mcr, scr, dll, dlm, errors, deltas;
	bool thre, held;
	uint32_t in_count, looped_count;
	uint8_t in[IN_SIZE], looped[FIFO];
};

/* Each register has these bits and no other. */
static const struct {
	const char *name;
	size_t offset;
	uint8_t bits;
} registers[] = {
	{"ier", offsetof(struct image, ier), UART_IER_RDI | UART_IER_THRI | UART_IER_RLSI | UART_IER_MSI},
	{"fcr", offsetof(struct image, fcr), UART_FCR_ENABLE_FIFO | UART_FCR_TRIGGER_MASK},
	{"mcr", offsetof(struct image, mcr),
	 UART_MCR_LOOP | UART_MCR_OUT2 | UART_MCR_OUT1 | UART_MCR_RTS | UART_MCR_DTR},
	{"errors", offsetof(struct image, errors), UART_LSR_OE},
	{"deltas", offsetof(struct image, deltas), UART_MSR_ANY_DELTA},
};

static uint32_t serial_state_take_bytes(const struct ring *ring, uint8_t *to)
{
	for (uint32_t i = 0; i < ring->count; i++)
		to[i] = ring->data[(ring->head + i) % ring->size];
	return ring->count;
}

static void serial_state_put_bytes(struct ring *ring, const uint8_t *from, uint32_t count)
{
	memcpy(ring->data, from, count);
	ring->head = 0;
	ring->count = count;
}

static int serial_state_fill(void *object, void *into, struct err *err)
{
	struct serial *serial = object;
	struct image *image = into;

	pthread_mutex_lock(&serial->lock);
	image->ier = serial->ier;
	image->fcr = serial->fcr;
	image->lcr = serial->lcr;
	image->mcr = serial->mcr;
	image->scr = serial->scr;
	image->dll = serial->dll;
	image->dlm = serial->dlm;
	image->errors = serial->errors;
	image->deltas = serial->deltas;
	image->thre = serial->thre;
	image->held = serial->held;
	image->in_count = serial_state_take_bytes(&serial->in, image->in);
	image->looped_count = serial_state_take_bytes(&serial->looped, image->looped);
	pthread_mutex_unlock(&serial->lock);
	return 0;
}

static int serial_state_check(const struct image *image, struct err *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(registers); i++) {
		uint8_t value = ((const uint8_t *)image)[registers[i].offset];

		if (value & ~registers[i].bits)
			return err_set(err, -EBADMSG, "%s is 0x%02x: no such bits", registers[i].name, value);
	}
	return 0;
}

static int serial_state_apply(void *object, const void *from, uint32_t version, struct err *err)
{
	struct serial *serial = object;
	const struct image *image = from;
	int ret = serial_state_check(image, err);

	if (ret < 0)
		return ret;
	pthread_mutex_lock(&serial->lock);
	serial->ier = image->ier;
	serial->fcr = image->fcr;
	serial->lcr = image->lcr;
	serial->mcr = image->mcr;
	serial->scr = image->scr;
	serial->dll = image->dll;
	serial->dlm = image->dlm;
	serial->errors = image->errors;
	serial->deltas = image->deltas;
	serial->thre = image->thre;
	serial_state_put_bytes(&serial->in, image->in, image->in_count);
	serial_state_put_bytes(&serial->looped, image->looped, image->looped_count);
	serial->held = false;
	if (image->held)
		serial_hold(serial);
	serial_update_line(serial);
	pthread_mutex_unlock(&serial->lock);
	return 0;
}

static const struct state_field fields[] = {
	STATE_UINT(struct image, ier, 1),
	STATE_UINT(struct image, fcr, 1),
	STATE_UINT(struct image, lcr, 1),
	STATE_UINT(struct image, mcr, 1),
	STATE_UINT(struct image, scr, 1),
	STATE_UINT(struct image, dll, 1),
	STATE_UINT(struct image, dlm, 1),
	STATE_UINT(struct image, errors, 1),
	STATE_UINT(struct image, deltas, 1),
	STATE_BOOL(struct image, thre, 1),
	STATE_BOOL(struct image, held, 1),
	STATE_SOME_BYTES(struct image, in, 1, in_count),
	STATE_SOME_BYTES(struct image, looped, 1, looped_count),
};

const struct state_table serial_state = {
	.name = "serial", .version = 1, .oldest = 1, STATE_FIELDS(fields), .image = sizeof(struct image),
	.fill = serial_state_fill, .apply = serial_state_apply,
};
