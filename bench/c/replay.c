/* SPDX-License-Identifier: MIT */
/*
 * Frames of a file into an interface, over and over, past its queueing
 * discipline.  What the interface has no room for is lost.
 *
 *   replay --interface NAME --frames FILE [--seconds S] [--turns]
 *
 * The file has each frame behind its length, 32 bits in the CPU's byte order.
 * With --turns it measures for each line it reads.
 */
#define _GNU_SOURCE
#include "measure.h"

#include <errno.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/socket.h>
#include <unistd.h>

#define FRAMES_MAX 1024u
#define BYTES_MAX (1u << 20)

struct frames {
	uint8_t bytes[BYTES_MAX];
	const uint8_t *at[FRAMES_MAX];
	uint32_t size[FRAMES_MAX];
	uint32_t count;
};

static void load(struct frames *f, const char *path)
{
	FILE *file = fopen(path, "re");
	size_t used = 0;
	uint32_t size;

	if (!file)
		die("cannot open %s: %s", path, strerror(errno));
	while (f->count < FRAMES_MAX && fread(&size, sizeof(size), 1, file) == 1) {
		if (size > BYTES_MAX - used || fread(f->bytes + used, 1, size, file) != size)
			die("%s is cut off, or too large", path);
		f->at[f->count] = f->bytes + used;
		f->size[f->count++] = size;
		used += size;
	}
	fclose(file);
	if (!f->count)
		die("%s has no frames", path);
}

static int open_sender(const char *interface)
{
	struct sockaddr_ll address = { .sll_family = AF_PACKET,
				       .sll_ifindex = (int)if_nametoindex(interface) };
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), on = 1;

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof(on)) < 0)
		die("cannot send to %s: %s", interface, strerror(errno));
	return fd;
}

static uint64_t replay(int fd, const struct frames *f, uint64_t end)
{
	uint64_t sent = 0;

	while (now_ns() < end)
		for (uint32_t i = 0; i < f->count; i++, sent++)
			if (send(fd, f->at[i], f->size[i], 0) < 0 && errno != ENOBUFS)
				die("cannot send %u bytes: %s", f->size[i], strerror(errno));
	return sent;
}

static void once(int fd, const struct frames *f, double seconds)
{
	const uint64_t start = now_ns();
	const uint64_t sent = replay(fd, f, start + (uint64_t)(seconds * 1e9));

	printf("{\"frames\": %llu, \"seconds\": %.4f}\n", (unsigned long long)sent,
	       (double)(now_ns() - start) / 1e9);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	static struct frames frames;
	const char *interface = option(argc, argv, "--interface", NULL);
	const char *path = option(argc, argv, "--frames", NULL);
	const double seconds = option_number(argc, argv, "--seconds", "1");
	char line[16];
	int fd;

	if (!interface || !path)
		die("replay --interface NAME --frames FILE [--seconds S] [--turns]");
	load(&frames, path);
	fd = open_sender(interface);
	if (!flag(argc, argv, "--turns"))
		once(fd, &frames, seconds);
	else
		while (fgets(line, sizeof(line), stdin))
			once(fd, &frames, seconds);
	close(fd);
	return 0;
}
