/* SPDX-License-Identifier: MIT */
/* The verbs of rings: starting, stopping and changing them, each on the worker that owns the ring. */
#include "worker.h"

#include <errno.h>

/* What a verb says about its ring. */
struct request {
	uint32_t index;
	uint32_t on;
	uint64_t desc_table, avail_ring, used_ring;
	int kick_fd, call_fd, err_fd;
	const struct vnet_queue_config *config;
};

/* Return: NULL for the controlq */
static struct vnet_pair *pair_of(struct vnet_engine *e, uint32_t index)
{
	return index == 2 * e->pair_count ? NULL : &e->pairs[index / 2];
}

static struct vnet_vring *ring_of(struct vnet_engine *e, uint32_t index)
{
	struct vnet_pair *pair = pair_of(e, index);

	if (!pair)
		return &e->controlq;
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

/* The controlq is popped when somebody asks for a command, so its kicks are his to wait for. */
static int watch(struct vnet_pair *pair, int kick_fd, const struct vnet_vring *vr)
{
	return pair && kick_fd >= 0 ? vnet_worker_watch_kick(pair, vr, kick_fd, true) : 0;
}

/* Closing our copy of a kick fd would not end the watch: the driver holds the same file. */
static void unwatch(struct vnet_pair *pair, int kick_fd, const struct vnet_vring *vr)
{
	if (pair && vr->ops && kick_fd >= 0)
		vnet_worker_watch_kick(pair, vr, kick_fd, false);
}

/*
 * Something of a ring has changed: chains may have come that nobody kicked for,
 * and a wait for a kick or for the host port may be over.
 */
static int look(struct vnet_pair *pair, const struct vnet_vring *vr)
{
	if (!pair)
		return 0;
	if (vr == &pair->transmitq) {
		pair->tx_waits = false;
		pair->tx_ready = true;
		pair->tx_armed = true; /* as far as its new place or owner knows */
	} else {
		pair->rx_waits = false;
	}
	return vnet_worker_update_port(pair);
}

static int command_start(struct vnet_worker *w, struct vnet_command *command)
{
	const struct request *request = command->argument;
	struct vnet_pair *pair = pair_of(w->engine, request->index);
	struct vnet_vring *vr = ring_of(w->engine, request->index);
	int error;

	if (vr->running)
		return -EBUSY;
	unwatch(pair, vr->kick_fd, vr);
	if (!pair)
		vnet_ctrl_forget(w->engine);
	vnet_vring_stop(vr); /* one that broke still holds its fds */
	error = vnet_vring_start(vr, request->config, w->mem);
	if (error)
		return error;
	error = watch(pair, vr->kick_fd, vr);
	if (error) {
		vnet_vring_stop(vr);
		return error;
	}
	if (pair && vr == &pair->receiveq)
		set_active(w->engine, pair->index, !vr->disabled);
	/* Whoever ran the ring before may have used buffers without saying so. */
	if (!vr->disabled)
		vnet_vring_notify(vr);
	return look(pair, vr);
}

static int command_enable(struct vnet_worker *w, struct vnet_command *command)
{
	const struct request *request = command->argument;
	struct vnet_pair *pair = pair_of(w->engine, request->index);
	struct vnet_vring *vr = ring_of(w->engine, request->index);

	if (!vr->running)
		return -ENODEV;
	vr->disabled = !request->on;
	if (pair && vr == &pair->receiveq)
		set_active(w->engine, pair->index, request->on);
	if (request->on)
		vnet_vring_notify(vr);
	return look(pair, vr);
}

static int command_move(struct vnet_worker *w, struct vnet_command *command)
{
	const struct request *request = command->argument;
	struct vnet_vring *vr = ring_of(w->engine, request->index);
	int error;

	if (!vr->running)
		return -ENODEV;
	error = vnet_vring_move(vr, w->mem, request->desc_table, request->avail_ring,
				request->used_ring);
	return error ? error : look(pair_of(w->engine, request->index), vr);
}

static int command_kick(struct vnet_worker *w, struct vnet_command *command)
{
	const struct request *request = command->argument;
	struct vnet_pair *pair = pair_of(w->engine, request->index);
	struct vnet_vring *vr = ring_of(w->engine, request->index);
	int fd, error;

	if (!vr->running)
		return -ENODEV;
	error = vnet_kick_take(request->kick_fd, &fd);
	if (error)
		return error;
	error = watch(pair, fd, vr);
	if (error) {
		vnet_fd_close(&fd);
		return error;
	}
	unwatch(pair, vr->kick_fd, vr);
	vnet_fd_close(&vr->kick_fd);
	vr->kick_fd = fd;
	return look(pair, vr);
}

static int command_calls(struct vnet_worker *w, struct vnet_command *command)
{
	const struct request *request = command->argument;
	struct vnet_vring *vr = ring_of(w->engine, request->index);

	return vr->running ? vnet_vring_set_calls(vr, request->call_fd, request->err_fd) : -ENODEV;
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
	const struct request *request = command->argument;
	struct vnet_pair *pair = pair_of(w->engine, request->index);
	struct vnet_vring *vr = ring_of(w->engine, request->index);

	if (!pair)
		vnet_ctrl_forget(w->engine);
	fill_state(vr, command->answer);
	/*
	 * Kicks stay in the fd: nobody can tell whether the last one was for chains that were
	 * taken.  Whoever runs the ring next looks once in vain, or finds what is his to do.
	 */
	unwatch(pair, vr->kick_fd, vr);
	vnet_vring_stop(vr);
	if (!pair)
		return 0;
	if (vr == &pair->receiveq) {
		set_active(w->engine, pair->index, false);
		pair->rx_waits = false; /* a frame held for it finds another way, or its end */
	} else {
		pair->tx_ready = false;
		pair->tx_waits = false;
	}
	return vnet_worker_update_port(pair);
}

static int command_state(struct vnet_worker *w, struct vnet_command *command)
{
	const struct request *request = command->argument;

	fill_state(ring_of(w->engine, request->index), command->answer);
	return 0;
}

static int run_on_owner(struct vnet_engine *e, const struct request *request,
			int (*run)(struct vnet_worker *w, struct vnet_command *command),
			struct vnet_queue_state *state)
{
	struct vnet_command command = { .run = run, .argument = request, .answer = state };
	struct vnet_pair *pair;
	int result;

