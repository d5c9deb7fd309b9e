/* SPDX-License-Identifier: MIT */
/* See mutants.h.  The verbs exist in every build and answer -ENOSYS in the shipped one. */
#include "mutants.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "pyvnet/frame_rules.h"
#include "pyvnet/virtio_abi.h"
#include "pyvnet/vnet.h"
#include "worker.h"

#if VNET_TEST_HOOKS

#define NONE (-1)
#define IPV4_IN_IPV4 4u
#define CUT_AT 1500u

static _Atomic int on = NONE;
static atomic_bool met[VNET_MUTANT_COUNT];

bool vnet_test_mutant_on(enum vnet_mutant mutant)
{
	if (!atomic_load_explicit(&met[mutant], memory_order_relaxed))
		atomic_store_explicit(&met[mutant], true, memory_order_relaxed);
	return atomic_load_explicit(&on, memory_order_relaxed) == (int)mutant;
}

static const char *const names[] = {
#define VNET_MUTANT_STRING(name) #name,
	VNET_MUTANT_NAMES(VNET_MUTANT_STRING)
};

int vnet_test_mutant(const char *name)
{
	atomic_store(&on, NONE);
	if (!name || !*name)
		return 0;
	for (int i = 0; i < VNET_MUTANT_COUNT; i++) {
		if (!strcmp(name, names[i])) {
			atomic_store(&on, i);
			return 0;
		}
	}
	return -EINVAL;
}

const char *vnet_test_mutant_name(uint32_t index)
{
	return index < VNET_MUTANT_COUNT ? names[index] : NULL;
}

int vnet_test_mutant_met(uint32_t index)
{
	return index < VNET_MUTANT_COUNT && atomic_exchange(&met[index], false);
}

static void swap(uint8_t *first, uint8_t *second, uint32_t size)
{
	uint8_t kept[ADDRESS_SIZE];

	memcpy(kept, first, size);
	memcpy(first, second, size);
	memcpy(second, kept, size);
}

static void look_inside(const uint8_t *frame, uint32_t len, struct vnet_flow *flow)
{
	const uint8_t *ip = frame + ETHERNET_SIZE;

	if (len >= ETHERNET_SIZE + 2 * IPV4_MIN_SIZE && ip[0] == 0x45 && ip[9] == IPV4_IN_IPV4 &&
	    VNET_MUTANT(INNER_PACKET_HASHED))
		memcpy(flow->addresses, ip + IPV4_MIN_SIZE + 12, 8);
}

void vnet_mutate_flow(const uint8_t *frame, uint32_t len, struct vnet_flow *flow)
{
	const uint32_t size = flow->l3 == 4 ? 4 : ADDRESS_SIZE;

	if (flow->l4 && VNET_MUTANT(PORTS_SWAPPED))
		swap(flow->ports, flow->ports + 2, 2);
	if (flow->l3 == 4)
		look_inside(frame, len, flow);
	if (!flow->l3 || !VNET_MUTANT(ADDRESSES_SWAPPED))
		return;
	swap(flow->addresses, flow->addresses + size, size);
	if (flow->has_ex_addresses)
		swap(flow->ex_addresses, flow->ex_addresses + size, size);
}

static uint32_t other_report(uint32_t report)
{
	const uint32_t l3 = report <= VIRTIO_NET_HASH_REPORT_UDPv4 ? VIRTIO_NET_HASH_REPORT_IPv4 :
								     VIRTIO_NET_HASH_REPORT_IPv6;

	if (VNET_MUTANT(REPORT_IS_TYPE_BIT))
		return report - 1;
	if (report >= VIRTIO_NET_HASH_REPORT_IPv6_EX)
		return VNET_MUTANT(REPORT_PLAIN_FOR_EX) ? report - 3 : report;
	return report != l3 && VNET_MUTANT(REPORT_L3_ONLY) ? l3 : report;
}

static uint32_t other_value(uint32_t value)
{
	if (VNET_MUTANT(HASH_NOT_SHOWN))
		return 0;
	return VNET_MUTANT(HASH_BIG_ENDIAN) ? __builtin_bswap32(value) : value;
}

void vnet_mutate_front(uint64_t *words, uint32_t *report)
{
	uint8_t *header = (uint8_t *)words;
	uint8_t *buffers = header + offsetof(struct virtio_net_hdr_v1, num_buffers);
	uint32_t value;

	if (*report && header[1] && VNET_MUTANT(BURST_NOT_HASHED)) {
		*report = 0;
		words[1] = (uint32_t)words[1];
	}
	value = (uint32_t)(words[1] >> 32);
	if (*report)
		*report = other_report(*report);
	else if (VNET_MUTANT(REPORT_WITHOUT_HASH))
		*report = VIRTIO_NET_HASH_REPORT_IPv4;
	if (value && VNET_MUTANT(HEADER_PADDING_DIRTY))
		*report |= 0xbeef0000u;
	if (value)
		words[1] = (uint32_t)words[1] | (uint64_t)other_value(value) << 32;
	if (VNET_MUTANT(NUM_BUFFERS_ZERO))
		memset(buffers, 0, 2);
	if (*buffers > 1 && VNET_MUTANT(NUM_BUFFERS_ONE))
		*buffers = 1;
	if (!(header[0] & VIRTIO_NET_HDR_F_DATA_VALID) && VNET_MUTANT(DATA_VALID_ALWAYS))
		header[0] |= VIRTIO_NET_HDR_F_DATA_VALID;
}

