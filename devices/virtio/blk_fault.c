/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the host does to a disk: operations that fail, and an image whose size changes under the guest. They are told in
 * a bounded number of lines, and counted. See blk_internal.h. Queue threads call it; virtio_blk_health is for the loop.
 *
 * With on-error=stop, a failed request is not reported to the guest but kept: the machine is asked to pause, and the request
 * is tried again when the device is resumed. But a flush of the page cache that fails has lost writes: the kernel drops
 * the pages that it could not write, tells it once, and a second flush succeeds. Only the guest can write them again.
 */
#include "devices/virtio/blk_internal.h"

#include "core/irq.h"
#include "core/monotonic.h"

#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#define TELL_NS 10000000000ull /* between two lines about failures */
#define LOOK_NS 1000000000ull  /* between two looks at the size */

static const char *const operations[] = {
	[BLK_READ] = "read", [BLK_WRITE] = "write", [BLK_SYNC] = "flush", [BLK_PUNCH] = "discard",
	[BLK_ZERO_RANGE] = "write of zeroes", [BLK_ZERO_WRITE] = "write of zeroes",
};

void blk_fault_init(struct blk_fault *fault, const struct virtio_blk_options *options)
{
	*fault = (struct blk_fault){.stop_fd = options->stop_fd, .stops = options->stop_on_error, .tells = options->news};
	pthread_mutex_init(&fault->lock, NULL);
}

void blk_fault_done(struct blk_fault *fault)
{
	pthread_mutex_destroy(&fault->lock);
}

/* ---- failures ---- */

/* Fills in the last failure; returns how many the line about it stands for, 0: it comes too soon. Locked. */
static unsigned int blk_fault_count(struct blk_fault *fault, const struct blk_request *request, int result)
{
	uint64_t now = monotonic_ns();
	unsigned int untold;

	if (result)
		snprintf(fault->last, sizeof(fault->last), "%s at offset %llu: %s (errno %d)", operations[request->op],
			 (unsigned long long)(request->offset + request->done), strerrordesc_np(-result), -result);
	else
		snprintf(fault->last, sizeof(fault->last), "%s at offset %llu: the image ends there",
			 operations[request->op], (unsigned long long)(request->offset + request->done));
	fault->count++;
	fault->untold++;
	if (fault->told_ns && now - fault->told_ns < TELL_NS)
		return 0;
	fault->told_ns = now;
	untold = fault->untold;
	fault->untold = 0;
	return untold;
}

static bool blk_fault_keeps(const struct blk *blk, const struct blk_request *request)
{
	bool lost = request->op == BLK_SYNC && (!blk->file.direct || atomic_load(&blk->cached));

	return blk->fault.stops && !lost;
}

bool blk_fault_failed(struct blk_queue *q, struct blk_request *request, int result)
{
	struct blk_fault *fault = &q->blk->fault;
	bool keep = blk_fault_keeps(q->blk, request);
	unsigned int count;
	char last[sizeof(fault->last)];

	pthread_mutex_lock(&fault->lock);
	count = blk_fault_count(fault, request, result);
	memcpy(last, fault->last, sizeof(last));
	fault->kept += keep;
	pthread_mutex_unlock(&fault->lock);
	if (count == 1)
		log_warn(q->blk->device.log, "%s: %s; %s", q->blk->id, last,
			 keep ? "the machine stops, and resume tries it again" : "the guest is told");
	else if (count)
		log_warn(q->blk->device.log, "%s: %u operations have failed, the last one: %s", q->blk->id, count, last);
	blk_fault_look(q->blk, 0);
	if (keep) {
		request->next_free = q->kept;
		q->kept = request;
	}
	if (count)
		atomic_store(&fault->news, true);
	if (keep || (count && fault->tells))
		eventfd_kick(fault->stop_fd);
	return keep;
}

struct blk_request *blk_fault_take_kept(struct blk_queue *q)
{
	struct blk_request *kept = take_ptr(q->kept);
	unsigned int count = 0;

