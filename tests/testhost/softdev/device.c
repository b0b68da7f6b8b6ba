// SPDX-License-Identifier: GPL-2.0
/*
 * softdev as VFIO shows it: a PCI function (config region, BAR0, one MSI vector) that can be opened, reset and closed,
 * and its knobs in sysfs.
 */
#include <linux/eventfd.h>
#include <linux/module.h>
#include <linux/pci_regs.h>
#include <linux/platform_device.h>
#include <linux/unaligned.h>
#include <linux/vmalloc.h>

#include "softdev.h"

#define REGION_SHIFT 40
#define REGION_MASK ((1ull << REGION_SHIFT) - 1)
#define MAX_STORE SZ_1G

static struct softdev *to_softdev(struct vfio_device *vdev)
{
	return container_of(vdev, struct softdev, vdev);
}

/* ---- Config space ---- */

static void reset_config(struct softdev *sd)
{
	u8 *c = sd->config;

	memset(c, 0, sizeof(sd->config));
	put_unaligned_le16(SOFTDEV_VENDOR, c + PCI_VENDOR_ID);
	put_unaligned_le16(SOFTDEV_DEVICE, c + PCI_DEVICE_ID);
	put_unaligned_le16(PCI_STATUS_CAP_LIST, c + PCI_STATUS);
	c[PCI_REVISION_ID] = 1;
	c[PCI_CLASS_DEVICE + 1] = 0xff; /* of no class */
	put_unaligned_le16(SOFTDEV_VENDOR, c + PCI_SUBSYSTEM_VENDOR_ID);
	put_unaligned_le16(1, c + PCI_SUBSYSTEM_ID);
	c[PCI_CAPABILITY_LIST] = SOFTDEV_MSI_CAP;
	c[SOFTDEV_MSI_CAP] = PCI_CAP_ID_MSI;
	c[SOFTDEV_MSI_CAP + PCI_MSI_FLAGS] = PCI_MSI_FLAGS_64BIT;
}

/* Which bits of a byte of config space can be written. */
static u8 config_mask(unsigned int at)
{
	static const struct { u8 at, len; u32 mask; } fields[] = {
		{PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE},
		{PCI_CACHE_LINE_SIZE, 2, 0xffff},
		{PCI_BASE_ADDRESS_0, 4, ~(u32)(SOFTDEV_BAR_SIZE - 1)},
		{PCI_INTERRUPT_LINE, 1, 0xff},
		{SOFTDEV_MSI_CAP + PCI_MSI_FLAGS, 2, PCI_MSI_FLAGS_ENABLE},
		{SOFTDEV_MSI_CAP + PCI_MSI_ADDRESS_LO, 4, ~3u},
		{SOFTDEV_MSI_CAP + PCI_MSI_ADDRESS_HI, 4, ~0u},
		{SOFTDEV_MSI_CAP + PCI_MSI_DATA_64, 2, 0xffff},
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(fields); i++)
		if (at >= fields[i].at && at < fields[i].at + fields[i].len)
			return fields[i].mask >> 8 * (at - fields[i].at);
	return 0;
}

static void config_write(struct softdev *sd, unsigned int at, const u8 *data, size_t len)
{
	for (; len--; at++, data++)
		sd->config[at] = (sd->config[at] & ~config_mask(at)) | (*data & config_mask(at));
	/* A job waits for the right to master the bus. */
	softdev_kick(sd);
}

/* ---- Regions ---- */

static u64 region_size(unsigned int index)
{
	return index == VFIO_PCI_BAR0_REGION_INDEX ? SOFTDEV_BAR_SIZE : index == VFIO_PCI_CONFIG_REGION_INDEX ? 256 : 0;
}

static int get_region_info(struct vfio_device *vdev, struct vfio_region_info *info, struct vfio_info_cap *caps)
{
	if (info->index >= VFIO_PCI_NUM_REGIONS)
		return -EINVAL;
	info->size = region_size(info->index);
	info->offset = (u64)info->index << REGION_SHIFT;
	info->flags = info->size ? VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE : 0;
	return 0;
}

/*
 * How much of an access is served at once: all of a read, of a write to BAR0 what lies in one register. Errors are
 * those of a region that is not there or ends before.
 */
