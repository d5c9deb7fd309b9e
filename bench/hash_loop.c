/* SPDX-License-Identifier: MIT */
/* The loop of bench_hash.py: parse and hash a batch of frames that lie in L1, again and again. */
#include <time.h>

#include "hash.h"

#define STRIDE 128u

/**
 * hash_loop() - mean time of one frame
 * @frames:	@count frames, one every STRIDE bytes
 * @sum:	xor of all hashes, so that none is optimised away
 * Return: nanoseconds for @rounds × @count frames
 */
double hash_loop(const uint8_t *frames, const uint32_t *lengths, uint32_t count, uint32_t rounds,
		 uint32_t hash_types, const uint8_t *key, uint32_t *sum)
{
	static struct vnet_toeplitz toeplitz;
	const struct vnet_steering steering = { .hash_types = hash_types };
	struct timespec begin, end;
	uint32_t values = 0;

	vnet_toeplitz_init(&toeplitz, key);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin);
	for (uint32_t round = 0; round < rounds; round++) {
		for (uint32_t i = 0; i < count; i++) {
			struct vnet_flow flow;

			vnet_parse(frames + i * STRIDE, lengths[i], &flow);
			if (hash_types)
				values ^= vnet_hash_flow(&steering, &toeplitz, &flow).value;
			else
				values += flow.l4;
		}
	}
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
	*sum = values;
	return (double)(end.tv_sec - begin.tv_sec) * 1e9 + (double)(end.tv_nsec - begin.tv_nsec);
}
