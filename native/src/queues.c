/* SPDX-License-Identifier: MIT */
/* Starting and stopping rings on the worker that owns them, and the control virtqueue's commands. */
#include <errno.h>
#include <unistd.h>

#include "stats.h"
#include "worker.h"

static struct vnet_vring *ring_of(struct vnet_pair *pair, uint32_t index)
{
	return index & 1 ? &pair->transmitq : &pair->receiveq;
}

static void set_active(struct vnet_engine *e, uint32_t pair, bool on)
{
	uint64_t bit = UINT64_C(1) << (pair % 64);

	if (on)
		atomic_fetch_or(&e->rx_active[pair / 64], bit);
	else
		atomic_fetch_and(&e->rx_active[pair / 64], ~bit);
}

/* Closing our copy of a kick fd would not end the watch: the driver holds the same file. */
static void unwatch(struct vnet_pair *pair, const struct vnet_vring *vr)
{
	if (vr->ops && vr->kick_fd >= 0)
		vnet_worker_watch_kick(pair, vr, false);
}

static int command_start(struct vnet_worker *w, struct vnet_command *command)
{
	const struct vnet_queue_config *config = command->argument;
	struct vnet_pair *pair = &w->engine->pairs[command->pair];
	struct vnet_vring *vr = ring_of(pair, config->index);
	int error;

	if (vr->running)
		return -EBUSY;
	unwatch(pair, vr);
	vnet_vring_stop(vr); /* one that broke still holds its fds */
	error = vnet_vring_start(vr, config, w->mem);
	if (error)
		return error;
	error = vnet_worker_watch_kick(pair, vr, true);
	if (error)
		vnet_vring_stop(vr);
	else if (vr == &pair->receiveq)
		set_active(w->engine, pair->index, !vr->disabled);
	else /* chains made available, or kicked for, before the ring ran */
		pair->tx_ready = true;
	return error;
}

struct change {
	uint32_t index;
	uint32_t on;
	uint64_t desc_table, avail_ring, used_ring;
	int kick_fd, call_fd, err_fd;
};

static int command_enable(struct vnet_worker *w, struct vnet_command *command)
{
	const struct change *change = command->argument;
	struct vnet_pair *pair = &w->engine->pairs[command->pair];
	struct vnet_vring *vr = ring_of(pair, change->index);

	if (!vr->running)
		return -ENODEV;
	vr->disabled = !change->on;
	if (vr == &pair->transmitq) {
		pair->tx_waits =
			false; /* a chain that waits for the host port is sent, or thrown away */
		pair->tx_ready = true;
	} else {
		set_active(w->engine, pair->index, change->on);
		pair->rx_waits = false;
	}
	return vnet_worker_update_port(pair);
}

static int command_move(struct vnet_worker *w, struct vnet_command *command)
{
	const struct change *change = command->argument;
	struct vnet_vring *vr = ring_of(&w->engine->pairs[command->pair], change->index);

	if (!vr->running)
		return -ENODEV;
	return vnet_vring_move(vr, w->mem, change->desc_table, change->avail_ring,
			       change->used_ring);
}

static int command_kick(struct vnet_worker *w, struct vnet_command *command)
{
	const struct change *change = command->argument;
	struct vnet_pair *pair = &w->engine->pairs[command->pair];
	struct vnet_vring *vr = ring_of(pair, change->index);
	int before = vr->kick_fd, fd, error;

	if (!vr->running)
		return -ENODEV;
	errno = 0;
	fd = vnet_fd_dup(change->kick_fd);
	if (fd < -1 || (fd == -1 && change->kick_fd >= 0))
		return fd < -1 ? fd : -EBADF;
	vr->kick_fd = fd;
	error = vnet_worker_watch_kick(pair, vr, true);
	if (error) {
		vr->kick_fd = before;
		close(fd);
		return error;
	}
	if (before >= 0) {
		vr->kick_fd = before;
		vnet_worker_watch_kick(pair, vr, false);
		close(before);
		vr->kick_fd = fd;
	}
	pair->tx_ready |= vr == &pair->transmitq;
	pair->rx_waits &= vr != &pair->receiveq;
	return vnet_worker_update_port(pair);
}

static int command_calls(struct vnet_worker *w, struct vnet_command *command)
{
	const struct change *change = command->argument;
	struct vnet_vring *vr = ring_of(&w->engine->pairs[command->pair], change->index);

	return vr->running ? vnet_vring_set_calls(vr, change->call_fd, change->err_fd) : -ENODEV;
}

