/* SPDX-License-Identifier: MIT */
/* What the ring formats have in common: life cycle, breaking, notifying. */
#define _GNU_SOURCE
#include "vring.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

int vnet_fd_dup(int fd)
{
	int copy;

	if (fd < 0)
		return -1;
	copy = VNET_FAILS(VNET_FAIL_FD) ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
	return copy >= 0 ? copy : errno ? -errno : -EMFILE;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static bool may_block(int fd)
{
	return fd >= 0 && !(fcntl(fd, F_GETFL) & O_NONBLOCK);
}

static int dup_fds(struct vnet_vring *vr, const struct vnet_queue_config *config)
{
	const int32_t from[3] = { config->kick_fd, config->call_fd, config->err_fd };
	int *to[3] = { &vr->kick_fd, &vr->call_fd, &vr->err_fd };

	for (int i = 0; i < 3; i++) {
		int fd;

		errno = 0;
		fd = vnet_fd_dup(from[i]);
		if (fd < -1 || (fd == -1 && from[i] >= 0))
			return fd;
		*to[i] = fd;
		vr->may_block |= may_block(fd);
	}
	return 0;
}

int vnet_vring_start(struct vnet_vring *vr, const struct vnet_queue_config *config,
		     const struct vnet_mem *mem)
{
	int error;

	if (!config->size || config->size > VNET_MAX_QUEUE_SIZE ||
	    (config->size & (config->size - 1)))
		return -EINVAL;
	*vr = (struct vnet_vring){
		.ops = &vnet_vring_split,
		.event_idx = config->event_idx != 0,
		.indirect = config->indirect != 0,
		.disabled = config->disabled != 0,
		.size = config->size,
		.size_mask = (uint16_t)(config->size - 1),
		.index = config->index,
		.desc_gpa = config->desc_table,
		.avail_gpa = config->avail_ring,
		.used_gpa = config->used_ring,
		.next_avail = config->avail_base,
		.avail_idx = config->avail_base,
		.next_used = config->used_base,
		.used_idx = config->used_base,
		/* On a ring that ran before, used_event may have been passed while nobody looked. */
		.notified_once = !config->used_base && !config->avail_base,
		.kick_fd = -1,
		.call_fd = -1,
		.err_fd = -1,
	};
	error = vr->ops->map(vr, mem);
	if (error)
		return error;
	vr->in_use = VNET_FAILS(VNET_FAIL_ALLOC) ?
			     NULL :
			     calloc((vr->size + 63) / 64, sizeof(*vr->in_use));
	vr->staged = VNET_FAILS(VNET_FAIL_ALLOC) ? NULL : calloc(vr->size, sizeof(*vr->staged));
	error = vr->in_use && vr->staged ? dup_fds(vr, config) : -ENOMEM;
	if (error) {
		vnet_vring_stop(vr);
		return error;
	}
	vr->running = true;
	return 0;
}

int vnet_vring_move(struct vnet_vring *vr, const struct vnet_mem *mem, uint64_t desc_table,
		    uint64_t avail_ring, uint64_t used_ring)
{
	struct vnet_vring before = *vr;
	int error;

	vr->desc_gpa = desc_table;
	vr->avail_gpa = avail_ring;
	vr->used_gpa = used_ring;
	error = vr->ops->map(vr, mem);
	if (error) {
		vr->desc_gpa = before.desc_gpa;
		vr->avail_gpa = before.avail_gpa;
		vr->used_gpa = before.used_gpa;
		vr->ops->map(vr, mem);
	}
	return error;
}

static int replacement(int fd, int *copy)
{
	errno = 0;
	*copy = vnet_fd_dup(fd);
	return *copy < -1 || (*copy == -1 && fd >= 0) ? (*copy < -1 ? *copy : -EBADF) : 0;
}

int vnet_vring_set_calls(struct vnet_vring *vr, int call_fd, int err_fd)
{
	int call, err, error = replacement(call_fd, &call);

	if (error)
		return error;
	error = replacement(err_fd, &err);
	if (error) {
		close_fd(&call);
		return error;
	}
	close_fd(&vr->call_fd);
	close_fd(&vr->err_fd);
	vr->call_fd = call;
	vr->err_fd = err;
	vr->may_block = may_block(vr->kick_fd) || may_block(call) || may_block(err);
	vnet_vring_notify(vr);
	return 0;
}

void vnet_vring_stop(struct vnet_vring *vr)
{
	if (!vr->ops)
		return;
	vr->running = false;
	close_fd(&vr->kick_fd);
	close_fd(&vr->call_fd);
	close_fd(&vr->err_fd);
	free(vr->in_use);
	free(vr->staged);
	vr->in_use = NULL;
	vr->staged = NULL;
	vr->staged_count = 0;
}

/*
 * Never wait for a peer.  A full eventfd or socket is a notification that is
 * still pending.  Whether a write would block is asked first where the file says
 * it may: the flag is the peer's, so it is not for us to change.
 */
static void signal_fd(const struct vnet_vring *vr, int fd)
{
	struct pollfd room = { .fd = fd, .events = POLLOUT };
	const uint64_t one = 1;

	if (fd < 0 || (vr->may_block && (poll(&room, 1, 0) <= 0 || !(room.revents & POLLOUT))))
		return;
	if (write(fd, &one, sizeof(one)) < 0)
		return;
}

void vnet_vring_break(struct vnet_vring *vr, enum vnet_break reason)
{
	if (!vr->running)
		return;
	/* What was staged is complete: the driver gets it before the ring falls silent. */
	if (vr->ops->publish(vr))
		vnet_vring_notify(vr);
	vr->running = false;
	atomic_store(&vr->broken, (uint32_t)reason);
	atomic_store(&vr->unreported, 1);
	signal_fd(vr, vr->err_fd);
}

void vnet_vring_notify(const struct vnet_vring *vr)
{
	signal_fd(vr, vr->call_fd);
}

void vnet_eventfd_drain(int fd)
{
	uint64_t count;
	struct iovec iov = { &count, sizeof(count) };

	/* Another ring may have the same file and have emptied it since: read without waiting. */
	if (preadv2(fd, &iov, 1, -1, RWF_NOWAIT) >= 0 || errno != EOPNOTSUPP)
		return;
	if (read(fd, &count, sizeof(count)) < 0)
		return; /* spurious wake-up: nothing to consume */
}
