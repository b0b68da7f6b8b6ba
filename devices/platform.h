/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The few devices that sit on the machine's own buses rather than on PCI: serial port, clock, panic notifier, power.
 */
#pragma once

#include "core/bus.h"
#include "core/event_loop.h"
#include "core/irq.h"
#include "core/log.h"

/* ---- serial.c: a 16550A at a port address ---- */
struct serial;
struct state_table;
/*
 * Output goes to out_fd within about a millisecond, in as few writes as may be; what the descriptor does not take at
 * once is buffered (64 KiB) and then dropped: the guest never waits. Give it O_NONBLOCK unless it is shared with
 * others (a terminal), for then the loop's thread may wait. When writing fails, output ends until serial_set_fds.
 * in_fd -1: nothing is ever received; at its end it is let go. Both descriptors stay the caller's. The loop runs on
 * one thread, or does not run yet (any more).
 */
int serial_create(struct bus *pio, uint16_t port, struct irq_line *irq, int in_fd, int out_fd, struct event_loop *loop,
		  const struct log *log, struct serial **ret, struct err *err);
/* Flushes. On the loop's thread, or when it does not run. NULL is fine. */
void serial_destroy(struct serial *serial);
/* Writes what is buffered now, waiting for the descriptor up to 100 ms: before the process ends. The loop's thread. */
void serial_flush(struct serial *serial);
/* Gives the guest bytes as if typed; what does not fit (4 KiB) is dropped. Any thread. */
void serial_feed(struct serial *serial, const void *data, size_t len);
/* Switches to other descriptors (a client came or went); -1 for none. The loop's thread. */
void serial_set_fds(struct serial *serial, int in_fd, int out_fd);
/* Registers to their power-on values; what is buffered either way stays. */
void serial_reset(struct serial *serial);
/*
 * Saved state, of a struct serial *: registers and the input that waits; output is not in it, for it goes out here. This
 * and the tables below are saved and loaded by the loop's thread while the machine is paused, and a record is loaded
 * into an object that no guest has used yet. Loading raises its
 * interrupt line if it was high.
 */
extern const struct state_table serial_state;

/*
 * ---- rtc.c: an MC146818 at ports 0x70 and 0x71: time of day (UTC), alarm and update interrupts, no periodic one,
 * and its RAM ----
 */
struct rtc;
#define RTC_PORT 0x70u
#define RTC_CENTURY 0x32u /* the register that the FADT names */
int rtc_create(struct bus *pio, struct irq_line *irq, struct event_loop *loop, struct rtc **ret, struct err *err);
/* On the loop's thread, or when it does not run. NULL is fine. */
void rtc_destroy(struct rtc *rtc);
/* Saved state, of a struct rtc *. Its time is the host's and what the guest has set it apart by, so it goes on meanwhile;
 * an alarm that falls into that time is raised when the guest runs again. */
extern const struct state_table rtc_state;

/* ---- pvpanic.c: a guest that panicked writes its event here (port 0x505) ---- */
struct pvpanic;
/* panicked is called on a vCPU thread. */
int pvpanic_create(struct bus *pio, uint16_t port, void (*panicked)(void *opaque, bool loaded), void *opaque,
		   struct pvpanic **ret, struct err *err);
void pvpanic_destroy(struct pvpanic *pvpanic);

/*
 * ---- power.c: the hardware-reduced ACPI registers (sleep control and status, reset) and the generic event device
 * that carries the power button and, later, hot plug ----
 */
enum power_event { POWER_OFF, POWER_RESET };
struct power;
struct power_config {
	struct bus *pio;
	uint16_t port;        /* POWER_PORTS bytes, layout below */
	struct irq_line *irq; /* of the generic event device */
	void (*event)(void *opaque, enum power_event event); /* on a vCPU thread */
	void *opaque;
};
#define POWER_PORTS 16u
#define POWER_SLEEP_CONTROL 0u /* write SLP_TYP 5 << 2 | SLP_EN 0x20: off (ACPI 6.4 section 4.8.3.7) */
#define POWER_SLEEP_STATUS 1u
#define POWER_RESET_REG 2u     /* write 1: reset */
#define POWER_GED_EVENTS 4u    /* 32 bits, read clears: bit 0 power button, bit 1 PCI hot plug */
#define POWER_PCI_UP 8u        /* 32 bits, read clears: devices that appeared */
#define POWER_PCI_DOWN 12u     /* 32 bits, read clears: devices asked to leave; write: bit set = device ejected */
int power_create(const struct power_config *config, struct power **ret, struct err *err);
void power_destroy(struct power *power);
/* Saved state, of a struct power *: what the guest has not read yet of the button and of hot plug. */
extern const struct state_table power_state;
/* Presses the power button. Any thread. */
void power_button(struct power *power);
/* Tells the guest that a device appeared, or asks it to let one go; ejected is called on a vCPU thread when it has. */
void power_pci_added(struct power *power, unsigned int device);
void power_pci_remove(struct power *power, unsigned int device);
void power_set_ejected(struct power *power, void (*ejected)(void *opaque, unsigned int device), void *opaque);
