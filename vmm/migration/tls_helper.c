/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mvmm-tls: puts TLS 1.3 on a connection, with certificates on both ends. Started by vmm/migration/tls.c, which
 * describes the descriptors.
 *
 *	mvmm-tls source|target FOLDER PEER on|off|log
 *
 * The last word is that of --seccomp. When the certificates are read, this program closes what it does not need, loses its
 * capabilities and gets a filter of system calls; only then does it read from the network.
 *
 * FOLDER contains ca.pem, cert.pem and key.pem. Each side verifies the other's certificate against ca.pem, that it is
 * for PEER (unless empty), and that it may be used so: a target's by a TLS server, a source's by a TLS client (extended
 * key usage, RFC 5280 section 4.2.1.12), both for signatures (key usage, section 4.2.1.3). Then each side sends one
 * byte and waits for the other's, so that both know about a refusal before other data is sent. If the kernel supports
 * TLS for both directions, it gets the keys and this program ends. Else this program forwards the bytes, with one
 * thread for each direction, until both directions have ended.
 *
 * There is no close_notify at the end: the migration's own END frames show that nothing is missing.
 */
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>

#include "vmm/jail/confine.h"
#include "vmm/migration/wire.h"

enum { NET = 3, APP = 4, REPORT = 5 };

/* The kernel supports keys for AES-GCM. */
#define PRIORITY "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM:+AES-256-GCM"
#define BUFFER KIB(256)
#define OURS 'm'

struct helper {
	bool target;
	const char *folder, *peer;
	gnutls_certificate_credentials_t credentials;
	gnutls_session_t session;
	enum seccomp_mode seccomp;
	/* The thread that moves bytes out is there from the start, since a filter lets nobody start one. */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool moves; /* it may; under the lock */
};

static const char *tls_helper_peer(const struct helper *helper)
{
	return helper->target ? "source" : "target";
}

static int tls_helper_report(int code, const struct err *err)
{
	char text[480];
	int len = snprintf(text, sizeof(text), "%d %s", code, err->text);

	send(REPORT, text, (size_t)MIN(len, (int)sizeof(text) - 1), MSG_NOSIGNAL);
	return 1;
}

/* ---- certificates ---- */

/* TLS 1.3 signs with it; GnuTLS does not say so. */
static int tls_helper_check_usage(struct helper *helper, const char *file, struct err *err)
{
	gnutls_x509_crt_t *chain;
	unsigned int count = 0, usage;
	int code = gnutls_certificate_get_x509_crt(helper->credentials, 0, &chain, &count);
	bool signs = code < 0 || !count || gnutls_x509_crt_get_key_usage(chain[0], &usage, NULL) < 0 ||
		     usage & GNUTLS_KEY_DIGITAL_SIGNATURE;

	for (unsigned int i = 0; code >= 0 && i < count; i++)
		gnutls_x509_crt_deinit(chain[i]);
	if (code >= 0)
		gnutls_free(chain);
	return signs ? 0 : err_set(err, -EINVAL, "%s is not for signatures (key usage)", file);
}

static int tls_helper_load(struct helper *helper, struct err *err)
{
	char ca[4096], cert[4096], key[4096];
	int code;

	snprintf(ca, sizeof(ca), "%s/ca.pem", helper->folder);
	snprintf(cert, sizeof(cert), "%s/cert.pem", helper->folder);
	snprintf(key, sizeof(key), "%s/key.pem", helper->folder);
	for (size_t i = 0; i < 3; i++) {
		const char *file = i == 0 ? ca : i == 1 ? cert : key;

		if (access(file, R_OK) < 0)
			return err_sys(err, -errno, "%s", file);
	}
	if (gnutls_certificate_allocate_credentials(&helper->credentials) < 0)
		return err_sys(err, -ENOMEM, "certificates");
	code = gnutls_certificate_set_x509_trust_file(helper->credentials, ca, GNUTLS_X509_FMT_PEM);
	if (code <= 0)
		return err_set(err, -EINVAL, "%s: %s", ca, code ? gnutls_strerror(code) : "there is no certificate in it");
	code = gnutls_certificate_set_x509_key_file(helper->credentials, cert, key, GNUTLS_X509_FMT_PEM);
	if (code == GNUTLS_E_CERTIFICATE_KEY_MISMATCH)
		return err_set(err, -EINVAL, "%s is not the key of %s", key, cert);
	if (code < 0)
		return err_set(err, -EINVAL, "%s and key.pem: %s", cert, gnutls_strerror(code));
	return tls_helper_check_usage(helper, cert, err);
}

