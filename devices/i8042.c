/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See platform.h. An 8042 keyboard controller as on an AT, with a keyboard and without an auxiliary port: what Linux's driver
 * asks of it, the reset, and the keys Ctrl, Alt and Del (IBM PC AT Technical Reference, and the keyboard's codes of sets 1 and
 * 2). Kernels end by its reset (reboot=k), and know that it is there by the tables, or find it.
 *
 * The guest sees one byte at a time: what the controller answers before what the keyboard has. A byte raises the interrupt
 * when it comes to stand there; the pin is low for a moment between two of them, for it is an edge.
 */
#include "core/state.h"
#include "devices/platform.h"

#include <pthread.h>

#define DATA_PORT 0x60u
#define COMMAND_PORT 0x64u

#define STATUS_FULL 0x01u    /* a byte can be read */
#define STATUS_TESTED 0x04u  /* as in the control byte */
#define STATUS_COMMAND 0x08u /* the last byte that was written is a command */
#define STATUS_UNLOCKED 0x10u

#define CONTROL_INTERRUPT 0x01u
#define CONTROL_TESTED 0x04u
#define CONTROL_DISABLED 0x10u
#define CONTROL_AUX_DISABLED 0x20u
#define CONTROL_TRANSLATE 0x40u /* to codes of set 1 */
#define CONTROL_WRITABLE 0x77u

#define OUTPUT_RUN 0x01u /* low: reset */
#define OUTPUT_A20 0x02u
#define OUTPUT_FULL 0x10u

enum { /* commands to the controller */
	READ_CONTROL = 0x20, WRITE_CONTROL = 0x60, DISABLE_AUX = 0xa7, ENABLE_AUX = 0xa8, TEST_AUX = 0xa9, TEST_SELF = 0xaa,
	TEST_KEYBOARD = 0xab, DISABLE_KEYBOARD = 0xad, ENABLE_KEYBOARD = 0xae, READ_INPUT = 0xc0, READ_OUTPUT = 0xd0,
	WRITE_OUTPUT = 0xd1, ECHO_KEYBOARD = 0xd2, ECHO_AUX = 0xd3, WRITE_AUX = 0xd4, PULSE = 0xf0,
};

enum { /* to the keyboard */
	KEY_LIGHTS = 0xed, KEY_ECHO = 0xee, KEY_SET = 0xf0, KEY_ID = 0xf2, KEY_RATE = 0xf3, KEY_ENABLE = 0xf4,
	KEY_DISABLE = 0xf5, KEY_DEFAULTS = 0xf6, KEY_RESET = 0xff,
};
#define KEY_ACKNOWLEDGE 0xfau
#define KEY_RESEND 0xfeu
#define KEY_TESTED 0xaau

struct i8042_state {
	uint8_t control, output_port;
	uint8_t last;        /* what is read when there is nothing */
	bool written;        /* STATUS_COMMAND */
	uint8_t command;     /* of the controller, which waits for its byte; 0: none */
	uint8_t key_command; /* the same of the keyboard */
	bool scanning;       /* the keyboard tells of keys */
	bool answered;       /* the controller's answer stands there */
	uint8_t answer;
	uint8_t keys[16];
	uint32_t key_count;
};

struct i8042 {
	struct bus *pio;
	struct irq_line *irq;
	void (*reset)(void *opaque);
	void *opaque;
	pthread_mutex_t lock; /* the state */
	struct i8042_state state;
};

/* Its keyboard is not enabled, so that nobody is told of keys who does not listen. */
static const struct i8042_state power_on = {
	.control = CONTROL_TESTED, .output_port = OUTPUT_RUN | OUTPUT_A20, .scanning = true,
};

/* ---- what the guest reads ---- */

static bool i8042_full(const struct i8042_state *state)
{
	return state->answered || (state->key_count && !(state->control & CONTROL_DISABLED));
}

static void i8042_update_line(struct i8042 *i8042)
{
	irq_line_set(i8042->irq, i8042_full(&i8042->state) && i8042->state.control & CONTROL_INTERRUPT);
}

static uint8_t i8042_take(struct i8042 *i8042)
{
	struct i8042_state *state = &i8042->state;

	if (state->answered) {
		state->answered = false;
		state->last = state->answer;
	} else if (i8042_full(state)) {
		state->last = state->keys[0];
		state->key_count--;
		memmove(state->keys, state->keys + 1, state->key_count);
	}
	irq_line_set(i8042->irq, false);
	i8042_update_line(i8042);
	return state->last;
}

static void i8042_answer(struct i8042_state *state, uint8_t value)
{
	state->answered = true;
	state->answer = value;
}

/* What does not fit is lost, as on the keyboard. */
static void i8042_add_keys(struct i8042_state *state, const uint8_t *keys, size_t count)
{
	if (count > sizeof(state->keys) - state->key_count)
		return;
	memcpy(state->keys + state->key_count, keys, count);
	state->key_count += (uint32_t)count;
}

