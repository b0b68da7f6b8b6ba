/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/config_json: the same options from a file, its strictness and its limits. */
#include "vmm/config/config.h"
#include "vmm/config/config_json.h"
#include "tests/unit/test.h"

#include <fcntl.h>
#include <sys/stat.h>

static struct machine_config config;
static struct err err;

static int load(const char *text)
{
	machine_config_done(&config);
	err.text[0] = 0;
	return config_json_parse(&machine_options, &config, text, strlen(text), &err);
}

static bool refused(const char *text, const char *sentence)
{
	int code = load(text);

	if (code != -EINVAL || strcmp(err.text, sentence) != 0)
		printf("# %s: %d, \"%s\"\n", text, code, err.text);
	return code == -EINVAL && strcmp(err.text, sentence) == 0;
}

static void reads_every_form(void)
{
	CHECK_EQ(load("{\"kernel\": \"a,b\", \"memory\": {\"size\": \"64M\", \"prefault\": true, \"hugepages\": \"2M\"},"
		      " \"cpus\": 4, \"cpu\": {\"without\": [\"avx\", \"sgx\"]}, \"balloon\": true,"
		      " \"disk\": [\"x,y\", {\"path\": \"z\", \"readonly\": true, \"queues\": 2}],"
		      " \"net\": {\"passt\": true}, \"console\": \"pty\", \"serial\": {\"file\": \"log\"},"
		      " \"on-reboot\": \"exit\", \"vsock\": {\"cid\": 7}}"), 0);
	CHECK_STR(config.kernel, "a,b");
	CHECK_EQ(config.memory.size, MIB(64));
	CHECK(config.memory.prefault && config.balloon);
	CHECK_EQ(config.memory.hugepages, HUGEPAGES_2M);
	CHECK_EQ(config.cpus, 4);
	CHECK_EQ(config.cpu.masked_count, 2);
	CHECK_STR(config.cpu.masked[0], "avx");
	CHECK_EQ(config.disk_count, 2);
	CHECK_STR(config.disks[0].path, "x,y");
	CHECK(config.disks[1].readonly);
	CHECK_EQ(config.disks[1].queues, 2);
	CHECK_EQ(config.nets[0].kind, NET_PASST);
	CHECK_EQ(config.console.kind, PORT_PTY);
	CHECK_EQ(config.serial.kind, PORT_FILE);
	CHECK_STR(config.serial.path, "log");
	CHECK_EQ(config.on_reboot, ON_REBOOT_EXIT);
	CHECK_EQ(config.vsock.cid, 7);
	CHECK_EQ(load("{\"memory\": 1048576, \"disk\": \"a\", \"console\": \"/dev/x\"}"), 0);
	CHECK_EQ(config.memory.size, MIB(1));
	CHECK_EQ(config.disk_count, 1);
	CHECK_EQ(config.console.kind, PORT_FILE);
}

/* The configuration as JSON text, or NULL with err set. */
static char *print(void)
{
	json_t *root;
	char *text;

	if (config_json_write(&machine_options, &config, &root, &err))
		return NULL;
	text = json_dumps(root, JSON_INDENT(2));
	json_decref(root);
	return text;
}

/* What is printed reads as the same configuration, and prints the same again. */
static bool comes_back(const char *text)
{
	_cleanup_(free_ptr) char *first = NULL;
	_cleanup_(free_ptr) char *second = NULL;
	bool same;

	if (load(text) || !(first = print()) || load(first) || !(second = print())) {
		printf("# %s\n", err.text);
		return false;
	}
	same = strcmp(first, second) == 0;
	if (!same)
		printf("# %s\n# %s\n", first, second);
	return same;
}

