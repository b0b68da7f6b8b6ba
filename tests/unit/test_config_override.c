/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/config/config_override: what a target host or a restore replaces in a configuration, and what stays. */
#include "tests/unit/test.h"
#include "vmm/config/config.h"

static struct machine_config config;
static struct err err;

static void begin(void)
{
	static const char *const words[] = {"--kernel", "k", "--net", "tap=tap0,mac=02:00:00:00:00:01,queues=2,vhost=on,id=n",
			 "--net", "passt=/run/p,id=p", "--vsock", "cid=5,socket=/run/v", "--name", "m"};

	machine_config_done(&config);
	machine_config_init(&config);
	CHECK_EQ(options_parse(&machine_options, &config, ARRAY_SIZE(words), (char *const *)words, NULL, 0, &err), 0);
	CHECK_EQ(machine_config_finish(&config, &err), 0);
	err.text[0] = 0;
}

static void end(void)
{
	machine_config_done(&config);
}

static void expect_mac(size_t net, uint8_t last, bool is_new)
{
	CHECK_EQ(config.nets[net].mac[5], last);
	CHECK_EQ(config.nets[net].new_mac, is_new);
}

static void a_network_card_keeps_its_address(void)
{
	begin();
	CHECK_EQ(machine_config_override(&config, "net", "n=tap=tap7", &err), 0);
	CHECK_STR(config.nets[0].target, "tap7");
	CHECK(config.nets[0].queues == 2 && !config.nets[0].vhost);
	expect_mac(0, 1, false);
	CHECK_EQ(machine_config_override(&config, "net", "n=passt", &err), 0);
	CHECK(config.nets[0].kind == NET_PASST && !config.nets[0].target);
	expect_mac(0, 1, false);
	end();
}

static void another_address_can_be_given(void)
{
	begin();
	CHECK_EQ(machine_config_override(&config, "net", "n=tap=tap7,mac=02:00:00:00:00:09", &err), 0);
	CHECK_STR(config.nets[0].target, "tap7");
	expect_mac(0, 9, true);
	/* and nothing but that */
	CHECK_EQ(machine_config_override(&config, "net", "p=mac=02:00:00:00:00:0a", &err), 0);
	CHECK(config.nets[1].kind == NET_PASST && config.nets[1].target);
	CHECK_STR(config.nets[1].target, "/run/p");
	expect_mac(1, 0xa, true);
	CHECK_EQ(machine_config_override(&config, "net", "p=mac=03:00:00:00:00:0a", &err), -EINVAL);
	CHECK(strstr(err.text, "--net mac=03:00:00:00:00:0a"));
	CHECK_EQ(machine_config_override(&config, "net", "p=mac=02:00:00:00:00:0a,vhost=on", &err), -EINVAL);
	CHECK_EQ(machine_config_override(&config, "net", "x=mac=02:00:00:00:00:0a", &err), -EINVAL);
	CHECK_STR(err.text, "--net x: the machine has no net with this id; it has n, p");
	end();
}

static void vsock_is_replaced_in_parts(void)
{
	static const struct {
		const char *text, *socket;
		unsigned int cid;
		bool named;
	} cases[] = {
		{"/run/w", "/run/w", 5, true}, {"kernel", NULL, 5, true}, {"cid=9", "/run/v", 9, false},
		{"cid=9,socket=/run/w", "/run/w", 9, true}, {"cid=9,kernel", NULL, 9, true},
		{"socket=/run/w", "/run/w", 5, true}, {"/run/a,cid=9", "/run/a,cid=9", 5, true},
	};
	static const char *const bad[] = {"", "cid=2", "cid=", "cid=x", "cid=9,socket=", "cid=9,kernel,socket=/a", "cid=9,a"};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		begin();
		CHECK_EQ(machine_config_override(&config, "vsock", cases[i].text, &err), 0);
		CHECK_EQ(config.vsock.cid, cases[i].cid);
		CHECK_EQ(config.vsock.named, cases[i].named);
		CHECK_EQ(!config.vsock.socket, !cases[i].socket);
		if (cases[i].socket)
			CHECK_STR(config.vsock.socket, cases[i].socket);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		begin();
		CHECK_EQ(machine_config_override(&config, "vsock", bad[i], &err), -EINVAL);
		CHECK(strstr(err.text, "--vsock"));
		CHECK(config.vsock.cid == 5 && strcmp(config.vsock.socket, "/run/v") == 0);
	}
	begin();
	config.vsock.cid = 0;
	CHECK_EQ(machine_config_override(&config, "vsock", "cid=9", &err), -EINVAL);
	CHECK_STR(err.text, "--vsock cid=9: the machine has no vsock");
	end();
}

