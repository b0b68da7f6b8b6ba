/* SPDX-License-Identifier: Apache-2.0 */
/* See bodies.h. The order of members is that of Firecracker's structures, in which they are written. */
#include "vmm/api/firecracker/bodies.h"

static const char *const huge_pages[] = {"None", "Transparent", "2M", NULL};
static const char *const cpu_templates[] = {"None", "C3", "T2", "T2S", "T2CL", "T2A", "V1N1", NULL};
static const char *const cache_types[] = {"Unsafe", "Writeback", NULL};
static const char *const io_engines[] = {"Sync", "Async", NULL};
static const char *const levels[] = {"Off", "Error", "Warn", "Info", "Debug", "Trace", "Warning", NULL};
static const char *const actions[] = {"FlushMetrics", "InstanceStart", "SendCtrlAltDel", NULL};
static const char *const snapshot_types[] = {"Full", "Diff", NULL};
static const char *const backends[] = {"File", "Uffd", NULL};
static const char *const load_pages[] = {"Snapshot", "None", "Transparent", "2M", NULL};
static const char *const vm_states[] = {"Paused", "Resumed", NULL};

#define AT(type, member) .offset = offsetof(struct type, member)
#define ITEM(type) .size = sizeof(struct type)
#define BODY(variable, name_, table, ...) \
	const struct body variable = {.name = name_, .members = table, .count = ARRAY_SIZE(table), __VA_ARGS__}

static const struct body_member machine_config[] = {
	{"vcpu_count", BODY_UINT, AT(fc_machine_config, vcpu_count), .max = UINT8_MAX, .value = 1, .needed = true},
	{"mem_size_mib", BODY_UINT, AT(fc_machine_config, mem_size_mib), .max = UINT64_MAX, .value = 128, .needed = true},
	{"smt", BODY_BOOL, AT(fc_machine_config, smt)},
	{"cpu_template", BODY_WORD, AT(fc_machine_config, cpu_template), .words = cpu_templates, .nullable = true, .hidden = true},
	{"track_dirty_pages", BODY_BOOL, AT(fc_machine_config, track_dirty_pages)},
	{"huge_pages", BODY_WORD, AT(fc_machine_config, huge_pages), .words = huge_pages},
};
BODY(fc_machine_config, "MachineConfig", machine_config);

static const struct body_member machine_config_update[] = {
	{"vcpu_count", BODY_UINT, AT(fc_machine_config, vcpu_count), .max = UINT8_MAX, .nullable = true},
	{"mem_size_mib", BODY_UINT, AT(fc_machine_config, mem_size_mib), .max = UINT64_MAX, .nullable = true},
	{"smt", BODY_BOOL, AT(fc_machine_config, smt), .nullable = true},
	{"cpu_template", BODY_WORD, AT(fc_machine_config, cpu_template), .words = cpu_templates, .nullable = true, .hidden = true},
	{"track_dirty_pages", BODY_BOOL, AT(fc_machine_config, track_dirty_pages), .nullable = true},
	{"huge_pages", BODY_WORD, AT(fc_machine_config, huge_pages), .words = huge_pages, .nullable = true},
};
BODY(fc_machine_config_update, "MachineConfigUpdate", machine_config_update);

static const struct body_member boot_source[] = {
	{"kernel_image_path", BODY_TEXT, AT(fc_boot_source, kernel_image_path), .needed = true},
	{"initrd_path", BODY_TEXT, AT(fc_boot_source, initrd_path), .nullable = true},
	{"boot_args", BODY_TEXT, AT(fc_boot_source, boot_args), .nullable = true},
};
BODY(fc_boot_source, "BootSourceConfig", boot_source);

static const struct body_member token_bucket[] = {
	{"size", BODY_UINT, AT(fc_token_bucket, size), .max = UINT64_MAX, .needed = true},
	{"one_time_burst", BODY_UINT, AT(fc_token_bucket, one_time_burst), .max = UINT64_MAX, .nullable = true},
	{"refill_time", BODY_UINT, AT(fc_token_bucket, refill_time), .max = UINT64_MAX, .needed = true},
};
static BODY(fc_token_bucket, "TokenBucketConfig", token_bucket, .lax = true);

static const struct body_member rate_limiter[] = {
	{"bandwidth", BODY_OBJECT, AT(fc_rate_limiter, bandwidth), .object = &fc_token_bucket, .nullable = true},
	{"ops", BODY_OBJECT, AT(fc_rate_limiter, ops), .object = &fc_token_bucket, .nullable = true},
};
BODY(fc_rate_limiter, "RateLimiterConfig", rate_limiter);