static ssize_t check_access(u64 pos, size_t count, bool write)
{
	unsigned int index = pos >> REGION_SHIFT;
	u64 at = pos & REGION_MASK;

	if (index >= VFIO_PCI_NUM_REGIONS || at >= region_size(index) || count > region_size(index) - at)
		return -EINVAL;
	return min_t(size_t, count, write && index == VFIO_PCI_BAR0_REGION_INDEX ? 8 - at % 8 : 256);
}

static ssize_t region_read(struct vfio_device *vdev, char __user *user, size_t count, loff_t *ppos)
{
	struct softdev *sd = to_softdev(vdev);
	u64 at = *ppos & REGION_MASK;
	u8 buf[256] = {};
	ssize_t len = check_access(*ppos, count, false);

	if (len < 0)
		return len;
	mutex_lock(&sd->lock);
	if (*ppos >> REGION_SHIFT == VFIO_PCI_CONFIG_REGION_INDEX)
		memcpy(buf, sd->config + at, len);
	else if (at < sizeof(sd->regs))
		memcpy(buf, (u8 *)sd->regs + at, min_t(size_t, len, sizeof(sd->regs) - at));
	mutex_unlock(&sd->lock);
	if (copy_to_user(user, buf, len))
		return -EFAULT;
	*ppos += len;
	return len;
}

static ssize_t region_write(struct vfio_device *vdev, const char __user *user, size_t count, loff_t *ppos)
{
	struct softdev *sd = to_softdev(vdev);
	u64 at = *ppos & REGION_MASK;
	u8 buf[256];
	ssize_t len = check_access(*ppos, count, true);

	if (len < 0)
		return len;
	if (copy_from_user(buf, user, len))
		return -EFAULT;
	mutex_lock(&sd->lock);
	if (*ppos >> REGION_SHIFT == VFIO_PCI_CONFIG_REGION_INDEX)
		config_write(sd, at, buf, len);
	else if (softdev_is_running(sd))
		softdev_bar_write(sd, at, buf, len);
	else
		len = -EIO;
	mutex_unlock(&sd->lock);
	if (len > 0)
		*ppos += len;
	return len;
}

/* ---- Interrupts: one message ---- */

static int get_irq_info(void __user *arg)
{
	struct vfio_irq_info info;
	size_t size = offsetofend(struct vfio_irq_info, count);

	if (copy_from_user(&info, arg, size))
		return -EFAULT;
	if (info.argsz < size || info.index > VFIO_PCI_MSIX_IRQ_INDEX)
		return -EINVAL;
	info.flags = VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_NORESIZE;
	info.count = info.index == VFIO_PCI_MSI_IRQ_INDEX;
	return copy_to_user(arg, &info, size) ? -EFAULT : 0;
}

static void set_msi(struct softdev *sd, struct eventfd_ctx *msi)
{
	struct eventfd_ctx *old;

	mutex_lock(&sd->lock);
	old = sd->msi;
	sd->msi = msi;
	mutex_unlock(&sd->lock);
	if (old)
		eventfd_ctx_put(old);
}

static int trigger_msi(struct softdev *sd, const struct vfio_irq_set *hdr, const u8 *data)
{
	unsigned int type = hdr->flags & VFIO_IRQ_SET_DATA_TYPE_MASK;
	struct eventfd_ctx *msi = NULL;
	s32 fd;

	if (!hdr->count) {
		if (type == VFIO_IRQ_SET_DATA_NONE)
			set_msi(sd, NULL);
		return 0;
	}
	switch (type) {
	case VFIO_IRQ_SET_DATA_BOOL:
		if (!*data)
			return 0;
		break;
	case VFIO_IRQ_SET_DATA_EVENTFD:
		fd = *(const s32 *)data;
		if (fd >= 0)
			msi = eventfd_ctx_fdget(fd);
		if (IS_ERR(msi))
			return PTR_ERR(msi);
		set_msi(sd, msi);
		return 0;
	}
	mutex_lock(&sd->lock);
	if (sd->msi)
		eventfd_signal(sd->msi);
	mutex_unlock(&sd->lock);
	return 0;
}

static int set_irqs(struct softdev *sd, void __user *arg)
{
	size_t size = offsetofend(struct vfio_irq_set, count), data_size = 0;
	struct vfio_irq_set hdr;
	u8 *data = NULL;
	int ret;

	if (copy_from_user(&hdr, arg, size))
		return -EFAULT;
	ret = vfio_set_irqs_validate_and_prepare(&hdr, hdr.index == VFIO_PCI_MSI_IRQ_INDEX, VFIO_PCI_NUM_IRQS,
						 &data_size);
	if (ret)
		return ret;
	if ((hdr.flags & VFIO_IRQ_SET_ACTION_TYPE_MASK) != VFIO_IRQ_SET_ACTION_TRIGGER)
		return -ENOTTY;
	if (data_size) {
		data = memdup_user(arg + size, data_size);
		if (IS_ERR(data))
			return PTR_ERR(data);
	}
	ret = trigger_msi(sd, &hdr, data);
	kfree(data);
	return ret;
}

