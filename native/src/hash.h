/* SPDX-License-Identifier: MIT */
/*
 * Flow + hash types → 32-bit Toeplitz hash and report value ("Hash calculation
 * for incoming packets").  What depends on the key and the types alone is
 * worked out once, when a policy is made; flows are hashed in batches by the
 * fastest kernel this CPU has (hash_kernel.h).
 */
#ifndef PYVNET_HASH_H
#define PYVNET_HASH_H

#include <stdint.h>

#include "parse.h"
#include "pyvnet/steering_abi.h"

#define VNET_HASH_INPUT_MAX 36u /* two IPv6 addresses and two ports */
#define VNET_HASH_BATCH 32u     /* flows hashed in one go; more are taken in several */
#define VNET_HASH_WORDS 5u      /* of 64 bits in the longest input, the last one half full */

struct vnet_hash_kernel;

struct vnet_toeplitz {
	const struct vnet_hash_kernel *kernel;
	uint8_t choice[VNET_FLOW_KINDS]; /* what is hashed of a flow of each kind */
	uint64_t low[VNET_HASH_WORDS];   /* the key in pieces, as carry-less kernels want them */
	uint64_t high[VNET_HASH_WORDS - 1];
	uint32_t table[VNET_HASH_INPUT_MAX][256]; /* filled for kernels that look up */
};

struct vnet_hash {
	uint32_t value;  /* 0 when report is NONE (U-03) */
	uint16_t report; /* VIRTIO_NET_HASH_REPORT_* */
};

/**
 * vnet_toeplitz_init() - choose the kernel, expand key and hash types
 * @t:		filled; valid until another kernel is selected and beyond
 * @steering:	key, hash_types and flags are read
 */
void vnet_toeplitz_init(struct vnet_toeplitz *t, const struct vnet_steering *steering);

/**
 * vnet_hash_batch() - choose each flow's hash type by the standard's order and hash
 * @flows:	@n of them, from vnet_parse(); any number
 * @out:	@n results
 */
void vnet_hash_batch(const struct vnet_toeplitz *t, const struct vnet_flow *flows, uint32_t n,
		     struct vnet_hash *out);

/** vnet_hash_flow() - the same for a single flow */
static inline struct vnet_hash vnet_hash_flow(const struct vnet_toeplitz *t,
					      const struct vnet_flow *flow)
{
	struct vnet_hash hash;

	vnet_hash_batch(t, flow, 1, &hash);
	return hash;
}

#endif
