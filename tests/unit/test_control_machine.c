/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/control/control_machine: what a request makes of the machine's operations, and of their answers. */
#include "tests/unit/control_rig.h"

#include <fcntl.h>

static void who_waits_learns_that_the_asker_has_left(void)
{
	serve(NULL);
	asked.asker = client();
	put(asked.asker, "{\"method\":\"io.mvmm.Machine.Restore\",\"parameters\":{\"name\":\"a\"}}");
	CHECK_STR(receive(asked.asker), "");
	end();
	CHECK(asked.asker_was_there && asked.asker_left);
	fd_close(&asked.asker);
}

static void calls_the_machine(void)
{
	int fd;

	serve(NULL);
	fd = client();
	ASK(fd, "{\"method\":\"io.mvmm.Machine.Pause\"}", "{\"parameters\":{}}");
	CHECK_EQ(asked.paused, 1);
	ASK(fd, "{\"method\":\"io.mvmm.Machine.SetBalloon\",\"parameters\":{\"size\":1048576}}", "{\"parameters\":{}}");
	CHECK_EQ(asked.balloon, MIB(1));
	ASK(fd, "{\"method\":\"io.mvmm.Machine.ResizeDisk\",\"parameters\":{\"id\":\"disk0\"}}",
	    "{\"parameters\":{\"size\":3145728}}");
	ASK(fd, "{\"method\":\"io.mvmm.Machine.ResizeDisk\",\"parameters\":{\"id\":\"disk1\"}}",
	    "{\"error\":\"io.mvmm.Machine.Failed\",\"parameters\":{\"text\":\"no such disk\"}}");
	ASK(fd, "{\"method\":\"io.mvmm.Machine.ResizeDisk\"}",
	    "{\"error\":\"org.varlink.service.InvalidParameter\",\"parameters\":{\"parameter\":\"id\"}}");
	ASK(fd, "{\"method\":\"io.mvmm.Machine.SetLimits\",\"parameters\":{\"id\":\"disk0\",\"limits\":\"ops=5\"}}",
	    "{\"parameters\":{}}");
	ASK(fd, "{\"method\":\"io.mvmm.Machine.SetLimits\",\"parameters\":{\"id\":\"disk0\",\"limits\":\"x\"}}",
	    "{\"error\":\"io.mvmm.Machine.Failed\",\"parameters\":{\"text\":\"disk0: x: no limit\"}}");
	ASK(fd, "{\"method\":\"io.mvmm.Machine.SetLimits\",\"parameters\":{\"id\":\"disk0\",\"limits\":5}}",
	    "{\"error\":\"org.varlink.service.InvalidParameter\",\"parameters\":{\"parameter\":\"limits\"}}");
	ASK(fd, "{\"method\":\"io.mvmm.Machine.Restore\",\"parameters\":{\"name\":\"a\",\"disks\":[\"disk0=x\"]}}",
	    "{\"parameters\":{\"name\":\"a\"}}");
	ASK(fd, "{\"method\":\"io.mvmm.Machine.Restore\",\"parameters\":{\"name\":\"a\"}}",
	    "{\"error\":\"io.mvmm.Machine.Failed\",\"parameters\":{\"text\":\"there is one disk\"}}");
	ASK(fd, "{\"method\":\"io.mvmm.Machine.Restore\",\"parameters\":{\"disks\":\"disk0=x\"}}",
	    "{\"error\":\"org.varlink.service.InvalidParameter\",\"parameters\":{\"parameter\":\"disks\"}}");
	ASK(fd, "{\"method\":\"io.mvmm.Machine.SetBalloon\",\"parameters\":{\"size\":-1}}", BAD("size"));
	ASK(fd, "{\"method\":\"io.mvmm.Machine.SetBalloon\",\"parameters\":{\"size\":\"1M\"}}", BAD("size"));
	CHECK_EQ(asked.balloon, MIB(1));
	ASK(fd, "{\"method\":\"io.mvmm.Machine.Resume\",\"parameters\":{}}",
	    "{\"error\":\"io.mvmm.Machine.Failed\",\"parameters\":{\"text\":\"not now\"}}");
	ASK(fd, "{\"method\":\"io.mvmm.Machine.Stop\",\"parameters\":{\"force\":1}}",
	    "{\"error\":\"org.varlink.service.InvalidParameter\",\"parameters\":{\"parameter\":\"force\"}}");
	CHECK_EQ(asked.stopped, 0);
	ASK(fd, "{\"method\":\"io.mvmm.Machine.Stop\",\"parameters\":{\"force\":true}}", "{\"parameters\":{}}");
	ASK(fd, "{\"method\":\"io.mvmm.Machine.Stop\"}", "{\"parameters\":{}}");
	CHECK_EQ(asked.stopped, 2);
	CHECK_EQ(asked.forced, 1);
	put(fd, "{\"method\":\"io.mvmm.Machine.Info\"}");
	CHECK(strstr(receive(fd), "\"state\":\"running\""));
	close(fd);
	end();
}

