/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine put together: KVM, memory, buses, devices, tables, kernel, vCPUs. A machine runs once, from
 * machine_start to its end; a reboot is a new machine of the same configuration, so every register begins fresh.
 *
 * All calls come from the thread that runs the event loop. When the machine ends the loop is stopped, and
 * machine_end() tells why.
 */
#pragma once

#include "core/dirty.h"
#include "core/event_loop.h"
#include "core/guest_memory.h"
#include "core/state.h"
#include "vmm/config/config.h"

struct machine;
struct machine_offer;

enum machine_end {
	MACHINE_RUNNING,
	MACHINE_OFF,     /* the guest powered off */
	MACHINE_REBOOT,  /* it asked for a reset, or fell over */
	MACHINE_PANIC,   /* its kernel panicked */
	MACHINE_STOPPED, /* machine_stop */
	MACHINE_FAILED,  /* KVM cannot go on; a line was logged */
};

/* What the machine stands on; outlives it. */
struct machine_host {
	struct event_loop *loop;
	const struct log *log;
	int serial_in, serial_out;   /* -1: the port leads nowhere; not owned */
	int console_in, console_out; /* as serial's, for the virtio console; -1: no such device */
	/* A device of the host has left for good. On the loop's thread; may be NULL. */
	void (*device_gone)(void *opaque, const char *id);
	void *opaque;
	/*
	 * The offer of the machine that is to go on here, for as long as it is made, or NULL for one that boots. Such a machine has the CPU and the
	 * slots that were offered, and no kernel: it is paused and waits for its memory, machine_load and machine_start. Its
	 * disks are not locked.
	 */
	const struct machine_offer *incoming;
};

/* Makes everything up to the first instruction. A failure leaves nothing behind. */
int machine_create(const struct machine_config *config, const struct machine_host *host, struct machine **ret,
		   struct err *err);
/* Stops the vCPUs and the devices and frees all. NULL is fine. */
void machine_destroy(struct machine *machine);

/* Lets the guest run: from its first instruction, or from where it was when its state was saved. */
int machine_start(struct machine *machine, struct err *err);
/* One that was loaded is left standing: machine_resume lets it run. */
void machine_start_paused(struct machine *machine);

/* Why the machine ended; MACHINE_RUNNING while it has not. */
enum machine_end machine_end(const struct machine *machine);

/* Presses the power button: a guest that listens shuts down. */
void machine_power_button(struct machine *machine);
/* Ends it at once, as if unplugged. */
void machine_stop(struct machine *machine);

/*
 * Stops the vCPUs, then the devices, all requests in flight completed; resume goes on. Pausing twice is once. -ETIMEDOUT
 * when a device's requests do not complete in 10 seconds, as on storage that hangs: err names it, and the machine runs on.
 */
int machine_pause(struct machine *machine, struct err *err);
void machine_resume(struct machine *machine);
bool machine_paused(const struct machine *machine);

/*
 * The whole of a paused machine but its memory and what host devices keep to themselves: appended to out as named
 * sections (machine_state.c). What was saved twice without running between is the same byte for byte, but for the count that
 * a local APIC's timer has come to. Host devices have been stopped (vmm/session/host_devices_migration.h).
 */
int machine_save(struct machine *machine, struct state_buffer *out, struct err *err);
/*
 * Loads what was saved, all of [data, data + len), into an incoming machine that was not started and whose memory is
 * complete; host devices have taken over their own state, and are let run before machine_start. The data is hostile.
 * -EBADMSG for nonsense, else what KVM or a device says; the machine is then only good for being destroyed.
 */
int machine_load(struct machine *machine, const void *data, size_t len, struct err *err);
/* The same for practice, before machine_load: as much of it as that undoes, which is the vCPUs. Memory may still be incomplete. */
int machine_try(struct machine *machine, const void *data, size_t len, struct err *err);

/*
 * Gives up the locks on the disks, or takes them: when the guest goes on elsewhere, or here. Paused. -EBUSY names the disk
 * that somebody else has, and none is locked then.
 */
void machine_unlock_disks(struct machine *machine);
int machine_lock_disks(struct machine *machine, struct err *err);

/* Its memory, and whoever can tell which of its pages were written. */
struct guest_memory *machine_memory(const struct machine *machine);
struct dirty_set *machine_dirty(struct machine *machine);

/* Its vCPUs, for who holds them back. */
struct vcpu_set;
struct vcpu_set *machine_vcpus(const struct machine *machine);

/* Other descriptors for the serial port, as a client comes and goes. */
void machine_serial_fds(struct machine *machine, int in_fd, int out_fd);

/* The devices, for whoever tells people about them. */
struct virtio_device;
size_t machine_virtio_count(const struct machine *machine);
struct virtio_device *machine_virtio(const struct machine *machine, size_t index, uint8_t *devfn);
/* NULL when there is none. */
struct virtio_device *machine_balloon(const struct machine *machine);
/* The devices of the host that it has; hot plug is asked of them. */
struct host_devices;
struct host_devices *machine_host_devices(struct machine *machine);
