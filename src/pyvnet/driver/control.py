# SPDX-License-Identifier: MIT
"""The controlq: one command at a time, and its answer ("Control Virtqueue").

Request and answer can be cut into descriptors at any byte (`CtrlLayout`), as
"Message Framing" grants the driver and real drivers do: Linux sends header,
one to four pieces of data, and the ack byte.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pyvnet.driver.chain import Buffer, cut_buffer
from pyvnet.driver.errors import CommandError, DeviceViolation
from pyvnet.errors import UsageError
from pyvnet.spec.ctrl import (
    ACK_SIZE,
    CTRL_HDR_SIZE,
    Ack,
    AnnounceCommand,
    CtrlClass,
    GuestOffloadsCommand,
    MacCommand,
    MqCommand,
    RxCommand,
    VlanCommand,
    command_name,
    pack_guest_offloads,
    pack_mac_table,
    pack_vlan,
    pack_vq_pairs,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyvnet.driver.chain import Chain
    from pyvnet.driver.memory import GuestMemory
    from pyvnet.driver.queue import DriverQueue
    from pyvnet.driver.receive import Receiver
    from pyvnet.driver.recorder import Recording
    from pyvnet.spec.rss import HashConfig, RssConfig

# What answer buffers hold before the device writes: neither OK nor ERR.
UNWRITTEN: Final = 0xEE

DEFAULT_TIMEOUT: Final = 10.0


@dataclass(frozen=True, slots=True)
class CtrlLayout:
    """How a command is laid out in memory.

    Attributes:
        request: lengths of the readable pieces; one more takes the rest.
        answer: lengths of the writable pieces; one more takes the rest.
        indirect: in an indirect table of its own; None: if that was negotiated.
        direct_prefix: pieces left in front of the indirect table.
    """

    request: tuple[int, ...] = (CTRL_HDR_SIZE,)
    answer: tuple[int, ...] = (ACK_SIZE,)
    indirect: bool | None = None
    direct_prefix: int = 0


DEFAULT_LAYOUT: Final = CtrlLayout()


@dataclass(frozen=True, slots=True)
class CtrlAnswer:
    """What came back for one command.

    Attributes:
        length: used.len.
        data: the whole writable part, ack first; bytes the device left alone are `UNWRITTEN`.
    """

    length: int
    data: bytes

    @property
    def ack(self) -> Ack:
        """The ack byte; raises DeviceViolation when there is none."""
        if not self.length or not self.data or self.data[0] not in {Ack.OK, Ack.ERR}:
            raise DeviceViolation(f"no ack in an answer of {self.length} bytes: {self.data!r}")
        return Ack(self.data[0])

    @property
    def result(self) -> bytes:
        """What the device wrote behind the ack."""
        return self.data[ACK_SIZE : self.length]


@dataclass(frozen=True, slots=True)
class _Exchange:
    """Buffers of a command in flight, given back when its chain is."""

    request: int
    answer: int

    def free(self, memory: GuestMemory) -> None:
        """Give both buffers back."""
        memory.free(self.request)
        memory.free(self.answer)


class Control:
    """Commands of the controlq, as methods; each waits for its answer.

    Each returns the ack.  With ``check`` (the default) ERR raises CommandError.
    No answer within the timeout raises TimeoutError.

    Args:
        queue: the controlq, or None where CTRL_VQ was not negotiated.
        timeout: seconds to wait for an answer; None: for ever.
        receiver: told of what changes which frames may come.
        recording: told of commands that were obeyed.
    """

    def __init__(
        self,
        queue: DriverQueue | None,
        *,
        timeout: float | None,
        receiver: Receiver | None = None,
        recording: Recording | None = None,
    ) -> None:
        self._recording = recording
        self._queue = queue
        self._receiver = receiver
        self._timeout = timeout
        self._lock = asyncio.Lock()

    async def rx_promisc(self, *, on: bool, check: bool = True) -> Ack:
        """RX_PROMISC: receive everything."""
        return await self._rx(RxCommand.PROMISC, on, check=check)

    async def rx_allmulti(self, *, on: bool, check: bool = True) -> Ack:
        """RX_ALLMULTI: receive every multicast."""
        return await self._rx(RxCommand.ALLMULTI, on, check=check)

    async def rx_alluni(self, *, on: bool, check: bool = True) -> Ack:
        """RX_ALLUNI: receive every unicast."""
        return await self._rx(RxCommand.ALLUNI, on, check=check)

    async def rx_nomulti(self, *, on: bool, check: bool = True) -> Ack:
        """RX_NOMULTI: receive no multicast."""
        return await self._rx(RxCommand.NOMULTI, on, check=check)

    async def rx_nouni(self, *, on: bool, check: bool = True) -> Ack:
        """RX_NOUNI: receive no unicast."""
        return await self._rx(RxCommand.NOUNI, on, check=check)

    async def rx_nobcast(self, *, on: bool, check: bool = True) -> Ack:
        """RX_NOBCAST: receive no broadcast."""
        return await self._rx(RxCommand.NOBCAST, on, check=check)

    async def _rx(self, command: RxCommand, on: bool, *, check: bool) -> Ack:  # noqa: FBT001
        return await self.raw(CtrlClass.RX, command, bytes([on]), check=check)

    async def mac_table_set(
        self, unicast: Sequence[bytes], multicast: Sequence[bytes], *, check: bool = True
    ) -> Ack:
        """MAC_TABLE_SET: further addresses to receive, 6 bytes each; replaces the table."""
        payload = pack_mac_table(unicast, multicast)
        return await self.raw(CtrlClass.MAC, MacCommand.TABLE_SET, payload, check=check)

    async def mac_addr_set(self, mac: bytes, *, check: bool = True) -> Ack:
        """MAC_ADDR_SET: the device's own address, 6 bytes."""
        return await self.raw(CtrlClass.MAC, MacCommand.ADDR_SET, mac, check=check)

    async def vlan_add(self, vid: int, *, check: bool = True) -> Ack:
        """VLAN_ADD: receive frames tagged with this VLAN id."""
        return await self.raw(CtrlClass.VLAN, VlanCommand.ADD, pack_vlan(vid), check=check)

    async def vlan_del(self, vid: int, *, check: bool = True) -> Ack:
        """VLAN_DEL: no longer."""
        return await self.raw(CtrlClass.VLAN, VlanCommand.DEL, pack_vlan(vid), check=check)

    async def announce_ack(self, *, check: bool = True) -> Ack:
        """ANNOUNCE_ACK: the guest has announced itself."""
        return await self.raw(CtrlClass.ANNOUNCE, AnnounceCommand.ACK, check=check)

    async def guest_offloads_set(self, offloads: int, *, check: bool = True) -> Ack:
        """GUEST_OFFLOADS_SET: what of the negotiated guest offloads is on.

        Received headers are judged by it from now on.

        Args:
            offloads: mask; its bits are those of the features (`Feature.GUEST_TSO4` …).
            check: as for every command.
        """
        receiver = self._receiver
        if receiver is not None:
            receiver.offloads_change(offloads)
        payload = pack_guest_offloads(offloads)
        ctrl_class, command = CtrlClass.GUEST_OFFLOADS, GuestOffloadsCommand.SET
        ack = await self.raw(ctrl_class, command, payload, check=False)
        if receiver is not None:
            receiver.offloads_changed(obeyed=ack is Ack.OK)
        if check and ack is not Ack.OK:
            raise CommandError(ctrl_class, command, ack)
        return ack

    async def vq_pairs_set(self, pairs: int, *, check: bool = True) -> Ack:
        """MQ_VQ_PAIRS_SET: receive on the first ``pairs`` pairs, steered automatically."""
        payload = pack_vq_pairs(pairs)
        return await self.raw(CtrlClass.MQ, MqCommand.VQ_PAIRS_SET, payload, check=check)

    async def rss_config(self, config: RssConfig, *, check: bool = True) -> Ack:
        """MQ_RSS_CONFIG: steer by hash through an indirection table."""
        return await self.raw(CtrlClass.MQ, MqCommand.RSS_CONFIG, config.pack(), check=check)

    async def hash_config(self, config: HashConfig, *, check: bool = True) -> Ack:
        """MQ_HASH_CONFIG: what to hash for reports where RSS does not say."""
        return await self.raw(CtrlClass.MQ, MqCommand.HASH_CONFIG, config.pack(), check=check)

    async def raw(
        self,
        ctrl_class: int,
        command: int,
        payload: bytes = b"",
        *,
        layout: CtrlLayout = DEFAULT_LAYOUT,
        check: bool = True,
    ) -> Ack:
        """Any command that is answered by an ack alone.

        Raises:
            CommandError: ERR, with ``check``.
            DeviceViolation: the answer has no ack, or one that is neither OK nor ERR.
            TimeoutError: no answer.
        """
        request = bytes((ctrl_class, command)) + payload
        answer = await self.exchange(request, ACK_SIZE, layout=layout)
        if check and answer.ack is not Ack.OK:
            raise CommandError(ctrl_class, command, answer.ack)
        return answer.ack

    async def exchange(
        self, request: bytes, writable: int = ACK_SIZE, *, layout: CtrlLayout = DEFAULT_LAYOUT
    ) -> CtrlAnswer:
        """Send any bytes, with room for an answer of any size, and take what comes back.

        ``request`` may be empty or cut short, ``writable`` may be 0, but not both.
        """
        queue = self._queue
        if queue is None:
            raise UsageError("there is no controlq: CTRL_VQ was not negotiated")
        async with self._lock:
            chain = self._submit(queue, request, writable, layout)
            try:
                async with asyncio.timeout(self._timeout):
                    answer = await queue.wait_for(lambda: self._answer(queue, chain, writable))
            except TimeoutError:
                name = command_name(request[0], request[1]) if len(request) >= 2 else "a command"
                raise TimeoutError(f"no answer to {name} within {self._timeout} s") from None
            if self._recording is not None and answer.data[:1] == bytes([Ack.OK]):
                self._recording.commanded(request, self._receiver)
            return answer

    @staticmethod
    def _submit(queue: DriverQueue, request: bytes, writable: int, layout: CtrlLayout) -> Chain:
        ring, memory = queue.ring, queue.ring.memory
        # Powers of two, so that freed buffers find a taker.
        exchange = _Exchange(
            memory.alloc(1 << (len(request) or 1).bit_length()),
            memory.alloc(1 << (writable or 1).bit_length()),
        )
        pieces: list[Buffer] = []
        if request:
            memory.write(exchange.request, request)
            pieces += cut_buffer(exchange.request, len(request), layout.request, writable=False)
        if writable:
            memory.write(exchange.answer, bytes([UNWRITTEN]) * writable)
            pieces += cut_buffer(exchange.answer, writable, layout.answer, writable=True)
        try:
            chain = ring.add(
                pieces, exchange, indirect=layout.indirect, direct_prefix=layout.direct_prefix
            )
        except UsageError:
            exchange.free(memory)
            raise
        queue.publish()
        return chain

    @staticmethod
    def _answer(queue: DriverQueue, chain: Chain, writable: int) -> CtrlAnswer | None:
        """Take one chain back, if it is there.

        An older one, whose sender gave up waiting, is only cleared away.
        """
        memory = queue.ring.memory
        while (used := queue.ring.poll()) is not None:
            exchange = used.chain.token
            if not isinstance(exchange, _Exchange):
                queue.others.append(used)
                continue
            data = memory.read(exchange.answer, writable) if used.chain is chain else b""
            exchange.free(memory)
            if used.chain is chain:
                return CtrlAnswer(used.length, data)
        return None
