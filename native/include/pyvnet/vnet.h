/* SPDX-License-Identifier: MIT */
/*
 * The engine's verbs: the only header Python sees.
 *
 * Concepts
 *   memory    one immutable table of guest regions, mapped from their fds,
 *             reference-counted: swapped under running workers, unmapped when
 *             the last of them has let go.
 *   policy    one immutable snapshot of everything the frame path decides by:
 *             steering, hash, filter, offloads, header length.  Also
 *             reference-counted.
 *   engine    workers, host port queues and vrings of one device.
 *   worker    one thread.  It owns the queue pairs i with i % workers == its
 *             number: their host port queue, receiveq and transmitq.
 *
 * Control verbs are called by one thread at a time and return when every
 * worker concerned has done what was asked, between two of its batches; so
 * the frame path itself takes no lock.  That holds for control commands too:
 * worker 0 takes and answers them for the caller of vnet_ctrl_pop().
 *
 * Functions return 0 (or a count) on success, -errno on failure, and print
 * nothing.
 */
#ifndef PYVNET_VNET_H
#define PYVNET_VNET_H

#include <stdint.h>

#include "pyvnet/steering_abi.h"

#define VNET_API __attribute__((visibility("default")))

#define VNET_MAX_PAIRS 256u
#define VNET_MAX_REGIONS 64u
#define VNET_MAX_QUEUE_SIZE 32768u
#define VNET_FRAME_MAX 65557u /* 65535 bytes of payload, Ethernet header, two VLAN tags */
#define VNET_CTRL_MAX 65536u  /* longest control command taken */

struct vnet_region {
	uint64_t gpa; /* guest physical address of the first byte */
	uint64_t size;
	uint64_t mmap_offset; /* where the region begins in fd */
	int32_t fd;           /* stays the caller's */
	int32_t reserved;
};

struct vnet_mem;
struct vnet_policy;
struct vnet_engine;

/* What a frame of a host port looks like: struct virtio_net_hdr_v1, then the frame. */
enum vnet_port_type {
	VNET_PORT_TAP = 0,
	VNET_PORT_PAIR = 1,
	VNET_PORT_NULL = 2, /* fd: an eventfd; write n and n frames come in */
};

/* How frames cross the border to the kernel. */
enum vnet_io {
	VNET_IO_AUTO =
		0, /* io_uring where it is allowed and the host port gains by it, else plain */
	VNET_IO_PLAIN = 1, /* read and write, a call a frame */
	VNET_IO_URING = 2, /* io_uring, or vnet_engine_create() fails */
};

#define VNET_POLL_US_MAX 1000000000u

struct vnet_engine_info;

struct vnet_engine_config {
	uint32_t pairs;   /* queue pairs the device has, 1 … VNET_MAX_PAIRS */
	uint32_t workers; /* threads, 1 … pairs */
	uint32_t port_type;
	uint32_t handoff_slots; /* frames in flight between workers, per worker; 0: default */
	const int32_t *port_fds; /* one per pair, nonblocking; duplicated */
	uint32_t port_count;     /* host port queues, 1 … pairs; the rest have none */
	uint32_t io; /* enum vnet_io */
	uint32_t poll_us; /* a worker without work looks on for so long before it sleeps */
	uint32_t
		pin_guest_memory; /* guest memory may be registered with the kernel, which pins it */
	const int32_t *worker_cpus; /* NULL, or one per worker: its CPU, -1 any */
	struct vnet_engine_info
		*info; /* NULL, or filled once it is known, by an engine that cannot be made too */
};

/* What the engine made of its configuration. */
struct vnet_engine_info {
	uint32_t workers;
	uint32_t uring_workers; /* how many of them use io_uring */
	uint32_t uring_errno; /* why the first that does not was refused it, 0: none was */
	uint32_t uring_step; /* enum vnet_uring_step: where that came up */
	uint32_t poll_us;
	uint32_t pinned; /* guest memory is registered */
	char hash_kernel[20];
};

enum vnet_uring_step {
	VNET_URING_NONE = 0,
	VNET_URING_SETUP, /* io_uring_setup() */
	VNET_URING_MAP, /* its rings could not be mapped */
	VNET_URING_PROBE, /* the kernel lacks an operation */
	VNET_URING_BUFFERS, /* registering the bounce pages */
	VNET_URING_FILES, /* registering the host port's queues */
};

