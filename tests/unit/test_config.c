/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/config: the options of `mvmm run`, their defaults and what is refused as a whole. */
#include "vmm/config/config_plug.h"
#include "tests/unit/test.h"

#include <fcntl.h>

static struct machine_config config;
static struct err err;

/* Reads words separated by spaces and finishes the configuration. */
static int configure(const char *line)
{
	static char copy[4096];
	char *argv[100];
	int argc = 0, code;

	machine_config_done(&config);
	err.text[0] = 0;
	snprintf(copy, sizeof(copy), "%s", line);
	for (char *word = strtok(copy, " "); word; word = strtok(NULL, " "))
		argv[argc++] = word;
	code = options_parse(&machine_options, &config, argc, argv, NULL, 0, &err);
	return code ?: machine_config_finish(&config, &err);
}

static bool refused(const char *line, const char *sentence)
{
	int code = configure(line);

	if (code != -EINVAL || strcmp(err.text, sentence) != 0)
		printf("# %s: %d, \"%s\"\n", line, code, err.text);
	return code == -EINVAL && strcmp(err.text, sentence) == 0;
}

static void defaults(void)
{
	char name[32];

	CHECK_EQ(configure("--kernel k"), 0);
	CHECK_STR(config.kernel, "k");
	CHECK(!config.initrd && !config.cmdline && !config.balloon);
	CHECK_EQ(config.memory.size, MIB(512));
	CHECK_EQ(config.memory.hugepages, HUGEPAGES_NONE);
	CHECK_EQ(config.memory.shared, TOGGLE_AUTO);
	CHECK_EQ(config.cpus, 1);
	CHECK_EQ(config.serial.kind, PORT_STDIO);
	CHECK_EQ(config.console.kind, PORT_NONE);
	CHECK_EQ(config.on_reboot, ON_REBOOT_REBOOT);
	CHECK_EQ(config.iommufd, -1);
	CHECK_EQ(config.vsock.cid, 0);
	CHECK_EQ(report_options_level(&config.report, config.verbose, config.quiet), LOG_INFO);
	CHECK_EQ(machine_config_pci_devices(&config), 1);
	snprintf(name, sizeof(name), "vm-%d", getpid());
	CHECK_STR(config.name, name);
}

static void everything_at_once(void)
{
	CHECK_EQ(configure("--kernel k --initrd i --cmdline quiet --memory 64M,hugepages=2M,prefault=on,shared=on "
			   "--cpus 254 --cpu host,-avx512f,-sgx --disk a,readonly=on,direct=on,queues=4,id=root,serial=s1 "
			   "--disk b --net tap=t0,mac=52:54:00:00:00:01,queues=2,vhost=on --net passt --net passt=/s "
			   "--vsock cid=3,socket=/v --console pty --serial file=/log --balloon on --name m.1 "
			   "--on-reboot exit --vfio 0000:01:00.0,backend=legacy,rom=/r,p2p=off,id=gpu --vfio fd=9 --iommufd fd=8 "
			   "--verbose"), 0);
	CHECK_EQ(config.memory.hugepages, HUGEPAGES_2M);
	CHECK(config.memory.prefault);
	CHECK_EQ(config.memory.shared, TOGGLE_ON);
	CHECK_EQ(config.cpus, 254);
	CHECK_EQ(config.cpu.masked_count, 2);
	CHECK_STR(config.cpu.masked[1], "sgx");
	CHECK_EQ(config.disk_count, 2);
	CHECK(config.disks[0].readonly && config.disks[0].direct);
	CHECK_STR(config.disks[0].id, "root");
	CHECK_STR(config.disks[0].serial, "s1");
	CHECK_STR(config.disks[1].id, "disk1");
	CHECK_EQ(config.net_count, 3);
	CHECK_EQ(config.nets[0].kind, NET_TAP);
	CHECK_STR(config.nets[0].target, "t0");
	CHECK_EQ(config.nets[0].mac[5], 1);
	CHECK(config.nets[0].vhost);
	CHECK_EQ(config.nets[1].kind, NET_PASST);
	CHECK(!config.nets[1].target);
	CHECK_STR(config.nets[2].target, "/s");
	CHECK_EQ(config.vsock.cid, 3);
	CHECK_EQ(config.console.kind, PORT_PTY);
	CHECK_EQ(config.serial.kind, PORT_FILE);
	CHECK_STR(config.serial.path, "/log");
	CHECK(config.balloon);
	CHECK_EQ(config.on_reboot, ON_REBOOT_EXIT);
	CHECK_EQ(config.vfio_count, 2);
	CHECK_EQ(config.vfios[0].backend, VFIO_BACKEND_LEGACY);
	CHECK_EQ(config.vfios[0].rom, VFIO_ROM_FILE);
	CHECK_STR(config.vfios[0].rom_file, "/r");
	CHECK(!config.vfios[0].p2p && config.vfios[1].p2p);
	CHECK_EQ(config.vfios[1].fd, 9);
	CHECK_EQ(config.vfios[1].rom, VFIO_ROM_ON);
	CHECK_EQ(config.iommufd, 8);
	CHECK_EQ(report_options_level(&config.report, config.verbose, config.quiet), LOG_DEBUG);
	CHECK_EQ(machine_config_pci_devices(&config), 11);
}

