/* SPDX-License-Identifier: MIT */
/* Rings of copied frames, and the verbs of a capture; theory in capture.h. */
#define _GNU_SOURCE
#include "capture.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "stats.h"
#include "worker.h"

#define RINGS_BYTES (16u << 20) /* all rings together, unless that leaves too little for each */
#define RING_LEAST (512u << 10)
#define RING_MOST (1u << 30)

static_assert(sizeof(struct vnet_capture_record) % 8 == 0, "records follow each other");
static_assert(RING_LEAST / 4 > sizeof(struct vnet_capture_record) + VNET_FRAME_MAX,
	      "the longest frame is no quarter of a ring");

/* The worker's side. */

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static struct vnet_capture_record *record_at(const struct vnet_capture_ring *ring, uint64_t where)
{
	return (struct vnet_capture_record *)(void *)(ring->bytes +
						      (where & (ring->capture->ring_size - 1)));
}

/* Return: room for a record of @size bytes, which does not count yet; NULL: there is none */
static struct vnet_capture_record *reserve(struct vnet_capture_ring *ring, uint32_t size)
{
	uint32_t ring_size = ring->capture->ring_size;
	uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
	uint32_t rest = ring_size - (uint32_t)(head & (ring_size - 1));
	uint64_t need = size <= rest ? size : (uint64_t)rest + size;

	if (head + need - ring->tail_seen > ring_size) {
		/* pairs with the release in done_with(): what is there may be overwritten */
		ring->tail_seen = atomic_load_explicit(&ring->tail, memory_order_acquire);
		if (head + need - ring->tail_seen > ring_size)
			return NULL;
	}
	if (size <= rest)
		return record_at(ring, head);
	record_at(ring, head)->size = 0;
	return record_at(ring, head + rest);
}

static void wake(struct vnet_capture *capture)
{
	const uint64_t one = 1;

	if (atomic_exchange(&capture->asleep, false) &&
	    write(capture->wake_fd, &one, sizeof(one)) < 0)
		return; /* it is set already */
}

static void commit(struct vnet_capture_ring *ring, struct vnet_capture_record *record)
{
	struct vnet_capture *capture = ring->capture;
	uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);

	if (record_at(ring, head) != record)
		head += capture->ring_size - (head & (capture->ring_size - 1));
	head += record->size;
	/* pairs with the acquire in first_of(): the record is whole */
	atomic_store_explicit(&ring->head, head, memory_order_release);
	if (head - ring->tail_seen <= capture->ring_size / 4)
		return;
	ring->tail_seen = atomic_load_explicit(&ring->tail, memory_order_acquire);
	if (head - ring->tail_seen > capture->ring_size / 4 &&
	    atomic_load_explicit(&capture->asleep, memory_order_relaxed))
		wake(capture);
}

/* Begin a record.  Return: NULL: there is no room, which is counted */
static struct vnet_capture_record *
begin(struct vnet_capture_ring *ring, const struct vnet_pair *pair, uint16_t transmit, uint32_t len)
{
	const struct vnet_capture *capture = ring->capture;
	struct vnet_capture_counts *counts = &capture->counts[2 * pair->index + transmit];
	uint32_t captured = len < capture->snap_length ? len : capture->snap_length;
	uint32_t size = (uint32_t)(sizeof(struct vnet_capture_record) + captured + 7) & ~7u;
	struct vnet_capture_record *record = reserve(ring, size);

	if (!record) {
		vnet_count(&counts->drops, 1);
		counts->drops_untold++;
		return NULL;
	}
	*record = (struct vnet_capture_record){
		.size = size,
		.captured = captured,
		.len = len,
		.drops = counts->drops_untold,
		.time = now_ns(),
		.pair = (uint16_t)pair->index,
		.transmit = transmit,
	};
	counts->drops_untold = 0;
	vnet_count(&counts->frames, 1);
	return record;
}

/* A frame that another worker steered here was judged by what held there (U-41). */
static uint32_t judged_by(const struct vnet_worker *w, const struct vnet_slot *slot)
{
	const struct vnet_slots *pool = &w->engine->slots;
	const uint8_t *at = (const uint8_t *)slot;

	return at >= pool->base + VNET_SLOT_STRIDE * w->engine->pair_count * VNET_BATCH &&
			       at < pool->base + VNET_SLOT_STRIDE * pool->count ?
		       slot->policy :
		       w->policy->serial;
}

