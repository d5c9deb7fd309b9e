# SPDX-License-Identifier: MIT
"""A device in a process of its own, and a driver that tells it over vhost-user where flows go.

`pyvnet serve` gets one end of a socket pair as its wire, so no privilege is
needed. The driver sets RSS on the control queue, twice; the same flows go in.
"""

import asyncio
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pyvnet
from pyvnet import HashType, RssConfig
from pyvnet.spec.rss import VERIFICATION_KEY
from pyvnet.testing.frames import Ipv4, build, udp

IP = Ipv4(src="198.18.0.1", dst="198.18.0.2")
FLOWS = {port: bytes(build(IP, udp(port, 53))) for port in range(40_000, 46_000, 1_000)}
TABLES = {"in turns": (0, 1, 2, 3) * 32, "on 2 and 3": (2, 3) * 64}


async def steer(driver: pyvnet.Driver, wire: socket.socket) -> None:
    """Configure, send every flow in on the wire, print where it came out."""
    for name, table in TABLES.items():
        await driver.ctrl.rss_config(
            RssConfig(hash_types=HashType.UDPV4, indirection_table=table, key=VERIFICATION_KEY)
        )
        for port, packet in FLOWS.items():
            wire.sendmsg([bytes(12), packet])  # a frame follows its virtio-net header
            frame = await driver.receive(timeout=10)
            print(f"{name}: port {port} hash 0x{frame.hash_value:08x} receiveq {frame.queue}")


async def main(folder: Path) -> None:
    """Start the service, drive it, end it."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    serve = [sys.executable, "-m", "pyvnet", "serve", "--queues", "4"]
    serve += ["--socket-path", str(folder / "s"), "--port", f"pair:{far.fileno()}"]
    service = subprocess.Popen(  # noqa: ASYNC220, S603 - ours, and it takes no time
        serve, pass_fds=[far.fileno()], stderr=subprocess.PIPE, text=True
    )
    with near, far, service:
        try:
            assert service.stderr is not None
            assert any(line.endswith(" ready\n") for line in service.stderr)
            async with pyvnet.Driver.connect(f"vhost-user:{folder / 's'}") as driver:
                await driver.negotiate()
                await steer(driver, near)
        finally:
            service.terminate()


with tempfile.TemporaryDirectory() as made:
    asyncio.run(main(Path(made)))
