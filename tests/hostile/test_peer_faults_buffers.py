# SPDX-License-Identifier: MIT
"""Rings and descriptors: merged receive, lengths, rings in use (section B)."""

from __future__ import annotations

import struct
import threading
from itertools import product
from typing import TYPE_CHECKING

import pytest

from pyvnet.datapath.engine import BreakReason
from pyvnet.datapath.memory import GuestMemory
from pyvnet.device.device import DeviceSettings, VirtioNetDevice
from pyvnet.errors import DriverError, HostError, UsageError
from pyvnet.spec.ring import Desc
from pyvnet.spec.transport import QueueSetup
from tests.hostile import rig as rigs
from tests.hostile.attack import CTRL, FRAME, NEXT, ROLES, RX, TX, WRITE, Attack
from tests.hostile.forms import repeated, three_forms
from tests.hostile.rig import HDR, UNMAPPED, Rig, Ring, frame, guarded

if TYPE_CHECKING:
    from pyvnet.datapath.native import Native

RECEIVEQ = 0
TRANSMITQ = 1
PIECE = 16
DATA = frame(3, 100)
PIECES = 7  # of 16 bytes, for 12 + 100


def merge_ring(rig: Rig, at: int = 0) -> tuple[Ring, list[int]]:
    """A receiveq of eight buffers, none offered yet."""
    rig.arena.wipe()
    ring = Ring(rig.arena)
    gpas = [at + PIECE * i if at else rig.arena.take(PIECE) for i in range(8)]
    for i, gpa in enumerate(gpas):
        ring.put(i, Desc(gpa, PIECE, WRITE, 0))
    return ring, gpas


def merged(rig: Rig, ring: Ring, gpas: list[int]) -> bytes:
    """What the driver reads by used.len."""
    taken = ring.taken()[-PIECES:]
    assert [length for _, length in taken] == [PIECE] * PIECES
    return b"".join(rig.arena.memory.read(gpas[head], length) for head, length in taken)


def refuse_memory(rig: Rig, turn: int) -> None:
    """A memory table cannot be made: the old one stays."""
    site, countdown = ((rigs.ALLOC, 1), (rigs.MMAP, 1), (rigs.MMAP, 2), (rigs.MMAP, 3))[turn % 4]
    rig.fail(site, countdown)
    with pytest.raises(HostError):
        GuestMemory(rig.arena.regions, rig.native)
    rig.disarm()


@repeated
@three_forms
@pytest.mark.requirement("CVE-2022-26353", "U-55", "NET-RX-02", "NET-RX-04")
def test_a_merged_frame_meets_a_bad_buffer(rig: Rig, variant: str, repeats: int) -> None:
    """At element k, for every k: all taken so far come back, none is kept."""
    inputs = list(product(range(PIECES), (False, True)))
    for turn in range(repeats):
        k, breaks = inputs[turn % len(inputs)]
        with guarded():
            ring, gpas = merge_ring(rig)
            bad = Desc(UNMAPPED, PIECE, WRITE, 0) if breaks else Desc(gpas[k], 0, WRITE, 0)
            rig.start(ring, RECEIVEQ)
            rig.begin()
            if variant == "flip":
                rig.flip(ring.desc + 16 * k, bad.pack())
            else:
                ring.put(k, bad)
            if variant == "unwind":
                refuse_memory(rig, turn)
            ring.offer(*range(8))
            rig.arena.freeze()
            before = rig.engine.statistics(0)
            rig.wire.send(DATA)
            rig.settle()
            after = rig.engine.statistics(0)
            written: list[tuple[int, int]] = []
            if variant == "flip":
                assert rig.reads == 1
                assert merged(rig, ring, gpas) == struct.pack("<10xH", PIECES) + DATA
                rig.expect_quiet(RECEIVEQ)
                written = [(ring.desc + 16 * k, 16), *((gpa, PIECE) for gpa in gpas[:PIECES])]
            elif breaks:
                rig.expect_broken(RECEIVEQ, BreakReason.DESC_ADDRESS)
                assert ring.taken() == []
            else:
                assert ring.taken() == [(head, 0) for head in range(k + 1)]
                assert after.rx_drop_bad_buffer == before.rx_drop_bad_buffer + 1
                rig.expect_quiet(RECEIVEQ)
            rig.disarm()
            rig.engine.stop_queue(RECEIVEQ)
            rig.end(ring.used_area, *written)


