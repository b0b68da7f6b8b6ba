/* SPDX-License-Identifier: Apache-2.0 */
/* See transport_fuzz.h. */
#include "tests/fuzz/transport_fuzz.h"

#include "core/state.h"

#define RAM KIB(256)

static struct {
	struct virtio_device device;
	bool active, running;
} checker;

static const struct transport_fuzz *fuzz;
static struct virtio_transport *transport;
static struct virtio_driver *memory;

/* ---- the device ---- */

static void config_read(struct virtio_device *device, unsigned int offset, void *data, unsigned int len)
{
	static const uint8_t config[12];

	virtio_config_copy(config, sizeof(config), offset, data, len);
}

static void config_write(struct virtio_device *device, unsigned int offset, const void *data, unsigned int len)
{
	MUST(offset + len <= device->config_size);
}

static void pop_some(struct virtio_device *device)
{
	static struct virtq_chain chain;

	for (unsigned int i = 0; i < device->queue_count; i++) {
		struct virtqueue *vq = &device->queues[i];

		for (unsigned int n = 0; vq->setup.enabled && n < 8 && virtqueue_pop(vq, &chain) == 1; n++)
			virtqueue_push(vq, &chain, chain.in_bytes);
		if (vq->setup.enabled)
			virtqueue_notify(vq);
	}
}

static int activate(struct virtio_device *device, struct err *err)
{
	MUST(!checker.active && !(device->features & ~device->offered) && virtio_has(device, VIRTIO_F_VERSION_1));
	checker.active = checker.running = true;
	MUST(device->transport->call_fd(device, 0) >= 0);
	pop_some(device);
	return 0;
}

static int prepare(struct virtio_device *device, struct err *err)
{
	MUST(!checker.active && !(device->features & ~device->offered) && virtio_has(device, VIRTIO_F_VERSION_1));
	checker.active = true;
	return 0;
}

static void reset(struct virtio_device *device)
{
	MUST(checker.active);
	checker.active = checker.running = false;
}

static int drain(struct virtio_device *device, int64_t deadline, struct err *err)
{
	MUST(checker.active && checker.running);
	checker.running = false;
	return 0;
}

static void resume(struct virtio_device *device)
{
	MUST(checker.active && !checker.running);
	checker.running = true;
	pop_some(device);
}

static void destroy(struct virtio_device *device)
{
}

static const struct virtio_device_ops ops = {
	.config_read = config_read,
	.config_write = config_write,
	.activate = activate,
	.prepare = prepare,
	.reset = reset,
	.drain = drain,
	.resume = resume,
	.destroy = destroy,
};

const struct virtio_device *transport_fuzz_open(void)
{
	static const uint16_t sizes[TRANSPORT_FUZZ_QUEUES] = {8, 64, 1024};

	memory = driver_create(RAM, false);
	checker.device.config_size = 12;
	MUST(virtio_device_init(&checker.device, &ops, "checker0", 42, TRANSPORT_FUZZ_QUEUES, sizes, memory->memory, NULL,
				NULL) == 0);
	return &checker.device;
}

/* ---- what happens to it ---- */

static void plug(void)
{
	transport = fuzz->plug(&checker.device);
}

static void unplug(void)
{
	virtio_transport_destroy(transport);
	MUST(!checker.active);
	fuzz->unplugged();
}

/* To another machine with the same memory; what & 32: by a record with some other bytes. */
static void move(struct input *in, uint8_t what)
{
	struct state_buffer state = {0};

	MUST(virtio_transport_drain(transport, VIRTIO_NO_DEADLINE, NULL) == 0);
	MUST(virtio_transport_save(transport, &state, NULL) == 0);
	for (unsigned int i = what & 32 ? 1 + (what >> 6) : 0; i; i--)
		state.data[take(in, 2) % state.len] = (uint8_t)take(in, 1);
	unplug();
	plug();
	/* A ring may have changed since, too. The device then only ends. */
	if (virtio_transport_load(transport, state.data, state.len, NULL) < 0) {
		checker.active = checker.device.active;
		unplug();
		plug();
	}
	state_buffer_free(&state);
}

static void write_memory(struct input *in)
{
	unsigned int offset = (unsigned int)take(in, 2) % (RAM - 8);
	uint64_t value = take(in, 8);

	memcpy(driver_at(memory, DRIVER_RAM_BASE + offset), &value, 8);
}

static void act(struct input *in)
{
	uint8_t what = (uint8_t)take(in, 1);

	switch (what & 15) {
	case 8:
		move(in, what);
		break;
	case 9:
		if (what & 16)
			MUST(virtio_transport_drain(transport, VIRTIO_NO_DEADLINE, NULL) == 0);
		else
			virtio_transport_resume(transport);
		break;
	case 10:
		unplug();
		plug();
		break;
	case 11:
		checker.device.transport->notify_queue(&checker.device, what >> 4 & 1);
		break;
	case 12:
		pthread_mutex_lock(&checker.device.lock);
		virtio_device_config_changed(&checker.device);
		pthread_mutex_unlock(&checker.device.lock);
		break;
	case 13:
		virtio_device_broken(&checker.device, "told so");
		break;
	case 14:
	case 15:
		write_memory(in);
		break;
	default:
		fuzz->access(in, what);
	}
	MUST(checker.active == checker.device.active);
	fuzz->check();
}

void transport_fuzz_run(const struct transport_fuzz *of, const uint8_t *data, size_t size)
{
	struct input in = {data, size};

	fuzz = of;
	plug();
	while (in.left)
		act(&in);
	unplug();
	memset(memory->ram.host, 0, memory->ram.size);
}
