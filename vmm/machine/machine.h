/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The complete machine: KVM, memory, buses, devices, tables, kernel, vCPUs. A machine runs once, from machine_start to
 * its end; a reboot makes a new machine from the same configuration, so that all registers are reset.
 *
 * All calls come from the thread that runs the event loop. When the machine ends, the loop is stopped, and
 * machine_end() returns the reason.
 */
#pragma once

#include "core/dirty.h"
#include "core/event_loop.h"
#include "core/guest_memory.h"
#include "core/state.h"
#include "vmm/config/config.h"

struct machine;
struct machine_files;
struct ram_source;
struct machine_offer;
struct virtio_blk_health;

enum machine_end {
	MACHINE_RUNNING,
	MACHINE_OFF,     /* the guest powered off */
	MACHINE_REBOOT,  /* the guest reset the machine, or had a triple fault */
	MACHINE_PANIC,   /* the guest's kernel panicked */
	MACHINE_STOPPED, /* machine_stop */
	MACHINE_FAILED,  /* KVM cannot run the guest; the reason was logged */
};

/* What the guest knows the machine by: it stays when the guest reboots. */
struct machine_identity {
	bool known;
	uint8_t generation_id[16];
	uint64_t generation;
};

/* What the machine uses of its host; outlives the machine. */
struct machine_host {
	struct event_loop *loop;
	const struct log *log;
	struct machine_files *files; /* that its earlier lives had; NULL: they are not kept */
	struct machine_identity *identity; /* the same; the machine leaves its own there in the end */
	int serial_in, serial_out;   /* -1: the port is connected to nothing; not owned */
	int console_in, console_out; /* the same for the virtio console; -1: no such device */
	/* A device was removed. On the loop's thread; may be NULL. */
	void (*device_gone)(void *opaque, const char *id);
	/* A disk with on-error=stop keeps a request that has failed: the machine is to be paused. The same way. */
	void (*disk_failed)(void *opaque);
	/* Operations of the host on a disk have failed, which was told. The same way. */
	void (*disk_error)(void *opaque, const char *id, const struct virtio_blk_health *health);
	bool (*memory_lost)(void *opaque, bool fault); /* as vcpu_config's; may be NULL */
	void *opaque;
	/*
	 * The offer of an incoming machine, used by machine_create only; NULL: the machine boots. An incoming machine
	 * has the offered CPU and slots, and no kernel: it is paused and waits for its memory, machine_load and
	 * machine_start. Its disks are not locked.
	 */
	const struct machine_offer *incoming;
	/*
	 * Where its memory's content comes from, used by machine_create only (the file by the machine); NULL: empty.
	 * Incoming, too: it is restored from a snapshot, and any time may have passed since.
	 */
	const struct ram_source *ram_source;
	struct kvm_ahead *kvm_ahead; /* what machine_create takes instead of opening it; NULL: nothing */
};

/* Makes the machine, ready for its first instruction. A failure leaves nothing behind. */
int machine_create(const struct machine_config *config, const struct machine_host *host, struct machine **ret,
		   struct err *err);
/*
 * The same for an incoming machine in two halves. The first one makes what needs no name, device or port: the VM, its memory,
 * interrupt chips, vCPUs and their threads. The second one makes the rest, from what config and host have become; in config,
 * the memory, the CPUs and the clock are those of the first half. If it fails, the machine must be destroyed.
 */
int machine_prepare(const struct machine_config *config, const struct machine_host *host, struct machine **ret,
		    struct err *err);
int machine_complete(struct machine *machine, const struct machine_host *host, struct err *err);
/*
 * Stops the vCPUs and the devices and frees the machine, NULL is fine. It waits for requests in flight: after the
 * start, machine_settle is called before until it returns 0. -EINPROGRESS: not yet; err says what it waits for.
 */
void machine_destroy(struct machine *machine);
int machine_settle(struct machine *machine, struct err *err);

/* Runs the guest, from its first instruction or from its saved state. */
int machine_start(struct machine *machine, struct err *err);
/* Starts a loaded machine and leaves it paused, until machine_resume. */
void machine_start_paused(struct machine *machine);

/* Why the machine ended, or MACHINE_RUNNING. */
enum machine_end machine_end(const struct machine *machine);

/*
 * Presses the power button: a guest that listens shuts down. If it still runs some seconds later, once more, for the
 * first press has only woken a guest that slept.
 */
void machine_power_button(struct machine *machine);
/* Presses Ctrl, Alt and Del on its keyboard. -EOPNOTSUPP: no driver of the guest listens to it. */
int machine_ctrl_alt_del(struct machine *machine, struct err *err);
/* Ends the machine at once, as if unplugged. */
void machine_stop(struct machine *machine);
/* The same, as failed. The caller has logged the reason. Any thread. */
void machine_fail(struct machine *machine);

/*
 * Drains and pauses the devices, then pauses the vCPUs: until all requests have completed, the guest runs and only
 * waits for its devices. It does not wait for them: -EINPROGRESS: call it again, soon. -ETIMEDOUT at deadline (ms of
 * monotonic_ms; below 0: none), as on storage that hangs: err names the device, and the machine runs on; no request was
 * cancelled. Pausing a paused machine does nothing. unpause undoes a pause in progress, resume also one that is
 * complete.
 */
