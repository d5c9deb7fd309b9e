# SPDX-License-Identifier: MIT
"""The message sequences of front-ends in use, and what each step of them comes to.

Sources: QEMU's and DPDK's vhost-user front-ends, Linux' virtio_uml, crosvm's
vhost_user_frontend; docs/frontends.md says which were run.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from pyvnet.spec.features import Feature
from pyvnet.spec.vhost_user import (
    F_PROTOCOL_FEATURES,
    ConfigSpace,
    ProtocolFeature,
    RegionDescription,
    Request,
    VringAddress,
    VringState,
    pack_memory_table,
    pack_region,
    pack_u64,
)
from pyvnet.transport.vhost_user import actions
from tests.vhost_user.support import (
    CONTROLQ,
    GPA,
    OFFER,
    PAIRS,
    SIZE,
    UVA,
    Conversation,
    event_fd,
    memory_fd,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

RINGS = range(2 * PAIRS)
# MQ without CTRL_VQ: they keep the control queue to themselves.
OWN_CONTROLQ = int(Feature.VERSION_1 | Feature.MRG_RXBUF | Feature.MQ)
REGION = RegionDescription(GPA, SIZE, UVA, 0)


def running(front: Conversation) -> dict[int, bool]:
    """Ring → whether it carries frames, of those that run."""
    return {ring.index: bool(ring.enabled) for ring in front.state.in_order() if ring.running}


def begun_anew(front: Conversation) -> bool:
    """Whether what commands set was cleared since the last look."""
    return actions.BeginAnew() in front.took()


class Qemu:
    """hw/virtio/vhost-user.c and hw/net/vhost_net.c: one vhost device per pair, one socket."""

    PROTOCOL = int(
        ProtocolFeature.MQ
        | ProtocolFeature.REPLY_ACK
        | ProtocolFeature.NET_MTU
        | ProtocolFeature.BACKEND_REQ
        | ProtocolFeature.CONFIGURE_MEM_SLOTS
        | ProtocolFeature.RESET_DEVICE
        | ProtocolFeature.STATUS
    )

    def __init__(self, front: Conversation) -> None:
        self.front = front
        self.enabled = dict.fromkeys(range(PAIRS), False)

    def connect(self) -> None:
        front = self.front
        for pair in range(PAIRS):
            front.ask(Request.GET_FEATURES)
            front.ask(Request.GET_PROTOCOL_FEATURES)
            front.tell(Request.SET_PROTOCOL_FEATURES, self.PROTOCOL)
            if not pair:
                assert front.ask(Request.GET_QUEUE_NUM) == PAIRS
            theirs, ours = socket.socketpair()
            front.send(Request.SET_BACKEND_REQ_FD, b"", [ours.detach()])
            theirs.close()
            if not pair:
                front.ask(Request.GET_MAX_MEM_SLOTS)
                front.send(Request.SET_OWNER)
            front.ask(Request.GET_FEATURES)
            for index in (2 * pair, 2 * pair + 1):
                front.send(Request.SET_VRING_CALL, pack_u64(index), [event_fd()])
        self.use_pairs(1)

    def use_pairs(self, count: int) -> None:
        """The guest's VQ_PAIRS_SET, which QEMU turns into rings that are on or off."""
        for pair in range(PAIRS):
            self.enabled[pair] = pair < count
            self._enable(pair)

    def _enable(self, pair: int) -> None:
        for index in (2 * pair, 2 * pair + 1):
            self.front.enable(index, on=self.enabled[pair])

    def add_status(self, bits: int) -> None:
        status = self.front.ask(Request.GET_STATUS)
        if status & bits != bits:
            self.front.tell(Request.SET_STATUS, status | bits)

    def start(self, *, bases: Iterable[int] = (0,) * 2 * PAIRS, memory: bool = True) -> None:
        front, at = self.front, list(bases)
        for pair in range(PAIRS):
            if self.enabled[pair]:
                self._enable(pair)
            front.tell(Request.SET_FEATURES, OWN_CONTROLQ | F_PROTOCOL_FEATURES)
            self.add_status(8)
            if not pair and memory:
                assert front.send(
                    Request.ADD_MEM_REG, pack_region(REGION), [memory_fd()], need_reply=True
                ) == pack_u64(0)
            for index in (2 * pair, 2 * pair + 1):
                front.describe(index, base=at[index])
                front.kick(index)
                front.send(Request.SET_VRING_CALL, pack_u64(index), [event_fd()])
            if pair == PAIRS - 1:
                self.add_status(1 | 2 | 4)
        assert front.send(Request.NET_SET_MTU, pack_u64(1500), need_reply=True) == pack_u64(0)

    def stop(self, *, memory: bool = True) -> list[int]:
        front = self.front
        bases = [front.base(index) for index in RINGS]
        front.tell(Request.SET_STATUS, 0)
        if memory:
            front.send(Request.REM_MEM_REG, pack_region(REGION), need_reply=True)
        return bases


