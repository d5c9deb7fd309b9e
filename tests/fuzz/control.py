# SPDX-License-Identifier: MIT
"""Fuzz target: the control queue of all classes, in any negotiated state.

Invariant: any readable bytes and writable size have an outcome; a refused
command changes nothing but counters; and what a command leads to is a state the
device accepts, survives a round trip, and comes to a policy the frame path takes.

An input chooses a device and a feature set, and is then a list of steps, each
begun by a byte that says whether something else than a command comes first.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from pyvnet.datapath.policy import Policy
from pyvnet.device.counters import Counters
from pyvnet.device.device import DeviceSettings, SteeringOwner, VirtioNetDevice
from pyvnet.device.effects import SetPolicy
from pyvnet.device.settings import COMPAT_SWITCHES, IMPLEMENTED
from pyvnet.device.state import DeviceState
from pyvnet.errors import FrontendError, HostError
from pyvnet.spec.ctrl import Ack
from pyvnet.spec.features import Feature, missing_dependencies
from pyvnet.spec.transport import QueueSetup
from tests.fuzz.reader import Reader

if TYPE_CHECKING:
    from pyvnet.device.transition import ControlTransition, Transition

MAC: Final = b"\x02\0\0\0\0\x01"
SWITCHES: Final = tuple(sorted(COMPAT_SWITCHES))
PAIRS: Final = (1, 2, 3, 8, 127, 256)


def _device(reader: Reader) -> VirtioNetDevice:
    choice = reader.byte()
    compat = {name for bit, name in enumerate(SWITCHES) if choice >> bit & 1}
    return VirtioNetDevice(
        DeviceSettings(
            max_virtqueue_pairs=PAIRS[reader.byte() % len(PAIRS)],
            mac=MAC,
            offered=IMPLEMENTED,
            compat=frozenset(compat),
            mtu=1500,
            max_macs=4096 if choice & 0x80 else 3,
        )
    )


def _features(reader: Reader) -> Feature:
    """Some of those offered, without what depends on one that is left out."""
    wanted = Feature(~reader.long() & int(IMPLEMENTED)) | Feature.VERSION_1
    while lacking := missing_dependencies(wanted):
        for bit in lacking:
            wanted &= ~bit
    return wanted


def _perform(device: VirtioNetDevice, transition: Transition | ControlTransition) -> None:
    before = device.policy
    for effect in transition.effects:
        if isinstance(effect, SetPolicy) and effect.policy != before:
            Policy.compile(effect.policy).close()
    device.commit(transition)


def _step(device: VirtioNetDevice, reader: Reader) -> None:
    head = reader.byte()
    match head & 0x0F:
        case 1:
            _perform(device, device.announce())
        case 2:
            _perform(device, device.set_link(up=bool(head & 0x80)))
        case 3:
            _perform(device, device.begin_anew())
        case 4:
            owner = SteeringOwner.USER_PROGRAM if head & 0x80 else SteeringOwner.DEVICE
            with suppress(HostError):
                _perform(device, device.set_steering_owner(owner))
        case 5:
            with suppress(FrontendError):
                _perform(device, device.set_frontend_mtu(reader.word()))
        case 6:
            _perform(device, device.enable_queue(head >> 4 & 7, enabled=bool(head & 0x80)))
    writable, request = reader.byte(), reader.take(reader.word())
    _command(device, request, writable)


def _command(device: VirtioNetDevice, request: bytes, writable: int) -> None:
    before = device.state
    transition = device.control(request, writable)
    _perform(device, transition)
    after = device.state
    assert transition.answer in {None, b"", bytes([Ack.OK]), bytes([Ack.ERR])}
    assert len(transition.answer or b"") <= writable
    if transition.answer != bytes([Ack.OK]):
        assert replace(after, counters=before.counters) == before, "a refused command changed it"
        assert not transition.effects
    elif after.control != before.control:
        after.check(device.settings)
        _round_trip(after)


def _round_trip(state: DeviceState) -> None:
    again = DeviceState.from_dict(state.to_dict())
    assert replace(again, host=state.host) == state
    assert isinstance(again.counters, Counters)


def check(data: bytes) -> None:
    """Run one input; raises AssertionError, or anything unforeseen, when the invariant fails."""
    reader = Reader(data)
    device = _device(reader)
    _perform(device, device.negotiate(int(_features(reader))))
    controlq = device.controlq_index
    for index in {0, 1, 2, 3, controlq if controlq is not None else 0}:
        if index < device.queue_count:
            setup = QueueSetup(index, 8, 0x10000 * index, 0x10000 * index + 0x4000, 0x8000)
            _perform(device, device.start_queue(setup, enabled=True))
    while reader.more:
        _step(device, reader)