/* Which frames the driver wants ("Packet Receive Filtering"): modes of struct vnet_filter. */
#define VNET_FILTER_PROMISC 1u /* everything, whatever else is said (U-34) */
#define VNET_FILTER_ALLMULTI 2u
#define VNET_FILTER_ALLUNI 4u
#define VNET_FILTER_NOMULTI 8u
#define VNET_FILTER_NOUNI 16u
#define VNET_FILTER_NOBCAST 32u
#define VNET_FILTER_VLAN 64u /* CTRL_VLAN: tags not in vlans are dropped */
#define VNET_FILTER_UNI_OVERFLOW 128u /* the driver's table did not fit: all of the class (U-36) */
#define VNET_FILTER_MULTI_OVERFLOW 256u

#define VNET_FILTER_MACS 4096u /* longest table of each kind */

struct vnet_filter {
	uint32_t modes;
	uint32_t unicast_count, multicast_count;
	uint32_t reserved;
	const uint8_t *unicast; /* 6 bytes each, in any order; copied by vnet_policy_create() */
	const uint8_t *multicast;
	uint8_t mac[6]; /* the device's own address */
	uint8_t pad[2];
	uint64_t vlans[64]; /* bit vid: the VLAN is in the table */
};

struct vnet_policy_config {
	struct vnet_steering steering;
	uint32_t header_length; /* 12 or 20 bytes in front of every frame on the rings */
	uint32_t merge_rx; /* MRG_RXBUF negotiated */
	uint32_t port_queues; /* host port queues 0 … n-1 attached (U-62) */
	uint32_t mtu; /* of frames towards the driver; 0: no limit (U-51) */
	uint64_t guest_offloads; /* what may be delivered: bits of CTRL_GUEST_OFFLOADS */
	uint64_t host_offloads; /* what the driver may ask for: CSUM, HOST_* feature bits */
	struct vnet_filter filter;
};

/* Where one frame goes and why. */
struct vnet_verdict {
	uint32_t hash_value;
	uint16_t hash_report;
	uint16_t queue;
};

struct vnet_queue_config {
	uint32_t index; /* virtqueue index: receiveq 2i, transmitq 2i+1, controlq 2·pairs */
	uint32_t size; /* power of two, 1 … VNET_MAX_QUEUE_SIZE */
	uint64_t desc_table; /* guest physical addresses */
	uint64_t avail_ring;
	uint64_t used_ring;
	uint32_t event_idx; /* negotiated ring features */
	uint32_t indirect;
	/* Both 0: where the ring's own used.idx says, which is 0 on a ring that begins anew. */
	uint16_t avail_base; /* next avail entry to take */
	uint16_t used_base; /* next used entry to write */
	/* Eventfds, pipes or sockets, duplicated; -1: none. */
	int32_t kick_fd; /* readable when the driver notifies; without one the ring is polled */
	int32_t call_fd; /* written to notify the driver */
	int32_t err_fd; /* written once when the ring breaks */
	uint32_t disabled; /* start as if enabled with 0 (U-42) */
};

struct vnet_queue_state {
	uint16_t avail_base;
	uint16_t used_base;
	uint32_t broken; /* enum vnet_break: why the ring stopped, 0 if it did not */
	uint32_t running;
};

/* Why a ring was stopped (BREAK). */
enum vnet_break {
	VNET_BREAK_NONE = 0,
	VNET_BREAK_AVAIL_INDEX, /* avail.idx moved by more than the queue size */
	VNET_BREAK_DESC_INDEX, /* head or next beyond the table */
	VNET_BREAK_DESC_LOOP, /* chain longer than the table */
	VNET_BREAK_DESC_ADDRESS, /* buffer or indirect table outside the regions */
	VNET_BREAK_INDIRECT, /* not negotiated, nested, with NEXT, bad length */
	VNET_BREAK_CHAIN_TOO_LONG, /* more pieces than VNET_CHAIN_MAX */
	VNET_BREAK_HEAD_IN_USE, /* same head made available twice */
	VNET_BREAK_RING_ADDRESS, /* a memory swap took the ring away */
	VNET_BREAK_COUNT,
};

/*
 * Counters of one queue pair; names are those of status output.  rx is
 * towards the driver.  A frame read from the host port ends in exactly one of
 * rx_packets and the rx_drop_* counters; a frame taken from a transmitq in
 * tx_packets or one of tx_drop_*.
 */
