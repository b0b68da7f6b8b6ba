/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program's own terminal as a guest's port: raw while the guest has it, and given back as it was found when the
 * port is closed, when the program is stopped (SIGTSTP), and when it crashes. Ctrl-A is kept for the person:
 *
 *	Ctrl-A x        leave: the machine ends
 *	Ctrl-A h        show these keys
 *	Ctrl-A Ctrl-A   a Ctrl-A for the guest
 *
 * Any other key goes to the guest together with the Ctrl-A before it. Where stdin is no terminal, or this program is
 * in its background, the keys mean nothing and no mode changes.
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
/* Gives the terminal back. NULL is fine. */
void terminal_close(struct terminal *terminal);

/* What the guest's port reads from (-1: nothing) and writes to. They stay the terminal's. */
int terminal_in(const struct terminal *terminal);
int terminal_out(const struct terminal *terminal);