/* Faults of the peer's certificate, and the TLS alerts that the peer gets. */
static int tls_helper_judge(struct helper *helper, struct err *err)
{
	static const struct {
		unsigned int status;
		gnutls_alert_description_t alert;
		const char *words;
	} faults[] = {
		{GNUTLS_CERT_EXPIRED, GNUTLS_A_CERTIFICATE_EXPIRED, "has expired"},
		{GNUTLS_CERT_NOT_ACTIVATED, GNUTLS_A_CERTIFICATE_EXPIRED,
		 "is not valid yet; check both hosts' clocks"},
		{GNUTLS_CERT_UNEXPECTED_OWNER, GNUTLS_A_BAD_CERTIFICATE, "is for another host"},
		{GNUTLS_CERT_PURPOSE_MISMATCH, GNUTLS_A_UNSUPPORTED_CERTIFICATE,
		 "is for another purpose (extended key usage)"},
		{GNUTLS_CERT_SIGNER_NOT_FOUND, GNUTLS_A_UNKNOWN_CA, "is not signed by our ca.pem"},
		{GNUTLS_CERT_REVOKED, GNUTLS_A_CERTIFICATE_REVOKED, "was revoked"},
		{~0u, GNUTLS_A_BAD_CERTIFICATE, "does not do"},
	};
	gnutls_typed_vdata_st wanted[] = {
		{GNUTLS_DT_KEY_PURPOSE_OID,
		 (unsigned char *)(helper->target ? GNUTLS_KP_TLS_WWW_CLIENT : GNUTLS_KP_TLS_WWW_SERVER), 0},
		{GNUTLS_DT_DNS_HOSTNAME, (unsigned char *)helper->peer, 0},
	};
	unsigned int status = 0;
	gnutls_datum_t text = {0};
	int code = gnutls_certificate_verify_peers(helper->session, wanted, helper->peer[0] ? 2 : 1, &status);

	if (!code && !status)
		return 0;
	if (code)
		status = ~0u;
	for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
		if (!(faults[i].status & status))
			continue;
		if (faults[i].status == ~0u && !code)
			gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0);
		if (faults[i].status == GNUTLS_CERT_UNEXPECTED_OWNER)
			err_set(err, -EACCES, "the %s's certificate %s than %s", tls_helper_peer(helper),
				faults[i].words, helper->peer);
		else
			err_set(err, -EACCES, "the %s's certificate %s%s%s", tls_helper_peer(helper), faults[i].words,
				text.data ? ": " : "", text.data ? (char *)text.data : "");
		gnutls_free(text.data);
		gnutls_alert_send(helper->session, GNUTLS_AL_FATAL, faults[i].alert);
		break;
	}
	return -EACCES;
}

/* ---- shaking hands ---- */

/* Why the peer refused us. */
static const char *tls_helper_refusal(struct helper *helper)
{
	gnutls_alert_description_t alert = gnutls_alert_get(helper->session);

	switch (alert) {
	case GNUTLS_A_CERTIFICATE_EXPIRED:
		return "our certificate has expired, or is not valid yet";
	case GNUTLS_A_UNKNOWN_CA:
		return "our certificate is not signed by its ca.pem";
	case GNUTLS_A_CERTIFICATE_REQUIRED:
		return "we sent no certificate";
	case GNUTLS_A_BAD_CERTIFICATE:
		return "our certificate is not for the host name that it expects";
	case GNUTLS_A_UNSUPPORTED_CERTIFICATE:
	case GNUTLS_A_ILLEGAL_PARAMETER:
		return helper->target ? "our certificate is not for a TLS server (its key usage)" :
					"our certificate is not for a TLS client (its key usage)";
	default:
		return gnutls_alert_get_name(alert) ?: "it does not say why";
	}
}

