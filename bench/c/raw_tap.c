/* SPDX-License-Identifier: MIT */
/*
 * What a tap queue gives to a program that does nothing else: io_uring with
 * the tap and the buffers registered, no rings of a guest, no checks.
 *
 *   raw_tap --interface TAP --job tx|rx --backend-cpu N [--seconds S] [--window N] [--turns]
 *
 * rx: one thread reads batches into a ring of buffers, which this thread drains
 * between what its source sends, as a front-end would.  tx: one thread writes;
 * this one only waits.  The tap must be there, with a header of virtio_net.
 */
#define _GNU_SOURCE
#include "jobs.h"
#include "tcp_uring.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#define BATCH 64u
#define SLOTS 512u /* a power of two, a multiple of BATCH */
#define STRIDE (2048u + 64u)
#define HEADER 12u

struct raw {
	uint8_t *slots; /* SLOTS of STRIDE bytes, registered */
	struct tcp_uring uring;
	int tap;
	int cpu;
	bool writes;
	_Alignas(128) _Atomic uint64_t produced; /* by the thread of the tap */
	_Alignas(128) _Atomic uint64_t consumed; /* by the drain */
	_Alignas(128) atomic_bool stop;
};

static int open_tap(const char *name)
{
	struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC), header = HEADER;

	strncpy(request.ifr_name, name, IFNAMSIZ - 1);
	/* A ring that ended a moment ago may hold the tap a little longer. */
	for (int tries = 0; tries < 100 && ioctl(fd, TUNSETIFF, &request) < 0; tries++)
		usleep(20000);
	if (fd < 0 || ioctl(fd, TUNGETIFF, &request) < 0 ||
	    ioctl(fd, TUNSETVNETHDRSZ, &header) < 0 || ioctl(fd, TUNSETOFFLOAD, 0) < 0)
		die("raw_tap: cannot have %s: %s; it needs root, and a tap with vnet_hdr", name,
		    strerror(errno));
	return fd;
}

static void write_batch(struct raw *raw)
{
	int32_t results[BATCH];
	uint64_t done = 0;

	for (uint32_t i = 0; i < BATCH; i++)
		tcp_uring_stage(&raw->uring, IORING_OP_WRITE_FIXED, 0, raw->slots + i * STRIDE,
				HEADER + FRAME_BYTES, i);
	tcp_uring_run(&raw->uring, results);
	for (uint32_t i = 0; i < BATCH; i++)
		done += results[i] == (int32_t)(HEADER + FRAME_BYTES);
	atomic_fetch_add_explicit(&raw->produced, done, memory_order_relaxed);
}

/* Frames come in order and without gaps: after the first EAGAIN of a batch nothing came. */
static void read_batch(struct raw *raw)
{
	int32_t results[BATCH];
	uint64_t at = atomic_load_explicit(&raw->produced, memory_order_relaxed);
	uint64_t free = SLOTS - (at - atomic_load_explicit(&raw->consumed, memory_order_acquire));
	uint32_t n = free < BATCH ? (uint32_t)free : BATCH, got = 0;
	static uint32_t last = BATCH;

	/* As full as the last one was, and a little more: a read of an empty tap costs too. */
	n = n < last ? n : last;
	if (!n)
		return;
	for (uint32_t i = 0; i < n; i++)
		tcp_uring_stage(&raw->uring, IORING_OP_READ_FIXED, 0,
				raw->slots + ((at + i) & (SLOTS - 1)) * STRIDE, 2048, i);
	tcp_uring_run(&raw->uring, results);
	while (got < n && results[got] > 0)
		got++;
	last = got == n ? (2 * n < BATCH ? 2 * n : BATCH) : got + 1;
	atomic_store_explicit(&raw->produced, at + got, memory_order_release);
	/* Asking on and on takes the tap's ring away from who fills it. */
	for (uint32_t i = 0; got < n && i < 200; i++)
		__builtin_ia32_pause();
}

static void *tap_thread(void *argument)
{
	struct raw *raw = argument;
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET((size_t)raw->cpu, &cpus);
	if (pthread_setaffinity_np(pthread_self(), sizeof(cpus), &cpus) != 0)
		die("raw_tap: CPU %d is not ours", raw->cpu);
	while (!atomic_load_explicit(&raw->stop, memory_order_relaxed)) {
		if (raw->writes)
			write_batch(raw);
		else
			read_batch(raw);
	}
	return NULL;
}

static uint32_t raw_drain(void *self, uint8_t *last)
{
	struct raw *raw = self;
	uint64_t at = atomic_load_explicit(&raw->consumed, memory_order_relaxed);
	uint64_t n = atomic_load_explicit(&raw->produced, memory_order_acquire) - at;
	uint32_t frames = 0;

	(void)last;
	n = n < JOB_BATCH ? n : JOB_BATCH;
	for (uint64_t i = 0; i < n; i++)
		__builtin_prefetch(raw->slots + ((at + i) & (SLOTS - 1)) * STRIDE);
	for (uint64_t i = 0; i < n; i++) {
		const uint8_t *frame = raw->slots + ((at + i) & (SLOTS - 1)) * STRIDE;

		frames += *(const volatile uint8_t *)(frame + HEADER) != 0xff;
	}
	atomic_store_explicit(&raw->consumed, at + n, memory_order_release);
	return frames;
}

static void measure_tx(struct job *job, struct nic *nic)
{
	const struct raw *raw = nic->self;
	struct link_counts before, after;
	uint64_t start, frames;
	double seconds;

	usleep((useconds_t)(job->warm_ns / 1000));
	before = link_counts(job->interface);
	frames = raw->produced;
	start = now_ns();
	usleep((useconds_t)(job->seconds * 1e6));
	frames = raw->produced - frames;
	seconds = (double)(now_ns() - start) / 1e9;
	after = link_counts(job->interface);
	job_print_tx(frames, seconds, &before, &after);
}

int main(int argc, char **argv)
{
	static struct raw raw;
	struct job job;
	pthread_t thread;
	struct nic nic = { &raw, NULL, raw_drain, measure_tx };

	job_options(&job, argc, argv);
	if (!job.interface)
		die("raw_tap --interface TAP --job tx|rx --backend-cpu N");
	raw.cpu = (int)option_number(argc, argv, "--backend-cpu", "0");
	raw.writes = strcmp(job.name, "tx") == 0;
	raw.tap = open_tap(job.interface);
	raw.slots = mmap(NULL, SLOTS * STRIDE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (raw.slots == MAP_FAILED)
		die("raw_tap: no memory");
	for (uint32_t i = 0; i < SLOTS; i++)
		frame_udp(raw.slots + i * STRIDE + HEADER);
	tcp_uring_open(&raw.uring, BATCH, &raw.tap, 1, raw.slots, SLOTS * STRIDE);
	if (pthread_create(&thread, NULL, tap_thread, &raw) != 0)
		die("raw_tap: no thread");
	job_run(&job, &nic);
	raw.stop = true;
	pthread_join(thread, NULL);
	return 0;
}