static void give_up_pause(void *opaque)
{
	struct err err;

	asked.pause_done(asked.pause_opaque, err_set(&err, -ETIMEDOUT, "cannot be paused: disk0"), &err);
}

/* A pause takes as long as storage does: meanwhile everybody else is answered. */
static void a_pause_holds_up_nobody(void)
{
	int fd, other;

	serve(NULL);
	fd = client();
	other = client();
	asked.pause_waits = true;
	put(fd, "{\"method\":\"io.mvmm.Machine.Pause\"}");
	put(other, "{\"method\":\"io.mvmm.Machine.Info\"}");
	CHECK(strstr(receive(other), "\"state\":\"running\""));
	ASK(other, "{\"method\":\"io.mvmm.Machine.Stop\"}", "{\"parameters\":{}}");
	event_loop_call(loop, give_up_pause, NULL);
	CHECK_STR(receive(fd), FAILED("cannot be paused: disk0"));
	asked.pause_waits = false;
	close(fd);
	close(other);
	end();
}

#define ADD "{\"method\":\"io.mvmm.Machine.AddDevice\""
#define REMOVE "{\"method\":\"io.mvmm.Machine.RemoveDevice\",\"parameters\":"

static void devices_come_and_go(void)
{
	int fd;

	serve(NULL);
	fd = client();
	ASK(fd, ADD "}", BAD("vfio"));
	ASK(fd, ADD ",\"parameters\":{\"vfio\":1}}", BAD("vfio"));
	ASK(fd, ADD ",\"parameters\":{\"vfio\":\"x\"}}", FAILED("no such device"));
	ASK(fd, ADD ",\"parameters\":{\"vfio\":\"late\"}}", FAILED("it fails"));
	ASK(fd, ADD ",\"parameters\":{\"vfio\":\"0000:01:00.0\"}}", "{\"parameters\":{\"id\":\"vfio0\"}}");
	ASK(fd, ADD ",\"more\":true,\"parameters\":{\"vfio\":\"0000:01:00.0\"}}",
	    "{\"parameters\":{\"step\":\"map\",\"done\":4096,\"total\":8192},\"continues\":true}");
	CHECK_STR(receive(fd), "{\"parameters\":{\"id\":\"vfio0\"}}");
	ASK(fd, REMOVE "{}}", BAD("id"));
	ASK(fd, REMOVE "{\"id\":\"a\",\"timeout\":0}}", BAD("timeout"));
	ASK(fd, REMOVE "{\"id\":\"a\",\"timeout\":86401}}", BAD("timeout"));
	ASK(fd, REMOVE "{\"id\":\"none\"}}", FAILED("no such device"));
	ASK(fd, REMOVE "{\"id\":\"slow\"}}", FAILED("it stays"));
	ASK(fd, REMOVE "{\"id\":\"slow\",\"force\":true}}", "{\"parameters\":{}}");
	ASK(fd, REMOVE "{\"id\":\"a\",\"timeout\":5}}", "{\"parameters\":{}}");
	close(fd);
	end();
}

#define MIGRATE "{\"method\":\"io.mvmm.Machine.Migrate\",\"parameters\":"
#define MIGRATION(state) "{\"parameters\":{\"migration\":{\"state\":\"" state "\""

static void migrations_are_answered_in_the_end(void)
{
	int fd;

	serve(NULL);
	fd = client();
	ASK(fd, MIGRATE "{}}", BAD("to"));
	ASK(fd, MIGRATE "{\"to\":\"fd\"}}", BAD("to")); /* no descriptor */
	ASK(fd, MIGRATE "{\"to\":\"tcp:a\",\"downtime\":-1}}", BAD("downtime"));
	ASK(fd, MIGRATE "{\"to\":\"tcp:busy\"}}", FAILED("is paused"));
	ASK(fd, MIGRATE "{\"to\":\"tcp:nowhere\"}}", FAILED("nobody listens"));
	put(fd, MIGRATE "{\"to\":\"tcp:there\"},\"more\":true}");
	CHECK(strstr(receive(fd), MIGRATION("memory")));
	CHECK(strstr(receive(fd), MIGRATION("done")));
	put(fd, "{\"method\":\"io.mvmm.Machine.MigrationStatus\"}");
	CHECK(strstr(receive(fd), MIGRATION("unresolved")));
	close(fd);
	end();
}

