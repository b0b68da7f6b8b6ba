/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of the control socket have in common: a server on a thread of its own, in front of the fake operations
 * or of an interface of the test's, and clients.
 */
#pragma once

#include "core/util.h"
#include "tests/unit/fake_operations.h"
#include "tests/unit/test.h"
#include "vmm/control/control.h"

#include <sys/un.h>

extern struct event_loop *loop;
extern struct control *control;
/* The server's abstract address. */
extern struct sockaddr_un address;
extern socklen_t address_len;

/* Starts the server with nothing asked for so far; interface NULL: that of a machine. */
void serve(const struct control_interface *interface);
void end(void);

/* A client's connection, which waits 5 s for what it receives. */
int client(void);
/* One message from the server, valid until the next; "" at the end, "?" when nothing came in time. */
const char *receive(int fd);
void put(int fd, const char *text);
/* Sends a request with that many copies of a descriptor, 100 at most. */
void put_fds(int fd, const char *text, int passed, unsigned int count);
/* Closes our copy of the pipe's writing end; whether every other one is closed: then its reading end tells so. */
bool nobody_has(int pipe_fds[2]);

#define ASK(fd, request, answer) \
	do { \
		put(fd, request); \
		CHECK_STR(receive(fd), answer); \
	} while (0)

#define FAILED(text) "{\"error\":\"io.mvmm.Machine.Failed\",\"parameters\":{\"text\":\"" text "\"}}"
#define BAD(name) "{\"error\":\"org.varlink.service.InvalidParameter\",\"parameters\":{\"parameter\":\"" name "\"}}"