static void ports(void)
{
	CHECK_EQ(configure("--kernel k --console stdio"), 0);
	CHECK_EQ(config.serial.kind, PORT_NONE);
	CHECK_EQ(configure("--kernel k --console ./file"), 0);
	CHECK_EQ(config.console.kind, PORT_FILE);
	CHECK(refused("--kernel k --console stdio --serial stdio",
		      "--console stdio: --serial is stdio, too; write a path for one of them"));
	CHECK(refused("--kernel k --serial stdoi", "--serial: stdoi: unknown key, did you mean stdio?"));
}

static void memory_sizes(void)
{
	CHECK(refused("--kernel k --memory 0", "--memory 0: out of range; write a size from 1M to 1T"));
	CHECK(refused("--kernel k --memory 2T", "--memory 2T: out of range; write a size from 1M to 1T"));
	CHECK(refused("--kernel k --memory 1048577",
		      "--memory 1048577: not a multiple of the page size 4K; write 1M or 1028K"));
	CHECK(refused("--kernel k --memory 3M,hugepages=2M",
		      "--memory 3M: not a multiple of the page size 2M; write 2M or 4M"));
	CHECK(refused("--kernel k --memory 512M,hugepages=1G",
		      "--memory 512M: not a multiple of the page size 1G; write 1G or 1G"));
	CHECK_EQ(configure("--kernel k --memory 1T"), -EINVAL);
	CHECK(strstr(err.text, "--memory 1T: more than the host has; write less than "));
}

static void cpu_counts(void)
{
	CHECK(refused("--kernel k --cpus 0", "--cpus 0: out of range; write a number from 1 to 254"));
	CHECK(refused("--kernel k --cpus 255", "--cpus 255: out of range; write a number from 1 to 254"));
	CHECK(refused("--kernel k --cpu hots", "--cpu hots: unknown value, did you mean host?"));
}

static void names_and_ids(void)
{
	CHECK_EQ(configure("--kernel k --name a"), 0);
	CHECK_EQ(configure("--kernel k --name ../x"), -EINVAL);
	CHECK_EQ(configure("--kernel k --name .x"), -EINVAL);
	CHECK_EQ(configure("--kernel k --name a/b"), -EINVAL);
	CHECK_EQ(configure("--kernel k --name 123456789012345678901234567890123"), -EINVAL);
	CHECK(strstr(err.text, "--name 123456789012345678901234567890123: not a name; write 1 to 32 letters"));
	CHECK(refused("--kernel k --disk a,id=x --net passt,id=x",
		      "--net id=x: another device has this id; choose a different one"));
	CHECK(refused("--kernel k --disk a --disk b,id=disk0",
		      "--disk id=disk0: another device has this id; choose a different one"));
	CHECK_EQ(configure("--kernel k --disk a,id=a/b"), -EINVAL);
}