struct vnet_pair_stats {
	uint64_t rx_port_frames; /* read from this pair's host port queue */
	uint64_t rx_packets;
	uint64_t rx_bytes; /* without the virtio header */
	uint64_t rx_handoffs; /* of rx_packets: came from another worker */
	uint64_t
		rx_resteered; /* of rx_packets: came by another pair's host port queue, under RSS */
	uint64_t rx_direct; /* of rx_packets: read from the host port into the driver's buffers */
	uint64_t rx_notifications;
	uint64_t rx_kicks;
	uint64_t rx_drop_overruns; /* no descriptors (OUR-RX-20) */
	uint64_t rx_drop_too_big; /* larger than the buffers can ever hold */
	uint64_t rx_drop_bad_buffer; /* malformed receive buffer, returned with len 0 (U-55) */
	uint64_t rx_drop_queue_off; /* ring not running or not in force (U-11) */
	uint64_t rx_drop_handoff; /* no slot, or the owner's inbound queue is full */
	uint64_t rx_drop_filtered;
	uint64_t rx_drop_port; /* host port gave less than a header, or a cut-off frame */
	uint64_t
		rx_drop_offload; /* host port asks for what the driver did not agree to, or nonsense */
	uint64_t rx_drop_mtu; /* longer than the MTU allows, and no GSO frame (NET-CFG-05) */
	uint64_t
		rx_csum_completed; /* of rx_packets: checksum completed here, GUEST_CSUM being off */
	uint64_t tx_packets;
	uint64_t tx_bytes;
	uint64_t tx_notifications;
	uint64_t tx_kicks;
	uint64_t tx_drop_malformed; /* OUR-TX-12 */
	uint64_t tx_drop_port; /* the host port refused the frame (EIO: it is down) */
	uint64_t tx_drop_queue_off; /* sent on a disabled ring (U-42) */
	uint64_t rings_broken;
};

struct vnet_event {
	uint32_t kind; /* VNET_EVENT_* */
	uint32_t index; /* virtqueue or host port queue index */
	uint32_t reason; /* enum vnet_break, or an errno */
	uint32_t reserved;
};
#define VNET_EVENT_RING_BROKEN 1u
#define VNET_EVENT_PORT_GONE 2u
#define VNET_EVENT_MEMORY_LOST 3u /* the file of a region was cut off; once per table */

/**
 * vnet_mem_create() - map a table of guest regions
 * Return: 0; -EINVAL: empty, wrapping, overlapping or beyond the file; mmap's errno
 */
VNET_API int vnet_mem_create(const struct vnet_region *regions, uint32_t count,
			     struct vnet_mem **mem);
VNET_API void vnet_mem_put(struct vnet_mem *mem);

/**
 * vnet_policy_create() - validate and expand a policy
 * Copies what @config points to.
 * Return: 0; -EINVAL for values no device may hold (queue beyond VNET_MAX_PAIRS, bad mask, unknown
 * type, mode or offload, table too long)
 */
VNET_API int vnet_policy_create(const struct vnet_policy_config *config,
				struct vnet_policy **policy);
VNET_API void vnet_policy_put(struct vnet_policy *policy);
/** vnet_policy_serial() - what frames of a capture name it by */
VNET_API uint32_t vnet_policy_serial(const struct vnet_policy *policy);

/**
 * vnet_policy_classify() - what the receive line would decide for a frame
 * @port_queue:	host port queue it came from (automatic steering follows it)
 */
VNET_API void vnet_policy_classify(const struct vnet_policy *policy, const uint8_t *frame,
				   uint32_t len, uint32_t port_queue, struct vnet_verdict *verdict);
/** vnet_policy_passes() - would the filter show a frame to the driver? Return: 1 or 0 */
VNET_API int vnet_policy_passes(const struct vnet_policy *policy, const uint8_t *frame,
				uint32_t len);

/**
 * vnet_steering_map_publish() - let the steering program decide by a policy from the next frame on
 * Writes the slot behind the active one and makes it the active one.  One thread publishes.
 * @map:	struct vnet_steering_map, shared with the kernel
 * @size:	bytes of it
 * Return: 0; -EINVAL: too small, or not a map of this layout
 */
VNET_API int vnet_steering_map_publish(void *map, uint64_t size, const struct vnet_policy *policy);
/**
 * vnet_steering_settle() - wait until no program decides by a snapshot published before the last
 * Before the first publish and after each VNET_STEERING_SLOTS - 1 of them it must be called, so that
 * the slot written next is nobody's; and before host port queues go that the last snapshot does not name.
 * Takes some 10 ms.
 * Return: 0; -errno of membarrier(2): -EINVAL on kernels run with nohz_full
 */
VNET_API int vnet_steering_settle(void);

/**
 * vnet_hash_select() - the Toeplitz kernel of policies made from now on
 * @name:	of a kernel; NULL or "": the fastest this CPU can run, which is so from the start
 * Return: 0; -EINVAL: no such kernel in this build; -ENOTSUP: this CPU cannot run it
 */
