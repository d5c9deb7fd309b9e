/* SPDX-License-Identifier: MIT */
/* Rings of driver_ring.h with a device made in the same process. */
#ifndef BENCH_DEVICE_RING_H
#define BENCH_DEVICE_RING_H

#include "driver_ring.h"
#include "pyvnet/vnet.h"

/** device_set_memory() - tell the device where its rings and buffers lie. Return: 0 or -errno */
static inline int device_set_memory(struct vnet_engine *engine, const struct ring_mem *memory)
{
	const struct vnet_region region = {
		.gpa = (uintptr_t)memory->base,
		.size = memory->size,
		.fd = memory->fd,
	};
	struct vnet_mem *mem;
	int error = vnet_mem_create(&region, 1, &mem);

	if (error)
		return error;
	error = vnet_engine_set_memory(engine, mem);
	vnet_mem_put(mem);
	return error;
}

/** device_start_ring() - Return: 0 or -errno */
static inline int device_start_ring(struct vnet_engine *engine, const struct ring *r,
				    uint32_t index)
{
	const struct vnet_queue_config config = {
		.index = index,
		.size = r->size,
		.desc_table = (uintptr_t)r->desc,
		.avail_ring = (uintptr_t)r->avail,
		.used_ring = (uintptr_t)r->used,
		.event_idx = r->event_idx,
		.kick_fd = r->kick_fd,
		.call_fd = r->call_fd,
		.err_fd = -1,
	};

	return vnet_engine_start_queue(engine, &config);
}

#endif
