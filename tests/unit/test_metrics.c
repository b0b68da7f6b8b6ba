/* SPDX-License-Identifier: Apache-2.0 */
/* Counters, the JSON of metrics, and KVM's statistics as the kernel lays them out. */
#include "core/counter.h"
#include "tests/unit/test.h"
#include "vmm/kvm/kvm_stats.h"
#include "vmm/machine/metrics.h"

#include <linux/kvm.h>
#include <sys/mman.h>

/* ---- counters ---- */

static unsigned int bucket_of(uint64_t ns)
{
	struct counter_histogram histogram = {0};
	unsigned int bucket = 0;

	counter_histogram_add(&histogram, ns);
	CHECK_EQ(histogram.ns, ns);
	while (!histogram.buckets[bucket])
		bucket++;
	CHECK_EQ(histogram.buckets[bucket], 1);
	return bucket;
}

static void a_time_is_counted_in_its_bucket(void)
{
	CHECK_EQ(bucket_of(0), 0);
	CHECK_EQ(bucket_of(999), 0);
	CHECK_EQ(bucket_of(1000), 1);
	CHECK_EQ(bucket_of(1999), 1);
	CHECK_EQ(bucket_of(2000), 2);
	CHECK_EQ(bucket_of(1023999), 10);
	CHECK_EQ(bucket_of(1024000), 11);
	CHECK_EQ(bucket_of(8388607999), 23);
	CHECK_EQ(bucket_of(8388608000), COUNTER_BUCKETS - 1);
	CHECK_EQ(bucket_of(UINT64_MAX), COUNTER_BUCKETS - 1);
}

static void counters_have_lines_of_their_own(void)
{
	uint8_t *counters = counter_alloc(3, 2 * COUNTER_LINE);

	CHECK(counters && (uintptr_t)counters % COUNTER_LINE == 0);
	for (size_t i = 0; i < 3 * 2 * COUNTER_LINE; i++)
		CHECK_EQ(counters[i], 0);
	free(counters);
}

/* ---- the JSON ---- */

static json_t *take(struct metrics *metrics)
{
	json_t *families;

	CHECK_EQ(metrics_take(metrics, &families, NULL), 0);
	return families;
}

static void check_text(json_t *value, const char *text)
{
	char *found = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));

	CHECK(found);
	CHECK_STR(found, text);
	free(found);
}

static void families_have_samples(void)
{
	struct metrics metrics;
	json_t *families;

	metrics_init(&metrics);
	metrics_begin(&metrics, METRICS_COUNTER, "mvmm_empty_total", "none");
	metrics_begin(&metrics, METRICS_COUNTER, "mvmm_a_total", "some");
	metrics_add(&metrics, metrics_labels({"device", "a"}, {"kind", "b"}), 7);
	metrics_add(&metrics, NULL, INT64_MAX);
	metrics_one(&metrics, METRICS_GAUGE, "mvmm_b", "one", 3);
	metrics_begin(&metrics, METRICS_GAUGE, "mvmm_c", "a real one");
	metrics_add_real(&metrics, NULL, 0.5);
	metrics_begin(&metrics, METRICS_COUNTER, "mvmm_last_total", "none");
	families = take(&metrics);
	check_text(families,
		   "[{\"name\":\"mvmm_a_total\",\"type\":\"counter\",\"help\":\"some\",\"samples\":["
		   "{\"value\":7,\"labels\":{\"device\":\"a\",\"kind\":\"b\"}},{\"value\":9223372036854775807,\"labels\":{}}]},"
		   "{\"name\":\"mvmm_b\",\"type\":\"gauge\",\"help\":\"one\",\"samples\":[{\"value\":3,\"labels\":{}}]},"
		   "{\"name\":\"mvmm_c\",\"type\":\"gauge\",\"help\":\"a real one\",\"samples\":[{\"value\":0.5,\"labels\":{}}]}]");
	json_decref(families);
}

static void nothing_is_an_empty_list(void)
{
	struct metrics metrics;
	json_t *families;

	metrics_init(&metrics);
	families = take(&metrics);
	check_text(families, "[]");
	json_decref(families);
}

/* A bucket counts all that took no longer, as Prometheus wants it. */
static void histograms_add_up(void)
{
	struct counter_histogram histogram = {0};
	const json_t *sample, *buckets;
	struct metrics metrics;
	json_t *families;

	counter_histogram_add(&histogram, 500);
	counter_histogram_add(&histogram, 3000);
	counter_histogram_add(&histogram, 20000000000);
	metrics_init(&metrics);
	metrics_begin(&metrics, METRICS_HISTOGRAM, "mvmm_h_seconds", "times");
	metrics_add_histogram(&metrics, NULL, &histogram);
	families = take(&metrics);
	sample = json_array_get(json_object_get(json_array_get(families, 0), "samples"), 0);
	buckets = json_object_get(sample, "buckets");
	CHECK_EQ(json_array_size(buckets), COUNTER_BUCKETS - 1);
	check_text(json_array_get(buckets, 0), "{\"le\":1e-6,\"count\":1}");
	check_text(json_array_get(buckets, 1), "{\"le\":2e-6,\"count\":1}");
	check_text(json_array_get(buckets, 2), "{\"le\":4e-6,\"count\":2}");
	check_text(json_array_get(buckets, COUNTER_BUCKETS - 2), "{\"le\":8.388608,\"count\":2}");
	CHECK_EQ(json_integer_value(json_object_get(sample, "count")), 3);
	check_text(json_object_get(sample, "sum"), "20.0000035");
	json_decref(families);
}

