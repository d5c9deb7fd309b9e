# SPDX-License-Identifier: MIT
"""What firmware does for one virtio-pci function: find it, place its registers, say where they lie.

Standard: "Virtio Over PCI Bus", modern interface alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from tests.differential.qemu.qtest import Qtest

_CONFIG_ADDRESS: Final = 0xCF8
_CONFIG_DATA: Final = 0xCFC
_VENDOR_VIRTIO: Final = 0x1AF4
_COMMAND: Final = 0x04
_MEMORY_AND_MASTER: Final = 0x06
_BAR0: Final = 0x10
_CAPABILITIES: Final = 0x34
_VENDOR_CAPABILITY: Final = 0x09
_COMMON, _NOTIFY, _ISR, _DEVICE = 1, 2, 3, 4  # virtio_pci_cap.cfg_type
# A gap of the machine's address space, between RAM and what belongs to the chipset.
_PLACE: Final = 0xE000_0000


class Function(NamedTuple):
    """A PCI function of bus 0, its configuration space reached through the two ports."""

    qtest: Qtest
    slot: int

    async def read(self, offset: int) -> int:
        """32 bits of configuration space."""
        await self._select(offset)
        return await self.qtest.ask(f"inl {_CONFIG_DATA:#x}")

    async def write(self, offset: int, value: int) -> None:
        """As `read`."""
        await self._select(offset)
        await self.qtest.ask(f"outl {_CONFIG_DATA:#x} {value:#x}")

    async def _select(self, offset: int) -> None:
        where = 0x8000_0000 | self.slot << 11 | offset & 0xFC
        await self.qtest.ask(f"outl {_CONFIG_ADDRESS:#x} {where:#x}")


@dataclass(frozen=True, slots=True)
class Registers:
    """Addresses of the structures of a modern virtio function."""

    common: int
    notify: int
    notify_multiplier: int
    isr: int
    device: int


async def place(qtest: Qtest, slot: int) -> Registers:
    """Give the function in ``slot`` addresses and let it work."""
    function = Function(qtest, slot)
    found = await function.read(0)
    assert found & 0xFFFF == _VENDOR_VIRTIO, f"no virtio function in slot {slot}: {found:#x}"
    bars = {}
    where = _PLACE
    index = 0
    while index < 6:
        register = _BAR0 + 4 * index
        await function.write(register, 0xFFFF_FFFF)
        mask = await function.read(register)
        wide = mask & 0x7 == 0x4
        if mask and not mask & 1:
            size = -(mask & ~0xF) & 0xFFFF_FFFF
            where = -(-where // size) * size
            await function.write(register, where)
            if wide:
                await function.write(register + 4, 0)
            bars[index] = where
            where += size
        index += 1 + wide
    await function.write(_COMMAND, _MEMORY_AND_MASTER)
    return await _registers(function, bars)


async def _registers(function: Function, bars: dict[int, int]) -> Registers:
    places = {}
    multiplier = 0
    at = await function.read(_CAPABILITIES) & 0xFC
    while at:
        head = await function.read(at)
        kind = head >> 24
        if head & 0xFF == _VENDOR_CAPABILITY and kind <= _DEVICE:
            bar = await function.read(at + 4) & 0xFF
            places[kind] = bars[bar] + await function.read(at + 8)
            if kind == _NOTIFY:
                multiplier = await function.read(at + 16)
        at = head >> 8 & 0xFC
    return Registers(places[_COMMON], places[_NOTIFY], multiplier, places[_ISR], places[_DEVICE])
