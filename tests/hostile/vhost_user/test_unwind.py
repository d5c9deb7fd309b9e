# SPDX-License-Identifier: MIT
"""Half way through a good conversation something of ours runs out; the next one works."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from pyvnet.datapath.native import Native
from tests.hostile.rig import ALLOC, EPOLL, FD, MMAP, expect_held, held
from tests.hostile.vhost_user.limits import room_for_fds
from tests.hostile.vhost_user.world import Said, World, conversation, world

if TYPE_CHECKING:
    from collections.abc import Callable

ONE_LOOP: Final = pytest.mark.one_loop("what fails is below the loop")

# Site → calls tried, and how many conversations must at least have met a failure.
CALLS: Final = {ALLOC: (28, 7), MMAP: (12, 4), FD: (16, 8), EPOLL: (6, 2)}


def acknowledged() -> list[Said]:
    """The whole conversation, each message with word on it, if only that it was refused."""
    script = conversation()
    for number, said in enumerate(script[3:], 3):
        data = bytearray(said.data)
        data[4] |= 8
        script[number] = Said(bytes(data), said.fds)
    return script


@ONE_LOOP
@pytest.mark.parametrize("site", CALLS, ids=["alloc", "mmap", "fd", "epoll"])
@pytest.mark.requirement("PF-F-08", "CVE-2020-10723", "CVE-2026-5747")
async def test_every_call_of_a_conversation_fails_once(
    site: int, native_hooks: tuple[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    native = Native(*native_hooks)
    tried, at_least = CALLS[site]
    async with world(caplog, native) as here:
        await here.hear(acknowledged())
        before = held()
        failed = 0
        for number in range(1, tried + 1):
            here.lines()
            here.neighbour.begin()
            native.lib.vnet_test_fail(site, number)
            try:
                await here.hear(acknowledged())
            finally:
                native.lib.vnet_test_fail(site, 0)
            await here.neighbour.end()
            failed += len(here.lines()) > 1
            await here.works()
        assert failed >= at_least
        expect_held(before)


async def starved(here: World, spare: int, script: list[Said]) -> str:
    """A conversation with a process that has only so many descriptors left."""
    liar = here.connect()
    for said in script:
        if not liar.say(said):
            break
        with room_for_fds(spare):
            await liar.answers()
    return await liar.over()


@ONE_LOOP
@pytest.mark.parametrize("script", [conversation, acknowledged], ids=["silent", "acknowledged"])
@pytest.mark.requirement("CVE-2020-10717", "PF-A-08", "CVE-2022-0669")
async def test_with_few_descriptors_left(
    script: Callable[[], list[Said]], caplog: pytest.LogCaptureFixture
) -> None:
    """One at a time is what a message brings; what is short of that ends with a clear word."""
    async with world(caplog) as here:
        await here.hear(script())
        before = held()
        for spare in range(9):
            here.lines()
            here.neighbour.begin()
            reason = await starved(here, spare, script())
            await here.neighbour.end()
            *refusals, last = here.lines()
            assert last == f"victim: front-end disconnected: {reason}"
            assert all("refused: " in line for line in refusals)
            if not spare:
                assert "than this process may hold" in reason
            await here.works()
        assert reason == "it closed the connection"
        assert not refusals
        expect_held(before)
