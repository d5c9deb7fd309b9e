# SPDX-License-Identifier: MIT
"""The driver's end of the split ring against an independent walker (plain_device.py)."""

from __future__ import annotations

import contextlib
import random
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvnet.driver import Buffer, DeviceViolation, GuestMemory, RegionSpec, RingFullError, SplitRing
from pyvnet.driver.ring_split import Chain, cut_buffer
from pyvnet.errors import UsageError
from tests.driver.plain_device import PlainMemory, PlainRing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@contextmanager
def both_ends(
    size: int,
    *,
    event_idx: bool = False,
    indirect: bool = False,
    in_order: bool = False,
    start: int = 0,
) -> Iterator[tuple[SplitRing, PlainRing]]:
    """A ring, and the device's end of it over its own mapping."""
    with GuestMemory(1 << 20) as memory:
        ring = SplitRing(
            memory, size, event_idx=event_idx, indirect=indirect, in_order=in_order, start=start
        )
        device_memory = PlainMemory(memory.regions)
        yield ring, PlainRing(device_memory, ring.setup(0), event_idx=event_idx)
        device_memory.close()


def pieces(ring: SplitRing, *lengths: int, writable: int = 0) -> list[Buffer]:
    """Fresh buffers of these lengths, the last ``writable`` of them writable."""
    first = len(lengths) - writable
    return [Buffer(ring.memory.alloc(n), n, i >= first) for i, n in enumerate(lengths)]


def used(ring: SplitRing) -> tuple[Chain, int]:
    item = ring.poll()
    assert item is not None
    return item.chain, item.length


@pytest.mark.parametrize("size", [1, 2, 64, 32768])
def test_the_layout_keeps_the_alignments_of_the_standard(size: int) -> None:
    with GuestMemory(8 << 20) as memory:
        memory.alloc(1)
        ring = SplitRing(memory, size)
        assert ring.desc_table % 16 == 0
        assert ring.avail_ring % 2 == 0
        assert ring.used_ring % 4 == 0
        ends = [
            (ring.desc_table, 16 * size),
            (ring.avail_ring, 6 + 2 * size),
            (ring.used_ring, 6 + 8 * size),
        ]
        for gpa, length in ends:
            assert not any(memory.read(gpa, length))
        assert ring.desc_table + 16 * size <= ring.avail_ring
        assert ring.avail_ring + 6 + 2 * size <= ring.used_ring


@pytest.mark.parametrize("size", [0, 3, 65536, -1])
def test_what_is_no_queue_size_is_refused(size: int) -> None:
    with GuestMemory(4096) as memory, pytest.raises(UsageError, match="not a queue size"):
        SplitRing(memory, size)


def test_a_ring_can_lie_in_a_region_of_choice() -> None:
    specs = [RegionSpec(0x10000, 0x10000), RegionSpec(0x40000, 0x10000)]
    with GuestMemory(specs) as memory:
        ring = SplitRing(memory, 8, region=1)
        assert min(ring.desc_table, ring.avail_ring, ring.used_ring) >= 0x40000


def test_a_chain_arrives_as_it_was_added_and_comes_back_with_its_token() -> None:
    with both_ends(4) as (ring, device):
        buffers = pieces(ring, 10, 20, 30, writable=1)
        ring.memory.write(buffers[0].gpa, b"0123456789")
        ring.add(buffers, "token")
        assert device.pop() is None, "visible before publish"
        assert ring.publish()
        chain = device.pop()
        assert chain is not None
        assert chain.readable == [(b.gpa, b.length) for b in buffers[:2]]
        assert chain.writable == [(b.gpa, b.length) for b in buffers[2:]]
        assert device.gather(chain)[:10] == b"0123456789"
        device.scatter(chain, b"answer")
        device.push(chain.head, 6)
        assert ring.poll() is None, "visible before the device published"
        device.publish()
        done, length = used(ring)
        assert (done.token, length, ring.outstanding, ring.free_descriptors) == ("token", 6, 0, 4)
        assert ring.memory.read(buffers[2].gpa, 6) == b"answer"
        assert ring.poll() is None


