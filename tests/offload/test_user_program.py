# SPDX-License-Identifier: MIT
"""`--steering-program`: the example works, and what does not fit is told."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether

from pyvnet.errors import HostError, UsageError
from pyvnet.offload import bpf
from pyvnet.offload.user_program import UserProgram
from tests.offload.sources import CONSTANT, LICENSE, READ_MAP, TYPED_MAP, compiled

EXAMPLE = Path(__file__).parent.parent.parent / "examples/steering/by_source_port.bpf.c"

pytestmark = pytest.mark.needs_program("clang")


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "own.o"
    path.write_bytes(data)
    return path


@pytest.mark.needs_root
def test_the_example_steers_by_source_port(tmp_path: Path) -> None:
    """Built by the words of its heading."""
    made = tmp_path / "by_source_port.o"
    words = EXAMPLE.read_text().partition("clang ")[2].partition("-c")[0].replace("\\\n *", "")
    command = f"clang -Werror {words} -c {EXAMPLE} -o {made}"
    subprocess.run(["sh", "-c", command], check=True)
    program = UserProgram(made)
    assert program.name == "by_source_port.o:by_source_port"
    fd = program.load()
    try:
        frames = {
            0x1234: Ether() / IP() / UDP(sport=0x1234),
            443: Ether() / IP(options=b"\x01" * 8) / TCP(sport=443),
            65535: Ether() / IPv6() / TCP(sport=65535),
            0: Ether() / ARP(),
        }
        for queue, frame in frames.items():
            assert bpf.run_program(fd, bytes(frame)).result == queue
        fragment = Ether() / IP(frag=8) / UDP(sport=99)
        assert bpf.run_program(fd, bytes(fragment)).result == 0
        assert bpf.run_program(fd, bytes(frames[443])[:20]).result == 0
        assert len(bpf.program_info(fd).map_ids) == 1
    finally:
        os.close(fd)


@pytest.mark.needs_root
def test_a_program_reads_its_map(tmp_path: Path) -> None:
    fd = UserProgram(written(tmp_path, compiled(TYPED_MAP + READ_MAP + LICENSE))).load()
    try:
        assert bpf.run_program(fd, bytes(60)).result == 0
    finally:
        os.close(fd)


def test_the_one_meant_for_steering_is_found(tmp_path: Path) -> None:
    other = 'SEC("xdp") int other(struct __sk_buff *skb) { return 1; }\n'
    both = UserProgram(written(tmp_path, compiled(other + CONSTANT)))
    assert both.name == "own.o:choose"
    only = UserProgram(written(tmp_path, compiled(other)))
    assert only.name == "own.o:other"


OTHER = 'SEC("socket/2") int other(struct __sk_buff *skb) { return 1; }\n'


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("int nothing;", r"no program in it: mark the function SEC\(\"socket\"\)"),
        (CONSTANT + OTHER, r"several programs \(choose in socket, other in socket/2\)"),
        (
            TYPED_MAP.replace("type, 2", "type, 3") + READ_MAP,
            "the map numbers is of type 3; those that can be made are hash, array",
        ),
        ('int n; SEC("socket") int f(void *skb) { return n++; }', "global data"),
    ],
)
def test_an_object_that_does_not_fit(tmp_path: Path, source: str, says: str) -> None:
    path = written(tmp_path, compiled(source))
    with pytest.raises(UsageError, match=f"{path}: {says}"):
        UserProgram(path)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "text").write_text("SEC")
    for name, says in {
        "missing": "cannot be read: No such file",
        "pipe": "not a file",
        ".": "not a file",
        "text": "not an ELF object",
        "a\0b": "cannot be read: embedded null",
    }.items():
        with pytest.raises(UsageError, match=says):
            UserProgram(tmp_path / name)


@pytest.mark.needs_root
def test_what_the_kernel_refuses(tmp_path: Path) -> None:
    loop = 'SEC("socket") int f(struct __sk_buff *skb) { for (;;) skb->mark = lookup(0, 0) != 0; }'
    with pytest.raises(HostError, match="cannot load the BPF program f") as caught:
        UserProgram(written(tmp_path, compiled(loop + LICENSE))).load()
    assert "the end of its log" in str(caught.value)
    huge = TYPED_MAP.replace("max_entries, 4", "max_entries, 0x7fffffff") + READ_MAP
    with pytest.raises(HostError, match="cannot make the BPF map numbers"):
        UserProgram(written(tmp_path, compiled(huge))).load()
