/* SPDX-License-Identifier: Apache-2.0 */
/* See http_parse.h. */
#include "vmm/api/http_parse.h"

#include <llhttp.h>
#include <strings.h>

#define HEADER_NAME 16u /* of the headers that are looked at, and their values */

struct http_parse {
	llhttp_t parser;
	size_t max_body;
	struct http_request request;
	char path[HTTP_MAX_PATH + 1];
	size_t path_len;
	char name[HEADER_NAME], value[HEADER_NAME]; /* of the header that is being read; longer ones are cut */
	size_t name_len, value_len;
	unsigned int headers;
	char *body;
	size_t body_len, body_room;
	size_t head; /* bytes so far */
	bool begun, head_done, complete, expects;
	int code; /* why a callback has ended the parsing */
	struct err err;
};

/* ---- what llhttp calls; -1 ends the parsing ---- */

static int http_parse_fail(struct http_parse *parse, int code)
{
	parse->code = code;
	return -1;
}

static int http_parse_on_url(llhttp_t *parser, const char *text, size_t len)
{
	struct http_parse *parse = parser->data;

	if (len > HTTP_MAX_PATH - parse->path_len)
		return http_parse_fail(parse, err_set(&parse->err, -EMSGSIZE, "Invalid URI: longer than %u bytes.", HTTP_MAX_PATH));
	memcpy(parse->path + parse->path_len, text, len);
	parse->path_len += len;
	return 0;
}

static void http_parse_append(char *to, size_t *to_len, const char *text, size_t len)
{
	len = MIN(len, HEADER_NAME - 1 - *to_len);
	memcpy(to + *to_len, text, len);
	*to_len += len;
	to[*to_len] = 0;
}

static int http_parse_on_field(llhttp_t *parser, const char *text, size_t len)
{
	struct http_parse *parse = parser->data;

	http_parse_append(parse->name, &parse->name_len, text, len);
	return 0;
}

static int http_parse_on_value(llhttp_t *parser, const char *text, size_t len)
{
	struct http_parse *parse = parser->data;

	http_parse_append(parse->value, &parse->value_len, text, len);
	return 0;
}

static int http_parse_on_header(llhttp_t *parser)
{
	struct http_parse *parse = parser->data;

	if (strcasecmp(parse->name, "expect") == 0 && strcasecmp(parse->value, "100-continue") == 0)
		parse->expects = true;
	parse->name_len = parse->value_len = 0;
	parse->name[0] = parse->value[0] = 0;
	if (++parse->headers > HTTP_MAX_HEADERS)
		return http_parse_fail(parse, err_set(&parse->err, -EMSGSIZE, "Invalid header. Reason: more than %u of them.",
						      HTTP_MAX_HEADERS));
	return 0;
}

static int http_parse_too_large(struct http_parse *parse, uint64_t size)
{
	return http_parse_fail(parse, err_set(&parse->err, -EMSGSIZE,
					      "Request payload with size %llu is larger than the limit of %zu allowed by server.",
					      (unsigned long long)size, parse->max_body));
}

static int http_parse_on_head(llhttp_t *parser)
{
	struct http_parse *parse = parser->data;

	parse->head_done = true;
	if (parser->content_length > parse->max_body)
		return http_parse_too_large(parse, parser->content_length);
	return 0;
}

static int http_parse_on_body(llhttp_t *parser, const char *text, size_t len)
{
	struct http_parse *parse = parser->data;
	size_t need = parse->body_len + len + 1, room = MIN(MAX(need, 2 * parse->body_room), parse->max_body + 1);
	char *grown;

	if (len > parse->max_body - parse->body_len)
		return http_parse_too_large(parse, parse->body_len + len);
	if (need > parse->body_room) {
		grown = realloc(parse->body, room);
		if (!grown)
			return http_parse_fail(parse, err_set(&parse->err, -ENOMEM, "Out of memory."));
		parse->body = grown;
		parse->body_room = room;
	}
	memcpy(parse->body + parse->body_len, text, len);
	parse->body_len += len;
	parse->body[parse->body_len] = 0;
	return 0;
}

static int http_parse_on_chunk(llhttp_t *parser)
{
	struct http_parse *parse = parser->data;

	if (parser->content_length > parse->max_body - parse->body_len)
		return http_parse_too_large(parse, parse->body_len + parser->content_length);
	return 0;
}

