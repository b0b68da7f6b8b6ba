/* SPDX-License-Identifier: Apache-2.0 */
/* The output of the serial port, from the transmitter to a descriptor; see serial_output.c. Only serial.c calls it. */
#pragma once

#include "core/event_loop.h"
#include "core/log.h"
#include "core/token_bucket.h"

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
/* How many bytes are written in a time; and what is left of them. Any thread. */
void serial_output_set_limit(struct serial_output *output, const struct token_bucket_limit *limit);
void serial_output_save_limit(struct serial_output *output, struct token_bucket_fill *ret);
void serial_output_load_limit(struct serial_output *output, const struct token_bucket_fill *fill);
/* Writes what is buffered, whatever the limit, waiting up to 100 ms. */
void serial_output_flush(struct serial_output *output);
