/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options from tables: `--option value`, `--option=value` and `--option first,key=value,...`, written into a structure
 * whose fields the table names. The same table gives the defaults, the help, the words for completion, what a JSON
 * file may hold (config_json.c), and frees the structure. Every command of the program reads its command line here.
 *
 * Nothing is guessed: no abbreviation is taken, nothing given twice, and a word that is not known is refused with the
 * nearest one that is.
 */
#pragma once

#include "core/err.h"

/* What a key's value looks like and what it is stored as. */
enum option_kind {
	OPTION_FLAG,          /* bool, set by the mere option; no value */
	OPTION_BOOL,          /* on|off: bool */
	OPTION_WORD,          /* one of words: its index, an enum */
	OPTION_WORD_OR_PATH,  /* the same, or a text with a slash: index past the words, char * at text_offset */
	OPTION_UINT,          /* min to max: unsigned int */
	OPTION_SIZE,          /* min to max, with K, M, G or T: uint64_t bytes */
	OPTION_TIME,          /* min to max ns, with us, ms, s, m or h: uint64_t ns */
	OPTION_FD,            /* a number: int */
	OPTION_MAC,           /* 6 bytes; not all zero, not multicast */
	OPTION_STRING,        /* anything but nothing: char *, owned by the structure */
	OPTION_NAMES,         /* -name, repeatable: char ** and its size_t count at text_offset */
	OPTION_CHOICE,        /* a key without value: sets an enum to `value`; of several such keys one is given */
	OPTION_CHOICE_TEXT,   /* key=text: sets an enum to `value` and a char * at text_offset */
	OPTION_CHOICE_MAYBE,  /* key or key=text */
};

struct option_key {
	const char *name;
	enum option_kind kind;
	size_t offset;      /* of the value in the option's structure */
	size_t text_offset; /* of the text, where the kind has one */
	uint64_t value;     /* the default, or what a choice sets its enum to */
	uint64_t min, max;
	const char *const *words; /* ends with NULL */
	const char *help;         /* how to write the value: "N", "FILE" */
	bool required;
};

struct option {
	const char *name;  /* without the dashes */
	const char *value; /* how to write the value in the help; NULL for a flag */
	const char *help;  /* one line */
	const struct option_key *keys;
	size_t key_count;
	unsigned int default_choice; /* of its OPTION_CHOICE keys: the enum while none is given */
	bool plain;          /* the whole text is the value of keys[0]; commas mean nothing */
	bool bare;           /* the first part may be the value of keys[0] without its name */
	bool command_only;   /* not in a file */
	size_t offset;       /* of the option's structure in the target, or of the pointer to an array of them */
	size_t count_offset; /* with item_size: of the array's size_t count */
	size_t item_size;    /* 0: the option can be given once; else each one adds an item to the array */
};

struct option_table {
	const struct option *options;
	size_t count; /* at most 64 */
};

#define OPTION_MAX_ITEMS 256u /* of one repeatable option */

/* Which options of a table have been given, one bit each, by one source (a command line, a file). */
typedef uint64_t option_set;

/* Writes the defaults over whatever is there. */
void options_init(const struct option_table *table, void *target);
/* Frees what the target holds and leaves the defaults. */
void options_done(const struct option_table *table, void *target);

/*
 * Reads a command line. Options may stand anywhere, "--" ends them; the other words are operands, of which there may be
 * max_operands; they are stored in operands (the rest of it is NULL). Options of the target that were set before from
 * elsewhere are replaced, repeatable ones are added to. -EINVAL with the sentence for the user; the target then holds
 * what was read so far and wants options_done all the same.
 */
int options_parse(const struct option_table *table, void *target, int argc, char *const *argv, const char **operands,
		  size_t max_operands, struct err *err);

/* The value of `--name` on a command line without reading the rest of it, or NULL: for what must be known first. */
const char *options_find(int argc, char *const *argv, const char *name);

/* ---- pieces, for other sources than a command line ---- */

/* The option (key) with this name, or NULL and *nearest is the name that was perhaps meant, or NULL. */
const struct option *option_lookup(const struct option_table *table, const char *name, size_t len,
				   const char **nearest);
const struct option_key *option_key_lookup(const struct option *option, const char *name, size_t len,
					   const char **nearest);

/*
 * Begins an option: marks it in given, and returns the structure its keys go to, with their defaults, or NULL with err
 * set (given twice, too many).
 */
void *option_begin(const struct option_table *table, const struct option *option, void *target, option_set *given,
		   struct err *err);
/* Stores a value; text NULL is a key without one. keys has one bit a key, zero after option_begin. */
int option_key_set(const struct option *option, const struct option_key *key, void *item, const char *text,
		   option_set *keys, struct err *err);
/* Checks that what must be there is. */
int option_end(const struct option *option, option_set keys, struct err *err);

/* How people write a size: "512M", "1536K", "4097". buf holds 24 characters and is returned. */
const char *option_format_size(uint64_t bytes, char *buf);

/* ---- options_help.c ---- */

/* Prints the help of each option, to stdout. */
void options_print_help(const struct option_table *table);
/* Prints a line for each option with its keys and their values, for completion scripts. */
void options_print_words(const struct option_table *table);
