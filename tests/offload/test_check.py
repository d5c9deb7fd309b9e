# SPDX-License-Identifier: MIT
"""What a privileged process loads for others, and what it does not."""

from __future__ import annotations

import errno
import os
import signal
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvnet.errors import HostError, UsageError
from pyvnet.offload import bpf, check
from pyvnet.offload.image import MapSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

NUMBERS = MapSpec("numbers", bpf.MAP_TYPE_ARRAY, 4, 64, 4)

# Each is opcode, destination, source, offset, immediate.
EXIT = (0x95, 0, 0, 0, 0)
ZERO = (0xB7, 0, 0, 0, 0)  # r0 = 0
KEY = ((0x7A, 10, 0, -8, 0), (0xBF, 2, 10, 0, 0), (0x07, 2, 0, 0, -8))  # r2 = &0
MAP = ((0x18, 1, 1, 0, 0), (0, 0, 0, 0, 0))  # r1 = map 0
LOOKUP = (*KEY, *MAP, (0x85, 0, 0, 0, 1), (0x55, 0, 0, 1, 0), EXIT)  # r0 = its element, or end
CONTEXT = (0xBF, 6, 1, 0, 0)  # r6 = skb


def code(*instructions: tuple[int, int, int, int, int]) -> bytes:
    return b"".join(
        struct.pack("<BBhi", opcode, to | of << 4, offset, value)
        for opcode, to, of, offset, value in instructions
    )


@pytest.fixture
def map_fd() -> Iterator[int]:
    fd = bpf.map_create(NUMBERS)
    yield fd
    os.close(fd)


def load(program: bytes, map_fd: int, *, verified_max: int = check.VERIFIED_MAX) -> int:
    return check.load(program, [map_fd], name="peers", license_="GPL", verified_max=verified_max)


