# SPDX-License-Identifier: MIT
"""One device, its engine, its host port, and the order they go in.

Everything here runs in the event loop's thread.  The device model says what
should happen (effects), the engine does it; this module carries the one to the
other and owns the shutdown order:

    driver detached → control queue unwatched → capture ended → engine joined
    → nobody steers → host port closed
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Self

from pyvnet.datapath.engine import MemoryLost, PortGone, RingBroken
from pyvnet.datapath.memory import GuestMemory
from pyvnet.datapath.native import DEFAULT, Native
from pyvnet.device.device import (
    DEFAULT_OFFER,
    DeviceSettings,
    SteeringOwner,
    VirtioNetDevice,
)
from pyvnet.device.effects import (
    Activate,
    ConfigChanged,
    Deactivate,
    Effect,
    EnableQueue,
    SetPolicy,
    StartQueue,
    StopQueue,
)
from pyvnet.device.settings import random_mac
from pyvnet.driver.driver import Driver
from pyvnet.errors import DriverError, FrontendError, HostError, PyvnetError, UsageError
from pyvnet.runtime.captured import CapturedDevice
from pyvnet.runtime.control import ControlQueue
from pyvnet.runtime.notes import Notes
from pyvnet.runtime.owners import SteeringRequest
from pyvnet.runtime.parts import Parts, Plan
from pyvnet.spec.net_hdr import HDR_V1_SIZE
from pyvnet.transport.inproc import InProcessTransport

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyvnet.datapath.config import EngineConfig
    from pyvnet.device.queue import ActiveQueue, QueueFds
    from pyvnet.device.state import DeviceState
    from pyvnet.device.transition import ControlTransition, Transition
    from pyvnet.netdev import NetDevice
    from pyvnet.offload.base import SteeringProgram
    from pyvnet.spec.features import Feature
    from pyvnet.spec.transport import MemoryRegion, QueueSetup
    from pyvnet.transport.base import DeviceUser

_log = logging.getLogger("pyvnet")


class Device(CapturedDevice):
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
        engine_config: how they work: polling, io_uring, CPUs.
        steering: who steers frames to tap queues while the driver uses RSS: ``auto``,
            ``software``, ``ebpf`` or ``kernel-hash``; software where the host lacks it.
        steering_program: one of your own, attached from the start (``attach_steering_program``).
        bpf_fds: the device's steering program and its map, loaded by somebody with the
            right to; they stay yours.
        native: another build of the engine (tests).
        settings: other fields of ``DeviceSettings``: ``mtu``, ``speed``, ``compat``, …

    Raises UsageError for impossible combinations, HostError from ``__aenter__``.
    """

    def __init__(  # noqa: PLR0913 - one keyword per thing to decide
        self,
        *,
        netdev: NetDevice,
        queues: int | None = None,
        features: Feature = DEFAULT_OFFER,
        mac: bytes | None = None,
        workers: int | None = None,
        engine_config: EngineConfig | None = None,
        steering: str = "auto",
        steering_program: str | SteeringProgram | None = None,
        bpf_fds: tuple[int, ...] | None = None,
        native: Native = DEFAULT,
        **settings: Any,
    ) -> None:
        pairs = netdev.queues if queues is None else queues
        if pairs > native.lib.VNET_MAX_PAIRS:
            raise UsageError(f"{pairs} queue pairs; at most {native.lib.VNET_MAX_PAIRS}")
        if netdev.queues > pairs:
            raise UsageError(f"the host port has {netdev.queues} queues for {pairs} pairs")
        if unknown := settings.keys() - {setting.name for setting in fields(DeviceSettings)}:
            raise UsageError(f"a device has no option {', '.join(sorted(unknown))}")
        settings["compat"] = frozenset(settings.get("compat", ()))
        request = SteeringRequest(steering, steering_program, bpf_fds)
        super().__init__(
            Plan(netdev, pairs, workers, engine_config, request, native),
            VirtioNetDevice(DeviceSettings(pairs, mac or random_mac(), features, **settings)),
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._user: DeviceUser | None = None
        self._notes = Notes()
        self._control = ControlQueue(self._execute, self._malformed_command)

    # Life.

    async def __aenter__(self) -> Self:
        """Open the host port and start the workers."""
        self._loop = asyncio.get_running_loop()
        self._open = Parts.open(self._plan, self._control)
        self._loop.add_reader(self.engine.event_fd, self._on_engine_event)
        if self._plan.steering.program is not None:
            try:
                self.attach_steering_program(self._plan.steering.program)
            except PyvnetError:
                self.close()
                raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Stop everything, in order; harmless twice."""
        self.close()

    def close(self) -> None:
        """The shutdown order, in one place; harmless twice.

        A driver that is still there finds a device that was reset and does nothing any more.
        """
        self.detach(reset=True)
        self._control.stop()
        self._end_capture()
        if self._open is not None and self._loop is not None:
            self._loop.remove_reader(self.engine.event_fd)
            self.detach_steering_program()
            opened, self._open = self._open, None
            opened.close()

    # What users ask.

    def driver(self, **options: Any) -> Driver:
        """A driver in this process; ``options`` go to ``Driver``."""
        return Driver(InProcessTransport(self), **options)

    # What transports ask (transport/base.py).

    def attach(self, user: DeviceUser) -> None:
        """Take the device into use."""
        if self._user is not None:
            raise UsageError("the device has a driver already; close that one first")
        self._parts  # noqa: B018 - raises when not open
        self._user = user
        self._notes.clear()

    def detach(self, *, reset: bool) -> None:
        """Free the device for the next user."""
        if reset and self._user is not None and self._open is not None:
            self.perform(self._device.reset())
        self._user = None

    def perform(self, transition: Transition) -> None:
        """Apply a transition's effects, then commit it; a ring that cannot start needs a reset."""
        refused: list[int] = []
        try:
            for effect in transition.effects:
                refused += self._apply(effect)
        except PyvnetError:
            self._settle(transition)
            raise
        self._device.commit(transition)
        for index in refused:
            self.perform(self._device.ring_broken(index))

    def _settle(self, failed: Transition) -> None:
        """Some effect could not be applied: make engine and model agree again."""
        if any(isinstance(effect, Deactivate) for effect in failed.effects):
            self.perform(self._device.reset())
            return
        with contextlib.suppress(PyvnetError):
            self._apply(SetPolicy(self._device.policy))

    def set_memory(self, regions: Sequence[MemoryRegion]) -> None:
        """Swap the guest memory table under the running rings; none: let go of it."""
        if not regions:
            if self._open is not None:
                self.engine.clear_memory()
            return
        with GuestMemory(regions, self._plan.native) as memory:
            self.engine.set_memory(memory)

    def start_queue(self, setup: QueueSetup, *, enabled: bool = True) -> None:
        """Start a ring while others may run."""
        self.perform(self._device.start_queue(setup, enabled=enabled))

    def stop_queue(self, index: int) -> tuple[int, int]:
        """Stop a ring; returns where to resume it."""
        state = self._rings.stop(index)
        self.perform(self._device.stop_queue(index))
        return state.avail_base, state.used_base

    def enable_queue(self, index: int, *, enabled: bool) -> None:
        """Let a ring carry frames, or throw away what it is given."""
        self.perform(self._device.enable_queue(index, enabled=enabled))

    def move_queue(self, index: int, desc_table: int, avail_ring: int, used_ring: int) -> None:
        """Give a running ring other addresses."""
        self._rings.move(index, desc_table, avail_ring, used_ring)

    def replace_kick(self, index: int, kick_fd: int) -> None:
        """Give a running ring another kick fd."""
        self._rings.replace_kick(index, kick_fd)

    def replace_calls(self, index: int, call_fd: int, err_fd: int) -> None:
        """Give a running ring other call and err fds."""
        self._rings.replace_calls(index, call_fd, err_fd)

    def send_to_port(self, frame: bytes) -> None:
        """Send one frame to the host's side of the wire."""
        if self.netdev.kind == "null":
            return  # it swallows frames
        try:
            os.writev(self.netdev.fds[0], [bytes(HDR_V1_SIZE), frame])
        except OSError as error:
            raise HostError("cannot send a frame to the host port", error.errno) from error

    # What operators ask.

    def set_link(self, *, up: bool) -> None:
        """The cable is in, or out; a driver that knows of links is told (NET-LNK-01)."""
        self.perform(self._device.set_link(up=up))

    def announce(self) -> bool:
        """Ask the driver to announce its addresses; whether it is one that can (NET-ANN-02)."""
        transition = self._device.announce()
        self.perform(transition)
        return bool(transition.effects)

    def attach_steering_program(self, program: str | SteeringProgram) -> None:
        """A program of the operator's chooses tap queues; RSS_CONFIG is answered ERR (U-45).

        ``program`` is the path of an object, or something that loads one.  It stays until
        it is detached or the device closes.  Raises HostError, with EBUSY where
        RSS is active or such a program is attached; UsageError for what is no program.
        """
        transition = self._device.set_steering_owner(SteeringOwner.USER_PROGRAM)
        self.steering.attach_program(program)
        self.perform(transition)

    def detach_steering_program(self) -> None:
        """The kernel steers by itself again, and the driver may configure RSS."""
        self.steering.detach_program()
        self.perform(self._device.set_steering_owner(SteeringOwner.DEVICE))

    # State.

    def pause(self) -> DeviceState:
        """Stop the rings and return the whole device state, positions included."""
        states = self._rings.stop_all()
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

    def _apply(self, effect: Effect) -> list[int]:  # noqa: C901 - one arm per effect
        """Carry out one effect; returns virtqueues that could not be started."""
        match effect:
            case SetPolicy() if self._open is None:
                pass  # a driver lets go after the device was closed
            case SetPolicy(policy):
                self.steering.apply(policy, receiving=self._rings.receiving)
            case Activate(features, queues, controlq):
                self._rings.lay_out(controlq)
                return [queue.index for queue in queues if not self._try_start(queue, features)]
            case Deactivate():
                if self._open is not None:
                    self._rings.stop_all()
            case StartQueue(queue, features, controlq, enabled):
                self._rings.lay_out(controlq)
                self._rings.start(queue, features, enabled=enabled)
            case StopQueue(index):
                self._rings.stop(index)
            case EnableQueue(index, enabled):
                self._rings.enable(index, on=enabled)
            case ConfigChanged():
                if self._user is not None:
                    self._user.config_changed()
        return []

    def _try_start(self, queue: ActiveQueue, features: Feature) -> bool:
        try:
            self._rings.start(queue, features, enabled=queue.enabled)
        except (DriverError, FrontendError, HostError) as error:
            self._notes.note(logging.WARNING, "virtqueue %d does not start: %s", queue.index, error)
            return False
        return True

    # Control commands.

    def _execute(self, request: bytes, writable: int) -> bytes:
        transition: ControlTransition = self._device.control(request, writable)
        try:
            for effect in transition.effects:
                self._apply(effect)
        except HostError as error:
            # The engine kept its old policy, so nothing is to be undone.
            transition = self._device.refuse(transition, str(error))
        self._device.commit(transition)
        if transition.note:
            self._notes.note(logging.INFO, "control: %s", transition.note)
        return transition.answer or b""

    def _malformed_command(self) -> None:
        self.perform(self._device.control(b"", 0))

    # Events of the engine.

    def _on_engine_event(self) -> None:
        while self._open is not None and (event := self.engine.next_event()) is not None:
            match event:
                case RingBroken(index, reason):
                    ring = self._rings.index_of(index)
                    if ring in self._rings.running:
                        self._notes.note(
                            logging.WARNING, "virtqueue %d broke: %s", ring, reason.name
                        )
                    self.perform(self._device.ring_broken(ring))
                case MemoryLost():
                    if self._user is not None:
                        self._user.memory_lost()
                case PortGone(queue):
                    _log.warning("host port queue %d is gone", queue)