static void prints_what_it_reads(void)
{
	CHECK(comes_back("{\"kernel\": \"k\"}"));
	CHECK_EQ(config.vsock.cid, 0);
	CHECK_EQ(config.console.kind, PORT_NONE);
	CHECK_EQ(config.iommufd, -1);
	CHECK(comes_back("{\"kernel\": \"a,b\", \"initrd\": \"i\", \"cmdline\": \"quiet \\\"x\\\"\","
			 " \"memory\": {\"size\": \"64M\", \"prefault\": true, \"hugepages\": \"2M\", \"shared\": \"on\"},"
			 " \"cpus\": 4, \"cpu\": {\"without\": [\"avx\", \"sgx\"]}, \"balloon\": true,"
			 " \"disk\": [\"x,y\", {\"path\": \"z\", \"readonly\": true, \"queues\": 2, \"serial\": \"s\","
			 " \"bandwidth\": \"1536K/250ms+1G\", \"ops\": 500}], \"rng\": {\"bandwidth\": 1000},"
			 " \"net\": [{\"passt\": true}, {\"passt\": \"/s\", \"mac\": \"52:54:00:00:00:0a\"},"
			 " {\"tap\": \"t\", \"vhost\": true, \"queues\": 3}], \"console\": \"pty\","
			 " \"serial\": {\"file\": \"log\"}, \"on-reboot\": \"exit\", \"name\": \"m\","
			 " \"vsock\": {\"cid\": 7, \"socket\": \"v\"},"
			 " \"vfio\": [{\"device\": \"0000:01:00.0\", \"backend\": \"legacy\", \"rom\": \"/r\"}]}"));
	CHECK_STR(config.kernel, "a,b");
	CHECK_STR(config.cmdline, "quiet \"x\"");
	CHECK_EQ(config.memory.size, MIB(64));
	CHECK_EQ(config.memory.hugepages, HUGEPAGES_2M);
	CHECK_STR(config.cpu.masked[1], "sgx");
	CHECK_EQ(config.disk_count, 2);
	CHECK_STR(config.disks[0].path, "x,y");
	CHECK_EQ(config.disks[1].queues, 2);
	CHECK_EQ(config.net_count, 3);
	CHECK(config.nets[0].kind == NET_PASST && !config.nets[0].target);
	CHECK_STR(config.nets[1].target, "/s");
	CHECK_EQ(config.nets[1].mac[5], 10);
	CHECK(config.nets[2].kind == NET_TAP && config.nets[2].vhost);
	CHECK_EQ(config.serial.kind, PORT_FILE);
	CHECK_STR(config.vfios[0].rom_file, "/r");
	CHECK_EQ(config.vfios[0].rom, VFIO_ROM_FILE);
	CHECK_EQ(config.on_reboot, ON_REBOOT_EXIT);
}

/* Descriptors are this process's alone. */
static void prints_no_descriptors(void)
{
	char *const argv[] = {(char *)"--kernel=k", (char *)"--vfio=fd=9,id=x", (char *)"--iommufd=fd=8"};
	_cleanup_(free_ptr) char *text = NULL;

	machine_config_done(&config);
	CHECK_EQ(options_parse(&machine_options, &config, 3, argv, NULL, 0, &err), 0);
	text = print();
	CHECK(text);
	CHECK(!strstr(text, "fd"));
	CHECK_EQ(load(text), 0);
	CHECK_EQ(config.vfio_count, 1);
	CHECK_STR(config.vfios[0].id, "x");
	CHECK_EQ(config.vfios[0].fd, -1);
}

static void refuses_to_print_what_is_no_text(void)
{
	char *const argv[] = {(char *)"--kernel=k\xff"};
	json_t *root;

	machine_config_done(&config);
	CHECK_EQ(options_parse(&machine_options, &config, 1, argv, NULL, 0, &err), 0);
	CHECK_EQ(config_json_write(&machine_options, &config, &root, &err), -EINVAL);
	CHECK_STR(err.text, "--kernel: not UTF-8, and cannot be written as JSON");
}

static void the_command_line_wins(void)
{
	char *const argv[] = {(char *)"--memory=2M", (char *)"--disk=b"};

	CHECK_EQ(load("{\"memory\": {\"size\": \"64M\", \"prefault\": true}, \"disk\": [\"a\"], \"cpus\": 2}"), 0);
	CHECK_EQ(options_parse(&machine_options, &config, 2, argv, NULL, 0, &err), 0);
	CHECK_EQ(config.memory.size, MIB(2));
	CHECK(!config.memory.prefault);
	CHECK_EQ(config.disk_count, 2);
	CHECK_EQ(config.cpus, 2);
}

