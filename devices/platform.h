/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The devices that are not on PCI: serial port, clock, keyboard controller, panic notifier, power.
 */
#pragma once

#include "core/bus.h"
#include "core/event_loop.h"
#include "core/irq.h"
#include "core/log.h"

/* ---- serial.c: a 16550A at a port address ---- */
struct serial;
struct state_table;
struct guest_memory;
/*
 * Output goes to out_fd within about a millisecond, in as few writes as possible. Output that out_fd does not take is
 * buffered (64 KiB) and then dropped and counted: the guest never waits. A regular file that cannot be written is tried
 * again; after another failed write there is no output until serial_set_fds. in_fd -1: no input; at its end it is no
 * longer used. The descriptors are not owned and their flags do not change. The loop runs on one thread, or does not
 * run.
 */
int serial_create(struct bus *pio, uint16_t port, struct irq_line *irq, int in_fd, int out_fd, struct event_loop *loop,
		  const struct log *log, struct serial **ret, struct err *err);
/*
 * Writes the buffered output while somebody reads it: waits up to a second for a reader that takes nothing, and up to
 * 10 s in all. What is lost is logged. On the loop's thread, or when it does not run. NULL is fine.
 */
void serial_destroy(struct serial *serial);
/* How many bytes of output are written in a time; more waits in the buffer, but at the end. Any thread. */
struct token_bucket_limit;
void serial_set_limit(struct serial *serial, const struct token_bucket_limit *limit);
/* Of the limit's burst. */
uint64_t serial_burst_left(struct serial *serial);
/* Writes the buffered output, waiting up to 100 ms. On the loop's thread. */
void serial_flush(struct serial *serial);
/* Adds bytes to the guest's input; bytes that do not fit (4 KiB) are dropped. Any thread. */
void serial_feed(struct serial *serial, const void *data, size_t len);
/* Changes the descriptors (a client came or left); -1: none. On the loop's thread. */
void serial_set_fds(struct serial *serial, int in_fd, int out_fd);
/* Sets the registers to their power-on values; buffered input and output stay. */
void serial_reset(struct serial *serial);
/*
 * Saved state of a struct serial *: registers and waiting input; output is written on the source. This and the tables
 * below are saved and loaded on the loop's thread while the machine is paused; a record is loaded into an object that
 * no guest has used. Loading raises the interrupt line if it was high.
 */
extern const struct state_table serial_state;

/* ---- rtc.c: an MC146818 at ports 0x70 and 0x71: UTC, alarm and update interrupts, no periodic one, RAM ---- */
struct rtc;
#define RTC_PORT 0x70u
#define RTC_CENTURY 0x32u /* the register named by the FADT */
int rtc_create(struct bus *pio, struct irq_line *irq, struct event_loop *loop, struct rtc **ret, struct err *err);
/* On the loop's thread, or when it does not run. NULL is fine. */
void rtc_destroy(struct rtc *rtc);
/* Saved state of a struct rtc *. Its time is an offset to the host's, so it continues during a migration; an alarm in
 * this time is raised when the guest runs again. */
extern const struct state_table rtc_state;

/* ---- i8042.c: a keyboard controller with a keyboard at ports 0x60 and 0x64, by which a guest resets the machine ---- */
struct i8042;
struct i8042_config {
	struct bus *pio;
	struct irq_line *irq;         /* of the keyboard */
	void (*reset)(void *opaque);  /* on a vCPU thread */
	void *opaque;
};
int i8042_create(const struct i8042_config *config, struct i8042 **ret, struct err *err);
void i8042_destroy(struct i8042 *i8042);
/* Presses Ctrl, Alt and Del, and lets them go. False: no driver in the guest listens to the keyboard. Any thread. */
bool i8042_ctrl_alt_del(struct i8042 *i8042);
/* No guest has used it: the state is that of a new one. Any thread. */
bool i8042_is_new(struct i8042 *i8042);
extern const struct state_table i8042_state;

/* ---- pvpanic.c: the port (0x505) to which a guest writes the event of its panic ---- */
struct pvpanic;
/* panicked is called on a vCPU thread. */
int pvpanic_create(struct bus *pio, uint16_t port, void (*panicked)(void *opaque, bool loaded), void *opaque,
		   struct pvpanic **ret, struct err *err);
void pvpanic_destroy(struct pvpanic *pvpanic);

/*
 * ---- power.c: the fixed ACPI registers (ACPI 6.4 section 4.8) with power button and timer, the reset register, and
 * the generic event device of PCI hot plug and of the notifications below ----
 */
