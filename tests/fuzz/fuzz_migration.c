/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a migration's receiver hears, as nonsense or nearly sound: a memory channel into a small guest memory between two
 * holes, a disk channel into two small files, the control channel and a device's as their readers use them, and addresses as
 * people write them. Every stream is cut in the end; its reader must come to an end too, with a sentence unless the stream was
 * sound, and touch nothing outside of the memory and the files.
 */
#include "tests/fuzz/fuzz.h"
#include "tests/unit/channel_pair.h"
#include "vmm/migration/address.h"
#include "vmm/migration/compress.h"
#include "vmm/migration/disk_receiver.h"
#include "vmm/migration/memory_receiver.h"

#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define PAGE 4096u
#define RAM MIB(3)
#define GPA (MIB(1) + 5 * PAGE) /* two chunks, each in part */
#define MAX_STREAM KIB(96)      /* fits a socket's buffer */

static uint8_t *ram;
static struct guest_memory *memory;
static struct compressor *compressor;
static struct disk_target disks[] = {{.id = "disk0", .size = KIB(192)}, {.id = "disk1", .size = KIB(64) + 512}};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	uint8_t *host = mmap(NULL, RAM + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct guest_region region;

	ram = host + PAGE;
	if (host == MAP_FAILED || mprotect(ram, RAM, PROT_READ | PROT_WRITE) < 0 || compressor_create(&compressor, NULL))
		abort();
	memory = guest_memory_create();
	region = (struct guest_region){.gpa = GPA, .size = RAM, .host = ram, .fd = -1};
	if (!memory || guest_memory_add(memory, &region, NULL))
		abort();
	for (size_t i = 0; i < ARRAY_SIZE(disks); i++) {
		disks[i].fd = memfd_create("disk", MFD_CLOEXEC);
		if (disks[i].fd < 0 || ftruncate(disks[i].fd, (off_t)disks[i].size) < 0)
			abort();
	}
	return 0;
}

struct stream {
	uint8_t bytes[MAX_STREAM];
	size_t len;
};

static void add(struct stream *stream, const void *data, size_t len)
{
	len = MIN(len, sizeof(stream->bytes) - stream->len);
	memcpy(stream->bytes + stream->len, data, len);
	stream->len += len;
}

static void add_frame(struct stream *stream, struct input *in, uint64_t type)
{
	static uint8_t pages[8 * PAGE], packed[8 * PAGE];
	uint64_t shape = take(in, 1), gpa = GPA + take(in, 2) % 1024 * PAGE - 64 * PAGE, count = 1 + shape % 8;
	struct wire_frame frame = {.type = (uint32_t)type, .a = gpa};
	const uint8_t *payload = pages;
	uint8_t header[WIRE_HEADER_SIZE];

	memset(pages, (int)take(in, 1), sizeof(pages));
	if (type == WIRE_PAGES) {
		frame.length = (uint32_t)(count * PAGE);
	} else if (type == WIRE_ZERO) {
		frame.b = count * PAGE;
	} else if (type == WIRE_ZSTD) {
		frame.b = count * PAGE;
		frame.length = (uint32_t)compressor_pack(compressor, pages, count * PAGE, packed, sizeof(packed));
		payload = packed;
		if (shape & 64)
			packed[take(in, 1) % frame.length] ^= (uint8_t)take(in, 1);
	} else if (type == WIRE_BLOCKS || type == WIRE_HOLE) {
		frame.a = take(in, 2) % 512 * WIRE_SECTOR;
		frame.length = type == WIRE_BLOCKS ? (uint32_t)(count * WIRE_SECTOR) : 0;
		frame.b = type == WIRE_HOLE ? take(in, 1) * WIRE_SECTOR : 0;
	} else {
		frame.length = type < WIRE_SELECT || shape & 32 ? (uint32_t)take(in, 2) : 0;
		frame.a = take(in, shape & 8 ? 8 : 1);
		frame.b = take(in, shape & 16 ? 8 : 1);
	}
	if (shape & 128)
		frame.length = (uint32_t)take(in, 4);
	wire_put_header(header, &frame);
	add(stream, header, sizeof(header));
	add(stream, payload, MIN(frame.length, sizeof(pages)));
}

