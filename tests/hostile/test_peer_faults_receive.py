# SPDX-License-Identifier: MIT
"""Frames towards the driver: headers, sizes, hashes and where they go (section C)."""

from __future__ import annotations

import struct
from itertools import product
from typing import TYPE_CHECKING

import pytest

from pyvnet.datapath.memory import GuestMemory
from pyvnet.datapath.policy import Policy
from pyvnet.errors import HostError
from pyvnet.reference.steer import classify, steer
from pyvnet.spec.features import Feature
from pyvnet.spec.net_hdr import header_size
from pyvnet.spec.ring import Desc
from pyvnet.spec.rss import ALL_HASH_TYPES, VERIFICATION_KEY, HashType
from pyvnet.testing import frames as build
from tests.device.support import ERR, PAIRS, rss, running, send
from tests.hostile import rig as rigs
from tests.hostile.attack import WRITE
from tests.hostile.forms import repeated, three_forms
from tests.hostile.rig import HDR, HDR_HASH, Rig, Ring, frame, guarded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyvnet.datapath.native import Native

TAGGED = build.build(build.Ipv6(), build.udp(1, 2), vlans=[build.Vlan(7)]).data
TCP = build.build(build.Ipv4(), build.tcp(1024, 80)).data
FRAMES = (TCP, TAGGED, build.build(build.Ipv6(), build.icmp()).data, frame(1), frame(2, 14))
KINDS = HashType(ALL_HASH_TYPES)


class Receiver:
    """Receiveqs of the victim, each with eight buffers of some size, and what came in."""

    def __init__(self, rig: Rig, lengths: Sequence[int], queues: Sequence[int] = (0,)) -> None:
        rig.arena.wipe()
        self.rig, self.queues = rig, queues
        self.rings = {queue: Ring(rig.arena) for queue in queues}
        self.buffers: dict[int, list[tuple[int, int]]] = {}
        for queue, ring in self.rings.items():
            areas = [(rig.arena.take(length + 1), length) for length in lengths]
            for i, (gpa, length) in enumerate(areas):
                ring.put(i, Desc(gpa, length, WRITE, 0))
            self.buffers[queue] = areas
            rig.start(ring, 2 * queue)

    def offer(self) -> None:
        for queue, ring in self.rings.items():
            ring.offer(*range(len(self.buffers[queue])))
        self.rig.arena.freeze()

    def send(self, data: bytes, port: int = 0) -> None:
        self.rig.port.wire(port).send(data)
        self.settle()

    def settle(self) -> None:
        # A frame may be read by one worker and placed by another.
        self.rig.settle(*range(self.rig.pairs))
        self.rig.settle(*range(self.rig.pairs))

    def frame(self, queue: int = 0) -> bytes:
        """Header and frame a driver finds in the used ring."""
        parts = [
            self.rig.arena.memory.read(self.buffers[queue][head][0], length)
            for head, length in self.rings[queue].taken()
        ]
        return b"".join(parts)

    def stop(self) -> None:
        self.rig.disarm()
        allowed = [ring.used_area for ring in self.rings.values()]
        for queue, ring in self.rings.items():
            self.rig.expect_quiet(2 * queue)
            self.rig.engine.stop_queue(2 * queue)
            allowed += [(self.buffers[queue][head][0], length) for head, length in ring.taken()]
        self.rig.end(*allowed)


def interfere(receiver: Receiver, variant: str, turn: int) -> None:
    """flip: the buffer's descriptor goes bad once read; unwind: new memory is not to be had."""
    rig = receiver.rig
    if variant == "flip":
        ring = receiver.rings[receiver.queues[0]]
        desc = Desc(receiver.buffers[receiver.queues[0]][0][0], 0xFFFF_FFFF, WRITE, 0)
        rig.flip(ring.desc + 8, desc.pack()[8:])
    if variant == "unwind":
        rig.fail(*((rigs.ALLOC, 1), (rigs.MMAP, 1), (rigs.MMAP, 2))[turn % 3])
        with pytest.raises(HostError):
            GuestMemory(rig.arena.regions, rig.native)
        rig.disarm()


