/* SPDX-License-Identifier: MIT */
/*
 * The front-end's side of vhost-user for programs that are front-end and driver
 * at once: connect, negotiate, share one memory region, start the rings, and
 * one control command at a time.  Guest address = user address (driver_ring.h).
 */
#ifndef BENCH_VHOST_FRONT_H
#define BENCH_VHOST_FRONT_H

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "driver_ring.h"

#define VIRTIO_NET_F_MRG_RXBUF (1ull << 15)
#define VIRTIO_NET_F_CTRL_VQ (1ull << 17)
#define VIRTIO_NET_F_MQ (1ull << 22)
#define VIRTIO_F_EVENT_IDX (1ull << 29)
#define VHOST_USER_F_PROTOCOL (1ull << 30)
#define VIRTIO_F_VERSION_1 (1ull << 32)
#define VIRTIO_NET_F_HASH_REPORT (1ull << 57)
#define VIRTIO_NET_F_RSS (1ull << 60)

#define VHOST_TABLE 128u
#define VHOST_KEY 40u
#define VHOST_TIMEOUT_MS 5000
#define VHOST_PAIRS_MAX 64u

/* Requests and protocol features: docs/interop/vhost-user.rst of QEMU. */
enum {
	VHOST_GET_FEATURES = 1,
	VHOST_SET_FEATURES = 2,
	VHOST_SET_OWNER = 3,
	VHOST_SET_MEM_TABLE = 5,
	VHOST_SET_VRING_NUM = 8,
	VHOST_SET_VRING_ADDR = 9,
	VHOST_SET_VRING_BASE = 10,
	VHOST_SET_VRING_KICK = 12,
	VHOST_SET_VRING_CALL = 13,
	VHOST_GET_PROTOCOL_FEATURES = 15,
	VHOST_SET_PROTOCOL_FEATURES = 16,
	VHOST_GET_QUEUE_NUM = 17,
	VHOST_SET_VRING_ENABLE = 18,
};

#define VHOST_PROTOCOL_MQ (1ull << 0)
#define VHOST_PROTOCOL_REPLY_ACK (1ull << 3)
#define VHOST_VERSION 1u
#define VHOST_NEED_REPLY 8u

struct vhost_message {
	uint32_t request;
	uint32_t flags;
	uint32_t size;
	union {
		uint64_t u64;
		struct {
			uint32_t index;
			uint32_t number;
		} state;
		struct {
			uint32_t index;
			uint32_t flags;
			uint64_t desc;
			uint64_t used;
			uint64_t avail;
			uint64_t log;
		} addr;
		struct {
			uint32_t regions;
			uint32_t padding;
			uint64_t guest;
			uint64_t size;
			uint64_t user;
			uint64_t offset;
		} memory;
	};
} __attribute__((packed));

#define VHOST_HEADER 12u

/* What to open; zero what is not said. */
struct vhost_config {
	const char *path;
	uint64_t features; /* besides VERSION_1; each must be offered */
	uint32_t pairs;
	uint16_t size;  /* of a ring */
	uint32_t room;  /* of a buffer */
	bool calls;  /* calls on receiveqs, else all is polled */
};

struct vhost_front {
	int fd;
	uint64_t features;
	uint32_t pairs;
	uint32_t header; /* bytes in front of a frame */
	struct ring_mem mem;
	struct ring rx[VHOST_PAIRS_MAX];
	struct ring tx[VHOST_PAIRS_MAX];
	struct ring control; /* if CTRL_VQ was negotiated */
};

static inline void vhost_die(const char *what, const char *why)
{
	fprintf(stderr, "vhost-user: %s: %s\n", what, why);
	exit(1);
}

static inline void vhost_send(struct vhost_front *f, struct vhost_message *m, uint32_t size, int fd)
{
	struct iovec iov = { m, VHOST_HEADER + size };
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };

	m->size = size;
	if (fd >= 0) {
		struct cmsghdr *c;

		message.msg_control = &control;
		message.msg_controllen = sizeof(control.bytes);
		c = CMSG_FIRSTHDR(&message);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(int));
	}
	if (sendmsg(f->fd, &message, MSG_NOSIGNAL) != (ssize_t)(VHOST_HEADER + size))
		vhost_die("send", strerror(errno));
}

