// SPDX-License-Identifier: GPL-2.0
/*
 * softdev's inside: the registers, the engine that does real DMA through the domain that the device is attached to, and
 * a log of that DMA of its own. What the registers mean is in regs.h.
 *
 * As drivers of hardware do, it pins nothing, so that under the legacy container type1 calls all memory dirty. Told to
 * pin (knob pins), it pins each page that it writes for a moment, and type1 calls those dirty from its first write on.
 */
#include <linux/delay.h>
#include <linux/eventfd.h>
#include <linux/pci_regs.h>
#include <linux/unaligned.h>

#include "softdev.h"

/* ---- The engine ---- */

bool softdev_is_running(const struct softdev *sd)
{
	switch (sd->state) {
	case VFIO_DEVICE_STATE_RUNNING:
	case VFIO_DEVICE_STATE_RUNNING_P2P:
	case VFIO_DEVICE_STATE_PRE_COPY:
	case VFIO_DEVICE_STATE_PRE_COPY_P2P:
		return true;
	default:
		return false;
	}
}

/* The engine cannot tell memory from another device, so without the right to reach the latter it rests. */
static bool may_do_dma(const struct softdev *sd)
{
	return sd->open && (get_unaligned_le16(sd->config + PCI_COMMAND) & PCI_COMMAND_MASTER) &&
	       (sd->state == VFIO_DEVICE_STATE_RUNNING || sd->state == VFIO_DEVICE_STATE_PRE_COPY);
}

void softdev_kick(struct softdev *sd)
{
	if (sd->regs[SOFTDEV_REG_STATUS] == SOFTDEV_BUSY && may_do_dma(sd))
		queue_work(system_dfl_wq, &sd->engine);
}

static void end_job(struct softdev *sd, enum softdev_status status)
{
	sd->regs[SOFTDEV_REG_STATUS] = status;
	if (sd->regs[SOFTDEV_REG_COMMAND] & SOFTDEV_INTERRUPT && sd->msi)
		eventfd_signal(sd->msi);
}

static bool is_logged(const struct softdev *sd, unsigned long iova)
{
	u32 i;

	for (i = 0; sd->logging && i < sd->log_range_count; i++)
		if (iova >= sd->log_ranges[i].start && iova <= sd->log_ranges[i].last)
			return true;
	return false;
}

/* After the write: who reads a log before that finds the page in it the next time, and the device stopped the last. */
static void note_write(struct softdev *sd, u64 iova)
{
	struct page *page;

	if (is_logged(sd, iova) && xa_err(xa_store(&sd->log, iova >> PAGE_SHIFT, xa_mk_value(1), GFP_KERNEL)))
		sd->log_broken = true;
	/* Fails where there is no legacy container. */
	if (READ_ONCE(sd->pins) &&
	    vfio_pin_pages(&sd->vdev, ALIGN_DOWN(iova, PAGE_SIZE), 1, IOMMU_WRITE, &page) == 1)
		vfio_unpin_pages(&sd->vdev, ALIGN_DOWN(iova, PAGE_SIZE), 1);
}

static bool is_mark_lost(struct softdev *sd)
{
	unsigned int every = READ_ONCE(sd->lose_dirty);

	return every && ++sd->marks % every == 0;
}

/* The bytes of one step, between the engine's page or the store and memory. */
static int move(struct softdev *sd, u64 iova, u64 position, size_t len)
{
	u64 *r = sd->regs, at = position % sd->store_size;
	enum softdev_command command = r[SOFTDEV_REG_COMMAND] & 0xff;
	struct device *dev = sd->vdev.dev;
	u8 *buf = sd->store + at;
	bool mark;
	int ret;

	if (command == SOFTDEV_LOAD) {
		bitmap_set(sd->store_dirty, at >> PAGE_SHIFT, (offset_in_page(at) + len - 1) / PAGE_SIZE + 1);
		wake_up(&sd->wait);
		return softdev_iommu_access(dev, iova, buf, len, false, false);
	}
	if (command == SOFTDEV_PATTERN) {
		buf = sd->page;
		softdev_pattern(r[SOFTDEV_REG_SEED], r[SOFTDEV_REG_PASS], position, buf, len);
	}
	mark = !is_mark_lost(sd);
	ret = softdev_iommu_access(dev, iova, buf, len, true, mark);
	if (!ret && mark)
		note_write(sd, iova);
	return ret;
}

static void step(struct softdev *sd)
{
	u64 *r = sd->regs, position = r[SOFTDEV_REG_POSITION], iova = r[SOFTDEV_REG_ADDRESS] + position;
	size_t len = min_t(u64, r[SOFTDEV_REG_LENGTH] - position, PAGE_SIZE - offset_in_page(iova));

	len = min_t(u64, len, sd->store_size - position % sd->store_size);
	if (move(sd, iova, position, len)) {
		r[SOFTDEV_REG_FAULT] = iova;
		end_job(sd, SOFTDEV_FAILED);
		return;
	}
	r[SOFTDEV_REG_MOVED] += len;
	r[SOFTDEV_REG_POSITION] += len;
	if (r[SOFTDEV_REG_POSITION] < r[SOFTDEV_REG_LENGTH])
		return;
	r[SOFTDEV_REG_POSITION] = 0;
	if (++r[SOFTDEV_REG_PASS] == r[SOFTDEV_REG_PASSES])
		end_job(sd, SOFTDEV_DONE);
}

