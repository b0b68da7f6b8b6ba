/* SPDX-License-Identifier: Apache-2.0 */
/* See kvm.h. */
#include "vmm/kvm/kvm.h"

#include "core/bitmap.h"
#include "vmm/kvm/kvm_arch.h"
#include "vmm/kvm/kvm_stats.h"

#include <fcntl.h>
#include <sys/ioctl.h>

static int kvm_open_device(struct err *err)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (fd >= 0)
		return fd;
	if (errno == ENOENT)
		return err_set(err, -errno, "/dev/kvm is not there: load the module kvm_intel or kvm_amd, and enable "
					    "virtualization in the firmware");
	if (errno == EACCES || errno == EPERM)
		return err_set(err, -errno, "no right to /dev/kvm: add the user to the group that owns it (usermod -aG "
					    "kvm USER) and log in again");
	return err_sys(err, -errno, "/dev/kvm");
}

static int kvm_make_vm(int fd)
{
	int vm_fd;

	do { /* may be interrupted while it allocates memory */
		vm_fd = ioctl(fd, KVM_CREATE_VM, 0);
	} while (vm_fd < 0 && errno == EINTR);
	return vm_fd;
}

void kvm_ahead_open(struct kvm_ahead *ahead)
{
	ahead->vm_fd = -1;
	ahead->fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (ahead->fd >= 0)
		ahead->vm_fd = kvm_make_vm(ahead->fd);
}

void kvm_ahead_close(struct kvm_ahead *ahead)
{
	fd_close(&ahead->vm_fd);
	fd_close(&ahead->fd);
}

int kvm_open(struct kvm *kvm, struct err *err)
{
	return kvm_open_ahead(kvm, NULL, err);
}

int kvm_open_ahead(struct kvm *kvm, struct kvm_ahead *ahead, struct err *err)
{
	int version;

	memset(kvm, 0, sizeof(*kvm));
	kvm->fd = kvm->vm_fd = kvm->vfio_fd = kvm->stats_fd = -1;
	pthread_mutex_init(&kvm->lock, NULL);
	pthread_mutex_init(&kvm->coalesced_lock, NULL);
	if (ahead && ahead->fd >= 0) {
		kvm->fd = take_fd(&ahead->fd);
		kvm->vm_fd = take_fd(&ahead->vm_fd);
	} else {
		kvm->fd = kvm_open_device(err);
	}
	if (kvm->fd < 0)
		return kvm->fd;
	version = ioctl(kvm->fd, KVM_GET_API_VERSION, 0);
	if (version < 0)
		return err_sys(err, -errno, "/dev/kvm: KVM_GET_API_VERSION");
	if (version != KVM_API_VERSION)
		return err_set(err, -ENOTSUP, "/dev/kvm speaks version %d, not %d", version, KVM_API_VERSION);
	return 0;
}

int kvm_create_vm(struct kvm *kvm, struct err *err)
{
	int run_size;

	if (kvm->vm_fd < 0)
		kvm->vm_fd = kvm_make_vm(kvm->fd);
	if (kvm->vm_fd < 0)
		return err_sys(err, -errno, "KVM_CREATE_VM");
	run_size = ioctl(kvm->fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (run_size < 0)
		return err_sys(err, -errno, "KVM_GET_VCPU_MMAP_SIZE");
	if (run_size < (int)sizeof(struct kvm_run))
		return err_set(err, -ENOTSUP, "KVM_GET_VCPU_MMAP_SIZE gives %d", run_size);
	kvm->run_size = (size_t)run_size;
	kvm->stats_fd = kvm_stats_open(kvm->vm_fd);
	return kvm_arch_setup(kvm->vm_fd, err);
}

void kvm_close(struct kvm *kvm)
{
	fd_close(&kvm->stats_fd);
	fd_close(&kvm->vfio_fd);
	fd_close(&kvm->vm_fd);
	fd_close(&kvm->fd);
}

int kvm_check(const struct kvm *kvm, int extension)
{
	int value = ioctl(kvm->vm_fd, KVM_CHECK_EXTENSION, extension);

	return MAX(value, 0);
}

int kvm_check_host(const struct kvm *kvm, int extension)
{
	int value = ioctl(kvm->fd, KVM_CHECK_EXTENSION, extension);

	return MAX(value, 0);
}

int kvm_set_slot(struct kvm *kvm, unsigned int slot, const struct kvm_slot *s, uint64_t size)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.flags = size && s->ram && kvm->tracking ? KVM_MEM_LOG_DIRTY_PAGES : 0,
		.guest_phys_addr = s->gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)s->host,
	};

	return ioctl(kvm->vm_fd, KVM_SET_USER_MEMORY_REGION, &region) < 0 ? -errno : 0;
}

