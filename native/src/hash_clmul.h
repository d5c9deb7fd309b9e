/* SPDX-License-Identifier: MIT */
/*
 * The body of the carry-less kernels of x86, for any width of registers.
 *
 * Whoever includes this defines the register type V, LANES (of 128 bits in it),
 * TARGET, and the operations below with the register's width in their names.
 * A turn hashes four frames per lane, and has two halves, each with two frames
 * per lane: "even" and "odd".
 *
 * Input words are loaded big-endian, so that the first bit is the highest; the
 * key pieces are reflected.  Then bit j of the hash is bit 64 + j of a product
 * with "low", and bit j of a product with "high"; it comes out reflected too,
 * and is turned round once per hash, with lookups of nibbles.
 */
#ifndef PYVNET_HASH_CLMUL_H
#define PYVNET_HASH_CLMUL_H

#include <immintrin.h>

#include "hash_kernel.h"

#define FRAMES (4 * LANES)

struct sums {
	V even_low, odd_low; /* the hash in the upper word of a lane */
	V even_high, odd_high; /* and in the lower one */
};

TARGET static inline V swap_words(V words)
{
	return SHUFFLE(words,
		       SAME(_mm_set_epi8(8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7)));
}

/* Add what the two words per lane of @x contribute that belong to two frames. */
TARGET static inline void add_ports(const struct vnet_toeplitz *t, uint32_t word, V ports,
				    struct sums *s)
{
	const V key = SAME(_mm_cvtsi64_si128((int64_t)t->low[word]));

	s->even_low = XOR(s->even_low, MULTIPLY(ports, key, 0x00));
	s->odd_low = XOR(s->odd_low, MULTIPLY(ports, key, 0x01));
}

/* One hash per 64 bits, two frames per lane. */
TARGET static inline V fold(const struct sums *s)
{
	return XOR(UPPER(s->even_low, s->odd_low), LOWER(s->even_high, s->odd_high));
}

/* Two folded halves → hashes as they are, in order. */
TARGET static inline void finish(V first, V second, uint32_t *values)
{
	const V nibble = SAME(_mm_set1_epi8(0x0f));
	const V reflected =
		SAME(_mm_set_epi8(15, 7, 11, 3, 13, 5, 9, 1, 14, 6, 10, 2, 12, 4, 8, 0));
	const V swap = SAME(_mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3));
	const V hashes = SHUFFLE(NARROW(first, second), swap);
	const V upper = SHUFFLE(SHIFT_LEFT_16(reflected, 4), AND(hashes, nibble));
	const V lower = SHUFFLE(reflected, AND(SHIFT_RIGHT_16(hashes, 4), nibble));

	STORE(values, XOR(upper, lower));
}

TARGET static inline V half_ipv4(const struct vnet_toeplitz *t, const uint64_t *addresses,
				 const uint64_t *ports)
{
	const V key = SAME(_mm_set_epi64x((int64_t)t->high[0], (int64_t)t->low[0]));
	const V words = swap_words(LOAD(addresses));
	struct sums s = {
		.even_low = MULTIPLY(words, key, 0x00),
		.odd_low = MULTIPLY(words, key, 0x01),
		.even_high = MULTIPLY(words, key, 0x10),
		.odd_high = MULTIPLY(words, key, 0x11),
	};

	add_ports(t, 1, swap_words(LOAD(ports)), &s);
	return fold(&s);
}

TARGET static void ipv4(const struct vnet_toeplitz *t, const struct vnet_hash_ipv4 *inputs,
			uint32_t *values)
{
	for (uint32_t i = 0; i < inputs->count; i += FRAMES)
		finish(half_ipv4(t, inputs->addresses + i, inputs->ports + i),
		       half_ipv4(t, inputs->addresses + i + FRAMES / 2,
				 inputs->ports + i + FRAMES / 2),
		       values + i);
}

/* The sums of one frame per lane; the pieces of the key are in the order of the words. */
TARGET static inline void sum_ipv6(const struct vnet_toeplitz *t, const uint8_t *const *addresses,
				   V *low, V *high)
{
	const V low01 = SAME(_mm_loadu_si128((const __m128i *)&t->low[0]));
	const V low23 = SAME(_mm_loadu_si128((const __m128i *)&t->low[2]));
	const V high01 = SAME(_mm_loadu_si128((const __m128i *)&t->high[0]));
	const V high23 = SAME(_mm_loadu_si128((const __m128i *)&t->high[2]));
	const V source = swap_words(GATHER(addresses, 0));
	const V destination = swap_words(GATHER(addresses, 16));

	*low = XOR(XOR(MULTIPLY(source, low01, 0x00), MULTIPLY(source, low01, 0x11)),
		   XOR(MULTIPLY(destination, low23, 0x00), MULTIPLY(destination, low23, 0x11)));
	*high = XOR(XOR(MULTIPLY(source, high01, 0x00), MULTIPLY(source, high01, 0x11)),
		    XOR(MULTIPLY(destination, high23, 0x00), MULTIPLY(destination, high23, 0x11)));
}

/* Lane l of "even" is frame 2l, of "odd" frame 2l + 1: GATHER() takes every second address. */
TARGET static inline V half_ipv6(const struct vnet_toeplitz *t, const uint8_t *const *addresses,
				 const uint64_t *ports)
{
	struct sums s;

	sum_ipv6(t, addresses, &s.even_low, &s.even_high);
	sum_ipv6(t, addresses + 1, &s.odd_low, &s.odd_high);
	add_ports(t, 4, swap_words(LOAD(ports)), &s);
	return fold(&s);
}

TARGET static void ipv6(const struct vnet_toeplitz *t, const struct vnet_hash_ipv6 *inputs,
			uint32_t *values)
{
	for (uint32_t i = 0; i < inputs->count; i += FRAMES)
		finish(half_ipv6(t, inputs->addresses + i, inputs->ports + i),
		       half_ipv6(t, inputs->addresses + i + FRAMES / 2,
				 inputs->ports + i + FRAMES / 2),
		       values + i);
}

#endif
