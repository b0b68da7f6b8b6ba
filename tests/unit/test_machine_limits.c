/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/machine/machine_limits: the devices get the limits of their configuration, and a reboot what is left of the bursts. */
#include "tests/unit/state_devices.h"
#include "tests/unit/test.h"
#include "vmm/config/config_json.h"
#include "vmm/machine/machine_internal.h"

#define SECOND 1000000000ull
#define KIND_DISK 3u

static struct state_devices d;
static struct machine machine;
static struct machine_config config;
static void set_line(struct irq_line *of, bool level)
{
}

static const struct irq_line_ops line_ops = {.set = set_line};
static struct irq_line line = {.ops = &line_ops};
static int out[2];

/* A machine that has a disk and a serial port. */
static void begin(void)
{
	static const char *const words[] = {"--kernel", "k", "--disk", "x,id=disk,ops=50/1s+100,bandwidth=1M/1h+4K", "--serial",
					    "stdio,bandwidth=10/1h+30"};
	struct err err;

	machine_config_init(&config);
	CHECK_EQ(options_parse(&machine_options, &config, ARRAY_SIZE(words), (char *const *)words, NULL, 0, &err), 0);
	CHECK_EQ(machine_config_finish(&config, &err), 0);
	CHECK_EQ(pipe(out), 0);
	state_devices_open(&d);
	state_devices_make(&d, KIND_DISK);
	machine = (struct machine){.config = &config, .virtio = {d.pci}, .virtio_count = 1, .pio = bus_create()};
	CHECK_EQ(serial_create(machine.pio, 0x3f8, &line, -1, out[1], d.loop, NULL, &machine.serial, &err), 0);
	CHECK_EQ(machine_limits_begin(&machine, &err), 0);
}

static void destroy_serial(void *opaque)
{
	serial_destroy(machine.serial);
}

static void end(void)
{
	event_loop_call(d.loop, destroy_serial, NULL);
	bus_destroy(machine.pio);
	state_devices_close(&d);
	close(out[0]);
	close(out[1]);
	machine_config_done(&config);
}

static struct rate_limiter *limiter(void)
{
	struct virtio_device *device = virtio_transport_device(d.pci);

	return device->ops->limiter(device, 0);
}

static void print(const char *text)
{
	for (; *text; text++)
		bus_write(machine.pio, 0x3f8, text, 1);
}

static void devices_get_the_limits_of_their_configuration(void)
{
	begin();
	CHECK_EQ(limiter()->ops.limit.size, 50);
	CHECK_EQ(limiter()->ops.limit.burst, 100);
	CHECK_EQ(limiter()->bytes.limit.refill_ns, 3600 * SECOND);
	end();
}

static void a_change_is_of_what_it_names(void)
{
	struct machine_limits limits;
	struct err err;

	begin();
	rate_limiter_charge_at(limiter(), 500, 0, monotonic_ns());
	CHECK_EQ(machine_config_set_limits(&config, "disk", "ops=7/1s", &limits, &err), 0);
	machine_set_limits(&machine, "disk", &limits);
	CHECK_EQ(limiter()->ops.limit.size, 7);
	CHECK_EQ(limiter()->bytes.burst, KIB(4) - 500);
	machine_set_limits(&machine, "nothing", &limits);
	end();
}

/* Twice, because the second life has only the rest. */
static void a_reboot_leaves_the_rest_of_the_bursts(void)
{
	char text[64];
	struct err err;

	begin();
	rate_limiter_charge_at(limiter(), 1000, 30, monotonic_ns());
	print("0123456789");
	CHECK_EQ(read(out[0], text, sizeof(text)), 10);
	machine_keep_bursts(&machine, &config);
	CHECK_EQ(config.disks[0].bandwidth.burst, KIB(4) - 1000);
	CHECK_EQ(config.disks[0].ops.burst, 70);
	CHECK_EQ(config.serial.bandwidth.burst, 20);
	CHECK_EQ(machine_limits_begin(&machine, &err), 0);
	rate_limiter_charge_at(limiter(), 10000, 100, monotonic_ns());
	machine_keep_bursts(&machine, &config);
	CHECK_EQ(config.disks[0].bandwidth.burst, 0);
	CHECK_EQ(config.disks[0].ops.burst, 0);
	CHECK_EQ(config.disks[0].ops.amount, 50);
	end();
}

static void info_shows_them(void)
{
	json_t *object = json_object();

	begin();
	machine_config_print_limits(&config, "disk", object);
	CHECK_STR(json_string_value(json_object_get(object, "ops")), "50/1s+100");
	CHECK_STR(json_string_value(json_object_get(object, "bandwidth")), "1M/1h+4K");
	CHECK_EQ(json_object_size(object), 2);
	machine_config_print_limits(&config, "nothing", object);
	CHECK_EQ(json_object_size(object), 2);
	json_decref(object);
	end();
}

TEST_MAIN(TEST(devices_get_the_limits_of_their_configuration), TEST(a_change_is_of_what_it_names),
	  TEST(a_reboot_leaves_the_rest_of_the_bursts), TEST(info_shows_them))