void vnet_mutate_lens(const struct vnet_chain *chains, uint32_t *lens, uint32_t n, uint32_t header)
{
	if (VNET_MUTANT(USED_LEN_WITHOUT_HEADER))
		lens[n - 1] -= lens[n - 1] < header ? lens[n - 1] : header;
	if (n > 1 && lens[n - 1] != chains[n - 1].write_bytes && VNET_MUTANT(USED_LEN_OF_BUFFER))
		lens[n - 1] = chains[n - 1].write_bytes;
}

void vnet_mutate_room(struct vnet_worker *w, uint32_t at, uint64_t missing)
{
	const uint32_t spared = 8;
	struct vnet_chain *chain = &w->scratch.chains[at];
	struct iovec *last = &w->scratch.pieces.iov[chain->first + chain->writable - 1];

	if (!w->policy->merge_rx || chain->write_bytes >= missing || last->iov_len <= spared ||
	    !VNET_MUTANT(BUFFERS_NOT_FULL))
		return;
	last->iov_len -= spared;
	chain->write_bytes -= spared;
}

/* The slot is its worker's own, so what is written here is no constant. */
void vnet_mutate_length(const struct vnet_slot *slot, uint64_t len)
{
	((struct vnet_slot *)(uintptr_t)slot)->len = (uint32_t)len;
}

void vnet_mutate_gso(struct virtio_net_hdr_v1 *header)
{
	if (VNET_MUTANT(GSO_SIZE_LOST))
		header->gso_size = 0;
	if (VNET_MUTANT(GSO_HDR_LEN_LOST))
		header->hdr_len = 0;
	if ((header->gso_type & VIRTIO_NET_HDR_GSO_ECN) && VNET_MUTANT(GSO_ECN_LOST))
		header->gso_type &= (uint8_t)~VIRTIO_NET_HDR_GSO_ECN;
	if (VNET_MUTANT(GSO_WITHOUT_CSUM))
		header->flags = 0;
	if (VNET_MUTANT(CSUM_START_FROM_IP))
		header->csum_start = (uint16_t)(header->csum_start - ETHERNET_SIZE);
}

/*
 * @page holds the chain's bytes: our header ends @header bytes into it, where the frame begins.
 */
void vnet_mutate_sent(const struct iovec *pieces, uint32_t count, uint8_t *page, uint32_t header,
		      uint32_t *frame)
{
	const uint32_t first = (uint32_t)pieces->iov_len, all = header + *frame;

	if (count > 1 && first > header && first < all - ETHERNET_SIZE &&
	    VNET_MUTANT(TX_HEADER_IN_OWN_BUFFER)) {
		memmove(page + header, page + first, all - first);
		*frame = all - first;
	}
	if (*frame > CUT_AT && VNET_MUTANT(TX_FRAME_CUT))
		*frame = CUT_AT;
	if (header == sizeof(struct virtio_net_hdr_v1_hash) && VNET_MUTANT(TX_HEADER_12_FOR_20)) {
		memmove(page + header, page + sizeof(struct virtio_net_hdr_v1),
			all - sizeof(struct virtio_net_hdr_v1));
		*frame = all - (uint32_t)sizeof(struct virtio_net_hdr_v1);
	}
}

/* The elements before vr->next_used are as they should be, and not to be seen yet. */
void vnet_mutate_used(struct vnet_vring *vr, const struct vnet_chain *chains, const uint32_t *lens,
		      uint32_t count)
{
	const uint16_t mask = vr->size_mask;
	const bool burst = !lens && count > 8; /* too many for anybody not to look at */

	for (uint32_t i = 0; i < count; i++) {
		struct virtq_used_elem *elem = &vr->used_ring[(vr->next_used + i) & mask];

		if (burst && VNET_MUTANT(USED_ID_WRONG))
			elem->id = (elem->id + 1) & mask;
		if (burst && VNET_MUTANT(USED_LEN_OF_SENT))
			elem->len = chains[i].read_bytes;
		if (burst && VNET_MUTANT(USED_OUT_OF_ORDER))
			elem->id = chains[count - 1 - i].head;
		if (VNET_MUTANT(DESCRIPTORS_CLEARED))
			memset((void *)(uintptr_t)&vr->desc_table[chains[i].head], 0,
			       sizeof(struct virtq_desc));
	}
}

#else

int vnet_test_mutant(const char *name)
{
	(void)name;
	return -ENOSYS;
}

const char *vnet_test_mutant_name(uint32_t index)
{
	(void)index;
	return NULL;
}

int vnet_test_mutant_met(uint32_t index)
{
	(void)index;
	return false;
}

#endif
