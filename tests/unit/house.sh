#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# House rules that a machine can check: a file includes from its own floor or from below; nothing below vmm/ ends the
# process, prints to stdout or keeps a writable global; every source opens with its licence and says what it is;
# the documents name only files that are there. TAP on stdout. usage: house.sh SOURCE-ROOT [LIBRARY...]
set -u
root=$1
shift
cd "$root" || exit 1
# shellcheck source=tests/unit/tap.sh
. tests/unit/tap.sh

declare -A floor=([core]=1 [iommu]=2 [devices]=3 [boot]=3 [vfio]=4 [vmm]=5)
floors='core|iommu|devices|boot|vfio|vmm'

upward() {
	local file line text from to
	while IFS=: read -r file line text; do
		from=${file%%/*}
		to=${text#*\"}
		to=${to%%/*}
		if [ "${floor[$to]}" -gt "${floor[$from]}" ] || { [ "${floor[$to]}" = "${floor[$from]}" ] && [ "$to" != "$from" ]; }; then
			echo "$file:$line: $text"
		fi
	done < <(grep -rnE "^#include \"($floors)/" --include='*.[ch]' core iommu devices boot vfio vmm)
	grep -rnE '^#include "' --include='*.[ch]' core iommu devices boot vfio vmm | grep -vE "#include \"($floors)/|dsdt"
}
report 'includes stay on their floor or go down' "$(upward)"

sources() { find core iommu devices boot vfio vmm tests -name '*.[chS]'; }
unlicensed() {
	local file
	for file in $(sources); do
		head -n 1 "$file" | grep -q 'SPDX-License-Identifier: ' || echo "$file: no licence line"
		sed -n 2p "$file" | grep -q '^/\*' || echo "$file: does not say what it is"
	done
}
report 'every source opens with its licence and what it is' "$(unlicensed)"
report 'no file is over 700 lines' "$(sources | grep -v ^tests/ | xargs wc -l | awk '$2 != "total" && $1 > 700')"
report 'no architecture behind an #ifdef' "$(grep -rnE '^#if.*(x86_64|aarch64|__arm)' --include='*.[ch]' core iommu devices boot vfio vmm)"
missing_paths() {
	local word
	grep -hoP "(?<![\w/])($floors|docs|tests)/[\w./*-]*[\w*/]" README.md HACKING.md CHANGELOG.md docs/*.md docs/mvmm.1 | sort -u |
		while read -r word; do
			[[ $word == *NAME* ]] || compgen -G "$word" >/dev/null || echo "$word"
		done
}
report 'the documents name no file that is not there' "$(missing_paths)"
report 'no banned function' \
	"$(grep -rnE '\b(strcpy|strcat|sprintf|atoi|atol|strtok|alloca|usleep|system|gets)\(' --include='*.[ch]' core iommu devices boot vfio vmm)"

for library; do
	name=$(basename "$library" .a)
	report "$name: does not end the process or print" \
		"$(nm -u "$library" | awk '{print $NF}' | grep -xE 'exit|_exit|abort|stdout|printf|vprintf|puts|putchar|__printf_chk|__assert_fail|errx?')"
	report "$name: keeps no writable global" \
		"$(objdump -t "$library" | awk 'NF >= 5 && $(NF - 3) == "O" && $(NF - 2) ~ /^\.(data|bss)($|\.[^r])/')"
done
echo "1..$n"
