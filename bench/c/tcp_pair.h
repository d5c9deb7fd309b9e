/* SPDX-License-Identifier: MIT */
/*
 * One TCP connection whose packets have to pass from one tap to another.
 *
 * A sender and a receiver, threads on one CPU, each in a network namespace of
 * its own with one tap in it.  Whoever includes this is given the taps' fds and
 * carries frames between them, on another CPU; the receiver counts the bytes
 * that arrive.  Namespaces and taps end with the process.
 */
#ifndef PYVNET_BENCH_TCP_PAIR_H
#define PYVNET_BENCH_TCP_PAIR_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define TCP_PAIR_HDR 12 /* struct virtio_net_hdr_v1 in front of every frame */
#define TCP_PAIR_PORT 7011
#define TCP_PAIR_WARM_UP 0.5 /* seconds until windows and caches are as they stay */
#define TCP_PAIR_CHUNK (256 * 1024)
#define TCP_PAIR_WINDOW (1024 * 1024) /* for frames of 1500 bytes, of which a tap queues 500 */
#define TCP_PAIR_WINDOW_GSO (2 * 1024 * 1024)
#define TCP_PAIR_LOW_WATER (128 * 1024) /* a receiver that is not woken for every packet */

struct tcp_pair;

struct tcp_end {
	struct tcp_pair *pair;
	const char *address;
	int tap;
	int socket; /* made here, so that it belongs to this namespace */
	sem_t go;
	pthread_t thread;
};

struct tcp_pair {
	struct tcp_end sender, receiver;
	sem_t opened;
	int cpu;
	int window; /* the receiver's buffer, in bytes */
	int done_fd; /* readable when the measurement is over */
	_Atomic bool done;
	double wanted; /* seconds to measure */
	double seconds, bytes, backend_cpu; /* what was measured */
};

static inline void tcp_pair_fail(const char *what, const char *cure)
{
	fprintf(stderr, "%s: %s%s%s\n", what, strerror(errno), *cure ? "; " : "", cure);
	exit(1);
}

static inline double tcp_pair_clock(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static inline void tcp_pair_pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		tcp_pair_fail("pinning a thread", "choose CPUs this process may use");
}

static inline struct sockaddr_in tcp_pair_address(const char *text)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(TCP_PAIR_PORT) };

	inet_pton(AF_INET, text, &address.sin_addr);
	return address;
}

static inline void tcp_pair_configure(int fd, unsigned long request, struct ifreq *ifr)
{
	if (ioctl(fd, request, ifr))
		tcp_pair_fail("configuring a tap", "run as root");
}

