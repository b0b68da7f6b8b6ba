// SPDX-License-Identifier: GPL-2.0
/*
 * softdev's migration (VFIO's protocol version 2): the store in PRE_COPY and STOP_COPY, the registers at the end.
 *
 * The stream is made of records of two little-endian numbers of 8 bytes, a place and a length, and that many bytes
 * (none behind the first): first the magic number and the size of the store, then pages of the store, in PRE_COPY those
 * written since they were sent as well, and last, in STOP_COPY, the registers. A page is copied whole under the
 * device's lock. What arrives is taken from a stranger.
 */
#include <linux/anon_inodes.h>
#include <linux/delay.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/poll.h>
#include <linux/slab.h>

#include "softdev.h"

#define PLACE_REGS (~0ull)
#define RECORD 16
#define PAGE_RECORD (RECORD + PAGE_SIZE)

/* One session of saving or resuming; the device has one reference, the open file the other. */
struct softdev_file {
	struct softdev *sd;
	refcount_t users;
	bool begun;		/* the first record has been */
	bool ended;		/* the last record has been */
	bool reinit;		/* the initial bytes are new ones, and user space has not been told */
	unsigned long next;	/* saving: pages below have been sent once */
	size_t len, at;		/* of the record in work: its bytes, and those that have passed */
	union {
		struct { __le64 place, length; u8 data[PAGE_SIZE]; } record;
		u8 bytes[PAGE_RECORD];
	};
	u64 regs[SOFTDEV_REGS];	/* resuming: what has come */
};

static unsigned long store_pages(const struct softdev *sd)
{
	return sd->store_size >> PAGE_SHIFT;
}

static void put_file(struct softdev_file *file)
{
	if (!refcount_dec_and_test(&file->users))
		return;
	vfio_put_device(&file->sd->vdev);
	kvfree(file);
}

static int release_file(struct inode *inode, struct file *filp)
{
	put_file(filp->private_data);
	return 0;
}

static void end_session(struct softdev_file **session)
{
	if (*session)
		put_file(*session);
	*session = NULL;
}

/* As long as these bytes take at the speed that was set. */
static void take_time(const struct softdev *sd, size_t bytes)
{
	unsigned long rate = READ_ONCE(sd->state_rate);

	if (rate)
		fsleep(bytes * (USEC_PER_SEC / 1024) / rate);
}

/* How much of a request is served at once: what takes no longer than a tenth of a second. */
static size_t clamp_length(const struct softdev *sd, size_t len)
{
	unsigned long rate = READ_ONCE(sd->state_rate);

	return rate ? min(len, rate * 1024 / 10) : len;
}

/* Counts down to the failure that was ordered; true when it is due. */
static bool fails_now(struct softdev *sd, size_t bytes)
{
	bool due = sd->fail_data && sd->fail_data <= bytes;

	sd->fail_data -= min(sd->fail_data, bytes);
	return due;
}

/* ---- Saving ---- */

static void fill(struct softdev_file *file, u64 place, u64 length, const void *data)
{
	file->record.place = cpu_to_le64(place);
	file->record.length = cpu_to_le64(length);
	if (data)
		memcpy(file->record.data, data, length);
	file->len = RECORD + (data ? length : 0);
	file->at = 0;
}

/* Puts the next record into work: 1, 0 at the end of the stream, or -ENOMSG when there is nothing for now. */
static int next_record(struct softdev_file *file)
{
	struct softdev *sd = file->sd;
	unsigned long page = file->next;

	if (!file->begun) {
		file->begun = true;
		fill(file, SOFTDEV_MAGIC, sd->store_size, NULL);
		return 1;
	}
	if (page < store_pages(sd))
		file->next++;
	else
		page = find_first_bit(sd->store_dirty, store_pages(sd));
	if (page < store_pages(sd)) {
		clear_bit(page, sd->store_dirty);
		fill(file, page << PAGE_SHIFT, PAGE_SIZE, sd->store + (page << PAGE_SHIFT));
		return 1;
	}
	if (sd->state != VFIO_DEVICE_STATE_STOP_COPY)
		return -ENOMSG;
	if (file->ended)
		return 0;
	file->ended = true;
	fill(file, PLACE_REGS, sizeof(sd->regs), sd->regs);
	return 1;
}

