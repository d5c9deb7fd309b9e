/* SPDX-License-Identifier: MIT */
/*
 * The control queue's C side, vnet_ctrl_pop() and vnet_ctrl_complete(), over
 * any ring memory and any order of calls, in an engine whose workers run.
 *
 * Input: options (layout, queue size, features, base), up to 2 KiB of guest
 * memory beginning with the ring, then steps of the caller mixed with writes
 * of the guest.
 *
 * Held to be true:
 *   1. no access outside the regions; no store but to the used ring and to the
 *      writable bytes of the command in hand (guest_image.h);
 *   2. a command fits the buffer it is copied to, and nothing is written behind it;
 *   3. one command at a time: no second one before the first is answered, no
 *      answer without a command, none answered twice;
 *   4. every chain taken, well-formed or not, moves used.idx by exactly one;
 *   5. a command taken but not answered is there again after stop and start;
 *   6. a broken queue says so (-EPIPE) and is not touched again.
 */
#include "guest_image.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/eventfd.h>

#include "worker.h"

#define STEPS_MAX 96u
#define CAPACITY 600u
#define CONTROLQ 2u

static struct {
	struct vnet_engine *engine;
	int port_fd;
	uint32_t layout;
	uint16_t used;     /* used.idx by our own count */
	bool in_hand;
	uint8_t buf[CAPACITY + 64];
	bool broken;
	uint8_t after[FILE_BYTES];
	struct vnet_queue_config config;
} fuzz;

static void init(void)
{
	struct vnet_engine_config config = {
		.pairs = 1, .workers = 1, .port_type = VNET_PORT_NULL, .port_count = 1
	};

	image_init();
	if (fuzz.engine)
		return;
	fuzz.port_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	config.port_fds = &fuzz.port_fd;
	CHECK(!vnet_engine_create(&config, &fuzz.engine));
}

static void check_used(void)
{
	CHECK(fuzz.engine->controlq.used_idx == fuzz.used);
}

static void broke(void)
{
	struct vnet_event event;

	CHECK(vnet_engine_next_event(fuzz.engine, &event) == 1);
	CHECK(event.kind == VNET_EVENT_RING_BROKEN && event.index == CONTROLQ && event.reason);
	CHECK(!vnet_engine_next_event(fuzz.engine, &event));
	fuzz.broken = true;
	memcpy(fuzz.after, image.file, FILE_BYTES);
}

static void pop(uint32_t capacity)
{
	const struct vnet_engine *e = fuzz.engine;
	uint32_t len = 0, writable = 0;
	int got;

	memset(fuzz.buf, 0x5a, sizeof(fuzz.buf));
	got = vnet_ctrl_pop(fuzz.engine, fuzz.buf, capacity, &len, &writable);
	for (uint32_t i = capacity; i < sizeof(fuzz.buf); i++)
		CHECK(fuzz.buf[i] == 0x5a);
	if (fuzz.in_hand) {
		CHECK(got == -EBUSY);
		return;
	}
	CHECK(got == 1 || got == 0 || got == -EBADMSG || got == -EPIPE);
	if (got == -EPIPE)
		broke();
	if (got == 1) {
		CHECK(len <= capacity && e->ctrl_chain.read_bytes == len &&
		      e->ctrl_chain.write_bytes == writable);
		image_allow_pieces(fuzz.layout, &e->ctrl_pieces.iov[e->ctrl_chain.readable],
				   e->ctrl_chain.writable);
		fuzz.in_hand = true;
	}
	if (got == -EBADMSG)
		fuzz.used++;
	check_used();
}

static void complete(uint32_t len)
{
	static const uint8_t answer[512] = { 1, 2, 3, 4, 5, 6, 7, 8 };
	int result = vnet_ctrl_complete(fuzz.engine, answer, len);

	CHECK(result == (fuzz.in_hand ? 0 : -ENOENT));
	fuzz.used = (uint16_t)(fuzz.used + fuzz.in_hand);
	fuzz.in_hand = false;
	check_used();
}

/* Return: false if the rings lie across a border, or misaligned */
static bool start(void)
{
	fuzz.in_hand = false;
	if (vnet_engine_start_queue(fuzz.engine, &fuzz.config)) {
		CHECK(fuzz.config.desc_table);
		return false;
	}
	fuzz.used = image_start(&fuzz.config, fuzz.layout);
	image_allow(fuzz.layout, fuzz.config.used_ring, 6 + 8 * fuzz.config.size);
	return true;
}

/* What was taken and not answered comes again. */
static void restart(void)
{
	struct vnet_queue_state state;
	uint16_t taken = fuzz.engine->controlq.next_avail;

	CHECK(!vnet_engine_stop_queue(fuzz.engine, CONTROLQ, &state));
	CHECK(state.used_base == fuzz.used && state.avail_base == (uint16_t)(taken - fuzz.in_hand));
	fuzz.config.avail_base = state.avail_base;
	fuzz.config.used_base = state.used_base;
	CHECK(start());
}

static void step(struct input *in)
{
	uint64_t avail_idx = fuzz.config.avail_ring + 2;
	uint32_t what = take(in, 1);

	switch (what & 7) {
	case 0:
	case 1:
	case 2:
		pop((what & 7) == 2 ? what >> 3 : CAPACITY);
		break;
	case 3:
		complete(what >> 3);
		break;
	case 4:
		complete(take(in, 2) % 513);
		break;
	case 5:
		image_poke(fuzz.layout, avail_idx,
			   (uint16_t)(image_peek(fuzz.layout, avail_idx) + (what >> 3)));
		break;
	case 6:
		image_poke(fuzz.layout, take(in, 2) % IMAGE_BYTES, (uint16_t)take(in, 2));
		break;
	case 7:
		restart();
		break;
	}
}

static void use_broken(void)
{
	uint32_t len, writable;

	CHECK(vnet_ctrl_pop(fuzz.engine, fuzz.buf, CAPACITY, &len, &writable) == -EPIPE);
	CHECK(vnet_ctrl_complete(fuzz.engine, fuzz.buf, 1) == -ENOENT);
	CHECK(!memcmp(fuzz.after, image.file, FILE_BYTES));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct vnet_queue_state state;
	uint32_t flags = take(&in, 1), queue = 1u << (take(&in, 1) % 6);
	uint64_t desc = image_ring_base(flags), avail = desc + 16ull * queue;
	uint16_t base = (uint16_t)take(&in, 2);

	init();
	fuzz.layout = flags % LAYOUTS;
	fuzz.broken = false;
	fuzz.config = (struct vnet_queue_config){
		.index = CONTROLQ,
		.size = queue,
		.desc_table = desc,
		.avail_ring = avail,
		.used_ring = (avail + 6 + 2 * queue + 3) & ~3ull,
		.event_idx = flags >> 2 & 1,
		.indirect = flags >> 3 & 1,
		.avail_base = base,
		.used_base = base,
		.kick_fd = -1,
		.call_fd = -1,
		.err_fd = -1,
	};
	image_load(fuzz.layout, &in, (uint32_t)desc, take(&in, 2) % 2048);
	CHECK(!vnet_engine_set_memory(fuzz.engine, image.mem[fuzz.layout]));
	if (!start())
		return 0;
	for (uint32_t i = 0; i < STEPS_MAX && in.size && !fuzz.broken; i++)
		step(&in);
	if (fuzz.broken)
		use_broken();
	CHECK(!vnet_engine_stop_queue(fuzz.engine, CONTROLQ, &state));
	image_check();
	return 0;
}
