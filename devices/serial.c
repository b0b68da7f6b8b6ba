/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See platform.h. A 16550A as in its data sheet (National Semiconductor PC16550D) and linux/serial_reg.h, with a
 * transmitter that is always ready.
 *
 * vCPU threads access the registers under the lock. Output goes into a ring; a moment later the loop's thread writes it
 * without the lock: a burst of characters becomes one write(2), and a slow reader never makes the guest wait. Input
 * waits in a queue; the receive FIFO is a window of 16 bytes on it.
 */
#include "devices/serial.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define PORTS 8u
#define OUT_EAGER 4096u /* this much output is written without delay */
#define MILLISECOND 1000000ull
#define OUT_DELAY (1 * MILLISECOND)
#define OUT_DELAY_MAX (64 * MILLISECOND)
#define FLUSH_MS 100
/*
 * A driver that resets the receive FIFO then reads the receiver to clear it. Input that arrives before would be lost,
 * so it is held back for this time.
 */
#define HOLD (20 * MILLISECOND)

#define LINES_CONNECTED (UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS)
#define IIR_TIMEOUT 0x0cu

/* ---- rings and queues ---- */

static bool serial_ring_put(struct ring *ring, uint8_t byte)
{
	if (ring->count == ring->size)
		return false;
	ring->data[(ring->head + ring->count++) % ring->size] = byte;
	return true;
}

static void serial_ring_drop(struct ring *ring, uint32_t count)
{
	ring->head = (ring->head + count) % ring->size;
	ring->count -= count;
}

/* Contiguous bytes at the front. */
static uint32_t serial_ring_front(const struct ring *ring)
{
	return MIN(ring->count, ring->size - ring->head);
}

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

static struct input_queue *serial_receiver(struct serial *serial)
{
	return serial->state.mcr & UART_MCR_LOOP ? &serial->looped : &serial->in;
}

/* Bytes in the receive FIFO, or in the receiver register without a FIFO. */
static uint32_t serial_received(struct serial *serial)
{
	if (serial->state.held && !(serial->state.mcr & UART_MCR_LOOP))
		return 0;
	return MIN(*serial_receiver(serial)->count, serial_fifo_on(serial) ? FIFO : 1);
}

static uint8_t serial_modem_lines(const struct serial *serial)
{
	uint8_t mcr = serial->state.mcr;

	if (!(mcr & UART_MCR_LOOP))
		return LINES_CONNECTED;
	return (uint8_t)((mcr & UART_MCR_RTS ? UART_MSR_CTS : 0) | (mcr & UART_MCR_DTR ? UART_MSR_DSR : 0) |
			 (mcr & UART_MCR_OUT1 ? UART_MSR_RI : 0) | (mcr & UART_MCR_OUT2 ? UART_MSR_DCD : 0));
}

