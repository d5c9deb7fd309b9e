# SPDX-License-Identifier: MIT
"""Section D of docs/peer-faults.md, and of C what commands set: a command from ring to answer.

The device model is joined to an engine as the runtime does it: what is refused,
or cannot be applied, is answered ERR and leaves model and frame path as they were.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from pyvnet.datapath.policy import Policy
from pyvnet.device.device import DeviceSettings, VirtioNetDevice
from pyvnet.device.effects import SetPolicy
from pyvnet.device.settings import IMPLEMENTED
from pyvnet.errors import HostError
from pyvnet.spec.ctrl import Ack
from pyvnet.spec.features import Feature
from pyvnet.spec.ring import Desc
from pyvnet.spec.transport import QueueSetup
from tests.hostile.attack import NEXT, WRITE
from tests.hostile.forms import repeated, three_forms
from tests.hostile.rig import ALLOC, Rig, Ring, guarded

if TYPE_CHECKING:
    from pyvnet.device.state import DeviceState

FEATURES: Final = Feature(int(IMPLEMENTED)) & ~Feature.HASH_REPORT
U16 = struct.Struct("<H").pack
U32 = struct.Struct("<I").pack
U64 = struct.Struct("<Q").pack


class Case(NamedTuple):
    """A command in order, and the bytes at some place of it that make it a bad one."""

    good: bytes
    at: int
    bad: bytes


_MACS: Final = b"\1\0" + U32(1) + b"\2\0\0\0\0\7" + U32(1) + b"\1\0\x5e\0\0\1"
# The lane's frames are not IP: queue 1 is theirs.
_RSS: Final = b"\4\1" + struct.pack("<IHH2HHB40s", 0x3F, 1, 1, 0, 1, 2, 40, bytes(range(40)))

CASES: Final = {
    "as many station addresses as fit a word": Case(_MACS, 2, U32(0xFFFFFFFF)),
    "one station address too many": Case(_MACS, 2, U32(2)),
    "as many group addresses as fit a word": Case(_MACS, 12, U32(0xFFFFFFFF)),
    "a sum of counts that wraps": Case(_MACS, 2, U32(0xFFFFFFFF) + bytes(6) + U32(2)),
    "a group address for its own": Case(b"\1\1\2\0\0\0\0\x09", 2, b"\3"),
    "no VLAN id": Case(b"\2\0" + U16(7), 2, U16(4096)),
    "the largest VLAN id there is not": Case(b"\2\0" + U16(7), 2, U16(0xFFFF)),
    "more pairs than there are": Case(b"\4\0" + U16(2), 2, U16(3)),
    "the most pairs": Case(b"\4\0" + U16(2), 2, U16(0xFFFF)),
    "a queue that does not exist": Case(_RSS, 10, U16(2)),
    "a place for the rest that does not exist": Case(_RSS, 8, U16(0x8000)),
    "a mask that wraps": Case(_RSS, 6, U16(0xFFFF)),
    "a mask that is none": Case(_RSS, 6, U16(2)),
    "an offload nobody negotiated": Case(b"\5\0" + U64(1 << 1), 2, U64(1 << 46)),
    "an unknown command": Case(b"\0\0\1", 1, b"\x77"),
    "an unknown class": Case(b"\0\0\1", 0, b"\x77"),
}


class Joined:
    """A model whose control queue is a ring of the rig."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.index = 2 * rig.pairs
        self.device = VirtioNetDevice(
            DeviceSettings(rig.pairs, b"\2\0\0\0\0\1", IMPLEMENTED, mtu=1500)
        )
        self.device.commit(self.device.negotiate(int(FEATURES)))
        setup = QueueSetup(self.index, 8, 0, 0x1000, 0x2000)
        self.device.commit(self.device.start_queue(setup, enabled=True))
        self.device.commit(self.device.control(b"\4\0" + U16(rig.pairs), 1))
        self._set(SetPolicy(self.device.policy))
        self.ring = Ring(rig.arena, 8)
        self.head = 0

    def _set(self, effect: SetPolicy) -> None:
        with Policy.compile(effect.policy, self.rig.native) as policy:
            self.rig.engine.set_policy(policy)

    @property
    def state(self) -> DeviceState:
        """Without what only counts."""
        return replace(self.device.state, counters=None)  # type: ignore[arg-type]

    def command(self, data: bytes, *, flip: tuple[int, bytes] | None = None, fail: int = 0) -> int:
        """One command from the ring to its answer; the answer."""
        rig, ring = self.rig, self.ring
        request, answer = rig.arena.take(len(data)), rig.arena.take(1)
        rig.arena.poke(request, data)
        rig.arena.poke(answer, b"\xee")
        ring.put(0, Desc(request, len(data), NEXT, 1))
        ring.put(1, Desc(answer, 1, WRITE, 0))
        if flip is not None:
            rig.flip(request + flip[0], flip[1])
        ring.offer(0)
        popped = rig.engine.ctrl_pop()
        assert popped == (data, 1), "a command is what it was when it was read"
        assert flip is None or rig.reads == 1
        rig.fail(ALLOC, fail)
        rig.engine.ctrl_complete(self._execute(*popped))
        rig.disarm()
        return rig.arena.memory.read(answer, 1)[0]

    def _execute(self, request: bytes, writable: int) -> bytes:
        transition = self.device.control(request, writable)
        try:
            for effect in transition.effects:
                if isinstance(effect, SetPolicy):
                    self._set(effect)
        except HostError as error:
            transition = self.device.refuse(transition, str(error))
        self.device.commit(transition)
        return transition.answer or b""


def attempt(rig: Rig, case: Case, variant: str) -> None:
    """One case in one form."""
    bad = case.good[: case.at] + case.bad + case.good[case.at + len(case.bad) :]
    rig.arena.wipe()
    target = Joined(rig)
    rig.start(target.ring, target.index)
    rig.begin()
    before = target.state
    if variant == "flip":
        assert target.command(case.good, flip=(case.at, case.bad)) == Ack.OK
        twin = Joined(rig)
        twin.device.commit(twin.device.control(case.good, 1))
        assert target.state == twin.state, "what was read is what is carried out"
    else:
        if variant == "unwind" and SetPolicy in map(
            type, target.device.control(case.good, 1).effects
        ):
            assert target.command(case.good, fail=1) == Ack.ERR
            assert target.state == before
        assert target.command(bad) == Ack.ERR
        assert target.state == before
        assert target.command(case.good) == Ack.OK
    rig.expect_quiet(target.index)
    for lane in rig.lanes:
        lane.end()
    rig.engine.stop_queue(target.index)


@repeated
@three_forms
@pytest.mark.requirement(
    "CVE-2014-0150", "PF-D-04", "CVE-2024-6505", "PF-C-08", "PF-F-08", "OUR-CVQ-05"
)
def test_a_command_that_is_none(rig: Rig, variant: str, repeats: int) -> None:
    cases = list(CASES.items())
    for turn in range(repeats):
        name, case = cases[turn % len(cases)]
        with guarded():
            try:
                attempt(rig, case, variant)
            except AssertionError as error:
                error.add_note(name)
                raise