@repeated
@three_forms
@pytest.mark.requirement("CVE-2022-26353", "U-43", "OUR-RX-20", "NET-RX-03")
def test_a_merged_frame_runs_out_of_buffers(rig: Rig, variant: str, repeats: int) -> None:
    """After k of seven, for every k: the driver has all k back, the frame waits for more."""
    for turn in range(repeats):
        k = turn % PIECES
        with guarded():
            ring, gpas = merge_ring(rig)
            rig.start(ring, RECEIVEQ)
            rig.begin()
            ring.offer(*range(k))
            if variant == "flip" and k:
                rig.flip(ring.desc, Desc(gpas[0], 0, WRITE, 0).pack())
            rig.wire.send(DATA)
            rig.settle()
            assert ring.taken() == []
            state = rig.engine.queue_state(RECEIVEQ)
            assert (state.avail_base, state.used_base) == (0, 0)
            if variant == "unwind":
                # The frame is judged anew by another policy, which does not come at once.
                refuse_memory(rig, turn)
                rig.fail(rigs.ALLOC, 1)
                with pytest.raises(HostError):
                    rig.set_policy()
                rig.disarm()
                rig.set_policy()
                assert ring.taken() == []
            ring.offer(*range(k, 8))
            rig.arena.freeze()
            rig.notify()
            rig.settle()
            if variant == "flip" and k:
                # Given back is given back: the second look judges what is there now.
                assert ring.taken() == [(0, 0)]
                assert rig.reads == 2
                written = []
            else:
                assert merged(rig, ring, gpas) == struct.pack("<10xH", PIECES) + DATA
                written = [(gpa, PIECE) for gpa in gpas[:PIECES]]
            rig.expect_quiet(RECEIVEQ)
            rig.disarm()
            rig.engine.stop_queue(RECEIVEQ)
            rig.end(ring.used_area, *written)


@repeated
@three_forms
@pytest.mark.requirement("CVE-2021-3748", "NET-RX-01", "NET-RX-03")
def test_the_memory_of_a_merged_frame_goes_away(hooked: Native, variant: str, repeats: int) -> None:
    """Whole and with its num_buffers, or not at all and the ring breaks."""
    with Rig(hooked, split="touching") as rig:
        low, _, lanes = rig.arena.regions
        with GuestMemory((low, lanes), hooked) as reduced:
            for turn in range(repeats):
                with guarded():
                    _without_memory(rig, reduced, variant, turn)


def _without_memory(rig: Rig, reduced: GuestMemory, variant: str, turn: int) -> None:
    count = 1 + turn % 8
    ring, gpas = merge_ring(rig, rig.arena.border)
    data = frame(3, PIECE * count - HDR) if count > 1 else b"abcd"
    rig.start(ring, RECEIVEQ)
    rig.begin()
    ring.offer(*range(8))
    rig.arena.freeze()
    if variant == "static":
        rig.engine.set_memory(reduced)
        rig.wire.send(data)
    elif variant == "flip":
        swap = threading.Thread(target=rig.engine.set_memory, args=(reduced,))
        swap.start()
        rig.wire.send(data)
        swap.join()
    else:
        refuse_memory(rig, turn)
        rig.wire.send(data)
    rig.settle()
    taken = ring.taken()
    if variant == "static" or (variant == "flip" and not taken):
        assert taken == []
        rig.expect_broken(RECEIVEQ, BreakReason.DESC_ADDRESS)
    else:
        assert [head for head, _ in taken] == list(range(count))
        got = b"".join(rig.arena.memory.read(gpas[head], length) for head, length in taken)
        assert got == struct.pack("<10xH", count) + data
        rig.expect_quiet(RECEIVEQ)
    rig.engine.stop_queue(RECEIVEQ)
    rig.engine.set_memory(rig.table)
    rig.end(ring.used_area, (rig.arena.border, 8 * PIECE))