static void devices(void)
{
	char line[1024] = "--kernel k";

	for (int i = 0; i < 29; i++)
		strcat(line, " --disk a");
	CHECK_EQ(configure(line), 0);
	strcat(line, " --disk a");
	CHECK(refused(line, "31 devices: more than the 30 that fit on the bus; leave out some --disk, --net or --vfio"));
	CHECK(refused("--kernel k --net vhost=on", "--net vhost=on: does not say which kind; write "
		      "tap=NAME|passt[=SOCKET]|fd=N[,mac=MAC][,queues=N][,vhost=on|off][,link=on|off][,rx-bandwidth=RATE][,rx-packets=RATE]"
		      "[,tx-bandwidth=RATE][,tx-packets=RATE][,id=NAME]"));
	CHECK_EQ(configure("--kernel k --net passt,vhost=on"), -EINVAL);
	CHECK(refused("--kernel k --net fd=7,queues=2", "--net fd=7,queues=2: a descriptor has one queue; leave it out"));
	CHECK(refused("--kernel k --net fd=x", "--net fd=x: not a number; write one from 0 to 2147483647"));
	CHECK(refused("--kernel k --net fd=7,tap=t", "--net tap=t: cannot be combined with fd; leave one out"));
	CHECK_EQ(configure("--kernel k --net fd=7,link=off --net tap=t"), 0);
	CHECK(config.nets[0].kind == NET_FD && config.nets[0].fd == 7 && !config.nets[0].link);
	CHECK(config.nets[1].kind == NET_TAP && config.nets[1].fd == -1 && config.nets[1].link);
	CHECK_EQ(configure("--kernel k --net passt,queues=2"), -EINVAL);
	CHECK_EQ(configure("--kernel k --net tap=1234567890123456"), -EINVAL);
	CHECK_EQ(configure("--kernel k --disk a,serial=123456789012345678901"), -EINVAL);
	CHECK(refused("--kernel k --vfio backend=auto", "--vfio: no device; write --vfio BDF or --vfio fd=N"));
	CHECK(refused("--kernel k --vsock cid=2", "--vsock cid=2: out of range; write a number from 3 to 2147483647"));
	CHECK(refused("--kernel k --vsock socket=/x", "--vsock socket=/x: cid is missing; write cid=N[,socket=PATH]"));
}

/* A descriptor that was handed in leaves with its device: as long as it is open, the host does not get the device. */
static void devices_come_and_go(void)
{
	char line[100];
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	snprintf(line, sizeof(line), "--kernel k --vfio fd=%d,id=handed", fd);
	CHECK_EQ(configure(line), 0);
	CHECK_EQ(config_plug_add(&config, "vfio", "0000:01:00.0", &err), 0);
	CHECK_STR(config.vfios[1].id, "vfio0");
	CHECK_EQ(config_plug_add(&config, "vfio", "fd=0", &err), -EINVAL);
	CHECK_STR(err.text, "--vfio fd=0: only mvmm run takes descriptors; write the device's BDF");
	CHECK_EQ(config.vfio_count, 2);
	config_plug_remove(&config, "handed");
	CHECK_EQ(config.vfio_count, 1);
	CHECK(fcntl(fd, F_GETFD) < 0 && errno == EBADF);
	config_plug_remove(&config, "nobody");
	CHECK_EQ(config.vfio_count, 1);
}

/* As a control client writes it. */
static bool plugs(const char *option, const char *json, const char *says)
{
	json_t *item = json_loads(json, 0, NULL);

	CHECK(item);
	err.text[0] = 0;
	if (config_plug_add_json(&config, option, item, &err))
		CHECK_STR(err.text, says);
	json_decref(item);
	return !err.text[0];
}

static void disks_and_networks_come_and_go(void)
{
	CHECK_EQ(configure("--kernel k --cpus 2 --name web --disk root.img --net tap=t0"), 0);
	CHECK(plugs("disk", "{\"path\": \"/a,b\", \"readonly\": true}", ""));
	CHECK_STR(config.disks[1].id, "disk1");
	CHECK_STR(config.disks[1].path, "/a,b");
	CHECK_EQ(config.disks[1].queues, 2);
	CHECK_STR(config_plug_last(&config, "disk"), "disk1");
	CHECK(plugs("net", "{\"tap\": \"t1\", \"id\": \"out\"}", ""));
	CHECK_EQ(config.nets[1].queues, 1);
	CHECK(config.nets[1].mac[0] & 2);
	CHECK(!plugs("net", "{\"tap\": \"t2\", \"id\": \"disk1\"}",
		     "--net id=disk1: another device has this id; choose a different one"));
	CHECK(!plugs("disk", "{\"path\": \"/x\", \"redonly\": true}",
		     "disk: redonly: unknown key, did you mean readonly?"));
	CHECK(!plugs("disk", "[{\"path\": \"/x\"}, {\"path\": \"/y\"}]", "--disk: not one device"));
	CHECK(!plugs("disk", "{\"path\": \"/x\", \"serial\": \"123456789012345678901\"}",
		     "--disk serial=123456789012345678901: too long; write at most 20 characters"));
	CHECK_EQ(config.disk_count, 2);
	CHECK_EQ(config.net_count, 2);
	/* The number of a disk that is gone is free. */
	config_plug_remove(&config, "disk0");
	CHECK_EQ(config.disk_count, 1);
	CHECK_STR(config.disks[0].id, "disk1");
	CHECK(plugs("disk", "{\"path\": \"/c\"}", ""));
	CHECK_STR(config.disks[1].id, "disk0");
	config_plug_remove(&config, "out");
	CHECK_EQ(config.net_count, 1);
}

