/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A kernel of our own: groups, type1 containers, iommufd with its IOAS and HWPTs, devices, the IOMMUs behind them and
 * the sysfs that tells of them, answering through struct vfio_sys with the errnos of Linux 7.2. It counts what is
 * open, so that a test ends with fake_left() == 0, and it can make any one call fail.
 *
 * A test describes the host (fake_iommu, fake_group, fake_device), runs the code under test on &fake->sys, lets
 * devices do DMA (fake_dma) and looks. Everything is a fixed table; overrunning one ends the program.
 */
#pragma once

#include "iommu/iommufd.h"
#include "vfio/vfio_uapi.h"

#include <pthread.h>

#define FAKE_MAX 32
#define FAKE_MAPS 2048
#define FAKE_PAGES 256

/* Page numbers that somebody wrote. */
struct fake_log {
	bool on;
	size_t count;
	uint64_t pages[FAKE_PAGES];
};

struct fake_map {
	uint64_t iova, size;
	bool file; /* by descriptor */
	int fd;
	int exporter; /* of a dma-buf: index + 1 of the device whose BAR it is */
	bool revoked; /* the exporter has stopped decoding: DMA faults, for good */
};

struct fake_maps {
	size_t count;
	struct fake_map map[FAKE_MAPS];
};

/* One IOMMU of the host. */
struct fake_iommu {
	bool used;
	bool dirty;         /* can track */
	bool refuse_dirty;  /* says it can, but HWPT_ALLOC with the flag is refused with refuse_errno */
	int refuse_errno;
	uint32_t type;      /* IOMMUFD_UAPI_HW_TYPE_* */
	uint64_t registers[4];
	uint64_t reserved_start, reserved_last; /* not mappable; 0, 0: nothing */
};

struct fake_group {
	bool used, noiommu;
	int opened;    /* fd, or 0 */
	int container; /* index + 1, or 0 */
	bool other_owner; /* a member that is no device of ours has a host driver: not viable */
};

#define FAKE_INSIDE 100

/*
 * How a device migrates. Its stream is any number of bytes in PRE_COPY (0xa5 the initial ones, 0xd1 the dirty ones), and
 * in STOP_COPY what is inside, of which the last byte is a mark that the other side looks for.
 */
struct fake_migration {
	uint32_t flags;        /* VFIO_MIGRATION_*; 0: it does not */
	bool no_data_size;     /* the feature is missing, as in Linux 6.1 */
	bool no_precopy_v2;
	bool no_poll;          /* always ready, and a read of nothing is how PRE_COPY says that there is none */
	uint64_t initial_size; /* bytes */
	uint8_t inside[FAKE_INSIDE];
	uint32_t state;
	bool v2, reinit;       /* the flag has been asked for; it is to be told */
	/* an arc fails, fail_times times: the one to fail_to, and the device is then in fail_into (0: ERROR) */
	uint32_t fail_to, fail_into;
	int fail_errno, fail_times;
	bool no_session;       /* the next arc that begins one forgets to give its descriptor */
	int fail_read, fail_write; /* -errno of every one, or 0 */
	bool refuse_reset;
	unsigned int resets;
	uint64_t given, got;   /* bytes that were ever read from it, and written to it */
	/* the session */
	uint64_t initial, dirty, left; /* to be read: in PRE_COPY, in STOP_COPY */
	uint64_t taken;                /* bytes written to it */
	uint8_t tail[FAKE_INSIDE];     /* the last of them */
	size_t piece;                  /* the most that one read or write takes; 0: all */
};

struct fake_device {
	bool used, mdev, cdev; /* cdev: has a vfio-dev directory */
	char name[64];
	int group, iommu;      /* indexes; iommu -1: mediated */
	char driver[32];       /* "vfio-pci", another one, or "" */
	bool dma_buf;          /* the feature is there */
	uint32_t flags, regions, irqs;
	struct fake_pci *pci;  /* its inside (fake_pci.h), or NULL */
	/* sysfs */
	char native[32], override[32]; /* the driver that the kernel would choose; driver_override */
	bool stuck;                    /* its driver cannot be unbound */
	bool choosy;                   /* no VFIO driver takes it */
	uint16_t vendor, product;
	uint32_t class_code;
	unsigned int vfs, total_vfs;
	char physfn[64];
	bool token_wanted;
	uint8_t token[16];
	/* DMA logging */
	bool can_log;
	uint32_t log_max_ranges;
	uint64_t log_page_size; /* what START answers */
	struct fake_log log;
	size_t log_range_count;
	struct vfio_device_feature_dma_logging_range log_ranges[16];
	struct fake_migration migration;
	/* state */
	int fd;          /* the one that has it open, or 0 */
	int ctx;         /* iommufd it is bound to, index + 1 */
	uint32_t devid, pt; /* pt: the HWPT or IOAS it is attached to */
};

