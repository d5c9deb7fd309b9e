# SPDX-License-Identifier: MIT
"""Our driver's way to a virtio-pci device of QEMU: registers by qtest, rings in shared memory.

Interrupts are INTx: one line for all queues.  It is raised, we read (and so clear)
the ISR status, and whoever's used ring has moved since is told.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from pyvnet.conformance.case import NotApplicable
from pyvnet.driver.queue import drain_eventfd, new_eventfd
from pyvnet.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyvnet.driver.memory import GuestMemory
    from pyvnet.spec.transport import MemoryRegion, QueueSetup
    from tests.differential.qemu.pci import Registers
    from tests.differential.qemu.qtest import Qtest

# Of struct virtio_pci_common_cfg.
_FEATURE_SELECT, _FEATURE = 0x00, 0x04
_DRIVER_SELECT, _DRIVER_FEATURE = 0x08, 0x0C
_STATUS, _GENERATION = 0x14, 0x15
_QUEUE_SELECT, _QUEUE_SIZE, _QUEUE_ENABLE, _QUEUE_NOTIFY = 0x16, 0x18, 0x1C, 0x1E
_QUEUE_DESC, _QUEUE_AVAIL, _QUEUE_USED = 0x20, 0x28, 0x30
_ISR_QUEUE, _ISR_CONFIG = 1, 2
_CONFIG_SIZE: Final = 24  # of the device's structure: QEMU knows no tunnel types


class _Queue:
    """One queue that is handed over: duplicates of the driver's eventfds, where it is kicked."""

    def __init__(self, setup: QueueSetup, doorbell: int) -> None:
        self.setup = setup
        self.doorbell = doorbell
        self.kick = os.dup(setup.kick_fd)
        self.call = os.dup(setup.call_fd)
        self.told = setup.used_base

    def close(self) -> None:
        os.close(self.kick)
        os.close(self.call)


class QtestTransport:
    """The ``Transport`` of one virtio-pci function.

    Args:
        qtest: the machine.
        registers: where its registers lie.
        memory: the machine's RAM, the only one a driver can use here.
    """

    def __init__(self, qtest: Qtest, registers: Registers, memory: GuestMemory) -> None:
        self._qtest = qtest
        self._at = registers
        self._memory = memory
        self._loop = asyncio.get_running_loop()
        self._queues: dict[int, _Queue] = {}
        self._config_change = new_eventfd()
        qtest.on_raise = self._raised

    @property
    def config_change_fd(self) -> int:
        """Readable after a configuration change notification."""
        return self._config_change

    async def device_features(self) -> int:
        """All 64 bits there are over this interface of QEMU 7.2."""
        return sum(
            [await self._feature_word(word) << 32 * word for word in range(2)],
        )

    async def _feature_word(self, word: int) -> int:
        await self._write(_FEATURE_SELECT, "l", word)
        return await self._read(_FEATURE, "l")

    async def set_driver_features(self, features: int) -> None:
        """Write them, a word at a time."""
        for word in range(2):
            await self._write(_DRIVER_SELECT, "l", word)
            await self._write(_DRIVER_FEATURE, "l", features >> 32 * word & 0xFFFF_FFFF)

    async def get_status(self) -> int:
        """Read the device status field."""
        return await self._read(_STATUS, "b")

    async def set_status(self, status: int) -> None:
        """Write it; 0 takes the queues back."""
        await self._write(_STATUS, "b", status)
        if not status:
            await self.get_status()
            self._forget()

    async def read_config(self, offset: int, length: int) -> bytes:
        """Read of the device's structure; what is beyond it is zero."""
        there = max(0, min(length, _CONFIG_SIZE - offset))
        data = b""
        while len(data) < there:
            step = 4 if there - len(data) >= 4 and (offset + len(data)) % 4 == 0 else 1
            data += await self._qtest.read(self._at.device + offset + len(data), step)
        return data.ljust(length, b"\0")

    async def config_generation(self) -> int:
        """Read it."""
        return await self._read(_GENERATION, "b")

    async def set_memory(self, regions: Sequence[MemoryRegion]) -> None:
        """See that it is the machine's own: RAM cannot be exchanged."""
        if tuple(regions) != self._memory.regions:
            raise NotApplicable("a driver over qtest has to use the machine's memory")

    async def set_queue(self, setup: QueueSetup) -> None:
        """Write addresses and size, enable, and carry kicks from now on."""
        if setup.avail_base or setup.used_base:
            raise NotApplicable("virtio-pci starts rings at index 0")
        await self._write(_QUEUE_SELECT, "w", setup.index)
        largest = await self._read(_QUEUE_SIZE, "w")
        if setup.size > largest:
            raise NotApplicable(f"queue {setup.index} has at most {largest} descriptors")
        await self._write(_QUEUE_SIZE, "w", setup.size)
        for register, address in (
            (_QUEUE_DESC, setup.desc_table),
            (_QUEUE_AVAIL, setup.avail_ring),
            (_QUEUE_USED, setup.used_ring),
        ):
            await self._write(register, "l", address & 0xFFFF_FFFF)
            await self._write(register + 4, "l", address >> 32)
        offset = await self._read(_QUEUE_NOTIFY, "w")
        await self._write(_QUEUE_ENABLE, "w", 1)
        queue = _Queue(setup, self._at.notify + offset * self._at.notify_multiplier)
        self._queues[setup.index] = queue
        self._loop.add_reader(queue.kick, self._kicked, queue)

    async def stop_queue(self, index: int) -> tuple[int, int]:
        """Not over this interface; a reset stops them all."""
        raise NotApplicable(f"queue {index} cannot be stopped alone without RING_RESET")

    async def aclose(self) -> None:
        """Let go; the machine is its owner's."""
        if self._config_change >= 0:
            self._forget()
            os.close(self._config_change)
            self._config_change = -1

    def _forget(self) -> None:
        queues, self._queues = self._queues, {}
        for queue in queues.values():
            self._loop.remove_reader(queue.kick)
            queue.close()

    # Notifications.

    def _kicked(self, queue: _Queue) -> None:
        if drain_eventfd(queue.kick):
            self._qtest.post(f"writew {queue.doorbell:#x} {queue.setup.index:#x}")

    def _raised(self, _line: int) -> None:
        self._qtest.post(f"readb {self._at.isr:#x}", self._interrupted)

    def _interrupted(self, answer: str | None) -> None:
        if answer is None or self._config_change < 0:
            return
        status = int(answer.split()[1], 0)
        if status & _ISR_CONFIG:
            os.eventfd_write(self._config_change, 1)
        if status & _ISR_QUEUE:
            for queue in self._queues.values():
                self._tell(queue)

    def _tell(self, queue: _Queue) -> None:
        with suppress(UsageError):  # the memory was closed
            used = int.from_bytes(self._memory.read(queue.setup.used_ring + 2, 2), "little")
            if used != queue.told:
                queue.told = used
                os.eventfd_write(queue.call, 1)

    # Registers.

    async def _read(self, register: int, width: str) -> int:
        return await self._qtest.ask(f"read{width} {self._at.common + register:#x}")

    async def _write(self, register: int, width: str, value: int) -> None:
        await self._qtest.ask(f"write{width} {self._at.common + register:#x} {value:#x}")
