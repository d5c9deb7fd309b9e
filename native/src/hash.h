/* SPDX-License-Identifier: MIT */
/*
 * Flow + hash types → 32-bit Toeplitz hash and report value ("Hash calculation
 * for incoming packets").  The key is expanded once, when a policy is made,
 * into a table per input byte; a hash is then one lookup and xor per byte.
 */
#ifndef PYVNET_HASH_H
#define PYVNET_HASH_H

#include <stdint.h>

#include "parse.h"
#include "pyvnet/steering_abi.h"

#define VNET_HASH_INPUT_MAX 36u /* two IPv6 addresses and two ports */

struct vnet_toeplitz {
	uint32_t table[VNET_HASH_INPUT_MAX][256];
};

struct vnet_hash {
	uint32_t value;  /* 0 when report is NONE (U-03) */
	uint16_t report; /* VIRTIO_NET_HASH_REPORT_* */
};

/**
 * vnet_toeplitz_init() - expand a key
 * @t:		filled
 * @key:	VNET_RSS_KEY_SIZE bytes
 */
void vnet_toeplitz_init(struct vnet_toeplitz *t, const uint8_t *key);

/**
 * vnet_hash_flow() - choose the hash type by the standard's order and hash
 * @steering:	hash_types and flags are read
 * @t:		the expanded key of @steering
 * @flow:	from vnet_parse()
 */
struct vnet_hash vnet_hash_flow(const struct vnet_steering *steering, const struct vnet_toeplitz *t,
				const struct vnet_flow *flow);

#endif