void vnet_capture_rx(struct vnet_worker *w, const struct vnet_pair *pair,
		     const struct vnet_slot *slot)
{
	struct vnet_capture_record *record = begin(w->capture, pair, 0, slot->len);

	if (!record)
		return;
	record->policy = judged_by(w, slot);
	record->hash_value = slot->hash_value;
	record->hash_report = slot->hash_report;
	record->header = slot->shown;
	memcpy(record + 1, slot->frame, record->captured);
	commit(w->capture, record);
}

void vnet_capture_tx(struct vnet_worker *w, const struct vnet_pair *pair, uint32_t sent)
{
	const struct vnet_tx_batch *b = &w->scratch.tx;

	for (uint32_t i = 0; i < sent; i++) {
		const struct iovec *iov = b->frames[i].iov;
		uint32_t len = b->chains[b->chain_of[i]].read_bytes - w->policy->header_length;
		struct vnet_capture_record *record;

		if (b->results[i])
			continue;
		record = begin(w->capture, pair, 1, len);
		if (!record)
			continue;
		record->policy = w->policy->serial;
		memcpy(&record->header, iov->iov_base, sizeof(record->header));
		vnet_mem_read(iov, VNET_PORT_HDR, record + 1, record->captured);
		commit(w->capture, record);
	}
}

/* The taker's side. */

/* Return: the first record of a ring, NULL: it is empty */
static const struct vnet_capture_record *first_of(struct vnet_capture_ring *ring)
{
	uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
	const struct vnet_capture_record *record;

	if (tail == atomic_load_explicit(&ring->head, memory_order_acquire))
		return NULL;
	record = record_at(ring, tail);
	return record->size ? record : record_at(ring, 0);
}

static void done_with(struct vnet_capture_ring *ring, const struct vnet_capture_record *record)
{
	uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);

	if (record_at(ring, tail) != record)
		tail += ring->capture->ring_size - (tail & (ring->capture->ring_size - 1));
	atomic_store_explicit(&ring->tail, tail + record->size, memory_order_release);
}

static const struct vnet_capture_record *earliest(struct vnet_capture *capture,
						  struct vnet_capture_ring **from)
{
	const struct vnet_capture_record *found = NULL;

	for (uint32_t i = 0; i < capture->ring_count; i++) {
		const struct vnet_capture_record *record = first_of(&capture->rings[i]);

		if (!record || (found && found->time <= record->time))
			continue;
		found = record;
		*from = &capture->rings[i];
	}
	return found;
}

void vnet_capture_take(struct vnet_capture *capture, uint8_t *buf, uint32_t room, uint32_t policy,
		       const char *comment, struct vnet_capture_batch *batch)
{
	const struct vnet_capture_record *record;
	struct vnet_capture_ring *ring = NULL;

	*batch = (struct vnet_capture_batch){ 0 };
	while ((record = earliest(capture, &ring))) {
		uint32_t size = vnet_capture_block(record, comment, buf + batch->bytes,
						   room - batch->bytes);

		if (size > room - batch->bytes || record->policy != policy) {
			batch->size = size;
			batch->policy = record->policy;
			return;
		}
		batch->bytes += size;
		batch->frames++;
		comment = "";
		done_with(ring, record);
	}
}

static bool quarter_full(const struct vnet_capture *capture)
{
	for (uint32_t i = 0; i < capture->ring_count; i++) {
		const struct vnet_capture_ring *ring = &capture->rings[i];

		if (atomic_load_explicit(&ring->head, memory_order_relaxed) -
			    atomic_load_explicit(&ring->tail, memory_order_relaxed) >
		    capture->ring_size / 4)
			return true;
	}
	return false;
}

void vnet_capture_wait(struct vnet_capture *capture, int32_t milliseconds)
{
	struct pollfd p = { .fd = capture->wake_fd, .events = POLLIN };

	atomic_store(&capture->asleep, true);
	if (!quarter_full(capture))
		poll(&p, 1, milliseconds);
	atomic_store(&capture->asleep, false);
	vnet_fd_drain(capture->wake_fd);
}