enum power_event { POWER_OFF, POWER_RESET };
struct power;
struct power_config {
	struct bus *pio;
	uint16_t port;        /* POWER_PORTS bytes, layout below */
	struct irq_line *irq; /* of the generic event device */
	struct irq_line *sci; /* of the fixed registers */
	uint64_t (*now)(void *opaque); /* the guest's time in ns, for the timer; on a vCPU thread */
	void (*event)(void *opaque, enum power_event event); /* on a vCPU thread */
	void *opaque;
};
#define POWER_PORTS 32u
#define POWER_SLEEP_CONTROL 0u /* of guests with hardware-reduced tables: SLP_TYP 5 << 2 | SLP_EN 0x20: off */
#define POWER_SLEEP_STATUS 1u
#define POWER_RESET_REG 2u     /* write 1: reset */
#define POWER_GED_EVENTS 4u    /* 32 bits, read clears: bit 0 power button, 1 PCI hot plug, others: power_notice */
#define POWER_PCI_UP 8u        /* 32 bits, read clears: devices added */
#define POWER_PCI_DOWN 12u     /* 32 bits, read clears: devices to be removed; write: bit set = device ejected */
#define POWER_PM1_STATUS 16u   /* 16 bits, a bit is cleared by writing it (section 4.8.3.1.1) */
#define POWER_PM1_ENABLE 18u   /* 16 bits */
#define POWER_PM1_CONTROL 20u  /* 16 bits: SLP_TYP 5 << 10 | SLP_EN 0x2000: off (section 4.8.3.2.1) */
#define POWER_PM1_TIMER 24u    /* 32 bits, 3.579545 MHz (section 4.8.3.3) */
int power_create(const struct power_config *config, struct power **ret, struct err *err);
void power_destroy(struct power *power);
/* Saved state of a struct power *: its registers, and the events that the guest has not seen yet. */
extern const struct state_table power_state;
/* Presses the power button, which also wakes a guest that sleeps. A guest that does not listen yet sees it later. Any
 * thread. */
void power_button(struct power *power);
/*
 * Notifies the guest of a new device, or asks it to release one; then ejected is called on a vCPU thread. remove
 * returns whether the guest has read all such requests before this one; withdraw takes back one that it has not read.
 */
void power_pci_added(struct power *power, unsigned int device);
bool power_pci_remove(struct power *power, unsigned int device);
void power_pci_withdraw(struct power *power, unsigned int device);
void power_set_ejected(struct power *power, void (*ejected)(void *opaque, unsigned int device), void *opaque);
/* Notifies the guest that a device of its ACPI tables has something new; the values are bits of POWER_GED_EVENTS. Any
 * thread. */
enum power_notice { POWER_NEW_GENERATION = 1 << 2, POWER_NEW_TIME = 1 << 3 };
void power_notify(struct power *power, enum power_notice notice);

/* ---- vmgenid.c: the generation ID, 16 random bytes in guest memory at gpa ---- */
struct vmgenid;
#define VMGENID_BYTES 16u
/* Writes nothing: vmgenid_renew does, or guest memory is loaded. */
int vmgenid_create(struct guest_memory *memory, uint64_t gpa, struct vmgenid **ret, struct err *err);
void vmgenid_destroy(struct vmgenid *vmgenid);
/* Another ID, which was never used before. The caller notifies a guest that runs already: POWER_NEW_GENERATION. */
int vmgenid_renew(struct vmgenid *vmgenid, struct err *err);
/* That of the same machine before its guest has rebooted. */
int vmgenid_set(struct vmgenid *vmgenid, const uint8_t id[VMGENID_BYTES], struct err *err);
void vmgenid_get(const struct vmgenid *vmgenid, uint8_t id[VMGENID_BYTES]);
extern const struct state_table vmgenid_state;

/* ---- vmclock.c: the host's time and the guest's time stamp counter, in a page of guest memory at gpa ---- */
struct vmclock;
struct vmclock_time {
	uint64_t counter, counter_hz; /* the guest's counter; its rate is at least 2 */
	uint64_t realtime_ns;         /* the host's clock at that moment: UTC, since 1970 */
};
int vmclock_create(struct guest_memory *memory, uint64_t gpa, struct vmclock **ret, struct err *err);
void vmclock_destroy(struct vmclock *vmclock);
/* The machine is restored: the next publish shows another disruption marker and generation number. */
int vmclock_disrupt(struct vmclock *vmclock, struct err *err);
/* The generation number of the same machine before its guest has rebooted; 0 until it is disrupted. */
void vmclock_set_generation(struct vmclock *vmclock, uint64_t generation);
uint64_t vmclock_generation(const struct vmclock *vmclock);
/* Writes the page. The caller notifies a guest that runs already: POWER_NEW_TIME. One thread at a time. */
void vmclock_publish(struct vmclock *vmclock, const struct vmclock_time *time);
extern const struct state_table vmclock_state;
