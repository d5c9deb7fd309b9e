/* SPDX-License-Identifier: MIT */
/*
 * What front-ends are measured with, whoever drives the rings: send as much as
 * goes, drain what comes (with a source of frames in the same loop, or
 * without), and round trips.  Each prints one JSON object.
 */
#ifndef BENCH_JOBS_H
#define BENCH_JOBS_H

#include "measure.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/udp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define JOB_BATCH 32u
#define FRAME_BYTES 64u
#define FRAME_UDP_DATA (FRAME_BYTES - 42u)
#define GUEST_ADDRESS 0xc6336402u /* 198.51.100.2, RFC 5737; the tap has .1 */
#define HOST_ADDRESS 0xc6336401u
#define WARM_UP_NS 200000000u
#define WARM_AGAIN_NS 15000000u /* of a turn that is not the first: caches, no set-up */
#define SEGMENTS_MAX 64u
#define FLOWS_MAX 256u
#define FIRST_PORT 20000u
#define ROUND_TRIPS_MAX 4000000u
#define LOST_NS 20000000u

static const uint8_t guest_mac[6] = { 2, 0, 0, 0, 0x64, 2 };

struct job;

/* A port of the guest. */
struct nic {
	void *self;
	/* Send up to `n` copies of `frame`; return how many were taken. */
	uint32_t (*send)(void *self, const uint8_t *frame, uint32_t bytes, uint32_t n);
	/* Take what came, give the buffers back; return how many frames. The last one's first
	 * bytes go to `last` (LAST_BYTES) unless that is NULL. */
	uint32_t (*drain)(void *self, uint8_t *last);
	/* What does the job tx instead of job_tx(), or NULL. */
	void (*tx)(struct job *job, struct nic *nic);
};

#define LAST_BYTES 48u

/* Of frames: UDP sockets, one a flow, whose datagrams the kernel cuts into them. */
struct source {
	int fds[FLOWS_MAX];
	uint32_t flows;    /* 0: not open yet */
	uint32_t segments; /* frames of a datagram */
	uint32_t turn;
	uint64_t sent;
	uint64_t gone; /* drained or lost: the others are on their way */
	uint64_t refused;
};

struct job {
	const char *name;      /* tx, rx, rtt */
	const char *interface; /* the tap, or NULL */
	double seconds;
	uint32_t window;  /* rx: frames on their way at most, or 0: flood */
	uint32_t flows;    /* rx: in turn, a datagram each */
	uint32_t segments; /* rx: frames of a datagram */
	uint32_t pause_us; /* rtt: between round trips */
	bool turns;        /* measure when told to */
	uint64_t warm_ns;  /* not measured, in front of the next turn */
	struct source source;
};

/* Ones' complement sum of big-endian words. */
static inline uint16_t frame_checksum(const uint8_t *bytes, size_t n)
{
	uint32_t sum = 0;

	for (size_t i = 0; i + 1 < n; i += 2)
		sum += (uint32_t)(bytes[i] << 8 | bytes[i + 1]);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

static inline void frame_put16(uint8_t *at, uint32_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

static inline void frame_put32(uint8_t *at, uint32_t value)
{
	frame_put16(at, value >> 16);
	frame_put16(at + 2, value);
}

/* Ethernet and IPv4 of a frame from guest to host. */
static inline void frame_ipv4(uint8_t *frame, const uint8_t *destination, uint8_t protocol)
{
	memset(frame, 0, FRAME_BYTES);
	memcpy(frame, destination, 6);
	memcpy(frame + 6, guest_mac, 6);
	frame_put16(frame + 12, 0x0800);
	frame[14] = 0x45;
	frame_put16(frame + 16, FRAME_BYTES - 14);
	frame[22] = 64;
	frame[23] = protocol;
	frame_put32(frame + 26, GUEST_ADDRESS);
	frame_put32(frame + 30, HOST_ADDRESS);
	frame_put16(frame + 24, frame_checksum(frame + 14, 20));
}

static inline void frame_udp(uint8_t *frame)
{
	static const uint8_t nobody[6] = { 2, 0, 0, 0, 0x64, 9 };

	frame_ipv4(frame, nobody, 17);
	frame_put16(frame + 34, 4242);
	frame_put16(frame + 36, 9);
	frame_put16(frame + 38, FRAME_BYTES - 34);
}

static inline void frame_echo_request(uint8_t *frame, const uint8_t *destination, uint32_t number)
{
	frame_ipv4(frame, destination, 1);
	frame[34] = 8;
	frame_put16(frame + 38, 4242);
	frame_put16(frame + 40, number & 0xffff);
	frame_put16(frame + 36, frame_checksum(frame + 34, FRAME_BYTES - 34));
}

/* Is it the host's answer to that one? */
static inline bool frame_is_reply(const uint8_t *frame, uint32_t number)
{
	return frame[12] == 8 && frame[13] == 0 && frame[23] == 1 && frame[34] == 0 &&
	       (uint32_t)(frame[40] << 8 | frame[41]) == (number & 0xffff);
}

/* A flow has the same ports in every run: what is made of them does not change. */
static inline int source_flow(const char *interface, uint32_t flow)
{
	struct sockaddr_in guest = { .sin_family = AF_INET,
				     .sin_port = htons(9),
				     .sin_addr.s_addr = htonl(GUEST_ADDRESS) };
	struct sockaddr_in own = { .sin_family = AF_INET,
				   .sin_port = htons((uint16_t)(FIRST_PORT + flow)) };
	int segment = FRAME_UDP_DATA, buffer = 8 << 20;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, interface, (socklen_t)strlen(interface)) <
		    0 ||
	    setsockopt(fd, SOL_UDP, UDP_SEGMENT, &segment, sizeof(segment)) < 0 ||
	    bind(fd, (struct sockaddr *)&own, sizeof(own)) < 0 ||
	    connect(fd, (struct sockaddr *)&guest, sizeof(guest)) < 0)
		die("no source of frames at %s: %s; it needs an address and a route to the guest",
		    interface, strerror(errno));
	setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof(buffer));
	return fd;
}

