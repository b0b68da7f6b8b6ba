/* SPDX-License-Identifier: Apache-2.0 */
/* See virtio_driver.h. */
#include "tests/unit/virtio_driver.h"

#include "core/irq.h"

#include <dirent.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>

#define GUARD GUEST_PAGE_SIZE

static void need(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "virtio driver: %s\n", what);
	abort();
}

/* ---- the transport ---- */

static void notify_queue(struct virtio_device *device, unsigned int index)
{
	struct virtio_driver *driver = device->transport_opaque;

	__atomic_fetch_add(&driver->queues[index].calls, 1, __ATOMIC_RELAXED);
	eventfd_kick(driver->queues[index].call_fd);
}

static void notify_config(struct virtio_device *device)
{
	struct virtio_driver *driver = device->transport_opaque;

	__atomic_fetch_add(&driver->config_calls, 1, __ATOMIC_RELAXED);
}

static int call_fd(struct virtio_device *device, unsigned int index)
{
	struct virtio_driver *driver = device->transport_opaque;

	return driver->queues[index].call_fd;
}

static const struct virtio_transport_ops transport_ops = {
	.notify_queue = notify_queue,
	.notify_config = notify_config,
	.call_fd = call_fd,
};

/* ---- memory ---- */

struct virtio_driver *driver_create(uint64_t size, bool shared)
{
	struct virtio_driver *driver = calloc(1, sizeof(*driver));
	char *map = mmap(NULL, size + 2 * GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd = shared ? memfd_create("ram", MFD_CLOEXEC) : -1;
	int flags = MAP_FIXED | (shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS);

	need(driver && map != MAP_FAILED && (!shared || ftruncate(fd, (off_t)size) == 0), "no memory");
	map = mmap(map + GUARD, size, PROT_READ | PROT_WRITE, flags, fd, 0);
	need(map != MAP_FAILED, "no memory");
	driver->ram = (struct guest_region){.gpa = DRIVER_RAM_BASE, .size = size, .host = map, .fd = fd};
	driver->next = DRIVER_RAM_BASE;
	driver->memory = guest_memory_create();
	need(driver->memory && guest_memory_add(driver->memory, &driver->ram, NULL) == 0, "no memory");
	for (unsigned int i = 0; i < VIRTIO_MAX_QUEUES; i++) {
		driver->queues[i].driver = driver;
		driver->queues[i].call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		need(driver->queues[i].call_fd >= 0, "no eventfd");
	}
	return driver;
}

void driver_destroy(struct virtio_driver *driver)
{
	if (!driver)
		return;
	if (driver->device) {
		driver_reset(driver);
		driver->device->ops->destroy(driver->device);
	}
	for (unsigned int i = 0; i < VIRTIO_MAX_QUEUES; i++)
		fd_close(&driver->queues[i].call_fd);
	guest_memory_destroy(driver->memory);
	munmap((char *)driver->ram.host - GUARD, driver->ram.size + 2 * GUARD);
	fd_close(&driver->ram.fd);
	free(driver);
}

uint64_t driver_alloc(struct virtio_driver *driver, uint64_t len, uint64_t align)
{
	uint64_t gpa = align_up(driver->next, align);

	need(gpa + len <= driver->ram.gpa + driver->ram.size, "guest memory is too small");
	driver->next = gpa + len;
	if (len)
		memset(driver_at(driver, gpa), 0, len);
	return gpa;
}

void *driver_at(struct virtio_driver *driver, uint64_t gpa)
{
	return (char *)driver->ram.host + (gpa - driver->ram.gpa);
}

/* ---- the device's life ---- */

static void make_ring(struct driver_queue *queue)
{
	struct virtio_driver *driver = queue->driver;
	struct virtqueue *vq = queue->vq;

	queue->size = vq->setup.size = vq->max_size;
	vq->setup.desc = driver_alloc(driver, 16ull * queue->size, 16);
	vq->setup.avail = driver_alloc(driver, 6 + 2ull * queue->size, 2);
	vq->setup.used = driver_alloc(driver, 6 + 8ull * queue->size, 4);
	queue->desc = driver_at(driver, vq->setup.desc);
	queue->avail = driver_at(driver, vq->setup.avail);
	queue->used = driver_at(driver, vq->setup.used);
	queue->tables = driver_alloc(driver, 16ull * DRIVER_INDIRECT * queue->size, 16);
	queue->avail_idx = queue->used_idx = 0;
	queue->free = 0;
	queue->free_count = queue->size;
	for (uint16_t i = 0; i < queue->size; i++)
		queue->link[i] = (uint16_t)(i + 1);
	memset(queue->chain_len, 0, sizeof(queue->chain_len));
	eventfd_drain(queue->call_fd);
}

int driver_attach(struct virtio_driver *driver, struct virtio_device *device, uint64_t features)
{
	driver->device = device;
	device->transport = &transport_ops;
	device->transport_opaque = driver;
	return driver_start(driver, features);
}

int driver_start(struct virtio_driver *driver, uint64_t features)
{
	struct virtio_device *device = driver->device;
	int ret = 0;

	pthread_mutex_lock(&device->lock);
	device->features = features & device->offered;
	for (unsigned int i = 0; i < device->queue_count; i++) {
		struct driver_queue *queue = &driver->queues[i];

		queue->vq = &device->queues[i];
		make_ring(queue);
		queue->vq->setup.enabled = true;
		need(virtqueue_start(queue->vq, driver->memory, device->features, NULL) == 0, "ring refused");
	}
	device->active = true;
	ret = device->ops->activate(device, NULL);
	if (ret < 0)
		device->active = false;
	pthread_mutex_unlock(&device->lock);
	return ret;
}

void driver_reset(struct virtio_driver *driver)
{
	struct virtio_device *device = driver->device;

	pthread_mutex_lock(&device->lock);
	if (device->active)
		device->ops->reset(device);
	device->active = false;
	device->broken = false;
	device->features = 0;
	for (unsigned int i = 0; i < device->queue_count; i++) {
		virtqueue_stop(&device->queues[i]);
		device->queues[i].setup.enabled = false;
	}
	pthread_mutex_unlock(&device->lock);
	driver->next = driver->ram.gpa;
}

uint64_t sum_of_names(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	uint64_t sum = 0;

	while ((entry = readdir(dir)))
		sum += strtoull(entry->d_name, NULL, 10);
	closedir(dir);
	return sum;
}

/* ---- from one device to another ---- */

static void save_own(struct virtio_device *device, struct state_buffer *out)
{
	if (device->ops->state)
		need(state_save(device->ops->state, device, out, NULL) == 0, "the device cannot be saved");
}

void driver_pack(struct virtio_driver *driver, struct driver_luggage *luggage)
{
	struct virtio_device *device = driver->device;

	*luggage = (struct driver_luggage){.features = device->features};
	pthread_mutex_lock(&device->lock);
	device->ops->drain(device, VIRTIO_NO_DEADLINE, NULL);
	for (unsigned int i = 0; i < device->queue_count; i++) {
		virtqueue_place(&device->queues[i], &luggage->places[i]);
		luggage->rings[i] = device->queues[i].setup;
	}
	save_own(device, &luggage->state);
	device->ops->reset(device);
	device->active = false;
	pthread_mutex_unlock(&device->lock);
	device->ops->destroy(device);
	driver->device = NULL;
}

static void take_ring(struct virtio_driver *driver, struct virtqueue *vq, const struct driver_luggage *luggage)
{
	vq->setup = luggage->rings[vq->index];
	vq->setup.enabled = true;
	need(virtqueue_start_at(vq, driver->memory, luggage->features, &luggage->places[vq->index], NULL) == 0, "ring refused");
	driver->queues[vq->index].vq = vq;
}

int driver_unpack(struct virtio_driver *driver, struct virtio_device *device, struct driver_luggage *luggage,
		  struct err *err)
{
	struct state_buffer again = {0};
	int ret = 0;

