# SPDX-License-Identifier: MIT
"""The steering program of this version, and what passes for it."""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pyvnet.datapath.native import DEFAULT
from pyvnet.errors import HostError
from pyvnet.offload import bpf, check, program
from pyvnet.offload.image import instructions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyvnet.offload.program import SteeringFds

pytestmark = pytest.mark.needs_root

(SPEC,) = program.image().maps
TWO = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 2, 0x95, 0, 0, 0)  # return 2
FRAME = bytes(60)


@pytest.fixture
def fds() -> Iterator[SteeringFds]:
    with program.load() as loaded:
        yield loaded


def test_what_was_loaded_passes(fds: SteeringFds) -> None:
    program.check(fds.program, fds.map)
    assert bpf.program_info(fds.program).tag in program.image().tags()
    header = bpf.map_lookup(fds.map, bytes(4), SPEC.value_size)[:16]
    lib = DEFAULT.lib
    wanted = (lib.VNET_STEERING_MAP_MAGIC, lib.VNET_STEERING_MAP_LAYOUT, program.stamp())
    assert struct.unpack("<IIQ", header) == wanted
    assert DEFAULT.ffi.sizeof("struct vnet_steering_map") == SPEC.value_size


def test_it_needs_nothing_newer_than_linux_5_8() -> None:
    """The forms that instructions got since are those the review for peers refuses."""
    code = program.image().relocated({SPEC.name: 0})
    found = list(instructions(code))
    halves = check._second_halves(found)
    wrong = {
        number: check._wrong(instruction, maps=1)
        for number, instruction in enumerate(found)
        if number not in halves
    }
    assert {number: reason for number, reason in wrong.items() if reason} == {}
    called = {value for opcode, *_, value in found if opcode == 0x85}
    assert called <= {check.HELPERS["map_lookup_elem"], check.HELPERS["skb_load_bytes"]}


def test_a_fresh_map_steers_everything_to_queue_0(fds: SteeringFds) -> None:
    assert bpf.run_program(fds.program, FRAME).result == 0


def test_closing_twice_is_harmless() -> None:
    fds = program.load()
    fds.close()
    fds.close()
    with pytest.raises(HostError, match="Bad file descriptor"):
        program.check(fds.program, fds.map)


# --- what does not pass -------------------------------------------------------------


def refused(program_fd: int, map_fd: int, says: str) -> None:
    before = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208 names will do
    with pytest.raises(HostError, match=says) as caught:
        program.check(program_fd, map_fd)
    assert caught.value.cure
    assert sorted(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_other_kinds_of_fd(fds: SteeringFds) -> None:
    with open("/dev/null", "rb") as null:  # noqa: PTH123 an fd is wanted
        refused(null.fileno(), fds.map, "is no BPF program .*/dev/null")
        refused(fds.program, null.fileno(), "is no BPF map .*/dev/null")
    refused(fds.map, fds.program, "is no BPF program")
    refused(fds.program, fds.program, "is no BPF map")
    refused(9999, fds.map, "file descriptor 9999: Bad file descriptor")
    refused(fds.program, -1, "file descriptor -1: Bad file descriptor")


def test_another_program(fds: SteeringFds) -> None:
    other = bpf.prog_load(TWO, name="pyvnet_steer", license_="GPL")
    try:
        refused(other, fds.map, "has the tag [0-9a-f]{16}, which is not this version's")
    finally:
        os.close(other)


def test_a_program_that_is_for_something_else(fds: SteeringFds) -> None:
    xdp = bpf.prog_load(TWO, name="xdp", license_="GPL", kind=6)
    try:
        refused(xdp, fds.map, "a BPF program that cannot steer")
    finally:
        os.close(xdp)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"type": 1, "flags": 0}, "map_type 1, not 2"),
        ({"value_size": SPEC.value_size - 4}, f"value_size {SPEC.value_size - 4}"),
        ({"max_entries": 2}, "max_entries 2, not 1"),
        ({"flags": 0}, "map_flags 0x0, not 1024"),
        ({"flags": SPEC.flags | 0x80}, "map_flags 0x480"),  # programs may not write it
        ({}, "no steering map of this version .magic 0x0, layout 0"),
    ],
)
def test_a_map_of_another_shape(fds: SteeringFds, changes: dict[str, Any], says: str) -> None:
    other = bpf.map_create(replace(SPEC, **changes))
    try:
        refused(fds.program, other, says)
    finally:
        os.close(other)


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (struct.pack("<IIQ", 1, program.MAP_LAYOUT, program.stamp()), "magic 0x1"),
        (
            struct.pack("<IIQ", program.MAP_MAGIC, program.MAP_LAYOUT + 1, program.stamp()),
            f"layout {program.MAP_LAYOUT + 1}",
        ),
        (
            struct.pack("<IIQ", program.MAP_MAGIC, program.MAP_LAYOUT, program.stamp() ^ 1),
            (
                f"another steering program .stamp {program.stamp() ^ 1:016x}, this version's is "
                f"{program.stamp():016x}"
            ),
        ),
    ],
)
def test_a_map_of_another_version(fds: SteeringFds, header: bytes, says: str) -> None:
    with mmap.mmap(fds.map, mmap.PAGESIZE) as memory:
        memory[:16] = header
    refused(fds.program, fds.map, says)


def test_the_map_of_another_program(fds: SteeringFds) -> None:
    with program.load() as others:
        refused(fds.program, others.map, "reads another map than that of fd")


# --- without privileges -------------------------------------------------------------

CHILD = """
import ctypes, os, struct, sys
from pyvnet.errors import HostError
from pyvnet.offload import program

program.image()  # while it can be read
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(4, 1, 0, 0, 0) == 0  # dumpable, as after execve()
if sys.argv[3:]:  # bpf(2) fails by this errno
    number = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
    filter_ = struct.pack("HBBIHBBIHBBIHBBI",
        0x20, 0, 0, 0,  # the number of the call
        0x15, 0, 1, number,
        0x06, 0, 0, 0x50000 | int(sys.argv[3]),
        0x06, 0, 0, 0x7FFF0000)
    code = ctypes.create_string_buffer(filter_)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # no new privileges
    assert libc.prctl(22, 2, ctypes.create_string_buffer(
        struct.pack("HxxxxxxQ", 4, ctypes.addressof(code)))) == 0, ctypes.get_errno()
program.check(int(sys.argv[1]), int(sys.argv[2]))
try:
    program.load()
except HostError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("errno_", "says"),
    [
        ([], "Operation not permitted; run as root or with CAP_BPF"),
        (["1"], "Operation not permitted; run as root or with CAP_BPF"),
        (["38"], "Function not implemented; the kernel lacks CONFIG_BPF_SYSCALL, or a seccomp"),
    ],
)
def test_fds_are_judged_without_privilege_and_without_bpf(
    fds: SteeringFds, errno_: list[str], says: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(fds.program), str(fds.map), *errno_],
        pass_fds=(fds.program, fds.map),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"cannot make the BPF map steering: {says}" in done.stdout
