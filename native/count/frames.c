/* SPDX-License-Identifier: MIT */
/*
 * Work on frames whose instructions are counted (tools/count.py).
 *
 *	frames WORK FRAMES
 *
 * Only what is called through a function counted_*() counts, in batches of 32:
 * the warm-up before it, the driver's side and the making of frames do not.
 * Everything runs on one thread at a time, over memory and the null host port,
 * so each run gives the same figure.
 */
#define _GNU_SOURCE
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "device_ring.h"
#include "worker.h"

#define BATCH 32u
#define ROOM 128u
#define RING 256u
#define WARM_UP 20u
#define HEADER sizeof(struct virtio_net_hdr_v1_hash)
#define PLAIN_HEADER sizeof(struct virtio_net_hdr_v1)
#define COUNTED __attribute__((noinline, noclone))

#define CHECK(condition)                                                                    \
	do {                                                                                \
		if (!(condition)) {                                                         \
			fprintf(stderr, "frames: %s does not hold (line %d)\n", #condition, \
				__LINE__);                                                  \
			exit(1);                                                            \
		}                                                                           \
	} while (0)

struct bed {
	struct vnet_engine *engine;
	struct vnet_policy *policy;
	struct ring_mem memory;
	struct ring receive, transmit;
	int credits;
	bool captured;
	uint64_t batches;
	/* Frames of the stages without rings. */
	uint8_t bytes[BATCH][ROOM];
	const uint8_t *frames[BATCH];
	uint32_t lens[BATCH];
	struct vnet_flow flows[BATCH];
	struct vnet_hash hashes[BATCH];
	uint32_t sum;
};

/* Half IPv4, half IPv6, UDP and TCP, one in eight with a tag. */
static void make_frames(struct bed *bed)
{
	for (uint32_t i = 0; i < BATCH; i++) {
		uint8_t *frame = bed->bytes[i], *ip = frame + 14;

		for (uint32_t at = 0; at < ROOM; at++)
			frame[at] = (uint8_t)(i * 37 + at * 11);
		memcpy(frame + 12, i & 1 ? "\x86\xdd" : "\x08\x00", 2);
		if (i % 8 == 0) {
			memcpy(frame + 12, "\x81\x00\x00\x05\x08\x00", 6);
			ip += 4;
		}
		memset(ip, 0, 8);
		ip[0] = i & 1 ? 0x60 : 0x45;
		ip[i & 1 ? 6 : 9] = i & 2 ? 6 : 17;
		bed->frames[i] = frame;
		bed->lens[i] = 80;
	}
}

static COUNTED void counted_parse(struct bed *bed)
{
	vnet_parse_batch(bed->frames, bed->lens, BATCH, bed->flows);
}

static COUNTED void counted_hash(struct bed *bed)
{
	vnet_hash_batch(&bed->policy->toeplitz, bed->flows, BATCH, bed->hashes);
}

static COUNTED void counted_steer(struct bed *bed)
{
	for (uint32_t i = 0; i < BATCH; i++)
		bed->sum += vnet_steer(bed->policy, bed->hashes[i], 0);
}

static COUNTED void counted_ring(struct vnet_worker *w, struct vnet_vring *vr)
{
	struct vnet_chain *chains = w->scratch.chains;

	w->scratch.pieces.count = 0;
	CHECK(vr->ops->pop_burst(vr, w->mem, &w->scratch.pieces, chains, BATCH) == (int)BATCH);
	vr->ops->push_burst(vr, chains, NULL, BATCH);
	vr->ops->publish(vr);
}

static COUNTED void counted_tx(struct vnet_worker *w, struct vnet_pair *pair)
{
	CHECK(vnet_tx_burst(w, pair, BATCH) == BATCH);
}

static COUNTED void counted_rx(struct vnet_worker *w, struct vnet_pair *pair)
{
	CHECK(vnet_rx_burst(w, pair, BATCH) == BATCH);
}

/* A batch for the transmitq, and back what was sent. */
static void driver_sends(struct bed *bed)
{
	struct ring_elem free[BATCH];

	CHECK(ring_free(&bed->transmit, free, BATCH) == BATCH);
	for (uint32_t i = 0; i < BATCH; i++) {
		uint8_t *buffer = ring_buffer(&bed->transmit, free[i].id);

		memset(buffer, 0, bed->policy->header_length);
		memcpy(buffer + bed->policy->header_length, bed->bytes[0], 60);
		ring_offer(&bed->transmit, free[i].id, bed->policy->header_length + 60);
	}
	ring_publish(&bed->transmit);
}

/* Take what was received, and give the buffers back. */
static void driver_receives(struct bed *bed)
{
	struct ring_elem done[BATCH];

	CHECK(ring_reap(&bed->receive, done, BATCH) == BATCH);
	for (uint32_t i = 0; i < BATCH; i++)
		ring_offer(&bed->receive, done[i].id, ROOM);
	ring_publish(&bed->receive);
}

static int run_ring(struct vnet_worker *w, struct vnet_command *command)
{
	struct bed *bed = command->answer;
	struct vnet_vring *vr = &bed->engine->pairs[0].transmitq;

	for (uint64_t i = 0; i < bed->batches; i++) {
		driver_sends(bed);
		counted_ring(w, vr);
	}
	return 0;
}

