/* SPDX-License-Identifier: Apache-2.0 */
/* The output of the serial port, from the transmitter to a descriptor; see serial_output.c. Only serial.c calls it. */
#pragma once

#include "core/event_loop.h"
#include "core/log.h"

struct serial_output;

int serial_output_create(struct event_loop *loop, const struct log *log, struct serial_output **ret, struct err *err);
/* Writes what is left as long as somebody reads it, see serial_destroy; logs what is lost. On the loop's thread. */
void serial_output_destroy(struct serial_output *output);
/* A byte from the guest. Any thread; never waits. */
void serial_output_put(struct serial_output *output, uint8_t byte);
/* Where output goes from now on (-1: nowhere); not owned. On the loop's thread, like the following. */
void serial_output_set_fd(struct serial_output *output, int fd);
/* -1 also after a write that failed. */
int serial_output_fd(const struct serial_output *output);
/* Writes what is buffered, waiting up to 100 ms. */
void serial_output_flush(struct serial_output *output);
