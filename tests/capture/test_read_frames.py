# SPDX-License-Identifier: MIT
"""Reading pcap and pcapng: every form that exists, every way to be broken.

Capture files are no matter of the standard, so there is no requirement id to cite.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import PcapNgWriter, PcapWriter

from pyvnet.capture import CapturedFrame, CaptureError, read_frames
from pyvnet.errors import PyvnetError
from tests.capture import files as f

PCAP = f.pcap_header() + f.pcap_record(f.ONE) + f.pcap_record(f.TWO)
PCAPNG = f.section() + f.interface() + f.enhanced(f.ONE) + f.enhanced(f.TWO)
BOTH = [CapturedFrame(0, f.ONE, 60), CapturedFrame(1, f.TWO, 75)]


def frames_of(tmp_path: Path, content: bytes) -> list[CapturedFrame]:
    path = tmp_path / "x.pcap"
    path.write_bytes(content)
    return list(read_frames(path))


def until_error(tmp_path: Path, content: bytes) -> tuple[list[CapturedFrame], str]:
    """Frames delivered before the error, and its message."""
    path = tmp_path / "x.pcap"
    path.write_bytes(content)
    delivered = []
    frames = read_frames(str(path))
    while True:
        try:
            delivered.append(next(frames))
        except CaptureError as error:
            message = str(error)
            break
    assert message.startswith(str(path))
    return delivered, message.removeprefix(f"{path}: ")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("magic", [0xA1B2C3D4, 0xA1B23C4D])
def test_pcap_of_both_byte_orders_and_time_units(tmp_path: Path, order: str, magic: int) -> None:
    content = f.pcap_header(order, magic) + b"".join(
        f.pcap_record(d, order) for d in (f.ONE, f.TWO)
    )
    assert frames_of(tmp_path, content) == BOTH


def test_pcap_original_length_and_fcs_bits(tmp_path: Path) -> None:
    content = f.pcap_header(linktype=0x54000001) + f.pcap_record(f.ONE, original=1500)
    assert frames_of(tmp_path, content) == [CapturedFrame(0, f.ONE, 1500)]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("make", [f.enhanced, f.obsolete, f.simple])
def test_pcapng_packet_blocks(tmp_path: Path, order: str, make: Any) -> None:
    content = f.section(order) + f.interface(order) + make(f.ONE, order) + make(f.TWO, order)
    assert frames_of(tmp_path, content) == BOTH


def test_pcapng_simple_packet_is_limited_by_the_snapshot_length(tmp_path: Path) -> None:
    content = f.section() + f.interface(snap_length=60) + f.simple(f.ONE, original=1500)
    assert frames_of(tmp_path, content) == [CapturedFrame(0, f.ONE, 1500)]


def test_pcapng_interfaces_are_numbered_per_section(tmp_path: Path) -> None:
    content = f.section("<") + f.interface("<") * 2 + f.enhanced(f.ONE, "<", number=1)
    content += f.section(">") + f.interface(">") + f.enhanced(f.TWO, ">", number=0)
    first, second = frames_of(tmp_path, content)
    assert (first.index, first.interface, first.data) == (0, 1, f.ONE)
    assert (second.index, second.interface, second.data) == (1, 0, f.TWO)


@pytest.mark.parametrize("block_type", [4, 5, 10, 0xBAD, 0x40000BAD, 0x7FFFFFFF])
def test_pcapng_other_blocks_are_skipped(tmp_path: Path, block_type: int) -> None:
    other = f.block(block_type, bytes(20))
    content = f.section() + other + f.interface() + f.enhanced(f.ONE) + other + f.enhanced(f.TWO)
    assert frames_of(tmp_path, content + other) == BOTH


def test_pcapng_foreign_interface_without_frames_is_no_error(tmp_path: Path) -> None:
    content = f.section() + f.interface(linktype=113) + f.interface() + f.enhanced(f.ONE, number=1)
    assert len(frames_of(tmp_path, content)) == 1


@pytest.mark.parametrize("content", [f.pcap_header(), f.section(), f.section() + f.interface()])
def test_file_without_frames_is_no_error(tmp_path: Path, content: bytes) -> None:
    assert frames_of(tmp_path, content) == []


@pytest.mark.parametrize("writer", [PcapWriter, PcapNgWriter])
def test_files_of_an_independent_writer(tmp_path: Path, writer: Any) -> None:
    packets = [Ether() / IP(dst="192.0.2.1") / UDP() / (b"x" * size) for size in range(50)]
    path = tmp_path / "scapy"
    with writer(str(path)) as out:
        for packet in packets:
            out.write(packet)
    frames = list(read_frames(path))
    assert [frame.data for frame in frames] == [bytes(packet) for packet in packets]
    assert [frame.index for frame in frames] == list(range(50))
    assert all(frame.original_length == len(frame.data) for frame in frames)


def test_pipe_is_read_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    seen_first = threading.Event()

    def write() -> None:
        with path.open("wb", buffering=0) as out:
            # The reader may look ahead by a buffer, so the first part is larger than one.
            out.write(f.pcap_header() + f.pcap_record(f.ONE) + f.pcap_record(bytes(200000)))
            seen_first.wait()
            out.write(f.pcap_record(f.TWO))

    writer = threading.Thread(target=write)
    writer.start()
    frames = read_frames(path)
    try:
        assert next(frames).data == f.ONE
    finally:
        seen_first.set()
    assert [len(frame.data) for frame in frames] == [200000, 75]
    writer.join()


def open_fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_closing_the_iterator_closes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(PCAP)
    before = open_fds()
    frames = read_frames(path)
    next(frames)
    frames.close()
    assert open_fds() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file ends (it is empty) at byte 0"),
        (b"\xd4\xc3", "d4 c3 is not the beginning of a pcap or pcapng file, at byte 0"),
        (b"hello world", "68 65 6c 6c is not the beginning of a pcap or pcapng file, at byte 0"),
        (b"\x1f\x8b\x08\x00", "gzip data, not pcap or pcapng, at byte 0; unpack it first"),
        (b"\x28\xb5\x2f\xfd", "zstd data, not pcap or pcapng, at byte 0; unpack it first"),
        (
            f.pcap_header(magic=0xA1B2CD34),
            "a modified pcap, not pcap or pcapng, at byte 0; convert",
        ),
        (f.pcap_header()[:23], "the rest of the pcap file header needs 20 bytes, the file has 19"),
        (f.pcap_header(version=(2, 3)), "pcap version 2.3, only 2.4 is known at byte 4; convert"),
        (f.pcap_header(linktype=113), "link type 113 (Linux cooked) at byte 20; only Ethernet"),
        (f.pcap_header(linktype=147), "link type 147 (not Ethernet) at byte 20; only Ethernet"),
        (f.section(magic=0xDEADBEEF), "byte-order magic efbeadde is none at byte 8; give a pcap"),
        (f.section(major=2), "pcapng version 2.0, only 1.x is known at byte 12; convert"),
        (f.section()[:6], "a block length needs 4 bytes, the file has 2 at byte 4"),
        (f.section()[:10], "a byte-order magic needs 4 bytes, the file has 2 at byte 8"),
        (f.section()[:20], "the rest of a block needs 12 bytes, the file has 8 at byte 12"),
        (f.section()[:26], "the length that ends a block needs 4 bytes, the file has 2 at byte 24"),
        (
            f.block(0x0A0D0D0A, bytes.fromhex("4d3c2b1a 01000000")),
            "Section Header Block too short for its fields at byte 0; the file is damaged",
        ),
    ],
)
def test_what_is_no_capture_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    delivered, error = until_error(tmp_path, content)
    assert delivered == []
    assert error.startswith(message)


AFTER_PCAP = len(PCAP)
AFTER_PCAPNG = len(PCAPNG)
ABSURD = 16 * 1024 * 1024 + 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            PCAP + f.pcap_record(f.ONE)[:7],
            f"record header of 7 instead of 16 bytes at byte {AFTER_PCAP}; the file is cut short",
        ),
        (
            PCAP + f.pcap_record(f.ONE)[:-1],
            f"a frame needs 60 bytes, the file has 59 at byte {AFTER_PCAP + 16}; the file is cut",
        ),
        (
            PCAP + f.pcap_record(b""),
            f"frame of 0 bytes at byte {AFTER_PCAP}; no Ethernet frame is empty",
        ),
        (
            PCAP + f.pcap_record(b"", captured=262145),
            f"frame of 262145 bytes (limit 262144) at byte {AFTER_PCAP}; the file is damaged",
        ),
        (
            PCAPNG + f.enhanced(f.ONE)[:3],
            f"block type of 3 instead of 4 bytes at byte {AFTER_PCAPNG}; the file is cut short",
        ),
        (
            PCAPNG + f.enhanced(f.ONE)[:6],
            f"a block length needs 4 bytes, the file has 2 at byte {AFTER_PCAPNG + 4}; the file is",
        ),
        (
            PCAPNG + f.enhanced(f.ONE)[:50],
            f"the rest of a block needs 80 bytes, the file has 42 at byte {AFTER_PCAPNG + 8}; the",
        ),
        (
            PCAPNG + f.enhanced(f.ONE)[:-2],
            "the length that ends a block needs 4 bytes, the file has 2 at byte",
        ),
        *(
            (
                PCAPNG + f.block(6, bytes(20), length=length),
                (
                    f"block length {length} is not a multiple of 4 from 12 to 16777216"
                    f" at byte {AFTER_PCAPNG + 4}; the file is damaged"
                ),
            )
            for length in (0, 8, 13, ABSURD, 0xFFFFFFFC)
        ),
        (
            PCAPNG + f.block(0x0A0D0D0A, bytes.fromhex("4d3c2b1a"), length=12),
            "block length 12 is not a multiple of 4 from 16 to 16777216 at byte",
        ),
        (
            PCAPNG + f.section(magic=0x12345678),
            f"byte-order magic 78563412 is none at byte {AFTER_PCAPNG + 8}; the file is damaged",
        ),
        (
            PCAPNG + f.block(5, bytes(8), trailer=24),
            f"block begins with length 20 and ends with 24 at byte {AFTER_PCAPNG}; the file is",
        ),
        (
            PCAPNG + f.enhanced(b""),
            f"frame of 0 bytes at byte {AFTER_PCAPNG}; no Ethernet frame is empty",
        ),
        (
            PCAPNG + f.enhanced(f.ONE, captured=61),
            f"frame of 61 bytes in a block that holds 60 at byte {AFTER_PCAPNG}; the file is",
        ),
        (
            PCAPNG + f.enhanced(f.ONE, captured=0xFFFFFFFF),
            f"frame of 4294967295 bytes (limit 262144) at byte {AFTER_PCAPNG}; the file is damaged",
        ),
        (
            PCAPNG + f.enhanced(f.ONE, number=1),
            f"frame of interface 1, but the section describes 1, at byte {AFTER_PCAPNG}; the file",
        ),
        (
            PCAPNG + f.section() + f.simple(f.ONE),
            (
                "frame of interface 0, but the section describes 0,"
                f" at byte {AFTER_PCAPNG + len(f.section())}; the file"
            ),
        ),
        (
            PCAPNG + f.interface(linktype=276) + f.enhanced(f.ONE, number=1),
            (
                "link type 276 (Linux cooked v2)"
                f" at byte {AFTER_PCAPNG + len(f.interface())}; only Ethernet (1) can be read"
            ),
        ),
        (
            PCAPNG + f.block(1, bytes(4)),
            f"Interface Description Block too short for its fields at byte {AFTER_PCAPNG}; the",
        ),
        (
            PCAPNG + f.block(6, bytes(16)),
            f"Enhanced Packet Block too short for its fields at byte {AFTER_PCAPNG}; the file",
        ),
        (
            PCAPNG + f.block(2, bytes(16)),
            f"Packet Block too short for its fields at byte {AFTER_PCAPNG}; the file is damaged",
        ),
        (
            PCAPNG + f.block(3, b""),
            f"Simple Packet Block too short for its fields at byte {AFTER_PCAPNG}; the file",
        ),
    ],
)
def test_frames_before_the_damage_are_delivered(
    tmp_path: Path, content: bytes, message: str
) -> None:
    delivered, error = until_error(tmp_path, content)
    assert delivered == BOTH
    assert error.startswith(message)


@pytest.mark.parametrize(
    ("name", "reason"), [("none.pcap", "No such file"), ("", "Is a directory")]
)
def test_file_that_cannot_be_opened(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(CaptureError, match=rf"cannot open \({reason}.*\); check the name"):
        next(read_frames(tmp_path / name))


def test_file_that_cannot_be_read() -> None:
    # Reading one's own memory at address 0 fails with EIO.
    with pytest.raises(CaptureError, match=r"cannot read \(.*\) at byte 0; check the file"):
        next(read_frames("/proc/self/mem"))


@given(
    head=st.sampled_from([b"", f.pcap_header(), PCAP, f.section(), PCAPNG]),
    tail=st.binary(max_size=100),
)
def test_invariant_any_file_gives_frames_or_a_capture_error(
    tmp_path_factory: pytest.TempPathFactory, head: bytes, tail: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.pcap"
    path.write_bytes(head + tail)
    count = 0
    try:
        for frame in read_frames(path):
            assert frame.index == count
            count += 1
    except PyvnetError:
        pass
    assert count >= (2 if head in (PCAP, PCAPNG) else 0)