/* Our message, where TLS's own says too little. */
static int tls_helper_explain(struct helper *helper, int code, const char *when, struct err *err)
{
	switch (code) {
	case GNUTLS_E_FATAL_ALERT_RECEIVED:
		return err_set(err, -EACCES, "the %s refused the connection: %s", tls_helper_peer(helper),
			       tls_helper_refusal(helper));
	case GNUTLS_E_NO_CERTIFICATE_FOUND:
	case GNUTLS_E_CERTIFICATE_REQUIRED:
		return err_set(err, -EACCES, "the %s sent no certificate", tls_helper_peer(helper));
	case GNUTLS_E_KEY_USAGE_VIOLATION:
		return err_set(err, -EACCES, "the %s's certificate is not for signatures (key usage)",
			       tls_helper_peer(helper));
	case GNUTLS_E_UNEXPECTED_PACKET_LENGTH:
	case GNUTLS_E_UNEXPECTED_PACKET:
	case GNUTLS_E_UNSUPPORTED_VERSION_PACKET:
		return err_set(err, -EPROTO, "the %s does not use TLS 1.3; use --tls there too",
			       tls_helper_peer(helper));
	case GNUTLS_E_PREMATURE_TERMINATION:
	case GNUTLS_E_PULL_ERROR:
	case GNUTLS_E_PUSH_ERROR:
		return err_set(err, -ECONNRESET, "the %s closed the connection %s; see its log, or add --tls there",
			       tls_helper_peer(helper), when);
	default:
		return err_set(err, -EPROTO, "%s: %s", when, gnutls_strerror(code));
	}
}

/* Answers a source that sends HELLO without TLS, in the format that it understands. */
static int tls_helper_refuse_plain(struct helper *helper, struct err *err)
{
	static const char words[] = "it accepts TLS only; use --tls here too";
	const struct wire_frame frame = {.type = WIRE_REFUSED, .length = sizeof(words) - 1};
	uint8_t bytes[WIRE_HEADER_SIZE + sizeof(words)], first[WIRE_HEADER_SIZE + WIRE_HELLO_SIZE];

	if (!helper->target || recv(NET, first, 1, MSG_PEEK) != 1 || first[0] != WIRE_HELLO)
		return 0;
	/* All of it is read, so that the close does not discard our message. */
	recv(NET, first, sizeof(first), MSG_WAITALL);
	wire_put_header(bytes, &frame);
	memcpy(bytes + WIRE_HEADER_SIZE, words, sizeof(words) - 1);
	send(NET, bytes, sizeof(bytes) - 1, MSG_NOSIGNAL);
	return err_set(err, -EPROTO, "the source does not use TLS; use --tls there too");
}

static int tls_helper_shake_hands(struct helper *helper, struct err *err)
{
	unsigned int flags = GNUTLS_NO_TICKETS | GNUTLS_NO_SIGNAL;
	int code = gnutls_init(&helper->session, flags | (helper->target ? GNUTLS_SERVER : GNUTLS_CLIENT));

	code = code ?: gnutls_priority_set_direct(helper->session, PRIORITY, NULL);
	code = code ?: gnutls_credentials_set(helper->session, GNUTLS_CRD_CERTIFICATE, helper->credentials);
	if (code)
		return err_set(err, -EIO, "GnuTLS: %s", gnutls_strerror(code));
	if (helper->target) {
		gnutls_certificate_server_set_request(helper->session, GNUTLS_CERT_REQUIRE);
		/* No list of CAs: a source whose CA is not in it would send no certificate and get no reason. */
		gnutls_certificate_send_x509_rdn_sequence(helper->session, 1);
	}
	gnutls_transport_set_int(helper->session, NET);
	do {
		code = gnutls_handshake(helper->session);
	} while (code < 0 && !gnutls_error_is_fatal(code));
	return code ? tls_helper_explain(helper, code, "while shaking hands", err) : 0;
}

