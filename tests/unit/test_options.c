/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/options and vmm/nearest: what is taken, what is refused, and in which words. */
#include "vmm/config/nearest.h"
#include "vmm/config/options.h"
#include "tests/unit/test.h"

enum flavour { PLAIN, SWEET, SOUR };
enum source { FROM_NOWHERE, FROM_WELL, FROM_TAP, FROM_RAIN };

struct cake {
	char *path;
	enum flavour flavour;
	unsigned int layers;
	bool candles;
	uint8_t mac[6];
	enum flavour rom;
	char *rom_file;
	int fd;
};

struct water {
	enum source source;
	char *where;
};

struct party {
	char *title;
	uint64_t size;
	struct cake *cakes;
	size_t cake_count;
	struct water water;
	char **uninvited;
	size_t uninvited_count;
	bool loud;
	uint64_t length;
};

static const char *const flavours[] = {"plain", "sweet", "sour", NULL};

static const struct option_key cake_keys[] = {
	{"path", OPTION_STRING, offsetof(struct cake, path), .help = "FILE", .required = true},
	{"flavour", OPTION_WORD, offsetof(struct cake, flavour), .words = flavours, .help = "WORD"},
	{"layers", OPTION_UINT, offsetof(struct cake, layers), .value = 3, .min = 1, .max = 9, .help = "N"},
	{"candles", OPTION_BOOL, offsetof(struct cake, candles)},
	{"mac", OPTION_MAC, offsetof(struct cake, mac)},
	{"rom", OPTION_WORD_OR_PATH, offsetof(struct cake, rom), offsetof(struct cake, rom_file), .words = flavours},
	{"fd", OPTION_FD, offsetof(struct cake, fd), .value = UINT32_MAX},
};

static const struct option_key water_keys[] = {
	{"well", OPTION_CHOICE_TEXT, offsetof(struct water, source), offsetof(struct water, where), FROM_WELL, .help = "FILE"},
	{"tap", OPTION_CHOICE_MAYBE, offsetof(struct water, source), offsetof(struct water, where), FROM_TAP},
	{"rain", OPTION_CHOICE, offsetof(struct water, source), .value = FROM_RAIN},
};

static const struct option_key title_key = {"title", OPTION_STRING};
static const struct option_key size_key = {"size", OPTION_SIZE, .value = 4096, .min = 1024, .max = GIB(2)};
static const struct option_key length_key = {"length", OPTION_TIME, .value = 5000, .min = 1000000, .max = 86400000000000};
static const struct option_key loud_key = {"loud", OPTION_FLAG};
static const struct option_key guest_keys[] = {
	{"model", OPTION_WORD, offsetof(struct party, loud) - offsetof(struct party, uninvited), .words = flavours},
	{"without", OPTION_NAMES, 0, offsetof(struct party, uninvited_count) - offsetof(struct party, uninvited)},
};

static const struct option party_options[] = {
	{"title", "TEXT", "h", &title_key, 1, .plain = true, .offset = offsetof(struct party, title)},
	{"size", "SIZE", "h", &size_key, 1, .plain = true, .offset = offsetof(struct party, size)},
	{"cake", "FILE[,...]", "h", cake_keys, ARRAY_SIZE(cake_keys), .bare = true, .offset = offsetof(struct party, cakes),
	 .count_offset = offsetof(struct party, cake_count), .item_size = sizeof(struct cake)},
	{"water", "well=FILE|tap|rain", "h", water_keys, ARRAY_SIZE(water_keys), .bare = true,
	 .offset = offsetof(struct party, water)},
	{"guests", "plain[,-NAME]", "h", guest_keys + 1, 1, .offset = offsetof(struct party, uninvited)},
	{"length", "TIME", "h", &length_key, 1, .plain = true, .offset = offsetof(struct party, length)},
	{"loud", NULL, "h", &loud_key, 1, .plain = true, .offset = offsetof(struct party, loud)},
};

static const struct option_table table = {party_options, ARRAY_SIZE(party_options)};

static struct party party;
static struct err err;
static const char *operands[2];

/* Reads words separated by spaces into party. */
static int read_line(const char *line)
{
	static char copy[70000];
	char *argv[600];
	int argc = 0;

	options_done(&table, &party);
	snprintf(copy, sizeof(copy), "%s", line);
	err.text[0] = 0;
	for (char *word = strtok(copy, " "); word; word = strtok(NULL, " "))
		argv[argc++] = word;
	return options_parse(&table, &party, argc, argv, operands, 2, &err);
}