/* A tap of this thread's namespace, up, with an address. */
static inline int tcp_pair_tap(const char *text)
{
	struct ifreq ifr = { .ifr_name = "tap0", .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	struct sockaddr_in address = tcp_pair_address(text),
			   mask = tcp_pair_address("255.255.255.0");
	int size = TCP_PAIR_HDR, tap = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (tap < 0)
		tcp_pair_fail("/dev/net/tun", "load the module tun");
	if (ioctl(tap, TUNSETIFF, &ifr) || ioctl(tap, TUNSETVNETHDRSZ, &size))
		tcp_pair_fail("making a tap", "run as root");
	address.sin_port = mask.sin_port = 0;
	memcpy(&ifr.ifr_addr, &address, sizeof(address));
	tcp_pair_configure(fd, SIOCSIFADDR, &ifr);
	memcpy(&ifr.ifr_addr, &mask, sizeof(mask));
	tcp_pair_configure(fd, SIOCSIFNETMASK, &ifr);
	ifr.ifr_flags = IFF_UP | IFF_RUNNING;
	tcp_pair_configure(fd, SIOCSIFFLAGS, &ifr);
	close(fd);
	return tap;
}

static inline void tcp_pair_enter(struct tcp_end *end)
{
	tcp_pair_pin(end->pair->cpu);
	if (unshare(CLONE_NEWNET))
		tcp_pair_fail("making a network namespace", "run as root");
	end->tap = tcp_pair_tap(end->address);
	end->socket = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (end->socket < 0)
		tcp_pair_fail("making a socket", "");
	/* The same on every machine: some default to one that paces itself by what it believes the path to be. */
	if (setsockopt(end->socket, IPPROTO_TCP, TCP_CONGESTION, "reno", sizeof("reno") - 1))
		tcp_pair_fail("choosing reno", "");
}

static inline void *tcp_pair_send(void *argument)
{
	struct tcp_end *end = argument;
	struct sockaddr_in to = tcp_pair_address(end->pair->receiver.address);
	char *chunk = calloc(1, TCP_PAIR_CHUNK);

	tcp_pair_enter(end);
	sem_post(&end->pair->opened);
	sem_wait(&end->go);
	if (!chunk || connect(end->socket, (struct sockaddr *)&to, sizeof(to)))
		tcp_pair_fail("connecting through the taps", "");
	while (!atomic_load(&end->pair->done)) {
		if (send(end->socket, chunk, TCP_PAIR_CHUNK, MSG_NOSIGNAL) < 0)
			break;
	}
	free(chunk);
	return NULL;
}

static inline double tcp_pair_backend_cpu(const struct tcp_pair *pair)
{
	clockid_t ends[2];
	double used = tcp_pair_clock(CLOCK_PROCESS_CPUTIME_ID);

	pthread_getcpuclockid(pair->sender.thread, &ends[0]);
	pthread_getcpuclockid(pair->receiver.thread, &ends[1]);
	return used - tcp_pair_clock(ends[0]) - tcp_pair_clock(ends[1]);
}

static inline void tcp_pair_measure(struct tcp_pair *pair, int fd, char *chunk)
{
	double begin = tcp_pair_clock(CLOCK_MONOTONIC), now = begin, cpu = 0, bytes = 0;
	bool warm = false;

	while (now - begin < (warm ? pair->wanted : TCP_PAIR_WARM_UP) || !warm) {
		ssize_t n = recv(fd, chunk, TCP_PAIR_CHUNK, 0);

		if (n <= 0)
			tcp_pair_fail("receiving", "the connection ended early");
		bytes += (double)n;
		now = tcp_pair_clock(CLOCK_MONOTONIC);
		if (!warm && now - begin >= TCP_PAIR_WARM_UP) {
			warm = true;
			begin = now;
			bytes = 0;
			cpu = tcp_pair_backend_cpu(pair);
		}
	}
	pair->seconds = now - begin;
	pair->bytes = bytes;
	pair->backend_cpu = (tcp_pair_backend_cpu(pair) - cpu) / pair->seconds;
}

static inline void *tcp_pair_receive(void *argument)
{
	struct tcp_end *end = argument;
	struct tcp_pair *pair = end->pair;
	struct sockaddr_in at = tcp_pair_address(end->address);
	char *chunk = calloc(1, TCP_PAIR_CHUNK);
	const uint64_t one = 1;
	const int low_water = TCP_PAIR_LOW_WATER;
	int fd;

	tcp_pair_enter(end);
	/* What is under way stays less than a tap holds: without losses rounds are alike. */
	setsockopt(end->socket, SOL_SOCKET, SO_RCVBUFFORCE, &pair->window, sizeof(pair->window));
	if (!chunk || bind(end->socket, (struct sockaddr *)&at, sizeof(at)) ||
	    listen(end->socket, 1))
		tcp_pair_fail("listening", "");
	sem_post(&pair->opened);
	fd = accept(end->socket, NULL, NULL);
	if (fd < 0)
		tcp_pair_fail("accepting", "");
	setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &low_water, sizeof(low_water));
	tcp_pair_measure(pair, fd, chunk);
	atomic_store(&pair->done, true);
	if (write(pair->done_fd, &one, sizeof(one)) < 0)
		tcp_pair_fail("ending the measurement", "");
	close(fd);
	free(chunk);
	return NULL;
}

static inline void tcp_pair_start_end(struct tcp_end *end, struct tcp_pair *pair,
				      const char *address, void *(*run)(void *))
{
	end->pair = pair;
	end->address = address;
	sem_init(&end->go, 0, 0);
	if (pthread_create(&end->thread, NULL, run, end))
		tcp_pair_fail("starting a thread", "");
	sem_wait(&pair->opened);
}

/** tcp_pair_open() - namespaces, taps and endpoints; the taps' fds are in ->sender.tap and ->receiver.tap */
static inline void tcp_pair_open(struct tcp_pair *pair, bool gso, int cpu, double seconds)
{
	*pair = (struct tcp_pair){ .cpu = cpu, .wanted = seconds };
	pair->window = gso ? TCP_PAIR_WINDOW_GSO : TCP_PAIR_WINDOW;
	pair->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	sem_init(&pair->opened, 0, 0);
	tcp_pair_start_end(&pair->receiver, pair, "10.11.0.2", tcp_pair_receive);
	tcp_pair_start_end(&pair->sender, pair, "10.11.0.1", tcp_pair_send);
}

/** tcp_pair_begin() - let the sender connect, once somebody carries frames or is about to */
static inline void tcp_pair_begin(struct tcp_pair *pair)
{
	sem_post(&pair->sender.go);
}

/** tcp_pair_report() - the JSON object every such program prints */
static inline void tcp_pair_report(const struct tcp_pair *pair, double frames)
{
	struct tcp_info info = { 0 };
	socklen_t size = sizeof(info);

	getsockopt(pair->sender.socket, IPPROTO_TCP, TCP_INFO, &info, &size);
	printf("{\"gbit_s\": %.3f, \"seconds\": %.2f, \"backend_cpu\": %.2f, \"frames\": %.0f, "
	       "\"retransmits\": %u}\n",
	       pair->bytes * 8e-9 / pair->seconds, pair->seconds, pair->backend_cpu, frames,
	       info.tcpi_total_retrans);
	fflush(stdout);
	_exit(0); /* the sender may be waiting for a window that nobody opens any more */
}

#endif
