/* SPDX-License-Identifier: Apache-2.0 */
/* See machine.h: starts, pauses and ends a machine, and gives access to its parts. */
#include "vmm/machine/machine_internal.h"

#include "boot/layout_x86.h"
#include "core/monotonic.h"

#include <stdio.h>

/* ---- start and pause ---- */

/* How long the loop's thread waits at a time: most storage needs less. */
#define SLICE_MS 2

/* Drains the devices of a pass: first the disks, which may take long, while the others work. */
static int machine_life_drain(struct machine *machine, bool disks, int64_t deadline, struct err *err)
{
	int ret = 0;

	for (size_t i = 0; i < machine->virtio_count && ret == 0; i++)
		if ((virtio_transport_device(machine->virtio[i])->type == VIRTIO_ID_BLOCK) == disks)
			ret = virtio_transport_drain(machine->virtio[i], deadline, err);
	return ret;
}

static int machine_life_wait_vcpus(struct machine *machine, int64_t deadline, struct err *err)
{
	int ret = vcpu_set_wait(machine->vcpus, deadline);

	return ret ? err_set(err, ret, "a vCPU waits for a device that does not answer") : 0;
}

int machine_pause_devices(struct machine *machine, struct err *err)
{
	int ret = machine_life_drain(machine, true, VIRTIO_NO_DEADLINE, err) ?:
		  machine_life_drain(machine, false, VIRTIO_NO_DEADLINE, err);

	machine->paused = ret == 0;
	return ret;
}

/* An interrupt may be lost that was pending on the source, or arrived while a clock was set: inject one, which may be
 * spurious. */
static void machine_life_kick_host_devices(struct machine *machine)
{
	for (size_t i = 0; i < host_devices_count(machine->host_devices); i++)
		vfio_pci_kick(host_devices_pci(machine->host_devices, i));
}

static void machine_life_resume_devices(struct machine *machine)
{
	for (size_t i = 0; i < machine->virtio_count; i++)
		virtio_transport_resume(machine->virtio[i]);
}

/* vmclock's time; the counter may have stopped in a pause, or has another rate on another host. */
static void machine_life_publish_time(struct machine *machine)
{
	struct clock_moment now;
	struct err why;

	if (clock_read(machine->clock, &now, &why) < 0)
		log_warn(machine->host.log, "%s; vmclock does not have the right time", why.text);
	else
		vmclock_publish(machine->vmclock, &(struct vmclock_time){now.counter, now.counter_hz, now.realtime});
}

/*
 * The clock first: devices that are resumed may raise interrupts. The guest before the devices, as in a pause, which drains
 * them while it runs: what it asks of them meanwhile waits in their queues.
 */
static void machine_life_go_on(struct machine *machine)
{
	if (clock_resume(machine->clock))
		machine_life_kick_host_devices(machine);
	machine_life_publish_time(machine);
	power_notify(machine->power, POWER_NEW_TIME);
	vcpu_set_notify_paused(machine->vcpus);
	machine->paused = false;
	vcpu_set_resume(machine->vcpus);
	machine_life_resume_devices(machine);
}

/* Its connections were with the source host. */
static void machine_life_reset_vsock(struct machine *machine)
{
	for (size_t i = 0; i < machine->virtio_count; i++)
		if (virtio_transport_device(machine->virtio[i])->type == VIRTIO_ID_VSOCK)
			virtio_vsock_transport_reset(virtio_transport_device(machine->virtio[i]));
}

int machine_start(struct machine *machine, struct err *err)
{
	if (!machine->loaded) {
		machine->started = true;
		machine_life_publish_time(machine);
		return vcpu_set_start(machine->vcpus, false, err);
	}
	machine_start_paused(machine);
	machine_resume(machine);
	return 0;
}

void machine_start_paused(struct machine *machine)
{
	machine_life_kick_host_devices(machine);
	machine_life_reset_vsock(machine);
	machine->started = true;
	machine->loaded = false;
}

/* How long after a press the button is pressed again: Linux takes one that wakes it for that alone. */
#define PRESS_AGAIN_NS 4000000000ull

static void machine_life_press_again(void *opaque, uint32_t events)
{
	struct machine *machine = opaque;

	event_timer_set(machine->button_timer, 0, 0);
	if (!machine->paused)
		power_button(machine->power);
}

void machine_power_button(struct machine *machine)
{
	struct err err;

	power_button(machine->power);
	if (!machine->button_timer && event_loop_timer(machine->host.loop, machine_life_press_again, machine,
						       &machine->button_timer, &err) < 0)
		log_warn(machine->host.log, "%s; a guest that sleeps is only woken", err.text);
	else
		event_timer_set(machine->button_timer, PRESS_AGAIN_NS, 0);
}

int machine_ctrl_alt_del(struct machine *machine, struct err *err)
{
	return i8042_ctrl_alt_del(machine->i8042) ? 0 :
	       err_set(err, -EOPNOTSUPP, "has a guest that listens to no keyboard; mvmm stop presses its power button");
}

/* A paused machine's clock is recorded again. */
static void machine_life_pause_clock(struct machine *machine)
{
	struct err why;

	if (clock_pause(machine->clock, &why))
		log_warn(machine->host.log, "%s; this machine's state cannot be saved, and its clocks run on", why.text);
}