static void what_is_missing(void)
{
	CHECK(refused("", "--kernel is missing; write --kernel FILE"));
	CHECK(refused("--kernel k --quiet --verbose", "--quiet: cannot be combined with --verbose; leave one out"));
	CHECK(refused("--memry 5", "--memry: unknown option, did you mean --memory?"));
	CHECK_EQ(configure("--kernel k --quiet"), 0);
	CHECK_EQ(report_options_level(&config.report, config.verbose, config.quiet), LOG_ERROR);
}

/* Members that are no option included. */
static void begins_the_same_whatever_was_there(void)
{
	machine_config_done(&config);
	memset(&config, 0x7f, sizeof(config));
	machine_config_init(&config);
	CHECK_EQ(*(uint8_t *)&config.incoming + *(uint8_t *)&config.force_cpu, 0);
	CHECK_EQ(machine_config_finish(&config, &err), -EINVAL);
	CHECK_STR(err.text, "--kernel is missing; write --kernel FILE");
}

static struct token_bucket_limit limit_of(const struct rate *rate)
{
	return number_rate_limit(rate);
}

static void limits_are_rates(void)
{
	struct token_bucket_limit limit;

	CHECK_EQ(configure("--kernel k --disk d,bandwidth=10M,ops=500+2000 --disk e,bandwidth=50M/2s+1G,ops=off "
			   "--net tap=t,rx-bandwidth=1M,tx-packets=5/1ms --rng ops=3 --serial stdio,bandwidth=1K"), 0);
	limit = limit_of(&config.disks[0].bandwidth);
	CHECK(limit.size == MIB(1) && !limit.burst && limit.refill_ns == 100000000);
	limit = limit_of(&config.disks[0].ops);
	CHECK(limit.size == 50 && limit.burst == 2000 && limit.refill_ns == 100000000);
	limit = limit_of(&config.disks[1].bandwidth);
	CHECK(limit.size == MIB(50) && limit.burst == GIB(1) && limit.refill_ns == 2000000000);
	CHECK(!config.disks[1].ops.amount && config.disks[1].ops.given);
	limit = limit_of(&config.nets[0].rx_bandwidth);
	CHECK(limit.size == MIB(1) / 10 && limit.refill_ns == 99999427); /* of whole bytes */
	limit = limit_of(&config.nets[0].tx_packets);
	CHECK(limit.size == 5 && limit.refill_ns == 1000000);
	CHECK_EQ(limit_of(&config.nets[0].rx_packets).size, 0);
	limit = limit_of(&config.rng.ops);
	CHECK(limit.size == 1 && limit.refill_ns == 333333333);
	CHECK_EQ(config.serial.bandwidth.amount, KIB(1));
}

static void bad_rates_are_refused(void)
{
#define BYTES "not a rate; write 10M for that much a second, 10M/TIME, or off; +1G after it is for once"
	CHECK(refused("--kernel k --disk d,bandwidth=fast", "--disk bandwidth=fast: " BYTES));
	CHECK(refused("--kernel k --disk d,bandwidth=1M+", "--disk bandwidth=1M+: " BYTES));
	CHECK(refused("--kernel k --disk d,bandwidth=/1s", "--disk bandwidth=/1s: " BYTES));
	CHECK(refused("--kernel k --disk d,bandwidth=0", "--disk bandwidth=0: out of range; write a size from 1 to 1024T"));
	CHECK(refused("--kernel k --disk d,bandwidth=1M/2", "--disk bandwidth=1M/2: not a time; write a number followed by us, "
		      "ms, s, m or h"));
	CHECK(refused("--kernel k --disk d,bandwidth=1M/1us", "--disk bandwidth=1M/1us: out of range; write a time from 1ms to "
		      "1h"));
	CHECK(refused("--kernel k --disk d,ops=many", "--disk ops=many: not a rate; write 100 for that many a second, 100/TIME, "
		      "or off; +500 after it is for once"));
	CHECK(refused("--kernel k --disk d,ops=1K", "--disk ops=1K: not a number; write one from 1 to 1000000000"));
	CHECK(refused("--kernel k --disk d,ops", "--disk ops: needs a value; write ops=100"));
	CHECK(refused("--kernel k --net tap=t,vhost=on,tx-bandwidth=1M", "--net t,vhost=on: the kernel moves its packets and "
		      "knows no limits; leave out vhost=on or the limits"));
}

