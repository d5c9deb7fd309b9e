/* SPDX-License-Identifier: MIT */
#include "offload.h"

#include <string.h>

#include "mutants.h"
#include "test_hooks.h"

#define TCP_HEADER 20u /* without options */
#define TCP_DATA_OFFSET 12u
#define TCP_CSUM_OFFSET 16u
#define UDP_HEADER 8u
#define UDP_CSUM_OFFSET 6u

/* Linux keeps this size for itself; it is no size any segment could have. */
#define GSO_BY_FRAGS 0xffffu

/* Segmentation needs the checksum, ECN a segmentation of TCP ("Feature bit requirements"). */
static uint32_t consistent(uint32_t set)
{
	if (!(set & VNET_OFFLOAD_CSUM))
		return 0;
	return set & (VNET_OFFLOAD_TSO4 | VNET_OFFLOAD_TSO6) ? set : set & ~VNET_OFFLOAD_ECN;
}

uint32_t vnet_offload_guest(uint64_t bits)
{
	return consistent((bits & VIRTIO_NET_F_GUEST_CSUM ? VNET_OFFLOAD_CSUM : 0) |
			  (bits & VIRTIO_NET_F_GUEST_TSO4 ? VNET_OFFLOAD_TSO4 : 0) |
			  (bits & VIRTIO_NET_F_GUEST_TSO6 ? VNET_OFFLOAD_TSO6 : 0) |
			  (bits & VIRTIO_NET_F_GUEST_ECN ? VNET_OFFLOAD_ECN : 0) |
			  (bits & VIRTIO_NET_F_GUEST_USO4 ? VNET_OFFLOAD_USO4 : 0) |
			  (bits & VIRTIO_NET_F_GUEST_USO6 ? VNET_OFFLOAD_USO6 : 0));
}

uint32_t vnet_offload_host(uint64_t bits)
{
	return consistent(
		(bits & VIRTIO_NET_F_CSUM ? VNET_OFFLOAD_CSUM : 0) |
		(bits & VIRTIO_NET_F_HOST_TSO4 ? VNET_OFFLOAD_TSO4 : 0) |
		(bits & VIRTIO_NET_F_HOST_TSO6 ? VNET_OFFLOAD_TSO6 : 0) |
		(bits & VIRTIO_NET_F_HOST_ECN ? VNET_OFFLOAD_ECN : 0) |
		(bits & VIRTIO_NET_F_HOST_USO ? VNET_OFFLOAD_USO4 | VNET_OFFLOAD_USO6 : 0));
}

/* Return: the bits of a set that a GSO type over this IP version takes; 0: there is no such type */
static uint32_t needed(uint8_t gso_type, uint8_t l3)
{
	uint32_t ecn = gso_type & VIRTIO_NET_HDR_GSO_ECN ? VNET_OFFLOAD_ECN : 0;

	switch (gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
	case VIRTIO_NET_HDR_GSO_TCPV4:
		return VNET_OFFLOAD_TSO4 | ecn;
	case VIRTIO_NET_HDR_GSO_TCPV6:
		return VNET_OFFLOAD_TSO6 | ecn;
	case VIRTIO_NET_HDR_GSO_UDP_L4:
		if (ecn)
			return 0;
		return l3 == 4 ? VNET_OFFLOAD_USO4 : VNET_OFFLOAD_USO6;
	default: /* UFO is not offered, tunnel bits neither (NET-TX-06, NET-RX-09) */
		return 0;
	}
}

/*
 * Return: how long the headers are that every segment repeats, 0 if the frame
 * is not what its GSO type says, or its checksum not where that type has it.
 */
static uint32_t segment_headers(const struct virtio_net_hdr_v1 *h, const uint8_t *head,
				uint32_t head_len, const struct vnet_flow *flow)
{
	bool udp = h->gso_type == VIRTIO_NET_HDR_GSO_UDP_L4;
	uint32_t at = flow->l4_offset, left = head_len - at, size = UDP_HEADER;

	if (flow->l4 != (udp ? PROTO_UDP : PROTO_TCP) || h->csum_start != at ||
	    h->csum_offset != (udp ? UDP_CSUM_OFFSET : TCP_CSUM_OFFSET))
		return 0;
	if (!udp) {
		if (flow->l3 !=
		    ((h->gso_type & ~VIRTIO_NET_HDR_GSO_ECN) == VIRTIO_NET_HDR_GSO_TCPV4 ? 4 : 6))
			return 0;
		size = left < TCP_HEADER ? 0 : (head[at + TCP_DATA_OFFSET] >> 4) * 4u;
		if (size < TCP_HEADER)
			return 0;
	}
	return size <= left ? at + size : 0;
}

