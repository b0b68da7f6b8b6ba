/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The backend of virtio-net on a tap interface of the host (<linux/if_tun.h>), with a descriptor for each queue pair.
 * The kernel reads, writes and checks the packets' headers in the guest's buffers. Opened by net.c.
 *
 * The interface belongs to the user: it must exist; a persistent one gets its flags, header size and offloads back.
 */
#include "devices/virtio/net_internal.h"

#include "core/thread.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/ethtool.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

#define TUN_OFFLOADS (TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN)
#define TUN_USO (TUN_F_USO4 | TUN_F_USO6) /* the kernel accepts only both or none */
#define OUR_FLAGS (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)

struct tap {
	struct net_backend base;
	char name[IFNAMSIZ];
	bool in_use[NET_MAX_PAIRS];
	bool multi_queue; /* of the interface; also if that is not known */
	unsigned int can; /* TUN_F_* that this kernel has */
	int links_fd;     /* with vhost: the kernel's messages about interfaces; -1: none */
	/* The interface's settings before, for net_tap_destroy. */
	bool attached;
	int found_flags; /* -1: not known */
	int found_header;
	unsigned int found_offloads;
};

static struct tap *net_tap_to_tap(struct net_backend *backend)
{
	return container_of(backend, struct tap, base);
}

/* ---- packets ---- */

/* EBADFD: the interface was deleted. Other errors concern one packet, or are temporary (the interface is down). */
static int net_tap_packet_error(int code)
{
	return code == EBADFD ? -EPIPE : -EAGAIN;
}

static ssize_t net_tap_receive(struct net_backend *backend, unsigned int pair, const struct iovec *iov,
			       unsigned int count)
{
	ssize_t len = readv(backend->fds[pair], iov, (int)count);

	return len < 0 ? net_tap_packet_error(errno) : len;
}

static int net_tap_send(struct net_backend *backend, unsigned int pair, const struct iovec *iov, unsigned int count,
			size_t bytes)
{
	if (writev(backend->fds[pair], iov, (int)count) >= 0)
		return 0;
	return errno == EAGAIN || errno == EBADFD ? net_tap_packet_error(errno) : 0;
}

static int net_tap_end_fd(struct net_backend *backend)
{
	return net_tap_to_tap(backend)->links_fd;
}

static bool net_tap_ended(struct net_backend *backend)
{
	struct ifreq request = {0};
	char message[KIB(4)];
	ssize_t len;

	/* What they say does not matter: some interface has changed. ENOBUFS: some are lost, and more may be there. */
	do
		len = recv(net_tap_to_tap(backend)->links_fd, message, sizeof(message), MSG_DONTWAIT);
	while (len > 0 || (len < 0 && errno == ENOBUFS));
	return ioctl(backend->fds[0], TUNGETIFF, &request) < 0 && errno == EBADFD;
}

static const char *net_tap_reason(struct net_backend *backend)
{
	return "the tap was deleted";
}

/* ---- offloads and queues ---- */

static int net_tap_set_offloads(struct net_backend *backend, uint64_t offloads)
{
	static const struct {
		unsigned int feature, flag;
	} map[] = {
		{VIRTIO_NET_F_GUEST_TSO4, TUN_F_TSO4},
		{VIRTIO_NET_F_GUEST_TSO6, TUN_F_TSO6},
		{VIRTIO_NET_F_GUEST_ECN, TUN_F_TSO_ECN},
		{VIRTIO_NET_F_GUEST_USO4, TUN_F_USO4},
		{VIRTIO_NET_F_GUEST_USO6, TUN_F_USO6},
	};
	unsigned int flags = 0;

	/* The kernel does not accept segmentation without checksums. */
	if (offloads & NET_BIT(VIRTIO_NET_F_GUEST_CSUM)) {
		flags = TUN_F_CSUM;
		for (size_t i = 0; i < ARRAY_SIZE(map); i++)
			if (offloads & NET_BIT(map[i].feature))
				flags |= map[i].flag;
	}
	if ((flags & TUN_USO) != TUN_USO)
		flags &= ~TUN_USO;
	/* EBADFD: it was deleted; the guest may still use the device, with its link down. */
	return ioctl(backend->fds[0], TUNSETOFFLOAD, flags & net_tap_to_tap(backend)->can) < 0 && errno != EBADFD ?
	       -errno : 0;
}

