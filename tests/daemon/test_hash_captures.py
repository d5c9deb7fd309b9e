# SPDX-License-Identifier: MIT
"""`pyvnet hash` over captures that say themselves what hash and queue their frames had."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pyvnet.capture import PacketFlag, Steering, Writer
from pyvnet.daemon import cli
from pyvnet.reference import classify
from pyvnet.spec.rss import VERIFICATION_KEY, HashType
from pyvnet.testing.frames import Ipv4, build, udp
from tests.reference import frames as f

if TYPE_CHECKING:
    from pathlib import Path

TABLE = (3, 1, 2, 0)
RSS = Steering(0x1FF, VERIFICATION_KEY, TABLE, 2)
OTHER = Steering(int(HashType.IPV4), VERIFICATION_KEY[::-1], (1, 0), 1)
ARP = f.ethernet(0x0806, bytes(28))


def frame_of(flow: int) -> bytes:
    return bytes(build(Ipv4(), udp(1024 + flow, 53)))


def add(
    writer: Writer, steering: Steering, data: bytes, *, name: str = "vm1", **wrong: Any
) -> None:
    """A frame as a device with this steering captures it, but for what is given."""
    verdict = classify(data, steering.hash_types, steering.key)
    queue = steering.unclassified_queue
    if verdict.report:
        queue = steering.indirection_table[verdict.value % len(steering.indirection_table)]
    said = {"queue": queue, "hash_value": verdict.value, "hash_report": verdict.report} | wrong
    writer.add(f"{name}:rx{said['queue']}", data, flags=PacketFlag.INBOUND, **said)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = cli.main(["hash", *arguments])
    told = capsys.readouterr()
    return status, told.out, told.err


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.pcapng"


@pytest.mark.requirement("NET-RSS-02", "NET-HASH-05")
def test_what_a_capture_says_comes_out_again(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Writer(path) as writer:
        writer.steering(RSS)
        for flow in range(8):
            add(writer, RSS, frame_of(flow))
        add(writer, RSS, ARP)
        writer.steering(OTHER)
        for flow in range(8):
            add(writer, OTHER, frame_of(flow))
        writer.add("vm1:tx0", frame_of(0), queue=0, flags=PacketFlag.OUTBOUND)
    status, out, err = run(capsys, "--json", str(path))
    rows = json.loads(out)
    assert status == 0
    assert "17 frames say what hash and queue they had; none of them" in err
    assert "the steering changed 1 times" in err
    assert [row["captured"]["agrees"] for row in rows[:17]] == [True] * 17
    assert [row["queue"] for row in rows[:17]] == [row["captured"]["queue"] for row in rows[:17]]
    assert {row["type"] for row in rows[9:17]} == {"IPv4"}
    assert rows[8]["captured"] == {
        "type": None, "report": 0, "hash": None, "queue": 2, "agrees": True
    }  # fmt: skip
    assert "captured" not in rows[17]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"hash_value": 0x1234}, "the capture says: UDPv4 hash 0x00001234 queue"),
        ({"hash_report": 1}, "the capture says: IPv4 hash"),
        ({"hash_report": 0}, "the capture says: no hash queue"),
        ({"queue": 9}, "queue 9"),
        ({"hash_report": 12}, "the capture says: report_12 hash"),
    ],
)
def test_differences_are_shown(
    path: Path, capsys: pytest.CaptureFixture[str], wrong: dict[str, Any], words: str
) -> None:
    with Writer(path) as writer:
        writer.steering(RSS)
        add(writer, RSS, frame_of(0))
        add(writer, RSS, frame_of(1), **wrong)
    status, out, err = run(capsys, str(path))
    assert status == 1
    assert "2 frames say what hash and queue they had; 1 of them not what comes out here" in err
    assert out.count("the capture says") == 1
    assert words in out
    status, out, _ = run(capsys, "--json", str(path))
    assert status == 1
    assert [row["captured"]["agrees"] for row in json.loads(out)] == [True, False]


def test_each_device_of_a_file_has_its_own_steering(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Writer(path) as writer:
        writer.steering(RSS, "a")
        writer.steering(OTHER, "b")
        for flow in range(4):
            add(writer, RSS, frame_of(flow), name="a")
            add(writer, OTHER, frame_of(flow), name="b")
    status, _, err = run(capsys, str(path))
    assert status == 0
    assert "8 frames say" in err


def test_options_take_the_place_of_what_a_capture_says(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Writer(path) as writer:
        writer.steering(RSS)
        add(writer, RSS, frame_of(0))
    table = ",".join(map(str, TABLE))
    assert run(capsys, "--table", table, str(path))[0] == 0
    assert run(capsys, "--types", "ipv4", str(path))[0] == 1
    assert run(capsys, "--key", "01" * 40, str(path))[0] == 1
    assert run(capsys, "--queues", "1", "--unclassified", "1", str(path))[0] == 1


def test_without_a_key_nothing_is_compared(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a capture by somebody else, the command line has to say what held."""
    with Writer(path) as writer:
        add(writer, RSS, frame_of(0))
    status, out, err = run(capsys, "--json", str(path))
    assert (status, err) == (0, "")
    assert json.loads(out)[0]["captured"]["agrees"] is None
    key = VERIFICATION_KEY.hex()
    assert run(capsys, "--key", key, str(path))[0] == 0
    assert run(capsys, "--key", key, "--table", "7", str(path))[0] == 1
    assert run(capsys, "--key", "01" * 40, str(path))[0] == 1


def test_automatic_steering_tells_no_queue(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    automatic = Steering(0x1FF, VERIFICATION_KEY)
    with Writer(path) as writer:
        writer.steering(automatic)
        add(writer, RSS, frame_of(0), queue=11)
        writer.steering(Steering(0, b""))
        writer.add("vm1:rx0", frame_of(0), queue=0, hash_report=0, flags=PacketFlag.INBOUND)
    status, _, err = run(capsys, str(path))
    assert status == 0
    assert "1 frames say" in err


def test_frames_cut_in_their_headers_are_not_compared(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Writer(path, snap_length=30) as writer:
        writer.steering(RSS)
        add(writer, RSS, frame_of(0))
    status, _, err = run(capsys, str(path))
    assert status == 0
    assert "1 frames were cut inside their headers" in err
    assert "frames say" not in err