static void keys_are_pressed(void)
{
	int fd;

	serve(NULL);
	fd = client();
	ASK(fd, "{\"method\":\"io.mvmm.Machine.CtrlAltDel\"}", FAILED("has no keyboard"));
	close(fd);
	end();
}

#define ADD_DISK "{\"method\":\"io.mvmm.Machine.AddDisk\",\"parameters\":"
#define SET_LINK "{\"method\":\"io.mvmm.Machine.SetLink\",\"parameters\":"
#define REPLACE "{\"method\":\"io.mvmm.Machine.ReplaceDisk\",\"parameters\":"

/* What the machine does not take is closed, whether it fails or not. */
static void images_come_along(void)
{
	int fd, pipes[2];

	serve(NULL);
	fd = client();
	CHECK_EQ(pipe2(pipes, O_CLOEXEC | O_NONBLOCK), 0);
	put_fds(fd, ADD_DISK "{\"disk\":{\"id\":\"kept\"}}}", pipes[1], 2);
	CHECK_STR(receive(fd), "{\"parameters\":{\"id\":\"kept\"}}");
	CHECK_EQ(asked.fds, 2);
	put_fds(fd, ADD_DISK "{\"disk\":{\"id\":\"other\"}}}", pipes[1], 3);
	CHECK_STR(receive(fd), "{\"parameters\":{\"id\":\"other\"}}");
	CHECK_EQ(asked.fds, 3);
	put_fds(fd, ADD_DISK "{\"disk\":{}}}", pipes[1], 1);
	CHECK_STR(receive(fd), FAILED("--disk: no id"));
	put_fds(fd, ADD_DISK "{\"disk\":\"id=kept\"}}", pipes[1], 1);
	CHECK_STR(receive(fd), BAD("disk"));
	ASK(fd, "{\"method\":\"io.mvmm.Machine.AddNet\",\"parameters\":{\"net\":{}}}", FAILED("--net: no id"));
	CHECK_EQ(asked.fds, 0);
	put_fds(fd, REPLACE "{\"id\":\"disk0\",\"path\":\"/new\"}}", pipes[1], 1);
	CHECK_STR(receive(fd), "{\"parameters\":{\"size\":5242880}}");
	put_fds(fd, REPLACE "{\"id\":\"disk0\",\"path\":\"/slow\"}}", pipes[1], 2);
	CHECK_STR(receive(fd), FAILED("its storage does not answer"));
	put_fds(fd, REPLACE "{\"id\":\"disk0\"}}", pipes[1], 1);
	CHECK_STR(receive(fd), BAD("path"));
	ASK(fd, REPLACE "{\"path\":\"/new\"}}", BAD("id"));
	ASK(fd, SET_LINK "{\"id\":\"net0\",\"up\":true}}", "{\"parameters\":{}}");
	ASK(fd, SET_LINK "{\"id\":\"net0\",\"up\":false}}", FAILED("no such card"));
	ASK(fd, SET_LINK "{\"id\":\"net0\",\"up\":\"on\"}}", BAD("up"));
	ASK(fd, SET_LINK "{\"up\":true}}", BAD("id"));
	ASK(fd, "{\"method\":\"io.mvmm.Machine.RemoveDisk\",\"parameters\":{\"id\":\"kind\"}}", FAILED("no such disk"));
	ASK(fd, "{\"method\":\"io.mvmm.Machine.RemoveNet\",\"parameters\":{\"id\":\"kind\"}}", FAILED("no such net"));
	ASK(fd, "{\"method\":\"io.mvmm.Machine.RemoveNet\",\"parameters\":{\"id\":\"net0\",\"timeout\":0}}", BAD("timeout"));
	ASK(fd, "{\"method\":\"io.mvmm.Machine.RemoveDisk\",\"parameters\":{\"id\":\"slow\"}}", FAILED("it stays"));
	ASK(fd, "{\"method\":\"io.mvmm.Machine.RemoveDisk\",\"parameters\":{\"id\":\"slow\",\"force\":true}}",
	    "{\"parameters\":{}}");
	CHECK(nobody_has(pipes));
	close(pipes[0]);
	close(fd);
	end();
}

/* So that the fuzzer calls none that is not there. */
static void the_fake_has_every_operation(void)
{
	void (*members[sizeof(struct operations) / sizeof(void (*)(void))])(void);

	memcpy(members, &fake_operations, sizeof(members));
	for (size_t i = 0; i < ARRAY_SIZE(members); i++)
		CHECK(members[i]);
}

TEST_MAIN(TEST(keys_are_pressed), TEST(images_come_along), TEST(calls_the_machine), TEST(who_waits_learns_that_the_asker_has_left),
	  TEST(a_pause_holds_up_nobody), TEST(devices_come_and_go), TEST(migrations_are_answered_in_the_end),
	  TEST(the_fake_has_every_operation))