int machine_pause(struct machine *machine, int64_t deadline, struct err *err);
void machine_unpause(struct machine *machine);
void machine_resume(struct machine *machine);
bool machine_paused(const struct machine *machine);

/*
 * Saves a paused machine, except its memory and the internal state of host devices: appends named sections to out
 * (machine_state.c). Saved twice without running in between, the state is the same byte for byte, except the current
 * count of the local APIC timers. Host devices have been stopped (vmm/session/host_devices_migration.h).
 */
int machine_save(struct machine *machine, struct state_buffer *out, struct err *err);
/*
 * Loads a saved state, all of [data, data + len), into an incoming machine that has not been started and whose memory
 * is complete. Host devices have loaded their own state, and are set running before machine_start. The data is hostile.
 * -EBADMSG if it is invalid, or the error of KVM or a device; the machine must then be destroyed.
 */
int machine_load(struct machine *machine, const void *data, size_t len, struct err *err);
/* A trial, before machine_load: loads only what machine_load replaces completely, which is the vCPUs. Memory may still
 * be incomplete. */
int machine_load_trial(struct machine *machine, const void *data, size_t len, struct err *err);

/*
 * Loads the vCPUs of a machine that is prepared (machine_prepare) and whose memory is complete; machine_load, which must
 * get the same state, then leaves them as they are. Their first run takes less time, too.
 */
int machine_load_vcpus(struct machine *machine, const void *data, size_t len, struct err *err);

/*
 * Unlocks the disks when the guest moves to another host, or locks them when it runs here. Paused. -EBUSY names the
 * disk that another process has locked; no disk is locked then.
 */
void machine_unlock_disks(struct machine *machine);
int machine_lock_disks(struct machine *machine, struct err *err);

/* Its memory, and the dirty sources of that. */
struct guest_memory *machine_memory(const struct machine *machine);
struct dirty_set *machine_dirty(struct machine *machine);

/* -EBUSY: a disk keeps requests that have failed, which cannot be saved: err names it. */
int machine_check_disks(const struct machine *machine, struct err *err);
/* The guest sees the size that the disk's image has now. -ENODEV: there is no such disk. */
int machine_resize_disk(struct machine *machine, const char *id, uint64_t *bytes, struct err *err);
/* *bytes: the size that the guest sees. -ENODEV */
int machine_disk_size(const struct machine *machine, const char *id, uint64_t *bytes);

/*
 * Devices that come and go while the guest runs, one at a time (slots.h). done is called on the loop's thread, with code 0
 * and err NULL, or -errno and the message; not if the function fails. -EBUSY: not now.
 *
 * add: the configuration stays valid until done; what was handed in for the id is in the files. The guest is notified.
 * remove: kind is "disk", "net" or "vfio"; as slots_remove. What the guest has written to a disk is then on it.
 * replace: a disk gets another image: fds are its descriptor and, if the disk is direct, one with O_DIRECT, valid until
 * done. The guest sees its size. -ETIMEDOUT: requests in flight are not completed.
 */
int machine_add_disk(struct machine *machine, const struct disk_config *disk,
		     void (*done)(void *opaque, int code, const struct err *err), void *opaque, struct err *err);
int machine_add_net(struct machine *machine, const struct net_config *net,
		    void (*done)(void *opaque, int code, const struct err *err), void *opaque, struct err *err);
int machine_remove_device(struct machine *machine, const char *kind, const char *id, bool force, unsigned int timeout_ms,
			  void (*done)(void *opaque, int code, const struct err *err), void *opaque, struct err *err);
int machine_replace_disk(struct machine *machine, const char *id, const char *path, const int *fds, size_t count,
			 void (*done)(void *opaque, int code, const struct err *err), void *opaque, struct err *err);

/* Changes limits of a device; machine_config_set_limits has made them. */
void machine_set_limits(struct machine *machine, const char *id, const struct machine_limits *limits);
/* Before a reboot: the configuration gets what is left of the bursts, so that each comes once. */
void machine_keep_bursts(const struct machine *machine, struct machine_config *config);

/* Plugs the cable of a network card in or out. -ENODEV: there is no such card; -EBUSY: its guest waits for it. */
int machine_set_link(struct machine *machine, const char *id, bool plugged, struct err *err);

/* Its vCPUs, for the throttle. */
struct vcpu_set;
struct vcpu_set *machine_vcpus(const struct machine *machine);

/* Replaces the serial port's descriptors, when a client connects or disconnects. */
void machine_serial_fds(struct machine *machine, int in_fd, int out_fd);

/* The virtio devices. */
struct virtio_device;
size_t machine_virtio_count(const struct machine *machine);
struct virtio_device *machine_virtio(const struct machine *machine, size_t index);
/* Where the guest finds it: virtio_transport_slot, and for people: "00:01.0", or "mmio:e0101000". */
unsigned int machine_virtio_slot(const struct machine *machine, size_t index);
void machine_virtio_where(const struct machine *machine, size_t index, char *text, size_t size);
/* NULL if there is none. */
struct virtio_device *machine_balloon(const struct machine *machine);
/* The slots for hot plug. */
struct slots;
struct slots *machine_slots(const struct machine *machine);
/* The host devices. */
struct host_devices;
struct host_devices *machine_host_devices(struct machine *machine);