static inline void source_open(struct source *s, const struct job *job)
{
	*s = (struct source){ .flows = job->flows, .segments = job->segments };
	for (uint32_t i = 0; i < s->flows; i++)
		s->fds[i] = source_flow(job->interface, i);
}

static inline void source_send(struct source *s)
{
	static const uint8_t data[FRAME_UDP_DATA * SEGMENTS_MAX];
	const size_t bytes = (size_t)FRAME_UDP_DATA * s->segments;

	if (send(s->fds[s->turn++ % s->flows], data, bytes, 0) == (ssize_t)bytes)
		s->sent += s->segments;
	else
		s->refused++;
}

/* --- jobs --- */

static inline void job_print_tx(uint64_t frames, double seconds, const struct link_counts *before,
				const struct link_counts *after)
{
	printf("{\"mpps\": %.4f, \"frames\": %llu, \"seconds\": %.4f, \"tap_mpps\": %.4f, "
	       "\"tap_dropped_mpps\": %.4f}\n",
	       (double)frames / seconds / 1e6, (unsigned long long)frames, seconds,
	       (double)(after->rx_packets - before->rx_packets) / seconds / 1e6,
	       (double)(after->rx_dropped - before->rx_dropped) / seconds / 1e6);
}

static inline void job_tx(struct job *job, struct nic *nic)
{
	uint8_t frame[FRAME_BYTES];
	uint64_t start = now_ns(), end = start + job->warm_ns, frames = 0;
	struct link_counts before = { 0 }, after = { 0 };
	double seconds;

	frame_udp(frame);
	while (now_ns() < end)
		nic->send(nic->self, frame, FRAME_BYTES, JOB_BATCH);
	if (job->interface)
		before = link_counts(job->interface);
	start = now_ns();
	end = start + (uint64_t)(job->seconds * 1e9);
	while (now_ns() < end)
		for (int i = 0; i < 8; i++)
			frames += nic->send(nic->self, frame, FRAME_BYTES, JOB_BATCH);
	if (job->interface)
		after = link_counts(job->interface);
	seconds = (double)(now_ns() - start) / 1e9;
	job_print_tx(frames, seconds, &before, &after);
}

/* Drain until `end`; what the source sends and loses is its own business. */
static inline uint64_t job_rx_until(struct nic *nic, struct source *source, uint32_t window,
				    uint64_t end)
{
	uint64_t got = 0, now, last = now_ns();

	while ((now = now_ns()) < end) {
		uint32_t n = nic->drain(nic->self, NULL);

		got += n;
		if (n)
			last = now;
		if (!source)
			continue;
		source->gone += n;
		if (window && now - last > LOST_NS) { /* what was lost does not come any more */
			source->gone = source->sent;
			last = now;
		}
		if (!window || source->sent + source->segments <= source->gone + window)
			source_send(source);
	}
	return got;
}

static inline void job_rx(struct job *job, struct nic *nic)
{
	struct source *s = job->interface ? &job->source : NULL;
	uint64_t start, frames, sent = 0;
	struct link_counts before = { 0 }, after = { 0 };
	double seconds;

	if (s && !s->flows)
		source_open(s, job);
	job_rx_until(nic, s, job->window, now_ns() + job->warm_ns);
	if (s) {
		before = link_counts(job->interface);
		sent = s->sent;
	}
	start = now_ns();
	frames = job_rx_until(nic, s, job->window, start + (uint64_t)(job->seconds * 1e9));
	seconds = (double)(now_ns() - start) / 1e9;
	if (s) {
		after = link_counts(job->interface);
		sent = s->sent - sent;
	}
	printf("{\"mpps\": %.4f, \"frames\": %llu, \"seconds\": %.4f, \"sent\": %llu, "
	       "\"tap_mpps\": %.4f, \"tap_dropped\": %llu}\n",
	       (double)frames / seconds / 1e6, (unsigned long long)frames, seconds,
	       (unsigned long long)sent,
	       (double)(after.tx_packets - before.tx_packets) / seconds / 1e6,
	       after.tx_dropped - before.tx_dropped);
	/* Who takes turns is asked again: some back-ends forward nothing for their first seconds. */
	if (!frames && !job->turns)
		die("no frame came");
}

