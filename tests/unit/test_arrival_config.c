/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/session/arrival_config: a source names nothing of this host. What the options do not name is refused with the
 * options that are missing, disks may be chosen in --disk-dir alone, and the kernel of a reboot is this host's.
 */
#include "tests/unit/test.h"
#include "vmm/session/arrival_config.h"
#include "tests/unit/offer_text.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

static struct machine_config config;
static struct receive_options options;
static struct err err;

static int make(const char *config_json)
{
	struct machine_offer *offer;
	char text[2048];
	int len = snprintf(text, sizeof(text), "{\"version\": 1, \"tsc_khz\": 1, \"hotplug\": 0, \"cpu\": {}, \"memory\": "
			   "[{\"gpa\": 0, \"size\": 4096}], \"devices\": [], \"config\": {\"name\": \"m\"%s}}", config_json);
	int code;

	machine_config_done(&config);
	machine_config_init(&config);
	CHECK_EQ(offer_parse(text, (size_t)len, &offer, &err), 0);
	err.text[0] = 0;
	code = arrival_config_make(offer, &options, &config, &err);
	machine_offer_destroy(offer);
	return code;
}

static void begin(void)
{
	machine_config_init(&config);
	options = (struct receive_options){.here.serial = (char *)"none"};
}

static void end(void)
{
	machine_config_done(&config);
}

#define EVERYTHING                                                                                               \
	", \"kernel\": \"/k\", \"initrd\": \"/i\", \"disk\": [{\"path\": \"/etc/shadow\", \"id\": \"root\"}], "      \
	"\"net\": [{\"tap\": \"tap0\", \"id\": \"n\"}, {\"passt\": true, \"id\": \"p\"}], \"vfio\": "                \
	"[{\"device\": \"0000:01:00.0\", \"id\": \"v\", \"rom\": \"/etc/shadow\", \"backend\": \"noiommu\"}], "     \
	"\"vsock\": {\"cid\": 5, \"socket\": \"/run/other\"}"

static void what_is_not_named_here_is_refused(void)
{
	begin();
	CHECK_EQ(make(EVERYTHING), -EACCES);
	CHECK_STR(err.text, "mvmm receive uses nothing of its host that it was not told to; add --disk root=PATH, "
			    "--net n=tap=NAME|passt, --net p=tap=NAME|passt, --vfio v=BDF, --vsock SOCKET|kernel there, or "
			    "--disk-dir DIR for all disks in a folder");
	options.here.disks = (struct arrival_override[]){{(char *)"root=/srv/root"}};
	options.here.nets = (struct arrival_override[]){{(char *)"n=tap=t1"}, {(char *)"p=passt"}};
	options.here.vfios = (struct arrival_override[]){{(char *)"v=0000:02:00.0"}};
	options.here.disk_count = options.here.vfio_count = 1;
	options.here.net_count = 2;
	CHECK_EQ(make(EVERYTHING), -EACCES);
	CHECK(strstr(err.text, "add --vsock SOCKET|kernel there"));
	options.here.vsock = (char *)"/run/here";
	CHECK_EQ(make(EVERYTHING), 0);
	CHECK_STR(config.disks[0].path, "/srv/root");
	CHECK(!config.disks[0].below);
	CHECK_STR(config.nets[0].target, "t1");
	CHECK_STR(config.vfios[0].device, "0000:02:00.0");
	CHECK(!config.vfios[0].rom_file && config.vfios[0].backend == VFIO_BACKEND_AUTO);
	CHECK_STR(config.vsock.socket, "/run/here");
	options.here.vsock = (char *)"kernel";
	CHECK_EQ(make(EVERYTHING), 0);
	CHECK(!config.vsock.socket);
	/* Another CID is no place, and another address is nothing that a machine gets on its way. */
	options.here.vsock = (char *)"cid=9";
	CHECK_EQ(make(EVERYTHING), -EACCES);
	CHECK(strstr(err.text, "add --vsock SOCKET|kernel there"));
	options.here.vsock = (char *)"cid=9,kernel";
	CHECK_EQ(make(EVERYTHING), 0);
	CHECK(!config.vsock.socket && config.vsock.cid == 9);
	options.here.nets = (struct arrival_override[]){{(char *)"n=mac=02:00:00:00:00:01"}, {(char *)"p=passt"}};
	CHECK_EQ(make(EVERYTHING), -EINVAL);
	CHECK_STR(err.text, "--net n=...,mac=: a machine that moves keeps its MAC addresses; leave it out");
	options.here.nets = (struct arrival_override[]){{(char *)"n=tap=t1"}, {(char *)"p=passt"}};
	options.here.net_count = 1;
	CHECK_EQ(make(EVERYTHING), -EACCES);
	CHECK(strstr(err.text, "add --net p=tap=NAME|passt there"));
	end();
}

