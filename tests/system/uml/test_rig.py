# SPDX-License-Identifier: MIT
"""The rig itself: a guest boots, runs what it is asked to, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.system.uml.build import ENVIRONMENT
from tests.system.uml.machine import GuestError, Machine

if TYPE_CHECKING:
    from tests.system.uml.build import Built

pytestmark = [
    pytest.mark.guest,
    pytest.mark.needs_program("linux.uml", "busybox", "ethtool", "ip", "gcc"),
    pytest.mark.needs_root,
    pytest.mark.needs_netns,
]


def runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_a_guest_runs_commands_side_by_side_and_leaves_no_process(
    built: Built, tmp_path: Path
) -> None:
    async with Machine(built, tmp_path) as machine:
        assert await machine.sh("uname -s; id -u") == "Linux\n0\n"
        assert await machine.run("echo out; echo err >&2; exit 3") == (3, "out\nerr\n")
        with pytest.raises(GuestError, match="`false` returned 1"):
            await machine.sh("false")
        waiting = machine.start("echo there; exec cat /proc/kmsg >/dev/null")
        assert await waiting.line() == "there"
        assert (await machine.run("head -c 100000 /dev/zero | tr '\\0' x")).output == "x" * 100000
        assert await waiting.kill() == (128 + 9, "")
        outputs = await asyncio.gather(*(machine.sh(f"echo {i}") for i in range(20)))
        assert outputs == [f"{i}\n" for i in range(20)]
        await machine.sh("echo written > /share/note")
        assert (tmp_path / "note").read_text() == "written\n"
        processes = machine.processes()
        assert len(processes) > 3
    assert [pid for pid in processes if runs(pid)] == []


@pytest.mark.one_loop("what the rig does on both loops is shown above")
async def test_a_guest_that_dies_is_noticed(built: Built, tmp_path: Path) -> None:
    async with Machine(built, tmp_path) as machine:
        with pytest.raises(GuestError, match="the guest ended"):
            await machine.sh("poweroff -f")


@pytest.mark.one_loop("what the rig does on both loops is shown above")
async def test_a_guest_that_cannot_boot_says_why(built: Built, tmp_path: Path) -> None:
    with pytest.raises(GuestError, match="Requested init /init failed"):
        async with Machine(replace(built, root=tmp_path), tmp_path, attempts=1):
            pass


def test_the_shim_completes_register_sets_that_are_too_short(built: Built) -> None:
    def outcome(preload: str) -> str:
        done = subprocess.run(
            [built.short_xstate],
            env=ENVIRONMENT | {"LD_PRELOAD": preload},
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    assert outcome("") == "Bad address"
    assert outcome(str(built.shim)) == "written"