struct fake_container {
	bool used, type1, noiommu;
	bool fd_open;
	int groups;
	struct fake_maps maps;
	struct fake_log log;
};

enum fake_object_kind { FAKE_FREE, FAKE_IOAS, FAKE_HWPT, FAKE_IDEV };

struct fake_object {
	enum fake_object_kind kind;
	int ctx;            /* index */
	struct fake_maps maps; /* IOAS */
	int device;         /* IDEV: index */
	uint32_t ioas;      /* HWPT */
	int iommu;          /* HWPT: index */
	bool dirty;         /* HWPT: allocated with the flag */
	struct fake_log log; /* HWPT */
};

enum fake_fd_kind { FAKE_CLOSED, FAKE_FD_CONTAINER, FAKE_FD_GROUP, FAKE_FD_DEVICE, FAKE_FD_CDEV, FAKE_FD_IOMMUFD,
		    FAKE_FD_DMABUF, FAKE_FD_SYSFS, FAKE_FD_STATE, FAKE_FD_TEXT };
enum fake_file { FAKE_OVERRIDE, FAKE_UNBIND, FAKE_PROBE, FAKE_ALIAS, FAKE_MODINFO };

struct fake_fd {
	enum fake_fd_kind kind;
	int index; /* into the table of its kind */
	bool bound;
	enum fake_file file; /* FAKE_FD_SYSFS, FAKE_FD_TEXT */
	size_t at;           /* FAKE_FD_TEXT: bytes that were read */
};

struct fake_kernel {
	struct vfio_sys sys;
	pthread_mutex_t lock; /* held in the calls that devices' threads make */
	/* what this kernel has */
	bool no_iommufd, no_container, no_map_file, no_noiommu, old_bind;
	bool type1_dirty; /* container has the migration capability */
	uint64_t type1_max_bitmap;
	uint32_t type1_avail; /* mappings left; 0: the capability is absent and there is no limit */
	uint64_t page_sizes;
	uint64_t locked_limit; /* bytes */
	uint64_t others_locked; /* bytes that other processes of this user have locked; counts in iommufd alone */
	unsigned int slow_map_ms;      /* how long a map takes */
	uint64_t waited_ms;            /* in polls that had nothing to tell */
	bool no_vfio_pci; /* the module is not loaded */
	const char *variant;  /* a VFIO driver that is loaded, too; NULL: none */
	const char *alias;    /* modules.alias; NULL: there is no such file */
	const char *modinfo;  /* modules.builtin.modinfo; NULL as well */
	size_t modinfo_size;
	bool no_rights; /* opening anything under /dev answers EACCES */
	/* one call fails */
	unsigned int calls, fail_at; /* fail_at 0: none */
	unsigned int fail_also;      /* so many after it fail as well */
	int fail_errno;              /* default -ENOMEM */
	/* a particular ioctl fails from its fail_after'th use on, fail_times times */
	unsigned long fail_request;
	int fail_request_errno, fail_after, fail_times;
	/* how often an ioctl was made */
	unsigned long counted;
	unsigned int count;
	uint64_t mapped_bytes; /* of regions */
	unsigned int detached_masters; /* devices that were detached while they could do DMA */
	unsigned int prefaults;         /* begun and not ended */
	unsigned int prefaulted;        /* ever begun */
	unsigned int unsampled;         /* of them without a sample, which could end it at once */
	unsigned int prefaulted_at_hwpt; /* of them ended, when a page table was made */
	unsigned int prefaults_at_open; /* when a device was bound, or opened through its group */
	char journal[8192];    /* fake_note */
	size_t journal_len;

