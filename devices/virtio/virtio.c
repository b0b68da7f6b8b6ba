/* SPDX-License-Identifier: Apache-2.0 */
/* See virtio.h: the common part of virtio devices. */
#include "devices/virtio/virtio.h"

#include "core/irq.h"

#include <sys/eventfd.h>

static void virtio_queue_notify(struct virtqueue *vq)
{
	vq->device->transport->notify_queue(vq->device, vq->index);
}

static void virtio_queue_broken(struct virtqueue *vq, const char *why)
{
	virtio_device_broken(vq->device, why);
}

static const struct virtqueue_ops queue_ops = {.notify = virtio_queue_notify, .broken = virtio_queue_broken};

static int virtio_init_queue(struct virtio_device *device, uint16_t index, uint16_t max_size, struct err *err)
{
	struct virtqueue *vq = &device->queues[index];

	if (!is_power_of_two(max_size) || max_size > VIRTQUEUE_MAX_SIZE)
		return err_set(err, -EINVAL, "%s: queue %u cannot have %u entries", device->id, index, max_size);
	vq->index = index;
	vq->ops = &queue_ops;
	vq->device = device;
	vq->id = device->id;
	vq->setup.size = vq->max_size = max_size;
	vq->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (vq->kick_fd < 0)
		return err_sys(err, -errno, "%s: eventfd", device->id);
	return 0;
}

int virtio_device_init(struct virtio_device *device, const struct virtio_device_ops *ops, const char *id, uint16_t type,
		       unsigned int queue_count, const uint16_t *max_size, struct guest_memory *memory,
		       const struct log *log, struct err *err)
{
	if (queue_count > VIRTIO_MAX_QUEUES)
		return err_set(err, -EINVAL, "%s: %u queues; at most %u", id, queue_count, VIRTIO_MAX_QUEUES);
	device->ops = ops;
	device->type = type;
	device->offered |= 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_INDIRECT_DESC |
			   1ull << VIRTIO_RING_F_EVENT_IDX;
	device->memory = memory;
	device->log = log;
	device->id = strdup(id);
	device->queues = calloc(queue_count, sizeof(*device->queues));
	if (!device->id || !device->queues) {
		free(take_ptr(device->queues));
		free(take_ptr(device->id));
		return err_sys(err, -ENOMEM, "%s", id);
	}
	pthread_mutex_init(&device->lock, NULL);
	for (; device->queue_count < queue_count; device->queue_count++) {
		uint16_t index = (uint16_t)device->queue_count;
		int ret = virtio_init_queue(device, index, max_size[index], err);

		if (ret < 0) {
			virtio_device_done(device);
			return ret;
		}
	}
	return 0;
}

void virtio_device_done(struct virtio_device *device)
{
	if (!device->queues)
		return;
	for (unsigned int i = 0; i < device->queue_count; i++)
		fd_close(&device->queues[i].kick_fd);
	free(take_ptr(device->queues));
	free(take_ptr(device->id));
	device->queue_count = 0;
	pthread_mutex_destroy(&device->lock);
}

struct virtqueue_counts virtio_device_counts(const struct virtio_device *device, unsigned int queue)
{
	const struct virtqueue_counts *counts = &device->queues[queue].counts;

	return (struct virtqueue_counts){
		.chains = counter_read(&counts->chains),
		.kicks = counter_read(&counts->kicks),
		.interrupts = counter_read(&counts->interrupts),
	};
}

void virtio_device_config_changed(struct virtio_device *device)
{
	device->config_generation++;
	if (device->transport)
		device->transport->notify_config(device);
}

void virtio_device_broken(struct virtio_device *device, const char *why)
{
	if (__atomic_exchange_n(&device->broken, true, __ATOMIC_SEQ_CST))
		return;
	log_error(device->log, "%s: the guest must reset it: %s", device->id, why);
	if (device->transport)
		device->transport->notify_config(device);
}

int virtio_device_set_limit(struct virtio_device *device, unsigned int index, const struct token_bucket_limit *bytes,
			    const struct token_bucket_limit *ops)
{
	struct rate_limiter *limiter = device->ops->limiter ? device->ops->limiter(device, index) : NULL;

	if (!limiter)
		return -ENOTSUP;
	rate_limiter_set(limiter, bytes, ops, monotonic_ns());
	for (unsigned int i = 0; i < device->queue_count; i++)
		eventfd_kick(device->queues[i].kick_fd);
	return 0;
}

void virtio_device_run_limits(struct virtio_device *device, bool run)
{
	struct rate_limiter *limiter;

	for (unsigned int i = 0; (limiter = device->ops->limiter(device, i)); i++)
		if (run)
			rate_limiter_resume(limiter, monotonic_ns());
		else
			rate_limiter_pause(limiter, monotonic_ns());
}

void virtio_config_copy(const void *config, size_t size, unsigned int offset, void *data, unsigned int len)
{
	memset(data, 0, len);
	if (offset < size)
		memcpy(data, (const char *)config + offset, MIN(len, size - offset));
}
