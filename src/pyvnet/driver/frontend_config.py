# SPDX-License-Identifier: MIT
"""Configuration space by message, also of back-ends that know less of it.

The standard has made it longer several times, and a back-end refuses a read
that goes beyond what it has.  So a read that is refused is tried again up to
each end there has been, longest first; what is missing reads as zero, which is
what a field without its feature is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pyvnet.driver.errors import DeviceViolation, RefusedError
from pyvnet.errors import UsageError
from pyvnet.spec import vhost_user as vu

if TYPE_CHECKING:
    from pyvnet.driver.frontend_link import Link

# Behind supported_hash_types, mtu, max_virtqueue_pairs, status and mac.
_ENDS: Final = (24, 12, 10, 8, 6)


class ConfigReader:
    """Reads over one connection, and remembers where its back-end's space ends.

    Args:
        link: the connection.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._end: int | None = None

    async def read(self, offset: int, length: int) -> bytes:
        """So many bytes, with zeros behind the back-end's end.

        Raises:
            RefusedError: it gives none of them.
            DeviceViolation: the answer is about something else.
            UsageError: none, or more than go in one message.
        """
        if not 0 < length <= vu.MAX_CONFIG:
            raise UsageError(f"{length} bytes of configuration space; 1 to 256 go in one message")
        end = offset + length if self._end is None else min(offset + length, self._end)
        if end <= offset:
            return bytes(length)
        try:
            return (await self._ask(offset, end - offset)).ljust(length, b"\0")
        except RefusedError as refused:
            for shorter in _ENDS:
                if offset < shorter < end and (got := await self._try(offset, shorter - offset)):
                    self._end = shorter
                    return got.ljust(length, b"\0")
            raise refused from None

    async def _try(self, offset: int, length: int) -> bytes:
        try:
            return await self._ask(offset, length)
        except RefusedError:
            return b""

    async def _ask(self, offset: int, length: int) -> bytes:
        ask = vu.ConfigSpace(offset, length, 0, bytes(length)).pack()
        answer = await self._link.call(
            vu.Request.GET_CONFIG, ask, sizes=frozenset({0, len(ask) - length, len(ask)})
        )
        if len(answer) < len(ask):
            raise RefusedError(vu.Request.GET_CONFIG.name, f"{length} bytes at {offset}")
        got = int.from_bytes(answer[:4], "little"), int.from_bytes(answer[4:8], "little")
        if got != (offset, length):
            raise DeviceViolation(f"GET_CONFIG of {length} bytes at {offset} answered {got}")
        return answer[-length:]
