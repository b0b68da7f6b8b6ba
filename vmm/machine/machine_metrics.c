/* SPDX-License-Identifier: Apache-2.0 */
/* See machine_metrics.h. */
#include "vmm/machine/machine_metrics.h"

#include "vmm/kvm/kvm_stats.h"
#include "vmm/machine/machine_info.h"
#include "vmm/machine/machine_internal.h"

#include <stdio.h>

/* ---- vCPUs ---- */

static void machine_metrics_exits(const struct machine *machine, struct metrics *metrics)
{
	metrics_begin(metrics, METRICS_COUNTER, "mvmm_vcpu_exits_total",
		      "Returns of a vCPU from the kernel to mvmm, by reason");
	for (unsigned int i = 0; i < vcpu_set_count(machine->vcpus); i++) {
		for (unsigned int reason = 0; reason < VCPU_EXITS; reason++) {
			uint64_t count = vcpu_set_exits(machine->vcpus, i, reason);
			char vcpu[12];

			snprintf(vcpu, sizeof(vcpu), "%u", i);
			if (count)
				metrics_add(metrics, metrics_labels({"vcpu", vcpu}, {"reason", vcpu_exit_names[reason]}),
					    count);
		}
	}
}

struct machine_metrics_kvm {
	struct metrics *metrics;
	const char *scope; /* "vm" or "vcpu" */
};

static void machine_metrics_kvm_stat(void *opaque, const struct kvm_stat *stat)
{
	const struct machine_metrics_kvm *to = opaque;
	bool counter = stat->type == KVM_STATS_COUNTER;
	char name[KVM_STATS_NAME + 24];

	snprintf(name, sizeof(name), "mvmm_kvm_%s_%s%s", to->scope, stat->name, counter ? "_total" : "");
	metrics_one(to->metrics, counter ? METRICS_COUNTER : METRICS_GAUGE, name,
		    strcmp(to->scope, "vm") == 0 ? "KVM's statistic of the VM" : "KVM's statistic, of all vCPUs", stat->value);
}

static void machine_metrics_kvm(const struct machine *machine, struct metrics *metrics)
{
	struct machine_metrics_kvm vm = {metrics, "vm"}, vcpu = {metrics, "vcpu"};

	kvm_stats_each(&machine->kvm.stats_fd, 1, machine_metrics_kvm_stat, &vm);
	kvm_stats_each(vcpu_set_stats(machine->vcpus), vcpu_set_count(machine->vcpus), machine_metrics_kvm_stat, &vcpu);
}

/* ---- virtio devices ---- */

static struct virtio_device *machine_metrics_device(const struct machine *machine, size_t index, uint16_t type)
{
	struct virtio_device *device = virtio_transport_device(machine->virtio[index]);

	return device->type == type ? device : NULL;
}

struct machine_metrics_queue_row {
	const char *name, *help;
	size_t offset; /* in struct virtqueue_counts */
};

/* Those of the control and other small queues are part of the sums that a device has here. */
static void machine_metrics_queues(const struct machine *machine, struct metrics *metrics)
{
	static const struct machine_metrics_queue_row rows[] = {
		{"mvmm_queue_chains_total", "Chains of a device's queues that were completed",
		 offsetof(struct virtqueue_counts, chains)},
		{"mvmm_queue_kicks_total", "Wake-ups of a device by its driver", offsetof(struct virtqueue_counts, kicks)},
		{"mvmm_queue_interrupts_total", "Interrupts of a device's queues",
		 offsetof(struct virtqueue_counts, interrupts)},
	};

	for (size_t row = 0; row < ARRAY_SIZE(rows); row++) {
		metrics_begin(metrics, METRICS_COUNTER, rows[row].name, rows[row].help);
		for (size_t i = 0; i < machine->virtio_count; i++) {
			const struct virtio_device *device = virtio_transport_device(machine->virtio[i]);
			uint64_t sum = 0;

			for (unsigned int queue = 0; queue < device->queue_count; queue++) {
				struct virtqueue_counts counts = virtio_device_counts(device, queue);

				sum += *(const uint64_t *)((const char *)&counts + rows[row].offset);
			}
			metrics_add(metrics, metrics_labels({"device", device->id}, {"kind", machine_info_kind(device)}), sum);
		}
	}
}

/* ---- disks ---- */

