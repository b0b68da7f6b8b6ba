/* SPDX-License-Identifier: Apache-2.0 */
/* What an architecture adds to a new VM (kvm_x86.c). Only kvm.c calls it. */
#pragma once

#include "core/err.h"

/* The architecture's part of kvm_create_vm, before any slot. */
int kvm_arch_setup(int vm_fd, struct err *err);
