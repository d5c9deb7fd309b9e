# SPDX-License-Identifier: MIT
"""Every forgery is in memory exactly as its name says: judged from raw bytes."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

import pytest

from pyvnet.driver import Buffer, GuestMemory, SplitRing
from pyvnet.driver.misbehave import UNMAPPED_GPA, Forger
from pyvnet.spec.ring import Desc
from tests.driver.plain_device import PlainMemory, PlainRing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyvnet.driver.ring_split import Chain

SIZE = 8
NEXT, WRITE, INDIRECT = 1, 2, 4


class Bench(NamedTuple):
    ring: SplitRing
    forger: Forger
    device: PlainRing
    buffers: list[Buffer]

    def shown(self, chain: Chain) -> list[tuple[int, int, int, int]]:
        """Publish, and read the chain's descriptors as raw memory."""
        self.ring.publish()
        assert self.device.available == 1
        slot = self.device.setup.avail_ring + 4 + 2 * (self.device.taken % SIZE)
        assert self.device.memory.number(slot, "H") == chain.head
        return [self.desc(self.ring.desc_table, index) for index in chain.descriptors]

    def desc(self, table: int, index: int) -> tuple[int, int, int, int]:
        gpa, length, flags, following = struct.unpack(
            "<QIHH", self.device.memory.read(table + 16 * index, 16)
        )
        return gpa, length, flags, following


@pytest.fixture
def bench() -> Iterator[Bench]:
    with GuestMemory(1 << 16) as memory:
        ring = SplitRing(memory, SIZE, indirect=True)
        seen = PlainMemory(memory.regions)
        buffers = [
            Buffer(memory.alloc(n), n, writable) for n, writable in ((16, False), (32, True))
        ]
        yield Bench(ring, Forger(ring), PlainRing(seen, ring.setup(0)), buffers)
        seen.close()


def test_loop_leads_back_to_its_head(bench: Bench) -> None:
    chain = bench.forger.loop(bench.buffers)
    first, last = bench.shown(chain)
    assert (first[2], first[3]) == (NEXT, chain.descriptors[1])
    assert (last[2], last[3]) == (NEXT | WRITE, chain.head)


def test_a_loop_of_one_leads_to_itself(bench: Bench) -> None:
    chain = bench.forger.loop(bench.buffers[:1])
    assert bench.shown(chain)[0][2:] == (NEXT, chain.head)


@pytest.mark.parametrize("beyond", [None, SIZE, 0xFFFF])
def test_next_out_of_range(bench: Bench, beyond: int | None) -> None:
    chain = bench.forger.next_out_of_range(bench.buffers, next_index=beyond)
    assert bench.shown(chain)[-1][2:] == (NEXT | WRITE, SIZE if beyond is None else beyond)


@pytest.mark.parametrize("at", [0, 1])
def test_zero_length_with_and_without_a_bad_address(bench: Bench, at: int) -> None:
    good = bench.shown(bench.forger.zero_length(bench.buffers, at=at))[at]
    assert good[:2] == (bench.buffers[at].gpa, 0)
    bench.device.taken += 1
    bad = bench.shown(bench.forger.zero_length(bench.buffers, at=at, gpa=UNMAPPED_GPA))[at]
    assert bad[:2] == (UNMAPPED_GPA, 0)


@pytest.mark.parametrize("at", [0, 1])
def test_unmapped_changes_one_address(bench: Bench, at: int) -> None:
    descs = bench.shown(bench.forger.unmapped(bench.buffers, at=at))
    assert [desc[0] == UNMAPPED_GPA for desc in descs] == [at == 0, at == 1]


def test_wrong_direction_swaps_every_flag(bench: Bench) -> None:
    flags = [desc[2] for desc in bench.shown(bench.forger.wrong_direction(bench.buffers))]
    assert flags == [NEXT | WRITE, 0]


def test_as_given_checks_nothing(bench: Bench) -> None:
    huge = [Buffer(bench.buffers[0].gpa, 0xFFFFFFFF, True), *bench.buffers]
    descs = bench.shown(bench.forger.as_given(huge))
    assert [(desc[1], desc[2]) for desc in descs] == [
        (0xFFFFFFFF, NEXT | WRITE), (16, NEXT), (32, WRITE),
    ]  # fmt: skip


def test_nested_indirect(bench: Bench) -> None:
    ((table, length, flags, _),) = bench.shown(bench.forger.nested_indirect(bench.buffers))
    assert (length, flags) == (16, INDIRECT)
    inner, length, flags, _ = bench.desc(table, 0)
    assert (length, flags) == (32, INDIRECT)
    assert bench.desc(inner, 0)[0] == bench.buffers[0].gpa


