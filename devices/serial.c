/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See platform.h. A 16550A as in its data sheet (National Semiconductor PC16550D) and linux/serial_reg.h, with a
 * transmitter that is always ready.
 *
 * vCPU threads access the registers under the lock. Output: serial_output.c.
 *
 * Input waits in a queue, and the receive FIFO is a window of 16 bytes on it. As on a line, the FIFO runs empty before
 * the next bytes arrive: the interrupt line falls and rises again. The interrupt is edge-triggered, and a driver that
 * reads for a limited number of turns and then returns would wait for ever for an edge of a line that stays high. For
 * the same reason bytes that the guest leaves in the FIFO cause another edge, like a real port's time-out.
 */
#include "devices/serial.h"

#include "core/nowait.h"
#include "devices/serial_output.h"

#include <sys/epoll.h>

#define PORTS 8u
#define MICROSECOND 1000ull
/*
 * A driver that resets the receive FIFO then reads the receiver to clear it. Input that arrives before would be lost,
 * so it is held back for this time.
 */
#define HOLD (20000 * MICROSECOND)
/* After the FIFO has run empty, and after the guest has left bytes in it that it may have forgotten. */
#define NEXT_BYTES (50 * MICROSECOND)
#define FORGOTTEN (400 * MICROSECOND)

#define LINES_CONNECTED (UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS)
#define IIR_TIMEOUT 0x0cu

static bool serial_queue_put(struct input_queue *queue, uint8_t byte)
{
	if (*queue->count == queue->size)
		return false;
	queue->data[(*queue->count)++] = byte;
	return true;
}

/* ---- interrupts; lock held ---- */

static bool serial_fifo_on(const struct serial *serial)
{
	return serial->state.fcr & UART_FCR_ENABLE_FIFO;
}

static uint32_t serial_fifo_size(const struct serial *serial)
{
	return serial_fifo_on(serial) ? FIFO : 1;
}

static struct input_queue *serial_receiver(struct serial *serial)
{
	return serial->state.mcr & UART_MCR_LOOP ? &serial->looped : &serial->in;
}

/* Bytes in the receive FIFO, or in the receiver register without a FIFO. */
static uint32_t serial_received(struct serial *serial)
{
	return serial->state.mcr & UART_MCR_LOOP ? MIN(serial->state.looped_count, serial_fifo_size(serial)) :
						   serial->fifo;
}

static uint32_t serial_trigger(const struct serial *serial)
{
	static const uint8_t triggers[] = {1, 4, 8, 14};

	return serial_fifo_on(serial) ? triggers[serial->state.fcr >> 6] : 1;
}

static bool serial_reports_input(struct serial *serial)
{
	uint32_t count = serial_received(serial);

	return count && (count >= serial_trigger(serial) || serial->overdue || serial->state.mcr & UART_MCR_LOOP);
}

static uint8_t serial_modem_lines(const struct serial *serial)
{
	uint8_t mcr = serial->state.mcr;

	if (!(mcr & UART_MCR_LOOP))
		return LINES_CONNECTED;
	return (uint8_t)((mcr & UART_MCR_RTS ? UART_MSR_CTS : 0) | (mcr & UART_MCR_DTR ? UART_MSR_DSR : 0) |
			 (mcr & UART_MCR_OUT1 ? UART_MSR_RI : 0) | (mcr & UART_MCR_OUT2 ? UART_MSR_DCD : 0));
}

/* The IIR's value for the most urgent interrupt. */
static uint8_t serial_pending(struct serial *serial)
{
	if (serial->state.ier & UART_IER_RLSI && serial->state.errors)
		return UART_IIR_RLSI;
	if (serial->state.ier & UART_IER_RDI && serial_reports_input(serial))
		return serial_received(serial) < serial_trigger(serial) ? IIR_TIMEOUT : UART_IIR_RDI;
	if (serial->state.ier & UART_IER_THRI && serial->state.thre)
		return UART_IIR_THRI;
	if (serial->state.ier & UART_IER_MSI && serial->state.deltas)
		return UART_IIR_MSI;
	return UART_IIR_NO_INT;
}

void serial_update_line(struct serial *serial)
{
	bool level = serial_pending(serial) != UART_IIR_NO_INT;

	if (level != serial->line_high)
		irq_line_set(serial->irq, level);
	serial->line_high = level;
}

