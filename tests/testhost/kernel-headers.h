/* SPDX-License-Identifier: GPL-2.0 */
/* What most files of the test host's kernel include, compiled once: see kernel-cc. The first three are forced upon each file. */
#include <linux/compiler-version.h>
#include <linux/kconfig.h>
#include <linux/compiler_types.h>

#include <linux/module.h>
#include <linux/slab.h>
#include <linux/mm.h>
#include <linux/fs.h>
#include <linux/sched.h>
#include <linux/interrupt.h>
#include <linux/pci.h>
#include <linux/uaccess.h>
#include <linux/debugfs.h>
#include <linux/seq_file.h>
#include <linux/netdevice.h>
#include <linux/syscalls.h>

#undef pr_fmt
#undef dev_fmt
