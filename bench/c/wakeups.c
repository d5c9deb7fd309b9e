/* SPDX-License-Identifier: MIT */
/*
 * One frame at a time from the host through a device to its driver and back,
 * where everybody sleeps: the sender until the answer comes, the device until
 * its tap or a kick wakes it, the driver until it is called.
 *
 *	wakeups --tap NAME --seconds S --device-cpu N	a device of our own: the least a
 *							device can do in as many wake-ups
 *	wakeups --tap NAME --seconds S --socket PATH	the device that listens there; with
 *							--stay 1 the front-end stays
 *							connected until it is ended
 *
 * The sender and the driver are this one thread, so a round trip has four
 * wake-ups: tap → device → call → driver → kick → device → socket → sender.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "vhost_front.h"

#define ETHERTYPE 0x88b5 /* IEEE 802, local experiments */
#define FRAME 64u
#define ROOM 2048u
#define TRIPS_MAX 2000000u
#define WARM_UP 0.1 /* seconds */
#define PATIENCE_MS 200
#define LOST_MAX 10
#define ANSWERS 0x01 /* the driver marks what it sends back */

/* Who takes what the device received and sends it back. */
struct driver {
	int call;
	void (*serve)(void *context);
	void *context;
};

/* Where the frame lies between our own device and the driver. */
struct exchange {
	int call;
	int kick;
	int32_t rx_len; /* 0: empty */
	int32_t tx_len;
	uint8_t rx[ROOM];
	uint8_t tx[ROOM];
};

static void die(const char *what)
{
	fprintf(stderr, "wakeups: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void drain(int fd)
{
	uint64_t count;

	if (read(fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		die("eventfd");
}

static void ring_bell(int fd)
{
	const uint64_t one = 1;

	if (write(fd, &one, sizeof(one)) < 0)
		die("eventfd");
}

/* Our own device. */

static int open_tap(const char *name)
{
	struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || control < 0)
		die("/dev/net/tun");
	snprintf(request.ifr_name, IFNAMSIZ, "%s", name);
	if (ioctl(fd, TUNSETIFF, &request) < 0)
		die("TUNSETIFF (run it as root)");
	request.ifr_flags = IFF_UP;
	if (ioctl(control, SIOCSIFFLAGS, &request) < 0)
		die("cannot bring the tap up");
	close(control);
	return fd;
}

static void device_loop(int tap, struct exchange *x)
{
	struct epoll_event events[2] = { { .events = EPOLLIN | EPOLLET, .data.fd = tap },
					 { .events = EPOLLIN | EPOLLET, .data.fd = x->kick } };
	int epoll = epoll_create1(EPOLL_CLOEXEC);

	if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, tap, &events[0]) ||
	    epoll_ctl(epoll, EPOLL_CTL_ADD, x->kick, &events[1]))
		die("epoll");
	for (;;) {
		struct epoll_event happened;
		ssize_t got;

		if (epoll_wait(epoll, &happened, 1, -1) < 1)
			continue;
		if (happened.data.fd == tap) {
			while ((got = read(tap, x->rx, ROOM)) > 0) {
				__atomic_store_n(&x->rx_len, (int32_t)got, __ATOMIC_RELEASE);
				ring_bell(x->call);
			}
			continue;
		}
		drain(x->kick);
		got = __atomic_exchange_n(&x->tx_len, 0, __ATOMIC_ACQUIRE);
		if (got > 0 && write(tap, x->tx, (size_t)got) < 0)
			die("tap");
	}
}

static struct exchange *start_device(const char *tap_name, int cpu)
{
	int tap = open_tap(tap_name);
	struct exchange *x =
		mmap(NULL, sizeof(*x), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t parent = getpid();
	cpu_set_t only;

	if (x == MAP_FAILED)
		die("mmap");
	x->call = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	x->kick = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	CPU_ZERO(&only);
	CPU_SET((unsigned int)cpu, &only);
	switch (fork()) {
	case -1:
		die("fork");
		break;
	case 0:
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent || sched_setaffinity(0, sizeof(only), &only))
			die("no such CPU");
		device_loop(tap, x);
		_exit(1);
	default:
		close(tap);
	}
	return x;
}

static void serve_exchange(void *context)
{
	struct exchange *x = context;
	int32_t length = __atomic_exchange_n(&x->rx_len, 0, __ATOMIC_ACQUIRE);

	if (!length)
		return;
	memcpy(x->tx, x->rx, (size_t)length);
	x->tx[length - 1] = ANSWERS;
	__atomic_store_n(&x->tx_len, length, __ATOMIC_RELEASE);
	ring_bell(x->kick);
}

/* The device of somebody else. */

static void serve_rings(void *context)
{
	struct vhost_front *f = context;
	struct ring *rx = &f->rx[0], *tx = &f->tx[0];
	struct ring_elem elem, gone[8];

	do {
		ring_calls(rx, false);
		while (ring_reap(rx, &elem, 1)) {
			const uint32_t id = tx->offered & (uint32_t)(tx->size - 1);
			uint8_t *frame = ring_buffer(tx, id);

			memcpy(frame, ring_buffer(rx, elem.id), elem.len);
			memset(frame, 0, f->header);
			frame[elem.len - 1] = ANSWERS;
			ring_reap(tx, gone, 8);
			ring_offer(tx, id, elem.len);
			ring_publish(tx);
			ring_offer(rx, elem.id, rx->room);
			ring_publish(rx);
		}
		ring_calls(rx, true);
	} while (ring_ready(rx));
}

/* The sender. */

static int open_socket(const char *tap)
{
	struct sockaddr_ll address = { .sll_family = AF_PACKET,
				       .sll_protocol = htons(ETHERTYPE),
				       .sll_ifindex = (int)if_nametoindex(tap) };
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	const int on = 1;

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) ||
	    setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)))
		die("packet socket on the tap");
	return fd;
}