static void fill_state(const struct vnet_vring *vr, struct vnet_queue_state *state)
{
	*state = (struct vnet_queue_state){
		.avail_base = vr->next_avail,
		.used_base = vr->used_idx,
		.broken = atomic_load(&vr->broken),
		.running = vr->running,
	};
}

static int command_stop_ring(struct vnet_worker *w, struct vnet_command *command)
{
	struct vnet_pair *pair = &w->engine->pairs[command->pair];
	struct vnet_vring *vr = ring_of(pair, *(const uint32_t *)command->argument);

	unwatch(pair, vr);
	if (vr == &pair->receiveq) {
		set_active(w->engine, pair->index, false);
		pair->rx_waits =
			false; /* a frame held for this ring finds another way, or its end */
	} else {
		pair->tx_ready = false;
		pair->tx_waits = false;
	}
	vnet_worker_update_port(pair);
	fill_state(vr, command->answer);
	vnet_vring_stop(vr);
	return 0;
}

static int command_state(struct vnet_worker *w, struct vnet_command *command)
{
	fill_state(ring_of(&w->engine->pairs[command->pair], *(const uint32_t *)command->argument),
		   command->answer);
	return 0;
}

static int run_on_owner(struct vnet_engine *e, uint32_t index, struct vnet_command *command)
{
	int result;

	command->pair = index / 2;
	pthread_mutex_lock(&e->control);
	result = vnet_worker_run(e->pairs[command->pair].owner, command);
	pthread_mutex_unlock(&e->control);
	return result;
}

static void drop_ctrl_chain(struct vnet_engine *e)
{
	vnet_mem_put(e->ctrl_mem);
	e->ctrl_mem = NULL;
}

static int start_controlq(struct vnet_engine *e, const struct vnet_queue_config *config)
{
	int error = -EBUSY;

	pthread_mutex_lock(&e->control);
	if (!e->controlq.running) {
		drop_ctrl_chain(e);
		vnet_vring_stop(&e->controlq);
		error = vnet_vring_start(&e->controlq, config, e->mem);
	}
	pthread_mutex_unlock(&e->control);
	return error;
}

int vnet_engine_start_queue(struct vnet_engine *e, const struct vnet_queue_config *config)
{
	struct vnet_command command = { .run = command_start, .argument = config };

	if (config->index == 2 * e->pair_count)
		return start_controlq(e, config);
	if (config->index > 2 * e->pair_count)
		return -EINVAL;
	return run_on_owner(e, config->index, &command);
}

/* A change to a running ring, by its owner; the controlq's is whoever calls. */
static int change_queue(struct vnet_engine *e, const struct change *change,
			int (*run)(struct vnet_worker *w, struct vnet_command *command))
{
	struct vnet_command command = { .run = run, .argument = change };

	return change->index < 2 * e->pair_count ? run_on_owner(e, change->index, &command) :
						   -EINVAL;
}

int vnet_engine_enable_queue(struct vnet_engine *e, uint32_t index, uint32_t on)
{
	const struct change change = { .index = index, .on = on };

	if (index == 2 * e->pair_count)
		return 0;
	return change_queue(e, &change, command_enable);
}

int vnet_engine_move_queue(struct vnet_engine *e, uint32_t index, uint64_t desc_table,
			   uint64_t avail_ring, uint64_t used_ring)
{
	const struct change change = { .index = index,
				       .desc_table = desc_table,
				       .avail_ring = avail_ring,
				       .used_ring = used_ring };
	int error = -ENODEV;

	if (index != 2 * e->pair_count)
		return change_queue(e, &change, command_move);
	pthread_mutex_lock(&e->control);
	if (e->controlq.running)
		error = vnet_vring_move(&e->controlq, e->mem, desc_table, avail_ring, used_ring);
	pthread_mutex_unlock(&e->control);
	return error;
}

int vnet_engine_set_kick(struct vnet_engine *e, uint32_t index, int32_t kick_fd)
{
	const struct change change = { .index = index, .kick_fd = kick_fd };

	return change_queue(e, &change, command_kick);
}

