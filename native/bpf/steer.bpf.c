/* SPDX-License-Identifier: MIT */
/*
 * The steering program: which tap queue a frame goes to, decided in the kernel
 * before it is queued (TUNSETSTEERINGEBPF).  It names the receiveq that the C
 * path will name for the same frame, so that the worker that owns the receiveq
 * reads it and nothing has to be handed over.
 *
 * A wrong answer here costs speed, never correctness: hash, report and receiveq
 * of a frame always come from the C path, which hands over what came by another
 * queue.
 *
 * What the two share is in frame_rules.h and in the snapshot (steering_abi.h):
 * C works out the choice of the hash type for each kind of flow, what each
 * protocol number is to the walk along IPv6 extension headers, and what each
 * input byte adds to the hash.  So the order of types and its exceptions (U-19,
 * U-58) are written down once.  What differs is how bytes are reached: a socket
 * filter has to copy them, by a call that costs the same for 4 bytes and for
 * 46, so the commonest frames cost one call for all they may need.
 *
 * A VLAN tag may stand beside the frame instead of in it; the reader of the tap
 * finds it in its place.  So it counts as the outermost tag, and the window of
 * U-21, which is one of the frame as it is read, ends 4 bytes earlier here.
 *
 * Nothing newer than Linux 5.8.
 */
#include <linux/bpf.h>

#include "pyvnet/frame_rules.h"
#include "pyvnet/steering_abi.h"

#define SECTION(name) __attribute__((section(name), used))
/* What the compiler must not reason about. */
#define OPAQUE(value) __asm__ volatile("" : "+r"(value))
#define INLINE static inline __attribute__((always_inline))

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define BE16(value) ((uint16_t)((value) >> 8 & 0xffu) | (uint16_t)(((value) & 0xffu) << 8))
#else
#define BE16(value) ((uint16_t)(value))
#endif

static void *(*const map_lookup_elem)(void *map,
				      const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*const skb_load_bytes)(const void *skb, uint32_t offset, void *to,
				    uint32_t len) = (void *)BPF_FUNC_skb_load_bytes;

struct {
	int (*type)[BPF_MAP_TYPE_ARRAY];
	int (*map_flags)[BPF_F_MMAPABLE];
	int (*max_entries)[1];
	uint32_t *key;
	struct vnet_steering_map *value;
} steering SECTION(".maps");

#define IP_READ (IPV6_SIZE + PORTS_SIZE)
#define HEAD_SIZE (2 + IP_READ)

/* What was read of a frame: its EtherType and what follows.  Accesses to the stack are aligned. */
struct head {
	uint8_t unused[6];
	uint16_t type; /* as in the frame */
	uint8_t ip[IP_READ]; /* ports, and addresses for the EX types, come here from anywhere */
} __attribute__((aligned(8)));

/* A walk along extension headers and their options. */
struct walk {
	uint32_t at; /* what is read next */
	uint32_t stop; /* options end here; not above @at: none are being read */
	uint32_t end; /* of what counts of the frame */
	uint32_t next; /* VNET_STEERING_* of the header that follows */
	uint32_t left; /* how many headers and options more may come */
	uint32_t destination; /* all ones: options are those of a destination options header */
	uint32_t home, route; /* where the first valid address is, 0: none was seen */
	uint32_t kind;
};
#define ONE_HEADER 0x100u
#define ONE_OPTION 1u

/* Turns of the walk: one for each header, each option and what follows the chain. */
#define TURNS (VNET_PARSE_MAX_HEADERS + VNET_PARSE_MAX_OPTIONS + 1)

/* Read EtherType and IP header, the latter at @at, which is not beyond @len. */
INLINE void read_head(struct __sk_buff *skb, const struct vnet_steering_slot *slot,
		      struct head *head, uint32_t at, uint32_t len)
{
	uint32_t size = len - at + 2;