static void the_clock_can_be_chosen_anew(void)
{
	begin();
	CHECK_EQ(machine_config_override(&config, "clock", "run", &err), 0);
	CHECK_EQ(config.clock, CLOCK_RUN);
	CHECK_EQ(machine_config_override(&config, "clock", "stop", &err), 0);
	CHECK_EQ(config.clock, CLOCK_STOP);
	CHECK_EQ(machine_config_override(&config, "clock", "fast", &err), -EINVAL);
	CHECK_EQ(machine_config_override(&config, "memory", "1G", &err), -EINVAL);
	CHECK_STR(err.text, "--memory: cannot be changed for a machine that comes from elsewhere");
	end();
}

static void the_path_of_a_disk_is_found_among_its_keys(void)
{
	static const struct {
		const char *text, *path;
	} cases[] = {
		{"root=/a", "/a"}, {"root=path=/a", "/a"}, {"root=direct=on,path=/a", "/a"}, {"root=/a,,b,direct=on", "/a,b"},
		{"root", NULL}, {"=/a", NULL}, {"root=", NULL}, {"root=direct=on", NULL}, {"root=/a,none=on", NULL},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_(free_ptr) char *path = NULL;

		CHECK_EQ(machine_config_override_path(cases[i].text, &path, &err), cases[i].path ? 0 : -EINVAL);
		CHECK(!cases[i].path == !path);
		if (path && cases[i].path)
			CHECK_STR(path, cases[i].path);
	}
}

static void limits_stay_unless_others_are_given(void)
{
	static const char *const words[] = {"--kernel", "k", "--disk", "d,bandwidth=1M,ops=5", "--net", "tap=t,rx-packets=7",
					    "--serial", "file=s,bandwidth=1K"};

	machine_config_done(&config);
	machine_config_init(&config);
	CHECK_EQ(options_parse(&machine_options, &config, ARRAY_SIZE(words), (char *const *)words, NULL, 0, &err), 0);
	CHECK_EQ(machine_config_finish(&config, &err), 0);
	CHECK_EQ(machine_config_override(&config, "disk", "disk0=e,bandwidth=off", &err), 0);
	CHECK(!config.disks[0].bandwidth.amount && config.disks[0].ops.amount == 5);
	CHECK_EQ(machine_config_override(&config, "net", "net0=tap=u,tx-bandwidth=3M", &err), 0);
	CHECK(config.nets[0].rx_packets.amount == 7 && config.nets[0].tx_bandwidth.amount == MIB(3));
	CHECK_EQ(machine_config_override(&config, "serial", "stdio", &err), 0);
	CHECK(config.serial.kind == PORT_STDIO && config.serial.bandwidth.amount == KIB(1));
	CHECK_EQ(machine_config_override(&config, "serial", "stdio,bandwidth=off", &err), 0);
	CHECK_EQ(config.serial.bandwidth.amount, 0);
	end();
}

TEST_MAIN(TEST(the_path_of_a_disk_is_found_among_its_keys), TEST(a_network_card_keeps_its_address), TEST(another_address_can_be_given),
	  TEST(vsock_is_replaced_in_parts), TEST(the_clock_can_be_chosen_anew),
	  TEST(limits_stay_unless_others_are_given))