int vnet_engine_set_calls(struct vnet_engine *e, uint32_t index, int32_t call_fd, int32_t err_fd)
{
	const struct change change = { .index = index, .call_fd = call_fd, .err_fd = err_fd };
	int error = -ENODEV;

	if (index != 2 * e->pair_count)
		return change_queue(e, &change, command_calls);
	pthread_mutex_lock(&e->control);
	if (e->controlq.running)
		error = vnet_vring_set_calls(&e->controlq, call_fd, err_fd);
	pthread_mutex_unlock(&e->control);
	return error;
}

int vnet_engine_stop_queue(struct vnet_engine *e, uint32_t index, struct vnet_queue_state *state)
{
	struct vnet_command command = { .run = command_stop_ring,
					.argument = &index,
					.answer = state };

	if (index > 2 * e->pair_count)
		return -EINVAL;
	if (index < 2 * e->pair_count)
		return run_on_owner(e, index, &command);
	pthread_mutex_lock(&e->control);
	fill_state(&e->controlq, state);
	if (e->ctrl_mem) /* a command taken but not answered is taken again after the next start */
		state->avail_base--;
	drop_ctrl_chain(e);
	vnet_vring_stop(&e->controlq);
	pthread_mutex_unlock(&e->control);
	return 0;
}

int vnet_engine_queue_state(struct vnet_engine *e, uint32_t index, struct vnet_queue_state *state)
{
	struct vnet_command command = { .run = command_state, .argument = &index, .answer = state };

	if (index > 2 * e->pair_count)
		return -EINVAL;
	if (index < 2 * e->pair_count)
		return run_on_owner(e, index, &command);
	pthread_mutex_lock(&e->control);
	fill_state(&e->controlq, state);
	pthread_mutex_unlock(&e->control);
	return 0;
}

static void ctrl_return(struct vnet_engine *e, uint32_t len)
{
	struct vnet_vring *vr = &e->controlq;

	vr->ops->push(vr, e->ctrl_chain.head, len);
	if (vr->ops->publish(vr))
		vnet_vring_notify(vr);
}

static int ctrl_take(struct vnet_engine *e, uint8_t *buf, uint32_t capacity, uint32_t *len,
		     uint32_t *writable)
{
	struct vnet_vring *vr = &e->controlq;
	int got;

	do {
		e->ctrl_pieces.count = 0;
		got = vr->ops->pop(vr, e->mem, &e->ctrl_pieces, &e->ctrl_chain);
	} while (!got && vr->ops->arm(vr));
	if (got == -EPIPE && atomic_load(&vr->unreported))
		vnet_worker_report(e);
	if (got == -EBADMSG ||
	    (got == 1 && VNET_GUARD(CTRL_LENGTH, e->ctrl_chain.read_bytes > capacity))) {
		ctrl_return(e, 0);
		return -EBADMSG;
	}
	if (got != 1)
		return got;
	vnet_mem_read(e->ctrl_pieces.iov, 0, buf, e->ctrl_chain.read_bytes);
	*len = e->ctrl_chain.read_bytes;
	*writable = e->ctrl_chain.write_bytes;
	e->ctrl_mem = vnet_mem_get(e->mem);
	return 1;
}

int vnet_ctrl_pop(struct vnet_engine *e, uint8_t *buf, uint32_t capacity, uint32_t *len,
		  uint32_t *writable)
{
	int result;

	pthread_mutex_lock(&e->control);
	if (e->ctrl_mem)
		result = -EBUSY; /* the last one is not answered yet */
	else if (!e->controlq.running)
		result = atomic_load(&e->controlq.broken) ? -EPIPE : -ENODEV;
	else
		result = ctrl_take(e, buf, capacity, len, writable);
	pthread_mutex_unlock(&e->control);
	return result;
}

int vnet_ctrl_complete(struct vnet_engine *e, const uint8_t *answer, uint32_t len)
{
	int result = 0;

	pthread_mutex_lock(&e->control);
	if (!e->ctrl_mem) {
		result = -ENOENT;
	} else if (!e->controlq.running) {
		result = -ENODEV;
	} else {
		if (len > e->ctrl_chain.write_bytes)
			len = e->ctrl_chain.write_bytes;
		vnet_mem_write(&e->ctrl_pieces.iov[e->ctrl_chain.readable], 0, answer, len);
		ctrl_return(e, len);
	}
	drop_ctrl_chain(e);
	pthread_mutex_unlock(&e->control);
	return result;
}
