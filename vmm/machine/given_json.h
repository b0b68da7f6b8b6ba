/* SPDX-License-Identifier: Apache-2.0 */
/* A host device that a command has opened (vfio/given.h), as parameters of the method AddDevice: device and files. */
#pragma once

#include "vfio/given.h"

#include <jansson.h>

/* Sets them in an object; the descriptors are passed beside it, in their order. */
void given_json_write(const struct vfio_given *given, json_t *parameters);
/*
 * NULL, or the name of an invalid parameter. Takes the descriptors (-1): they are closed if it fails. Without any, *ret has
 * none, and nothing else is read.
 */
const char *given_json_read(const json_t *parameters, int *fds, size_t count, struct vfio_given *ret);
