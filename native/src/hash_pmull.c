/* SPDX-License-Identifier: MIT */
/*
 * Carry-less multiplication on aarch64.  RBIT reflects the bits of the input's
 * bytes, so the key pieces are not reflected and the hash comes out as it is:
 * bit j, counted from the highest, is bit 63 - j of a product with "low" and
 * bit 95 - j of one with "high".
 */
#include "hash_kernel.h"

#if defined(__aarch64__)

#include <arm_neon.h>
#include <stddef.h>
#include <string.h>
#include <sys/auxv.h>

#include "pyvnet/toeplitz.h"

#define TARGET VNET_HASH_TARGET("+crypto")
#define HWCAP_PMULL_BIT (1ul << 4)

static const char *lacks(void)
{
	return getauxval(AT_HWCAP) & HWCAP_PMULL_BIT ? NULL : "the CPU has no PMULL";
}

static void expand(struct vnet_toeplitz *t, const uint8_t *key)
{
	for (uint32_t word = 0; word < VNET_HASH_WORDS; word++) {
		const uint64_t first = vnet_toeplitz_key_word(key, word);

		t->low[word] = first & ~UINT64_C(1);
		if (word < VNET_HASH_WORDS - 1)
			t->high[word] =
				(first & 1) << 32 | vnet_toeplitz_key_word(key, word + 1) >> 32;
	}
}

TARGET static inline uint64x2_t multiply(uint64_t a, uint64_t b)
{
	return vreinterpretq_u64_p128(vmull_p64((poly64_t)a, (poly64_t)b));
}

TARGET static inline uint64_t reflect(uint64_t word)
{
	return vget_lane_u64(vreinterpret_u64_u8(vrbit_u8(vreinterpret_u8_u64(vcreate_u64(word)))),
			     0);
}

/* Contribution of one whole word; the caller takes the upper half of the result. */
TARGET static inline uint64_t contribution(const struct vnet_toeplitz *t, uint32_t word,
					   uint64_t input)
{
	const uint64_t reflected = reflect(input);

	return vgetq_lane_u64(multiply(reflected, t->low[word]), 0) ^
	       vgetq_lane_u64(multiply(reflected, t->high[word]), 1) << 32;
}

TARGET static inline uint64_t ports_contribution(const struct vnet_toeplitz *t, uint32_t word,
						 uint64_t ports)
{
	return vgetq_lane_u64(multiply(reflect(ports), t->low[word]), 0);
}

TARGET static void ipv4(const struct vnet_toeplitz *t, const struct vnet_hash_ipv4 *inputs,
			uint32_t *values)
{
	for (uint32_t i = 0; i < inputs->count; i++)
		values[i] = (uint32_t)((contribution(t, 0, inputs->addresses[i]) ^
					ports_contribution(t, 1, inputs->ports[i])) >>
				       32);
}

TARGET static void ipv6(const struct vnet_toeplitz *t, const struct vnet_hash_ipv6 *inputs,
			uint32_t *values)
{
	for (uint32_t i = 0; i < inputs->count; i++) {
		uint64_t hash = ports_contribution(t, 4, inputs->ports[i]);
		uint64_t words[4];

		memcpy(words, inputs->addresses[i], sizeof(words));
		for (uint32_t word = 0; word < 4; word++)
			hash ^= contribution(t, word, words[word]);
		values[i] = (uint32_t)(hash >> 32);
	}
}

const struct vnet_hash_kernel vnet_hash_pmull = {
	.name = "pmull",
	.lacks = lacks,
	.expand = expand,
	.ipv4 = ipv4,
	.ipv6 = ipv6,
};

#endif
