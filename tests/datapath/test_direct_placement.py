# SPDX-License-Identifier: MIT
"""Long frames read into the driver's buffers are what they are by way of private memory."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvnet.datapath.engine import MemoryLost
from pyvnet.datapath.filter import Filter, FilterMode
from pyvnet.datapath.memory import GuestMemory as MappedMemory
from pyvnet.driver.memory import GuestMemory, RegionSpec
from pyvnet.driver.ring_split import Buffer
from pyvnet.reference import classify
from pyvnet.reference.offload import received
from pyvnet.spec.features import Feature
from pyvnet.spec.net_hdr import NetHdr
from pyvnet.testing import frames as build
from tests.datapath import offload_cases as cases
from tests.datapath.offload_cases import FRAMES, GUEST, NEEDS_CSUM, fitting
from tests.datapath.rig import ALL_TYPES, KEY, Received, Rig, frame_of

if TYPE_CHECKING:
    from collections.abc import Sequence

LONGEST = 65557  # VNET_FRAME_MAX
HEAD = 1152  # what is read into private memory of each (VNET_RX_HEAD)
# Nothing is refused either way, but the first has to be looked at before it is placed.
LOOKED_AT = Filter(FilterMode.ALLUNI | FilterMode.ALLMULTI)
Chain = tuple[int, ...]
WHOLE: Chain = (12 + LONGEST + 8,)


class Case(NamedTuple):
    """Chains offered, then frames put on the wire one after the other."""

    header_length: int
    merge: bool
    offloads: Feature
    chains: tuple[Chain, ...]
    frames: tuple[tuple[NetHdr, bytes], ...]


def offer(rig: Rig, chains: Sequence[Chain]) -> None:
    """Give the driver's chains, each of pieces of these sizes side by side in memory."""
    queue = rig.receiveq(0)
    for sizes in chains:
        whole = Buffer(rig.memory.alloc(sum(sizes)), sum(sizes), writable=True)
        pieces, at = [], whole.gpa
        for size in sizes:
            pieces.append(Buffer(at, size, writable=True))
            at += size
        queue.ring.add(pieces, whole)
    queue.publish()


def large_rig(**values: Any) -> Rig:
    return Rig(pairs=1, queue_size=256, buffer_size=8192, **values)


def exchange(rig: Rig, header: NetHdr, frame: bytes) -> list[Received]:
    """One frame on the wire; returns what the driver sees of it."""
    rig.port.wire(0).send(frame, header=header.pack())
    # The second answer comes after a look that began later: it was read, or waits for buffers.
    rig.barrier()
    rig.barrier()
    return rig.take(0, refill=False)


def observed(case: Case, rx_filter: Filter) -> tuple[list[list[Received]], Any]:
    with large_rig() as rig:
        rig.policy(
            "automatic",
            header_length=case.header_length,
            merge_rx=case.merge,
            guest_offloads=case.offloads,
            rx_filter=rx_filter,
        )
        offer(rig, case.chains)
        # One that is so long that frames are long on average.
        got = [exchange(rig, *frame) for frame in (ASKS_NOTHING, *case.frames)]
        offer(rig, (WHOLE,) * 7)  # for those that wait
        rig.rounds(lambda: rig.stats(0).rx_packets + rig.stats(0).rx_drops == len(got))
        got.append(rig.take(0, refill=False))
        return got, rig.stats(0)


