/* SPDX-License-Identifier: MIT */
/*
 * The policy: one immutable snapshot of all that the frame path decides by.
 * Made and checked by the control thread, shared by reference count, swapped
 * by one pointer per worker between two batches.
 */
#ifndef PYVNET_POLICY_H
#define PYVNET_POLICY_H

#include <stdatomic.h>
#include <stdbool.h>

#include "hash.h"
#include "mutants.h"
#include "pyvnet/virtio_abi.h"
#include "pyvnet/vnet.h"

#define VNET_PAIR_WORDS (VNET_MAX_PAIRS / 64u)

struct vnet_policy {
	_Atomic uint32_t refs;
	uint32_t
		serial; /* no two of a process have the same, but for 4 billion others between them */
	struct vnet_steering steering;
	uint32_t header_length;
	uint32_t port_queues;
	uint32_t mtu;
	bool merge_rx;
	bool wants_hash; /* someone looks at the hash: RSS, or a header that reports it */
	uint32_t rx_offloads; /* VNET_OFFLOAD_*: what may be delivered, and what asked for */
	uint32_t tx_offloads;
	struct vnet_filter filter; /* its tables, sorted, are part of this allocation */
	struct vnet_toeplitz toeplitz;
	uint8_t tables[]; /* unicast, then multicast */
};

struct vnet_policy *vnet_policy_get(struct vnet_policy *policy);

/** vnet_steer() - the receiveq of a frame ("RSS processing", "Automatic receive steering") */
static inline uint16_t vnet_steer(const struct vnet_policy *policy, struct vnet_hash hash,
				  uint32_t port_queue)
{
	const struct vnet_steering *s = &policy->steering;

	if (s->mode == VNET_STEER_AUTOMATIC && s->pairs > 1 && VNET_MUTANT(AUTOMATIC_BEYOND_PAIRS))
		return s->pairs;
	if (s->mode == VNET_STEER_AUTOMATIC) /* a tap queue beyond the pairs is being drained */
		return (uint16_t)(port_queue < s->pairs ? port_queue : port_queue % s->pairs);
	if (VNET_MUTANT(TABLE_MODULO_QUEUES))
		return (uint16_t)(hash.value % s->pairs);
	if (hash.report == VIRTIO_NET_HASH_REPORT_NONE && !VNET_MUTANT(UNCLASSIFIED_BY_TABLE))
		return s->unclassified_queue;
	if (VNET_MUTANT(TABLE_UPPER_BITS))
		hash.value >>= 16;
	return s->indirection_table[hash.value & s->indirection_table_mask];
}

#endif
