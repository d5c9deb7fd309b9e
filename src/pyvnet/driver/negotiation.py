# SPDX-License-Identifier: MIT
"""What the driver asks for, and what follows from it: bits, queue layout, memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pyvnet.driver.errors import NegotiationError
from pyvnet.errors import UsageError
from pyvnet.spec.features import Feature, feature_names, features_from_names, missing_dependencies
from pyvnet.spec.ring import avail_ring_size, desc_table_size, used_ring_size

if TYPE_CHECKING:
    from pyvnet.spec.config import NetConfig

# What this driver can live with.  Left out: other ring formats, other headers, other
# buses, and GUEST_HDRLEN, a promise about headers that callers make themselves.
IMPLEMENTED: Final = features_from_names(
    "csum,guest_csum,ctrl_guest_offloads,mtu,mac,guest_tso4,guest_tso6,guest_ecn,guest_ufo,"
    "host_tso4,host_tso6,host_ecn,host_ufo,mrg_rxbuf,status,ctrl_vq,ctrl_rx,ctrl_vlan,"
    "ctrl_rx_extra,guest_announce,mq,ctrl_mac_addr,indirect_desc,event_idx,in_order,version_1,"
    "device_stats,hash_tunnel,vq_notf_coal,notf_coal,guest_uso4,guest_uso6,host_uso,"
    "hash_report,rss,speed_duplex"
)

# Room beside rings and buffers: control commands, and whatever a test lays out by hand.
_SPARE_MEMORY: Final = 16 << 20


def choose_features(wanted: Feature | None, offered: Feature) -> Feature:
    """The bits to accept: VERSION_1 comes along; None means all that both sides have.

    Of an offer that is not consistent (VIO-FEAT-01), None takes the part that is.

    Raises:
        NegotiationError: not offered, not implemented here, or without what they require.
        UsageError: no features at all.
    """
    if not isinstance(wanted, int | None):
        raise UsageError(f"{wanted!r} is no set of features: Feature.RSS | Feature.MQ")
    chosen = (_consistent(offered & IMPLEMENTED) if wanted is None else wanted) | Feature.VERSION_1
    if lacking := chosen & ~offered:
        raise NegotiationError(f"not offered: {','.join(feature_names(lacking))}")
    if foreign := chosen & ~IMPLEMENTED:
        raise NegotiationError(f"not implemented here: {','.join(feature_names(foreign))}")
    for bit, needs in missing_dependencies(chosen).items():
        raise NegotiationError(
            f"{','.join(feature_names(bit))} requires {' or '.join(feature_names(needs))}"
        )
    return chosen


def _consistent(features: Feature) -> Feature:
    """Without every bit that lacks what it requires, until none does."""
    while missing := missing_dependencies(features):
        for bit in missing:
            features &= ~bit
    return features


def pairs_offered(features: Feature, config: NetConfig) -> int:
    """Queue pairs the layout has room for; the controlq is at twice that.

    It depends on what was negotiated, not on what was offered: without MQ and
    RSS there is one pair, whatever max_virtqueue_pairs says.

    Raises:
        NegotiationError: there would be none.
    """
    if not features & (Feature.MQ | Feature.RSS):
        return 1
    if not config.max_virtqueue_pairs:
        raise NegotiationError("MQ or RSS was negotiated, and max_virtqueue_pairs is 0")
    return config.max_virtqueue_pairs


def memory_needed(queues: int, queue_size: int, buffers: int) -> int:
    """Bytes of guest memory for so many rings and so many bytes of buffers, with room to spare.

    It is a memfd: what is never touched costs nothing.
    """
    ring = desc_table_size(queue_size) + avail_ring_size(queue_size) + used_ring_size(queue_size)
    return queues * (ring + 64) + buffers + _SPARE_MEMORY
