/* SPDX-License-Identifier: MIT */
/*
 * Parse, hash and steer frames that nobody has touched lately.
 *
 *	frame_stages best|KERNEL prefetch|plain SECONDS
 *
 * The pool is 256 MB of frames in random order: of one kind in a first run, of
 * four kinds, with and without tags, in a second.  "plain" is the same line
 * without prefetch.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "policy.h"

#define BATCH 32u
#define STRIDE 2112u /* no multiple of a page: the first lines use all sets of the caches */
#define HEADER 12u
#define FRAMES ((256u << 20) / STRIDE / BATCH * BATCH)
#define QUEUES 4u

struct pool {
	uint8_t *bytes;
	uint32_t *order;
	uint32_t *lengths;
};

static uint64_t state = 88172645463325252u;

static uint32_t next_random(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 32);
}

static void random_bytes(uint8_t *to, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		to[i] = (uint8_t)next_random();
}

/* An Ethernet frame with random addresses and ports; Return: its length without padding */
static uint32_t make_frame(uint8_t *frame, bool ipv6, bool tcp, bool tagged)
{
	uint32_t at = 12, address = ipv6 ? 16 : 4;

	random_bytes(frame, 12);
	if (tagged) {
		memcpy(frame + at, "\x81\x00\x00\x05", 4);
		at += 4;
	}
	memcpy(frame + at, ipv6 ? "\x86\xdd" : "\x08\x00", 2);
	at += 2;
	memset(frame + at, 0, 40);
	frame[at] = ipv6 ? 0x60 : 0x45;
	frame[at + (ipv6 ? 6 : 9)] = tcp ? 6 : 17;
	at += ipv6 ? 8 : 12;
	random_bytes(frame + at, 2 * address + 4);
	return at + 2 * address + 8;
}

static void fill(struct pool *pool, bool mix)
{
	for (uint32_t i = 0; i < FRAMES; i++) {
		const uint32_t kind = mix ? next_random() : 0;
		const uint32_t length = make_frame(pool->bytes + (size_t)i * STRIDE + HEADER,
						   kind & 1, kind & 2, !(kind & 12) && mix);

		pool->lengths[i] = length < 60 ? 60 : length;
		pool->order[i] = i;
	}
	for (uint32_t i = FRAMES - 1; i; i--) {
		const uint32_t other = next_random() % (i + 1), swap = pool->order[i];

		pool->order[i] = pool->order[other];
		pool->order[other] = swap;
	}
}

/* Return: a sum over the queues, so that nothing is left out */
static uint32_t batch(const struct pool *pool, const struct vnet_policy *policy, uint32_t first,
		      bool prefetch)
{
	const uint8_t *frames[BATCH];
	uint32_t lengths[BATCH], sum = 0;
	struct vnet_flow flows[BATCH];
	struct vnet_hash hashes[BATCH];

	for (uint32_t i = 0; i < BATCH; i++) {
		const uint32_t number = pool->order[first + i];

		frames[i] = pool->bytes + (size_t)number * STRIDE + HEADER;
		lengths[i] = pool->lengths[number];
	}
	if (prefetch) {
		vnet_parse_batch(frames, lengths, BATCH, flows);
	} else {
		for (uint32_t i = 0; i < BATCH; i++)
			vnet_parse(frames[i], lengths[i], &flows[i]);
	}
	vnet_hash_batch(&policy->toeplitz, flows, BATCH, hashes);
	for (uint32_t i = 0; i < BATCH; i++)
		sum += vnet_steer(policy, hashes[i], 0);
	return sum;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Return: nanoseconds per frame; whole goes over the pool only */
static double measure(const struct pool *pool, const struct vnet_policy *policy, bool prefetch,
		      double seconds)
{
	volatile uint32_t sink = 0;
	uint64_t count = 0;
	double began, took;

	for (uint32_t i = 0; i < FRAMES; i += BATCH)
		sink = sink + batch(pool, policy, i, prefetch);
	began = now();
	do {
		for (uint32_t i = 0; i < FRAMES; i += BATCH)
			sink = sink + batch(pool, policy, i, prefetch);
		count += FRAMES;
		took = now() - began;
	} while (took < seconds);
	return took * 1e9 / (double)count;
}

static struct vnet_policy *make_policy(void)
{
	static struct vnet_policy_config config = {
		.steering = { .mode = VNET_STEER_RSS,
			      .hash_types = 0x3f,
			      .pairs = QUEUES,
			      .indirection_table_mask = VNET_RSS_TABLE_LENGTH - 1 },
		.header_length = sizeof(struct virtio_net_hdr_v1_hash),
		.port_queues = QUEUES,
	};
	struct vnet_policy *policy = NULL;

	random_bytes(config.steering.key, VNET_RSS_KEY_SIZE);
	for (uint32_t i = 0; i < VNET_RSS_TABLE_LENGTH; i++)
		config.steering.indirection_table[i] = (uint16_t)(i % QUEUES);
	return vnet_policy_create(&config, &policy) ? NULL : policy;
}

int main(int argc, char **argv)
{
	const bool prefetch = argc == 4 && !strcmp(argv[2], "prefetch");
	const size_t size = (size_t)FRAMES * STRIDE;
	struct vnet_policy *policy;
	struct pool pool;
	double one, mix;

	if (argc != 4 || (!prefetch && strcmp(argv[2], "plain"))) {
		fprintf(stderr, "usage: frame_stages best|KERNEL prefetch|plain SECONDS\n");
		return 1;
	}
	if (vnet_hash_select(strcmp(argv[1], "best") ? argv[1] : NULL)) {
		fprintf(stderr, "no kernel %s here; pyvnet caps lists what this CPU can run\n",
			argv[1]);
		return 1;
	}
	pool.bytes = mmap(NULL, size, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	pool.order = malloc(FRAMES * sizeof(*pool.order));
	pool.lengths = malloc(FRAMES * sizeof(*pool.lengths));
	policy = make_policy();
	if (pool.bytes == MAP_FAILED || !pool.order || !pool.lengths || !policy) {
		fprintf(stderr, "frame_stages: no memory; it wants 300 MB\n");
		return 1;
	}
	madvise(pool.bytes, size, MADV_HUGEPAGE);
	fill(&pool, false);
	one = measure(&pool, policy, prefetch, atof(argv[3]) / 2);
	fill(&pool, true);
	mix = measure(&pool, policy, prefetch, atof(argv[3]) / 2);
	printf("{\"ns_udp4\": %.3f, \"ns_mix\": %.3f}\n", one, mix);
	free(pool.lengths);
	free(pool.order);
	munmap(pool.bytes, size);
	vnet_policy_put(policy);
	return 0;
}