static bool refused(const char *line, const char *sentence)
{
	int code = read_line(line);

	if (code != -EINVAL || strcmp(err.text, sentence) != 0)
		printf("# %s: %d, \"%s\"\n", line, code, err.text);
	return code == -EINVAL && strcmp(err.text, sentence) == 0;
}

static void defaults_stand(void)
{
	CHECK_EQ(read_line(""), 0);
	CHECK(!party.title && !party.cakes && !party.uninvited && !party.loud);
	CHECK_EQ(party.size, 4096);
	CHECK_EQ(party.water.source, FROM_NOWHERE);
}

static void both_ways_to_give_a_value(void)
{
	CHECK_EQ(read_line("--title=x=y,z --size 2M --loud"), 0);
	CHECK_STR(party.title, "x=y,z");
	CHECK_EQ(party.size, MIB(2));
	CHECK(party.loud);
}

static void times_have_units(void)
{
	CHECK_EQ(read_line(""), 0);
	CHECK_EQ(party.length, 5000);
	CHECK_EQ(read_line("--length 300ms"), 0);
	CHECK_EQ(party.length, 300000000);
	CHECK_EQ(read_line("--length 1500us"), 0);
	CHECK_EQ(party.length, 1500000);
	CHECK_EQ(read_line("--length 2s"), 0);
	CHECK_EQ(party.length, 2000000000);
	CHECK_EQ(read_line("--length 10m"), 0);
	CHECK_EQ(party.length, 600000000000);
	CHECK_EQ(read_line("--length 24h"), 0);
	CHECK(refused("--length 999us", "--length 999us: out of range; write a time from 1ms to 24h"));
	CHECK(refused("--length 25h", "--length 25h: out of range; write a time from 1ms to 24h"));
	CHECK(refused("--length 99999999999999999999h", "--length 99999999999999999999h: out of range; write a time from 1ms to 24h"));
	for (const char *const *bad = (const char *const[]){"5", "ms", "-1s", "5sec", "1.5s", "5M", NULL}; *bad; bad++) {
		char line[40], sentence[120];

		snprintf(line, sizeof(line), "--length=%s", *bad);
		snprintf(sentence, sizeof(sentence), "--length %s: not a time; write a number followed by us, ms, s, m or h", *bad);
		CHECK(refused(line, sentence));
	}
}

static void keys_and_bare_values(void)
{
	CHECK_EQ(read_line("--cake a.img --cake path=b,layers=2,candles=on,flavour=sour,fd=7 --cake ./c=d,mac=52:54:00:aB:cd:0f"), 0);
	CHECK_EQ(party.cake_count, 3);
	CHECK_STR(party.cakes[0].path, "a.img");
	CHECK_EQ(party.cakes[0].layers, 3);
	CHECK_EQ(party.cakes[0].fd, -1);
	CHECK_STR(party.cakes[1].path, "b");
	CHECK_EQ(party.cakes[1].layers, 2);
	CHECK_EQ(party.cakes[1].flavour, SOUR);
	CHECK_EQ(party.cakes[1].fd, 7);
	CHECK(party.cakes[1].candles && !party.cakes[0].candles);
	CHECK_STR(party.cakes[2].path, "./c=d");
	CHECK_EQ(memcmp(party.cakes[2].mac, "\x52\x54\x00\xab\xcd\x0f", 6), 0);
}

static void doubled_comma_is_a_comma(void)
{
	CHECK_EQ(read_line("--cake a,,b,,,layers=2"), 0);
	CHECK_STR(party.cakes[0].path, "a,b,");
	CHECK_EQ(party.cakes[0].layers, 2);
}

static void word_or_path(void)
{
	CHECK_EQ(read_line("--cake a,rom=sweet --cake b,rom=/x"), 0);
	CHECK_EQ(party.cakes[0].rom, SWEET);
	CHECK_EQ(party.cakes[1].rom, 3);
	CHECK_STR(party.cakes[1].rom_file, "/x");
	CHECK(refused("--cake a,rom=bitter",
		      "--cake rom=bitter: unknown value; write one of plain, sweet, sour, or a path with a slash in it"));
	CHECK(refused("--cake a,rom=swet",
		      "--cake rom=swet: unknown value, did you mean sweet?"));
}

