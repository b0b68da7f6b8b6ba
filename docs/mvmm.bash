# SPDX-License-Identifier: Apache-2.0
# bash completion for mvmm. What there is to offer comes from `mvmm help --words`, so it cannot grow old.

# The candidates that a word like "on|off" or "FILE" stands for, each behind the prefix $1 and matching $3.
_mvmm_words() {
	local prefix=$1 words=$2 part=$3 word
	for word in ${words//|/ }; do
		case $word in
		FILE) compgen -P "$prefix" -f -- "$part" ;;
		DIR | BASE | DIFF...) compgen -P "$prefix" -d -- "$part" ;;
		BDF) compgen -P "$prefix" -W "$(ls /sys/bus/pci/devices 2>/dev/null)" -- "$part" ;;
		*[A-Z]*) [[ $word == [0-9]* ]] && compgen -P "$prefix" -W "$word" -- "$part" ;;
		*) compgen -P "$prefix" -W "$word" -- "$part" ;;
		esac
	done
}

# The value of an option, given its line of words: the first part, a key, or the value of a key.
_mvmm_value() {
	local value=$2 head='' part token tokens key
	read -ra tokens <<<"$1"
	part=${value##*,}
	[[ $value == *,* ]] && head=${value%,*},
	key=${part%%=*}
	for token in "${tokens[@]:1}"; do
		if [[ $part == *=* ]]; then
			[[ $token == "$key="* ]] && _mvmm_words "$head$key=" "${token#*=}" "${part#*=}"
		elif [[ $token == *=* ]]; then
			compgen -P "$head" -W "${token%%=*}=" -- "$part"
		elif [[ -z $head ]]; then
			_mvmm_words '' "$token" "$part"
		fi
	done
}

# The candidates for the word number $2 of those of command $1 that are no options, as the help's usage names it; a
# command of several verbs has a line for each.
_mvmm_operand() {
	local help shape word verb=$3 part=$4
	help=$(mvmm help "$1" 2>/dev/null)
	shape=$(sed -n "1s/^usage: mvmm $1//p" <<<"$help")
	(($2 > 1)) && shape=$(sed -n "s/^  \($verb .*\)   .*/\1/p" <<<"$help")
	read -ra shape <<<"$(sed 's/\[-[^]]*\]//g; s/\[OPTION\]...//; s/[][]//g' <<<"$shape")"
	word=${shape[$2 - 1]-}
	[[ -z $word && ${shape[-1]-} == *... ]] && word=${shape[-1]}
	[[ $word == NAME* ]] && compgen -W "$(mvmm ps 2>/dev/null | awk 'NR > 1 { print $1 }')" -- "$part"
	case $word in
	COMMAND) compgen -W "$(mvmm help --words)" -- "$part" ;;
	*) _mvmm_words '' "$word" "$part" ;;
	esac
}

_mvmm() {
	local line=${COMP_LINE:0:COMP_POINT} words word cur command option options operands=() keep
	read -ra words <<<"$line"
	[[ $line == *[[:space:]] ]] && words+=('')
	cur=${words[-1]}
	command=${words[1]}
	options=$(mvmm help --words "$command" 2>/dev/null)
	option=${words[-2]}
	[[ $cur == --*=* ]] && option=${cur%%=*}
	option=$(grep -E -- "^$option " <<<"$options")
	COMPREPLY=()
	if ((${#words[@]} == 2)); then
		mapfile -t COMPREPLY < <(compgen -W "$(mvmm help --words) --help --version" -- "$cur")
	elif [[ $cur == --*=* ]]; then
		mapfile -t COMPREPLY < <(_mvmm_value "$option" "${cur#*=}")
	elif [[ $cur == --* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$(sed 's/ .*//' <<<"$options")" -- "$cur")
	elif [[ -n $option && ${words[-2]} == --* ]]; then
		mapfile -t COMPREPLY < <(_mvmm_value "$option" "$cur")
	else
		for word in "${words[@]:2}"; do
			[[ $word == -* ]] || operands+=("$word")
		done
		mapfile -t COMPREPLY < <(_mvmm_operand "$command" ${#operands[@]} "${operands[0]}" "$cur")
	fi
	[[ ${COMPREPLY[0]-} == *= ]] && compopt -o nospace 2>/dev/null
	# readline takes "=" and ":" for ends of words, and wants only what follows the last one.
	[[ $cur == --*=* ]] && cur=${cur#*=}
	keep=${cur##*[=:]}
	keep=${cur%"$keep"}
	COMPREPLY=("${COMPREPLY[@]#"$keep"}")
}
complete -F _mvmm mvmm
