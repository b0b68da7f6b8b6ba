#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# House rules that a machine can check: a file includes from its own room or from below; no two files need each other, not even
# by way of others; nothing below vmm/ ends the process, prints to stdout or keeps a writable global; every source opens with its
# licence and says what it is; a static function carries its file's name; the documents name only files that are there.
# TAP on stdout. usage: house.sh SOURCE-ROOT plain|sanitized [PROGRAM-OR-LIBRARY...], whose objects are in a folder beside each.
set -u
root=$1 build=$2
shift 2
mapfile -t binaries < <(realpath -s -- "$@")
cd "$root" || exit 1
# shellcheck source=tests/unit/tap.sh
. tests/unit/tap.sh

floors='core|iommu|devices|boot|vfio|vmm'
# shellcheck disable=SC2086 # words
read -ra floor_folders <<<"${floors//|/ }"
sources() { find "${floor_folders[@]}" "$@" -name '*.[chS]'; }

# The rooms from the ground up, a line each; devices/ and boot/ stand beside each other and do not know each other.
declare -A storey
storeys='core|iommu|devices boot|vfio|vmm/config|vmm/jail|vmm/kvm|vmm/migration|vmm/machine|vmm/snapshot|vmm/control|vmm/api|vmm/session|vmm/cli'
level=0
while read -ra rooms; do
	level=$((level + 1))
	for room in "${rooms[@]}"; do storey[$room]=$level; done
done <<<"${storeys//|/$'\n'}"

# room_of FILE: sets room
room_of() {
	room=${1%%/*}
	[ "$room" != vmm ] || { room=${1#vmm/} && room=vmm/${room%%/*}; }
}

upward() {
	local file line text from to room
	while IFS=: read -r file line text; do
		room_of "$file"
		from=$room
		text=${text#*\"}
		room_of "${text%\"*}"
		to=$room
		if [ -z "${storey[$from]-}" ] || [ -z "${storey[$to]-}" ]; then
			echo "$file:$line: $text: $from or $to is no room"
		elif [ "${storey[$to]}" -gt "${storey[$from]}" ] || { [ "${storey[$to]}" = "${storey[$from]}" ] && [ "$to" != "$from" ]; }; then
			echo "$file:$line: $text"
		fi
	done < <(grep -rnE "^#include \"($floors)/" --include='*.[ch]' "${floor_folders[@]}")
	grep -rnE '^#include "' --include='*.[ch]' "${floor_folders[@]}" | grep -vE "#include \"($floors)/|dsdt|seccomp_filters"
}
report 'includes stay in their room or go down' "$(upward)"
report 'every file of vmm/ is in a room' "$(find vmm -maxdepth 1 -name '*.[chS]')"

# needs PROGRAM-OR-LIBRARY...: a line `A B` where file A includes of B, or uses what B defines. FILE.c, FILE.h and FILE_x86.c are one.
needs() {
	local binary
	grep -rE "^#include \"($floors)/" --include='*.[ch]' "${floor_folders[@]}" | sed -E 's/\.[ch]:#include "/ /; s/\.[ch]".*//'
	for binary; do
		(cd "$binary.p" && nm -A -- *.o) |
			sed -nE "s/^([a-z0-9_]+)\.c\.o: *([0-9a-f]+)? ([A-Z]) (.*)/$(basename "$(dirname "$binary")") \1 \3 \4/p"
	done | awk -v list="$(sources | tr '\n' ' ')" '
		BEGIN {
			count = split(list, files)
			for (i = 1; i <= count; i++)
				if (files[i] ~ /\.c$/) {
					unit = flat = substr(files[i], 1, length(files[i]) - 2)
					folder = flat
					sub(/\/.*/, "", folder)
					sub(/[^\/]*\//, "", flat)
					gsub(/\//, "_", flat)
					units[folder " " flat] = unit
				}
		}
		!(($1 " " $2) in units) { next } # an object whose source is gone
		$3 == "U" { wanted[units[$1 " " $2] " " $4]; next }
		{ owner[$4] = units[$1 " " $2] }
		END {
			for (want in wanted) {
				split(want, pair)
				if (pair[2] in owner && owner[pair[2]] != pair[1])
					print pair[1], owner[pair[2]]
			}
		}'
}
report 'no two files need each other' "$(needs "${binaries[@]}" | sed -E 's/_(x86|arm64)\b//g' | awk '$1 != $2' | sort -u | tsort 2>&1 >/dev/null)"

# A file is a module, and its name begins those of its functions: x_arm64.c is of module x, vfio/x.c of module vfio_x.
strangers() {
	local file
	for file in $(sources | grep '\.c$'); do
		awk -v file="$file" '
			BEGIN {
				stem = file
				sub(/.*\//, "", stem)
				sub(/(_x86|_arm64)?\.c$/, "", stem)
				sub(/^container_/, "", stem)
				parts = split(file, folder, "/")
			}
			/^static / && match($0, /[a-z_0-9]+\(/) && !/^[^(]*=/ {
				name = substr($0, RSTART, RLENGTH - 1)
				if (name !~ "^__" && index(name, stem) != 1 && index(name, folder[1] "_" stem) != 1 &&
				    index(name, folder[parts - 1] "_" stem) != 1)
					print file ":" FNR ": " name
			}' "$file"
	done
}
report "a static function carries its file's name" "$(strangers)"

unlicensed() {
	local file
	for file in $(sources tests); do
		head -n 1 "$file" | grep -q 'SPDX-License-Identifier: ' || echo "$file: no licence line"
		sed -n 2p "$file" | grep -q '^/\*' || echo "$file: does not say what it is"
	done
}
report 'every source opens with its licence and what it is' "$(unlicensed)"
report 'no file is over 700 lines' "$(sources | xargs wc -l | awk '$2 != "total" && $1 > 700')"
report 'no architecture behind an #ifdef' "$(grep -rnE '^#if.*(x86_64|aarch64|__arm)' --include='*.[ch]' "${floor_folders[@]}")"
missing_paths() {
	local word
	grep -hoP "(?<![\w/])($floors|docs|tests)/[\w./*-]*[\w*/]" README.md HACKING.md CHANGELOG.md docs/*.md docs/mvmm.1 | sort -u |
		while read -r word; do
			[[ $word == *NAME* ]] || compgen -G "$word" >/dev/null || echo "$word"
		done
}
report 'the documents name no file that is not there' "$(missing_paths)"
report 'no banned function' \
	"$(grep -rnE '\b(strcpy|strcat|sprintf|atoi|atol|strtok|alloca|usleep|system|gets)\(' --include='*.[ch]' "${floor_folders[@]}")"

[ "$build" = plain ] || binaries=()
for library in "${binaries[@]}"; do
	[[ $library == *.a && $library != */vmm/* ]] || continue
	name=$(basename "$library" .a)
	report "$name: does not end the process or print" \
		"$(nm -u "$library" | awk '{print $NF}' | grep -xE 'exit|_exit|abort|stdout|printf|vprintf|puts|putchar|__printf_chk|__assert_fail|errx?')"
	report "$name: keeps no writable global" \
		"$(objdump -t "$library" | awk 'NF >= 5 && $(NF - 3) == "O" && $(NF - 2) ~ /^\.(data|bss)($|\.[^r])/')"
done
echo "1..$n"