#define LIMITER(type, member) #member, BODY_OBJECT, AT(type, member), .object = &fc_rate_limiter, .nullable = true

static const struct body_member drive[] = {
	{"drive_id", BODY_TEXT, AT(fc_drive, drive_id), .needed = true},
	{"partuuid", BODY_TEXT, AT(fc_drive, partuuid), .nullable = true},
	{"is_root_device", BODY_BOOL, AT(fc_drive, is_root_device), .needed = true},
	{"cache_type", BODY_WORD, AT(fc_drive, cache_type), .words = cache_types},
	{"is_read_only", BODY_BOOL, AT(fc_drive, is_read_only), .nullable = true},
	{"path_on_host", BODY_TEXT, AT(fc_drive, path_on_host), .nullable = true},
	{LIMITER(fc_drive, rate_limiter)},
	{"io_engine", BODY_WORD, AT(fc_drive, io_engine), .words = io_engines, .nullable = true},
	{"socket", BODY_TEXT, AT(fc_drive, socket), .nullable = true},
};
BODY(fc_drive, "BlockDeviceConfig", drive);

static const struct body_member drive_update[] = {
	{"drive_id", BODY_TEXT, AT(fc_drive_update, drive_id), .needed = true},
	{"path_on_host", BODY_TEXT, AT(fc_drive_update, path_on_host), .nullable = true},
	{LIMITER(fc_drive_update, rate_limiter)},
};
BODY(fc_drive_update, "BlockDeviceUpdateConfig", drive_update);

static const struct body_member net[] = {
	{"iface_id", BODY_TEXT, AT(fc_net, iface_id), .needed = true},
	{"host_dev_name", BODY_TEXT, AT(fc_net, host_dev_name), .needed = true},
	{"guest_mac", BODY_TEXT, AT(fc_net, guest_mac), .nullable = true},
	{LIMITER(fc_net, rx_rate_limiter)},
	{LIMITER(fc_net, tx_rate_limiter)},
	{"mtu", BODY_UINT, AT(fc_net, mtu), .max = UINT16_MAX, .nullable = true, .hidden = true},
};
BODY(fc_net, "NetworkInterfaceConfig", net);

static const struct body_member net_update[] = {
	{"iface_id", BODY_TEXT, AT(fc_net_update, iface_id), .needed = true},
	{LIMITER(fc_net_update, rx_rate_limiter)},
	{LIMITER(fc_net_update, tx_rate_limiter)},
};
BODY(fc_net_update, "NetworkInterfaceUpdateConfig", net_update);

static const struct body_member vsock[] = {
	{"vsock_id", BODY_TEXT, AT(fc_vsock, vsock_id), .nullable = true, .hidden = true},
	{"guest_cid", BODY_UINT, AT(fc_vsock, guest_cid), .max = UINT32_MAX, .needed = true},
	{"uds_path", BODY_TEXT, AT(fc_vsock, uds_path), .needed = true},
};
BODY(fc_vsock, "VsockDeviceConfig", vsock);

static const struct body_member balloon[] = {
	{"amount_mib", BODY_UINT, AT(fc_balloon, amount_mib), .max = UINT32_MAX, .needed = true},
	{"deflate_on_oom", BODY_BOOL, AT(fc_balloon, deflate_on_oom), .needed = true},
	{"stats_polling_interval_s", BODY_UINT, AT(fc_balloon, stats_polling_interval_s), .max = UINT16_MAX},
	{"free_page_hinting", BODY_BOOL, AT(fc_balloon, free_page_hinting)},
	{"free_page_reporting", BODY_BOOL, AT(fc_balloon, free_page_reporting)},
};
BODY(fc_balloon, "BalloonDeviceConfig", balloon);

static const struct body_member balloon_update[] = {
	{"amount_mib", BODY_UINT, AT(fc_balloon_update, amount_mib), .max = UINT32_MAX, .needed = true},
};
BODY(fc_balloon_update, "BalloonUpdateConfig", balloon_update);

static const struct body_member entropy[] = {
	{LIMITER(fc_entropy, rate_limiter)},
};
BODY(fc_entropy, "EntropyDeviceConfig", entropy);

static const struct body_member serial[] = {
	{"serial_out_path", BODY_TEXT, AT(fc_serial, serial_out_path), .nullable = true},
	{"rate_limiter", BODY_OBJECT, AT(fc_serial, rate_limiter), .object = &fc_token_bucket, .nullable = true},
};
BODY(fc_serial, "SerialConfig", serial);