@pytest.mark.requirement("U-59", "U-60")
class TestQemu:
    def started(self, front: Conversation) -> Qemu:
        qemu = Qemu(front)
        qemu.connect()
        qemu.start()
        return qemu

    def test_start(self, front: Conversation) -> None:
        """Nothing runs before DRIVER_OK; the second pair runs, and throws away."""
        qemu = Qemu(front)
        qemu.connect()
        assert running(front) == {}
        qemu.start()
        assert running(front) == {0: True, 1: True, 2: False, 3: False}
        qemu.use_pairs(2)
        assert running(front) == dict.fromkeys(RINGS, True)
        qemu.use_pairs(1)
        assert running(front) == {0: True, 1: True, 2: False, 3: False}

    def test_features_between_live_rings_are_no_reset(self, front: Conversation) -> None:
        self.started(front)
        front.took()
        for _ in range(PAIRS):
            front.tell(Request.SET_FEATURES, OWN_CONTROLQ | F_PROTOCOL_FEATURES)
        assert front.took() == [actions.Negotiate(OWN_CONTROLQ)] * PAIRS
        assert running(front) == {0: True, 1: True, 2: False, 3: False}

    def test_pause_and_resume(self, front: Conversation) -> None:
        qemu = self.started(front)
        front.positions = {0: 300, 1: 20}
        bases = qemu.stop(memory=False)
        assert bases == [300, 20, 0, 0]
        assert running(front) == {}
        front.took()
        qemu.start(bases=bases, memory=False)
        assert not begun_anew(front)
        assert running(front) == {0: True, 1: True, 2: False, 3: False}
        assert front.state.ring(0).base == 300

    def test_a_guest_that_reboots(self, front: Conversation) -> None:
        qemu = self.started(front)
        front.positions = {0: 300, 1: 20}
        qemu.stop()
        front.send(Request.RESET_DEVICE)
        assert [front.base(index) for index in RINGS] == [0] * 4
        front.took()
        qemu.start()
        assert begun_anew(front)
        assert running(front) == {0: True, 1: True}  # a reset forgets what was disabled

    def test_a_guest_that_reboots_without_the_reset_message(self, front: Conversation) -> None:
        qemu = self.started(front)
        front.positions = {0: 300, 1: 20}
        qemu.stop()
        front.took()
        qemu.start()
        assert begun_anew(front)
        assert running(front) == {0: True, 1: True, 2: False, 3: False}

    def test_a_back_end_that_was_restarted(self) -> None:
        """``reconnect``: everything again, from where the used rings stand."""
        with Conversation() as front:
            qemu = Qemu(front)
            qemu.connect()
            qemu.use_pairs(2)
            front.took()
            qemu.start(bases=(256, 17, 256, 0))
            assert not begun_anew(front)
            assert running(front) == dict.fromkeys(RINGS, True)

    def test_memory_is_plugged_in_while_rings_run(self, front: Conversation) -> None:
        self.started(front)
        front.took()
        more = RegionDescription(GPA + SIZE, SIZE, UVA + SIZE, 0)
        front.send(Request.ADD_MEM_REG, pack_region(more), [memory_fd()], need_reply=True)
        front.send(Request.REM_MEM_REG, pack_region(more), need_reply=True)
        assert [len(a.regions) for a in front.took() if isinstance(a, actions.SetMemory)] == [2, 1]
        assert running(front)[0]