static const char *const disk_kinds[] = {
	[VIRTIO_BLK_READ] = "read", [VIRTIO_BLK_WRITE] = "write", [VIRTIO_BLK_FLUSH] = "flush",
	[VIRTIO_BLK_DISCARD] = "discard",
};

enum machine_metrics_disk_column { DISK_REQUESTS, DISK_BYTES, DISK_FAILED, DISK_TOOK };

/* Calls a column of one family for all disks. */
static void machine_metrics_disks_column(const struct machine *machine, struct metrics *metrics,
					 enum machine_metrics_disk_column column)
{
	for (size_t i = 0; i < machine->virtio_count; i++) {
		struct virtio_device *disk = machine_metrics_device(machine, i, VIRTIO_ID_BLOCK);
		struct virtio_blk_counts counts[VIRTIO_BLK_KINDS];

		if (!disk)
			continue;
		virtio_blk_count(disk, counts);
		for (unsigned int kind = 0; kind < VIRTIO_BLK_KINDS; kind++) {
			const struct metrics_label *labels = metrics_labels({"device", disk->id}, {"kind", disk_kinds[kind]});

			if (column == DISK_TOOK)
				metrics_add_histogram(metrics, labels, &counts[kind].took);
			else if (column != DISK_BYTES || kind != VIRTIO_BLK_FLUSH)
				metrics_add(metrics, labels, column == DISK_REQUESTS ? counts[kind].requests :
					    column == DISK_BYTES ? counts[kind].bytes : counts[kind].failed);
		}
	}
}

static void machine_metrics_disk_health(const struct machine *machine, struct metrics *metrics)
{
	struct virtio_blk_health health;
	struct virtio_device *disk;

	metrics_begin(metrics, METRICS_COUNTER, "mvmm_disk_host_errors_total", "Operations of the host on a disk that failed");
	for (size_t i = 0; i < machine->virtio_count; i++) {
		disk = machine_metrics_device(machine, i, VIRTIO_ID_BLOCK);
		if (!disk)
			continue;
		virtio_blk_health(disk, &health);
		metrics_add(metrics, metrics_labels({"device", disk->id}), health.failed);
	}
}

static void machine_metrics_disks(const struct machine *machine, struct metrics *metrics)
{
	metrics_begin(metrics, METRICS_COUNTER, "mvmm_disk_requests_total", "Requests of the guest that were completed");
	machine_metrics_disks_column(machine, metrics, DISK_REQUESTS);
	metrics_begin(metrics, METRICS_COUNTER, "mvmm_disk_bytes_total", "Bytes of requests that succeeded");
	machine_metrics_disks_column(machine, metrics, DISK_BYTES);
	metrics_begin(metrics, METRICS_COUNTER, "mvmm_disk_failed_requests_total", "Requests that were completed with an error");
	machine_metrics_disks_column(machine, metrics, DISK_FAILED);
	metrics_begin(metrics, METRICS_HISTOGRAM, "mvmm_disk_request_seconds", "How long a disk had requests of the guest");
	machine_metrics_disks_column(machine, metrics, DISK_TOOK);
	machine_metrics_disk_health(machine, metrics);
}

/* ---- network cards ---- */

struct machine_metrics_net_row {
	const char *name, *help, *direction;
	size_t offset; /* in struct virtio_net_counts */
};

/* Rows of one family follow each other. */
static const struct machine_metrics_net_row net_rows[] = {
	{"mvmm_net_bytes_total", "Bytes of packets from the guest (tx) and to it (rx), without vhost", "tx",
	 offsetof(struct virtio_net_counts, tx_bytes)},
	{"mvmm_net_bytes_total", NULL, "rx", offsetof(struct virtio_net_counts, rx_bytes)},
	{"mvmm_net_packets_total", "Packets from the guest (tx) and to it (rx), without vhost", "tx",
	 offsetof(struct virtio_net_counts, tx_packets)},
	{"mvmm_net_packets_total", NULL, "rx", offsetof(struct virtio_net_counts, rx_packets)},
	{"mvmm_net_dropped_total", "Packets for which the guest had not enough buffers", "rx",
	 offsetof(struct virtio_net_counts, rx_dropped)},
};

