/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of a session share: session.c runs the machine, session_folder.c keeps the runtime folder,
 * session_state.c tells what the machine does, session_events.c what happens to it, session_operations.c has the
 * operations, session_devices.c those for devices, session_snapshot.c those for snapshots, session_pause.c waits for its
 * devices, session_reach.c opens what requests name, session_metrics.c collects metrics, session_receive.c receives a
 * machine from another host, session_api.c runs one that a client of an HTTP API starts, session_restore.c makes one from a
 * snapshot, and session_plug.c adds host devices to that.
 */
#pragma once

#include "vmm/control/control.h"
#include "vmm/control/rundir.h"
#include "vmm/jail/door.h"
#include "vmm/jail/json_stage.h"
#include "vmm/kvm/kvm.h"
#include "vmm/machine/machine.h"
#include "vmm/machine/machine_files.h"
#include "vmm/machine/machine_offer.h"
#include "vmm/session/outgoing.h"
#include "vmm/session/ports.h"
#include "vmm/session/restore_memory.h"
#include "vmm/session/service.h"
#include "vmm/session/snapshot_thread.h"

/* A pause in progress; all zero if there is none. */
struct session_pause {
	void (*done)(void *opaque, int code, const struct err *err);
	void *opaque;
	int64_t deadline;
	struct event_source *timer;
};

enum session_event {
	SESSION_STARTED, SESSION_REBOOTED, SESSION_PAUSED, SESSION_RESUMED, SESSION_BUTTON, SESSION_DEVICE_ADDED,
	SESSION_DEVICE_REMOVED, SESSION_DISK_ERROR, SESSION_DISK_RESIZED, SESSION_DISK_REPLACED, SESSION_LIMITS_CHANGED,
	SESSION_LINK_UP, SESSION_LINK_DOWN,
	SESSION_MIGRATION, SESSION_SNAPSHOT, SESSION_GUEST_PANIC, SESSION_ENDED, SESSION_EVENTS,
};

struct session_events {
	struct event_watcher *watchers;
	uint64_t counts[SESSION_EVENTS];
	uint64_t downtime, pause; /* ns, of the last migration that was done, and of the last snapshot; 0: none */
};

struct session_adding {
	const char *option; /* "vfio", "disk", "net" */
	struct vfio_given given; /* of a host device that was passed */
	struct add_device_reply reply;
};

struct session_replacing {
	char *id, *path;
	int fds[2];
	size_t count;
	void (*done)(void *opaque, uint64_t bytes, int code, const struct err *err);
	void *opaque;
};

/* Host devices that are yet to be plugged in. */
struct arrival_override;
struct session_plug {
	const struct arrival_override *vfios;
	size_t count, at;
};

struct session {
	struct machine_config *config;
	struct log log;
	struct event_loop *loop;
	struct service service; /* what it tells the service manager */
	struct rundir *rundir;
	struct session_folder {
		struct event_source *timer;
		bool lost; /* a message has said so */
	} folder;
	struct port *serial, *console;
	int signal_fd;
	struct event_source *signals;
	struct machine *machine;
	struct machine_files files; /* of all its lives */
	struct machine_identity identity; /* the same */
	const struct report_options *report; /* set by session_log_open */
	struct session_metrics *metrics;
	struct session_events events;
	uint64_t started_ns; /* CLOCK_MONOTONIC, when the machine could be operated */
	struct operated operated;
	struct control *control;
	struct firecracker *face; /* or NULL */
	int face_code;            /* what its process ends with */
	struct session_adding adding; /* while a device is being added */
	struct session_replacing replacing; /* while a disk gets another image */
	struct session_plug plug;
	bool button_pressed; /* by SIGTERM; the next one ends the machine */
	bool pressed;        /* by whomever, in this life */
	int signal; /* that ended it, or 0 */
	unsigned int short_lives; /* in a row, each ended by a reboot */
	bool resting;             /* the machine has ended and the next one waits */
	bool ended;               /* somebody wants no next one */
	struct machine_offer *offer; /* of the machine that arrived; or NULL */
	struct restore_memory *memory; /* where the machine's memory comes from; or NULL */
	const int *out_fd; /* where serial port and console write instead of their ports; or NULL */
	bool arriving;               /* the machine exists, and its guest does not run yet */
	bool waiting;                /* it is prepared, and waits for the request that completes it; also arriving */
	/* Does what the request says, as operations.start; NULL: the machine is there from the start. */
	int (*start)(struct session *session, struct start_request *request,
		     void (*done)(void *opaque, int code, const struct err *err), void *opaque, struct err *err);
	/* Does what the request says, as operations.restore. */
	int (*asked)(struct session *session, struct restore_request *request, const char **name, struct err *err);
	struct outgoing *outgoing;   /* the last migration to another host, or NULL */
	bool gone;                   /* the guest runs on another host */
	struct snapshot_thread *snapshot; /* the last snapshot, or NULL */
	struct jail *jail;                /* or NULL */
	const struct jail_options *reach; /* where requests may name files; or NULL */
	bool inside;                      /* the jail is closed: paths lead into it */
	struct kvm_ahead kvm_ahead;       /* until the machine is made */
	struct stage *stage;              /* parses what describes the machine, until the door; or NULL: that is done here */
	bool held;                        /* disks and taps are open for all lives, because of the jail */
	enum seccomp_mode seccomp;
	struct helpers *helpers;          /* or NULL: programs are started here */
	char *tls_helper;                 /* the program that they start for TLS; NULL: it is looked for */
	struct door *door;                /* or NULL: nothing is confined */
	struct track *track;              /* what the machine has changed since; NULL until the first one */
	bool restored;                    /* this life began with the snapshot of this id */
	uint8_t restored_id[16];
	struct session_pause pause;
	bool disk_failed; /* during a migration: when it has ended, the machine is paused */
	int64_t forced_until; /* 0, or when the order to end does not wait for devices any more */
	bool abandoned;       /* threads of the machine still wait for the kernel: it cannot be destroyed */
};

