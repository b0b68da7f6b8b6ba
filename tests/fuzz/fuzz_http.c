/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests of HTTP, in pieces of any size. Always: the limits hold, and the same bytes give the same requests however
 * they are cut.
 */
#include "vmm/api/http_parse.h"
#include "tests/fuzz/fuzz.h"

#define MAX_BODY 200u

/* What a run has seen: a sum over the requests, how it ended. */
struct seen {
	uint64_t sum;
	unsigned int requests;
	int code;
};

static void add(struct seen *seen, const void *data, size_t len)
{
	const uint8_t *bytes = data;

	for (size_t i = 0; i < len; i++)
		seen->sum = (seen->sum ^ bytes[i]) * 1099511628211u;
	seen->sum = (seen->sum ^ len) * 1099511628211u;
}

static void look(struct seen *seen, const struct http_request *request)
{
	MUST(request->body_len <= MAX_BODY && request->body[request->body_len] == 0);
	MUST(strlen(request->path) <= HTTP_MAX_PATH && !strpbrk(request->path, "?# \r\n"));
	seen->requests++;
	add(seen, request->method_name, strlen(request->method_name));
	add(seen, request->path, strlen(request->path));
	add(seen, request->body, request->body_len);
}

static struct seen run(const uint8_t *data, size_t size, size_t piece)
{
	struct seen seen = {.code = 0};
	struct http_parse *parse;
	struct err err = {""};

	MUST(http_parse_create(MAX_BODY, &parse, NULL) == 0);
	for (size_t at = 0; at < size && seen.code >= 0;) {
		size_t len = MIN(piece, size - at), used;
		char *copy = malloc(len); /* to the byte, for the sanitizer */

		memcpy(copy, data + at, len);
		seen.code = http_parse_read(parse, copy, len, &used, &err);
		free(copy);
		MUST(seen.code < 0 || (used <= len && (seen.code == 1 || used == len)));
		if (seen.code == 1)
			look(&seen, http_parse_request(parse));
		if (seen.code == 1)
			MUST(used > 0);
		at += seen.code < 0 ? 0 : used;
		http_parse_take_expect(parse);
	}
	MUST(seen.code >= 0 || *err.text);
	http_parse_destroy(parse);
	return seen;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t piece = size ? 1 + data[0] % 50 : 1;
	struct seen whole, cut;

	if (size < 1)
		return 0;
	whole = run(data + 1, size - 1, size);
	cut = run(data + 1, size - 1, piece);
	MUST(whole.requests == cut.requests && whole.sum == cut.sum && (whole.code < 0) == (cut.code < 0));
	return 0;
}

/* Half of the time a request is put behind the others. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed)
{
	static const char *const requests[] = {
		"GET / HTTP/1.1\r\n\r\n", "PUT /drives/a HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
		"PATCH /vm HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"PUT /x?y HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab", "DELETE /a#b HTTP/1.0\r\n\r\n",
		"PUT / HTTP/1.1\r\nContent-Length: 201\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\n\r\n",
		"GET /a HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	};
	const char *request = requests[(seed >> 1) % ARRAY_SIZE(requests)];
	size_t len = strlen(request);

	if (seed & 1)
		return LLVMFuzzerMutate(data, size, max_size);
	if (size + len > max_size || size == 0)
		size = MIN(max_size, 1u);
	len = MIN(len, max_size - size);
	memcpy(data + size, request, len);
	return size + len;
}
