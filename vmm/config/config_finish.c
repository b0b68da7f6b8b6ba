/* SPDX-License-Identifier: Apache-2.0 */
/* See config.h: fills in and checks a configuration, as a whole and when a device is added. */
#include "vmm/config/config.h"

#include "devices/virtio/virtio.h"

#include <stdio.h>
#include <sys/sysinfo.h>

void machine_config_init(struct machine_config *config)
{
	*config = (struct machine_config){0}; /* what is not an option */
	options_init(&machine_options, config);
}

void machine_config_done(struct machine_config *config)
{
	options_done(&machine_options, config);
}

int machine_name_check(const char *name, struct err *err)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
	size_t len = strlen(name);

	if (len == 0 || len > MACHINE_MAX_NAME || strspn(name, letters) != len || strchr("._-", name[0]))
		return err_set(err, -EINVAL, "not a name; write 1 to %u letters, digits, dots, underscores or dashes, "
					     "a letter or digit first",
			       MACHINE_MAX_NAME);
	return 0;
}

size_t machine_config_pci_devices(const struct machine_config *config)
{
	return 1 + config->disk_count + config->net_count + config->vfio_count + (config->vsock.cid != 0) +
	       (config->console.kind != PORT_NONE) + config->balloon;
}

/* ---- ids: each device has one, and they differ ---- */

struct id_list {
	const char *ids[3 * OPTION_MAX_ITEMS];
	size_t count;
};

static int config_finish_id(struct id_list *list, char **id, const char *option, size_t number, struct err *err)
{
	int code;

	if (!*id && asprintf(id, "%s%zu", option, number) < 0) {
		*id = NULL;
		return err_sys(err, -ENOMEM, "--%s", option);
	}
	code = machine_name_check(*id, err);
	if (code)
		return err_prefix(err, code, "--%s id=%.60s", option, *id);
	for (size_t i = 0; i < list->count; i++)
		if (strcmp(list->ids[i], *id) == 0)
			return err_set(err, -EINVAL, "--%s id=%s: another device has this id; choose a different one",
				       option, *id);
	list->ids[list->count++] = *id;
	return 0;
}

static int config_finish_ids(struct machine_config *config, struct err *err)
{
	struct id_list list = {.count = 0};
	int code = 0;

	for (size_t i = 0; !code && i < config->disk_count; i++)
		code = config_finish_id(&list, &config->disks[i].id, "disk", i, err);
	for (size_t i = 0; !code && i < config->net_count; i++)
		code = config_finish_id(&list, &config->nets[i].id, "net", i, err);
	for (size_t i = 0; !code && i < config->vfio_count; i++)
		code = config_finish_id(&list, &config->vfios[i].id, "vfio", i, err);
	return code;
}

/* ---- what the guest sees and the user did not give ---- */

/* A disk needs no more than one queue for each CPU. The MAC address depends on the names only, so that it stays. */
static void config_finish_fill_in(struct machine_config *config)
{
	static const uint8_t none[6];

	for (size_t i = 0; i < config->disk_count; i++)
		config->disks[i].queues = config->disks[i].queues ?: MIN(config->cpus, 4u);
	for (size_t i = 0; i < config->net_count; i++) {
		struct net_config *net = &config->nets[i];

		net->queues = net->queues ?: 1;
		if (memcmp(net->mac, none, sizeof(none)) == 0)
			virtio_net_make_mac(net->mac, config->name, net->id);
	}
}

/* ---- the rest ---- */

static int config_finish_check_memory(const struct memory_config *memory, struct err *err)
{
	static const uint64_t pages[] = {[HUGEPAGES_NONE] = KIB(4), [HUGEPAGES_2M] = MIB(2), [HUGEPAGES_1G] = GIB(1)};
	uint64_t page = pages[memory->hugepages], host;
	char size[24], down[24], up[24];
	struct sysinfo info;

	number_format_size(memory->size, size);
	if (memory->size % page)
		return err_set(err, -EINVAL, "--memory %s: not a multiple of the page size %s; write %s or %s", size,
			       page == KIB(4) ? "4K" : page == MIB(2) ? "2M" : "1G",
			       number_format_size(MAX(align_down(memory->size, page), page), down),
			       number_format_size(align_up(memory->size, page), up));
	if (sysinfo(&info) < 0)
		return err_sys(err, -errno, "--memory %s: reading how much the host has", size);
	host = ((uint64_t)info.totalram + info.totalswap) * info.mem_unit;
	if (memory->size > host)
		return err_set(err, -EINVAL, "--memory %s: more than the host has; write less than %lluM", size,
			       (unsigned long long)(host >> 20));
	return 0;
}

