/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operations on a running machine: one table, which session/ implements and every front end calls (the control
 * socket today). A front end translates between the protocol of its clients and this table; it decides nothing.
 *
 * All calls, and the replies of long operations, are on the event loop's thread. -EBUSY: not possible now. Messages
 * are shown after the machine's name: "is being migrated".
 */
#pragma once

#include "core/err.h"
#include "vfio/given.h"
#include "vmm/migration/report.h"
#include "vmm/migration/request.h"

struct session; /* private to the implementation */

/* progress is called during a migration, done once at its end: the state is MIGRATION_DONE, or text has the reason. */
struct migration_reply {
	void (*progress)(void *opaque, const struct migration_report *report);
	void (*done)(void *opaque, const struct migration_report *report);
	void *opaque;
};

/* progress is called each second while guest memory is prefaulted or mapped; done once: id is NULL if code is not 0. */
struct add_device_reply {
	void (*progress)(void *opaque, const char *what, uint64_t done, uint64_t total);
	void (*done)(void *opaque, const char *id, int code, const struct err *err);
	void *opaque;
};

struct snapshot_request;
struct snapshot_files;
struct snapshot_report;
struct restore_request;

/*
 * progress is called while a snapshot is taken, at last when everything is written (its phase is then
 * SNAPSHOT_WRITTEN). done is called once: after the commit (SNAPSHOT_DONE), or with the reason in its text.
 */
struct snapshot_reply {
	void (*progress)(void *opaque, const struct snapshot_report *report);
	void (*done)(void *opaque, const struct snapshot_report *report);
	void *opaque;
};

/*
 * Somebody who is told of events; owned by him, and not moved while he watches. event is an object that is valid during
 * the call: "time", "name" (the machine's), "event" and more (docs/control.md). He may unwatch in it.
 */
struct event_watcher {
	void (*event)(void *opaque, const json_t *event);
	void *opaque;
	struct event_watcher *next; /* the implementation's */
};

/* A machine to be: what it is, and files that were opened for it. */
struct machine_config;
struct start_request;