/* ---- KVM's statistics ---- */

#define NAME 16u

struct stats_row {
	const char *name;
	uint32_t flags;
	uint16_t size;
	uint32_t offset;
};

/* A file as the kernel makes it; names without room for a zero byte are allowed. */
static int make_stats(const struct stats_row *rows, uint32_t count, const uint64_t *values, size_t value_count)
{
	const size_t stride = sizeof(struct kvm_stats_desc) + NAME;
	struct kvm_stats_header header = {
		.name_size = NAME, .num_desc = count, .id_offset = sizeof(header), .desc_offset = sizeof(header) + NAME,
	};
	int fd = memfd_create("stats", MFD_CLOEXEC);

	header.data_offset = (uint32_t)(header.desc_offset + count * stride);
	CHECK_EQ(pwrite(fd, &header, sizeof(header), 0), sizeof(header));
	for (uint32_t i = 0; i < count; i++) {
		const struct kvm_stats_desc desc = {.flags = rows[i].flags, .size = rows[i].size, .offset = rows[i].offset};
		char name[NAME] = "";

		memcpy(name, rows[i].name, MIN(strlen(rows[i].name), NAME));
		CHECK_EQ(pwrite(fd, &desc, sizeof(desc), (off_t)(header.desc_offset + i * stride)), sizeof(desc));
		CHECK_EQ(pwrite(fd, name, NAME, (off_t)(header.desc_offset + i * stride + sizeof(desc))), NAME);
	}
	CHECK_EQ(pwrite(fd, values, value_count * 8, header.data_offset), value_count * 8);
	return fd;
}

static char seen[512];

static void on_stat(void *opaque, const struct kvm_stat *stat)
{
	size_t len = strlen(seen);

	CHECK(opaque == seen);
	snprintf(seen + len, sizeof(seen) - len, "%s %d %llu;", stat->name, stat->type, (unsigned long long)stat->value);
}

static const char *stats_of(const int *fds, size_t count)
{
	seen[0] = 0;
	kvm_stats_each(fds, count, on_stat, seen);
	return seen;
}

static const struct stats_row rows[] = {
	{"exits", KVM_STATS_TYPE_CUMULATIVE, 1, 0},
	{"blocking", KVM_STATS_TYPE_INSTANT, 1, 8},
	{"sixteen_letters_", KVM_STATS_TYPE_PEAK, 1, 24},
	{"hist", KVM_STATS_TYPE_LOG_HIST, 4, 32},
};

static void statistics_are_summed_over_vcpus(void)
{
	const uint64_t one[] = {5, 1, 99, 7}, other[] = {6, 0, 99, 4};
	int fds[] = {-1, make_stats(rows, ARRAY_SIZE(rows), one, 4), -1, make_stats(rows, ARRAY_SIZE(rows), other, 4)};

	CHECK_STR(stats_of(fds, 4), "exits 0 11;blocking 1 1;sixteen_letters_ 2 7;");
	close(fds[1]);
	close(fds[3]);
}

static void what_is_no_statistics_is_none(void)
{
	static const struct stats_row far[] = {
		{"far", KVM_STATS_TYPE_CUMULATIVE, 1, 1 << 20}, {"odd", KVM_STATS_TYPE_CUMULATIVE, 1, 3},
		{"beyond", KVM_STATS_TYPE_CUMULATIVE, 1, 8},
	};
	const uint64_t value = 1;
	int none[] = {-1, -1}, fd;

	CHECK_STR(stats_of(none, 2), "");
	CHECK_STR(stats_of(none, 0), "");
	fd = memfd_create("stats", MFD_CLOEXEC);
	CHECK_STR(stats_of(&fd, 1), "");
	CHECK_EQ(pwrite(fd, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 24, 0), 24);
	CHECK_STR(stats_of(&fd, 1), "");
	close(fd);
	fd = make_stats(far, ARRAY_SIZE(far), &value, 1);
	CHECK_STR(stats_of(&fd, 1), "beyond 0 0;");
	close(fd);
	CHECK_EQ(kvm_stats_open(-1), -1);
}

TEST_MAIN(TEST(a_time_is_counted_in_its_bucket), TEST(counters_have_lines_of_their_own), TEST(families_have_samples),
	  TEST(nothing_is_an_empty_list), TEST(histograms_add_up), TEST(statistics_are_summed_over_vcpus),
	  TEST(what_is_no_statistics_is_none))