/* ---- session.c; session_end frees what each has created ---- */

/* As many descriptors as the hard limit allows. */
void session_raise_descriptors(void);
int session_catch_signals(struct session *session, struct err *err);
/* Handles the signals that have come; for a step after which it would be too late. On the loop's thread. */
void session_take_signals(struct session *session);
int session_open_ports(struct session *session, struct err *err);

int session_make_machine(struct session *session, struct err *err);
/* The same in two halves, of which the second one needs the ports (machine_prepare, machine_complete). */
int session_prepare_machine(struct session *session, struct err *err);
int session_complete_machine(struct session *session, struct err *err);
/* The guest is about to run: output files stay. */
void session_keep_ports(struct session *session);
/* Runs the started machine and those after its reboots; returns the program's exit code. */
int session_live(struct session *session, struct err *err);
void session_end(struct session *session);
/* The last: the door, through which files that were made are taken away again, and the jail. */
void session_done(struct session *session);

/* ---- session_state.c ---- */

/* What the machine does, in one word; see Info in docs/control.md. */
const char *session_state(const struct session *session);
/* Tells the service manager about it. */
void session_tell_manager(struct session *session);

/* ---- session_events.c; all on the loop's thread ---- */

/* Something has happened; details has the members beside time, name and event, and is taken; NULL: none. */
void session_event(struct session *session, enum session_event event, json_t *details);
/* The same, of a device. */
void session_event_device(struct session *session, enum session_event event, const char *id);
/* As operations.watch_events, in this state of the session. */
int session_events_watch(struct session *session, const char *state, struct event_watcher *watcher, struct err *err);
void session_events_unwatch(struct session *session, struct event_watcher *watcher);
struct metrics;
void session_events_metrics(const struct session *session, struct metrics *metrics);
/* The session ends, and its machine is still there, if there was one. */
void session_events_ended(struct session *session);
/* For those who do not know the session, which is opaque. */
struct virtio_blk_health;
void session_events_migration(void *opaque, const struct migration_report *report);
void session_events_snapshot(void *opaque, const struct snapshot_report *report);
void session_events_disk(void *opaque, const char *id, const struct virtio_blk_health *health);

/* ---- session_folder.c ---- */

/*
 * Reserves the name of the configuration. Of a session that an API has begun (start), whose clients do not know the name, it
 * becomes another one if it is in use, and without any the control socket is missing, which the log says.
 */
int session_folder_claim(struct session *session, struct err *err);
int session_folder_watch(struct session *session, struct err *err);
void session_folder_done(struct session *session);
/* The folder is removed; the name is free. */
void session_folder_release(struct session *session);

/* ---- session_log.c ---- */

/*
 * Opens the log, which log_close closes, and keeps report, which outlives the session. False: err says why. live: its
 * machine runs, and has a name.
 */
struct report_options;
bool session_log_open(struct session *session, const struct report_options *report, bool verbose, bool quiet,
		      struct err *err);
void session_log_live(struct session *session);

/* ---- session_metrics.c ---- */

int session_metrics_open(struct session *session, struct err *err);
void session_metrics_done(struct session *session);
/* As operations.metrics, in this state of the session. */
/* The machine ends, and is still there, if it was made. */
void session_metrics_last(struct session *session);
int session_metrics_get(const struct session *session, const char *state, json_t **ret, struct err *err);

/* ---- session_door.c ---- */

/* First of all, with one thread and nothing open: who parses the machine's description, if filters or a jail are there. */
int session_make_stage(struct session *session, struct err *err);
/* From here on, threads of the session are confined (door.h). early: they run before the jail is closed. */
int session_make_door(struct session *session, bool early, struct err *err);
/*
 * With one thread: who starts helper programs behind the door, if some may be needed: passt of the configuration, and
 * mvmm-tls of a target with the certificates in the folder tls (NULL: none).
 */
