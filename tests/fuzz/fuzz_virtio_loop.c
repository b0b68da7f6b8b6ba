/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The devices that share an event loop: entropy, console, balloon. The first byte of an input chooses one. They run on
 * their loop's thread as they do in a machine, so resets and pauses come in the middle of their work.
 */
#include "core/event_loop.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/virtio_fuzz.h"

#include <fcntl.h>
#include <stdio.h>

static struct event_loop *loop;
static struct virtio_fuzz devices[3];
static int keyboard; /* the console's input */

static void must(bool ok)
{
	if (ok)
		return;
	fprintf(stderr, "cannot be set up\n");
	abort();
}

static void settle(void *opaque)
{
	driver_settle(loop);
}

static void type(void *opaque, uint8_t what)
{
	if (write(keyboard, "0123456789", what % 11) < 0) {
		/* It is full. */
	}
}

static void squeeze(void *opaque, uint8_t what)
{
	struct virtio_driver *driver = opaque;
	struct virtio_balloon_stats stats;

	if (what & 1)
		virtio_balloon_set_target(driver->device, (uint64_t)what << 20);
	else
		virtio_balloon_get_stats(driver->device, &stats);
}

static void attach(struct virtio_fuzz *fuzz, struct virtio_device *device)
{
	fuzz->opaque = fuzz->driver;
	fuzz->settle = settle;
	must(driver_attach(fuzz->driver, device, DRIVER_ALL_FEATURES) == 0);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct virtio_device *device;
	int in[2], out = open("/dev/null", O_WRONLY | O_CLOEXEC);

	must(event_loop_create(&loop, NULL) == 0 && event_loop_start(loop, "devices", NULL) == 0);
	must(out >= 0 && pipe2(in, O_CLOEXEC | O_NONBLOCK) == 0);
	keyboard = in[1];
	for (size_t i = 0; i < ARRAY_SIZE(devices); i++)
		devices[i].driver = driver_create(MIB(1), false);
	must(virtio_rng_create("rng0", devices[0].driver->memory, loop, NULL, &device, NULL) == 0);
	attach(&devices[0], device);
	must(virtio_console_create("console0", &in[0], &out, devices[1].driver->memory, loop, NULL, &device, NULL) == 0);
	attach(&devices[1], device);
	devices[1].poke = type;
	must(virtio_balloon_create("balloon0", devices[2].driver->memory, loop, NULL, &device, NULL) == 0);
	attach(&devices[2], device);
	devices[2].poke = squeeze;
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size)
		virtio_fuzz_run(&devices[data[0] % ARRAY_SIZE(devices)], data + 1, size - 1);
	return 0;
}