/* ---- input ---- */

/* Lock held. */
static void serial_arm_input(struct serial *serial, uint64_t delay)
{
	serial->in_armed = true;
	event_timer_set(serial->in_timer, delay, 0);
}

void serial_arrive(struct serial *serial)
{
	if (serial->state.held || (!serial->fifo && serial->in_armed))
		return;
	serial->fifo = MIN(serial->state.in_count, serial_fifo_size(serial));
	serial->overdue = true;
}

void serial_hold(struct serial *serial)
{
	serial->state.held = true;
	serial->fifo = 0;
	serial_arm_input(serial, HOLD);
}

void serial_feed(struct serial *serial, const void *data, size_t len)
{
	const uint8_t *bytes = data;

	pthread_mutex_lock(&serial->lock);
	for (size_t i = 0; i < len && serial_queue_put(&serial->in, bytes[i]); i++) {
	}
	serial_arrive(serial);
	serial_update_line(serial);
	pthread_mutex_unlock(&serial->lock);
}

/* in_source is disarmed by each event, so that a client that has hung up does not keep the loop busy. */
static void serial_input_ready(void *opaque, uint32_t events)
{
	struct serial *serial = opaque;
	uint8_t buf[IN_SIZE];
	struct iovec iov = {.iov_base = buf};
	ssize_t n;

	pthread_mutex_lock(&serial->lock);
	iov.iov_len = IN_SIZE - serial->state.in_count;
	serial->in_paused = !iov.iov_len || serial->in_plain;
	pthread_mutex_unlock(&serial->lock);
	if (!iov.iov_len)
		return;
	n = nowait_readv(serial->in_fd, &iov, 1);
	if (n == 0 || (n < 0 && n != -EAGAIN)) {
		serial_set_fds(serial, -1, serial_output_fd(serial->output));
		return;
	}
	if (n > 0)
		serial_feed(serial, buf, (size_t)n);
	if (serial->in_source)
		event_source_set(serial->in_source, EPOLLIN | EPOLLONESHOT);
}

/* An edge of the interrupt line, also if it is high already. Lock held. */
static void serial_interrupt_again(struct serial *serial)
{
	if (serial->line_high)
		irq_line_set(serial->irq, false);
	serial->line_high = false;
	serial_update_line(serial);
}

static void serial_input_due(void *opaque, uint32_t events)
{
	struct serial *serial = opaque;

	pthread_mutex_lock(&serial->lock);
	serial->state.held = serial->in_armed = false;
	serial_arrive(serial);
	if (serial->fifo)
		serial_interrupt_again(serial);
	pthread_mutex_unlock(&serial->lock);
	if (serial->in_plain)
		serial_input_ready(serial, EPOLLIN);
}

/* Reads input again when the queue is half empty. Lock held. */
static void serial_resume_input(struct serial *serial)
{
	if (!serial->in_paused || serial->state.in_count > IN_SIZE / 2)
		return;
	serial->in_paused = false;
	if (serial->in_source)
		event_source_set(serial->in_source, EPOLLIN | EPOLLONESHOT);
	else if (serial->in_plain && !serial->state.held)
		serial_arm_input(serial, 1);
}

/* Watches in_fd; a file, which cannot be watched, is read whenever there is room. */
static void serial_set_input(struct serial *serial, int in_fd)
{
	struct event_source *source;
	bool plain = false;

	pthread_mutex_lock(&serial->lock);
	source = serial->in_source;
	serial->in_source = NULL;
	serial->in_plain = false;
	pthread_mutex_unlock(&serial->lock);
	event_source_remove(source);
	source = NULL;
	if (in_fd >= 0) {
		struct err err;
		int ret = event_loop_watch(serial->loop, in_fd, EPOLLIN | EPOLLONESHOT, serial_input_ready, serial,
					   &source, &err);

		plain = ret == -EPERM;
		if (ret < 0 && !plain)
			log_warn(serial->log, "serial: no input: %s", err.text);
	}
	pthread_mutex_lock(&serial->lock);
	serial->in_fd = in_fd;
	serial->in_source = source;
	serial->in_plain = serial->in_paused = plain;
	serial_resume_input(serial);
	pthread_mutex_unlock(&serial->lock);
}