int session_make_helpers(struct session *session, const char *tls, struct err *err);

/* ---- session_jail.c ---- */

/*
 * First of all: true in the process that becomes the machine, in the jail if options have one. False: this process ends
 * with *code; it has kept the machine, which has ended, or err says why there is none.
 */
struct jail;
bool session_jail_enter(struct session *session, struct jail_options *options, bool host_devices, int *code,
			struct err *err);
/* Before the machine is made for the first time: opens its disks and taps once for all its lives. Without a jail, nothing. */
void session_jail_open(struct session *session);
/* What options and descriptions name is open, and the guest does not run yet. */
int session_jail_close(struct session *session, struct err *err);

/* ---- session_metrics_file.c; NULL is fine ---- */

struct session_metrics_file;
/* *ret stays as it is if no file is wanted. */
int session_metrics_file_open(struct session *session, struct session_metrics_file **ret, struct err *err);
/* Writes a line now. */
void session_metrics_file_write(struct session_metrics_file *file);
void session_metrics_file_close(struct session_metrics_file *file);

/* ---- session_pause.c ---- */

/* 0, or why the machine cannot be changed now. */
int session_check_settled(const struct session *session, struct err *err);
/* As operations.pause. */
int session_pause_begin(struct session *session, void (*done)(void *opaque, int code, const struct err *err),
			void *opaque, struct err *err);
bool session_pausing(const struct session *session);
/* Undoes a pause in progress and tells who asked for it. */
void session_pause_cancel(struct session *session, const char *reason);
/* A disk keeps a failed request: pauses the machine. */
void session_stop_for_disk(struct session *session);
/* The machine has to end, whatever its devices do. */
void session_force(struct session *session);
/* Ends the machine, or the wait for the next one. */
void session_stop_machine(struct session *session);
/*
 * The machine has ended for that reason: waits, with the loop running, until its migration has ended and its devices
 * have completed their requests. False: it was forced to end and they have not; it is abandoned.
 */
bool session_settle(struct session *session, const char *reason);

/* ---- session_plug.c ---- */

/* Puts those that name an id of the machine's configuration (ID=BDF) first; returns their number. */
size_t session_plug_sort(struct arrival_override *vfios, size_t count);
/* Before the machine is made: 0, or what is wrong with a device that is to be plugged in. config does not change. */
int session_plug_check(struct machine_config *config, const struct arrival_override *vfios, size_t count,
		       struct err *err);
/* The machine runs: plugs them in, one after the other, from now on. vfios outlives the session's loop. */
void session_plug(struct session *session, const struct arrival_override *vfios, size_t count);

/* ---- session_devices.c: as operations.h says ---- */

int session_devices_add(struct session *session, const char *option, const char *text, struct vfio_given *given,
			const struct add_device_reply *reply, struct err *err);
/* The guest reboots: what nobody can open again does not come along. */
void session_devices_leave(struct session *session);
int session_devices_add_passed(struct session *session, const char *option, json_t *device, int *fds, size_t count,
			       const struct add_device_reply *reply, struct err *err);
int session_devices_remove(struct session *session, const char *kind, const char *id, bool force, unsigned int timeout_ms,
			   void (*done)(void *opaque, int code, const struct err *err), void *opaque, struct err *err);
int session_devices_replace_disk(struct session *session, const char *id, const char *path, int *fds, size_t count,
				 void (*done)(void *opaque, uint64_t bytes, int code, const struct err *err),
				 void *opaque, struct err *err);
int session_devices_resize_disk(struct session *session, const char *id, uint64_t *bytes, struct err *err);
int session_devices_set_link(struct session *session, const char *id, bool plugged, struct err *err);
/* Taps that were handed in at the start are known by their names from then on; before the machine is made. */
int session_devices_adopt(struct session *session, struct err *err);
/* machine_host's device_gone. */
void session_device_gone(void *opaque, const char *id);

/* ---- session_reach.c ---- */

/*
 * Opens a file that a request names, where the machine may: *ret is the caller's. -EACCES with the message that says so
 * where it may not.
 */
int session_reach_open(const struct session *session, const char *path, int flags, int *ret, struct err *err);
/* That message, for what is never opened so. */
int session_reach_refuse(const char *path, struct err *err);

/* ---- session_operations.c ---- */

/*
 * Presses the power button of a running guest. Cancels a migration, so that the guest gets it here; -EBUSY: it is too
 * late for that.
 */
int session_press_button(struct session *session, struct err *err);
/* Makes session->operated, what front ends call. */
void session_operate(struct session *session);
int session_open_control(struct session *session, struct err *err);

/* ---- session_snapshot.c: as operations.h says ---- */

int session_snapshot(struct session *session, const struct snapshot_request *request, struct snapshot_files *files,
		     const struct snapshot_reply *reply, struct err *err);
int session_snapshot_commit(struct session *session, const char *id, struct err *err);
int session_snapshot_cancel(struct session *session, const char *reason, struct err *err);
