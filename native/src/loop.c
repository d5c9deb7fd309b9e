/* SPDX-License-Identifier: MIT */
/* Rounds, looking on, sleeping; theory in loop.h. */
#define _GNU_SOURCE
#include "loop.h"

#include <sys/epoll.h>
#include <time.h>

#include "notify.h"
#include "sigbus.h"
#include "stats.h"

#define EVENTS 64
#define FEW_PAIRS 8u /* so many idle transmitqs are looked at for as long as the worker is awake */
#define QUIET_ROUNDS \
	256u /* of more than these, one that had nothing in so many rounds waits for a kick */
#define EVENT_ROUNDS 16u /* rounds between two looks at epoll … */
#define EVENT_ROUNDS_MANY 2u /* … of a worker with several host port queues */
#define BACKOFF_MAX 255u /* sleeps without looking on before it is tried again */

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* What epoll says. */

static void port_event(struct vnet_pair *pair, uint32_t events)
{
	if (events & EPOLLOUT && pair->tx_waits) {
		pair->tx_waits = false;
		pair->tx_ready = true;
		vnet_worker_update_port(pair);
	}
	if (events & EPOLLIN)
		pair->rx_ready = true;
	else if (events & (EPOLLERR | EPOLLHUP | EPOLLRDHUP))
		vnet_worker_port_gone(pair);
}

/* Readable for ever, and never a kick again. */
static void kick_lost(struct vnet_pair *pair, struct vnet_vring *vr)
{
	vnet_worker_watch_kick(pair, vr, vr->kick_fd, false);
	vnet_fd_close(&vr->kick_fd);
}

static void kick_event(struct vnet_pair *pair, struct vnet_vring *vr, uint32_t events, bool edge)
{
	if (!vr->ops || vr->kick_fd < 0)
		return;
	if (VNET_GUARD(KICK_LOST, !(events & EPOLLIN) || (!edge && !vnet_fd_drain(vr->kick_fd))))
		kick_lost(pair, vr);
	if (vr == &pair->receiveq) {
		vnet_count(&pair->stats.rx_kicks, 1);
		pair->rx_waits = false;
		vnet_worker_update_port(pair);
	} else {
		vnet_count(&pair->stats.tx_kicks, 1);
		pair->tx_ready = true;
	}
}

static void handle(struct vnet_worker *w, const struct epoll_event *event)
{
	struct vnet_pair *pair = &w->engine->pairs[(uint32_t)event->data.u64];
	uint32_t source = (uint32_t)(event->data.u64 >> 32);
	bool edge = source & VNET_SOURCE_EDGE;

	switch (source & ~(uint32_t)VNET_SOURCE_EDGE) {
	case VNET_SOURCE_PORT:
		if (pair->interest)
			port_event(pair, event->events);
		break;
	case VNET_SOURCE_RX_KICK:
		kick_event(pair, &pair->receiveq, event->events, edge);
		break;
	case VNET_SOURCE_TX_KICK:
		kick_event(pair, &pair->transmitq, event->events, edge);
		break;
	default:
		return; /* the wake fd: what it tells is seen in the round */
	}
	vnet_worker_mark(pair);
}

static void collect(struct vnet_worker *w, int timeout)
{
	struct epoll_event events[EVENTS];
	int n = epoll_wait(w->epoll_fd, events, EVENTS, timeout);

	w->rounds = w->frames = 0;
	for (int i = 0; i < n; i++)
		handle(w, &events[i]);
}

static bool collect_due(const struct vnet_worker *w)
{
	return w->frames >= VNET_BURST ||
	       w->rounds >= (w->ports > 1 ? EVENT_ROUNDS_MANY : EVENT_ROUNDS);
}

/* One pair's turn. */

/* Frames that no fd will announce: those held for buffers that came, or still to be made by the null port. */
static bool has_frames(const struct vnet_pair *pair)
{
	return (pair->held || (pair->port.credit && pair->port.attached)) && !pair->rx_waits;
}

static bool is_polled(const struct vnet_vring *vr)
{
	return vr->running && vr->kick_fd < 0;
}

/* A ring whose driver has no way to say that it did something. */
static bool is_unkicked(const struct vnet_pair *pair)
{
	return is_polled(&pair->transmitq) || (pair->rx_waits && is_polled(&pair->receiveq));
}

static void look_unkicked(struct vnet_pair *pair)
{
	if (is_polled(&pair->transmitq))
		pair->tx_ready = true;
	if (pair->rx_waits && is_polled(&pair->receiveq) &&
	    pair->receiveq.ops->arm(&pair->receiveq)) {
		pair->rx_waits = false;
		vnet_worker_update_port(pair);
	}
}

static uint32_t receive(struct vnet_worker *w, struct vnet_pair *pair)
{
	uint32_t frames = vnet_rx_burst(w, pair, VNET_BURST);

	if (frames)
		w->warm = pair;
	pair->rx_ready = frames >= VNET_BURST;
	return frames;
}

static bool looks_on(const struct vnet_worker *w)
{
	return w->engine->poll_us && !w->skip;
}