/* TLS 1.3 lets the source continue before the target has checked its certificate: each side confirms its check. */
static int tls_helper_agree(struct helper *helper, struct err *err)
{
	char mine = OURS, theirs = 0;
	ssize_t n = gnutls_record_send(helper->session, &mine, 1);

	if (n != 1)
		return tls_helper_explain(helper, (int)n, "before it had looked at our certificate", err);
	do {
		n = gnutls_record_recv(helper->session, &theirs, 1);
	} while (n < 0 && !gnutls_error_is_fatal((int)n));
	if (n == 0)
		n = GNUTLS_E_PREMATURE_TERMINATION;
	if (n < 0)
		return tls_helper_explain(helper, (int)n, "before it was content with our certificate", err);
	return theirs == OURS ? 0 : err_set(err, -EPROTO, "the %s is not mvmm", tls_helper_peer(helper));
}

/* ---- the kernel ---- */

union keys {
	struct tls_crypto_info info;
	struct tls12_crypto_info_aes_gcm_128 aes128;
	struct tls12_crypto_info_aes_gcm_256 aes256;
};

/* The state of one direction for the kernel; its size, or 0 for a cipher that the kernel does not support. */
static socklen_t tls_helper_get_keys(gnutls_session_t session, bool receive, union keys *keys)
{
	gnutls_datum_t mac, iv, key;
	unsigned char number[8];

	*keys = (union keys){0};
	if (gnutls_record_get_state(session, receive, &mac, &iv, &key, number) < 0 || iv.size != 12)
		return 0;
	keys->info.version = TLS_1_3_VERSION;
	if (gnutls_cipher_get(session) == GNUTLS_CIPHER_AES_128_GCM && key.size == sizeof(keys->aes128.key)) {
		keys->info.cipher_type = TLS_CIPHER_AES_GCM_128;
		memcpy(keys->aes128.key, key.data, key.size);
		memcpy(keys->aes128.salt, iv.data, 4);
		memcpy(keys->aes128.iv, iv.data + 4, 8);
		memcpy(keys->aes128.rec_seq, number, 8);
		return sizeof(keys->aes128);
	}
	if (gnutls_cipher_get(session) == GNUTLS_CIPHER_AES_256_GCM && key.size == sizeof(keys->aes256.key)) {
		keys->info.cipher_type = TLS_CIPHER_AES_GCM_256;
		memcpy(keys->aes256.key, key.data, key.size);
		memcpy(keys->aes256.salt, iv.data, 4);
		memcpy(keys->aes256.iv, iv.data + 4, 8);
		memcpy(keys->aes256.rec_seq, number, 8);
		return sizeof(keys->aes256);
	}
	return 0;
}

/*
 * 1: the kernel does both directions. 0: it does none, and the connection is unchanged: receiving is tried first,
 * because a kernel that can receive can also send. Negative: the connection is unusable.
 */
