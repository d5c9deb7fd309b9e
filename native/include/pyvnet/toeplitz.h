/* SPDX-License-Identifier: MIT */
/*
 * One step of the Toeplitz hash, from which the tables of the C path and of the
 * steering program are worked out: header only, nothing but the freestanding
 * <stdint.h>, no loop whose bound depends on data.
 *
 * The hash of an input is the xor, over its set bits, of the 32 key bits that
 * begin at the bit's own position.  So an input byte at position p needs the
 * 39 key bits from bit 8p on: the five key bytes p … p+4, its window.
 */
#ifndef PYVNET_TOEPLITZ_H
#define PYVNET_TOEPLITZ_H

#include <stdint.h>

/**
 * vnet_toeplitz_window() - the key bytes one input byte is hashed with
 * @key:	at least @position + 5 bytes
 * @position:	of the input byte
 * Return: key bytes @position … @position + 4, the first in bits 39 … 32
 */
static inline uint64_t vnet_toeplitz_window(const uint8_t *key, uint32_t position)
{
	return (uint64_t)key[position] << 32 | (uint64_t)key[position + 1] << 24 |
	       (uint64_t)key[position + 2] << 16 | (uint64_t)key[position + 3] << 8 |
	       (uint64_t)key[position + 4];
}

/**
 * vnet_toeplitz_step() - what one input byte contributes to the hash
 * @window:	from vnet_toeplitz_window() for the byte's position
 * @byte:	the input byte
 * Return: to be xored to the contributions of the other bytes
 */
static inline uint32_t vnet_toeplitz_step(uint64_t window, uint8_t byte)
{
	uint32_t hash = 0;

	for (uint32_t bit = 0; bit < 8; bit++) { /* 0 is the leftmost bit of the byte */
		const uint32_t set = ((uint32_t)byte >> (7 - bit)) & 1u;

		hash ^= (uint32_t)(window >> (8 - bit)) & (0u - set);
	}
	return hash;
}

/**
 * vnet_toeplitz_key_word() - 64 bits of the key, its first in bit 63
 * @key:	at least 8 · @word + 8 bytes
 */
static inline uint64_t vnet_toeplitz_key_word(const uint8_t *key, uint32_t word)
{
	uint64_t bits = 0;

	for (uint32_t i = 0; i < 8; i++)
		bits = bits << 8 | key[word * 8 + i];
	return bits;
}

#endif