void serial_set_fds(struct serial *serial, int in_fd, int out_fd)
{
	if (in_fd != serial->in_fd)
		serial_set_input(serial, in_fd);
	if (out_fd != serial_output_fd(serial->output))
		serial_output_set_fd(serial->output, out_fd);
}

void serial_set_limit(struct serial *serial, const struct token_bucket_limit *limit)
{
	serial_output_set_limit(serial->output, limit);
}

uint64_t serial_burst_left(struct serial *serial)
{
	struct token_bucket_fill fill;

	serial_output_save_limit(serial->output, &fill);
	return fill.burst;
}

void serial_flush(struct serial *serial)
{
	serial_output_flush(serial->output);
}

/* ---- registers; lock held ---- */

/* A byte has left the FIFO. */
static void serial_consumed(struct serial *serial)
{
	serial->fifo--;
	serial->overdue = false;
	if (!serial->fifo && serial->state.in_count)
		serial_arm_input(serial, NEXT_BYTES);
	else if (serial->fifo && !serial->in_armed)
		serial_arm_input(serial, FORGOTTEN);
	serial_resume_input(serial);
}

static uint8_t serial_read_byte(struct serial *serial)
{
	struct input_queue *queue = serial_receiver(serial);
	uint8_t byte;

	if (!serial_received(serial))
		return 0;
	byte = queue->data[0];
	/* The move costs little compared with the exit that reads the byte. */
	memmove(queue->data, queue->data + 1, --*queue->count);
	if (queue == &serial->in)
		serial_consumed(serial);
	return byte;
}

static uint8_t serial_read_iir(struct serial *serial)
{
	uint8_t iir = serial_pending(serial);

	if (iir == UART_IIR_THRI)
		serial->state.thre = false;
	return iir | (serial_fifo_on(serial) ? 0xc0 : 0);
}

static uint8_t serial_read_register(struct serial *serial, unsigned int reg)
{
	bool dlab = serial->state.lcr & UART_LCR_DLAB;
	uint8_t value;

	switch (reg) {
	case UART_RX:
		return dlab ? serial->state.dll : serial_read_byte(serial);
	case UART_IER:
		return dlab ? serial->state.dlm : serial->state.ier;
	case UART_IIR:
		return serial_read_iir(serial);
	case UART_LCR:
		return serial->state.lcr;
	case UART_MCR:
		return serial->state.mcr;
	case UART_LSR:
		value = UART_LSR_THRE | UART_LSR_TEMT | serial->state.errors |
			(serial_received(serial) ? UART_LSR_DR : 0);
		serial->state.errors = 0;
		return value;
	case UART_MSR:
		value = serial_modem_lines(serial) | serial->state.deltas;
		serial->state.deltas = 0;
		return value;
	default:
		return serial->state.scr;
	}
}

static void serial_write_byte(struct serial *serial, uint8_t byte)
{
	serial->state.thre = true;
	if (!(serial->state.mcr & UART_MCR_LOOP)) {
		serial_output_put(serial->output, byte);
	} else if (serial->state.looped_count >= serial_fifo_size(serial)) {
		serial->state.errors |= UART_LSR_OE;
		if (!serial_fifo_on(serial))
			serial->state.looped[0] = byte;
	} else {
		serial_queue_put(&serial->looped, byte);
	}
}

static void serial_write_ier(struct serial *serial, uint8_t value)
{
	value &= UART_IER_RDI | UART_IER_THRI | UART_IER_RLSI | UART_IER_MSI;
	if (value & ~serial->state.ier & UART_IER_THRI)
		serial->state.thre = true;
	serial->state.ier = value;
}

static void serial_write_fcr(struct serial *serial, uint8_t value)
{
	if ((value ^ serial->state.fcr) & UART_FCR_ENABLE_FIFO || value & UART_FCR_CLEAR_RCVR) {
		serial->state.looped_count = 0;
		serial_hold(serial);
	}
	serial->state.fcr = value & UART_FCR_ENABLE_FIFO ? value & (UART_FCR_ENABLE_FIFO | UART_FCR_TRIGGER_MASK) : 0;
}

