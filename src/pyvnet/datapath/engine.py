# SPDX-License-Identifier: MIT
"""The engine: workers, rings and host port queues of one device, driven by a handful of verbs."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Self

from pyvnet.datapath import hashing
from pyvnet.datapath.config import IO_METHODS, EngineConfig, EngineInfo
from pyvnet.datapath.native import DEFAULT, Native, check
from pyvnet.datapath.stats import PAIR_STATS_FIELDS, PairStats
from pyvnet.errors import DriverError, FrontendError, HostError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyvnet.datapath.memory import GuestMemory
    from pyvnet.datapath.policy import Policy, Steering
    from pyvnet.spec.transport import QueueSetup

_POLICIES_KNOWN = 64  # frames of a capture may be so many changes behind
_NO_NOTIFIER = "a kick, call or err fd is no eventfd, pipe or socket, or cannot be waited for"


class BreakReason(IntEnum):
    """``enum vnet_break``: why a ring was stopped."""

    NONE = 0
    AVAIL_INDEX = 1
    DESC_INDEX = 2
    DESC_LOOP = 3
    DESC_ADDRESS = 4
    INDIRECT = 5
    CHAIN_TOO_LONG = 6
    HEAD_IN_USE = 7
    RING_ADDRESS = 8


@dataclass(frozen=True, slots=True)
class QueueState:
    """Where a ring stands: next avail entry to take, next used entry to write, why it stopped."""

    avail_base: int
    used_base: int
    broken: BreakReason
    running: bool


@dataclass(frozen=True, slots=True)
class RingBroken:
    """A ring was stopped; the others go on."""

    index: int
    reason: BreakReason


@dataclass(frozen=True, slots=True)
class PortGone:
    """A host port queue ended: its tap was deleted or its peer closed."""

    queue: int


@dataclass(frozen=True, slots=True)
class MemoryLost:
    """Guest memory went away under its mapping: its file was cut off.  Once per memory table."""


class MalformedCommandError(DriverError):
    """A control chain was malformed and has been returned with length 0."""


class Engine:
    """Handle on a ``struct vnet_engine``.

    ``pairs`` queue pairs, served by ``workers`` threads (default: one per
    pair); ``port_fds`` are the nonblocking fds of the host port's queues, which
    the engine duplicates; ``config`` is how they work.  Raises HostError when threads
    or fds cannot be had, UsageError for a combination that makes no sense.
    """

    def __init__(
        self,
        *,
        pairs: int,
        port_type: str,
        port_fds: Sequence[int],
        workers: int | None = None,
        handoff_slots: int = 0,
        config: EngineConfig | None = None,
        native: Native = DEFAULT,
    ) -> None:
        wanted = EngineConfig() if config is None else config
        hashing.follow_environment(native)
        self._native = native
        self._cdata: Any = None
        self._policies: dict[int, Steering] = {}
        self._pin = wanted.pin_guest_memory
        self.pairs = pairs
        self.workers = min(pairs, workers or pairs)
        ffi, lib = native
        raw = ffi.new("struct vnet_engine_config *")
        fds = ffi.new("int32_t[]", list(port_fds))
        cpus = ffi.new("int32_t[]", wanted.cpus_of(self.workers))
        raw.pairs, raw.workers = pairs, self.workers
        raw.port_type = getattr(lib, f"VNET_PORT_{port_type.upper()}")
        raw.port_fds, raw.port_count = fds, len(port_fds)
        raw.handoff_slots = handoff_slots
        raw.io, raw.poll_us = IO_METHODS.index(wanted.io), wanted.poll_us
        raw.pin_guest_memory, raw.worker_cpus = wanted.pin_guest_memory, cpus
        raw.info = info = ffi.new("struct vnet_engine_info *")
        out = ffi.new("struct vnet_engine **")
        result = lib.vnet_engine_create(raw, out)
        if result == -errno.EINVAL:
            raise UsageError(
                f"an engine of {pairs} queue pairs, {self.workers} workers and "
                f"{len(port_fds)} host port queues cannot be made; "
                f"pairs go from 1 to {lib.VNET_MAX_PAIRS}, the others from 1 to pairs"
            )
        if result and wanted.io == "uring":
            EngineInfo.of(info, "").check_uring()
        check(result, "cannot start the engine")
        self._cdata = out[0]
        # Reused for every control command; allocated once.
        self._ctrl_buffer = ffi.new("uint8_t[]", lib.VNET_CTRL_MAX)
        self._ctrl_len = ffi.new("uint32_t *")
        self._ctrl_writable = ffi.new("uint32_t *")

    def info(self) -> EngineInfo:
        """What it runs with: what came of its ``config``."""
        ffi, lib = self._native
        raw = ffi.new("struct vnet_engine_info *")
        lib.vnet_engine_info(self._engine(), raw)
        kernel = ffi.string(raw.hash_kernel).decode()
        return EngineInfo.of(raw, kernel, pin=self._pin)

    @property
    def cdata(self) -> Any:
        """For verbs that are not here; raises HostError when closed."""
        return self._engine()

    @property
    def native(self) -> Native:
        """The build of the extension this engine runs on."""
        return self._native

    def set_memory(self, memory: GuestMemory) -> None:
        """Swap the memory table under running workers; a ring it does not cover breaks."""
        self._native.lib.vnet_engine_set_memory(self._engine(), memory.cdata)

    def clear_memory(self) -> None:
        """Let go of all guest memory; a ring that still runs breaks."""
        ffi, lib = self._native
        lib.vnet_engine_set_memory(self._engine(), ffi.NULL)

    def set_policy(self, policy: Policy) -> None:
        """Swap the policy; on return no frame is placed by the old one any more (U-41).

        Raises HostError if a host port queue cannot be attached, UsageError if
        the policy names more pairs than there are; the old policy stays then.
        """
        self._policies[policy.serial] = policy.steering
        if len(self._policies) > _POLICIES_KNOWN:
            self._policies.pop(next(iter(self._policies)))
        result = self._native.lib.vnet_engine_set_policy(self._engine(), policy.cdata)
        if result == -errno.EINVAL:
            raise UsageError(f"the policy names more than {self.pairs} queue pairs")
        check(result, "cannot attach a host port queue")

    def policy_of(self, serial: int) -> Steering | None:
        """What a late policy steers by; None: one that nobody set, or long ago.  Any thread."""
        return self._policies.get(serial)

    def start_queue(
        self, setup: QueueSetup, *, event_idx: bool, indirect: bool, enabled: bool = True
    ) -> None:
        """Let a ring's owner run it; a disabled one carries nothing (``enable_queue``).

        Raises DriverError if size, alignment or addresses do not fit the
        memory table, FrontendError for an fd that cannot notify, UsageError if the
        ring runs already, HostError otherwise.
        """
        if not 0 <= setup.index <= 2 * self.pairs:
            raise DriverError(f"there is no virtqueue {setup.index}")
        config = self._native.ffi.new("struct vnet_queue_config *")
        config.index, config.size = setup.index, setup.size
        config.desc_table, config.avail_ring = setup.desc_table, setup.avail_ring
        config.used_ring = setup.used_ring
        config.event_idx, config.indirect = event_idx, indirect
        config.avail_base, config.used_base = setup.avail_base, setup.used_base
        config.kick_fd, config.call_fd = setup.kick_fd, setup.call_fd
        config.err_fd = setup.err_fd
        config.disabled = not enabled
        result = self._native.lib.vnet_engine_start_queue(self._engine(), config)
        if result == -errno.EINVAL:
            raise DriverError(f"virtqueue {setup.index} refused: {setup}")
        if result == -errno.EPERM:
            raise FrontendError(f"virtqueue {setup.index}: {_NO_NOTIFIER}")
        if result == -errno.EBUSY:
            raise UsageError(f"virtqueue {setup.index} is running")
        check(result, f"cannot start virtqueue {setup.index}")

    def enable_queue(self, index: int, *, on: bool) -> None:
        """Let a running ring carry frames, or none: what is sent on it is thrown away (U-42)."""
        self._change(index, self._native.lib.vnet_engine_enable_queue(self._engine(), index, on))

    def move_queue(self, index: int, desc_table: int, avail_ring: int, used_ring: int) -> None:
        """Give a running ring other addresses; refused ones leave it where it is."""
        result = self._native.lib.vnet_engine_move_queue(
            self._engine(), index, desc_table, avail_ring, used_ring
        )
        self._change(index, result)

    def set_kick(self, index: int, kick_fd: int) -> None:
        """Replace the kick fd of a running ring; -1: none, the ring is looked at by itself.

        Raises FrontendError for one that cannot notify; the old one stays then.
        """
        self._change(index, self._native.lib.vnet_engine_set_kick(self._engine(), index, kick_fd))

    def set_calls(self, index: int, *, call_fd: int, err_fd: int) -> None:
        """Replace call and err fd of a running ring; the new call fd is written once."""
        result = self._native.lib.vnet_engine_set_calls(self._engine(), index, call_fd, err_fd)
        self._change(index, result)

    def _change(self, index: int, result: int) -> None:
        if result == -errno.ENODEV:
            raise UsageError(f"virtqueue {index} does not run")
        if result == -errno.EPERM:
            raise FrontendError(f"virtqueue {index}: {_NO_NOTIFIER}")
        if result in {-errno.EINVAL, -errno.EBADF}:
            raise FrontendError(f"virtqueue {index}: {os.strerror(-result)}")
        check(result, f"cannot change virtqueue {index}")

    def stop_queue(self, index: int) -> QueueState:
        """Stop a ring; on return its memory and fds are not touched any more.  Harmless twice."""
        return self._state(self._native.lib.vnet_engine_stop_queue, index)

    def queue_state(self, index: int) -> QueueState:
        """Where a ring stands, taken between two batches of its owner."""
        return self._state(self._native.lib.vnet_engine_queue_state, index)

    def _state(self, verb: Any, index: int) -> QueueState:
        state = self._native.ffi.new("struct vnet_queue_state *")
        if not 0 <= index <= 2 * self.pairs or verb(self._engine(), index, state) < 0:
            raise UsageError(f"there is no virtqueue {index}")
        return QueueState(
            state.avail_base, state.used_base, BreakReason(state.broken), bool(state.running)
        )

    def statistics(self, pair: int) -> PairStats:
        """A snapshot of one pair's counters."""
        stats = self._native.ffi.new("struct vnet_pair_stats *")
        engine = self._engine()
        if not 0 <= pair < self.pairs or self._native.lib.vnet_engine_stats(engine, pair, stats):
            raise UsageError(f"there is no queue pair {pair}")
        return PairStats(*(getattr(stats, name) for name in PAIR_STATS_FIELDS))

    @property
    def event_fd(self) -> int:
        """Readable when ``next_event`` has something."""
        return int(self._native.lib.vnet_engine_event_fd(self._engine()))

    def next_event(self) -> RingBroken | PortGone | MemoryLost | None:
        """Take the next event, None when there is none."""
        event = self._native.ffi.new("struct vnet_event *")
        if not self._native.lib.vnet_engine_next_event(self._engine(), event):
            return None
        if event.kind == self._native.lib.VNET_EVENT_RING_BROKEN:
            return RingBroken(event.index, BreakReason(event.reason))
        if event.kind == self._native.lib.VNET_EVENT_MEMORY_LOST:
            return MemoryLost()
        return PortGone(event.index)

    def ctrl_pop(self) -> tuple[bytes, int] | None:
        """Take the next control command: readable bytes, number of writable bytes; None if none.

        Raises MalformedCommandError for a chain that was returned unread,
        DriverError if the control ring is broken, UsageError if it does not run
        or the last command is not completed yet.
        """
        result = self._native.lib.vnet_ctrl_pop(
            self._engine(),
            self._ctrl_buffer,
            len(self._ctrl_buffer),
            self._ctrl_len,
            self._ctrl_writable,
        )
        if result == 1:
            request = self._native.ffi.unpack(
                self._native.ffi.cast("char *", self._ctrl_buffer), self._ctrl_len[0]
            )
            return request, self._ctrl_writable[0]
        if result == -errno.EBADMSG:
            raise MalformedCommandError("a malformed control chain was returned")
        if result == -errno.EPIPE:
            raise DriverError("the control virtqueue is broken")
        if result < 0:
            reason = "waits for an answer" if result == -errno.EBUSY else "does not run"
            raise UsageError(f"the control virtqueue {reason}")
        return None

    def ctrl_complete(self, answer: bytes) -> None:
        """Write the answer of the command taken last and mark its chain used."""
        result = self._native.lib.vnet_ctrl_complete(self._engine(), answer, len(answer))
        if result < 0:
            raise UsageError("no control command waits for an answer")

    def _engine(self) -> Any:
        if self._cdata is None:
            raise HostError("the engine is closed", errno.ESHUTDOWN)
        return self._cdata

    def close(self) -> None:
        """Join the workers and release everything; harmless twice."""
        if self._cdata is not None:
            self._native.lib.vnet_engine_destroy(self._cdata)
            self._cdata = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
