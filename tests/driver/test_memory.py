# SPDX-License-Identifier: MIT
"""Guest memory: regions, allocation, words, and nothing left behind."""

from __future__ import annotations

import mmap
import os
import struct
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvnet.driver import GuestMemory, RegionSpec
from pyvnet.driver.memory import DEFAULT_GPA, PAGE_SIZE
from pyvnet.errors import UsageError
from tests.driver.plain_device import PlainMemory

LOW, HIGH = 0x10_0000, 0x10_0000 + 2 * PAGE_SIZE


def test_memory_is_one_named_memfd_shared_by_fd() -> None:
    with GuestMemory(3 * PAGE_SIZE - 1, name="-a") as memory:
        (region,) = memory.regions
        assert (region.gpa, region.size, region.mmap_offset) == (DEFAULT_GPA, 3 * PAGE_SIZE, 0)
        assert "memfd:pyvnet-guest-a" in str(Path(f"/proc/self/fd/{region.fd}").readlink())
        memory.write(DEFAULT_GPA + 5, b"written")
        with mmap.mmap(region.fd, region.size) as other:
            assert other[5:12] == b"written"
            other[5:12] = b"changed"
        assert memory.read(DEFAULT_GPA + 5, 7) == b"changed"


def test_adjacent_regions_in_reverse_file_order_read_as_one_run_of_addresses() -> None:
    """What is adjacent for the guest is apart in the file, hence for the device."""
    specs = [RegionSpec(LOW, 2 * PAGE_SIZE, PAGE_SIZE), RegionSpec(HIGH, PAGE_SIZE, 0)]
    with GuestMemory(specs) as memory:
        memory.write(HIGH - 3, b"across")
        assert memory.read(HIGH - 3, 6) == b"across"
        device = PlainMemory(memory.regions)
        assert device.read(HIGH - 3, 6) == b"across"
        device.close()
        with mmap.mmap(memory.regions[0].fd, 3 * PAGE_SIZE) as file:
            assert file[3 * PAGE_SIZE - 3 :] == b"acr"
            assert file[:3] == b"oss"


def test_a_hole_between_regions_is_no_memory() -> None:
    with GuestMemory([RegionSpec(LOW, PAGE_SIZE), RegionSpec(HIGH, PAGE_SIZE)]) as memory:
        memory.write(LOW + PAGE_SIZE - 2, b"ok")
        with pytest.raises(UsageError, match=f"{LOW + PAGE_SIZE:#x} is outside"):
            memory.write(LOW + PAGE_SIZE - 2, b"too long")
        assert memory.read(LOW + PAGE_SIZE - 2, 2) == b"ok", "a refused write changed something"
        with pytest.raises(UsageError, match="outside"):
            memory.read(LOW + PAGE_SIZE, 1)
        with pytest.raises(UsageError, match="outside"):
            memory.read(0, 1)


def test_the_last_page_of_the_address_space_is_memory() -> None:
    top = (1 << 64) - PAGE_SIZE
    with GuestMemory([RegionSpec(top, PAGE_SIZE)]) as memory:
        memory.write((1 << 64) - 1, b"!")
        assert memory.read((1 << 64) - 1, 1) == b"!"


@pytest.mark.parametrize(
    "specs",
    [
        pytest.param([], id="none"),
        pytest.param([RegionSpec(LOW, 0)], id="empty"),
        pytest.param([RegionSpec(-PAGE_SIZE, PAGE_SIZE)], id="negative"),
        pytest.param([RegionSpec((1 << 64) - PAGE_SIZE, 2 * PAGE_SIZE)], id="wraps"),
        pytest.param([RegionSpec(LOW + 1, PAGE_SIZE)], id="gpa-unaligned"),
        pytest.param([RegionSpec(LOW, PAGE_SIZE, 16)], id="offset-unaligned"),
        pytest.param([RegionSpec(LOW, 2 * PAGE_SIZE), RegionSpec(LOW, PAGE_SIZE)], id="overlap"),
    ],
)
def test_regions_that_cannot_be_are_refused(specs: list[RegionSpec]) -> None:
    with pytest.raises(UsageError):
        GuestMemory(specs)


@given(st.lists(st.tuples(st.integers(1, 300), st.sampled_from([1, 2, 4, 16, 64])), max_size=40))
def test_allocations_are_aligned_and_never_overlap(requests: list[tuple[int, int]]) -> None:
    with GuestMemory(16 * PAGE_SIZE) as memory:
        taken = sorted((memory.alloc(size, align=align), size, align) for size, align in requests)
        assert all(gpa % align == 0 for gpa, _, align in taken)
        assert all(a[0] + a[1] <= b[0] for a, b in pairwise(taken))