@repeated
@three_forms
@pytest.mark.requirement("PF-B-23", "VIO-SPL-11", "VIO-SPL-12", "VIO-SPL-03")
def test_used_length_is_what_was_written(rig: Rig, variant: str, repeats: int) -> None:
    """Every byte before the length has changed, and no byte behind it."""
    for turn in range(repeats):
        role, pieces, indirect = ROLES[turn % 3], 1 + turn % 8, bool(turn % 2)
        with guarded():
            attack = Attack(rig, role, pieces=pieces, indirect=indirect)
            if variant == "unwind":
                attack.fail_start(turn)
            attack.start()
            if variant == "flip":
                number = turn % len(attack.descs)
                longer = attack.descs[number]._replace(length=65535)
                rig.flip(attack.gpa(number), longer.pack())
            rig.begin()
            attack.launch()
            attack.expect_good()
            old = rig.arena.frozen
            changed = sum(
                a != b
                for gpa, length, write in attack.buffers
                if write
                for a, b in zip(rig.arena.memory.read(gpa, length), old(gpa, length), strict=True)
            )
            assert [length for _, length in attack.ring.taken()] == [changed]
            flipped = [(attack.gpa(number), 16)] if variant == "flip" else []
            attack.finish(*flipped, *attack.written())


@repeated
@three_forms
@pytest.mark.requirement("CVE-2026-45782")
def test_a_head_offered_again_while_it_waits_for_the_port(
    rig: Rig, variant: str, repeats: int
) -> None:
    length = HDR + 60_000
    for turn in range(max(2, repeats // 10)):
        with guarded():
            rig.arena.wipe()
            ring = Ring(rig.arena)
            gpa = rig.arena.take(length)
            rig.arena.memory.write(gpa, bytes(HDR) + frame(1, length - HDR))
            for i in range(8):
                ring.put(i, Desc(gpa, length, 0, 0))
            rig.start(ring, TRANSMITQ)
            offered = 0
            while rig.engine.queue_state(TRANSMITQ).avail_base == offered & 0xFFFF:
                ring.offer(offered % 8)
                offered += 1
                rig.notify()
                rig.settle()
            if variant != "unwind":  # a lane would take the failure meant for this ring
                rig.begin()
            waiting = (offered - 1) % 8
            if variant == "flip":
                # Another head, which turns into the waiting one: it was read once.
                rig.flip(ring.entry(offered), waiting.to_bytes(2, "little"))
                ring.offer((waiting + 1) % 8)
            else:
                ring.offer(waiting)
            if variant == "unwind":
                rig.fail(rigs.PORT_SEND, 1 + turn % 2)
            rig.arena.freeze()
            sent = 0
            while frames := rig.received():
                sent += len(frames)
                rig.settle()
            if variant == "flip":
                assert rig.reads == 1
                assert sent == offered + 1
                rig.expect_quiet(TRANSMITQ)
            else:
                rig.disarm()
                rig.expect_broken(TRANSMITQ, BreakReason.HEAD_IN_USE)
                assert offered - 1 <= sent <= offered
            rig.disarm()
            if variant == "unwind":
                rig.begin()
            rig.engine.stop_queue(TRANSMITQ)
            rig.end(ring.used_area, (ring.entry(offered), 2))


@repeated
@three_forms
@pytest.mark.requirement("CVE-2026-5747", "PF-F-09")
def test_a_running_ring_is_not_laid_out_anew(rig: Rig, variant: str, repeats: int) -> None:
    for turn in range(repeats):
        with guarded():
            attack = Attack(rig, ROLES[turn % 3])
            attack.start()
            rig.begin()
            rig.arena.freeze()
            if variant == "flip":
                # Work is on its way while the ring is laid out anew.
                attack.ring.offer(0)
                if attack.role == TX:
                    rig.notify()
                elif attack.role == RX:
                    rig.wire.send(FRAME)
            if variant == "unwind":
                rig.fail(rigs.ALLOC, 1)
            before = rig.engine.queue_state(2 * rig.pairs if attack.role == CTRL else 3)
            for size, desc in ((16, attack.ring.desc), (8, UNMAPPED), (3, attack.ring.desc)):
                areas = (desc, attack.ring.avail, attack.ring.used)
                with pytest.raises(UsageError, match="is running"):
                    rig.engine.start_queue(
                        QueueSetup(attack.index, size, *areas), event_idx=True, indirect=False
                    )
            assert before.running
            rig.disarm()
            if variant == "flip":
                rig.settle()
            else:
                attack.launch()
            attack.expect_good()
            written = attack.written()
            attack.finish((attack.ring.avail, 22), *written)
            for size in (0, 3, 7, 9, 32769, 65536, 0xFFFF_FFFF):
                areas = (attack.ring.desc, attack.ring.avail, attack.ring.used)
                with pytest.raises(DriverError):
                    rig.engine.start_queue(
                        QueueSetup(attack.index, size, *areas), event_idx=True, indirect=False
                    )


@three_forms
@pytest.mark.requirement("CVE-2011-2512", "PF-F-09", "PF-D-04")
def test_queues_that_do_not_exist(rig: Rig, variant: str) -> None:
    """The verbs refuse the index; the device model ignores and counts it."""
    device = VirtioNetDevice(
        DeviceSettings(max_virtqueue_pairs=2, mac=bytes.fromhex("020000000001"))
    )
    ring = Ring(rig.arena)
    before = device.state
    for index in (2 * rig.pairs + 1, 0x8000, 0xFFFF, 0xFFFF_FFFF, -1, 1 << 32):
        if variant == "flip":
            rig.begin()
        if variant == "unwind":
            rig.fail(rigs.ALLOC, 1)
        for verb in (rig.engine.queue_state, rig.engine.stop_queue):
            with pytest.raises(UsageError):
                verb(index)
        with pytest.raises(DriverError):
            rig.start(ring, index)
        device.commit(device.configure_queue(ring.setup(index)))
        rig.disarm()
        if variant == "flip":
            rig.arena.freeze()
            rig.end()
    assert device.state.queues == before.queues == ()
    assert device.state.counters.queue_index_out_of_range == 6


@three_forms
@pytest.mark.requirement("CVE-2022-26353", "CVE-2015-7295", "VIO-SPL-02")
def test_a_merged_frame_of_more_pieces_than_there_is_room_for(rig: Rig, variant: str) -> None:
    """No chain is to blame, so the frame is lost and not the ring; all chains stay the driver's."""
    rig.arena.wipe()
    ring = Ring(rig.arena, 2048)
    gpa = rig.arena.take(PIECE)
    for i in range(2048):  # 682 chains of three pieces
        last = i % 3 == 2
        ring.put(i, Desc(gpa, PIECE, WRITE | (0 if last else NEXT), 0 if last else i + 1))
    rig.start(ring, RECEIVEQ)
    rig.begin()
    ring.offer(*range(0, 2046, 3))
    before = rig.engine.statistics(0)
    if variant == "flip":
        # The chain that does not fit any more ends early once it was read: still too much.
        rig.flip(ring.desc + 16 * 1023, Desc(gpa, PIECE, WRITE, 0).pack())
    if variant == "unwind":
        refuse_memory(rig, 0)
    rig.wire.send(frame(1, 1024 * PIECE))
    rig.settle()
    after = rig.engine.statistics(0)
    assert after.rx_drop_too_big == before.rx_drop_too_big + 1
    rig.expect_quiet(RECEIVEQ)
    assert rig.engine.queue_state(RECEIVEQ).avail_base == 0
    rig.wire.send(DATA)
    rig.settle()
    assert ring.taken() == [(0, 48), (3, 48), (6, 16)]
    rig.disarm()
    rig.engine.stop_queue(RECEIVEQ)
    rig.arena.freeze()
    rig.end()
