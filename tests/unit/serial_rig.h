/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of devices/serial have in common: a serial port on a bus, and its driver. */
#pragma once

#include "devices/platform.h"
#include "tests/unit/test.h"

#include <linux/serial_reg.h>
#include <time.h>
#include <unistd.h>

#define PORT 0x3f8

struct serial_bench {
	struct bus *pio;
	struct event_loop *loop;
	struct serial *serial;
	struct irq_line line;
	bool high;
	unsigned int rises;
};
extern struct serial_bench t;
extern struct log *told; /* of the next open_serial; NULL: nothing is logged */

void open_serial(int in_fd, int out_fd);
void close_serial(void);
/* The port's registers (UART_RX and so on), as the guest reads and writes them. */
uint8_t in(unsigned int reg);
void out(unsigned int reg, uint8_t value);
void print(const char *text);
void sleep_ms(unsigned int ms);
