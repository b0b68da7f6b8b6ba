/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/session/session_receive: a machine arrives, each call on the way failing once. Whatever fails, the guest does not
 * run here, nothing that was made for it is kept, and the reason is the one that is told. Machine, session and the
 * target's protocol are fakes: what the target's thread does is the test's own.
 */
#include "vmm/session/session_internal.h"

#include "tests/unit/test.h"
#include "vmm/machine/memory_room.h"
#include "vmm/migration/target.h"
#include "vmm/session/arrival_config.h"
#include "vmm/session/disk_arrivals.h"
#include "vmm/session/exit_code.h"
#include "vmm/session/host_devices_migration.h"
#include "vmm/session/session.h"

#include <poll.h>
#include <sys/eventfd.h>

struct machine {
	enum machine_end end;
};

static struct machine machine;

/* What has been done, and at which of the calls that can fail one does. */
static struct world {
	unsigned int calls, fail_at; /* 0: none */
	bool paused;                 /* the offer says so */
	int signal;                  /* that comes before the start */
	bool stops;                  /* the machine is ended then */
	bool released, kept, locked, ports_kept, started, started_paused, lived, ended;
	int moving, disks;
	bool hangs;                  /* the target's storage; the user ends it then */
	struct session *session;
	char failed[32];
} world;

static int storage_fd; /* readable: the storage answers again */

static int step(const char *name, struct err *err)
{
	if (++world.calls != world.fail_at)
		return 0;
	snprintf(world.failed, sizeof(world.failed), "%s", name);
	return err_set(err, -EIO, "%s fails", name);
}

/* ---- the machine ---- */

enum machine_end machine_end(const struct machine *m)
{
	return m->end;
}

int machine_lock_disks(struct machine *m, struct err *err)
{
	int code = step("lock", err);

	world.locked = !code;
	return code;
}

void machine_unlock_disks(struct machine *m)
{
	world.locked = false;
}

int machine_start(struct machine *m, struct err *err)
{
	int code = step("start", err);

	world.started = !code;
	return code;
}

void machine_start_paused(struct machine *m)
{
	world.started_paused = true;
}

int machine_load(struct machine *m, const void *data, size_t len, struct err *err)
{
	return step("load", err);
}

int machine_load_trial(struct machine *m, const void *data, size_t len, struct err *err)
{
	return step("trial", err);
}

struct guest_memory *machine_memory(const struct machine *m)
{
	return (struct guest_memory *)&machine;
}

struct host_devices *machine_host_devices(struct machine *m)
{
	return NULL;
}

/* ---- its offer ---- */

int machine_offer_read(json_t *root, struct machine_offer **ret, struct err *err)
{
	json_decref(root);
	*ret = (struct machine_offer *)&machine;
	return step("parse", err);
}

bool machine_offer_paused(const struct machine_offer *offer)
{
	return world.paused;
}

int machine_offer_check_room(const struct machine_offer *offer, const struct machine_config *config, uint64_t room,
			     struct err *err)
{
	return step("room", err);
}

int machine_offer_check(const struct machine_offer *offer, struct machine *m, struct err *err)
{
	return step("check", err);
}

int arrival_config_make(const struct machine_offer *offer, struct receive_options *options,
			struct machine_config *config, struct err *err)
{
	config->name = strdup("web");
	return step("config", err);
}

uint64_t memory_room(const char *root)
{
	return UINT64_MAX;
}

/* ---- its disks and host devices ---- */

int disk_arrivals_create(const struct machine_offer *offer, const struct machine_config *config,
			 const struct arrival_override *named, size_t named_count, struct disk_arrivals **ret,
			 struct err *err)
{
	int code = step("disks", err);

	if (code)
		return code;
	world.disks++;
	*ret = (struct disk_arrivals *)&machine;
	return 0;
}

size_t disk_arrivals_get(const struct disk_arrivals *arrivals, const struct disk_target **ret)
{
	return 0;
}

