/* SPDX-License-Identifier: Apache-2.0 */
/* See face_config.h. */
#include "vmm/api/firecracker/face_config.h"

#include <fcntl.h>
#include <stdio.h>

/* Firecracker's own, for a boot source without boot_args. */
#define DEFAULT_ARGS \
	"reboot=k panic=1 nomodule 8250.nr_uarts=0 i8042.noaux i8042.nomux i8042.dumbkbd swiotlb=noforce"

static int face_config_copy(char **to, const char *text, struct err *err)
{
	if (!text)
		return 0;
	*to = strdup(text);
	return *to ? 0 : err_sys(err, -ENOMEM, "the configuration");
}

/* ---- the kernel ---- */

static int face_config_root(const struct face *face, char root[128])
{
	const struct fc_drive *drive = face->drive_count ? &face->drives[0].body : NULL;

	if (!drive || !drive->is_root_device)
		return snprintf(root, 128, "%s", "");
	return drive->partuuid ? snprintf(root, 128, " root=PARTUUID=%.64s %s", drive->partuuid, drive->is_read_only ? "ro" : "rw") :
				 snprintf(root, 128, " root=/dev/vda %s", drive->is_read_only ? "ro" : "rw");
}

static int face_config_boot(const struct face *face, struct machine_config *config, struct err *err)
{
	char root[128];
	int code = face_config_copy(&config->kernel, face->boot.kernel_image_path, err) ?:
		   face_config_copy(&config->initrd, face->boot.initrd_path, err);

	face_config_root(face, root);
	if (code)
		return code;
	if (asprintf(&config->cmdline, "%s%s%s", face->boot.boot_args ?: DEFAULT_ARGS, root,
		     config->transport == TRANSPORT_MMIO ? " pci=off" : "") < 0) {
		config->cmdline = NULL;
		return err_sys(err, -ENOMEM, "the configuration");
	}
	return 0;
}

static int face_config_pass_file(struct machine_files *files, const char *path, int fd, struct err *err)
{
	_cleanup_(fd_close) int copy = -1;

	if (fd < 0)
		return 0;
	copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	return copy < 0 ? err_sys(err, -errno, "%s", path) : machine_files_add(files, path, &copy, err);
}

static int face_config_pass_device(struct machine_files *files, const char *name, int fd, struct err *err)
{
	_cleanup_(fd_close) int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);

	return copy < 0 ? err_sys(err, -errno, "%s", name) : machine_files_pass(files, name, &copy, 1, err);
}

/* ---- devices ---- */

/* One more of the option, with its defaults. */
static void *face_config_add(struct machine_config *config, const char *name, struct err *err)
{
	const char *nearest;
	option_set given = 0;

	return option_begin(&machine_options, option_lookup(&machine_options, name, strlen(name), &nearest), config, &given, err);
}

static struct rate face_config_rate(const struct fc_rate_limiter *limiter, bool given, bool ops)
{
	if (!given)
		return (struct rate){0};
	return ops ? face_rate(&limiter->ops, FC_GIVEN(fc_rate_limiter, *limiter, ops), true) :
		     face_rate(&limiter->bandwidth, FC_GIVEN(fc_rate_limiter, *limiter, bandwidth), false);
}

static int face_config_drive(const struct face_drive *drive, struct start_request *request, struct err *err)
{
	bool limited = FC_GIVEN(fc_drive, drive->body, rate_limiter);
	struct disk_config *disk = face_config_add(&request->config, "disk", err);
	int code = disk ? 0 : -ENOMEM;

	code = code ?: face_config_copy(&disk->path, drive->body.path_on_host, err);
	code = code ?: face_config_copy(&disk->id, drive->name, err);
	if (code)
		return code;
	disk->readonly = drive->body.is_read_only;
	disk->lock = false; /* as Firecracker does it: several machines may have the same image */
	disk->bandwidth = face_config_rate(&drive->body.rate_limiter, limited, false);
	disk->ops = face_config_rate(&drive->body.rate_limiter, limited, true);
	return face_config_pass_device(&request->files, drive->name, drive->fd, err);
}

/* "aa:bb:cc:dd:ee:ff" was checked when it was put. */
static void face_config_mac(const char *text, uint8_t mac[6])
{
	for (size_t i = 0; i < 6; i++)
		mac[i] = (uint8_t)strtoul(text + 3 * i, NULL, 16);
}