static int net_tap_set_pair(struct net_backend *backend, unsigned int pair, bool on)
{
	struct tap *tap = net_tap_to_tap(backend);
	struct ifreq request = {.ifr_flags = on ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE};

	if (tap->in_use[pair] == on)
		return 0;
	if (ioctl(backend->fds[pair], TUNSETQUEUE, &request) < 0 && errno != EBADFD)
		return -errno;
	tap->in_use[pair] = on;
	return 0;
}

/* ---- the settings before ---- */

/* The interface's flags before we attach to it, from /sys: there is no ioctl for it. -1: not known. */
static int net_tap_read_flags(const char *name)
{
	char path[64], text[16] = "";
	_cleanup_(fd_close) int fd = -1;

	snprintf(path, sizeof(path), "/sys/class/net/%s/tun_flags", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		return -1;
	return (int)strtol(text, NULL, 16);
}

static int net_tap_ask_ethtool(int sock, const char *name, void *command)
{
	struct ifreq request = {.ifr_data = command};

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	return ioctl(sock, SIOCETHTOOL, &request) < 0 ? -errno : 0;
}

static unsigned int net_tap_count_features(int sock, const char *name)
{
	union {
		struct ethtool_sset_info info;
		uint32_t space[sizeof(struct ethtool_sset_info) / 4 + 1];
	} query = {.info = {.cmd = ETHTOOL_GSSET_INFO, .sset_mask = 1ull << ETH_SS_FEATURES}};

	if (net_tap_ask_ethtool(sock, name, &query) < 0 || !query.info.sset_mask)
		return 0;
	return MIN(query.info.data[0], 1024u);
}

/* The interface's TUN_F_*, from its features, which ethtool lists by name. */
static unsigned int net_tap_read_offloads(int sock, const char *name)
{
	static const struct {
		const char *name;
		unsigned int flags;
	} map[] = {
		{"tx-checksum-ip-generic", TUN_F_CSUM},      {"tx-tcp-segmentation", TUN_F_TSO4},
		{"tx-tcp6-segmentation", TUN_F_TSO6},        {"tx-tcp-ecn-segmentation", TUN_F_TSO_ECN},
		{"tx-udp-segmentation", TUN_USO},
	};
	unsigned int count = net_tap_count_features(sock, name), blocks = (count + 31) / 32, flags = 0;
	_cleanup_(free_ptr) struct ethtool_gstrings *names = calloc(1, sizeof(*names) + count * ETH_GSTRING_LEN);
	_cleanup_(free_ptr) struct ethtool_gfeatures *values =
		calloc(1, sizeof(*values) + blocks * sizeof(values->features[0]));

	if (!count || !names || !values)
		return 0;
	*names = (struct ethtool_gstrings){.cmd = ETHTOOL_GSTRINGS, .string_set = ETH_SS_FEATURES, .len = count};
	*values = (struct ethtool_gfeatures){.cmd = ETHTOOL_GFEATURES, .size = blocks};
	if (net_tap_ask_ethtool(sock, name, names) < 0 || net_tap_ask_ethtool(sock, name, values) < 0)
		return 0;
	for (unsigned int i = 0; i < MIN(count, 32 * values->size); i++)
		for (size_t j = 0; j < ARRAY_SIZE(map); j++)
			if (strncmp((char *)names->data + i * ETH_GSTRING_LEN, map[j].name, ETH_GSTRING_LEN) == 0 &&
			    values->features[i / 32].active >> (i % 32) & 1)
				flags |= map[j].flags;
	return flags;
}

/* The attribute of this type among len bytes of attributes, or NULL. */
static const struct rtattr *net_tap_find_attribute(const void *attributes, size_t len, unsigned short type)
{
	const struct rtattr *attribute = attributes;

	for (; RTA_OK(attribute, len); attribute = RTA_NEXT(attribute, len))
		if ((attribute->rta_type & NLA_TYPE_MASK) == type)
			return attribute;
	return NULL;
}

/* The number of queues in use in the kernel's description of an interface; -1: it has a single queue, or is no tap. */
static int net_tap_parse_queues(const struct nlmsghdr *message)
{
	static const unsigned short way[] = {IFLA_LINKINFO, IFLA_INFO_DATA, IFLA_TUN_NUM_QUEUES};
	const struct ifinfomsg *link = NLMSG_DATA(message);
	const void *at = IFLA_RTA(link);
	size_t len = IFLA_PAYLOAD(message);
	uint32_t count;

	for (size_t i = 0; i < ARRAY_SIZE(way); i++) {
		const struct rtattr *attribute = net_tap_find_attribute(at, len, way[i]);

		if (!attribute)
			return -1;
		at = RTA_DATA(attribute);
		len = RTA_PAYLOAD(attribute);
	}
	if (len < sizeof(count))
		return -1;
	memcpy(&count, at, sizeof(count));
	return (int)MIN(count, (uint32_t)INT_MAX);
}

/* How many queues of an interface are in use, by any process (rtnetlink(7)); -1: not known. */
static int net_tap_count_queues(const char *name)
{
	_cleanup_(fd_close) int sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	struct {
		struct nlmsghdr header;
		struct ifinfomsg link;
	} request = {
		.header = {.nlmsg_len = sizeof(request), .nlmsg_type = RTM_GETLINK, .nlmsg_flags = NLM_F_REQUEST},
		.link.ifi_index = (int)if_nametoindex(name),
	};
	union {
		struct nlmsghdr header;
		char space[KIB(16)];
	} answer;
	ssize_t len;

	if (sock < 0 || send(sock, &request, sizeof(request), 0) < 0)
		return -1;
	len = recv(sock, &answer, sizeof(answer), 0);
	if (len < 0 || !NLMSG_OK(&answer.header, (size_t)len) || answer.header.nlmsg_type != RTM_NEWLINK)
		return -1;
	return net_tap_parse_queues(&answer.header);
}

/* Attaching sets the flags of a persistent interface, so attach once more with the old ones. */
static int net_tap_restore_flags(void *opaque)
{
	const struct tap *tap = opaque;
	struct ifreq request = {.ifr_flags = (short)(tap->found_flags & (OUR_FLAGS | IFF_MULTI_QUEUE))};
	_cleanup_(fd_close) int fd = -1;

	if ((tap->found_flags & (IFF_PERSIST | OUR_FLAGS)) == (IFF_PERSIST | OUR_FLAGS) || tap->found_flags < 0 ||
	    !(tap->found_flags & IFF_PERSIST))
		return 0;
	fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	memcpy(request.ifr_name, tap->name, IFNAMSIZ);
	if (fd >= 0 && ioctl(fd, TUNSETIFF, &request) < 0) {
		/* The next program that attaches sets its own flags. */
	}
	return 0;
}

static void net_tap_destroy(struct net_backend *backend)
{
	struct tap *tap = net_tap_to_tap(backend);

	if (tap->attached) {
		ioctl(backend->fds[0], TUNSETOFFLOAD, tap->found_offloads);
		ioctl(backend->fds[0], TUNSETVNETHDRSZ, &tap->found_header);
	}
	for (unsigned int i = 0; i < NET_MAX_PAIRS; i++)
		fd_close(&backend->fds[i]);
	fd_close(&tap->links_fd);
	if (tap->attached)
		thread_call(net_tap_restore_flags, tap);
	free(tap);
}

static const struct net_backend_ops tap_ops = {
	.receive = net_tap_receive,
	.send = net_tap_send,
	.set_offloads = net_tap_set_offloads,
	.set_pair = net_tap_set_pair,
	.end_fd = net_tap_end_fd,
	.ended = net_tap_ended,
	.reason = net_tap_reason,
	.destroy = net_tap_destroy,
};

/* ---- opening ---- */

static int net_tap_explain_attach(const struct tap *tap, int code, struct err *err)
{
	const char *name = tap->name, *many = tap->base.pairs > 1 ? " multi_queue" : "";
	bool is_tap = tap->found_flags >= 0 && tap->found_flags & IFF_TAP;

	switch (code) {
	case -EPERM:
	case -EACCES:
		return err_set(err, code,
			       "--net tap=%s: no permission to use it; create it again for this user: ip tuntap del "
			       "dev %s mode tap%s; ip tuntap add dev %s mode tap user %u%s",
			       name, name, many, name, geteuid(), many);
	case -EBUSY:
		return err_set(err, code,
			       "--net tap=%s: another process uses it already; give each machine a tap of its own",
			       name);
	case -EINVAL:
		if (!is_tap)
			return err_set(err, code,
				       "--net tap=%s: this interface is not a tap; create one with: ip tuntap add dev "
				       "NAME mode tap user %u%s", name, geteuid(), many);
		return err_set(err, code,
			       "--net tap=%s,queues=%u: it has a single queue; use queues=1, or create it again with: "
			       "ip tuntap add dev %s mode tap user %u multi_queue",
			       name, tap->base.pairs, name, geteuid());
	case -E2BIG:
		return err_set(err, code, "--net tap=%s,queues=%u: it cannot have so many queues; use fewer",
			       name, tap->base.pairs);
	default:
		return err_sys(err, code, "--net tap=%s", name);
	}
}

static int net_tap_open_tun(const char *name, struct err *err)
{
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

	if (fd >= 0)
		return fd;
	if (errno == EACCES || errno == EPERM)
		return err_set(err, -errno,
			       "--net tap=%s: no permission to open /dev/net/tun; allow it with: "
			       "chmod 666 /dev/net/tun", name);
	if (errno == ENOENT || errno == ENODEV)
		return err_set(err, -errno,
			       "--net tap=%s: there is no /dev/net/tun; load the module with: modprobe tun", name);
	return err_sys(err, -errno, "--net tap=%s: open /dev/net/tun", name);
}

static int net_tap_attach(const struct tap *tap, int fd, short flags)
{
	struct ifreq request = {.ifr_flags = flags};

	memcpy(request.ifr_name, tap->name, IFNAMSIZ);
	return ioctl(fd, TUNSETIFF, &request) < 0 ? -errno : 0;
}

/* One queue works with either kind of interface. */
static int net_tap_attach_queue(struct tap *tap, int fd)
{
	int ret = tap->base.pairs > 1 ? -EINVAL : net_tap_attach(tap, fd, OUR_FLAGS);

	if (ret != -EINVAL)
		return ret;
	tap->multi_queue = true;
	return net_tap_attach(tap, fd, OUR_FLAGS | IFF_MULTI_QUEUE);
}

/*
 * The kernel gives an interface of several queues to any number of processes and shares packets out among them. That is
 * never what a machine needs, so it is refused as the kernel refuses it for one of a single queue: before we attach,
 * because that would take packets already, and after it, for two that start at once. A question takes 50 us.
 */
static int net_tap_check_alone(const struct tap *tap, int queues, struct err *err)
{
	return tap->multi_queue && net_tap_count_queues(tap->name) > queues ? net_tap_explain_attach(tap, -EBUSY, err) : 0;
}

static int net_tap_open_queues(struct tap *tap, struct err *err)
{
	int alone = net_tap_check_alone(tap, 0, err);

	if (alone < 0)
		return alone;
	for (unsigned int i = 0; i < tap->base.pairs; i++) {
		int ret = net_tap_open_tun(tap->name, err);

		if (ret < 0)
			return ret;
		tap->base.fds[i] = ret;
		ret = net_tap_attach_queue(tap, tap->base.fds[i]);
		if (ret < 0)
			return net_tap_explain_attach(tap, ret, err);
		tap->in_use[i] = true;
	}
	return net_tap_check_alone(tap, (int)tap->base.pairs, err);
}

int virtio_net_name_tap(int fd, char name[16], struct err *err)
{
	struct ifreq request = {0};

	_Static_assert(IFNAMSIZ == 16, "the names of interfaces");
	if (ioctl(fd, TUNGETIFF, &request) < 0)
		return err_set(err, -EINVAL, "descriptor %d is no tap (%s)", fd, strerrordesc_np(errno));
	memcpy(name, request.ifr_name, IFNAMSIZ);
	return 0;
}

/* Whether one that another program has opened is a queue of this tap, opened as we do it. */
static int net_tap_check_passed(struct tap *tap, int fd, struct err *err)
{
	struct ifreq request = {0};
	char name[IFNAMSIZ];
	int ret = virtio_net_name_tap(fd, name, err);

	if (ret < 0)
		return err_prefix(err, ret, "--net tap=%s", tap->name);
	if (strcmp(name, tap->name) != 0)
		return err_set(err, -EINVAL, "--net tap=%s: the descriptor is of the tap %s", tap->name, name);
	if (ioctl(fd, TUNGETIFF, &request) < 0)
		return err_sys(err, -errno, "--net tap=%s", tap->name);
	if ((request.ifr_flags & OUR_FLAGS) != OUR_FLAGS)
		return err_set(err, -EINVAL, "--net tap=%s: it was opened without IFF_TAP, IFF_NO_PI or IFF_VNET_HDR",
			       tap->name);
	if (tap->base.pairs > 1 && !(request.ifr_flags & IFF_MULTI_QUEUE))
		return err_set(err, -EINVAL, "--net tap=%s,queues=%u: it has a single queue; use queues=1", tap->name,
			       tap->base.pairs);
	tap->found_flags = request.ifr_flags;
	return 0;
}

static int net_tap_adopt(struct tap *tap, int sock, const int *fds, struct err *err)
{
	for (unsigned int i = 0; i < tap->base.pairs; i++) {
		int ret = net_tap_check_passed(tap, fds[i], err);

		if (ret < 0)
			return ret;
		tap->base.fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
		tap->in_use[i] = true;
		if (tap->base.fds[i] < 0 ||
		    fcntl(tap->base.fds[i], F_SETFL, fcntl(tap->base.fds[i], F_GETFL) | O_NONBLOCK) < 0)
			return err_sys(err, -errno, "--net tap=%s", tap->name);
	}
	tap->found_offloads = net_tap_read_offloads(sock, tap->name);
	return 0;
}

static int net_tap_set_up_header(struct tap *tap, struct err *err)
{
	int size = NET_HDR_SIZE;

	if (ioctl(tap->base.fds[0], TUNGETVNETHDRSZ, &tap->found_header) < 0)
		return err_sys(err, -errno, "--net tap=%s: header size", tap->name);
	tap->attached = true;
	if (ioctl(tap->base.fds[0], TUNSETVNETHDRSZ, &size) < 0)
		return err_sys(err, -errno, "--net tap=%s: header size", tap->name);
	return 0;
}

/* Finds the features to offer. Offloads that the guest does not accept are switched off when it starts. */
static int net_tap_probe(struct tap *tap, int sock, struct err *err)
{
	struct ifreq request = {0};
	int ret;

	tap->can = TUN_OFFLOADS | TUN_USO;
	if (ioctl(tap->base.fds[0], TUNSETOFFLOAD, tap->can) < 0)
		tap->can = TUN_OFFLOADS;
	ret = net_tap_set_offloads(&tap->base, 0);
	if (ret < 0)
		return err_sys(err, ret, "--net tap=%s: offloads", tap->name);
	tap->base.features = NET_BIT(VIRTIO_NET_F_CSUM) | NET_BIT(VIRTIO_NET_F_HOST_TSO4) |
			     NET_BIT(VIRTIO_NET_F_HOST_TSO6) | NET_BIT(VIRTIO_NET_F_HOST_ECN) | NET_GUEST_OFFLOADS |
			     NET_BIT(VIRTIO_NET_F_HOST_USO);
	if (!(tap->can & TUN_USO))
		tap->base.features &= ~(NET_BIT(VIRTIO_NET_F_GUEST_USO4) | NET_BIT(VIRTIO_NET_F_GUEST_USO6) |
					NET_BIT(VIRTIO_NET_F_HOST_USO));
	memcpy(request.ifr_name, tap->name, IFNAMSIZ);
	if (ioctl(sock, SIOCGIFMTU, &request) == 0 && request.ifr_mtu >= 68 && request.ifr_mtu <= UINT16_MAX)
		tap->base.mtu = (uint16_t)request.ifr_mtu;
	return 0;
}

/* The pairs' threads find by themselves that the tap was deleted; vhost does not. */
static int net_tap_watch_links(struct tap *tap, struct err *err)
{
	const struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK};

	tap->links_fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
	if (tap->links_fd < 0 || bind(tap->links_fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return err_sys(err, -errno, "--net tap=%s: messages about interfaces", tap->name);
	return 0;
}

static bool net_tap_exists(int sock, const char *name)
{
	struct ifreq request = {0};

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	return ioctl(sock, SIOCGIFINDEX, &request) == 0;
}

static int net_tap_take_name(struct tap *tap, const char *name, struct err *err)
{
	if (strlen(name) >= IFNAMSIZ || strchr(name, '/') || !*name)
		return err_set(err, -EINVAL,
			       "--net tap=%s: not the name of an interface; up to %d characters, no slash", name,
			       IFNAMSIZ - 1);
	memcpy(tap->name, name, strlen(name));
	return 0;
}

static int net_tap_open_named(struct tap *tap, int sock, struct err *err)
{
	if (!net_tap_exists(sock, tap->name))
		return err_set(err, -ENODEV,
			       "--net tap=%s: there is no such interface; create it with: ip tuntap add dev %s mode tap "
			       "user %u%s && ip link set %s up", tap->name, tap->name, geteuid(),
			       tap->base.pairs > 1 ? " multi_queue" : "", tap->name);
	tap->found_flags = net_tap_read_flags(tap->name);
	tap->multi_queue = tap->found_flags < 0 || tap->found_flags & IFF_MULTI_QUEUE;
	tap->found_offloads = net_tap_read_offloads(sock, tap->name);
	return net_tap_open_queues(tap, err);
}

static int net_tap_set_up(struct tap *tap, const struct virtio_net_options *options, struct err *err)
{
	_cleanup_(fd_close) int sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int ret;

	if (sock < 0)
		return err_sys(err, -errno, "--net: socket");
	ret = net_tap_take_name(tap, options->tap, err);
	if (ret == 0 && !options->tap_fds)
		ret = net_tap_open_named(tap, sock, err);
	else if (ret == 0)
		ret = net_tap_adopt(tap, sock, options->tap_fds, err);
	ret = ret ?: net_tap_set_up_header(tap, err);
	if (ret == 0 && options->vhost)
		ret = net_tap_watch_links(tap, err);
	return ret ?: net_tap_probe(tap, sock, err);
}

static struct tap *net_tap_new(unsigned int queues)
{
	struct tap *tap = calloc(1, sizeof(*tap));

	if (!tap)
		return NULL;
	tap->base = (struct net_backend){.ops = &tap_ops, .pairs = queues};
	for (unsigned int i = 0; i < NET_MAX_PAIRS; i++)
		tap->base.fds[i] = -1;
	tap->found_flags = tap->links_fd = -1;
	return tap;
}

int net_tap_open(const struct virtio_net_options *options, struct net_backend **ret, struct err *err)
{
	struct tap *tap = net_tap_new(options->queues);
	int code;

	if (!tap)
		return err_sys(err, -ENOMEM, "--net");
	code = net_tap_set_up(tap, options, err);
	if (code < 0) {
		net_tap_destroy(&tap->base);
		return code;
	}
	*ret = &tap->base;
	return 0;
}

int virtio_net_open_tap(const char *name, unsigned int queues, int *fds, struct err *err)
{
	_cleanup_(fd_close) int sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct tap *tap = net_tap_new(queues);
	int ret;

	if (!tap || sock < 0) {
		ret = err_sys(err, tap ? -errno : -ENOMEM, "--net tap=%s", name);
		free(tap);
		return ret;
	}
	ret = net_tap_take_name(tap, name, err) ?: net_tap_open_named(tap, sock, err);
	for (unsigned int i = 0; i < queues && ret == 0; i++)
		fds[i] = take_fd(&tap->base.fds[i]);
	net_tap_destroy(&tap->base);
	return ret;
}