@pytest.mark.needs_root
def test_a_program_of_a_peer_works_on_the_peers_map(map_fd: int) -> None:
    """It counts in its map and looks at the frame."""
    program = code(
        CONTEXT,
        *LOOKUP,
        (0xBF, 7, 0, 0, 0),  # r7 = element
        (0xB7, 1, 0, 0, 1),
        (0xDB, 7, 1, 0, 0),  # lock *(u64 *)r7 += 1
        (0xBF, 1, 6, 0, 0),
        (0xB7, 2, 0, 0, 12),
        (0xBF, 3, 10, 0, 0),
        (0x07, 3, 0, 0, -16),
        (0xB7, 4, 0, 0, 2),
        (0x85, 0, 0, 0, 26),  # skb_load_bytes(skb, 12, r10 - 16, 2)
        (0x71, 0, 10, -15, 0),  # r0 = second byte of the type
        EXIT,
    )
    fd = load(program, map_fd)
    try:
        assert bpf.run_program(fd, bytes(12) + b"\x08\x2a" + bytes(46), repeat=3).result == 0x2A
        assert bpf.map_lookup(map_fd, bytes(4), 64)[:8] == struct.pack("<Q", 3)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("instructions", "says"),
    [
        ((), "not whole instructions"),
        ((ZERO,) * 4097, "more than 4096"),
        ((ZERO,), "runs off its end"),
        ((ZERO, (0x05, 0, 0, 3, 0), EXIT), "instruction 1: it jumps outside"),
        ((ZERO, (0x15, 0, 0, -3, 0), EXIT), "it jumps back"),
        ((ZERO, (0x07, 0, 0, 0, 1), (0xA5, 0, 0, -2, 9), EXIT), "instruction 2: it jumps back"),
        (((0x05, 0, 0, 1, 0), *MAP, ZERO, EXIT), "it jumps outside"),
        ((MAP[0], EXIT), "lacks its second half"),
        ((ZERO, MAP[0]), "lacks its second half"),
        (((0x18, 1, 1, 0, 1), MAP[1], ZERO, EXIT), "there is no map 1"),
        (((0x18, 1, 1, 0, -1), MAP[1], ZERO, EXIT), "there is no map -1"),
        *(
            (((0x18, 1, source, 0, 0), MAP[1], ZERO, EXIT), "only constants and maps")
            for source in (2, 3, 4, 5, 6)  # values of maps, variables and functions of the kernel
        ),
        ((ZERO, (0x85, 0, 1, 0, 0), EXIT), "only helpers can be called"),
        ((ZERO, (0x85, 0, 2, 0, 5), EXIT), "only helpers can be called"),
        *(
            ((ZERO, (0x85, 0, 0, 0, helper), EXIT), f"the helper {helper} is not allowed")
            # probe_read, trace_printk, tail_call, redirect, get_current_task, bpf_loop
            for helper in (4, 6, 12, 23, 35, 181, -1)
        ),
        ((ZERO, (0xE5, 0, 0, 0, 0), EXIT), "the opcode 0xe5 is not allowed"),  # may_goto
        ((ZERO, (0x06, 0, 0, 0, 0), EXIT), "the opcode 0x06"),  # a long jump
        ((ZERO, (0x8D, 0, 0, 0, 0), EXIT), "the opcode 0x8d"),  # a call by register
        ((ZERO, (0x20, 0, 0, 0, 0), EXIT), "the opcode 0x20"),  # LD_ABS
        ((ZERO, (0x81, 0, 1, 0, 0), EXIT), "the opcode 0x81"),  # sign extension
        ((ZERO, (0xDB, 10, 0, -8, 0xE1), EXIT), "only the addition"),  # exchange
        ((ZERO, (0x37, 0, 0, 1, 2), EXIT), "newer than Linux 5.8"),  # signed division
        ((ZERO, (0xBF, 0, 0, 8, 0), EXIT), "newer than Linux 5.8"),  # move with sign
        ((ZERO, (0xD7, 0, 0, 0, 16), EXIT), "newer than Linux 5.8"),  # bswap
        ((ZERO, (0xB7, 0, 1, 0, 0), EXIT), "takes no second register"),
        ((ZERO, (0xB7, 11, 0, 0, 0), EXIT), "no such register"),
        ((ZERO, (0xBF, 0, 15, 0, 0), EXIT), "no such register"),
    ],
)
def test_what_a_peer_may_not_have(
    instructions: tuple[tuple[int, int, int, int, int], ...], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        check.review(code(*instructions), maps=1)


@settings(deadline=None)
@given(st.binary(max_size=64))
def test_any_bytes_are_judged(data: bytes) -> None:
    for program in (data, data + bytes(-len(data) % 8) + code(ZERO, EXIT)):
        try:
            check.review(program, maps=2)
        except UsageError:
            continue
        assert program[-8] in {0x95, 0x05}


SKB_TO_MAP = (CONTEXT, *LOOKUP, (0x7B, 0, 6, 0, 0), ZERO, EXIT)
STACK_TO_MAP = (*LOOKUP, (0x79, 1, 10, -64, 0), (0x7B, 0, 1, 0, 0), ZERO, EXIT)
PAST_THE_END = (*LOOKUP, (0x61, 0, 0, 4096, 0), EXIT)


@pytest.mark.needs_root
@pytest.mark.parametrize(
    "instructions",
    [
        pytest.param(SKB_TO_MAP, id="the context's address into a map"),
        pytest.param((*LOOKUP, (0x7B, 0, 0, 0, 0), ZERO, EXIT), id="a map's address into it"),
        pytest.param((*LOOKUP, (0x7B, 0, 10, 0, 0), ZERO, EXIT), id="the stack's into a map"),
        pytest.param(STACK_TO_MAP, id="what lay on the stack into a map"),
        pytest.param(((0x79, 0, 10, -8, 0), EXIT), id="what lay on the stack is returned"),
        pytest.param(((0xBF, 0, 10, 0, 0), EXIT), id="an address is returned"),
        pytest.param(((0xBF, 0, 1, 0, 0), (0x77, 0, 0, 0, 32), EXIT), id="half of one"),
        pytest.param(((0xBF, 0, 1, 0, 0), (0x1F, 0, 10, 0, 0), EXIT), id="their difference"),
        pytest.param(PAST_THE_END, id="past the end of a map"),
    ],
)
def test_the_rules_for_the_unprivileged_hold(
    instructions: tuple[tuple[int, int, int, int, int], ...], map_fd: int
) -> None:
    """These say nothing forbidden; only the verifier knows what they do."""
    check.review(code(*instructions), maps=1)
    with pytest.raises(HostError, match="cannot load the BPF program peers"):
        load(code(*instructions), map_fd)


@pytest.mark.needs_root
def test_with_all_privileges_some_of_them_would_pass(map_fd: int) -> None:
    """Which is why they are laid down."""
    leak = code(*SKB_TO_MAP)
    fd = bpf.prog_load(check._with_fds(leak, [map_fd]), name="leak", license_="GPL")
    try:
        bpf.run_program(fd, bytes(60))
        address = bpf.map_lookup(map_fd, bytes(4), 64)[:8]
        assert int.from_bytes(address, "little") >> 47 == 0x1FFFF  # the kernel's half
    finally:
        os.close(fd)


@pytest.mark.needs_root
def test_a_program_that_was_long_to_follow_is_not_kept(map_fd: int) -> None:
    number = (0x85, 0, 0, 0, 7)  # r0 = a random number
    branches = code(number, *((0x15, 0, 0, 0, n) for n in range(20)), ZERO, EXIT)
    os.close(load(branches, map_fd))
    with pytest.raises(UsageError, match=r"too much to follow: \d+ instructions"):
        load(branches, map_fd, verified_max=20)


@pytest.mark.needs_root
def test_a_program_cannot_keep_the_verifier_busy(
    map_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty branches have more paths than the verifier follows, which takes it seconds."""
    monkeypatch.setattr(check, "VERIFIER_SECONDS", 0.05)
    branches = [
        ((0x85, 0, 0, 0, 7), (0x15, 0, 0, 1, 5), (0x07, 7, 0, 0, 1 << i)) for i in range(30)
    ]
    labyrinth = code(
        (0xB7, 7, 0, 0, 0),
        *(instruction for branch in branches for instruction in branch),
        (0x15, 7, 0, 1, 77),  # so that it matters how r7 came about
        (0xB7, 9, 0, 0, 3),
        (0xBF, 0, 7, 0, 0),
        EXIT,
    )
    before = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[0] > 0
    with pytest.raises(HostError, match="the program takes the verifier too long") as caught:
        load(labyrinth, map_fd)
    assert caught.value.errno == errno.EAGAIN
    after = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert after == before  # a timer of the caller's goes on
    os.close(load(code(ZERO, EXIT), map_fd))


@pytest.mark.needs_root
def test_privileges_come_back(map_fd: int) -> None:
    def effective() -> str:
        lines = Path("/proc/thread-self/status").read_text().splitlines()
        return next(line for line in lines if line.startswith("CapEff"))

    before = effective()
    with check.unprivileged():
        laid_down = int(before.split()[1], 16) ^ int(effective().split()[1], 16)
        assert laid_down == 1 << 21 | 1 << 38
    assert effective() == before
    with pytest.raises(HostError):
        load(code(*SKB_TO_MAP), map_fd)
    assert effective() == before


@pytest.mark.needs_root
def test_a_license_is_text(map_fd: int) -> None:
    for license_ in ("GPL\0", "G" * 128):
        with pytest.raises(UsageError, match="license"):
            check.load(code(ZERO, EXIT), [map_fd], name="peers", license_=license_)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (MapSpec("m", 3, 4, 4, 1), "type 3 are not made"),
        (MapSpec("m", 12, 4, 4, 1), "type 12 are not made"),
        (MapSpec("m", 2, 4, 4, 1, 0x80), "may not have the flags 0x80"),
        (MapSpec("m", 1, 4, 4, 1, 0x400), "may not have the flags"),
        (MapSpec("m", 2, 4, 0, 1), "of such sizes"),
        (MapSpec("m", 1, 257, 4, 1), "of such sizes"),
        (MapSpec("m", 2, 4, 1 << 31, 1), "of such sizes"),
        (MapSpec("m", 2, 4, 4, -1), "of such sizes"),
        (MapSpec("m", 2, 4, 1 << 16, 1 << 16), "more than 4 MiB"),
        (MapSpec("m", 5, 4, (4 << 20) - 128, 1 << 20), "more than 4 MiB"),
    ],
)
def test_maps_that_are_not_made_for_a_peer(spec: MapSpec, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        check.review_map(spec)


def test_maps_that_are() -> None:
    assert check.review_map(NUMBERS) >= 4 * (4 + 64)
    assert check.review_map(MapSpec("m", 1, 16, 8, 1000, 1)) >= 24_000
    percpu = MapSpec("m", 6, 4, 1000, 100)
    assert check.review_map(percpu) >= 100_000 * (os.cpu_count() or 1)