def test_indirect_and_next(bench: Bench) -> None:
    chain = bench.forger.indirect_and_next(bench.buffers)
    first, second = bench.shown(chain)
    assert first[1:] == (32, INDIRECT | NEXT, chain.descriptors[1])
    assert second[0] == bench.buffers[-1].gpa


def test_indirect_loop_and_out_of_range(bench: Bench) -> None:
    ((table, _, _, _),) = bench.shown(bench.forger.indirect_loop(bench.buffers))
    assert bench.desc(table, 1)[2:] == (NEXT | WRITE, 0)
    bench.device.taken += 1
    chain = bench.forger.indirect_next_out_of_range(bench.buffers)
    ((table, _, _, _),) = bench.shown(chain)
    assert bench.desc(table, 1)[2:] == (NEXT | WRITE, 2)


@pytest.mark.parametrize("length", [0, 15, 17, 0xFFFFFFF0])
def test_indirect_length(bench: Bench, length: int) -> None:
    ((_, seen, flags, _),) = bench.shown(bench.forger.indirect_length(bench.buffers, length))
    assert (seen, flags) == (length, INDIRECT)


def test_indirect_unmapped(bench: Bench) -> None:
    ((table, *_),) = bench.shown(bench.forger.indirect_unmapped(bench.buffers))
    assert table == UNMAPPED_GPA


def test_the_legal_oddities_are_walked_like_any_other_chain(bench: Bench) -> None:
    odd = bench.forger.indirect_odd_address(bench.buffers, "odd", offset=3)
    ((table, _, flags, _),) = bench.shown(odd)
    assert (table % 16, flags) == (3, INDIRECT)
    flagged = bench.forger.indirect_write_flag(bench.buffers, "flagged")
    bench.ring.publish()
    assert bench.desc(bench.ring.desc_table, flagged.head)[2] == INDIRECT | WRITE
    for token in ("odd", "flagged"):
        seen = bench.device.pop()
        assert seen is not None
        assert seen.readable == [(bench.buffers[0].gpa, 16)]
        assert seen.writable == [(bench.buffers[1].gpa, 32)]
        bench.device.push(seen.head, 0)
        bench.device.publish()
        item = bench.ring.poll()
        assert item is not None
        assert item.chain.token == token
    assert bench.ring.free_descriptors == SIZE


def test_an_indirect_table_in_any_order(bench: Bench) -> None:
    buffers = [bench.buffers[0], *(Buffer(bench.buffers[1].gpa + i, 1, True) for i in range(3))]
    ((table, *_),) = bench.shown(bench.forger.indirect_in_order(buffers, [0, 3, 1, 2]))
    assert [bench.desc(table, i)[2:] for i in range(4)] == [
        (NEXT, 3), (NEXT | WRITE, 2), (WRITE, 0), (NEXT | WRITE, 1),
    ]  # fmt: skip
    seen = bench.device.pop()
    assert seen is not None
    assert seen.writable == [(buffer.gpa, 1) for buffer in buffers[1:]]


def test_a_forged_chain_given_back_is_no_violation(bench: Bench) -> None:
    chain = bench.forger.loop(bench.buffers, "mine")
    bench.ring.publish()
    bench.device.push(chain.head, 0)
    bench.device.publish()
    item = bench.ring.poll()
    assert item is not None
    assert (item.chain.token, item.length) == ("mine", 0)
    assert bench.ring.free_descriptors == SIZE


def test_the_same_head_twice_and_heads_that_are_none(bench: Bench) -> None:
    chain = bench.ring.add(bench.buffers)
    bench.ring.publish()
    bench.forger.stage_again(chain)
    bench.forger.stage_head(0xFFFF)
    assert bench.device.available == 3
    entries = [bench.device.memory.number(bench.ring.avail_ring + 4 + 2 * i, "H") for i in range(3)]
    assert entries == [chain.head, chain.head, 0xFFFF]


@pytest.mark.parametrize("by", [1, SIZE + 1, 32768, -1])
def test_avail_idx_jumps_and_goes_back(bench: Bench, by: int) -> None:
    bench.forger.move_avail_idx(by)
    assert bench.forger.avail_idx == by & 0xFFFF
    assert bench.device.memory.number(bench.ring.avail_ring + 2, "H") == by & 0xFFFF


def test_single_words(bench: Bench) -> None:
    bench.forger.set_avail_flags(0xFFFE)
    bench.forger.set_used_event(-1)
    bench.forger.set_avail_entry(3, 77)
    bench.forger.write_desc(5, Desc(1, 2, 0xFFF8, 4))
    number = bench.device.memory.number
    assert number(bench.ring.avail_ring, "H") == 0xFFFE
    assert number(bench.ring.avail_ring + 4 + 2 * SIZE, "H") == 0xFFFF
    assert number(bench.ring.avail_ring + 4 + 2 * 3, "H") == 77
    assert bench.desc(bench.ring.desc_table, 5) == (1, 2, 0xFFF8, 4)