class VirtioUser:
    """drivers/net/virtio/virtio_user of DPDK: the driver is in the front-end."""

    PROTOCOL = int(ProtocolFeature.MQ | ProtocolFeature.REPLY_ACK | ProtocolFeature.STATUS)

    def __init__(self, front: Conversation) -> None:
        self.front = front

    def features(self) -> None:
        front = self.front
        front.ask(Request.GET_FEATURES)
        front.ask(Request.GET_PROTOCOL_FEATURES)
        front.tell(Request.SET_PROTOCOL_FEATURES, self.PROTOCOL)

    def status(self, value: int) -> None:
        answer = self.front.send(Request.SET_STATUS, pack_u64(value), need_reply=True)
        assert answer == pack_u64(0)

    def start(self, pairs: int = PAIRS) -> None:
        front = self.front
        for index in RINGS:
            front.send(Request.SET_VRING_CALL, pack_u64(index), [event_fd()])
        front.tell(Request.SET_FEATURES, OWN_CONTROLQ | F_PROTOCOL_FEATURES)
        self.status(11)
        assert front.ask(Request.GET_STATUS) == 11
        answer = front.send(
            Request.SET_MEM_TABLE, pack_memory_table((REGION,)), [memory_fd()], need_reply=True
        )
        assert answer == pack_u64(0)
        for index in RINGS:
            front.describe(index)
            front.kick(index)
        front.enable(0)
        front.enable(1)
        self.status(15)
        for index in range(2, 2 * pairs):
            front.enable(index)

    def stop(self) -> None:
        for index in RINGS:
            self.front.enable(index, on=False)
        for index in RINGS:
            self.front.base(index)


@pytest.mark.requirement("U-59", "U-60")
class TestVirtioUser:
    def test_start_and_stop(self, front: Conversation) -> None:
        user = VirtioUser(front)
        front.send(Request.SET_OWNER)
        user.features()
        user.start(pairs=1)
        # Of the second pair it said nothing yet: it neither runs nor is drained.
        assert running(front) == {0: True, 1: True}
        front.enable(2)
        front.enable(3)
        assert running(front) == dict.fromkeys(RINGS, True)
        user.stop()
        assert running(front) == {}
        assert front.state.suspended

    def test_start_again(self, front: Conversation) -> None:
        user = VirtioUser(front)
        user.features()
        user.start()
        front.positions = dict.fromkeys(RINGS, 99)
        user.stop()
        front.took()
        user.start()
        assert begun_anew(front)
        assert [front.state.ring(index).base for index in RINGS] == [0] * 4

    @pytest.mark.requirement("PF-A-12", "PF-F-10")
    def test_as_a_server_it_begins_with_the_stop_it_owes_another(self, front: Conversation) -> None:
        """It connects anew by resetting what it knows: rings this back-end never heard of."""
        user = VirtioUser(front)
        user.stop()
        user.features()
        user.start()
        assert running(front) == dict.fromkeys(RINGS, True)


