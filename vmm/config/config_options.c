/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The options of `mvmm run`, in the order of the help. The command line, the JSON file, the defaults, the help and the
 * completion follow from this table; tests/unit/cli.sh checks the man page against it.
 */
#include "vmm/config/config.h"

static const char *const hugepage_words[] = {"off", "2M", "1G", NULL};
static const char *const toggle_words[] = {"auto", "off", "on", NULL};
static const char *const model_words[] = {"host", NULL};
static const char *const clock_words[] = {"stop", "run", NULL};
static const char *const transport_words[] = {"pci", "mmio", NULL};
static const char *const reboot_words[] = {"reboot", "exit", NULL};
static const char *const backend_words[] = {"auto", "iommufd", "legacy", "noiommu", NULL};
static const char *const on_error_words[] = {"report", "stop", NULL};
static const char *const rom_words[] = {"on", "off", NULL};
const char *const seccomp_words[] = {"on", "off", "log", NULL};

#define FIELD(member) .offset = offsetof(struct machine_config, member)
#define KEYS(...)                                             \
	.keys = (const struct option_key[]){__VA_ARGS__},     \
	.key_count = ARRAY_SIZE(((const struct option_key[]){__VA_ARGS__}))
/* An option whose whole text is one value. */
#define PLAIN(...) .plain = true, .keys = &(const struct option_key){__VA_ARGS__}, .key_count = 1
#define LIST(array, counter)                                               \
	FIELD(array), .count_offset = offsetof(struct machine_config, counter), \
	.item_size = sizeof(*((struct machine_config *)0)->array)

#define KEY(type, member) .offset = offsetof(struct type, member)
#define ID(type) {"id", OPTION_STRING, KEY(type, id), .help = "NAME"}

/* Limits of a device, see number.h. */
#define RATE(name, type, member) {name, OPTION_RATE, KEY(type, member), .max = 1ull << 50, .help = "10M"}
#define RATE_COUNT(name, type, member) {name, OPTION_RATE_COUNT, KEY(type, member), .max = 1000000000, .help = "100"}

/* What a serial port or a console may be connected to: a kind, with or without a path. */
#define PORT_PATH(name, value_)                                                                                     \
	{name, OPTION_CHOICE_TEXT, KEY(port_config, kind), .text_offset = offsetof(struct port_config, path), \
	 .value = value_, .help = "FILE"}
#define PORT_ALONE(name, value_) {name, OPTION_CHOICE, KEY(port_config, kind), .value = value_}

