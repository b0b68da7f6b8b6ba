/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of vmm/machine/host_devices have in common: a fake kernel with three devices, a bus with two free
 * slots, and a guest that the test plays by the registers of the power device.
 */
#pragma once

#include "tests/unit/fake_internal.h"
#include "tests/unit/vfio_pci_bench.h"
#include "vmm/machine/host_devices.h"

#define SECOND "0000:02:00.0"
#define THIRD "0000:03:00.0"
#define SIBLING "0000:01:00.1" /* of the first */
#define SLOT_A 31u             /* the highest comes first */
#define SLOT_B 30u
#define REQ_IRQ VFIO_PCI_REQ_IRQ_INDEX

#define NOTHING 0xffffffff /* is read where there is no device */
#define NVME 0x00101b36

/* A caller of host_devices_remove. */
struct caller {
	unsigned int answers;
	int code;
};

struct host_bench {
	struct pci_bench p;
	struct power *power;
	struct irq_line line;
	struct slots *slots;
	struct host_devices *devices;
	unsigned int paused, pauses;
	unsigned int gone;
	char last_gone[16];
	struct caller first, second;
	int slow_fd;  /* readable: memory can be mapped; -1: it always can */
	int close_fd; /* the same for closing a device */
	bool closing; /* a worker waits for that; atomic */
	pthread_t loop;
	unsigned int loop_closed; /* devices that the loop had to close meanwhile */
	bool no_room; /* for the guest's memory */
};
extern struct host_bench t;
extern struct vfio_config configs[3]; /* "a", "b" and "c" */

/* ---- the machine around them ---- */

/* To the fake kernel, with a BAR and the interrupt by which the host asks for it back. */
void add_device(const char *bdf);
/* The machine with the three devices of configs, of which none is there yet. */
void setup(void);
/* Creates the host devices with these, or with the first of configs. */
int create_of(struct vfio_config *vfios, size_t count);
int create(size_t count);
/* setup and create. */
void start(size_t count);
void destroy(void);
/* Destroys all of it. Nothing is left, here or in the kernel. */
void done(void);

/* ---- the guest, and people ---- */

/* For those who call host_devices themselves; opaque is a caller. */
void answer(void *opaque, int code, const struct err *err);
void wait_for_answer(const struct caller *caller);
/* Waits until no device leaves any more. */
void settle(void);
/* The devices that the guest has been asked to let go, or to look for, since the last time. */
uint32_t asked_for(void);
uint32_t appeared(void);
/* The guest lets it go. The loop has not seen it yet. */
void ejects(unsigned int device);
/* The same, and it has left. */
void eject(unsigned int device);
/* What the guest reads as its vendor and device. */
uint32_t identity(unsigned int device);
/* Starts to add one; caller is answered. */
int begin_adding(const struct vfio_config *config, struct caller *caller);
/* The same, and waits for its end; the code. */
int add_of(const struct vfio_config *config);
int add(size_t i);
/* Removes it; with force, waits until it has left. */
int remove_device(const char *id, bool force, unsigned int timeout_ms, struct caller *caller);
/* Asks the guest for it, with more time than the test takes. */
void ask(const char *id, struct caller *caller);
/* The host asks for the fake kernel's device back. */
void host_wants(size_t index);

#define ANSWERED(caller, with) CHECK_EQ((caller).answers == 1 ? (caller).code : 1, with)
#define SAYS(sentence) CHECK_STR(t.p.base.err.text, sentence)
