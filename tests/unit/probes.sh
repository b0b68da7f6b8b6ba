#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The probes of the program are those of docs/tracing.md, with as many arguments. TAP on stdout. usage: probes.sh MVMM SOURCE-ROOT
set -u
mvmm=$1 root=$2
# shellcheck source=tests/unit/tap.sh
. "$root/tests/unit/tap.sh"

# "NAME COUNT" of each probe, once, however often the compiler has copied it. An argument is SIZE@PLACE.
in_program() {
	readelf -nW "$mvmm" | awk '
		/Provider:/ { provider = $NF }
		/^ *Name:/ { name = $2 }
		/^ *Location:/ && /Semaphore: 0x0+$/ { plain = 1 }
		/^ *Arguments:/ {
			count = 0
			for (i = 2; i <= NF; i++)
				count += $i ~ /^8@/
			if (provider == "mvmm")
				print name, count (plain ? "" : " has a semaphore")
			plain = 0
		}' | sort -u
}
# Commas within parentheses do not separate arguments.
in_document() {
	sed -nE 's/^\| ([a-z]+_[a-z]+) \| [^|]* \| ([^|]*) \|$/\1|\2/p' "$root/docs/tracing.md" |
		sed -E ':again; s/\([^()]*\)//; t again' | awk -F'|' '{ print $1, split($2, parts, ",") }' | sort
}
report 'the program has the probes that docs/tracing.md lists' "$(diff <(in_document) <(in_program))"
report 'there are some' "$(in_program | awk 'END { if (NR < 8) print NR }')"
echo "1..$n"
