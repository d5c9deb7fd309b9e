/* SPDX-License-Identifier: MIT */
/*
 * struct vnet_steering: the whole steering and hash configuration as one
 * fixed-size value.  Python fills it, the C path reads it, and the steering
 * program (a later issue) finds the same bytes in its map; it changes only by
 * replacing the pointer to it, never in place.
 */
#ifndef PYVNET_STEERING_ABI_H
#define PYVNET_STEERING_ABI_H

#include <assert.h>
#include <stdint.h>

#define VNET_RSS_KEY_SIZE 40u
#define VNET_RSS_TABLE_LENGTH 128u

enum vnet_steering_mode {
	VNET_STEER_AUTOMATIC = 0, /* tap queue i feeds receiveq i (kernel's automatic steering) */
	VNET_STEER_RSS = 1,       /* receiveq = indirection_table[hash & mask] */
};

/* flags: switches of `--compat` that change hashing (U-19, U-58) */
#define VNET_STEER_F_EX_TYPES_ALWAYS 1u

struct vnet_steering {
	uint32_t mode;       /* enum vnet_steering_mode */
	uint32_t hash_types; /* VIRTIO_NET_HASH_TYPE_*; govern steering and report alike (U-17) */
	uint32_t flags;      /* VNET_STEER_F_* */
	uint16_t pairs;      /* automatic mode: receiveqs 0 … pairs-1 are in force */
	uint16_t indirection_table_mask;
	uint16_t unclassified_queue;
	uint16_t reserved;
	uint8_t key[VNET_RSS_KEY_SIZE]; /* zero-extended (U-13) */
	uint16_t indirection_table[VNET_RSS_TABLE_LENGTH];
};
static_assert(sizeof(struct vnet_steering) == 316, "vnet_steering");

#endif
