/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of the network device have in common: a backend of their own, a socket pair that keeps packets whole as
 * a tap does, and packets that tell their number.
 */
#pragma once

#include "devices/virtio/net_internal.h"
#include "tests/unit/test.h"
#include "tests/unit/virtio_driver.h"

#include <poll.h>
#include <sys/socket.h>

#define HDR ((uint32_t)NET_HDR_SIZE)
#define WAIT 2000 /* ms */
#define ALL DRIVER_ALL_FEATURES
#define NO_MERGE (~NET_BIT(VIRTIO_NET_F_MRG_RXBUF))

struct fake {
	struct net_backend base;
	int far[2]; /* the other ends */
	uint64_t offloads;
	bool on[2];
	bool broken;
	bool hold, held; /* send does not return; it is in there */
};

extern struct fake *fake;
extern struct virtio_driver *driver;
extern struct driver_queue *rx, *tx, *ctrl;
extern struct virtio_device *device;

int count_entries(const char *path);
/* For the driver that is there. */
void make_device_again(struct virtio_net_options options);
void make_device(struct virtio_net_options options);
void set_up(uint64_t features);
void tear_down(void);
/* Posts a buffer of the given segment lengths (0 ends them) filled with a pattern; its guest address. */
uint64_t post(struct driver_queue *queue, bool in, const uint32_t *lengths);
/* A packet of header and n bytes that tell its number and place. */
void make_packet(uint8_t *packet, uint32_t n, uint32_t number);
void send_from_guest(const uint32_t *lengths, uint32_t number);
ssize_t far_receive(int pair, void *buf, size_t size);
void expect_far(int pair, uint32_t n, uint32_t number);
void send_to_guest(uint32_t n, uint32_t number);
void expect_rx(uint64_t gpa, uint32_t n, uint32_t number, uint16_t buffers);
uint8_t control(uint8_t class, uint8_t cmd, const void *data, uint32_t size);
uint8_t pairs(uint16_t count);
void read_config(struct virtio_net_config *config);