	driver->device = device;
	device->transport = &transport_ops;
	device->transport_opaque = driver;
	pthread_mutex_lock(&device->lock);
	need(!(luggage->features & ~device->offered), "other features");
	device->features = luggage->features;
	for (unsigned int i = 0; i < device->queue_count; i++)
		take_ring(driver, &device->queues[i], luggage);
	device->active = true;
	if (device->ops->prepare)
		ret = device->ops->prepare(device, err);
	if (ret == 0 && device->ops->state)
		ret = state_load(device->ops->state, device, luggage->state.data, luggage->state.len, err);
	if (ret == 0) {
		save_own(device, &again);
		need(again.len == luggage->state.len &&
			     (!again.len || memcmp(again.data, luggage->state.data, again.len) == 0),
		     "what was loaded is not what was saved");
		device->ops->resume(device);
	}
	pthread_mutex_unlock(&device->lock);
	state_buffer_free(&again);
	state_buffer_free(&luggage->state);
	return ret;
}

/* ---- buffers ---- */

static uint16_t take_descriptor(struct driver_queue *queue)
{
	uint16_t index = queue->free;

	queue->free = queue->link[index];
	queue->free_count--;
	return index;
}

static struct vring_desc describe(const struct driver_segment *segment)
{
	return (struct vring_desc){
		.addr = htole64(segment->gpa),
		.len = htole32(segment->len),
		.flags = htole16(segment->in ? VRING_DESC_F_WRITE : 0),
	};
}

static int add_indirect(struct driver_queue *queue, const struct driver_segment *segments, unsigned int count)
{
	uint16_t head = take_descriptor(queue);
	uint64_t table = queue->tables + 16ull * DRIVER_INDIRECT * head;
	struct vring_desc *desc = driver_at(queue->driver, table);

	need(count <= DRIVER_INDIRECT, "too many segments for a table");
	for (unsigned int i = 0; i < count; i++) {
		desc[i] = describe(&segments[i]);
		if (i + 1 < count) {
			desc[i].flags |= htole16(VRING_DESC_F_NEXT);
			desc[i].next = htole16((uint16_t)(i + 1));
		}
	}
	queue->desc[head] = (struct vring_desc){
		.addr = htole64(table),
		.len = htole32(16 * count),
		.flags = htole16(VRING_DESC_F_INDIRECT),
	};
	queue->chain_len[head] = 1;
	return head;
}

static int add_direct(struct driver_queue *queue, const struct driver_segment *segments, unsigned int count)
{
	uint16_t head = queue->free;

	for (unsigned int i = 0; i < count; i++) {
		uint16_t index = take_descriptor(queue);

		queue->desc[index] = describe(&segments[i]);
		if (i + 1 < count) {
			queue->desc[index].flags |= htole16(VRING_DESC_F_NEXT);
			queue->desc[index].next = htole16(queue->link[index]);
		}
	}
	queue->chain_len[head] = (uint16_t)count;
	return head;
}

int driver_add(struct driver_queue *queue, const struct driver_segment *segments, unsigned int count, bool indirect)
{
	int head;

	if (queue->free_count < (indirect ? 1 : count))
		return -1;
	head = indirect ? add_indirect(queue, segments, count) : add_direct(queue, segments, count);
	driver_add_head(queue, (uint16_t)head);
	return head;
}

void driver_add_head(struct driver_queue *queue, uint16_t head)
{
	queue->avail->ring[queue->avail_idx % queue->size] = htole16(head);
	queue->avail_idx++;
}

bool driver_kick(struct driver_queue *queue)
{
	uint16_t old = le16toh(queue->avail->idx);
	bool wanted;

	__atomic_store_n(&queue->avail->idx, htole16(queue->avail_idx), __ATOMIC_RELEASE);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (queue->vq->event_idx)
		wanted = vring_need_event(le16toh(__atomic_load_n(driver_avail_event(queue), __ATOMIC_RELAXED)),
					  queue->avail_idx, old);
	else
		wanted = !(le16toh(__atomic_load_n(&queue->used->flags, __ATOMIC_RELAXED)) & VRING_USED_F_NO_NOTIFY);
	if (wanted)
		eventfd_kick(queue->vq->kick_fd);
	return wanted;
}

void driver_kick_always(struct driver_queue *queue)
{
	if (!driver_kick(queue))
		eventfd_kick(queue->vq->kick_fd);
}

static void free_chain(struct driver_queue *queue, uint32_t head)
{
	uint16_t last = (uint16_t)head;

	if (head >= queue->size || !queue->chain_len[head])
		return;
	for (uint16_t i = 1; i < queue->chain_len[head]; i++)
		last = queue->link[last];
	queue->link[last] = queue->free;
	queue->free = (uint16_t)head;
	queue->free_count += queue->chain_len[head];
	queue->chain_len[head] = 0;
}

bool driver_used(struct driver_queue *queue, uint16_t *head, uint32_t *len)
{
	struct vring_used_elem *elem = &queue->used->ring[queue->used_idx % queue->size];

	if (le16toh(__atomic_load_n(&queue->used->idx, __ATOMIC_ACQUIRE)) == queue->used_idx)
		return false;
	*head = (uint16_t)le32toh(elem->id);
	*len = le32toh(elem->len);
	free_chain(queue, le32toh(elem->id));
	queue->used_idx++;
	__atomic_store_n(driver_used_event(queue), htole16(queue->used_idx), __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return true;
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

bool driver_wait_used(struct driver_queue *queue, int timeout_ms, uint16_t *head, uint32_t *len)
{
	int64_t end = now_ms() + timeout_ms;

	while (!driver_used(queue, head, len)) {
		struct pollfd pollfd = {.fd = queue->call_fd, .events = POLLIN};
		int64_t left = end - now_ms();

		if (left <= 0 || poll(&pollfd, 1, (int)left) == 0)
			return driver_used(queue, head, len);
		eventfd_drain(queue->call_fd);
	}
	return true;
}

static void nothing(void *opaque)
{
}

/* The first call may come in the middle of a batch of callbacks, the second one after it. */
void driver_settle(struct event_loop *loop)
{
	event_loop_call(loop, nothing, NULL);
	event_loop_call(loop, nothing, NULL);
}

uint16_t *driver_used_event(struct driver_queue *queue)
{
	return &queue->avail->ring[queue->size];
}

uint16_t *driver_avail_event(struct driver_queue *queue)
{
	return (uint16_t *)&queue->used->ring[queue->size];
}
