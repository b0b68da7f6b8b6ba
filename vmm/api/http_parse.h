/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests of HTTP/1.1 (RFC 9112) from bytes that come in pieces of any size. llhttp reads the protocol; here are the
 * limits, and a request as a whole. Used by http.c, for each client one.
 *
 * Nothing that comes is trusted: a request line with its headers has at most HTTP_MAX_HEAD bytes and HTTP_MAX_HEADERS
 * headers, a body no more than the caller allows. The memory in use is at most that of one request.
 */
#pragma once

#include "core/err.h"

#define HTTP_MAX_HEAD KIB(16)
#define HTTP_MAX_HEADERS 64u
#define HTTP_MAX_PATH 1024u

enum http_method { HTTP_METHOD_GET, HTTP_METHOD_PUT, HTTP_METHOD_PATCH, HTTP_METHOD_DELETE, HTTP_METHOD_OTHER };

struct http_request {
	enum http_method method;
	const char *method_name; /* "PUT" */
	const char *path;        /* as it was sent, without ? and # and what follows */
	const char *body;        /* ends with a zero byte, which is not counted; may have others */
	size_t body_len;         /* 0: none */
	bool keep_alive;         /* the client may send more requests */
};

struct http_parse;

/* max_body: bytes of a body. */
int http_parse_create(size_t max_body, struct http_parse **ret, struct err *err);
void http_parse_destroy(struct http_parse *parse); /* NULL is fine */

/*
 * Reads on; *used: how many bytes it has taken. 1: a request is complete (the rest belongs to the next one); 0: more is
 * needed, and all bytes were taken. -EPROTO: it is none; -EMSGSIZE: larger than a limit; -ENOMEM; the message is for the
 * client. Nothing can be read after an error.
 */
int http_parse_read(struct http_parse *parse, const char *data, size_t len, size_t *used, struct err *err);
/* The complete request, until the next http_parse_read. */
const struct http_request *http_parse_request(const struct http_parse *parse);

/* Whether bytes of an incomplete request were read. */
bool http_parse_begun(const struct http_parse *parse);
/* Whether the client waits for a sign before it sends the body (Expect: 100-continue); true once a request. */
bool http_parse_take_expect(struct http_parse *parse);
