/* SPDX-License-Identifier: Apache-2.0 */
/* See face_before.h. A request that fails leaves everything as it was. */
#include "vmm/api/firecracker/face_before.h"

#include "devices/virtio/virtio.h"
#include "vmm/api/firecracker/face_config.h"
#include "vmm/api/firecracker/face_metrics.h"
#include "vmm/machine/start_request.h"

#include <fcntl.h>
#include <stdio.h>
#include <strings.h>
#include <sys/stat.h>

#define MAX_VCPUS 32u
#define MAX_ARGS 2048u

/* Makes the body what was put. */
static void face_before_keep(const struct body *table, void *to, void *body)
{
	body_done(table, to);
	body_update(table, to, body);
}

/* The same, of what a machine is made of. */
static void face_before_configure(struct face *face, const struct body *table, void *to, void *body)
{
	face_before_keep(table, to, body);
	face->configured = true;
}

/* ---- machine ---- */

static int face_before_check_machine(const struct face *face, const struct fc_machine_config *machine, struct err *err)
{
	if (machine->cpu_template)
		return err_set(err, -EINVAL, "The requested operation is not supported: mvmm has no CPU templates; leave out cpu_template");
	if (machine->vcpu_count == 0 || machine->vcpu_count > MAX_VCPUS ||
	    (machine->smt && machine->vcpu_count > 1 && machine->vcpu_count % 2))
		return err_set(err, -EINVAL, "Machine config error: The number of vCPUs must be greater than 0, less than %u and must be 1 "
			       "or an even number if SMT is enabled.", MAX_VCPUS);
	if (machine->mem_size_mib == 0 || machine->mem_size_mib > MACHINE_MAX_MEMORY >> 20 ||
	    (machine->huge_pages != FC_HUGE_NONE && machine->mem_size_mib % 2))
		return err_set(err, -EINVAL, "Machine config error: The memory size (MiB) is either 0, or not a multiple of the "
			       "configured page size.");
	if (face->has_balloon && face->balloon.amount_mib > machine->mem_size_mib)
		return err_set(err, -EINVAL, "Machine config error: The memory size (MiB) is smaller than the previously set balloon "
			       "device target size.");
	return 0;
}

int face_before_machine(struct face_request *request, struct err *err)
{
	struct face *face = request->face;
	int code = face_before_check_machine(face, &request->body.machine, err);

	if (code)
		return code;
	request->deprecated = FC_GIVEN(fc_machine_config, request->body.machine, cpu_template);
	face_before_configure(face, &fc_machine_config, &face->machine, &request->body.machine);
	return 0;
}

int face_before_update_machine(struct face_request *request, struct err *err)
{
	struct fc_machine_config updated = request->face->machine;
	int code;

	if (!request->body.given)
		return err_set(err, -EINVAL, "Empty PATCH request.");
	request->deprecated = FC_GIVEN(fc_machine_config_update, request->body.machine, cpu_template);
	body_update(&fc_machine_config_update, &updated, &request->body.machine);
	code = face_before_check_machine(request->face, &updated, err);
	if (code)
		return code;
	request->face->machine = updated;
	request->face->configured = true;
	return 0;
}

/* ---- boot source ---- */

int face_before_boot(struct face_request *request, struct err *err)
{
	struct face *face = request->face;
	const struct fc_boot_source *boot = &request->body.boot;
	_cleanup_(fd_close) int kernel = -1, initrd = -1;
	int code = face_file(request, boot->kernel_image_path, O_RDONLY, &kernel, err);

	if (code)
		return err_prefix(err, code, "Boot source error: The kernel file cannot be opened");
	if (boot->initrd_path)
		code = face_file(request, boot->initrd_path, O_RDONLY, &initrd, err);
	if (code)
		return err_prefix(err, code, "Boot source error: The initrd file cannot be opened due to invalid path or invalid "
				  "permissions");
	if (boot->boot_args && strlen(boot->boot_args) >= MAX_ARGS)
		return err_set(err, -EINVAL, "Boot source error: The kernel command line is invalid: longer than %u bytes", MAX_ARGS);
	fd_close(&face->kernel_fd);
	fd_close(&face->initrd_fd);
	face->kernel_fd = take_fd(&kernel);
	face->initrd_fd = take_fd(&initrd);
	face_before_configure(face, &fc_boot_source, &face->boot, &request->body.boot);
	return 0;
}

