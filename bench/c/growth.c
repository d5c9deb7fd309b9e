/* SPDX-License-Identifier: MIT */
/*
 * What a frame costs with many queues, devices or flows.  One thread is the
 * driver of all devices, and where frames come from the host also their sender.
 *
 *	growth --mode tx --pairs N --seconds S --socket PATH [--socket PATH …]
 *		the driver keeps every transmitq full
 *	growth --mode rx --pairs N --seconds S --socket PATH --tap NAME --flows N
 *		frames of so many flows go into the tap and are taken off the
 *		receiveqs; RSS and HASH_REPORT are on
 *
 * With --stay 1 the devices stay connected until the program is ended.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <time.h>

#include "vhost_front.h"

#define DEVICES_MAX 128u
#define FRAME 64u
#define HEADERS 42u
#define DATA (FRAME - HEADERS)
#define HEADER_MAX 20u
#define ROOM 512u
#define RING 256u
#define BURST 32u
#define IN_FLIGHT (RING - BURST) /* a ring takes them all, so that none is dropped for want of it */
#define TX_FLOWS 256u
#define FLOWS_MAX 65536u
#define WARM_UP 0.2 /* seconds */
#define STUCK 1.0 /* seconds without a frame */
#define LOST 0.02 /* seconds after which a frame does not come any more */
#define HASH_TYPES_UDPV4 4u

struct options {
	const char *mode;
	const char *tap;
	const char *sockets[DEVICES_MAX];
	uint32_t devices;
	uint32_t pairs;
	uint32_t flows;
	double seconds;
	bool stays;
};

struct count {
	uint64_t total;
	uint64_t counted; /* within the measured time */
	double seconds;
};

static void die(const char *what)
{
	fprintf(stderr, "growth: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void put16(uint8_t *at, uint32_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

/* Ones' complement sum of big-endian words. */
static uint32_t words(const uint8_t *at, uint32_t bytes)
{
	uint32_t sum = 0;

	for (uint32_t i = 0; i < bytes; i += 2)
		sum += (uint32_t)at[i] << 8 | at[i + 1];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* UDP over IPv4 without checksums of UDP; flows differ in address and port. */
static void make_frame(uint8_t *frame, uint32_t flow)
{
	static const uint8_t head[] = { 2,    0, 0,   0,  0, 1, 2, 0, 0,    0,    0, 2,  8,   0,
					0x45, 0, 0,   50, 0, 0, 0, 0, 64,   17,   0, 0,  198, 18,
					0,    1, 198, 19, 0, 1, 4, 0, 0x10, 0x92, 0, 30, 0,   0 };

	memset(frame, 0, FRAME);
	memcpy(frame, head, sizeof(head));
	frame[28] = (uint8_t)(flow >> 8);
	frame[29] = (uint8_t)flow;
	frame[35] = (uint8_t)(flow * 7);
	put16(frame + 24, ~words(frame + 14, 20) & 0xffff);
}

/* Guest to host. */

/* As many flows whatever the number of rings, each on one ring: it is not flows that grow here. */
static void fill_buffers(const struct vhost_front *f, struct ring *tx, uint32_t index,
			 uint32_t rings)
{
	const uint32_t share = rings < TX_FLOWS ? TX_FLOWS / rings : 1;

	for (uint32_t id = 0; id < tx->size; id++) {
		memset(ring_buffer(tx, id), 0, f->header);
		make_frame(ring_buffer(tx, id) + f->header, index * share + id % share);
	}
}

/* Take back what went out, and send the same buffers again; returns how many went out. */
static uint32_t refill(struct ring *tx, uint32_t length, bool more)
{
	struct ring_elem gone[BURST];
	uint32_t n = ring_reap(tx, gone, BURST);

	if (more && n)
		for (uint32_t i = 0; i < n; i++)
			ring_offer(tx, gone[i].id, length);
	ring_publish(tx);
	return n;
}

static struct count transmit(struct vhost_front *fronts, const struct options *o)
{
	struct count count = { 0 };
	const uint32_t length = FRAME + fronts[0].header;
	double began = 0, last, moment = now();
	const double warm = moment + WARM_UP, end = warm + o->seconds;
	uint64_t out = 0;

	for (uint32_t d = 0; d < o->devices; d++)
		for (uint32_t p = 0; p < o->pairs; p++) {
			struct ring *tx = &fronts[d].tx[p];

			fill_buffers(&fronts[d], tx, d * o->pairs + p, o->devices * o->pairs);
			for (uint32_t id = 0; id < tx->size; id++, out++)
				ring_offer(tx, id, length);
			ring_publish(tx);
		}
	last = moment;
	for (uint64_t before = 0; out; moment = now()) {
		const bool more = moment < end;
		uint64_t n = 0;

		if (!began && moment >= warm) {
			began = moment;
			before = count.total;
		} else if (!count.seconds && !more) {
			count.seconds = moment - began;
			count.counted = count.total - before;
		}
		for (uint32_t d = 0; d < o->devices; d++)
			for (uint32_t p = 0; p < o->pairs; p++)
				n += refill(&fronts[d].tx[p], length, more);
		count.total += n;
		out -= more ? 0 : n;
		if (n)
			last = moment;
		else if (moment - last > STUCK)
			vhost_die("transmitqs", "nothing was taken for a second");
	}
	return count;
}

/* Host to guest. */

static int open_sender(const char *tap)
{
	struct sockaddr_ll address = { .sll_family = AF_PACKET,
				       .sll_ifindex = (int)if_nametoindex(tap) };
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	const int on = 1;

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) ||
	    setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)))
		die("packet socket on the tap");
	return fd;
}

