/* SPDX-License-Identifier: Apache-2.0 */
/* See connector.h. */
#include "vmm/migration/connector.h"

#include <sys/socket.h>

#include "vmm/migration/socket.h"
#include "vmm/migration/tls.h"

struct connector {
	struct dialer *dialer;
	int fd;
	struct tls **tls; /* of the connections that were made */
	size_t tls_count;
};

int connector_create(const struct dialer_options *options, int *peer, struct connector **ret, struct err *err)
{
	struct connector *connector = calloc(1, sizeof(*connector));
	int pair[2], code;

	if (!connector)
		return err_sys(err, -ENOMEM, "migration");
	connector->fd = -1;
	code = dialer_create(options, &connector->dialer, err);
	if (!code && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		code = err_sys(err, -errno, "socketpair");
	if (code) {
		connector_destroy(connector);
		return code;
	}
	connector->fd = pair[0];
	*peer = pair[1];
	*ret = connector;
	return 0;
}

int connector_fd(const struct connector *connector)
{
	return connector->fd;
}

/* Its helper may have to forward the connection's data. */
static int connector_keep(struct connector *connector, struct tls *tls, struct err *err)
{
	struct tls **more;

	if (!tls)
		return 0;
	more = reallocarray(connector->tls, connector->tls_count + 1, sizeof(*more));
	if (!more) {
		tls_destroy(tls);
		return err_sys(err, -ENOMEM, "--tls");
	}
	connector->tls = more;
	more[connector->tls_count++] = tls;
	return 0;
}

bool connector_serve(struct connector *connector)
{
	_cleanup_(fd_close) int fd = -1;
	struct tls *tls = NULL;
	struct err err = {""};
	int code = socket_asked(connector->fd);

	if (code)
		return code == -EAGAIN;
	code = dialer_open(connector->dialer, &fd, &tls, &err);
	code = code ?: connector_keep(connector, tls, &err);
	return socket_reply(connector->fd, fd, code, &err) == 0;
}

void connector_destroy(struct connector *connector)
{
	if (!connector)
		return;
	fd_close(&connector->fd);
	while (connector->tls_count)
		tls_destroy(connector->tls[--connector->tls_count]);
	free(connector->tls);
	dialer_destroy(connector->dialer);
	free(connector);
}