int kvm_make_room(struct kvm *kvm, struct kvm_slot *slot)
{
	size_t longs = bitmap_longs(slot->size / GUEST_PAGE_SIZE);

	if (longs > kvm->log_longs) {
		unsigned long *log = reallocarray(kvm->log, longs, sizeof(*log));

		if (!log)
			return -ENOMEM;
		kvm->log = log;
		kvm->log_longs = longs;
	}
	if (!kvm->manual_log)
		slot->kept = calloc(longs, sizeof(*slot->kept));
	return kvm->manual_log || slot->kept ? 0 : -ENOMEM;
}

static int kvm_add_slot(struct kvm *kvm, struct kvm_slot *s, struct err *err)
{
	unsigned int slot = 0;
	int ret = 0;

	pthread_mutex_lock(&kvm->lock);
	while (slot < KVM_SLOTS && kvm->slots[slot].size)
		slot++;
	if (slot == KVM_SLOTS)
		ret = -ENOSPC;
	else if (s->ram && kvm->tracking)
		ret = kvm_make_room(kvm, s);
	if (ret == 0)
		ret = kvm_set_slot(kvm, slot, s, s->size);
	if (ret == 0)
		kvm->slots[slot] = *s;
	else
		free(s->kept);
	pthread_mutex_unlock(&kvm->lock);
	return ret < 0 ? err_sys(err, ret, "memory slot at 0x%llx, %llu bytes", (unsigned long long)s->gpa,
				 (unsigned long long)s->size) : 0;
}

int kvm_map(struct kvm *kvm, uint64_t gpa, uint64_t size, void *host, struct err *err)
{
	struct kvm_slot s = {.gpa = gpa, .size = size, .host = host};

	return kvm_add_slot(kvm, &s, err);
}

void kvm_unmap(struct kvm *kvm, uint64_t gpa)
{
	pthread_mutex_lock(&kvm->lock);
	for (unsigned int slot = 0; slot < KVM_SLOTS; slot++) {
		struct kvm_slot *s = &kvm->slots[slot];

		if (!s->size || s->gpa != gpa)
			continue;
		kvm_set_slot(kvm, slot, s, 0);
		free(s->kept);
		*s = (struct kvm_slot){0};
		break;
	}
	pthread_mutex_unlock(&kvm->lock);
}

/* ---- host devices ---- */

static int kvm_vfio_tell(struct kvm *kvm, uint64_t attribute, int fd)
{
	int32_t value = fd;
	struct kvm_device_attr attr = {
		.group = KVM_DEV_VFIO_GROUP, .attr = attribute, .addr = (uintptr_t)&value,
	};

	return ioctl(kvm->vfio_fd, KVM_SET_DEVICE_ATTR, &attr) < 0 ? -errno : 0;
}

int kvm_vfio_add(struct kvm *kvm, int fd, struct err *err)
{
	struct kvm_create_device create = {.type = KVM_DEV_TYPE_VFIO};
	int ret;

	if (kvm->vfio_fd < 0) {
		if (ioctl(kvm->vm_fd, KVM_CREATE_DEVICE, &create) < 0)
			return err_sys(err, -errno, "KVM_CREATE_DEVICE for VFIO");
		kvm->vfio_fd = (int)create.fd;
	}
	ret = kvm_vfio_tell(kvm, KVM_DEV_VFIO_GROUP_ADD, fd);
	return ret < 0 ? err_sys(err, ret, "KVM_DEV_VFIO_FILE_ADD") : 0;
}