static void choices(void)
{
	CHECK_EQ(read_line("--water tap"), 0);
	CHECK_EQ(party.water.source, FROM_TAP);
	CHECK(!party.water.where);
	CHECK_EQ(read_line("--water tap=cold"), 0);
	CHECK_STR(party.water.where, "cold");
	CHECK_EQ(read_line("--water rain"), 0);
	CHECK_EQ(party.water.source, FROM_RAIN);
	CHECK_EQ(read_line("--water /deep"), 0);
	CHECK_EQ(party.water.source, FROM_WELL);
	CHECK_STR(party.water.where, "/deep");
	CHECK(refused("--water rian", "--water: rian: unknown key, did you mean rain?"));
	CHECK(refused("--water rain=x", "--water rain=x: takes no value; write rain alone"));
	CHECK(refused("--water well", "--water well: needs a value; write well=FILE"));
	CHECK(refused("--water rain,tap", "--water tap: cannot be combined with rain; leave one out"));
}

static void names_to_mask(void)
{
	CHECK_EQ(read_line("--guests -eve,-mallory"), 0);
	CHECK_EQ(party.uninvited_count, 2);
	CHECK_STR(party.uninvited[0], "eve");
	CHECK_STR(party.uninvited[1], "mallory");
	CHECK(refused("--guests -", "--guests -: empty; write a value or leave the option out"));
}

static void operands_and_the_end_of_options(void)
{
	CHECK_EQ(read_line("one --loud -- --two"), 0);
	CHECK_STR(operands[0], "one");
	CHECK_STR(operands[1], "--two");
	CHECK(refused("a b c", "c: unexpected; one name is enough"));
	CHECK(refused("-l", "-l: unknown option; options begin with two dashes"));
}

static void unknown_words_name_the_nearest(void)
{
	CHECK(refused("--tilte x", "--tilte: unknown option, did you mean --title?"));
	CHECK(refused("--tit x", "--tit: unknown option, did you mean --title?"));
	CHECK(refused("--zzzzzz x", "--zzzzzz: unknown option"));
	CHECK(refused("--cake a,layer=3", "--cake: layer: unknown key, did you mean layers?"));
	CHECK(refused("--cake a,qqq=3", "--cake: qqq: unknown key; write FILE[,...]"));
	CHECK(refused("--cake a,flavour=seet",
		      "--cake flavour=seet: unknown value, did you mean sweet?"));
	CHECK(refused("--cake a,candles=yes", "--cake candles=yes: unknown value; write one of off, on"));
	CHECK(refused("--cake a,candles", "--cake candles: needs a value; write candles=on"));
}

static void numbers_and_sizes(void)
{
	CHECK(refused("--cake a,layers=10", "--cake layers=10: out of range; write a number from 1 to 9"));
	CHECK(refused("--cake a,layers=0x3", "--cake layers=0x3: not a number; write one from 1 to 9"));
	CHECK(refused("--cake a,layers=-1", "--cake layers=-1: not a number; write one from 1 to 9"));
	CHECK(refused("--cake a,layers=99999999999999999999",
		      "--cake layers=99999999999999999999: out of range; write a number from 1 to 9"));
	CHECK(refused("--size 3Q", "--size 3Q: not a size; write a number followed by K, M, G or T"));
	CHECK(refused("--size 3MB", "--size 3MB: not a size; write a number followed by K, M, G or T"));
	CHECK(refused("--size 16777216T", "--size 16777216T: out of range; write a size from 1K to 2G"));
	CHECK(refused("--size 18446744073709551616",
		      "--size 18446744073709551616: out of range; write a size from 1K to 2G"));
	CHECK_EQ(read_line("--size 2G"), 0);
	CHECK_EQ(party.size, GIB(2));
	CHECK_EQ(read_line("--size 1024"), 0);
	CHECK_EQ(party.size, 1024);
}

static void macs(void)
{
	static const char *const bad[] = {"52:54:00:12:34", "52:54:00:12:34:5", "52:54:00:12:34:56:78", "52-54-00-12-34-56", "", "5"};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		char line[64];

		snprintf(line, sizeof(line), "--cake a,mac=%s", bad[i]);
		CHECK_EQ(read_line(line), -EINVAL);
		CHECK(strstr(err.text, "not a MAC address"));
	}
	CHECK_EQ(read_line("--cake a,mac=00:00:00:00:00:00"), -EINVAL);
	CHECK_EQ(read_line("--cake a,mac=01:00:00:00:00:01"), -EINVAL);
}