/* ---- drives ---- */

#define NO_DRIVE "Drive config error: Unable to create the virtio block device: Virtio backend error"

int face_before_check_drive(const struct face *face, const struct fc_drive *drive, struct err *err)
{
	if (drive->socket)
		return err_set(err, -EINVAL, "The requested operation is not supported: mvmm has no vhost-user drives; leave out socket");
	if (!drive->path_on_host)
		return err_set(err, -EINVAL, "Drive config error: Unable to create the virtio block device: Invalid configuration: "
			       "path_on_host is missing");
	for (size_t i = 0; i < face->drive_count; i++)
		if (drive->is_root_device && face->drives[i].body.is_root_device &&
		    strcmp(face->drives[i].body.drive_id, drive->drive_id) != 0)
			return err_set(err, -EINVAL, "Drive config error: A root block device already exists!");
	return 0;
}

/* The place of a drive: its own one, or a new one. */
static struct face_drive *face_before_place_drive(struct face *face, const char *id, struct err *err)
{
	struct face_drive *drive = face_find_drive(face, id);

	if (drive)
		return drive;
	if (face->drive_count == FACE_MAX_DEVICES) {
		err_set(err, -ENOSPC, "Drive config error: there are %u drives, and no more fit", FACE_MAX_DEVICES);
		return NULL;
	}
	drive = &face->drives[face->drive_count++];
	*drive = (struct face_drive){.fd = -1};
	face_name(face, "drive", id, drive->name);
	return drive;
}

/* The guest's first disk is the root drive. */
static void face_before_move_root(struct face *face, struct face_drive *drive)
{
	const struct face_drive root = *drive;

	if (!root.body.is_root_device)
		return;
	memmove(&face->drives[1], &face->drives[0], (size_t)(drive - face->drives) * sizeof(*drive));
	face->drives[0] = root;
}

int face_before_drive(struct face_request *request, struct err *err)
{
	struct face *face = request->face;
	struct fc_drive *body = &request->body.drive;
	struct face_drive *drive;
	_cleanup_(fd_close) int fd = -1;
	int code = face_before_check_drive(face, body, err);

	if (code)
		return code;
	code = face_file(request, body->path_on_host, body->is_read_only ? O_RDONLY : O_RDWR, &fd, err);
	if (code)
		return err_set(err, code, NO_DRIVE ": Error manipulating the backing file: %s (os error %d) %.200s",
			       strerrordesc_np(-code), -code, body->path_on_host);
	drive = face_before_place_drive(face, body->drive_id, err);
	if (!drive)
		return -ENOSPC;
	fd_close(&drive->fd);
	drive->fd = take_fd(&fd);
	face_before_configure(face, &fc_drive, &drive->body, body);
	face_before_move_root(face, drive);
	return 0;
}

/* ---- network interfaces ---- */

#define NO_NET "Network config error: Could not create the network device: Open tap device failed"

/* Six bytes in hexadecimal digits. */
static bool face_before_is_mac(const char *text)
{
	if (strlen(text) != 17)
		return false;
	for (size_t i = 0; i < 17; i++)
		if (i % 3 == 2 ? text[i] != ':' : !strchr("0123456789abcdefABCDEF", text[i]))
			return false;
	return true;
}

