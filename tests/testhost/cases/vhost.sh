#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What vhost-net writes into memory is told, on the real kernel and without a guest: while it runs, at rest, and after a
# move to another vhost. vhost-vsock halts while it is tracked what is written, and runs again.
# timeout: 120

# shellcheck source=tests/testhost/lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"

modprobe -a tun vhost_net vhost_vsock 2>/dev/null
ip tuntap add tap0 mode tap && ip link set tap0 up
"$tree/build-release/tests/testhost/vhost_probe" tap0 >"$work/out" 2>&1
is 'the probe ends well' $? 0
has 'while it runs no page is missed' "$work/out" '^while it runs: .* missed=0$'
has 'at rest no page is missed' "$work/out" '^at rest: .* missed=0$'
has 'by another vhost no page is missed' "$work/out" '^by another vhost: .* missed=0$'
has 'vsock halts and runs' "$work/out" '^vsock: fine$'
sed 's/^/    /' "$work/out"