static ssize_t save_read(struct file *filp, char __user *user, size_t len, loff_t *pos)
{
	struct softdev_file *file = filp->private_data;
	struct softdev *sd = file->sd;
	size_t done = 0;
	ssize_t ret;

	len = clamp_length(sd, len);
	mutex_lock(&sd->lock);
	ret = sd->saving != file ? -ENODEV : fails_now(sd, len) ? -EIO : 0;
	while (ret >= 0 && done < len) {
		size_t now;

		if (file->at == file->len) {
			ret = next_record(file);
			if (ret <= 0)
				break;
		}
		now = min(len - done, file->len - file->at);
		if (copy_to_user(user + done, file->bytes + file->at, now)) {
			ret = -EFAULT;
			break;
		}
		file->at += now;
		done += now;
	}
	mutex_unlock(&sd->lock);
	take_time(sd, done);
	return done ? done : ret;
}

static u64 initial_bytes(const struct softdev_file *file)
{
	return (file->begun ? file->len - file->at : RECORD) + (store_pages(file->sd) - file->next) * PAGE_RECORD;
}

static u64 dirty_bytes(const struct softdev_file *file)
{
	return (u64)bitmap_weight(file->sd->store_dirty, file->next) * PAGE_RECORD;
}

static long precopy_info(struct file *filp, unsigned int cmd, unsigned long arg)
{
	struct softdev_file *file = filp->private_data;
	struct softdev *sd = file->sd;
	struct vfio_precopy_info info = {};
	int ret = vfio_check_precopy_ioctl(&sd->vdev, cmd, arg, &info);

	if (ret)
		return ret;
	mutex_lock(&sd->lock);
	if (sd->saving != file) {
		ret = -ENODEV;
	} else if (sd->state == VFIO_DEVICE_STATE_STOP_COPY) {
		ret = -EINVAL;
	} else {
		info.initial_bytes = initial_bytes(file);
		info.dirty_bytes = dirty_bytes(file);
		if (file->reinit)
			info.flags |= VFIO_PRECOPY_INFO_REINIT;
		file->reinit = false;
	}
	mutex_unlock(&sd->lock);
	if (!ret && copy_to_user((void __user *)arg, &info, offsetofend(struct vfio_precopy_info, dirty_bytes)))
		ret = -EFAULT;
	return ret;
}

static __poll_t save_poll(struct file *filp, struct poll_table_struct *wait)
{
	struct softdev_file *file = filp->private_data;
	struct softdev *sd = file->sd;
	__poll_t ret = 0;

	poll_wait(filp, &sd->wait, wait);
	mutex_lock(&sd->lock);
	if (sd->saving != file)
		ret = EPOLLIN | EPOLLRDNORM | EPOLLERR;
	else if (sd->state == VFIO_DEVICE_STATE_STOP_COPY || initial_bytes(file) || dirty_bytes(file))
		ret = EPOLLIN | EPOLLRDNORM;
	mutex_unlock(&sd->lock);
	return ret;
}

static const struct file_operations save_fops = {
	.owner = THIS_MODULE,
	.read = save_read,
	.poll = save_poll,
	.unlocked_ioctl = precopy_info,
	.compat_ioctl = compat_ptr_ioctl,
	.release = release_file,
};

/* All of the store is sent anew: as initial bytes where user space knows that this can happen. */
void softdev_reinit(struct softdev *sd)
{
	if (!sd->saving || sd->state == VFIO_DEVICE_STATE_STOP_COPY)
		return;
	bitmap_set(sd->store_dirty, 0, store_pages(sd));
	if (sd->vdev.precopy_info_v2) {
		sd->saving->next = 0;
		sd->saving->reinit = true;
	}
	wake_up(&sd->wait);
}

