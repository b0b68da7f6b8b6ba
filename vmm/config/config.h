/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a machine is made of, as its owner asked for it. Filled in by the command line and the JSON file, both of which
 * follow the one table of options in config_options.c; read by machine_create.c. It knows nothing of KVM or of the
 * host.
 *
 * Every string and array in it is its own, on the heap; machine_config_done() frees them all.
 */
#pragma once

#include "core/err.h"
#include "core/log.h"
#include "vmm/config/options.h"

#define MACHINE_MAX_CPUS 254u
#define MACHINE_MAX_MEMORY GIB(1024)
#define MACHINE_MIN_MEMORY MIB(1)
#define MACHINE_MAX_PCI_DEVICES 30u /* slots 1 to 30 of bus 0; slot 0 is the host bridge, 31 stays free */
#define MACHINE_MAX_NAME 32u        /* characters of a machine's name or a device's id */
#define MACHINE_MAX_QUEUES_DISK 64u
#define MACHINE_MAX_QUEUES_NET 16u

/* A choice that may be left to the program. */
enum toggle { TOGGLE_AUTO, TOGGLE_OFF, TOGGLE_ON };

enum hugepages { HUGEPAGES_NONE, HUGEPAGES_2M, HUGEPAGES_1G };

struct memory_config {
	uint64_t size;            /* bytes, a page multiple (of the huge page where those are asked for) */
	enum hugepages hugepages; /* hugetlb; NONE: transparent huge pages where memory is private */
	bool prefault;            /* populate everything before the guest starts */
	enum toggle shared;       /* a memfd; AUTO: only when something needs the descriptor */
};

enum cpu_model { CPU_HOST };

/* masked: features of the host's CPU that the guest must not see: "avx512f" for "-avx512f". */
struct cpu_config {
	enum cpu_model model;
	char **masked;
	size_t masked_count;
};

struct disk_config {
	char *path;
	char *id; /* never NULL after machine_config_finish() */
	bool readonly;
	bool direct;
	unsigned int queues; /* 0: to be chosen from the number of CPUs */
	char *serial;        /* the serial number that the guest reads, or NULL: the id */
};

enum net_kind { NET_NONE, NET_TAP, NET_PASST };

struct net_config {
	enum net_kind kind;
	char *target; /* TAP: the interface; PASST: its socket, or NULL to start one */
	char *id;     /* never NULL after machine_config_finish() */
	uint8_t mac[6]; /* all zero: to be made from machine name and id */
	unsigned int queues; /* pairs; 0: to be chosen */
	bool vhost;
};

struct vsock_config {
	uint32_t cid; /* 0: no vsock device */
	char *socket; /* NULL: the kernel's vhost-vsock */
};

enum port_kind { PORT_NONE, PORT_AUTO, PORT_STDIO, PORT_PTY, PORT_FILE, PORT_SOCKET };

/*
 * Where a serial port or a console leads to. FILE may be a character device; SOCKET is one we listen on. AUTO is gone
 * after machine_config_finish().
 */
struct port_config {
	enum port_kind kind;
	char *path;
};

/* How KVM tells what vCPUs write: by a bitmap of each memory slot, or by a ring of each vCPU. */

enum reboot_action { ON_REBOOT_REBOOT, ON_REBOOT_EXIT };

/* NOIOMMU: the device may write anywhere in the host's memory; only on request. */
enum vfio_backend { VFIO_BACKEND_AUTO, VFIO_BACKEND_IOMMUFD, VFIO_BACKEND_LEGACY, VFIO_BACKEND_NOIOMMU };

enum vfio_rom { VFIO_ROM_ON, VFIO_ROM_OFF, VFIO_ROM_FILE };

struct vfio_config {
	char *device; /* BDF, UUID or /sys/... path as given; NULL when only a descriptor was */
	enum vfio_backend backend;
	char *id; /* never NULL after machine_config_finish() */
	enum vfio_rom rom;
	char *rom_file;
	char *token; /* a VF's token (a UUID), or NULL */
	int fd;      /* the opened device, or -1 */
};

struct machine_config {
	char *name; /* never NULL after machine_config_finish() */
	char *kernel;
	char *initrd;  /* or NULL */
	char *cmdline; /* what the user gave, or NULL */
	struct memory_config memory;
	unsigned int cpus;
	struct cpu_config cpu;
	struct disk_config *disks;
	size_t disk_count;
	struct net_config *nets;
	size_t net_count;
	struct vsock_config vsock;
	struct port_config console; /* virtio-console; NONE: no such device */
	struct port_config serial;  /* NONE: the port is there and leads nowhere */
	bool balloon;
	enum reboot_action on_reboot;
	struct vfio_config *vfios;
	size_t vfio_count;
	int iommufd;    /* a descriptor handed in, or -1 */
	bool verbose, quiet;
	char *file; /* the JSON file this came from, or NULL */
	bool help;
};

/* `mvmm run`'s options, which are also the keys of its JSON file. config_options.c */
extern const struct option_table machine_options;

/* The defaults: 512 MiB, one CPU, serial port on stdio. No kernel yet. */
void machine_config_init(struct machine_config *config);
/* Frees what it holds and leaves the defaults. */
void machine_config_done(struct machine_config *config);

/*
 * Completes what was left open (the name, the devices' ids, queues, MAC addresses) and checks that the whole makes sense: limits, ids used
 * twice, two ports on one terminal. -EINVAL with a sentence that names the option and the way out; nothing on the host
 * is looked at but the amount of its memory.
 */
int machine_config_finish(struct machine_config *config, struct err *err);

/*
 * Puts what differs on this host into a configuration that another host offered: option is "disk", "net" or "vfio",
 * text "ID=VALUE", where VALUE is a path; tap=NAME or passt[=SOCKET]; a device as for --vfio. Or option is "name",
 * "serial", "console" or "vsock" (its socket), and text is the value. -EINVAL with the sentence for the user, who gave
 * both; an id that no device has is named, with those there are.
 */
int machine_config_override(struct machine_config *config, const char *option, const char *text, struct err *err);

/* 0, or -EINVAL when name is not 1 to MACHINE_MAX_NAME of a-z A-Z 0-9 . _ - beginning with a letter or digit. */
int machine_name_check(const char *name, struct err *err);

/* What the log is to carry. */
enum log_level machine_config_log_level(const struct machine_config *config);

/* How many PCI functions the configuration asks for, rng included. */
size_t machine_config_pci_devices(const struct machine_config *config);

/*
 * Adds one more host device, written as for --vfio, to a finished configuration, with an id that no other device has.
 * Its index is vfio_count - 1. -EINVAL with the sentence; nothing has changed then.
 */
int machine_config_add_vfio(struct machine_config *config, const char *text, struct err *err);
/* Forgets the one with this id, and closes the descriptor that was handed in for it; no effect when there is none. */
void machine_config_remove_vfio(struct machine_config *config, const char *id);
