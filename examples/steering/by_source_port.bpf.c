/* SPDX-License-Identifier: MIT */
/*
 * A steering program of one's own: the queue is the source port of TCP or UDP
 * over IPv4 or IPv6, modulo the number of queues; everything else goes to queue 0.
 *
 *     clang -target bpf -O2 -g -I/usr/include/$(uname -m)-linux-gnu \
 *           -c by_source_port.bpf.c -o by_source_port.o
 *     pyvnet serve --steering-program by_source_port.o …
 *
 * It counts the frames it has seen, to show a map: `bpftool map dump name seen`.
 */
#include <linux/bpf.h>

#define SEC(name) __attribute__((section(name), used))

static void *(*const map_lookup_elem)(void *map,
				      const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*const skb_load_bytes)(const void *skb, __u32 offset, void *to,
				    __u32 len) = (void *)BPF_FUNC_skb_load_bytes;

struct {
	int (*type)[BPF_MAP_TYPE_PERCPU_ARRAY];
	int (*max_entries)[1];
	__u32 *key;
	__u64 *value;
} seen SEC(".maps");

enum { ETHERNET = 14, IPV6 = 40, TCP = 6, UDP = 17 };

/* Return: where TCP or UDP begins, 0 if the frame has neither */
static inline __attribute__((always_inline)) __u32 find_ports(struct __sk_buff *skb)
{
	__u8 ip[10];

	/* A helper that fails leaves zeros, which are no version of IP. */
	skb_load_bytes(skb, ETHERNET, ip, sizeof(ip));
	if (ip[0] >> 4 == 4 && (ip[9] == TCP || ip[9] == UDP) && !((ip[6] & 0x3f) | ip[7]))
		return ETHERNET + (ip[0] & 0xf) * 4;
	if (ip[0] >> 4 == 6 && (ip[6] == TCP || ip[6] == UDP))
		return ETHERNET + IPV6;
	return 0;
}

SEC("socket")
int by_source_port(struct __sk_buff *skb)
{
	const __u32 only = 0, at = find_ports(skb);
	__u64 *count = map_lookup_elem(&seen, &only);
	__u8 port[2];

	if (count)
		++*count;
	if (!at || skb_load_bytes(skb, at, port, sizeof(port)))
		return 0;
	return port[0] << 8 | port[1];
}

char _license[] SEC("license") = "Dual MIT/GPL";