static void what_is_named_twice_is_refused(void)
{
	begin();
	options.here.disks = (struct arrival_override[]){{(char *)"root=/a"}, {(char *)"roo=/a"}, {(char *)"root=/b"}};
	options.here.disk_count = 3;
	CHECK_EQ(make(EVERYTHING), -EINVAL);
	CHECK_STR(err.text, "--disk root=/b: an earlier --disk is of the same id; leave one out");
	options.here.disk_count = 0;
	options.here.nets = (struct arrival_override[]){{(char *)"n=tap=a"}, {(char *)"n=mac=02:00:00:00:00:01"}};
	options.here.net_count = 2;
	CHECK_EQ(make(EVERYTHING), -EINVAL);
	CHECK_STR(err.text, "--net n=mac=02:00:00:00:00:01: an earlier --net is of the same id; leave one out");
	end();
}

/* A list that does not fit is cut between two options. */
static void a_long_list_is_cut(void)
{
	char text[1500] = ", \"disk\": [";
	size_t len = strlen(text);

	begin();
	for (int i = 0; i < 25; i++)
		len += (size_t)snprintf(text + len, sizeof(text) - len, "%s{\"path\": \"/d\", \"id\": \"disk%d\"}", i ? ", " : "", i);
	snprintf(text + len, sizeof(text) - len, "]");
	CHECK_EQ(make(text), -EACCES);
	CHECK(strstr(err.text, "add --disk disk0=PATH, ") && strstr(err.text, "=PATH there, or --disk-dir"));
	end();
}

static void disks_in_the_folder_may_be_chosen(void)
{
	static const struct {
		const char *path;
		bool in_it, ok; /* in_it: after the folder's own path */
	} cases[] = {
		{"root.img", false, true}, {"a/b/root.img", false, true}, {"/root.img", true, true},
		{"../root.img", false, true}, {"/etc/shadow", false, false}, {"2/root.img", true, false}, {"", true, false},
	};
	char folder[64], path[128], text[256], expected[160];

	begin();
	snprintf(folder, sizeof(folder), "%.40s/arrivalXXXXXX", getenv("TMPDIR") ?: "/tmp");
	CHECK(mkdtemp(folder));
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		options.disk_dir = strdup(folder);
		snprintf(path, sizeof(path), "%s%s", cases[i].in_it ? folder : "", cases[i].path);
		snprintf(text, sizeof(text), ", \"disk\": [{\"path\": \"%s\", \"id\": \"root\"}]", path);
		CHECK_EQ(make(text), cases[i].ok ? 0 : -EACCES);
		if (cases[i].ok) {
			snprintf(expected, sizeof(expected), "%s%s%s", cases[i].in_it ? "" : folder,
				 cases[i].in_it ? "" : "/", path);
			CHECK_STR(config.disks[0].path, expected);
			CHECK_STR(config.disks[0].below, folder); /* whoever opens it stays there */
		} else {
			CHECK(strstr(err.text, "add --disk root=PATH there"));
		}
		free(options.disk_dir);
	}
	options.disk_dir = strdup("/none/such");
	CHECK_EQ(make(""), -ENOENT);
	CHECK_STR(err.text, "--disk-dir /none/such: No such file or directory");
	free(options.disk_dir);
	options.disk_dir = strdup("/dev/null");
	CHECK_EQ(make(""), -ENOTDIR);
	free(options.disk_dir);
	CHECK_EQ(rmdir(folder), 0);
	end();
}

static void a_relative_folder_is_made_absolute(void)
{
	char cwd[512];

	begin();
	CHECK(getcwd(cwd, sizeof(cwd)));
	options.disk_dir = strdup(".");
	CHECK_EQ(make(", \"disk\": [{\"path\": \"x\", \"id\": \"root\"}]"), 0);
	CHECK_STR(config.disks[0].below, cwd);
	free(options.disk_dir);
	end();
}

static void the_kernel_of_a_reboot_is_named_here(void)
{
	begin();
	CHECK_EQ(make(", \"kernel\": \"/k\", \"initrd\": \"/i\""), 0);
	CHECK(!config.kernel && !config.initrd);
	options.here.kernel = (char *)"/here/k";
	CHECK_EQ(make(", \"kernel\": \"/k\", \"initrd\": \"/i\""), -EINVAL);
	CHECK_STR(err.text, "--kernel /here/k: the machine has an initrd, too; add --initrd FILE");
	options.here.initrd = (char *)"/here/i";
	CHECK_EQ(make(", \"kernel\": \"/k\", \"initrd\": \"/i\""), 0);
	CHECK_STR(config.kernel, "/here/k");
	CHECK_STR(config.initrd, "/here/i");
	options.here.kernel = NULL;
	CHECK_EQ(make(", \"kernel\": \"/k\""), -EINVAL);
	CHECK_STR(err.text, "--initrd /here/i: needs --kernel, to boot it with");
	options.here.initrd = NULL;
	CHECK_EQ(make(""), 0); /* it came from another host before, where no kernel was named */
	end();
}

TEST_MAIN(TEST(what_is_not_named_here_is_refused), TEST(what_is_named_twice_is_refused), TEST(a_long_list_is_cut), TEST(disks_in_the_folder_may_be_chosen),
	  TEST(a_relative_folder_is_made_absolute), TEST(the_kernel_of_a_reboot_is_named_here))
