#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The one list of Debian packages mvmm needs, and how they are had. Works on Debian 12 and 13.
#
#   tests/packages.sh install PURPOSE...       install what is missing from the machine's own suites
#   tests/packages.sh fetch PATTERN SUITE...   unpack a package of any suite under the cache, print the folder
#   tests/packages.sh qemu                     print the path of a QEMU that is new enough
#
# PURPOSE is one of: build test fuzz testhost bench quickstart.
# `fetch` and `qemu` have an apt state of their own under the cache: nothing is installed, no suite
# is added to the machine. The mirror is the one the machine's own apt uses, and what comes from it
# is verified by the machine's debian-archive-keyring.
# Other scripts source this file and call packages_install, packages_fetch and packages_qemu.

set -u -o pipefail

# -- what is needed, by purpose

packages_for()
{
	case $1 in
	build) echo meson ninja-build gcc libc6-dev pkg-config acpica-tools liburing-dev libjansson-dev libfdt-dev libzstd-dev libxxhash-dev libgnutls28-dev "$(packages_llhttp)" ;;
	test) echo iproute2 openssl python3 xfsprogs ;;
	fuzz) echo clang libclang-rt-dev llvm ;;
	guest) echo busybox-static cpio kmod xz-utils lz4 zstd e2fsprogs ;;
	# the kernel is built from source; the rest is what the cases in it use
	testhost)
		echo make gcc libc6-dev flex bison bc libelf-dev libssl-dev xz-utils kmod rsync
		echo iproute2 iputils-ping procps passt fio iperf3 socat python3 systemd passwd
		;;
	bench) echo fio iperf3 iproute2 python3 ;;
	quickstart) echo passt ;;
	*) return 1 ;;
	esac
}

# Debian 12 has its source, later ones its library.
packages_llhttp()
{
	[ "$(packages_codename)" = bookworm ] && echo node-llhttp || echo libllhttp-dev
}

# Purposes that bring others with them.
packages_expand()
{
	case $1 in
	test) echo build guest test ;;
	fuzz) echo build fuzz ;;
	testhost) echo build guest testhost ;;
	bench) echo build guest testhost bench ;;
	quickstart) echo build guest quickstart ;;
	*) echo "$1" ;;
	esac
}

# -- versions wanted, as extended regular expressions on package names, best first

# The test host's kernel: 7.2 has what the tests of VFIO and iommufd rely on.
# Backports move on, hence the wider patterns; 6.12 stays in Debian 13 for its life.
LINUX_SOURCE=('linux-source-7\.2' 'linux-source-7\.[0-9]+' 'linux-source-6\.12')
LINUX_SOURCE_SUITES=(trixie-backports trixie)
# Before 11 an emulated processor that leaves a guest may lose an interrupt (its list of what is pending is changed by two
# threads at once), and a host that waits for its timer waits for ever.
QEMU_MAJOR=11
QEMU_SUITES=(trixie trixie-backports)

# -- common to the scripts under tests/

MVMM_CACHE=${MVMM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mvmm}

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die()
{
	say "$*"
	exit 1
}

# as_root COMMAND...: directly when root, else by sudo.
as_root()
{
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		die "need root for '$*': run as root or install sudo"
	fi
}

# -- from the machine's own suites

# packages_install PURPOSE...: install what is missing; quick when nothing is.
packages_install()
{
	local purpose part missing=() wanted=()
	for purpose; do
		for part in $(packages_expand "$purpose"); do
			# shellcheck disable=SC2207 # package names have no blanks
			wanted+=($(packages_for "$part")) || die "unknown purpose '$part'"
		done
	done
	# shellcheck disable=SC2016 # dpkg-query's own syntax
	mapfile -t missing < <(printf '%s\n' "${wanted[@]}" | sort -u | comm -23 - <(
		dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${wanted[@]}" 2>/dev/null |
			sed -n 's/^installed //p' | sort -u
	))
	[ "${#missing[@]}" -eq 0 ] || packages_add "${missing[@]}"
}

