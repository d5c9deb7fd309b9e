# SPDX-License-Identifier: MIT
"""Starting, stopping, starving and running out (docs/peer-faults.md, sections D and F)."""

from __future__ import annotations

import errno
import os
import resource
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyvnet.datapath.engine import BreakReason, Engine
from pyvnet.datapath.memory import GuestMemory
from pyvnet.errors import HostError, UsageError
from pyvnet.netdev import Pair
from pyvnet.spec.ring import Desc
from pyvnet.spec.rss import HashType
from tests.device.support import commit, new_policy, rss, running, send, vq_pairs
from tests.hostile import rig as rigs
from tests.hostile.attack import FRAME, ROLES, TX, WRITE, Attack
from tests.hostile.forms import repeated, three_forms
from tests.hostile.rig import HDR, UNMAPPED, Rig, Ring, expect_held, frame, guarded, held

if TYPE_CHECKING:
    from pyvnet.datapath.native import Native

RECEIVEQ, TRANSMITQ = 0, 1
BUFFER = 100


def receive_ring(rig: Rig, size: int = 8) -> tuple[Ring, list[int]]:
    rig.arena.wipe()
    return receive_ring_beside(rig, size)


def receive_ring_beside(rig: Rig, size: int = 8) -> tuple[Ring, list[int]]:
    """Behind what was taken of the arena."""
    ring = Ring(rig.arena, size)
    gpas = [rig.arena.take(BUFFER) for _ in range(size)]
    for i, gpa in enumerate(gpas):
        ring.put(i, Desc(gpa, BUFFER, WRITE, 0))
    return ring, gpas


@pytest.mark.parametrize("site", [rigs.ALLOC, rigs.MMAP, rigs.FD, rigs.EPOLL, rigs.THREAD])
@pytest.mark.requirement("PF-F-08", "CVE-2020-10717")
def test_an_engine_is_made_whole_or_not_at_all(rig: Rig, site: int) -> None:
    """Whatever is not to be had, and however late: an error, and nothing is left."""
    with Pair(3) as port:
        before = held()
        for countdown in range(1, 200):
            rig.fail(site, countdown)
            with guarded(), suppress(HostError):
                engine = Engine(
                    pairs=3, workers=2, port_type="pair", port_fds=port.fds, native=rig.native
                )
                break
            os.fstat(0)  # descriptors of others are still open
            expect_held(before)
            rig.begin()
            rig.arena.freeze()
            rig.end()
        rig.disarm()
        for queue in range(3):
            port.wire(queue).send(FRAME)
        with Rig(rig.native, neighbour=False):
            pass  # another engine starts and ends meanwhile
        for queue in (0, 1, 0, 1):
            engine.queue_state(2 * queue)
        heard = [engine.statistics(queue).rx_drop_queue_off for queue in range(3)]
        engine.close()
        assert countdown > 1
        assert heard[0] == 1, "a deaf engine"
        expect_held(before)


