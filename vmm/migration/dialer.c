/* SPDX-License-Identifier: Apache-2.0 */
/* See dialer.h. A host name is resolved once: all channels of a session connect to the address of the first one. */
#include "vmm/migration/dialer.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/un.h>

#include "core/errand.h"
#include "core/monotonic.h"
#include "vmm/migration/resolve.h"
#include "vmm/migration/socket.h"
#include "vmm/migration/tls.h"

struct dialer {
	struct address to;
	int cancel_fd, asker;
	unsigned int silence_ms;
	const char *tls, *tls_peer, *tls_helper;
	uint8_t session[WIRE_SESSION_SIZE];
	int door;  /* a Unix socket over which channels are passed, or -1 */
	int first; /* a connected TCP socket for the first channel, or -1 */
	struct sockaddr_storage reached;
	socklen_t reached_len; /* 0: not connected yet */
};

/* ---- a descriptor as the address ---- */

static int dialer_adopt_fd(struct dialer *dialer, int fd, struct err *err)
{
	enum socket_use use;
	int code = socket_judge(fd, &use, err);

	if (!code && use == SOCKET_LISTENS)
		code = err_set(err, -EINVAL, "it is a listening socket; the sender needs a connected one");
	if (!code && use == SOCKET_TCP) {
		dialer->reached_len = sizeof(dialer->reached);
		if (getpeername(fd, (struct sockaddr *)&dialer->reached, &dialer->reached_len) < 0)
			code = err_sys(err, -errno, "its peer");
	}
	if (!code && fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		code = err_sys(err, -errno, "fcntl");
	if (code)
		return err_prefix(err, code, "%s", dialer->to.text);
	*(use == SOCKET_TCP ? &dialer->first : &dialer->door) = fd;
	return 0;
}

int dialer_create(const struct dialer_options *options, struct dialer **ret, struct err *err)
{
	struct dialer *dialer = calloc(1, sizeof(*dialer));
	int code = 0;

	if (!dialer)
		return err_sys(err, -ENOMEM, "%s", options->to->text);
	*dialer = (struct dialer){.to = *options->to, .cancel_fd = options->cancel_fd, .asker = options->asker, .silence_ms = options->silence_ms,
				  .tls = options->tls, .tls_peer = options->tls_peer,
				  .tls_helper = options->tls_helper, .door = -1, .first = -1};
	if (getrandom(dialer->session, sizeof(dialer->session), 0) != sizeof(dialer->session))
		code = err_sys(err, -EIO, "getrandom");
	if (!code && dialer->to.kind == ADDRESS_FD)
		code = dialer_adopt_fd(dialer, dialer->to.fd, err);
	if (code) {
		free(dialer);
		return code;
	}
	*ret = dialer;
	return 0;
}

void dialer_destroy(struct dialer *dialer)
{
	if (!dialer)
		return;
	fd_close(&dialer->door);
	fd_close(&dialer->first);
	free(dialer);
}

/* ---- connecting ---- */

/* Connects until deadline; *ret is the socket, in blocking mode. */
static int dialer_connect_to(struct dialer *dialer, const struct sockaddr *address, socklen_t len, int64_t deadline,
			     int *ret, struct err *err)
{
	_cleanup_(fd_close) int fd = errand_socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	socklen_t size = sizeof(int);
	int code = 0, error = 0;

	if (fd < 0)
		return err_sys(err, -errno, "socket");
	if (errand_connect(fd, address, len) < 0) {
		if (errno == EINPROGRESS)
			code = socket_wait(fd, POLLOUT, dialer->cancel_fd, deadline, err);
		else
			error = errno;
		if (!code && !error && getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
			error = errno;
	}
	if (code == -ETIMEDOUT)
		return err_set(err, code, "no answer");
	if (code)
		return code;
	if (error == ECONNREFUSED || error == ENOENT)
		return err_set(err, -error, "nobody listens there; start `mvmm receive` first");
	if (error)
		return err_sys(err, -error, "connect");
	code = socket_prepare(fd, dialer->silence_ms, err);
	if (code)
		return code;
	memcpy(&dialer->reached, address, len);
	dialer->reached_len = len;
	*ret = take_fd(&fd);
	return 0;
}

static int dialer_connect_name(struct dialer *dialer, int64_t deadline, int *ret, struct err *err)
{
	const struct resolve_options options = {
		.host = dialer->to.host, .port = dialer->to.port, .cancel_fd = dialer->cancel_fd, .deadline = deadline,
	};
	struct resolved found[RESOLVE_MAX];
	int count = resolve(&options, found, err), code = count;

	for (int i = 0; i < count; i++) {
		code = dialer_connect_to(dialer, (struct sockaddr *)&found[i].address, found[i].len, deadline, ret, err);
		if (!code || code == -ECANCELED || code == -ETIMEDOUT)
			break;
	}
	return code;
}

static int dialer_connect_path(struct dialer *dialer, int64_t deadline, int *ret, struct err *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	memcpy(address.sun_path, dialer->to.path, strlen(dialer->to.path));
	return dialer_connect_to(dialer, (struct sockaddr *)&address, sizeof(address), deadline, ret, err);
}

/* Creates a socket pair and passes one end through the door. */
static int dialer_pass_through(struct dialer *dialer, int *ret, struct err *err)
{
	_cleanup_(fd_close) int ours = -1;
	_cleanup_(fd_close) int theirs = -1;
	int pair[2], code;

	if (errand_socketpair(SOCK_STREAM, pair) < 0)
		return err_sys(err, -errno, "socketpair");
	ours = pair[0];
	theirs = pair[1];
	code = socket_pass(dialer->door, theirs, err);
	if (!code)
		*ret = take_fd(&ours);
	return code;
}

static int dialer_ask(struct dialer *dialer, int64_t deadline, int *ret, struct err *err)
{
	int code = socket_ask(dialer->asker, dialer->cancel_fd, deadline, ret, err);

	return code ?: socket_prepare(*ret, dialer->silence_ms, err);
}

static int dialer_open_connection(struct dialer *dialer, int64_t deadline, int *ret, struct err *err)
{
	if (dialer->asker > 0)
		return dialer_ask(dialer, deadline, ret, err);
	if (dialer->door >= 0)
		return dialer_pass_through(dialer, ret, err);
	if (dialer->first >= 0) {
		*ret = take_fd(&dialer->first);
		return socket_prepare(*ret, dialer->silence_ms, err);
	}
	if (dialer->reached_len) {
		struct sockaddr_storage reached = dialer->reached;

		return dialer_connect_to(dialer, (struct sockaddr *)&reached, dialer->reached_len, deadline, ret, err);
	}
	return dialer->to.kind == ADDRESS_UNIX ? dialer_connect_path(dialer, deadline, ret, err) :
						 dialer_connect_name(dialer, deadline, ret, err);
}

/* Adds TLS to the connection: *fd becomes the socket to use. */
static int dialer_encrypt(struct dialer *dialer, int64_t deadline, int *fd, struct tls **ret, struct err *err)
{
	const struct tls_options options = {.folder = dialer->tls, .helper = dialer->tls_helper, .side = WIRE_SOURCE,
					    .peer = dialer->tls_peer ?: dialer->to.host};
	struct tls *tls;
	int code = tls_start(&options, fd, &tls, err);

	if (code)
		return code;
	code = socket_wait(tls_report_fd(tls), POLLIN, dialer->cancel_fd, deadline, err);
	if (code == -ETIMEDOUT)
		err_set(err, code, "--tls: the target does not reply");
	code = code ?: tls_finish(tls, fd, err);
	if (code)
		tls_destroy(tls);
	else
		*ret = tls;
	return code;
}

int dialer_open(struct dialer *dialer, int *ret, struct tls **tls, struct err *err)
{
	int64_t deadline = monotonic_ms() + DIALER_CONNECT_MS;
	_cleanup_(fd_close) int fd = -1;
	struct tls *made = NULL;
	int code = dialer_open_connection(dialer, deadline, &fd, err);

	if (!code && dialer->tls && dialer->asker <= 0)
		code = dialer_encrypt(dialer, deadline, &fd, &made, err);
	if (code)
		return code;
	*ret = take_fd(&fd);
	*tls = made;
	return 0;
}

/* ---- greeting ---- */

static int dialer_greet(struct dialer *dialer, struct channel *channel, struct err *err)
{
	struct wire_hello mine = {.version = WIRE_VERSION, .oldest = WIRE_OLDEST, .kind = channel->options.kind,
				  .index = channel->options.index, .count = channel->options.count};
	uint8_t bytes[WIRE_HELLO_SIZE];
	struct wire_hello theirs;
	struct wire_frame frame;
	uint32_t version = 0;
	int code;

	memcpy(mine.session, dialer->session, sizeof(mine.session));
	wire_put_hello(bytes, &mine);
	code = channel_send(channel, WIRE_HELLO, WIRE_MAGIC, 0, bytes, sizeof(bytes), err);
	code = code ?: channel_receive(channel, &frame, err);
	if (!code && frame.type == WIRE_REFUSED)
		return channel_words(channel, &frame, err);
	code = code ?: channel_payload(channel, bytes, sizeof(bytes), err);
	code = code ?: wire_get_hello(bytes, &theirs, err);
	code = code ?: wire_agree(&mine, &theirs, &version, err);
	if (!code && (memcmp(theirs.session, mine.session, sizeof(mine.session)) != 0 || theirs.kind != mine.kind ||
		      theirs.index != mine.index || theirs.count != mine.count))
		code = err_set(err, -EPROTO, "the reply to HELLO is for another session or channel");
	if (!code)
		channel_agree(channel, version);
	return code;
}

int dialer_connect(struct dialer *dialer, enum wire_kind kind, uint32_t index, uint32_t count, struct channel **ret,
		   struct err *err)
{
	const struct channel_options options = {.side = WIRE_SOURCE, .kind = kind, .index = index, .count = count,
						.cancel_fd = dialer->cancel_fd, .silence_ms = dialer->silence_ms};
	_cleanup_(fd_close) int fd = -1;
	struct channel *channel = NULL;
	struct tls *tls = NULL;
	int code = dialer_open(dialer, &fd, &tls, err);

	code = code ?: channel_create(&options, &fd, &channel, err);
	if (!code) {
		channel->tls = take_ptr(tls);
		code = dialer_greet(dialer, channel, err);
	}
	if (code) {
		channel_destroy(channel);
		fd_close(&fd);
		tls_destroy(tls);
		return err_prefix(err, code, "%s", dialer->to.text);
	}
	*ret = channel;
	return 0;
}