	for (const struct blk_request *request = kept; request; request = request->next_free)
		count++;
	pthread_mutex_lock(&q->blk->fault.lock);
	q->blk->fault.kept -= count;
	pthread_mutex_unlock(&q->blk->fault.lock);
	return kept;
}

/* ---- the size of the image ---- */

int blk_file_size(int fd, bool cached, uint64_t *bytes)
{
	struct statx st;

	if (statx(fd, "", AT_EMPTY_PATH | (cached ? AT_STATX_DONT_SYNC : 0), STATX_SIZE | STATX_TYPE, &st))
		return -errno;
	*bytes = st.stx_size;
	return S_ISBLK(st.stx_mode) && ioctl(fd, BLKGETSIZE64, bytes) ? -errno : 0;
}

/* Now and then, or at once: the guest's size is not the image's any more. Told once, until they agree again. */
void blk_fault_look(struct blk *blk, uint64_t now)
{
	struct blk_fault *fault = &blk->fault;
	uint64_t bytes, seen = blk_sectors(blk) * BLK_SECTOR;
	bool tell;

	if (now && now - __atomic_load_n(&fault->looked_ns, __ATOMIC_RELAXED) < LOOK_NS)
		return;
	__atomic_store_n(&fault->looked_ns, now, __ATOMIC_RELAXED);
	if (blk_file_size(blk->file.fd, false, &bytes))
		return;
	pthread_mutex_lock(&fault->lock);
	tell = blk_file_sectors(&blk->file, bytes) * BLK_SECTOR != seen;
	if (tell == fault->size_told)
		tell = false;
	else
		fault->size_told = tell;
	pthread_mutex_unlock(&fault->lock);
	if (tell)
		log_warn(blk->device.log, "%s: its image has %llu bytes now, the guest sees %llu; "
			 "mvmm disk resize NAME %s tells the guest", blk->id, (unsigned long long)bytes,
			 (unsigned long long)seen, blk->id);
}

/* ---- for the loop, which must not wait for storage: what the kernel knows of the size is enough ---- */

void virtio_blk_health(struct virtio_device *disk, struct virtio_blk_health *ret)
{
	struct blk *blk = container_of(disk, struct blk, device);
	struct blk_fault *fault = &blk->fault;

	pthread_mutex_lock(&fault->lock);
	*ret = (struct virtio_blk_health){
		.size = blk_sectors(blk) * BLK_SECTOR, .failed = fault->count, .kept = fault->kept,
	};
	memcpy(ret->last, fault->last, sizeof(ret->last));
	pthread_mutex_unlock(&fault->lock);
	if (blk_file_size(blk->file.fd, true, &ret->image_size))
		ret->image_size = ret->size;
}

bool virtio_blk_take_news(struct virtio_device *disk)
{
	return atomic_exchange(&container_of(disk, struct blk, device)->fault.news, false);
}

int virtio_blk_resize(struct virtio_device *disk, uint64_t *bytes, struct err *err)
{
	struct blk *blk = container_of(disk, struct blk, device);
	const struct timespec until = monotonic_deadline(monotonic_ms() + 100);
	uint64_t sectors;
	int ret = blk_file_size(blk->file.fd, true, bytes);

	if (ret)
		return err_sys(err, ret, "%s: the size of its image", blk->id);
	sectors = blk_file_sectors(&blk->file, *bytes);
	if (pthread_mutex_clocklock(&disk->lock, CLOCK_MONOTONIC, &until))
		return err_set(err, -EBUSY, "%s: the guest waits for it, and it does not answer", blk->id);
	*bytes = sectors * BLK_SECTOR;
	if (sectors != blk_sectors(blk)) {
		__atomic_store_n(&blk->file.sectors, sectors, __ATOMIC_RELEASE);
		blk->state.sectors = sectors;
		virtio_device_config_changed(disk);
	}
	pthread_mutex_unlock(&disk->lock);
	blk_fault_look(blk, 0);
	return 0;
}