@pytest.mark.parametrize("in_order", [False, True])
@pytest.mark.parametrize("spent", [0, 1, 3], ids="{} descriptors came back before".format)
def test_many_buffers_at_once_arrive_and_come_back_as_if_added_one_by_one(
    spent: int, in_order: bool
) -> None:
    with both_ends(4, start=0xFFFD, in_order=in_order) as (ring, device):
        for _ in range(spent):  # the last to come back is the first to go, but in order
            ring.add_one(0x1000, 1, writable=False)
        ring.publish()
        for head in [chain.head for chain in iter(device.pop, None)]:
            device.push(head, 0)
        device.publish()
        while ring.poll() is not None:
            pass
        for _ in range(2):
            gpas = ring.memory.alloc_many(100, 3)
            ring.add_each(gpas, 100, lambda gpa, length: (gpa, length))
            assert device.pop() is None, "visible before publish"
            assert (ring.outstanding, ring.free_descriptors) == (3, 1)
            with pytest.raises(RingFullError):
                ring.add_each(gpas, 100, lambda gpa, length: (gpa, length))
            assert ring.publish()
            for gpa in gpas:
                chain = device.pop()
                assert chain is not None
                assert (chain.readable, chain.writable) == ([], [(gpa, 100)])
                device.push(chain.head, 100)
                device.publish()
                done, length = used(ring)
                assert (done.token, length) == ((gpa, 100), 100)
            assert device.pop() is None
            assert (ring.outstanding, ring.free_descriptors) == (0, 4)


def test_what_came_back_of_many_buffers_is_judged_as_of_any_other() -> None:
    with both_ends(4) as (ring, device):
        ring.add_each([0x1000, 0x2000], 100, lambda gpa, length: (gpa, length))
        ring.publish()
        device.push(0, 101)
        device.publish()
        with pytest.raises(DeviceViolation, match=r"used\.len is 101 for a chain with 100"):
            ring.poll()


def test_many_buffers_of_no_length_are_refused() -> None:
    with both_ends(4) as (ring, _), pytest.raises(UsageError, match="empty"):
        ring.add_each([0x1000], 0, lambda *_: None)
    with both_ends(4) as (ring, _):
        ring.add_each([], 1, lambda *_: None)
        assert not ring.publish(), "of no buffers nothing is staged"


def test_one_buffer_at_a_time_reads_or_is_written_and_has_its_limits() -> None:
    with both_ends(2) as (ring, device):
        ring.add_one(0x1000, 5, "out", writable=False)
        ring.add_one(0x2000, 0xFFFF_FFFF, "in", writable=True)
        with pytest.raises(RingFullError):
            ring.add_one(0x3000, 1, writable=True)
        for length in (0, -1, 1 << 32):
            with pytest.raises(UsageError, match="a chain of"):
                ring.add_one(0x3000, length, writable=True)
        ring.publish()
        out, into = device.pop(), device.pop()
        assert out is not None
        assert (out.readable, out.writable) == ([(0x1000, 5)], [])
        assert into is not None
        assert (into.readable, into.writable) == ([], [(0x2000, 0xFFFF_FFFF)])
        device.push(out.head, 0)
        device.publish()
        assert (used(ring)[0].token,) == ("out",)


@pytest.mark.parametrize("event_idx", [False, True])
def test_a_ring_is_quiet_from_asking_for_an_interrupt_until_there_is_something(
    event_idx: bool,
) -> None:
    with both_ends(4, event_idx=event_idx) as (ring, device):
        assert not ring.quiet(), "nobody asked for an interrupt"
        ring.add_one(0x1000, 5, writable=True)
        ring.publish()
        assert not ring.arm()
        assert ring.quiet()
        ring.disarm()
        assert not ring.quiet(), "nobody would be told"
        assert not ring.arm()
        chain = device.pop()
        assert chain is not None
        device.push(chain.head, 5)
        device.publish()
        assert not ring.quiet()
        used(ring)
        assert not ring.quiet(), "the interrupt that was asked for has been"
        assert not ring.arm()
        assert ring.quiet()


@pytest.mark.parametrize("direct_prefix", [0, 1, 2])
def test_indirect_tables_with_and_without_direct_descriptors_in_front(direct_prefix: int) -> None:
    with both_ends(4, indirect=True) as (ring, device):
        buffers = pieces(ring, 1, 2, 3, writable=1)
        chain = ring.add(buffers, indirect=True, direct_prefix=direct_prefix)
        assert len(chain.descriptors) == direct_prefix + 1
        table = chain.table
        ring.publish()
        seen = device.pop()
        assert seen is not None
        assert [n for _, n in seen.readable + seen.writable] == [1, 2, 3]
        device.push(seen.head, 0)
        device.publish()
        used(ring)
        assert ring.memory.alloc(16 * (3 - direct_prefix)) == table, "the table was not given back"


