/* SPDX-License-Identifier: MIT */
/* What the ring formats have in common: life cycle, breaking, notifying. */
#include "vring.h"

#include <errno.h>
#include <stdlib.h>

/* All or none, in place of what @vr holds. Return: 0 or -errno */
static int take_calls(struct vnet_vring *vr, int call_fd, int err_fd)
{
	struct vnet_notifier call, err;
	int error = vnet_notifier_take(call_fd, &call);

	if (error)
		return error;
	error = vnet_notifier_take(err_fd, &err);
	if (error) {
		vnet_fd_close(&call.fd);
		return error;
	}
	vnet_fd_close(&vr->call.fd);
	vnet_fd_close(&vr->err.fd);
	vr->call = call;
	vr->err = err;
	return 0;
}

static int take_fds(struct vnet_vring *vr, const struct vnet_queue_config *config)
{
	int error = vnet_kick_take(config->kick_fd, &vr->kick_fd);

	return error ? error : take_calls(vr, config->call_fd, config->err_fd);
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
		.kick_fd = -1,
		.call.fd = -1,
		.err.fd = -1,
	};
	error = vr->ops->map(vr, mem);
	if (error)
		return error;
	if (!config->avail_base && !config->used_base)
		vr->ops->take_position(vr);
	vr->popped_as =
		VNET_FAILS(VNET_FAIL_ALLOC) ? NULL : calloc(vr->size, sizeof(*vr->popped_as));
	error = vr->popped_as ? take_fds(vr, config) : -ENOMEM;
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

int vnet_vring_set_calls(struct vnet_vring *vr, int call_fd, int err_fd)
{
	int error = take_calls(vr, call_fd, err_fd);

	if (!error)
		vnet_vring_notify(vr);
	return error;
}

void vnet_vring_stop(struct vnet_vring *vr)
{
	if (!vr->ops)
		return;
	vr->running = false;
	vnet_fd_close(&vr->kick_fd);
	vnet_fd_close(&vr->call.fd);
	vnet_fd_close(&vr->err.fd);
	free(vr->popped_as);
	vr->popped_as = NULL;
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
	vnet_notifier_signal(&vr->err);
}

void vnet_vring_notify(const struct vnet_vring *vr)
{
	vnet_notifier_signal(&vr->call);
}
