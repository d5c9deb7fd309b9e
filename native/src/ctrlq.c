/* SPDX-License-Identifier: MIT */
/*
 * The control virtqueue.  Worker 0 owns its ring, as any ring is a worker's:
 * guest memory is touched, and a peer's fds are written to, by threads that
 * are prepared for what may come of it (sigbus.h, notify.h).  The worker takes
 * or answers a command when it is asked to, and the caller waits.
 */
#include "worker.h"

#include <errno.h>

/* One call of vnet_ctrl_pop() or vnet_ctrl_complete(). */
struct exchange {
	uint8_t *buf;
	uint32_t capacity;
	uint32_t *len, *writable;
	const uint8_t *answer;
	uint32_t answer_len;
};

static void drop_chain(struct vnet_engine *e)
{
	vnet_mem_put(e->ctrl_mem);
	e->ctrl_mem = NULL;
}

void vnet_ctrl_forget(struct vnet_engine *e)
{
	if (e->ctrl_mem)
		e->controlq.next_avail--;
	drop_chain(e);
}

static void give_back(struct vnet_engine *e, uint32_t len)
{
	struct vnet_vring *vr = &e->controlq;

	vr->ops->push(vr, e->ctrl_chain.head, len);
	if (vr->ops->publish(vr))
		vnet_vring_notify(vr);
}

static int take(struct vnet_worker *w, const struct exchange *x)
{
	struct vnet_engine *e = w->engine;
	struct vnet_vring *vr = &e->controlq;
	int got;

	do {
		e->ctrl_pieces.count = 0;
		got = vr->ops->pop(vr, w->mem, &e->ctrl_pieces, &e->ctrl_chain);
	} while (!got && vr->ops->arm(vr));
	if (got == -EPIPE && atomic_load(&vr->unreported))
		vnet_worker_ring_broke(w);
	if (got == -EBADMSG ||
	    (got == 1 && VNET_GUARD(CTRL_LENGTH, e->ctrl_chain.read_bytes > x->capacity))) {
		give_back(e, 0);
		return -EBADMSG;
	}
	if (got != 1)
		return got;
	vnet_mem_read(e->ctrl_pieces.iov, 0, x->buf, e->ctrl_chain.read_bytes);
	*x->len = e->ctrl_chain.read_bytes;
	*x->writable = e->ctrl_chain.write_bytes;
	e->ctrl_mem = vnet_mem_get(w->mem);
	return 1;
}

static int command_pop(struct vnet_worker *w, struct vnet_command *command)
{
	struct vnet_engine *e = w->engine;

	if (e->ctrl_mem)
		return -EBUSY; /* the last one is not answered yet */
	if (!e->controlq.running)
		return atomic_load(&e->controlq.broken) ? -EPIPE : -ENODEV;
	return take(w, command->argument);
}

static int command_complete(struct vnet_worker *w, struct vnet_command *command)
{
	const struct exchange *x = command->argument;
	struct vnet_engine *e = w->engine;
	uint32_t len = x->answer_len;

	if (!e->ctrl_mem)
		return -ENOENT;
	if (!e->controlq.running) {
		vnet_ctrl_forget(e);
		return -ENODEV;
	}
	if (len > e->ctrl_chain.write_bytes)
		len = e->ctrl_chain.write_bytes;
	vnet_mem_write(&e->ctrl_pieces.iov[e->ctrl_chain.readable], 0, x->answer, len);
	give_back(e, len);
	drop_chain(e);
	return 0;
}

static int run(struct vnet_engine *e, const struct exchange *x,
	       int (*function)(struct vnet_worker *w, struct vnet_command *command))
{
	struct vnet_command command = { .run = function, .argument = x };
	int result;

	pthread_mutex_lock(&e->control);
	result = vnet_worker_run(&e->workers[0], &command);
	pthread_mutex_unlock(&e->control);
	return result;
}

int vnet_ctrl_pop(struct vnet_engine *e, uint8_t *buf, uint32_t capacity, uint32_t *len,
		  uint32_t *writable)
{
	const struct exchange x = {
		.buf = buf, .capacity = capacity, .len = len, .writable = writable
	};

	return run(e, &x, command_pop);
}

int vnet_ctrl_complete(struct vnet_engine *e, const uint8_t *answer, uint32_t len)
{
	const struct exchange x = { .answer = answer, .answer_len = len };

	return run(e, &x, command_complete);
}
