/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parses options by a table: `--option value`, `--option=value` and `--option first,key=value,...` are written into a
 * structure whose fields the table names. Defaults, help, completion, the JSON file (config_json.c) and freeing the
 * structure use the same table. All commands of the program parse their command lines here.
 *
 * An abbreviation, an option given twice and an unknown word are errors; for the last, the message names the nearest
 * known word.
 */
#pragma once

#include "core/err.h"
#include "vmm/config/number.h"

/* The syntax of a key's value and the type that stores it. */
enum option_kind {
	OPTION_FLAG,          /* no value: bool */
	OPTION_BOOL,          /* on|off: bool */
	OPTION_WORD,          /* one of words: its index, an enum */
	OPTION_WORD_OR_PATH,  /* the same, or a text with a slash: the number of words, and char * at text_offset */
	OPTION_UINT,          /* min to max: unsigned int */
	OPTION_SIZE,          /* min to max, with K, M, G or T: uint64_t bytes */
	OPTION_TIME,          /* min to max ns, with us, ms, s, m or h: uint64_t ns */
	OPTION_RATE,          /* SIZE[/TIME][+BURST] or off: struct rate */
	OPTION_RATE_COUNT,    /* the same with numbers instead of sizes */
	OPTION_FD,            /* a number: int */
	OPTION_MAC,           /* 6 bytes; not all zero, not multicast */
	OPTION_STRING,        /* any text that is not empty: char *, owned by the structure */
	OPTION_NAMES,         /* -name, repeatable: char ** and its size_t count at text_offset */
	OPTION_CHOICE,        /* a key without value: sets an enum to `value`; only one such key may be given */
	OPTION_CHOICE_TEXT,   /* key=text: sets an enum to `value` and a char * at text_offset */
	OPTION_CHOICE_MAYBE,  /* key or key=text */
	OPTION_CHOICE_FD,     /* key=number: the same with an int at text_offset, -1 if it is not chosen */
};

struct option_key {
	const char *name;
	enum option_kind kind;
	size_t offset;      /* of the value in the option's structure */
	size_t text_offset; /* of the text, if the kind has one */
	uint64_t value;     /* the default; for a choice, the enum's value */
	uint64_t min, max;
	const char *const *words; /* ends with NULL */
	const char *help;         /* placeholder for the value: "N", "FILE" */
	bool required;
};

struct option {
	const char *name;  /* without the dashes */
	const char *value; /* placeholder for the value in the help; NULL for a flag */
	const char *help;  /* one line */
	const struct option_key *keys;
	size_t key_count;
	unsigned int default_choice; /* the enum's value if none of the OPTION_CHOICE keys is given */
	bool plain;          /* the whole text is the value of keys[0]; commas have no meaning */
	bool bare;           /* the first part may be the value of keys[0] without its name */
	bool command_only;   /* not in a file */
	size_t offset;       /* of the option's structure in the target, or of the pointer to an array of them */
	size_t count_offset; /* with item_size: of the array's size_t count */
	size_t item_size;    /* 0: the option can be given once; else each use adds an item to the array */
};

struct option_table {
	const struct option *options;
	size_t count; /* at most 64 */
};

#define OPTION_MAX_ITEMS 256u /* of one repeatable option */

/* The options of a table that one source (a command line, a file) has given, one bit each. */
typedef uint64_t option_set;

/* Writes the defaults, without freeing anything. */
void options_init(const struct option_table *table, void *target);
/* Frees the target's texts and arrays and writes the defaults. */
void options_done(const struct option_table *table, void *target);

/*
 * Parses a command line. "--" ends the options. The other words are operands: at most max_operands, stored in operands
 * (unused elements are NULL). An option replaces what another source has set; a repeatable one adds to it. -EINVAL with
 * the message for the user; the target then has what was parsed so far, and options_done must still be called.
 */
int options_parse(const struct option_table *table, void *target, int argc, char *const *argv, const char **operands,
		  size_t max_operands, struct err *err);

/* The value of `--name` on a command line, or NULL, without parsing the rest: for what must be known first. */
const char *options_find(int argc, char *const *argv, const char *name);

/* ---- pieces, for sources other than a command line ---- */

/* The option (key) with this name. If NULL, *nearest is the nearest known name, or NULL. */
const struct option *option_lookup(const struct option_table *table, const char *name, size_t len,
				   const char **nearest);
const struct option_key *option_key_lookup(const struct option *option, const char *name, size_t len,
					   const char **nearest);

/* Begins an option: marks it in given, and returns the structure for its keys, set to the defaults. NULL with err: the
 * option was given twice or too often. */
void *option_begin(const struct option_table *table, const struct option *option, void *target, option_set *given,
		   struct err *err);
/* Stores a value; text NULL: a key without value. keys has one bit for each key, zero after option_begin. */
int option_key_set(const struct option *option, const struct option_key *key, void *item, const char *text,
		   option_set *keys, struct err *err);
/* Frees an option's texts and lists, and writes its defaults. */
void option_item_done(const struct option *option, void *item);
/* Checks that the required keys were given. */
int option_end(const struct option *option, option_set keys, struct err *err);

/* ---- options_help.c ---- */

/* Prints the help of each option, to stdout. */
void options_print_help(const struct option_table *table);
/* Prints a line for each option with its keys and values, for completion scripts. */
void options_print_words(const struct option_table *table);