void vnet_capture_wake(struct vnet_capture *capture)
{
	const uint64_t one = 1;

	if (write(capture->wake_fd, &one, sizeof(one)) < 0)
		return; /* it is set already */
}

void vnet_capture_count(const struct vnet_capture *capture, uint32_t interface, uint64_t *frames,
			uint64_t *drops)
{
	const struct vnet_capture_counts *counts = &capture->counts[interface];

	*frames = __atomic_load_n(&counts->frames, __ATOMIC_RELAXED);
	*drops = __atomic_load_n(&counts->drops, __ATOMIC_RELAXED);
}

/* Making and unmaking. */

static int command_capture(struct vnet_worker *w, struct vnet_command *command)
{
	const struct vnet_capture *capture = command->argument;

	w->capture = capture ? &capture->rings[w->number] : NULL;
	return 0;
}

static uint32_t ring_size_of(const struct vnet_engine *e)
{
	uint32_t size = RING_LEAST;

	while (size * 2 <= RINGS_BYTES / e->worker_count)
		size *= 2;
	return size;
}

static int init(struct vnet_capture *c)
{
	size_t bytes = (size_t)c->ring_size * c->ring_count;

	c->wake_fd = VNET_FAILS(VNET_FAIL_FD) ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->wake_fd < 0)
		return errno ? -errno : -EMFILE;
	c->rings = VNET_FAILS(VNET_FAIL_ALLOC) ?
			   NULL :
			   aligned_alloc(64, c->ring_count * sizeof(*c->rings));
	c->counts = VNET_FAILS(VNET_FAIL_ALLOC) ?
			    NULL :
			    calloc((size_t)c->engine->pair_count * 2, sizeof(*c->counts));
	if (!c->rings || !c->counts)
		return -ENOMEM;
	c->base = VNET_FAILS(VNET_FAIL_MMAP) ?
			  MAP_FAILED :
			  mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (c->base == MAP_FAILED) {
		c->base = NULL;
		return -ENOMEM;
	}
	memset(c->rings, 0, c->ring_count * sizeof(*c->rings));
	for (uint32_t i = 0; i < c->ring_count; i++) {
		c->rings[i].capture = c;
		c->rings[i].bytes = c->base + (size_t)c->ring_size * i;
	}
	return 0;
}

int vnet_capture_start(struct vnet_engine *e, uint32_t snap_length, uint32_t ring_size,
		       struct vnet_capture **capture)
{
	struct vnet_command command = { .run = command_capture };
	struct vnet_capture *c;
	int error;

	if (ring_size & (ring_size - 1) || (ring_size && ring_size < RING_LEAST) ||
	    ring_size > RING_MOST)
		return -EINVAL;
	c = VNET_FAILS(VNET_FAIL_ALLOC) ? NULL : calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->engine = e;
	c->snap_length = snap_length ? snap_length : UINT32_MAX;
	c->ring_count = e->worker_count;
	c->ring_size = ring_size ? ring_size : ring_size_of(e);
	c->wake_fd = -1;
	error = init(c);
	pthread_mutex_lock(&e->control);
	if (!error && e->captured)
		error = -EBUSY;
	if (!error) {
		e->captured = true;
		command.argument = c;
		vnet_workers_run(e, &command);
	}
	pthread_mutex_unlock(&e->control);
	if (error) {
		vnet_capture_free(c);
		return error;
	}
	*capture = c;
	return 0;
}

void vnet_capture_stop(struct vnet_capture *capture)
{
	struct vnet_engine *e = capture->engine;
	struct vnet_command command = { .run = command_capture };

	if (!e)
		return;
	pthread_mutex_lock(&e->control);
	vnet_workers_run(e, &command);
	e->captured = false;
	pthread_mutex_unlock(&e->control);
	capture->engine = NULL;
	vnet_capture_wake(capture);
}

void vnet_capture_free(struct vnet_capture *capture)
{
	if (!capture)
		return;
	if (capture->base)
		munmap(capture->base, (size_t)capture->ring_size * capture->ring_count);
	if (capture->wake_fd >= 0)
		close(capture->wake_fd);
	free(capture->rings);
	free(capture->counts);
	free(capture);
}