static int tls_helper_give_to_kernel(struct helper *helper, struct err *err)
{
	union keys receive, send;
	socklen_t receive_len = tls_helper_get_keys(helper->session, true, &receive),
	send_len = tls_helper_get_keys(helper->session, false, &send);
	int code = 0;

	if (receive_len && send_len && !gnutls_record_check_pending(helper->session) &&
	    setsockopt(NET, IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls")) == 0 &&
	    setsockopt(NET, SOL_TLS, TLS_RX, &receive, receive_len) == 0)
		code = setsockopt(NET, SOL_TLS, TLS_TX, &send, send_len) == 0 ? 1 :
			err_sys(err, -errno, "TLS in the kernel");
	explicit_bzero(&receive, sizeof(receive));
	explicit_bzero(&send, sizeof(send));
	return code;
}

/* ---- moving bytes ---- */

static bool tls_helper_write_all(int fd, const char *data, size_t len)
{
	while (len) {
		ssize_t n = send(fd, data, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		data += n;
		len -= (size_t)n;
	}
	return true;
}

static bool tls_helper_send_record(gnutls_session_t session, const char *data, size_t len)
{
	while (len) {
		ssize_t n = gnutls_record_send(session, data, len);

		if (n < 0 && gnutls_error_is_fatal((int)n))
			return false;
		if (n > 0) {
			data += n;
			len -= (size_t)n;
		}
	}
	return true;
}

/* Forwards mvmm's data to the network, and its end. */
static void tls_helper_move_out(struct helper *helper)
{
	struct pollfd app = {.fd = APP};
	static char buf[BUFFER];
	ssize_t n;

	while ((n = recv(APP, buf, sizeof(buf), 0)) > 0 || (n < 0 && errno == EINTR))
		if (n > 0 && !tls_helper_send_record(helper->session, buf, (size_t)n))
			break;
	shutdown(NET, n > 0 ? SHUT_RDWR : SHUT_WR);
	/* Both ways closed: data already written is still sent after this program ends. */
	if (poll(&app, 1, 0) == 1 && app.revents & POLLHUP)
		_exit(0);
}

/* Waits until there is something to move. A thread that is not confined must not run. */
static void *tls_helper_out_main(void *opaque)
{
	struct helper *helper = opaque;

	if (seccomp_enter(helper->seccomp, THREAD_TLS))
		_exit(SECCOMP_EXIT);
	pthread_mutex_lock(&helper->lock);
	while (!helper->moves)
		pthread_cond_wait(&helper->changed, &helper->lock);
	pthread_mutex_unlock(&helper->lock);
	tls_helper_move_out(helper);
	return NULL;
}

/* The other direction. When mvmm has stopped reading, it ends. */
static void tls_helper_move_in(struct helper *helper)
{
	static char buf[BUFFER];

	for (;;) {
		ssize_t n = gnutls_record_recv(helper->session, buf, sizeof(buf));

		if (n < 0 && !gnutls_error_is_fatal((int)n))
			continue;
		if (n <= 0)
			break;
		if (!tls_helper_write_all(APP, buf, (size_t)n))
			_exit(0);
	}
	shutdown(APP, SHUT_WR);
}

static int tls_helper_move(struct helper *helper)
{
	pthread_mutex_lock(&helper->lock);
	helper->moves = true;
	pthread_cond_signal(&helper->changed);
	pthread_mutex_unlock(&helper->lock);
	tls_helper_move_in(helper);
	pthread_join(helper->thread, NULL);
	return 0;
}

/* ---- what it does without ---- */

/* The line of a call that is not allowed is a report, too. */
static int tls_helper_confine(struct helper *helper, struct err *err)
{
	int code = close_range(STDIN_FILENO, STDERR_FILENO, 0) < 0 ? -errno : confine_prepare(&helper->seccomp, REPORT, "-1 ");

	pthread_mutex_init(&helper->lock, NULL);
	pthread_cond_init(&helper->changed, NULL);
	code = code ?: -pthread_create(&helper->thread, NULL, tls_helper_out_main, helper);
	code = code ?: seccomp_enter(helper->seccomp, THREAD_TLS);
	return code ? err_sys(err, code, "confining mvmm-tls") : 0;
}

int main(int argc, char **argv)
{
	struct helper helper = {0};
	struct err err = {""};
	int code;

	if (argc != 5 || (strcmp(argv[1], "source") != 0 && strcmp(argv[1], "target") != 0)) {
		fprintf(stderr, "mvmm-tls is started by mvmm\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	helper = (struct helper){.target = argv[1][0] == 't', .folder = argv[2], .peer = argv[3],
				 .seccomp = confine_mode(argv[4])};
	code = tls_helper_load(&helper, &err) ?: tls_helper_confine(&helper, &err) ?: tls_helper_refuse_plain(&helper, &err) ?:
	       tls_helper_shake_hands(&helper, &err);
	code = code ?: tls_helper_judge(&helper, &err) ?: tls_helper_agree(&helper, &err) ?:
	       tls_helper_give_to_kernel(&helper, &err);
	if (code < 0)
		return tls_helper_report(code, &err);
	send(REPORT, code ? "k" : "p", 1, MSG_NOSIGNAL);
	close(REPORT);
	return code ? 0 : tls_helper_move(&helper);
}
