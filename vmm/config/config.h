/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration of a machine. The command line and the JSON file fill it in, both by the table of options in
 * config_options.c; machine_create.c reads it. It knows nothing of KVM or of the host.
 *
 * The configuration owns all its strings and arrays; machine_config_done() frees them.
 */
#pragma once

#include "core/err.h"
#include "core/log.h"
#include "vmm/config/affinity.h"
#include "vmm/config/jail_options.h"
#include "vmm/config/options.h"
#include "vmm/config/report_options.h"

#define MACHINE_MAX_CPUS 254u
#define MACHINE_MAX_MEMORY GIB(1024)
#define MACHINE_MIN_MEMORY MIB(1)
#define MACHINE_MAX_PCI_DEVICES 30u /* slots 1 to 30 of bus 0; slot 0 is the host bridge, 31 stays free */
#define MACHINE_MAX_NAME 32u        /* characters of a machine's name or a device's id */
#define MACHINE_MAX_QUEUES_DISK 64u
#define MACHINE_MAX_QUEUES_NET 16u

/* AUTO: the program chooses. */
enum toggle { TOGGLE_AUTO, TOGGLE_OFF, TOGGLE_ON };

enum hugepages { HUGEPAGES_NONE, HUGEPAGES_2M, HUGEPAGES_1G };

struct memory_config {
	uint64_t size;            /* bytes, a multiple of the page size (of the huge page size with hugepages) */
	enum hugepages hugepages; /* hugetlb; NONE: transparent huge pages if the memory is private */
	bool prefault;            /* populate all memory before the guest starts */
	enum toggle shared;       /* a memfd; AUTO: only if something needs the descriptor */
};

enum cpu_model { CPU_HOST };

/* masked: features of the host's CPU that are hidden from the guest: "avx512f" for "-avx512f". */
struct cpu_config {
	enum cpu_model model;
	char **masked;
	size_t masked_count;
	bool nested; /* the guest may run guests of its own */
	bool pmu;    /* it has performance counters */
};

enum disk_on_error { ON_ERROR_REPORT, ON_ERROR_STOP };

struct disk_config {
	char *path;
	const char *below; /* a folder that path must not lead out of, or NULL; not owned, not an option */
	char *id; /* never NULL after machine_config_finish() */
	bool readonly;
	bool direct;
	bool lock;           /* nothing else may write it meanwhile */
	unsigned int queues; /* 0: derived from the number of CPUs */
	char *serial;        /* the serial number that the guest reads; NULL: the id */
	unsigned int sector_size; /* 0: the device's own */
	enum disk_on_error on_error;
	struct rate bandwidth, ops; /* of reads and writes together */
};

enum net_kind { NET_NONE, NET_TAP, NET_PASST, NET_FD };

struct net_config {
	enum net_kind kind;
	char *target; /* TAP: the interface; PASST: its socket, or NULL to start passt */
	int fd;       /* FD: an open tap; the session makes it a TAP, whose descriptor is among the machine's files */
	char *id;     /* never NULL after machine_config_finish() */
	uint8_t mac[6];      /* all zero: derived from the machine's name and the id */
	bool new_mac;        /* an incoming machine had another one; not an option */
	unsigned int queues; /* pairs; 0: the program chooses */
	bool vhost;
	bool link; /* the cable is plugged in */
	struct rate rx_bandwidth, rx_packets, tx_bandwidth, tx_packets; /* to the guest and from it */
};

struct rng_config {
	struct rate bandwidth, ops;
};

struct vsock_config {
	uint32_t cid; /* 0: no vsock device */
	char *socket; /* NULL: the kernel's vhost-vsock */
	bool named;   /* machine_config_override has named the socket, or the kernel; not an option */
};

enum port_kind { PORT_NONE, PORT_AUTO, PORT_STDIO, PORT_PTY, PORT_FILE, PORT_SOCKET };

/*
 * What a serial port or a console is connected to. FILE may be a character device; the machine listens on SOCKET.
 * machine_config_finish() resolves AUTO.
 */
struct port_config {
	enum port_kind kind;
	char *path;
	struct rate bandwidth; /* of a serial port's output */
};

/* What the guest's clocks do while it is paused or moved. */
enum clock_choice { CLOCK_STOP, CLOCK_RUN };

/* The filters of system calls; LOG: what they do not allow is done, and written to the kernel's log. */
enum seccomp_mode { SECCOMP_ON, SECCOMP_OFF, SECCOMP_LOG };

/* How the guest reaches its virtio devices. */
enum transport { TRANSPORT_PCI, TRANSPORT_MMIO };

enum reboot_action { ON_REBOOT_REBOOT, ON_REBOOT_EXIT };

/* NOIOMMU: the device can write to all of the host's memory; only on request. */
enum vfio_backend { VFIO_BACKEND_AUTO, VFIO_BACKEND_IOMMUFD, VFIO_BACKEND_LEGACY, VFIO_BACKEND_NOIOMMU };