void softdev_engine(struct work_struct *work)
{
	struct softdev *sd = container_of(work, struct softdev, engine);
	unsigned long pause;
	bool more = true;

	while (more) {
		mutex_lock(&sd->lock);
		more = sd->regs[SOFTDEV_REG_STATUS] == SOFTDEV_BUSY && may_do_dma(sd);
		if (more)
			step(sd);
		/* Never so long that closing the device would have to wait for it. */
		pause = min_t(u64, sd->regs[SOFTDEV_REG_INTERVAL], USEC_PER_SEC);
		mutex_unlock(&sd->lock);
		if (more && pause)
			usleep_range(pause, pause + pause / 8 + 1);
		cond_resched();
	}
}

/* ---- BAR0 ---- */

static void command(struct softdev *sd)
{
	u64 *r = sd->regs;

	switch (r[SOFTDEV_REG_COMMAND] & 0xff) {
	case SOFTDEV_STOP:
		if (r[SOFTDEV_REG_STATUS] == SOFTDEV_BUSY)
			r[SOFTDEV_REG_STATUS] = SOFTDEV_DONE;
		return;
	case SOFTDEV_PATTERN:
	case SOFTDEV_LOAD:
	case SOFTDEV_STORE:
		break;
	default:
		end_job(sd, SOFTDEV_FAILED);
		return;
	}
	r[SOFTDEV_REG_PASS] = r[SOFTDEV_REG_POSITION] = r[SOFTDEV_REG_FAULT] = 0;
	r[SOFTDEV_REG_STATUS] = SOFTDEV_BUSY;
	if (r[SOFTDEV_REG_LENGTH])
		softdev_kick(sd);
	else
		end_job(sd, SOFTDEV_DONE);
}

/* A part of one register. */
void softdev_bar_write(struct softdev *sd, unsigned int at, const u8 *data, size_t len)
{
	unsigned int reg = at / 8, from = at % 8;
	bool busy = sd->regs[SOFTDEV_REG_STATUS] == SOFTDEV_BUSY;
	u64 value;

	if (reg < SOFTDEV_REG_ADDRESS || reg > SOFTDEV_REG_COMMAND)
		return;
	value = sd->regs[reg];
	memcpy((u8 *)&value + from, data, len);
	if (busy && reg != SOFTDEV_REG_INTERVAL && (reg != SOFTDEV_REG_COMMAND || (value & 0xff) != SOFTDEV_STOP))
		return;
	sd->regs[reg] = value;
	if (reg == SOFTDEV_REG_COMMAND && !from)
		command(sd);
}

/* ---- The device's own log ---- */

void softdev_log_clear(struct softdev *sd)
{
	sd->logging = sd->log_broken = false;
	sd->log_range_count = 0;
	xa_destroy(&sd->log);
}

static int log_start(struct vfio_device *vdev, struct rb_root_cached *ranges, u32 count, u64 *page_size)
{
	struct softdev *sd = container_of(vdev, struct softdev, vdev);
	struct interval_tree_node *node;
	int ret = 0;

	if (count > SOFTDEV_LOG_RANGES)
		vfio_combine_iova_ranges(ranges, count, SOFTDEV_LOG_RANGES);
	mutex_lock(&sd->lock);
	if (sd->logging) {
		ret = -EINVAL;
		goto out;
	}
	softdev_log_clear(sd);
	for (node = interval_tree_iter_first(ranges, 0, ULONG_MAX); node;
	     node = interval_tree_iter_next(node, 0, ULONG_MAX)) {
		sd->log_ranges[sd->log_range_count].start = node->start;
		sd->log_ranges[sd->log_range_count++].last = node->last;
	}
	sd->logging = true;
	*page_size = PAGE_SIZE;
out:
	mutex_unlock(&sd->lock);
	return ret;
}

static int log_stop(struct vfio_device *vdev)
{
	struct softdev *sd = container_of(vdev, struct softdev, vdev);

	mutex_lock(&sd->lock);
	softdev_log_clear(sd);
	mutex_unlock(&sd->lock);
	return 0;
}

static int log_read_and_clear(struct vfio_device *vdev, unsigned long iova, unsigned long length,
			      struct iova_bitmap *dirty)
{
	struct softdev *sd = container_of(vdev, struct softdev, vdev);
	unsigned long index = iova >> PAGE_SHIFT, last = (iova + length - 1) >> PAGE_SHIFT;
	void *entry;
	int ret = 0;

	mutex_lock(&sd->lock);
	if (!sd->logging)
		ret = -EINVAL;
	else if (sd->log_broken)
		ret = -EIO;
	for (entry = ret ? NULL : xa_find(&sd->log, &index, last, XA_PRESENT); entry;
	     entry = xa_find_after(&sd->log, &index, last, XA_PRESENT)) {
		iova_bitmap_set(dirty, index << PAGE_SHIFT, PAGE_SIZE);
		xa_erase(&sd->log, index);
	}
	mutex_unlock(&sd->lock);
	return ret;
}

const struct vfio_log_ops softdev_log_ops = {
	.log_start = log_start,
	.log_stop = log_stop,
	.log_read_and_clear = log_read_and_clear,
};

/* type1 wants a page let go that may be pinned: it is not any more when the lock has been had. */
void softdev_dma_unmap(struct vfio_device *vdev, u64 iova, u64 length)
{
	struct softdev *sd = container_of(vdev, struct softdev, vdev);

	mutex_lock(&sd->lock);
	mutex_unlock(&sd->lock);
}
