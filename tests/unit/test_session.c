/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/session: who ends a machine when it goes to another host. A stop that comes too late is no end, and says where
 * the guest is; a target that was ended before the guest runs there does not start it.
 */
#include "devices/virtio/virtio_transport.h"
#include "tests/unit/test.h"
#include "vmm/machine/machine_internal.h"
#include "vmm/migration/source_internal.h"
#include "vmm/session/outgoing.c"
#include "vmm/session/session.c"
#include "vmm/session/session_operations.c"
#include "vmm/session/session_receive.c"

#include <signal.h>

static struct machine machine;
static struct machine_config config;
static struct migration_source source = {.lock = PTHREAD_MUTEX_INITIALIZER, .cancel_fd = -1, .committed = true};
static struct outgoing outgoing = {.source = &source, .running = true, .request.to = (char *)"tcp:there",
				   .report.state = MIGRATION_SWITCHING};
static struct session session = {.config = &config, .log = {.fd = -1}, .signal_fd = -1};
static struct err err;

static void begin(void)
{
	machine = (struct machine){0};
	session.machine = &machine;
	session.outgoing = &outgoing;
	session.signal = 0;
	session.button_pressed = false;
	CHECK_EQ(event_loop_create(&session.loop, &err), 0);
	machine.host.loop = session.loop;
}

static void end(void)
{
	event_loop_destroy(session.loop);
	session.outgoing = NULL;
}

/* The machine must not be touched but by force, for it is paused and the guest's next life is elsewhere. */
static void a_stop_after_the_hand_over_is_refused(void)
{
	begin();
	CHECK_EQ(operations.stop(&session, false, &err), -EBUSY);
	CHECK_STR(err.text, "was handed over to tcp:there, which is about to run it; stop it there");
	CHECK_EQ(machine_end(&machine), MACHINE_RUNNING);
	CHECK_EQ(operations.stop(&session, true, &err), -EBUSY);
	CHECK_STR(err.text, "was handed over to tcp:there, which is about to run it; it ends here only");
	CHECK_EQ(machine_end(&machine), MACHINE_STOPPED);
	end();
}

static void a_stop_before_it_is_an_end(void)
{
	begin();
	source.committed = false;
	source.cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	CHECK_EQ(operations.stop(&session, true, &err), 0);
	CHECK_STR(source.reason, "the machine was ended");
	CHECK_EQ(machine_end(&machine), MACHINE_STOPPED);
	source.committed = true;
	source.reason[0] = 0;
	fd_close(&source.cancel_fd);
	end();
}

/* SIGTERM presses the power button, which the guest would not hear any more. */
static void a_signal_after_the_hand_over_presses_nothing(void)
{
	begin();
	CHECK_EQ(session_catch_signals(&session, &err), 0);
	raise(SIGTERM);
	session_take_signals(&session);
	CHECK(session.button_pressed && !session.signal);
	CHECK_EQ(machine_end(&machine), MACHINE_RUNNING);
	raise(SIGTERM);
	session_take_signals(&session);
	CHECK_EQ(session.signal, SIGTERM);
	CHECK_EQ(machine_end(&machine), MACHINE_STOPPED);
	event_source_remove(session.signals);
	fd_close(&session.signal_fd);
	end();
}

/* GO has come, and so has Ctrl-C, which nobody has read yet. */
static void a_target_that_was_ended_does_not_start_the_guest(void)
{
	struct arrival arrival = {.session = {.log = {.fd = -1}, .signal_fd = -1, .arriving = true}};

	machine = (struct machine){0};
	CHECK_EQ(event_loop_create(&arrival.session.loop, &err), 0);
	arrival.session.machine = &machine;
	machine.host.loop = arrival.session.loop;
	CHECK_EQ(session_catch_signals(&arrival.session, &err), 0);
	raise(SIGINT);
	CHECK_EQ(session_receive_do_start(&arrival, NULL, &err), -ECANCELED);
	CHECK_EQ(arrival.session.signal, SIGINT);
	CHECK(arrival.session.arriving);
	event_source_remove(arrival.session.signals);
	fd_close(&arrival.session.signal_fd);
	/* By Ctrl-A x, or mvmm stop --force. */
	arrival.session.signal = 0;
	machine_stop(&machine);
	CHECK_EQ(session_receive_do_start(&arrival, NULL, &err), -ECANCELED);
	event_loop_destroy(arrival.session.loop);
}

