/* SPDX-License-Identifier: MIT */
/*
 * Toeplitz kernels: the same function written for different CPUs.
 *
 * The hash of the bits b(0), b(1) … is the xor of the key's 32-bit windows that
 * begin at the set bits: bit j of the hash is the sum of b(i) · k(i + j).  So it
 * is linear in the input, and a piece of input contributes
 *
 *   - by table: one entry per value of each input byte; or
 *   - by carry-less multiplication: a sum over products of polynomials' bits,
 *     once one of the two is written the other way round.
 *
 * A 64-bit input word meets 95 key bits, more than a multiplication takes.  Its
 * first 63 make the piece "low" and the other 32 the piece "high" of struct
 * vnet_toeplitz; the sum of both products has the hash.  The ports, half a
 * word, need the low piece alone.  That makes one multiplication for each 32
 * bits of input, and none can be spared: 32 bits of hash depend on 63 key bits.
 *
 * GFNI has no kernel: its 8 × 8 bit matrices need as many instructions for the
 * same input (64 of 48 products for IPv4 per 512-bit instruction, as carry-less
 * multiplication does 4 of 3), and a transposition of the input on top.
 */
#ifndef PYVNET_HASH_KERNEL_H
#define PYVNET_HASH_KERNEL_H

#include <stdbool.h>
#include <stdint.h>

#include "hash.h"

/*
 * Inputs of one batch that have the same length, side by side.  Ports stand in
 * the first four bytes of a word, or are zero where they do not count.  Entries
 * from @count up to the next multiple of VNET_HASH_GROUP are readable, and what
 * becomes of them is nobody's concern.
 */
#define VNET_HASH_GROUP 16u
struct vnet_hash_ipv4 {
	uint64_t addresses[VNET_HASH_BATCH]; /* source, destination, as in the frame */
	uint64_t ports[VNET_HASH_BATCH];
	uint32_t count;
	uint8_t index[VNET_HASH_BATCH]; /* of the flow in its batch */
};

struct vnet_hash_ipv6 {
	const uint8_t *addresses[VNET_HASH_BATCH]; /* 32 bytes each */
	uint64_t ports[VNET_HASH_BATCH];
	uint32_t count;
	uint8_t index[VNET_HASH_BATCH];
};

struct vnet_hash_kernel {
	const char *name;
	/* Return: what this CPU (or its kernel) lacks for it; NULL: it runs */
	const char *(*lacks)(void);
	/* Fill what the kernel reads of @t. */
	void (*expand)(struct vnet_toeplitz *t, const uint8_t *key);
	/* @values has room for a multiple of VNET_HASH_GROUP. */
	void (*ipv4)(const struct vnet_toeplitz *t, const struct vnet_hash_ipv4 *inputs,
		     uint32_t *values);
	void (*ipv6)(const struct vnet_toeplitz *t, const struct vnet_hash_ipv6 *inputs,
		     uint32_t *values);
};

/* What is in this build, the best first; NULL ends it. */
extern const struct vnet_hash_kernel *const vnet_hash_kernels[];

extern const struct vnet_hash_kernel vnet_hash_tables;
extern const struct vnet_hash_kernel vnet_hash_pclmul;
extern const struct vnet_hash_kernel vnet_hash_vpclmul256;
extern const struct vnet_hash_kernel vnet_hash_vpclmul512;
extern const struct vnet_hash_kernel vnet_hash_pmull;

/** vnet_hash_kernel() - the one that policies made from now on use */
const struct vnet_hash_kernel *vnet_hash_kernel(void);

/** vnet_hash_fill_tables() - what each value of each of VNET_HASH_INPUT_MAX input bytes adds */
void vnet_hash_fill_tables(uint32_t (*tables)[256], const uint8_t *key);

/** vnet_hash_reflected_key() - expand() of the kernels that multiply bit-reflected key pieces */
void vnet_hash_reflected_key(struct vnet_toeplitz *t, const uint8_t *key);

/* Tests build a kernel for an emulation of its instructions, where the compiler must use none. */
#ifdef VNET_HASH_EMULATED
#define VNET_HASH_TARGET(names)
#define VNET_HASH_CPU_HAS(name) 1
#else
#define VNET_HASH_TARGET(names) __attribute__((target(names)))
#define VNET_HASH_CPU_HAS(name) __builtin_cpu_supports(name)
#endif

#endif