/* ---- Its life ---- */

/* lock held. */
static void reset(struct softdev *sd)
{
	reset_config(sd);
	memset(sd->regs, 0, sizeof(sd->regs));
	sd->regs[SOFTDEV_REG_MAGIC] = SOFTDEV_MAGIC;
	sd->regs[SOFTDEV_REG_STORE] = sd->store_size;
	memset(sd->store, 0, sd->store_size);
	softdev_end_migration(sd);
}

static void free_memory(struct softdev *sd)
{
	vfree(sd->store);
	kvfree(sd->store_dirty);
	free_page((unsigned long)sd->page);
	sd->store = NULL;
	sd->store_dirty = NULL;
	sd->page = NULL;
}

static int open_device(struct vfio_device *vdev)
{
	struct softdev *sd = to_softdev(vdev);

	/* The core asks for them on an open device only, so this is as good as before the registration. */
	vdev->log_ops = READ_ONCE(sd->dma_logging) ? &softdev_log_ops : NULL;
	softdev_set_migration(sd);
	sd->store = vzalloc(sd->store_size);
	sd->store_dirty = kvcalloc(BITS_TO_LONGS(sd->store_size >> PAGE_SHIFT), sizeof(long), GFP_KERNEL);
	sd->page = (u8 *)__get_free_page(GFP_KERNEL);
	if (!sd->store || !sd->store_dirty || !sd->page) {
		free_memory(sd);
		return -ENOMEM;
	}
	mutex_lock(&sd->lock);
	reset(sd);
	sd->open = true;
	mutex_unlock(&sd->lock);
	return 0;
}

static void close_device(struct vfio_device *vdev)
{
	struct softdev *sd = to_softdev(vdev);

	mutex_lock(&sd->lock);
	sd->open = false;
	softdev_log_clear(sd);
	softdev_end_migration(sd);
	mutex_unlock(&sd->lock);
	cancel_work_sync(&sd->engine);
	set_msi(sd, NULL);
	free_memory(sd);
}

static int get_info(void __user *arg)
{
	struct vfio_device_info info;
	size_t size = offsetofend(struct vfio_device_info, num_irqs);

	if (copy_from_user(&info, arg, size))
		return -EFAULT;
	if (info.argsz < size)
		return -EINVAL;
	info.flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET;
	info.num_regions = VFIO_PCI_NUM_REGIONS;
	info.num_irqs = VFIO_PCI_NUM_IRQS;
	return copy_to_user(arg, &info, size) ? -EFAULT : 0;
}

static long device_ioctl(struct vfio_device *vdev, unsigned int cmd, unsigned long arg)
{
	struct softdev *sd = to_softdev(vdev);

	switch (cmd) {
	case VFIO_DEVICE_GET_INFO:
		return get_info((void __user *)arg);
	case VFIO_DEVICE_GET_IRQ_INFO:
		return get_irq_info((void __user *)arg);
	case VFIO_DEVICE_SET_IRQS:
		return set_irqs(sd, (void __user *)arg);
	case VFIO_DEVICE_RESET:
		mutex_lock(&sd->lock);
		reset(sd);
		mutex_unlock(&sd->lock);
		return 0;
	}
	return -ENOTTY;
}

static int init_device(struct vfio_device *vdev)
{
	struct softdev *sd = to_softdev(vdev);

	mutex_init(&sd->lock);
	xa_init(&sd->log);
	init_waitqueue_head(&sd->wait);
	INIT_WORK(&sd->engine, softdev_engine);
	sd->store_size = SZ_64K;
	sd->dma_logging = 1;
	sd->migration = VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P | VFIO_MIGRATION_PRE_COPY;
	return 0;
}

static void release_device(struct vfio_device *vdev)
{
	mutex_destroy(&to_softdev(vdev)->lock);
}

