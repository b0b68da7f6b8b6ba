/* SPDX-License-Identifier: Apache-2.0 */
/* The architecture's part of a new VM (kvm_x86.c). Only kvm.c calls it. */
#pragma once

#include "core/err.h"

/* Called by kvm_create_vm, before any slot is added. */
int kvm_arch_setup(int vm_fd, struct err *err);