	OPAQUE(size); /* or the compiler compares something else, and older verifiers lose track */
	if (size >= HEAD_SIZE) {
		skb_load_bytes(skb, at - 2, &head->type, HEAD_SIZE);
		return;
	}
	/* For the verifier, and so that what follows looks the same to it as after the above. */
	for (uint32_t i = 0; i < IP_READ; i += 4)
		*(uint32_t *)(head->ip + i) = slot->zero;
	head->type = (uint16_t)slot->zero;
	if (size > 1)
		skb_load_bytes(skb, at - 2, &head->type, size);
}

INLINE uint32_t ports_kind(uint8_t protocol)
{
	return protocol == PROTO_TCP ? VNET_FLOW_TCP : VNET_FLOW_UDP;
}

INLINE int has_ports(uint8_t protocol)
{
	return protocol == PROTO_TCP || protocol == PROTO_UDP;
}

/* Return: the flow's kind, its ports in their place behind 20 bytes of header; 0: no hash */
INLINE uint32_t read_ipv4(struct __sk_buff *skb, struct head *head, uint32_t at, uint32_t len)
{
	const uint32_t left = len - at, size = (head->ip[0] & 0xfu) * 4;

	if (left < IPV4_MIN_SIZE || head->ip[0] >> 4 != 4 || size < IPV4_MIN_SIZE || size > left)
		return 0;
	if (*(uint16_t *)(head->ip + 6) & BE16(IPV4_MORE_FRAGMENTS_OR_OFFSET))
		return VNET_FLOW_IPV4;
	if (!has_ports(head->ip[9]) || left - size < PORTS_SIZE)
		return VNET_FLOW_IPV4;
	if (size != IPV4_MIN_SIZE)
		skb_load_bytes(skb, at + size, head->ip + IPV4_MIN_SIZE, PORTS_SIZE);
	return VNET_FLOW_IPV4 | ports_kind(head->ip[9]);
}

/*
 * Comparisons without a branch.  Where paths of a loop meet again a verifier has to recognise
 * that they are alike, and it forgets what it saw some turns ago; so a turn is one path, and
 * what it does depends on masks.  The compiler would make branches of them, hence OPAQUE.
 * Return: all ones or zero
 */
INLINE uint32_t if_below(uint32_t a, uint32_t b)
{
	uint64_t difference = (uint64_t)a - b;

	OPAQUE(difference);
	return (uint32_t)(difference >> 32);
}

INLINE uint32_t if_same(uint32_t a, uint32_t b)
{
	return if_below(a ^ b, 1);
}

INLINE uint32_t either(uint32_t mask, uint32_t then, uint32_t other)
{
	return (then & mask) | (other & ~mask);
}

INLINE uint32_t if_set(uint32_t flags, uint32_t flag)
{
	return 0 - (flags / flag & 1u);
}

/*
 * Take an option, if @option is all ones, or a header, if it is zero, whose first bytes were
 * read, and move behind it, or to the options inside it.  A malformed option ends those of its
 * header.  @fits: whether it ends where options or what counts of the frame do, or before.
 */
INLINE void take(const struct vnet_steering_slot *slot, struct walk *w, const uint8_t *bytes,
		 uint32_t option, uint32_t behind, uint32_t fits)
{
	const uint32_t opens = if_set(w->next, VNET_STEERING_OPTIONS);

	w->home |= option & fits & w->destination & if_same(w->home, 0) &
		   if_same((uint32_t)bytes[0] << 8 | bytes[1],
			   OPTION_HOME_ADDRESS << 8 | ADDRESS_SIZE) &
		   (w->at + 2);
	w->route |= ~option & if_set(w->next, VNET_STEERING_ROUTING) & if_same(w->route, 0) &
		    if_same(bytes[1], RH2_HDRLEN) & if_same(bytes[2], RH2_TYPE) &
		    if_same(bytes[3], RH2_SEGMENTS_LEFT) & (w->at + RH2_ADDRESS_OFFSET);
	w->at = either(option, either(fits, behind, w->stop), either(opens, w->at + 2, behind));
	w->stop = either(option, w->stop, opens & behind);
	w->destination = either(option, w->destination, if_set(w->next, VNET_STEERING_DESTINATION));
	w->next = either(option, w->next, slot->protocols[bytes[0]]);
}

