# SPDX-License-Identifier: MIT
"""A policy compiled for the frame path: an immutable snapshot the workers share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pyvnet.datapath import hashing
from pyvnet.datapath.filter import PASS_ALL, Filter
from pyvnet.datapath.native import DEFAULT, Native, check

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyvnet.device.steering import Policy as DevicePolicy


class Verdict(NamedTuple):
    """What the receive line decides for a frame; ``hash_value`` is 0 without a report (U-03)."""

    hash_value: int
    hash_report: int
    queue: int


class Steering(NamedTuple):
    """What a steerer goes by; ``key`` has 40 bytes, the table a power of two of entries."""

    hash_types: int
    key: bytes
    indirection_table: tuple[int, ...]
    unclassified_queue: int
    mode: str = "rss"
    ex_types_always: bool = False


class Policy:
    """Handle on a ``struct vnet_policy``; the engine keeps its own reference."""

    def __init__(self, cdata: Any, steering: Steering, native: Native) -> None:
        self._cdata = cdata
        self._steering = steering
        self._native = native

    @classmethod
    def create(  # noqa: PLR0913 - one keyword per field of the snapshot
        cls,
        *,
        mode: str,
        hash_types: int,
        key: bytes,
        indirection_table: Sequence[int] = (0,),
        unclassified_queue: int = 0,
        pairs: int = 1,
        header_length: int = 20,
        merge_rx: bool = True,
        port_queues: int = 1,
        ex_types_always: bool = False,
        rx_filter: Filter = PASS_ALL,
        mtu: int = 0,
        guest_offloads: int = 0,
        host_offloads: int = 0,
        native: Native = DEFAULT,
    ) -> Self:
        """Check and expand a policy.

        ``mode`` is "automatic" or "rss"; ``key`` is zero-extended to 40 bytes;
        queues are pair numbers; ``header_length`` is 12 or 20 bytes; ``mtu`` is that of
        frames towards the driver, 0 for no limit.  ``guest_offloads`` (bits of
        CTRL_GUEST_OFFLOADS) may be delivered, ``host_offloads`` (CSUM and HOST_* feature
        bits) may be asked for.  Raises HostError (EINVAL) for values no device may hold,
        UsageError if ``PYVNET_HASH`` names a kernel that cannot be used.
        """
        hashing.follow_environment(native)
        ffi, lib = native
        config = ffi.new("struct vnet_policy_config *")
        steering = config.steering
        steering.mode = lib.VNET_STEER_RSS if mode == "rss" else lib.VNET_STEER_AUTOMATIC
        steering.hash_types = hash_types
        steering.flags = lib.VNET_STEER_F_EX_TYPES_ALWAYS if ex_types_always else 0
        steering.pairs = pairs
        steering.indirection_table_mask = len(indirection_table) - 1
        steering.unclassified_queue = unclassified_queue
        ffi.memmove(steering.key, key, min(len(key), lib.VNET_RSS_KEY_SIZE))
        for position, queue in enumerate(indirection_table[: lib.VNET_RSS_TABLE_LENGTH]):
            steering.indirection_table[position] = queue
        config.header_length = header_length
        config.merge_rx = merge_rx
        config.port_queues = port_queues
        config.mtu = mtu
        config.guest_offloads = guest_offloads
        config.host_offloads = host_offloads
        alive = _fill(ffi, config.filter, rx_filter)
        out = ffi.new("struct vnet_policy **")
        check(lib.vnet_policy_create(config, out), "cannot make a frame path policy")
        del alive
        zero_extended = key.ljust(lib.VNET_RSS_KEY_SIZE, b"\0")
        table = tuple(indirection_table)
        told = Steering(
            hash_types, zero_extended, table, unclassified_queue, str(mode), ex_types_always
        )
        return cls(out[0], told, native)

    @classmethod
    def compile(cls, policy: DevicePolicy, native: Native = DEFAULT) -> Self:
        """Expand what the device model worked out (``SetPolicy``)."""
        return cls.create(
            mode=policy.mode,
            hash_types=policy.hash_types,
            key=policy.key,
            indirection_table=policy.indirection_table,
            unclassified_queue=policy.unclassified_queue,
            pairs=policy.pairs,
            header_length=policy.header_length,
            merge_rx=policy.merge_rx,
            port_queues=policy.port_queues,
            ex_types_always=policy.ex_types_always,
            rx_filter=Filter.of(policy),
            mtu=policy.mtu,
            guest_offloads=policy.guest_offloads,
            host_offloads=policy.host_offloads,
            native=native,
        )

    def classify(self, frame: bytes, port_queue: int = 0) -> Verdict:
        """Hash, report and receive queue the receive line would give a frame.

        ``port_queue`` is the host port queue it came from, which automatic
        steering follows.
        """
        ffi, lib = self._native
        verdict = ffi.new("struct vnet_verdict *")
        lib.vnet_policy_classify(
            self._cdata, ffi.from_buffer(frame), len(frame), port_queue, verdict
        )
        return Verdict(verdict.hash_value, verdict.hash_report, verdict.queue)

    def passes(self, frame: bytes) -> bool:
        """Whether the filter would show the driver a frame."""
        ffi, lib = self._native
        return bool(lib.vnet_policy_passes(self._cdata, ffi.from_buffer(frame), len(frame)))

    @property
    def steering(self) -> Steering:
        """What it was made of, for who steers outside our threads."""
        return self._steering

    @property
    def serial(self) -> int:
        """What frames of a capture name it by."""
        return int(self._native.lib.vnet_policy_serial(self._cdata))

    @property
    def cdata(self) -> Any:
        """For the engine's verbs."""
        return self._cdata

    def close(self) -> None:
        """Give the reference back; harmless twice."""
        if self._cdata is not None:
            self._native.lib.vnet_policy_put(self._cdata)
            self._cdata = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _fill(ffi: Any, to: Any, rx_filter: Filter) -> tuple[Any, ...]:
    """Write ``struct vnet_filter``; it points into what is returned."""
    unicast, multicast = (
        ffi.from_buffer("uint8_t[]", b"".join(table))
        for table in (rx_filter.unicast, rx_filter.multicast)
    )
    to.modes = int(rx_filter.modes)
    to.unicast, to.unicast_count = unicast, len(rx_filter.unicast)
    to.multicast, to.multicast_count = multicast, len(rx_filter.multicast)
    to.mac = rx_filter.mac
    for vid in rx_filter.vlans:
        to.vlans[vid // 64] |= 1 << vid % 64
    return unicast, multicast