static int config_finish_check_ports(struct machine_config *config, struct err *err)
{
	if (config->serial.kind == PORT_AUTO)
		config->serial.kind = config->console.kind == PORT_STDIO ? PORT_NONE : PORT_STDIO;
	if (config->serial.kind == PORT_STDIO && config->console.kind == PORT_STDIO)
		return err_set(err, -EINVAL, "--console stdio: --serial is stdio, too; write a path for one of them");
	return 0;
}

static int config_finish_check_net(const struct net_config *net, struct err *err)
{
	if (net->kind == NET_TAP && strlen(net->target) > 15)
		return err_set(err, -EINVAL, "--net tap=%.60s: too long; write at most 15 characters", net->target);
	if (net->kind == NET_FD && net->queues > 1)
		return err_set(err, -EINVAL, "--net fd=%d,queues=%u: a descriptor has one queue; leave it out", net->fd,
			       net->queues);
	if (net->kind == NET_PASST && net->vhost)
		return err_set(err, -EINVAL, "--net passt,vhost=on: vhost needs a tap; leave it out or write tap=NAME");
	if (net->vhost && (net->rx_bandwidth.amount || net->rx_packets.amount || net->tx_bandwidth.amount ||
			   net->tx_packets.amount))
		return err_set(err, -EINVAL, "--net %.60s,vhost=on: the kernel moves its packets and knows no limits; leave "
			       "out vhost=on or the limits", net->target);
	if (net->kind == NET_PASST && net->queues > 1)
		return err_set(err, -EINVAL, "--net passt,queues=%u: passt has one queue; leave it out", net->queues);
	return 0;
}

static int config_finish_check_devices(const struct machine_config *config, struct err *err)
{
	size_t devices = machine_config_pci_devices(config);
	int code = 0;

	if (devices > MACHINE_MAX_PCI_DEVICES)
		return err_set(err, -EINVAL, "%zu devices: more than the %u that fit on the bus; leave out some "
					     "--disk, --net or --vfio", devices, MACHINE_MAX_PCI_DEVICES);
	for (size_t i = 0; !code && i < config->net_count; i++)
		code = config_finish_check_net(&config->nets[i], err);
	for (size_t i = 0; !code && i < config->disk_count; i++)
		if (config->disks[i].serial && strlen(config->disks[i].serial) > 20)
			code = err_set(err, -EINVAL, "--disk serial=%.60s: too long; write at most 20 characters",
				       config->disks[i].serial);
		else if (config->disks[i].sector_size && config->disks[i].sector_size != 512 &&
			 config->disks[i].sector_size != 4096)
			code = err_set(err, -EINVAL, "--disk sector-size=%u: write 512 or 4096",
				       config->disks[i].sector_size);
	for (size_t i = 0; !code && i < config->vfio_count; i++)
		if (!config->vfios[i].device && config->vfios[i].fd < 0)
			code = err_set(err, -EINVAL, "--vfio: no device; write --vfio BDF or --vfio fd=N");
	return code;
}

int machine_config_finish_devices(struct machine_config *config, struct err *err)
{
	int code = config_finish_ids(config, err) ?: config_finish_check_devices(config, err);

	if (!code)
		config_finish_fill_in(config);
	return code;
}

int machine_config_finish(struct machine_config *config, struct err *err)
{
	int code;

	if (!config->kernel && !config->incoming)
		return err_set(err, -EINVAL, "--kernel is missing; write --kernel FILE");
	if (report_options_check(&config->report, config->verbose, config->quiet, err))
		return -EINVAL;
	if (!config->name && asprintf(&config->name, "vm-%d", getpid()) < 0) {
		config->name = NULL;
		return err_sys(err, -ENOMEM, "--name");
	}
	code = machine_name_check(config->name, err);
	if (code)
		return err_prefix(err, code, "--name %.60s", config->name);
	code = affinity_check(&config->affinity, config->cpus, (unsigned int)get_nprocs_conf(), err) ?:
	       config_finish_check_memory(&config->memory, err);
	if (!code)
		code = config_finish_check_ports(config, err);
	return code ?: machine_config_finish_devices(config, err);
}
