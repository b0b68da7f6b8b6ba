#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# In the guest: says when the passed-through NVMe is there, then reads from it.
until [ -b /dev/nvme0n1 ]; do
	sleep 0.1
done
echo "@@ begin 1"
reads /dev/nvme0n1 5