/*
 * BURST frames of one flow by one call: the kernel cuts them, which makes the
 * sender several times as fast as the device.
 */
static uint32_t send_burst(int fd, uint8_t *headers)
{
	static const uint8_t payload[BURST * DATA];
	/* struct virtio_net_hdr: needs a checksum, UDP segments, header length, segment size,
	 * where the checksum starts, where it goes. */
	static const uint8_t cut[10] = { 1, 5, HEADERS, 0, DATA, 0, 34, 0, 6, 0 };
	struct iovec pieces[3] = { { (void *)(uintptr_t)cut, sizeof(cut) },
				   { headers, HEADERS },
				   { (void *)(uintptr_t)payload, sizeof(payload) } };
	ssize_t sent = writev(fd, pieces, 3);

	if (sent < 0 && errno != ENOBUFS && errno != EAGAIN)
		die("send (UDP segmentation from a packet socket needs Linux 6.2)");
	return sent < 0 ? 0 : BURST;
}

/* What the kernel is to cut: lengths of the whole, and the pseudo-header's sum. */
static void make_large(uint8_t *frame, uint32_t flow)
{
	const uint32_t udp = 8 + BURST * DATA, ip = 20 + udp;
	uint32_t sum = 17 + udp;

	make_frame(frame, flow);
	put16(frame + 16, ip);
	put16(frame + 24, 0);
	put16(frame + 24, ~words(frame + 14, 20) & 0xffff);
	put16(frame + 38, udp);
	sum += words(frame + 26, 8);
	put16(frame + 40, (sum & 0xffff) + (sum >> 16));
}

/* Take what has come; counts ours, by their length. */
static uint32_t drain(struct vhost_front *f)
{
	struct ring_elem came[BURST];
	uint32_t ours = 0;

	for (uint32_t p = 0; p < f->pairs; p++) {
		struct ring *rx = &f->rx[p];
		uint32_t n = ring_reap(rx, came, BURST);

		for (uint32_t i = 0; i < n; i++) {
			ours += came[i].len == FRAME + f->header;
			ring_offer(rx, came[i].id, rx->room);
		}
		ring_publish(rx);
	}
	return ours;
}

