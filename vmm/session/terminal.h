/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program's terminal as a guest's port. It is in raw mode while the guest uses it; its mode is restored when the
 * port is closed, when the program is stopped (SIGTSTP), and when it crashes. Ctrl-A is reserved:
 *
 *	Ctrl-A x        the machine ends
 *	Ctrl-A h        show these keys
 *	Ctrl-A Ctrl-A   a Ctrl-A for the guest
 *
 * Before any other key, Ctrl-A goes to the guest together with the key. If stdin is no terminal, or the program runs in
 * the background, the keys have no effect and no mode changes.
 */
#pragma once

#include "core/event_loop.h"

struct terminal;

/*
 * Takes stdin and stdout; there is at most one terminal at a time. leave is called on the loop's thread for Ctrl-A x,
 * and when the terminal hangs up.
 */
int terminal_open(struct event_loop *loop, void (*leave)(void *opaque), void *opaque, struct terminal **ret,
		  struct err *err);
/* Restores the terminal. NULL is fine. */
void terminal_close(struct terminal *terminal);

/* The descriptors for the guest's port: input (-1: none) and output. Owned by the terminal. */
int terminal_in(const struct terminal *terminal);
int terminal_out(const struct terminal *terminal);