/* A disk whose lock says nothing about the other host: the user must be sure, and it is not locked meanwhile. */
static void an_unguarded_disk_is_named_before_the_guest_goes_on(void)
{
	struct virtio_blk_options options = {.id = "root", .queues = 1, .lockless = true};
	struct guest_memory *memory = guest_memory_create();
	struct virtio_device *disk, *other;
	struct virtio_transport transport = {0};
	char path[80];
	int fd;

	snprintf(path, sizeof(path), "%.40s/sessionXXXXXX", getenv("TMPDIR") ?: "/tmp");
	fd = mkstemp(path);
	CHECK(fd >= 0 && ftruncate(fd, 4096) == 0);
	close(fd);
	options.path = path;
	begin();
	outgoing.host.machine = outgoing.on.machine = &machine;
	outgoing.running = false;
	outgoing.report.state = MIGRATION_UNRESOLVED;
	machine.virtio[0] = &transport;
	machine.virtio_count = 1;
	CHECK_EQ(virtio_blk_create(&options, memory, NULL, &disk, NULL), 0);
	transport.device = disk;
	CHECK_EQ(operations.migration_resolve(&session, true, false, &err), -EPERM);
	CHECK_STR(err.text, "nothing here shows that the guest does not run at tcp:there (root: it has lock=off); if it does "
			    "not, add --yes");
	disk->ops->destroy(disk);
	options.lockless = false;
	CHECK_EQ(virtio_blk_create(&options, memory, NULL, &disk, NULL), 0);
	virtio_blk_unlock(disk);
	transport.device = disk;
	outgoing.request.copy_disks = MIGRATION_COPY_WRITABLE;
	CHECK_EQ(operations.migration_resolve(&session, true, false, &err), -EPERM);
	CHECK(strstr(err.text, "(root: it was copied, and each host has its own)"));
	CHECK_EQ(outgoing.report.state, MIGRATION_UNRESOLVED);
	CHECK_EQ(virtio_blk_create(&options, memory, NULL, &other, NULL), 0); /* nobody has the lock */
	CHECK_EQ(operations.migration_resolve(&session, true, true, &err), -EBUSY);
	CHECK(strstr(err.text, "the guest cannot continue here: "));
	other->ops->destroy(other);
	disk->ops->destroy(disk);
	guest_memory_destroy(memory);
	unlink(path);
	outgoing.running = true;
	outgoing.report.state = MIGRATION_SWITCHING;
	end();
}

/* The kernel of a machine that came is not chosen by its source. */
static void a_reboot_without_a_kernel_of_this_host_is_an_end(void)
{
	struct machine_config here = {.kernel = NULL};

	CHECK_EQ(session_check_reboot(&here, &err), -ENOENT);
	CHECK(strstr(err.text, "mvmm receive --kernel FILE or mvmm restore --kernel FILE does"));
	here.kernel = (char *)"/here";
	CHECK_EQ(session_check_reboot(&here, &err), 0);
}

TEST_MAIN(TEST(a_reboot_without_a_kernel_of_this_host_is_an_end), TEST(an_unguarded_disk_is_named_before_the_guest_goes_on),TEST(a_stop_after_the_hand_over_is_refused), TEST(a_stop_before_it_is_an_end),
	  TEST(a_signal_after_the_hand_over_presses_nothing), TEST(a_target_that_was_ended_does_not_start_the_guest))