struct operations {
	/*
	 * A process that has no machine yet makes the one of the request, whose content it takes over, and starts it. done
	 * is called when the guest runs (code 0, err NULL), or with the reason why there is still none, and another start
	 * may follow; not if this fails. -EBUSY: there is a machine.
	 */
	int (*start)(struct session *session, struct start_request *request,
		     void (*done)(void *opaque, int code, const struct err *err), void *opaque, struct err *err);
	/*
	 * Describes the machine; the caller owns *ret: "name", "pid", "cpus", "memory" (bytes), "uptime" (seconds),
	 * "state" ("running", "pausing", "paused", "rebooting", "saving", "waiting", "arriving", "migrating", "unresolved" or
	 * "ending"), "devices" (objects with at least "id" and "kind") and more.
	 */
	int (*describe)(struct session *session, json_t **ret, struct err *err);
	/* Its metrics; the caller owns *ret: "name", and "families" (machine/metrics.h). */
	int (*metrics)(struct session *session, json_t **ret, struct err *err);
	/* Tells the watcher its first event, the state, at once, and then what happens until unwatch. -ENOMEM. */
	int (*watch_events)(struct session *session, struct event_watcher *watcher, struct err *err);
	void (*unwatch_events)(struct session *session, struct event_watcher *watcher);
	/*
	 * Pauses and resumes the guest's CPUs and devices; no error if that is already so. done is called, perhaps at
	 * once, when it is paused (code 0, err NULL), or with the reason why it runs on; not if pause fails. resume
	 * also undoes a pause in progress.
	 */
	int (*pause)(struct session *session, void (*done)(void *opaque, int code, const struct err *err), void *opaque,
		     struct err *err);
	int (*resume)(struct session *session, struct err *err);
	/* force: ends the machine now. Else presses the power button, and the guest ends it. */
	int (*stop)(struct session *session, bool force, struct err *err);
	/* Presses Ctrl, Alt and Del: the guest reboots, if it takes them for that. -EOPNOTSUPP: it listens to no keyboard. */
	int (*ctrl_alt_del)(struct session *session, struct err *err);
	/* Asks the guest to give back bytes of its memory. -ERANGE: more than it has, -ENODEV: no balloon. */
	int (*set_balloon)(struct session *session, uint64_t bytes, struct err *err);
	/* The guest sees the size that the disk's image has now; *bytes: that size. -ENODEV: no such disk. */
	int (*resize_disk)(struct session *session, const char *id, uint64_t *bytes, struct err *err);
	/*
	 * Changes limits of a disk, a network card, the "rng" or the "serial" port: limits is written as the keys of its
	 * option, "bandwidth=10M,ops=off"; those that are not named stay. -ENODEV: no such device.
	 */
	int (*set_limits)(struct session *session, const char *id, const char *limits, struct err *err);
	/*
	 * Gives a disk another image, of which the guest sees the size. fds: its descriptor and, of a direct disk, another
	 * one with O_DIRECT; taken on success; without them it is opened as that of add_passed. path names it for people, and for other hosts. done as that of pause,
	 * with that size.
	 * -ENODEV: no such disk. -EBUSY: not now.
	 */
	int (*replace_disk)(struct session *session, const char *id, const char *path, int *fds, size_t count,
			    void (*done)(void *opaque, uint64_t bytes, int code, const struct err *err), void *opaque,
			    struct err *err);
	/* Plugs the cable of a network card in or out, also for the machine's next lives. -ENODEV: no such card. */
	int (*set_link)(struct session *session, const char *id, bool plugged, struct err *err);
	/*
	 * Starts to add a device, written as for the option: "vfio". given: who asks has opened it; taken on success. NULL:
	 * this machine's user has named it when it was started, and it is opened here. On success, copies reply and calls it
	 * from then on. -EACCES: nothing was passed.
	 */
	int (*add_device)(struct session *session, const char *option, const char *text, struct vfio_given *given,
			  const struct add_device_reply *reply, struct err *err);
	/*
	 * The same of a "disk" or a "net" that the asker has opened: device is written as in a JSON file. fds are taken on
	 * success: of a disk its image and, with direct, that with O_DIRECT; of a net its tap, once for each queue. A disk
	 * without them is opened where requests may name files. -EACCES: nowhere.
	 */
	int (*add_passed)(struct session *session, const char *option, json_t *device, int *fds, size_t count,
			  const struct add_device_reply *reply, struct err *err);
	/*
	 * Removes the device of this kind ("vfio", "disk", "net") with this id: with force as soon as its requests are
	 * complete, else when the guest ejects it, within timeout_ms. done is called when it has been removed (code 0, err
	 * NULL), or with -ETIMEDOUT and the message; not if this fails.
	 */
	int (*remove_device)(struct session *session, const char *kind, const char *id, bool force,
			     unsigned int timeout_ms, void (*done)(void *opaque, int code, const struct err *err),
			     void *opaque, struct err *err);
	/*
	 * Starts a migration. On success, takes over *fd (-1: none) and the content of request, copies reply and calls
	 * it from then on.
	 */
	int (*migrate)(struct session *session, struct migration_request *request, int *fd,
		       const struct migration_reply *reply, struct err *err);
	/* The status of the migration, or of the last one; valid until the caller returns to the loop. */
	const struct migration_report *(*migration_status)(struct session *session);
	/* Cancels the migration; the reply comes later. -ENOENT: there is none, -EBUSY: it is too late. */
	int (*migration_cancel)(struct session *session, struct err *err);
	/*
	 * In MIGRATION_UNRESOLVED: resumes the guest here, or ends this machine. -EINVAL in any other state. -EPERM: no
	 * lock shows whether another host writes a disk, which is resumed only if sure; the message names the disk.
	 */
	int (*migration_resolve)(struct session *session, bool go_on, bool sure, struct err *err);
	/*
	 * Starts a snapshot (snapshot/snapshot_take.h). On success, takes over the files, copies request and reply, and
	 * calls reply from then on. When everything is written, the asker makes the files last and then commits;
	 * -EINVAL: there is nothing to commit. Cancelled instead, the machine is as if there had been no snapshot.
	 * -ENOENT: there is none.
	 */
	int (*snapshot)(struct session *session, const struct snapshot_request *request, struct snapshot_files *files,
			const struct snapshot_reply *reply, struct err *err);
	int (*snapshot_commit)(struct session *session, const char *id, struct err *err);
	int (*snapshot_cancel)(struct session *session, const char *reason, struct err *err);
	/*
	 * A process that waits with a snapshot becomes the machine that the request describes, whose descriptors are
	 * taken (-1). *name: of the machine, valid until the caller returns. A request that is invalid, or whose name is in
	 * use, or whose asker leaves before, is refused and the process goes on waiting; after other failures it ends.
	 */
	int (*restore)(struct session *session, struct restore_request *request, const char **name, struct err *err);
};

/* A machine and its operations, for a front end; outlives the front end. */
struct operated {
	const struct operations *ops;
	struct session *session;
};