VNET_API int vnet_hash_select(const char *name);
/** vnet_hash_kernel_name() - of the kernel that is selected */
VNET_API const char *vnet_hash_kernel_name(void);
/**
 * vnet_hash_kernel_info() - the kernels of this build, the fastest first
 * @lacks:	what this CPU lacks for it; NULL: it can run
 * Return: 1 and both filled, 0 when there are no more
 */
VNET_API int vnet_hash_kernel_info(uint32_t index, const char **name, const char **lacks);

/**
 * vnet_engine_create() - start the workers; no ring runs yet, frames of the host port are dropped and counted
 * Return: 0; -EINVAL; -ENXIO: a worker may not run on its CPU; errno of what could not be made
 */
VNET_API int vnet_engine_create(const struct vnet_engine_config *config,
				struct vnet_engine **engine);
/** vnet_engine_info() - what the engine runs with */
VNET_API void vnet_engine_info(const struct vnet_engine *engine, struct vnet_engine_info *info);
/** vnet_engine_destroy() - join the workers, close what the engine opened */
VNET_API void vnet_engine_destroy(struct vnet_engine *engine);

/**
 * vnet_engine_set_memory() - swap the memory table under running workers
 * Takes its own reference.  A ring that the new table does not cover breaks.
 */
VNET_API int vnet_engine_set_memory(struct vnet_engine *engine, struct vnet_mem *mem);

/**
 * vnet_engine_set_policy() - swap the policy under running workers
 * When it returns, no frame decided by the old policy is placed any more (U-41).
 * Attaches and detaches host port queues, draining those that go (U-62), and tells the host
 * port what frames may ask for (TUNSETOFFLOAD).
 * Return: 0; -errno of a failed attach or of the offloads, with the old policy in force
 */
VNET_API int vnet_engine_set_policy(struct vnet_engine *engine, struct vnet_policy *policy);

/**
 * vnet_engine_start_queue() - check a ring against the memory table and let its owner run it
 * The call fd is written once: whoever ran the ring before may have gone without a word.
 * Return: 0; -EINVAL: size, alignment or address; -EPERM: an fd of a kind that cannot notify;
 * -EBUSY: it runs; -ENOMEM, -EMFILE …
 */
VNET_API int vnet_engine_start_queue(struct vnet_engine *engine,
				     const struct vnet_queue_config *config);

/**
 * vnet_engine_enable_queue() - let a running ring carry frames, or throw away what it is given (U-42)
 * The controlq remembers it and goes on: whoever pops it decides.
 * A ring that is enabled notifies once, as one that starts.
 * Return: 0; -EINVAL: no such ring; -ENODEV: it does not run
 */
VNET_API int vnet_engine_enable_queue(struct vnet_engine *engine, uint32_t index, uint32_t on);

/**
 * vnet_engine_move_queue() - give a running ring other addresses, checked as at its start
 * Return: 0; -EINVAL: no such ring, misaligned or outside memory, the old ones stay; -ENODEV
 */
VNET_API int vnet_engine_move_queue(struct vnet_engine *engine, uint32_t index, uint64_t desc_table,
				    uint64_t avail_ring, uint64_t used_ring);

/**
 * vnet_engine_set_kick() - replace the kick fd of a running ring; -1: none
 * What was kicked for on the old one is looked at.  The controlq's is not waited for here.
 * Return: 0; -EINVAL, -ENODEV, -EPERM, errno of dup or epoll_ctl, with the old one in use
 */
VNET_API int vnet_engine_set_kick(struct vnet_engine *engine, uint32_t index, int32_t kick_fd);

/**
 * vnet_engine_set_calls() - replace call and err fd of a running ring; -1: none
 * The new call fd is written once: what went to the old one may not have been seen.
 * Return: 0; -EINVAL, -ENODEV, -EPERM, errno of dup, with the old ones in use
 */
VNET_API int vnet_engine_set_calls(struct vnet_engine *engine, uint32_t index, int32_t call_fd,
				   int32_t err_fd);

/**
 * vnet_engine_stop_queue() - stop a ring; harmless on one that is stopped
 * When it returns, the ring's memory and fds are no longer touched.
 */
VNET_API int vnet_engine_stop_queue(struct vnet_engine *engine, uint32_t index,
				    struct vnet_queue_state *state);
VNET_API int vnet_engine_queue_state(struct vnet_engine *engine, uint32_t index,
				     struct vnet_queue_state *state);

VNET_API int vnet_engine_stats(struct vnet_engine *engine, uint32_t pair,
			       struct vnet_pair_stats *stats);

