/* SPDX-License-Identifier: MIT */
/* Host port "tap": one fd per queue of a multiqueue tap (drivers/net/tun.c). */
#include "port.h"

#include <errno.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "test_hooks.h"

/* EBADFD: the interface was deleted under the fd. */
static int tap_error(int error)
{
	return error == EBADFD ? -ENODEV : -error;
}

static int tap_recv(struct vnet_port_queue *pq, void *buf, size_t capacity)
{
	ssize_t n = read(pq->fd, buf, capacity);

	return n < 0 ? tap_error(errno) : (int)n;
}

static int tap_send(struct vnet_port_queue *pq, const struct iovec *iov, int count)
{
	if (VNET_FAILS(VNET_FAIL_PORT_SEND))
		return -EIO;
	return writev(pq->fd, iov, count) < 0 ? tap_error(errno) : 0;
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
	return ioctl(pq->fd, TUNSETQUEUE, &request) < 0 ? tap_error(errno) : 0;
}

const struct vnet_port_ops vnet_port_tap = { tap_recv, tap_send, tap_attach };
