/* SPDX-License-Identifier: MIT */
/*
 * struct vnet_steering: the whole steering and hash configuration as one
 * fixed-size value.  Python fills it, the C path reads it, and the steering
 * program finds the same bytes in its map; it changes only by replacing the
 * pointer to it, or the number of the slot it is in, never in place.
 *
 * This header is read by programs for the kernel too: nothing but the
 * freestanding <stdint.h>.
 */
#ifndef PYVNET_STEERING_ABI_H
#define PYVNET_STEERING_ABI_H

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
_Static_assert(sizeof(struct vnet_steering) == 316, "vnet_steering");

/*
 * What the steering program reads: the one value of its map, shared with the
 * device by mmap(2).
 *
 * The slot that is active is never written.  A new snapshot goes into a slot
 * that nobody can be reading, and then becomes the active one by a single store
 * (vnet_steering_map_publish()); the program loads @active once per frame.  So
 * a frame sees one snapshot or the next one, and never a mixture.  Nobody can
 * be reading a slot that is not active and was not since the last
 * vnet_steering_settle(), which is why there are more than two: waiting takes
 * milliseconds, and one wait frees all slots but one.
 */
#define VNET_STEERING_MAP_MAGIC 0x53747665u /* "evtS" */
#define VNET_STEERING_MAP_LAYOUT 1u
#define VNET_STEERING_SLOTS 16u
#define VNET_STEERING_KINDS 32u  /* of flows: what the choice of the hash type depends on */
#define VNET_STEERING_INPUT 36u  /* bytes of the longest hash input */

/* Of the next header: an extension header, or, with none of these bits, VNET_FLOW_TCP or _UDP. */
#define VNET_STEERING_EXTENSION 0x80u
#define VNET_STEERING_OPTIONS 0x40u
#define VNET_STEERING_DESTINATION 0x20u
#define VNET_STEERING_LAST 0x10u  /* nothing behind it is looked at */
#define VNET_STEERING_UNITS 0x0cu /* bytes in a unit of its length */
#define VNET_STEERING_ROUTING 0x01u

struct vnet_steering_slot {
	struct vnet_steering steering;
	/* Worked out from it, in the form the program reads. */
	uint8_t choice[VNET_STEERING_KINDS]; /* what is hashed of a flow of each kind */
	uint32_t zero; /* which the kernel's verifier does not know */
	uint8_t protocols[256]; /* VNET_STEERING_*: what the header of an IPv6 protocol number is */
	uint32_t reserved[8];
	uint32_t toeplitz[VNET_STEERING_INPUT][256]; /* what each value of each input byte adds */
};

struct vnet_steering_map {
	/* Written by who makes the map. */
	uint32_t magic, layout; /* VNET_STEERING_MAP_* */
	uint64_t stamp; /* of the program it was made for */

	uint32_t active; /* the slot the program reads */
	uint32_t reserved[11];
	struct vnet_steering_slot slots[VNET_STEERING_SLOTS];
};
_Static_assert(sizeof(struct vnet_steering_slot) % 64 == 0, "slots begin with a cache line");
_Static_assert(__builtin_offsetof(struct vnet_steering_map, slots) == 64, "slots");

#endif
