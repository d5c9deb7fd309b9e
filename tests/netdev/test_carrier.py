# SPDX-License-Identifier: MIT
"""The cable: who is told when it is plugged in or pulled, and what stays quiet."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING

import pytest

from pyvnet.errors import HostError, UsageError
from pyvnet.netdev import Null, Pair, Tap
from pyvnet.netdev.netns import NetNamespace
from tests.netdev.kernel import ip

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_netns, pytest.mark.needs_tap]

DEADLINE = 30


class Heard:
    """What a watch called back with."""

    def __init__(self) -> None:
        self.calls: list[bool] = []
        self._news = asyncio.Event()

    def __call__(self, plugged: bool) -> None:
        self.calls.append(plugged)
        self._news.set()

    async def until(self, *calls: bool) -> None:
        async with asyncio.timeout(DEADLINE):
            while self.calls != list(calls):
                self._news.clear()
                await self._news.wait()


@pytest.fixture
def netns() -> Iterator[NetNamespace]:
    with NetNamespace() as made:
        yield made


def there(netns: NetNamespace) -> str:
    """The namespace's name as an option takes it."""
    return f"/proc/{os.getpid()}/fd/{netns.fileno()}"


@pytest.mark.requirement("NET-LNK-01")
async def test_told_as_it_is_and_at_every_change(netns: NetNamespace) -> None:
    heard = Heard()
    with Tap("ours", queues=2, netns=there(netns)) as tap:
        tap.watch_carrier(heard)
        await heard.until(True)
        tap.set_carrier(on=False)
        await heard.until(True, False)
        tap.set_carrier(on=True)
        await heard.until(True, False, True)
        netns.call(lambda: ip("link", "set", "ours", "down"))
        await heard.until(True, False, True, False)
        netns.call(lambda: ip("link", "set", "ours", "up"))
        await heard.until(True, False, True, False, True)


async def test_other_changes_say_nothing(netns: NetNamespace) -> None:
    heard = Heard()
    with Tap("ours", queues=1, netns=there(netns)) as tap:
        tap.watch_carrier(heard)
        await heard.until(True)

        def much_ado() -> None:
            ip("link", "set", "ours", "mtu", "1400")
            ip("link", "add", "br0", "type", "bridge")
            ip("link", "set", "ours", "master", "br0")
            ip("link", "set", "ours", "nomaster")
            ip("link", "set", "ours", "name", "renamed")
            ip("link", "set", "lo", "down")

        netns.call(much_ado)
        tap.set_carrier(on=False)
        await heard.until(True, False)


async def test_a_tap_that_is_deleted_has_no_carrier(netns: NetNamespace) -> None:
    heard = Heard()
    with Tap("ours", queues=1, netns=there(netns)) as tap:
        tap.watch_carrier(heard)
        await heard.until(True)
        netns.call(lambda: ip("link", "delete", "ours"))
        await heard.until(True, False)
        with pytest.raises(HostError, match="plug") as caught:
            tap.set_carrier(on=True)
        assert caught.value.errno == errno.EBADFD


async def test_messages_lost_are_asked_for_again(netns: NetNamespace) -> None:
    """More changes than the socket's buffer holds, while the loop was busy elsewhere."""
    heard = Heard()
    with Tap("ours", queues=1, netns=there(netns)) as tap:
        tap.watch_carrier(heard)
        await heard.until(True)
        lines = "".join(f"link set ours mtu {1000 + n % 500}\n" for n in range(4000))
        netns.run(["ip", "-batch", "-"], input=lines.encode(), capture_output=True)
        tap.set_carrier(on=False)
        await heard.until(True, False)


async def test_closing_ends_it_and_leaves_nothing(netns: NetNamespace) -> None:
    heard = Heard()
    tap = Tap("ours", queues=1, netns=there(netns), persist=True)
    with tap:
        tap.watch_carrier(heard)
        await heard.until(True)
    with tap:  # the watch is not the tap's, but that one open()'s
        pass
    assert heard.calls == [True]
    netns.call(lambda: ip("link", "delete", "ours"))


async def test_ports_without_a_cable_never_tell() -> None:
    heard = Heard()
    for port in (Null(1), Pair(1)):
        with port:
            port.watch_carrier(heard)
            port.set_carrier(on=False)
            await asyncio.sleep(0)
    assert heard.calls == []


async def test_a_tap_that_is_not_open_cannot_be_watched() -> None:
    with pytest.raises(UsageError, match="not open"):
        Tap("ours", queues=1).watch_carrier(Heard())


def test_a_frame_handed_to_the_host(netns: NetNamespace) -> None:
    frame = b"\xff" * 6 + b"\x02\0\0\0\0\x01\x88\xb5" + bytes(46)
    with Tap("ours", queues=2, netns=there(netns)) as tap:
        tap.send(frame)
        assert (tap.statistics().rx_packets, tap.statistics().rx_bytes) == (1, len(frame))
        netns.call(lambda: ip("link", "set", "ours", "down"))
        with pytest.raises(HostError, match="does not go into the tap"):
            tap.send(frame)


def test_a_frame_handed_to_a_wire_and_to_nothing() -> None:
    with Pair(2) as pair:
        pair.send(b"frame")
        assert pair.wire(0).recv() == (bytes(12), b"frame")
    with Null(1) as null:
        null.send(b"frame")