static int http_parse_on_complete(llhttp_t *parser)
{
	struct http_parse *parse = parser->data;

	parse->complete = true;
	return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
	.on_url = http_parse_on_url,
	.on_header_field = http_parse_on_field,
	.on_header_value = http_parse_on_value,
	.on_header_value_complete = http_parse_on_header,
	.on_headers_complete = http_parse_on_head,
	.on_chunk_header = http_parse_on_chunk,
	.on_body = http_parse_on_body,
	.on_message_complete = http_parse_on_complete,
};

/* ---- one request after the other ---- */

static void http_parse_begin(struct http_parse *parse)
{
	llhttp_init(&parse->parser, HTTP_REQUEST, &settings);
	parse->parser.data = parse;
	free(take_ptr(parse->body));
	parse->body_len = parse->body_room = 0;
	parse->path_len = parse->name_len = parse->value_len = parse->head = 0;
	parse->name[0] = parse->value[0] = 0;
	parse->headers = 0;
	parse->begun = parse->head_done = parse->complete = parse->expects = false;
}

static enum http_method http_parse_method(uint8_t method)
{
	switch (method) {
	case HTTP_GET:
		return HTTP_METHOD_GET;
	case HTTP_PUT:
		return HTTP_METHOD_PUT;
	case HTTP_PATCH:
		return HTTP_METHOD_PATCH;
	case HTTP_DELETE:
		return HTTP_METHOD_DELETE;
	default:
		return HTTP_METHOD_OTHER;
	}
}

static void http_parse_finish(struct http_parse *parse)
{
	parse->path[parse->path_len] = 0;
	parse->path[strcspn(parse->path, "?#")] = 0;
	parse->request = (struct http_request){
		.method = http_parse_method(llhttp_get_method(&parse->parser)),
		.method_name = llhttp_method_name(llhttp_get_method(&parse->parser)),
		.path = parse->path,
		.body = parse->body ?: "",
		.body_len = parse->body_len,
		.keep_alive = llhttp_should_keep_alive(&parse->parser),
	};
}

static int http_parse_wrong(struct http_parse *parse, struct err *err)
{
	const char *reason = llhttp_get_error_reason(&parse->parser);

	if (parse->code)
		return err_set(err, parse->code, "%s", parse->err.text);
	return err_set(err, -EPROTO, "Invalid request: %s.", reason && *reason ? reason : "not HTTP");
}

int http_parse_read(struct http_parse *parse, const char *data, size_t len, size_t *used, struct err *err)
{
	if (parse->complete)
		http_parse_begin(parse);
	for (*used = 0; *used < len && !parse->complete;) {
		size_t piece = parse->head_done ? len - *used : MIN(len - *used, HTTP_MAX_HEAD - parse->head);
		llhttp_errno_t result = piece ? llhttp_execute(&parse->parser, data + *used, piece) : HPE_OK;

		if (piece == 0)
			return err_set(err, -EMSGSIZE, "Invalid header. Reason: all of them are more than %u bytes.",
				       (unsigned int)HTTP_MAX_HEAD);
		if (result != HPE_OK && !parse->complete)
			return http_parse_wrong(parse, err);
		if (parse->complete)
			piece = (size_t)(llhttp_get_error_pos(&parse->parser) - (data + *used));
		parse->begun = true;
		parse->head += parse->head_done ? 0 : piece;
		*used += piece;
	}
	if (parse->complete)
		http_parse_finish(parse);
	return parse->complete;
}

const struct http_request *http_parse_request(const struct http_parse *parse)
{
	return &parse->request;
}

bool http_parse_begun(const struct http_parse *parse)
{
	return parse->begun && !parse->complete;
}

bool http_parse_take_expect(struct http_parse *parse)
{
	bool expects = parse->expects && parse->head_done && !parse->complete;

	parse->expects &= !expects;
	return expects;
}

int http_parse_create(size_t max_body, struct http_parse **ret, struct err *err)
{
	struct http_parse *parse = calloc(1, sizeof(*parse));

	if (!parse)
		return err_sys(err, -ENOMEM, "an HTTP client");
	parse->max_body = max_body;
	http_parse_begin(parse);
	*ret = parse;
	return 0;
}

void http_parse_destroy(struct http_parse *parse)
{
	if (!parse)
		return;
	free(parse->body);
	free(parse);
}