/* Return: 0: the walk ends with this turn, and no ports follow */
INLINE int turn(struct __sk_buff *skb, const struct vnet_steering_slot *slot, struct walk *w,
		uint8_t *bytes, uint32_t option)
{
	uint32_t size, fits;

	if (!(w->left & either(option, ONE_HEADER - ONE_OPTION, ~(ONE_HEADER - ONE_OPTION))))
		return 0;
	w->left -= either(option, ONE_OPTION, ONE_HEADER);
	if (if_below(w->end - w->at, EXTENSION_MIN_SIZE) & ~option)
		return 0;
	/* Fails, and reads zeros, where the frame ends behind an option's type: so do the options. */
	skb_load_bytes(skb, w->at, bytes, 2 + (~option & 2));
	size = either(option, either(if_same(bytes[0], OPTION_PAD1), 1, 2u + bytes[1]),
		      EXTENSION_MIN_SIZE + bytes[1] * (w->next & VNET_STEERING_UNITS));
	fits = ~if_below(either(option, w->stop, w->end), w->at + size);
	if (!(fits | option))
		return 0;
	w->kind = VNET_FLOW_IPV6 | VNET_FLOW_EXTENSIONS;
	if (w->next & ~option & VNET_STEERING_LAST)
		return 0;
	take(slot, w, bytes, option, w->at + size, fits);
	return 1;
}

/* Walk along the extension headers.  Return: the flow's kind; ports are in their place */
INLINE uint32_t walk(struct __sk_buff *skb, const struct vnet_steering_slot *slot,
		     struct head *head, struct walk *w)
{
	/* Known values would make each turn another one to the verifier. */
	const uint32_t unknown = slot->zero;
	uint8_t bytes[4] __attribute__((aligned(8)));

	*(uint32_t *)bytes = unknown;
	w->end ^= unknown;
	/* Before Linux 5.16 a verifier remembers what is put aside on the stack in 64 bits only. */
#pragma clang loop unroll(disable)
	for (uint64_t i = 0; i < TURNS; i++) {
		uint32_t option;

		w->at ^= unknown;
		w->stop ^= unknown;
		w->left ^= unknown;
		w->kind ^= unknown;
		option = if_below(w->at, w->stop);
		if (!((option | w->next) & VNET_STEERING_EXTENSION))
			break;
		if (!turn(skb, slot, w, bytes, option))
			return w->kind;
	}
	if (!(w->next & VNET_FLOW_L4) || w->end - w->at < PORTS_SIZE)
		return w->kind;
	skb_load_bytes(skb, w->at, head->ip + IPV6_SIZE, PORTS_SIZE);
	return w->kind | (w->next & VNET_FLOW_L4);
}

INLINE uint32_t read_extensions(struct __sk_buff *skb, const struct vnet_steering_slot *slot,
				struct head *head, uint32_t at, uint32_t len)
{
	const uint32_t window = VNET_PARSE_WINDOW - (skb->vlan_present ? VLAN_TAG_SIZE : 0);
	struct walk w = {
		.at = at + IPV6_SIZE,
		.end = len < window ? len : window,
		.next = slot->protocols[head->ip[6]],
		.left = VNET_PARSE_MAX_HEADERS * ONE_HEADER + VNET_PARSE_MAX_OPTIONS * ONE_OPTION,
		.kind = VNET_FLOW_IPV6,
	};
	const uint32_t choice = slot->choice[walk(skb, slot, head, &w) % VNET_FLOW_KINDS];

	if (choice & CHOICE_EX && w.home)
		skb_load_bytes(skb, w.home, head->ip + 8, ADDRESS_SIZE);
	if (choice & CHOICE_EX && w.route)
		skb_load_bytes(skb, w.route, head->ip + 8 + ADDRESS_SIZE, ADDRESS_SIZE);
	return choice;
}