static void missing_and_doubled(void)
{
	CHECK(refused("--title", "--title: needs a value; write --title TEXT"));
	CHECK(refused("--title --loud", "--title: needs a value; write --title=VALUE if it begins with dashes"));
	CHECK(refused("--title=", "--title : empty; write a value or leave the option out"));
	CHECK(refused("--title a --title b", "--title: given twice; leave one out"));
	CHECK(refused("--cake a,layers=2,layers=3", "--cake layers=3: given twice; leave one out"));
	CHECK(refused("--cake layers=2", "--cake layers=2: path is missing; write FILE[,...]"));
	CHECK(refused("--loud=on", "--loud on: takes no value; write loud alone"));
}

static void too_many(void)
{
	static char line[300 * 10];

	for (int i = 0; i < 256; i++)
		strcat(line, "--cake a ");
	CHECK_EQ(read_line(line), 0);
	strcat(line, "--cake a ");
	CHECK(refused(line, "--cake: given more than 256 times"));
}

static void a_second_source_replaces(void)
{
	char *const first[] = {(char *)"--title=a", (char *)"--cake=x", (char *)"--water=well=/w"};
	char *const second[] = {(char *)"--title=b", (char *)"--cake=y", (char *)"--water=rain"};

	options_done(&table, &party);
	CHECK_EQ(options_parse(&table, &party, 3, first, NULL, 0, &err), 0);
	CHECK_EQ(options_parse(&table, &party, 3, second, NULL, 0, &err), 0);
	CHECK_STR(party.title, "b");
	CHECK_EQ(party.cake_count, 2);
	CHECK_EQ(party.water.source, FROM_RAIN);
	CHECK(!party.water.where);
}

static void finds_one_option(void)
{
	char *const argv[] = {(char *)"--loud", (char *)"--title=a", (char *)"--size", (char *)"5", (char *)"--", (char *)"--water"};

	CHECK_STR(options_find(6, argv, "title"), "a");
	CHECK_STR(options_find(6, argv, "size"), "5");
	CHECK(!options_find(6, argv, "tit"));
	CHECK(!options_find(6, argv, "water"));
	CHECK(!options_find(3, argv, "size"));
}

static void measures_distance(void)
{
	static const struct {
		const char *word, *candidate;
		bool close;
	} pairs[] = {
		{"memry", "memory", true},  {"mmeory", "memory", true},	 {"mem", "memory", true},  {"", "on", false},
		{"onn", "on", true},	    {"no", "on", true},		 {"x", "on", false},	   {"meter", "memory", false},
		{"redonly", "readonly", true}, {"read-only", "readonly", true},
	};
	char big[200];

	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
		struct nearest near = nearest_begin(pairs[i].word, strlen(pairs[i].word));

		nearest_offer(&near, pairs[i].candidate);
		if (!near.best != !pairs[i].close)
			printf("# %s and %s\n", pairs[i].word, pairs[i].candidate);
		CHECK_EQ(!near.best, !pairs[i].close);
	}
	memset(big, 'a', sizeof(big) - 1);
	big[sizeof(big) - 1] = 0;
	struct nearest near = nearest_begin(big, strlen(big));
	nearest_offer(&near, "aaaaaaaa");
	nearest_offer(&near, big);
	CHECK(!near.best);
}

static void prefers_the_nearest(void)
{
	struct nearest near = nearest_begin("net", 3);

	nearest_offer(&near, "bet");
	nearest_offer(&near, "network");
	nearest_offer(&near, "nets");
	CHECK_STR(near.best, "bet");
}

static void formats_sizes(void)
{
	char buf[24];

	CHECK_STR(number_format_size(0, buf), "0");
	CHECK_STR(number_format_size(4097, buf), "4097");
	CHECK_STR(number_format_size(KIB(1536), buf), "1536K");
	CHECK_STR(number_format_size(GIB(1024), buf), "1T");
	CHECK_STR(number_format_size(UINT64_MAX, buf), "18446744073709551615");
}

TEST_MAIN(TEST(defaults_stand), TEST(both_ways_to_give_a_value), TEST(times_have_units), TEST(keys_and_bare_values),
	  TEST(doubled_comma_is_a_comma), TEST(word_or_path), TEST(choices), TEST(names_to_mask),
	  TEST(operands_and_the_end_of_options), TEST(unknown_words_name_the_nearest), TEST(numbers_and_sizes), TEST(macs),
	  TEST(missing_and_doubled), TEST(too_many), TEST(a_second_source_replaces), TEST(finds_one_option),
	  TEST(measures_distance), TEST(prefers_the_nearest), TEST(formats_sizes))