/* The IIR's value for the most urgent interrupt. Bytes below the trigger level time out at once. */
static uint8_t serial_pending(struct serial *serial)
{
	static const uint8_t triggers[] = {1, 4, 8, 14};
	uint32_t count = serial_received(serial);

	if (serial->state.ier & UART_IER_RLSI && serial->state.errors)
		return UART_IIR_RLSI;
	if (serial->state.ier & UART_IER_RDI && count)
		return serial_fifo_on(serial) && count < triggers[serial->state.fcr >> 6] ? IIR_TIMEOUT : UART_IIR_RDI;
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

/* ---- output ---- */

/* Lock held. */
static void serial_arm_output(struct serial *serial, uint64_t delay)
{
	serial->out_armed = true;
	event_timer_set(serial->out_timer, delay, 0);
}

static void serial_put_output(struct serial *serial, uint8_t byte)
{
	if (serial->out_fd < 0)
		return;
	if (!serial_ring_put(&serial->out, byte)) {
		if (!serial->out_lossy)
			log_warn(serial->log, "serial: the output is not read, some is lost");
		serial->out_lossy = true;
		return;
	}
	if (!serial->out_armed)
		serial_arm_output(serial, OUT_DELAY);
	else if (serial->out.count == OUT_EAGER && serial->out_delay == OUT_DELAY)
		serial_arm_output(serial, 1);
}

static ssize_t serial_write_some(struct serial *serial, const void *data, size_t len)
{
	struct pollfd ready = {.fd = serial->out_fd, .events = POLLOUT};
	ssize_t n;

	if (serial->out_socket) {
		n = send(serial->out_fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
		return n < 0 ? -errno : n;
	}
	poll(&ready, 1, 0);
	if (ready.revents & (POLLERR | POLLNVAL))
		return -EPIPE;
	if (!(ready.revents & POLLOUT))
		return -EAGAIN;
	n = write(serial->out_fd, data, MIN(len, serial->out_chunk));
	return n < 0 ? -errno : n;
}

/* Writes until there is no more output (true) or the descriptor takes no more (false). */
static bool serial_write_output(struct serial *serial)
{
	for (;;) {
		uint32_t head, len;
		ssize_t n;

		pthread_mutex_lock(&serial->lock);
		head = serial->out.head;
		len = serial_ring_front(&serial->out);
		pthread_mutex_unlock(&serial->lock);
		if (!len || serial->out_fd < 0)
			return true;
		n = serial_write_some(serial, serial->out_data + head, len);
		if (n == -EAGAIN)
			return false;
		if (n == -EINTR)
			continue;
		pthread_mutex_lock(&serial->lock);
		if (n < 0) {
			log_warn(serial->log, "serial: output ends: %s", strerrordesc_np((int)-n));
			serial->out_fd = -1;
			n = serial->out.count;
		}
		serial_ring_drop(&serial->out, (uint32_t)n);
		serial->out_delay = OUT_DELAY;
		pthread_mutex_unlock(&serial->lock);
	}
}

static void serial_output_due(void *opaque, uint32_t events)
{
	struct serial *serial = opaque;
	bool done = serial_write_output(serial);

	pthread_mutex_lock(&serial->lock);
	serial->out_armed = false;
	if (!done)
		serial->out_delay = MIN(serial->out_delay * 2, OUT_DELAY_MAX);
	if (serial->out.count)
		serial_arm_output(serial, serial->out_delay);
	pthread_mutex_unlock(&serial->lock);
}

void serial_flush(struct serial *serial)
{
	for (int waited = 0; !serial_write_output(serial) && waited < FLUSH_MS; waited += 10) {
		struct pollfd ready = {.fd = serial->out_fd, .events = POLLOUT};

		poll(&ready, 1, 10);
	}
}

/* ---- input ---- */

void serial_feed(struct serial *serial, const void *data, size_t len)
{
	const uint8_t *bytes = data;

	pthread_mutex_lock(&serial->lock);
	for (size_t i = 0; i < len && serial_queue_put(&serial->in, bytes[i]); i++) {
	}
	serial_update_line(serial);
	pthread_mutex_unlock(&serial->lock);
}

static void serial_input_ready(void *opaque, uint32_t events)
{
	struct serial *serial = opaque;
	uint8_t buf[IN_SIZE];
	ssize_t n;
	size_t room;

	pthread_mutex_lock(&serial->lock);
	room = IN_SIZE - serial->state.in_count;
	if (!room && serial->in_source)
		event_source_set(serial->in_source, 0);
	serial->in_paused = !room || serial->in_plain;
	pthread_mutex_unlock(&serial->lock);
	if (!room)
		return;
	n = read(serial->in_fd, buf, room);
	if (n > 0)
		serial_feed(serial, buf, (size_t)n);
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		serial_set_fds(serial, -1, serial->out_fd);
}

static void serial_input_due(void *opaque, uint32_t events)
{
	struct serial *serial = opaque;

	pthread_mutex_lock(&serial->lock);
	serial->state.held = false;
	serial_update_line(serial);
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
		event_source_set(serial->in_source, EPOLLIN);
	else if (serial->in_plain && !serial->state.held)
		event_timer_set(serial->in_timer, 1, 0);
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
		int ret = event_loop_watch(serial->loop, in_fd, EPOLLIN, serial_input_ready, serial, &source, &err);

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

static void serial_set_output(struct serial *serial, int out_fd)
{
	struct stat st = {0};

	serial_flush(serial);
	if (out_fd >= 0 && fstat(out_fd, &st) == 0) {
		serial->out_socket = S_ISSOCK(st.st_mode);
		serial->out_chunk = S_ISREG(st.st_mode) || fcntl(out_fd, F_GETFL) & O_NONBLOCK ? OUT_SIZE : PIPE_BUF;
	}
	pthread_mutex_lock(&serial->lock);
	serial->out_fd = out_fd;
	serial->out_delay = OUT_DELAY;
	serial->out_lossy = false;
	if (out_fd < 0)
		serial_ring_drop(&serial->out, serial->out.count);
	pthread_mutex_unlock(&serial->lock);
}

void serial_set_fds(struct serial *serial, int in_fd, int out_fd)
{
	if (in_fd != serial->in_fd)
		serial_set_input(serial, in_fd);
	if (out_fd != serial->out_fd)
		serial_set_output(serial, out_fd);
}

/* ---- registers; lock held ---- */

static uint8_t serial_read_byte(struct serial *serial)
{
	struct input_queue *queue = serial_receiver(serial);
	uint8_t byte;

	if (!serial_received(serial))
		return 0;
	byte = queue->data[0];
	/* The move costs little compared with the exit that reads the byte. */
	memmove(queue->data, queue->data + 1, --*queue->count);
	serial_resume_input(serial);
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
		serial_put_output(serial, byte);
	} else if (serial->state.looped_count >= (serial_fifo_on(serial) ? FIFO : 1)) {
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

void serial_hold(struct serial *serial)
{
	serial->state.held = true;
	event_timer_set(serial->in_timer, HOLD, 0);
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
	serial_update_line(serial);
	pthread_mutex_unlock(&serial->lock);
}

static void serial_free_serial(struct serial *serial)
{
	event_source_remove(serial->out_timer);
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
	serial->in_fd = serial->out_fd = -1;
	serial->in = (struct input_queue){serial->state.in, &serial->state.in_count, IN_SIZE};
	serial->looped = (struct input_queue){serial->state.looped, &serial->state.looped_count, FIFO};
	serial->out = (struct ring){.data = serial->out_data, .size = OUT_SIZE};
	pthread_mutex_init(&serial->lock, NULL);
	serial_reset(serial);
	code = event_loop_timer(loop, serial_output_due, serial, &serial->out_timer, err);
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
	serial_set_fds(serial, -1, -1);
	serial_free_serial(serial);
}
