/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Machines that move, inside one process and without a network: a tiny guest runs, is followed by the dirty log, paused,
 * saved; a second machine is made of the first one's offer, gets its memory and its state, and the guest goes on there.
 */
#pragma once

#include "core/bitmap.h"
#include "tests/unit/test.h"
#include "vmm/machine/machine.h"
#include "vmm/machine/machine_offer.h"
#include "vmm/machine/tell_apart.h"

#include <jansson.h>

#define SECOND 1000000000ull

/* One machine with its serial port's two ends. */
struct side {
	struct machine_config config;
	struct machine *machine;
	int in[2], out[2]; /* pipes: what is typed, what is printed */
	struct event_source *source;
	char printed[4096];
	size_t len;
	const char *awaited;
	bool open;
};
extern struct event_loop *loop;
extern struct side *here, *there;        /* given back when the next case begins */
extern struct machine_identity identity; /* of here's machine, if a case keeps it */
extern struct err err;

/* A machine with this guest and these options is here. The guests are those of tests/guests. */
void prepare(const char *guest, const char *options);
/* Starts one and waits until the guest is ready. */
void boot(const char *guest, const char *options);
/* The second machine, as the first one's offer describes it; or its two halves, between which a case changes something. */
void make_there(void);
void open_side(struct side *side);
void make(struct side *side, const struct machine_offer *incoming);
void close_side(struct side *side);
/* After the last case. */
void end(void);

/* Runs the loop until the guest prints the text (NULL: until the machine ends), or for as long. */
bool wait_for(struct side *side, const char *text, uint64_t ns);
void pass_time(uint64_t ns);
void type(struct side *side, char c);
void forget_output(struct side *side);
/* What the guest found when it judged itself. */
void check_good(struct side *side);

void pause_side(struct side *side);
/* The caller frees it. */
struct state_buffer save(struct side *side);
/* Moves the guest: memory while it runs, then the rest. Leaves the first machine paused and the second one ready to start. */
void move(void);

/* How many bits are set for the first pages. */
size_t count_bits(const unsigned long *bitmap, size_t pages);