static struct count receive(struct vhost_front *front, const struct options *o)
{
	uint8_t (*frames)[FRAME] = calloc(o->flows, sizeof(*frames));
	const int sender = open_sender(o->tap);
	struct count count = { 0 };
	double began = 0, moment = now(), last = moment;
	const double warm = moment + WARM_UP, end = warm + o->seconds;
	uint64_t sent = 0, before = 0, lost = 0;
	uint32_t next = 0;

	if (!frames)
		die("memory");
	for (uint32_t i = 0; i < o->flows; i++)
		make_large(frames[i], i);
	vhost_rss(front, HASH_TYPES_UDPV4 | 1);
	for (; moment < end || count.total < sent; moment = now()) {
		uint32_t n;

		if (!began && moment >= warm) {
			began = moment;
			before = count.total;
		} else if (!count.seconds && moment >= end) {
			count.seconds = moment - began;
			count.counted = count.total - before;
		}
		if (moment < end && sent - count.total + BURST <= IN_FLIGHT)
			sent += send_burst(sender, frames[next++ % o->flows]);
		n = drain(front);
		count.total += n;
		if (n)
			last = moment;
		else if (moment - last > LOST) {
			lost += sent - count.total;
			sent = count.total;
			last = moment;
		}
	}
	if (lost > count.total / 100)
		vhost_die("receiveqs", "more than 1 % of the frames were lost on the way");
	close(sender);
	free(frames);
	return count;
}

static struct options parse(int argc, char **argv)
{
	struct options o = { .mode = "", .pairs = 1, .flows = 1, .seconds = 1 };

	for (int i = 1; i + 1 < argc; i += 2) {
		const char *value = argv[i + 1];

		if (!strcmp(argv[i], "--mode"))
			o.mode = value;
		else if (!strcmp(argv[i], "--tap"))
			o.tap = value;
		else if (!strcmp(argv[i], "--pairs"))
			o.pairs = (uint32_t)atoi(value);
		else if (!strcmp(argv[i], "--flows"))
			o.flows = (uint32_t)atoi(value);
		else if (!strcmp(argv[i], "--seconds"))
			o.seconds = atof(value);
		else if (!strcmp(argv[i], "--stay"))
			o.stays = atoi(value);
		else if (!strcmp(argv[i], "--socket") && o.devices < DEVICES_MAX)
			o.sockets[o.devices++] = value;
	}
	if (!o.devices || !o.flows || o.flows > FLOWS_MAX || o.seconds <= 0 ||
	    (strcmp(o.mode, "tx") && (strcmp(o.mode, "rx") || !o.tap))) {
		fprintf(stderr,
			"growth: --mode tx|rx --socket PATH … (see the head of growth.c)\n");
		exit(1);
	}
	return o;
}

int main(int argc, char **argv)
{
	static struct vhost_front fronts[DEVICES_MAX];
	const struct options o = parse(argc, argv);
	const bool receives = !strcmp(o.mode, "rx");
	uint64_t features = VIRTIO_NET_F_MRG_RXBUF | (o.pairs > 1 ? VIRTIO_NET_F_MQ : 0);
	struct rlimit files;
	struct count count;

	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	if (receives)
		features |= VIRTIO_NET_F_CTRL_VQ | VIRTIO_NET_F_RSS | VIRTIO_NET_F_HASH_REPORT;
	for (uint32_t d = 0; d < o.devices; d++)
		vhost_open(&fronts[d], &(struct vhost_config){ .path = o.sockets[d],
							       .features = features,
							       .pairs = o.pairs,
							       .size = RING,
							       .room = ROOM });
	count = receives ? receive(&fronts[0], &o) : transmit(fronts, &o);
	if (!count.counted)
		vhost_die("no frame", "within the time");
	printf("{\"ns\": %.3f, \"total\": %llu, \"seconds\": %.6f}\n",
	       count.seconds * 1e9 / (double)count.counted, (unsigned long long)count.total,
	       count.seconds);
	fflush(stdout);
	if (o.stays)
		pause();
	for (uint32_t d = 0; d < o.devices; d++)
		vhost_close(&fronts[d]);
	return 0;
}
