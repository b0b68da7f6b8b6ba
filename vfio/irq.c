/* SPDX-License-Identifier: Apache-2.0 */
/* See irq.h. */
#include "vfio/irq.h"

#define MAX_FDS 2048u

void vfio_irq_get(const struct vfio_device *device, uint32_t index, struct vfio_irq *ret)
{
	struct vfio_irq_info info = {.argsz = sizeof(info), .index = index};

	*ret = (struct vfio_irq){0};
	if (index < device->num_irqs && vfio_sys_ioctl(device->sys, device->fd, VFIO_DEVICE_GET_IRQ_INFO, &info) >= 0)
		*ret = (struct vfio_irq){.flags = info.flags, .count = info.count};
}

static int vfio_irq_set(const struct vfio_device *device, uint32_t index, uint32_t flags, uint32_t start,
			uint32_t count, const int *fds)
{
	size_t payload = fds ? count * sizeof(int32_t) : 0;
	struct vfio_irq_set *arg;
	int ret;

	if (fds && count > MAX_FDS)
		return -E2BIG;
	arg = calloc(1, sizeof(*arg) + payload);
	if (!arg)
		return -ENOMEM;
	arg->argsz = (uint32_t)(sizeof(*arg) + payload);
	arg->flags = flags;
	arg->index = index;
	arg->start = start;
	arg->count = count;
	if (fds)
		memcpy(arg->data, fds, payload);
	ret = vfio_sys_ioctl(device->sys, device->fd, VFIO_DEVICE_SET_IRQS, arg);
	free(arg);
	return ret;
}

int vfio_irq_trigger(const struct vfio_device *device, uint32_t index, uint32_t start, uint32_t count, const int *fds)
{
	return vfio_irq_set(device, index, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, start, count, fds);
}

int vfio_irq_disable(const struct vfio_device *device, uint32_t index)
{
	return vfio_irq_set(device, index, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER, 0, 0, NULL);
}

int vfio_irq_unmask(const struct vfio_device *device, uint32_t index)
{
	return vfio_irq_set(device, index, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK, 0, 1, NULL);
}

int vfio_irq_unmask_by(const struct vfio_device *device, uint32_t index, int fd)
{
	return vfio_irq_set(device, index, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_UNMASK, 0, 1, &fd);
}
