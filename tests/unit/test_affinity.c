/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/config/affinity: which of the host's CPUs a vCPU may run on. */
#include "tests/unit/test.h"
#include "vmm/config/affinity.h"

static struct err err;

static int check(unsigned int vcpus, unsigned int host_cpus, size_t count, const char *const *texts)
{
	struct affinity_item items[8];

	for (size_t i = 0; i < count; i++)
		items[i].text = (char *)texts[i];
	err.text[0] = 0;
	return affinity_check(&(struct affinity_options){items, count}, vcpus, host_cpus, &err);
}

static bool refused(const char *text, const char *sentence)
{
	int code = check(4, 16, 1, &text);

	if (code != -EINVAL || strcmp(err.text, sentence) != 0)
		printf("# %s: %d, \"%s\"\n", text, code, err.text);
	return code == -EINVAL && strcmp(err.text, sentence) == 0;
}

/* The CPUs of a vCPU as text, "" for any. */
static const char *cpus_of(size_t count, const char *const *texts, unsigned int vcpu)
{
	static char list[200];
	struct affinity_item items[8];
	cpu_set_t cpus;
	size_t used = 0;

	for (size_t i = 0; i < count; i++)
		items[i].text = (char *)texts[i];
	list[0] = 0;
	if (!affinity_of(&(struct affinity_options){items, count}, vcpu, &cpus))
		return list;
	for (unsigned int i = 0; i < CPU_SETSIZE && used < sizeof(list); i++)
		if (CPU_ISSET(i, &cpus))
			used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%u", used ? " " : "", i);
	return list;
}

static void without_the_option_any_cpu_will_do(void)
{
	CHECK_EQ(check(4, 16, 0, NULL), 0);
	CHECK_STR(cpus_of(0, NULL, 0), "");
}

static void a_list_is_for_all_vcpus(void)
{
	static const char *const texts[] = {"0-3,8"};

	CHECK_EQ(check(4, 16, 1, texts), 0);
	for (unsigned int i = 0; i < 4; i++)
		CHECK_STR(cpus_of(1, texts, i), "0 1 2 3 8");
}

static void some_vcpus_have_their_own(void)
{
	static const char *const texts[] = {"0=2", "1-2=5-6,9"};

	CHECK_EQ(check(4, 16, 2, texts), 0);
	CHECK_STR(cpus_of(2, texts, 0), "2");
	CHECK_STR(cpus_of(2, texts, 1), "5 6 9");
	CHECK_STR(cpus_of(2, texts, 2), "5 6 9");
	CHECK_STR(cpus_of(2, texts, 3), "");
}

static void what_is_no_list_is_refused(void)
{
	static const char *const texts[] = {"", "a", "1-", "-1", "3-1", "1,", ",1", "1,,2", "1 2", "0=", "=1", "0=1=2", "0-3,8x",
					    "1-2-3", "99999999999999999999", "1024", "0x1", "+1"};
	char sentence[200];

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		snprintf(sentence, sizeof(sentence), "--cpu-affinity %s: not a list of CPUs; write one like 0-3,8 or 0=2",
			 texts[i]);
		CHECK(refused(texts[i], sentence));
	}
}

static void cpus_that_are_not_there_are_refused(void)
{
	static const char *const twice[] = {"0=1", "0-1=2"}, *const all[] = {"3=1", "0-3"};

	CHECK(refused("16", "--cpu-affinity 16: this host has CPUs 0 to 15"));
	CHECK(refused("4=1", "--cpu-affinity 4=1: the machine has vCPUs 0 to 3"));
	CHECK_EQ(check(4, 16, 2, twice), -EINVAL);
	CHECK_STR(err.text, "--cpu-affinity 0-1=2: an earlier one is for the same vCPU; leave one out");
	CHECK_EQ(check(4, 16, 2, all), -EINVAL);
	CHECK_EQ(check(4, 4096, 1, all), 0); /* more than the kernel's own mask has */
}

TEST_MAIN(TEST(without_the_option_any_cpu_will_do), TEST(a_list_is_for_all_vcpus), TEST(some_vcpus_have_their_own),
	  TEST(what_is_no_list_is_refused), TEST(cpus_that_are_not_there_are_refused))