static void make_stream(struct stream *stream, struct input *in, enum wire_kind kind)
{
	static const uint8_t types[WIRE_KINDS][8] = {
		{WIRE_OFFER, WIRE_STOPPED, WIRE_STATE, WIRE_END, WIRE_GO, WIRE_ABORT, WIRE_PROGRESS, WIRE_OFFER},
		{WIRE_PAGES, WIRE_ZERO, WIRE_ZSTD, WIRE_PAGES, WIRE_ZERO, WIRE_ZSTD, WIRE_END, WIRE_HELLO},
		{WIRE_DATA, WIRE_DATA, WIRE_INITIAL, WIRE_END, WIRE_DATA, WIRE_DATA, WIRE_ACK, WIRE_HELLO},
		{WIRE_SELECT, WIRE_BLOCKS, WIRE_HOLE, WIRE_BLOCKS, WIRE_FLUSH, WIRE_END, WIRE_SELECT, WIRE_HOLE},
	};

	stream->len = 0;
	while (in->left && stream->len < sizeof(stream->bytes)) {
		uint64_t what = take(in, 1);

		if (what < 240) {
			add_frame(stream, in, what < 224 ? types[kind][what % 8] : take(in, 1));
			continue;
		}
		what = MIN(in->left, what);
		add(stream, in->data, what);
		in->data += what;
		in->left -= what;
	}
}

/* Connects two ends, says the stream into one and hangs up. */
static struct channel *hear(const struct stream *stream, enum wire_kind kind)
{
	int fds[2], room = 4 * MAX_STREAM;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		abort();
	setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	if (send(fds[0], stream->bytes, stream->len, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && stream->len)
		abort();
	close(fds[0]);
	return channel_end(fds[1], WIRE_TARGET, kind, 0, 1, 5000);
}

static void hear_memory(const struct stream *stream)
{
	struct channel *channel = hear(stream, WIRE_MEMORY);
	const struct memory_receiver_options options = {.memory = memory, .channels = &channel, .channel_count = 1};
	struct memory_receiver *receiver;
	struct err err = {""};
	int code;

	madvise(ram, RAM, MADV_DONTNEED);
	if (memory_receiver_create(&options, &receiver, NULL))
		abort();
	code = memory_receiver_wait(receiver, -1, &err);
	if (code > 0 || (code && !err.text[0]) || code == -ETIMEDOUT)
		abort();
	memory_receiver_destroy(receiver);
	channel_destroy(channel);
}

static void hear_disks(const struct stream *stream)
{
	struct channel *channel = hear(stream, WIRE_DISK);
	struct disk_receiver *receiver;
	struct err err = {""};
	int code;

	if (disk_receiver_create(disks, ARRAY_SIZE(disks), &channel, &receiver, NULL))
		abort();
	code = disk_receiver_wait(receiver, &err);
	if (code > 0 || (code && !err.text[0]) || code == -ETIMEDOUT)
		abort();
	disk_receiver_destroy(receiver);
	for (size_t i = 0; i < ARRAY_SIZE(disks); i++) {
		struct stat stat;

		if (fstat(disks[i].fd, &stat) < 0 || (uint64_t)stat.st_size != disks[i].size)
			abort();
	}
}

static void hear_frames(const struct stream *stream, enum wire_kind kind)
{
	struct channel *channel = hear(stream, kind);
	struct err err = {""};
	int code = 0;

	while (!code) {
		struct wire_frame frame;
		char *payload = NULL;

		code = channel_receive(channel, &frame, &err);
		if (!code && frame.type == WIRE_ABORT)
			code = channel_words(channel, &frame, &err);
		code = code ?: channel_payload_all(channel, &payload, &err);
		free(payload);
	}
	if (code > 0 || !err.text[0] || code == -ETIMEDOUT)
		abort();
	channel_last_words(channel, code, &err);
	channel_destroy(channel);
}

static void read_address(struct input *in)
{
	_cleanup_(free_ptr) char *text = strndup((const char *)in->data, in->left);
	struct address address;
	struct err err = {""};

	if (!text)
		abort();
	for (int listening = 0; listening < 2; listening++) {
		if (address_parse(text, listening, &address, &err) == 0)
			address_is_local(&address);
		else if (!err.text[0])
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct stream stream;
	struct input in = {data, size};
	unsigned int what = (unsigned int)take(&in, 1);
	enum wire_kind kind;

	if (what % 8 == 7) {
		read_address(&in);
		return 0;
	}
	kind = what % 8 < 3 ? WIRE_MEMORY : what % 8 < 5 ? WIRE_DISK : what % 8 == 5 ? WIRE_CONTROL : WIRE_DEVICE;
	make_stream(&stream, &in, kind);
	if (kind == WIRE_MEMORY)
		hear_memory(&stream);
	else if (kind == WIRE_DISK)
		hear_disks(&stream);
	else
		hear_frames(&stream, kind);
	return 0;
}
