/* SPDX-License-Identifier: MIT */
/* Clocks, options, percentiles, and what the kernel counted. */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static inline uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* One line on standard error, and the end. */
__attribute__((noreturn, format(printf, 1, 2))) static inline void die(const char *format, ...)
{
	__builtin_va_list arguments;

	__builtin_va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	__builtin_va_end(arguments);
	fputc('\n', stderr);
	exit(1);
}

/* The word after `--name`, or `otherwise`. */
static inline const char *option(int argc, char **argv, const char *name, const char *otherwise)
{
	for (int i = 1; i + 1 < argc; i++)
		if (strcmp(argv[i], name) == 0)
			return argv[i + 1];
	return otherwise;
}

static inline bool flag(int argc, char **argv, const char *name)
{
	for (int i = 1; i < argc; i++)
		if (strcmp(argv[i], name) == 0)
			return true;
	return false;
}

static inline double option_number(int argc, char **argv, const char *name, const char *otherwise)
{
	const char *text = option(argc, argv, name, otherwise);
	char *end;
	double number = strtod(text, &end);

	if (!*text || *end)
		die("%s %s is no number", name, text);
	return number;
}

struct link_counts {
	unsigned long long rx_packets; /* of a tap: frames its program wrote */
	unsigned long long rx_dropped;
	unsigned long long tx_packets; /* of a tap: frames its program read */
	unsigned long long tx_dropped;
};

/* What the kernel counted for an interface of this network namespace; zeros if it is not there. */
static inline struct link_counts link_counts(const char *interface)
{
	struct link_counts c = { 0 };
	char line[512];
	FILE *file = fopen("/proc/thread-self/net/dev", "re");

	while (file && fgets(line, sizeof(line), file)) {
		char *name = line + strspn(line, " ");
		char *colon = strchr(name, ':');

		if (!colon)
			continue;
		*colon = 0;
		if (strcmp(name, interface) != 0)
			continue;
		sscanf(colon + 1, "%*u %llu %*u %llu %*u %*u %*u %*u %*u %llu %*u %llu",
		       &c.rx_packets, &c.rx_dropped, &c.tx_packets, &c.tx_dropped);
	}
	if (file)
		fclose(file);
	return c;
}

static inline int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* Sort `n` values of nanoseconds; the one that `part` of them do not exceed, in microseconds. */
static inline double percentile_us(uint32_t *values, size_t n, double part)
{
	size_t at = (size_t)(part * (double)n);

	qsort(values, n, sizeof(*values), by_value);
	return values[at < n ? at : n - 1] / 1000.0;
}

#endif
