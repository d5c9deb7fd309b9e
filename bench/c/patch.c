/* SPDX-License-Identifier: MIT */
/*
 * TCP between two taps through two devices: a patch thread drives both and
 * copies each frame from the receiveq of one to the transmitq of the other,
 * its header passed on.  All of it, devices and patch, on one CPU.
 *
 *   patch epoll|busy gso|plain merged|whole SECONDS BACKEND_CPU ENDPOINT_CPU
 *
 * epoll: patch and workers are threads that sleep when there is nothing to do.
 * busy: they take turns in one loop on one thread.
 */
#define _GNU_SOURCE
#include <sys/epoll.h>

#include "patch_guest.h"
#include "worker.h"

/* As many frames as stay in the cache between the steps of their way. */
#define BURST 32u
#define BURST_GSO 4u

struct patch {
	struct tcp_pair pair;
	struct guest guests[2];
	uint32_t burst;
	double frames;
	sem_t parked, leave;
};

/* Return: bytes of the frame that comes next, which lies in as many buffers as its header says */
static uint32_t take_frame(struct guest *from, uint8_t *to)
{
	struct ring *r = &from->receive;
	uint32_t length = 0;
	uint16_t buffers = 1;

	for (uint16_t i = 0; i < buffers; i++) {
		const uint8_t *buffer;
		struct ring_elem e;

		while (!ring_reap(r, &e, 1))
			;
		buffer = ring_buffer(r, e.id);
		if (!i && from->merge)
			memcpy(&buffers, buffer + offsetof(struct virtio_net_hdr_v1, num_buffers),
			       sizeof(buffers));
		memcpy(to + length, buffer, e.len);
		length += e.len;
		ring_offer(r, e.id, r->room);
	}
	return length;
}

static uint32_t pass(struct patch *p, uint32_t from)
{
	struct guest *source = &p->guests[from], *target = &p->guests[!from];
	uint32_t frames = 0;

	guest_reclaim(target);
	while (frames < p->burst && target->free_count && ring_ready(&source->receive)) {
		uint16_t id = target->free[--target->free_count];

		ring_offer(&target->transmit, id,
			   take_frame(source, ring_buffer(&target->transmit, id)));
		frames++;
	}
	ring_publish(&target->transmit);
	ring_publish(&source->receive);
	p->frames += frames;
	return frames;
}

static void watch(int epoll_fd, int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event))
		tcp_pair_fail("epoll_ctl", "");
}

/* Frames wait where the transmitq is full; then its used buffers are what to wait for. */
static bool arm(struct patch *p, uint32_t from)
{
	struct ring *transmit = &p->guests[!from].transmit, *receive = &p->guests[from].receive;

	if (!p->guests[!from].free_count) {
		ring_calls(transmit, true);
		return ring_ready(transmit);
	}
	ring_calls(transmit, false);
	ring_calls(receive, true);
	return ring_ready(receive);
}

static void run_epoll(struct patch *p)
{
	int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	uint64_t count;

	for (int i = 0; i < 2; i++) {
		watch(epoll_fd, p->guests[i].receive.call_fd);
		watch(epoll_fd, p->guests[i].transmit.call_fd);
	}
	watch(epoll_fd, p->pair.done_fd);
	while (!atomic_load_explicit(&p->pair.done, memory_order_relaxed)) {
		struct epoll_event events[5];
		uint32_t frames = pass(p, 0) + pass(p, 1);
		int n;

		if (frames || arm(p, 0) || arm(p, 1))
			continue;
		n = epoll_wait(epoll_fd, events, 5, -1);
		for (int i = 0; i < n; i++) {
			if (read(events[i].data.fd, &count, sizeof(count)) < 0)
				continue;
		}
	}
}

/* The other device's worker stands still while its pair is run from here. */
static int command_park(struct vnet_worker *w, struct vnet_command *command)
{
	struct patch *p = command->answer;

	(void)w;
	sem_post(&p->parked);
	sem_wait(&p->leave);
	return 0;
}

static int command_loop(struct vnet_worker *w, struct vnet_command *command)
{
	struct patch *p = command->answer;

	(void)w;
	while (!atomic_load_explicit(&p->pair.done, memory_order_relaxed)) {
		for (uint32_t i = 0; i < 2; i++) {
			struct vnet_worker *worker = &p->guests[i].engine->workers[0];
			struct vnet_pair *pair = &p->guests[i].engine->pairs[0];

			/* Nobody waits for kicks here. */
			if (pair->rx_waits)
				pair->rx_waits = !pair->receiveq.ops->arm(&pair->receiveq);
			vnet_rx_burst(worker, pair, p->burst);
			pass(p, i);
			vnet_tx_burst(&p->guests[!i].engine->workers[0],
				      &p->guests[!i].engine->pairs[0], p->burst);
		}
	}
	sem_post(&p->leave);
	return 0;
}

static void *park(void *argument)
{
	struct patch *p = argument;
	struct vnet_command command = { .run = command_park, .answer = p };

	vnet_worker_run(&p->guests[1].engine->workers[0], &command);
	return NULL;
}

static void run_busy(struct patch *p)
{
	struct vnet_command command = { .run = command_loop, .answer = p };
	pthread_t parking;

	sem_init(&p->parked, 0, 0);
	sem_init(&p->leave, 0, 0);
	if (pthread_create(&parking, NULL, park, p))
		tcp_pair_fail("starting a thread", "");
	sem_wait(&p->parked);
	vnet_worker_run(&p->guests[0].engine->workers[0], &command);
	pthread_join(parking, NULL);
}

static bool choose(const char *word, const char *yes, const char *no)
{
	if (strcmp(word, yes) && strcmp(word, no)) {
		fprintf(stderr, "%s: say %s or %s\n", word, yes, no);
		exit(1);
	}
	return !strcmp(word, yes);
}

int main(int argc, char **argv)
{
	static struct patch p;
	bool busy, gso, merge;

	if (argc != 7) {
		fprintf(stderr,
			"usage: patch epoll|busy gso|plain merged|whole SECONDS BACKEND_CPU "
			"ENDPOINT_CPU\n");
		return 1;
	}
	busy = choose(argv[1], "busy", "epoll");
	gso = choose(argv[2], "gso", "plain");
	merge = choose(argv[3], "merged", "whole");
	tcp_pair_open(&p.pair, gso, atoi(argv[6]), atof(argv[4]));
	p.burst = gso ? BURST_GSO : BURST;
	tcp_pair_pin(atoi(argv[5])); /* the workers inherit it */
	for (int i = 0; i < 2; i++) {
		int tap = i ? p.pair.receiver.tap : p.pair.sender.tap;
		const struct vnet_engine_config config = {
			.pairs = 1,
			.workers = 1,
			.port_type = VNET_PORT_TAP,
			.port_fds = &tap,
			.port_count = 1,
		};

		guest_open(&p.guests[i], &config, gso, merge);
	}
	tcp_pair_begin(&p.pair);
	if (busy)
		run_busy(&p);
	else
		run_epoll(&p);
	tcp_pair_report(&p.pair, p.frames);
}