enum vfio_rom { VFIO_ROM_ON, VFIO_ROM_OFF, VFIO_ROM_FILE };

struct vfio_config {
	char *device; /* BDF, UUID or /sys/... path as given; NULL if only a descriptor was given */
	enum vfio_backend backend;
	char *id; /* never NULL after machine_config_finish() */
	enum vfio_rom rom;
	char *rom_file;
	char *token; /* a VF's token (a UUID), or NULL */
	int fd;      /* the open device, or -1 */
	bool given;  /* another process has opened it, while the machine ran; not an option */
	bool p2p;    /* it and other devices reach each other's BARs */
};

struct machine_config {
	char *name; /* never NULL after machine_config_finish() */
	char *kernel;  /* NULL only if incoming: a reboot ends the machine */
	char *initrd;  /* or NULL */
	char *cmdline; /* as given, or NULL */
	struct memory_config memory;
	unsigned int cpus;
	struct cpu_config cpu;
	struct disk_config *disks;
	size_t disk_count;
	struct net_config *nets;
	size_t net_count;
	struct vsock_config vsock;
	struct port_config console; /* virtio-console; NONE: no such device */
	struct port_config serial;  /* NONE: the port exists and is connected to nothing */
	struct rng_config rng;
	bool balloon;
	enum transport transport;
	enum clock_choice clock;
	enum reboot_action on_reboot;
	struct vfio_config *vfios;
	size_t vfio_count;
	int iommufd; /* a descriptor handed in, or -1 */
	struct jail_options jail;
	struct affinity_options affinity; /* of the vCPUs */
	bool force_cpu; /* an incoming guest may rely on features that this host lacks; not an option */
	bool incoming; /* another host offered it; not an option */
	struct report_options report;
	enum seccomp_mode seccomp;
	bool verbose, quiet;
	char *file; /* the JSON file that was read, or NULL */
	bool help;
};

/* The options of `mvmm run`, which are also the members of its JSON file (config_options.c). */
extern const struct option_table machine_options;

/* Sets the defaults: 512 MiB, one CPU, serial port on stdio, no kernel. */
extern const char *const seccomp_words[]; /* of enum seccomp_mode */

void machine_config_init(struct machine_config *config);
/* Frees the strings and arrays and sets the defaults. */
void machine_config_done(struct machine_config *config);

/*
 * Fills in what was not given (the name, the devices' ids, queues, MAC addresses) and checks the whole: limits, ids
 * used twice, two ports on one terminal. Of the host, it reads only the amount of memory. -EINVAL: the message names
 * the option and what to do.
 */
int machine_config_finish(struct machine_config *config, struct err *err);
/* The same of its devices alone. */
int machine_config_finish_devices(struct machine_config *config, struct err *err);

/*
 * Replaces what differs on this host in a configuration that another host offered, or a snapshot has. Option "disk",
 * "net" or "vfio": text is "ID=VALUE", where VALUE is a path; tap=NAME or passt[=SOCKET], and mac=MAC, or only that; a
 * device as for --vfio. Option "vsock": text is the path of a socket; or "kernel"; or cid=N, alone or with socket=PATH
 * or kernel. Option "name", "serial", "console" or "clock": text is the value. -EINVAL with the message for the user,
 * who gave both; for an unknown id it lists the known ones.
 */
int machine_config_override(struct machine_config *config, const char *option, const char *text, struct err *err);

/* *ret: the path of the disk in such a text, "ID=PATH" with the keys of a disk; the caller's. */
int machine_config_override_path(const char *text, char **ret, struct err *err);

/* -EINVAL if name is not 1 to MACHINE_MAX_NAME characters of a-z A-Z 0-9 . _ - with a letter or digit first. */
int machine_name_check(const char *name, struct err *err);

/* ---- limits, config_limits.c ---- */

#define MACHINE_MAX_LIMITS 4u

/* The limits of one device: index is of its limiter (devices/virtio/virtio.h), ops whether of operations or of bytes. */
struct machine_limits {
	struct machine_limit {
		unsigned int index;
		bool ops;
		struct token_bucket_limit limit;
	} limits[MACHINE_MAX_LIMITS];
	size_t count;
};

/* Those of the device with this id: none if the configuration has no such device. */
void machine_config_limits(const struct machine_config *config, const char *id, struct machine_limits *ret);

/*
 * Changes limits of the disk or network card with this id, of "rng" or of "serial": text has keys of its option,
 * "bandwidth=10M,ops=off". *ret: those that were given. -ENODEV, or -EINVAL: nothing has changed.
 */
int machine_config_set_limits(struct machine_config *config, const char *id, const char *text,
			      struct machine_limits *ret, struct err *err);

/* The number of PCI functions in the configuration, including the rng. */
size_t machine_config_pci_devices(const struct machine_config *config);
