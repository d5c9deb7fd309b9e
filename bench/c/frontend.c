/* SPDX-License-Identifier: MIT */
/*
 * A poll-mode front-end on one core, with RSS and hash report or without:
 *
 *   frontend --socket PATH --job tx|rx|rtt [--interface TAP] [--seconds S]
 *            [--rss] [--event-idx] [--pairs N] [--ring-size 256] [--window N] [--pause-us N]
 *            [--turns]
 *
 * Jobs are those of jobs.h; with more than one pair they use all of them in turn.
 */
#define _GNU_SOURCE
#include "jobs.h"
#include "vhost_front.h"

#define HEADER_MAX 20u
#define HASH_TYPES 0x3fu /* all without extension headers */

static uint32_t own_send(void *self, const uint8_t *frame, uint32_t bytes, uint32_t n)
{
	struct vhost_front *f = self;
	static uint32_t turn;
	struct ring *r = &f->tx[turn++ % f->pairs];
	struct ring_elem done[JOB_BATCH];
	uint32_t got = ring_free(r, done, n);

	for (uint32_t i = 0; i < got; i++) {
		uint8_t *at = ring_buffer(r, done[i].id);

		memset(at, 0, HEADER_MAX);
		memcpy(at + f->header, frame, bytes);
		ring_offer(r, done[i].id, f->header + bytes);
	}
	ring_publish(r);
	return got;
}

static uint32_t own_drain_ring(struct vhost_front *f, struct ring *r, uint8_t *last)
{
	struct ring_elem done[JOB_BATCH];
	uint32_t n = ring_reap(r, done, JOB_BATCH), frames = 0;

	for (uint32_t i = 0; i < n; i++)
		__builtin_prefetch(ring_buffer(r, done[i].id));
	for (uint32_t i = 0; i < n; i++) {
		const uint8_t *at = ring_buffer(r, done[i].id);
		uint16_t buffers;

		/* Only the first buffer of a frame has a header; frames here fit in one. */
		memcpy(&buffers, at + 10, sizeof(buffers));
		frames += buffers == 1;
		if (last && done[i].len >= f->header + LAST_BYTES)
			memcpy(last, at + f->header, LAST_BYTES);
		ring_offer(r, done[i].id, r->room);
	}
	ring_publish(r);
	return frames;
}

static uint32_t own_drain(void *self, uint8_t *last)
{
	struct vhost_front *f = self;
	uint32_t frames = 0;

	for (uint32_t i = 0; i < f->pairs; i++)
		frames += own_drain_ring(f, &f->rx[i], last);
	return frames;
}

/* Without RSS a driver starts with one pair. */
static void use_pairs(struct vhost_front *f, uint16_t pairs)
{
	uint8_t command[4] = { 4, 0 };

	memcpy(command + 2, &pairs, sizeof(pairs));
	vhost_command(f, command, sizeof(command));
}

int main(int argc, char **argv)
{
	struct vhost_config wish = {
		.path = option(argc, argv, "--socket", NULL),
		.features = VIRTIO_NET_F_MRG_RXBUF,
		.pairs = (uint32_t)option_number(argc, argv, "--pairs", "1"),
		.size = (uint16_t)option_number(argc, argv, "--ring-size", "256"),
		.room = 2048,
	};
	struct job job;
	struct vhost_front front;
	struct nic nic = { &front, own_send, own_drain, NULL };
	bool rss = flag(argc, argv, "--rss");

	job_options(&job, argc, argv);
	if (!wish.path || !wish.pairs || !wish.size || wish.size & (wish.size - 1))
		die("frontend --socket PATH --job tx|rx|rtt [--pairs N] [--ring-size POWER-OF-2]");
	if (rss)
		wish.features |= VIRTIO_NET_F_CTRL_VQ | VIRTIO_NET_F_RSS | VIRTIO_NET_F_HASH_REPORT;
	if (wish.pairs > 1)
		wish.features |= VIRTIO_NET_F_CTRL_VQ | VIRTIO_NET_F_MQ;
	if (flag(argc, argv, "--event-idx"))
		wish.features |= VIRTIO_F_EVENT_IDX;
	vhost_open(&front, &wish);
	if (rss)
		vhost_rss(&front, HASH_TYPES);
	else if (wish.pairs > 1)
		use_pairs(&front, (uint16_t)wish.pairs);
	job_run(&job, &nic);
	vhost_close(&front);
	return 0;
}