int face_before_check_net(const struct face *face, const struct fc_net *net, struct err *err)
{
	if (net->guest_mac && !face_before_is_mac(net->guest_mac))
		return err_set(err, -EINVAL, "An error occurred when deserializing the json body of a request: invalid MAC address "
			       "`%.40s`.", net->guest_mac);
	if (FC_GIVEN(fc_net, *net, mtu) && net->mtu < 68)
		return err_set(err, -EINVAL, "Network config error: Could not create the network device: invalid MTU %llu",
			       (unsigned long long)net->mtu);
	if (FC_GIVEN(fc_net, *net, mtu))
		return err_set(err, -EINVAL, "The requested operation is not supported: mvmm shows the guest the tap's own MTU; leave out "
			       "mtu and set it with ip link");
	for (size_t i = 0; net->guest_mac && i < face->net_count; i++)
		if (face->nets[i].body.guest_mac && strcasecmp(face->nets[i].body.guest_mac, net->guest_mac) == 0 &&
		    strcmp(face->nets[i].body.iface_id, net->iface_id) != 0)
			return err_set(err, -EINVAL, "Network config error: The MAC address is already in use: %s", net->guest_mac);
	return 0;
}

static struct face_net *face_before_place_net(struct face *face, const char *id, struct err *err)
{
	struct face_net *net = face_find_net(face, id);

	if (net)
		return net;
	if (face->net_count == FACE_MAX_DEVICES) {
		err_set(err, -ENOSPC, "Network config error: there are %u interfaces, and no more fit", FACE_MAX_DEVICES);
		return NULL;
	}
	net = &face->nets[face->net_count++];
	*net = (struct face_net){.fd = -1};
	face_name(face, "net", id, net->name);
	return net;
}

/* A tap is opened by one interface at a time: the same one gives it back first. */
static int face_before_open_tap(struct face *face, const struct fc_net *body, int *ret, struct err *err)
{
	struct face_net *before = face_find_net(face, body->iface_id);
	int code;

	if (before && strcmp(before->body.host_dev_name, body->host_dev_name) == 0)
		fd_close(&before->fd);
	code = virtio_net_open_tap(body->host_dev_name, 1, ret, err);
	if (code && before && before->fd < 0)
		virtio_net_open_tap(body->host_dev_name, 1, &before->fd, NULL);
	return code ? err_prefix(err, code, NO_NET) : 0;
}

int face_before_check_tap(int fd, const char *name, struct err *err)
{
	char is[16] = "";
	int code = virtio_net_name_tap(fd, is, err);

	if (!code && strcmp(is, name) != 0)
		code = err_set(err, -EINVAL, "the descriptor is of the tap %s", is);
	return code ? err_prefix(err, code, NO_NET) : 0;
}

int face_before_net(struct face_request *request, struct err *err)
{
	struct face *face = request->face;
	struct fc_net *body = &request->body.net;
	struct face_net *net;
	_cleanup_(fd_close) int fd = -1;
	int code = face_before_check_net(face, body, err);

	fd = face_take_passed(request);
	if (!code)
		code = fd >= 0 ? face_before_check_tap(fd, body->host_dev_name, err) : face_before_open_tap(face, body, &fd, err);
	if (code)
		return code;
	net = face_before_place_net(face, body->iface_id, err);
	if (!net)
		return -ENOSPC;
	fd_close(&net->fd);
	net->fd = take_fd(&fd);
	face_before_configure(face, &fc_net, &net->body, body);
	return 0;
}

/* ---- others ---- */

int face_before_vsock(struct face_request *request, struct err *err)
{
	struct fc_vsock *vsock = &request->body.vsock;
	struct stat st;

	if (vsock->guest_cid < 3)
		return err_set(err, -EINVAL, "Vsock config error: Cannot create vsock device: invalid guest CID %llu; write 3 or more",
			       (unsigned long long)vsock->guest_cid);
	if (lstat(vsock->uds_path, &st) == 0)
		return err_set(err, -EADDRINUSE, "Vsock config error: Cannot create backend for vsock device: Error binding to the "
			       "host-side Unix socket: Address in use (os error %d)", EADDRINUSE);
	request->deprecated = FC_GIVEN(fc_vsock, *vsock, vsock_id);
	face_before_configure(request->face, &fc_vsock, &request->face->vsock, vsock);
	return 0;
}