static void serial_write_mcr(struct serial *serial, uint8_t value)
{
	uint8_t before = serial_modem_lines(serial), changed;

	if (serial->state.mcr & ~value & UART_MCR_LOOP)
		serial->state.looped_count = 0;
	serial->state.mcr = value & (UART_MCR_LOOP | UART_MCR_OUT2 | UART_MCR_OUT1 | UART_MCR_RTS | UART_MCR_DTR);
	changed = before ^ serial_modem_lines(serial);
	/* Each delta is four bits below its line; the ring indicator's is only set by its end. */
	if (changed & UART_MSR_RI && !(before & UART_MSR_RI))
		changed &= (uint8_t)~UART_MSR_RI;
	serial->state.deltas |= changed >> 4;
}

static void serial_write_register(struct serial *serial, unsigned int reg, uint8_t value)
{
	bool dlab = serial->state.lcr & UART_LCR_DLAB;

	switch (reg) {
	case UART_TX:
		if (dlab)
			serial->state.dll = value;
		else
			serial_write_byte(serial, value);
		break;
	case UART_IER:
		if (dlab)
			serial->state.dlm = value;
		else
			serial_write_ier(serial, value);
		break;
	case UART_FCR:
		serial_write_fcr(serial, value);
		break;
	case UART_LCR:
		serial->state.lcr = value;
		break;
	case UART_MCR:
		serial_write_mcr(serial, value);
		break;
	case UART_SCR:
		serial->state.scr = value;
		break;
	default: /* the status registers */
		break;
	}
}

static void serial_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	struct serial *serial = opaque;

	pthread_mutex_lock(&serial->lock);
	for (unsigned int i = 0; i < len; i++)
		((uint8_t *)data)[i] = serial_read_register(serial, (unsigned int)offset + i);
	serial_update_line(serial);
	pthread_mutex_unlock(&serial->lock);
}

static void serial_write(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
	struct serial *serial = opaque;

	pthread_mutex_lock(&serial->lock);
	for (unsigned int i = 0; i < len; i++)
		serial_write_register(serial, (unsigned int)offset + i, ((const uint8_t *)data)[i]);
	serial_update_line(serial);
	pthread_mutex_unlock(&serial->lock);
}

/* ---- construction ---- */

static const struct bus_ops serial_ops = {serial_read, serial_write};

void serial_reset(struct serial *serial)
{
	pthread_mutex_lock(&serial->lock);
	serial->state.ier = serial->state.fcr = serial->state.lcr = serial->state.mcr = serial->state.scr = 0;
	serial->state.dlm = 0;
	serial->state.dll = 12; /* 9600 baud */
	serial->state.errors = serial->state.deltas = 0;
	serial->state.thre = false;
	serial->state.looped_count = 0;
	serial_arrive(serial);
	serial_update_line(serial);
	pthread_mutex_unlock(&serial->lock);
}

static void serial_free_serial(struct serial *serial)
{
	serial_output_destroy(serial->output);
	event_source_remove(serial->in_timer);
	pthread_mutex_destroy(&serial->lock);
	free(serial);
}

int serial_create(struct bus *pio, uint16_t port, struct irq_line *irq, int in_fd, int out_fd, struct event_loop *loop,
		  const struct log *log, struct serial **ret, struct err *err)
{
	struct serial *serial = calloc(1, sizeof(*serial));
	int code;

	if (!serial)
		return err_sys(err, -ENOMEM, "serial");
	serial->pio = pio;
	serial->port = port;
	serial->irq = irq;
	serial->loop = loop;
	serial->log = log;
	serial->in_fd = -1;
	serial->in = (struct input_queue){serial->state.in, &serial->state.in_count, IN_SIZE};
	serial->state.limit = (struct token_bucket_fill){INT64_MAX, UINT64_MAX};
	serial->looped = (struct input_queue){serial->state.looped, &serial->state.looped_count, FIFO};
	pthread_mutex_init(&serial->lock, NULL);
	serial_reset(serial);
	code = serial_output_create(loop, log, &serial->output, err);
	if (code == 0)
		code = event_loop_timer(loop, serial_input_due, serial, &serial->in_timer, err);
	if (code == 0)
		code = bus_add(pio, port, PORTS, &serial_ops, serial, "serial", err);
	if (code < 0) {
		serial_free_serial(serial);
		return code;
	}
	serial_set_fds(serial, in_fd, out_fd);
	*ret = serial;
	return 0;
}

void serial_destroy(struct serial *serial)
{
	if (!serial)
		return;
	bus_remove(serial->pio, serial->port);
	serial_set_input(serial, -1);
	serial_free_serial(serial);
}