class Uml:
    """arch/um/drivers/virtio_uml.c: every queue comes to us, and nothing says "reset"."""

    FEATURES = int(OFFER)

    def __init__(self, front: Conversation, rings: Iterable[int] = (*RINGS, CONTROLQ)) -> None:
        self.front = front
        self.rings = tuple(rings)
        front.need_reply = False

    def acknowledged(self, request: int, payload: bytes = b"", *fds: int) -> None:
        assert self.front.send(request, payload, fds, need_reply=True) == pack_u64(0)

    def probe(self) -> None:
        front = self.front
        front.send(Request.SET_OWNER, need_reply=True)  # not agreed yet: no answer
        front.ask(Request.GET_FEATURES)
        offered = front.ask(Request.GET_PROTOCOL_FEATURES)
        wanted = offered & int(
            ProtocolFeature.REPLY_ACK | ProtocolFeature.BACKEND_REQ | ProtocolFeature.CONFIG
        )
        self.acknowledged(Request.SET_PROTOCOL_FEATURES, pack_u64(wanted))
        theirs, ours = socket.socketpair()
        self.acknowledged(Request.SET_BACKEND_REQ_FD, b"", ours.detach())
        theirs.close()

    def insmod(self) -> None:
        front = self.front
        self.acknowledged(Request.SET_FEATURES, pack_u64(self.FEATURES | F_PROTOCOL_FEATURES))
        for size in (6, 8, 24):
            answer = front.send(Request.GET_CONFIG, ConfigSpace(0, size, 0, bytes(size)).pack())
            assert answer is not None
            assert len(ConfigSpace.unpack(answer).data) == size
        table = pack_memory_table((RegionDescription(GPA, SIZE, GPA, 0),))
        self.acknowledged(Request.SET_MEM_TABLE, table, memory_fd())
        for index in self.rings:
            call, theirs = socket.socketpair()
            self.acknowledged(Request.SET_VRING_CALL, pack_u64(index), call.detach())
            theirs.close()
            self.acknowledged(Request.SET_VRING_NUM, VringState(index, 256).pack())
            self.acknowledged(Request.SET_VRING_BASE, VringState(index, 0).pack())
            at = GPA + index * 0x4000
            address = VringAddress(index, 0, at, at + 0x2000, at + 0x1000, 2**64 - 1)
            self.acknowledged(Request.SET_VRING_ADDR, address.pack())
        for index in self.rings:
            self.acknowledged(Request.SET_VRING_KICK, pack_u64(index), os.eventfd(0))
            self.acknowledged(Request.SET_VRING_ENABLE, VringState(index, 1).pack())

    def rmmod(self) -> None:
        for index in reversed(self.rings):
            self.acknowledged(Request.SET_VRING_ENABLE, VringState(index, 0).pack())
        self.front.ask(Request.GET_FEATURES)


@pytest.mark.requirement("U-59", "U-61")
class TestUserModeLinux:
    def test_probe(self, front: Conversation) -> None:
        uml = Uml(front)
        uml.probe()
        front.took()
        uml.insmod()
        assert begun_anew(front)
        assert running(front) == dict.fromkeys(uml.rings, True)

    @pytest.mark.requirement("VIO-RST-02")
    def test_once_rmmod_has_read_the_features_nothing_is_touched(self, front: Conversation) -> None:
        """It frees its rings then: not even a disabled ring may be drained any more."""
        uml = Uml(front)
        uml.probe()
        uml.insmod()
        uml.rmmod()
        assert running(front) == {}

    def test_rmmod_and_insmod(self, front: Conversation) -> None:
        """Features after disabled rings: the only sign of a reset."""
        uml = Uml(front)
        uml.probe()
        uml.insmod()
        front.positions = {0: 256, CONTROLQ: 5}
        uml.rmmod()
        front.took()
        uml.insmod()
        assert begun_anew(front)
        assert running(front) == dict.fromkeys(uml.rings, True)
        assert front.state.ring(CONTROLQ).base == 0

    def test_another_driver_after_rmmod(self, front: Conversation) -> None:
        """One pair and other features; the control queue is ring 2 then."""
        uml = Uml(front)
        uml.probe()
        uml.insmod()
        uml.rmmod()
        plain = Uml(front, rings=(0, 1, 2))
        plain.FEATURES = int(Feature.VERSION_1 | Feature.CTRL_VQ)
        front.took()
        plain.insmod()
        assert begun_anew(front)
        assert running(front) == {0: True, 1: True, 2: True}