bool vnet_offload_clean(uint32_t allowed, const struct virtio_net_hdr_v1 *h, const uint8_t *head,
			uint32_t head_len, uint32_t len, const struct vnet_flow *flow,
			struct virtio_net_hdr_v1 *clean)
{
	bool wants_csum = h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM;
	bool gso = h->gso_type != VIRTIO_NET_HDR_GSO_NONE;
	uint32_t bits, headers;

	*clean = (struct virtio_net_hdr_v1){ 0 };
	if (wants_csum) {
		if (VNET_GUARD(OFFLOAD_CSUM, !(allowed & VNET_OFFLOAD_CSUM)))
			return false;
		if (VNET_GUARD(OFFLOAD_RANGE,
			       h->csum_start < VNET_ETHERNET_HEADER ||
				       (uint32_t)h->csum_start + h->csum_offset + 2 > len))
			return false;
		clean->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
		clean->csum_start = h->csum_start;
		clean->csum_offset = h->csum_offset;
	}
	if (!gso)
		return true; /* the other fields are dead (NET-TX-02) */
	bits = needed(h->gso_type, flow->l3);
	if (VNET_GUARD(OFFLOAD_TYPE, !bits || (bits & ~allowed)))
		return false;
	if (VNET_GUARD(OFFLOAD_GSO_CSUM, !wants_csum))
		return false;
	if (VNET_GUARD(OFFLOAD_GSO_SIZE, !h->gso_size || h->gso_size == GSO_BY_FRAGS))
		return false;
	headers = segment_headers(h, head, head_len, flow);
	if (VNET_GUARD(OFFLOAD_GSO_FRAME, !headers))
		return false;
	clean->gso_type = h->gso_type;
	clean->gso_size = h->gso_size;
	clean->hdr_len = (uint16_t)headers;
	VNET_MUTATE(gso, clean);
	return true;
}

uint16_t vnet_offload_sum(const uint8_t *data, uint32_t len)
{
	uint64_t sum = 0;

	/* One's complement sums do not care how their words are grouped or stored (RFC 1071). */
	for (; len >= 4; data += 4, len -= 4) {
		uint32_t word;

		memcpy(&word, data, sizeof(word));
		sum += word;
	}
	if (len) {
		uint32_t word = 0;

		memcpy(&word, data, len);
		sum += word;
	}
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

/* What the driver's stack expects of a sender: over everything from csum_start on (NET-RX-06). */
static void complete(const struct virtio_net_hdr_v1 *h, uint8_t *frame, uint32_t len)
{
	uint16_t sum = vnet_offload_sum(frame + h->csum_start, len - h->csum_start);

	if (VNET_MUTANT(CSUM_NOT_COMPLETED))
		return;
	if (!sum && h->csum_offset == UDP_CSUM_OFFSET)
		sum = 0xffff; /* 0 would say that there is none (RFC 768) */
	memcpy(frame + h->csum_start + h->csum_offset, &sum, sizeof(sum));
}

enum vnet_offload_result vnet_offload_receive(uint32_t allowed, struct virtio_net_hdr_v1 *header,
					      uint8_t *frame, uint32_t len,
					      const struct vnet_flow *flow,
					      struct virtio_net_hdr_v1 *shown)
{
	bool alone = !(allowed & VNET_OFFLOAD_CSUM) && header->gso_type == VIRTIO_NET_HDR_GSO_NONE;

	if (!vnet_offload_asked(header)) { /* as most */
		*shown = (struct virtio_net_hdr_v1){ 0 };
		if (allowed & VNET_OFFLOAD_CSUM)
			shown->flags = header->flags & VIRTIO_NET_HDR_F_DATA_VALID;
		return VNET_OFFLOAD_AS_IT_IS;
	}
	if (!vnet_offload_clean(alone ? VNET_OFFLOAD_CSUM : allowed, header, frame, len, len, flow,
				shown))
		return VNET_OFFLOAD_REFUSED;
	if (alone && shown->flags) {
		complete(shown, frame, len);
		header->flags = 0;
		*shown = (struct virtio_net_hdr_v1){ 0 };
		return VNET_OFFLOAD_COMPLETED;
	}
	/* A checksum still to be finished was not validated by anybody (NET-RX-15). */
	if ((allowed & VNET_OFFLOAD_CSUM) && !shown->flags)
		shown->flags = header->flags & VIRTIO_NET_HDR_F_DATA_VALID;
	return VNET_OFFLOAD_AS_IT_IS;
}
