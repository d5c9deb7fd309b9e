/* SPDX-License-Identifier: MIT */
/* What the Toeplitz programs share: 32 random inputs of each length, a key, and the clock. */
#ifndef BENCH_HASH_INPUTS_H
#define BENCH_HASH_INPUTS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define INPUTS 32u
#define SHORT_INPUT 12u /* IPv4 addresses and ports */
#define LONG_INPUT 36u  /* IPv6 */
#define KEY_SIZE 40u

struct hash_inputs {
	uint8_t key[KEY_SIZE];
	uint8_t bytes[INPUTS][64]; /* each on a cache line of its own */
} __attribute__((aligned(64)));

static inline void hash_inputs_make(struct hash_inputs *in)
{
	uint64_t state = 88172645463325252u;
	uint8_t *bytes = (uint8_t *)in;

	for (size_t i = 0; i < sizeof(*in); i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		bytes[i] = (uint8_t)(state >> 32);
	}
}

static inline double hash_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* One go over all inputs of a length; Return: the xor of the hashes */
typedef uint32_t (*hash_all)(void *context, uint32_t length);

/* Return: nanoseconds per hash, over at least @seconds */
static inline double hash_measure(hash_all all, void *context, uint32_t length, double seconds)
{
	const uint32_t turns = 2000;
	volatile uint32_t sink = 0;
	uint64_t count = 0;
	double began, took;

	for (uint32_t i = 0; i < turns; i++)
		sink = sink ^ all(context, length);
	began = hash_now();
	do {
		for (uint32_t i = 0; i < turns; i++)
			sink = sink ^ all(context, length);
		count += (uint64_t)turns * INPUTS;
		took = hash_now() - began;
	} while (took < seconds);
	return took * 1e9 / (double)count;
}

static inline void hash_print(hash_all all, void *context, double seconds)
{
	const double ipv4 = hash_measure(all, context, SHORT_INPUT, seconds / 2);
	const double ipv6 = hash_measure(all, context, LONG_INPUT, seconds / 2);

	/* Both lengths once more, known to be equal among all programs. */
	printf("{\"ns_12\": %.4f, \"ns_36\": %.4f, \"check_12\": %u, \"check_36\": %u}\n", ipv4,
	       ipv6, all(context, SHORT_INPUT), all(context, LONG_INPUT));
}

#endif