class Crosvm:
    """devices/src/virtio/vhost_user_frontend: ring after ring, the control queue last."""

    PROTOCOL = int(
        ProtocolFeature.CONFIG
        | ProtocolFeature.MQ
        | ProtocolFeature.BACKEND_REQ
        | ProtocolFeature.REPLY_ACK
    )

    def __init__(self, front: Conversation) -> None:
        self.front = front
        self.rings = (*RINGS, CONTROLQ)

    def connect(self) -> None:
        front = self.front
        front.send(Request.SET_OWNER)
        front.ask(Request.GET_FEATURES)
        front.ask(Request.GET_PROTOCOL_FEATURES)
        front.tell(Request.SET_PROTOCOL_FEATURES, self.PROTOCOL)
        theirs, ours = socket.socketpair()
        front.send(Request.SET_BACKEND_REQ_FD, b"", [ours.detach()])
        theirs.close()
        assert front.ask(Request.GET_QUEUE_NUM) == len(self.rings)

    def activate(self, bases: dict[int, int] | None = None) -> None:
        front = self.front
        front.tell(Request.SET_FEATURES, int(OFFER) | F_PROTOCOL_FEATURES)
        front.give_memory(REGION)
        for index in self.rings:
            front.describe(index, base=(bases or {}).get(index, 0))
            front.send(Request.SET_VRING_CALL, pack_u64(index), [event_fd()])
            front.kick(index)
            front.enable(index)

    def deactivate(self) -> dict[int, int]:
        bases = {}
        for index in self.rings:
            self.front.enable(index, on=False)
            bases[index] = self.front.base(index)
        return bases


@pytest.mark.requirement("U-47", "U-59")
class TestCrosvm:
    @pytest.fixture
    def crosvm(self) -> Iterable[Crosvm]:
        with Conversation(queue_num=2 * PAIRS + 1) as front:
            yield Crosvm(front)

    def test_activation(self, crosvm: Crosvm) -> None:
        crosvm.connect()
        crosvm.front.took()
        crosvm.activate()
        assert running(crosvm.front) == dict.fromkeys(crosvm.rings, True)
        # The control queue comes last: not before then is it known that the driver is new.
        *_, decision, last = crosvm.front.took()
        assert decision == actions.BeginAnew()
        assert isinstance(last, actions.StartRing)
        assert last.setup.index == CONTROLQ

    def test_sleep_and_wake(self, crosvm: Crosvm) -> None:
        crosvm.connect()
        crosvm.activate()
        crosvm.front.positions = {0: 30, 1: 4, CONTROLQ: 2}
        bases = crosvm.deactivate()
        assert running(crosvm.front) == {}
        crosvm.front.took()
        crosvm.activate(bases)
        assert not begun_anew(crosvm.front)
        assert running(crosvm.front) == dict.fromkeys(crosvm.rings, True)

    def test_reset(self, crosvm: Crosvm) -> None:
        crosvm.connect()
        crosvm.activate()
        crosvm.front.positions = {0: 30, 1: 4, CONTROLQ: 2}
        crosvm.deactivate()
        crosvm.front.took()
        crosvm.activate()
        assert begun_anew(crosvm.front)


@pytest.mark.requirement("U-59")
def test_a_front_end_that_resets_by_message_and_sets_no_positions(front: Conversation) -> None:
    """RESET_DEVICE leads to the initial state, the rings' positions included."""
    front.ready()
    front.start(0, 1, CONTROLQ)
    front.positions = {0: 8, 1: 8, CONTROLQ: 8}
    front.send(Request.RESET_DEVICE)
    front.tell(Request.SET_FEATURES, int(OFFER) | F_PROTOCOL_FEATURES)
    front.took()
    for index in (0, 1, CONTROLQ):
        front.kick(index)
        front.enable(index)
    starts = [action for action in front.took() if isinstance(action, actions.StartRing)]
    assert [(start.setup.avail_base, start.setup.used_base) for start in starts] == [(0, 0)] * 3
