/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bodies of Firecracker's API (its src/firecracker/swagger/firecracker.yaml and the structures behind it, 1.16), and
 * their tables. Used by the files of this folder.
 */
#pragma once

#include "vmm/api/body.h"

enum fc_huge_pages { FC_HUGE_NONE, FC_HUGE_TRANSPARENT, FC_HUGE_2M };

struct fc_machine_config {
	body_set given;
	uint64_t vcpu_count, mem_size_mib;
	bool smt, track_dirty_pages;
	unsigned int huge_pages;
	unsigned int cpu_template; /* 0: none */
};

struct fc_boot_source {
	body_set given;
	char *kernel_image_path, *initrd_path, *boot_args;
};

struct fc_token_bucket {
	body_set given;
	uint64_t size, one_time_burst, refill_time; /* ms */
};

struct fc_rate_limiter {
	body_set given;
	struct fc_token_bucket bandwidth, ops;
};

struct fc_drive {
	body_set given;
	char *drive_id, *partuuid, *path_on_host, *socket;
	bool is_root_device, is_read_only;
	unsigned int cache_type, io_engine;
	struct fc_rate_limiter rate_limiter;
};

struct fc_drive_update {
	body_set given;
	char *drive_id, *path_on_host;
	struct fc_rate_limiter rate_limiter;
};

struct fc_net {
	body_set given;
	char *iface_id, *host_dev_name, *guest_mac;
	uint64_t mtu;
	struct fc_rate_limiter rx_rate_limiter, tx_rate_limiter;
};

struct fc_net_update {
	body_set given;
	char *iface_id;
	struct fc_rate_limiter rx_rate_limiter, tx_rate_limiter;
};

struct fc_vsock {
	body_set given;
	uint64_t guest_cid;
	char *uds_path, *vsock_id;
};

struct fc_balloon {
	body_set given;
	uint64_t amount_mib, stats_polling_interval_s;
	bool deflate_on_oom, free_page_hinting, free_page_reporting;
};

struct fc_balloon_update {
	body_set given;
	uint64_t amount_mib;
};

struct fc_entropy {
	body_set given;
	struct fc_rate_limiter rate_limiter;
};

struct fc_serial {
	body_set given;
	char *serial_out_path;
	struct fc_token_bucket rate_limiter;
};

enum fc_log_level { FC_LOG_OFF, FC_LOG_ERROR, FC_LOG_WARN, FC_LOG_INFO, FC_LOG_DEBUG, FC_LOG_TRACE };

struct fc_logger {
	body_set given;
	char *log_path, *module;
	unsigned int level;
	bool show_level, show_log_origin;
};

struct fc_metrics {
	body_set given;
	char *metrics_path;
	bool emit_id;
};

enum fc_action { FC_FLUSH_METRICS, FC_INSTANCE_START, FC_SEND_CTRL_ALT_DEL };

struct fc_action_body {
	body_set given;
	unsigned int action_type;
};

enum fc_vm_state { FC_PAUSED, FC_RESUMED };

struct fc_vm {
	body_set given;
	unsigned int state;
};

struct fc_host_device {
	body_set given;
	char *id, *sbdf;
};

enum fc_snapshot_type { FC_SNAPSHOT_FULL, FC_SNAPSHOT_DIFF };

struct fc_snapshot_create {
	body_set given;
	char *snapshot_path, *mem_file_path;
	unsigned int snapshot_type;
};

enum fc_backend { FC_BACKEND_FILE, FC_BACKEND_UFFD };

struct fc_mem_backend {
	body_set given;
	unsigned int backend_type;
	char *backend_path;
};

struct fc_network_override {
	body_set given;
	char *iface_id, *host_dev_name;
};

struct fc_vsock_override {
	body_set given;
	char *uds_path;
};

enum fc_load_pages { FC_LOAD_SNAPSHOT, FC_LOAD_NONE, FC_LOAD_TRANSPARENT, FC_LOAD_2M };

struct fc_snapshot_load {
	body_set given;
	char *snapshot_path, *mem_file_path;
	struct fc_mem_backend mem_backend;
	bool resume_vm, track_dirty_pages, enable_diff_snapshots, clock_realtime;
	struct body_list network_overrides; /* of struct fc_network_override */
	struct fc_vsock_override vsock_override;
	unsigned int huge_pages;
};

extern const struct body fc_host_device, fc_snapshot_create, fc_snapshot_load;
extern const struct body fc_machine_config, fc_machine_config_update, fc_boot_source, fc_rate_limiter, fc_drive,
	fc_drive_update, fc_net, fc_net_update, fc_vsock, fc_balloon, fc_balloon_update, fc_entropy, fc_serial, fc_logger,
	fc_metrics, fc_action, fc_vm;

/* The bit of a member of the structure among those that were given, and whether it was. */
#define FC_BIT(body, structure, member_)                                                           \
	({                                                                                         \
		size_t at_ = offsetof(__typeof__(structure), member_), i_ = 0;                     \
		while (i_ < (body).count && (body).members[i_].offset != at_)                      \
			i_++;                                                                      \
		i_ < (body).count ? 1ull << i_ : 0;                                                \
	})
#define FC_GIVEN(body, structure, member_) (((structure).given & FC_BIT(body, structure, member_)) != 0)
