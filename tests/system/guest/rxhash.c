// SPDX-License-Identifier: MIT
/*
 * rxhash INTERFACE COUNT QUEUES: what the kernel knows of each received frame.
 *
 * Prints "ready", then "queue hash frame" in hexadecimal for COUNT frames that
 * carry TCP or UDP over IPv4 or IPv6; of the frame no more than SNAP bytes.
 * The hash is that of the socket buffer: what the driver reported, or the
 * kernel's own where it reported none.  A packet socket cannot be told a
 * frame's queue, but it can select by it: there is one for each.
 */
#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_QUEUES 31
#define SNAP 128u
#define BLOCKS 8u
#define BLOCK_SIZE 65536u
#define RETIRE_MS 10u

struct ring {
	int fd;
	unsigned int block;
	char *memory;
};

static void die(const char *what)
{
	perror(what);
	exit(1);
}

/* SKF_AD_QUEUE is one more than the receive queue; 0 stands for none. */
static void select_queue(int fd, unsigned int queue)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_QUEUE)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, queue + 1, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SNAP),
		BPF_STMT(BPF_RET | BPF_K, 0),
	};
	struct sock_fprog program = { .len = sizeof(code) / sizeof(code[0]), .filter = code };

	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)))
		die("SO_ATTACH_FILTER");
}

static struct ring open_ring(const char *interface, unsigned int queue)
{
	struct tpacket_req3 request = {
		.tp_block_size = BLOCK_SIZE,
		.tp_block_nr = BLOCKS,
		.tp_frame_size = 2048,
		.tp_frame_nr = BLOCKS * BLOCK_SIZE / 2048,
		.tp_retire_blk_tov = RETIRE_MS,
		.tp_feature_req_word = TP_FT_REQ_FILL_RXHASH,
	};
	struct sockaddr_ll address = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_ALL),
		.sll_ifindex = (int)if_nametoindex(interface),
	};
	struct ring ring = { .fd = socket(AF_PACKET, SOCK_RAW, 0) };
	int version = TPACKET_V3;

	if (ring.fd < 0 || !address.sll_ifindex)
		die(interface);
	select_queue(ring.fd, queue);
	if (setsockopt(ring.fd, SOL_PACKET, PACKET_VERSION, &version, sizeof(version)) ||
	    setsockopt(ring.fd, SOL_PACKET, PACKET_RX_RING, &request, sizeof(request)))
		die("PACKET_RX_RING");
	ring.memory =
		mmap(NULL, BLOCKS * BLOCK_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, ring.fd, 0);
	if (ring.memory == MAP_FAILED)
		die("mmap");
	if (bind(ring.fd, (struct sockaddr *)&address, sizeof(address)))
		die("bind");
	return ring;
}

static int carries_ports(const uint8_t *frame, uint32_t length)
{
	uint8_t protocol;

	if (length < 34)
		return 0;
	if (frame[12] == 0x08 && frame[13] == 0x00)
		protocol = frame[23];
	else if (frame[12] == 0x86 && frame[13] == 0xdd)
		protocol = frame[20];
	else
		return 0;
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP;
}

static long print_frame(const struct tpacket3_hdr *header, unsigned int queue)
{
	const size_t address = (sizeof(*header) + TPACKET_ALIGNMENT - 1) / TPACKET_ALIGNMENT;
	const struct sockaddr_ll *from =
		(const void *)((const char *)header + address * TPACKET_ALIGNMENT);
	const uint8_t *frame = (const uint8_t *)header + header->tp_mac;

	if (from->sll_pkttype == PACKET_OUTGOING || !carries_ports(frame, header->tp_snaplen))
		return 0;
	printf("%x %08x ", queue, header->hv1.tp_rxhash);
	for (uint32_t i = 0; i < header->tp_snaplen; i++)
		printf("%02x", frame[i]);
	putchar('\n');
	return 1;
}

/* Prints the block the kernel is done with, if there is one, and gives it back. */
static long print_block(struct ring *ring, unsigned int queue)
{
	struct tpacket_block_desc *block =
		(void *)(ring->memory + (size_t)ring->block * BLOCK_SIZE);
	struct tpacket_hdr_v1 *state = &block->hdr.bh1;
	const char *next = (char *)block + state->offset_to_first_pkt;
	long frames = 0;

	if (!(__atomic_load_n(&state->block_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER))
		return 0;
	next = (char *)block + state->offset_to_first_pkt;
	for (uint32_t i = 0; i < state->num_pkts; i++) {
		const struct tpacket3_hdr *header = (const void *)next;

		frames += print_frame(header, queue);
		next += header->tp_next_offset;
	}
	__atomic_store_n(&state->block_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
	ring->block = (ring->block + 1) % BLOCKS;
	return frames;
}

int main(int argc, char **argv)
{
	struct ring rings[MAX_QUEUES];
	struct pollfd waits[MAX_QUEUES];
	unsigned long queues = argc == 4 ? strtoul(argv[3], NULL, 10) : 0;
	long left = argc == 4 ? strtol(argv[2], NULL, 10) : 0;

	if (queues < 1 || queues > MAX_QUEUES) {
		fputs("usage: rxhash INTERFACE COUNT QUEUES\n", stderr);
		return 2;
	}
	for (unsigned int i = 0; i < queues; i++) {
		rings[i] = open_ring(argv[1], i);
		waits[i] = (struct pollfd){ .fd = rings[i].fd, .events = POLLIN };
	}
	puts("ready");
	while (left > 0) {
		fflush(stdout);
		poll(waits, queues, -1);
		for (unsigned int i = 0; i < queues; i++)
			left -= print_block(&rings[i], i);
	}
	return 0;
}
