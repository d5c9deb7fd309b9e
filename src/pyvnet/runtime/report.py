# SPDX-License-Identifier: MIT
"""A running device as status output shows it: plain JSON types, names as the standard has them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pyvnet.spec.config import LinkStatus, NetConfig
from pyvnet.spec.features import feature_names
from pyvnet.spec.rss import HashType
from pyvnet.spec.status import DeviceStatus

if TYPE_CHECKING:
    from enum import IntFlag

    from pyvnet.datapath.engine import Engine
    from pyvnet.device.steering import Policy
    from pyvnet.runtime.captured import CapturedDevice
    from pyvnet.runtime.core import DeviceCore


def device(host: CapturedDevice) -> dict[str, Any]:
    """Everything about one device; counters are since its start."""
    model = host.device
    config = NetConfig.unpack(model.read_config(0, 28))
    return {
        "status": _names(model.status, DeviceStatus),
        "features": {
            "offered": feature_names(model.offered),
            "negotiated": feature_names(model.features),
        },
        "config": {
            "mac": config.mac.hex(":"),
            "link": "up" if model.state.host.link_up else "down",
            "announce": bool(config.status & LinkStatus.ANNOUNCE),
            "max_virtqueue_pairs": config.max_virtqueue_pairs,
            "mtu": config.mtu or None,
        },
        "steering": _steering(host, model.policy),
        "rx_filter": _rx_filter(model.policy),
        "offloads": {
            "guest": feature_names(model.policy.guest_offloads),
            "host": feature_names(model.policy.host_offloads),
        },
        "header_length": model.policy.header_length,
        "host_port": host.netdev.describe(),
        "engine": engine(host.engine),
        "queues": [{"pair": pair, **asdict(host.statistics(pair))} for pair in range(host.pairs)],
        "counters": asdict(model.state.counters),
        "capture": host.capture_status(),
    }


def engine(of: Engine) -> dict[str, Any]:
    """How its workers work; ``io_uring`` is a finding as ``pyvnet caps`` has them.

    Beside that it says how many workers use it; ``reason`` is about the others.
    """
    info = of.info()
    uring: dict[str, Any] = {"available": not info.io_reason, "workers": info.uring_workers}
    if info.io_reason:
        without = info.workers - info.uring_workers
        some = f"{without} of {info.workers} workers go without: " if info.uring_workers else ""
        uring |= {"reason": some + info.io_reason, "cure": info.io_cure}
    refused = {"guest_memory_reason": info.pin_reason} if info.pin_reason else {}
    return {
        "workers": info.workers,
        "io": info.io,
        "io_uring": uring,
        "poll_us": info.poll_us,
        "guest_memory_pinned": info.pinned,
        **refused,
        "hash_kernel": info.hash_kernel,
    }


def _steering(host: DeviceCore, policy: Policy) -> dict[str, Any]:
    state = host.device.state.steering
    return {
        **host.steering.status(policy.mode),
        "mode": str(policy.mode),
        "hash_types": _names(policy.hash_types, HashType),
        "key": policy.key.hex(),
        "indirection_table": list(policy.indirection_table),
        "unclassified_queue": policy.unclassified_queue,
        "max_tx_vq": state.max_tx_vq,
        "pairs": policy.pairs,
        "queues_in_force": sorted(policy.queues_in_force),
    }


def _rx_filter(policy: Policy) -> dict[str, Any]:
    rx = policy.rx_filter
    modes = ("promisc", "allmulti", "alluni", "nomulti", "nouni", "nobcast")
    return {
        "modes": [mode for mode in modes if getattr(rx, mode)],
        "unicast": [mac.hex(":") for mac in rx.unicast],
        "multicast": [mac.hex(":") for mac in rx.multicast],
        "unicast_overflow": rx.unicast_overflow,
        "multicast_overflow": rx.multicast_overflow,
        "vlan_filter": policy.vlan_filter,
        "vlans": sorted(rx.vlans),
    }


def _names(value: int, kind: type[IntFlag]) -> list[str]:
    return [bit.name.lower() for bit in kind if bit.name and value & bit]
