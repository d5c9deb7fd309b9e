# SPDX-License-Identifier: MIT
"""bpf(2) on the kernel at hand."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyvnet.errors import HostError
from pyvnet.offload import bpf, bpf_call
from pyvnet.offload.image import Image, MapSpec, Relocation

if TYPE_CHECKING:
    from collections.abc import Iterator

SPEC = MapSpec("numbers", bpf.MAP_TYPE_ARRAY, 4, 12, 2, bpf.MAP_MMAPABLE)
FRAME = bytes(12) + b"\x08\x00" + bytes(50)


def code(*instructions: tuple[int, int, int, int, int]) -> bytes:
    return b"".join(
        struct.pack("<BBhi", opcode, to | of << 4, offset, value)
        for opcode, to, of, offset, value in instructions
    )


def answer(value: int) -> bytes:
    return code((0xB7, 0, 0, 0, value), (0x95, 0, 0, 0, 0))  # r0 = value; exit


# r0 = whether element 0 of the map is there.
READER = Image(
    "reader",
    "socket",
    code(
        (0x7A, 10, 0, -8, 0),  # *(u64 *)(r10 - 8) = 0
        (0x18, 1, 0, 0, 0),  # r1 = map
        (0, 0, 0, 0, 0),
        (0xBF, 2, 10, 0, 0),  # r2 = r10
        (0x07, 2, 0, 0, -8),  # r2 -= 8
        (0x85, 0, 0, 0, 1),  # map_lookup_elem
        (0x15, 0, 0, 1, 0),  # if r0 == 0 skip one
        (0xB7, 0, 0, 0, 5),  # r0 = 5
        (0x95, 0, 0, 0, 0),
    ),
    (Relocation(1, "numbers"),),
    (SPEC,),
    "GPL",
)


@contextlib.contextmanager
def closing(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


@pytest.mark.needs_root
def test_a_map_holds_what_was_written() -> None:
    with closing(bpf.map_create(SPEC)) as fd:
        bpf.map_update(fd, struct.pack("I", 1), b"twelve bytes" + bytes(4))
        assert bpf.map_lookup(fd, struct.pack("I", 1), 12) == b"twelve bytes"
        assert bpf.map_lookup(fd, struct.pack("I", 0), 12) == bytes(12)
        found = bpf.map_info(fd)
        assert (found.type, found.key_size, found.value_size) == (SPEC.type, 4, 12)
        assert (found.max_entries, found.flags) == (2, bpf.MAP_MMAPABLE)
        told = bpf.fd_info(fd)
        assert told.kind == "map"
        assert told.number("map_flags") == bpf.MAP_MMAPABLE
        assert told.number("map_id") == found.id
        assert not os.get_inheritable(fd)
        with pytest.raises(HostError, match="cannot read") as caught:
            bpf.map_lookup(fd, struct.pack("I", 2), 12)
        assert caught.value.errno == errno.ENOENT


@pytest.mark.needs_root
def test_a_program_runs_and_knows_its_map() -> None:
    with closing(bpf.map_create(SPEC)) as map_fd:
        loaded = bpf.prog_load(
            READER.relocated({"numbers": map_fd}), name="a name/too long for it", license_="GPL"
        )
        with closing(loaded) as fd:
            assert bpf.run_program(fd, FRAME).result == 5
            found = bpf.program_info(fd)
            assert found.type == bpf.PROG_TYPE_SOCKET_FILTER
            assert found.map_ids == (bpf.map_info(map_fd).id,)
            assert found.verified_instructions >= READER.count - 1
            told = bpf.fd_info(fd)
            assert (told.kind, told.values["prog_tag"]) == ("program", found.tag)
            assert found.tag in READER.tags()


@pytest.mark.needs_root
def test_run_times_are_counted_while_asked_for() -> None:
    with closing(bpf.prog_load(answer(3), name="three", license_="GPL")) as fd:
        bpf.run_program(fd, FRAME)
        before = bpf.program_info(fd).run_count
        with closing(bpf.enable_stats()):
            bpf.run_program(fd, FRAME, repeat=100)
        bpf.run_program(fd, FRAME)
        assert bpf.program_info(fd).run_count == before + 100


@pytest.mark.needs_root
def test_the_verifier_is_heard() -> None:
    bad = code((0xBF, 0, 3, 0, 0), (0x95, 0, 0, 0, 0))  # r0 = r3, which nothing was put into
    with pytest.raises(HostError, match="cannot load the BPF program bad") as caught:
        bpf.prog_load(bad, name="bad", license_="GPL")
    assert caught.value.errno == errno.EACCES
    assert "R3 !read_ok" in caught.value.cure
    assert caught.value.cure.startswith("the verifier refuses")
    with pytest.raises(HostError, match="cannot load"):
        bpf.prog_load(b"", name="empty", license_="GPL")


@pytest.mark.needs_root
def test_a_map_no_kernel_makes() -> None:
    for spec in (MapSpec("m", 999, 4, 4, 1), MapSpec("m", 2, 4, 4, 0), MapSpec("m", 2, 5, 4, 1)):
        with pytest.raises(HostError, match="cannot make the BPF map m") as caught:
            bpf.map_create(spec)
        assert caught.value.cure


@pytest.mark.needs_root
def test_fds_of_another_kind() -> None:
    with closing(os.open("/dev/null", os.O_RDWR)) as null, closing(bpf.map_create(SPEC)) as map_fd:
        assert bpf.fd_info(null).kind == ""
        for fd in (null, map_fd):
            with pytest.raises(HostError, match="is no BPF program"):
                bpf.program_info(fd)
            with pytest.raises(HostError, match="cannot try"):
                bpf.run_program(fd, FRAME)
        with pytest.raises(HostError, match="is no BPF map"):
            bpf.map_info(null)
        with pytest.raises(HostError, match="cannot write"):
            bpf.map_update(null, bytes(4), bytes(16))


@pytest.mark.parametrize("fd", [-1, 9999, 2**31 - 1])
def test_a_closed_fd(fd: int) -> None:
    for ask in (bpf.fd_info, bpf.map_info, bpf.program_info):
        with pytest.raises(HostError, match=f"file descriptor {fd}: Bad file") as caught:
            ask(fd)
        assert caught.value.errno == errno.EBADF


UNPRIVILEGED = """
import os
from pyvnet.errors import HostError
from pyvnet.offload import bpf, bpf_call
from pyvnet.offload.image import MapSpec
import struct