void disk_arrivals_keep(struct disk_arrivals *arrivals)
{
	world.kept = true;
}

void disk_arrivals_destroy(struct disk_arrivals *arrivals)
{
	world.disks -= !!arrivals;
}

int host_devices_migration_begin(struct host_devices *devices, const char *name, enum host_devices_purpose purpose,
				 struct host_devices_migration **ret, struct err *err)
{
	int code = step("devices", err);

	if (code)
		return code;
	world.moving++;
	*ret = (struct host_devices_migration *)&machine;
	return 0;
}

void host_devices_migration_end(struct host_devices_migration *migration)
{
	world.moving -= !!migration;
}

size_t host_devices_migration_group(const struct host_devices_migration *migration, struct vfio_migration *const **ret)
{
	return 0;
}

int host_devices_migration_run(struct host_devices_migration *migration, struct err *err)
{
	return step("run", err);
}

int host_devices_migration_check_whole(const struct host_devices_migration *migration, struct err *err)
{
	return step("whole", err);
}

/* ---- the session ---- */

void session_folder_release(struct session *session)
{
	world.released = true;
}

int rundir_claim(const char *name, struct rundir **ret, struct err *err)
{
	return step("claim", err);
}

void session_tell_manager(struct session *session)
{
}

void session_raise_descriptors(void)
{
}

int session_catch_signals(struct session *session, struct err *err)
{
	world.session = session;
	return step("signals", err);
}

void session_take_signals(struct session *session)
{
	session->signal = world.signal;
	if (world.stops)
		machine.end = MACHINE_STOPPED;
}

int session_open_ports(struct session *session, struct err *err)
{
	return step("ports", err);
}

int session_make_machine(struct session *session, struct err *err)
{
	session->machine = &machine;
	return step("machine", err);
}

void session_keep_ports(struct session *session)
{
	world.ports_kept = true;
}

bool session_jail_enter(struct session *session, struct jail_options *options, bool host_devices, int *code,
			struct err *err)
{
	return true;
}

int session_jail_close(struct session *session, struct err *err)
{
	return step("door", err);
}

int session_open_control(struct session *session, struct err *err)
{
	return step("control", err);
}

int session_live(struct session *session, struct err *err)
{
	world.lived = true;
	CHECK(!session->arriving);
	return EXIT_OFF;
}

void session_done(struct session *session)
{
}

void session_end(struct session *session)
{
	world.ended = true;
	event_loop_destroy(session->loop);
}

/* ---- the target's protocol ---- */

struct migration_target {
	struct migration_target_config config;
};

static struct migration_target target;

int migration_target_create(const struct migration_target_config *config, struct migration_target **ret,
			    struct err *err)
{
	target.config = *config;
	*ret = &target;
	return step("listen", err);
}

void migration_target_destroy(struct migration_target *t)
{
}

const char *migration_target_text(const struct migration_target *t)
{
	return "unix:/w";
}

int migration_target_meet(struct migration_target *t, struct err *err)
{
	const struct migration_arrival_ops *ops = t->config.ops;
	void *opaque = t->config.opaque;
	char *ready = NULL;
	json_t *offer;
	int code;

	if (world.hangs) {
		world.session->signal = 15;
		event_loop_stop(world.session->loop);
		poll(&(struct pollfd){.fd = storage_fd, .events = POLLIN}, 1, 60000);
	}
	code = ops->parse(opaque, "{}", 2, &offer, err) ?: ops->create(opaque, offer, &ready, err);

	if (!code && strcmp(ready, "{\"name\":\"web\"}") != 0)
		code = err_set(err, -EINVAL, "%s", ready);
	free(ready);
	return code;
}

