/* SPDX-License-Identifier: MIT */
/*
 * Records of a capture as Enhanced Packet Blocks (draft-ietf-opsawg-pcapng), the same to the
 * byte as src/pyvnet/capture/ writes them.
 */
#include "capture.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the section header says so");

#define BLOCK_PACKET 6u
#define OPTION_END 0u
#define OPTION_COMMENT 1u
#define OPTION_FLAGS 2u
#define OPTION_HASH 3u
#define OPTION_DROPS 4u
#define OPTION_QUEUE 6u

#define FLAG_INBOUND 1u
#define FLAG_OUTBOUND 2u
#define FLAG_CHECKSUM_NOT_READY (1u << 9)
#define FLAG_CHECKSUM_VALID (1u << 10)
#define FLAG_TCP_SEGMENTATION (1u << 11)

#define HASH_TOEPLITZ 5u

#define WORDS_MAX 192u
#define OPTIONS_MAX (WORDS_MAX + 64u)

struct packet {
	uint32_t type, length;
	uint32_t interface;
	uint32_t time_high, time_low;
	uint32_t captured, original;
};
static_assert(sizeof(struct packet) == 28, "no padding");

/* Behind it nothing of a comment is lost: the longest one is far shorter. */
struct words {
	char text[WORDS_MAX];
	uint32_t len;
};

static __attribute__((format(printf, 2, 3))) void say(struct words *words, const char *format, ...)
{
	va_list arguments;
	int n;

	va_start(arguments, format);
	n = vsnprintf(words->text + words->len, WORDS_MAX - words->len, format, arguments);
	va_end(arguments);
	if (n > 0)
		words->len += (uint32_t)n < WORDS_MAX - words->len ? (uint32_t)n :
								     WORDS_MAX - words->len - 1;
}

static const char *const report_names[] = {
	[VIRTIO_NET_HASH_REPORT_IPv4] = "IPv4",       [VIRTIO_NET_HASH_REPORT_TCPv4] = "TCPv4",
	[VIRTIO_NET_HASH_REPORT_UDPv4] = "UDPv4",     [VIRTIO_NET_HASH_REPORT_IPv6] = "IPv6",
	[VIRTIO_NET_HASH_REPORT_TCPv6] = "TCPv6",     [VIRTIO_NET_HASH_REPORT_UDPv6] = "UDPv6",
	[VIRTIO_NET_HASH_REPORT_IPv6_EX] = "IP_EX",   [VIRTIO_NET_HASH_REPORT_TCPv6_EX] = "TCP_EX",
	[VIRTIO_NET_HASH_REPORT_UDPv6_EX] = "UDP_EX",
};

static const char *segments_of(uint8_t gso_type)
{
	switch (gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
	case VIRTIO_NET_HDR_GSO_TCPV4:
		return "TCPv4";
	case VIRTIO_NET_HDR_GSO_TCPV6:
		return "TCPv6";
	default:
		return "UDP";
	}
}

static void explain(const struct vnet_capture_record *r, struct words *words)
{
	const struct virtio_net_hdr_v1 *header = &r->header;

	words->len = 0;
	if (r->transmit)
		say(words, "transmitq %u", r->pair);
	else if (r->hash_report)
		say(words, "%s hash 0x%08x receiveq %u", report_names[r->hash_report],
		    r->hash_value, r->pair);
	else
		say(words, "no hash receiveq %u", r->pair);
	if (header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
		say(words, ", needs checksum at %u+%u", header->csum_start, header->csum_offset);
	if (header->flags & VIRTIO_NET_HDR_F_DATA_VALID)
		say(words, ", checksum valid");
	if (header->gso_type)
		say(words, ", %s in segments of %u", segments_of(header->gso_type),
		    header->gso_size);
}

static uint32_t flags_of(const struct vnet_capture_record *r)
{
	uint8_t gso = r->header.gso_type & (uint8_t)~VIRTIO_NET_HDR_GSO_ECN;
	uint32_t flags = r->transmit ? FLAG_OUTBOUND : FLAG_INBOUND;

	if (r->header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
		flags |= FLAG_CHECKSUM_NOT_READY;
	if (r->header.flags & VIRTIO_NET_HDR_F_DATA_VALID)
		flags |= FLAG_CHECKSUM_VALID;
	if (gso == VIRTIO_NET_HDR_GSO_TCPV4 || gso == VIRTIO_NET_HDR_GSO_TCPV6)
		flags |= FLAG_TCP_SEGMENTATION;
	return flags;
}

/* Return: bytes it took, padding and all; what @to had there was zeros */
static uint32_t option(uint8_t *to, uint16_t code, const void *value, uint32_t len)
{
	const uint16_t head[2] = { code, (uint16_t)len };

	memcpy(to, head, sizeof(head));
	memcpy(to + sizeof(head), value, len);
	return (uint32_t)sizeof(head) + ((len + 3) & ~3u);
}

/* All but the comment from outside and the end of options. */
static uint32_t options(const struct vnet_capture_record *r, uint8_t *to)
{
	const uint32_t flags = flags_of(r), queue = r->pair;
	struct words words;
	uint32_t at;

	explain(r, &words);
	at = option(to, OPTION_COMMENT, words.text, words.len);
	at += option(to + at, OPTION_FLAGS, &flags, sizeof(flags));
	if (r->hash_report) {
		uint8_t hash[5] = { HASH_TOEPLITZ };

		memcpy(hash + 1, &r->hash_value, sizeof(r->hash_value));
		at += option(to + at, OPTION_HASH, hash, sizeof(hash));
	}
	if (r->drops) {
		const uint64_t drops = r->drops;

		at += option(to + at, OPTION_DROPS, &drops, sizeof(drops));
	}
	return at + option(to + at, OPTION_QUEUE, &queue, sizeof(queue));
}

uint32_t vnet_capture_block(const struct vnet_capture_record *record, const char *comment,
			    uint8_t *to, uint32_t room)
{
	uint8_t opts[OPTIONS_MAX] = { 0 };
	uint32_t opts_len = options(record, opts), comment_len = (uint32_t)strlen(comment);
	uint32_t extra = comment_len ? 4 + ((comment_len + 3) & ~3u) : 0;
	uint32_t data = (record->captured + 3) & ~3u;
	uint32_t length = (uint32_t)sizeof(struct packet) + data + opts_len + extra + 4 + 4;
	const struct packet packet = {
		BLOCK_PACKET,
		length,
		2u * record->pair + record->transmit,
		(uint32_t)(record->time >> 32),
		(uint32_t)record->time,
		record->captured,
		record->len,
	};

	if (length > room)
		return length;
	memcpy(to, &packet, sizeof(packet));
	to += sizeof(packet);
	memset(to + data - (data ? 4 : 0), 0, data ? 4 : 0);
	memcpy(to, record + 1, record->captured);
	to += data;
	memcpy(to, opts, opts_len);
	to += opts_len;
	memset(to, 0, extra + 4); /* padding, and the end of options */
	if (extra)
		option(to, OPTION_COMMENT, comment, comment_len);
	to += extra + 4;
	memcpy(to, &length, sizeof(length));
	return length;
}