/* ---- Resuming ---- */

/* The bytes behind a record's numbers, or an error. */
static ssize_t record_length(const struct softdev_file *file)
{
	u64 place = le64_to_cpu(file->record.place), length = le64_to_cpu(file->record.length);
	const struct softdev *sd = file->sd;

	if (file->ended)
		return -EINVAL;
	if (!file->begun)
		return place == SOFTDEV_MAGIC && length == sd->store_size ? 0 : -EINVAL;
	if (place == PLACE_REGS)
		return length == sizeof(file->regs) ? length : -EINVAL;
	return length == PAGE_SIZE && PAGE_ALIGNED(place) && place < sd->store_size ? length : -EINVAL;
}

static void take_record(struct softdev_file *file)
{
	u64 place = le64_to_cpu(file->record.place);

	if (!file->begun) {
		file->begun = true;
	} else if (place == PLACE_REGS) {
		memcpy(file->regs, file->record.data, sizeof(file->regs));
		file->ended = true;
	} else {
		memcpy(file->sd->store + place, file->record.data, PAGE_SIZE);
	}
	file->at = 0;
	file->len = RECORD;
}

static ssize_t resume_write(struct file *filp, const char __user *user, size_t len, loff_t *pos)
{
	struct softdev_file *file = filp->private_data;
	struct softdev *sd = file->sd;
	size_t done = 0;
	ssize_t ret;

	len = clamp_length(sd, len);
	mutex_lock(&sd->lock);
	ret = sd->resuming != file ? -ENODEV : fails_now(sd, len) ? -EIO : 0;
	while (ret >= 0 && done < len) {
		size_t now = min(len - done, file->len - file->at);

		if (copy_from_user(file->bytes + file->at, user + done, now)) {
			ret = -EFAULT;
			break;
		}
		file->at += now;
		done += now;
		if (file->at == RECORD && file->len == RECORD) {
			ret = record_length(file);
			if (ret < 0)
				break;
			file->len += ret;
		}
		if (file->at == file->len)
			take_record(file);
	}
	mutex_unlock(&sd->lock);
	take_time(sd, done);
	return ret < 0 ? ret : done;
}

static const struct file_operations resume_fops = {
	.owner = THIS_MODULE,
	.write = resume_write,
	.release = release_file,
};

static int finish_resume(struct softdev *sd)
{
	const struct softdev_file *file = sd->resuming;
	const u64 *r = file->regs;

	if (!file->ended || file->at || r[SOFTDEV_REG_MAGIC] != SOFTDEV_MAGIC ||
	    r[SOFTDEV_REG_STORE] != sd->store_size || r[SOFTDEV_REG_STATUS] > SOFTDEV_FAILED ||
	    (r[SOFTDEV_REG_STATUS] == SOFTDEV_BUSY && r[SOFTDEV_REG_POSITION] >= r[SOFTDEV_REG_LENGTH]))
		return -EINVAL;
	memcpy(sd->regs, r, sizeof(sd->regs));
	return 0;
}

/* ---- States ---- */

static bool saves(enum vfio_device_mig_state state)
{
	return state == VFIO_DEVICE_STATE_PRE_COPY || state == VFIO_DEVICE_STATE_PRE_COPY_P2P ||
	       state == VFIO_DEVICE_STATE_STOP_COPY;
}

static struct file *begin_session(struct softdev *sd, struct softdev_file **session, const struct file_operations *fops,
				  int flags)
{
	struct softdev_file *file = kvzalloc(sizeof(*file), GFP_KERNEL_ACCOUNT);
	struct file *filp;

	if (!file)
		return ERR_PTR(-ENOMEM);
	filp = anon_inode_getfile("softdev-state", fops, file, flags);
	if (IS_ERR(filp)) {
		kvfree(file);
		return filp;
	}
	stream_open(filp->f_inode, filp);
	get_device(&sd->vdev.device);
	file->sd = sd;
	refcount_set(&file->users, 2);
	*session = file;
	return filp;
}