static const struct option options[] = {
	{"kernel", "FILE", "the kernel: a bzImage, or an ELF file with a PVH note", FIELD(kernel),
	 PLAIN("kernel", OPTION_STRING, .help = "FILE")},
	{"initrd", "FILE", "the initial ramdisk", FIELD(initrd), PLAIN("initrd", OPTION_STRING, .help = "FILE")},
	{"cmdline", "TEXT", "the kernel's command line", FIELD(cmdline),
	 PLAIN("cmdline", OPTION_STRING, .help = "TEXT")},
	{"memory", "SIZE[,hugepages=off|2M|1G][,prefault=on|off][,shared=auto|on|off]",
	 "the size of the memory; 512M by default", FIELD(memory), .bare = true,
	 KEYS({"size", OPTION_SIZE, KEY(memory_config, size), .value = MIB(512), .min = MACHINE_MIN_MEMORY,
	       .max = MACHINE_MAX_MEMORY, .help = "SIZE"},
	      {"hugepages", OPTION_WORD, KEY(memory_config, hugepages), .words = hugepage_words},
	      {"prefault", OPTION_BOOL, KEY(memory_config, prefault)},
	      {"shared", OPTION_WORD, KEY(memory_config, shared), .words = toggle_words})},
	{"cpus", "N", "the number of CPUs, 1 to 254; 1 by default", FIELD(cpus),
	 PLAIN("cpus", OPTION_UINT, .value = 1, .min = 1, .max = MACHINE_MAX_CPUS, .help = "N")},
	{"cpu", "host[,nested=on|off][,pmu=on|off][,-FEATURE]...",
	 "the CPU model: the host's, without the named features, nested virtualization and performance counters",
	 FIELD(cpu), .bare = true,
	 KEYS({"model", OPTION_WORD, KEY(cpu_config, model), .words = model_words},
	      {"nested", OPTION_BOOL, KEY(cpu_config, nested)}, {"pmu", OPTION_BOOL, KEY(cpu_config, pmu)},
	      {"without", OPTION_NAMES, KEY(cpu_config, masked),
	       .text_offset = offsetof(struct cpu_config, masked_count)})},
	{"disk", "FILE[,readonly=on|off][,direct=on|off][,lock=on|off][,queues=N][,serial=TEXT][,sector-size=512|4096]"
	 "[,on-error=report|stop][,bandwidth=RATE][,ops=RATE][,id=NAME]",
	 "a disk from a raw image or a block device; may be repeated", LIST(disks, disk_count), .bare = true,
	 KEYS({"path", OPTION_STRING, KEY(disk_config, path), .help = "FILE", .required = true},
	      {"readonly", OPTION_BOOL, KEY(disk_config, readonly)}, {"direct", OPTION_BOOL, KEY(disk_config, direct)},
	      {"lock", OPTION_BOOL, KEY(disk_config, lock), .value = true},
	      {"queues", OPTION_UINT, KEY(disk_config, queues), .min = 1, .max = MACHINE_MAX_QUEUES_DISK, .help = "N"},
	      {"serial", OPTION_STRING, KEY(disk_config, serial), .help = "TEXT"},
	      {"sector-size", OPTION_UINT, KEY(disk_config, sector_size), .min = 512, .max = 4096, .help = "512"},
	      {"on-error", OPTION_WORD, KEY(disk_config, on_error), .words = on_error_words},
	      RATE("bandwidth", disk_config, bandwidth), RATE_COUNT("ops", disk_config, ops), ID(disk_config))},
	{"net", "tap=NAME|passt[=SOCKET]|fd=N[,mac=MAC][,queues=N][,vhost=on|off][,link=on|off][,rx-bandwidth=RATE][,rx-packets=RATE]"
	 "[,tx-bandwidth=RATE][,tx-packets=RATE][,id=NAME]",
	 "a network card on a tap interface, also an open one, or on passt (no root needed); may be repeated", LIST(nets, net_count),
	 KEYS({"tap", OPTION_CHOICE_TEXT, KEY(net_config, kind), .text_offset = offsetof(struct net_config, target),
	       .value = NET_TAP, .help = "NAME"},
	      {"passt", OPTION_CHOICE_MAYBE, KEY(net_config, kind), .text_offset = offsetof(struct net_config, target),
	       .value = NET_PASST, .help = "FILE"},
	      {"fd", OPTION_CHOICE_FD, KEY(net_config, kind), .text_offset = offsetof(struct net_config, fd), .value = NET_FD,
	       .help = "N"},
	      {"mac", OPTION_MAC, KEY(net_config, mac), .help = "MAC"},
	      {"queues", OPTION_UINT, KEY(net_config, queues), .min = 1, .max = MACHINE_MAX_QUEUES_NET, .help = "N"},
	      {"vhost", OPTION_BOOL, KEY(net_config, vhost)}, {"link", OPTION_BOOL, KEY(net_config, link), .value = true},
	      RATE("rx-bandwidth", net_config, rx_bandwidth),
	      RATE_COUNT("rx-packets", net_config, rx_packets), RATE("tx-bandwidth", net_config, tx_bandwidth),
	      RATE_COUNT("tx-packets", net_config, tx_packets), ID(net_config))},
	{"vsock", "cid=N[,socket=PATH]", "sockets between host and guest, by the kernel's vhost-vsock or a UNIX socket",
	 FIELD(vsock),
	 KEYS({"cid", OPTION_UINT, KEY(vsock_config, cid), .min = 3, .max = INT32_MAX, .help = "N", .required = true},
	      {"socket", OPTION_STRING, KEY(vsock_config, socket), .help = "FILE"})},
	{"console", "PATH|pty|stdio|none", "a virtio console; none by default", FIELD(console),
	 .bare = true, .default_choice = PORT_NONE,
	 KEYS(PORT_PATH("file", PORT_FILE), PORT_ALONE("pty", PORT_PTY), PORT_ALONE("stdio", PORT_STDIO),
	      PORT_ALONE("none", PORT_NONE))},
	{"serial", "stdio|file=PATH|socket=PATH|pty|none[,bandwidth=RATE]",
	 "the first serial port; stdio by default, or none if the console uses stdio", FIELD(serial), .bare = true,
	 .default_choice = PORT_AUTO,
	 KEYS(PORT_PATH("file", PORT_FILE), PORT_PATH("socket", PORT_SOCKET), PORT_ALONE("stdio", PORT_STDIO),
	      PORT_ALONE("pty", PORT_PTY), PORT_ALONE("none", PORT_NONE), RATE("bandwidth", port_config, bandwidth))},
	{"rng", "bandwidth=RATE|ops=RATE", "how much the guest may read of the random number generator", FIELD(rng),
	 KEYS(RATE("bandwidth", rng_config, bandwidth), RATE_COUNT("ops", rng_config, ops))},
	{"balloon", "on|off", "a balloon, through which the guest gives memory back", FIELD(balloon),
	 PLAIN("balloon", OPTION_BOOL)},
	{"transport", "pci|mmio", "how the guest reaches its virtio devices, by PCI or by registers alone (virtio-mmio); pci by "
	 "default", FIELD(transport), PLAIN("transport", OPTION_WORD, .words = transport_words)},
	{"vfio", "BDF|UUID|/sys/...[,backend=auto|iommufd|legacy|noiommu][,rom=on|off|FILE][,p2p=on|off][,token=UUID][,fd=N][,id=NAME]",
	 "a host device that is passed to the guest; may be repeated", LIST(vfios, vfio_count), .bare = true,
	 KEYS({"device", OPTION_STRING, KEY(vfio_config, device), .help = "BDF"},
	      {"backend", OPTION_WORD, KEY(vfio_config, backend), .words = backend_words},
	      {"rom", OPTION_WORD_OR_PATH, KEY(vfio_config, rom), .text_offset = offsetof(struct vfio_config, rom_file),
	       .words = rom_words},
	      {"p2p", OPTION_BOOL, KEY(vfio_config, p2p), .value = true},
	      {"token", OPTION_STRING, KEY(vfio_config, token), .help = "UUID"},
	      {"fd", OPTION_FD, KEY(vfio_config, fd), .value = UINT32_MAX, .help = "N"}, ID(vfio_config))},
	{"iommufd", "fd=N", "an open /dev/iommu, handed in as descriptor N", FIELD(iommufd),
	 KEYS({"fd", OPTION_FD, .value = UINT32_MAX, .help = "N", .required = true})},
	{"clock", "stop|run", "what the guest's clocks do while it is paused or moved; stop by default", FIELD(clock),
	 PLAIN("clock", OPTION_WORD, .words = clock_words)},
	{"on-reboot", "reboot|exit", "what happens when the guest reboots; reboot by default", FIELD(on_reboot),
	 PLAIN("on-reboot", OPTION_WORD, .words = reboot_words)},
	AFFINITY_OPTION(machine_config, affinity),
	JAIL_OPTIONS(machine_config, jail),
	REPORT_OPTIONS(machine_config, report),
	{"name", "NAME", "the machine's name, for other commands; vm-PID by default", FIELD(name),
	 PLAIN("name", OPTION_STRING, .help = "NAME")},
	{"seccomp", "on|off|log", "allow each thread only the system calls that it needs, or log the others; " MVMM_SECCOMP_TEXT " by default",
	 FIELD(seccomp), .command_only = true, PLAIN("seccomp", OPTION_WORD, .words = seccomp_words, .value = MVMM_SECCOMP)},
	{"config", "FILE", "read options from a JSON file; the command line overrides them", FIELD(file),
	 .command_only = true, PLAIN("config", OPTION_STRING, .help = "FILE")},
	{"verbose", NULL, "log more", FIELD(verbose), .command_only = true, PLAIN("verbose", OPTION_FLAG)},
	{"quiet", NULL, "log only errors", FIELD(quiet), .command_only = true, PLAIN("quiet", OPTION_FLAG)},
	{"help", NULL, "show this", FIELD(help), .command_only = true, PLAIN("help", OPTION_FLAG)},
};

const struct option_table machine_options = {options, ARRAY_SIZE(options)};
