# SPDX-License-Identifier: MIT
"""The file of guest memory is cut off while it is mapped: the device loses it, nobody else does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from itertools import product
from typing import TYPE_CHECKING, Final

import pytest

from pyvnet.datapath.engine import MemoryLost
from tests.hostile import losses
from tests.hostile import rig as rigs
from tests.hostile.attack import CTRL, ROLES, RX, TX
from tests.hostile.doomed import PLACES, Doomed
from tests.hostile.forms import repeated
from tests.hostile.rig import PAGE, ROOT, Rig, guarded

if TYPE_CHECKING:
    from pyvnet.datapath.native import Native

CASES: Final = [
    (role, place) for role, place in product(ROLES, PLACES) if place != "payload" or role == TX
]


@pytest.mark.parametrize(("role", "place"), CASES)
def test_memory_cut_off_costs_its_device_alone(rig: Rig, role: str, place: str) -> None:
    """Reported once; other rings of the device and other devices lose no frame."""
    with guarded(), Doomed(rig, role, place) as doomed:
        doomed.offer()
        rig.begin()
        rig.arena.freeze()
        doomed.cut()
        doomed.trigger()
        doomed.expect_lost()
        for lane in rig.lanes:
            lane.end()
        if place == "payload":
            assert rig.engine.statistics(0).tx_drop_port == 1
    rig.received()
    rig.begin()
    rig.arena.freeze()
    rig.end()


@pytest.mark.parametrize(("role", "place"), CASES)
def test_a_chain_is_in_hand_when_the_memory_goes(rig: Rig, role: str, place: str) -> None:
    """The ring has run for a while, and stands in the middle."""
    with guarded(), Doomed(rig, role, place) as doomed:
        for _ in range(2):
            doomed.offer()
            doomed.trigger()
            assert rig.engine.next_event() is None
        if role == CTRL:
            doomed._poke(doomed.ring.avail + 2, b"\x02\0")
            doomed._poke(doomed.ring.avail + 6, b"\0\0")
            assert rig.engine.ctrl_pop() is not None
        rig.begin()
        doomed.cut()
        if role == CTRL:
            rig.engine.ctrl_complete(b"\0")
        doomed.trigger()
        # Stopping it, and moving it, is possible all the same.
        state = rig.engine.stop_queue(doomed.index)
        assert state.used_base <= 8
        for lane in rig.lanes:
            lane.end()
    with suppress(BlockingIOError):
        os.eventfd_read(rig.err)
    rig.received()


@repeated
@pytest.mark.tsan
def test_tables_come_and_are_lost(rig: Rig, repeats: int) -> None:
    """Each is reported; nothing is left of any (the fixture counts)."""
    for turn in range(repeats // 4):
        with guarded(), Doomed(rig, ROLES[turn % 3], PLACES[turn % 5]) as doomed:
            doomed.offer()
            rig.begin()
            rig.arena.freeze()
            doomed.cut()
            doomed.trigger()
            assert doomed.events().count(MemoryLost()) == 1
            for lane in rig.lanes:
                lane.end()
        while rig.engine.next_event():
            pass
        with suppress(BlockingIOError):
            os.eventfd_read(rig.err)
        rig.received()


def test_a_host_that_counts_its_pages_still_grants_one(rig: Rig) -> None:
    """Zeros for the whole region are refused, zeros for a page are not."""
    with guarded(), Doomed(rig, RX, "buffer") as doomed:
        doomed.offer()
        rig.begin()
        doomed.cut()
        rig.fail(rigs.MMAP, 1)
        doomed.trigger()
        rig.disarm()
        doomed.expect_lost()
        for lane in rig.lanes:
            lane.end()


def test_what_is_left_of_the_file_and_not_touched_is_no_loss(rig: Rig) -> None:
    with guarded(), Doomed(rig, RX, "buffer", size=64 * PAGE) as doomed:
        doomed.offer()
        doomed.cut(PAGE)
        doomed.trigger()
        assert rig.engine.next_event() is None
        assert rig.engine.statistics(0).rx_packets == 1


def test_the_loss_of_a_table_that_was_replaced_meanwhile_is_not_held_against_the_new_one(
    rig: Rig,
) -> None:
    with guarded(), Doomed(rig, TX, "buffer") as doomed:
        doomed.offer()
        doomed.cut()
        doomed.trigger()
        rig.engine.set_memory(rig.table)
        assert MemoryLost() not in doomed.events()


@pytest.mark.parametrize("name", sorted(losses.SCENARIOS))
def test_in_a_process_of_its_own(hooked: Native, name: str) -> None:
    """Whoever else wants SIGBUS; and a fault that is not ours kills as it did."""
    del hooked  # it is built
    ended = subprocess.run(
        [sys.executable, "-m", "tests.hostile.losses", name],
        cwd=ROOT,
        env=os.environ | {"ASAN_OPTIONS": "detect_leaks=0:handle_sigbus=0"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    expected = losses.SCENARIOS[name].status
    assert ended.returncode == expected, ended.stderr.decode(errors="replace")
    if expected == -signal.SIGBUS and "faulthandler" in name:
        assert b"Fatal Python error: Bus error" in ended.stderr
