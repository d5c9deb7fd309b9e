# SPDX-License-Identifier: MIT
"""The rings of a device as its driver knows them, and the engine's below.

Two things differ between the two.  The engine keeps the controlq behind all
pairs, whatever was negotiated.  And a ring that broke runs no more in the
engine, while the driver may still change it: such a change is nothing.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from pyvnet.errors import PyvnetError, UsageError
from pyvnet.spec.features import Feature

if TYPE_CHECKING:
    from pyvnet.datapath.engine import Engine, QueueState
    from pyvnet.device.queue import ActiveQueue
    from pyvnet.runtime.control import ControlQueue


class Rings:
    """Which rings of an engine run; ``control`` is told of the controlq."""

    def __init__(self, engine: Engine, control: ControlQueue) -> None:
        self._engine = engine
        self._control = control
        self._controlq: int | None = None
        self._running: set[int] = set()

    @property
    def running(self) -> tuple[int, ...]:
        """Indexes of the rings that were started and not stopped."""
        return tuple(sorted(self._running))

    @property
    def receiving(self) -> bool:
        """Whether any receiveq runs."""
        return any(index % 2 == 0 and index != self._controlq for index in self._running)

    def lay_out(self, controlq: int | None) -> None:
        """Which index is the controlq's in the negotiated layout; None: there is none."""
        self._controlq = controlq

    def index_of(self, engine_index: int) -> int:
        """The driver's index of a ring the engine speaks of."""
        if engine_index == 2 * self._engine.pairs and self._controlq is not None:
            return self._controlq
        return engine_index

    def _inner(self, index: int) -> int:
        return 2 * self._engine.pairs if index == self._controlq else index

    def start(self, queue: ActiveQueue, features: Feature, *, enabled: bool) -> None:
        """Start a ring that does not run; raises what ``Engine.start_queue`` does."""
        self._engine.start_queue(
            queue.setup(self._inner(queue.index)),
            event_idx=bool(features & Feature.EVENT_IDX),
            indirect=bool(features & Feature.INDIRECT_DESC),
            enabled=enabled,
        )
        self._running.add(queue.index)
        if queue.index == self._controlq:
            try:
                self._control.start(self._engine, queue.kick_fd, enabled=enabled)
            except PyvnetError:
                self.stop(queue.index)
                raise

    def stop(self, index: int) -> QueueState:
        """Stop a ring; returns where it stands.  Harmless twice."""
        if index == self._controlq:
            self._control.stop()
        self._running.discard(index)
        return self._engine.stop_queue(self._inner(index))

    def stop_all(self) -> dict[int, QueueState]:
        """Stop every ring; returns where they stand."""
        return {index: self.stop(index) for index in self.running}

    def enable(self, index: int, *, on: bool) -> None:
        """Let a running ring carry frames, or throw away what it is given (U-42)."""
        if index == self._controlq:
            self._control.enable(on=on)
        elif index in self._running:
            with _unless_broken():
                self._engine.enable_queue(index, on=on)

    def move(self, index: int, desc_table: int, avail_ring: int, used_ring: int) -> None:
        """Give a running ring other addresses; refused ones leave it where it is."""
        with _unless_broken():
            self._engine.move_queue(self._inner(index), desc_table, avail_ring, used_ring)

    def replace_kick(self, index: int, kick_fd: int) -> None:
        """Give a running ring another kick fd; -1: none."""
        if index == self._controlq:
            self._control.watch(kick_fd)
            return
        with _unless_broken():
            self._engine.set_kick(index, kick_fd)

    def replace_calls(self, index: int, call_fd: int, err_fd: int) -> None:
        """Give a running ring other call and err fds; -1: none."""
        with _unless_broken():
            self._engine.set_calls(self._inner(index), call_fd=call_fd, err_fd=err_fd)


def _unless_broken() -> contextlib.suppress:
    return contextlib.suppress(UsageError)
