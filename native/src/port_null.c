/* SPDX-License-Identifier: MIT */
/*
 * Host port "null": makes and swallows frames in memory, to measure rings.
 * Its fd is an eventfd: write n to it and n frames come in, 60-byte UDP over
 * IPv4 whose source port counts up, so that they are so many flows.
 */
#include "port.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "handoff.h"

static const uint8_t template[VNET_PORT_HDR + 60] = {
	[10] = 1,        /* num_buffers */
	[12] = 0x02, 0,    0,    0,    0,   1,  0x02, 0, 0,  0,  0,    2,
	0x08,        0x00, /* Ethernet */
	[26] = 0x45, 0,    0,    46,   0,   0,  0,    0, 64, 17, 0xf7, 0xed,  /* IPv4, UDP */
	[38] = 198,  51,   100,  1,    198, 51, 100,  2,    /* RFC 5737 */
	[46] = 0,    0,    0x10, 0x92, 0,   26, 0,    0,
};

static void make_frame(struct vnet_port_queue *pq, uint8_t *frame)
{
	memcpy(frame, template, sizeof(template));
	frame[46] = (uint8_t)(pq->serial >> 8);
	frame[47] = (uint8_t)pq->serial++;
}

static int null_recv(struct vnet_port_queue *pq, struct vnet_port_io *io,
		     struct vnet_slot *const *slots, int32_t *lengths, uint32_t n)
{
	(void)io;
	if (!pq->credit && read(pq->fd, &pq->credit, sizeof(pq->credit)) < 0)
		return -errno;
	n = n < pq->credit ? n : (uint32_t)pq->credit;
	pq->credit -= n;
	for (uint32_t i = 0; i < n; i++) {
		make_frame(pq, vnet_slot_start(slots[i]));
		lengths[i] = (int32_t)sizeof(template);
	}
	return (int)n;
}

static uint32_t null_send(struct vnet_port_queue *pq, struct vnet_port_io *io,
			  const struct vnet_tx_frame *frames, int32_t *results, uint32_t n)
{
	(void)pq;
	(void)io;
	(void)frames;
	memset(results, 0, n * sizeof(*results));
	return n;
}

static int null_attach(struct vnet_port_queue *pq, bool on)
{
	(void)pq;
	(void)on;
	return 0;
}

static int null_set_offloads(struct vnet_port_queue *pq, uint32_t offloads)
{
	(void)pq;
	(void)offloads;
	return 0;
}

const struct vnet_port_ops vnet_port_null = { null_recv, NULL, null_send, null_attach,
					      null_set_offloads };

const struct vnet_port_ops *vnet_port_ops_of(uint32_t type)
{
	switch (type) {
	case VNET_PORT_TAP:
		return &vnet_port_tap;
	case VNET_PORT_PAIR:
		return &vnet_port_pair;
	case VNET_PORT_NULL:
		return &vnet_port_null;
	default:
		return NULL;
	}
}