static uint32_t transmit(struct vnet_worker *w, struct vnet_pair *pair)
{
	uint32_t chains = vnet_tx_burst(w, pair, VNET_BURST);

	pair->quiet = chains ? 0 : pair->quiet + 1;
	if ((chains < VNET_BURST && !looks_on(w)) ||
	    (pair->quiet >= QUIET_ROUNDS && w->marked > FEW_PAIRS)) {
		pair->quiet = 0;
		vnet_tx_arm(pair);
	}
	return chains;
}

/* Return: frames and chains */
static uint32_t run_pair(struct vnet_worker *w, struct vnet_pair *pair)
{
	uint32_t done = 0;

	if (is_unkicked(pair))
		look_unkicked(pair);
	if (pair->rx_ready || has_frames(pair) || (pair == w->warm && looks_on(w)))
		done += receive(w, pair);
	if (pair->tx_ready)
		done += transmit(w, pair);
	return done;
}

static bool stays_marked(const struct vnet_worker *w, const struct vnet_pair *pair)
{
	return pair->tx_ready || pair->rx_ready || has_frames(pair) || is_unkicked(pair) ||
	       (pair == w->warm && looks_on(w));
}

static void unmark(struct vnet_worker *w, const struct vnet_pair *pair)
{
	w->marks[pair->index / 64] &= ~(UINT64_C(1) << (pair->index % 64));
}

static struct vnet_pair *take_mark(struct vnet_worker *w, uint32_t word, uint64_t *marks)
{
	uint32_t bit = (uint32_t)__builtin_ctzll(*marks);

	*marks &= *marks - 1;
	return &w->engine->pairs[word * 64 + bit];
}

uint32_t vnet_worker_round(struct vnet_worker *w)
{
	uint32_t done = 0, marked = 0;

	if (collect_due(w))
		collect(w, 0);
	if (vnet_queue_ready(&w->inbound)) {
		vnet_rx_inbound(w, VNET_BURST);
		done++;
	}
	for (uint32_t word = 0; word < VNET_PAIR_WORDS; word++) {
		uint64_t marks = w->marks[word];

		while (marks) {
			struct vnet_pair *pair = take_mark(w, word, &marks);

			done += run_pair(w, pair);
			if (stays_marked(w, pair))
				marked++;
			else
				unmark(w, pair);
		}
	}
	w->marked = marked;
	w->rounds++;
	w->frames += done;
	return done;
}

/* Going to sleep. */

/* Return: is it worth looking once more before sleeping? */
static bool look_on(struct vnet_worker *w)
{
	uint64_t now;

	if (!looks_on(w)) {
		w->skip -= w->skip ? 1 : 0;
		return false;
	}
	now = now_ns();
	if (!w->idle_since) {
		w->idle_since = now;
		return true;
	}
	if (now - w->idle_since < UINT64_C(1000) * w->engine->poll_us) {
		vnet_pause_cpu();
		return true;
	}
	w->backoff = w->backoff < BACKOFF_MAX / 2 ? 2 * w->backoff + 1 : BACKOFF_MAX;
	w->skip = w->backoff;
	return false;
}

/* How long a worker may sleep, in milliseconds. */
enum rest { REST_NOT = 0, REST_POLL = 1, REST_LONG = -1 };

/* Ask for kicks wherever none is wanted so far. Return: REST_NOT: there is something to do already */
static enum rest ask_for_kicks(struct vnet_worker *w)
{
	enum rest rest = REST_LONG;

	for (uint32_t word = 0; word < VNET_PAIR_WORDS; word++) {
		uint64_t marks = w->marks[word];

		while (marks) {
			struct vnet_pair *pair = take_mark(w, word, &marks);

			if (pair->rx_ready || has_frames(pair) ||
			    (pair->tx_ready && vnet_tx_arm(pair)))
				return REST_NOT;
			if (is_unkicked(pair))
				rest = REST_POLL;
			else
				unmark(w, pair);
		}
	}
	return rest;
}

/*
 * Said before the last look at the inbound queue; pairs with vnet_worker_wake().  A command is
 * looked for as well: the round just done may have taken its edge after it was looked for.
 * Return: nothing came meanwhile
 */
static bool say_asleep(struct vnet_worker *w)
{
	atomic_exchange(&w->sleeping, true);
	return !vnet_queue_ready(&w->inbound) && !atomic_load(&w->command);
}

static void rest(struct vnet_worker *w)
{
	enum rest how = ask_for_kicks(w);

	w->idle_since = 0;
	if (how == REST_NOT)
		return;
	collect(w, say_asleep(w) ? (int)how : 0);
	atomic_store_explicit(&w->sleeping, false, memory_order_relaxed);
}

void *vnet_worker_main(void *worker)
{
	struct vnet_worker *w = worker;

	vnet_sigbus_worker();
	while (!w->stop) {
		bool commanded = atomic_load_explicit(&w->command, memory_order_acquire) != NULL;
		bool busy;

		/* Who commands finds done what was announced before. */
		if (commanded)
			collect(w, 0);
		busy = vnet_worker_round(w) != 0;

		if (busy && w->idle_since) {
			w->idle_since = 0;
			w->backoff = 0;
		}
		/* Behind the round, so that no event in hand speaks of what a command took away. */
		if (commanded)
			busy |= vnet_worker_obey(w);
		vnet_worker_check_memory(w);
		if (!busy && !look_on(w))
			rest(w);
	}
	return NULL;
}