void kvm_vfio_remove(struct kvm *kvm, int fd)
{
	kvm_vfio_tell(kvm, KVM_DEV_VFIO_GROUP_DEL, fd);
}

/* ---- guest memory: each region is divided into slots ---- */

/* Where the slot at offset of the region ends. Huge pages do not cross slots. */
static uint64_t kvm_slot_end(const struct guest_region *region, uint64_t offset)
{
	uint64_t bytes = KVM_SLOT_BYTES, end;

	while (bytes < region->size / KVM_REGION_SLOTS)
		bytes *= 2;
	end = align_down(region->gpa + offset, bytes) + bytes - region->gpa;
	return MIN(end, region->size);
}

static void kvm_remove_slots(struct kvm *kvm, const struct guest_region *region, uint64_t size)
{
	for (uint64_t at = 0; at < size; at = kvm_slot_end(region, at))
		kvm_unmap(kvm, region->gpa + at);
}

static int kvm_add_region(struct guest_memory_listener *listener, const struct guest_region *region, struct err *err)
{
	struct kvm *kvm = container_of(listener, struct kvm, listener);
	int ret = 0;

	for (uint64_t at = 0, end; at < region->size && ret == 0; at = end) {
		struct kvm_slot s = {.gpa = region->gpa + at, .host = (char *)region->host + at, .ram = true};

		end = kvm_slot_end(region, at);
		s.size = end - at;
		ret = kvm_add_slot(kvm, &s, err);
		if (ret < 0)
			kvm_remove_slots(kvm, region, at);
	}
	return ret;
}

static void kvm_remove_region(struct guest_memory_listener *listener, const struct guest_region *region)
{
	kvm_remove_slots(container_of(listener, struct kvm, listener), region, region->size);
}

int kvm_add_memory(struct kvm *kvm, struct guest_memory *memory, struct err *err)
{
	static const struct guest_memory_listener_ops ops = {.add = kvm_add_region, .remove = kvm_remove_region};

	kvm->listener.ops = &ops;
	return guest_memory_listen(memory, &kvm->listener, err);
}

/* ---- eventfds ---- */

static int kvm_ioeventfd(struct kvm *kvm, const struct bus_kick *kick, uint32_t flags)
{
	struct kvm_ioeventfd arg = {.datamatch = kick->value, .addr = kick->addr, .len = kick->len, .fd = kick->fd,
				    .flags = flags | (kick->len ? KVM_IOEVENTFD_FLAG_DATAMATCH : 0)};

	return ioctl(kvm->vm_fd, KVM_IOEVENTFD, &arg) < 0 ? -errno : 0;
}

static int kvm_attach_mmio(void *opaque, const struct bus_kick *kick)
{
	return kvm_ioeventfd(opaque, kick, 0);
}

static void kvm_detach_mmio(void *opaque, const struct bus_kick *kick)
{
	kvm_ioeventfd(opaque, kick, KVM_IOEVENTFD_FLAG_DEASSIGN);
}

static int kvm_attach_pio(void *opaque, const struct bus_kick *kick)
{
	return kvm_ioeventfd(opaque, kick, KVM_IOEVENTFD_FLAG_PIO);
}

static void kvm_detach_pio(void *opaque, const struct bus_kick *kick)
{
	kvm_ioeventfd(opaque, kick, KVM_IOEVENTFD_FLAG_PIO | KVM_IOEVENTFD_FLAG_DEASSIGN);
}

int kvm_attach_buses(struct kvm *kvm, struct bus *mmio, struct bus *pio, struct err *err)
{
	static const struct bus_eventfd_ops mmio_ops = {.attach = kvm_attach_mmio, .detach = kvm_detach_mmio};
	static const struct bus_eventfd_ops pio_ops = {.attach = kvm_attach_pio, .detach = kvm_detach_pio};
	int ret = bus_set_eventfd_ops(mmio, &mmio_ops, kvm, err);

	return ret < 0 ? ret : bus_set_eventfd_ops(pio, &pio_ops, kvm, err);
}