static void unknown_words_name_the_nearest(void)
{
	CHECK(refused("{\"memry\": 1}", "memry: unknown option, did you mean memory?"));
	CHECK(refused("{\"disk\": [\"a\", {\"path\": \"b\", \"readony\": true}]}",
		      "disk[1]: readony: unknown key, did you mean readonly?"));
	CHECK(refused("{\"on-reboot\": \"exot\"}",
		      "on-reboot: unknown value, did you mean exit?"));
	CHECK(refused("{\"config\": \"x\"}", "config: belongs on the command line; leave it out here"));
}

static void types_are_checked(void)
{
	CHECK(refused("[]", "is an array; write an object with the options as its members"));
	CHECK(refused("{\"kernel\": null}", "kernel: is null; write a text, a whole number, true or false"));
	CHECK(refused("{\"kernel\": {\"kernel\": \"k\"}}", "kernel: is an object; write a text, a whole number, true or false"));
	CHECK(refused("{\"cpus\": 1.5}", "cpus: is a fraction; write a text, a whole number, true or false"));
	CHECK(refused("{\"cpus\": [1]}", "cpus: is an array; write a text, a whole number, true or false"));
	CHECK(refused("{\"cpus\": -1}", "cpus: not a number; write one from 1 to 254"));
	CHECK(refused("{\"disk\": [[\"a\"]]}", "disk[0]: is an array; write a text, a whole number, true or false"));
	CHECK(refused("{\"net\": \"tap0\"}", "net: is a text; write an object"));
	CHECK(refused("{\"console\": {\"pty\": false}}", "console: pty: is false; write true"));
	CHECK(refused("{\"cpu\": {\"without\": [1, null]}}",
		      "cpu: without[1]: is null; write a text, a whole number, true or false"));
	CHECK(refused("{\"kernel\": \"a\\u0000b\"}", "kernel: has a NUL character"));
	CHECK(refused("{\"disk\": [{\"readonly\": true}]}",
		      "disk[0]: path is missing; write "
		      "FILE[,readonly=on|off][,direct=on|off][,lock=on|off][,queues=N][,serial=TEXT]"
		      "[,sector-size=512|4096][,on-error=report|stop][,bandwidth=RATE][,ops=RATE][,id=NAME]"));
}

static void says_where_it_is_no_json(void)
{
	CHECK(refused("{\"cpus\": 1,\n \"kernel\" \"k\"}", "line 2, column 13: ':' expected near '\"k\"'"));
	CHECK(refused("{\"cpus\": 1, \"cpus\": 2}", "line 1, column 18: duplicate object key near '\"cpus\"'"));
	CHECK_EQ(load(""), -EINVAL);
	CHECK_EQ(load("{} x"), -EINVAL);
}

static void depth_is_bounded(void)
{
	static char text[100000];

	memset(text, '[', sizeof(text) - 1);
	CHECK_EQ(load(text), -EINVAL);
	CHECK(strstr(err.text, "maximum parsing depth"));
}

static void files_are_checked(void)
{
	char path[] = "/tmp/test_json.XXXXXX";
	int fd = mkstemp(path);

	CHECK(fd >= 0);
	CHECK_EQ(write(fd, "{\"cpus\": 3}", 11), 11);
	CHECK_EQ(config_json_load(&machine_options, &config, path, &err), 0);
	CHECK_EQ(config.cpus, 3);
	CHECK_EQ(ftruncate(fd, CONFIG_FILE_MAX + 1), 0);
	CHECK_EQ(config_json_load(&machine_options, &config, path, &err), -EINVAL);
	CHECK(strstr(err.text, "larger than 1M"));
	close(fd);
	unlink(path);
	CHECK_EQ(config_json_load(&machine_options, &config, path, &err), -ENOENT);
	CHECK_EQ(config_json_load(&machine_options, &config, "/tmp", &err), -EINVAL);
	CHECK_EQ(config_json_load(&machine_options, &config, "/dev/zero", &err), -EINVAL);
	CHECK_EQ(mkfifo(path, 0600), 0);
	CHECK_EQ(config_json_load(&machine_options, &config, path, &err), -EINVAL);
	unlink(path);
	machine_config_done(&config);
}

TEST_MAIN(TEST(reads_every_form), TEST(prints_what_it_reads), TEST(prints_no_descriptors),
	  TEST(refuses_to_print_what_is_no_text), TEST(the_command_line_wins), TEST(unknown_words_name_the_nearest),
	  TEST(types_are_checked), TEST(says_where_it_is_no_json), TEST(depth_is_bounded), TEST(files_are_checked))