def filler(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


ASKS_NOTHING = (NetHdr(), frame_of(1, size=LONGEST))
LONG_CHAIN = build.Ipv6(
    extensions=[build.hop_by_hop(build.padn(250)) for _ in range(3)]
    + [build.destination_options(build.padn(150))]
)
BODIES = (
    build.build(build.Ipv4(), build.tcp(payload=filler(64000))),
    build.build(build.Ipv6(), build.tcp(payload=filler(64000))),
    build.build(build.Ipv4(), build.udp(payload=filler(64000)), vlans=[build.Vlan(5)]),
    build.build(LONG_CHAIN, build.tcp(payload=filler(62000))),
    build.build(LONG_CHAIN, build.udp(payload=filler(62000))),
    build.ethernet(0x88B5, filler(LONGEST)),
)
SIZES = st.sampled_from(
    [14, 60, 1514, HEAD - 1, HEAD, HEAD + 1, 4096, 65535, LONGEST - 1, LONGEST]
) | st.integers(60, LONGEST)
SHAPES = st.sampled_from(
    [
        WHOLE,
        (65536,),
        (4096,),
        (1536,),
        (12, 4096),
        (20, LONGEST),
        (20, HEAD, LONGEST),
        (12,),
        (20,),
        (1, 11, 4096),
        (4096,) * 17,
        (HEAD + 12,),
        (HEAD + 20, 4096),
        (100,),
        (3,) * 40,
        (8,),
    ]
)


@st.composite
def any_case(draw: st.DrawFn) -> Case:
    shape = draw(SHAPES)
    count = draw(st.sampled_from([100, 50, 20, 5, 1]))
    chains = (shape,) * max(1, min(count, 250 // len(shape), (3 << 20) // sum(shape)))
    if draw(st.booleans()):
        chains = (*chains, *draw(st.lists(SHAPES, max_size=6)), WHOLE)
    frames = []
    for _ in range(draw(st.integers(2, 5))):
        body = bytes(draw(st.sampled_from(BODIES)))[: draw(SIZES)]
        header = NetHdr()
        if draw(st.booleans()):
            header = fitting(body) if len(body) > 60 else header
            if draw(st.booleans()):
                header = cases.random_header(random.Random(draw(st.integers(0, 999))), body)
        frames.append((header, body))
    return Case(
        header_length=draw(st.sampled_from([12, 20])),
        merge=draw(st.sampled_from([True, True, False])),
        offloads=draw(st.sampled_from([GUEST, GUEST, GUEST, Feature.GUEST_CSUM, Feature(0)])),
        chains=tuple(chains),
        frames=tuple(frames),
    )


@pytest.mark.requirement("U-63", "NET-RX-02", "NET-RX-04", "OUR-RX-20", "U-55", "OUR-OFL-05")
@settings(max_examples=200, deadline=None)
@given(case=any_case())
def test_whatever_comes_the_driver_sees_the_same(case: Case) -> None:
    (by_hand, counted), (direct, other) = observed(case, LOOKED_AT), observed(case, Filter())
    assert direct == by_hand
    assert counted.rx_direct == 0
    same = {"rx_direct": 0, "rx_notifications": 0, "rx_kicks": 0}
    assert replace(other, **same) == replace(counted, **same)


@pytest.mark.requirement("U-63", "NET-RX-10")
@pytest.mark.parametrize("header_length", [12, 20])
@pytest.mark.parametrize("shape", [WHOLE, (4096,), (1536,), (20, LONGEST)])
def test_a_long_frame_after_another_is_placed_without_a_copy(
    header_length: int, shape: Chain
) -> None:
    frame = FRAMES["tcp4 of 64 KiB"]
    with large_rig() as rig:
        rig.policy("automatic", header_length=header_length, guest_offloads=GUEST)
        offer(rig, (shape,) * (250 // (len(shape) * (1 if sum(shape) < LONGEST else 16))))
        assert exchange(rig, fitting(frame), frame)
        assert rig.stats(0).rx_direct == 0  # nobody knew that it would be long
        (got,) = exchange(rig, fitting(frame), frame)
        assert got.data == frame
        assert got.header.gso_type == cases.TCPV4
        assert got.buffers == -(-(header_length + len(frame)) // sum(shape))
        if header_length == 20:
            hashed = classify(frame, ALL_TYPES, KEY)
            assert (got.header.hash_value, got.header.hash_report) == (hashed.value, hashed.report)
        assert rig.stats(0).rx_direct == 1


@pytest.mark.requirement("U-63")
def test_a_short_frame_among_long_ones_changes_nothing() -> None:
    with large_rig() as rig:
        rig.policy("automatic", guest_offloads=GUEST)
        offer(rig, (WHOLE,) * 16)
        for size in (60000, 60000, 60, 60000, 1514, HEAD, 60000):
            (got,) = exchange(rig, NetHdr(), frame_of(1, size=size))
            assert got.data == frame_of(1, size=size)
        assert rig.stats(0).rx_direct == 4  # all but the first that are longer than what is judged
        offer(rig, ((256,),) * 100)
        for serial in range(100):
            assert exchange(rig, NetHdr(), frame_of(1, serial))
        offer(rig, (WHOLE,) * 9)
        assert exchange(rig, NetHdr(), frame_of(1, size=60000))
        assert rig.stats(0).rx_direct == 4  # where frames are short they are read in batches


@pytest.mark.requirement("U-43", "U-63")
@pytest.mark.parametrize("policy_change", [False, True])
def test_a_long_frame_that_finds_no_buffer_waits_where_it_is(*, policy_change: bool) -> None:
    frames = [filler(30000, seed) for seed in range(4)]
    with large_rig() as rig:
        rig.policy("automatic", guest_offloads=GUEST)
        offer(rig, (WHOLE,) * 2)
        assert exchange(rig, NetHdr(), frames[0])
        assert exchange(rig, NetHdr(), frames[1])
        for frame in frames[2:]:
            rig.port.wire(0).send(frame)
        rig.barrier()
        rig.barrier()
        assert rig.stats(0).rx_port_frames == 2
        if policy_change:
            rig.policy("automatic", guest_offloads=GUEST, mtu=30000)
            rig.rounds(lambda: rig.stats(0).rx_port_frames == 3)
        offer(rig, (WHOLE,) * 2)
        rig.rounds(lambda: rig.stats(0).rx_packets == 4)
        assert [got.data for got in rig.take(0)] == frames[2:]
        rig.assert_counters_add_up()


@pytest.mark.requirement("U-63")
@pytest.mark.parametrize(
    "settings_",
    [
        {"rx_filter": Filter(FilterMode.NOUNI)},
        {"rx_filter": Filter(0)},
        {"mtu": 1500, "guest_offloads": Feature.GUEST_CSUM},
    ],
    ids=["no unicast", "another's address", "mtu"],
)
def test_what_may_be_refused_is_not_placed_before(settings_: dict[str, Any]) -> None:
    """No byte of it is in the driver's buffers, whatever came before."""
    frame = frame_of(1, size=60000)
    with large_rig() as rig:
        rig.policy("automatic", guest_offloads=GUEST)
        offer(rig, (WHOLE,) * 2)
        assert exchange(rig, NetHdr(), frame)
        assert exchange(rig, NetHdr(), frame)
        assert rig.stats(0).rx_direct == 1
        rig.policy("automatic", **{"guest_offloads": GUEST, **settings_})
        gpa, size = rig.memory.alloc(sum(WHOLE)), sum(WHOLE)
        rig.memory.write(gpa, b"\xa5" * size)
        buffer = Buffer(gpa, size, writable=True)
        rig.receiveq(0).ring.add([buffer], buffer)
        rig.receiveq(0).publish()
        assert exchange(rig, NetHdr(), frame) == []
        assert rig.stats(0).rx_drops == 1
        assert rig.memory.read(gpa, size) == b"\xa5" * size


@pytest.mark.requirement("U-63", "NET-RSS-03")
@pytest.mark.parametrize("mode", ["rss", "automatic"])
def test_a_frame_whose_queue_is_chosen_after_it_was_read_goes_where_it_belongs(mode: str) -> None:
    frame = FRAMES["tcp4 of 64 KiB"]
    with Rig(pairs=2, queue_size=64, buffer_size=70000, buffers=20) as rig:
        rig.policy(mode, guest_offloads=GUEST, pairs=1 if mode == "automatic" else 2,
                   indirection_table=(0,))  # fmt: skip
        for _ in range(4):
            rig.port.wire(1).send(frame, header=fitting(frame).pack())
            (got,) = rig.receive(1)
            assert (got.queue, got.data) == (0, frame)
        assert rig.totals().rx_direct == 0


@pytest.mark.requirement("OUR-OFL-05", "U-41", "U-43")
@pytest.mark.parametrize(
    "then", [Feature(0), Feature.GUEST_CSUM, GUEST], ids=["off", "csum", "all"]
)
def test_a_switch_of_offloads_holds_for_the_next_frame(then: Feature) -> None:
    asked = NetHdr(NEEDS_CSUM, csum_start=34, csum_offset=16)
    frame = FRAMES["tcp4 of 64 KiB"]
    with large_rig() as rig:
        offer(rig, (WHOLE,) * 8)
        for on in (GUEST, then, GUEST):
            rig.policy("automatic", guest_offloads=on)
            for header in (asked, fitting(frame)):
                seen = exchange(rig, header, frame)
                told = received(header, frame, on)
                expected = [(told[0].flags, told[1])] if told else []
                assert [(got.header.flags, got.data) for got in seen] == expected
        assert rig.stats(0).rx_drop_offload == (then != GUEST)
        assert rig.stats(0).rx_csum_completed == (not then)


@pytest.mark.requirement("U-63")
def test_a_frame_longer_than_any_is_lost_and_counted() -> None:
    with large_rig() as rig:
        rig.policy("automatic", guest_offloads=GUEST)
        offer(rig, (WHOLE,) * 4)
        assert exchange(rig, *ASKS_NOTHING)
        for more in (1, 2, 5000):
            assert exchange(rig, NetHdr(), bytes(LONGEST + more)) == []
        assert rig.stats(0).rx_drop_port == 3
        assert exchange(rig, NetHdr(), bytes(LONGEST))[0].data == bytes(LONGEST)


def test_memory_that_is_gone_is_reported_and_the_frame_counted() -> None:
    far = 1 << 40
    with large_rig() as rig, GuestMemory([RegionSpec(far, 1 << 20)]) as doomed:
        rig.policy("automatic", guest_offloads=GUEST)
        offer(rig, (WHOLE,))
        with MappedMemory((*rig.memory.regions, *doomed.regions)) as mapped:
            rig.engine.set_memory(mapped)
        assert exchange(rig, *ASKS_NOTHING)
        buffer = Buffer(far, 1 << 20, writable=True)
        rig.receiveq(0).ring.add([buffer], buffer)
        rig.receiveq(0).publish()
        os.ftruncate(doomed.regions[0].fd, 0)
        assert exchange(rig, NetHdr(), frame_of(1, size=30000)) == []
        rig.rounds(lambda: rig.stats(0).rx_drop_port == 1)
        assert rig.engine.next_event() == MemoryLost()
        rig.assert_counters_add_up()
        rig.swap_memory()
