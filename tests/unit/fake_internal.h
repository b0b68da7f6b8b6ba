/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the fake kernel share beside fake_vfio.h: descriptors, and groups with their containers. */
#pragma once

#include "tests/unit/fake_pci.h"

struct fake_kernel *fake_of(const struct vfio_sys *sys);
/* Counts a call; true when it is the one to fail. */
bool fake_fails(struct fake_kernel *fake);
struct fake_fd *fake_fd(struct fake_kernel *fake, int fd);
int fake_fd_new(struct fake_kernel *fake, enum fake_fd_kind kind, int index);
void fake_uuid_text(const uint8_t uuid[16], char text[37]);

int fake_group_ioctl(struct fake_kernel *fake, int group, unsigned long request, void *arg);
int fake_container_ioctl(struct fake_kernel *fake, int container, unsigned long request, void *arg);
void fake_unset_container(struct fake_kernel *fake, int group);

ssize_t fake_region_read(struct fake_kernel *fake, struct fake_device *device, void *buf, size_t len, uint64_t offset);
ssize_t fake_region_write(struct fake_kernel *fake, struct fake_device *device, const void *buf, size_t len,
			  uint64_t offset);
int fake_region_mmap(struct fake_kernel *fake, struct fake_device *device, void *addr, size_t len, int prot, int flags,
		     uint64_t offset, void **ret);
/* Memory decoding is on, in D0. Without an inside it always is. */
bool fake_decodes(const struct fake_device *device);
/* It can do DMA; the kernel ends that when the device is closed. */
bool fake_masters(const struct fake_device *device);
void fake_masters_off(struct fake_device *device);
/* What a reset by the host does to its inside. */
void fake_pci_was_reset(struct fake_kernel *fake, struct fake_device *device);
int fake_pci_ioctl(struct fake_kernel *fake, struct fake_device *device, unsigned long request, void *arg);
void fake_irqs_off(struct fake_pci *pci);

int fake_sysfs_open(struct fake_kernel *fake, const char *path);
/* The files of the kernel's modules. */
int fake_text_open(struct fake_kernel *fake, const char *path);
ssize_t fake_text_read(struct fake_kernel *fake, struct fake_fd *f, void *buf, size_t len);
ssize_t fake_sysfs_write(struct fake_kernel *fake, const struct fake_fd *f, const char *text, size_t len);
int fake_sysfs_readlink(const struct vfio_sys *sys, const char *path, char *buf, size_t size);
int fake_sysfs_read(const struct vfio_sys *sys, const char *path, char *buf, size_t size);
int fake_sysfs_list(const struct vfio_sys *sys, const char *path, void (*fn)(void *opaque, const char *name),
		    void *opaque);

/* Feature calls that are migration's; -ENOTTY for others. */
int fake_migration_feature(struct fake_kernel *fake, struct fake_device *device, struct vfio_device_feature *arg);
int fake_migration_reset(struct fake_kernel *fake, struct fake_device *device);
void fake_migration_closed(struct fake_device *device);
/* On a session's descriptor. */
int fake_state_ioctl(struct fake_device *device, unsigned long request, void *arg);
ssize_t fake_state_read(struct fake_device *device, void *buf, size_t len);
ssize_t fake_state_write(struct fake_device *device, const void *buf, size_t len);
short fake_state_poll(const struct fake_device *device, short events);