static void i8042_add_key(struct i8042_state *state, uint8_t key)
{
	i8042_add_keys(state, &key, 1);
}

/* ---- what the guest writes ---- */

static void i8042_key_parameter(struct i8042_state *state, uint8_t value)
{
	bool asks = state->key_command == KEY_SET && !value;

	state->key_command = 0;
	i8042_add_key(state, KEY_ACKNOWLEDGE);
	if (asks)
		i8042_add_key(state, 2);
}

static void i8042_key_command(struct i8042_state *state, uint8_t command)
{
	switch (command) {
	case KEY_ECHO:
		i8042_add_key(state, KEY_ECHO);
		return;
	case KEY_LIGHTS:
	case KEY_SET:
	case KEY_RATE:
		state->key_command = command;
		break;
	case KEY_ID:
		i8042_add_keys(state, (const uint8_t[]){KEY_ACKNOWLEDGE, 0xab, 0x83}, 3);
		return;
	case KEY_ENABLE:
	case KEY_DISABLE:
	case KEY_DEFAULTS:
		state->scanning = command != KEY_DISABLE;
		break;
	case KEY_RESET:
		state->scanning = true;
		state->key_count = 0;
		i8042_add_keys(state, (const uint8_t[]){KEY_ACKNOWLEDGE, KEY_TESTED}, 2);
		return;
	default:
		i8042_add_key(state, KEY_RESEND);
		return;
	}
	i8042_add_key(state, KEY_ACKNOWLEDGE);
}

/* The byte of a command that waits for one. True: the machine is reset. */
static bool i8042_parameter(struct i8042_state *state, uint8_t value)
{
	uint8_t command = state->command;

	state->command = 0;
	switch (command) {
	case WRITE_CONTROL:
		state->control = value & CONTROL_WRITABLE;
		break;
	case WRITE_OUTPUT:
		state->output_port = value | OUTPUT_RUN;
		return !(value & OUTPUT_RUN);
	case ECHO_KEYBOARD:
	case ECHO_AUX: /* as if from the keyboard, by which Linux knows that there is no such port */
		i8042_answer(state, value);
		break;
	}
	return false;
}

static bool i8042_write_data(struct i8042_state *state, uint8_t value)
{
	state->written = false;
	if (state->command)
		return i8042_parameter(state, value);
	state->control &= (uint8_t)~CONTROL_DISABLED;
	if (state->key_command)
		i8042_key_parameter(state, value);
	else
		i8042_key_command(state, value);
	return false;
}

/* True: the machine is reset. */
static bool i8042_write_command(struct i8042_state *state, uint8_t command)
{
	state->written = true;
	state->command = 0;
	switch (command) {
	case READ_CONTROL:
		i8042_answer(state, state->control);
		break;
	case WRITE_CONTROL:
	case WRITE_OUTPUT:
	case ECHO_KEYBOARD:
	case ECHO_AUX:
	case WRITE_AUX:
		state->command = command;
		break;
	case DISABLE_AUX:
		state->control |= CONTROL_AUX_DISABLED;
		break;
	case ENABLE_AUX:
		state->control &= (uint8_t)~CONTROL_AUX_DISABLED;
		break;
	case TEST_AUX:
		i8042_answer(state, 1); /* its clock is stuck: there is nothing */
		break;
	case TEST_SELF:
		state->control |= CONTROL_TESTED;
		i8042_answer(state, 0x55);
		break;
	case TEST_KEYBOARD:
	case READ_INPUT:
		i8042_answer(state, 0);
		break;
	case DISABLE_KEYBOARD:
		state->control |= CONTROL_DISABLED;
		break;
	case ENABLE_KEYBOARD:
		state->control &= (uint8_t)~CONTROL_DISABLED;
		break;
	case READ_OUTPUT:
		i8042_answer(state, state->output_port | (i8042_full(state) ? OUTPUT_FULL : 0));
		break;
	default:
		return command >= PULSE && !(command & OUTPUT_RUN);
	}
	return false;
}

/* ---- ports ---- */

static void i8042_data_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	struct i8042 *i8042 = opaque;

	pthread_mutex_lock(&i8042->lock);
	*(uint8_t *)data = i8042_take(i8042);
	pthread_mutex_unlock(&i8042->lock);
}

static void i8042_status_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	struct i8042 *i8042 = opaque;
	const struct i8042_state *state = &i8042->state;

	pthread_mutex_lock(&i8042->lock);
	*(uint8_t *)data = (uint8_t)(STATUS_UNLOCKED | (state->control & STATUS_TESTED) |
				     (state->written ? STATUS_COMMAND : 0) | (i8042_full(state) ? STATUS_FULL : 0));
	pthread_mutex_unlock(&i8042->lock);
}