@three_forms
@pytest.mark.requirement("CVE-2020-10717")
def test_descriptors_run_out_at_the_start_not_later(hooked: Native, variant: str) -> None:
    """RLIMIT_NOFILE at need-1 is a clear error, at need all works, whatever comes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Rig(hooked) as rig, Pair(1) as port:
        free = [fd for fd in range(3, 1024) if not Path(f"/proc/self/fd/{fd}").exists()]

        def make() -> Engine:
            return Engine(pairs=1, port_type="pair", port_fds=port.fds, native=hooked)

        before = held()
        # Event fd, host port, epoll, wake fd.
        for need in range(4):
            resource.setrlimit(resource.RLIMIT_NOFILE, (free[need], hard))
            try:
                with pytest.raises(HostError) as caught:
                    make()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert caught.value.errno == errno.EMFILE
            expect_held(before)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free[3] + 1, hard))
        try:
            with make() as engine:
                # Nothing that frames do needs another descriptor.
                rig.begin()
                port.wire(0).send(FRAME)
                for _ in range(2):
                    engine.queue_state(0)
                assert engine.statistics(0).rx_port_frames == 1
                if variant != "static":
                    ring = Ring(rig.arena)
                    with GuestMemory(rig.arena.regions, hooked) as table:
                        engine.set_memory(table)
                    setup = ring.setup(0, rig.kick, rig.call, rig.err)
                    with pytest.raises(HostError):
                        engine.start_queue(setup, event_idx=False, indirect=variant == "flip")
                rig.arena.freeze()
                rig.end()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        expect_held(before)


@repeated
@three_forms
@pytest.mark.requirement("PF-F-07", "PF-F-08")
def test_rings_come_and_go(rig: Rig, variant: str, repeats: int) -> None:
    """No start or stop, good or failed, leaves a descriptor behind, and the next one works."""
    before = held()
    for turn in range(repeats):
        with guarded():
            attack = Attack(rig, TX if variant == "flip" else ROLES[turn % 3])
            if variant == "unwind":
                for step in range(6):
                    attack.fail_start(step)
            rig.begin()
            attack.start()
            if variant == "flip":
                # Stopped while its chain is on the way, or before, or after.
                attack.ring.offer(0)
                rig.notify()
            rig.arena.freeze()
            state = rig.engine.stop_queue(attack.index)
            assert state.avail_base == state.used_base
            sent = len(rig.received())
            assert [sent] * 2 == [state.used_base, len(attack.ring.taken())]
            assert rig.engine.stop_queue(attack.index).avail_base == state.avail_base
            rig.notify()
            rig.settle()
            assert rig.received() == []
            rig.end(attack.ring.used_area)
    expect_held(before)


@pytest.mark.requirement("CVE-2020-16843", "NET-MQ-07")
def test_a_port_is_read_on_when_its_waiting_ring_loses_its_memory(rig: Rig) -> None:
    """The frame it held, and those behind, go where the steering still leads."""
    ring, _ = receive_ring(rig)
    rig.start(ring, RECEIVEQ)
    rig.wire.send(FRAME)
    rig.settle()
    with GuestMemory(rig.arena.regions[1:], rig.native) as lanes_only:
        rig.engine.set_memory(lanes_only)
    rig.expect_broken(RECEIVEQ, BreakReason.RING_ADDRESS)
    rig.wire.send(FRAME)
    rig.settle(0, 1, 0, 1)
    assert rig.engine.statistics(1).rx_packets == 2
    rig.engine.stop_queue(RECEIVEQ)
    rig.engine.set_memory(rig.table)


# --- starving ------------------------------------------------------------------------


@repeated
@three_forms
@pytest.mark.parametrize("event_idx", [False, True])
@pytest.mark.requirement("CVE-2020-16843", "U-43")
def test_a_flood_against_a_driver_that_stalls(
    rig: Rig, event_idx: bool, variant: str, repeats: int
) -> None:
    """Port and ring full at the same time; whenever buffers come, the traffic goes on, in order."""
    ring, gpas = receive_ring(rig)
    rig.start(ring, RECEIVEQ, event_idx=event_idx)
    sent = got = 0
    for turn in range(repeats):
        with guarded():
            rig.begin()
            with suppress(BlockingIOError):
                while True:  # until the wire takes no more
                    rig.wire.send(frame(sent))
                    sent += 1
            if variant == "unwind":
                rig.fail(rigs.MMAP, 1 + turn % 3)
                with pytest.raises(HostError):
                    GuestMemory(rig.arena.regions, rig.native)
                rig.disarm()
            for head in range(8):
                if variant == "flip":
                    rig.arena.store16(ring.entry(got + head), head)
                else:
                    ring.offer(head)
            if variant == "flip":
                # The index moves as the engine looks at it, or when it looks again.
                rig.arena.store16(ring.avail_idx, got + 1)
                rig.flip(
                    ring.avail_idx, ((got + 8) & 0xFFFF).to_bytes(2, "little"), read=1 + turn % 2
                )
            rig.notify()
            rig.settle()
            rig.arena.store16(ring.avail_idx, got + 8)
            rig.notify()
            rig.settle()
            assert rig.arena.load16(ring.used + 2) == (got + 8) & 0xFFFF
            for i, gpa in enumerate(gpas):
                assert rig.arena.memory.read(gpa + HDR, 60) == frame(got + i)
            got += 8
            rig.expect_quiet(RECEIVEQ)
            rig.disarm()
            rig.arena.freeze()
            rig.end()
    rig.engine.stop_queue(RECEIVEQ)


@repeated
@three_forms
@pytest.mark.parametrize("event_idx", [False, True])
@pytest.mark.requirement("PF-F-02")
def test_buffers_that_come_between_check_and_sleep(
    rig: Rig, event_idx: bool, variant: str, repeats: int
) -> None:
    """After the first look: the second one sees them.  After that: a kick was asked for."""
    for turn in range(repeats):
        look = 1 + turn % 2 if variant == "flip" else 2
        transmit = bool(turn // 2 % 2)
        index = TRANSMITQ if transmit else RECEIVEQ
        with guarded():
            ring, gpas = receive_ring(rig)
            if transmit:
                rig.arena.memory.write(gpas[0], bytes(HDR) + FRAME)
                ring.put(0, Desc(gpas[0], HDR + len(FRAME), 0, 0))
            if not transmit:
                rig.start(ring, index, event_idx=event_idx)
            rig.begin()
            if variant == "flip":
                rig.flip(ring.avail_idx, b"\x01\0", read=look)
            if transmit:  # a ring that starts is looked at
                rig.start(ring, index, event_idx=event_idx)
            else:
                rig.wire.send(FRAME)
            rig.settle()
            if variant == "unwind":
                rig.fail(rigs.ALLOC, 1)
                with pytest.raises(HostError):
                    rig.set_policy()
                rig.disarm()
            if variant != "flip":
                assert ring.taken() == []
                ring.offer(0)
            if look == 2:
                asked = ring.used + 4 + 8 * ring.size
                wanted = (
                    rig.arena.load16(asked) == 0 if event_idx else not rig.arena.load16(ring.used)
                )
                assert wanted, "the driver was not asked to kick"
                rig.notify()
                rig.settle()
            rig.disarm()
            assert ring.taken() == [(0, 0 if transmit else HDR + len(FRAME))]
            assert rig.received() == [FRAME] * transmit
            rig.arena.freeze()
            rig.engine.stop_queue(index)
            rig.end()


@three_forms
@pytest.mark.requirement("CVE-2019-3900")
def test_a_ring_that_is_never_empty_leaves_the_others_their_turn(
    hooked: Native, variant: str
) -> None:
    """One worker, four pairs, one port queue: 4096 chains on one ring, one on each other.

    All are there before the only kick, so the order on the wire is that of the turns.
    """
    with Rig(hooked, pairs=4, workers=1, port_queues=1) as rig:
        rig.arena.wipe()
        rings = [Ring(rig.arena, 4096 if pair == 0 else 8) for pair in range(4)]
        for pair, ring in enumerate(rings):
            gpa = rig.arena.take(HDR + 60)
            rig.arena.memory.write(gpa, bytes(HDR) + frame(pair))
            table = Desc(gpa, HDR + 60, 0, 0).pack() * ring.size
            rig.arena.memory.write(ring.desc, table)
            rig.start(ring, 2 * pair + 1)
        ring = rings[0]
        heads = b"".join(i.to_bytes(2, "little") for i in range(4096))
        rig.arena.memory.write(ring.avail + 4, heads)
        with guarded():
            rig.begin()
            if variant == "unwind":
                rig.fail(rigs.ALLOC, 1)
                with pytest.raises(HostError):
                    rig.set_policy()
                rig.disarm()
            if variant == "flip":  # it was almost empty when it was looked at
                rig.arena.store16(ring.avail_idx, 1)
                rig.flip(ring.avail_idx, (4096).to_bytes(2, "little"))
            else:
                rig.arena.store16(ring.avail_idx, 4096)
            for other in rings[1:]:
                other.offer(0)
            rig.notify()
            arrived: list[bytes] = []
            while len(arrived) < 4096 + 3:
                rig.settle()
                arrived += rig.received()
            for pair in (1, 2, 3):
                assert arrived.index(frame(pair)) < 64 + 3
                assert rings[pair].taken() == [(0, 0)]
            assert rig.arena.load16(ring.used + 2) == 4096
        rig.disarm()
        for pair in range(4):
            rig.engine.stop_queue(2 * pair + 1)
        rig.arena.freeze()
        rig.end()


@repeated
@three_forms
@pytest.mark.requirement("CVE-2020-27174", "PF-F-08")
def test_events_nobody_fetches(rig: Rig, variant: str, repeats: int) -> None:
    """They do not pile up: the last break of each ring is all there is to say."""
    for turn in range(repeats):
        with guarded():
            attack = Attack(rig, TX)
            if variant == "unwind":
                attack.fail_start(turn)
            attack.start()
            rig.begin()
            bad = attack.descs[0]._replace(addr=UNMAPPED)
            if variant == "flip":
                rig.flip(attack.gpa(0), bad.pack())
                attack.launch()  # good, and bad the next time
                assert rig.received() == [FRAME]
                attack.launch()
            else:
                attack.forge({0: bad})
                attack.launch()
            assert rig.engine.queue_state(TRANSMITQ).broken is BreakReason.DESC_ADDRESS
            rig.disarm()
            rig.engine.stop_queue(TRANSMITQ)
            rig.arena.freeze()
            rig.end()
    assert os.eventfd_read(rig.err) == repeats
    events = []
    while (event := rig.engine.next_event()) is not None:
        events.append(event)
    assert len(events) == 1


# --- odd shapes of life ----------------------------------------------------------------


@repeated
@three_forms
@pytest.mark.requirement("CVE-2021-3416", "VIO-SPL-17")
def test_buffers_inside_the_rings_themselves(rig: Rig, variant: str, repeats: int) -> None:
    """What comes in is written over a ring; that ring may break, nothing else does."""
    for turn in range(repeats):
        with guarded():
            ring, _ = receive_ring(rig)
            other = Ring(rig.arena)
            gpa = rig.arena.take(HDR + 60)
            rig.arena.memory.write(gpa, bytes(HDR) + FRAME)
            for i in range(8):
                other.put(i, Desc(gpa, HDR + 60, 0, 0))
            aim = (ring.desc, ring.avail, ring.used, other.desc, other.avail, other.used)[turn % 6]
            if variant == "flip":
                rig.flip(ring.desc, Desc(aim, BUFFER, WRITE, 0).pack())
            else:
                ring.put(0, Desc(aim, BUFFER, WRITE, 0))
            if variant == "unwind":
                rig.fail(rigs.EPOLL, 1)
                with pytest.raises(HostError):
                    rig.start(ring, RECEIVEQ)
                rig.disarm()
            rig.start(ring, RECEIVEQ)
            rig.start(other, TRANSMITQ)
            rig.begin()
            ring.offer(0, *range(1, 8))
            other.offer(*range(4))
            rig.wire.send(bytes([turn & 0xFF]) * 60)
            rig.notify()
            rig.settle()
            rig.notify()
            rig.settle()
            rig.disarm()
            for index in (RECEIVEQ, TRANSMITQ):
                rig.engine.stop_queue(index)
            while rig.engine.next_event():
                pass
            with suppress(BlockingIOError):
                os.eventfd_read(rig.err)
            rig.received()
            areas = (ring, other)
            rig.arena.freeze()
            rig.end(*(area.used_area for area in areas))


@repeated
@three_forms
@pytest.mark.tsan
@pytest.mark.requirement("PF-F-06")
def test_stopping_at_any_point(rig: Rig, variant: str, repeats: int) -> None:
    """Frames come and kicks are made from another thread while rings stop and memory goes."""
    over = threading.Event()

    def flood() -> None:
        while not over.is_set():
            with suppress(BlockingIOError):
                rig.wire.send(FRAME)
            rig.notify()

    ring, _ = receive_ring(rig)
    other = Ring(rig.arena)
    for i in range(8):
        other.put(i, Desc(ring.desc, HDR + 60, 0, 0))
    # Steered by RSS, so that no frame of this flood goes to the lane.
    rig.set_policy(mode="rss", hash_types=HashType.NONE, port_queues=2)
    lanes, rig.lanes = rig.lanes, rig.lanes[1:]
    thread = threading.Thread(target=flood)
    thread.start()
    try:
        for turn in range(repeats):
            with guarded():
                rig.begin()
                for index, queue in ((RECEIVEQ, ring), (TRANSMITQ, other)):
                    queue.start = 0
                    rig.arena.store16(queue.avail_idx, 8)
                    if variant == "unwind":
                        rig.fail((rigs.ALLOC, rigs.FD, rigs.EPOLL)[turn % 3], 1)
                        with pytest.raises(HostError):
                            rig.start(queue, index)
                        rig.disarm()
                    rig.start(queue, index)
                if variant == "flip":
                    with GuestMemory(rig.arena.regions[1:], rig.native) as lanes_only:
                        rig.engine.set_memory(lanes_only)
                    rig.engine.set_memory(rig.table)
                for index in (RECEIVEQ, TRANSMITQ):
                    rig.engine.stop_queue(index)
                while rig.engine.next_event():
                    pass
                rig.arena.freeze()
                rig.end()
    finally:
        over.set()
        thread.join()
        rig.lanes = lanes
    rig.received()


@three_forms
@pytest.mark.requirement("PF-F-09")
def test_verbs_on_rings_that_do_not_run(rig: Rig, variant: str) -> None:
    """An error, or an answer that says so, and no access: nothing changes in guest memory."""
    attack = Attack(rig, "ctrl")
    if variant == "flip":  # it ran once
        attack.start()
        rig.engine.stop_queue(attack.index)
    if variant == "unwind":  # it almost did
        attack.fail_start(0)
    attack.ring.offer(0)
    rig.arena.freeze()
    rig.begin()
    with pytest.raises(UsageError):
        rig.engine.ctrl_pop()
    with pytest.raises(UsageError):
        rig.engine.ctrl_complete(b"\0")
    for index in (RECEIVEQ, TRANSMITQ, attack.index):
        assert not rig.engine.queue_state(index).running
        assert not rig.engine.stop_queue(index).running
    with pytest.raises(UsageError):
        rig.engine.statistics(rig.pairs)
    rig.end()
    closed = Rig(rig.native, neighbour=False)
    engine = closed.engine
    closed.close()
    with pytest.raises(HostError):
        engine.queue_state(0)
    engine.close()


@three_forms
@pytest.mark.requirement("PF-D-03", "PF-D-04", "NET-MQ-02", "VIO-RST-01")
def test_extra_queues_are_gone_after_a_reset(hooked: Native, variant: str) -> None:
    """In the model, and where the frames go."""
    target = running()
    send(target, vq_pairs(3) if variant == "static" else rss((1, 2), unclassified=3))
    for pairs in (0, 5, 0x8000, 0xFFFF):  # beyond the array: refused, nothing enabled
        before = target.state.steering
        send(target, vq_pairs(pairs))
        assert target.state.steering == before
    policy = new_policy(commit(target, target.reset()))
    assert policy.queues_in_force == {0}
    assert policy.pairs == policy.port_queues == 1
    with Rig(hooked, pairs=3) as rig:
        rig.set_policy(mode="rss", hash_types=0, unclassified_queue=2)
        if variant == "unwind":
            rig.fail(rigs.ALLOC, 1)
            with pytest.raises(HostError):
                rig.set_policy(pairs=1, port_queues=1)
            rig.disarm()
        if variant == "flip":  # a frame is on its way to the queue that goes
            rig.wire.send(FRAME)
        rig.set_policy(pairs=1, port_queues=1)
        before_frames = [rig.engine.statistics(pair).rx_packets for pair in range(3)]
        rig.port.wire(2).send(FRAME)
        for _ in range(2):
            rig.settle(0, 1, 2)
        assert [rig.engine.statistics(pair).rx_packets for pair in range(3)] == before_frames
        assert rig.engine.statistics(2).rx_port_frames == 0


@three_forms
@pytest.mark.requirement("PF-F-08")
def test_a_port_that_cannot_be_attached_leaves_the_old_policy(hooked: Native, variant: str) -> None:
    with Rig(hooked, pairs=3) as rig:
        rig.set_policy(pairs=1, port_queues=1)
        for countdown in (1, 2):
            rig.fail(rigs.EPOLL if variant == "unwind" else rigs.PORT_ATTACH, countdown)
            if variant == "flip":
                rig.wire.send(FRAME)
            with pytest.raises(HostError):
                rig.set_policy(pairs=3, port_queues=3)
            rig.disarm()
            read = rig.engine.statistics(1).rx_port_frames
            rig.port.wire(1).send(FRAME)
            rig.settle(0, 1, 2)
            assert rig.engine.statistics(1).rx_port_frames == read
        rig.set_policy(pairs=3, port_queues=3)
        rig.settle(0, 1, 2)
        assert rig.engine.statistics(1).rx_port_frames == 2


@pytest.mark.parametrize("full", ["call", "err"])
@pytest.mark.requirement("PF-F-08", "VIO-SPL-15")
def test_eventfds_that_would_block(rig: Rig, full: str) -> None:
    """One kick fd for two rings, call and error fds nobody empties: no worker waits for a peer."""
    kick, other = (os.eventfd(0, os.EFD_CLOEXEC) for _ in range(2))
    os.eventfd_write(other, 0xFFFF_FFFF_FFFF_FFFE)  # one more does not go in
    try:
        attack = Attack(rig, TX)
        idle, _ = receive_ring_beside(rig)
        call, err = (other, rig.err) if full == "call" else (rig.call, other)
        for ring, index in ((attack.ring, TRANSMITQ), (idle, RECEIVEQ)):
            rig.engine.start_queue(
                ring.setup(index, kick, call, err), event_idx=False, indirect=True
            )
        with guarded():
            rig.begin()
            attack.ring.offer(0)
            os.eventfd_write(kick, 1)
            rig.settle()
            assert rig.received() == [FRAME]
            attack.forge({0: attack.descs[0]._replace(addr=UNMAPPED)})
            attack.ring.offer(0)
            os.eventfd_write(kick, 1)
            rig.settle()
            assert rig.engine.queue_state(TRANSMITQ).broken is BreakReason.DESC_ADDRESS
            for index in (TRANSMITQ, RECEIVEQ):
                rig.engine.stop_queue(index)
            rig.arena.freeze()
            rig.end()
    finally:
        os.close(kick)
        os.close(other)