static int run_tx(struct vnet_worker *w, struct vnet_command *command)
{
	struct bed *bed = command->answer;
	struct vnet_pair *pair = &bed->engine->pairs[0];

	for (uint64_t i = 0; i < bed->batches + WARM_UP; i++) {
		driver_sends(bed);
		if (i < WARM_UP)
			CHECK(vnet_tx_burst(w, pair, BATCH) == BATCH);
		else
			counted_tx(w, pair);
	}
	return 0;
}

static int run_rx(struct vnet_worker *w, struct vnet_command *command)
{
	struct bed *bed = command->answer;
	struct vnet_pair *pair = &bed->engine->pairs[0];
	const uint64_t frames = (bed->batches + WARM_UP) * BATCH;

	CHECK(write(bed->credits, &frames, sizeof(frames)) == sizeof(frames));
	for (uint64_t i = 0; i < bed->batches + WARM_UP; i++) {
		if (i < WARM_UP)
			CHECK(vnet_rx_burst(w, pair, BATCH) == BATCH);
		else
			counted_rx(w, pair);
		driver_receives(bed);
	}
	return 0;
}

static void make_policy(struct bed *bed, bool hash)
{
	static struct vnet_policy_config config;

	config.header_length = hash ? HEADER : PLAIN_HEADER;
	config.merge_rx = 1;
	config.port_queues = 1;
	config.filter.modes = VNET_FILTER_PROMISC;
	config.steering.pairs = 1;
	if (hash) {
		config.steering.mode = VNET_STEER_RSS;
		config.steering.hash_types = 0x1ff;
		for (uint32_t i = 0; i < VNET_RSS_KEY_SIZE; i++)
			config.steering.key[i] = (uint8_t)(i * 29 + 3);
	}
	CHECK(!vnet_policy_create(&config, &bed->policy));
}

static void open_device(struct bed *bed)
{
	const int32_t fds[1] = { bed->credits };
	const struct vnet_engine_config config = {
		.pairs = 1,
		.workers = 1,
		.port_type = VNET_PORT_NULL,
		.port_fds = fds,
		.port_count = 1,
		.io = VNET_IO_PLAIN,
	};

	CHECK(!vnet_engine_create(&config, &bed->engine));
	CHECK(!ring_mem_open(&bed->memory, 2 * ring_bytes(RING, ROOM)));
	CHECK(!ring_init(&bed->receive, &bed->memory, RING, ROOM, true, false));
	CHECK(!ring_init(&bed->transmit, &bed->memory, RING, ROOM, false, false));
	CHECK(!device_set_memory(bed->engine, &bed->memory));
	CHECK(!vnet_engine_set_policy(bed->engine, bed->policy));
	ring_fill(&bed->receive);
	CHECK(!device_start_ring(bed->engine, &bed->receive, 0));
	CHECK(!device_start_ring(bed->engine, &bed->transmit, 1));
}

static void close_device(struct bed *bed)
{
	vnet_engine_destroy(bed->engine);
	ring_close(&bed->receive);
	ring_close(&bed->transmit);
	ring_mem_close(&bed->memory);
}

static void run_device(struct bed *bed,
		       int (*run)(struct vnet_worker *w, struct vnet_command *command))
{
	struct vnet_command command = { .run = run, .answer = bed };
	struct vnet_capture *capture = NULL;

	open_device(bed);
	if (bed->captured)
		CHECK(!vnet_capture_start(bed->engine, 0, 0, &capture));
	CHECK(!vnet_worker_run(&bed->engine->workers[0], &command));
	if (capture) {
		uint64_t frames, drops;

		vnet_capture_count(capture, run == run_tx, &frames, &drops);
		CHECK(frames == (bed->batches + WARM_UP) * BATCH && !drops);
		vnet_capture_stop(capture);
		vnet_capture_free(capture);
	}
	close_device(bed);
}

static void run_stages(struct bed *bed, const char *work)
{
	vnet_parse_batch(bed->frames, bed->lens, BATCH, bed->flows);
	vnet_hash_batch(&bed->policy->toeplitz, bed->flows, BATCH, bed->hashes);
	for (uint64_t i = 0; i < bed->batches; i++) {
		if (!strcmp(work, "parse"))
			counted_parse(bed);
		else if (!strcmp(work, "hash"))
			counted_hash(bed);
		else
			counted_steer(bed);
	}
}

int main(int argc, char **argv)
{
	static struct bed bed;
	const char *work = argc == 3 ? argv[1] : "";

	CHECK(!vnet_hash_select("tables")); /* the same work on every CPU */
	bed.batches = argc == 3 ? strtoull(argv[2], NULL, 10) / BATCH : 0;
	bed.credits = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	make_frames(&bed);
	bed.captured = strstr(work, "-captured");
	make_policy(&bed, strcmp(work, "rx") && strncmp(work, "tx", 2) && strcmp(work, "ring"));
	if (!strcmp(work, "parse") || !strcmp(work, "hash") || !strcmp(work, "steer")) {
		run_stages(&bed, work);
	} else if (!strcmp(work, "ring")) {
		run_device(&bed, run_ring);
	} else if (!strncmp(work, "tx", 2)) {
		run_device(&bed, run_tx);
	} else if (!strncmp(work, "rx", 2)) {
		run_device(&bed, run_rx);
	} else {
		fprintf(stderr,
			"usage: frames parse|hash|steer|ring|tx|rx|rx-hash|tx-captured|rx-captured FRAMES\n");
		return 1;
	}
	vnet_policy_put(bed.policy);
	close(bed.credits);
	return 0;
}
