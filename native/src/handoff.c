/* SPDX-License-Identifier: MIT */
/* Slots and bounded queues; theory in handoff.h. */
#define _GNU_SOURCE
#include "handoff.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "test_hooks.h"

static_assert(offsetof(struct vnet_slot, frame) % 4 == 0,
	      "headers are parsed at their natural alignment");

int vnet_queue_init(struct vnet_queue *q, uint32_t capacity)
{
	uint32_t size = 2;

	while (size < capacity)
		size *= 2;
	q->cells = VNET_FAILS(VNET_FAIL_ALLOC) ? NULL : calloc(size, sizeof(*q->cells));
	if (!q->cells)
		return -ENOMEM;
	q->mask = size - 1;
	for (uint32_t i = 0; i < size; i++)
		atomic_init(&q->cells[i].sequence, i);
	atomic_init(&q->tail, 0);
	atomic_init(&q->head, 0);
	return 0;
}

void vnet_queue_free(struct vnet_queue *q)
{
	free(q->cells);
	q->cells = NULL;
}

bool vnet_queue_put(struct vnet_queue *q, uint32_t value)
{
	uint32_t at = atomic_load_explicit(&q->tail, memory_order_relaxed);

	for (;;) {
		struct vnet_cell *cell = &q->cells[at & q->mask];
		uint32_t turn = atomic_load_explicit(&cell->sequence, memory_order_acquire);

		if (turn == at) {
			if (!atomic_compare_exchange_weak_explicit(&q->tail, &at, at + 1,
								   memory_order_relaxed,
								   memory_order_relaxed))
				continue;
			cell->value = value;
			/* pairs with the acquire in take(); sequentially consistent for ready() */
			atomic_store(&cell->sequence, at + 1);
			return true;
		}
		if ((int32_t)(turn - at) < 0)
			return false;
		at = atomic_load_explicit(&q->tail, memory_order_relaxed);
	}
}

uint32_t vnet_queue_take(struct vnet_queue *q)
{
	uint32_t at = atomic_load_explicit(&q->head, memory_order_relaxed);

	for (;;) {
		struct vnet_cell *cell = &q->cells[at & q->mask];
		uint32_t turn = atomic_load_explicit(&cell->sequence, memory_order_acquire);

		if (turn == at + 1) {
			uint32_t value;

			if (!atomic_compare_exchange_weak_explicit(&q->head, &at, at + 1,
								   memory_order_relaxed,
								   memory_order_relaxed))
				continue;
			value = cell->value;
			/* pairs with the acquire in put(): the cell may be filled again */
			atomic_store_explicit(&cell->sequence, at + q->mask + 1,
					      memory_order_release);
			return value;
		}
		if ((int32_t)(turn - (at + 1)) < 0)
			return VNET_SLOT_NONE;
		at = atomic_load_explicit(&q->head, memory_order_relaxed);
	}
}

bool vnet_queue_ready(struct vnet_queue *q)
{
	uint32_t at = atomic_load_explicit(&q->head, memory_order_relaxed);

	return atomic_load(&q->cells[at & q->mask].sequence) == at + 1;
}

int vnet_slots_init(struct vnet_slots *slots, uint32_t kept, uint32_t count)
{
	int error;

	slots->count = kept + count;
	slots->base = VNET_FAILS(VNET_FAIL_MMAP) ?
			      MAP_FAILED :
			      mmap(NULL, VNET_SLOT_STRIDE * slots->count, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (slots->base == MAP_FAILED) {
		slots->base = NULL;
		return -ENOMEM;
	}
	error = vnet_queue_init(&slots->free, count);
	for (uint32_t i = 0; !error && i < count; i++)
		vnet_queue_put(&slots->free, kept + i);
	return error;
}

void vnet_slots_free(struct vnet_slots *slots)
{
	if (slots->base)
		munmap(slots->base, VNET_SLOT_STRIDE * slots->count);
	slots->base = NULL;
	vnet_queue_free(&slots->free);
}