static const struct body_member logger[] = {
	{"log_path", BODY_TEXT, AT(fc_logger, log_path), .nullable = true},
	{"level", BODY_WORD, AT(fc_logger, level), .words = levels, .value = FC_LOG_INFO, .nullable = true, .any_case = true},
	{"show_level", BODY_BOOL, AT(fc_logger, show_level), .nullable = true},
	{"show_log_origin", BODY_BOOL, AT(fc_logger, show_log_origin), .nullable = true},
	{"module", BODY_TEXT, AT(fc_logger, module), .nullable = true},
};
BODY(fc_logger, "LoggerConfig", logger);

static const struct body_member metrics[] = {
	{"metrics_path", BODY_TEXT, AT(fc_metrics, metrics_path), .needed = true},
	{"emit_id", BODY_BOOL, AT(fc_metrics, emit_id)},
};
BODY(fc_metrics, "MetricsConfig", metrics, .lax = true);

static const struct body_member action[] = {
	{"action_type", BODY_WORD, AT(fc_action_body, action_type), .words = actions, .needed = true},
};
BODY(fc_action, "ActionBody", action);

static const struct body_member vm[] = {
	{"state", BODY_WORD, AT(fc_vm, state), .words = vm_states, .needed = true},
};
BODY(fc_vm, "Vm", vm);

static const struct body_member snapshot_create[] = {
	{"snapshot_type", BODY_WORD, AT(fc_snapshot_create, snapshot_type), .words = snapshot_types},
	{"snapshot_path", BODY_TEXT, AT(fc_snapshot_create, snapshot_path), .needed = true},
	{"mem_file_path", BODY_TEXT, AT(fc_snapshot_create, mem_file_path), .needed = true},
};
BODY(fc_snapshot_create, "CreateSnapshotParams", snapshot_create);

static const struct body_member mem_backend[] = {
	{"backend_path", BODY_TEXT, AT(fc_mem_backend, backend_path), .needed = true},
	{"backend_type", BODY_WORD, AT(fc_mem_backend, backend_type), .words = backends, .needed = true},
};
static BODY(fc_mem_backend, "MemBackendConfig", mem_backend);

static const struct body_member network_override[] = {
	{"iface_id", BODY_TEXT, AT(fc_network_override, iface_id), .needed = true},
	{"host_dev_name", BODY_TEXT, AT(fc_network_override, host_dev_name), .needed = true},
};
static BODY(fc_network_override, "NetworkOverride", network_override, .lax = true, ITEM(fc_network_override));

static const struct body_member vsock_override[] = {
	{"uds_path", BODY_TEXT, AT(fc_vsock_override, uds_path), .needed = true},
};
static BODY(fc_vsock_override, "VsockOverride", vsock_override, .lax = true);

static const struct body_member snapshot_load[] = {
	{"snapshot_path", BODY_TEXT, AT(fc_snapshot_load, snapshot_path), .needed = true},
	{"mem_file_path", BODY_TEXT, AT(fc_snapshot_load, mem_file_path), .nullable = true},
	{"mem_backend", BODY_OBJECT, AT(fc_snapshot_load, mem_backend), .object = &fc_mem_backend, .nullable = true},
	{"enable_diff_snapshots", BODY_BOOL, AT(fc_snapshot_load, enable_diff_snapshots)},
	{"track_dirty_pages", BODY_BOOL, AT(fc_snapshot_load, track_dirty_pages)},
	{"resume_vm", BODY_BOOL, AT(fc_snapshot_load, resume_vm)},
	{"network_overrides", BODY_LIST, AT(fc_snapshot_load, network_overrides), .object = &fc_network_override},
	{"vsock_override", BODY_OBJECT, AT(fc_snapshot_load, vsock_override), .object = &fc_vsock_override, .nullable = true},
	{"clock_realtime", BODY_BOOL, AT(fc_snapshot_load, clock_realtime)},
	{"huge_pages", BODY_WORD, AT(fc_snapshot_load, huge_pages), .words = load_pages},
};
BODY(fc_snapshot_load, "LoadSnapshotConfig", snapshot_load);

static const struct body_member host_device[] = {
	{"id", BODY_TEXT, AT(fc_host_device, id), .needed = true},
	{"sbdf", BODY_TEXT, AT(fc_host_device, sbdf), .needed = true},
};
BODY(fc_host_device, "DevicePassthroughConfig", host_device);
