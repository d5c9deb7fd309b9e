/* SPDX-License-Identifier: MIT */
/* Carry-less multiplication on 256 bits. */
#include "hash_kernel.h"

#if defined(__x86_64__) || defined(VNET_HASH_EMULATED)

#define V __m256i
#define LANES 2
#define TARGET VNET_HASH_TARGET("avx2,vpclmulqdq,pclmul")

#define SAME(lane) _mm256_broadcastsi128_si256(lane)
#define LOAD(from) _mm256_loadu_si256((const __m256i *)(from))
#define STORE(to, v) _mm256_storeu_si256((__m256i *)(to), v)
#define LANE(from) _mm_loadu_si128((const __m128i *)(from))
#define GATHER(from, at)                                                        \
	_mm256_inserti128_si256(_mm256_castsi128_si256(LANE((from)[0] + (at))), \
				LANE((from)[2] + (at)), 1)
#define MULTIPLY(a, b, words) _mm256_clmulepi64_epi128(a, b, words)
#define SHUFFLE(a, by) _mm256_shuffle_epi8(a, by)
#define XOR(a, b) _mm256_xor_si256(a, b)
#define AND(a, b) _mm256_and_si256(a, b)
#define UPPER(a, b) _mm256_unpackhi_epi64(a, b)
#define LOWER(a, b) _mm256_unpacklo_epi64(a, b)
#define SHIFT_LEFT_16(a, n) _mm256_slli_epi16(a, n)
#define SHIFT_RIGHT_16(a, n) _mm256_srli_epi16(a, n)
#define NARROW(a, b)                                                                             \
	_mm256_permute4x64_epi64(_mm256_castps_si256(_mm256_shuffle_ps(                          \
					 _mm256_castsi256_ps(a), _mm256_castsi256_ps(b), 0x88)), \
				 0xd8)

#include "hash_clmul.h"

static const char *lacks(void)
{
	if (!VNET_HASH_CPU_HAS("avx2"))
		return "the CPU, or its kernel, has no AVX2";
	return VNET_HASH_CPU_HAS("vpclmulqdq") ? NULL : "the CPU has no VPCLMULQDQ";
}

const struct vnet_hash_kernel vnet_hash_vpclmul256 = {
	.name = "vpclmul256",
	.lacks = lacks,
	.expand = vnet_hash_reflected_key,
	.ipv4 = ipv4,
	.ipv6 = ipv6,
};

#endif
