/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/session/disk_arrivals: files of disks that come along are made, and go again unless they are to stay; what is
 * there is left alone unless it was named and has the size; what has no room is refused before anything is sent.
 */
#include "tests/unit/test.h"
#include "vmm/session/disk_arrivals.h"
#include "tests/unit/offer_text.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

static char folder[64], paths[2][96];
static struct machine_offer *offer;
static struct machine_config config;
static struct disk_arrivals *arrivals;
static struct err err;

/* Two disks that come along, all of their bytes in use, and one that does not. */
static void set_up(uint64_t size)
{
	static const char ids[][6] = {"root", "data", "other"};
	char text[2048];
	size_t len;

	snprintf(folder, sizeof(folder), "%.40s/arriveXXXXXX", getenv("TMPDIR") ?: "/tmp");
	CHECK(mkdtemp(folder));
	for (int i = 0; i < 2; i++)
		snprintf(paths[i], sizeof(paths[i]), "%s/%s", folder, ids[i]);
	len = (size_t)snprintf(text, sizeof(text), "{\"version\": 1, \"tsc_khz\": 1, \"hotplug\": 0, \"cpu\": {}, "
			       "\"memory\": [{\"gpa\": 0, \"size\": 4096}], \"config\": {\"kernel\": \"/k\", \"name\": \"m\", "
			       "\"disk\": [{\"path\": \"%s\", \"id\": \"root\"}, {\"path\": \"/none\", \"id\": \"other\"}, "
			       "{\"path\": \"%s\", \"id\": \"data\"}]}, \"devices\": [", paths[0], paths[1]);
	for (int i = 0; i < 3; i++)
		len += (size_t)snprintf(text + len, sizeof(text) - len, "%s{\"id\": \"%s\", \"kind\": \"disk\", \"slot\": %d, "
					"\"features\": 0, \"size\": %llu, \"block_size\": 512, \"%s\": %llu}", i ? ", " : "", ids[i],
					i + 1, (unsigned long long)size, i < 2 ? "copy" : "x", (unsigned long long)size);
	len += (size_t)snprintf(text + len, sizeof(text) - len, "]}");
	CHECK_EQ(offer_parse(text, len, &offer, &err), 0);
	machine_config_init(&config);
	CHECK_EQ(machine_offer_config(offer, &config, &err), 0);
	err.text[0] = 0;
}

static void tear_down(void)
{
	machine_offer_destroy(offer);
	machine_config_done(&config);
	for (int i = 0; i < 2; i++)
		unlink(paths[i]);
	CHECK_EQ(rmdir(folder), 0);
}

static int create(const char *named)
{
	struct arrival_override override = {.text = (char *)named};

	return disk_arrivals_create(offer, &config, &override, named ? 1 : 0, &arrivals, &err);
}

static bool there(int disk)
{
	return access(paths[disk], F_OK) == 0;
}

static void put(int disk, off_t size)
{
	int fd = open(paths[disk], O_CREAT | O_RDWR | O_CLOEXEC, 0600);

	CHECK(fd >= 0 && ftruncate(fd, size) == 0);
	close(fd);
}

static void files_are_made_and_go_again(void)
{
	const struct disk_target *targets;
	struct stat st;

	set_up(MIB(1));
	CHECK_EQ(create(NULL), 0);
	CHECK_EQ(disk_arrivals_get(arrivals, &targets), 2);
	CHECK_STR(targets[0].id, "root");
	CHECK_STR(targets[1].id, "data");
	for (int i = 0; i < 2; i++) {
		CHECK_EQ(stat(paths[i], &st), 0);
		CHECK_EQ(st.st_size, MIB(1));
		CHECK_EQ(st.st_mode & 0777, 0600);
		CHECK_EQ(targets[i].size, MIB(1));
		CHECK_EQ(pwrite(targets[i].fd, "x", 1, 0), 1);
	}
	disk_arrivals_destroy(arrivals);
	CHECK(!there(0) && !there(1));
	tear_down();
}

static void files_stay_where_the_machine_runs(void)
{
	set_up(MIB(1));
	CHECK_EQ(create(NULL), 0);
	disk_arrivals_keep(arrivals);
	disk_arrivals_destroy(arrivals);
	CHECK(there(0) && there(1));
	tear_down();
}

/* Somebody has put another one there meanwhile. */
static void only_what_was_made_goes(void)
{
	set_up(MIB(1));
	CHECK_EQ(create(NULL), 0);
	CHECK_EQ(unlink(paths[0]), 0);
	put(0, 512);
	disk_arrivals_destroy(arrivals);
	CHECK(there(0) && !there(1));
	tear_down();
}