/* One arc; the file where it begins a session. */
static struct file *step_state(struct softdev *sd, enum vfio_device_mig_state next)
{
	struct file *filp;
	int ret;

	if (saves(next) && !saves(sd->state)) {
		bitmap_zero(sd->store_dirty, store_pages(sd));
		return begin_session(sd, &sd->saving, &save_fops, O_RDONLY);
	}
	if (saves(sd->state) && !saves(next))
		end_session(&sd->saving);
	if (next == VFIO_DEVICE_STATE_RESUMING) {
		filp = begin_session(sd, &sd->resuming, &resume_fops, O_WRONLY);
		if (!IS_ERR(filp))
			sd->resuming->len = RECORD;
		return filp;
	}
	if (sd->state == VFIO_DEVICE_STATE_RESUMING) {
		ret = finish_resume(sd);
		if (ret)
			return ERR_PTR(ret);
		end_session(&sd->resuming);
	}
	return NULL;
}

/* The failure that was ordered. */
static int fail_arc(struct softdev *sd)
{
	sd->fail_state = 0;
	if (sd->fail_hard) {
		end_session(&sd->saving);
		end_session(&sd->resuming);
		sd->state = VFIO_DEVICE_STATE_ERROR;
	}
	return -EIO;
}

static struct file *set_state(struct vfio_device *vdev, enum vfio_device_mig_state state)
{
	struct softdev *sd = container_of(vdev, struct softdev, vdev);
	enum vfio_device_mig_state next;
	struct file *filp = NULL;
	int ret;

	mutex_lock(&sd->lock);
	while (sd->state != state) {
		ret = vfio_mig_get_next_state(vdev, sd->state, state, &next);
		if (!ret && next == sd->fail_state)
			ret = fail_arc(sd);
		if (ret) {
			filp = ERR_PTR(ret);
			break;
		}
		filp = step_state(sd, next);
		if (IS_ERR(filp))
			break;
		sd->state = next;
	}
	softdev_kick(sd);
	mutex_unlock(&sd->lock);
	wake_up(&sd->wait);
	return filp;
}

static int get_state(struct vfio_device *vdev, enum vfio_device_mig_state *state)
{
	struct softdev *sd = container_of(vdev, struct softdev, vdev);

	mutex_lock(&sd->lock);
	*state = sd->state;
	mutex_unlock(&sd->lock);
	return 0;
}

/* What is still to come when the device is stopped now. */
static int get_data_size(struct vfio_device *vdev, unsigned long *length)
{
	struct softdev *sd = container_of(vdev, struct softdev, vdev);

	mutex_lock(&sd->lock);
	*length = RECORD + sizeof(sd->regs);
	if (sd->saving)
		*length += initial_bytes(sd->saving) + dirty_bytes(sd->saving);
	else
		*length += RECORD + store_pages(sd) * PAGE_RECORD;
	mutex_unlock(&sd->lock);
	return 0;
}

static const struct vfio_migration_ops migration_ops = {
	.migration_set_state = set_state,
	.migration_get_state = get_state,
	.migration_get_data_size = get_data_size,
};

/* lock held. */
void softdev_end_migration(struct softdev *sd)
{
	end_session(&sd->saving);
	end_session(&sd->resuming);
	sd->state = VFIO_DEVICE_STATE_RUNNING;
	wake_up(&sd->wait);
}

void softdev_set_migration(struct softdev *sd)
{
	sd->vdev.migration_flags = READ_ONCE(sd->migration);
	sd->vdev.mig_ops = sd->vdev.migration_flags ? &migration_ops : NULL;
}