/** vnet_engine_event_fd() - readable when vnet_engine_next_event() has something */
VNET_API int vnet_engine_event_fd(const struct vnet_engine *engine);
/** vnet_engine_next_event() - Return: 1 and @event filled, 0 when there is none */
VNET_API int vnet_engine_next_event(struct vnet_engine *engine, struct vnet_event *event);

/**
 * vnet_ctrl_pop() - take the next control command
 * @buf:	receives the device-readable bytes
 * @len:	how many there are
 * @writable:	device-writable bytes behind them
 * Return: 1 a command was taken; 0 none; -EBADMSG the chain was malformed or too long and has been
 * returned with len 0; -EPIPE the ring is broken; -ENODEV it does not run
 */
VNET_API int vnet_ctrl_pop(struct vnet_engine *engine, uint8_t *buf, uint32_t capacity,
			   uint32_t *len, uint32_t *writable);
/**
 * vnet_ctrl_complete() - write the answer of the command taken last and mark its chain used
 * @len:	bytes of @answer; more than is writable is cut off
 */
VNET_API int vnet_ctrl_complete(struct vnet_engine *engine, const uint8_t *answer, uint32_t len);

/*
 * A capture: copies of frames that were placed or sent, taken by one thread as blocks of a pcapng
 * file.  Interface 2i is receiveq i, 2i + 1 transmitq i; time stamps are nanoseconds.  Workers wait for
 * nobody: what finds no room is counted.
 */
struct vnet_capture;

struct vnet_capture_batch {
	uint32_t bytes; /* of whole blocks */
	uint32_t frames;
	uint32_t size; /* of the next block, which is not among them; 0: no frame waits */
	uint32_t policy; /* serial of the one it was judged by */
};

/**
 * vnet_capture_start() - let workers hand over copies; one capture of an engine at a time
 * @snap_length:	bytes kept of a frame, 0: all
 * @ring_size:	bytes of each worker's ring, a power of two from 512 KiB; 0: a share of 16 MiB
 * Return: 0; -EBUSY: there is one; -EINVAL, -ENOMEM, errno of eventfd
 */
VNET_API int vnet_capture_start(struct vnet_engine *engine, uint32_t snap_length,
				uint32_t ring_size, struct vnet_capture **capture);
/** vnet_capture_stop() - no more; what is there can still be taken.  Before the engine goes; harmless twice */
VNET_API void vnet_capture_stop(struct vnet_capture *capture);
/** vnet_capture_free() - once it is stopped, and nobody takes */
VNET_API void vnet_capture_free(struct vnet_capture *capture);
/** vnet_capture_wait() - return when there is much to take, when woken, or after a while */
VNET_API void vnet_capture_wait(struct vnet_capture *capture, int32_t milliseconds);
VNET_API void vnet_capture_wake(struct vnet_capture *capture);
/**
 * vnet_capture_take() - blocks of frames that were judged by one policy, the earliest first
 * @policy:	its serial; a frame of another one ends the batch
 * @comment:	for the first of them, beside its own; "" for none
 */
VNET_API void vnet_capture_take(struct vnet_capture *capture, uint8_t *buf, uint32_t room,
				uint32_t policy, const char *comment,
				struct vnet_capture_batch *batch);
/** vnet_capture_count() - frames of an interface handed over, and lost for want of room */
VNET_API void vnet_capture_count(const struct vnet_capture *capture, uint32_t interface,
				 uint64_t *frames, uint64_t *drops);

/*
 * Test hooks (native/src/test_hooks.h); -ENOSYS in the shipped build.
 * vnet_test_guard_off(): switch one guard off by name, NULL or "" for all on.
 * vnet_test_mutant(): switch one deliberate fault on by name (native/src/mutants.h), NULL or "" for none.
 * vnet_test_mutant_met(): did anything come by it since this was asked last?
 * vnet_test_fail(): let the countdown-th call of a kind fail, 0 for none.
 * vnet_test_flip(): after the countdown-th read that touches [gpa, gpa+len) write value there; mem NULL for none.
 */
VNET_API int vnet_test_guard_off(const char *name);
VNET_API const char *vnet_test_guard_name(uint32_t index);
VNET_API int vnet_test_mutant(const char *name);
VNET_API const char *vnet_test_mutant_name(uint32_t index);
VNET_API int vnet_test_mutant_met(uint32_t index);
VNET_API int vnet_test_fail(uint32_t site, int64_t countdown);
VNET_API int vnet_test_flip(struct vnet_mem *mem, uint64_t gpa, uint32_t len, const uint8_t *value,
			    int64_t countdown);
VNET_API uint64_t vnet_test_flip_reads(void);

#endif
