# SPDX-License-Identifier: MIT
"""Copies of frames out of running workers: whole, told why, never waited for.

Capture files are no matter of the standard; that a capture changes nothing of the device
is tested here beside the engine's other threads (`make tsan`).
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from pyvnet.capture import blocks
from pyvnet.capture.blocks import PacketFlag
from pyvnet.capture.pcapng import read_pcapng
from pyvnet.capture.source import Source
from pyvnet.capture.words import frame_comment
from pyvnet.datapath.capture import LONGEST_BLOCK, EngineCapture
from pyvnet.datapath.native import Native
from pyvnet.errors import HostError, UsageError
from pyvnet.spec.features import Feature
from pyvnet.spec.net_hdr import NetHdr
from tests.datapath.offload_cases import DATA_VALID, FRAMES, GUEST, fitting
from tests.datapath.rig import Rig, frame_of
from tests.datapath.test_tsan_engine import POLICIES, STEPS, beside, traffic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyvnet.capture import CapturedFrame

RING = 512 * 1024
NO_POLICY = 0


class Reader:
    """A stream of blocks that were taken, with a header in front."""

    def __init__(self, taken: bytes, interfaces: int = 16) -> None:
        described = b"".join(blocks.interface_description(f"i{n}") for n in range(interfaces))
        self._rest = blocks.section_header("test")[4:] + described + taken

    def read(self, size: int) -> bytes:
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece


def frames_in(taken: bytes) -> list[CapturedFrame]:
    source = Source(Reader(taken), "taken")  # type: ignore[arg-type]  # reads, and no more is asked
    return list(read_pcapng(source, blocks.SECTION_HEADER.to_bytes(4, "little")))


def take_all(capture: EngineCapture) -> Iterator[bytes]:
    """Blocks of all that waits, whatever it was judged by."""
    policy = NO_POLICY
    while True:
        batch = capture.take(policy)
        yield bytes(batch.blocks)
        if not batch.waiting:
            return
        policy = batch.policy


def taken(capture: EngineCapture) -> list[CapturedFrame]:
    return frames_in(b"".join(take_all(capture)))


def arrive(rig: Rig, count: int) -> None:
    """Wait until so many frames were read and are in buffers, or were dropped."""

    def done() -> bool:
        stats = rig.stats(0)
        return stats.rx_packets + stats.rx_drops == stats.rx_port_frames == count

    rig.rounds(done)


def test_blocks_are_those_of_the_python_writer() -> None:
    """To the byte, with every word a header can make it say."""
    with Rig(pairs=1, buffers=60) as rig:
        rig.policy(guest_offloads=int(GUEST), pairs=1)
        capture = EngineCapture(rig.engine)
        frames, sent = [], 0
        for data in FRAMES.values():
            for header in (NetHdr(), fitting(data), NetHdr(flags=DATA_VALID)):
                rig.port.wire(0).send(data, header.pack())
                sent += 1
                arrive(rig, sent)
                frames += rig.take_all()
        capture.stop()
        raw = b"".join(take_all(capture))
        captured = frames_in(raw)
        capture.close()
    assert [frame.data for frame in captured] == [frame.data for frame in frames]
    again = []
    for got, frame in zip(captured, frames, strict=True):
        header = frame.header
        told = header.hash_value if header.hash_report else None
        options = blocks.packet_options(
            flags=PacketFlag.INBOUND | blocks.header_flags(header.flags, header.gso_type),
            hash_value=told,
            queue=0,
            comments=[frame_comment(0, told, header.hash_report, header)],
        )
        assert got.timestamp_ns is not None
        again.append(blocks.enhanced_packet(0, got.timestamp_ns, got.data, options))
    assert raw == b"".join(again)
    assert {comment.split(" ")[0] for f in captured for comment in f.comments} > {"TCPv4", "UDPv6"}
    assert any("segments" in f.comments[0] for f in captured)


def test_what_a_capture_loses_it_tells() -> None:
    with Rig(pairs=1, workers=1, buffers=60) as rig:
        rig.policy(pairs=1)
        capture = EngineCapture(rig.engine, ring_size=RING)
        count = 0
        while not capture.counts(0)[1]:  # nobody takes
            rig.inject(0, *(frame_of(0, count + i, 1400) for i in range(50)))
            count += 50
            arrive(rig, count)
            rig.recycle()
        before = taken(capture)
        rig.inject(0, frame_of(0, count))
        arrive(rig, count + 1)
        capture.stop()
        (last,) = taken(capture)
        kept, lost = capture.counts(0)
        capture.close()
    assert (kept, lost) == (len(before) + 1, count - len(before))
    assert [frame.drops for frame in before] == [0] * len(before)
    assert last.drops == lost


def test_snapshot_length_and_long_frames() -> None:
    """A capture that sees long frames has them go through private memory (U-63)."""
    with Rig(pairs=1, buffers=60, port="pair") as rig:
        rig.policy(mode="automatic", pairs=1, guest_offloads=int(Feature.GUEST_CSUM))
        for _ in range(40):  # so long that they are read into buffers otherwise
            rig.inject(0, frame_of(0, 0, 9000))
            rig.receive(1)
        direct = rig.stats(0).rx_direct
        assert direct
        capture = EngineCapture(rig.engine, snap_length=5000)
        rig.inject(0, frame_of(0, 7, 9000))
        (frame,) = rig.receive(1)
        rig.send(0, frame_of(1, 8, 9000))
        rig.wait_sent(0, 1)
        assert rig.stats(0).rx_direct == direct
        capture.stop()
        rx, tx = taken(capture)
        capture.close()
        assert rx.data == frame.data[:5000] == frame_of(0, 7, 9000)[:5000]
        assert (rx.original_length, tx.original_length) == (9000, 9000)
        assert tx.data == frame_of(1, 8, 9000)[:5000]
        assert (rx.interface, tx.interface) == (0, 1)
        rig.inject(0, frame_of(0, 0, 9000))
        rig.receive(1)
        assert rig.stats(0).rx_direct == direct + 1


def test_what_does_not_fit_waits() -> None:
    with Rig(pairs=1, buffers=60) as rig:
        rig.policy(pairs=1)
        capture = EngineCapture(rig.engine)
        rig.inject(0, *(frame_of(flow) for flow in range(10)))
        rig.receive(10)
        capture.stop()
        policy = capture.take(NO_POLICY).policy
        assert capture.take(policy, room=0).waiting == capture.take(policy, room=1).waiting
        data = b""
        for size in (200, 300, 500, LONGEST_BLOCK):
            batch = capture.take(policy, room=size)
            assert len(batch.blocks) <= size
            data += bytes(batch.blocks)
        assert not batch.waiting
        assert len(frames_in(data)) == 10
        with_comment = capture.take(policy, "x")
        assert (with_comment.frames, with_comment.waiting) == (0, 0)
        capture.close()


def test_frames_name_the_policy_they_were_judged_by() -> None:
    """Those that were handed over too."""
    with Rig(pairs=2, workers=2, buffers=60) as rig:
        capture = EngineCapture(rig.engine)
        seen: dict[int, tuple[int, ...]] = {}
        for table in ((0,), (1,), (1, 0)):
            rig.policy(indirection_table=table)
            rig.inject(0, *(frame_of(flow) for flow in range(8)))
            rig.receive(8)
            first = capture.take(NO_POLICY).policy
            assert capture.take(first).frames == 8
            told = rig.engine.policy_of(first)
            assert told is not None
            seen[first] = told.indirection_table
        assert list(seen.values()) == [(0,), (1,), (1, 0)]
        assert rig.engine.policy_of(NO_POLICY) is None
        capture.close()


def test_comments_go_to_the_first_frame() -> None:
    with Rig(pairs=1, buffers=60) as rig:
        rig.policy(pairs=1)
        capture = EngineCapture(rig.engine)
        rig.inject(0, frame_of(0), frame_of(1))
        rig.receive(2)
        capture.stop()
        policy = capture.take(NO_POLICY).policy
        first, second = frames_in(bytes(capture.take(policy, "for the first, ü").blocks))
        capture.close()
    assert [len(first.comments), len(second.comments)] == [2, 1]
    assert first.comments[1] == "for the first, ü"


def test_one_capture_at_a_time() -> None:
    with Rig(pairs=1) as rig:
        first = EngineCapture(rig.engine)
        with pytest.raises(UsageError, match="captured already"):
            EngineCapture(rig.engine)
        first.stop()
        second = EngineCapture(rig.engine)
        first.close()
        second.close()
        second.close()


@pytest.mark.parametrize("size", [1, RING // 2, RING + 1])
def test_rings_that_cannot_be(size: int) -> None:
    with Rig(pairs=1) as rig, pytest.raises(UsageError, match=f"ring of {size} bytes"):
        EngineCapture(rig.engine, ring_size=size)


@pytest.mark.parametrize(("site", "calls"), [(0, 3), (1, 1), (2, 1)])
def test_a_capture_that_cannot_be_made_leaves_nothing(
    native_hooks: tuple[Any, Any], site: int, calls: int
) -> None:
    """Each allocation, mapping and fd of it (``enum vnet_fail_site``)."""
    native = Native(*native_hooks)
    with Rig(pairs=1, native=native) as rig:
        for call in range(1, calls + 1):
            native.lib.vnet_test_fail(site, call)
            try:
                with pytest.raises(HostError, match="cannot start a capture"):
                    EngineCapture(rig.engine)
            finally:
                native.lib.vnet_test_fail(site, 0)
        EngineCapture(rig.engine).close()


@pytest.mark.tsan
def test_captures_come_and_go_under_traffic() -> None:
    chance = random.Random(1)
    with Rig(workers=4, port="pair", buffers=60, handoff_slots=8) as rig:
        rig.policy()
        frames = 0
        for serial in range(STEPS // 10):
            capture = EngineCapture(rig.engine, ring_size=RING, snap_length=chance.choice((0, 40)))
            count = 0

            def take(capture: EngineCapture = capture) -> None:
                nonlocal count
                capture.wait(1)
                count += sum(len(frames_in(data)) for data in take_all(capture))

            with beside(take):
                for _ in range(5):
                    traffic(rig, serial)
                    rig.policy(**chance.choice(POLICIES))
                    rig.recycle()
                capture.stop()
            take()
            assert count == sum(capture.counts(interface)[0] for interface in range(8))
            capture.close()
            frames += count
        assert frames