static void what_is_there_is_left_alone(void)
{
	set_up(MIB(1));
	put(1, MIB(1));
	CHECK_EQ(create(NULL), -EEXIST);
	CHECK(strstr(err.text, "disk data: ") && strstr(err.text, "exists; mvmm receive --disk data=PATH overwrites"));
	CHECK(!there(0) && there(1)); /* and the first is not left behind */
	CHECK_EQ(create("dat=x"), -EEXIST);
	CHECK_EQ(create("root=x"), -EEXIST);
	CHECK_EQ(create("data=x"), 0); /* the path is in the configuration by then */
	disk_arrivals_destroy(arrivals);
	CHECK(!there(0) && there(1));
	put(1, MIB(1) - 512);
	CHECK_EQ(create("data=x"), -EINVAL);
	CHECK(strstr(err.text, "has 1048064 bytes, but the source's disk has 1048576"));
	CHECK_EQ(unlink(paths[1]), 0);
	CHECK_EQ(mkfifo(paths[1], 0600), 0);
	CHECK_EQ(create("data=x"), -EINVAL);
	CHECK(strstr(err.text, "is neither a file nor a block device"));
	/* A link that leads nowhere is no place to make a file at. */
	CHECK_EQ(unlink(paths[1]), 0);
	CHECK_EQ(symlink("nowhere", paths[1]), 0);
	CHECK_EQ(create(NULL), -EEXIST);
	CHECK_EQ(create("data=x"), -ENOENT);
	tear_down();
}

static void a_folder_that_is_not_there_is_named(void)
{
	set_up(MIB(1));
	free(config.disks[2].path);
	config.disks[2].path = strdup("/none/such/disk");
	CHECK_EQ(create(NULL), -ENOENT);
	CHECK_STR(err.text, "disk data: /none/such/disk: cannot be created: No such file or directory");
	CHECK(!there(0));
	tear_down();
}

/* The source has chosen the paths, in a folder that is all it may use. */
static void a_chosen_path_stays_in_its_folder(void)
{
	char outside[128];

	set_up(MIB(1));
	snprintf(outside, sizeof(outside), "%s/link", folder);
	CHECK_EQ(symlink("..", outside), 0);
	config.disks[0].below = config.disks[2].below = folder;
	CHECK_EQ(create(NULL), 0);
	CHECK(there(0) && there(1));
	disk_arrivals_destroy(arrivals);
	CHECK(!there(0) && !there(1));
	free(config.disks[2].path);
	CHECK(asprintf(&config.disks[2].path, "%s/mvmm-new-%d", outside, getpid()) > 0);
	CHECK_EQ(create(NULL), -EXDEV);
	CHECK(strstr(err.text, "disk data: ") && strstr(err.text, "/link/mvmm-new-"));
	CHECK(strstr(err.text, ": a link or .. in it leads out of "));
	CHECK(!there(0) && access(config.disks[2].path, F_OK) < 0);
	CHECK_EQ(unlink(outside), 0);
	tear_down();
}

/* Each would fit, both do not. */
static void room_is_looked_for(void)
{
	struct statvfs fs;
	uint64_t room;

	CHECK_EQ(statvfs(getenv("TMPDIR") ?: "/tmp", &fs), 0);
	room = (uint64_t)fs.f_bavail * fs.f_frsize;
	set_up(align_down(room / 3 * 2, 4096));
	CHECK_EQ(create(NULL), -ENOSPC);
	CHECK(strstr(err.text, "disk data: ") && strstr(err.text, "/data: needs ") && strstr(err.text, " are free"));
	CHECK(!there(0) && !there(1));
	tear_down();
}

static void a_disk_without_a_place_is_refused(void)
{
	set_up(MIB(1));
	free(config.disks[2].id);
	config.disks[2].id = strdup("else");
	CHECK_EQ(create(NULL), -EBADMSG);
	CHECK_STR(err.text, "disk data is copied, but is not in the configuration");
	CHECK(!there(0));
	tear_down();
}

TEST_MAIN(TEST(files_are_made_and_go_again), TEST(files_stay_where_the_machine_runs), TEST(only_what_was_made_goes),
	  TEST(what_is_there_is_left_alone), TEST(a_folder_that_is_not_there_is_named),
	  TEST(a_chosen_path_stays_in_its_folder), TEST(room_is_looked_for), TEST(a_disk_without_a_place_is_refused))