def finish(receiver: Receiver, variant: str) -> None:
    """Undo the flip, so that only the device's writes are left to compare."""
    rig, ring = receiver.rig, receiver.rings[receiver.queues[0]]
    if variant == "flip":
        assert rig.reads <= 1, f"{rig.reads} reads"
        gpa, length = receiver.buffers[receiver.queues[0]][0]
        ring.put(0, Desc(gpa, length, WRITE, 0))
    receiver.stop()


MIXES = [
    (Feature.VERSION_1 | a | b | c | d)
    for a, b, c, d in product(
        (Feature(0), Feature.MRG_RXBUF),
        (Feature(0), Feature.HASH_REPORT),
        (Feature(0), Feature.RSS),
        (Feature(0), Feature.MQ),
    )
]


@repeated
@three_forms
@pytest.mark.parametrize("features", MIXES, ids=lambda mix: "+".join(str(mix).split("|")[1:]))
@pytest.mark.requirement(
    "PF-C-11", "PF-C-10", "CVE-2023-6693", "NET-RX-01", "NET-RX-05", "NET-RX-08"
)
def test_the_header_negotiated_and_nothing_more(
    hooked: Native, features: Feature, variant: str, repeats: int
) -> None:
    """12 or 20 bytes, num_buffers the true count, other fields zero."""
    hashing = bool(features & Feature.HASH_REPORT)
    size = header_size(features)
    assert size == (HDR_HASH if hashing else HDR)
    merge = bool(features & Feature.MRG_RXBUF)
    key = VERIFICATION_KEY
    with Rig(hooked, header_length=size, merge_rx=merge, hash_types=KINDS, key=key) as rig:
        for turn in range(max(4, repeats // 8)):
            with guarded():
                data = FRAMES[turn % len(FRAMES)]
                length = 24 + turn % 20 if merge else 200
                receiver = Receiver(rig, [length] * 8)
                rig.begin()
                receiver.offer()
                interfere(receiver, variant, turn)
                receiver.send(data)
                got = receiver.frame()
                count = -(-(size + len(data)) // length)
                assert struct.unpack_from("<10xH", got) == (count if merge else 1,)
                assert got[:10] == bytes(10)
                if hashing:
                    expected = classify(data, KINDS, key)
                    head = struct.pack("<IHH", expected.value, expected.report, 0)
                    assert got[12:20] == head
                assert got[size:] == data
                finish(receiver, variant)


@repeated
@three_forms
@pytest.mark.requirement("PF-C-09", "NET-REP-02", "NET-REP-01", "U-01", "U-03", "U-14")
def test_a_report_is_the_right_hash_or_none(hooked: Native, variant: str, repeats: int) -> None:
    """Report on; RSS off, on, and moving the frame to a queue of another worker."""
    key = VERIFICATION_KEY
    tables = (None, (0, 0), (1, 1), (1, 0, 1, 1))
    with Rig(hooked, pairs=3, header_length=HDR_HASH) as rig:
        for turn in range(repeats):
            table, data = tables[turn % 4], FRAMES[turn // 4 % len(FRAMES)]
            kinds = (KINDS, HashType.IPV4, HashType.NONE)[turn % 3]
            mode = "automatic" if table is None else "rss"
            policy = {"mode": mode, "hash_types": kinds, "key": key, "header_length": HDR_HASH}
            if table:
                policy |= {"indirection_table": table, "unclassified_queue": 2}
            rig.set_policy(**policy)
            with guarded():
                receiver = Receiver(rig, [200], (0, 1, 2))
                rig.begin()
                receiver.offer()
                if variant == "flip":
                    interfere(receiver, variant, turn)
                elif variant == "unwind":
                    rig.fail(rigs.ALLOC, 1)
                    with pytest.raises(HostError):
                        rig.set_policy()
                    rig.disarm()
                receiver.send(data)
                expected = classify(data, kinds, key)
                queue = steer(expected, table, 2) if table else 0
                got = receiver.frame(queue)
                head = struct.pack("<10xHIHH", 1, expected.value, expected.report, 0)
                assert got == head + data
                assert [len(r.taken()) for r in receiver.rings.values()].count(1) == 1
                finish(receiver, variant)


@repeated
@three_forms
@pytest.mark.requirement("CVE-2024-6505", "U-11", "NET-RSS-03")
def test_a_queue_that_is_not_there_is_never_folded(
    hooked: Native, variant: str, repeats: int
) -> None:
    """Below the device's maximum but not ready: dropped and counted, no other queue gets it."""
    with Rig(hooked, pairs=3) as rig:
        for turn in range(repeats):
            absent = (1, 3, 4, 128, 255)[turn % 5]
            unclassified = bool(turn % 2)
            rss_policy = {
                "mode": "rss",
                "hash_types": KINDS,
                "key": VERIFICATION_KEY,
                "indirection_table": (0 if unclassified else absent,),
                "unclassified_queue": absent if unclassified else 0,
            }
            data = frame(1) if unclassified else TCP
            with guarded():
                rig.set_policy(**rss_policy)
                receiver = Receiver(rig, [200], (0, 1, 2))
                rig.begin()
                receiver.offer()
                if variant == "flip" and absent == 1:
                    # It runs when the table is set, and is gone when a frame comes.
                    receiver.send(data)
                    assert len(receiver.rings[1].taken()) == 1
                rig.engine.stop_queue(2)
                if variant == "unwind":
                    for site in (rigs.ALLOC, rigs.FD, rigs.EPOLL):
                        rig.fail(site, 1)
                        with pytest.raises(HostError):
                            rig.start(receiver.rings[1], 2)
                        rig.disarm()
                before = rig.engine.statistics(0)
                taken = [len(ring.taken()) for ring in receiver.rings.values()]
                receiver.send(data)
                after = rig.engine.statistics(0)
                assert after.rx_drop_queue_off == before.rx_drop_queue_off + 1
                assert [len(ring.taken()) for ring in receiver.rings.values()] == taken
                rig.start(receiver.rings[1], 2)
                receiver.stop()


@three_forms
@pytest.mark.requirement("CVE-2024-6505", "PF-C-08", "U-09", "U-10", "NET-RSS-05")
def test_a_table_no_device_may_hold(hooked: Native, variant: str) -> None:
    """The device model answers ERR and stays as it was; the engine would refuse it too."""
    target = running()
    send(target, rss((0, 1, 2, 3), unclassified=1))
    before = target.state
    bad = [
        *(rss((0, entry)) for entry in (PAIRS, PAIRS + 1, 0x8000, 0xFFFF)),
        *(rss((0, 1), unclassified=entry) for entry in (PAIRS, 0x8000, 0xFFFF)),
        *(rss((0,) * length) for length in (3, 5, 127, 129, 256, 32768, 65536)),
    ]
    for request in bad:
        if variant == "unwind":
            request = request[:-1]  # noqa: PLW2901 and cut short on top
        if variant == "flip":  # a good one comes first and is refused by the world below
            transition = target.control(rss((3, 3)), 1)
            target.commit(target.refuse(transition, "no memory"))
            assert target.state.steering == before.steering
        assert send(target, request).answer == ERR
        assert target.state.steering == before.steering
    for length in (1, 2, 128):
        assert send(target, rss(tuple(i % PAIRS for i in range(length)))).answer != ERR
    for values in (
        {"indirection_table": (0,) * 3},
        {"indirection_table": (0,) * 256},
        {"indirection_table": (0,) * 65536},
        {"indirection_table": (0, 256)},
        {"indirection_table": (0xFFFF,)},
        {"unclassified_queue": 256},
        {"unclassified_queue": 0xFFFF},
        {"pairs": 0},
        {"pairs": 257},
    ):
        with pytest.raises(HostError):
            Policy.create(mode="rss", hash_types=1, key=b"k", native=hooked, **values)


@repeated
@three_forms
@pytest.mark.requirement("PF-C-04", "OUR-RX-21", "NET-RX-07")
def test_the_port_gives_less_than_a_header(rig: Rig, variant: str, repeats: int) -> None:
    for turn in range(repeats):
        length = turn % (HDR + 1)
        with guarded():
            receiver = Receiver(rig, [100])
            rig.begin()
            receiver.offer()
            interfere(receiver, variant, turn)
            before = rig.engine.statistics(0)
            # DATA_VALID and garbage, none of which may reach the driver.
            rig.wire.send(b"", header=(b"\x02\x00" + b"\xff" * HDR)[:length])
            receiver.settle()
            after = rig.engine.statistics(0)
            assert after.rx_port_frames == before.rx_port_frames + 1
            if length < HDR:
                assert after.rx_drop_port == before.rx_drop_port + 1
                assert receiver.rings[0].taken() == []
                receiver.send(TCP)
                assert receiver.frame()[HDR:] == TCP
            else:  # a frame of no bytes is one; the port's header is not the driver's
                assert receiver.frame() == struct.pack("<10xH", 1)
            finish(receiver, variant)


@three_forms
@pytest.mark.requirement("PF-C-12", "OUR-RX-21")
def test_frames_cut_at_every_byte(hooked: Native, variant: str) -> None:
    """Each is delivered as it is, with the hash the reference finds in it."""
    key = VERIFICATION_KEY
    options = [build.destination_options(build.home_address("2001:db8::9"))]
    chained = build.build(build.Ipv6(extensions=options), build.tcp(), vlans=[build.Vlan(1)]).data
    with Rig(hooked, header_length=HDR_HASH, hash_types=KINDS, key=key) as rig:
        for turn, data in enumerate(
            whole[:cut] for whole in (TCP, TAGGED, chained) for cut in range(len(whole) + 1)
        ):
            with guarded():
                receiver = Receiver(rig, [200])
                rig.begin()
                receiver.offer()
                interfere(receiver, variant, turn)
                receiver.send(data)
                expected = classify(data, KINDS, key)
                head = struct.pack("<10xHIHH", 1, expected.value, expected.report, 0)
                assert receiver.frame() == head + data
                finish(receiver, variant)


@repeated
@three_forms
@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.requirement("PF-C-17", "CVE-2015-7295", "U-55", "NET-RX-01")
def test_buffers_too_small(hooked: Native, merge: bool, variant: str, repeats: int) -> None:
    """Of 1 … 80 bytes, and a frame of 65,550 against 1,526: merged or dropped, the ring runs."""
    with Rig(hooked, merge_rx=merge) as rig:
        for turn in range(repeats):
            large = turn % 10 == 9
            length = 1526 if large else 1 + turn % 80
            data = frame(1, 65_550 if large else 60)
            with guarded():
                receiver = Receiver(rig, [length] * 7 + [120])
                rig.begin()
                receiver.offer()
                interfere(receiver, variant, turn)
                before = rig.engine.statistics(0)
                receiver.send(data)
                after = rig.engine.statistics(0)
                room = (7 * length + 120) if merge else length
                taken = receiver.rings[0].taken()
                if length < HDR:
                    assert after.rx_drop_bad_buffer == before.rx_drop_bad_buffer + 1
                    assert taken == [(0, 0)]
                elif room < HDR + len(data):
                    assert after.rx_drop_too_big == before.rx_drop_too_big + 1
                    assert taken == []
                else:
                    count = -(-(HDR + len(data)) // length) if merge else 1
                    assert receiver.frame() == struct.pack("<10xH", count) + data
                finish(receiver, variant)