static void machine_metrics_nets(const struct machine *machine, struct metrics *metrics)
{
	for (size_t row = 0; row < ARRAY_SIZE(net_rows); row++) {
		if (net_rows[row].help)
			metrics_begin(metrics, METRICS_COUNTER, net_rows[row].name, net_rows[row].help);
		for (size_t i = 0; i < machine->virtio_count; i++) {
			struct virtio_device *net = machine_metrics_device(machine, i, VIRTIO_ID_NET);
			struct virtio_net_counts counts;

			if (!net)
				continue;
			virtio_net_count(net, &counts);
			metrics_add(metrics, metrics_labels({"device", net->id}, {"direction", net_rows[row].direction}),
				    *(const uint64_t *)((const char *)&counts + net_rows[row].offset));
		}
	}
}

/* ---- limits ---- */

/* A network card has one limiter for each direction, all others one. */
static void machine_metrics_waits(struct virtio_device *device, struct metrics *metrics)
{
	static const char *const directions[] = {[VIRTIO_NET_LIMIT_RX] = "rx", [VIRTIO_NET_LIMIT_TX] = "tx"};
	const struct rate_limiter *limiter;

	for (unsigned int i = 0; device->ops->limiter && (limiter = device->ops->limiter(device, i)); i++)
		metrics_add(metrics, device->type == VIRTIO_ID_NET ?
			    metrics_labels({"device", device->id}, {"direction", directions[i]}) :
			    metrics_labels({"device", device->id}), atomic_load_explicit(&limiter->waits, memory_order_relaxed));
}

static void machine_metrics_limits(const struct machine *machine, struct metrics *metrics)
{
	metrics_begin(metrics, METRICS_COUNTER, "mvmm_limit_waits_total", "How often a device had to wait for its limits");
	for (size_t i = 0; i < machine->virtio_count; i++)
		machine_metrics_waits(virtio_transport_device(machine->virtio[i]), metrics);
}

/* ---- host devices ---- */

static void machine_metrics_host_devices(const struct machine *machine, struct metrics *metrics)
{
	struct vfio_pci_info info;

	metrics_begin(metrics, METRICS_GAUGE, "mvmm_vfio_vectors", "Interrupts of a host device that reach the guest without mvmm");
	for (size_t i = 0; i < host_devices_count(machine->host_devices); i++) {
		host_devices_info(machine->host_devices, i, &info);
		metrics_add(metrics, metrics_labels({"device", info.id}, {"host", info.device->host.name}), info.vectors);
	}
	metrics_begin(metrics, METRICS_GAUGE, "mvmm_vfio_fenced", "1 if a host device has failed and is kept from the guest");
	for (size_t i = 0; i < host_devices_count(machine->host_devices); i++) {
		host_devices_info(machine->host_devices, i, &info);
		metrics_add(metrics, metrics_labels({"device", info.id}, {"host", info.device->host.name}), info.fenced);
	}
}

/* ---- balloon ---- */

static void machine_metrics_balloon(const struct machine *machine, struct metrics *metrics)
{
	struct virtio_balloon_stats stats;

	if (!machine->balloon)
		return;
	virtio_balloon_get_stats(machine->balloon, &stats);
	metrics_one(metrics, METRICS_GAUGE, "mvmm_balloon_bytes", "Memory that the guest has given back", stats.actual);
	metrics_one(metrics, METRICS_GAUGE, "mvmm_balloon_target_bytes", "Memory that it was asked to give back", stats.target);
	metrics_one(metrics, METRICS_COUNTER, "mvmm_balloon_reported_bytes_total",
		    "Free memory that the guest has reported, and that the host has back", stats.reported);
	if (stats.free != UINT64_MAX)
		metrics_one(metrics, METRICS_GAUGE, "mvmm_guest_free_bytes", "Free memory, as the guest tells", stats.free);
	if (stats.available != UINT64_MAX)
		metrics_one(metrics, METRICS_GAUGE, "mvmm_guest_available_bytes", "Available memory, as the guest tells",
			    stats.available);
}

void machine_metrics(const struct machine *machine, struct metrics *metrics)
{
	if (machine->vcpus) {
		machine_metrics_exits(machine, metrics);
		machine_metrics_kvm(machine, metrics);
	}
	machine_metrics_queues(machine, metrics);
	machine_metrics_disks(machine, metrics);
	machine_metrics_nets(machine, metrics);
	machine_metrics_limits(machine, metrics);
	machine_metrics_host_devices(machine, metrics);
	machine_metrics_balloon(machine, metrics);
}
