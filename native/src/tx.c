/* SPDX-License-Identifier: MIT */
/*
 * THE transmit line, transmitq → host port:
 *
 *   pop → check → write → push → publish
 *
 * The header is copied to private memory, judged there and never passed on:
 * the host port gets one of our own making (so hash fields, num_buffers and
 * garbage of the driver end here, U-54).  The payload goes from the driver's
 * buffers to the kernel as it lies, but for the headers of a frame to be
 * segmented.
 *
 * Every chain popped is counted once, in tx_packets or a tx_drop_*, and comes
 * back with len 0: nothing was written into it.
 */
#include "worker.h"

#include <errno.h>
#include <string.h>

#include "offload.h"
#include "parse.h"
#include "stats.h"

#define PIECES_MAX 1024 /* IOV_MAX */

/*
 * Two pieces made one.  A frame of VNET_FRAME_MAX bytes in so many pieces has a pair of
 * neighbours this small: were every second pair larger, it would be longer than that.
 */
static_assert((uint64_t)(PIECES_MAX / 2) * (VNET_BOUNCE + 1) > VNET_FRAME_MAX, "VNET_BOUNCE");

static int join_two(struct vnet_scratch *s, int count)
{
	for (int i = 1; i + 1 < count; i++) {
		size_t size = s->send[i].iov_len + s->send[i + 1].iov_len;

		if (size > sizeof(s->bounce))
			continue;
		vnet_mem_read(&s->send[i], 0, s->bounce, (uint32_t)size);
		s->send[i] = (struct iovec){ s->bounce, size };
		memmove(&s->send[i + 1], &s->send[i + 2],
			(size_t)(count - i - 2) * sizeof(s->send[0]));
		return count - 1;
	}
	return count;
}

/*
 * What goes to the host port: our header with the bytes of the frame that were
 * judged, then the chain's pieces behind them, wherever the driver cut it
 * (VIO-SPL-01).
 */
static int assemble(struct vnet_scratch *s, const struct vnet_chain *chain, uint32_t header,
		    uint32_t judged)
{
	uint32_t skip = header + judged;
	int count = 1;

	s->send[0] = (struct iovec){ &s->front, sizeof(s->front.header) + judged };
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
	return count > PIECES_MAX ? join_two(s, count) : count;
}

/*
 * OUR-TX-12: judge the header, and write the one for the host port.  Where it
 * asks for segments the frame's first bytes are copied, judged, and sent from
 * the copy: what the kernel sees is what was looked at.
 * Return: bytes of the frame copied; -EINVAL: refused
 */
static int judge(const struct vnet_worker *w, struct vnet_scratch *s,
		 const struct vnet_chain *chain)
{
	uint32_t length = w->policy->header_length, frame = chain->read_bytes - length, head = 0;
	const struct iovec *iov = &s->pieces.iov[chain->first];
	struct virtio_net_hdr_v1 header;
	struct vnet_flow flow;

	vnet_mem_read(iov, 0, &header, sizeof(header));
	if (header.gso_type != VIRTIO_NET_HDR_GSO_NONE) {
		head = frame < sizeof(s->front.head) ? frame : (uint32_t)sizeof(s->front.head);
		vnet_mem_read(iov, length, s->front.head, head);
		vnet_parse(s->front.head, head, &flow);
	}
	if (!vnet_offload_clean(w->policy->tx_offloads, &header, s->front.head, head, frame, &flow,
				&s->front.header))
		return -EINVAL;
	return (int)head;
}

static bool chain_allowed(const struct vnet_worker *w, const struct vnet_chain *chain)
{
	uint32_t header = w->policy->header_length;

	if (VNET_GUARD(TX_DIRECTION, chain->writable))
		return false;
	if (VNET_GUARD(TX_FRAME_SHORT, chain->read_bytes < header + VNET_ETHERNET_HEADER))
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
	struct vnet_port_queue *port = port_of(w, pair);
	struct vnet_scratch *s = &w->scratch;
	int judged, result;
	struct vnet_tx_frame frame = { .iov = s->send };

	judged = chain_allowed(w, chain) ? judge(w, s, chain) : -EINVAL;
	if (judged < 0) {
		vnet_count(&pair->stats.tx_drop_malformed, 1);
		return true;
	}
	frame.count = (uint32_t)assemble(s, chain, w->policy->header_length, (uint32_t)judged);
	port->ops->send(port, &w->io, &frame, &result, 1);
	if (result == -EAGAIN && port == &pair->port)
		return false;
	if (result == -EFAULT)
		vnet_mem_lose(w->mem); /* the file behind it was cut off */
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
		vnet_worker_ring_broke(w);
	}
}

bool vnet_tx_arm(struct vnet_pair *pair)
{
	struct vnet_vring *vr = &pair->transmitq;

	pair->tx_ready = false;
	if (!vr->running || pair->tx_waits)
		return false;
	pair->tx_armed = true;
	pair->tx_ready = vr->ops->arm(vr);
	return pair->tx_ready;
}

uint32_t vnet_tx_burst(struct vnet_worker *w, struct vnet_pair *pair, uint32_t budget)
{
	struct vnet_vring *vr = &pair->transmitq;
	bool was_running = vr->running;
	uint32_t taken = 0;

	if (!was_running || pair->tx_waits) {
		pair->tx_ready = false;
		return 0;
	}
	if (pair->tx_armed) {
		vr->ops->disarm(vr);
		pair->tx_armed = false;
	}
	while (taken < budget) {
		struct vnet_chain chain;
		int got;

		w->scratch.pieces.count = 0;
		got = vr->ops->pop(vr, w->mem, &w->scratch.pieces, &chain);
		if (!got)
			break;
		if (got == -EPIPE) {
			pair->tx_ready = false;
			break;
		}
		taken++;
		if (vr->disabled) {
			vnet_count(&pair->stats.tx_drop_queue_off, 1);
		} else if (got == -EBADMSG) {
			vnet_count(&pair->stats.tx_drop_malformed, 1);
		} else if (!transmit(w, pair, &chain)) {
			vr->ops->rewind(vr, &chain, 1);
			pair->tx_ready = false;
			pair->tx_waits = true;
			taken--;
			vnet_worker_update_port(pair);
			break;
		}
		vr->ops->push(vr, chain.head, 0);
	}
	finish(w, pair, was_running);
	return taken;
}