static inline uint64_t vhost_reply(struct vhost_front *f, uint32_t request)
{
	struct vhost_message m;
	ssize_t got = recv(f->fd, &m, VHOST_HEADER + sizeof(m.u64), MSG_WAITALL);

	if (got != (ssize_t)(VHOST_HEADER + sizeof(m.u64)) || m.request != request) {
		fprintf(stderr, "vhost-user: no reply to request %u\n", request);
		exit(1);
	}
	return m.u64;
}

static inline uint64_t vhost_get(struct vhost_front *f, uint32_t request)
{
	struct vhost_message m = { .request = request, .flags = VHOST_VERSION };

	vhost_send(f, &m, 0, -1);
	return vhost_reply(f, request);
}

/* Send and see it acknowledged. */
static inline void vhost_set(struct vhost_front *f, struct vhost_message *m, uint32_t size, int fd)
{
	m->flags = VHOST_VERSION | VHOST_NEED_REPLY;
	vhost_send(f, m, size, fd);
	if (vhost_reply(f, m->request)) {
		fprintf(stderr, "vhost-user: request %u was refused\n", m->request);
		exit(1);
	}
}

static inline void vhost_set_u64(struct vhost_front *f, uint32_t request, uint64_t value, int fd)
{
	struct vhost_message m = { .request = request, .u64 = value };

	vhost_set(f, &m, sizeof(m.u64), fd);
}

static inline void vhost_set_state(struct vhost_front *f, uint32_t request, uint32_t index,
				   uint32_t number)
{
	struct vhost_message m = { .request = request, .state = { index, number } };

	vhost_set(f, &m, sizeof(m.state), -1);
}

static inline void vhost_start_ring(struct vhost_front *f, uint32_t index, const struct ring *r)
{
	struct vhost_message m = { .request = VHOST_SET_VRING_ADDR };

	m.addr.index = index;
	m.addr.desc = (uint64_t)(uintptr_t)r->desc;
	m.addr.used = (uint64_t)(uintptr_t)r->used;
	m.addr.avail = (uint64_t)(uintptr_t)r->avail;
	vhost_set_state(f, VHOST_SET_VRING_NUM, index, r->size);
	vhost_set_state(f, VHOST_SET_VRING_BASE, index, 0);
	vhost_set(f, &m, sizeof(m.addr), -1);
	vhost_set_u64(f, VHOST_SET_VRING_CALL, index, r->call_fd);
	vhost_set_u64(f, VHOST_SET_VRING_KICK, index, r->kick_fd);
	vhost_set_state(f, VHOST_SET_VRING_ENABLE, index, 1);
}

static inline void vhost_connect(struct vhost_front *f, const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const struct timeval patience = { .tv_sec = VHOST_TIMEOUT_MS / 1000 };

	f->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (f->fd < 0 || connect(f->fd, (struct sockaddr *)&address, sizeof(address)) ||
	    setsockopt(f->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)))
		vhost_die(path, strerror(errno));
}

/* Features and protocol features; returns how many pairs the device has. */
static inline uint32_t vhost_negotiate(struct vhost_front *f, uint64_t wanted)
{
	const uint64_t protocol = VHOST_PROTOCOL_MQ | VHOST_PROTOCOL_REPLY_ACK;
	struct vhost_message m = { .request = VHOST_SET_PROTOCOL_FEATURES, .u64 = protocol };
	uint64_t offered = vhost_get(f, VHOST_GET_FEATURES);

	f->features = wanted | VIRTIO_F_VERSION_1 | VHOST_USER_F_PROTOCOL;
	if (f->features & ~offered) {
		fprintf(stderr, "vhost-user: features %#llx are not offered\n",
			(unsigned long long)(f->features & ~offered));
		exit(1);
	}
	if ((vhost_get(f, VHOST_GET_PROTOCOL_FEATURES) & protocol) != protocol)
		vhost_die("protocol features", "MQ and REPLY_ACK are wanted");
	m.flags = VHOST_VERSION;
	vhost_send(f, &m, sizeof(m.u64), -1);
	m = (struct vhost_message){ .request = VHOST_SET_OWNER };
	vhost_set(f, &m, 0, -1);
	vhost_set_u64(f, VHOST_SET_FEATURES, f->features, -1);
	f->header = f->features & VIRTIO_NET_F_HASH_REPORT ? 20 : 12;
	return (uint32_t)vhost_get(f, VHOST_GET_QUEUE_NUM);
}

/*
 * vhost_open() - a device with its rings started; the receiveqs are filled.
 *
 * Ends the program with a message when something is refused.
 */