int face_before_balloon(struct face_request *request, struct err *err)
{
	struct face *face = request->face;
	const struct fc_balloon *balloon = &request->body.balloon;

	if (balloon->amount_mib > face->machine.mem_size_mib)
		return err_set(err, -EINVAL, "Balloon config error: Amount of pages requested is too large.");
	if (balloon->free_page_hinting)
		return err_set(err, -EINVAL, "The requested operation is not supported: mvmm has no free page hinting; use free_page_reporting");
	face_before_configure(face, &fc_balloon, &face->balloon, &request->body.balloon);
	face->has_balloon = true;
	return 0;
}

int face_before_entropy(struct face_request *request, struct err *err)
{
	face_before_configure(request->face, &fc_entropy, &request->face->entropy, &request->body.entropy);
	request->face->has_entropy = true;
	return 0;
}

int face_before_serial(struct face_request *request, struct err *err)
{
	face_before_keep(&fc_serial, &request->face->serial, &request->body.serial);
	return 0;
}

int face_before_logger(struct face_request *request, struct err *err)
{
	struct face *face = request->face;
	const struct fc_logger *logger = &request->body.logger;
	static const enum log_level levels[] = {
		[FC_LOG_OFF] = LOG_ERROR, [FC_LOG_ERROR] = LOG_ERROR, [FC_LOG_WARN] = LOG_WARN, [FC_LOG_INFO] = LOG_INFO,
		[FC_LOG_DEBUG] = LOG_DEBUG, [FC_LOG_TRACE] = LOG_DEBUG, [FC_LOG_TRACE + 1] = LOG_WARN,
	};
	bool off = logger->level == FC_LOG_OFF && FC_GIVEN(fc_logger, *logger, level);
	int fd, code = 0;

	if (logger->log_path || off)
		code = face_open(off ? "/dev/null" : logger->log_path, O_RDWR | O_APPEND | O_CREAT, &fd, err);
	if (code)
		return err_prefix(err, code, "Logger error: Failed to open target file");
	if (logger->log_path || off)
		log_move(face->log, &fd);
	body_update(&fc_logger, &face->logger, &request->body.logger);
	face->log->level = levels[face->logger.level];
	face->log->show_level = face->logger.show_level;
	return 0;
}

int face_before_metrics(struct face_request *request, struct err *err)
{
	struct face *face = request->face;
	int code = face->lines ? err_set(err, -EEXIST, "Reinitialization of metrics not allowed.") :
				 face_metrics_create(face, request->body.metrics.metrics_path, &face->lines, err);

	if (code)
		return err_prefix(err, code, "Metrics error: Cannot initialize the metrics system due to bad user input");
	face_before_keep(&fc_metrics, &face->metrics, &request->body.metrics);
	return 0;
}

/* ---- the start ---- */

static void face_before_started(void *opaque, int code, const struct err *err)
{
	struct face_request *request = opaque;
	struct face *face = request->face;
	struct err why = {""};

	face->phase = code ? FACE_BEFORE : FACE_AFTER;
	if (!code)
		face_close_files(face);
	if (!code && face->balloon.amount_mib &&
	    face->operated->ops->set_balloon(face->operated->session, face->balloon.amount_mib << 20, &why))
		log_warn(face->log, "%s", why.text);
	if (code)
		err_set(&why, code, "Start microvm error: %s", err->text);
	face_finish(request, code, &why);
}

int face_before_start(struct face_request *request, struct err *err)
{
	struct face *face = request->face;
	struct start_request start;
	int code;

	if (!face->boot.kernel_image_path)
		return err_set(err, -EINVAL, "Start microvm error: Cannot start microvm without kernel configuration.");
	start_request_init(&start);
	code = face_config_make(face, &start, err);
	face->phase = FACE_STARTING;
	code = code ?: face->operated->ops->start(face->operated->session, &start, face_before_started, request, err);
	start_request_done(&start);
	if (!code)
		return FACE_LATER;
	face->phase = FACE_BEFORE;
	return err_prefix(err, code, "Start microvm error");
}