/* As SetLimits does it. */
static int set(const char *id, const char *text, struct machine_limits *ret)
{
	err.text[0] = 0;
	return machine_config_set_limits(&config, id, text, ret, &err);
}

static void limits_change_one_by_one(void)
{
	struct machine_limits limits;

	CHECK_EQ(configure("--kernel k --disk d,bandwidth=10M+5M,ops=500 --net tap=t"), 0);
	machine_config_limits(&config, "disk0", &limits);
	CHECK(limits.count == 2 && !limits.limits[0].ops && limits.limits[1].ops);
	machine_config_limits(&config, "net0", &limits);
	CHECK_EQ(limits.count, 0);
	CHECK_EQ(set("disk0", "ops=700", &limits), 0);
	CHECK(limits.count == 1 && limits.limits[0].ops && limits.limits[0].limit.size == 70);
	CHECK(config.disks[0].ops.amount == 700 && config.disks[0].bandwidth.amount == MIB(10));
	CHECK_EQ(set("net0", "tx-bandwidth=1M,rx-packets=off", &limits), 0);
	CHECK(limits.count == 2);
	for (size_t i = 0; i < 2; i++)
		CHECK_EQ(limits.limits[i].index, !limits.limits[i].ops);
	CHECK_EQ(set("rng", "bandwidth=1M", &limits), 0);
	CHECK_EQ(set("serial", "bandwidth=1M", &limits), 0);
	CHECK_EQ(config.serial.bandwidth.amount, MIB(1));
	CHECK_EQ(config.serial.kind, PORT_STDIO);
}

static void bad_changes_change_nothing(void)
{
	struct machine_limits limits;

	CHECK_EQ(configure("--kernel k --disk d,bandwidth=10M --net tap=t,vhost=on"), 0);
	CHECK_EQ(set("disk1", "ops=700", &limits), -ENODEV);
	CHECK_STR(err.text, "disk1: no disk or network card has this id; mvmm info lists them");
	CHECK_EQ(set("disk0", "bandwidth=1M,ops=x", &limits), -EINVAL);
	CHECK_EQ(config.disks[0].bandwidth.amount, MIB(10));
	CHECK_EQ(set("disk0", "readonly=on", &limits), -EINVAL);
	CHECK_STR(err.text, "disk0: readonly: unknown limit; write one of bandwidth=RATE, ops=RATE");
	CHECK_EQ(set("disk0", "bandwith=1M", &limits), -EINVAL);
	CHECK_STR(err.text, "disk0: bandwith: unknown limit, did you mean bandwidth?");
	CHECK_EQ(set("disk0", "ops=1,ops=2", &limits), -EINVAL);
	CHECK_EQ(set("disk0", "ops", &limits), -EINVAL);
	CHECK_STR(err.text, "disk0: ops: needs a value; write ops=100");
	CHECK_EQ(set("disk0", "", &limits), -EINVAL);
	CHECK_EQ(set("net0", "tx-bandwidth=1M", &limits), -EINVAL);
	CHECK_STR(err.text, "net0: the kernel moves its packets (vhost=on) and knows no limits");
}

TEST_MAIN(TEST(begins_the_same_whatever_was_there), TEST(defaults), TEST(everything_at_once), TEST(ports),
	  TEST(memory_sizes), TEST(cpu_counts),
	  TEST(names_and_ids), TEST(devices), TEST(devices_come_and_go), TEST(disks_and_networks_come_and_go), TEST(what_is_missing),
	  TEST(limits_are_rates), TEST(bad_rates_are_refused), TEST(limits_change_one_by_one), TEST(bad_changes_change_nothing))
