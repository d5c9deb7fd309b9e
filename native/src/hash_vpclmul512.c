/* SPDX-License-Identifier: MIT */
/* Carry-less multiplication on 512 bits. */
#include "hash_kernel.h"

#if defined(__x86_64__) || defined(VNET_HASH_EMULATED)

#define V __m512i
#define LANES 4
#define TARGET VNET_HASH_TARGET("avx512f,avx512bw,avx512vl,vpclmulqdq,pclmul")

#define SAME(lane) _mm512_broadcast_i32x4(lane)
#define LOAD(from) _mm512_loadu_si512(from)
#define STORE(to, v) _mm512_storeu_si512(to, v)
#define LANE(from) _mm_loadu_si128((const __m128i *)(from))
#define PUT(v, from, n) _mm512_inserti32x4(v, LANE(from), n)
#define GATHER(from, at)                                                                  \
	PUT(PUT(PUT(_mm512_castsi128_si512(LANE((from)[0] + (at))), (from)[2] + (at), 1), \
		(from)[4] + (at), 2),                                                     \
	    (from)[6] + (at), 3)
#define MULTIPLY(a, b, words) _mm512_clmulepi64_epi128(a, b, words)
#define SHUFFLE(a, by) _mm512_shuffle_epi8(a, by)
#define XOR(a, b) _mm512_xor_si512(a, b)
#define AND(a, b) _mm512_and_si512(a, b)
#define UPPER(a, b) _mm512_unpackhi_epi64(a, b)
#define LOWER(a, b) _mm512_unpacklo_epi64(a, b)
#define SHIFT_LEFT_16(a, n) _mm512_slli_epi16(a, n)
#define SHIFT_RIGHT_16(a, n) _mm512_srli_epi16(a, n)
#define NARROW(a, b)                                                         \
	_mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi64_epi32(a)), \
			   _mm512_cvtepi64_epi32(b), 1)

#include "hash_clmul.h"

static const char *lacks(void)
{
	if (!VNET_HASH_CPU_HAS("avx512f") || !VNET_HASH_CPU_HAS("avx512bw") ||
	    !VNET_HASH_CPU_HAS("avx512vl"))
		return "the CPU, or its kernel, has no AVX-512 (F, BW, VL)";
	return VNET_HASH_CPU_HAS("vpclmulqdq") ? NULL : "the CPU has no VPCLMULQDQ";
}

const struct vnet_hash_kernel vnet_hash_vpclmul512 = {
	.name = "vpclmul512",
	.lacks = lacks,
	.expand = vnet_hash_reflected_key,
	.ipv4 = ipv4,
	.ipv6 = ipv6,
};

#endif
