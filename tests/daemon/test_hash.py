# SPDX-License-Identifier: MIT
"""`pyvnet hash` as its users call it: a process, its stdout, stderr and exit status."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from tests.capture import files
from tests.reference import frames as f

TCP4 = f.ipv4(f.TCP, f.L4)
TCP6_EX = f.ipv6(f.DSTOPTS, f.options(f.TCP, f.home_address()) + f.L4)
ARP = f.ethernet(0x0806, bytes(28))
VECTOR_FRAMES = [f.tcp_frame(*vector[:4]) for vector in f.MICROSOFT_VECTORS]


def pyvnet_hash(
    *arguments: str, status: int = 0, **environment: str
) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [sys.executable, "-m", "pyvnet", "hash", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | environment,
    )
    assert result.returncode == status, result.stderr
    assert "Traceback" not in result.stderr
    return result


def hash_json(*arguments: str, status: int = 0) -> Any:
    return json.loads(pyvnet_hash("--json", *arguments, status=status).stdout)


def pcap(path: Path, *frames: bytes) -> str:
    path.write_bytes(files.pcap_header() + b"".join(files.pcap_record(frame) for frame in frames))
    return str(path)


@pytest.mark.requirement("NET-HASH-05", "NET-HASH-06", "NET-HASH-09", "NET-REP-01", "NET-RSS-02")
def test_microsofts_vectors_with_ports(tmp_path: Path) -> None:
    rows = hash_json(pcap(tmp_path / "vectors.pcap", *VECTOR_FRAMES))
    assert rows == [
        {
            "index": index,
            "type": "TCPv4" if "." in source else "TCPv6",
            "report": 2 if "." in source else 5,
            "hash": f"0x{expected:08x}",
            "queue": expected % 128 % 4,
        }
        for index, (_, _, source, _, _, expected) in enumerate(f.MICROSOFT_VECTORS)
    ]
    assert rows[0]["hash"] == "0x51ccc178"


@pytest.mark.requirement("NET-HASH-05", "NET-HASH-06", "NET-HASH-08", "NET-HASH-09")
def test_microsofts_vectors_without_ports() -> None:
    rows = hash_json("--types", "ipv4,ipv6", *(frame.hex() for frame in VECTOR_FRAMES))
    assert [row["hash"] for row in rows] == [f"0x{v[4]:08x}" for v in f.MICROSOFT_VECTORS]
    assert [row["type"] for row in rows] == ["IPv4"] * 5 + ["IPv6"] * 3


@pytest.mark.requirement("NET-RSS-01", "NET-REP-02", "U-26")
def test_frame_without_hash() -> None:
    expected = {"index": 0, "type": None, "report": 0, "hash": None, "queue": 3}
    assert hash_json("--unclassified", "3", ARP.hex()) == [expected]


@pytest.mark.requirement("U-14")
def test_no_hash_type_at_all() -> None:
    (row,) = hash_json("--types", "none", "--unclassified", "2", TCP4.hex())
    assert (row["type"], row["queue"]) == (None, 2)


@pytest.mark.requirement("NET-HASH-07", "U-19", "U-58")
@pytest.mark.parametrize(
    ("types", "name", "report"),
    [
        ("all", "TCP_EX", 8),
        ("tcpv6,ip_ex", "IP_EX", 7),
        ("tcpv6,ipv6", "TCPv6", 5),
        ("udp_ex", None, 0),
    ],
)
def test_types_option(types: str, name: str | None, report: int) -> None:
    (row,) = hash_json("--types", types, TCP6_EX.hex())
    assert (row["type"], row["report"]) == (name, report)


@pytest.mark.requirement("U-13", "U-30")
def test_key_option() -> None:
    # Only bits 1 to 32 of the key are set, so the hash is decided by the first bit of the input:
    # 192.… begins with a one.  The rest of the key is zero-extended.
    result = pyvnet_hash("--json", "--types", "ipv4", "--key", "00:00:00:01", f.ipv4(1, b"").hex())
    assert "key of 4 bytes was extended with zeros to 12" in result.stderr
    (row,) = json.loads(result.stdout)
    # The window of input bit i is the key shifted left by i: bit i sets hash bit i, i < 32.
    # Source c0000201, read from its most significant bit on, mirrored.
    assert row["hash"] == "0x80400003"


@pytest.mark.requirement("NET-RSS-02")
def test_table_and_queues_options() -> None:
    frame = VECTOR_FRAMES[0].hex()  # 0x51ccc178: low bits 00, entry 120 of 128
    assert hash_json("--table", "9,8,7,6", frame)[0]["queue"] == 9
    assert hash_json("--table", "200", frame)[0]["queue"] == 200
    assert hash_json("--queues", "7", frame)[0]["queue"] == 120 % 7
    assert hash_json("--queues", "128", frame)[0]["queue"] == 120


@pytest.mark.parametrize(
    "spelling",
    [
        TCP4.hex(),
        TCP4.hex().upper(),
        TCP4.hex(" "),
        TCP4.hex(":"),
        f"0x{TCP4.hex()}",
        " ".join(f"0x{byte:02x}" for byte in TCP4),
        TCP4.hex(" ", 16).replace(" ", "\n\t"),
        TCP4.hex() + "00" * 1500,  # longer than a file name can be
    ],
)
def test_spellings_of_a_frame(spelling: str) -> None:
    (row,) = hash_json(spelling)
    assert (row["type"], row["hash"]) == ("TCPv4", hash_json(TCP4.hex())[0]["hash"])


def test_files_and_frames_mix_and_are_numbered_through(tmp_path: Path) -> None:
    ng = tmp_path / "x.pcapng"
    ng.write_bytes(files.section() + files.interface() + files.enhanced(TCP4))
    rows = hash_json(pcap(tmp_path / "x.pcap", ARP, TCP4), ARP.hex(), str(ng))
    assert [row["index"] for row in rows] == [0, 1, 2, 3]
    assert [row["type"] for row in rows] == [None, "TCPv4", None, "TCPv4"]


def test_file_without_frames(tmp_path: Path) -> None:
    path = pcap(tmp_path / "empty.pcap")
    assert hash_json(path) == []
    assert "0 frames" in pyvnet_hash("--suggest", path).stdout


def test_text_says_why() -> None:
    fragment = f.ipv6(f.FRAG, f.fragment(f.TCP) + f.L4)
    frames = [VECTOR_FRAMES[0], VECTOR_FRAMES[6], TCP6_EX, fragment, ARP]
    lines = pyvnet_hash(*(frame.hex() for frame in frames)).stdout.splitlines()
    assert lines[0].split() == ["index", "type", "report", "hash", "entry", "queue", "flow"]
    table = [line.split(maxsplit=6) for line in lines[1:6]]
    assert table[0] == [
        "0", "TCPv4", "2", "0x51ccc178", "120", "0", "66.9.149.187:2794 > 161.142.100.80:1766",
    ]  # fmt: skip
    assert table[1][6] == "[3ffe:501:8:0:260:97ff:fe40:efab]:14230 > [ff02::1]:4739"
    assert table[2][1] == "TCP_EX"
    assert table[2][6] == "[2001:db8:aaaa::3]:4386 > [2001:db8::2]:13124"  # the home address
    assert table[3][1] == "IP_EX"
    assert table[3][6] == "2001:db8::1 > 2001:db8::2 (fragment)"
    assert table[4] == ["4", "-", "0", "-", "-", "0", "EtherType 0x0806"]
    assert "5 frames, 1 without a hash" in lines
    # Every queue of the table is listed, with or without frames.
    assert [line.split()[1] for line in lines if line.startswith("queue")] == ["0", "1", "2", "3"]


def test_suggestion(tmp_path: Path) -> None:
    busy = pcap(tmp_path / "busy.pcap", *[VECTOR_FRAMES[0]] * 6, *[VECTOR_FRAMES[3]] * 2, ARP)
    # 0x51ccc178 is entry 0 of 4, 0xafc7327f entry 3.
    document = hash_json("--suggest", "--table", "0,1,1,0", busy)
    assert len(document["frames"]) == 9
    assert document["suggestion"] == {
        "indirection_table": [1, 1, 1, 0],
        "moved_entries": 1,
        "imbalance_before": 2.0,
        "imbalance_after": 1.3333,
        "queues": [
            {"queue": 0, "before": 9, "after": 3},
            {"queue": 1, "before": 0, "after": 6},
        ],
    }
    text = pyvnet_hash("--suggest", "--table", "0,1,1,0", busy).stdout
    assert "1 of 4 entries moved" in text
    assert "--table 1,1,1,0" in text
    after = hash_json("--table", "1,1,1,0", busy)
    assert [row["queue"] for row in after].count(1) == 6


def test_plot_as_png(tmp_path: Path) -> None:
    plot = tmp_path / "queues.png"
    pyvnet_hash("--plot", str(plot), TCP4.hex(), ARP.hex())
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_plot_names_flows_and_says_how_uneven_the_queues_are(tmp_path: Path) -> None:
    busy = pcap(tmp_path / "busy.pcap", *[VECTOR_FRAMES[0]] * 6, *[VECTOR_FRAMES[3]] * 2, ARP)
    plot = tmp_path / "queues.svg"
    pyvnet_hash("--table", "0,1,1,0", "--plot", str(plot), busy)
    text = plot.read_text()
    for said in (
        "busiest queue 2.00 times the average",
        "3 flows",
        "TCPv4 66.9.149.187:2794 &gt; 161.142.100.80:1766",
        "no hash",
    ):
        assert said in text
    again = tmp_path / "again.svg"
    pyvnet_hash("--table", "0,1,1,0", "--plot", str(again), busy)
    assert again.read_bytes() == plot.read_bytes()


def test_plot_shows_the_suggestion_beside_what_is(tmp_path: Path) -> None:
    busy = pcap(tmp_path / "busy.pcap", *[VECTOR_FRAMES[0]] * 6, *[VECTOR_FRAMES[3]] * 2, ARP)
    plot = tmp_path / "queues.svg"
    pyvnet_hash("--suggest", "--table", "0,1,1,0", "--plot", str(plot), busy)
    text = plot.read_text()
    for said in ("now", "busiest queue 2.00 times", "suggested", "busiest queue 1.33 times"):
        assert said in text


def test_plot_without_matplotlib(tmp_path: Path) -> None:
    absent = tmp_path / "matplotlib.py"
    absent.write_text("raise ImportError('No module named matplotlib')")
    plot = tmp_path / "queues.png"
    result = pyvnet_hash("--plot", str(plot), TCP4.hex(), status=1, PYTHONPATH=str(absent.parent))
    assert "--plot needs matplotlib" in result.stderr
    assert "pip install pyvnet[plot]" in result.stderr
    assert result.stdout == ""
    assert not plot.exists()


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        ("queues", 2, "the name says the format: .svg, .png, .pdf"),
        ("queues.nonsense", 2, "the name says the format"),
        ("no/such/directory/queues.png", 1, "there is no directory"),
    ],
)
def test_plot_that_cannot_be_is_refused_before_the_work(
    tmp_path: Path, name: str, status: int, said: str
) -> None:
    result = pyvnet_hash("--plot", str(tmp_path / name), TCP4.hex(), status=status)
    assert said in result.stderr
    assert result.stdout == ""
    assert not list(tmp_path.iterdir())


def test_plot_that_cannot_be_written(tmp_path: Path) -> None:
    plot = tmp_path / "queues.svg"
    plot.mkdir()
    result = pyvnet_hash("--plot", str(plot), TCP4.hex(), status=1)
    assert "cannot write the plot" in result.stderr
    assert "TCPv4" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required"),
        (["nonsense"], "'nonsense' is neither a file nor a whole number of bytes in hex"),
        (["abc"], "'abc' is neither a file nor a whole number of bytes in hex"),
        ([" "], "an empty argument"),
        ([""], "an empty argument"),
        (["--key", "xyz", "00"], "'xyz' is not a whole number of bytes in hex"),
        (["--key", "abc", "00"], "'abc' is not a whole number of bytes in hex"),
        (["--key", "", "00"], "key of 0 bytes; a device takes 1 to 40"),
        (["--key", "00" * 41, "00"], "key of 41 bytes; a device takes 1 to 40"),
        (["--types", "tcpv5", "00"], "unknown hash type 'tcpv5'; known: ipv4,tcpv4"),
        (["--queues", "0", "00"], "0 is no number of queues a table can name; allowed: 1 to 128"),
        (["--queues", "129", "00"], "129 is no number of queues"),
        (["--queues", "four", "00"], "'four' is not a number"),
        (["--table", "0,1,2", "00"], "table of 3 entries; must be a power of two up to 128"),
        (["--table", ",".join("0" * 256), "00"], "table of 256 entries"),
        (["--table", "0,,1,2", "00"], "'' is not a number"),
        (["--table", "0,256", "00"], "256 is no queue; allowed: 0 to 255"),
        (["--table", "0,1", "--queues", "2", "00"], "not allowed with argument"),
        (["--unclassified", "256", "00"], "256 is no queue; allowed: 0 to 255"),
        (["--unclassified=-1", "00"], "-1 is no queue"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str) -> None:
    result = pyvnet_hash(*arguments, status=2)
    assert message in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("name", ["none.pcap", "none/capture", "none.pcapng"])
def test_missing_file(tmp_path: Path, name: str) -> None:
    result = pyvnet_hash("--json", str(tmp_path / name), status=1)
    assert "cannot open (No such file or directory)" in result.stderr
    assert json.loads(result.stdout) == []


def test_file_that_is_no_capture(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("frames to look at")
    assert "is not the beginning of a pcap" in pyvnet_hash(str(path), status=1).stderr


@pytest.mark.parametrize("options", [("--json",), ()])
def test_frames_before_the_damage_are_reported(tmp_path: Path, options: tuple[str, ...]) -> None:
    path = pcap(tmp_path / "cut.pcap", TCP4, ARP, TCP4)
    Path(path).write_bytes(Path(path).read_bytes()[:-1])
    result = pyvnet_hash(*options, path, status=1)
    assert "the file is cut short" in result.stderr
    if options:
        assert [row["type"] for row in json.loads(result.stdout)] == ["TCPv4", None]
    else:
        assert "2 frames, 1 without a hash" in result.stdout


def test_frames_before_the_damage_are_drawn_and_a_table_for_them_suggested(tmp_path: Path) -> None:
    path = pcap(tmp_path / "cut.pcap", *VECTOR_FRAMES)
    Path(path).write_bytes(Path(path).read_bytes()[:-1])
    plot = tmp_path / "queues.svg"
    result = pyvnet_hash("--suggest", "--plot", str(plot), path, status=1)
    assert "the file is cut short" in result.stderr
    assert f"{len(VECTOR_FRAMES) - 1} flows" in plot.read_text()
    assert "suggested indirection table" in result.stdout


def test_frames_before_one_of_another_link_type_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "mixed.pcapng"
    ethernet, cooked = files.interface(), files.interface(linktype=113)
    path.write_bytes(
        files.section()
        + (ethernet + cooked)
        + files.enhanced(TCP4)
        + files.enhanced(TCP4, number=1)
        + files.enhanced(ARP)
    )
    result = pyvnet_hash("--json", str(path), status=1)
    assert "link type 113 (Linux cooked)" in result.stderr
    assert [row["type"] for row in json.loads(result.stdout)] == ["TCPv4"]


# A process begins with what its parent had resident, so a small one measures.
PEAK: Final = """\
import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.parametrize("options", [(), ("--json", "--suggest", "--plot", "x.svg")])
def test_a_huge_capture_takes_no_more_memory_than_a_small_one(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    """One frame, and 30 000 of as many flows: the most that was ever resident, in KiB."""
    # A sanitizer keeps freed memory for a while.
    plain = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    plain.pop("PYVNET_NATIVE", None)
    most = []
    for frames in (1, 30_000):
        path = tmp_path / f"{frames}.pcap"
        head, tail = TCP4[:34], TCP4[38:]
        flows = (head + struct.pack(">HH", 1024 + flow, 443) + tail for flow in range(frames))
        pcap(path, *flows)
        command = [sys.executable, "-m", "pyvnet", "hash", *options, str(path)]
        most.append(
            int(
                subprocess.run(
                    [sys.executable, "-c", PEAK, *command],
                    capture_output=True,
                    check=True,
                    env=plain,
                    cwd=tmp_path,
                ).stdout
            )
        )
    assert most[1] - most[0] < 8 << 10


def test_note_on_frames_cut_when_captured(tmp_path: Path) -> None:
    path = tmp_path / "snap.pcap"
    record = files.pcap_record(TCP4[:30], original=len(TCP4))
    path.write_bytes(files.pcap_header() + record)
    assert "1 frames were cut inside their headers" in pyvnet_hash(str(path)).stderr


def test_note_on_a_frame_given_without_quotes() -> None:
    result = pyvnet_hash("--json", "02", "00")
    assert "put a frame with blanks in quotes" in result.stderr
    assert [row["type"] for row in json.loads(result.stdout)] == [None, None]