	struct fake_iommu iommus[FAKE_MAX];
	struct fake_group groups[FAKE_MAX];
	struct fake_device devices[FAKE_MAX];
	struct fake_container containers[FAKE_MAX];
	struct fake_object objects[FAKE_MAX]; /* id = index + 1 */
	struct { bool used, fd_open; int refs; } ctxs[FAKE_MAX];
	struct fake_fd fds[FAKE_MAX * 4]; /* fd = index + FAKE_FD_BASE */
};

#define FAKE_FD_BASE 1000

/* A kernel with everything, no devices. Free with fake_free. */
struct fake_kernel *fake_new(void);
void fake_free(struct fake_kernel *fake);

/* Describe the host. Indexes come back; group and iommu take them. */
int fake_iommu(struct fake_kernel *fake, bool dirty);
int fake_group(struct fake_kernel *fake);
/* A PCI function bound to vfio-pci, with a cdev. */
struct fake_device *fake_device(struct fake_kernel *fake, const char *bdf, int group, int iommu);
struct fake_device *fake_mdev(struct fake_kernel *fake, const char *uuid, int group);

/* Opens a descriptor as another process would, to be handed in. */
int fake_open(struct fake_kernel *fake, const char *path);

/* Lets it migrate: something is inside. */
void fake_migrates(struct fake_device *device, uint32_t flags);

/* The device writes one byte in every page of [iova, iova + size); false when that faults, or the device is stopped. */
bool fake_dma(struct fake_kernel *fake, const struct fake_device *device, uint64_t iova, uint64_t size);
/* True when all of the range is mapped for the device. */
bool fake_mapped(struct fake_kernel *fake, const struct fake_device *device, uint64_t iova, uint64_t size);

/* Descriptors, containers, groups, objects, maps that exist: 0 is a clean host. Says what, as TAP comments. */
unsigned int fake_left(const struct fake_kernel *fake);
/* Bytes that are pinned for devices. */
uint64_t fake_pinned(const struct fake_kernel *fake);
unsigned int fake_objects(const struct fake_kernel *fake, enum fake_object_kind kind);

/* For fake_iommufd.c */
int fake_iommufd_ioctl(struct fake_kernel *fake, int ctx, unsigned long request, void *arg);
int fake_cdev_attach(struct fake_kernel *fake, struct fake_device *device, struct vfio_uapi_attach *arg);
void fake_idev_gone(struct fake_kernel *fake, struct fake_device *device);
/* per_user: counts with what other processes have locked. Nothing is pinned where no IOMMU translates. */
int fake_map(struct fake_kernel *fake, struct fake_maps *maps, const struct fake_map *map, bool pins, bool per_user);
/* True if so many more bytes may be locked. */
bool fake_may_lock(const struct fake_kernel *fake, uint64_t size, bool per_user);
uint64_t fake_mapped_size(const struct fake_maps *maps);
/* Whether an IOMMU translates for a device of the container, or of the IOAS: what is mapped is pinned. */
bool fake_container_pins(const struct fake_kernel *fake, int container);
bool fake_ioas_pins(const struct fake_kernel *fake, uint32_t ioas);
/* The device's BARs are revoked wherever they are mapped by dma-buf. */
void fake_revoke(struct fake_kernel *fake, const struct fake_device *device);
/* 0; -ENOENT: cuts a map. *unmapped says how much. */
int fake_unmap(struct fake_kernel *fake, struct fake_maps *maps, uint64_t iova, uint64_t size, uint64_t *unmapped);
bool fake_covered(const struct fake_maps *maps, uint64_t iova, uint64_t size);
void fake_log_add(struct fake_log *log, uint64_t page);
/* Sets the bits of the logged pages in the range and forgets the pages. */
void fake_log_report(struct fake_log *log, uint64_t iova, uint64_t size, unsigned long *bitmap);
struct fake_object *fake_object(struct fake_kernel *fake, int ctx, uint32_t id, enum fake_object_kind kind);
struct fake_object *fake_object_new(struct fake_kernel *fake, int ctx, enum fake_object_kind kind, uint32_t *id);
void fake_die(const char *why) __attribute__((noreturn));