def test_indirect_is_chosen_when_it_was_negotiated_and_pays() -> None:
    with both_ends(2, indirect=True) as (ring, _):
        assert ring.add(pieces(ring, 1)).table == 0
        assert ring.add(pieces(ring, 1, 1, 1)).table != 0
    with both_ends(2) as (ring, _):
        with pytest.raises(UsageError, match="not negotiated"):
            ring.add(pieces(ring, 1, 1), indirect=True)
        assert ring.free_descriptors == 2


@pytest.mark.parametrize(
    ("shape", "match"),
    [
        ([], "0 bytes"),
        ([(0, False)], "empty"),
        ([(1, True), (1, False)], "behind a writable"),
        ([(0xFFFFFFFF, True), (1, True)], "4294967296 bytes"),
        ([(1, False)] * 3, "queue of 2"),
    ],
)
def test_chains_the_standard_forbids_are_refused(
    shape: Sequence[tuple[int, bool]], match: str
) -> None:
    with both_ends(2) as (ring, _):
        with pytest.raises(UsageError, match=match):
            ring.add([Buffer(0x4000_0000, length, writable) for length, writable in shape])
        assert (ring.free_descriptors, ring.outstanding) == (2, 0)


def test_a_full_ring_says_so_and_stages_nothing() -> None:
    with both_ends(2) as (ring, device):
        ring.add(pieces(ring, 1))
        with pytest.raises(RingFullError):
            ring.add(pieces(ring, 1, 1))
        ring.publish()
        assert device.available == 1


def test_kicks_without_event_idx_follow_the_used_flag() -> None:
    with both_ends(4) as (ring, device):
        assert not ring.publish(), "nothing was staged"
        ring.add(pieces(ring, 1))
        assert ring.publish()
        device.set_used_flags(1)
        ring.add(pieces(ring, 1))
        assert not ring.publish()
        device.set_used_flags(0)
        ring.add(pieces(ring, 1))
        assert ring.publish()


@pytest.mark.parametrize("start", [0, 5, 65530, 65535])
def test_kicks_with_event_idx_come_exactly_when_avail_event_is_passed(start: int) -> None:
    """Invariant: a kick is due iff entry number avail_event became visible in this publish."""
    with both_ends(16, event_idx=True, start=start) as (ring, device):
        device.set_used_flags(1)  # not the flags' business any more
        for batch in (1, 2, 3):
            for offset in range(-2, 5):
                event = (device.taken + offset) & 0xFFFF
                device.set_avail_event(event)
                for _ in range(batch):
                    ring.add(pieces(ring, 1))
                assert ring.publish() == (0 <= offset < batch), (batch, offset)
                while (chain := device.pop()) is not None:
                    device.push(chain.head, 0)
                device.publish()
                while ring.poll() is not None:
                    pass


def test_interrupts_without_event_idx_are_asked_for_by_flag() -> None:
    with both_ends(4) as (ring, device):
        ring.disarm()
        assert device.memory.number(ring.avail_ring, "H") == 1
        ring.add(pieces(ring, 1))
        ring.publish()
        chain = device.pop()
        assert chain is not None
        assert not ring.arm()
        assert device.memory.number(ring.avail_ring, "H") == 0
        device.push(chain.head, 0)
        assert device.publish()
        assert ring.arm(), "the second look must see what is there"


def test_interrupts_with_event_idx_are_asked_for_by_number() -> None:
    with both_ends(8, event_idx=True, start=65534) as (ring, device):
        for _ in range(6):
            ring.add(pieces(ring, 1))
        ring.publish()
        ring.disarm()
        assert device.memory.number(ring.avail_ring, "H") == 0, "the flag stays 0 with EVENT_IDX"
        assert not ring.arm(later=2)
        notified = []
        for _ in range(5):
            chain = device.pop()
            assert chain is not None
            device.push(chain.head, 0)
            notified.append(device.publish())
        assert notified == [False, False, True, False, False]
        assert ring.arm()
        assert ring.arm(later=4)
        assert not ring.arm(later=5)


# --- the device breaks a rule ----------------------------------------------------------


def test_an_id_that_is_not_outstanding_is_a_violation() -> None:
    for head in (1, 4, 0xFFFFFFFF):
        with both_ends(4) as (ring, device):
            ring.add(pieces(ring, 1))
            ring.publish()
            device.push(head, 0)
            device.publish()
            with pytest.raises(DeviceViolation, match=f"id {head}, which is not outstanding"):
                ring.poll()


def test_the_same_id_twice_is_a_violation() -> None:
    with both_ends(4) as (ring, device):
        chain = ring.add(pieces(ring, 1))
        ring.add(pieces(ring, 1))
        ring.publish()
        device.push(chain.head, 0)
        device.push(chain.head, 0)
        device.publish()
        used(ring)
        with pytest.raises(DeviceViolation, match="not outstanding"):
            ring.poll()


