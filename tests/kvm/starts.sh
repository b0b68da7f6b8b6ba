#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Starts tiny guests again and again with huge pages, while their number on the host goes up and down. Each ends as it should or
# is refused for want of pages; none ends by a signal or with a sanitizer's message. TAP on stdout.
# usage: starts.sh MVMM GUEST-DIRECTORY COUNT

count=$3
# shellcheck source=tests/kvm/lib.sh
. "$(dirname "$0")/lib.sh"

pages=/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages
reserved=$(cat $pages 2>/dev/null)
if ! { echo 20 >$pages; } 2>/dev/null; then
	echo '1..0 # SKIP the number of huge pages cannot be set here'
	exit 0
fi

# Gives and takes huge pages until it is ended.
take_pages()
{
	while echo 20 >$pages; do
		pause .05
		echo $((RANDOM % 20)) >$pages
		pause .03
	done
}

# start INDEX: one guest; every combination of image, number of vCPUs and prefault comes up
start()
{
	local guest=hello memory=32M,hugepages=2M
	[ $(($1 % 3)) != 0 ] || guest=smp
	[ $(($1 % 2)) != 0 ] || memory+=,prefault=on
	timeout -k 1 $((60 * patience)) "$mvmm" run --kernel "$guests/guest_$guest" --memory "$memory" --cpus $((1 + $1 % 4)) \
		>"$work/out" 2>"$work/err" </dev/null
}

take_pages &
taker=$!
started=0 refused=0 broken=0
for ((i = 0; i < count; i++)); do
	start "$i"
	status=$?
	if [ $status = 0 ]; then
		started=$((started + 1))
	elif [ $status = 2 ] && grep -q 'not enough huge pages' "$work/err"; then
		refused=$((refused + 1))
	else
		broken=$((broken + 1))
		echo "# start $i: exit status $status"
		sed 's/^/# /' "$work/err"
	fi
done
kill $taker
echo "$reserved" >$pages
echo "# $started started, $refused refused for want of huge pages, $broken broken"
check 'with huge pages come and gone, each start ends well or is refused' test $broken = 0
check '... and some of them start' test $started -gt 0
echo "1..$n"
