/* SPDX-License-Identifier: MIT */
/*
 * DPDK's Toeplitz functions over batches of 32 inputs that stay in the first-level cache.
 *
 *	toeplitz_dpdk softrss_be|gfni|gfni_bulk SECONDS
 */
#define ALLOW_EXPERIMENTAL_API /* the matrices of rte_thash_gfni() */
#include <string.h>

#include <rte_thash.h>

/* Inlined here, its second tuple looks to the compiler as if it could be used unset. */
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

#include "hash_inputs.h"

struct context {
	struct hash_inputs inputs;
	uint8_t key_be[KEY_SIZE];
	uint8_t *tuples[INPUTS];
	uint64_t matrices[KEY_SIZE];
};

static uint32_t softrss_be(void *context, uint32_t length)
{
	struct context *c = context;
	uint32_t sum = 0;

	for (uint32_t i = 0; i < INPUTS; i++) {
		uint32_t words[LONG_INPUT / 4];

		for (uint32_t w = 0; w < length / 4; w++) {
			memcpy(&words[w], c->inputs.bytes[i] + 4 * w, 4);
			words[w] = __builtin_bswap32(words[w]);
		}
		sum ^= rte_softrss_be(words, length / 4, c->key_be);
	}
	return sum;
}

#ifdef RTE_THASH_GFNI_DEFINED
static uint32_t gfni(void *context, uint32_t length)
{
	struct context *c = context;
	uint32_t sum = 0;

	for (uint32_t i = 0; i < INPUTS; i++)
		sum ^= rte_thash_gfni(c->matrices, c->inputs.bytes[i], (int)length);
	return sum;
}

static uint32_t gfni_bulk(void *context, uint32_t length)
{
	struct context *c = context;
	uint32_t values[INPUTS], sum = 0;

	rte_thash_gfni_bulk(c->matrices, (int)length, c->tuples, values, INPUTS);
	for (uint32_t i = 0; i < INPUTS; i++)
		sum ^= values[i];
	return sum;
}
#endif

static hash_all find(const char *name)
{
	if (!strcmp(name, "softrss_be"))
		return softrss_be;
#ifdef RTE_THASH_GFNI_DEFINED
	if (!strcmp(name, "gfni") && rte_thash_gfni_supported())
		return gfni;
	if (!strcmp(name, "gfni_bulk") && rte_thash_gfni_supported())
		return gfni_bulk;
#endif
	return NULL;
}

int main(int argc, char **argv)
{
	static struct context context __attribute__((aligned(64)));
	hash_all all = argc == 3 ? find(argv[1]) : NULL;

	if (!all) {
		fprintf(stderr,
			"usage: toeplitz_dpdk softrss_be|gfni|gfni_bulk SECONDS; "
			"gfni needs a CPU with GFNI and AVX-512, here and where it was built\n");
		return 1;
	}
	hash_inputs_make(&context.inputs);
	rte_convert_rss_key((const uint32_t *)(const void *)context.inputs.key,
			    (uint32_t *)(void *)context.key_be, KEY_SIZE);
	rte_thash_complete_matrix(context.matrices, context.inputs.key, KEY_SIZE);
	for (uint32_t i = 0; i < INPUTS; i++)
		context.tuples[i] = context.inputs.bytes[i];
	hash_print(all, &context, atof(argv[2]));
	return 0;
}