static void i8042_write(struct i8042 *i8042, bool (*write)(struct i8042_state *state, uint8_t value), uint8_t value)
{
	bool reset;

	pthread_mutex_lock(&i8042->lock);
	reset = write(&i8042->state, value);
	i8042_update_line(i8042);
	pthread_mutex_unlock(&i8042->lock);
	if (reset)
		i8042->reset(i8042->opaque);
}

static void i8042_data_written(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
	i8042_write(opaque, i8042_write_data, *(const uint8_t *)data);
}

static void i8042_command_written(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
	i8042_write(opaque, i8042_write_command, *(const uint8_t *)data);
}

/* ---- keys ---- */

bool i8042_ctrl_alt_del(struct i8042 *i8042)
{
	static const uint8_t set1[] = {0x1d, 0x38, 0xe0, 0x53, 0xe0, 0xd3, 0xb8, 0x9d};
	static const uint8_t set2[] = {0x14, 0x11, 0xe0, 0x71, 0xe0, 0xf0, 0x71, 0xf0, 0x11, 0xf0, 0x14};
	struct i8042_state *state = &i8042->state;
	bool listens;

	pthread_mutex_lock(&i8042->lock);
	listens = state->scanning && (state->control & (CONTROL_INTERRUPT | CONTROL_DISABLED)) == CONTROL_INTERRUPT;
	if (listens && state->control & CONTROL_TRANSLATE)
		i8042_add_keys(state, set1, sizeof(set1));
	else if (listens)
		i8042_add_keys(state, set2, sizeof(set2));
	i8042_update_line(i8042);
	pthread_mutex_unlock(&i8042->lock);
	return listens;
}

/* ---- construction ---- */

static void i8042_free_i8042(struct i8042 *i8042)
{
	pthread_mutex_destroy(&i8042->lock);
	free(i8042);
}

int i8042_create(const struct i8042_config *config, struct i8042 **ret, struct err *err)
{
	static const struct bus_ops data_ops = {i8042_data_read, i8042_data_written};
	static const struct bus_ops command_ops = {i8042_status_read, i8042_command_written};
	struct i8042 *i8042 = calloc(1, sizeof(*i8042));
	int code;

	if (!i8042)
		return err_sys(err, -ENOMEM, "i8042");
	*i8042 = (struct i8042){.pio = config->pio, .irq = config->irq, .reset = config->reset, .opaque = config->opaque,
				.state = power_on};
	pthread_mutex_init(&i8042->lock, NULL);
	code = bus_add(config->pio, DATA_PORT, 1, &data_ops, i8042, "i8042", err);
	if (code == 0) {
		code = bus_add(config->pio, COMMAND_PORT, 1, &command_ops, i8042, "i8042", err);
		if (code < 0)
			bus_remove(config->pio, DATA_PORT);
	}
	if (code < 0) {
		i8042_free_i8042(i8042);
		return code;
	}
	*ret = i8042;
	return 0;
}

void i8042_destroy(struct i8042 *i8042)
{
	if (!i8042)
		return;
	bus_remove(i8042->pio, COMMAND_PORT);
	bus_remove(i8042->pio, DATA_PORT);
	i8042_free_i8042(i8042);
}

/* ---- saved state ---- */

bool i8042_is_new(struct i8042 *i8042)
{
	const struct i8042_state *state = &i8042->state;
	bool new;

	pthread_mutex_lock(&i8042->lock);
	new = state->control == power_on.control && state->output_port == power_on.output_port && !state->last &&
	      !state->written && !state->command && !state->key_command && state->scanning && !state->answered &&
	      !state->key_count;
	pthread_mutex_unlock(&i8042->lock);
	return new;
}

static int i8042_judge(const void *object, const void *loaded, uint32_t version, struct err *err)
{
	const struct i8042_state *state = loaded;

	return state->control & ~CONTROL_WRITABLE || !(state->output_port & OUTPUT_RUN) ?
	       err_set(err, -EBADMSG, "a register of the keyboard controller has invalid bits") : 0;
}

static int i8042_loaded(void *object, const void *state, struct err *err)
{
	i8042_update_line(object);
	return 0;
}

static const struct state_field fields[] = {
	STATE_UINT(struct i8042_state, control, 1),
	STATE_UINT(struct i8042_state, output_port, 1),
	STATE_UINT(struct i8042_state, last, 1),
	STATE_BOOL(struct i8042_state, written, 1),
	STATE_UINT(struct i8042_state, command, 1),
	STATE_UINT(struct i8042_state, key_command, 1),
	STATE_BOOL(struct i8042_state, scanning, 1),
	STATE_BOOL(struct i8042_state, answered, 1),
	STATE_UINT(struct i8042_state, answer, 1),
	STATE_SOME_BYTES(struct i8042_state, keys, 1, key_count),
};

const struct state_table i8042_state = {
	.name = "i8042", .version = 1, .oldest = 1, STATE_FIELDS(fields), STATE_IN(struct i8042, state),
	STATE_LOCK(struct i8042, lock), .judge = i8042_judge, .loaded = i8042_loaded,
};
