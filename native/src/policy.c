/* SPDX-License-Identifier: MIT */
/* Policies are checked and expanded here, once; workers only read them. */
#include "policy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "filter.h"
#include "offload.h"
#include "pyvnet/virtio_abi.h"
#include "test_hooks.h"

#define ALL_HASH_TYPES 0x1ffu
#define ALL_FILTER_MODES 0x1ffu
#define ALL_GUEST_OFFLOADS                                                             \
	(VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_GUEST_TSO4 | VIRTIO_NET_F_GUEST_TSO6 | \
	 VIRTIO_NET_F_GUEST_ECN | VIRTIO_NET_F_GUEST_USO4 | VIRTIO_NET_F_GUEST_USO6)
#define ALL_HOST_OFFLOADS                                                      \
	(VIRTIO_NET_F_CSUM | VIRTIO_NET_F_HOST_TSO4 | VIRTIO_NET_F_HOST_TSO6 | \
	 VIRTIO_NET_F_HOST_ECN | VIRTIO_NET_F_HOST_USO)

/*
 * The device model refuses such values with ERR long before (device/steering.py);
 * this is the engine's own last look, because the frame path trusts a policy.
 */
static int check_filter(const struct vnet_filter *f)
{
	if (VNET_GUARD(POLICY_FILTER, f->modes & ~ALL_FILTER_MODES))
		return -EINVAL;
	if (VNET_GUARD(POLICY_TABLE, f->unicast_count > VNET_FILTER_MACS ||
					     f->multicast_count > VNET_FILTER_MACS))
		return -EINVAL;
	return (f->unicast_count && !f->unicast) || (f->multicast_count && !f->multicast) ?
		       -EINVAL :
		       0;
}

static int check(const struct vnet_policy_config *c)
{
	const struct vnet_steering *s = &c->steering;
	uint32_t length = (uint32_t)s->indirection_table_mask + 1;

	if (s->mode > VNET_STEER_RSS || (s->hash_types & ~ALL_HASH_TYPES) ||
	    (s->flags & ~VNET_STEER_F_EX_TYPES_ALWAYS))
		return -EINVAL;
	if (c->header_length != sizeof(struct virtio_net_hdr_v1) &&
	    c->header_length != sizeof(struct virtio_net_hdr_v1_hash))
		return -EINVAL;
	if (!c->port_queues || c->port_queues > VNET_MAX_PAIRS)
		return -EINVAL;
	if (VNET_GUARD(POLICY_OFFLOADS, (c->guest_offloads & ~ALL_GUEST_OFFLOADS) ||
						(c->host_offloads & ~ALL_HOST_OFFLOADS)))
		return -EINVAL;
	if (!s->pairs || s->pairs > VNET_MAX_PAIRS)
		return -EINVAL;
	if (VNET_GUARD(POLICY_MASK, (length & (length - 1)) || length > VNET_RSS_TABLE_LENGTH))
		return -EINVAL;
	if (VNET_GUARD(POLICY_QUEUE, s->unclassified_queue >= VNET_MAX_PAIRS))
		return -EINVAL;
	for (uint32_t i = 0; i < length && i < VNET_RSS_TABLE_LENGTH; i++) {
		if (VNET_GUARD(POLICY_QUEUE, s->indirection_table[i] >= VNET_MAX_PAIRS))
			return -EINVAL;
	}
	return check_filter(&c->filter);
}

static int compare(const void *a, const void *b)
{
	return memcmp(a, b, VNET_MAC_SIZE);
}

/* Return: @to, filled with the table and sorted for vnet_filter_passes() */
static const uint8_t *sorted(uint8_t *to, const uint8_t *from, uint32_t count)
{
	if (count) {
		memcpy(to, from, (size_t)count * VNET_MAC_SIZE);
		qsort(to, count, VNET_MAC_SIZE, compare);
	}
	return to;
}

int vnet_policy_create(const struct vnet_policy_config *config, struct vnet_policy **out)
{
	static _Atomic uint32_t serial = 1;
	const struct vnet_filter *filter = &config->filter;
	int error = check(config);
	struct vnet_policy *policy;
	size_t unicast, multicast;

	if (error)
		return error;
	unicast = (size_t)filter->unicast_count * VNET_MAC_SIZE;
	multicast = (size_t)filter->multicast_count * VNET_MAC_SIZE;
	policy = VNET_FAILS(VNET_FAIL_ALLOC) ? NULL :
					       calloc(1, sizeof(*policy) + unicast + multicast);
	if (!policy)
		return -ENOMEM;
	policy->refs = 1;
	policy->serial = atomic_fetch_add(&serial, 1);
	policy->steering = config->steering;
	policy->header_length = config->header_length;
	policy->merge_rx = config->merge_rx != 0;
	policy->port_queues = config->port_queues;
	policy->mtu = config->mtu;
	policy->rx_offloads = vnet_offload_guest(config->guest_offloads);
	policy->tx_offloads = vnet_offload_host(config->host_offloads);
	policy->filter = *filter;
	policy->filter.unicast = sorted(policy->tables, filter->unicast, filter->unicast_count);
	policy->filter.multicast =
		sorted(policy->tables + unicast, filter->multicast, filter->multicast_count);
	policy->wants_hash = config->steering.hash_types &&
			     (config->steering.mode == VNET_STEER_RSS ||
			      config->header_length == sizeof(struct virtio_net_hdr_v1_hash));
	vnet_toeplitz_init(&policy->toeplitz, &policy->steering);
	*out = policy;
	return 0;
}

struct vnet_policy *vnet_policy_get(struct vnet_policy *policy)
{
	if (policy)
		atomic_fetch_add_explicit(&policy->refs, 1, memory_order_relaxed);
	return policy;
}

void vnet_policy_put(struct vnet_policy *policy)
{
	if (policy && atomic_fetch_sub_explicit(&policy->refs, 1, memory_order_acq_rel) == 1)
		free(policy);
}

uint32_t vnet_policy_serial(const struct vnet_policy *policy)
{
	return policy->serial;
}

void vnet_policy_classify(const struct vnet_policy *policy, const uint8_t *frame, uint32_t len,
			  uint32_t port_queue, struct vnet_verdict *verdict)
{
	struct vnet_hash hash = { 0, VIRTIO_NET_HASH_REPORT_NONE };
	struct vnet_flow flow;

	vnet_parse(frame, len, &flow);
	if (policy->wants_hash)
		hash = vnet_hash_flow(&policy->toeplitz, &flow);
	*verdict = (struct vnet_verdict){
		.hash_value = hash.value,
		.hash_report = hash.report,
		.queue = vnet_steer(policy, hash, port_queue),
	};
}

int vnet_policy_passes(const struct vnet_policy *policy, const uint8_t *frame, uint32_t len)
{
	struct vnet_flow flow;

	vnet_parse(frame, len, &flow);
	return vnet_filter_passes(&policy->filter, frame, len, &flow);
}