fd = bpf.map_create(MapSpec("numbers", 2, 4, 8, 1))
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
bpf.map_update(fd, bytes(4), b"eight by")
print(bpf.map_lookup(fd, bytes(4), 8).decode(), bpf.fd_info(fd).kind)
for attempt in (
    lambda: bpf.map_create(MapSpec("numbers", 2, 4, 8, 1)),
    lambda: bpf.prog_load(struct.pack("<BBhiBBhi", 0xB7, 0, 0, 3, 0x95, 0, 0, 0), name="p",
                          license_="GPL"),
    bpf.enable_stats,
):
    try:
        os.close(attempt())
        print("allowed")
    except HostError as error:
        print(error)
"""


@pytest.mark.needs_root
def test_what_takes_privilege_says_so() -> None:
    """A map that was handed over can be used; only making things is refused."""
    forbidden = Path("/proc/sys/kernel/unprivileged_bpf_disabled").read_text().strip() != "0"
    done = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED], check=True, capture_output=True, text=True
    )
    used, a_map, a_program, statistics = done.stdout.splitlines()
    assert used == "eight by map"
    assert "run as root" in statistics
    for line in (a_map, a_program):
        assert (line == "allowed") != forbidden
        if forbidden:
            assert "Operation not permitted" in line
            assert "CAP_BPF" in line


@pytest.mark.parametrize("enough", [True, False])
def test_memory_that_may_be_locked_is_all_taken_before_giving_up(
    monkeypatch: pytest.MonkeyPatch, enough: bool
) -> None:
    """Before Linux 5.11 maps and programs are charged to RLIMIT_MEMLOCK, with EPERM."""
    before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    limits = []

    def charged(_command: int, attributes: bytes) -> tuple[int, bytes]:
        limits.append(resource.getrlimit(resource.RLIMIT_MEMLOCK)[0])
        if len(limits) < 2 or not enough:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return 7, attributes

    monkeypatch.setattr(bpf_call, "_issue", charged)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, before[1]))
    try:
        if enough:
            assert bpf.map_create(SPEC) == 7
        else:
            with pytest.raises(HostError, match="RLIMIT_MEMLOCK"):
                bpf.map_create(SPEC)
        assert resource.getrlimit(resource.RLIMIT_MEMLOCK) == (0, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, before)
    assert limits[0] == 0
    assert limits[1:] in ([before[1]], [resource.RLIM_INFINITY])
