# SPDX-License-Identifier: MIT
"""The composition root: one device, its engine, its host port, and the order they go in.

Everything here runs in the event loop's thread.  The device model says what
should happen (effects), the engine does it; this module carries the one to the
other, keeps the control virtqueue going, and owns the shutdown order:

    driver detached → control queue unwatched → engine joined → host port closed
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from pyvnet.datapath.engine import Engine, MalformedCommandError, QueueState, RingBroken
from pyvnet.datapath.memory import GuestMemory
from pyvnet.datapath.native import DEFAULT, Native
from pyvnet.datapath.policy import Policy
from pyvnet.datapath.stats import PairStats
from pyvnet.device.device import DEFAULT_OFFER, DeviceSettings, VirtioNetDevice
from pyvnet.device.effects import (
    Activate,
    ConfigChanged,
    Deactivate,
    Effect,
    SetPolicy,
    StartQueue,
    StopQueue,
)
from pyvnet.device.settings import DEFAULT_QUEUE_SIZE
from pyvnet.driver.driver import Driver
from pyvnet.errors import DriverError, HostError, UsageError
from pyvnet.spec.features import Feature
from pyvnet.spec.transport import QueueSetup
from pyvnet.transport.inproc import InProcessTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pyvnet.device.queue import ActiveQueue, QueueFds
    from pyvnet.device.state import DeviceState
    from pyvnet.device.transition import ControlTransition, Transition
    from pyvnet.netdev import NetDevice
    from pyvnet.spec.transport import MemoryRegion

_log = logging.getLogger("pyvnet")

# Control commands carried out in one go, before other callbacks of the loop have their turn.
_CTRL_BURST = 16


class Device:
    """A virtio-net device on a host port.

    ::

        async with pyvnet.Device(netdev=pyvnet.Tap("vnet0", queues=4)) as device:
            async with device.driver() as driver:
                ...

    Args:
        netdev: the host port; opened and closed by the device.
        queues: queue pairs offered; default: as many as the host port has queues.
        features: what to offer; default: everything this version can do.
        mac: 6 bytes; default: a random locally administered address.
        workers: threads; default: one per queue pair.
        compat: names of ``DeviceSettings.compat``.
        max_queue_size: largest ring taken, in descriptors.
        native: another build of the engine (tests).

    Raises UsageError for impossible combinations, HostError from ``__aenter__``.
    """

    def __init__(
        self,
        *,
        netdev: NetDevice,
        queues: int | None = None,
        features: Feature = DEFAULT_OFFER,
        mac: bytes | None = None,
        workers: int | None = None,
        compat: Iterable[str] = (),
        max_queue_size: int = DEFAULT_QUEUE_SIZE,
        native: Native = DEFAULT,
    ) -> None:
        self._netdev = netdev
        self._native = native
        self._workers = workers
        self._pairs = netdev.queues if queues is None else queues
        if self._pairs > native.lib.VNET_MAX_PAIRS:
            raise UsageError(f"{self._pairs} queue pairs; at most {native.lib.VNET_MAX_PAIRS}")
        if netdev.queues > self._pairs:
            raise UsageError(f"the host port has {netdev.queues} queues for {self._pairs} pairs")
        self._device = VirtioNetDevice(
            DeviceSettings(
                max_virtqueue_pairs=self._pairs,
                mac=mac or _random_mac(),
                offered=features,
                compat=frozenset(compat),
                max_queue_size=max_queue_size,
            )
        )
        self._engine: Engine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._notify_config: Callable[[], None] | None = None
        self._controlq: int | None = None  # its index in the layout of the rings that run
        self._ctrl_kick = -1
        self._running: set[int] = set()

    # Life.

    async def __aenter__(self) -> Self:
        """Open the host port and start the workers."""
        self._loop = asyncio.get_running_loop()
        self._netdev.open()
        try:
            self._engine = Engine(
                pairs=self._pairs,
                port_type=self._netdev.kind,
                port_fds=self._netdev.fds,
                workers=self._workers,
                native=self._native,
            )
        except BaseException:
            self._netdev.close()
            raise
        self._loop.add_reader(self._engine.event_fd, self._on_engine_event)
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Stop everything, in order; harmless twice."""
        self.close()

    def close(self) -> None:
        """The shutdown order, in one place; harmless twice.

        A driver that is still there finds a device that was reset and does nothing any more.
        """
        self.detach()
        self._unwatch_ctrl()
        if self._engine is not None and self._loop is not None:
            self._loop.remove_reader(self._engine.event_fd)
            self._engine.close()
            self._engine = None
            self._netdev.close()

    @property
    def engine(self) -> Engine:
        """The data plane; raises UsageError outside ``async with``."""
        if self._engine is None:
            raise UsageError("the device is not open: use it in `async with`")
        return self._engine

    @property
    def device(self) -> VirtioNetDevice:
        """The device model."""
        return self._device

    @property
    def netdev(self) -> NetDevice:
        """The host port."""
        return self._netdev

    # What users ask.

    def driver(self, **options: Any) -> Driver:
        """A driver in this process; ``options`` go to ``Driver``."""
        return Driver(InProcessTransport(self), **options)

    def statistics(self, pair: int | None = None) -> PairStats:
        """Counters of one queue pair, or of all together."""
        if pair is not None:
            return self.engine.statistics(pair)
        return sum((self.engine.statistics(i) for i in range(self._pairs)), PairStats())

    @property
    def steering_owner(self) -> str:
        """Who chooses the receive queue: ``kernel-auto`` or ``software``."""
        return "software" if self._device.policy.mode == "rss" else "kernel-auto"

    # What transports ask (transport/base.py).

    def attach(self, notify_config: Callable[[], None]) -> None:
        """Take the device for one driver."""
        if self._notify_config is not None:
            raise UsageError("the device has a driver already; close that one first")
        self.engine  # noqa: B018 - raises when not open
        self._notify_config = notify_config

    def detach(self) -> None:
        """Reset the device and free it for the next driver."""
        if self._notify_config is not None and self._engine is not None:
            self.perform(self._device.reset())
        self._notify_config = None

    def perform(self, transition: Transition) -> None:
        """Apply a transition's effects, then commit it; a ring that cannot start needs a reset."""
        refused = [index for effect in transition.effects for index in self._apply(effect)]
        self._device.commit(transition)
        for index in refused:
            self.perform(self._device.ring_broken(index))

    def set_memory(self, regions: Sequence[MemoryRegion]) -> None:
        """Swap the guest memory table under the running rings."""
        with GuestMemory(regions, self._native) as memory:
            self.engine.set_memory(memory)

    def start_queue(self, setup: QueueSetup) -> None:
        """Start a ring that was stopped."""
        features = self._device.features
        self._start(setup, features)

    def stop_queue(self, index: int) -> tuple[int, int]:
        """Stop a ring; returns where to resume it."""
        state = self._stop(index)
        return state.avail_base, state.used_base

    # State.

    def pause(self) -> DeviceState:
        """Stop the rings and return the whole device state, positions included."""
        states = {index: self._stop(index) for index in sorted(self._running)}
        positions = {index: (s.avail_base, s.used_base) for index, s in states.items()}
        self.perform(self._device.record_queue_positions(positions))
        return self._device.state

    def restore(self, state: DeviceState, fds: Mapping[int, QueueFds] | None = None) -> None:
        """Put a state back, taken from this device or one like it; its rings run on.

        Set the memory first.  Raises StateError (a UsageError) before anything
        changed if this device cannot be in that state.
        """
        self.perform(self._device.restore(state, fds))

    # Effects.

    def _apply(self, effect: Effect) -> list[int]:
        """Carry out one effect; returns virtqueues that could not be started."""
        match effect:
            case SetPolicy() if self._engine is None:
                pass  # a driver lets go after the device was closed
            case SetPolicy(policy):
                with Policy.compile(policy, self._native) as compiled:
                    self.engine.set_policy(compiled)
            case Activate(features, queues, controlq):
                self._controlq = controlq
                return [queue.index for queue in queues if not self._try_start(queue, features)]
            case Deactivate():
                self._stop_running(set(self._running))
            case StartQueue(queue, features, controlq):
                self._controlq = controlq
                return [] if self._try_start(queue, features) else [queue.index]
            case StopQueue(index):
                self._stop_running({index})
            case ConfigChanged():
                if self._notify_config is not None:
                    self._notify_config()
        return []

    def _try_start(self, queue: ActiveQueue, features: Feature) -> bool:
        try:
            self._start(
                QueueSetup(
                    queue.index,
                    queue.size,
                    queue.desc_table,
                    queue.avail_ring,
                    queue.used_ring,
                    queue.kick_fd,
                    queue.call_fd,
                    queue.err_fd,
                    queue.avail_base,
                    queue.used_base,
                ),
                features,
            )
        except (DriverError, HostError) as error:
            _log.warning("virtqueue %d does not start: %s", queue.index, error)
            return False
        return True

    def _start(self, setup: QueueSetup, features: Feature) -> None:
        self.engine.start_queue(
            replace(setup, index=self._engine_index(setup.index)),
            event_idx=bool(features & Feature.EVENT_IDX),
            indirect=bool(features & Feature.INDIRECT_DESC),
        )
        self._running.add(setup.index)
        if setup.index == self._controlq:
            self._watch_ctrl(setup.kick_fd)

    def _stop(self, index: int) -> QueueState:
        if index == self._controlq:
            self._unwatch_ctrl()
        self._running.discard(index)
        return self.engine.stop_queue(self._engine_index(index))

    def _stop_running(self, indexes: set[int]) -> None:
        for index in sorted(indexes & self._running):
            self._stop(index)

    def _engine_index(self, index: int) -> int:
        """The engine keeps the controlq behind all pairs, whatever was negotiated."""
        return 2 * self._pairs if index == self._controlq else index

    # The control virtqueue.

    def _watch_ctrl(self, kick_fd: int) -> None:
        self._unwatch_ctrl()
        if kick_fd < 0 or self._loop is None:
            return
        # Our own copy: the driver may close its fd before it resets the device.
        self._ctrl_kick = os.dup(kick_fd)
        self._loop.add_reader(self._ctrl_kick, self._on_ctrl_kick)
        self._loop.call_soon(self._run_ctrl, self._ctrl_kick)  # commands from before the start

    def _unwatch_ctrl(self) -> None:
        if self._ctrl_kick >= 0 and self._loop is not None:
            self._loop.remove_reader(self._ctrl_kick)
            os.close(self._ctrl_kick)
        self._ctrl_kick = -1

    def _on_ctrl_kick(self) -> None:
        try:
            os.read(self._ctrl_kick, 8)
        except BlockingIOError:
            return
        self._run_ctrl(self._ctrl_kick)

    def _run_ctrl(self, kick: int) -> None:
        """Execute commands one at a time, in order; each is answered before the next is read."""
        for _ in range(_CTRL_BURST):
            if kick != self._ctrl_kick or kick < 0:
                return  # stopped meanwhile
            try:
                command = self.engine.ctrl_pop()
            except MalformedCommandError:
                self.perform(self._device.control(b"", 0))  # counted; it has been returned
                continue
            except DriverError as error:
                _log.warning("%s", error)
                return
            if command is None:
                return
            self._execute(*command)
        if self._loop is not None:
            self._loop.call_soon(self._run_ctrl, kick)

    def _execute(self, request: bytes, writable: int) -> None:
        transition: ControlTransition = self._device.control(request, writable)
        try:
            for effect in transition.effects:
                self._apply(effect)
        except HostError as error:
            # The engine kept its old policy, so nothing is to be undone.
            transition = self._device.refuse(transition, str(error))
        self._device.commit(transition)
        if transition.note:
            _log.info("control: %s", transition.note)
        self.engine.ctrl_complete(transition.answer or b"")

    # Events of the engine.

    def _on_engine_event(self) -> None:
        while (event := self.engine.next_event()) is not None:
            if isinstance(event, RingBroken):
                index = event.index
                if index == 2 * self._pairs and self._controlq is not None:
                    index = self._controlq
                _log.warning("virtqueue %d broke: %s", index, event.reason.name)
                self.perform(self._device.ring_broken(index))
            else:
                _log.warning("host port queue %d is gone", event.queue)


def _random_mac() -> bytes:
    """Locally administered unicast."""
    mac = bytearray(secrets.token_bytes(6))
    mac[0] = mac[0] & 0xFC | 0x02
    return bytes(mac)
