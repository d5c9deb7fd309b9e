/* SPDX-License-Identifier: MIT */
/*
 * Host port "pair": a SOCK_SEQPACKET socket per queue; every packet is one
 * frame with its header.  Needs no privilege.
 */
#define _GNU_SOURCE
#include "port.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include "handoff.h"
#include "test_hooks.h"

/* A packet of 0 bytes and the end of the stream look alike to recvmsg(). */
static int empty_or_gone(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN | POLLRDHUP };

	return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLRDHUP)) && !(p.revents & POLLERR) ?
		       -ENODEV :
		       0;
}

static int pair_recv_parts(const struct vnet_port_queue *pq, const struct iovec *parts,
			   uint32_t count)
{
	struct msghdr message = { .msg_iov = (struct iovec *)(uintptr_t)parts,
				  .msg_iovlen = count };
	ssize_t n = recvmsg(pq->fd, &message, MSG_DONTWAIT);

	if (n < 0)
		return errno == ECONNRESET ? -ENODEV : -errno;
	if (!n)
		return empty_or_gone(pq->fd);
	return message.msg_flags & MSG_TRUNC ? -EMSGSIZE : (int)n;
}

static int pair_recv(struct vnet_port_queue *pq, struct vnet_port_io *io,
		     struct vnet_slot *const *slots, int32_t *lengths, uint32_t n)
{
	(void)io;
	for (uint32_t i = 0; i < n; i++) {
		const struct iovec whole = { vnet_slot_start(slots[i]), VNET_SLOT_ROOM };

		lengths[i] = pair_recv_parts(pq, &whole, 1);
		if (lengths[i] < 0 && lengths[i] != -EMSGSIZE)
			return i ? (int)i : lengths[i];
	}
	return (int)n;
}

static int send_one(const struct vnet_port_queue *pq, const struct vnet_tx_frame *frame)
{
	struct msghdr message = { .msg_iov = (struct iovec *)(uintptr_t)frame->iov,
				  .msg_iovlen = frame->count };

	if (VNET_FAILS(VNET_FAIL_PORT_SEND))
		return -EIO;
	if (sendmsg(pq->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
		return 0;
	return errno == EPIPE || errno == ECONNRESET ? -ENODEV : -errno;
}

static uint32_t pair_send(struct vnet_port_queue *pq, struct vnet_port_io *io,
			  const struct vnet_tx_frame *frames, int32_t *results, uint32_t n)
{
	(void)io;
	for (uint32_t i = 0; i < n; i++) {
		results[i] = send_one(pq, &frames[i]);
		if (results[i] == -EAGAIN)
			return i + 1;
	}
	return n;
}

static int pair_attach(struct vnet_port_queue *pq, bool on)
{
	(void)pq;
	return on && VNET_FAILS(VNET_FAIL_PORT_ATTACH) ? -EIO : 0;
}

/* The far end puts into its headers what it likes. */
static int pair_set_offloads(struct vnet_port_queue *pq, uint32_t offloads)
{
	(void)pq;
	(void)offloads;
	return VNET_FAILS(VNET_FAIL_PORT_OFFLOADS) ? -EIO : 0;
}

const struct vnet_port_ops vnet_port_pair = { pair_recv, pair_recv_parts, pair_send, pair_attach,
					      pair_set_offloads };