/* The steps of a pause, each until deadline. The guest's CPUs stop when nothing has to be waited for any more. */
static int machine_life_pause_by(struct machine *machine, int64_t deadline, struct err *err)
{
	int ret = 0;

	if (machine->pausing == MACHINE_DRAINS)
		ret = machine_life_drain(machine, true, deadline, err) ?:
		      machine_life_drain(machine, false, deadline, err);
	if (ret == 0 && machine->pausing == MACHINE_DRAINS) {
		machine->pausing = MACHINE_STOPS;
		vcpu_set_pause(machine->vcpus);
	}
	return ret ?: machine_life_wait_vcpus(machine, deadline, err);
}

int machine_pause(struct machine *machine, int64_t deadline, struct err *err)
{
	int64_t slice = monotonic_ms() + SLICE_MS;
	int ret;

	if (machine->paused) {
		if (machine->started)
			machine_life_pause_clock(machine);
		return 0;
	}
	if (!machine->pausing)
		machine->pausing = MACHINE_DRAINS;
	ret = machine_life_pause_by(machine, deadline < 0 ? slice : MIN(slice, deadline), err);
	if (ret == -ETIMEDOUT && (deadline < 0 || monotonic_ms() < deadline))
		return -EINPROGRESS;
	if (ret) {
		machine_unpause(machine);
		return err_prefix(err, ret, "cannot be paused");
	}
	machine_life_pause_clock(machine);
	machine->pausing = MACHINE_NOT_PAUSING;
	machine->paused = true;
	return 0;
}

void machine_unpause(struct machine *machine)
{
	if (machine->pausing)
		machine_life_resume_devices(machine);
	if (machine->pausing == MACHINE_STOPS)
		vcpu_set_resume(machine->vcpus);
	machine->pausing = MACHINE_NOT_PAUSING;
}

void machine_resume(struct machine *machine)
{
	machine_unpause(machine);
	if (machine->paused && machine->started)
		machine_life_go_on(machine);
}

bool machine_paused(const struct machine *machine)
{
	return machine->paused;
}

void machine_serial_fds(struct machine *machine, int in_fd, int out_fd)
{
	serial_set_fds(machine->serial, in_fd, out_fd);
}

/* ---- end ---- */

void machine_end_for(struct machine *machine, enum machine_end reason)
{
	enum machine_end running = MACHINE_RUNNING;

	__atomic_compare_exchange_n(&machine->end, &running, reason, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
	event_loop_stop(machine->host.loop);
}

enum machine_end machine_end(const struct machine *machine)
{
	return __atomic_load_n(&machine->end, __ATOMIC_ACQUIRE);
}

void machine_stop(struct machine *machine)
{
	machine_end_for(machine, MACHINE_STOPPED);
}

void machine_fail(struct machine *machine)
{
	machine_end_for(machine, MACHINE_FAILED);
}

/* The guest stops at once here, and then the devices. */
int machine_settle(struct machine *machine, struct err *err)
{
	int64_t slice = monotonic_ms() + SLICE_MS;
	int ret;

	if (!machine->settling)
		vcpu_set_pause(machine->vcpus);
	machine->settling = true;
	ret = machine_life_drain(machine, true, slice, err) ?: machine_life_drain(machine, false, slice, err);
	ret = ret ?: machine_life_wait_vcpus(machine, slice, err);
	if (ret == 0 && (machine->plugging || machine->unplugging))
		return err_set(err, -EINPROGRESS, "a device that comes, goes or changes is not there yet");
	return ret == -ETIMEDOUT ? -EINPROGRESS : ret;
}

/* ---- locks of disks: the process that runs the guest has them ---- */

static void machine_life_unlock_disks(struct machine *machine, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (virtio_transport_device(machine->virtio[i])->type == VIRTIO_ID_BLOCK)
			virtio_blk_unlock(virtio_transport_device(machine->virtio[i]));
}

void machine_unlock_disks(struct machine *machine)
{
	machine_life_unlock_disks(machine, machine->virtio_count);
}

int machine_lock_disks(struct machine *machine, struct err *err)
{
	for (size_t i = 0; i < machine->virtio_count; i++) {
		struct virtio_device *device = virtio_transport_device(machine->virtio[i]);
		int ret = device->type == VIRTIO_ID_BLOCK ? virtio_blk_lock(device, err) : 0;

		if (ret < 0) {
			machine_life_unlock_disks(machine, i);
			return ret;
		}
	}
	return 0;
}

size_t machine_virtio_count(const struct machine *machine)
{
	return machine->virtio_count;
}

struct virtio_device *machine_virtio(const struct machine *machine, size_t index)
{
	return virtio_transport_device(machine->virtio[index]);
}

unsigned int machine_virtio_slot(const struct machine *machine, size_t index)
{
	return virtio_transport_slot(machine->virtio[index]);
}

void machine_virtio_where(const struct machine *machine, size_t index, char *text, size_t size)
{
	unsigned int slot = machine_virtio_slot(machine, index);

	if (machine->config->transport == TRANSPORT_MMIO)
		snprintf(text, size, "mmio:%llx", (unsigned long long)layout_virtio_mmio(slot));
	else
		snprintf(text, size, "00:%02x.0", slot);
}

struct guest_memory *machine_memory(const struct machine *machine)
{
	return machine->memory;
}

struct dirty_set *machine_dirty(struct machine *machine)
{
	return &machine->dirty;
}

struct vcpu_set *machine_vcpus(const struct machine *machine)
{
	return machine->vcpus;
}

struct virtio_device *machine_balloon(const struct machine *machine)
{
	return machine->balloon;
}

struct slots *machine_slots(const struct machine *machine)
{
	return machine->slots;
}

struct host_devices *machine_host_devices(struct machine *machine)
{
	return machine->host_devices;
}
