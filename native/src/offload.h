/* SPDX-License-Identifier: MIT */
/*
 * Offloads: what a header may say about a frame, in either direction.
 *
 * Theory
 *   A header asks the receiver of a frame for work: to finish its checksum, to
 *   cut it into segments.  The host port asks the driver, the driver asks the
 *   host port; both are strangers here.  A header is judged in private memory,
 *   against the frame it stands in front of, and a clean one is written from
 *   what was found: fields nobody may rely on (hdr_len, NET-TX-05) are worked
 *   out anew, bits nobody knows end here (NET-TX-01).
 *
 *   What is allowed is a set of VNET_OFFLOAD_* in one numbering for both
 *   directions; a policy holds one for each.  Segmentation is in a set only
 *   together with the checksum it needs.
 *
 *   A frame that wants its checksum finished is never lost for that: what the
 *   driver may not be asked is done here.  Segments are not cut here.
 */
#ifndef PYVNET_OFFLOAD_H
#define PYVNET_OFFLOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "parse.h"
#include "pyvnet/virtio_abi.h"

#define VNET_OFFLOAD_CSUM 0x01u
#define VNET_OFFLOAD_TSO4 0x02u
#define VNET_OFFLOAD_TSO6 0x04u
#define VNET_OFFLOAD_ECN 0x08u
#define VNET_OFFLOAD_USO4 0x20u
#define VNET_OFFLOAD_USO6 0x40u

/* Bytes of a frame that are looked at, hence copied, before it is sent (U-63). */
#define VNET_OFFLOAD_HEAD 256u

#define VNET_ETHERNET_HEADER 14u

/** vnet_offload_guest() - bits of CTRL_GUEST_OFFLOADS → VNET_OFFLOAD_* */
uint32_t vnet_offload_guest(uint64_t guest_offloads);
/** vnet_offload_host() - CSUM and HOST_* feature bits → VNET_OFFLOAD_* */
uint32_t vnet_offload_host(uint64_t host_offloads);

/** vnet_offload_asked() - does a header ask for anything?  A clean one of one that does not is all zeros */
static inline bool vnet_offload_asked(const struct virtio_net_hdr_v1 *header)
{
	return (header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) ||
	       header->gso_type != VIRTIO_NET_HDR_GSO_NONE;
}

/**
 * vnet_offload_clean() - judge a header
 * @allowed:	VNET_OFFLOAD_* it may ask for
 * @header:	as its sender wrote it, in private memory
 * @head:	the frame's first bytes, in private memory
 * @head_len:	how many there are
 * @len:	of the whole frame
 * @flow:	vnet_parse() of @head; not looked at without a GSO type
 * @clean:	what is asked for, and nothing else; flags are 0 or NEEDS_CSUM, num_buffers is 0
 * Return: false if it asks for what is not allowed, or not for this frame
 */
bool vnet_offload_clean(uint32_t allowed, const struct virtio_net_hdr_v1 *header,
			const uint8_t *head, uint32_t head_len, uint32_t len,
			const struct vnet_flow *flow, struct virtio_net_hdr_v1 *clean);

enum vnet_offload_result { VNET_OFFLOAD_AS_IT_IS, VNET_OFFLOAD_COMPLETED, VNET_OFFLOAD_REFUSED };

/**
 * vnet_offload_receive() - the header a driver may see of a frame from the host port
 * Completes the checksum where the driver may not be asked to, and says so in @header,
 * so that the same frame may be judged again.
 */
enum vnet_offload_result vnet_offload_receive(uint32_t allowed, struct virtio_net_hdr_v1 *header,
					      uint8_t *frame, uint32_t len,
					      const struct vnet_flow *flow,
					      struct virtio_net_hdr_v1 *shown);

/** vnet_offload_sum() - the internet checksum of @len bytes, as it lies in memory */
uint16_t vnet_offload_sum(const uint8_t *data, uint32_t len);

#endif