static inline void vhost_open(struct vhost_front *f, const struct vhost_config *c)
{
	struct vhost_message table = { .request = VHOST_SET_MEM_TABLE };
	const bool event = c->features & VIRTIO_F_EVENT_IDX;
	const bool control = c->features & VIRTIO_NET_F_CTRL_VQ;
	uint32_t max;

	memset(f, 0, sizeof(*f));
	f->pairs = c->pairs;
	vhost_connect(f, c->path);
	max = vhost_negotiate(f, c->features);
	if (c->pairs > max || c->pairs > VHOST_PAIRS_MAX)
		vhost_die("pairs", "the device has fewer");
	if (ring_mem_open(&f->mem, (2 * c->pairs + 1) * ring_bytes(c->size, c->room)))
		vhost_die("guest memory", strerror(errno));
	table.memory.regions = 1;
	table.memory.guest = table.memory.user = (uint64_t)(uintptr_t)f->mem.base;
	table.memory.size = f->mem.size;
	vhost_set(f, &table, sizeof(table.memory), f->mem.fd);
	for (uint32_t i = 0; i < c->pairs; i++) {
		if (ring_init(&f->rx[i], &f->mem, c->size, c->room, true, event) ||
		    ring_init(&f->tx[i], &f->mem, c->size, c->room, false, event))
			vhost_die("rings", strerror(errno));
		ring_calls(&f->rx[i], c->calls);
		vhost_start_ring(f, 2 * i, &f->rx[i]);
		vhost_start_ring(f, 2 * i + 1, &f->tx[i]);
		ring_fill(&f->rx[i]);
	}
	if (control) {
		if (ring_init(&f->control, &f->mem, 4, 512, false, event))
			vhost_die("rings", strerror(errno));
		ring_calls(&f->control, true);
		vhost_start_ring(f, c->features & VIRTIO_NET_F_MQ ? 2 * max : 2, &f->control);
	}
}

static inline void vhost_close(struct vhost_front *f)
{
	close(f->fd);
	for (uint32_t i = 0; i < f->pairs; i++) {
		ring_close(&f->rx[i]);
		ring_close(&f->tx[i]);
	}
	if (f->control.size)
		ring_close(&f->control);
	ring_mem_close(&f->mem);
}

/* One control command of `size` bytes, class and command first; ends the program unless it is OK. */
static inline void vhost_command(struct vhost_front *f, const uint8_t *command, uint32_t size)
{
	struct ring *r = &f->control;
	struct pollfd called = { .fd = r->call_fd, .events = POLLIN };
	struct ring_elem done;
	uint8_t *ack = ring_buffer(r, 1);

	memcpy(ring_buffer(r, 0), command, size);
	*ack = 0xff;
	r->desc[0].flags = 1; /* NEXT */
	r->desc[0].next = 1;
	r->desc[1] = (struct ring_desc){ (uint64_t)(uintptr_t)ack, 1, RING_DESC_WRITE, 0 };
	ring_offer(r, 0, size);
	ring_publish(r);
	while (!ring_reap(r, &done, 1)) {
		uint64_t count;

		if (poll(&called, 1, VHOST_TIMEOUT_MS) == 0)
			vhost_die("control command", "no answer");
		if (read(r->call_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
			vhost_die("control command", strerror(errno));
	}
	ring_calls(r, true);
	if (*ack != 0)
		vhost_die("control command", "the device refused it");
}

/* RSS over the pairs in turn, all hash types of `types`, a fixed key. */
static inline void vhost_rss(struct vhost_front *f, uint32_t types)
{
	uint8_t command[2 + 8 + 2 * VHOST_TABLE + 3 + VHOST_KEY] = { 4, 1 };
	uint8_t *at = command + 2;
	const uint16_t mask = VHOST_TABLE - 1, pairs = (uint16_t)f->pairs;

	memcpy(at, &types, 4);
	memcpy(at + 4, &mask, 2);
	at += 8; /* unclassified: receiveq1 */
	for (uint32_t i = 0; i < VHOST_TABLE; i++, at += 2) {
		uint16_t queue = (uint16_t)(i % pairs);

		memcpy(at, &queue, 2);
	}
	memcpy(at, &pairs, 2);
	at[2] = VHOST_KEY;
	for (uint32_t i = 0; i < VHOST_KEY; i++)
		at[3 + i] = (uint8_t)(i * 73 + 109);
	vhost_command(f, command, sizeof(command));
}

#endif
