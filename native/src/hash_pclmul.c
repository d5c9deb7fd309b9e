/* SPDX-License-Identifier: MIT */
/* Carry-less multiplication on 128 bits: x86 since 2010. */
#include "hash_kernel.h"

#if defined(__x86_64__) || defined(VNET_HASH_EMULATED)

#define V __m128i
#define LANES 1
#define TARGET VNET_HASH_TARGET("pclmul,ssse3,sse4.1")

#define SAME(lane) (lane)
#define LOAD(from) _mm_loadu_si128((const __m128i *)(from))
#define STORE(to, v) _mm_storeu_si128((__m128i *)(to), v)
#define GATHER(from, at) LOAD((from)[0] + (at))
#define MULTIPLY(a, b, words) _mm_clmulepi64_si128(a, b, words)
#define SHUFFLE(a, by) _mm_shuffle_epi8(a, by)
#define XOR(a, b) _mm_xor_si128(a, b)
#define AND(a, b) _mm_and_si128(a, b)
#define UPPER(a, b) _mm_unpackhi_epi64(a, b)
#define LOWER(a, b) _mm_unpacklo_epi64(a, b)
#define SHIFT_LEFT_16(a, n) _mm_slli_epi16(a, n)
#define SHIFT_RIGHT_16(a, n) _mm_srli_epi16(a, n)
#define NARROW(a, b) \
	_mm_castps_si128(_mm_shuffle_ps(_mm_castsi128_ps(a), _mm_castsi128_ps(b), 0x88))

#include "hash_clmul.h"

static const char *lacks(void)
{
	return VNET_HASH_CPU_HAS("pclmul") && VNET_HASH_CPU_HAS("sse4.1") ?
		       NULL :
		       "the CPU has no PCLMULQDQ";
}

const struct vnet_hash_kernel vnet_hash_pclmul = {
	.name = "pclmul",
	.lacks = lacks,
	.expand = vnet_hash_reflected_key,
	.ipv4 = ipv4,
	.ipv6 = ipv6,
};

#endif
