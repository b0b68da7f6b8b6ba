/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of vsock have in common: the device with the test as its guest and as the host's programs. Its socket
 * is in a folder of its own, which must be empty in the end.
 */
#pragma once

#include "devices/virtio/vsock_internal.h"
#include "tests/unit/test.h"
#include "tests/unit/virtio_driver.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#define CID 5u /* guest_cid, unless a test changes it */
#define WAIT 3000 /* ms */
#define HDR ((uint32_t)VSOCK_HDR)
#define RX_SIZE (HDR + 4096)

typedef struct virtio_vsock_hdr packet_hdr;

extern struct virtio_driver *driver;
extern struct virtio_device *device;
extern struct event_loop *loop;
extern struct driver_queue *rx, *tx;
extern char dir[64], path[96];

/* Of the device that create makes, and in the packets. */
extern uint32_t guest_cid;
/* The guest's credit, as it tells it. */
extern uint32_t guest_buffer, guest_taken;

int count_entries(const char *of);
void tear_down(void);
void make_dir(void);
int create(struct err *err);
void post(unsigned int count, uint32_t size);
void set_up(unsigned int buffers);

/* ---- the host's programs ---- */

int host_connect(void);
int host_listen(uint32_t port);
void host_unlisten(int fd, uint32_t port);
/* What comes within the time, up to size bytes; 0 at the end of the stream, -1 when nothing comes. */
ssize_t host_read(int fd, void *buf, size_t size);
void host_expect(int fd, const char *text);
void host_expect_end(int fd);
void host_write(int fd, const char *text);

/* ---- the guest ---- */

void guest_send(uint16_t op, uint32_t guest_port, uint32_t host_port, uint32_t flags, const void *data,
		       uint32_t len);
/* The next packet; its data, if any, stay in guest memory. */
packet_hdr guest_get(const void **data);
packet_hdr guest_expect(uint16_t op, uint32_t guest_port, uint32_t host_port);
/* The host's program has closed its socket: the end of what it sent may be found before that nobody reads there. */
void guest_expect_closed(uint32_t guest_port, uint32_t host_port);
void guest_expect_data(uint32_t guest_port, const char *text);
void guest_expect_silence(void);
/* A connection opened by the host to the guest's port 1234. */
int open_from_host(uint32_t *host_port);
/* A connection opened by the guest's port to port 80 of the host. */
int open_from_guest(uint32_t guest_port);
