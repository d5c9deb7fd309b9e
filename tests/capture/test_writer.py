# SPDX-License-Identifier: MIT
"""What the writer writes, read by tshark, by an independent reader, and by our own.

Capture files are no matter of the standard, so there is no requirement id to cite.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvnet.capture import (
    CaptureError,
    PacketFlag,
    Rotation,
    Steering,
    Writer,
    frame_comment,
    header_flags,
    read_frames,
)
from pyvnet.capture.words import Verdict, steering_of, verdict_of
from pyvnet.errors import UsageError
from pyvnet.spec.net_hdr import GsoType, HdrFlag, NetHdr
from pyvnet.spec.rss import VERIFICATION_KEY
from tests.capture.apart import seen, tshark

if TYPE_CHECKING:
    from pathlib import Path

FRAME = bytes.fromhex("ffffffffffff0200000000010806") + bytes(range(46))
AT = 1_700_000_000_123_456_789
STEERING = Steering(0x1FF, VERIFICATION_KEY, (0, 1, 2, 3), 0)
SMALLEST = Rotation(256 * 1024)


def write_two(path: Path) -> None:
    with Writer(path, comment="what this is") as writer:
        writer.interface("vm1:rx3", "towards the driver, receiveq 3")
        writer.steering(STEERING)
        writer.add(
            "vm1:rx3",
            FRAME,
            timestamp_ns=AT,
            queue=3,
            hash_value=0x51CCC178,
            hash_report=2,
            flags=PacketFlag.INBOUND,
            drops=7,
            packet_id=9,
        )
        writer.add("vm1:tx0", FRAME[:-1], timestamp_ns=AT + 1, queue=0, flags=PacketFlag.OUTBOUND)


@pytest.mark.needs_program("tshark")
def test_tshark_shows_queue_comment_and_interface(tmp_path: Path) -> None:
    write_two(tmp_path / "x.pcapng")
    first, second = tshark(
        tmp_path / "x.pcapng",
        "frame.interface_name",
        "frame.interface_queue",
        "frame.comment",
        "frame.packet_id",
        "frame.drop_count",
        "frame.time_epoch",
        "frame.packet_flags_direction",
    )
    comment = f"TCPv4 hash 0x51ccc178 receiveq 3,{STEERING.as_comment()}"
    assert first == ["vm1:rx3", "3", comment, "9", "7", "1700000000.123456789", "0x00000001"]
    assert second == [
        "vm1:tx0", "0", "transmitq 0", "", "", "1700000000.123456790", "0x00000002"
    ]  # fmt: skip


def test_independent_reader_finds_the_hash(tmp_path: Path) -> None:
    write_two(tmp_path / "x.pcapng")
    file = seen(tmp_path / "x.pcapng")
    assert file.names == ["vm1:rx3", "vm1:tx0"]
    assert file.hashes() == [0x51CCC178, None]
    assert [data for _, data, _ in file.frames] == [FRAME, FRAME[:-1]]
    assert file.frames[0][2]["epb_queue"] == [3]
    assert file.frames[0][2]["epb_dropcount"] == [7]
    assert file.counts["vm1:rx3"]["isb_usrdeliv"] == 1
    assert file.counts["vm1:rx3"]["isb_osdrop"] == 7


def test_our_reader_finds_everything(tmp_path: Path) -> None:
    write_two(tmp_path / "x.pcapng")
    first, second = read_frames(tmp_path / "x.pcapng")
    assert (first.data, second.data) == (FRAME, FRAME[:-1])
    assert (first.timestamp_ns, second.timestamp_ns) == (AT, AT + 1)
    assert (first.interface_name, second.interface_name) == ("vm1:rx3", "vm1:tx0")
    assert (first.queue, first.hash_value, first.drops, first.packet_id) == (3, 0x51CCC178, 7, 9)
    assert first.flags == PacketFlag.INBOUND
    verdicts = [verdict_of(comment) for comment in first.comments]
    assert verdicts[0] == Verdict(3, 0x51CCC178, 2)
    assert steering_of(first.comments[1]) == STEERING
    assert second.hash_value is None


def test_frames_without_a_hash_carry_none(tmp_path: Path) -> None:
    with Writer(tmp_path / "x.pcapng") as writer:
        writer.add("rx0", FRAME, queue=0, hash_value=0x1234, hash_report=0)
        writer.add("rx0", FRAME, queue=1)
        writer.add("rx0", FRAME, comment="")
    none, silent, bare = read_frames(tmp_path / "x.pcapng")
    assert (none.hash_value, none.comments) == (None, ("no hash receiveq 0",))
    assert (silent.hash_value, silent.comments) == (None, ("receiveq 1",))
    assert (bare.queue, bare.comments) == (None, ())


def test_snapshot_length(tmp_path: Path) -> None:
    with Writer(tmp_path / "x.pcapng", snap_length=20) as writer:
        writer.add("rx0", FRAME)
    (frame,) = read_frames(tmp_path / "x.pcapng")
    assert (frame.data, frame.original_length) == (FRAME[:20], len(FRAME))


def test_offloads_are_told() -> None:
    header = NetHdr(
        flags=HdrFlag.NEEDS_CSUM, gso_type=GsoType.TCPV4 | 0x80, gso_size=1448, csum_start=34,
        csum_offset=16,
    )  # fmt: skip
    comment = frame_comment(1, 0xABCD, 2, header)
    assert comment == (
        "TCPv4 hash 0x0000abcd receiveq 1, needs checksum at 34+16, TCPv4 in segments of 1448"
    )
    assert header_flags(header.flags, header.gso_type) == (
        PacketFlag.CHECKSUM_NOT_READY | PacketFlag.TCP_SEGMENTATION
    )
    assert header_flags(HdrFlag.DATA_VALID, GsoType.UDP_L4) == PacketFlag.CHECKSUM_VALID
    assert frame_comment(0, header=NetHdr(flags=2, gso_type=9)).endswith("GSO 9 in segments of 0")


@given(
    report=st.integers(0, 0xFFFF),
    value=st.integers(0, 0xFFFFFFFF),
    queue=st.integers(0, 255),
    asked=st.booleans(),
)
def test_verdicts_are_read_back(report: int, value: int, queue: int, asked: bool) -> None:
    header = NetHdr(flags=1, csum_start=34, csum_offset=16) if asked else None
    verdict = verdict_of(frame_comment(queue, value, report, header))
    assert verdict is not None
    assert (verdict.queue, verdict.hash_report) == (queue, report)
    assert verdict.hash_value == (value if report else None)


@given(
    types=st.integers(0, 0xFFFFFFFF),
    key=st.binary(max_size=40),
    table=st.integers(0, 7).flatmap(lambda n: st.tuples(*[st.integers(0, 65535)] * 2**n)),
    unclassified=st.integers(0, 65535),
)
def test_steering_is_read_back(
    types: int, key: bytes, table: tuple[int, ...], unclassified: int
) -> None:
    steering = Steering(types, key, table, unclassified)
    assert steering_of(steering.as_comment()) == steering
    assert steering_of(Steering(types, key).as_comment()) == Steering(types, key)


@pytest.mark.parametrize(
    "comment", ["", "transmitq 0", "receiveq", "hash 0x1 receiveq 1", "x" * 99]
)
def test_other_comments_are_no_verdict(comment: str) -> None:
    assert verdict_of(comment) is None
    assert steering_of(comment) is None


def test_steering_is_told_once_until_it_changes(tmp_path: Path) -> None:
    other = Steering(0x3F, VERIFICATION_KEY)
    with Writer(tmp_path / "x.pcapng") as writer:
        for steering in (STEERING, STEERING, other):
            writer.steering(steering)
            writer.add("rx0", FRAME)
    told = [
        [steering_of(comment) for comment in f.comments] for f in read_frames(tmp_path / "x.pcapng")
    ]
    assert told == [[STEERING], [], [other]]


# --- files ---------------------------------------------------------------------------


def test_every_file_of_a_rotation_is_complete(tmp_path: Path) -> None:
    big = FRAME + bytes(20_000)
    with Writer(tmp_path / "x.pcapng", rotation=SMALLEST) as writer:
        writer.steering(STEERING)
        for number in range(40):
            name = f"rx{number % 2 if number < 30 else 2}"
            writer.add(name, big, queue=0, packet_id=number)
    files = [tmp_path / name for name in ("x.pcapng", "x.1.pcapng", "x.2.pcapng", "x.3.pcapng")]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    told = [list(read_frames(file)) for file in files]
    assert [frame.packet_id for frames in told for frame in frames] == list(range(40))
    for file, frames in zip(files, told, strict=True):
        assert file.stat().st_size <= SMALLEST.size + 1024  # the counts at its end
        assert steering_of(frames[0].comments[-1]) == STEERING
        assert len(seen(file).counts) == len(seen(file).names)
        assert [f"rx{(f.packet_id or 0) % 2}" for f in frames if (f.packet_id or 0) < 30] == [
            f.interface_name for f in frames if (f.packet_id or 0) < 30
        ]


def test_only_the_last_files_are_kept(tmp_path: Path) -> None:
    with Writer(tmp_path / "x.pcapng", rotation=Rotation(SMALLEST.size, 2)) as writer:
        for _ in range(10):
            writer.add("rx0", bytes(100_000))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.3.pcapng", "x.4.pcapng"]


def test_a_frame_larger_than_a_file_is_written(tmp_path: Path) -> None:
    with Writer(tmp_path / "x.pcapng", rotation=SMALLEST) as writer:
        for _ in range(3):
            writer.add("rx0", bytes(262_144))
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(("size", "files"), [(0, 0), (262143, 0), (1 << 20, -1)])
def test_rotations_that_make_no_sense(size: int, files: int) -> None:
    with pytest.raises(UsageError, match="capture files"):
        Rotation(size, files)


def test_only_the_owner_may_read(tmp_path: Path) -> None:
    Writer(tmp_path / "x.pcapng").close()
    assert (tmp_path / "x.pcapng").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["no/such/x.pcapng", "."])
def test_a_file_that_cannot_be_made(tmp_path: Path, name: str) -> None:
    with pytest.raises(CaptureError, match="cannot write a capture"):
        Writer(tmp_path / name)


def test_a_pipe_without_a_reader_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x")
    with pytest.raises(CaptureError, match="cannot write a capture"):
        Writer(tmp_path / "x")


def test_a_full_disk_from_the_start() -> None:
    with pytest.raises(CaptureError, match="No space left on device"):
        Writer("/dev/full")


def test_a_negative_snapshot_length(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="snapshot length -1"):
        Writer(tmp_path / "x.pcapng", snap_length=-1)
    assert not (tmp_path / "x.pcapng").exists()


FILLED = 200_000  # bytes until the medium refuses


def test_a_full_disk_ends_the_capture_with_whole_frames(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Files may grow no further: the kernel answers as a full disk does, inside a block."""
    path = tmp_path / "x.pcapng"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with caplog.at_level(logging.ERROR, "pyvnet.capture"), Writer(path) as writer:
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILLED, before[1]))
        try:
            for number in range(1000):
                writer.add("rx0", bytes(1000), packet_id=number)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert writer.closed
    assert writer.failure == f"capture {path} stopped: {os.strerror(errno.EFBIG)}"
    assert [record.message for record in caplog.records] == [writer.failure]
    ids = [frame.packet_id for frame in read_frames(path)]
    assert ids == list(range(len(ids)))
    assert len(ids) > 100


def test_writing_takes_nothing_heavy_along() -> None:
    """Whoever keeps captures of tests pays for no engine."""
    code = "import sys, pyvnet.capture; print([m for m in sys.modules if m.startswith('pyvnet')])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    parts = {name.split(".")[1] for name in eval(done.stdout) if "." in name}  # noqa: S307
    assert parts == {"capture", "errors", "spec"}
