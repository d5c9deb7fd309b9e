# SPDX-License-Identifier: MIT
"""A machine of QEMU with one virtio-net on a tap, no guest in it, and our driver on it.

Its RAM is the driver's memory, so that rings and buffers are plain memory here.
The tap is QEMU's alone to read; we are the kernel's side of it.
"""

from __future__ import annotations

import mmap
import os
import socket
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

from pyvnet import Driver, Tap
from pyvnet.driver.memory import GuestMemory, RegionSpec
from pyvnet.netdev.netns import NetNamespace
from tests.differential.qemu.pci import place
from tests.differential.qemu.qtest import Qtest
from tests.differential.qemu.transport import QtestTransport
from tests.system.program import Program

MAC: Final = bytes.fromhex("020000006501")
PAIRS: Final = 4
_RAM: Final = 64 << 20
# Below it are the interrupt table, video memory and firmware.
_GUEST: Final = 1 << 20
_SLOT: Final = 4
_FD: Final = "/proc/self/fd/"
_RAM_FILE: Final = "memory-backend-file,id=ram,share=on,mem-path="
# All the processor ever does: cli; hlt; and again, should anything wake it.
_HALT: Final = b"\xfa\xf4\xeb\xfc"
NAME: Final = "oracle0"
_MTU: Final = 16384
_QUIET: Final = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")


class Machine:
    """``async with Machine() as machine``: ``machine.driver()``, ``machine.send(frame)``.

    Args:
        device: more of virtio-net-pci's properties.
        pairs: queue pairs, and queues of the tap.
    """

    def __init__(self, *, device: str = "", pairs: int = PAIRS) -> None:
        self._properties = device
        self._pairs = pairs
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Start it and place its registers."""
        async with AsyncExitStack() as stack:
            netns = stack.enter_context(NetNamespace())
            netns.call(lambda: _QUIET.write_text("1"))
            tap = Tap(NAME, queues=self._pairs, mtu=_MTU)
            netns.call(tap.open)
            stack.callback(tap.close)
            self.netns = netns
            self._sender = stack.enter_context(netns.call(_sender))
            self.memory = stack.enter_context(
                GuestMemory([RegionSpec(_GUEST, _RAM - _GUEST, _GUEST)])
            )
            near, far = socket.socketpair()
            operator, monitor = socket.socketpair()
            self._monitor = stack.enter_context(operator)
            with far, monitor, _firmware() as firmware:
                files = (firmware, far, monitor)
                fds = (self.memory.regions[0].fd, *(file.fileno() for file in files), *tap.fds)
                self.program = Program(self._command(*fds), netns=netns, fds=fds)
                await stack.enter_async_context(self.program)
            self.qtest = await Qtest.on(near)
            stack.push_async_callback(self.qtest.aclose)
            await self.qtest.ask("irq_intercept_in ioapic")
            self._registers = await place(self.qtest, _SLOT)
            # An announcement would be asked for again and again, also of those who come later.
            self.tell("migrate_set_parameter announce-rounds 1")
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Pull the plug."""
        await self._stack.aclose()

    def _command(self, ram: int, firmware: int, qtest: int, monitor: int, *taps: int) -> list[str]:
        fds = ":".join(map(str, taps))
        nic = f"virtio-net-pci,id=nic0,netdev=net0,addr={_SLOT:#x},mac={MAC.hex(':')},romfile="
        nic += ",vectors=0,disable-legacy=on,mq=on,rss=on,hash=on"
        return [
            *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"),
            *("-machine", "q35,accel=tcg,memory-backend=ram", "-m", str(_RAM >> 20)),
            *("-bios", f"{_FD}{firmware}"),
            *("-object", f"{_RAM_FILE}{_FD}{ram},size={_RAM}"),
            *("-chardev", f"socket,id=qtest,fd={qtest}"),
            *("-qtest", "chardev:qtest", "-qtest-log", "none"),
            *("-chardev", f"socket,id=monitor,fd={monitor}", "-mon", "chardev=monitor"),
            *("-netdev", f"tap,id=net0,fds={fds},vhost=off"),
            *("-device", f"{nic},{self._properties}" if self._properties else nic),
        ]

    def driver(self, kind: type[Driver] = Driver, **options: Any) -> Driver:
        """A driver of the device; one at a time, and each finds its memory empty."""
        self.memory._map.madvise(mmap.MADV_REMOVE)
        transport = QtestTransport(self.qtest, self._registers, self.memory)
        return kind(transport, memory=self.memory, **options)

    @property
    def alive(self) -> bool:
        """Whether QEMU has not hung up."""
        return self.qtest.connected

    def tell(self, command: str) -> None:
        """Give QEMU's monitor a command, without waiting for what it says."""
        with suppress(BlockingIOError):
            self._monitor.recv(1 << 16, socket.MSG_DONTWAIT)
        self._monitor.sendall(command.encode() + b"\n")

    def send(self, frame: bytes) -> None:
        """Send a frame of at least 14 bytes towards the driver."""
        self._sender.send(frame)


def _firmware() -> BinaryIO:
    made = os.fdopen(os.memfd_create("firmware"), "wb")
    made.write(_HALT * (0x1_0000 // len(_HALT)))
    made.flush()
    return made


def _sender() -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    made.bind((NAME, 0))  # protocol 0: it hears nothing
    return made
