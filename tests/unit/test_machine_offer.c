/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/machine_offer and vmm/config_override: what a peer offers is checked, and what differs on this host is put in. */
#include "tests/unit/test.h"
#include "vmm/config/config_json.h"
#include "vmm/machine/machine_internal.h"
#include "tests/unit/offer_text.h"

#include <fcntl.h>


static struct machine_config config;
static struct err err;

#define CONFIG                                                                                                       \
	"{\"kernel\": \"/k\", \"name\": \"m\", \"memory\": {\"size\": 67108864}, \"cpus\": 2,"                       \
	" \"disk\": [{\"path\": \"/a\", \"id\": \"root\", \"queues\": 2}, {\"path\": \"/b\", \"id\": \"data\"}],"    \
	" \"net\": [{\"tap\": \"t0\", \"id\": \"net0\", \"mac\": \"52:54:00:00:00:01\", \"vhost\": true}],"          \
	" \"vsock\": {\"cid\": 7, \"socket\": \"/v\"}, \"serial\": {\"file\": \"/log\"},"                             \
	" \"vfio\": [{\"device\": \"0000:01:00.0\", \"id\": \"gpu\"}]}"
#define MEMORY "[{\"gpa\": 0, \"size\": 67108864}]"
#define CPU "{\"architecture\": \"x86-64\", \"cpuid\": []}"
#define DEVICE(id, slot) "{\"id\": \"" id "\", \"kind\": \"disk\", \"slot\": " slot ", \"features\": 5, \"size\": 512}"
#define DEVICES "[" DEVICE("root", "1") "," DEVICE("data", "9") "]"

static const char *offer_text(const char *version, const char *configuration, const char *memory, const char *cpu,
			      const char *devices)
{
	static char text[8192];

	snprintf(text, sizeof(text),
		 "{\"version\": %s, \"config\": %s, \"memory\": %s, \"cpu\": %s, \"tsc_khz\": 2000000, \"hotplug\": 4278190080,"
		 " \"devices\": %s}", version, configuration, memory, cpu, devices);
	return text;
}

static int parse(const char *text, struct machine_offer **ret)
{
	err.text[0] = 0;
	return offer_parse(text, strlen(text), ret, &err);
}

/* The offered configuration, as it comes. */
static void take_offer(void)
{
	struct machine_offer *offer;

	CHECK_EQ(parse(offer_text("1", CONFIG, MEMORY, CPU, DEVICES), &offer), 0);
	machine_config_done(&config);
	CHECK_EQ(machine_offer_config(offer, &config, &err), 0);
	machine_offer_destroy(offer);
}

static void reads_an_offer(void)
{
	struct machine_offer *offer;

	CHECK_EQ(parse(offer_text("1", CONFIG, MEMORY, CPU, DEVICES), &offer), 0);
	CHECK_EQ(offer->tsc_khz, 2000000);
	CHECK_EQ(offer->hotplug, 0xff000000);
	CHECK_EQ(offer->region_count, 1);
	CHECK_EQ(offer->regions[0].size, MIB(64));
	CHECK_EQ(offer->device_count, 2);
	CHECK_EQ(machine_offer_devfn(offer, "root", &err), PCI_DEVFN(1, 0));
	CHECK_EQ(machine_offer_devfn(offer, "data", &err), PCI_DEVFN(9, 0));
	CHECK_EQ(machine_offer_devfn(offer, "none", &err), -ENOENT);
	machine_offer_destroy(offer);
	take_offer();
	CHECK_EQ(config.disk_count, 2);
	CHECK_STR(config.disks[1].id, "data");
	CHECK_EQ(config.nets[0].mac[5], 1);
	CHECK_EQ(machine_config_finish(&config, &err), 0);
}

#define ON_MMIO(id, slot, transport) "{\"id\": \"" id "\", \"kind\": \"disk\", \"slot\": " slot ", \"features\": 5, \"size\": 512, " \
				     "\"transport\": " transport "}"

/* The pages of MMIO and the slots of PCI are numbered each by itself. */
static void reads_where_devices_are(void)
{
	struct machine_offer *offer;

	CHECK_EQ(parse(offer_text("1", CONFIG, MEMORY, CPU, "[" ON_MMIO("root", "1", "\"mmio\"") "," DEVICE("data", "1") "]"), &offer), 0);
	CHECK(offer->devices[0].mmio && !offer->devices[1].mmio);
	machine_offer_destroy(offer);
}

