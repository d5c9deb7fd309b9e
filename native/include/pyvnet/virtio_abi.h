/* SPDX-License-Identifier: MIT */
/*
 * Wire structures and constants of virtio 1.4, section label beside each.
 * Little-endian hosts only (docs/decisions.md), so fields are read as they lie.
 */
#ifndef PYVNET_VIRTIO_ABI_H
#define PYVNET_VIRTIO_ABI_H

#include <assert.h>
#include <stdint.h>

/* "The Virtqueue Descriptor Table" */
#define VIRTQ_DESC_F_NEXT 1u
#define VIRTQ_DESC_F_WRITE 2u
#define VIRTQ_DESC_F_INDIRECT 4u

struct virtq_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t next;
};
static_assert(sizeof(struct virtq_desc) == 16, "virtq_desc");

/* "The Virtqueue Available Ring", "The Virtqueue Used Ring" */
#define VIRTQ_AVAIL_F_NO_INTERRUPT 1u
#define VIRTQ_USED_F_NO_NOTIFY 1u

struct virtq_used_elem {
	uint32_t id;
	uint32_t len;
};
static_assert(sizeof(struct virtq_used_elem) == 8, "virtq_used_elem");

/* "Feature bits": the offloads. */
#define VIRTIO_NET_F_CSUM (UINT64_C(1) << 0)
#define VIRTIO_NET_F_GUEST_CSUM (UINT64_C(1) << 1)
#define VIRTIO_NET_F_GUEST_TSO4 (UINT64_C(1) << 7)
#define VIRTIO_NET_F_GUEST_TSO6 (UINT64_C(1) << 8)
#define VIRTIO_NET_F_GUEST_ECN (UINT64_C(1) << 9)
#define VIRTIO_NET_F_HOST_TSO4 (UINT64_C(1) << 11)
#define VIRTIO_NET_F_HOST_TSO6 (UINT64_C(1) << 12)
#define VIRTIO_NET_F_HOST_ECN (UINT64_C(1) << 13)
#define VIRTIO_NET_F_GUEST_USO4 (UINT64_C(1) << 54)
#define VIRTIO_NET_F_GUEST_USO6 (UINT64_C(1) << 55)
#define VIRTIO_NET_F_HOST_USO (UINT64_C(1) << 56)

/* "Device Operation": the header in front of every frame. */
#define VIRTIO_NET_HDR_F_NEEDS_CSUM 1u
#define VIRTIO_NET_HDR_F_DATA_VALID 2u
#define VIRTIO_NET_HDR_GSO_NONE 0u
#define VIRTIO_NET_HDR_GSO_TCPV4 1u
#define VIRTIO_NET_HDR_GSO_TCPV6 4u
#define VIRTIO_NET_HDR_GSO_UDP_L4 5u
#define VIRTIO_NET_HDR_GSO_ECN 0x80u

struct virtio_net_hdr_v1 {
	uint8_t flags;
	uint8_t gso_type;
	uint16_t hdr_len;
	uint16_t gso_size;
	uint16_t csum_start;
	uint16_t csum_offset;
	uint16_t num_buffers;
};
static_assert(sizeof(struct virtio_net_hdr_v1) == 12, "virtio_net_hdr_v1");

struct virtio_net_hdr_v1_hash {
	struct virtio_net_hdr_v1 v1;
	uint16_t hash_value_low; /* le32 hash_value, kept 2-aligned as on the wire */
	uint16_t hash_value_high;
	uint16_t hash_report;
	uint16_t padding_reserved;
};
static_assert(sizeof(struct virtio_net_hdr_v1_hash) == 20, "virtio_net_hdr_v1_hash");

/* "Hash calculation for incoming packets": supported_hash_types */
#define VIRTIO_NET_HASH_TYPE_IPv4 (1u << 0)
#define VIRTIO_NET_HASH_TYPE_TCPv4 (1u << 1)
#define VIRTIO_NET_HASH_TYPE_UDPv4 (1u << 2)
#define VIRTIO_NET_HASH_TYPE_IPv6 (1u << 3)
#define VIRTIO_NET_HASH_TYPE_TCPv6 (1u << 4)
#define VIRTIO_NET_HASH_TYPE_UDPv6 (1u << 5)
#define VIRTIO_NET_HASH_TYPE_IP_EX (1u << 6)
#define VIRTIO_NET_HASH_TYPE_TCP_EX (1u << 7)
#define VIRTIO_NET_HASH_TYPE_UDP_EX (1u << 8)

/* "Hash reporting for incoming packets"; the type's bit is 1 << (report - 1). */
#define VIRTIO_NET_HASH_REPORT_NONE 0u
#define VIRTIO_NET_HASH_REPORT_IPv4 1u
#define VIRTIO_NET_HASH_REPORT_TCPv4 2u
#define VIRTIO_NET_HASH_REPORT_UDPv4 3u
#define VIRTIO_NET_HASH_REPORT_IPv6 4u
#define VIRTIO_NET_HASH_REPORT_TCPv6 5u
#define VIRTIO_NET_HASH_REPORT_UDPv6 6u
#define VIRTIO_NET_HASH_REPORT_IPv6_EX 7u
#define VIRTIO_NET_HASH_REPORT_TCPv6_EX 8u
#define VIRTIO_NET_HASH_REPORT_UDPv6_EX 9u

#endif