static int face_config_net(const struct face_net *iface, struct start_request *request, struct err *err)
{
	const struct fc_net *body = &iface->body;
	bool rx = FC_GIVEN(fc_net, *body, rx_rate_limiter), tx = FC_GIVEN(fc_net, *body, tx_rate_limiter);
	struct net_config *net = face_config_add(&request->config, "net", err);
	int code = net ? 0 : -ENOMEM;

	code = code ?: face_config_copy(&net->target, body->host_dev_name, err);
	code = code ?: face_config_copy(&net->id, iface->name, err);
	if (code)
		return code;
	net->kind = NET_TAP;
	net->queues = 1;
	if (body->guest_mac)
		face_config_mac(body->guest_mac, net->mac);
	net->rx_bandwidth = face_config_rate(&body->rx_rate_limiter, rx, false);
	net->rx_packets = face_config_rate(&body->rx_rate_limiter, rx, true);
	net->tx_bandwidth = face_config_rate(&body->tx_rate_limiter, tx, false);
	net->tx_packets = face_config_rate(&body->tx_rate_limiter, tx, true);
	return face_config_pass_device(&request->files, iface->name, iface->fd, err);
}

static int face_config_host(const struct face_host *host, struct machine_config *config, struct err *err)
{
	struct vfio_config *vfio = face_config_add(config, "vfio", err);
	int code = vfio ? 0 : -ENOMEM;

	code = code ?: face_config_copy(&vfio->device, host->body.sbdf, err);
	return code ?: face_config_copy(&vfio->id, host->name, err);
}

static int face_config_devices(const struct face *face, struct start_request *request, struct err *err)
{
	struct machine_config *config = &request->config;
	bool limited = FC_GIVEN(fc_entropy, face->entropy, rate_limiter);
	int code = 0;

	for (size_t i = 0; i < face->drive_count && !code; i++)
		code = face_config_drive(&face->drives[i], request, err);
	for (size_t i = 0; i < face->net_count && !code; i++)
		code = face_config_net(&face->nets[i], request, err);
	for (size_t i = 0; i < face->host_count && !code; i++)
		code = face_config_host(&face->hosts[i], config, err);
	if (!code && face->vsock.uds_path) {
		config->vsock.cid = (uint32_t)face->vsock.guest_cid;
		code = face_config_copy(&config->vsock.socket, face->vsock.uds_path, err);
	}
	config->balloon = face->has_balloon;
	config->rng.bandwidth = face_config_rate(&face->entropy.rate_limiter, limited, false);
	config->rng.ops = face_config_rate(&face->entropy.rate_limiter, limited, true);
	return code;
}

static int face_config_serial(const struct face *face, struct port_config *serial, struct err *err)
{
	serial->bandwidth = face_rate(&face->serial.rate_limiter, FC_GIVEN(fc_serial, face->serial, rate_limiter), false);
	serial->kind = face->serial.serial_out_path ? PORT_FILE : PORT_STDIO;
	return face_config_copy(&serial->path, face->serial.serial_out_path, err);
}

/* ---- the whole ---- */

/* Several instances may have the same id, and one that has none: it is mvmm's name where it can be one. */
static int face_config_name(const struct face *face, struct machine_config *config, struct err *err)
{
	if (machine_name_check(face->options->id, NULL))
		return 0;
	return face_config_copy(&config->name, face->options->id, err);
}

int face_config_make(const struct face *face, struct start_request *request, struct err *err)
{
	struct machine_config *config = &request->config;
	int code;

	config->transport = face->options->enable_pci ? TRANSPORT_PCI : TRANSPORT_MMIO;
	code = face_config_name(face, config, err) ?: face_config_boot(face, config, err);
	config->cpus = (unsigned int)face->machine.vcpu_count;
	config->memory.size = face->machine.mem_size_mib << 20;
	config->memory.hugepages = face->machine.huge_pages == FC_HUGE_2M ? HUGEPAGES_2M : HUGEPAGES_NONE;
	config->on_reboot = ON_REBOOT_EXIT;
	config->seccomp = face->options->seccomp;
	code = code ?: face_config_devices(face, request, err);
	code = code ?: face_config_serial(face, &config->serial, err);
	code = code ?: face_config_pass_file(&request->files, face->boot.kernel_image_path, face->kernel_fd, err);
	code = code ?: face_config_pass_file(&request->files, face->boot.initrd_path ?: "", face->initrd_fd, err);
	return code ?: machine_config_finish(config, err);
}
