# SPDX-License-Identifier: MIT
"""A transmitq of the victim and what is put on it, in the three forms."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

from pyvnet.spec.net_hdr import HdrFlag, NetHdr
from pyvnet.spec.ring import Desc
from tests.hostile import rig as rigs
from tests.hostile.attack import NEXT
from tests.hostile.rig import HDR, Ring, frame, guarded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.hostile.rig import Rig

SIZE: Final = 64
GOOD: Final = bytes(HDR) + frame(99)
_TRANSMITQ: Final = 1


def _drain(rig: Rig) -> list[tuple[NetHdr, bytes]]:
    frames: list[tuple[NetHdr, bytes]] = []
    while True:
        try:
            got = rig.wire.recv()
        except BlockingIOError:
            return frames
        header = NetHdr.unpack(got.header)
        # The driver's own header never goes further than us: without offloads this one is empty.
        assert header == NetHdr() or header.flags == HdrFlag.NEEDS_CSUM
        frames.append((header, got.data))


class Sent:
    """What came of a batch: frames and headers that reached the host port, and counters."""

    def __init__(self, wired: list[tuple[NetHdr, bytes]], malformed: int, refused: int) -> None:
        self.headers = [header for header, _ in wired]
        self.frames = [frame for _, frame in wired]
        self.malformed, self.refused = malformed, refused


def transmit(
    rig: Rig,
    variant: str,
    chains: Sequence[tuple[bytes, Sequence[int]]],
    *,
    flip: tuple[int, bytes] | None = None,
) -> Sent:
    """Send chains of (bytes, where to cut them) and check that each came back once, unwritten.

    flip: bytes that replace those at an offset of the first chain once they were read.
    unwind: a good chain goes first, and the port refuses it.
    """
    with guarded():
        rig.arena.wipe()
        ring = Ring(rig.arena, SIZE)
        if variant == "unwind":
            chains = [(GOOD, ()), *chains]
        heads, starts = [], []
        index = 0
        for data, cuts in chains:
            gpa = rig.arena.take(len(data) + 1)
            rig.arena.memory.write(gpa, data)
            heads.append(index)
            starts.append(gpa)
            borders = list(pairwise([0, *cuts, len(data)]))
            for i, (low, high) in enumerate(borders):
                more = i < len(borders) - 1
                desc = Desc(gpa + low, high - low, NEXT if more else 0, index + 1 if more else 0)
                ring.put(index, desc)
                index += 1
        rig.start(ring, _TRANSMITQ)
        before = rig.engine.statistics(0)
        flipped: list[tuple[int, int]] = []
        if flip and variant == "flip":
            rig.flip(starts[0] + flip[0], flip[1])
            flipped = [(starts[0] + flip[0], len(flip[1]))]
        if variant == "unwind":
            rig.fail(rigs.PORT_SEND, 1)
        else:
            rig.begin()
        ring.offer(*heads)
        rig.arena.freeze()
        rig.notify()
        rig.settle()
        assert ring.taken() == [(head, 0) for head in heads]
        rig.expect_quiet(_TRANSMITQ)
        assert not flipped or rig.reads == 1, f"{rig.reads} reads"
        after = rig.engine.statistics(0)
        frames = _drain(rig)
        assert after.tx_packets - before.tx_packets == len(frames)
        rig.disarm()
        rig.engine.stop_queue(_TRANSMITQ)
        if variant == "unwind":
            rig.begin()
        rig.end(ring.used_area, *flipped)
        refused = after.tx_drop_port - before.tx_drop_port
        assert refused == (variant == "unwind")
        return Sent(frames, after.tx_drop_malformed - before.tx_drop_malformed, refused)
