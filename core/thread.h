/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads of this process: their kinds, signals and names.
 *
 * A thread starts with a kind, which says what it does and so which system calls it needs. A table of filters, handed in
 * by who puts the program together, confines it by its kind as its first act; without a table nothing is confined. As
 * its signal mask, a thread has the table of the one that starts it, so that there is no global one.
 */
#pragma once

#include <pthread.h>
#include <signal.h>

#include "core/util.h"

enum thread_kind {
	THREAD_MAIN,      /* the event loop: signals, control socket, ports, slow devices */
	THREAD_VCPU,      /* KVM_RUN and the devices' registers */
	THREAD_DISK,      /* a queue of a disk */
	THREAD_NET,       /* a pair of queues of a network card */
	THREAD_LOOP,      /* an event loop of one device: a network card's control queue */
	THREAD_MEMORY,    /* touches, copies, reads ahead or watches guest memory */
	THREAD_CPU_MODEL, /* computes what the vCPUs show */
	THREAD_DEVICE,    /* opens or closes a host device while the guest runs */
	THREAD_MIGRATION, /* moves the machine to or from another host */
	THREAD_SNAPSHOT,  /* writes or reads the files of a snapshot */
	THREAD_STARTER,   /* starts threads and opens files for the others (core/starter.h) */
	/* Processes of their own. */
	THREAD_STAGE,     /* parses what a stranger has written (vmm/jail/stage.h) */
	THREAD_TLS,       /* mvmm-tls, which has read its certificates */
	THREAD_RESOLVE,   /* mvmm-resolve, which asks name services */
	THREAD_KINDS
};

/* The confinement of threads. The table outlives them. */
struct thread_filters {
	/* On the thread, before anything else. It cannot fail: a thread that is not confined must not run. */
	void (*enter)(void *opaque, enum thread_kind kind);
	/*
	 * For a confined thread: runs fn on one of THREAD_STARTER and waits for it. Returns its result, or -errno. swift:
	 * fn does not wait for anything. NULL: confined threads still make such calls themselves.
	 */
	int (*call)(void *opaque, int (*fn)(void *argument), void *argument, bool swift);
	/* For a thread that runs a guest: as thread_settle. NULL: the others are confined. */
	bool (*settle)(void *opaque);
	void *opaque;
};

/* The calling thread's table, for all threads that it, and those in their turn, start from now on; NULL: none. */
void thread_set_filters(const struct thread_filters *filters);
/* In the same way, who starts helper programs for the thread (helpers.h); NULL: nobody else. */
struct helpers;
void thread_set_helpers(struct helpers *helpers);
struct helpers *thread_helpers(void);

/* The calling thread becomes one of this kind, and is confined if there is a table. */
void thread_enter(enum thread_kind kind);
/* Whether it is, and thread_call asks another one. */
bool thread_is_confined(void);
/*
 * Runs fn(argument), which makes system calls that confined threads do without, such as openat(2): on a thread that may,
 * if the calling one is confined. Returns its result, or -errno.
 */
int thread_call(int (*fn)(void *argument), void *argument);
/*
 * Before the calling thread looks at what a guest has written for the first time: waits until all threads that could see it
 * are confined. False: they will not be, and the process ends.
 */
bool thread_settle(void);

/*
 * The signals that all threads but the main one block: all but those that a thread's own faults raise, so that a crash
 * on it still restores the terminal.
 */
void thread_signals(sigset_t *set);

/* Starts fn(opaque) on a thread that blocks thread_signals(). Its name is cut after 15 characters. -errno. */
#define thread_start(thread, kind, fn, opaque, ...) thread_start_kicked(thread, kind, 0, fn, opaque, __VA_ARGS__)

/* The same, and from its first instruction on the thread takes this signal; 0: none. */
int thread_start_kicked(pthread_t *thread, enum thread_kind kind, int signal, void *(*fn)(void *opaque), void *opaque,
			const char *name, ...) _printf_(6, 7);