	if (request->index > 2 * e->pair_count)
		return -EINVAL;
	pair = pair_of(e, request->index);
	pthread_mutex_lock(&e->control);
	result = vnet_worker_run(pair ? pair->owner : &e->workers[0], &command);
	pthread_mutex_unlock(&e->control);
	return result;
}

int vnet_engine_start_queue(struct vnet_engine *e, const struct vnet_queue_config *config)
{
	const struct request request = { .index = config->index, .config = config };

	return run_on_owner(e, &request, command_start, NULL);
}

int vnet_engine_enable_queue(struct vnet_engine *e, uint32_t index, uint32_t on)
{
	const struct request request = { .index = index, .on = on };

	return run_on_owner(e, &request, command_enable, NULL);
}

int vnet_engine_move_queue(struct vnet_engine *e, uint32_t index, uint64_t desc_table,
			   uint64_t avail_ring, uint64_t used_ring)
{
	const struct request request = { .index = index,
					 .desc_table = desc_table,
					 .avail_ring = avail_ring,
					 .used_ring = used_ring };

	return run_on_owner(e, &request, command_move, NULL);
}

int vnet_engine_set_kick(struct vnet_engine *e, uint32_t index, int32_t kick_fd)
{
	const struct request request = { .index = index, .kick_fd = kick_fd };

	return run_on_owner(e, &request, command_kick, NULL);
}

int vnet_engine_set_calls(struct vnet_engine *e, uint32_t index, int32_t call_fd, int32_t err_fd)
{
	const struct request request = { .index = index, .call_fd = call_fd, .err_fd = err_fd };

	return run_on_owner(e, &request, command_calls, NULL);
}

int vnet_engine_stop_queue(struct vnet_engine *e, uint32_t index, struct vnet_queue_state *state)
{
	const struct request request = { .index = index };

	return run_on_owner(e, &request, command_stop_ring, state);
}

int vnet_engine_queue_state(struct vnet_engine *e, uint32_t index, struct vnet_queue_state *state)
{
	const struct request request = { .index = index };

	return run_on_owner(e, &request, command_state, state);
}