/*
 * One round trip, in seconds; 0 if the frame was lost, which happens when the
 * kernel speaks on the new tap at the same moment.
 */
static double trip(int sender, const struct driver *driver, uint32_t number)
{
	struct pollfd waits[2] = { { .fd = driver->call, .events = POLLIN },
				   { .fd = sender, .events = POLLIN } };
	uint8_t frame[FRAME] = {
		2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, ETHERTYPE >> 8, ETHERTYPE & 0xff
	};
	const double began = now();
	uint8_t answer[ROOM];

	memcpy(frame + 16, &number, sizeof(number));
	if (send(sender, frame, FRAME, 0) != FRAME)
		die("send");
	for (;;) {
		int ready = poll(waits, 2, PATIENCE_MS);

		if (ready < 0 && errno != EINTR)
			die("poll");
		if (ready == 0)
			return 0;
		if (waits[0].revents) {
			drain(driver->call);
			driver->serve(driver->context);
		}
		if (waits[1].revents && recv(sender, answer, sizeof(answer), 0) >= (ssize_t)FRAME &&
		    answer[FRAME - 1] == ANSWERS && !memcmp(answer + 16, &number, sizeof(number)))
			return now() - began;
	}
}

static int by_value(const void *a, const void *b)
{
	const float x = *(const float *)a, y = *(const float *)b;

	return (x > y) - (x < y);
}

static void measure(const char *tap, const struct driver *driver, double seconds)
{
	float *trips = calloc(TRIPS_MAX, sizeof(*trips));
	const double warm = now() + WARM_UP, end = warm + seconds;
	int sender = open_socket(tap);
	uint32_t count = 0, lost = 0;

	if (!trips)
		die("memory");
	for (uint32_t number = 0; now() < end && count < TRIPS_MAX; number++) {
		double took = trip(sender, driver, number);

		if (took == 0 && ++lost > LOST_MAX) {
			fprintf(stderr, "wakeups: %u of %u frames did not come back\n", lost,
				number + 1);
			exit(1);
		}
		if (took > 0 && now() > warm)
			trips[count++] = (float)(took * 1e6);
	}
	if (!count) {
		fprintf(stderr, "wakeups: too short a time\n");
		exit(1);
	}
	qsort(trips, count, sizeof(*trips), by_value);
	printf("{\"p50_us\": %.3f, \"p99_us\": %.3f, \"rounds\": %u, \"lost\": %u}\n",
	       (double)trips[count / 2], (double)trips[(uint64_t)count * 99 / 100], count, lost);
	fflush(stdout);
	free(trips);
	close(sender);
}

int main(int argc, char **argv)
{
	const char *tap = NULL, *path = NULL;
	double seconds = 1;
	int device_cpu = 0;
	bool stays = false;

	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--tap"))
			tap = argv[i + 1];
		else if (!strcmp(argv[i], "--seconds"))
			seconds = atof(argv[i + 1]);
		else if (!strcmp(argv[i], "--device-cpu"))
			device_cpu = atoi(argv[i + 1]);
		else if (!strcmp(argv[i], "--socket"))
			path = argv[i + 1];
		else if (!strcmp(argv[i], "--stay"))
			stays = atoi(argv[i + 1]);
	}
	if (!tap) {
		fprintf(stderr,
			"wakeups: --tap NAME (--socket PATH | --device-cpu N) [--seconds S]\n");
		return 1;
	}
	if (path) {
		static struct vhost_front front;

		vhost_open(&front, &(struct vhost_config){ .path = path,
							   .features = VIRTIO_NET_F_MRG_RXBUF |
								       VIRTIO_F_EVENT_IDX,
							   .pairs = 1,
							   .size = 256,
							   .room = ROOM,
							   .calls = true });
		measure(tap, &(struct driver){ front.rx[0].call_fd, serve_rings, &front }, seconds);
		if (stays)
			pause();
		vhost_close(&front);
	} else {
		struct exchange *x = start_device(tap, device_cpu);

		measure(tap, &(struct driver){ x->call, serve_exchange, x }, seconds);
	}
	return 0;
}
