# SPDX-License-Identifier: MIT
# ruff: noqa: INP001 - a script, not a package
"""Write the seeds of the ring fuzzers: one small guest for every way to walk a ring.

    make_ring_corpus.py FOLDER    writes FOLDER/vring_split/seed-* and FOLDER/ctrl/seed-*

Beside them lie inputs libFuzzer found, minimised with -merge=1.  Formats:
fuzz_vring_split.c and fuzz_ctrl.c (options, memory image, steps).
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import NamedTuple

NEXT, WRITE, INDIRECT = 1, 2, 4
BUFFERS = 0x2000  # guest address where buffers lie
SIZE = 8
EVENT_IDX, INDIRECT_DESC, HIGH, ODD = 4, 8, 32, 64  # options: features, place of the rings
HOLE, TOUCHING, SWAPPED, ONE = 3, 2, 1, 0  # image_layouts, last first


class Desc(NamedTuple):
    """One descriptor."""

    addr: int
    length: int
    flags: int = 0
    next: int = 0

    def pack(self) -> bytes:
        """As it lies in memory."""
        return struct.pack("<QIHH", *self)


def table(*descs: Desc) -> bytes:
    """Descriptors that lie side by side."""
    return b"".join(desc.pack() for desc in descs)


def guest(
    descs: bytes,
    heads: tuple[int, ...] = (0,),
    *,
    rest: bytes = b"",
    gap: int = 0,
    idx: int | None = None,
) -> bytes:
    """Memory from the descriptor table on; ``rest`` follows the rings after ``gap`` bytes."""
    used = struct.pack("<HH", 0, 0) + bytes(8 * SIZE + 2)
    index = len(heads) if idx is None else idx
    ring = struct.pack("<HH", 0, index)
    ring += b"".join(head.to_bytes(2, "little") for head in heads)
    image = descs.ljust(16 * SIZE, b"\0") + ring.ljust(6 + 2 * SIZE, b"\0")
    image = image.ljust((len(image) + 3) // 4 * 4, b"\0") + used
    return image + bytes(gap) + rest


def case(flags: int, image: bytes, steps: bytes) -> bytes:
    """Put one input together; rings of 8 entries that begin at index 0."""
    return bytes((flags, 3, 0, 0)) + len(image).to_bytes(2, "little") + image + steps


_RINGS = len(guest(b""))


def images() -> dict[str, tuple[int, bytes]]:
    """Name → options and memory."""
    chain = table(
        Desc(BUFFERS, 12, NEXT, 1),
        Desc(BUFFERS + 0x40, 50, NEXT, 2),
        Desc(BUFFERS + 0x80, 1, WRITE),
    )
    indirect = Desc(_RINGS, 48, INDIRECT | WRITE)
    nested = table(Desc(BUFFERS, 20, NEXT, 1), Desc(_RINGS, 16, INDIRECT))
    border = 0x1078  # a table there has its first entry on both sides of 0x1080
    receive = table(*(Desc(BUFFERS + 64 * i, 64, WRITE) for i in range(SIZE)))
    huge = table(Desc(0, 0xFFFFFFFF, NEXT, 1), Desc(0, 0xFFFFFFFF, NEXT, 2), Desc(0, 0, WRITE))
    crossing = table(Desc(0xFF0, 0x200, NEXT, 1), Desc(0x1070, 0x20, WRITE))
    return {
        "chain": (EVENT_IDX, guest(chain)),
        "indirect": (INDIRECT_DESC, guest(table(indirect), rest=chain)),
        "indirect-cut": (
            INDIRECT_DESC | TOUCHING | HIGH,
            guest(table(Desc(border, 48, INDIRECT)), gap=border - 0xF80 - _RINGS, rest=chain),
        ),
        "indirect-hole": (
            INDIRECT_DESC | HOLE,
            guest(table(Desc(0xFF0, 48, INDIRECT)), rest=chain),
        ),
        "indirect-loop": (
            INDIRECT_DESC,
            guest(
                table(indirect),
                rest=table(Desc(BUFFERS, 1, NEXT, 1), Desc(BUFFERS, 1, NEXT, 0), Desc(0, 1)),
            ),
        ),
        "indirect-next": (
            INDIRECT_DESC,
            guest(table(indirect), rest=table(Desc(BUFFERS, 1, NEXT, 3))),
        ),
        "indirect-not-negotiated": (0, guest(table(indirect), rest=chain)),
        "indirect-with-next": (
            INDIRECT_DESC,
            guest(table(Desc(_RINGS, 48, INDIRECT | NEXT, 1)), rest=chain),
        ),
        "indirect-nested": (INDIRECT_DESC, guest(table(indirect), rest=nested)),
        "indirect-behind-chain": (
            INDIRECT_DESC,
            guest(table(Desc(BUFFERS, 5, NEXT, 1), indirect), rest=chain),
        ),
        "loop": (0, guest(table(Desc(BUFFERS, 1, NEXT, 1), Desc(BUFFERS, 1, NEXT, 0)))),
        "huge": (0, guest(huge)),
        "crossing": (SWAPPED, guest(crossing)),
        "crossing-cut": (TOUCHING, guest(crossing)),
        "crossing-hole": (HOLE, guest(crossing)),
        "receive": (EVENT_IDX, guest(receive, tuple(range(SIZE)))),
        "same-head": (0, guest(receive, (1, 1))),
        "head-range": (0, guest(receive, (SIZE,))),
        "index-jump": (0, guest(receive, idx=SIZE + 1)),
        "rings-across-a-border": (HIGH | SWAPPED, guest(chain)),
        "rings-across-a-hole": (HIGH | HOLE, guest(chain)),
        "rings-misaligned": (HIGH | ODD, guest(chain)),
    }


def batches() -> dict[str, tuple[int, bytes]]:
    """Guests with many chains: what a burst meets in the middle of them."""
    buffers = [Desc(BUFFERS + 64 * i, 64) for i in range(SIZE)]
    heads = tuple(range(SIZE))
    indirect = Desc(_RINGS, 48, INDIRECT)
    part = table(Desc(BUFFERS, 12, NEXT, 1), Desc(BUFFERS + 64, 30, NEXT, 2), Desc(BUFFERS, 9))
    # One entry that is walked for as long as the table claims to be.
    endless = Desc(_RINGS, 16 * 1020, INDIRECT)

    def with_third(desc: Desc) -> bytes:
        return table(*buffers[:3], desc, *buffers[4:])

    return {
        "many": (EVENT_IDX, guest(table(*buffers), heads)),
        "many-chained": (
            0,
            guest(table(*(b._replace(flags=NEXT, next=i + 1) for i, b in enumerate(buffers[:-1]))),
                  (0, 6, 5)),
        ),
        "many-indirect": (INDIRECT_DESC, guest(with_third(indirect), heads, rest=part)),
        "malformed-among-many": (0, guest(with_third(Desc(BUFFERS, 0)), heads)),
        "address-behind-some": (0, guest(with_third(Desc(1 << 40, 64)), heads)),
        "next-behind-some": (0, guest(with_third(Desc(BUFFERS, 64, NEXT, 99)), heads)),
        "head-range-behind-some": (0, guest(table(*buffers), (0, 1, 2, SIZE))),
        "same-head-behind-some": (0, guest(table(*buffers), (0, 1, 2, 1, 3))),
        "no-room-behind-some": (
            INDIRECT_DESC,
            guest(with_third(endless), heads, rest=table(Desc(BUFFERS, 1, NEXT, 0))),
        ),
        "no-room-at-all": (
            INDIRECT_DESC,
            guest(table(endless._replace(length=16 * 1030)),
                  rest=table(Desc(BUFFERS, 1, NEXT, 0))),
        ),
        "more-than-the-ring": (0, guest(table(*buffers), heads, idx=SIZE + 1)),
    }  # fmt: skip


RING_STEPS = bytes(
    (0, 100, 0, 0, 10, 0, 3, 1, 3, 2, 0x21, 3, 4, 5, 0x26, 0x41, 3, 15, 0x17, 3, 1, 3)
)
# Bursts of 4, then of 16: some done with, the others given back, taken again; a word of the
# guest changes between; one by one behind a burst; published, and once more.
BATCH_STEPS = bytes(
    (0x6C, 2, 3, 0x1D, 3, 0x6C, 1, 0x0E, 0x30, 0, 0, 0, 0x1C, 32, 1, 3, 4, 0x26, 0x1D, 32, 3, 1, 3)
)
CTRL_STEPS = bytes((0, 0, 0x0B, 0x0B, 0, 7, 0, 0x13, 2, 0x25, 0, 4, 9, 0, 0, 0x0B))


def main() -> None:
    """Write both folders."""
    for name, (flags, image) in images().items():
        for folder, steps in (("vring_split", RING_STEPS), ("ctrl", CTRL_STEPS)):
            target = Path(sys.argv[1], folder)
            target.mkdir(parents=True, exist_ok=True)
            (target / f"seed-{name}").write_bytes(case(flags, image, steps))
    for name, (flags, image) in (images() | batches()).items():
        target = Path(sys.argv[1], "vring_split", f"seed-burst-{name}")
        target.write_bytes(case(flags, image, BATCH_STEPS))


if __name__ == "__main__":
    main()
