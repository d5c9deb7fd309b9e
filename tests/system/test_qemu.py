# SPDX-License-Identifier: MIT
"""A Linux guest in QEMU, `pyvnet serve` behind its vhost-user netdev.

QEMU keeps the control queue to itself and speaks for the driver.  One guest
boots for all the tests, so they run in order; each leaves traffic flowing.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import pytest
import pytest_asyncio

from pyvnet.daemon import admin_client
from pyvnet.netdev.netns import NetNamespace
from tests.daemon.serving import Serving
from tests.system.qemu import Guest, make_initramfs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.one_loop("the device is a process of its own"),
    pytest.mark.needs_root,
    pytest.mark.needs_netns,
    pytest.mark.needs_tap,
    pytest.mark.timeout(180),
]

HOST, GUEST = "198.18.9.1", "198.18.9.2"
TAP: Final = "vnet0"


class Rig:
    """A namespace with a tap that stays, the daemon on it, and a guest in front of the daemon."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._admin = directory / "admin.sock"
        self.front = directory / "front.sock"
        self.netns = NetNamespace()
        for line in (
            f"tuntap add dev {TAP} mode tap multi_queue vnet_hdr",
            f"address add {HOST}/24 dev {TAP}",
            f"link set {TAP} up",
        ):
            self.netns.run(["ip", *line.split()])
        self.initramfs = make_initramfs(directory)
        self.daemon = self.serve()

    def serve(self) -> Serving:
        """Start the daemon, or another one."""
        self.daemon = Serving(
            *("--socket-path", str(self.front), "--admin", str(self._admin)),
            *("--tap", TAP, "--queues", "2"),
            netns=self.netns,
        )
        return self.daemon

    def status(self) -> dict[str, Any]:
        """What the daemon says of its device."""
        answer = admin_client.ask(str(self._admin), {"command": "status"})
        return dict(answer["devices"][0])

    def close(self) -> None:
        """End the daemon and the namespace."""
        self.daemon.__exit__()
        self.netns.close()


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with closing(Rig(tmp_path_factory.mktemp("qemu"))) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guest(rig: Rig) -> AsyncIterator[Guest]:
    chardev = f"socket,id=front,path={rig.front},reconnect=1"
    directory = rig.front.parent
    async with Guest(
        rig.initramfs,
        directory,
        chardev=chardev,
        netdev="vhost-user,chardev=front,queues=2",
        device="mq=on,hash=on,rss=on",
        cpus=2,
    ) as booted:
        await booted.run(f"ip addr add {GUEST}/24 dev eth0 && ip link set eth0 up")
        yield booted


async def test_the_guest_pings_the_host(rig: Rig, guest: Guest) -> None:
    answer = await guest.run(f"ping -c 3 -i 0.2 {HOST}")
    assert " 0% packet loss" in answer
    status = rig.status()
    assert status["frontend"]["connected"]
    assert status["steering"]["queues_in_force"] == [0, 1]
