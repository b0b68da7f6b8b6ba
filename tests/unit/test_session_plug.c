/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/session/session_plug: the devices of `mvmm restore --vfio BDF` are added to the running machine one after the
 * other; one that cannot be is told of, and the others come all the same.
 */
#include "tests/unit/test.h"
#include "vmm/session/session.h"
#include "vmm/session/session_internal.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>

static struct session session;
static struct machine_config config;
static struct arrival_override vfios[4];
static struct add_device_reply reply;
static char asked[200];
static int refuse; /* code of the next call of add_device */
static struct err err;

static int add_device(struct session *s, const char *option, const char *vfio, struct vfio_given *opened,
		      const struct add_device_reply *given, struct err *why)
{
	int code = refuse;

	snprintf(asked + strlen(asked), sizeof(asked) - strlen(asked), "%s ", vfio);
	refuse = 0;
	if (code)
		return err_set(why, code, "is being migrated");
	reply = *given;
	return 0;
}

static const struct operations operations = {.add_device = add_device};

static void setup(const char *const *texts, size_t count)
{
	for (size_t i = 0; i < count; i++)
		vfios[i].text = (char *)texts[i];
	config = (struct machine_config){.name = (char *)"vm"};
	session = (struct session){.config = &config, .operated.ops = &operations,
				   .log = {.fd = memfd_create("log", MFD_CLOEXEC), .level = LOG_INFO}};
	asked[0] = 0;
	refuse = 0;
	reply = (struct add_device_reply){0};
}

static bool logged(const char *text)
{
	static char all[4096];
	ssize_t n = pread(session.log.fd, all, sizeof(all) - 1, 0);

	all[MAX(n, 0)] = 0;
	return strstr(all, text);
}

static void ids_of_the_snapshot_are_told_from_new_devices(void)
{
	static const char *const texts[] = {"01:00.0", "nic=02:00.0,backend=legacy", "03:00.0,id=gpu", "disk=04:00.0"};
	static const size_t order[] = {1, 3, 0, 2};

	setup(texts, 4);
	CHECK_EQ(session_plug_sort(vfios, 4), 2);
	for (size_t i = 0; i < 4; i++)
		CHECK_STR(vfios[i].text, texts[order[i]]);
	CHECK_EQ(session_plug_sort(vfios, 0), 0);
}

static void they_come_one_after_the_other(void)
{
	static const char *const texts[] = {"01:00.0", "02:00.0,id=gpu", "03:00.0"};

	setup(texts, 3);
	session_plug(&session, vfios, 3);
	CHECK_STR(asked, "01:00.0 ");
	reply.progress(reply.opaque, "prefault", 1, 2);
	reply.done(reply.opaque, "vfio0", 0, NULL);
	CHECK(logged("--vfio 01:00.0: was plugged in; its id is vfio0"));
	CHECK_STR(asked, "01:00.0 02:00.0,id=gpu ");
	err_set(&err, -EBUSY, "gpu: it is in use");
	reply.done(reply.opaque, NULL, -EBUSY, &err);
	CHECK(logged("--vfio 02:00.0,id=gpu: gpu: it is in use; the machine runs without it, and mvmm vfio add vm "
		     "02:00.0,id=gpu tries again"));
	CHECK_STR(asked, "01:00.0 02:00.0,id=gpu 03:00.0 ");
	reply.done(reply.opaque, "vfio1", 0, NULL);
	CHECK_STR(asked, "01:00.0 02:00.0,id=gpu 03:00.0 ");
	close(session.log.fd);
}

static void one_that_is_refused_is_told_of_and_the_next_comes(void)
{
	static const char *const texts[] = {"01:00.0", "02:00.0"};

	setup(texts, 2);
	refuse = -EBUSY;
	session_plug(&session, vfios, 2);
	CHECK_STR(asked, "01:00.0 02:00.0 ");
	CHECK(logged("--vfio 01:00.0: is being migrated; the machine runs without it, and mvmm vfio add vm 01:00.0"));
	close(session.log.fd);
}

static void none_comes_to_a_machine_that_ends(void)
{
	static const char *const texts[] = {"01:00.0", "02:00.0"};

	setup(texts, 2);
	session_plug(&session, vfios, 2);
	err_set(&err, -ECANCELED, "vfio0: the machine ended, or the guest rebooted, before it was there");
	reply.done(reply.opaque, NULL, -ECANCELED, &err);
	CHECK_STR(asked, "01:00.0 ");
	CHECK(logged("--vfio 01:00.0: vfio0: the machine ended") && !logged("tries again"));
	close(session.log.fd);
}

static void what_is_wrong_is_found_before_the_machine_is_made(void)
{
	static const char *const wrong[][2] = {
		{"ffff:ff:1f.7", "--vfio ffff:ff:1f.7: "}, {"01:00.0,colour=red", "colour"}, {"", "--vfio"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		setup(&wrong[i][0], 1);
		machine_config_init(&config);
		CHECK(session_plug_check(&config, vfios, 1, &err) < 0);
		CHECK(strstr(err.text, wrong[i][1]));
		CHECK_EQ(config.vfio_count, 0);
		machine_config_done(&config);
		close(session.log.fd);
	}
}

TEST_MAIN(TEST(ids_of_the_snapshot_are_told_from_new_devices), TEST(they_come_one_after_the_other),
	  TEST(one_that_is_refused_is_told_of_and_the_next_comes), TEST(none_comes_to_a_machine_that_ends),
	  TEST(what_is_wrong_is_found_before_the_machine_is_made))
