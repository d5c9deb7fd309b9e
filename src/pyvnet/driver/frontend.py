# SPDX-License-Identifier: MIT
"""A vhost-user front-end: the way from our driver to a back-end in another process.

An independent reading of the protocol; nothing of the back-end's code is used.
It plays both parts a virtual machine has in front of a back-end: the VMM's,
which owns the connection, and that of the emulated device as far as the
protocol does not carry it (the status field without STATUS, configuration
space without CONFIG).

    VhostUserFrontend   the calls of driver/transport.py
    ├── Link            messages and their answers
    ├── BackendRequests the other direction
    ├── MemoryMap       regions and user addresses
    └── Ring            one virtqueue
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from pyvnet.driver import frontend_rings as rings
from pyvnet.driver.errors import DeviceViolation, RefusedError
from pyvnet.driver.frontend_config import ConfigReader
from pyvnet.driver.frontend_link import DEFAULT_TIMEOUT, Link
from pyvnet.driver.frontend_memory import MemoryMap
from pyvnet.driver.frontend_requests import BackendRequests
from pyvnet.driver.frontend_rings import Ring
from pyvnet.driver.queue import new_eventfd
from pyvnet.errors import UsageError
from pyvnet.spec import vhost_user as vu
from pyvnet.spec.config import LinkStatus, NetConfig
from pyvnet.spec.features import Feature
from pyvnet.spec.status import DeviceStatus
from pyvnet.spec.vhost_user import ProtocolFeature, Request

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from pyvnet.spec.transport import MemoryRegion, QueueSetup

# What this front-end makes use of.
KNOWN: Final = (
    ProtocolFeature.MQ
    | ProtocolFeature.RARP
    | ProtocolFeature.REPLY_ACK
    | ProtocolFeature.NET_MTU
    | ProtocolFeature.BACKEND_REQ
    | ProtocolFeature.CONFIG
    | ProtocolFeature.RESET_DEVICE
    | ProtocolFeature.CONFIGURE_MEM_SLOTS
    | ProtocolFeature.STATUS
)

# Without CONFIG nobody says what these come to.
_NEED_CONFIG: Final = (
    Feature.MAC | Feature.MTU | Feature.SPEED_DUPLEX | Feature.RSS | Feature.HASH_REPORT
)
_NOT_THE_DRIVERS: Final = vu.F_PROTOCOL_FEATURES | vu.F_LOG_ALL
_CARRIED: Final = (1 << 64) - 1
_MOST_PAIRS: Final = vu.VRING_INDEX_MASK // 2
_RESUMED: Final = DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER


class VhostUserFrontend:
    """One driver's way to a vhost-user back-end; a `pyvnet.driver.Transport`.

    Args:
        connect: makes a connected socket; called again by `reconnect`.
        protocol_features: bits to use at most; None: all this front-end knows.
        timeout: seconds the back-end may take for an answer.
        pairs: queue pairs the machine is given at most where configuration space is made up
            here; None: all the back-end has that the protocol can name beside a controlq.
        plain: be a front-end from before protocol features, which does not know of bit 30.

    Attributes:
        protocol_features: what was negotiated; empty where the back-end has none.
        queue_num: what GET_QUEUE_NUM said (queue pairs or rings, as back-ends differ); 1 without
            MQ.
        regions_max: memory regions the back-end takes.
    """

    def __init__(
        self,
        connect: Callable[[], socket.socket],
        *,
        protocol_features: ProtocolFeature | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        pairs: int | None = None,
        plain: bool = False,
    ) -> None:
        self._plain = plain
        self._connect = connect
        self._pairs = _MOST_PAIRS if pairs is None else min(pairs, _MOST_PAIRS)
        self._wanted = KNOWN if protocol_features is None else protocol_features & KNOWN
        self._timeout = timeout
        self.protocol_features = ProtocolFeature(0)
        self.queue_num = 1
        self.regions_max = vu.MAX_REGIONS
        self._config_change_fd = -1
        self._generation = 0
        self._link: Link | None = None
        self._requests: BackendRequests | None = None
        self._memory = MemoryMap()
        self._memory_sent = False  # on this connection
        self._rings: dict[int, Ring] = {}
        self._has_protocol_features = False
        self._features: int | None = None
        self._refused = False
        self._status = 0

    # --- the connection ---------------------------------------------------------------

    async def open(self) -> None:
        """Connect and agree on the protocol.

        Raises:
            HostError: nobody listens there.
            DeviceViolation, ConnectionError, TimeoutError: whoever listens does not answer as
                a back-end does.
        """
        if self._config_change_fd < 0:
            self._config_change_fd = new_eventfd()
        self._link = Link(self._connect(), timeout=self._timeout, on_lost=self._lost)
        self._config = ConfigReader(self._link)
        self._memory_sent = False
        try:
            await self._agree()
        except BaseException:
            self._hang_up()
            raise

    async def _agree(self) -> None:
        link = self.link
        features = await link.call_u64(Request.GET_FEATURES)
        self._has_protocol_features = bool(features & vu.F_PROTOCOL_FEATURES) and not self._plain
        self.protocol_features = ProtocolFeature(0)
        if self._has_protocol_features:
            offered = await link.call_u64(Request.GET_PROTOCOL_FEATURES)
            chosen = self._wanted & ProtocolFeature(offered & int(KNOWN))
            await link.tell(Request.SET_PROTOCOL_FEATURES, vu.pack_u64(int(chosen)))
            self.protocol_features = chosen
            link.reply_ack = bool(chosen & ProtocolFeature.REPLY_ACK)
        await link.tell(Request.SET_OWNER)
        self.queue_num = 1
        if self.protocol_features & ProtocolFeature.MQ:
            self.queue_num = await link.call_u64(Request.GET_QUEUE_NUM)
        self.regions_max = vu.MAX_REGIONS
        if self.protocol_features & ProtocolFeature.CONFIGURE_MEM_SLOTS:
            self.regions_max = await link.call_u64(Request.GET_MAX_MEM_SLOTS)
        for what, number in (("queues", self.queue_num), ("memory slots", self.regions_max)):
            if not number:
                raise DeviceViolation(f"the back-end says it has 0 {what}")
        if self.protocol_features & ProtocolFeature.BACKEND_REQ:
            self._requests = BackendRequests(self._config_changed, link.lose)
            await link.tell(Request.SET_BACKEND_REQ_FD, fds=(self._requests.backend_fd,))
            self._requests.handed_over()

    @property
    def link(self) -> Link:
        """The connection; calls on a lost one raise ConnectionError."""
        if self._link is None:
            raise UsageError("this driver has let go of its device")
        return self._link

    @property
    def requests_refused(self) -> int:
        """Requests of the back-end, on this connection, that were not obeyed."""
        return self._requests.refused if self._requests else 0

    async def reconnect(self) -> None:
        """Connect anew, to the same back-end or its successor, and go on where the rings stand.

        What was handed over is handed over again; each ring resumes behind the last
        used element the driver can see, so what the old back-end had taken and not
        given back is done once more.

        Raises:
            RefusedError: the back-end does not take what was negotiated.
        """
        self.link.close()
        self._hang_up()
        await self.open()
        status, self._status = DeviceStatus(self._status), 0
        if self._features is None or not status & DeviceStatus.FEATURES_OK:
            return
        await self.set_status(_RESUMED)
        await self.set_driver_features(self._features)
        if self._refused:
            raise RefusedError(Request.SET_FEATURES.name, "it took them from us before")
        await self.set_status(_RESUMED | DeviceStatus.FEATURES_OK)
        await self._send_memory()
        for ring in self._rings.values():
            used = self._memory.used_idx(ring.setup.used_ring)
            ring.setup = replace(ring.setup, avail_base=used, used_base=used)
            ring.started = False
            await rings.set_up(self.link, self._memory, ring)
        if status & DeviceStatus.DRIVER_OK:
            await self.set_status(_RESUMED | DeviceStatus.FEATURES_OK | DeviceStatus.DRIVER_OK)
        for ring in self._rings.values():
            ring.interrupt()  # the last one may have died between its write and its call
        self._config_changed()

    async def _send_memory(self) -> None:
        self._memory_sent = True
        table = self._memory.table
        if self.protocol_features & ProtocolFeature.CONFIGURE_MEM_SLOTS:
            for region, fd in table:
                await self.link.tell(Request.ADD_MEM_REG, vu.pack_region(region), (fd,))
        elif table:
            payload = vu.pack_memory_table(tuple(region for region, _ in table))
            await self.link.tell(Request.SET_MEM_TABLE, payload, [fd for _, fd in table])

    def _lost(self, _reason: Exception) -> None:
        """Wake whoever waits for the device: looking at its status tells them."""
        self._config_changed()

    def _config_changed(self) -> None:
        self._generation += 1
        if self._config_change_fd >= 0:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_write(self._config_change_fd, 1)

    def _hang_up(self) -> None:
        if self._requests is not None:
            self._requests.close()
            self._requests = None
        if self._link is not None:
            self._link.close()

    async def aclose(self) -> None:
        """Hang up; the back-end stops the rings by itself.  Harmless twice."""
        self._hang_up()
        self._link = None
        self._forget_rings()
        self._memory.close()
        if self._config_change_fd >= 0:
            os.close(self._config_change_fd)
            self._config_change_fd = -1

    # --- features, status, configuration ------------------------------------------------

    @property
    def config_change_fd(self) -> int:
        """Readable after CONFIG_CHANGE_MSG, and when the connection was lost."""
        return self._config_change_fd

    async def device_features(self) -> int:
        """Feature bits the back-end offers, without those of the protocol itself."""
        features = await self.link.call_u64(Request.GET_FEATURES) & ~_NOT_THE_DRIVERS
        if not self.protocol_features & ProtocolFeature.CONFIG:
            features &= ~int(_NEED_CONFIG)
        return features

    async def set_driver_features(self, features: int) -> None:
        """SET_FEATURES; a refusal, or bits it has no room for, shows in FEATURES_OK."""
        self._features = features
        self._refused = bool(features & ~_CARRIED or features & _NOT_THE_DRIVERS)
        if self._refused:
            return
        protocol = vu.F_PROTOCOL_FEATURES if self._has_protocol_features else 0
        try:
            await self.link.tell(Request.SET_FEATURES, vu.pack_u64(features | protocol))
        except RefusedError:
            self._refused = True

    async def get_status(self) -> int:
        """GET_STATUS, or what a device without it would show."""
        status = self._status
        if self.protocol_features & ProtocolFeature.STATUS:
            status = await self.link.call_u64(Request.GET_STATUS)
            if status > 0xFF:
                raise DeviceViolation(f"GET_STATUS answered {status:#x}, more than a byte")
        self.link.check()
        return status & ~DeviceStatus.FEATURES_OK if self._refused else status

    async def set_status(self, status: int) -> None:
        """SET_STATUS and what goes with it: rings start with DRIVER_OK and end with 0."""
        if not status:
            await self._reset()
        if self._refused:  # a device that does not take the features does not keep the bit
            status &= ~DeviceStatus.FEATURES_OK
        before, self._status = self._status, status
        starts = status & ~before & DeviceStatus.DRIVER_OK
        if starts:
            await self._start([ring for ring in self._rings.values() if not ring.started])
        if self.protocol_features & ProtocolFeature.STATUS:
            await self.link.tell(Request.SET_STATUS, vu.pack_u64(status))
        if starts:
            for ring in self._rings.values():
                ring.kick()
        if starts or not self.link.reply_ack:
            await self._fence()

    async def _fence(self) -> None:
        """Return when the back-end has come this far; any message with an answer does."""
        await self.link.call_u64(Request.GET_FEATURES)

    async def _reset(self) -> None:
        """Back to the initial state, by RESET_DEVICE or else ring by ring."""
        if self.protocol_features & ProtocolFeature.RESET_DEVICE:
            await self.link.tell(Request.RESET_DEVICE)
        else:
            for index, ring in self._rings.items():
                if self._has_protocol_features:
                    await rings.enable(self.link, ring, on=False)
                await rings.stop(self.link, index)
        self._forget_rings()
        self._features = None
        self._refused = False

    def _forget_rings(self) -> None:
        for ring in self._rings.values():
            ring.close()
        self._rings.clear()

    async def read_config(self, offset: int, length: int) -> bytes:
        """GET_CONFIG; without CONFIG what can be said without the back-end."""
        if not self.keeps_config:
            pairs = min(self.queue_num, self._pairs)
            own = NetConfig(status=LinkStatus.LINK_UP, max_virtqueue_pairs=pairs)
            return own.pack()[offset : offset + length]
        return await self._config.read(offset, length)

    @property
    def keeps_config(self) -> bool:
        """Whether the back-end has a configuration space, or it is made up here."""
        return bool(self.protocol_features & ProtocolFeature.CONFIG)

    async def config_generation(self) -> int:
        """Goes up with each CONFIG_CHANGE_MSG."""
        return self._generation

    # --- memory and queues --------------------------------------------------------------

    async def set_memory(self, regions: Sequence[MemoryRegion]) -> None:
        """SET_MEM_TABLE, or REM_MEM_REG and ADD_MEM_REG for what differs."""
        if not 0 < len(regions) <= self.regions_max:
            raise UsageError(f"{len(regions)} regions; this back-end takes {self.regions_max}")
        change = self._memory.replace(regions)
        slots = self.protocol_features & ProtocolFeature.CONFIGURE_MEM_SLOTS
        if not slots or not self._memory_sent:
            await self._send_memory()
            return
        for region in change.removed:
            await self.link.tell(Request.REM_MEM_REG, vu.pack_region(region))
        for region, fd in change.added:
            await self.link.tell(Request.ADD_MEM_REG, vu.pack_region(region), (fd,))

    async def set_queue(self, setup: QueueSetup) -> None:
        """Set a ring up; after DRIVER_OK start it too."""
        ring = Ring.keep(setup)
        if (old := self._rings.pop(setup.index, None)) is not None:
            old.close()
        self._rings[setup.index] = ring
        await rings.set_up(self.link, self._memory, ring)
        if self._status & DeviceStatus.DRIVER_OK:
            await self._start([ring])
            ring.kick()
            await self._fence()

    async def _start(self, some: list[Ring]) -> None:
        for ring in some:
            await rings.hand_kick(self.link, ring)
        if self._has_protocol_features:
            for ring in some:
                await rings.enable(self.link, ring, on=True)

    async def stop_queue(self, index: int) -> tuple[int, int]:
        """GET_VRING_BASE; the used half of the position is in the ring itself."""
        if index not in self._rings:
            raise UsageError(f"virtqueue {index} was not set up")
        avail_base = await rings.stop(self.link, index)
        with contextlib.closing(self._rings.pop(index)) as ring:
            return avail_base, self._memory.used_idx(ring.setup.used_ring)

    # --- what only a front-end says -----------------------------------------------------

    async def send_rarp(self, mac: bytes) -> None:
        """SEND_RARP: let the host announce ``mac``, for a guest that does not do it."""
        self._need(ProtocolFeature.RARP)
        if len(mac) != 6:
            raise UsageError(f"a MAC address has 6 bytes, not {len(mac)}")
        await self.link.tell(Request.SEND_RARP, mac + bytes(2))

    async def set_mtu(self, mtu: int) -> None:
        """NET_SET_MTU: the MTU the guest was told; raises RefusedError if it cannot be."""
        self._need(ProtocolFeature.NET_MTU)
        await self.link.tell(Request.NET_SET_MTU, vu.pack_u64(mtu))

    def _need(self, feature: ProtocolFeature) -> None:
        if not self.protocol_features & feature:
            raise UsageError(f"{feature.name} was not negotiated with the back-end")
