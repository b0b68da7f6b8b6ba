/* SPDX-License-Identifier: Apache-2.0 */
/* Two ends of a migration's channel, greeted, without dialer and acceptor: for tests, fuzzers and measurements. */
#pragma once

#include "vmm/migration/channel.h"

/* Takes fd. */
static inline struct channel *channel_end(int fd, enum wire_side side, enum wire_kind kind, uint32_t index, uint32_t count,
					  unsigned int silence_ms)
{
	const struct channel_options options = {.side = side, .kind = kind, .index = index, .count = count, .cancel_fd = -1,
						.silence_ms = silence_ms};
	const struct wire_frame hello = wire_hello_frame();
	struct channel *channel;

	if (channel_create(&options, &fd, &channel, NULL) || channel_step(channel, WIRE_SOURCE, &hello, NULL) ||
	    channel_step(channel, WIRE_TARGET, &hello, NULL))
		abort();
	channel_agree(channel, WIRE_VERSION);
	return channel;
}