static inline void job_mac(const char *interface, uint8_t *mac)
{
	struct ifreq request = { 0 };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	strncpy(request.ifr_name, interface, IFNAMSIZ - 1);
	if (fd < 0 || ioctl(fd, SIOCGIFHWADDR, &request) < 0)
		die("no interface %s: %s", interface, strerror(errno));
	memcpy(mac, request.ifr_hwaddr.sa_data, 6);
	close(fd);
}

/* One echo request to the host's kernel; nanoseconds until its reply, 0 if it is lost. */
static inline uint64_t job_trip(struct nic *nic, const uint8_t *mac, uint32_t number)
{
	uint8_t frame[FRAME_BYTES], last[LAST_BYTES] = { 0 };
	uint64_t start;

	frame_echo_request(frame, mac, number);
	start = now_ns();
	while (!nic->send(nic->self, frame, FRAME_BYTES, 1))
		;
	for (;;) {
		bool came = nic->drain(nic->self, last) != 0;
		uint64_t now = now_ns();

		if (came && frame_is_reply(last, number))
			return now - start;
		if (now - start > LOST_NS)
			return 0;
	}
}

static inline void job_rtt(struct job *job, struct nic *nic)
{
	uint32_t *trips = calloc(ROUND_TRIPS_MAX, sizeof(*trips)), n = 0, number = 0, lost = 0;
	uint64_t end, until;
	uint8_t mac[6];

	if (!job->interface || !trips)
		die("round trips need --interface, the tap");
	job_mac(job->interface, mac);
	for (until = now_ns() + job->warm_ns; now_ns() < until;)
		job_trip(nic, mac, number++);
	for (end = now_ns() + (uint64_t)(job->seconds * 1e9); now_ns() < end;) {
		uint64_t trip = job_trip(nic, mac, number++);

		if (trip && n < ROUND_TRIPS_MAX)
			trips[n++] = (uint32_t)trip;
		else
			lost++;
		if (job->pause_us)
			usleep(job->pause_us);
	}
	if (!n)
		die("no answer from the host; has %s the address 198.51.100.1, and the guest's "
		    "hardware address?",
		    job->interface);
	printf("{\"p50_us\": %.3f, ", percentile_us(trips, n, 0.5));
	printf("\"p99_us\": %.3f, \"rounds\": %u, \"lost\": %u}\n", percentile_us(trips, n, 0.99),
	       n, lost);
	free(trips);
}

static inline void job_once(struct job *job, struct nic *nic)
{
	if (strcmp(job->name, "tx") == 0)
		(nic->tx ? nic->tx : job_tx)(job, nic);
	else if (strcmp(job->name, "rx") == 0)
		job_rx(job, nic);
	else if (strcmp(job->name, "rtt") == 0)
		job_rtt(job, nic);
	else
		die("%s is none of tx, rx and rtt", job->name);
	fflush(stdout);
	job->warm_ns = WARM_AGAIN_NS;
}

static inline void job_run(struct job *job, struct nic *nic)
{
	char line[16];

	if (!job->turns)
		job_once(job, nic);
	while (job->turns && fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = 0;
		job->name = line;
		job_once(job, nic);
	}
}

/* --job, --interface, --seconds, --window, --flows, --segments, --pause-us, --turns */
static inline void job_options(struct job *job, int argc, char **argv)
{
	*job = (struct job){ .warm_ns = WARM_UP_NS };
	job->turns = flag(argc, argv, "--turns");
	job->name = option(argc, argv, "--job", "tx");
	job->interface = option(argc, argv, "--interface", NULL);
	job->seconds = option_number(argc, argv, "--seconds", "1");
	job->window = (uint32_t)option_number(argc, argv, "--window", "0");
	job->pause_us = (uint32_t)option_number(argc, argv, "--pause-us", "0");
	job->flows = (uint32_t)option_number(argc, argv, "--flows", "1");
	job->segments = (uint32_t)option_number(argc, argv, "--segments", "64");
	if (!job->flows || job->flows > FLOWS_MAX || !job->segments || job->segments > SEGMENTS_MAX)
		die("--flows 1 to %u, --segments 1 to %u", FLOWS_MAX, SEGMENTS_MAX);
}

#endif
