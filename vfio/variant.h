/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which VFIO driver the kernel has for a PCI function. Beside vfio-pci, which takes any, there are drivers for some
 * devices (mlx5_vfio_pci, hisi_acc_vfio_pci, nvgrace_gpu_vfio_pci, ...), for example to migrate them. A kernel's
 * modules name what they are for by aliases that begin with "vfio_pci:" and else look like the function's own modalias.
 * Keeps no state; called by vfio/binding.c and by mvmm vfio bind.
 */
#pragma once

#include "core/err.h"
#include "iommu/vfio_sys.h"

#define VFIO_DRIVER_NAME 64

/* The module whose alias matches the function with the fewest wildcards; "vfio_pci" if none does. -EIO, -ENOMEM, ... */
int vfio_variant_find(const struct vfio_sys *sys, const char *name, char module[VFIO_DRIVER_NAME], struct err *err);

/* Whether a module and a driver, or two spellings of one, have the same name: '-' and '_' are the same letter. */
bool vfio_variant_is_same(const char *a, const char *b);
