/* SPDX-License-Identifier: MIT */
/* Host port "tap": one fd per queue of a multiqueue tap (drivers/net/tun.c). */
#include "port.h"

#include <errno.h>
#include <limits.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "offload.h"
#include "port_io.h"
#include "test_hooks.h"

/* How long the rest of a batch is waited for, once in a tap queue's life. */
#define LATE_TRIES 100
#define LATE_MS 1

/* EBADFD: the interface was deleted under the fd. */
static int tap_error(int error)
{
	return error == EBADFD ? -ENODEV : -error;
}

static int recv_each(const struct vnet_port_queue *pq, struct vnet_slot *const *slots,
		     int32_t *lengths, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		ssize_t got = read(pq->fd, vnet_slot_start(slots[i]), VNET_SLOT_ROOM);

		if (got < 0)
			return i ? (int)i : tap_error(errno);
		lengths[i] = (int32_t)got;
	}
	return (int)n;
}

/* Return: as recv(); between frames there may be places where none was yet */
static int recv_batch(struct vnet_port_queue *pq, struct vnet_port_io *io,
		      struct vnet_slot *const *slots, int32_t *lengths, uint32_t n)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < n; i++)
		vnet_uring_read_fixed(&io->uring, pq->index, vnet_slot_start(slots[i]),
				      VNET_SLOT_ROOM, i);
	vnet_uring_run(&io->uring, lengths, n);
	for (uint32_t i = 0; i < n; i++) {
		if (lengths[i] >= 0)
			count = i + 1;
		else
			lengths[i] = lengths[i] == -EBADFD ? -ENODEV : lengths[i];
	}
	return count ? (int)count : lengths[0];
}

static int tap_recv(struct vnet_port_queue *pq, struct vnet_port_io *io,
		    struct vnet_slot *const *slots, int32_t *lengths, uint32_t n)
{
	int got;

	if (!vnet_port_io_batches(io, n) || pq->no_nowait)
		return recv_each(pq, slots, lengths, n);
	got = recv_batch(pq, io, slots, lengths, n);
	if (got != -EOPNOTSUPP)
		return got;
	pq->no_nowait = true; /* before Linux 5.10 a tap knows no RWF_NOWAIT */
	return recv_each(pq, slots, lengths, n);
}

static int tap_recv_parts(const struct vnet_port_queue *pq, const struct iovec *parts,
			  uint32_t count)
{
	ssize_t got = readv(pq->fd, parts, (int)count);

	return got < 0 ? tap_error(errno) : (int)got;
}

static int send_one(const struct vnet_port_queue *pq, const struct vnet_tx_frame *frame)
{
	ssize_t done;

	if (VNET_FAILS(VNET_FAIL_PORT_SEND))
		return -EIO;
	/* One piece by itself: the kernel has no list to copy. */
	done = frame->count == 1 ? write(pq->fd, frame->iov->iov_base, frame->iov->iov_len) :
				   writev(pq->fd, frame->iov, (int)frame->count);
	return done < 0 ? tap_error(errno) : 0;
}

static uint32_t send_each(const struct vnet_port_queue *pq, const struct vnet_tx_frame *frames,
			  int32_t *results, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		results[i] = send_one(pq, &frames[i]);
		if (results[i] == -EAGAIN)
			return i + 1;
	}
	return n;
}

/*
 * A tap whose send buffer has an end is sent frame by frame: a batch does not
 * stop at the frame that found no room, and those behind it would overtake it.
 */
static bool may_fill(const struct vnet_port_queue *pq)
{
	int room;

	return ioctl(pq->fd, TUNGETSNDBUF, &room) || room != INT_MAX;
}

/*
 * Somebody gave the tap a buffer with an end, just now: frames of this one batch
 * went out around those that found no room, which follow them.
 */
static void send_late(const struct vnet_port_queue *pq, const struct vnet_tx_frame *frames,
		      int32_t *results, uint32_t n)
{
	struct pollfd writable = { .fd = pq->fd, .events = POLLOUT };
	int tries = LATE_TRIES;

	for (uint32_t i = 0; i < n; i++) {
		while (results[i] == -EAGAIN && tries-- && poll(&writable, 1, LATE_MS) >= 0)
			results[i] = send_one(pq, &frames[i]);
		if (results[i] == -EAGAIN)
			results[i] = -ENOBUFS;
	}
}