int migration_target_run(struct migration_target *t, struct err *err)
{
	const struct migration_arrival_ops *ops = t->config.ops;
	struct vfio_migration *const *group;
	const struct disk_target *disks;
	void *opaque = t->config.opaque;
	int code = 0;

	if ((ops->memory(opaque) != machine_memory(&machine) || ops->devices(opaque, &group) ||
		      ops->disks(opaque, &disks)))
		code = err_set(err, -EINVAL, "not the machine's");
	return code ?: ops->try(opaque, "s", 1, err) ?: ops->load(opaque, "s", 1, err) ?: ops->start(opaque, err);
}

/* ---- arrivals ---- */

static struct err err;

static int receive(const char *from)
{
	struct receive_options options = {.from = (char *)from, .here.quiet = true, .here.seccomp = SECCOMP_OFF};

	machine = (struct machine){.end = MACHINE_RUNNING};
	err.text[0] = 0;
	return session_receive(&options, &err);
}

static void machine_that_arrives_lives_here(void)
{
	world = (struct world){0};
	CHECK_EQ(receive("unix:/w"), EXIT_OFF);
	CHECK(world.started && world.lived && world.kept && world.locked && world.ports_kept && world.ended);
	CHECK_EQ(world.moving, 0);
	CHECK_EQ(world.disks, 0);
	CHECK_STR(err.text, "");
}

static void machine_that_was_paused_stays_paused(void)
{
	world = (struct world){.paused = true};
	CHECK_EQ(receive("unix:/w"), EXIT_OFF);
	CHECK(world.started_paused && !world.started && world.lived);
}

static void whatever_fails_the_guest_does_not_run_here(void)
{
	char words[48];
	unsigned int calls;

	world = (struct world){0};
	receive("unix:/w");
	calls = world.calls;
	CHECK(calls > 15);
	for (unsigned int i = 1; i <= calls; i++) {
		int code;

		world = (struct world){.fail_at = i};
		code = receive("unix:/w");
		snprintf(words, sizeof(words), "%s fails", world.failed);
		if (strcmp(err.text, words) != 0)
			printf("# call %u: %d, \"%s\"\n", i, code, err.text);
		CHECK_STR(err.text, words);
		CHECK(code == EXIT_FAILED || code == EXIT_BAD_INPUT);
		CHECK(!world.started && !world.lived && !world.kept && !world.locked);
		CHECK_EQ(world.moving, 0);
		CHECK_EQ(world.disks, 0);
		CHECK(world.ended);
	}
}

static void who_is_ended_first_does_not_start(void)
{
	world = (struct world){.signal = 15};
	CHECK_EQ(receive("unix:/w"), EXIT_SIGNAL + 15);
	CHECK(!world.started && !world.locked && !world.kept);
	world = (struct world){.stops = true};
	CHECK_EQ(receive("unix:/w"), EXIT_FAILED);
	CHECK_STR(err.text, "the target was ended");
	CHECK(!world.started && !world.locked && !world.kept);
}

/* The name is free, and nothing that the thread may use is taken away from it. */
static void storage_that_hangs_keeps_nobody(void)
{
	world = (struct world){.hangs = true};
	storage_fd = eventfd(0, EFD_CLOEXEC);
	CHECK_EQ(receive("unix:/w"), EXIT_SIGNAL + 15);
	CHECK(strstr(err.text, "the storage of this host does not answer"));
	CHECK(world.released && !world.ended && !world.lived && !world.started);
	world.hangs = false;
}

static void address_that_others_reach_needs_certificates(void)
{
	world = (struct world){0};
	CHECK_EQ(receive("tcp:0.0.0.0:7150"), EXIT_BAD_INPUT);
	CHECK(strstr(err.text, "add --tls DIR"));
	CHECK_EQ(receive("nowhere"), EXIT_BAD_INPUT);
	CHECK(strstr(err.text, "--from"));
}

TEST_MAIN(TEST(machine_that_arrives_lives_here), TEST(machine_that_was_paused_stays_paused),
	  TEST(whatever_fails_the_guest_does_not_run_here), TEST(who_is_ended_first_does_not_start),
	  TEST(address_that_others_reach_needs_certificates),
	  TEST(storage_that_hangs_keeps_nobody))