@given(
    st.lists(st.integers(1, 9000), max_size=4),
    st.integers(1, 3000),
    st.integers(0, 40),
    st.sampled_from([1, 16, 64]),
    st.sets(st.integers(0, 9)),
)
def test_many_at_once_are_those_that_would_have_come_one_by_one(
    before: list[int], size: int, count: int, align: int, freed: set[int]
) -> None:
    """Also where they spread over regions, and where some come from what was freed."""
    given_out: list[list[int]] = []
    for at_once in (False, True):
        with GuestMemory([RegionSpec(LOW, 3 * PAGE_SIZE), RegionSpec(2 * HIGH, 1 << 17)]) as memory:
            for other in before:
                memory.alloc(other)
            first = [memory.alloc(size, align=align) for _ in range(10)]
            for place in freed:
                memory.free(first[place])
            if at_once:
                gpas = memory.alloc_many(size, count, align=align)
            else:
                gpas = [memory.alloc(size, align=align) for _ in range(count)]
            given_out.append([*gpas, memory.alloc(1)])
            for gpa in gpas:
                memory.free(gpa)
    assert given_out[0] == given_out[1]


def test_many_that_do_not_fit_reserve_nothing() -> None:
    with GuestMemory(PAGE_SIZE) as memory:
        memory.free(memory.alloc(1000))
        with pytest.raises(UsageError, match="no 5 times 1000 bytes left"):
            memory.alloc_many(1000, 5)
        assert len(set(memory.alloc_many(1000, 4))) == 4


def test_what_is_freed_is_given_out_again() -> None:
    with GuestMemory(PAGE_SIZE) as memory:
        first = memory.alloc(PAGE_SIZE // 2)
        memory.alloc(PAGE_SIZE // 2)
        with pytest.raises(UsageError, match="no 2048 bytes left"):
            memory.alloc(PAGE_SIZE // 2)
        memory.free(first)
        assert memory.alloc(PAGE_SIZE // 2) == first
        memory.free(first)
        with pytest.raises(UsageError, match="free already"):
            memory.free(first)


def test_reset_forgets_allocations_and_views() -> None:
    with GuestMemory(PAGE_SIZE) as memory:
        gpa = memory.alloc(PAGE_SIZE)
        words = memory.words(gpa, 4)
        memory.reset()
        assert memory.alloc(PAGE_SIZE) == gpa
        with pytest.raises(ValueError, match="released"):
            words[0]


def test_allocation_from_a_region_of_choice() -> None:
    with GuestMemory([RegionSpec(LOW, PAGE_SIZE), RegionSpec(HIGH, PAGE_SIZE)]) as memory:
        assert memory.alloc(16, region=1) == HIGH
        assert memory.alloc(16, region=0) == LOW
        memory.alloc(PAGE_SIZE - 16)
        assert memory.alloc(32) == HIGH + 16, "the first region is full"


def test_words_are_views_of_the_same_bytes_and_must_be_aligned() -> None:
    with GuestMemory([RegionSpec(LOW, PAGE_SIZE), RegionSpec(HIGH, PAGE_SIZE)]) as memory:
        memory.words(LOW + 2, 2)[1] = 0x1234
        memory.dwords(LOW + 8, 1)[0] = 0xDEADBEEF
        memory.octets(LOW + 12, 1)[0] = 7
        expected = struct.pack("<4xH2xIB", 0x1234, 0xDEADBEEF, 7)
        assert memory.read(LOW, len(expected)) == expected
        with pytest.raises(UsageError, match="aligned"):
            memory.words(LOW + 1, 1)
        with pytest.raises(UsageError, match="outside"):
            memory.words(LOW + PAGE_SIZE - 2, 2)


def test_a_word_never_shows_a_value_nobody_stored() -> None:
    """A reader beside the writer sees old or new, never the zero of a two-step store."""
    with GuestMemory(PAGE_SIZE) as memory:
        words = memory.words(DEFAULT_GPA, 1)
        words[0] = 0xAAAA
        seen: set[int] = set()
        stop = threading.Event()

        def read() -> None:
            mine = memory.words(DEFAULT_GPA, 1)
            while not stop.is_set():
                seen.update(mine[0] for _ in range(1000))

        reader = threading.Thread(target=read)
        reader.start()
        for _ in range(100_000):
            words[0] = 0x5555
            words[0] = 0xAAAA
        stop.set()
        reader.join()
        assert seen <= {0x5555, 0xAAAA}


def test_close_leaves_nothing_and_ends_every_view() -> None:
    memory = GuestMemory(PAGE_SIZE)
    fd = memory.regions[0].fd
    words = memory.words(DEFAULT_GPA, 2)
    memory.close()
    memory.close()
    with pytest.raises(ValueError, match="released"):
        words[0] = 1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    assert "pyvnet-guest" not in Path("/proc/self/maps").read_text()


def test_the_barrier_may_be_called_from_many_threads() -> None:
    with GuestMemory(PAGE_SIZE) as memory:

        def run() -> None:
            for _ in range(2000):
                memory.barrier()

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in threads)