static void run_batch(struct vnet_port_queue *pq, struct vnet_port_io *io,
		      const struct vnet_tx_frame *frames, int32_t *results, uint32_t n)
{
	uint64_t failing = 0;

	for (uint32_t i = 0; i < n; i++) {
		const struct iovec *iov = frames[i].iov;

		if (VNET_FAILS(VNET_FAIL_PORT_SEND))
			failing |= UINT64_C(1) << i;
		else if (VNET_FAILS(VNET_FAIL_BATCH_FULL))
			continue; /* and -EAGAIN it is */
		else if (frames[i].registered)
			vnet_uring_write_fixed(&io->uring, pq->index, iov->iov_base,
					       (uint32_t)iov->iov_len, i);
		else
			vnet_uring_writev(&io->uring, pq->index, iov, frames[i].count, i);
	}
	vnet_uring_run(&io->uring, results, n);
	for (uint32_t i = 0; i < n; i++) {
		if (failing >> i & 1)
			results[i] = -EIO;
		else if (results[i] >= 0)
			results[i] = 0;
		else if (results[i] == -EBADFD)
			results[i] = -ENODEV;
	}
}

static uint32_t send_batch(struct vnet_port_queue *pq, struct vnet_port_io *io,
			   const struct vnet_tx_frame *frames, int32_t *results, uint32_t n)
{
	uint32_t first = n, done = 0;

	run_batch(pq, io, frames, results, n);
	for (uint32_t i = 0; i < n; i++) {
		if (results[i] != -EAGAIN)
			done = i + 1;
		else if (first == n)
			first = i;
	}
	if (first == n)
		return n;
	pq->sends_each = true;
	send_late(pq, &frames[first], &results[first], done > first ? done - first : 0);
	return done < n ? (done > first ? done : first) + 1 : n;
}

static uint32_t tap_send(struct vnet_port_queue *pq, struct vnet_port_io *io,
			 const struct vnet_tx_frame *frames, int32_t *results, uint32_t n)
{
	uint32_t done;

	if (!vnet_port_io_batches(io, n) || pq->sends_each || pq->no_nowait)
		return send_each(pq, frames, results, n);
	if (!pq->room_known) {
		pq->room_known = true;
		pq->sends_each = may_fill(pq);
		return tap_send(pq, io, frames, results, n);
	}
	done = send_batch(pq, io, frames, results, n);
	if (results[0] != -EOPNOTSUPP)
		return done;
	pq->no_nowait = true; /* as in tap_recv(): none was sent */
	return send_each(pq, frames, results, n);
}

/*
 * The kernel steers over the attached queues only.  What a queue still holds
 * when it is detached is discarded by the kernel, so the caller drains first.
 */
static int tap_attach(struct vnet_port_queue *pq, bool on)
{
	struct ifreq request = { .ifr_flags = (short)(on ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE) };

	if (on && VNET_FAILS(VNET_FAIL_PORT_ATTACH))
		return -EIO;
	if (!ioctl(pq->fd, TUNSETQUEUE, &request))
		return 0;
	/* A deleted interface keeps no list of its detached queues: none to attach this one to. */
	return on && errno == EINVAL ? -ENODEV : tap_error(errno);
}

/* linux/if_tun.h of kernel 6.2 and later; before that TUNSETOFFLOAD knows no USO */
#define OFFLOAD_USO4 0x20u
#define OFFLOAD_USO6 0x40u

/*
 * A set the kernel does not take as a whole is refused with EINVAL.  It takes
 * segmentation only with the checksum, which a set has, and USO only for both
 * IP versions together: of one alone the tap is not told, and cuts datagrams itself.
 */
static unsigned long tun_flags(uint32_t offloads)
{
	const uint32_t uso = VNET_OFFLOAD_USO4 | VNET_OFFLOAD_USO6;

	return (offloads & VNET_OFFLOAD_CSUM ? TUN_F_CSUM : 0) |
	       (offloads & VNET_OFFLOAD_TSO4 ? TUN_F_TSO4 : 0) |
	       (offloads & VNET_OFFLOAD_TSO6 ? TUN_F_TSO6 : 0) |
	       (offloads & VNET_OFFLOAD_ECN ? TUN_F_TSO_ECN : 0) |
	       ((offloads & uso) == uso ? OFFLOAD_USO4 | OFFLOAD_USO6 : 0);
}

static int tap_set_offloads(struct vnet_port_queue *pq, uint32_t offloads)
{
	if (VNET_FAILS(VNET_FAIL_PORT_OFFLOADS))
		return -EIO;
	return ioctl(pq->fd, TUNSETOFFLOAD, tun_flags(offloads)) < 0 ? tap_error(errno) : 0;
}

const struct vnet_port_ops vnet_port_tap = { tap_recv, tap_recv_parts, tap_send, tap_attach,
					     tap_set_offloads };
