/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The saved state of the serial port: its registers and the input that the guest has not read. The guest's output is
 * not in it: the source writes it.
 */
#include "core/state.h"
#include "devices/serial.h"
#include "devices/serial_output.h"

/* The valid bits of each register. */
static const struct {
	const char *name;
	size_t offset;
	uint8_t bits;
} registers[] = {
	{"ier", offsetof(struct serial_state, ier), UART_IER_RDI | UART_IER_THRI | UART_IER_RLSI | UART_IER_MSI},
	{"fcr", offsetof(struct serial_state, fcr), UART_FCR_ENABLE_FIFO | UART_FCR_TRIGGER_MASK},
	{"mcr", offsetof(struct serial_state, mcr),
	 UART_MCR_LOOP | UART_MCR_OUT2 | UART_MCR_OUT1 | UART_MCR_RTS | UART_MCR_DTR},
	{"errors", offsetof(struct serial_state, errors), UART_LSR_OE},
	{"deltas", offsetof(struct serial_state, deltas), UART_MSR_ANY_DELTA},
};

static int serial_state_collect(void *object, void *state, struct err *err)
{
	serial_output_save_limit(((struct serial *)object)->output, &((struct serial_state *)state)->limit);
	return 0;
}

static int serial_state_judge(const void *object, const void *loaded, uint32_t version, struct err *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(registers); i++) {
		uint8_t value = ((const uint8_t *)loaded)[registers[i].offset];

		if (value & ~registers[i].bits)
			return err_set(err, -EBADMSG, "%s is 0x%02x: invalid bits", registers[i].name, value);
	}
	return 0;
}

static int serial_state_loaded(void *object, const void *state, struct err *err)
{
	struct serial *serial = object;

	if (serial->state.held)
		serial_hold(serial);
	else
		serial_arrive(serial);
	serial_update_line(serial);
	serial_output_load_limit(serial->output, &serial->state.limit);
	return 0;
}

static const struct state_field fields[] = {
	STATE_UINT(struct serial_state, ier, 1),
	STATE_UINT(struct serial_state, fcr, 1),
	STATE_UINT(struct serial_state, lcr, 1),
	STATE_UINT(struct serial_state, mcr, 1),
	STATE_UINT(struct serial_state, scr, 1),
	STATE_UINT(struct serial_state, dll, 1),
	STATE_UINT(struct serial_state, dlm, 1),
	STATE_UINT(struct serial_state, errors, 1),
	STATE_UINT(struct serial_state, deltas, 1),
	STATE_BOOL(struct serial_state, thre, 1),
	STATE_BOOL(struct serial_state, held, 1),
	STATE_SOME_BYTES(struct serial_state, in, 1, in_count),
	STATE_SOME_BYTES(struct serial_state, looped, 1, looped_count),
	STATE_UINT(struct serial_state, limit.tokens, 2),
	STATE_UINT(struct serial_state, limit.burst, 2),
};

const struct state_table serial_state = {
	.name = "serial", .version = 2, .oldest = 1, STATE_FIELDS(fields),
	STATE_IN(struct serial, state), STATE_LOCK(struct serial, lock),
	.collect = serial_state_collect, .judge = serial_state_judge, .loaded = serial_state_loaded,
};
