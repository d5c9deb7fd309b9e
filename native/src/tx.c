/* SPDX-License-Identifier: MIT */
/*
 * THE transmit line, transmitq → host port:
 *
 *   pop → check → write → push → publish
 *
 * The header is copied to private memory, judged there and never passed on:
 * the host port gets one of our own making (so hash fields, num_buffers and
 * garbage of the driver end here, U-54).  The payload goes from the driver's
 * buffers to the kernel as it lies.
 *
 * Every chain popped is counted once, in tx_packets or a tx_drop_*, and comes
 * back with len 0: nothing was written into it.
 */
#include "worker.h"

#include <errno.h>

#include "stats.h"

#define ETHERNET_HEADER 14u

/* OUR-TX-12: no transmit offload is negotiated, so none may be asked for. */
static bool header_allowed(const struct virtio_net_hdr_v1 *header)
{
	if (VNET_GUARD(TX_OFFLOAD, header->gso_type != VIRTIO_NET_HDR_GSO_NONE ||
					   (header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)))
		return false;
	return true; /* other flag bits are unknown and ignored (NET-TX-01) */
}

/* The chain's pieces behind the header, wherever the driver cut it (VIO-SPL-01). */
static int payload_pieces(struct vnet_scratch *s, const struct vnet_chain *chain, uint32_t skip)
{
	int count = 1;

	for (uint32_t i = 0; i < chain->readable; i++) {
		struct iovec piece = s->pieces.iov[chain->first + i];

		if (skip >= piece.iov_len) {
			skip -= (uint32_t)piece.iov_len;
			continue;
		}
		s->send[count++] =
			(struct iovec){ (uint8_t *)piece.iov_base + skip, piece.iov_len - skip };
		skip = 0;
	}
	return count;
}

static bool chain_allowed(const struct vnet_worker *w, const struct vnet_chain *chain)
{
	uint32_t header = w->policy->header_length;

	if (VNET_GUARD(TX_DIRECTION, chain->writable))
		return false;
	if (VNET_GUARD(TX_FRAME_SHORT, chain->read_bytes < header + ETHERNET_HEADER))
		return false;
	return !VNET_GUARD(TX_FRAME_LONG, chain->read_bytes - header > VNET_FRAME_MAX);
}

/* Frames of a pair whose own host port queue is detached leave through another (U-12). */
static struct vnet_port_queue *port_of(struct vnet_worker *w, struct vnet_pair *pair)
{
	uint32_t attached = w->policy->port_queues < w->engine->port_count ?
				    w->policy->port_queues :
				    w->engine->port_count;

	return pair->index < attached ? &pair->port :
					&w->engine->pairs[pair->index % attached].port;
}

/* Return: false if the host port is full and the chain has to wait */
static bool transmit(struct vnet_worker *w, struct vnet_pair *pair, const struct vnet_chain *chain)
{
	static const struct virtio_net_hdr_v1 plain = { .num_buffers = 0 };
	struct vnet_scratch *s = &w->scratch;
	struct vnet_port_queue *port = port_of(w, pair);
	struct virtio_net_hdr_v1 header;
	int result;

	if (!chain_allowed(w, chain)) {
		vnet_count(&pair->stats.tx_drop_malformed, 1);
		return true;
	}
	vnet_mem_read(&s->pieces.iov[chain->first], 0, &header, sizeof(header));
	if (!header_allowed(&header)) {
		vnet_count(&pair->stats.tx_drop_malformed, 1);
		return true;
	}
	s->send[0] = (struct iovec){ (void *)(uintptr_t)&plain, sizeof(plain) };
	result = port->ops->send(port, s->send, payload_pieces(s, chain, w->policy->header_length));
	if (result == -EAGAIN && port == &pair->port)
		return false;
	if (result) {
		vnet_count(&pair->stats.tx_drop_port, 1);
		return true;
	}
	vnet_count(&pair->stats.tx_packets, 1);
	vnet_count(&pair->stats.tx_bytes, chain->read_bytes - w->policy->header_length);
	return true;
}

static void finish(struct vnet_worker *w, struct vnet_pair *pair, bool was_running)
{
	struct vnet_vring *vr = &pair->transmitq;

	if (vr->ops->publish(vr)) {
		vnet_vring_notify(vr);
		vnet_count(&pair->stats.tx_notifications, 1);
	}
	if (was_running && !vr->running) {
		vnet_count(&pair->stats.rings_broken, 1);
		vnet_worker_report(w->engine);
	}
}

void vnet_tx_burst(struct vnet_worker *w, struct vnet_pair *pair, uint32_t budget)
{
	struct vnet_vring *vr = &pair->transmitq;
	bool was_running = vr->running;

	if (!was_running || pair->tx_waits) {
		pair->tx_ready = false;
		return;
	}
	vr->ops->disarm(vr);
	while (budget--) {
		struct vnet_chain chain;
		int got;

		w->scratch.pieces.count = 0;
		got = vr->ops->pop(vr, w->mem, &w->scratch.pieces, &chain);
		if (got == -EPIPE || (!got && !vr->ops->arm(vr))) {
			pair->tx_ready = false;
			break;
		}
		if (!got)
			continue; /* a chain came between the last look and the request for kicks */
		if (vr->disabled) {
			vnet_count(&pair->stats.tx_drop_queue_off, 1);
		} else if (got == -EBADMSG) {
			vnet_count(&pair->stats.tx_drop_malformed, 1);
		} else if (!transmit(w, pair, &chain)) {
			vr->ops->rewind(vr, &chain, 1);
			pair->tx_ready = false;
			pair->tx_waits = true;
			vnet_worker_update_port(pair);
			break;
		}
		vr->ops->push(vr, chain.head, 0);
	}
	finish(w, pair, was_running);
}