static const struct vfio_device_ops device_ops = {
	.name = "softdev",
	.init = init_device,
	.release = release_device,
	.bind_iommufd = vfio_iommufd_physical_bind,
	.unbind_iommufd = vfio_iommufd_physical_unbind,
	.attach_ioas = vfio_iommufd_physical_attach_ioas,
	.detach_ioas = vfio_iommufd_physical_detach_ioas,
	.open_device = open_device,
	.close_device = close_device,
	.read = region_read,
	.write = region_write,
	.ioctl = device_ioctl,
	.get_region_info_caps = get_region_info,
	.dma_unmap = softdev_dma_unmap,
};

/* ---- Knobs ---- */

#define SOFTDEV_KNOB(name, type, parse, limit, check)								\
static ssize_t name##_show(struct device *dev, struct device_attribute *attr, char *buf)			\
{														\
	struct softdev *sd = dev_get_drvdata(dev);								\
														\
	return sysfs_emit(buf, "%lu\n", (unsigned long)sd->name);						\
}														\
														\
static ssize_t name##_store(struct device *dev, struct device_attribute *attr, const char *buf, size_t count)	\
{														\
	struct softdev *sd = dev_get_drvdata(dev);								\
	type value;												\
	int ret = parse(buf, 0, &value);									\
														\
	if (ret)												\
		return ret;											\
	mutex_lock(&sd->lock);											\
	if (value > (limit) || !(check))									\
		ret = -EINVAL;											\
	else													\
		sd->name = value;										\
	mutex_unlock(&sd->lock);										\
	return ret ? ret : count;										\
}														\
static DEVICE_ATTR_RW(name)

SOFTDEV_KNOB(dma_logging, unsigned int, kstrtouint, 1, true);
SOFTDEV_KNOB(fail_data, unsigned long, kstrtoul, ULONG_MAX, true);
SOFTDEV_KNOB(fail_hard, unsigned int, kstrtouint, 1, true);
SOFTDEV_KNOB(fail_state, unsigned int, kstrtouint, VFIO_DEVICE_STATE_PRE_COPY_P2P, true);
SOFTDEV_KNOB(lose_dirty, unsigned int, kstrtouint, UINT_MAX, true);
SOFTDEV_KNOB(migration, unsigned int, kstrtouint, 7, !value || value & VFIO_MIGRATION_STOP_COPY);
SOFTDEV_KNOB(pins, unsigned int, kstrtouint, 1, true);
SOFTDEV_KNOB(state_rate, unsigned int, kstrtouint, UINT_MAX, true);
SOFTDEV_KNOB(store_size, unsigned long, kstrtoul, MAX_STORE, value && PAGE_ALIGNED(value) && !sd->open);

/* Whatever is written: the device has been set up anew, and its state has to be sent from the start. */
static ssize_t reinit_store(struct device *dev, struct device_attribute *attr, const char *buf, size_t count)
{
	struct softdev *sd = dev_get_drvdata(dev);

	mutex_lock(&sd->lock);
	softdev_reinit(sd);
	mutex_unlock(&sd->lock);
	return count;
}
static DEVICE_ATTR_WO(reinit);

static struct attribute *knob_attrs[] = {
	&dev_attr_dma_logging.attr,
	&dev_attr_fail_data.attr,
	&dev_attr_fail_hard.attr,
	&dev_attr_fail_state.attr,
	&dev_attr_lose_dirty.attr,
	&dev_attr_migration.attr,
	&dev_attr_pins.attr,
	&dev_attr_reinit.attr,
	&dev_attr_state_rate.attr,
	&dev_attr_store_size.attr,
	NULL,
};
ATTRIBUTE_GROUPS(knob);

static int probe(struct platform_device *pdev)
{
	struct softdev *sd = vfio_alloc_device(softdev, vdev, &pdev->dev, &device_ops);
	int ret;

	if (IS_ERR(sd))
		return PTR_ERR(sd);
	platform_set_drvdata(pdev, sd);
	ret = vfio_register_group_dev(&sd->vdev);
	if (ret)
		vfio_put_device(&sd->vdev);
	return ret;
}

static void remove(struct platform_device *pdev)
{
	struct softdev *sd = platform_get_drvdata(pdev);

	vfio_unregister_group_dev(&sd->vdev);
	vfio_put_device(&sd->vdev);
}

struct platform_driver softdev_driver = {
	.probe = probe,
	.remove = remove,
	.driver = {
		.name = "softdev",
		.dev_groups = knob_groups,
	},
	/* VFIO claims the DMA of the device for its user, not this driver for the kernel. */
	.driver_managed_dma = true,
};
