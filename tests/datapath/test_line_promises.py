# SPDX-License-Identifier: MIT
"""Promises of the two lines that no single bug would name: what is never read, written, or said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pyvnet.datapath.memory import GuestMemory
from pyvnet.datapath.native import Native
from pyvnet.driver.ring_split import Buffer
from pyvnet.spec.net_hdr import GsoType, HdrFlag, NetHdr
from pyvnet.testing.frames import Ipv4, Vlan, build, udp
from tests.datapath.rig import Rig, frame_of

if TYPE_CHECKING:
    from collections.abc import Sequence

PATTERN = b"\xa5"


@pytest.mark.requirement("VIO-SPL-04")
@pytest.mark.parametrize("merge", [True, False])
def test_what_the_device_may_write_it_does_not_read(
    native_hooks: tuple[Any, Any], *, merge: bool
) -> None:
    native = Native(*native_hooks)
    ffi, lib = native
    with Rig(pairs=1, native=native) as rig:
        rig.policy(merge_rx=merge)
        gpa = rig.memory.alloc(4096)
        with GuestMemory(rig.memory.regions, native) as mapped:
            # Only counts: the countdown is never reached.
            assert lib.vnet_test_flip(mapped.cdata, gpa, 16, bytes(16), 1 << 40) == 0
            queue = rig.receiveq(0)
            buffer = Buffer(gpa, 4096, writable=True)
            queue.ring.add([buffer], buffer)
            queue.publish()
            rig.inject(0, frame_of(1))
            assert len(rig.receive(1)) == 1
            assert lib.vnet_test_flip_reads() == 0
            lib.vnet_test_flip(ffi.NULL, 0, 0, b"", 0)


@pytest.mark.requirement("U-63", "OUR-RX-20")
@pytest.mark.parametrize(
    ("counter", "sizes", "settings"),
    [
        ("rx_drop_too_big", (200,), {"merge_rx": False}),
        ("rx_drop_overruns", (100, 100), {"merge_rx": True}),
    ],
)
def test_a_frame_the_driver_does_not_get_leaves_no_byte_in_its_buffers(
    counter: str, sizes: Sequence[int], settings: dict[str, Any]
) -> None:
    with Rig(pairs=1) as rig:
        rig.policy(**settings)
        queue = rig.receiveq(0)
        buffers = [Buffer(rig.memory.alloc(size), size, writable=True) for size in sizes]
        for buffer in buffers:
            rig.memory.write(buffer.gpa, PATTERN * buffer.length)
            queue.ring.add([buffer], buffer)
        queue.publish()

        rig.inject(0, frame_of(1, size=1000))

        rig.rounds(lambda: getattr(rig.stats(0), counter) == 1)
        for buffer in buffers:
            assert rig.memory.read(buffer.gpa, buffer.length) == PATTERN * buffer.length
        assert rig.take(0) == []
        rig.inject(0, frame_of(2))  # the same buffers serve the next frame
        assert len(rig.receive(1)) == 1


@pytest.mark.requirement("NET-RX-05", "NET-RX-08", "NET-RX-09")
@pytest.mark.parametrize("header_length", [12, 20])
def test_the_driver_is_told_of_no_offload_it_did_not_negotiate(header_length: int) -> None:
    """What the host says of a frame that is whole (checksum seen good) stays with us."""
    said = NetHdr(int(HdrFlag.DATA_VALID | HdrFlag.RSC_INFO | HdrFlag.UDP_TUNNEL_CSUM), 0, 99, 88)
    with Rig(pairs=1, buffers=4) as rig:
        rig.policy(header_length=header_length, hash_types=0)
        rig.port.wire(0).send(frame_of(1), header=said.pack())
        (received,) = rig.receive(1)
        assert received.header == NetHdr(num_buffers=1)
        assert received.data == frame_of(1)


@pytest.mark.requirement("NET-RX-05", "NET-RX-07", "NET-RX-08", "NET-RX-09")
@pytest.mark.parametrize(
    "said",
    [
        NetHdr(gso_type=int(GsoType.TCPV4), gso_size=1400),
        NetHdr(gso_type=int(GsoType.TCPV4) | 0x80, gso_size=1400),
        NetHdr(gso_type=int(GsoType.UDP_L4), gso_size=1400),
        NetHdr(gso_type=0x20 | int(GsoType.TCPV6), gso_size=1400),
    ],
    ids=["tcpv4", "ecn", "udp_l4", "tunnel"],
)
def test_a_frame_the_host_left_unfinished_is_dropped_and_counted(said: NetHdr) -> None:
    with Rig(pairs=1, buffers=4) as rig:
        rig.policy()
        rig.port.wire(0).send(frame_of(1), header=said.pack())
        rig.inject(0, frame_of(2))
        (received,) = rig.receive(1)
        assert received.data == frame_of(2)
        assert rig.stats(0).rx_drop_offload == 1
        rig.assert_counters_add_up()


@pytest.mark.requirement("NET-VLAN-01")
@pytest.mark.parametrize("tags", [(1,), (0,), (4095,), (100, 200), (1, 2, 3)])
def test_every_tagged_frame_passes_while_vlan_filtering_is_not_negotiated(
    tags: tuple[int, ...],
) -> None:
    frame = bytes(build(Ipv4(), udp(), vlans=[Vlan(tci) for tci in tags]))
    with Rig(pairs=1, buffers=4) as rig:
        rig.policy()
        rig.inject(0, frame)
        assert [received.data for received in rig.receive(1)] == [frame]


@pytest.mark.requirement("NET-TX-10", "NET-TX-02")
def test_a_checksum_nobody_vouched_for_is_passed_on_as_it_is() -> None:
    """Without NEEDS_CSUM nothing is computed or claimed, whatever start and offset say."""
    wrong = bytearray(bytes(build(Ipv4(), udp())))
    wrong[40:42] = b"\xde\xad"
    with Rig(pairs=1) as rig:
        rig.policy()
        header = NetHdr(csum_start=34, csum_offset=6, hash_value=7, hash_report=9).pack(20)
        gpa = rig.memory.alloc(20 + len(wrong))
        rig.memory.write(gpa, header + bytes(wrong))
        whole = Buffer(gpa, 20 + len(wrong))
        rig.transmitq(0).ring.add([whole], whole)
        rig.transmitq(0).publish()
        rig.wait_sent(0, 1)
        on_wire = rig.port.wire(0).recv()
        assert on_wire.data == bytes(wrong)
        assert on_wire.header == bytes(12)