@pytest.mark.requirement("VIO-FEAT-08")
def test_in_order_a_chain_out_of_its_turn_is_a_violation() -> None:
    with both_ends(4, in_order=True) as (ring, device):
        chains = [ring.add(pieces(ring, 1)) for _ in range(3)]
        ring.publish()
        for chain in (chains[0], chains[2]):
            device.push(chain.head, 0)
        device.publish()
        used(ring)
        with pytest.raises(DeviceViolation, match="names id 2, but 1 came first"):
            ring.poll()


@pytest.mark.requirement("VIO-FEAT-08")
def test_in_order_descriptors_are_used_round_the_table() -> None:
    with both_ends(8, in_order=True) as (ring, device):
        heads: list[int] = []
        for turn in range(20):
            chain = ring.add(pieces(ring, *([1] * (1 + turn % 3))))
            heads += chain.descriptors
            ring.publish()
            device.push(chain.head, 0)
            device.publish()
            used(ring)
        assert heads == [i % 8 for i in range(len(heads))]


@pytest.mark.parametrize("indirect", [False, True])
def test_more_bytes_than_are_writable_is_a_violation(indirect: bool) -> None:
    with both_ends(4, indirect=indirect) as (ring, device):
        chain = ring.add(pieces(ring, 100, 7, 5, writable=2))
        ring.publish()
        device.push(chain.head, 13)
        device.publish()
        with pytest.raises(DeviceViolation, match=r"used\.len is 13 for a chain with 12 writable"):
            ring.poll()


@pytest.mark.parametrize("by", [2, 5, 32768, 65535])
def test_a_used_index_beyond_what_is_outstanding_is_a_violation(by: int) -> None:
    with both_ends(4) as (ring, device):
        ring.add(pieces(ring, 1))
        ring.publish()
        ring.add(pieces(ring, 1))  # staged only: the device cannot have it
        device.memory.write(ring.used_ring + 2, struct.pack("<H", by))
        with pytest.raises(DeviceViolation, match="1 chains are outstanding"):
            ring.poll()


# --- at random -------------------------------------------------------------------------


def test_cuts_cover_the_buffer_without_gaps() -> None:
    assert cut_buffer(100, 10, (3, 4), writable=True) == [
        Buffer(100, 3, True), Buffer(103, 4, True), Buffer(107, 3, True),
    ]  # fmt: skip
    assert cut_buffer(100, 10, (10, 0, 20), writable=False) == [Buffer(100, 10)]


@given(
    size=st.sampled_from([1, 2, 8, 64]),
    event_idx=st.booleans(),
    indirect=st.booleans(),
    start=st.sampled_from([0, 1, 65500, 65535]),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_random_traffic_loses_nothing_and_leaves_the_ring_empty(
    size: int, event_idx: bool, indirect: bool, start: int, seed: int
) -> None:
    """Invariant: every chain comes back once, with its token, in whatever order."""
    rng = random.Random(seed)
    with both_ends(size, event_idx=event_idx, indirect=indirect, start=start) as (ring, device):
        gpa = ring.memory.alloc(64)
        sent, back, held = [], list[object](), list[int]()
        for number in range(200):
            count = rng.randint(1, size + 2 if indirect else size)
            cuts = [Buffer(gpa, rng.randint(1, 64), False) for _ in range(count)]
            with contextlib.suppress(UsageError):  # full, or larger than the ring
                ring.add(cuts, number, indirect=indirect and rng.random() < 0.7)
                sent.append(number)
            if rng.random() < 0.5:
                ring.publish()
            _device_turn(rng, device, held)
            while rng.random() < 0.8 and (item := ring.poll()) is not None:
                back.append(item.chain.token)
        ring.publish()
        while device.available or held or device.shown != device.used:
            _device_turn(rng, device, held)
        while (item := ring.poll()) is not None:
            back.append(item.chain.token)
        assert sorted(back, key=str) == sorted(sent, key=str)
        assert (ring.outstanding, ring.free_descriptors) == (0, size)


def _device_turn(rng: random.Random, device: PlainRing, held: list[int]) -> None:
    """Take some chains, give some of those in hand back in any order, perhaps show them."""
    while rng.random() < 0.6 and (chain := device.pop()) is not None:
        held.append(chain.head)
    rng.shuffle(held)
    while held and rng.random() < 0.6:
        device.push(held.pop(), 0)
    if rng.random() < 0.5:
        device.publish()
