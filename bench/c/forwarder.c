/* SPDX-License-Identifier: MIT */
/*
 * What TCP between two taps reaches with nothing but a loop between them: the
 * frame and its virtio header are read from one and written to the other.
 *
 *   forwarder epoll|busy rw|uring gso|plain SECONDS BACKEND_CPU ENDPOINT_CPU
 */
#define _GNU_SOURCE
#include "tcp_pair.h"

#include <sys/epoll.h>

#include "tcp_uring.h"

#define BATCH 64u
#define GSO_SLOT (TCP_PAIR_HDR + 65536 + 64)
#define PLAIN_SLOT 2048

struct forwarder {
	struct tcp_pair pair;
	int taps[2];
	bool busy, uring;
	uint32_t slot; /* bytes of a frame at most */
	uint8_t *slots;
	struct tcp_uring ring;
	uint32_t batch[2]; /* frames to ask a tap for: few come behind few */
	double frames;
};

static uint32_t pass_plain(struct forwarder *f, int from)
{
	uint32_t frames = 0;

	while (frames < BATCH) {
		ssize_t n = read(f->taps[from], f->slots, f->slot);

		if (n < 0)
			break;
		if (write(f->taps[!from], f->slots, (size_t)n) < 0)
			tcp_pair_fail("writing to a tap", "");
		frames++;
	}
	return frames;
}

static uint32_t pass_uring(struct forwarder *f, int from)
{
	int32_t results[BATCH];
	uint32_t asked = f->batch[from], frames = 0;

	for (uint32_t i = 0; i < asked; i++)
		tcp_uring_stage(&f->ring, IORING_OP_READ_FIXED, from, f->slots + i * f->slot,
				f->slot, i);
	tcp_uring_run(&f->ring, results);
	for (uint32_t i = 0; i < asked; i++) {
		if (results[i] <= 0)
			continue;
		tcp_uring_stage(&f->ring, IORING_OP_WRITE_FIXED, !from, f->slots + i * f->slot,
				(uint32_t)results[i], frames++);
	}
	f->batch[from] = frames == asked ? (2 * asked < BATCH ? 2 * asked : BATCH) : frames + 1;
	if (frames)
		tcp_uring_run(&f->ring, results);
	return frames;
}

static uint32_t pass(struct forwarder *f, int from)
{
	uint32_t frames = f->uring ? pass_uring(f, from) : pass_plain(f, from);

	f->frames += frames;
	return frames;
}

static void run_busy(struct forwarder *f)
{
	while (!atomic_load_explicit(&f->pair.done, memory_order_relaxed)) {
		pass(f, 0);
		pass(f, 1);
	}
}

static void watch(int epoll_fd, int fd, uint32_t number)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u32 = number };

	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event))
		tcp_pair_fail("epoll_ctl", "");
}

static void run_epoll(struct forwarder *f)
{
	int epoll_fd = epoll_create1(EPOLL_CLOEXEC);

	watch(epoll_fd, f->taps[0], 0);
	watch(epoll_fd, f->taps[1], 1);
	watch(epoll_fd, f->pair.done_fd, 2);
	for (;;) {
		struct epoll_event events[3];
		int n = epoll_wait(epoll_fd, events, 3, -1);

		for (int i = 0; i < n; i++) {
			if (events[i].data.u32 == 2)
				return;
			pass(f, (int)events[i].data.u32);
		}
	}
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
	static struct forwarder f;
	unsigned int offloads;
	bool gso;

	if (argc != 7) {
		fprintf(stderr,
			"usage: forwarder epoll|busy rw|uring gso|plain SECONDS BACKEND_CPU "
			"ENDPOINT_CPU\n");
		return 1;
	}
	f.busy = choose(argv[1], "busy", "epoll");
	f.uring = choose(argv[2], "uring", "rw");
	gso = choose(argv[3], "gso", "plain");
	offloads = gso ? TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 : 0;
	tcp_pair_open(&f.pair, gso, atoi(argv[6]), atof(argv[4]));
	tcp_pair_pin(atoi(argv[5]));
	f.taps[0] = f.pair.sender.tap;
	f.taps[1] = f.pair.receiver.tap;
	f.slot = gso ? GSO_SLOT : PLAIN_SLOT;
	f.slots = aligned_alloc(4096, BATCH * (GSO_SLOT + 4096) & ~4095u);
	f.batch[0] = f.batch[1] = 1;
	for (int i = 0; i < 2; i++) {
		if (ioctl(f.taps[i], TUNSETOFFLOAD, offloads))
			tcp_pair_fail("TUNSETOFFLOAD", "");
	}
	if (f.uring)
		tcp_uring_open(&f.ring, BATCH, f.taps, 2, f.slots, (size_t)BATCH * f.slot);
	tcp_pair_begin(&f.pair);
	if (f.busy)
		run_busy(&f);
	else
		run_epoll(&f);
	tcp_pair_report(&f.pair, f.frames);
}
