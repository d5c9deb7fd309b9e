# SPDX-License-Identifier: MIT
"""The transmit line: order, backpressure, pairs beyond the count, what is refused."""

from __future__ import annotations

import pytest

from pyvnet.driver.ring_split import Buffer
from pyvnet.spec.net_hdr import NetHdr
from tests.datapath.rig import Rig, flow_and_serial, frame_of


@pytest.mark.requirement("VIO-SPL-01", "U-54")
@pytest.mark.parametrize("workers", [4, 2, 1])
@pytest.mark.parametrize("event_idx", [True, False])
def test_frames_leave_in_order_and_every_chain_comes_back(workers: int, event_idx: bool) -> None:
    with Rig(workers=workers, event_idx=event_idx) as rig:
        rig.policy()
        for serial in range(0, 96, 8):
            for pair in range(4):
                rig.send(pair, *(frame_of(pair, serial + i) for i in range(8)), cut=8 + serial // 8)
            for pair in range(4):
                assert [flow_and_serial(f) for f in rig.from_wire(pair, 8)] == [
                    (pair, serial + i) for i in range(8)
                ]
                rig.wait_sent(pair, 8)
        for pair in range(4):
            stats = rig.stats(pair)
            assert (stats.tx_packets, stats.tx_bytes, stats.tx_drops) == (96, 96 * 60, 0)


@pytest.mark.parametrize("event_idx", [True, False])
def test_a_full_wire_holds_frames_back_and_loses_none(event_idx: bool) -> None:
    with Rig(pairs=2, workers=1, queue_size=256, buffer_size=16384, event_idx=event_idx) as rig:
        rig.policy()
        sent = 0
        # More than the socket takes: the ring stays full although nobody reads the wire.
        while rig.transmitq(0).ring.free_descriptors:
            rig.send(0, frame_of(0, sent, 30000))
            sent += 1
            if sent % 64 == 0:
                rig.barrier()
                rig.sent(0)
            assert sent < 20000
        rig.rounds(lambda: rig.stats(0).tx_packets + rig.transmitq(0).ring.outstanding >= sent)
        assert rig.stats(0).tx_packets < sent
        # The other pair, of the same worker, does not wait.
        rig.send(1, frame_of(1))
        assert rig.from_wire(1, 1) == [frame_of(1)]
        assert [flow_and_serial(f)[1] for f in rig.from_wire(0, sent)] == list(range(sent))
        rig.rounds(lambda: rig.stats(0).tx_packets == sent)
        assert rig.stats(0).tx_drops == 0


@pytest.mark.requirement("U-12", "U-42", "NET-MQ-10")
@pytest.mark.parametrize("workers", [4, 1])
def test_a_pair_beyond_the_count_transmits_through_the_host_queues_there_are(workers: int) -> None:
    with Rig(workers=workers, buffers=8) as rig:
        rig.policy("automatic", pairs=2, port_queues=2)
        for pair in range(4):
            rig.send(pair, frame_of(pair))
        assert sorted(flow_and_serial(f)[0] for f in rig.from_wire(0, 2)) == [0, 2]
        assert sorted(flow_and_serial(f)[0] for f in rig.from_wire(1, 2)) == [1, 3]
        for pair in range(4):
            rig.wait_sent(pair, 1)
            assert rig.stats(pair).tx_packets == 1


@pytest.mark.requirement("VIO-SPL-15")
def test_spurious_kicks_do_no_harm_and_chains_from_before_the_start_are_served() -> None:
    with Rig(pairs=1, start=False) as rig:
        queue = rig.transmitq(0)
        rig.send(0, frame_of(0, 1), kick=True)
        queue.kick()
        rig.start_queue(1)
        assert rig.from_wire(0, 1) == [frame_of(0, 1)]
        for _ in range(3):
            queue.kick()
            rig.barrier()
        rig.send(0, frame_of(0, 2))
        assert rig.from_wire(0, 1) == [frame_of(0, 2)]
        rig.wait_sent(0, 2)


@pytest.mark.requirement("VIO-SPL-13", "VIO-SPL-14")
@pytest.mark.parametrize("event_idx", [True, False])
def test_used_flags_hold_0_or_1_and_0_with_event_idx(event_idx: bool) -> None:
    with Rig(pairs=1, event_idx=event_idx) as rig:
        flags = set()
        for serial in range(20):
            rig.send(0, frame_of(0, serial))
            flags.add(rig.transmitq(0).ring._used[0])
            rig.from_wire(0, 1)
            rig.wait_sent(0, 1)
            flags.add(rig.transmitq(0).ring._used[0])
        assert flags <= ({0} if event_idx else {0, 1})


@pytest.mark.requirement("VIO-SPL-14", "VIO-SPL-07")
@pytest.mark.parametrize("event_idx", [True, False])
def test_no_kick_is_asked_for_while_the_device_waits_for_its_wire(event_idx: bool) -> None:
    with Rig(pairs=1, queue_size=256, event_idx=event_idx) as rig:
        while rig.transmitq(0).ring.outstanding < 8:
            rig.send(0, frame_of(0, 0, 60000))
            rig.barrier()
            rig.sent(0)
        assert not rig.transmitq(0).ring.publish()
        kicks = rig.stats(0).tx_kicks
        for _ in range(4):
            rig.send(0, frame_of(0, 1))
        rig.barrier()
        assert rig.stats(0).tx_kicks == kicks


@pytest.mark.requirement("NET-TX-01", "NET-TX-05", "NET-TX-06", "OUR-TX-12", "U-54")
def test_only_headers_that_ask_for_nothing_pass_and_none_is_passed_on() -> None:
    with Rig(pairs=1) as rig:
        rig.policy()
        good = [
            NetHdr(flags=0xFE, hdr_len=0xFFFF, csum_start=9, csum_offset=9, num_buffers=7),
            NetHdr(gso_size=1, hash_value=5, hash_report=3, padding_reserved=1),
        ]
        bad = [NetHdr(flags=1), NetHdr(gso_type=1, gso_size=1400), NetHdr(gso_type=0x20)]
        for header in good + bad:
            data = header.pack(20) + frame_of(0)
            gpa = rig.memory.alloc(len(data))
            rig.memory.write(gpa, data)
            rig.transmitq(0).ring.add([Buffer(gpa, len(data))], Buffer(gpa, len(data)))
        rig.transmitq(0).publish()
        rig.wait_sent(0, len(good + bad))
        for _ in good:
            wired = rig.port.wire(0).recv()
            assert (wired.header, wired.data) == (bytes(12), frame_of(0))
        assert rig.stats(0).tx_drop_malformed == len(bad)
        assert rig.stats(0).tx_packets == len(good)


@pytest.mark.requirement("OUR-TX-12")
@pytest.mark.parametrize("length", [1, 11, 12, 19, 20, 33])
def test_a_chain_shorter_than_header_and_ethernet_is_returned_and_not_sent(length: int) -> None:
    with Rig(pairs=1) as rig:
        rig.policy()
        gpa = rig.memory.alloc(length)
        rig.transmitq(0).ring.add([Buffer(gpa, length)], Buffer(gpa, length))
        rig.transmitq(0).publish()
        rig.wait_sent(0, 1)
        assert rig.stats(0).tx_drop_malformed == 1
        with pytest.raises(BlockingIOError):
            rig.port.wire(0).recv()


@pytest.mark.requirement("VIO-SPL-12", "VIO-SPL-03")
def test_a_sent_buffer_comes_back_untouched_with_length_0() -> None:
    with Rig(pairs=1) as rig:
        rig.policy()
        data = NetHdr(flags=0x80).pack(20) + frame_of(0)
        gpa = rig.memory.alloc(len(data))
        rig.memory.write(gpa, data)
        queue = rig.transmitq(0)
        queue.ring.add([Buffer(gpa, len(data))], Buffer(gpa, len(data)))
        table = rig.memory.read(queue.ring.desc_table, 16 * queue.ring.size)
        queue.publish()
        rig.from_wire(0, 1)
        rig.rounds(lambda: queue.ring.ready() == 1)
        assert rig.memory.read(gpa, len(data)) == data
        assert rig.memory.read(queue.ring.desc_table, 16 * queue.ring.size) == table
        rig.wait_sent(0, 1)
