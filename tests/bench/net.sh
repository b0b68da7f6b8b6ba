#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# In the guest: iperf3 to the host at the other end of the tap; one line "@@ net MBIT".

ip link set eth0 up
ip addr add 10.99.0.2/24 dev eth0
# The link may need a moment.
for try in 1 2 3 4 5; do
	ping -c 1 -W 1 10.99.0.1 >/dev/null && break
done
iperf3 -c 10.99.0.1 -t 5 -O 1 -f m | awk '/sender/ { print "@@ net", $7 } /error/ { print > "/dev/stderr" }'