/* Return: the choice for the frame's flow, its addresses and ports in their places; 0: no hash */
INLINE uint32_t read_ipv6(struct __sk_buff *skb, const struct vnet_steering_slot *slot,
			  struct head *head, uint32_t at, uint32_t len)
{
	const uint32_t left = len - at;
	const uint8_t next = head->ip[6];

	if (left < IPV6_SIZE || head->ip[0] >> 4 != 6)
		return 0;
	if (has_ports(next))
		return slot->choice[VNET_FLOW_IPV6 | (left < IP_READ ? 0 : ports_kind(next))];
	if (!is_extension(next))
		return slot->choice[VNET_FLOW_IPV6];
	return read_extensions(skb, slot, head, at, len);
}

/* Read the head again where it is behind tags.  Return: where IP begins; 0: cut off, or too deep */
INLINE uint32_t skip_tags(struct __sk_buff *skb, const struct vnet_steering_slot *slot,
			  struct head *head, uint32_t len)
{
	uint32_t at = ETHERNET_SIZE + VLAN_TAG_SIZE;

	if (len < at)
		return 0;
	if (is_vlan_tpid(BE16(*(uint16_t *)(head->ip + 2)))) {
		if (skb->vlan_present || len < at + VLAN_TAG_SIZE)
			return 0;
		at += VLAN_TAG_SIZE;
	}
	read_head(skb, slot, head, at, len);
	return at;
}

/* Return: what @count input bytes from @position on add to the hash */
INLINE uint32_t add(const struct vnet_steering_slot *slot, const uint8_t *bytes, uint32_t position,
		    uint32_t count)
{
	uint32_t hash = 0;

#pragma clang loop unroll(full)
	for (uint32_t i = 0; i < count; i++)
		hash ^= slot->toeplitz[position + i][bytes[i]];
	return hash;
}

/* Return: the queue of a frame of at least ETHERNET_SIZE bytes */
INLINE int steer(struct __sk_buff *skb, const struct vnet_steering_slot *slot, uint32_t len)
{
	const struct vnet_steering *s = &slot->steering;
	uint32_t at = ETHERNET_SIZE, choice = 0, hash = 0;
	struct head head;

	read_head(skb, slot, &head, at, len);
	if (is_vlan_tpid(BE16(head.type))) {
		at = skip_tags(skb, slot, &head, len);
		if (!at)
			return s->unclassified_queue;
	}
	if (head.type == BE16(ETHERTYPE_IPV4)) {
		choice = slot->choice[read_ipv4(skb, &head, at, len)];
		hash = add(slot, head.ip + 12, 0, 8);
		if (choice & CHOICE_PORTS)
			hash ^= add(slot, head.ip + IPV4_MIN_SIZE, 8, PORTS_SIZE);
	} else if (head.type == BE16(ETHERTYPE_IPV6)) {
		choice = read_ipv6(skb, slot, &head, at, len);
		hash = add(slot, head.ip + 8, 0, 2 * ADDRESS_SIZE);
		if (choice & CHOICE_PORTS)
			hash ^= add(slot, head.ip + IPV6_SIZE, 2 * ADDRESS_SIZE, PORTS_SIZE);
	}
	if (!choice)
		return s->unclassified_queue;
	return s->indirection_table[hash & s->indirection_table_mask & (VNET_RSS_TABLE_LENGTH - 1)];
}

SECTION("socket")
int pyvnet_steer(struct __sk_buff *skb)
{
	const uint32_t len = skb->len, only = 0;
	const struct vnet_steering_map *map = map_lookup_elem(&steering, &only);
	const struct vnet_steering_slot *slot;

	if (!map)
		return 0;
	slot = &map->slots[*(const volatile uint32_t *)&map->active % VNET_STEERING_SLOTS];
	if (slot->steering.mode != VNET_STEER_RSS)
		return 0;
	if (len < ETHERNET_SIZE)
		return slot->steering.unclassified_queue;
	return steer(skb, slot, len);
}

const char licence[] SECTION("license") = "Dual MIT/GPL";