/* What the configuration does not say, the CPU shows: it is of a program that hid nothing. */
static void an_older_offer_hides_nothing(void)
{
	static const struct {
		const char *config, *cpu;
		bool nested, pmu;
	} cases[] = {
		{"\"cpu\": {\"model\": \"host\"}", "[1,0,0,0,0,32,0]", true, false},
		{"\"cpu\": {\"model\": \"host\"}", "[2147483649,0,0,0,0,8388612,0]", true, true},
		{"\"cpus\": 1", "[10,0,0,2,0,0,0]", false, true},
		{"\"cpus\": 1", "[1,0,0,0,0,0,0]", false, false},
		{"\"cpus\": 1", "[1,0]", false, false}, /* refused later */
		{"\"cpu\": {\"nested\": false, \"pmu\": false}", "[1,0,0,0,0,32,0],[10,0,0,2,0,0,0]", false, false},
		{"\"cpu\": {\"nested\": true, \"pmu\": false}", "[1,0,0,0,0,32,0]", true, false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct machine_offer *offer;
		char configuration[128], cpu[128];

		snprintf(configuration, sizeof(configuration), "{\"name\": \"m\", %s}", cases[i].config);
		snprintf(cpu, sizeof(cpu), "{\"architecture\": \"x86-64\", \"cpuid\": [%s]}", cases[i].cpu);
		CHECK_EQ(parse(offer_text("1", configuration, MEMORY, cpu, DEVICES), &offer), 0);
		machine_config_done(&config);
		CHECK_EQ(machine_offer_config(offer, &config, &err), 0);
		CHECK_EQ(config.cpu.nested, cases[i].nested);
		CHECK_EQ(config.cpu.pmu, cases[i].pmu);
		machine_offer_destroy(offer);
	}
}

static bool refused(const char *text, int code, const char *what)
{
	struct machine_offer *offer;
	int got = parse(text, &offer);

	if (got != code || !strstr(err.text, what))
		printf("# %d, \"%s\"\n", got, err.text);
	if (got == 0)
		machine_offer_destroy(offer);
	return got == code && strstr(err.text, what);
}

static void nonsense_is_refused(void)
{
	CHECK(refused("", -EBADMSG, "line 1"));
	CHECK(refused("[]", -EBADMSG, "version is missing"));
	CHECK(refused("{\"version\": 1, \"version\": 1}", -EBADMSG, "duplicate"));
	CHECK(refused(offer_text("2", CONFIG, MEMORY, CPU, DEVICES), -ENOTSUP, "version 2, this program knows 1"));
	CHECK(refused(offer_text("-1", CONFIG, MEMORY, CPU, DEVICES), -EBADMSG, "version"));
	CHECK(refused(offer_text("1.0", CONFIG, MEMORY, CPU, DEVICES), -EBADMSG, "version"));
	CHECK(refused(offer_text("1", "[]", MEMORY, CPU, DEVICES), -EBADMSG, "config or cpu"));
	CHECK(refused(offer_text("1", CONFIG, MEMORY, "3", DEVICES), -EBADMSG, "config or cpu"));
	CHECK(refused(offer_text("1", CONFIG, "[]", CPU, DEVICES), -EBADMSG, "0 regions"));
	CHECK(refused(offer_text("1", CONFIG, "[{\"gpa\": 0}]", CPU, DEVICES), -EBADMSG, "size"));
	CHECK(refused(offer_text("1", CONFIG, "[{\"gpa\": -1, \"size\": 1}]", CPU, DEVICES), -EBADMSG, "gpa"));
	CHECK(refused(offer_text("1", CONFIG, MEMORY, CPU, "{}"), -EBADMSG, "devices"));
	CHECK(refused(offer_text("1", CONFIG, MEMORY, CPU, "[3]"), -EBADMSG, "devices[0]: id"));
	CHECK(refused(offer_text("1", CONFIG, MEMORY, CPU, "[" DEVICE("a", "1") "," DEVICE("b", "1") "]"), -EBADMSG, "twice"));
	CHECK(refused(offer_text("1", CONFIG, MEMORY, CPU, "[" DEVICE("a", "1") "," DEVICE("a", "2") "]"), -EBADMSG, "twice"));
	CHECK(refused(offer_text("1", CONFIG, MEMORY, CPU, "[" DEVICE("a", "32") "]"), -EBADMSG, "slot"));
	CHECK(refused(offer_text("1", CONFIG, MEMORY, CPU, "[" ON_MMIO("a", "1", "\"mmio\"") "," ON_MMIO("b", "1", "\"mmio\"") "]"), -EBADMSG, "twice"));
	CHECK(refused(offer_text("1", CONFIG, MEMORY, CPU, "[" ON_MMIO("a", "1", "\"isa\"") "]"), -EBADMSG, "a: an unknown transport"));
	CHECK(refused(offer_text("1", CONFIG, MEMORY, CPU, "[" ON_MMIO("a", "1", "7") "]"), -EBADMSG, "a: an unknown transport"));
	CHECK(refused(offer_text("1", CONFIG, MEMORY, CPU, "[" DEVICE("\\u001b[2J", "1") "]"), -EBADMSG, "devices[0]"));
	CHECK(refused(offer_text("1", CONFIG, MEMORY, CPU,
				 "[" DEVICE("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "1") "]"),
		      -EBADMSG, "devices[0]"));
}

#define COPIED(kind, size, copy)                                                                                              \
	"[{\"id\": \"root\", \"kind\": \"" kind "\", \"slot\": 1, \"features\": 5, \"size\": " size ", \"copy\": " copy \
	", \"block_size\": 512}," DEVICE("data", "9") "]"

static void disks_come_along(void)
{
	struct machine_offer *offer;

	CHECK_EQ(parse(offer_text("1", CONFIG, MEMORY, CPU, COPIED("disk", "1024", "512")), &offer), 0);
	CHECK(machine_offer_copies(offer, "root"));
	CHECK(!machine_offer_copies(offer, "data"));
	CHECK(!machine_offer_copies(offer, "none"));
	CHECK_EQ(offer->devices[0].allocated, 512);
	machine_offer_destroy(offer);
	CHECK(refused(offer_text("1", CONFIG, MEMORY, CPU, COPIED("net", "1024", "512")), -EBADMSG, "it cannot be copied"));
	CHECK(refused(offer_text("1", CONFIG, MEMORY, CPU, COPIED("disk", "1000", "0")), -EBADMSG, "it cannot be copied"));
	CHECK(refused(offer_text("1", CONFIG, MEMORY, CPU, COPIED("disk", "1024", "-1")), -EBADMSG, "it cannot be copied"));
}

#define SECTORS(size) \
	"[{\"id\": \"root\", \"kind\": \"disk\", \"slot\": 1, \"features\": 5, \"size\": 8192, \"block_size\": " size "}]"

/* The guest keeps the size of its sectors on every device of the target. */
static void sectors_stay_as_large(void)
{
	struct machine_offer *offer;

	CHECK_EQ(parse(offer_text("1", CONFIG, MEMORY, CPU, SECTORS("4096")), &offer), 0);
	CHECK_EQ(machine_offer_block_size(offer, "root"), 4096);
	CHECK_EQ(machine_offer_block_size(offer, "none"), 0);
	machine_offer_destroy(offer);
	CHECK_EQ(parse(offer_text("1", CONFIG, MEMORY, CPU, DEVICES), &offer), 0);
	CHECK_EQ(machine_offer_block_size(offer, "root"), 0);
	machine_offer_destroy(offer);
	CHECK(refused(offer_text("1", CONFIG, MEMORY, CPU, SECTORS("513")), -EBADMSG, "no disk has such sectors"));
	CHECK(refused(offer_text("1", CONFIG, MEMORY, CPU, SECTORS("256")), -EBADMSG, "no disk has such sectors"));
	CHECK(refused(offer_text("1", CONFIG, MEMORY, CPU, SECTORS("1048576")), -EBADMSG, "no disk has such sectors"));
}

static void size_and_depth_are_bounded(void)
{
	size_t len = JSON_STAGE_TEXT + 1;
	char *text = malloc(len + 1);
	struct machine_offer *offer;

	memset(text, ' ', len);
	text[len] = 0;
	CHECK(refused(text, -EBADMSG, "more than"));
	memset(text, '[', len - 1);
	CHECK_EQ(offer_parse(text, len - 1, &offer, &err), -EBADMSG);
	memset(text, 0, len);
	CHECK_EQ(offer_parse(text, 100, &offer, &err), -EBADMSG);
	free(text);
}

static bool config_refused(const char *configuration, const char *what)
{
	struct machine_offer *offer;
	int code;

	CHECK_EQ(parse(offer_text("1", configuration, MEMORY, CPU, DEVICES), &offer), 0);
	machine_config_done(&config);
	code = machine_offer_config(offer, &config, &err);
	machine_offer_destroy(offer);
	if (code != -EBADMSG || !strstr(err.text, what))
		printf("# %d, \"%s\"\n", code, err.text);
	return code == -EBADMSG && strstr(err.text, what);
}

static void a_configuration_must_leave_nothing_open(void)
{
	CHECK(config_refused("{}", "no name"));
	CHECK(config_refused("{\"name\": \"a b\"}", "not a name"));
	CHECK(config_refused("{\"name\": \"m\", \"disk\": [\"/a\"]}", "without an id"));
	CHECK(config_refused("{\"name\": \"m\", \"nonsense\": 1}", "unknown option"));
	CHECK(config_refused("{\"name\": \"m\", \"verbose\": true}", "command line"));
	CHECK(config_refused("{\"name\": \"m\", \"memory\": {\"size\": -1}}", "memory"));
}

/* Neither used, nor closed with a configuration that was refused. */
static void descriptors_are_not_the_peers(void)
{
	int fd = dup(STDOUT_FILENO);
	char text[120];

	snprintf(text, sizeof(text), "{\"name\": \"m\", \"vfio\": [{\"id\": \"v\", \"fd\": %d}]}", fd);
	CHECK(config_refused(text, "descriptor"));
	snprintf(text, sizeof(text), "{\"name\": \"m\", \"iommufd\": {\"fd\": %d}, \"nonsense\": 1}", fd);
	CHECK(config_refused(text, "unknown option"));
	snprintf(text, sizeof(text), "{\"name\": \"m\", \"iommufd\": {\"fd\": %d}}", fd);
	CHECK(config_refused(text, "descriptor"));
	machine_config_done(&config);
	machine_config_init(&config);
	CHECK(fcntl(fd, F_GETFD) >= 0);
	close(fd);
}

/* What it uses is needed, all of it where it is pinned; huge pages are another matter. */
static void a_host_without_room_refuses(void)
{
	struct machine_offer *offer;

	take_offer();
	CHECK_EQ(parse(offer_text("1", CONFIG, MEMORY ", \"used\": 20971520", CPU, DEVICES), &offer), 0);
	CHECK_EQ(offer->used, MIB(20));
	CHECK_EQ(machine_offer_check_room(offer, &config, MIB(63), &err), -ENOMEM);
	CHECK_STR(err.text, "the guest needs 64 MiB of memory now, and this host has 63 MiB left for it");
	CHECK_EQ(machine_offer_check_room(offer, &config, MIB(64), &err), 0);
	CHECK_EQ(config.vfio_count, 1);
	CHECK_EQ(machine_config_override(&config, "vfio", "gpu=83b8f4f2-509f-382f-3c1e-e6bfe0fa1001", &err), 0);
	CHECK_EQ(machine_offer_check_room(offer, &config, MIB(20), &err), 0);
	CHECK_EQ(machine_config_override(&config, "vfio", "gpu=/sys/bus/pci/devices/0000:05:00.1", &err), 0);
	CHECK_EQ(machine_offer_check_room(offer, &config, MIB(63), &err), -ENOMEM);
	config.vfio_count = 0;
	CHECK_EQ(machine_offer_check_room(offer, &config, MIB(20), &err), 0);
	CHECK_EQ(machine_offer_check_room(offer, &config, MIB(19), &err), -ENOMEM);
	CHECK_STR(err.text, "the guest needs 20 MiB of memory now, and this host has 19 MiB left for it");
	config.memory.prefault = true;
	CHECK_EQ(machine_offer_check_room(offer, &config, MIB(20), &err), -ENOMEM);
	config.memory.hugepages = HUGEPAGES_2M;
	CHECK_EQ(machine_offer_check_room(offer, &config, 0, &err), 0);
	config.memory = (struct memory_config){.size = MIB(64)};
	offer->used = GIB(1); /* the process has more than the guest */
	CHECK_EQ(machine_offer_check_room(offer, &config, MIB(64), &err), 0);
	machine_offer_destroy(offer);
	CHECK_EQ(parse(offer_text("1", CONFIG, MEMORY, CPU, DEVICES), &offer), 0);
	CHECK_EQ(machine_offer_check_room(offer, &config, 0, &err), 0);
	machine_offer_destroy(offer);
	config.vfio_count = 1;
	CHECK(refused(offer_text("1", CONFIG, MEMORY ", \"used\": -1", CPU, DEVICES), -EBADMSG, "used"));
}

/* ---- what differs here ---- */

static void devices_are_put_in_place(void)
{
	take_offer();
	CHECK_EQ(machine_config_override(&config, "disk", "data=/elsewhere,direct=on", &err), 0);
	CHECK_EQ(machine_config_override(&config, "net", "net0=passt", &err), 0);
	CHECK_EQ(machine_config_override(&config, "vfio", "gpu=0000:05:00.1,backend=legacy", &err), 0);
	CHECK_EQ(machine_config_override(&config, "name", "other", &err), 0);
	CHECK_EQ(machine_config_override(&config, "serial", "stdio", &err), 0);
	CHECK_EQ(machine_config_override(&config, "console", "pty", &err), 0);
	CHECK_EQ(machine_config_override(&config, "vsock", "/w", &err), 0);
	CHECK_EQ(machine_config_finish(&config, &err), 0);
	CHECK_STR(config.disks[0].path, "/a");
	CHECK_STR(config.disks[1].path, "/elsewhere");
	CHECK_STR(config.disks[1].id, "data");
	CHECK(config.disks[1].direct);
	CHECK_EQ(config.nets[0].kind, NET_PASST);
	CHECK(!config.nets[0].target && !config.nets[0].vhost);
	CHECK_EQ(config.nets[0].mac[5], 1);
	CHECK_STR(config.vfios[0].device, "0000:05:00.1");
	CHECK_EQ(config.vfios[0].backend, VFIO_BACKEND_LEGACY);
	CHECK_STR(config.vfios[0].id, "gpu");
	CHECK_STR(config.name, "other");
	CHECK_EQ(config.serial.kind, PORT_STDIO);
	CHECK_EQ(config.console.kind, PORT_PTY);
	CHECK_STR(config.vsock.socket, "/w");
	CHECK_EQ(config.vsock.cid, 7);
}

static bool cannot_override(const char *option, const char *text, const char *sentence)
{
	int code = machine_config_override(&config, option, text, &err);

	if (code != -EINVAL || strcmp(err.text, sentence) != 0)
		printf("# %d, \"%s\"\n", code, err.text);
	return code == -EINVAL && strcmp(err.text, sentence) == 0;
}

static void what_is_not_there_is_named(void)
{
	take_offer();
	CHECK(cannot_override("disk", "none=/x",
			      "--disk none: the machine has no disk with this id; it has root, data"));
	CHECK(cannot_override("net", "net1=tap=t", "--net net1: the machine has no net with this id; it has net0"));
	CHECK(cannot_override("disk", "/x", "--disk /x: does not say which; write ID=VALUE"));
	CHECK(cannot_override("disk", "=/x", "--disk =/x: does not say which; write ID=VALUE"));
	CHECK(cannot_override("disk", "root=", "--disk : empty; write a value or leave the option out"));
	CHECK(cannot_override("memory", "1G", "--memory: cannot be changed for a machine that comes from elsewhere"));
	CHECK(cannot_override("vsock", "", "--vsock : empty; write the path of a socket, or kernel"));
	CHECK_STR(config.disks[0].path, "/a");
	machine_config_done(&config);
	CHECK(cannot_override("vfio", "a=b", "--vfio a: the machine has no vfio with this id; it has none"));
	CHECK(cannot_override("vsock", "/w", "--vsock /w: the machine has no vsock"));
	machine_config_done(&config);
}

TEST_MAIN(TEST(reads_an_offer), TEST(reads_where_devices_are), TEST(an_older_offer_hides_nothing), TEST(nonsense_is_refused), TEST(disks_come_along), TEST(sectors_stay_as_large), TEST(size_and_depth_are_bounded),
	  TEST(a_configuration_must_leave_nothing_open), TEST(descriptors_are_not_the_peers),
	  TEST(a_host_without_room_refuses), TEST(devices_are_put_in_place), TEST(what_is_not_there_is_named))