# packages_add NAME...: by apt-get, which is heard only when it fails
packages_add()
{
	local log
	say "installing $*"
	log=$(mktemp)
	# Lists that are there are tried first; an update is made only when they do not suffice.
	if ! { packages_apt_install "$@" || { as_root apt-get -qq update && packages_apt_install "$@"; }; } >"$log" 2>&1; then
		cat "$log" >&2
		rm -f "$log"
		die "could not install $*: see apt's message above"
	fi
	rm -f "$log"
}

packages_apt_install()
{
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends \
		-o DPkg::Lock::Timeout=600 install "$@"
}

# -- from any suite, by a private apt state

packages_codename()
{
	# shellcheck disable=SC1091 # of the machine
	(. /etc/os-release && echo "${VERSION_CODENAME:?}")
}

# The mirror that the machine's apt uses for its own release.
packages_mirror()
{
	# shellcheck disable=SC2016 # apt's own syntax
	apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
		awk -v release="$(packages_codename)" '$1 == release { print $2; exit }'
}

# packages_state SUITE...: prepare the private state for these suites, lists not older than a day;
# sets the array APT to the options that make apt use it.
packages_state()
{
	local state=$MVMM_CACHE/apt keyring=/usr/share/keyrings/debian-archive-keyring.gpg suite mirror log
	local name=$*
	name=$state/${name// /+}
	[ -r "$keyring" ] || die "no $keyring: apt-get install debian-archive-keyring"
	mkdir -p "$state/lists/partial" "$state/cache/archives/partial" "$state/none"
	APT=(-o "Dir::State=$state" -o "Dir::State::lists=$state/lists" -o "Dir::Cache=$state/cache"
		-o "Dir::Etc::sourcelist=$name.list" -o Dir::Etc::sourceparts=- -o "Dir::Etc::preferencesparts=$state/none"
		-o Dir::State::status=/var/lib/dpkg/status -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
		-o APT::Get::List-Cleanup=false -o Acquire::Languages=none -o APT::Sandbox::User=root)
	if [ -n "$(find "$name.list" -mmin -1440 2>/dev/null)" ]; then
		return
	fi
	mirror=$(packages_mirror)
	[ -n "$mirror" ] || die "apt has no source for $(packages_codename): add Debian's to /etc/apt/sources.list.d"
	for suite; do
		echo "deb [signed-by=$keyring] $mirror $suite main"
	done >"$name.list.new"
	mv "$name.list.new" "$name.list"
	log=$name.log
	# Error-Mode any: a suite that fails is an error, not a warning.
	if ! apt-get "${APT[@]}" -o APT::Update::Error-Mode=any -qq update >"$log" 2>&1; then
		rm -f "$name.list"
		cat "$log" >&2
		if grep -qE "NO_PUBKEY|Missing key" "$log"; then
			die "this machine's keyring does not know $*: apt-get install debian-archive-keyring"
		fi
		die "cannot read $* from $mirror: see apt's message above"
	fi
}

# packages_fetch PATTERN SUITE...: unpack the newest package whose name matches, of the first suite
# that has one; print the folder. What was once fetched is kept until the cache is deleted.
packages_fetch()
{
	local pattern=$1 suite name version folder link
	shift
	link=$MVMM_CACHE/deb/$(printf %s "$pattern" | tr -c 'A-Za-z0-9.-' _)
	mkdir -p "$MVMM_CACHE/deb"
	exec {packages_lock}>"$MVMM_CACHE/deb/.lock"
	flock "$packages_lock"
	for suite; do
		[ -e "$link" ] && break
		packages_state "$suite"
		name=$(apt-cache "${APT[@]}" pkgnames | grep -xE "$pattern" | sort -V | tail -n 1)
		[ -n "$name" ] || continue
		version=$(apt-cache "${APT[@]}" madison "$name" | awk 'NR == 1 { print $3 }')
		folder=$MVMM_CACHE/deb/${name}_${version//[:~]/_}
		say "taking $name $version from $suite"
		rm -rf "$folder" "$folder.new"
		mkdir -p "$folder.new"
		(cd "$folder.new" && apt-get "${APT[@]}" -qq download "$name=$version" >&2 &&
			dpkg-deb -x ./*.deb . && rm ./*.deb) || die "could not download $name $version from $suite"
		mv "$folder.new" "$folder"
		ln -sfn "${folder##*/}" "$link"
	done
	exec {packages_lock}>&-
	[ -e "$link" ] || return 1
	readlink -f "$link"
}

# packages_linux_source: the folder of the best kernel source that is to be had.
packages_linux_source()
{
	local pattern folder
	for pattern in "${LINUX_SOURCE[@]}"; do
		if folder=$(packages_fetch "$pattern" "${LINUX_SOURCE_SUITES[@]}"); then
			echo "$folder"
			return
		fi
		say "no ${pattern//\\/} in ${LINUX_SOURCE_SUITES[*]}, trying the next"
	done
	die "no kernel source: name one that exists in LINUX_SOURCE of tests/packages.sh"
}

# packages_qemu: the path of a QEMU new enough: the machine's own, or that of QEMU_SUITES, unpacked behind a wrapper with
# every library it needs, the C library too, so that the machine may be older.
packages_qemu()
{
	local folder=$MVMM_CACHE/qemu-$QEMU_MAJOR program
	program=$(command -v qemu-system-x86_64)
	if [ -n "$program" ] && packages_qemu_fits "$program"; then
		echo "$program"
		return
	fi
	program=$folder/qemu-system-x86_64
	mkdir -p "$MVMM_CACHE"
	exec {packages_lock}>"$MVMM_CACHE/.qemu.lock"
	flock "$packages_lock"
	packages_qemu_fits "$program" || packages_qemu_unpack "$folder" || exit 1
	exec {packages_lock}>&-
	packages_qemu_fits "$program" || die "$program does not run, or is older than $QEMU_MAJOR"
	echo "$program"
}

packages_qemu_fits()
{
	[ -x "$1" ] && [ "$("$1" --version 2>/dev/null | sed -n 's/^QEMU emulator version \([0-9]*\).*/\1/p')" -ge "$QEMU_MAJOR" ] 2>/dev/null
}

packages_qemu_unpack()
{
	local folder=$1 suite=${QEMU_SUITES[-1]} log deb libraries=$1/usr/lib/x86_64-linux-gnu
	say "taking QEMU from $suite"
	packages_state "${QEMU_SUITES[@]}"
	rm -rf "$folder" "$folder.new"
	mkdir -p "$folder.new/archives/partial"
	# as on a machine where nothing is installed
	: >"$folder.new/archives/status"
	log=$(mktemp)
	if ! apt-get "${APT[@]}" -o "Dir::Cache::archives=$folder.new/archives" -o Debug::NoLocking=1 \
		-o "Dir::State::status=$folder.new/archives/status" -qq -y --no-install-recommends --download-only \
		-t "$suite" install qemu-system-x86 >"$log" 2>&1; then
		cat "$log" >&2
		rm -f "$log"
		die "could not download QEMU from $suite: see apt's message above"
	fi
	rm -f "$log"
	for deb in "$folder.new"/archives/*.deb; do
		dpkg-deb -x "$deb" "$folder.new" || die "could not unpack $deb"
	done
	rm -rf "$folder.new/archives"
	cat >"$folder.new/qemu-system-x86_64" <<-END
		#!/bin/sh
		# QEMU unpacked, not installed: its libraries, their loader, modules and firmware are beside it.
		export QEMU_MODULE_DIR=$libraries/qemu
		exec $libraries/ld-linux-x86-64.so.2 --library-path $libraries --argv0 qemu-system-x86_64 \\
			$folder/usr/bin/qemu-system-x86_64 -L $folder/usr/share/qemu -L $folder/usr/share/seabios \\
			-L $folder/usr/lib/ipxe/qemu "\$@"
	END
	chmod +x "$folder.new/qemu-system-x86_64"
	mv "$folder.new" "$folder"
}

# -- as a command

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
	command=${1-}
	shift
	case $command in
	install) packages_install "$@" ;;
	fetch) packages_fetch "$@" || die "no package matches '$1' in ${*:2}" ;;
	qemu) packages_qemu ;;
	*)
		sed -n '3,/^$/s/^# \{0,1\}//p' "$0" >&2
		exit 2
		;;
	esac
fi
